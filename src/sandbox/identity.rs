//! *Who the processes of a container or of a maintainer script are*, in a user namespace that has one user: what a process
//! said last of itself, or its parent before it, and else the image's user, or the administrator.
//!
//! Invariant: a process is told what it would be told where all users are there: root may become anyone and nobody else may
//! become another. What the kernel lets it do with files is what the image's user may do, whoever it became.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::libc;
use serde::{Deserialize, Serialize};

use super::notify::Answer;
use super::owners::Process;

/// Most groups of a process, as the kernel has it (`NGROUPS_MAX`).
const GROUPS_MAX: u64 = 65_536;

/// An ID that asks for no change.
const UNCHANGED: u32 = u32::MAX;

/// Who a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Identity {
    /// Whether it may do what only root may.
    pub(super) fn is_privileged(&self) -> bool {
        self.uid == 0
    }

    /// Whether it is in a group.
    pub(super) fn has_group(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    /// The mode that a file is given on disk, where it is owned by whoever runs layerize: what this user may do with a file of
    /// these owners and this mode. Bits that would lend the owner's rights to others are never set.
    pub fn own_mode(&self, uid: u32, gid: u32, mode: u32) -> u32 {
        let mode = mode & 0o1777;
        if self.is_privileged() {
            return mode;
        }
        let class = match (uid == self.uid, self.has_group(gid)) {
            (true, _) => mode >> 6 & 7,
            (false, true) => mode >> 3 & 7,
            (false, false) => mode & 7,
        };
        mode & 0o1000 | class << 6
    }
}

/// The calls by which a process says or asks who it is.
pub(super) fn calls() -> Vec<i64> {
    vec![
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setreuid,
        libc::SYS_setregid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setgroups,
        libc::SYS_setfsuid,
        libc::SYS_setfsgid,
        libc::SYS_getuid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getegid,
        libc::SYS_getresuid,
        libc::SYS_getresgid,
        libc::SYS_getgroups,
    ]
}

/// Real, effective and saved IDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ids([u32; 3]);

impl Ids {
    const fn all(id: u32) -> Self {
        Self([id; 3])
    }

    /// `setuid`, `setgid`.
    fn set(self, id: u32, privileged: bool) -> Option<Self> {
        let [real, _, saved] = self.0;
        match privileged {
            true => Some(Self::all(id)),
            false => (id == real || id == saved).then_some(Self([real, id, saved])),
        }
    }

    /// `setreuid`, `setregid`.
    fn set_two(self, new: [u32; 2], privileged: bool) -> Option<Self> {
        let [old_real, _, old_saved] = self.0;
        let Self([real, effective, _]) = self.set_three([new[0], new[1], UNCHANGED], privileged)?;
        let follows = new[0] != UNCHANGED || (new[1] != UNCHANGED && new[1] != old_real);
        Some(Self([real, effective, if follows { effective } else { old_saved }]))
    }

    /// `setresuid`, `setresgid`.
    fn set_three(self, new: [u32; 3], privileged: bool) -> Option<Self> {
        let mut ids = self.0;
        for (id, new) in ids.iter_mut().zip(new) {
            if new == UNCHANGED {
                continue;
            }
            if !privileged && !self.0.contains(&new) {
                return None;
            }
            *id = new;
        }
        Some(Self(ids))
    }
}

/// What a process is known to be.
#[derive(Debug, Clone)]
struct Known {
    users: Ids,
    groups: Ids,
    supplementary: Vec<u32>,
    /// When it started: process numbers are used again.
    started: u64,
}

impl Known {
    fn new(identity: &Identity) -> Self {
        Self {
            users: Ids::all(identity.uid),
            groups: Ids::all(identity.gid),
            supplementary: identity.groups.clone(),
            started: 0,
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            uid: self.users.0[1],
            gid: self.groups.0[1],
            groups: self.supplementary.clone(),
        }
    }
}

/// The processes of a container, or of a maintainer script.
pub(super) struct Callers {
    first: Identity,
    /// Whether what they may do with files is what the container's user may.
    in_container: bool,
    /// Those that are not, or whose parents were not, who the container began as; by process number.
    known: BTreeMap<u32, Known>,
}

