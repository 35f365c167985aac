//! A *sandbox* is the walled-off place in which a build's script runs: own root, own processes, no network.
//!
//! Invariant: what runs inside sees what the [`Sandbox`] names and nothing else; one that cannot be set up is an
//! error that says why and what to type. When [`Sandbox::run`] returns, or its process dies in whatever way, no
//! process of the sandbox is left.
//!
//! This side asks; the `helper` process, our own program started anew, does. That way nothing is forked from a
//! program with threads, and the only `unsafe` code of layerize runs in a process that does nothing else.
#![allow(
    unsafe_code,
    reason = "namespaces, capabilities and limits have no safe interface for all that is needed"
)]

mod bounds;
mod composed;
pub(crate) mod copy;
pub mod cross;
mod diagnose;
pub mod emulator;
mod fence;
mod guard;
mod helper;
mod identity;
mod limits;
mod mounts;
mod notify;
mod owners;
mod request;
mod seccomp;
mod served;
pub mod session;
mod signals;
mod traced;
pub(crate) mod tree;

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use bounds::{Bound, Bounds};
pub use diagnose::{Cause, SandboxError};
pub use helper::sandbox_main;
pub use identity::Identity;
pub use owners::{CAPABILITY_ATTRIBUTE, OWNER_ATTRIBUTE, OwnerNote};
pub use request::{Bind, ContainerPlan, Copied, Isolation, Network, Refusal, RuntimeSettings, SetupStep, Veil};
pub use signals::{has_foreground, pass_on};

use crate::fsio::{IoContext, PathError, create_dir_all, read_limited};
use crate::walls::Walls;
use composed::ComposedRoot;
use emulator::{Emulator, Processor};
use request::{REQUEST, RootPlan, SandboxReply, SandboxRequest};
use session::SessionReport;
use signals::Foreground;
use tree::{Tree, close_to_others};

/// Most directories in one overlay. The kernel takes 500, and their names must fit a page.
const OVERLAY_MAX: usize = 400;

/// User and group that a build is.
pub const BUILDER: (u32, u32) = (1000, 100);

/// Most time that it may take to try walls.
const TRIAL: Duration = Duration::from_secs(20);

/// Largest reply: one path and a few words.
const REPLY_LIMIT: u64 = 1 << 20;

/// Largest reply of a session: what its programs printed.
const SESSION_LIMIT: u64 = 64 << 20;

/// Name of the pipe of signals, in the staging directory.
const SIGNALS: &str = "signals";

/// How often a running build looks whether it was cancelled.
const TICK: Duration = Duration::from_millis(100);

/// How long the helper may take to end a sandbox before it is killed itself.
const GRACE: Duration = Duration::from_secs(10);

static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Ends every running sandbox of this process and lets no new one start: for Ctrl-C. Safe in a signal handler.
pub fn cancel() {
    CANCELLED.store(true, Ordering::SeqCst);
}

/// What starts this program, where that is not its file: a loader and its arguments.
static STARTER: OnceLock<Vec<OsString>> = OnceLock::new();

/// Has helpers started so that are this program: by a loader, its arguments and the program, with absolute paths. For a
/// program that was itself started so; to be called once, before any sandbox.
pub(crate) fn start_with(starter: Vec<OsString>) {
    let _ = STARTER.set(starter);
}

/// Whether [`cancel`] was called.
pub fn is_cancelled() -> bool {
    CANCELLED.load(Ordering::SeqCst)
}

