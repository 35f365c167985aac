//! A *shell* in the surroundings of builds, and a program of the store on the machine's own root.
//!
//! Invariant: both see the machine's files where they are bound and nothing of the store can be written to. A shell
//! has the builds' root, tools and variables; what is the user's own there (home, terminal, network, start files, programs of
//! the machine behind the environment's) is what makes it a shell and not a build.

mod machine;
mod merge;
mod outside;
mod program;
mod record;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::BuildError;
use super::rootfs::{GROUP, PASSWD};
use super::surroundings::Surroundings;
use super::views::Views;
use crate::derive::{Input, Script};
use crate::fsio::create_dir_all;
use crate::root;
use crate::sandbox::cross::{CROSSING, MACHINE};
use crate::sandbox::emulator::Emulator;
use crate::sandbox::tree::{Tree, close_to_others, make_dir};
use crate::sandbox::{Bind, Isolation, Outcome, RuntimeSettings, Sandbox};
use crate::shell_word;
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};
use machine::Environment;
use start::ShellProgram;

pub use merge::ShellConflict;
pub use outside::{OutsideView, ViewPlace};
pub use program::{StoreProgram, run_in_store};
pub use record::{ShellRecord, shell_variables};

/// Name services of a shell: those of a build, and the network's.
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// The machine's files without which a name on the network is not found.
const RESOLVER_FILES: [&str; 2] = ["etc/resolv.conf", "etc/hosts"];

/// What of the machine's programs of the environment need to speak to the network and to the terminal: what is seen, and what the
/// environment must lack for that.
const MACHINE_DATA: [(&str, &str); 5] = [
    ("/etc/ssl/certs", "etc/ssl/certs/ca-certificates.crt"),
    ("/usr/share/ca-certificates", "usr/share/ca-certificates"),
    ("/etc/pki", "etc/pki"),
    ("/usr/lib/terminfo", "usr/lib/terminfo"),
    ("/usr/share/terminfo", "usr/share/terminfo"),
];

/// Variables that name certificates' files.
const CERTIFICATE_VARIABLES: [&str; 7] = [
    "AWS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
];

/// Variables of the terminal and of the person at it, which go before those of a build.
const PERSONAL: [&str; 5] = ["TERM", "COLORTERM", "LANG", "EDITOR", "TZ"];

/// Variables that are about the machine's own programs and libraries, and would break the environment's.
const OF_MACHINE: [&str; 8] = [
    "BASH_ENV",
    "GCONV_PATH",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LOCPATH",
    "PYTHONHOME",
    "TMPDIR",
];

/// Who uses a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellUser {
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
    /// The shell that is used elsewhere.
    pub shell: Option<PathBuf>,
}

/// What brings the dependencies of a language into a shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Text for the shell.
    pub script: String,
    /// The package's source, as the user has it.
    pub source: PathBuf,
    /// Directories in it, relative to it, in whose place the shell has others, empty at first.
    pub views: Vec<String>,
}

/// What is done in a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// A person types.
    Interactive,
    /// A text of the shell's language.
    Text(String),
    /// A program with its arguments.
    Program(Vec<String>),
}

/// The surroundings of one build, to be had in a shell.
#[derive(Debug, Clone)]
pub struct ShellPart {
    /// What the user calls it.
    pub name: String,
    /// Whose surroundings.
    pub script: Script,
    /// The packages of the script's root that it has on its own account, the base left out.
    pub own: Vec<Input>,
    /// The names of the Debian packages in the script's root.
    pub debs: BTreeMap<String, Input>,
    /// The store path of each of [`Script::inputs`].
    pub paths: BTreeMap<Input, StorePath>,
    /// What the shell runs before everything else, and where the files are that the package is built from.
    pub activate: Option<Activation>,
}

/// How a shell is to be.
#[derive(Debug, Clone)]
pub struct ShellOptions {
    /// What is done in it.
    pub task: Task,
    /// Nothing of the user's but the project: no home directory, `/tmp` of its own, no start files, no programs of the machine.
    pub pure: bool,
    /// Projects, visible and writable at their own places.
    pub projects: Vec<PathBuf>,
    /// Where to start; below one of `projects`, or at a place that the shell sees.
    pub cwd: PathBuf,
    /// Who uses it.
    pub user: ShellUser,
    /// All variables of whoever starts it.
    pub caller: BTreeMap<String, String>,
    /// Where links to the machine's programs are kept from one shell to the next; `None`: each shell makes its own.
    pub links: Option<PathBuf>,
    /// See [`super::BuildOptions::helper`].
    pub helper: Option<PathBuf>,
}

