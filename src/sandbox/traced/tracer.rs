//! The *tracer* stops the calls that cannot be answered in a process's place, and has the process make them otherwise: those
//! that start a program, and those that enter a directory. All other calls of paths are answered (`answers`).
//!
//! Invariant: whatever a call came to, its thread goes on with the registers it had; and all that is traced ends with the
//! process that traces it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use super::changes::Change;
use super::memory::Memory;
use super::programs::{Start, Starter};
use super::registers::Registers;
use super::sockets::{Address, Sockets};
use super::view::{Caller, View};
use crate::sandbox::notify::Flagged;
use crate::sandbox::request::SandboxReply;

/// What is traced of each thread, and that it ends with us.
const OPTIONS: libc::c_int = libc::PTRACE_O_EXITKILL
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC;

/// The signal by which a stop at the end of a call is told.
const AT_CALL: libc::c_int = libc::SIGTRAP | 0x80;

/// Least bytes of memory that are made in a process for what its calls are to be about.
const BLOCK: u64 = 64 << 10;

/// The calls that stop here.
pub(super) const CALLS: [i64; 6] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_chdir,
    libc::SYS_inotify_add_watch,
    libc::SYS_bind,
    libc::SYS_connect,
];

/// Calls that stop here where they hold something without opening it: that cannot be given to a process.
#[cfg(target_arch = "x86_64")]
pub(super) const FLAGGED: [Flagged; 2] = [
    (libc::SYS_openat, 2, libc::O_PATH.unsigned_abs()),
    (libc::SYS_open, 1, libc::O_PATH.unsigned_abs()),
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const FLAGGED: [Flagged; 1] = [(libc::SYS_openat, 2, libc::O_PATH.unsigned_abs())];

/// How C libraries number requests.
#[cfg(target_env = "musl")]
type Operation = libc::c_int;
#[cfg(not(target_env = "musl"))]
type Operation = libc::c_uint;

/// A request to the kernel about a thread.
pub(super) fn request(operation: Operation, thread: Pid, address: usize, data: usize) -> nix::Result<libc::c_long> {
    // SAFETY: whoever asks for registers or messages gives the address of a live value of the type that the request prescribes.
    Errno::result(unsafe { libc::ptrace(operation, thread.as_raw(), address, data) })
}

/// Begins to trace a process, which need not stop for it.
pub(super) fn seize(process: Pid) -> nix::Result<()> {
    request(libc::PTRACE_SEIZE, process, 0, OPTIONS as usize).map(drop)
}

/// Some memory of a process that is ours.
#[derive(Debug, Clone, Copy)]
struct Block {
    address: u64,
    size: u64,
}

/// The blocks of one memory that no call uses; threads, and who waits in `vfork`, share it.
type Space = Rc<RefCell<Vec<Block>>>;

/// What a thread is in the middle of.
enum Doing {
    /// Its own calls.
    Nothing,
    /// Making a block of this size, with what it had before.
    Making(Registers, u64),
    /// A call of ours, about what is in the block.
    Calling {
        before: Registers,
        block: Block,
        /// What the next program is told that it was called.
        name: Vec<u8>,
    },
    /// Coming to hold what an address is about.
    Holding(Registers, Block, Address),
    /// The call with that address; what is held is this.
    Addressing(Registers, Block, Address, i64),
    /// Letting go of what was held.
    Closing(Closing),
}

struct Closing {
    /// What is to be when that is done.
    after: Registers,
    block: Block,
    /// Whether it has begun.
    begun: bool,
    /// Signals that came meanwhile.
    signals: Vec<libc::c_int>,
}

impl Closing {
    fn new(after: Registers, block: Block) -> Self {
        Self {
            after,
            block,
            begun: false,
            signals: Vec::new(),
        }
    }
}

struct Task {
    space: Space,
    doing: Doing,
}

impl Task {
    fn new(space: Space) -> Self {
        Self {
            space,
            doing: Doing::Nothing,
        }
    }
}

/// What traces a program and all it starts.
pub(super) struct Tracer<'a> {
    view: &'a View,
    starter: Starter<'a>,
    sockets: &'a Sockets,
    program: Pid,
    answered: BTreeSet<i64>,
    tasks: BTreeMap<Pid, Task>,
}

impl<'a> Tracer<'a> {
    /// For `program`, which was seized; the calls `answered` are answered by others.
    pub fn new(view: &'a View, sockets: &'a Sockets, program: Pid, answered: &[i64]) -> Self {
        Self {
            view,
            starter: Starter::new(view),
            sockets,
            program,
            answered: answered.iter().copied().collect(),
            tasks: BTreeMap::from([(program, Task::new(Space::default()))]),
        }
    }