impl Callers {
    /// Those of a container whose user is `first`.
    pub(super) fn of_container(first: &Identity) -> Self {
        Self {
            first: first.clone(),
            in_container: true,
            known: BTreeMap::new(),
        }
    }

    /// Those of a maintainer script: the administrator, who may do all, and whoever it becomes.
    pub(super) fn of_script() -> Self {
        Self {
            first: Identity::default(),
            in_container: false,
            known: BTreeMap::new(),
        }
    }

    /// Whether they are those of a container.
    pub(super) fn in_container(&self) -> bool {
        self.in_container
    }

    /// Who the container began as.
    pub(super) fn first(&self) -> &Identity {
        &self.first
    }

    /// Who a thread's process is.
    pub(super) fn of(&mut self, thread: u32) -> Identity {
        self.look_up(thread).1.identity()
    }

    /// Answers a call that is about who a process is.
    pub(super) fn answer(&mut self, process: &Process, call: i64, arguments: &[u64; 6]) -> Option<Answer> {
        if !calls().contains(&call) {
            return None;
        }
        let (number, known) = self.look_up(process.pid);
        let [real, effective, saved] = [0, 1, 2].map(|index: usize| arguments[index]);
        let number_of = |id: u32| Some(Answer::Number(id.into()));
        match call {
            libc::SYS_getuid => number_of(known.users.0[0]),
            libc::SYS_geteuid | libc::SYS_setfsuid => number_of(known.users.0[1]),
            libc::SYS_getgid => number_of(known.groups.0[0]),
            libc::SYS_getegid | libc::SYS_setfsgid => number_of(known.groups.0[1]),
            libc::SYS_getresuid => Some(Answer::Done(tell(process, [real, effective, saved], known.users))),
            libc::SYS_getresgid => Some(Answer::Done(tell(process, [real, effective, saved], known.groups))),
            libc::SYS_getgroups => Some(groups(process, real, effective, &known.supplementary)),
            _ => Some(Answer::Done(self.change(process, call, arguments, known).map(
                |changed| {
                    self.known.insert(number, changed);
                },
            ))),
        }
    }

    /// What a process is after a call that changes it.
    ///
    /// A script may change its groups whoever it is: setpriv(1) changes its user first, and has the kernel keep its rights.
    fn change(&self, process: &Process, call: i64, arguments: &[u64; 6], known: Known) -> Result<Known, Errno> {
        let [a, b, c] = [0, 1, 2].map(|index: usize| arguments[index] as u32);
        let privileged = known.identity().is_privileged();
        let may_group = privileged || !self.in_container;
        let users = |ids: Option<Ids>| ids.map(|users| Known { users, ..known.clone() });
        let groups = |ids: Option<Ids>| {
            ids.map(|groups| Known {
                groups,
                ..known.clone()
            })
        };
        let changed = match call {
            libc::SYS_setuid => users(known.users.set(a, privileged)),
            libc::SYS_setreuid => users(known.users.set_two([a, b], privileged)),
            libc::SYS_setresuid => users(known.users.set_three([a, b, c], privileged)),
            libc::SYS_setgid => groups(known.groups.set(a, may_group)),
            libc::SYS_setregid => groups(known.groups.set_two([a, b], may_group)),
            libc::SYS_setresgid => groups(known.groups.set_three([a, b, c], may_group)),
            _ if may_group => {
                let supplementary = read_groups(process, arguments[0], arguments[1])?;
                Some(Known {
                    supplementary,
                    ..known.clone()
                })
            }
            _ => None,
        };
        changed.ok_or(Errno::EPERM)
    }