/// Directories of one shell, removed with it.
struct Dirs {
    build: PathBuf,
    tmp: PathBuf,
    own: PathBuf,
    crossing: PathBuf,
    views: PathBuf,
}

impl Dirs {
    fn make(dir: &Path) -> Result<Self, BuildError> {
        close_to_others(dir)?;
        let [build, tmp, own, crossing, views] =
            ["build", "tmp", "sandbox", "crossing", "views"].map(|name| dir.join(name));
        for (path, mode) in [
            (&build, 0o755),
            (&tmp, 0o1777),
            (&own, 0o700),
            (&crossing, 0o755),
            (&views, 0o755),
        ] {
            make_dir(path, mode)?;
        }
        Ok(Self {
            build,
            tmp,
            own,
            crossing,
            views,
        })
    }
}

/// Runs a shell, or a command, in the surroundings of all `parts` at once; gives its exit status.
///
/// `$out` is a place in the shell's own `/build`, to try installing to.
///
/// # Errors
///
/// Parts that cannot be had together, or a sandbox that cannot be made.
pub fn shell(store: &Store, parts: &[ShellPart], options: &ShellOptions) -> Result<i32, BuildError> {
    shell_of(store, &merge::merge(parts)?, options)
}

/// As [`shell`], of what was recorded of one; all of it must be in the store.
pub fn recorded_shell(store: &Store, record: &ShellRecord, options: &ShellOptions) -> Result<i32, BuildError> {
    shell_of(store, &record.merged(), options)
}

fn shell_of(store: &Store, merged: &merge::Merged, options: &ShellOptions) -> Result<i32, BuildError> {
    let staging = store.scratch()?;
    let dir = staging.path();
    let dirs = Dirs::make(dir)?;
    let surroundings = Surroundings::make(store, &merged.script, &merged.paths, dir.join("fixups"))?;
    let fixups = &surroundings.root.fixups;
    write_etc(fixups, options)?;
    let activations = write_activations(fixups, &merged.activations)?;
    let program = match options.task {
        Task::Interactive => start::interactive(&surroundings.root, options, &dirs.crossing)?,
        Task::Text(_) | Task::Program(_) => None,
    };
    let env = variables(&surroundings, merged, options, program.as_ref());
    let links = match options.pure {
        true => None,
        false => prepare_crossing(store, merged, options, &env, &dirs)?,
    };
    let has_machine = links.is_some();
    let mut binds = binds(store, merged, options, &surroundings, &dirs)?;
    for file in program.iter().flat_map(|program| &program.files) {
        bind_below(&mut binds, fixups, file, file, false)?;
    }
    let mut views = Vec::new();
    let viewed = merged.activations.iter().enumerate();
    for (number, activation) in viewed.filter(|(_, activation)| !activation.views.is_empty()) {
        add_bind(&mut binds, fixups, &activation.source)?;
        let made = Views::make(
            &activation.source,
            &activation.views,
            &dirs.views.join(number.to_string()),
        )?;
        binds.extend(made.binds().map(|(own, place)| writable(own.to_owned(), place)));
        if has_machine {
            binds.extend(
                made.binds()
                    .map(|(own, place)| writable(own.to_owned(), &in_machine(place))),
            );
        }
        views.push(made);
    }
    if let Some(links) = &links {
        bind_crossing(&mut binds, fixups, store, &dirs, links)?;
    }
    let sandbox = Sandbox {
        helper: options.helper.clone(),
        isolation: Isolation::Shell,
        staging: dirs.own.clone(),
        layers: surroundings.root.layers(),
        upper: None,
        veils: Vec::new(),
        binds,
        ids: ids(),
        argv: start::argv(
            &surroundings.root,
            &activations,
            program.as_ref(),
            &options.task,
            has_machine,
        )?,
        env: env.into_iter().collect(),
        cwd: options.cwd.clone(),
        timeout: None,
        settings: settings(options, has_machine, merged.emulator(store)),
    };
    let ended = run(&sandbox, "the shell");
    drop(views);
    ended
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

/// Where the texts of [`Activation`]s are, relative to the root.
const ACTIVATE: &str = "usr/libexec/layerize/activate";

/// Writes what is run first; gives where.
fn write_activations(fixups: &Tree, activations: &[Activation]) -> Result<Vec<String>, BuildError> {
    let mut files = Vec::new();
    for (number, activation) in activations.iter().enumerate() {
        let file = format!("{ACTIVATE}.{number}");
        let source = shell_word::quoted(&activation.source);
        let text = format!("export LAYERIZE_SOURCE={source}\n{}", activation.script);
        fixups.file(&file, &text, 0o644)?;
        files.push(file);
    }
    Ok(files)
}

fn ids() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

fn settings(options: &ShellOptions, machine_root: bool, emulator: Option<Emulator>) -> RuntimeSettings {
    let mut settings = RuntimeSettings {
        machine_root,
        emulator,
        ..RuntimeSettings::default()
    };
    if !options.pure
        && let Some(name) = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok())
    {
        settings.host = name;
    }
    settings
}