/// A program and the surroundings it is to run in.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The program that becomes the helper; `None`: this one.
    pub helper: Option<PathBuf>,
    /// How much is walled off.
    pub isolation: Isolation,
    /// An existing directory for the sandbox's own needs, closed to other users; nothing of it is visible inside.
    pub staging: PathBuf,
    /// Directories that make up the read-only root, the topmost first; not used with [`Isolation::Run`] and
    /// [`Isolation::None`].
    pub layers: Vec<PathBuf>,
    /// With [`Isolation::Configure`] and [`Isolation::Container`], an existing directory that takes what is changed in the root; its file system must hold
    /// extended attributes of users.
    pub upper: Option<PathBuf>,
    /// Directories whose places the binds must not tell.
    pub veils: Vec<Veil>,
    /// What is bound into the root, in this order. Targets must exist in a layer or in an earlier bind.
    pub binds: Vec<Bind>,
    /// User and group ID inside.
    pub ids: (u32, u32),
    /// Program (absolute, as seen inside) and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory as seen inside.
    pub cwd: PathBuf,
    /// Most time it may take.
    pub timeout: Option<Duration>,
    /// What is fixed of the surroundings.
    pub settings: RuntimeSettings,
}

/// How what ran in a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with this status.
    Exited(i32),
    /// It was killed by this signal, or the sandbox was.
    Signaled(i32),
    /// It took longer than the timeout and was killed.
    TimedOut,
    /// [`cancel`] was called and it was killed.
    Cancelled,
    /// It did not end well, and had hit this bound.
    Exceeded(Bound),
}

impl Sandbox {
    /// Runs the program without input, and gives what it writes to standard output and error, in the order
    /// written, to `output`, piece by piece.
    pub fn run(&self, output: &mut dyn FnMut(&[u8])) -> Result<Outcome, SandboxError> {
        if is_cancelled() {
            return Ok(Outcome::Cancelled);
        }
        let groups = bounds::Groups::make(&self.settings.bounds);
        let reply = self.prepare(&groups, None, false)?;
        let composed = match self.isolation {
            Isolation::Chroot => Some(self.compose(Some(self.ids))?),
            Isolation::Traced => Some(self.compose(None)?),
            _ => None,
        };
        let killed = self.run_helper(output);
        // Whatever it came to, the build's directories are wanted at their places.
        composed.map(ComposedRoot::give_back).transpose()?;
        match killed? {
            Some(outcome) => Ok(outcome),
            None => Ok(match (read_reply(&reply)?, groups.hit()) {
                (Outcome::Exited(1..) | Outcome::Signaled(_), Some(bound)) => Outcome::Exceeded(bound),
                (outcome, _) => outcome,
            }),
        }
    }

    /// Tries whether these walls can be set up, in `staging`, an empty directory on the file system of the store.
    pub fn try_walls(walls: Walls, helper: Option<&Path>, staging: &Path) -> Result<(), SandboxError> {
        Self::try_out(walls, RuntimeSettings::default(), &[], helper, staging)
    }

    /// Tries, as [`try_walls`](Self::try_walls), whether a sandbox can have an emulator for `processor` of its own.
    pub fn try_emulator(processor: &Processor, helper: Option<&Path>, staging: &Path) -> Result<(), SandboxError> {
        // It is registered and not run: any program will do.
        let program = helper.unwrap_or(Path::new("/proc/self/exe"));
        let program = fs::canonicalize(program).context("find", program)?;
        let settings = RuntimeSettings {
            emulator: Some(Emulator::new(processor, program)),
            ..RuntimeSettings::default()
        };
        Self::try_out(Walls::Namespaces, settings, &[], helper, staging)
    }

    /// Tries, as [`try_walls`](Self::try_walls), whether the machine runs programs for `processor` behind these walls: by
    /// itself, or because it was taught to.
    pub fn try_processor(
        processor: &Processor,
        walls: Walls,
        helper: Option<&Path>,
        staging: &Path,
    ) -> Result<(), SandboxError> {
        Self::try_out(walls, RuntimeSettings::default(), &processor.probe(), helper, staging)
    }