    /// Traces until the program ends; tells how it did.
    pub fn trace(mut self) -> nix::Result<SandboxReply> {
        loop {
            let mut status = 0;
            // SAFETY: the pointer is to a live number.
            let waited = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
            let thread = match Errno::result(waited) {
                Ok(thread) => Pid::from_raw(thread),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            };
            if libc::WIFSTOPPED(status) {
                match self.stopped(thread, status) {
                    // It was killed meanwhile, which is told next.
                    Ok(()) | Err(Errno::ESRCH) => continue,
                    Err(errno) => return Err(errno),
                }
            }
            self.tasks.remove(&thread);
            if thread == self.program && libc::WIFEXITED(status) {
                return Ok(SandboxReply::Exited(libc::WEXITSTATUS(status)));
            }
            if thread == self.program && libc::WIFSIGNALED(status) {
                return Ok(SandboxReply::Signaled(libc::WTERMSIG(status)));
            }
        }
    }

    /// Deals with a stop, and has the thread go on.
    fn stopped(&mut self, thread: Pid, status: libc::c_int) -> nix::Result<()> {
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            libc::PTRACE_EVENT_SECCOMP => self.called(thread),
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                self.made(thread, status >> 16)?;
                go_on(thread, 0)
            }
            libc::PTRACE_EVENT_EXEC => {
                self.became(thread)?;
                go_on(thread, 0)
            }
            libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => {
                // One that begins before whoever made it has told so, or was killed before, has nothing from there.
                self.tasks.entry(thread).or_insert_with(|| Task::new(Space::default()));
                go_on(thread, 0)
            }
            // It was stopped with its whole process, and stays so until it is told to go on.
            libc::PTRACE_EVENT_STOP => request(libc::PTRACE_LISTEN, thread, 0, 0).map(drop),
            0 if signal == AT_CALL => self.returned(thread),
            0 => self.signalled(thread, signal),
            _ => go_on(thread, 0),
        }
    }

    /// A thread is about to be told of a signal.
    fn signalled(&mut self, thread: Pid, signal: libc::c_int) -> nix::Result<()> {
        let task = self.tasks.get_mut(&thread);
        if let Some(Doing::Closing(closing)) = task.map(|task| &mut task.doing) {
            closing.signals.push(signal);
            return until_returned(thread);
        }
        // A call that a signal interrupts before it is answered is made again, whatever the process said of that: in the kernel
        // none of these can be interrupted.
        let mut registers = Registers::of(thread)?;
        if registers.was_interrupted() && self.answered.contains(&registers.call()) {
            registers.restart();
            registers.give_to(thread)?;
        }
        go_on(thread, signal)
    }

    /// A thread has made another one, or another process.
    fn made(&mut self, thread: Pid, event: libc::c_int) -> nix::Result<()> {
        let child = Pid::from_raw(message(thread)? as libc::pid_t);
        // It may have been faster, and be something else by now.
        if self.tasks.contains_key(&child) {
            return Ok(());
        }
        let space = self
            .tasks
            .get(&thread)
            .map(|task| task.space.clone())
            .unwrap_or_default();
        let space = match event != libc::PTRACE_EVENT_FORK && shares_memory(&Registers::of(thread)?) {
            true => space,
            false => Rc::new(RefCell::new(space.borrow().clone())),
        };
        self.tasks.insert(child, Task::new(space));
        Ok(())
    }

    /// A thread, now the only one of its process, has become another program.
    fn became(&mut self, process: Pid) -> nix::Result<()> {
        let former = Pid::from_raw(message(process)? as libc::pid_t);
        let own = self.tasks.remove(&process);
        let task = match former == process {
            true => own,
            false => self.tasks.remove(&former),
        };
        if let Some(Task {
            space,
            doing: Doing::Calling { block, name, .. },
        }) = task
        {
            space.borrow_mut().push(block);
            tell_name(process, &name);
        }
        self.tasks.insert(process, Task::new(Space::default()));
        Ok(())
    }

    /// A thread is about to make a call that stops here.
    fn called(&mut self, thread: Pid) -> nix::Result<()> {
        if let Some(Doing::Addressing(..)) = self.tasks.get(&thread).map(|task| &task.doing) {
            return until_returned(thread);
        }
        let mut registers = Registers::of(thread)?;
        let before = registers;
        let caller = Caller::new(thread.as_raw().unsigned_abs());
        let change = Change::of(self.view, &self.starter, caller, &registers).unwrap_or_else(Change::Refuse);
        let size = match &change {
            Change::None => return go_on(thread, 0),
            Change::Refuse(errno) => return refuse(thread, registers, *errno),
            change => change.size(),
        };
        let Some(task) = self.tasks.get_mut(&thread) else {
            return go_on(thread, 0);
        };
        let found = task.space.borrow().iter().position(|block| block.size >= size);
        let Some(block) = found.map(|index| task.space.borrow_mut().swap_remove(index)) else {
            let size = size.next_multiple_of(BLOCK);
            task.doing = Doing::Making(before, size);
            let (access, kind) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            );
            registers.set_call(libc::SYS_mmap, &[0, size, access as u64, kind as u64, u64::MAX, 0]);
            registers.give_to(thread)?;
            return until_returned(thread);
        };
        let bytes = change.lay(block.address, &mut registers);
        if let Err(errno) = caller.memory.write(block.address, &bytes) {
            task.space.borrow_mut().push(block);
            return refuse(thread, before, errno);
        }
        task.doing = match change {
            Change::Address(address) => Doing::Holding(before, block, address),
            Change::Start(Start { name, .. }) => Doing::Calling { before, block, name },
            _ => Doing::Calling {
                before,
                block,
                name: Vec::new(),
            },
        };
        registers.give_to(thread)?;
        until_returned(thread)
    }

    /// A call of ours has returned.
    fn returned(&mut self, thread: Pid) -> nix::Result<()> {
        let Some(task) = self.tasks.get_mut(&thread) else {
            return go_on(thread, 0);
        };
        let now = Registers::of(thread)?;
        let caller = Caller::new(thread.as_raw().unsigned_abs());
        match std::mem::replace(&mut task.doing, Doing::Nothing) {
            Doing::Nothing => {}
            Doing::Making(mut before, size) => {
                match u64::try_from(now.result()) {
                    Ok(address) => {
                        task.space.borrow_mut().push(Block { address, size });
                        before.make_again();
                    }
                    Err(_) => before.fail(Errno::ENOMEM),
                }
                before.give_to(thread)?;
            }
            Doing::Calling { mut before, block, .. } => {
                task.space.borrow_mut().push(block);
                before.end_with(now.result());
                before.give_to(thread)?;
            }
            Doing::Holding(mut before, block, _) if now.result() < 0 => {
                task.space.borrow_mut().push(block);
                before.end_with(now.result());
                before.give_to(thread)?;
            }
            Doing::Holding(before, block, address) => {
                let bytes = address.bytes(now.result());
                // Where it cannot be written, the kernel says so of what is there.
                let _ = caller.memory.write(block.address, &bytes);
                make(
                    thread,
                    before,
                    before.call(),
                    &[before.argument(0), block.address, bytes.len() as u64],
                )?;
                task.doing = Doing::Addressing(before, block, address, now.result());
            }
            Doing::Addressing(mut before, block, address, held) => {
                if let (0, Some(path)) = (now.result(), address.path) {
                    self.sockets.note(caller, before.argument(0), path);
                }
                make(thread, before, libc::SYS_close, &[held as u64])?;
                before.end_with(now.result());
                task.doing = Doing::Closing(Closing::new(before, block));
                return until_returned(thread);
            }
            Doing::Closing(closing) if closing.begun => {
                task.space.borrow_mut().push(closing.block);
                closing.after.give_to(thread)?;
                for signal in closing.signals {
                    // SAFETY: takes numbers only.
                    unsafe { libc::syscall(libc::SYS_tkill, thread.as_raw(), signal) };
                }
            }
            Doing::Closing(closing) => {
                task.doing = Doing::Closing(Closing { begun: true, ..closing });
                return until_returned(thread);
            }
        }
        go_on(thread, 0)
    }
}

