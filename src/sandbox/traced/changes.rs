//! How a call that stopped is to *go on*: with what place of the machine instead of the path that it names.
//!
//! Invariant: nothing of the process is changed here but registers that are given back to it when the call has ended.

use nix::errno::Errno;
use nix::libc;

use super::programs::{Start, Starter};
use super::registers::Registers;
use super::sockets::Address;
use super::view::{Caller, View};

/// How a call goes on.
pub(super) enum Change {
    /// As it is.
    None,
    /// Not at all.
    Refuse(Errno),
    /// With this place as one of its arguments.
    Place(usize, Vec<u8>),
    /// As `execve` of this.
    Start(Start),
    /// With this address, once what it is about is held.
    Address(Address),
}

impl Change {
    /// What is to be done about the call that a thread is about to make.
    pub fn of(view: &View, starter: &Starter<'_>, caller: Caller, registers: &Registers) -> Result<Self, Errno> {
        match registers.call() {
            libc::SYS_chdir => enter(view, caller, registers),
            libc::SYS_execve | libc::SYS_execveat => start(starter, caller, registers),
            libc::SYS_openat => hold(view, caller, registers, 1),
            libc::SYS_inotify_add_watch => watch(view, caller, registers),
            libc::SYS_bind | libc::SYS_connect => address(view, caller, registers),
            _ => hold(view, caller, registers, 0),
        }
    }

    /// Bytes of memory of the process that it takes.
    pub fn size(&self) -> u64 {
        match self {
            Self::None | Self::Refuse(_) => 0,
            Self::Place(_, place) => place.len() as u64 + 1,
            Self::Start(start) => start.size(),
            Self::Address(address) => address.held.len() as u64 + 1,
        }
    }

    /// Changes the call; gives what is to be at this address of the process.
    pub fn lay(&self, address: u64, registers: &mut Registers) -> Vec<u8> {
        let text = |text: &[u8]| [text, b"\0"].concat();
        match self {
            Self::None | Self::Refuse(_) => Vec::new(),
            Self::Place(index, place) => {
                registers.set_argument(*index, address);
                text(place)
            }
            Self::Start(start) => {
                let (bytes, arguments) = start.laid_at(address);
                registers.set_call(libc::SYS_execve, &[address, arguments, start.environment]);
                bytes
            }
            Self::Address(of) => {
                let (here, flags) = (libc::AT_FDCWD, libc::O_PATH | libc::O_CLOEXEC);
                registers.set_call(libc::SYS_openat, &[here as u64, address, flags as u64, 0]);
                text(&of.held)
            }
        }
    }
}

/// Which program a thread becomes.
fn start(starter: &Starter<'_>, caller: Caller, registers: &Registers) -> Result<Change, Errno> {
    let argument = |index| registers.argument(index);
    let (directory, first, flags) = match registers.call() == libc::SYS_execveat {
        true => (argument(0) as i32, 1, argument(4) as i32),
        false => (libc::AT_FDCWD, 0, 0),
    };
    let path = caller.memory.path(argument(first))?;
    let (arguments, environment) = (argument(first + 1), argument(first + 2));
    let start = starter.start(caller, directory, &path, flags, arguments, environment)?;
    Ok(Change::Start(start))
}

/// Into which directory a thread goes.
fn enter(view: &View, caller: Caller, registers: &Registers) -> Result<Change, Errno> {
    let path = caller.memory.path(registers.argument(0))?;
    if view.leads_directly(caller, &path) {
        return Ok(Change::None);
    }
    let directory = view.locate(caller, libc::AT_FDCWD, &path, true)?;
    Ok(Change::Place(0, directory.place()?))
}

/// What a thread watches.
fn watch(view: &View, caller: Caller, registers: &Registers) -> Result<Change, Errno> {
    let follow = registers.argument(2) as u32 & libc::IN_DONT_FOLLOW == 0;
    let path = caller.memory.path(registers.argument(1))?;
    let located = view.locate(caller, libc::AT_FDCWD, &path, follow)?;
    Ok(Change::Place(1, located.place()?))
}

/// The address that a thread gives a socket, or connects it to.
fn address(view: &View, caller: Caller, registers: &Registers) -> Result<Change, Errno> {
    let (address, size) = (registers.argument(1), registers.argument(2));
    let address = Address::of(view, caller, registers.call(), address, size)?;
    Ok(address.map_or(Change::None, Change::Address))
}

/// What a thread holds whose path is the argument with this number.
fn hold(view: &View, caller: Caller, registers: &Registers, path: usize) -> Result<Change, Errno> {
    let directory = match path {
        0 => libc::AT_FDCWD,
        _ => registers.argument(0) as i32,
    };
    let flags = registers.argument(path + 1) as i32;
    let follow = flags & libc::O_NOFOLLOW == 0;
    let located = view.locate(
        caller,
        directory,
        &caller.memory.path(registers.argument(path))?,
        follow,
    )?;
    let place = located.place()?;
    match place.starts_with(b"/") {
        true => Ok(Change::Place(path, place)),
        // A pipe or socket that is open elsewhere.
        false => Err(Errno::EACCES),
    }
}
