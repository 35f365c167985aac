//! The sandbox's *system call filter*: what a build may not do because a store path could not hold it.
//!
//! Invariant: a refused call fails with an error number that programs know how to live with, none kills the
//! build. Set-user-ID and set-group-ID bits give `EPERM`, extended attributes `EOPNOTSUPP` (as on a file system
//! without them). Only the machine's own system call table is allowed: a 32-bit program is killed.
//!
//! What cannot be inspected here (`openat2` takes a structure) is harmless all the same: the staging directory
//! is closed to other users, and set-ID bits are dropped when an output enters the store.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::helper::Failed;
use super::request::SetupStep;

/// `fchmodat2`, newer than the C library's list on some architectures; one number everywhere.
const SYS_FCHMODAT2: i64 = 452;

/// `setxattrat`, `getxattrat`, `listxattrat`, `removexattrat` (Linux 6.13); one number everywhere.
const SYS_XATTRAT: [i64; 4] = [463, 464, 465, 466];

/// Calls that change a mode, and which argument it is.
fn chmod_calls() -> Vec<(i64, u8)> {
    let mut calls = vec![
        (libc::SYS_fchmod, 1),
        (libc::SYS_fchmodat, 2),
        (SYS_FCHMODAT2, 2),
        (libc::SYS_mknodat, 2),
    ];
    #[cfg(target_arch = "x86_64")]
    calls.extend([(libc::SYS_chmod, 1), (libc::SYS_mknod, 1), (libc::SYS_creat, 1)]);
    calls
}

/// Calls that may create a file: which arguments are the flags and the mode.
fn open_calls() -> Vec<(i64, u8, u8)> {
    let mut calls = vec![(libc::SYS_openat, 2, 3)];
    #[cfg(target_arch = "x86_64")]
    calls.push((libc::SYS_open, 1, 2));
    calls
}

fn xattr_calls() -> Vec<i64> {
    let mut calls = vec![
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_fsetxattr,
        libc::SYS_getxattr,
        libc::SYS_lgetxattr,
        libc::SYS_fgetxattr,
        libc::SYS_listxattr,
        libc::SYS_llistxattr,
        libc::SYS_flistxattr,
        libc::SYS_removexattr,
        libc::SYS_lremovexattr,
        libc::SYS_fremovexattr,
    ];
    calls.extend(SYS_XATTRAT);
    calls
}

/// Installs the filter for this process and all it starts.
pub(super) fn install() -> Result<(), Failed> {
    for program in programs().map_err(failed)? {
        seccompiler::apply_filter(&program).map_err(|error| match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => Failed {
                step: SetupStep::Filter,
                path: None,
                error,
            },
            error => failed(error.to_string()),
        })?;
    }
    Ok(())
}

fn failed(text: String) -> Failed {
    Failed {
        step: SetupStep::Filter,
        path: None,
        error: io::Error::other(text),
    }
}

fn programs() -> Result<[BpfProgram; 2], String> {
    let text = |error: seccompiler::BackendError| error.to_string();
    let mut set_id: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for bit in [libc::S_ISUID, libc::S_ISGID].map(u64::from) {
        for (call, mode) in chmod_calls() {
            let rule = SeccompRule::new(vec![has(mode, bit).map_err(text)?]).map_err(text)?;
            set_id.entry(call).or_default().push(rule);
        }
        // Without O_CREAT the mode argument is whatever was in the register.
        for (call, flags, mode) in open_calls() {
            let creates = has(flags, libc::O_CREAT as u64).map_err(text)?;
            let rule = SeccompRule::new(vec![creates, has(mode, bit).map_err(text)?]).map_err(text)?;
            set_id.entry(call).or_default().push(rule);
        }
    }
    let xattrs = xattr_calls().into_iter().map(|call| (call, Vec::new())).collect();
    Ok([filter(set_id, libc::EPERM)?, filter(xattrs, libc::EOPNOTSUPP)?])
}

fn has(argument: u8, bits: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), bits)
}

fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, String> {
    let architecture = std::env::consts::ARCH;
    let target = architecture.try_into();
    let target = target.map_err(|_| format!("no filter is known for the architecture {architecture}"))?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), target)
        .and_then(BpfProgram::try_from)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_filters_compile_and_fit_the_kernel() {
        let programs = programs().unwrap();
        assert!(programs.iter().all(|program| (1..4096).contains(&program.len())));
    }
}
