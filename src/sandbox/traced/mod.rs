//! *Traced* walls: a build where neither namespaces nor another root are to be had sees its own root all the same, because what
//! its processes ask of paths is answered by us, or is changed on the way to the kernel.
//!
//! Three parts. Most calls are [answered](answers) by threads of the keeper, who are told of them by the kernel (seccomp user
//! notification) and do what is to be done, or open what is to be given. Programs are started, and directories entered, by the
//! process itself: the [tracer] (ptrace) stops it there and says which. Everything else goes to the kernel, behind the same
//! filter as in a changed root.
//!
//! Invariant: these walls keep a build to what it was given, as long as it does not try to get around them: it is the user who
//! builds, and could change what an argument points to after it was read. They make builds equal, and are no protection from
//! a script that means harm.

mod answers;
mod changes;
mod files;
mod memory;
mod programs;
mod registers;
mod sockets;
mod tracer;
mod view;

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, getegid, geteuid, getpid};

use super::guard::{self, Guard};
use super::helper::{self, Failed, answer, refuse};
use super::identity::{self, Callers, Identity};
use super::notify;
use super::owners::Process;
use super::request::{SandboxRequest, SetupStep};
use super::{fence, limits};
use answers::{Answers, Reaction};
use sockets::Sockets;
use tracer::Tracer;
use view::{Caller, View};

/// Most threads that answer.
const ANSWERING_MAX: usize = 8;

/// What answers the calls of a build's processes.
struct Service<'a> {
    answers: Answers<'a>,
    sockets: Sockets,
    callers: Mutex<Callers>,
    guard: Guard,
}

impl Service<'_> {
    fn answer(&self, thread: u32, call: i64, arguments: &[u64; 6]) -> Reaction {
        let caller = Caller::new(thread);
        if let Some(reaction) = self.answers.answer(caller, call, arguments) {
            return reaction;
        }
        if let Some(reaction) = self.sockets.answer(self.answers.view, caller, call, arguments) {
            return reaction;
        }
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = callers.answer(&Process { pid: thread }, call, arguments) {
            return Reaction::Now(answer);
        }
        drop(callers);
        Reaction::Now(self.guard.answer(thread, call, arguments))
    }
}

/// The calls that are answered.
fn answered() -> Vec<i64> {
    [
        answers::calls(),
        identity::calls(),
        guard::calls_about_processes(),
        vec![libc::SYS_sendto],
    ]
    .concat()
}

/// The keeper of a traced build: starts the program, traces and answers it until it ends, and ends what it leaves behind.
pub(super) fn keep(request: &SandboxRequest, reply: &mut File, alive: &OwnedFd) -> Result<Infallible, Failed> {
    let failed = |errno| Failed::errno(SetupStep::Fork, None, errno);
    let untraced = |errno| Failed::errno(SetupStep::Trace, None, errno);
    let (ours, theirs) = notify::channel().map_err(failed)?;
    let (wait, traced) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let own = getpid();
    let view = View::new(&request.mount_point, &request.binds, own).map_err(untraced)?;
    // SAFETY: this process has one thread.
    let program = match unsafe { nix::unistd::fork() }.map_err(failed)? {
        ForkResult::Child => {
            drop(traced);
            // Until it is traced.
            let _ = File::from(wait).read(&mut [0]);
            let Err(failed) = fence::program(request, own, &theirs);
            std::process::exit(refuse(reply, failed));
        }
        ForkResult::Parent { child } => child,
    };
    drop((wait, theirs));
    // It still has the rights that we have.
    tracer::seize(program).map_err(untraced)?;
    limits::forget_capabilities();
    limits::drop_own_privileges()?;
    // Modes are what the build's masks leave of them.
    umask(Mode::empty());
    drop(traced);
    let service = Service {
        answers: Answers {
            view: &view,
            ids: request.ids,
            own: (geteuid().as_raw(), getegid().as_raw()),
        },
        sockets: Sockets::default(),
        callers: Mutex::new(Callers::of_container(&Identity {
            uid: request.ids.0,
            gid: request.ids.1,
            groups: Vec::new(),
        })),
        guard: Guard::new(own, request),
    };
    thread::scope(|scope| {
        // When whoever asked has ended, so does this process, and with it all that it traces.
        scope.spawn(|| end_with(alive));
        scope.spawn(|| {
            let Ok(listener) = notify::receive(&ours).map(Arc::new) else {
                return;
            };
            for _ in 1..thread::available_parallelism()
                .map_or(2, usize::from)
                .min(ANSWERING_MAX)
            {
                let listener = listener.clone();
                scope.spawn(|| serve(&service, listener));
            }
            serve(&service, listener);
        });
        let trace = || Tracer::new(&view, &service.sockets, program, &answered()).trace();
        let ended = catch_unwind(AssertUnwindSafe(trace)).unwrap_or(Err(Errno::EIO));
        fence::end_all();
        match ended {
            Ok(ended) => answer(reply, &ended),
            Err(errno) => drop(refuse(reply, untraced(errno))),
        }
        std::process::exit(0)
    })
}

/// Answers calls as long as there are any.
fn serve(service: &Service<'_>, listener: Arc<OwnedFd>) {
    while let Ok(call) = notify::next(&listener) {
        let Some(call) = call else { continue };
        // Whoever called waits for an answer, whatever becomes of us.
        let reaction = catch_unwind(AssertUnwindSafe(|| {
            service.answer(call.pid, i64::from(call.data.nr), &call.data.args)
        }));
        match reaction.unwrap_or(Reaction::from(Errno::EIO)) {
            Reaction::Now(answer) => notify::send(&listener, call.id, answer),
            Reaction::Later(answer) => {
                let listener = listener.clone();
                thread::spawn(move || notify::send(&listener, call.id, answer()));
            }
        }
    }
}

/// Waits for the end of a pipe, and ends this process.
fn end_with(alive: &OwnedFd) {
    loop {
        let mut fds = [PollFd::new(alive.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(1..) => std::process::exit(helper::REFUSED),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Puts this process behind the walls; the keeper is at the other end of `channel`.
pub(super) fn enter(channel: &OwnedFd) -> Result<(), Failed> {
    notify::install_traced(channel, &answered(), &tracer::CALLS, &tracer::FLAGGED)?;
    // A machine that lets us do all this may yet not let the keeper do its part.
    let failed = |path: &Path, error: &io::Error| Failed::io(SetupStep::Trace, path, error);
    let (root, null) = (Path::new("/"), Path::new("/dev/null"));
    std::env::set_current_dir(root).map_err(|error| failed(root, &error))?;
    File::open(null).map_err(|error| failed(null, &error))?;
    match std::env::current_dir() {
        Ok(here) if here == root => Ok(()),
        Ok(here) => Err(failed(&here, &io::Error::from_raw_os_error(libc::EXDEV))),
        Err(error) => Err(failed(root, &error)),
    }
}
