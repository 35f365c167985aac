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

/// How the directory of a group is made.
type Create<'a> = dyn Fn(&Path) -> io::Result<()> + 'a;

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
        Self::make_in(&mounts, &own, bounds, &|dir| fs::create_dir(dir))
    }

    /// Makes groups in the hierarchies that `mounts` and `own` tell of; `create` makes the directory of one.
    fn make_in(mounts: &str, own: &str, bounds: &Bounds, create: &Create<'_>) -> Self {
        let is_wanted = |control: &&GroupControl| bounds.value(control.bound).is_some();
        let wanted: Vec<&'static GroupControl> = VERSION_2.iter().filter(is_wanted).collect();
        let mut groups = Self::default();
        if let Some(own) = own_directory(mounts, own, None) {
            // A process is in one group of version 2: in that which holds most. From our own upwards: those that were
            // delegated come first.
            let alone = wanted.iter().map(std::slice::from_ref);
            let made = std::iter::once(&wanted[..]).chain(alone).find_map(|held| {
                own.ancestors()
                    .find_map(|parent| ControlGroup::make(parent, held, bounds, create))
            });
            groups.0.extend(made);
        }
        for control in VERSION_1.iter().filter(is_wanted) {
            let is_held = groups
                .0
                .iter()
                .flat_map(|group| &group.held)
                .any(|held| held.bound == control.bound);
            if let (false, Some(own)) = (is_held, own_directory(mounts, own, Some(control.controller))) {
                let mut parents = own.ancestors();
                groups
                    .0
                    .extend(parents.find_map(|parent| ControlGroup::make(parent, &[control], bounds, create)));
            }
        }
        groups
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
    fn make(parent: &Path, held: &[&'static GroupControl], bounds: &Bounds, create: &Create<'_>) -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        create(&dir).ok()?;
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

    /// A hierarchy of version 2 as the kernel keeps it: a group has the files of the controllers that the one above it
    /// enables for those below (`cgroup.subtree_control`), and only who owns a group makes others in it.
    struct Hierarchy {
        dir: tempfile::TempDir,
        mounts: String,
    }

    impl Hierarchy {
        /// Groups by path, each with the controllers that it enables for those below, and whether it was delegated.
        fn new(groups: &[(&str, &str, bool)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (path, enabled, is_ours) in groups {
                let group = dir.path().join(path);
                fs::create_dir_all(&group).unwrap();
                fs::write(group.join("cgroup.subtree_control"), enabled).unwrap();
                fs::write(group.join("ours"), if *is_ours { "yes" } else { "" }).unwrap();
            }
            let mounts = format!(
                "30 1 0:26 / {} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
                dir.path().display()
            );
            Self { dir, mounts }
        }

        fn create(&self, dir: &Path) -> io::Result<()> {
            let parent = dir.parent().unwrap();
            let of_parent = |file: &str| fs::read_to_string(parent.join(file)).unwrap_or_default();
            if of_parent("ours") != "yes" {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            fs::create_dir(dir)?;
            for controller in of_parent("cgroup.subtree_control").split_whitespace() {
                let files: &[&str] = match controller {
                    "memory" => &["memory.max", "memory.swap.max", "memory.events", "cgroup.procs"],
                    "pids" => &["pids.max", "pids.events", "cgroup.procs"],
                    _ => &[],
                };
                files.iter().try_for_each(|file| fs::write(dir.join(file), ""))?;
            }
            Ok(())
        }

        fn make(&self, own: &str, bounds: &Bounds) -> Groups {
            Groups::make_in(&self.mounts, &format!("0::{own}\n"), bounds, &|dir| self.create(dir))
        }

        /// The groups of ours that are there, by the path of the one above.
        fn ours(&self) -> Vec<String> {
            let mut found = Vec::new();
            let mut pending = vec![self.dir.path().to_owned()];
            while let Some(dir) = pending.pop() {
                for name in sorted_names(&dir).unwrap() {
                    let path = dir.join(&name);
                    if name.to_string_lossy().starts_with(PREFIX) {
                        found.push(dir.strip_prefix(self.dir.path()).unwrap().display().to_string());
                    } else if path.is_dir() {
                        pending.push(path);
                    }
                }
            }
            found
        }
    }

    const BOTH: Bounds = Bounds {
        memory: Some(64 << 20),
        processes: Some(20),
    };

    /// What systemd gives a user's session: the service of the user is delegated, the scope of the terminal is a leaf.
    fn session(enabled: &str) -> Hierarchy {
        Hierarchy::new(&[
            ("", "memory pids", false),
            ("user.slice", "memory pids", false),
            ("user.slice/user@1.service", enabled, true),
            ("user.slice/user@1.service/app.slice", "", true),
            ("user.slice/user@1.service/app.slice/x.scope", "", true),
        ])
    }

    const OWN: &str = "/user.slice/user@1.service/app.slice/x.scope";

    #[test]
    fn a_delegated_group_bounds_and_tells() {
        let hierarchy = session("cpu memory pids");
        let groups = hierarchy.make(OWN, &BOTH);
        assert_eq!(
            hierarchy.ours(),
            ["user.slice/user@1.service"],
            "and nothing is left of what was tried below"
        );
        let dir = groups.0[0].dir.clone();
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
        // The two processes of the sandbox itself are in the group too, and swap space is no way around it.
        assert_eq!(
            (read("memory.max"), read("pids.max")),
            ("67108864".to_owned(), "22".to_owned())
        );
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(groups.hit(), None);
        let joined = groups.joined(&BOTH);
        assert_eq!(
            join(&joined, &BOTH),
            Bounds::default(),
            "nothing is left to resource limits"
        );
        assert_eq!(read("cgroup.procs"), "0", "who writes 0 joins itself");
        for (file, text, expected) in [
            ("pids.events", "max 3\n", Bound::Processes),
            (
                "memory.events",
                "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n",
                Bound::Memory,
            ),
        ] {
            fs::write(dir.join(file), text).unwrap();
            assert_eq!(groups.hit(), Some(expected));
        }
    }

    /// Only what was delegated can be had; the rest is left to version 1 or to resource limits.
    #[test]
    fn as_much_is_bounded_as_was_delegated() {
        for (enabled, memory, processes) in [("memory", false, true), ("pids", true, false), ("cpu", true, true)] {
            let hierarchy = session(enabled);
            let groups = hierarchy.make(OWN, &BOTH);
            let left = join(&groups.joined(&BOTH), &BOTH);
            assert_eq!(
                (left.memory.is_some(), left.processes.is_some()),
                (memory, processes),
                "{enabled}"
            );
        }
        let foreign = Hierarchy::new(&[("", "memory pids", false), ("system.slice", "memory pids", false)]);
        assert!(foreign.make("/system.slice", &BOTH).0.is_empty());
        // In a container with a namespace of its own the group is the top, and everything there is ours.
        let container = Hierarchy::new(&[("", "memory pids", true)]);
        let groups = container.make(
            "/",
            &Bounds {
                processes: None,
                ..BOTH
            },
        );
        assert_eq!((groups.0.len(), container.ours()), (1, vec![String::new()]));
        assert_eq!(
            groups.0[0].dir.join("pids.max").metadata().unwrap().len(),
            0,
            "nobody asked for it"
        );
    }

    #[test]
    fn groups_of_dead_processes_are_removed() {
        let hierarchy = Hierarchy::new(&[("", "memory pids", true)]);
        let (dead, alive) = (format!("{PREFIX}4194305-0"), format!("{PREFIX}1-0"));
        for name in [&dead, &alive] {
            fs::create_dir(hierarchy.dir.path().join(name)).unwrap();
        }
        let _groups = hierarchy.make("/", &BOTH);
        assert!(!hierarchy.dir.path().join(dead).exists());
        assert!(hierarchy.dir.path().join(alive).exists());
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
