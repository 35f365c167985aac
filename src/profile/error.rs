//! Why a *profile* could not be changed, and what to type next.

use std::path::PathBuf;

use crate::fsio::PathError;
use crate::shell_word::quoted;
use crate::store::StoreError;
use crate::store_path::{StoreDir, StorePath};

/// Why a profile could not be changed or read.
#[expect(missing_docs, reason = "the fields are what the variant's message names")]
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The store could not do what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A manifest makes no sense.
    #[error("`{}` cannot be read: {reason}", file.display())]
    Manifest { file: PathBuf, reason: String },
    /// Something else stands where the link is to be.
    #[error("`{}` is not a link to a generation of a profile", link.display())]
    NotALink { link: PathBuf },
    /// The profile belongs to another store.
    #[error("the packages of the profile `{}` are in the store `{}`, not in `{}`", profile.display(), store.display(), asked.display())]
    OtherStore {
        profile: PathBuf,
        store: PathBuf,
        asked: PathBuf,
    },
    /// There is nothing in a package that a profile has.
    #[error("`{}` has nothing to install: neither programs in `bin` or `sbin` nor files in `share`", StoreDir::layerize().join(path))]
    Nothing { path: StorePath, of_root: bool },
    /// Two packages have the same file.
    #[error("`{first}` and `{second}` both have `{file}`, and neither goes first")]
    Conflict {
        file: String,
        first: String,
        second: String,
        priority: i32,
    },
    /// No package is called so.
    #[error("nothing called `{name}` is installed")]
    NotInstalled { name: String, known: Vec<String> },
    /// There is no such generation.
    #[error("there is no generation {number}")]
    NoGeneration { number: u64, known: Vec<u64> },
    /// Nothing was ever installed.
    #[error("nothing was ever installed in `{}`", profile.display())]
    Empty { profile: PathBuf },
    /// The oldest generation is in use.
    #[error("generation {current} is in use, and there is none before it")]
    NothingEarlier { current: u64 },
    /// What the generation in use was made from was removed.
    #[error("generation {current} was made from generation {before}, which is gone")]
    EarlierGone { current: u64, before: u64, known: Vec<u64> },
    /// The generation in use cannot be read.
    #[error("generation {number}, which `{}` leads to, cannot be used: {reason}", link.display())]
    Damaged {
        link: PathBuf,
        number: u64,
        others: Vec<u64>,
        reason: String,
    },
    /// A generation leads to what the store has no more.
    #[error("generation {number} cannot be used: `{name}`, `{}`, is gone from the store", StoreDir::layerize().join(path))]
    Lost { number: u64, name: String, path: StorePath },
}

impl ProfileError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Store(error) => return error.help(),
            Self::Io(_) => return None,
            Self::Manifest { .. } => "use another generation: `layerize rollback N` (`layerize profile history` lists them)".to_owned(),
            Self::NotALink { link } => {
                let old = link.with_extension("old");
                format!("move it away: `mv {} {}`", quoted(link), quoted(&old))
            }
            Self::OtherStore { store, .. } => format!("use that store: `--store {}`", store.display()),
            Self::Nothing { of_root: true, .. } => "it is laid out for the root of a system (`usr/…`), as Debian's packages are: put it \
                                                    into an image (`root = [\"deb:…\"]`) and use `layerize run --isolated`, or \
                                                    make a package of it that is linked to what it needs"
                .to_owned(),
            Self::Nothing { .. } => "have its script put programs into `$out/bin`".to_owned(),
            Self::Conflict {
                first,
                second,
                priority,
                ..
            } => format!(
                "say which goes first: `layerize install {second} --priority {}` (or `--priority {}`, for `{first}`); or, where \
                 both are installed, take one out: `layerize uninstall {first}`",
                priority.saturating_sub(1),
                priority.saturating_add(1)
            ),
            Self::NotInstalled { known, .. } if known.is_empty() => "nothing is: `layerize install NAME`".to_owned(),
            Self::NotInstalled { known, .. } => format!("installed are: {}", known.join(", ")),
            Self::NoGeneration { known, .. } if known.is_empty() => {
                "there are none: install something, `layerize install NAME`".to_owned()
            }
            Self::NoGeneration { known, .. } => format!("there are: {}", listed(known)),
            Self::EarlierGone { known, .. } => format!("name one: `layerize rollback N` (there are: {})", listed(known)),
            Self::Damaged { link, others, .. } => {
                let anew = format!("begin anew: `rm {}`, then `layerize install NAME`", quoted(link));
                match others.is_empty() {
                    true => anew,
                    false => format!("use another: `layerize rollback N` (there are: {}); or {anew}", listed(others)),
                }
            }
            Self::Empty { .. } => "install something: `layerize install NAME`".to_owned(),
            Self::NothingEarlier { .. } => "`layerize profile history` lists what there is".to_owned(),
            Self::Lost { .. } => "install it again, from its spec".to_owned(),
        })
    }
}

fn listed(numbers: &[u64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    numbers.join(", ")
}
