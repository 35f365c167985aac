//! The *bounds* of a build: how much memory and how many processes it may use at most.
//!
//! A control group bounds a build as a whole and tells afterwards whether it was hit. One is made wherever the machine lets
//! us: in version 2 below our own group or one above it that was delegated to us with the controllers, else in the
//! hierarchies of version 1. Where neither is possible, resource limits stand in: `RLIMIT_AS` bounds the memory of each
//! process and not their sum, and `RLIMIT_NPROC` does not bind root.
//!
//! Invariant: what is bounded is what runs in the sandbox; no group outlives its sandbox but by a kill of layerize, and the
//! next sandbox removes such a one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};

use crate::fsio::{read_limited, sorted_names};

/// What the names of our groups begin with; the process that made one follows.
const PREFIX: &str = "layerize-";

/// Processes of the sandbox itself, which are in the group too: the outer helper and init.
const OWN_PROCESSES: u64 = 2;

/// Largest file of `/proc` and of a group that is read.
const FILE_MAX: u64 = 1 << 20;

/// How often, a hundredth of a second apart, a group whose processes are just ending is tried to be removed.
const REMOVALS: usize = 50;

/// What a build may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bounds {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processes and threads at one time.
    pub processes: Option<u64>,
}

/// One of the [`Bounds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// [`Bounds::memory`].
    Memory,
    /// [`Bounds::processes`].
    Processes,
}

/// How one version of control groups bounds something.
struct GroupControl {
    bound: Bound,
    /// The controller's name in version 1.
    controller: &'static str,
    file: &'static str,
    /// The file that counts how often it was hit, and the counter's name in it.
    events: (&'static str, &'static str),
}

const VERSION_2: [GroupControl; 2] = [
    GroupControl {
        bound: Bound::Memory,
        controller: "memory",
        file: "memory.max",
        events: ("memory.events", "oom_kill"),
    },
    PROCESSES,
];

const VERSION_1: [GroupControl; 2] = [
    GroupControl {
        bound: Bound::Memory,
        controller: "memory",
        file: "memory.limit_in_bytes",
        events: ("memory.oom_control", "oom_kill"),
    },
    PROCESSES,
];

const PROCESSES: GroupControl = GroupControl {
    bound: Bound::Processes,
    controller: "pids",
    file: "pids.max",
    events: ("pids.events", "max"),
};

impl Bounds {
    fn value(&self, bound: Bound) -> Option<u64> {
        match bound {
            Bound::Memory => self.memory,
            Bound::Processes => self.processes.map(|count| count.saturating_add(OWN_PROCESSES)),
        }
    }

    fn without(self, bound: Bound) -> Self {
        match bound {
            Bound::Memory => Self { memory: None, ..self },
            Bound::Processes => Self {
                processes: None,
                ..self
            },
        }
    }

    /// Bounds this process, and what it starts, by resource limits.
    pub(super) fn limit_resources(&self) -> nix::Result<()> {
        if let Some(bytes) = self.memory {
            setrlimit(Resource::RLIMIT_AS, bytes, bytes)?;
        }
        if let Some(count) = self.processes {
            setrlimit(Resource::RLIMIT_NPROC, count, count)?;
        }
        Ok(())
    }
}

/// The control groups of one sandbox; removed when dropped.
#[derive(Default)]
pub(super) struct Groups(Vec<ControlGroup>);

/// A group, and what it bounds, for the helper that is to join it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Joined {
    dir: PathBuf,
    bounds: Bounds,
}

struct ControlGroup {
    dir: PathBuf,
    held: Vec<&'static GroupControl>,
}

impl Groups {
    /// Makes groups for as many of the bounds as the machine allows.
    pub(super) fn make(bounds: &Bounds) -> Self {
        if *bounds == Bounds::default() {
            return Self::default();
        }
        let (mounts, own) = (text("/proc/self/mountinfo"), text("/proc/self/cgroup"));
        let wanted: Vec<&'static GroupControl> = VERSION_2
            .iter()
            .filter(|control| bounds.value(control.bound).is_some())
            .collect();
        if let Some(own) = own_directory(&mounts, &own, None) {
            // From our own group upwards: those that were delegated come first.
            let made = own
                .ancestors()
                .find_map(|parent| ControlGroup::make(parent, &wanted, bounds));
            if let Some(group) = made {
                return Self(vec![group]);
            }
        }
        let single = VERSION_1.iter().filter_map(|control| {
            bounds.value(control.bound)?;
            let own = own_directory(&mounts, &own, Some(control.controller))?;
            own.ancestors()
                .find_map(|parent| ControlGroup::make(parent, &[control], bounds))
        });
        Self(single.collect())
    }

    /// What the helper needs to join them.
    pub(super) fn joined(&self, bounds: &Bounds) -> Vec<Joined> {
        let held = |group: &ControlGroup| {
            let mut held = Bounds::default();
            for control in &group.held {
                match control.bound {
                    Bound::Memory => held.memory = bounds.memory,
                    Bound::Processes => held.processes = bounds.processes,
                }
            }
            held
        };
        let joined = self.0.iter().map(|group| Joined {
            dir: group.dir.clone(),
            bounds: held(group),
        });
        joined.collect()
    }