    /// The process of a thread, and what it is: its own word, or that of the nearest parent that gave one.
    fn look_up(&mut self, thread: u32) -> (u32, Known) {
        let Some((process, parent)) = process_of(thread) else {
            return (thread, Known::new(&self.first));
        };
        let started = start_of(process).unwrap_or(0);
        if self.known.is_empty() {
            return (
                process,
                Known {
                    started,
                    ..Known::new(&self.first)
                },
            );
        }
        let (mut number, mut next, mut time) = (process, parent, started);
        loop {
            if let Some(known) = self.known.get(&number).filter(|known| known.started == time) {
                let found = Known {
                    started,
                    ..known.clone()
                };
                // A child that outlives its parent stays who it is.
                self.known.insert(process, found.clone());
                return (process, found);
            }
            let Some((_, above)) = process_of(next) else {
                return (
                    process,
                    Known {
                        started,
                        ..Known::new(&self.first)
                    },
                );
            };
            (number, next, time) = (next, above, start_of(next).unwrap_or(0));
        }
    }
}

fn read_groups(process: &Process, count: u64, list: u64) -> Result<Vec<u32>, Errno> {
    if count > GROUPS_MAX {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; count as usize * 4];
    let memory = process.memory(false)?;
    memory.read_exact_at(&mut bytes, list).map_err(|_| Errno::EFAULT)?;
    let words = bytes.chunks_exact(4);
    Ok(words
        .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        .collect())
}

fn groups(process: &Process, size: u64, list: u64, groups: &[u32]) -> Answer {
    let size = size as i32;
    let count = groups.len() as i64;
    if size == 0 {
        return Answer::Number(count);
    }
    if i64::from(size) < count {
        return Answer::Done(Err(Errno::EINVAL));
    }
    let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
    let written = process
        .memory(true)
        .and_then(|memory| memory.write_all_at(&bytes, list).map_err(|_| Errno::EFAULT));
    match written {
        Ok(()) => Answer::Number(count),
        Err(errno) => Answer::Done(Err(errno)),
    }
}

/// Writes three IDs to three places of the caller's memory.
fn tell(process: &Process, places: [u64; 3], ids: Ids) -> Result<(), Errno> {
    let memory = process.memory(true)?;
    for (place, id) in places.into_iter().zip(ids.0) {
        let written = memory.write_all_at(&id.to_ne_bytes(), place);
        written.map_err(|_| Errno::EFAULT)?;
    }
    Ok(())
}

/// The process of a thread, and its parent.
pub(super) fn process_of(thread: u32) -> Option<(u32, u32)> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    Some((field("Tgid:")?, field("PPid:")?))
}

/// When a process started, in ticks since the machine did.
fn start_of(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The program's name, in brackets, may hold anything; the time is the twentieth field after it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_change_as_the_kernel_lets_them() {
        let root = Ids::all(0);
        assert_eq!(root.set(33, true), Some(Ids::all(33)));
        assert_eq!(Ids::all(33).set(0, false), None);
        assert_eq!(Ids([33, 33, 0]).set(0, false), Some(Ids([33, 0, 0])));
        assert_eq!(root.set_three([UNCHANGED, 5, UNCHANGED], true), Some(Ids([0, 5, 0])));
        assert_eq!(Ids([0, 5, 0]).set_three([UNCHANGED, 0, UNCHANGED], false), Some(root));
        assert_eq!(Ids::all(5).set_three([5, 6, 5], false), None);
        // The saved ID follows where the real one is set, or the effective one to what the real one was not.
        assert_eq!(root.set_two([UNCHANGED, 5], true), Some(Ids([0, 5, 5])));
        assert_eq!(Ids([5, 6, 6]).set_two([UNCHANGED, 5], false), Some(Ids([5, 5, 6])));
    }

    #[test]
    fn a_files_mode_on_disk_is_what_the_user_may_do() {
        let user = Identity {
            uid: 1000,
            gid: 100,
            groups: vec![4],
        };
        for (uid, gid, mode, own) in [
            (1000, 0, 0o640, 0o600),
            (1000, 100, 0o077, 0o000),
            (0, 100, 0o640, 0o400),
            (0, 4, 0o750, 0o500),
            (0, 0, 0o640, 0o000),
            (0, 0, 0o4755, 0o500),
            (0, 0, 0o1777, 0o1700),
        ] {
            assert_eq!(user.own_mode(uid, gid, mode), own, "{uid}:{gid} {mode:o}");
        }
        assert_eq!(Identity::default().own_mode(5, 5, 0o4750), 0o750);
    }
}
