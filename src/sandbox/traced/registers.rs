//! The *registers* of a thread that stopped at a system call.
//!
//! Invariant: what is not set here stays as the thread has it.

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use super::tracer::request;

/// The general registers, in the kernel's numbering of sets (`NT_PRSTATUS`).
const GENERAL: usize = 1;

/// The number of the call on processors that do not have it in a register that can be changed (`NT_ARM_SYSTEM_CALL`).
#[cfg(target_arch = "aarch64")]
const SYSTEM_CALL: usize = 0x404;

/// What the kernel says to itself of an interrupted call (`ERESTARTSYS`, `ERESTARTNOINTR`).
const RESTART_IF_WANTED: i64 = 512;
const RESTART: i64 = 513;

/// What the registers hold.
#[derive(Clone, Copy)]
pub(super) struct Registers {
    all: libc::user_regs_struct,
    /// The call that is about to be carried out.
    call: i64,
}

impl Registers {
    /// Those of a thread that stopped.
    pub fn of(thread: Pid) -> nix::Result<Self> {
        // SAFETY: plain data, for which zeros are valid.
        let mut all: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let part = libc::iovec {
            iov_base: (&raw mut all).cast(),
            iov_len: size_of_val(&all),
        };
        request(libc::PTRACE_GETREGSET, thread, GENERAL, (&raw const part) as usize)?;
        let call = call_of(&all);
        Ok(Self { all, call })
    }

    /// Gives them to the thread.
    pub fn give_to(&self, thread: Pid) -> nix::Result<()> {
        let part = libc::iovec {
            iov_base: (&raw const self.all).cast_mut().cast(),
            iov_len: size_of_val(&self.all),
        };
        request(libc::PTRACE_SETREGSET, thread, GENERAL, (&raw const part) as usize)?;
        #[cfg(target_arch = "aarch64")]
        {
            let call = self.call as libc::c_int;
            let part = libc::iovec {
                iov_base: (&raw const call).cast_mut().cast(),
                iov_len: size_of_val(&call),
            };
            request(libc::PTRACE_SETREGSET, thread, SYSTEM_CALL, (&raw const part) as usize)?;
        }
        Ok(())
    }

    /// The number of the call.
    pub fn call(&self) -> i64 {
        self.call
    }

    /// Has the thread carry out another call, with these first arguments.
    pub fn set_call(&mut self, call: i64, arguments: &[u64]) {
        self.call = call;
        set_call(&mut self.all, call);
        for (index, &argument) in arguments.iter().enumerate() {
            set_argument(&mut self.all, index, argument);
        }
    }

    /// Changes an argument of the call.
    pub fn set_argument(&mut self, index: usize, value: u64) {
        set_argument(&mut self.all, index, value);
    }

    /// An argument of the call, the first being 0.
    pub fn argument(&self, index: usize) -> u64 {
        argument(&self.all, index)
    }

    /// What the call came to; negative: an error number.
    pub fn result(&self) -> i64 {
        result(&self.all)
    }

    /// Has the call that is about to be carried out fail instead.
    pub fn refuse(&mut self, errno: Errno) {
        self.set_call(-1, &[]);
        self.fail(errno);
    }

    /// Has the call that was carried out come to this error.
    pub fn fail(&mut self, errno: Errno) {
        self.end_with(-(errno as i64));
    }

    /// Has the call that was carried out come to this.
    pub fn end_with(&mut self, result: i64) {
        set_result(&mut self.all, result);
    }

    /// Whether the call was interrupted, and is made again only where the signal's handler wants it so. On arm64 the kernel has
    /// gone back to the call before it tells of the signal, so that nobody sees that here, and the handler's wish is heeded.
    pub fn was_interrupted(&self) -> bool {
        self.result() == -RESTART_IF_WANTED
    }

    /// Has the kernel make an interrupted call again in any case.
    pub fn restart(&mut self) {
        self.end_with(-RESTART);
    }

    /// Has the thread make the call once more that it is at the end of.
    pub fn make_again(&mut self) {
        make_again(&mut self.all, self.call);
    }
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use super::libc::user_regs_struct;

    /// Bytes of the instruction by which a call is made.
    const INSTRUCTION: u64 = 2;

    pub(super) fn call_of(all: &user_regs_struct) -> i64 {
        all.orig_rax as i64
    }

    pub(super) fn set_call(all: &mut user_regs_struct, call: i64) {
        all.orig_rax = call as u64;
    }

    pub(super) fn argument(all: &user_regs_struct, index: usize) -> u64 {
        [all.rdi, all.rsi, all.rdx, all.r10, all.r8, all.r9][index]
    }

    pub(super) fn set_argument(all: &mut user_regs_struct, index: usize, value: u64) {
        let place = match index {
            0 => &mut all.rdi,
            1 => &mut all.rsi,
            2 => &mut all.rdx,
            3 => &mut all.r10,
            4 => &mut all.r8,
            _ => &mut all.r9,
        };
        *place = value;
    }

    pub(super) fn result(all: &user_regs_struct) -> i64 {
        all.rax as i64
    }

    pub(super) fn set_result(all: &mut user_regs_struct, result: i64) {
        all.rax = result as u64;
    }

    pub(super) fn make_again(all: &mut user_regs_struct, call: i64) {
        all.rax = call as u64;
        all.rip -= INSTRUCTION;
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use super::libc::user_regs_struct;

    /// Bytes of the instruction by which a call is made.
    const INSTRUCTION: u64 = 4;

    pub(super) fn call_of(all: &user_regs_struct) -> i64 {
        all.regs[8] as i64
    }

    pub(super) fn set_call(_: &mut user_regs_struct, _: i64) {
        // It has a set of its own.
    }

    pub(super) fn argument(all: &user_regs_struct, index: usize) -> u64 {
        all.regs[index]
    }

    pub(super) fn set_argument(all: &mut user_regs_struct, index: usize, value: u64) {
        all.regs[index] = value;
    }

    pub(super) fn result(all: &user_regs_struct) -> i64 {
        all.regs[0] as i64
    }

    pub(super) fn set_result(all: &mut user_regs_struct, result: i64) {
        all.regs[0] = result as u64;
    }

    pub(super) fn make_again(all: &mut user_regs_struct, call: i64) {
        all.regs[8] = call as u64;
        all.pc -= INSTRUCTION;
    }
}

use machine::{argument, call_of, make_again, result, set_argument, set_call, set_result};