fn write_etc(fixups: &Tree, options: &ShellOptions) -> Result<(), BuildError> {
    let user = &options.user;
    let (uid, gid) = ids();
    let line = format!("{}:x:{uid}:{gid}::{}:/bin/sh\n", user.name, user.home.display());
    fixups.file("etc/passwd", &format!("{line}{PASSWD}"), 0o644)?;
    fixups.file("etc/group", &format!("{}:x:{gid}:\n{GROUP}", user.name), 0o644)?;
    fixups.file("etc/nsswitch.conf", NSSWITCH, 0o644)?;
    for name in RESOLVER_FILES {
        if let Ok(text) = fs::read_to_string(Path::new("/").join(name)) {
            fixups.file(name, &text, 0o644)?;
        }
    }
    Ok(())
}

/// Writes what programs need to cross between the shell's root and the machine's, where they can.
fn prepare_crossing(
    store: &Store,
    merged: &merge::Merged,
    options: &ShellOptions,
    env: &BTreeMap<String, String>,
    dirs: &Dirs,
) -> Result<Option<Vec<(String, PathBuf)>>, BuildError> {
    let layerize = match &options.helper {
        Some(helper) => helper.clone(),
        None => PathBuf::from("/proc/self/exe"),
    };
    let environment = Environment {
        variables: env,
        caller: &options.caller,
        programs: own_programs(store, merged)?,
        layerize: &layerize,
    };
    machine::prepare(&dirs.crossing, options.links.as_deref(), environment)
}

/// Shows what crossing needs in both roots, and the store in the machine's.
fn bind_crossing(
    binds: &mut Vec<Bind>,
    fixups: &Tree,
    store: &Store,
    dirs: &Dirs,
    links: &[(String, PathBuf)],
) -> Result<(), BuildError> {
    fixups.directory(MACHINE)?;
    fixups.directory(CROSSING)?;
    for place in [PathBuf::from(CROSSING), in_machine(Path::new(CROSSING))] {
        binds.push(read_only(dirs.crossing.clone(), &place.display().to_string()));
        let kept = links.iter();
        binds.extend(kept.map(|(name, links)| read_only(links.clone(), &place.join(name).display().to_string())));
    }
    let place = in_machine(Path::new(StoreDir::LAYERIZE)).display().to_string();
    binds.push(read_only(store.dir().join("store"), &place));
    Ok(())
}

/// The programs that are there because the packages asked for them, under the names of alternatives too.
fn own_programs(store: &Store, merged: &merge::Merged) -> Result<BTreeSet<String>, BuildError> {
    let own: Vec<PathBuf> = merged.own.iter().map(|path| store.physical(path)).collect();
    let dirs = own
        .iter()
        .flat_map(|path| ["bin", "usr/bin", "usr/sbin"].map(|dir| path.join(dir)));
    let dirs: Vec<PathBuf> = dirs.filter(|dir| dir.is_dir()).collect();
    let mut programs = machine::programs_in(&dirs);
    let own: Vec<&Path> = own.iter().map(PathBuf::as_path).collect();
    for link in root::alternatives(&own)?.into_keys() {
        let name = ["/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/"]
            .iter()
            .find_map(|dir| link.strip_prefix(dir));
        programs.extend(name.map(str::to_owned));
    }
    Ok(programs)
}

