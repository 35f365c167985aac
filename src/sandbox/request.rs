//! A sandbox *request* is everything the helper process is told, and its *reply* everything it tells back.
//!
//! Invariant: the request names each thing that will be visible inside; what it does not name is not there.
//! Both are JSON in files of the staging directory, which no sandbox can see.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::bounds::{Bounds, Joined};
use super::emulator::Emulator;
use super::identity::Identity;
use super::session::{Session, SessionReport};

/// Name of the request's file, in the helper's working directory.
pub(super) const REQUEST: &str = "request.json";

/// What the helper is to run, and in what surroundings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SandboxRequest {
    /// Process that asked; when it is gone the sandbox goes too.
    pub parent: i32,
    /// Where the reply is written.
    pub reply: PathBuf,
    /// How much is walled off.
    pub isolation: Isolation,
    /// Empty directory on which the new root is mounted.
    pub mount_point: PathBuf,
    /// Directory that holds one directory of links `0`, `1`, … for each overlay of [`RootPlan::Overlay`].
    pub overlays: PathBuf,
    /// What the new root consists of.
    pub root: RootPlan,
    /// Directories that are bound from through an overlay, and where each one's links and mount point are.
    pub veils: Vec<(Veil, PathBuf)>,
    /// What is bound into it, in this order.
    pub binds: Vec<Bind>,
    /// User and group ID inside.
    pub ids: (u32, u32),
    /// Program (absolute, as seen inside) and its arguments; none: only the setup is tried.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory as seen inside.
    pub cwd: PathBuf,
    /// Control groups to be joined.
    pub groups: Vec<Joined>,
    /// With [`Isolation::Container`], what makes it one.
    pub container: Option<ContainerPlan>,
    /// Named pipe from which process 1 takes the numbers of signals for the program, where it has someone to pass them on.
    pub signals: Option<PathBuf>,
    /// What is fixed of the surroundings.
    pub settings: RuntimeSettings,
}

impl SandboxRequest {
    /// Whether it has a network of its own, in which there is nobody else.
    pub fn has_own_network(&self) -> bool {
        match &self.container {
            Some(container) => container.network == Network::Own,
            None => self.isolation.are_closed(),
        }
    }

    /// Whether it is somebody's terminal that what runs reads from, and no pipe of ours.
    pub fn is_interactive(&self) -> bool {
        match &self.container {
            Some(container) => container.session.is_none(),
            None => self.isolation == Isolation::Shell || self.settings.is_typed_in,
        }
    }

    /// Whether what runs asks process 1 about files.
    pub fn is_answered(&self) -> bool {
        matches!(self.isolation, Isolation::Configure | Isolation::Container)
    }
}

/// What a sandbox *fixes* of its surroundings, so that no build can tell one machine from another. A check of a build's
/// reproducibility fixes it otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeSettings {
    /// Name of the host.
    pub host: String,
    /// File creation mask of a build.
    pub umask: u32,
    /// Whether addresses of memory vary from run to run.
    pub addresses_vary: bool,
    /// Whether a build sees one processor, however many there are.
    pub one_processor: bool,
    /// Directories that are copied to a memory file system first, where they are listed in another order.
    pub copies: Vec<Copied>,
    /// What a build may use at most.
    pub bounds: Bounds,
    /// Whether a shell sees the machine's own root, at [`super::cross::MACHINE`], which it needs a directory for.
    pub machine_root: bool,
    /// What runs programs for another processor than the machine's.
    pub emulator: Option<Emulator>,
    /// Whether a person types where a build's script would run: then the terminal is theirs.
    pub is_typed_in: bool,
}

/// A directory that is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Where it is on the machine.
    pub from: PathBuf,
    /// An existing empty directory, on which the memory file system is mounted.
    pub to: PathBuf,
    /// Whether it is a tree of the store, with the modes and the time that those have.
    pub sealed: bool,
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            umask: 0o022,
            addresses_vary: false,
            one_processor: false,
            copies: Vec::new(),
            bounds: Bounds::default(),
            machine_root: false,
            emulator: None,
            is_typed_in: false,
        }
    }
}

/// How much is walled off from what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// A build: own user, mount, pid, net, ipc, uts and cgroup namespaces, system call filter, fixed limits.
    Build,
    /// A development shell: own user, mount, pid, ipc and uts namespaces; the machine's network and terminal.
    Shell,
    /// A program of the store on the machine's own root: own mount namespace, and own user namespace unless it is root that
    /// needs none.
    Run,
    /// A build where there are no namespaces to be had: own root by chroot(2), own user, system call filter without network,
    /// signals that reach nobody else.
    Chroot,
    /// A build where there is not even that: own root because its calls of paths are answered or changed, the same filter.
    Traced,
    /// None: for `--sandbox=none` alone.
    None,
    /// Maintainer scripts: as a build, but whoever runs is the administrator of a root that can be written to, and keeps
    /// the rights over files that this takes; who is to own what is noted instead of done.
    Configure,
    /// A program of an image in the image's root, as its user: own user, mount, pid, ipc and uts namespaces, and the network
    /// that [`ContainerPlan`] says.
    Container,
}

impl Isolation {
    /// Whether what runs is walled off as a build is.
    pub(super) fn are_closed(self) -> bool {
        matches!(self, Self::Build | Self::Configure)
    }
}