    /// The bound that was hit, if any was.
    pub(super) fn hit(&self) -> Option<Bound> {
        let all = self
            .0
            .iter()
            .flat_map(|group| group.held.iter().map(|held| (&group.dir, *held)));
        let mut hit = all.filter(|(dir, held)| {
            let (file, name) = held.events;
            counter(&text(&dir.join(file).to_string_lossy()), name) > 0
        });
        hit.next().map(|(_, held)| held.bound)
    }
}

impl ControlGroup {
    /// A new group below `parent` with these bounds; `None` where the machine does not let us.
    fn make(parent: &Path, held: &[&'static GroupControl], bounds: &Bounds) -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&dir).ok()?;
        remove_dead(parent);
        let group = Self {
            dir,
            held: held.to_vec(),
        };
        for control in held {
            let value = bounds.value(control.bound)?;
            write(&group.dir.join(control.file), &value.to_string()).ok()?;
        }
        if held.iter().any(|control| control.bound == Bound::Memory) {
            // Otherwise what is bounded goes to the swap space; a machine without has no such file.
            let _ = write(&group.dir.join("memory.swap.max"), "0");
        }
        Some(group)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        for _ in 0..REMOVALS {
            match fs::remove_dir(&self.dir) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

/// Joins the groups; gives the bounds that no group holds, for resource limits.
pub(super) fn join(groups: &[Joined], bounds: &Bounds) -> Bounds {
    let mut left = *bounds;
    for group in groups {
        if write(&group.dir.join("cgroup.procs"), "0").is_ok() {
            for bound in [Bound::Memory, Bound::Processes] {
                if group.bounds.value(bound).is_some() {
                    left = left.without(bound);
                }
            }
        }
    }
    left
}

/// Removes groups of processes that were killed.
fn remove_dead(parent: &Path) {
    let names = sorted_names(parent).unwrap_or_default();
    for name in names.iter().filter_map(|name| name.to_str()) {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let is_dead = |maker: &str| maker.parse::<u32>().is_ok() && !Path::new("/proc").join(maker).exists();
        if maker.is_some_and(is_dead) {
            // One that is in use after all cannot be removed.
            let _ = fs::remove_dir(parent.join(name));
        }
    }
}

/// Where the group of this process is in the hierarchy of a version 1 controller, or in that of version 2.
fn own_directory(mounts: &str, own: &str, controller: Option<&str>) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_wanted = match controller {
            None => controllers.is_empty(),
            Some(name) => controllers.split(',').any(|controller| controller == name),
        };
        is_wanted.then_some(path)
    })?;
    let (root, mount_point) = mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        let mut about = file_system.split(' ');
        let (kind, options) = (about.next()?, about.nth(1).unwrap_or_default());
        let is_wanted = match controller {
            None => kind == "cgroup2",
            Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
        };
        is_wanted.then_some((root, mount_point))
    })?;
    let below = Path::new(path).strip_prefix(root).ok()?;
    Some(Path::new(mount_point).join(below))
}

/// The number after `name` in a file of such lines.
fn counter(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(key, _)| *key == name);
    found.and_then(|(_, number)| number.trim().parse().ok()).unwrap_or(0)
}

/// A control file is written to in one go, and never created.
fn write(path: &Path, value: &str) -> io::Result<()> {
    io::Write::write_all(&mut fs::File::options().write(true).open(path)?, value.as_bytes())
}

/// The text of a small file; empty where there is none.
fn text(path: &str) -> String {
    let bytes = read_limited(Path::new(path), FILE_MAX).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids\n\
        41 31 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const CONTAINER: &str = "600 599 0:28 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";

    #[test]
    fn the_own_group_is_found_in_every_hierarchy() {
        let own = "8:pids:/\n4:memory:/user/x\n0::/user.slice\n";
        for (mounts, own, controller, expected) in [
            (HYBRID, own, None, Some("/sys/fs/cgroup/unified/user.slice")),
            (HYBRID, own, Some("memory"), Some("/sys/fs/cgroup/memory/user/x")),
            (HYBRID, own, Some("pids"), Some("/sys/fs/cgroup/pids")),
            (HYBRID, own, Some("cpu"), None),
            (CONTAINER, "0::/docker/abc/leaf\n", None, Some("/sys/fs/cgroup/leaf")),
            (CONTAINER, "0::/elsewhere\n", None, None),
            ("", "", None, None),
            ("x - cgroup2", "0:", None, None),
        ] {
            let found = own_directory(mounts, own, controller);
            assert_eq!(found.as_deref(), expected.map(Path::new), "{own} {controller:?}");
        }
    }

    #[test]
    fn counters_are_read() {
        assert_eq!(counter("low 0\noom 3\noom_kill 2\n", "oom_kill"), 2);
        assert_eq!(counter("max 0\n", "max"), 0);
        assert_eq!(counter("", "max"), 0);
    }

    #[test]
    fn what_no_group_holds_is_left_to_resource_limits() {
        let bounds = Bounds {
            memory: Some(1 << 30),
            processes: Some(8),
        };
        let nowhere = Joined {
            dir: "/nonexistent".into(),
            bounds,
        };
        assert_eq!(join(&[nowhere], &bounds), bounds);
        assert_eq!(bounds.without(Bound::Memory).memory, None);
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_control_groups() {
        crate::testing::fuzz("control-groups", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let (mounts, own) = text.split_once("\n\n").unwrap_or((&text, "0::/"));
            for controller in [None, Some("memory"), Some("pids")] {
                let _ = super::own_directory(mounts, own, controller);
            }
            let _ = super::counter(&text, "max");
        });
    }
}
