//! Why a program or library of an image cannot be loaded, and what to type next.

use std::fmt;

/// Directories that a message lists before it counts the rest.
const DIRS_SHOWN: usize = 6;

/// A file of the image that cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadFault {
    /// Its path in the image.
    pub file: String,
    /// Whose it is.
    pub owner: Owner,
    /// What it lacks.
    pub lack: Lack,
    /// The symlink at which the search for that ends, and its target.
    pub dangling: Option<(String, String)>,
    /// A Debian package that brings it, where one is known.
    pub package: Option<String>,
    /// Debian packages that the image's `exclude` leaves out and that may be the ones that bring it.
    pub left_out: Vec<String>,
}

/// Who brought a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A package of the spec; whether its programs are linked to the store.
    Built {
        /// What the store path is called.
        name: String,
        /// Whether it names an interpreter or libraries by store path.
        is_linked: bool,
    },
    /// A Debian package that is in the image by its store path, of this name.
    DebianContent(String),
    /// A Debian package at `/`.
    Root,
    /// Somebody else: `files`, a Nix store, or the base.
    Other,
}

/// What a file lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// The interpreter of a program or script.
    Interpreter(String),
    /// The command that `env` looks for in `PATH`.
    Command(String),
    /// A library.
    Library {
        /// Its name.
        name: String,
        /// The library that needs it, where that is not the file itself.
        needed_by: Option<String>,
        /// Where the loader looked.
        searched: Vec<String>,
        /// Where the image has a file of this name.
        elsewhere: Option<String>,
        /// Whether the file is a library, which no program of the image loads by itself.
        for_library: bool,
    },
    /// It is neither a program nor a script that the kernel takes.
    Malformed {
        /// Why.
        reason: String,
        /// What to do.
        help: String,
    },
}

impl Lack {
    /// What is missing, as `allow-missing` names it.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Interpreter(name) | Self::Command(name) | Self::Library { name, .. } => Some(name),
            Self::Malformed { .. } => None,
        }
    }
}

impl fmt::Display for LoadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, lack, .. } = self;
        match lack {
            Lack::Interpreter(name) => {
                write!(f, "`{file}` cannot start: its interpreter `{name}` is not in the image")?;
            }
            Lack::Command(name) => write!(
                f,
                "`{file}` cannot start: `env` finds no `{name}` in the image's `PATH`"
            )?,
            Lack::Malformed { reason, .. } => write!(f, "`{file}` cannot start: {reason}")?,
            Lack::Library {
                name,
                needed_by,
                searched,
                for_library,
                ..
            } => {
                let verb = if *for_library { "be loaded" } else { "start" };
                write!(f, "`{file}` cannot {verb}: `{name}`")?;
                if let Some(by) = needed_by {
                    write!(f, ", which `{by}` needs,")?;
                }
                write!(f, " is not in the image")?;
                if !searched.is_empty() {
                    write!(f, " where it is looked for ({})", directories(searched))?;
                }
            }
        }
        match &self.dangling {
            Some((link, target)) => write!(f, ": `{link}` is a symlink to `{target}`, which leads nowhere"),
            None => Ok(()),
        }
    }
}

