//! A *shell* in the surroundings of a build, and a program of the store on the machine's own root.
//!
//! Invariant: both see the machine's files where they are bound and nothing of the store can be written to. A shell
//! has the build's root, tools and variables; what is the user's own there (home, terminal, network) is what makes
//! it a shell and not a build.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::BuildError;
use super::rootfs::{GROUP, PASSWD};
use super::surroundings::Surroundings;
use super::views::Views;
use crate::derive::{Input, Script};
use crate::fsio::create_dir_all;
use crate::sandbox::tree::{Tree, close_to_others, make_dir};
use crate::sandbox::{Bind, Isolation, Outcome, RuntimeSettings, Sandbox};
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};

/// Name services of a shell: those of a build, and the network's.
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// The machine's files without which a name on the network is not found.
const RESOLVER_FILES: [&str; 2] = ["etc/resolv.conf", "etc/hosts"];

/// Who uses a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellUser {
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
}

/// What brings the dependencies of a language into a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// Text for the shell.
    pub script: String,
    /// The package's source, as the user has it.
    pub source: PathBuf,
    /// Directories in it, relative to it, in whose place the shell has others, empty at first.
    pub views: Vec<String>,
}

/// Where the text of an [`Activation`] is, relative to the root.
const ACTIVATE: &str = "usr/libexec/layerize/activate";

/// How a shell is to be.
#[derive(Debug, Clone)]
pub struct ShellOptions {
    /// What is run: program and arguments; empty: an interactive shell.
    pub command: Vec<String>,
    /// Nothing of the user's but the project: no home directory, `/tmp` of its own, no start files.
    pub pure: bool,
    /// The project, visible and writable at its own place.
    pub project: PathBuf,
    /// Where to start; below `project`.
    pub cwd: PathBuf,
    /// Who uses it.
    pub user: ShellUser,
    /// What the shell runs before everything else, and where the files are that the package is built from.
    pub activate: Option<Activation>,
    /// The user's variables (`TERM`, …); they replace the build's of the same name.
    pub env: BTreeMap<String, String>,
    /// See [`super::BuildOptions::helper`].
    pub helper: Option<PathBuf>,
}

/// Runs a shell, or a command, in the surroundings of `script`; gives its exit status. `paths` has the store path of
/// each of [`Script::inputs`].
///
/// `$out` is a place in the shell's own `/build`, to try installing to.
pub fn shell(
    store: &Store,
    script: &Script,
    paths: &BTreeMap<Input, StorePath>,
    options: &ShellOptions,
) -> Result<i32, BuildError> {
    let staging = store.scratch()?;
    let dir = staging.path();
    close_to_others(dir)?;
    let [build, tmp, own] = ["build", "tmp", "sandbox"].map(|name| dir.join(name));
    for (path, mode) in [(&build, 0o755), (&tmp, 0o1777), (&own, 0o700)] {
        make_dir(path, mode)?;
    }
    let surroundings = Surroundings::make(store, script, paths, dir.join("fixups"))?;
    let fixups = &surroundings.root.fixups;
    let user = &options.user;
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let line = format!("{}:x:{uid}:{gid}::{}:/bin/sh\n", user.name, user.home.display());
    fixups.file("etc/passwd", &format!("{line}{PASSWD}"), 0o644)?;
    fixups.file("etc/group", &format!("{}:x:{gid}:\n{GROUP}", user.name), 0o644)?;
    fixups.file("etc/nsswitch.conf", NSSWITCH, 0o644)?;
    for name in RESOLVER_FILES {
        if let Ok(text) = fs::read_to_string(Path::new("/").join(name)) {
            fixups.file(name, &text, 0o644)?;
        }
    }
    if let Some(activation) = &options.activate {
        fixups.file(ACTIVATE, &activation.script, 0o644)?;
    }
    let mut binds = vec![
        read_only(store.dir().join("store"), StoreDir::LAYERIZE),
        writable(build.clone(), Path::new("/build")),
    ];
    for (at, input) in &script.mounts {
        let Some(path) = paths.get(input) else { continue };
        create_dir_all(&build.join(Path::new(at).strip_prefix("/build").unwrap_or(Path::new(at))))?;
        binds.push(read_only(store.physical(path), at));
    }
    match options.pure {
        true => binds.push(writable(tmp, Path::new("/tmp"))),
        false => {
            binds.push(writable("/tmp".into(), Path::new("/tmp")));
            add_bind(&mut binds, fixups, &user.home)?;
        }
    }
    add_bind(&mut binds, fixups, &options.project)?;
    let mut views = Views::default();
    if let Some(Activation {
        source, views: named, ..
    }) = &options.activate
        && !named.is_empty()
    {
        add_bind(&mut binds, fixups, source)?;
        views = Views::make(source, named, &dir.join("views"))?;
        binds.extend(views.binds().map(|(own, place)| writable(own.to_owned(), place)));
    }
    let sandbox = Sandbox {
        helper: options.helper.clone(),
        isolation: Isolation::Shell,
        staging: own,
        layers: surroundings.root.layers(),
        upper: None,
        veils: Vec::new(),
        binds,
        ids: (uid, gid),
        argv: argv(&surroundings, options)?,
        env: variables(&surroundings, script, paths, options),
        cwd: options.cwd.clone(),
        timeout: None,
        settings: RuntimeSettings::default(),
    };
    let ended = run(&sandbox, "the shell");
    drop(views);
    ended
}

