//! How a shell *starts*: which program it is, and what it reads before the user types.
//!
//! Invariant: the user's own start files are read as ever, from where they are; behind them the environment's programs come
//! first on `PATH` again. What they do later is theirs.

use std::path::{Path, PathBuf};

use super::machine::{CROSSING_PROGRAMS, MachineProgram};
use super::{BuildError, ShellOptions, Task};
use crate::build::rootfs::Root;
use crate::sandbox::tree::Tree;

/// Where the files are that the shells read, relative to the root.
const START: &str = "usr/libexec/layerize/start";

/// Where shells of the machine are in the shell's root, relative to it.
const SHELLS: &str = "usr/libexec/layerize/shells";

/// The variable in which a start file finds the directories that come first on `PATH`.
pub(super) const PATH_VARIABLE: &str = "__LAYERIZE_PATH";

/// A kind of shell whose start files are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bash,
    Zsh,
    Fish,
}

impl Kind {
    fn of(program: &Path) -> Option<Self> {
        match program.file_name()?.to_str()? {
            "bash" => Some(Self::Bash),
            "zsh" => Some(Self::Zsh),
            "fish" => Some(Self::Fish),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }

    /// What of the machine's files such a shell does not work without, where the environment has no such shell.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Self::Bash => &[],
            Self::Zsh => &["/usr/share/zsh", "/usr/lib/zsh", "/usr/lib64/zsh", "/etc/zsh"],
            Self::Fish => &["/usr/share/fish", "/etc/fish"],
        }
    }
}

/// The program of a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShellProgram {
    /// Absolute path inside.
    pub path: String,
    /// Its arguments where a person is to type.
    pub arguments: Vec<String>,
    /// Variables that it needs to find its start files.
    pub variables: Vec<(String, String)>,
    /// Files and directories of the machine that it needs at their own places.
    pub files: Vec<PathBuf>,
}

/// Which shell runs where a person is to type: the user's own where its start files are known and it has what it needs, from the
/// environment or from the machine; else bash, else what is there.
pub(super) fn interactive(
    root: &Root,
    options: &ShellOptions,
    libraries: &Path,
) -> Result<Option<ShellProgram>, BuildError> {
    let wanted = options.user.shell.as_deref().filter(|_| !options.pure);
    if let Some((shell, kind)) = wanted.and_then(|shell| Some((shell, Kind::of(shell)?))) {
        if let Some(path) = root.program(&[kind.name()]) {
            return with_start_files(path, kind, &root.fixups, options).map(Some);
        }
        if let Some(program) = MachineProgram::find(shell, libraries)? {
            let path = format!("{SHELLS}/{}", kind.name());
            root.fixups.file(&path, &program.script(""), 0o755)?;
            let mut found = with_start_files(format!("/{path}"), kind, &root.fixups, options)?;
            found.files = files_of(kind, &program);
            return Ok(Some(found));
        }
    }
    match (root.program(&["bash"]), options.pure) {
        (Some(path), false) => with_start_files(path, Kind::Bash, &root.fixups, options).map(Some),
        (Some(path), true) => {
            let arguments = ["--noprofile", "--norc"].map(str::to_owned).to_vec();
            Ok(Some(bare(path, arguments)))
        }
        (None, _) => Ok(root.program(&["sh", "dash"]).map(|path| bare(path, Vec::new()))),
    }
}

fn bare(path: String, arguments: Vec<String>) -> ShellProgram {
    ShellProgram {
        path,
        arguments,
        variables: Vec::new(),
        files: Vec::new(),
    }
}

/// What the shell needs of the machine's: what is usual for its kind, and its modules, which are below its libraries.
fn files_of(kind: Kind, program: &MachineProgram) -> Vec<PathBuf> {
    let modules = program.library_dirs.iter().map(|dir| dir.join(kind.name()));
    let usual = kind.files().iter().map(PathBuf::from);
    modules.chain(usual).filter(|path| path.is_dir()).collect()
}

/// Writes the files that a shell reads at its start, and tells how it finds them.
fn with_start_files(
    path: String,
    kind: Kind,
    fixups: &Tree,
    options: &ShellOptions,
) -> Result<ShellProgram, BuildError> {
    let (files, arguments): (&[(&str, &str)], Vec<String>) = match kind {
        Kind::Bash => (
            &[("start.bash", include_str!("start.bash"))],
            vec!["--rcfile".to_owned(), format!("/{START}/start.bash")],
        ),
        Kind::Zsh => (
            &[
                (".zshenv", include_str!("zshenv.zsh")),
                (".zshrc", include_str!("start.zsh")),
            ],
            Vec::new(),
        ),
        Kind::Fish => (
            &[("start.fish", include_str!("start.fish"))],
            vec!["--init-command".to_owned(), format!("source /{START}/start.fish")],
        ),
    };
    for (name, text) in files {
        fixups.file(&format!("{START}/{name}"), text, 0o644)?;
    }
    let mut variables = vec![("SHELL".to_owned(), path.clone())];
    if kind == Kind::Zsh {
        variables.push(("ZDOTDIR".to_owned(), format!("/{START}")));
        let own = options.caller.get("ZDOTDIR").cloned().unwrap_or_default();
        variables.push(("__LAYERIZE_ZDOTDIR".to_owned(), own));
    }
    Ok(ShellProgram {
        path,
        arguments,
        variables,
        files: Vec::new(),
    })
}

/// Program and arguments of what is run, in a shell of the root where there is something for one to do first.
pub(super) fn argv(
    root: &Root,
    activations: &[String],
    interactive: Option<&ShellProgram>,
    task: &Task,
    has_machine: bool,
) -> Result<Vec<String>, BuildError> {
    let no_shell = || BuildError::NoShell {
        label: "the shell".to_owned(),
    };
    let plain = root.program(&["bash"]).or_else(|| root.program(&["sh", "dash"]));
    let program = match task {
        Task::Program(argv) => argv.clone(),
        Task::Text(text) => {
            let shell = plain.clone().ok_or_else(no_shell)?;
            vec![shell, "-c".to_owned(), text.clone()]
        }
        Task::Interactive => {
            let shell = interactive.ok_or_else(no_shell)?;
            std::iter::once(shell.path.clone())
                .chain(shell.arguments.iter().cloned())
                .collect()
        }
    };
    let activate: String = activations.iter().map(|file| format!(". /{file} && ")).collect();
    // What is activated may put more on the path, which stays before what the machine has.
    let machine = match has_machine {
        true => format!("export PATH=\"$PATH:{CROSSING_PROGRAMS}\" && "),
        false => String::new(),
    };
    let path = match task {
        Task::Interactive => format!("export {PATH_VARIABLE}=\"$PATH\" && "),
        _ => String::new(),
    };
    let text = format!("{activate}{machine}{path}exec \"$@\"");
    let shell = plain.ok_or_else(no_shell)?;
    Ok([shell, "-c".to_owned(), text, "layerize".to_owned()]
        .into_iter()
        .chain(program)
        .collect())
}
