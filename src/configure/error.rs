//! Why packages could not be *configured*, and what to type next.

use std::path::PathBuf;

use crate::fsio::PathError;
use crate::root::RootError;
use crate::sandbox::SandboxError;

/// Why packages could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A package's record cannot be read.
    #[error(transparent)]
    Package(#[from] RootError),
    /// The sandbox could not be set up.
    #[error("cannot run the {script} of `deb:{package}`")]
    Sandbox {
        /// The package.
        package: String,
        /// Its script.
        script: String,
        /// Why.
        #[source]
        source: SandboxError,
    },
    /// A script failed.
    #[error("the {script} script of `deb:{package}` {ended}{}", tail_text(tail))]
    Script {
        /// The package.
        package: String,
        /// Its script.
        script: String,
        /// How it ended: "failed with exit status 1".
        ended: String,
        /// The last lines that it printed.
        tail: Vec<String>,
    },
    /// Answers that no question is asked for, or that it does not take.
    #[error("`debconf` has answers that cannot be given{}", tail_text_of(wrong))]
    Answers {
        /// What is wrong with each.
        wrong: Vec<String>,
    },
    /// A locale that there is not.
    #[error("Debian has no locale `{name}`")]
    Locale {
        /// What was asked for.
        name: String,
        /// One that is spelt alike.
        similar: Option<String>,
    },
    /// A script made a file whose name is not UTF-8.
    #[error("a script made `/{path}`, whose name is not UTF-8")]
    Name {
        /// The path, escaped.
        path: String,
    },
    /// What a configure step recorded cannot be read.
    #[error("`{}` is not the record of a configure step: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The sandboxes were cancelled.
    #[error("the build was cancelled")]
    Cancelled,
}

fn tail_text(tail: &[String]) -> String {
    let lines = tail.iter().map(|line| format!("\n    {line}"));
    match tail.is_empty() {
        true => String::new(),
        false => format!("\n  the last lines that it printed:{}", lines.collect::<String>()),
    }
}

fn tail_text_of(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

impl ConfigureError {
    /// What to type next.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Sandbox { source, .. } => source.help(),
            Self::Package(error) => error.help(),
            Self::Script { package, .. } => Some(format!(
                "leave the package as it is with `configure = {{ skip = [\"deb:{package}\"] }}`; `configure = false` runs no \
                 script at all"
            )),
            Self::Record { .. } => Some("mend the store with `layerize store verify --repair`".to_owned()),
            Self::Answers { .. } => Some(
                "a package's questions are in its templates: `dpkg-deb -I FILE.deb templates`, or `debconf-show PACKAGE` where it \
                 is installed"
                    .to_owned(),
            ),
            Self::Locale { similar, .. } => Some(match similar {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => "write a name of the first column of `/usr/share/i18n/SUPPORTED`, which is in the package `locales`"
                    .to_owned(),
            }),
            Self::Io(_) | Self::Name { .. } | Self::Cancelled => None,
        }
    }
}