/// Has a thread that is at the end of one call make another one next.
fn make(thread: Pid, mut registers: Registers, call: i64, arguments: &[u64]) -> nix::Result<()> {
    registers.set_call(call, arguments);
    registers.make_again();
    registers.give_to(thread)
}

/// Has the call of a thread fail.
fn refuse(thread: Pid, mut registers: Registers, errno: Errno) -> nix::Result<()> {
    registers.refuse(errno);
    registers.give_to(thread)?;
    go_on(thread, 0)
}

/// Whether what a thread makes shares its memory.
fn shares_memory(registers: &Registers) -> bool {
    match registers.call() {
        libc::SYS_clone => registers.argument(0) & libc::CLONE_VM.unsigned_abs() as u64 != 0,
        // `vfork`, where there is that call.
        _ => true,
    }
}

/// Tells a program that has not begun what it was called, in place of where it really is.
fn tell_name(process: Pid, name: &[u8]) {
    const NAME: u64 = 31;
    let Ok(all) = std::fs::read(format!("/proc/{process}/auxv")) else {
        return;
    };
    let words: Vec<u64> = (all.chunks_exact(8))
        .map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap_or_default()))
        .collect();
    let found = words.chunks_exact(2).find(|pair| pair[0] == NAME);
    if let Some(&[_, address]) = found {
        let memory = Memory {
            thread: process.as_raw().unsigned_abs(),
        };
        // Whoever started it made sure that there is room; nothing depends on it.
        let _ = memory.write(address, &[name, b"\0"].concat());
    }
}

/// What the kernel has to say of a stop.
fn message(thread: Pid) -> nix::Result<libc::c_ulong> {
    let mut message: libc::c_ulong = 0;
    request(libc::PTRACE_GETEVENTMSG, thread, 0, (&raw mut message) as usize)?;
    Ok(message)
}

fn go_on(thread: Pid, signal: libc::c_int) -> nix::Result<()> {
    request(libc::PTRACE_CONT, thread, 0, signal as usize).map(drop)
}

fn until_returned(thread: Pid) -> nix::Result<()> {
    request(libc::PTRACE_SYSCALL, thread, 0, 0).map(drop)
}
