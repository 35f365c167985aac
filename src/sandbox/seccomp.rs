//! The sandbox's *system call filter*: what a build may not do because a store path could not hold it, because it would
//! reach out of the sandbox, or because it would tell when the store's files were made.
//!
//! Invariant: a refused call fails with an error number that programs know how to live with, none kills the
//! build. Only the machine's own system call table is allowed: a 32-bit program is killed.
//!
//! | calls | answer | why |
//! |---|---|---|
//! | those that set set-user-ID and set-group-ID bits | `EPERM` | a store path holds none |
//! | those for extended attributes | `EOPNOTSUPP`, as on a file system without them | a store path holds none |
//! | `socket` and `socketpair` of families other than unix, IPv4 and IPv6 | `EAFNOSUPPORT` | network namespaces do not wall off all others (`AF_VSOCK` reaches the hypervisor) |
//! | `add_key`, `keyctl`, `request_key` | `ENOSYS`, as from a kernel without them | keys outlive the build and are the user's |
//! | `io_uring_*` | `ENOSYS` | it does all of the above unseen |
//! | `statx` | `ENOSYS` | it tells when a file was created on this machine; libraries ask `fstatat` then, which does not |
//!
//! What cannot be inspected here (`openat2` takes a structure) is harmless all the same: the staging directory
//! is closed to other users, and set-ID bits are dropped when an output enters the store.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::helper::Failed;
use super::request::SetupStep;

/// What is refused of each call: whatever fits one of its rules, or all of it where there are none.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// `fchmodat2`, newer than the C library's list on some architectures; one number everywhere.
const SYS_FCHMODAT2: i64 = 452;

/// `setxattrat`, `getxattrat`, `listxattrat`, `removexattrat` (Linux 6.13); one number everywhere.
const SYS_XATTRAT: [i64; 4] = [463, 464, 465, 466];

/// Calls that change a mode, and which argument it is.
fn chmod_calls() -> Vec<(i64, u8)> {
    vec![
        (libc::SYS_fchmod, 1),
        (libc::SYS_fchmodat, 2),
        (SYS_FCHMODAT2, 2),
        (libc::SYS_mknodat, 2),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_chmod, 1),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_mknod, 1),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_creat, 1),
    ]
}

/// Calls that may create a file: which arguments are the flags and the mode.
fn open_calls() -> Vec<(i64, u8, u8)> {
    vec![
        (libc::SYS_openat, 2, 3),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, 1, 2),
    ]
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

/// Calls that are answered as by a kernel that does not have them.
const UNKNOWN: [i64; 7] = [
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_statx,
];

/// Address families that lead nowhere but to the sandbox's own processes.
const FAMILIES: [i32; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// The same where there is no network namespace: sockets between processes.
const LOCAL_FAMILIES: [i32; 1] = [libc::AF_UNIX];

/// Objects that processes of one machine share, whoever made them, and that outlive them.
const SHARED_OBJECTS: [i64; 6] = [
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
];

/// Calls by which a process gets at another one of the same user, or at another root. `clone3` is answered as unknown: its
/// flags cannot be inspected, and libraries use `clone` then.
const REACHING: [i64; 14] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
];

/// Calls about mounts and the whole machine that take paths, and that only an administrator may make.
const OF_MOUNTS: [i64; 14] = [
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_landlock_create_ruleset,
];

/// Flags of `clone` that make namespaces.
const NEW_NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Requests that have the kernel send signals to a process of one's choice (`linux/sockios.h`).
const OWNER_REQUESTS: [u64; 2] = [0x8901, 0x8902];

/// `fcntl` commands that do the same: F_SETOWN, F_SETOWN_EX.
const OWNER_COMMANDS: [u64; 2] = [8, 15];

/// Calls that wait until something is on disk: what a script made is thrown away when the machine fails meanwhile.
const SYNCHRONISING: [i64; 5] = [
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync,
    libc::SYS_syncfs,
    libc::SYS_sync_file_range,
];

/// Installs the filter of a build for this process and all it starts.
pub(super) fn install() -> Result<(), Failed> {
    install_all(programs())
}

/// Installs the filter of a build that has neither processes nor a network of its own.
pub(super) fn install_for_chroot() -> Result<(), Failed> {
    install_all(chroot_programs())
}

