//! What is shown when a command fails: `error:`, its causes, and what to type next.
//!
//! Invariant: exit status 2 is trouble, 1 is the answer no; a closed pipe is no trouble.

use std::fmt::Write as _;
use std::io;

use crate::attest::AttestError;
use crate::audit::AuditError;
use crate::audit::UnknownClass;
use crate::binary_cache::{CacheError, KeyError};
use crate::build::BuildError;
use crate::container::ContainerError;
use crate::escape::shown_message;
use crate::fetch::{FetchError, UnpackError};
use crate::image::{ImageError, IndexError};
use crate::inputs::InputsError;
use crate::layer::LayerError;
use crate::layer::partition::PlanError;
use crate::nar::NarError;
use crate::oci::{LayerStrategyError, ParseCompressionError, PortError, ReferenceError, TarProfileError};
use crate::peer::{PeerError, SshAddressError};
use crate::profile::ProfileError;
use crate::project::ProjectError;
use crate::project::attach::AttachError;
use crate::project::check::CheckError;
use crate::project::place::TransferError;
use crate::project::rebuild::RebuildError;
use crate::project::update::UpdateError;
use crate::remote::{BuilderAddressError, RemoteError};
use crate::root::RootError;
use crate::shared_cache::SharedCacheError;
use crate::spec::Diagnostics;
use crate::store::StoreError;
use crate::transport::TransportError;

use super::fault::InternalError;
use super::ui::Ui;

/// A failure with advice that the command itself has.
#[derive(Debug)]
pub struct Advised {
    /// What failed.
    pub message: String,
    /// What to type next.
    pub help: String,
}

impl std::fmt::Display for Advised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Advised {}

/// An [`anyhow::Error`] with advice.
pub fn advised(message: impl Into<String>, help: impl Into<String>) -> anyhow::Error {
    Advised {
        message: message.into(),
        help: help.into(),
    }
    .into()
}

/// Prints a failure to standard error.
pub fn show(error: &anyhow::Error, ui: &Ui) {
    ui.clear();
    let rendered = render(error, ui.color(), &|word, sgr| ui.paint(word, sgr));
    ui.lines(rendered.trim_end());
}

/// A failure as it is shown, for somewhere else than a terminal: its first line says what failed.
pub fn plain(error: &anyhow::Error) -> String {
    let rendered = render(error, false, &|word, _| word.to_owned());
    let text = rendered.trim_end();
    text.strip_prefix("error: ").unwrap_or(text).to_owned()
}

fn render(error: &anyhow::Error, color: bool, paint: &dyn Fn(&str, &str) -> String) -> String {
    if let Some(diagnostics) = diagnostics(error) {
        return diagnostics.render(color);
    }
    let mut last = error.to_string();
    let mut text = format!("{} {}\n", paint("error:", "1;31"), shown_message(&last));
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Transparent errors print what their source prints: once is enough.
        if cause != last {
            let _ = writeln!(text, "caused by: {}", shown_message(&cause));
        }
        last = cause;
    }
    let mut helps: Vec<String> = error.chain().filter_map(help).collect();
    helps.dedup();
    if helps.is_empty() {
        helps.extend(error.chain().find_map(help_of_system));
    }
    for help in helps {
        let _ = writeln!(text, "{} {}", paint("help:", "1;36"), shown_message(&help));
    }
    text
}

/// The mistakes in a spec or a lock, where those are the failure.
fn diagnostics(error: &anyhow::Error) -> Option<&Diagnostics> {
    let of_project = || error.downcast_ref::<ProjectError>()?.diagnostics();
    let of_rebuild = || match error.downcast_ref::<RebuildError>()? {
        RebuildError::Project(error) => error.diagnostics(),
        _ => None,
    };
    error
        .downcast_ref::<Diagnostics>()
        .or_else(of_project)
        .or_else(of_rebuild)
}

/// The advice that an error of one of our modules carries.
pub fn help(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    // An error of ours that went through a reader stands inside an I/O error.
    if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return help(inner);
    }
    if let Some(inner) = error.downcast_ref::<Box<ProjectError>>() {
        return help(inner.as_ref());
    }
    macro_rules! first_help {
        ($($kind:ty),*) => {
            None$(.or_else(|| error.downcast_ref::<$kind>().and_then(<$kind>::help)))*
        };
    }
    error
        .downcast_ref::<Advised>()
        .map(|advised| advised.help.clone())
        .or_else(|| {
            first_help!(
                AttachError,
                AttestError,
                AuditError,
                BuildError,
                BuilderAddressError,
                RemoteError,
                CacheError,
                CheckError,
                UpdateError,
                ContainerError,
                InternalError,
                FetchError,
                InputsError,
                ImageError,
                IndexError,
                KeyError,
                LayerError,
                LayerStrategyError,
                NarError,
                ParseCompressionError,
                PeerError,
                PlanError,
                PortError,
                ProfileError,
                ProjectError,
                RebuildError,
                ReferenceError,
                RootError,
                SharedCacheError,
                SshAddressError,
                StoreError,
                TarProfileError,
                TransferError,
                TransportError,
                UnknownClass,
                UnpackError
            )
        })
}

/// The advice that fits a failure of the system, whatever was being done.
fn help_of_system(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let help = match error.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full, or your part of it: `layerize store gc` frees what nothing needs; \
             what was complete before is untouched"
        }
        io::ErrorKind::InvalidFilename => {
            "a name may have 255 bytes and a path 4095: use shorter names, fewer directories in one another, or a \
             store in a shorter directory (`--store DIR`)"
        }
        _ => return None,
    };
    Some(help.to_owned())
}

/// Whether the failure is that whoever read our output went away.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