    /// Tries a sandbox, and that a program runs in it, unless that is empty.
    fn try_out(
        walls: Walls,
        settings: RuntimeSettings,
        program: &[u8],
        helper: Option<&Path>,
        staging: &Path,
    ) -> Result<(), SandboxError> {
        let isolation = match walls {
            Walls::Namespaces => Isolation::Build,
            Walls::Chroot => Isolation::Chroot,
            Walls::Traced => Isolation::Traced,
            // No sandbox of this machine is a builder.
            Walls::Builder | Walls::None => Isolation::None,
        };
        let layer = Tree::create(staging.join("layer"))?;
        for mount_point in ["dev", "proc"] {
            layer.directory(mount_point)?;
        }
        let mut argv = Vec::new();
        if !program.is_empty() {
            layer.program("probe", program)?;
            argv.push("/probe".to_owned());
        }
        let own = staging.join("sandbox");
        create_dir_all(&own)?;
        let sandbox = Self {
            helper: helper.map(Path::to_owned),
            isolation,
            staging: own,
            layers: vec![layer.dir().to_owned()],
            upper: None,
            veils: Vec::new(),
            binds: Vec::new(),
            ids: BUILDER,
            argv,
            env: Vec::new(),
            cwd: "/".into(),
            timeout: Some(TRIAL),
            settings,
        };
        match sandbox.run(&mut |_| {})? {
            Outcome::Exited(0) | Outcome::Cancelled => Ok(()),
            _ => Err(SandboxError::NoReply),
        }
    }

    /// Composes the root where it would be mounted, for a build that is another user on the machine, or the same.
    fn compose(&self, builder: Option<(u32, u32)>) -> Result<ComposedRoot, SandboxError> {
        let root = self.staging.join("root");
        Ok(ComposedRoot::compose(&root, &self.layers, &self.binds, builder)?)
    }