/// Installs the filter of a traced build: the same, and what is about paths and is neither answered nor changed.
pub(super) fn install_for_traced() -> Result<(), Failed> {
    install_all(traced_programs())
}

/// Installs what is refused to maintainer scripts; which calls are answered by process 1 is `notify`'s to say.
pub(super) fn install_for_configuring() -> Result<(), Failed> {
    install_all(configuring_programs())
}

/// Installs what is refused to the programs of an image: little, as they are to run as they would elsewhere.
pub(super) fn install_for_container() -> Result<(), Failed> {
    install_all(container_programs())
}

fn install_all(programs: Result<Vec<BpfProgram>, String>) -> Result<(), Failed> {
    for program in programs.map_err(failed)? {
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

fn programs() -> Result<Vec<BpfProgram>, String> {
    build_programs(&FAMILIES)
}

/// The filters of a build whose sockets are of these families.
fn build_programs(families: &[i32]) -> Result<Vec<BpfProgram>, String> {
    let whole = |calls: &[i64]| calls.iter().map(|&call| (call, Vec::new())).collect();
    let mut programs = vec![
        filter(set_id_rules().map_err(|error| error.to_string())?, libc::EPERM)?,
        filter(whole(&xattr_calls()), libc::EOPNOTSUPP)?,
        filter(whole(&UNKNOWN), libc::ENOSYS)?,
        filter(
            family_rules(families).map_err(|error| error.to_string())?,
            libc::EAFNOSUPPORT,
        )?,
    ];
    programs.extend(second_table());
    Ok(programs)
}

fn chroot_programs() -> Result<Vec<BpfProgram>, String> {
    let whole = |calls: &[i64]| calls.iter().map(|&call| (call, Vec::new())).collect();
    let mut programs = build_programs(&LOCAL_FAMILIES)?;
    let unknown = [&SHARED_OBJECTS[..], &[libc::SYS_clone3]].concat();
    programs.push(filter(whole(&unknown), libc::ENOSYS)?);
    programs.push(filter(whole(&REACHING), libc::EPERM)?);
    programs.push(filter(
        reaching_rules().map_err(|error| error.to_string())?,
        libc::EPERM,
    )?);
    Ok(programs)
}

fn traced_programs() -> Result<Vec<BpfProgram>, String> {
    let whole = |calls: &[i64]| calls.iter().map(|&call| (call, Vec::new())).collect();
    let mut programs = chroot_programs()?;
    programs.push(filter(whole(&[libc::SYS_openat2]), libc::ENOSYS)?);
    programs.push(filter(whole(&[libc::SYS_name_to_handle_at]), libc::EOPNOTSUPP)?);
    programs.push(filter(whole(&OF_MOUNTS), libc::EPERM)?);
    programs.push(filter(
        untraced_rules().map_err(|error| error.to_string())?,
        libc::EPERM,
    )?);
    // Error number 0 is success: a process that would not be read could not be answered.
    let hides = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        u64::from(libc::PR_SET_DUMPABLE.unsigned_abs()),
    );
    let hides = hides.and_then(|condition| SeccompRule::new(vec![condition]));
    let hides = hides.map_err(|error| error.to_string())?;
    programs.push(filter(Rules::from([(libc::SYS_prctl, vec![hides])]), 0)?);
    Ok(programs)
}

/// Processes that would not be traced with those who make them.
fn untraced_rules() -> Result<Rules, BackendError> {
    let rule = SeccompRule::new(vec![has(0, libc::CLONE_UNTRACED.unsigned_abs().into())?])?;
    Ok(Rules::from([(libc::SYS_clone, vec![rule])]))
}

/// What reaches other processes depending on an argument.
fn reaching_rules() -> Result<Rules, BackendError> {
    let equal = |argument: u8, value: u64| {
        SeccompRule::new(vec![SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            value,
        )?])
    };
    let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
    let flags = NEW_NAMESPACES.into_iter();
    let flags = flags.map(|flag| SeccompRule::new(vec![has(0, u64::from(flag.unsigned_abs()))?]));
    Ok(Rules::from([
        (libc::SYS_clone, flags.collect::<Result<_, _>>()?),
        // Of another process by its number; nobody needs to name itself so.
        (libc::SYS_prlimit64, vec![SeccompRule::new(vec![other])?]),
        (
            libc::SYS_ioctl,
            OWNER_REQUESTS
                .into_iter()
                .map(|request| equal(1, request))
                .collect::<Result<_, _>>()?,
        ),
        (
            libc::SYS_fcntl,
            OWNER_COMMANDS
                .into_iter()
                .map(|command| equal(1, command))
                .collect::<Result<_, _>>()?,
        ),
    ]))
}