/// What makes a sandbox a container of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPlan {
    /// Whose network it has.
    pub network: Network,
    /// Whether the root cannot be written to.
    pub read_only: bool,
    /// Directories inside that can be written to all the same.
    pub volumes: Vec<PathBuf>,
    /// Who the program is.
    pub user: Identity,
    /// What is done instead of becoming the program.
    pub session: Option<Session>,
}

/// Whose network a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The machine's.
    Machine,
    /// One of its own, with nobody else in it.
    Own,
}

/// What the new root consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RootPlan {
    /// An overlay of the directories that the links of each group point to, the topmost first.
    Overlay {
        /// How many links each directory `overlays/0`, `overlays/1`, … holds. More than one group: each is
        /// an overlay of its own, and the root is the overlay of those.
        groups: Vec<usize>,
        /// Whether it can be written to: `overlays/upper` leads to what takes the changes, `overlays/work` is beside it.
        writable: bool,
    },
    /// The machine's root: each of its entries bound.
    Host,
    /// What is at the mount point already.
    Composed,
}

/// A directory of the machine whose place is not to be told inside.
///
/// A bind tells where on its file system it is from, in `/proc/self/mountinfo`. Where it is from something below a veil,
/// it is taken from an overlay of that directory instead, and tells its place in there. A kernel or file system that
/// cannot do so (an overlay is nothing to write to on another overlay) tells the place; nothing else differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veil {
    /// The directory.
    pub dir: PathBuf,
    /// Whether anything is written below it.
    pub writable: bool,
}

/// A file or directory of the machine that is visible inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where it is on the machine; no symlink.
    pub source: PathBuf,
    /// Where it is inside, absolute; an existing directory or file.
    pub target: PathBuf,
    /// Whether it can be written to.
    pub writable: bool,
}

/// What the helper answers: the first thing that went wrong, or how the program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SandboxReply {
    /// The program exited with this status.
    Exited(i32),
    /// The program was killed by this signal.
    Signaled(i32),
    /// The sandbox could not be set up.
    Refused(Refusal),
    /// How a session went.
    Session(Box<SessionReport>),
}

/// A step of setting the sandbox up that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which step.
    pub step: SetupStep,
    /// The path it was about, where there is one.
    pub path: Option<PathBuf>,
    /// The system's error number (0 where the failure is not the system's).
    pub errno: i32,
    /// What else is to be said, where the number does not say it.
    pub detail: Option<String>,
}

impl Refusal {
    /// The system's error.
    pub fn source(&self) -> io::Error {
        match (&self.detail, self.errno) {
            (Some(detail), 0) => io::Error::other(detail.clone()),
            (_, errno) => io::Error::from_raw_os_error(errno),
        }
    }
}

/// The steps of setting a sandbox up, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetupStep {
    /// Reading the request.
    Request,
    /// Giving up supplementary groups (as root).
    Groups,
    /// Creating the user namespace.
    UserNamespace,
    /// Writing its user and group ID maps.
    IdMap,
    /// Registering an emulator.
    Emulator,
    /// Creating the other namespaces.
    Namespaces,
    /// Starting a process.
    Fork,
    /// Detaching the mounts from the machine's.
    Propagation,
    /// Composing the root.
    Overlay,
    /// Mounting a file system.
    Mount,
    /// Binding a path.
    Bind,
    /// Mounting `/proc`.
    Proc,
    /// Binding a device.
    Device,
    /// Naming the host.
    HostName,
    /// Bringing the loopback interface up.
    Loopback,
    /// Making the composed root the root.
    Pivot,
    /// Making it the root of the build's processes alone, without mounts.
    Chroot,
    /// Tracing the processes of the build and answering their calls.
    Trace,
    /// Becoming the user of the build.
    Builder,
    /// Setting limits and personality.
    Limits,
    /// Giving up privileges.
    Privileges,
    /// Installing the system call filter.
    Filter,
    /// Entering the working directory.
    WorkingDirectory,
    /// Starting the program.
    Exec,
}

impl SetupStep {
    /// The step as the end of "cannot …".
    pub fn infinitive(self) -> &'static str {
        match self {
            Self::Request => "read the sandbox's request",
            Self::Groups => "give up supplementary groups",
            Self::UserNamespace => "create a user namespace",
            Self::IdMap => "map the user into the sandbox",
            Self::Emulator => "register an emulator of its own (binfmt_misc)",
            Self::Namespaces => "create mount, pid, net, ipc and uts namespaces",
            Self::Fork => "start a process",
            Self::Propagation => "detach the sandbox's mounts",
            Self::Overlay => "compose the root from packages (overlayfs)",
            Self::Mount => "mount a file system on",
            Self::Bind => "bind",
            Self::Proc => "mount a fresh /proc",
            Self::Device => "bind the device",
            Self::HostName => "name the sandbox's host",
            Self::Loopback => "bring up the loopback interface",
            Self::Pivot => "enter the composed root",
            Self::Chroot => "change the root (chroot)",
            Self::Trace => "trace the build's processes and answer their calls (ptrace, seccomp)",
            Self::Builder => "become the build's user",
            Self::Limits => "fix limits and address layout",
            Self::Privileges => "give up privileges",
            Self::Filter => "install the system call filter",
            Self::WorkingDirectory => "enter the working directory",
            Self::Exec => "start",
        }
    }
}
