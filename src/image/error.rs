//! Why an image could not be made, and what to type next.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use super::program::LoadFault;
use crate::fsio::PathError;
use crate::layer::LayerError;
use crate::layer::partition::PlanError;
use crate::oci::{DocumentError, LayerLimit, Platform};
use crate::root::RootError;
use crate::store_path::{HASH_CHARS, LogicalPath};

/// Most collisions or faults that a message lists.
const COLLISIONS_SHOWN: usize = 20;

/// Most pieces of advice that follow a list of faults.
const HELPS_SHOWN: usize = 4;

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The packages of `root` cannot make up one tree.
    #[error(transparent)]
    Root(#[from] RootError),
    /// What maintainer scripts made cannot be read.
    #[error(transparent)]
    Configured(#[from] crate::configure::ConfigureError),
    /// A layer could not be planned or packed.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// Contents bring different things of the same path.
    #[error("cannot join the contents under `/`: {}", CollisionList(collisions))]
    Collisions {
        /// All of them, by path.
        collisions: Vec<Collision>,
    },
    /// A content is a single file, which has no name under `/`.
    #[error("cannot join `{name}` under `/`: `{path}` is a file, not a directory")]
    ContentIsFile {
        /// What the user calls it.
        name: String,
        /// Its place in the image.
        path: LogicalPath,
    },
    /// A content is not in the closure or not on disk.
    #[error("cannot join `{name}` under `/`: `{path}` is not there")]
    ContentMissing {
        /// What the user calls it.
        name: String,
        /// Its place in the image.
        path: LogicalPath,
    },
    /// A file or symlink would stand where a directory with entries is.
    #[error("cannot put a file at `{path}`: the image has a directory there")]
    ReplacesDirectory {
        /// The path in the image.
        path: String,
    },
    /// Something would stand in a store path.
    #[error("cannot put anything at `{path}`: store paths never change")]
    InsideStorePath {
        /// The path in the image.
        path: String,
    },
    /// A parent of a path is a file, or a symlink that leads to no directory.
    #[error("cannot put anything at `{path}`: `{parent}` is not a directory in the image")]
    NotADirectory {
        /// The path in the image.
        path: String,
        /// Which of its parents.
        parent: String,
    },
    /// Two of `files` are for one path.
    #[error("`files` has `{path}` twice")]
    SamePath {
        /// The path in the image.
        path: String,
    },
    /// A path that is not absolute or holds `.` or `..`.
    #[error("`{path}` in `{field}` is not a path in an image: it must be absolute and hold no `.`, `..` or NUL")]
    Path {
        /// The spec's field.
        field: &'static str,
        /// What stands there.
        path: String,
    },
    /// A rule of `permissions` that is for nothing in the image.
    #[error("`permissions` rule `{rule}` matches nothing in the image")]
    NothingFits {
        /// The rule's path or pattern.
        rule: String,
        /// Where the path leads through links of the image.
        leads: Option<String>,
    },
    /// A rule that gives capabilities to what cannot have any.
    #[error("`permissions` rule `{rule}` gives capabilities, and matches no regular file of the image")]
    CapabilitiesOfNoFile {
        /// The rule's path or pattern.
        rule: String,
        /// Where the path leads through links of the image.
        leads: Option<String>,
    },
    /// Something stands where the image's Nix database goes.
    #[error("`{path}` is part of the Nix database that is made for the image, and is already in it")]
    Taken {
        /// The path in the image.
        path: String,
    },
    /// Permission bits out of range.
    #[error("the mode {mode:o} of `{path}` in `files` is more than 7777")]
    Mode {
        /// The path in the image.
        path: String,
        /// The bits.
        mode: u32,
    },
    /// A socket, device or too deep a tree among `files`.
    #[error("cannot put `{}` into an image: it is neither a file, a directory nor a symlink, or too deep", path.display())]
    Special {
        /// The path on disk.
        path: PathBuf,
    },
    /// The spec's `files` are not what they were when the image was begun.
    #[error("`files` changed on disk while the image was made")]
    FilesChanged,
    /// A value of the spec that a config cannot have.
    #[error("`{value}` cannot be used in `{field}`: {reason}")]
    Value {
        /// The spec's field.
        field: &'static str,
        /// What stands there.
        value: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A user that cannot be used in `etc/passwd`.
    #[error("`{name}` in `users` cannot be a user: {reason}")]
    User {
        /// The user's name.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// Two users with one number.
    #[error("users `{first}` and `{second}` both have the user ID {uid}")]
    SameUid {
        /// One user.
        first: String,
        /// Another.
        second: String,
        /// Their number.
        uid: u32,
    },
    /// `users` are declared and the image has a file of accounts of its own.
    #[error("cannot add the `users`: the image has a `{path}` of its own")]
    OwnAccounts {
        /// The path in the image.
        path: String,
    },
    /// A user or group that the image does not have.
    #[error("`{field}` names the {kind} `{name}`, which the image does not have")]
    UnknownAccount {
        /// The spec's field.
        field: &'static str,
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// One that the image has and that was probably meant.
        similar: Option<String>,
    },
    /// The command is not in the image.
    #[error("the {field} `{command}` is not in the image")]
    CommandMissing {
        /// `entrypoint`, `cmd` or `healthcheck`.
        field: &'static str,
        /// As the spec has it.
        command: String,
        /// What was looked for.
        wanted: String,
        /// A program in `PATH` that was probably meant.
        similar: Option<String>,
        /// The image's `PATH`.
        path: String,
    },
    /// The command is in the image, and not executable.
    #[error("the {field} `{path}` is not executable")]
    NotExecutable {
        /// `entrypoint` or `cmd`.
        field: &'static str,
        /// The path in the image.
        path: String,
    },
    /// Programs or libraries lack what they need.
    #[error("{}", FaultList(faults))]
    CannotLoad {
        /// Each of them, by path.
        faults: Vec<LoadFault>,
    },
    /// A program for another processor.
    #[error("`{program}` cannot start: it is for {machine}, and the image for {platform}")]
    WrongMachine {
        /// The path in the image.
        program: String,
        /// The processor that it is for.
        machine: String,
        /// The image's platform.
        platform: Box<Platform>,
    },
    /// A platform that no container runs on.
    #[error("cannot make an image for `{platform}`: no such platform is known")]
    Platform {
        /// The platform.
        platform: Platform,
    },
    /// A time that RFC 3339 cannot write.
    #[error("cannot say that an image was created {seconds} seconds after 1970: years go from 0 to 9999")]
    Created {
        /// Seconds since 1970.
        seconds: i64,
    },
    /// A document that is larger than readers take.
    #[error(transparent)]
    Document(Box<DocumentError>),
    /// Packages and store paths cannot be shared out among layers.
    #[error("cannot plan the image's layers")]
    Plan(#[from] PlanError),
    /// Fewer or more layers than an image can have.
    #[error(
        "the image needs at least {least} layers, and the limit is {max}; Docker loads no more than {}",
        LayerLimit::DOCKER
    )]
    LayersMax {
        /// What the spec says.
        max: usize,
        /// The least that this image needs.
        least: usize,
    },
    /// A given plan of too many layers.
    #[error(
        "the layer plan makes {layers} layers with that of the other files, and Docker loads no more than {}",
        LayerLimit::DOCKER
    )]
    PlanLayers {
        /// Layers of the image.
        layers: usize,
    },
    /// A debug image has too many layers with those of the image that it is of.
    #[error(
        "it has {layers} layers with the {above} of tools and debug files, and Docker loads no more than {}",
        LayerLimit::DOCKER
    )]
    DebugLayers {
        /// Layers of the debug image.
        layers: usize,
        /// Those that it has above the others.
        above: usize,
    },
    /// Something about the base that no image can stand on.
    #[error("the base cannot be used: {reason}")]
    BaseMalformed {
        /// What is wrong with it.
        reason: String,
    },
    /// The base and the packages of `root` are laid out in different ways.
    #[error("`{path}` is {base} in the base and {root} in the packages of `root`")]
    BaseDiffers {
        /// The path in the image.
        path: String,
        /// What the base has.
        base: &'static str,
        /// What the packages bring.
        root: &'static str,
    },
    /// The base is for another platform.
    #[error("the base is for `{base}`, the image for `{image}`")]
    BasePlatform {
        /// The base's.
        base: String,
        /// The image's.
        image: String,
    },
    /// The base leaves too few layers.
    #[error("the base has {base} layers, and {least} more do not fit into {max}")]
    BaseLayers {
        /// Layers of the base.
        base: usize,
        /// Fewest layers of the image's own.
        least: usize,
        /// Most layers there may be.
        max: usize,
    },
    /// A declared user is another one in the base.
    #[error("user `{name}` is in the base already, with the ID {uid} and another group or ID than declared")]
    BaseAccount {
        /// The user.
        name: String,
        /// Its ID in the base.
        uid: u32,
    },
}