fn configuring_programs() -> Result<Vec<BpfProgram>, String> {
    let whole = |calls: &[i64]| calls.iter().map(|&call| (call, Vec::new())).collect();
    let noted = super::notify::calls();
    let attributes: Vec<i64> = xattr_calls().into_iter().filter(|call| !noted.contains(call)).collect();
    let mut programs = vec![
        filter(whole(&attributes), libc::EOPNOTSUPP)?,
        filter(whole(&UNKNOWN), libc::ENOSYS)?,
        filter(
            family_rules(&FAMILIES).map_err(|error| error.to_string())?,
            libc::EAFNOSUPPORT,
        )?,
        // Error number 0 is success: who asks for fewer capabilities is told that this was done.
        filter(whole(&[libc::SYS_capset]), 0)?,
        filter(whole(&SYNCHRONISING), 0)?,
    ];
    programs.extend(second_table());
    Ok(programs)
}

/// Whose capabilities a container's programs have is fixed; that they ask for fewer is obeyed. What a file's attributes say
/// is between process 1 and us.
fn container_programs() -> Result<Vec<BpfProgram>, String> {
    let whole = |calls: &[i64]| calls.iter().map(|&call| (call, Vec::new())).collect();
    let families = [FAMILIES.as_slice(), &[libc::AF_NETLINK, libc::AF_PACKET]].concat();
    let mut programs = vec![
        filter(whole(&xattr_calls()), libc::EOPNOTSUPP)?,
        filter(whole(&UNKNOWN), libc::ENOSYS)?,
        filter(
            family_rules(&families).map_err(|error| error.to_string())?,
            libc::EAFNOSUPPORT,
        )?,
        filter(whole(&[libc::SYS_capset]), 0)?,
    ];
    programs.extend(second_table());
    Ok(programs)
}

fn set_id_rules() -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    for bit in [libc::S_ISUID, libc::S_ISGID].map(u64::from) {
        for (call, mode) in chmod_calls() {
            rules
                .entry(call)
                .or_default()
                .push(SeccompRule::new(vec![has(mode, bit)?])?);
        }
        // Without O_CREAT the mode argument is whatever was in the register.
        for (call, flags, mode) in open_calls() {
            let creates = has(flags, libc::O_CREAT as u64)?;
            let rule = SeccompRule::new(vec![creates, has(mode, bit)?])?;
            rules.entry(call).or_default().push(rule);
        }
    }
    Ok(rules)
}

fn family_rules(families: &[i32]) -> Result<Rules, BackendError> {
    let is_not = |family: i32| {
        let family = u64::from(family.unsigned_abs());
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    };
    let conditions = families.iter().copied().map(is_not).collect::<Result<Vec<_>, _>>()?;
    let rules = [libc::SYS_socket, libc::SYS_socketpair].map(|call| {
        let rule = SeccompRule::new(conditions.clone())?;
        Ok((call, vec![rule]))
    });
    rules.into_iter().collect()
}

/// On x86-64 the same calls have second numbers (the "x32" ones), which no rule names: none of those exists.
#[cfg(target_arch = "x86_64")]
fn second_table() -> Option<BpfProgram> {
    use seccompiler::sock_filter;
    const X32: u32 = 0x4000_0000;
    let statement = |code: u32, k: u32, jt: u8, jf: u8| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    Some(vec![
        // The number is the first word of what a filter is shown (`seccomp_data`).
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32, 0, 1),
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
            0,
            0,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ])
}

#[cfg(not(target_arch = "x86_64"))]
fn second_table() -> Option<BpfProgram> {
    None
}

fn has(argument: u8, bits: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), bits)
}

fn filter(rules: Rules, errno: i32) -> Result<BpfProgram, String> {
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
    fn all_filters_compile_and_fit_the_kernel() {
        for programs in [
            programs(),
            chroot_programs(),
            traced_programs(),
            configuring_programs(),
            container_programs(),
        ]
        .map(Result::unwrap)
        {
            assert!(programs.iter().all(|program| (1..4096).contains(&program.len())));
        }
    }
}