/// What is seen in the shell beside its root, but for views and what crossing needs.
fn binds(
    store: &Store,
    merged: &merge::Merged,
    options: &ShellOptions,
    surroundings: &Surroundings,
    dirs: &Dirs,
) -> Result<Vec<Bind>, BuildError> {
    let root = &surroundings.root;
    let fixups = &root.fixups;
    let mut binds = vec![
        read_only(store.dir().join("store"), StoreDir::LAYERIZE),
        writable(dirs.build.clone(), Path::new("/build")),
    ];
    for (at, input) in &merged.script.mounts {
        let Some(path) = merged.paths.get(input) else { continue };
        create_dir_all(
            &dirs
                .build
                .join(Path::new(at).strip_prefix("/build").unwrap_or(Path::new(at))),
        )?;
        binds.push(read_only(store.physical(path), at));
    }
    if options.pure {
        binds.push(writable(dirs.tmp.clone(), Path::new("/tmp")));
    } else {
        binds.push(writable("/tmp".into(), Path::new("/tmp")));
        add_bind(&mut binds, fixups, &options.user.home)?;
        // Sockets of the user's session, agents and engines among them.
        add_bind(&mut binds, fixups, Path::new("/run"))?;
        if !root.has("var/run") {
            fixups.link("var/run", "/run")?;
        }
        for (data, absent) in MACHINE_DATA {
            let data = Path::new(data);
            if data.is_dir() && !root.has(absent) {
                bind_below(&mut binds, fixups, data, data, false)?;
            }
        }
        bind_named_by_caller(&mut binds, fixups, &options.caller)?;
    }
    for project in &options.projects {
        add_bind(&mut binds, fixups, project)?;
    }
    Ok(binds)
}

/// Shows what variables of the caller's name: the agent's socket, files of certificates.
fn bind_named_by_caller(
    binds: &mut Vec<Bind>,
    fixups: &Tree,
    caller: &BTreeMap<String, String>,
) -> Result<(), BuildError> {
    let value = |name: &str| caller.get(name).map(PathBuf::from);
    if let Some(dir) = value("SSH_AUTH_SOCK").and_then(|socket| Some(socket.parent()?.to_owned())) {
        add_bind(binds, fixups, &dir)?;
    }
    for file in CERTIFICATE_VARIABLES.iter().filter_map(|name| value(name)) {
        let is_seen = binds
            .iter()
            .any(|bind| bind.source == bind.target && file.starts_with(&bind.target));
        if file.is_absolute() && file.is_file() && !is_seen {
            bind_below(binds, fixups, &file, &file, false)?;
        }
    }
    Ok(())
}

fn variables(
    surroundings: &Surroundings,
    merged: &merge::Merged,
    options: &ShellOptions,
    program: Option<&ShellProgram>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if !options.pure {
        all.clone_from(&options.caller);
        all.retain(|name, _| !OF_MACHINE.contains(&name.as_str()));
    }
    all.extend(surroundings.variables.iter().cloned());
    for (name, input) in &merged.script.variables {
        let path = merged.paths.get(input).map(|path| StoreDir::layerize().join(path));
        all.extend(path.map(|path| (name.clone(), path)));
    }
    all.extend(merged.script.env.clone());
    if !options.pure {
        all.insert("HOME".to_owned(), options.user.home.display().to_string());
    }
    for (name, value) in [
        ("LAYERIZE_SHELL", merged.name.as_str()),
        ("USER", options.user.name.as_str()),
        ("PWD", &options.cwd.display().to_string()),
        ("out", "/build/out"),
    ] {
        all.insert(name.to_owned(), value.to_owned());
    }
    if options.pure {
        all.insert("PS1".to_owned(), format!(r"(layerize:{}) \W\$ ", merged.name));
    }
    for name in PERSONAL {
        all.extend(options.caller.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    all.extend(program.iter().flat_map(|program| program.variables.iter().cloned()));
    all
}

/// Binds a directory of the machine at its own place, unless it is there already.
fn add_bind(binds: &mut Vec<Bind>, fixups: &Tree, path: &Path) -> Result<(), BuildError> {
    let Ok(source) = path.canonicalize() else { return Ok(()) };
    if !source.is_dir() || path == Path::new("/") {
        return Ok(());
    }
    bind_below(binds, fixups, &source, path, true)
}

/// Binds something of the machine, unless it is there because of what it is in.
fn bind_below(
    binds: &mut Vec<Bind>,
    fixups: &Tree,
    source: &Path,
    place: &Path,
    writable: bool,
) -> Result<(), BuildError> {
    let around = binds.iter().rev().find(|bind| place.starts_with(&bind.target));
    let is_dir = source.is_dir();
    match around {
        // The machine's own directory, in which it is.
        Some(around) if around.source == around.target => return Ok(()),
        Some(around) => {
            let below = place.strip_prefix(&around.target).unwrap_or(place);
            create_dir_all(&around.source.join(below))?;
        }
        None if is_dir => {
            fixups.directory(&place.display().to_string())?;
        }
        None => {
            fixups.file(&place.display().to_string(), "", 0o644)?;
        }
    }
    binds.push(Bind {
        source: source.to_owned(),
        target: place.to_owned(),
        writable,
    });
    Ok(())
}

/// A place of the machine's root as the shell's root has it.
fn in_machine(place: &Path) -> PathBuf {
    Path::new(MACHINE).join(place.strip_prefix("/").unwrap_or(place))
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