/// Runs a program with the machine's root and the store at its logical place; gives its exit status. `argv` starts
/// with the program's absolute path.
pub fn run_in_store(
    store: &Store,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    cwd: PathBuf,
    helper: Option<PathBuf>,
) -> Result<i32, BuildError> {
    let staging = store.scratch()?;
    let what = format!("`{}`", argv.first().map_or("", String::as_str));
    let sandbox = Sandbox {
        helper,
        isolation: Isolation::Run,
        staging: staging.path().to_owned(),
        layers: Vec::new(),
        upper: None,
        veils: Vec::new(),
        binds: vec![read_only(store.dir().join("store"), StoreDir::LAYERIZE)],
        ids: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
        argv,
        env: env.into_iter().collect(),
        cwd,
        timeout: None,
        settings: RuntimeSettings::default(),
    };
    run(&sandbox, &what)
}

fn run(sandbox: &Sandbox, what: &str) -> Result<i32, BuildError> {
    let outcome = sandbox.run_interactively(None).map_err(|source| BuildError::Sandbox {
        what: what.to_owned(),
        source,
    })?;
    match outcome {
        Outcome::Exited(status) => Ok(status),
        // As shells tell it.
        Outcome::Signaled(signal) => Ok(128 + signal),
        Outcome::TimedOut | Outcome::Cancelled | Outcome::Exceeded(_) => Err(BuildError::Cancelled),
    }
}

fn argv(surroundings: &Surroundings, options: &ShellOptions) -> Result<Vec<String>, BuildError> {
    let bash = surroundings.root.program(&["bash"]);
    let Some(shell) = bash.clone().or_else(|| surroundings.root.program(&["sh", "dash"])) else {
        return Err(BuildError::NoShell {
            label: "the shell".to_owned(),
        });
    };
    let mut interactive = vec![shell.clone()];
    if let (true, Some(_)) = (options.pure, bash) {
        interactive.extend(["--noprofile".to_owned(), "--norc".to_owned()]);
    }
    let activate = match options.activate {
        Some(_) => format!(". /{ACTIVATE} && "),
        None => String::new(),
    };
    let program = match options.command.is_empty() {
        true if activate.is_empty() => return Ok(interactive),
        true => interactive,
        false => options.command.clone(),
    };
    // The shell finds the program in the build's PATH.
    let first = ["-c".to_owned(), format!("{activate}exec \"$@\""), "layerize".to_owned()];
    Ok(std::iter::once(shell).chain(first).chain(program).collect())
}

fn variables(
    surroundings: &Surroundings,
    script: &Script,
    paths: &BTreeMap<Input, StorePath>,
    options: &ShellOptions,
) -> Vec<(String, String)> {
    let mut all: BTreeMap<String, String> = surroundings.variables.iter().cloned().collect();
    for (name, input) in &script.variables {
        let path = paths.get(input).map(|path| StoreDir::layerize().join(path));
        all.extend(path.map(|path| (name.clone(), path)));
    }
    all.extend(script.env.clone());
    if let Some(activation) = &options.activate {
        all.insert("LAYERIZE_SOURCE".to_owned(), activation.source.display().to_string());
    }
    let home = options.user.home.display().to_string();
    if !options.pure {
        all.insert("HOME".to_owned(), home);
    }
    for (name, value) in [
        ("USER", options.user.name.as_str()),
        ("PWD", &options.cwd.display().to_string()),
        ("out", "/build/out"),
        ("PS1", r"[layerize:\W]\$ "),
    ] {
        all.insert(name.to_owned(), value.to_owned());
    }
    all.extend(options.env.clone());
    all.into_iter().collect()
}

/// Binds a directory of the machine at its own place, unless it is there already.
fn add_bind(binds: &mut Vec<Bind>, fixups: &Tree, path: &Path) -> Result<(), BuildError> {
    if !path.is_dir() || path == Path::new("/") {
        return Ok(());
    }
    let around = binds.iter().rev().find(|bind| path.starts_with(&bind.target));
    match around {
        // The machine's own directory, in which it is.
        Some(around) if around.source == around.target => return Ok(()),
        Some(around) => {
            let below = path.strip_prefix(&around.target).unwrap_or(path);
            create_dir_all(&around.source.join(below))?;
        }
        None => {
            fixups.directory(&path.display().to_string())?;
        }
    }
    binds.push(writable(path.to_owned(), path));
    Ok(())
}

fn read_only(source: PathBuf, target: &str) -> Bind {
    Bind {
        source,
        target: target.into(),
        writable: false,
    }
}

fn writable(source: PathBuf, target: &Path) -> Bind {
    Bind {
        source,
        target: target.to_owned(),
        writable: true,
    }
}