    /// Does what the plan's session says with the program, and gives what programs print to `output`. `None`: [`cancel`] was
    /// called, or it took longer than the timeout.
    pub fn run_session(
        &self,
        plan: &ContainerPlan,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<SessionReport>, SandboxError> {
        if is_cancelled() {
            return Ok(None);
        }
        let groups = bounds::Groups::make(&self.settings.bounds);
        let reply = self.prepare(&groups, Some(plan), false)?;
        if self.run_helper(output)?.is_some() {
            return Ok(None);
        }
        match parse_reply(&reply, SESSION_LIMIT)? {
            SandboxReply::Session(report) => Ok(Some(*report)),
            SandboxReply::Refused(refusal) => Err(SandboxError::refused(refusal)),
            SandboxReply::Exited(_) | SandboxReply::Signaled(_) => Err(SandboxError::NoReply),
        }
    }

    /// Runs the helper to its end; tells what it was killed for, if it was.
    fn run_helper(&self, output: &mut dyn FnMut(&[u8])) -> Result<Option<Outcome>, SandboxError> {
        let (mut reader, writer) = std::io::pipe().map_err(SandboxError::start)?;
        let writer_for_errors = writer.try_clone().map_err(SandboxError::start)?;
        let mut command = self.command()?;
        // Ctrl-C at the terminal is ours to handle: see `cancel`.
        command.process_group(0);
        let child = command
            .stdin(Stdio::piped())
            .stdout(writer)
            .stderr(writer_for_errors)
            .spawn();
        // The command holds the pipe's writing ends, which would keep it open for ever.
        drop(command);
        let mut child = child.map_err(SandboxError::start)?;
        let killed = watch(&mut child, &mut reader, self.timeout, output).map_err(SandboxError::start)?;
        child.wait().map_err(SandboxError::start)?;
        Ok(killed)
    }

    /// Runs the program on our own standard input, output and error; with [`Isolation::Container`] as the plan says. Signals
    /// for it are given to [`pass_on`] meanwhile.
    pub fn run_interactively(&self, plan: Option<&ContainerPlan>) -> Result<Outcome, SandboxError> {
        let reply = self.prepare(&bounds::Groups::default(), plan, true)?;
        // Ctrl-C at the terminal is for the program.
        let _ignoring = limits::IgnoredInterrupts::new().map_err(SandboxError::start)?;
        let mut child = self.command()?.spawn().map_err(SandboxError::start)?;
        let foreground = match self.isolation {
            // The helper becomes the program.
            Isolation::Run => Foreground::of_process(child.id()),
            _ => Foreground::of_pipe(&self.staging.join(SIGNALS))?,
        };
        let status = child.wait();
        drop(foreground);
        let status = status.map_err(SandboxError::start)?;
        let silent = read_limited(&reply, REPLY_LIMIT).is_ok_and(|bytes| bytes.is_empty());
        if self.isolation == Isolation::Run && silent {
            // The helper has become the program, and replies only where it could not.
            return Ok(match status.code() {
                Some(code) => Outcome::Exited(code),
                None => Outcome::Signaled(status.signal().unwrap_or(0)),
            });
        }
        read_reply(&reply)
    }

    /// The helper, which finds its request in its working directory: what stands in its arguments can be read inside.
    fn command(&self) -> Result<Command, SandboxError> {
        let (helper, arguments) = match (&self.helper, STARTER.get().and_then(|starter| starter.split_first())) {
            (Some(helper), _) => (std::path::absolute(helper).context("find", helper)?, [].as_slice()),
            (None, Some((loader, arguments))) => (loader.into(), arguments),
            (None, None) => (PathBuf::from("/proc/self/exe"), [].as_slice()),
        };
        let mut command = Command::new(helper);
        command
            .args(arguments)
            .arg0("layerize")
            .arg("__sandbox")
            .current_dir(&self.staging);
        Ok(command)
    }

    /// Writes the request and what it refers to; gives the file of the reply.
    fn prepare(
        &self,
        groups: &bounds::Groups,
        plan: Option<&ContainerPlan>,
        passes_signals: bool,
    ) -> Result<PathBuf, SandboxError> {
        close_to_others(&self.staging)?;
        let mount_point = self.staging.join("root");
        create_dir_all(&mount_point)?;
        if self.settings.machine_root {
            create_dir_all(&mounts::machine_place(&mount_point))?;
        }
        let overlays = self.staging.join("overlays");
        let root = match self.isolation {
            Isolation::Build | Isolation::Shell | Isolation::Configure | Isolation::Container => RootPlan::Overlay {
                groups: link_layers(&self.layers, &overlays, &self.staging)?,
                writable: link_upper(self.upper.as_deref(), &overlays)?,
            },
            Isolation::Chroot | Isolation::Traced => RootPlan::Composed,
            Isolation::Run | Isolation::None => RootPlan::Host,
        };
        let signals = match passes_signals && self.isolation != Isolation::Run {
            true => Some(signals::make_pipe(&self.staging.join(SIGNALS))?),
            false => None,
        };
        if let Some(emulator) = &self.settings.emulator {
            emulator.prepare(&self.staging)?;
        }
        let (file, reply) = (self.staging.join(REQUEST), self.staging.join("reply.json"));
        let request = SandboxRequest {
            parent: std::process::id() as i32,
            reply: reply.clone(),
            isolation: self.isolation,
            mount_point,
            overlays,
            root,
            veils: self.link_veils()?,
            binds: self.binds.clone(),
            ids: self.ids,
            argv: self.argv.clone(),
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            groups: groups.joined(&self.settings.bounds),
            settings: self.settings.clone(),
            container: plan.cloned(),
            signals,
        };
        let json = serde_json::to_vec(&request).map_err(|error| SandboxError::start(error.into()))?;
        fs::write(&file, json).context("write", &file)?;
        Ok(reply)
    }

    /// Makes a directory for each veil: mount point, links with constant names, and what an overlay needs besides.
    fn link_veils(&self) -> Result<Vec<(Veil, PathBuf)>, PathError> {
        let mut veils = Vec::new();
        for (index, veil) in self.veils.iter().enumerate() {
            let own = self.staging.join("veils").join(index.to_string());
            for name in ["mount", "empty", "work"] {
                create_dir_all(&own.join(name))?;
            }
            symlink(&veil.dir, own.join("dir")).context("create the link", &veil.dir)?;
            veils.push((veil.clone(), own));
        }
        Ok(veils)
    }
}

/// Links the layers as `overlays/GROUP/INDEX`, and gives how many each group has.
fn link_layers(layers: &[PathBuf], overlays: &Path, staging: &Path) -> Result<Vec<usize>, PathError> {
    // An overlay without a writable directory needs two.
    let empty = staging.join("empty");
    create_dir_all(&empty)?;
    let mut layers = layers.to_vec();
    if layers.len() < 2 {
        layers.push(empty);
    }
    let mut groups = Vec::new();
    for (group, members) in chunks_of_two_or_more(&layers).enumerate() {
        let links = overlays.join(group.to_string());
        create_dir_all(&links)?;
        create_dir_all(&overlays.join("top").join(group.to_string()))?;
        for (index, layer) in members.iter().enumerate() {
            let link = links.join(index.to_string());
            symlink(layer, &link).context("create the link", &link)?;
        }
        groups.push(members.len());
    }
    Ok(groups)
}

/// Links what takes the changes of the root, and makes the directory that the kernel wants beside it.
fn link_upper(upper: Option<&Path>, overlays: &Path) -> Result<bool, PathError> {
    let Some(upper) = upper else { return Ok(false) };
    let work = upper.with_extension("work");
    create_dir_all(&work)?;
    for (name, target) in [("upper", upper), ("work", &work)] {
        let link = overlays.join(name);
        symlink(target, &link).context("create the link", &link)?;
    }
    Ok(true)
}

/// The layers in as few groups of at most [`OVERLAY_MAX`] as possible, of about equal size.
fn chunks_of_two_or_more(layers: &[PathBuf]) -> impl Iterator<Item = &[PathBuf]> {
    let groups = layers.len().div_ceil(OVERLAY_MAX).max(1);
    layers.chunks(layers.len().div_ceil(groups).max(1))
}

/// Passes output on until there is no more, and ends the sandbox when its time is up or it is cancelled.
fn watch(
    child: &mut Child,
    reader: &mut std::io::PipeReader,
    timeout: Option<Duration>,
    output: &mut dyn FnMut(&[u8]),
) -> std::io::Result<Option<Outcome>> {
    let started = Instant::now();
    let mut lifeline = child.stdin.take();
    let mut killed: Option<(Outcome, Instant)> = None;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let ready = wait_readable(reader, TICK)?;
        if ready {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(killed.map(|(outcome, _)| outcome)),
                Ok(count) => output(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        } else if child.try_wait()?.is_some() {
            // Only without walls can a process outlive the helper and keep the pipe open.
            return Ok(killed.map(|(outcome, _)| outcome));
        }
        let over = timeout.is_some_and(|timeout| started.elapsed() >= timeout);
        match killed {
            None if over || is_cancelled() => {
                // The helper ends the sandbox when it sees its standard input closed.
                drop(lifeline.take());
                let outcome = if over { Outcome::TimedOut } else { Outcome::Cancelled };
                killed = Some((outcome, Instant::now()));
            }
            Some((_, at)) if at.elapsed() >= GRACE => child.kill()?,
            _ => {}
        }
    }
}

fn wait_readable(reader: &std::io::PipeReader, at_most: Duration) -> std::io::Result<bool> {
    let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::ZERO);
    let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn parse_reply(path: &Path, limit: u64) -> Result<SandboxReply, SandboxError> {
    let bytes = read_limited(path, limit).map_err(|_| SandboxError::NoReply)?;
    serde_json::from_slice(&bytes).map_err(|_| SandboxError::NoReply)
}

fn read_reply(path: &Path) -> Result<Outcome, SandboxError> {
    match parse_reply(path, REPLY_LIMIT)? {
        SandboxReply::Session(_) => Err(SandboxError::NoReply),
        SandboxReply::Exited(status) => Ok(Outcome::Exited(status)),
        SandboxReply::Signaled(signal) => Ok(Outcome::Signaled(signal)),
        SandboxReply::Refused(refusal) => Err(SandboxError::refused(refusal)),
    }
}