/// Two different things of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collision {
    /// The path in the image.
    pub path: String,
    /// What is there: a path in a store path, or in the image where a package of `root` brings it.
    pub first: String,
    /// What cannot be there as well.
    pub second: String,
}

struct FaultList<'a>(&'a [LoadFault]);

impl fmt::Display for FaultList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [fault] = self.0 {
            return fault.fmt(f);
        }
        write!(
            f,
            "{} programs or libraries of the image lack what they need",
            self.0.len()
        )?;
        for fault in self.0.iter().take(COLLISIONS_SHOWN) {
            write!(f, "\n  {fault}")?;
        }
        match self.0.len().saturating_sub(COLLISIONS_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

struct CollisionList<'a>(&'a [Collision]);

impl fmt::Display for CollisionList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(
            f,
            "{count} path{} brought twice",
            if count == 1 { " is" } else { "s are" }
        )?;
        for Collision { path, first, second } in self.0.iter().take(COLLISIONS_SHOWN) {
            write!(f, "\n  `{path}`: `{first}` and `{second}`")?;
        }
        match count.saturating_sub(COLLISIONS_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// The advice for each fault, each once.
fn help_with_faults(faults: &[LoadFault]) -> String {
    let mut seen = BTreeSet::new();
    let helps = faults.iter().map(LoadFault::help);
    let helps = helps.filter(|help| seen.insert(help.clone())).take(HELPS_SHOWN);
    helps.collect::<Vec<_>>().join("\n")
}

/// How to name what a path of a rule leads to: the hash of a store path changes with every build.
fn help_with_rule(leads: &str) -> String {
    let store_path = leads.split_once("/store/").and_then(|(dir, rest)| {
        let (hash, name) = rest.split_once('-')?;
        (hash.len() == HASH_CHARS).then(|| format!("{dir}/store/*-{name}"))
    });
    match store_path {
        Some(pattern) => format!("it leads to `{leads}`: write `pattern = \"{pattern}\"`"),
        None => format!("it leads to `{leads}`: write `path = \"{leads}\"`"),
    }
}

impl ImageError {
    fn help_with_permissions(&self) -> Option<String> {
        match self {
            Self::NothingFits { leads, .. } | Self::CapabilitiesOfNoFile { leads, .. } => {
                leads.as_deref().map(help_with_rule)
            }
            _ => None,
        }
    }

    /// What to type next, where that can be told.
    pub fn help(&self) -> Option<String> {
        let did_you_mean = |similar: &Option<String>| similar.as_ref().map(|name| format!("did you mean `{name}`?"));
        Some(match self {
            Self::Root(error) => return error.help(),
            Self::Layer(error) => return error.help(),
            Self::Configured(error) => return error.help(),
            Self::Collisions { .. } => {
                "leave one of them out of `contents`, or put the file that is wanted into `files`' \
                place in a package of its own; their store paths are in the image either way"
                    .to_owned()
            }
            Self::ContentIsFile { name, path } => {
                let file = path.store_path();
                format!("let the script of `{name}` install into a directory, such as `$out/bin/{file}`")
            }
            Self::ContentMissing { .. } => "run `layerize store verify --repair`, then build again".to_owned(),
            Self::ReplacesDirectory { path } => format!("name the file below it, such as `{path}/NAME`"),
            Self::InsideStorePath { .. } => "put it elsewhere, or change what makes the store path".to_owned(),
            Self::Path { path, .. } if !path.starts_with('/') => format!("write `/{}`", path.trim_start_matches("./")),
            Self::FilesChanged => "run the command again".to_owned(),
            Self::SameUid { .. } => "give each user a `uid` of its own".to_owned(),
            Self::OwnAccounts { path } => format!("remove `users`, or what brings `{path}`"),
            Self::UnknownAccount {
                kind, name, similar, ..
            } => {
                return did_you_mean(similar).or_else(|| {
                    Some(format!(
                        "add `{name}` to the image's `users`, or write the {kind}'s number"
                    ))
                });
            }
            Self::CommandMissing {
                wanted, similar, path, ..
            } => {
                return did_you_mean(similar).or_else(|| {
                    Some(if wanted.contains('/') {
                        "name a program that one of `contents`, `root` or `files` brings".to_owned()
                    } else {
                        format!("it was looked for in `{path}`; add the package that has it to `contents` or `root`")
                    })
                });
            }
            Self::NotExecutable { path, .. } => {
                format!(
                    "make it executable: `mode = \"0755\"` in `files`, or `chmod +x $out{path}` in the package's script"
                )
            }
            Self::CannotLoad { faults } => help_with_faults(faults),
            Self::WrongMachine { machine, .. } => {
                format!("write `platform = \"linux/{machine}\"`, or build it for the image's platform")
            }
            Self::Platform { platform } => {
                let known =
                    super::program::similar(platform.architecture(), Platform::known_architectures().iter().copied());
                format!("did you mean `linux/{}`?", known.as_deref().unwrap_or("amd64"))
            }
            Self::Created { .. } => "set `SOURCE_DATE_EPOCH` to seconds since 1970, or unset it".to_owned(),
            Self::Document(_) => {
                "make labels, annotations and the environment shorter: put long texts into files of the image"
                    .to_owned()
            }
            Self::Plan(error) => return error.help(),
            Self::LayersMax { least, .. } => {
                format!(
                    "write `layers = {{ max = N }}` with N from {least} to {}",
                    LayerLimit::DOCKER
                )
            }
            Self::PlanLayers { .. } => "put paths that change together into one layer of the plan".to_owned(),
            _ => return self.help_with_layers(),
        })
    }

    fn help_with_layers(&self) -> Option<String> {
        Some(match self {
            Self::DebugLayers { above, .. } => {
                let most = LayerLimit::DOCKER.get().saturating_sub(*above);
                format!("write `layers = {{ max = {most} }}` or less, or leave `max` out")
            }
            Self::BaseMalformed { .. } => "choose another base".to_owned(),
            Self::BaseDiffers { .. } => {
                "choose a base with a merged `/usr`, such as Debian's own images, or leave `root` out and name the \
                 packages in `contents`"
                    .to_owned()
            }
            Self::BasePlatform { base, .. } => {
                format!("write `platform = \"{base}\"`, or choose a base that has the image's platform")
            }
            Self::BaseLayers { .. } => {
                format!(
                    "choose a base of fewer layers, or raise `layers.max` (to {} at most)",
                    LayerLimit::DOCKER
                )
            }
            Self::BaseAccount { .. } => "leave it out of `users`, or give it another name".to_owned(),
            _ => return self.help_with_permissions(),
        })
    }
}
