//! What is told about Debian packages that cannot be had: for which architecture, and what to do.
//!
//! Invariant: nothing is asked of anybody; an error and what the caller knows decide.

use crate::fetch::FetchError;
use crate::spec::machine_architecture;

impl FetchError {
    /// The same of packages for this architecture.
    pub(in crate::fetch) fn for_architecture(self, architecture: &str) -> Self {
        match self {
            Self::UnknownDeb {
                name,
                similar: None,
                providers,
            } if providers.is_empty() && architecture != machine_architecture() => Self::NotForArchitecture {
                name,
                architecture: architecture.to_owned(),
            },
            other => other,
        }
    }

    /// What to do where a Debian package cannot be had; `None` for every other error.
    pub(in crate::fetch) fn debian_help(&self) -> Option<String> {
        let help = match self {
            Self::UnknownDeb {
                similar, providers, ..
            } => match (providers.as_slice(), similar) {
                ([], Some(similar)) => format!("did you mean `deb:{similar}`?"),
                ([], None) => "`apt-cache search WORD` lists packages".to_owned(),
                (providers, _) => format!("the name is virtual; take one that provides it: {}", providers.join(", ")),
            },
            Self::NotForArchitecture { architecture, .. } => format!(
                "not every release has every architecture, and this one may have nothing for {architecture}: leave it out of \
                 `platform`, or name a release that has it in `[debian] sources`"
            ),
            Self::NoTools { .. } => {
                "name an archive of Debian's own in `[debian] sources`, or write `configure = false` in the images with \
                 `root`: their packages are laid out and no script runs"
                    .to_owned()
            }
            Self::NoCrossCompiler { .. } => {
                "name an archive that has it in `[debian] sources`, or leave `cross` out of the package: it is built through an \
                 emulator, or at a builder (`layerize help emulation`)"
                    .to_owned()
            }
            Self::UnknownDebSource { .. } => {
                "`apt-cache showsrc PACKAGE` tells a binary package's source (it needs deb-src lines)".to_owned()
            }
            Self::Apt { .. } | Self::AptAnswer { .. } => {
                "apt's sources are those of `[debian] sources`, or else this machine's (`/etc/apt`)".to_owned()
            }
            _ => return None,
        };
        Some(help)
    }
}