fn directories(dirs: &[String]) -> String {
    let shown: Vec<&str> = dirs.iter().take(DIRS_SHOWN).map(String::as_str).collect();
    match dirs.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl LoadFault {
    /// What to type next.
    pub fn help(&self) -> String {
        if let Some(advice) = self.help_with_exclusion() {
            return advice;
        }
        let advice = match &self.lack {
            Lack::Malformed { help, .. } => return help.clone(),
            Lack::Interpreter(name) => self.help_with_interpreter(name),
            Lack::Command(name) => match &self.package {
                Some(package) => format!("add `deb:{package}` to `root`"),
                None => format!("add the package that has `{name}` to `contents` or `root`, or set `PATH` in `env`"),
            },
            Lack::Library { name, elsewhere, .. } => self.help_with_library(name, elsewhere.as_deref()),
        };
        match self.lack.name() {
            Some(name) if matches!(self.lack, Lack::Library { .. }) => {
                format!("{advice}; where it comes from elsewhere at run time, `allow-missing = [\"{name}\"]`")
            }
            _ => advice,
        }
    }

    /// Where the image leaves out what it lacks.
    fn help_with_exclusion(&self) -> Option<String> {
        let name = self.lack.name().filter(|_| !self.left_out.is_empty())?;
        let left_out = self.left_out.join("`, `deb:");
        Some(match self.package {
            Some(_) => {
                format!("`exclude` leaves out `deb:{left_out}`, which has it: take it, or what needs it, out of there")
            }
            None => format!(
                "it may be in what `exclude` leaves out (`deb:{left_out}`); else add the package that has `{name}`"
            ),
        })
    }

    fn help_with_interpreter(&self, name: &str) -> String {
        match (&self.owner, &self.package) {
            (Owner::DebianContent(package), _) => format!(
                "write `root = [\"deb:{package}\"]` in place of `contents`: Debian's programs look for everything at `/`"
            ),
            (Owner::Built { is_linked: false, .. }, Some(package)) if is_loader(name) => format!(
                "link it to the store with `libraries = [\"deb:libc6-dev\"]` in its package, or add `deb:{package}` to \
                 `root`"
            ),
            (_, Some(package)) => format!("add `deb:{package}` to `root`"),
            (_, None) => format!(
                "add the package that has `{name}` to `root` or `contents`, or build the program against `libraries`"
            ),
        }
    }

    fn help_with_library(&self, name: &str, elsewhere: Option<&str>) -> String {
        if is_of_nvidia(name) {
            return "NVIDIA's container runtime brings it when the container starts".to_owned();
        }
        if let Some(path) = elsewhere {
            let dir = path.rsplit_once('/').map_or("/", |(dir, _)| dir);
            return format!(
                "the image has `{path}`, where the loader does not look: `env = {{ LD_LIBRARY_PATH = \"{dir}\" }}`"
            );
        }
        let what = match &self.package {
            Some(package) => format!("`deb:{package}`"),
            None => "the package that has it".to_owned(),
        };
        match &self.owner {
            Owner::Built { name, is_linked: true } => {
                format!("add {what} to `libraries` of the package that makes `{name}`")
            }
            Owner::DebianContent(package) => format!(
                "write `root = [\"deb:{package}\"]` in place of `contents`: Debian's programs look for everything at `/`"
            ),
            Owner::Built { .. } | Owner::Root | Owner::Other => format!("add {what} to `root`"),
        }
    }
}

/// Whether an interpreter is a loader of libraries.
fn is_loader(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.starts_with("ld-") || name.starts_with("ld64.")
}

/// Libraries that belong to the driver of the machine, and are put into containers by the vendor's runtime.
fn is_of_nvidia(name: &str) -> bool {
    ["libcuda.so", "libnvidia-", "libnvcuvid.so"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// The Debian package of what every image of Debian may need, by the last part of its path. Names that every release has.
pub(super) fn well_known_package(name: &str) -> Option<&'static str> {
    let name = name.rsplit('/').next().unwrap_or(name);
    let known: &[(&[&str], &str)] = &[
        (&["sh", "dash"], "dash"),
        (&["bash"], "bash"),
        (&["env", "cat", "true", "false", "sleep"], "coreutils"),
        (&["perl"], "perl-base"),
        (&["python3"], "python3"),
        (&["node", "nodejs"], "nodejs"),
        (&["ruby"], "ruby"),
        (&["awk", "mawk"], "mawk"),
        (&["sed"], "sed"),
        (&["make"], "make"),
        (&["php"], "php-cli"),
        (&["lua"], "lua5.4"),
        (&["tclsh"], "tcl"),
        (&["Rscript"], "r-base-core"),
        (&["ld-musl-x86_64.so.1", "ld-musl-aarch64.so.1"], "musl"),
        (&["libstdc++.so.6"], "libstdc++6"),
        (&["libgcc_s.so.1"], "libgcc-s1"),
        (&["libgomp.so.1"], "libgomp1"),
        (&["libatomic.so.1"], "libatomic1"),
        (&["libgfortran.so.5"], "libgfortran5"),
        (&["libquadmath.so.0"], "libquadmath0"),
        (&["libz.so.1"], "zlib1g"),
        (&["libcrypt.so.1"], "libcrypt1"),
    ];
    let found = known.iter().find(|(names, _)| names.contains(&name));
    let of_libc = || {
        let stems = [
            "libc",
            "libm",
            "libdl",
            "libpthread",
            "librt",
            "libresolv",
            "libutil",
            "libnsl",
        ];
        let stem = name.split_once(".so.").map(|(stem, _)| stem);
        let is_glibc = name.starts_with("ld-linux") || name.starts_with("ld64.so") || name.starts_with("libnss_files");
        (is_glibc || stem.is_some_and(|stem| stems.contains(&stem))).then_some("libc6")
    };
    found.map(|&(_, package)| package).or_else(of_libc)
}
