//! The sandbox's *mounts*: how the new root comes to be, seen from inside its own mount namespace.
//!
//! Invariant: everything is mounted below the mount point before the root changes; all of it is read-only
//! but the binds that ask to be writable, `/dev/shm`, and what belongs to a process in `/proc`. Mount targets are directories that we
//! made ourselves (the overlay's topmost layer), so no package can redirect one with a symlink.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::copy::{Look, copy_in_other_order};
use super::cross::{CROSSING, ENVIRONMENT, MACHINE};
use super::helper::Failed;
use super::request::{Bind, ContainerPlan, Copied, Isolation, Network, RootPlan, SandboxRequest, SetupStep, Veil};
use crate::fsio::sorted_names;
use crate::store_path::StoreDir;

/// Device nodes bound from the machine.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What of `/proc` tells of the machine, or of its users' secrets, and is nothing to a build.
const PROC_HIDDEN: [&str; 11] = [
    "kcore",
    "key-users",
    "keys",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "sched_debug",
    "slabinfo",
    "timer_list",
    "vmallocinfo",
];

/// Links in `/dev`.
pub(super) const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Composes the root that `request` describes, and makes it the root of this mount namespace.
pub(super) fn enter(request: &SandboxRequest) -> Result<(), Failed> {
    let root = request.mount_point.as_path();
    mount_at(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, "")
        .map_err(|error| error.during(SetupStep::Propagation))?;
    match &request.root {
        RootPlan::Overlay { groups, writable } => {
            if request.settings.machine_root {
                machine_root(&machine_place(root))?;
            }
            overlay_root(request, groups, *writable)?;
            devices(&root.join("dev"))?;
            proc(&root.join("proc"), request.container.as_ref())?;
            if request.settings.machine_root {
                show_machine_root(root)?;
            }
        }
        RootPlan::Host => host_root(root)?,
        // Nothing is mounted there.
        RootPlan::Composed => return Ok(()),
    }
    for copied in &request.settings.copies {
        copy_to_memory(copied)?;
    }
    let veils = Veils::mount(&request.veils);
    for bind in &request.binds {
        bind_path(root, &veils.source(&bind.source), bind)?;
    }
    if request.isolation == Isolation::Run {
        remount(root, MsFlags::MS_RDONLY)?;
    }
    if request.settings.machine_root {
        let machine = below(root, Path::new(MACHINE));
        remount(&machine, MsFlags::MS_RDONLY)?;
        for place in [root, &machine] {
            mount_at(None, place, None, MsFlags::MS_PRIVATE, "")?;
        }
    }
    if let Some(container) = request.container.as_ref().filter(|container| container.read_only) {
        seal_root(root, container)?;
    }
    pivot(root)
}

/// Mounts the overlay, in groups where there are more directories than one overlay takes.
///
/// The directories are named by short relative links: the option string is limited to a page, and a sandbox
/// that reads `/proc/mounts` learns nothing of where the store is.
fn overlay_root(request: &SandboxRequest, groups: &[usize], writable: bool) -> Result<(), Failed> {
    let overlay = |links: &Path, count: usize, target: &Path, writable: bool| {
        std::env::set_current_dir(links).map_err(|error| Failed::io(SetupStep::Overlay, links, &error))?;
        let names: Vec<String> = (0..count).map(|index| index.to_string()).collect();
        let mut options = format!("lowerdir={}", names.join(":"));
        let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        match writable {
            // Whether the attributes are the kernel's own or of users decides who may mount it.
            true => options.push_str(",upperdir=../upper,workdir=../work,userxattr"),
            false => flags |= MsFlags::MS_RDONLY,
        }
        mount_at(Some("overlay".as_ref()), target, Some("overlay"), flags, &options)
            .map_err(|error| error.during(SetupStep::Overlay))
    };
    if let [count] = groups {
        return overlay(&request.overlays.join("0"), *count, &request.mount_point, writable);
    }
    // `overlays/top` holds the mount points of the groups, named as its links would be.
    let top = request.overlays.join("top");
    for (index, count) in groups.iter().enumerate() {
        let name = index.to_string();
        overlay(&request.overlays.join(&name), *count, &top.join(&name), false)?;
    }
    overlay(&top, groups.len(), &request.mount_point, writable)
}

/// Lets nobody write to the root but in its volumes, each of which becomes a mount of its own for that.
fn seal_root(root: &Path, container: &ContainerPlan) -> Result<(), Failed> {
    for volume in &container.volumes {
        let place = below(root, volume);
        mount_at(Some(place.as_os_str()), &place, None, MsFlags::MS_BIND, "")
            .map_err(|error| error.during(SetupStep::Bind))?;
    }
    remount(root, MsFlags::MS_RDONLY)
}

/// A `/dev` of its own: the harmless nodes, private pseudo terminals and shared memory.
fn devices(dev: &Path) -> Result<(), Failed> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    // Not 1777: in a sticky directory of another owner, `> /dev/null` (O_CREAT) would be refused.
    mount_at(Some("tmpfs".as_ref()), dev, Some("tmpfs"), flags, "mode=0755,size=64k")?;
    for name in DEVICES {
        let target = dev.join(name);
        let failed = |error: &std::io::Error| Failed::io(SetupStep::Device, &target, error);
        fs::write(&target, "").map_err(|error| failed(&error))?;
        let source = Path::new("/dev").join(name);
        // Read-only: a device can be written to all the same, but the node is the machine's, and where the machine's
        // root builds it would be its owner who changes the mode or the times.
        mount_at(Some(source.as_os_str()), &target, None, MsFlags::MS_BIND, "")
            .and_then(|()| remount(&target, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC))
            .map_err(|error| error.during(SetupStep::Device))?;
    }
    for (name, target) in DEVICE_LINKS {
        let link = dev.join(name);
        symlink(target, &link).map_err(|error| Failed::io(SetupStep::Device, &link, &error))?;
    }
    let pts = dev.join("pts");
    make_dir(&pts)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_at(
        Some("devpts".as_ref()),
        &pts,
        Some("devpts"),
        flags,
        "newinstance,ptmxmode=0666,mode=0620",
    )?;
    let shm = dev.join("shm");
    make_dir(&shm)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_at(Some("tmpfs".as_ref()), &shm, Some("tmpfs"), flags, "mode=1777")?;
    remount(dev, MsFlags::MS_RDONLY)
}

/// A `/proc` of the sandbox's own processes, each of which may write to what is its own there. All else is the
/// machine's, and read-only: where the machine's root builds, its builder could write to `/proc/sys` otherwise, and
/// change the mode of any file there for all instances of `/proc`.
fn proc(target: &Path, container: Option<&ContainerPlan>) -> Result<(), Failed> {
    let failed = |error: Failed| error.during(SetupStep::Proc);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at(Some("proc".as_ref()), target, Some("proc"), flags, "").map_err(failed)?;
    forbid_control_groups(target)?;
    if container.is_some_and(|container| container.network == Network::Own) {
        open_ports(target);
    }
    let names = sorted_names(target).map_err(|error| Failed::io(SetupStep::Proc, target, &error.source))?;
    for name in names.iter().filter(|name| !name.as_bytes()[0].is_ascii_digit()) {
        let path = target.join(name);
        // Links lead to a process's own.
        if path.is_symlink() {
            continue;
        }
        let source = match PROC_HIDDEN.iter().any(|hidden| name == hidden) {
            true => target.with_file_name("dev").join("null"),
            false => path.clone(),
        };
        mount_at(Some(source.as_os_str()), &path, None, MsFlags::MS_BIND, "")
            .and_then(|()| remount(&path, flags | MsFlags::MS_RDONLY))
            .map_err(failed)?;
    }
    Ok(())
}

/// Lets nobody inside make a control group namespace: with one, a user namespace in the build could mount the machine's
/// control groups, which are root's where root builds.
fn forbid_control_groups(proc: &Path) -> Result<(), Failed> {
    let limit = proc.join("sys/user/max_cgroup_namespaces");
    match fs::write(&limit, "0") {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failed::io(SetupStep::Proc, &limit, &error)),
        _ => Ok(()),
    }
}

/// Lets any user serve on any port, as container engines do in a network of a container's own. A kernel without the setting
/// lets the administrator alone.
fn open_ports(proc: &Path) {
    let _ = fs::write(proc.join("sys/net/ipv4/ip_unprivileged_port_start"), "0");
}

/// A root in which every entry of the machine's root stands at its place.
fn host_root(root: &Path) -> Result<(), Failed> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_at(Some("tmpfs".as_ref()), root, Some("tmpfs"), flags, "mode=0755")?;
    // So that the directory in which it lies can be bound without it.
    mount_at(None, root, None, MsFlags::MS_UNBINDABLE, "")?;
    let host = Path::new("/");
    let names = sorted_names(host).map_err(|error| Failed::io(SetupStep::Bind, host, &error.source))?;
    let own = StoreDir::LAYERIZE.split('/').nth(1).unwrap_or_default();
    for name in names.iter().filter(|name| name.as_bytes() != own.as_bytes()) {
        let (source, target) = (host.join(name), root.join(name));
        let failed = |error: std::io::Error| Failed::io(SetupStep::Bind, &source, &error);
        let kind = fs::symlink_metadata(&source).map_err(failed)?.file_type();
        if kind.is_symlink() {
            symlink(fs::read_link(&source).map_err(failed)?, &target).map_err(failed)?;
            continue;
        }
        match kind.is_dir() {
            true => make_dir(&target)?,
            false => fs::write(&target, "").map_err(failed)?,
        }
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount_at(Some(source.as_os_str()), &target, None, flags, "").map_err(|error| error.during(SetupStep::Bind))?;
    }
    let store = below(root, Path::new(StoreDir::LAYERIZE));
    fs::create_dir_all(&store).map_err(|error| Failed::io(SetupStep::Bind, &store, &error))
}

/// Where the machine's root is put together for a shell whose own root is `root`.
pub(super) fn machine_place(root: &Path) -> PathBuf {
    root.with_file_name("machine")
}

/// The machine's root beside a shell's: as [`host_root`], with room for what is needed to cross.
fn machine_root(place: &Path) -> Result<(), Failed> {
    host_root(place)?;
    for name in [ENVIRONMENT, CROSSING] {
        make_dir(&below(place, Path::new(name)))?;
    }
    Ok(())
}

/// Moves the machine's root to where a shell sees it. Neither root is to be bound with the directories in which they were made.
fn show_machine_root(root: &Path) -> Result<(), Failed> {
    mount_at(None, root, None, MsFlags::MS_UNBINDABLE, "")?;
    let target = below(root, Path::new(MACHINE));
    mount_at(
        Some(machine_place(root).as_os_str()),
        &target,
        None,
        MsFlags::MS_MOVE,
        "",
    )?;
    // The machine's own would not know the shell's processes.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at(Some("proc".as_ref()), &target.join("proc"), Some("proc"), flags, "")
        .map_err(|error| error.during(SetupStep::Proc))
}

/// Mounts a memory file system and copies a directory there, so that everything is listed in another order.
fn copy_to_memory(copied: &Copied) -> Result<(), Failed> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_at(Some("tmpfs".as_ref()), &copied.to, Some("tmpfs"), flags, "mode=0755")?;
    let look = match copied.sealed {
        true => Look::Sealed,
        false => Look::Writable,
    };
    copy_in_other_order(&copied.from, &copied.to, look)
        .map_err(|error| Failed::io(SetupStep::Mount, &error.path, &error.source))
}

/// The overlays that binds are taken from.
struct Veils(Vec<(PathBuf, PathBuf)>);

impl Veils {
    /// Mounts what can be mounted.
    fn mount(veils: &[(Veil, PathBuf)]) -> Self {
        let mounted = veils.iter().filter(|(veil, own)| mount_veil(veil, own).is_ok());
        Self(
            mounted
                .map(|(veil, own)| (veil.dir.clone(), own.join("mount")))
                .collect(),
        )
    }

    /// Where `path` is to be bound from.
    fn source(&self, path: &Path) -> PathBuf {
        let veiled = self
            .0
            .iter()
            .find_map(|(dir, mount)| Some(mount.join(path.strip_prefix(dir).ok()?)));
        veiled.unwrap_or_else(|| path.to_owned())
    }
}

/// Mounts an overlay of a veil's directory; its options name constant links, as those of the root do.
fn mount_veil(veil: &Veil, own: &Path) -> Result<(), Failed> {
    std::env::set_current_dir(own).map_err(|error| Failed::io(SetupStep::Overlay, own, &error))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let (flags, options) = match veil.writable {
        true => (flags, "lowerdir=empty,upperdir=dir,workdir=work,userxattr"),
        false => (flags | MsFlags::MS_RDONLY, "lowerdir=dir:empty"),
    };
    mount_at(
        Some("overlay".as_ref()),
        &own.join("mount"),
        Some("overlay"),
        flags,
        options,
    )
}

/// Binds one path, read-only unless it is to be writable.
fn bind_path(root: &Path, source: &Path, bind: &Bind) -> Result<(), Failed> {
    let target = below(root, &bind.target);
    // A whole tree may have further mounts in it; without them the kernel refuses to show it in a user namespace.
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount_at(Some(source.as_os_str()), &target, None, flags, "").map_err(|error| Failed {
        step: SetupStep::Bind,
        path: Some(bind.source.clone()),
        ..error
    })?;
    let mut added = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    added.set(MsFlags::MS_RDONLY, !bind.writable);
    remount(&target, added)
}

/// Adds flags to a mount. Those it has must be repeated: in a user namespace the kernel refuses to drop them.
fn remount(target: &Path, added: MsFlags) -> Result<(), Failed> {
    let present = statvfs(target)
        .map_err(|errno| Failed::errno(SetupStep::Mount, Some(target), errno))?
        .flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | added;
    for (flag, kept) in [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ] {
        if present.contains(flag) {
            flags |= kept;
        }
    }
    mount_at(None, target, None, flags, "")
}

/// Makes `root` the root and lets go of the machine's.
fn pivot(root: &Path) -> Result<(), Failed> {
    let failed = |errno| Failed::errno(SetupStep::Pivot, Some(root), errno);
    std::env::set_current_dir(root).map_err(|error| Failed::io(SetupStep::Pivot, root, &error))?;
    nix::unistd::pivot_root(".", ".").map_err(failed)?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed)?;
    std::env::set_current_dir("/").map_err(|error| Failed::io(SetupStep::Pivot, root, &error))
}

fn make_dir(path: &Path) -> Result<(), Failed> {
    let failed = |error: std::io::Error| Failed::io(SetupStep::Mount, path, &error);
    fs::create_dir(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(failed)
}

/// `inside`, an absolute path of the sandbox, as it is before the root changes.
fn below(root: &Path, inside: &Path) -> PathBuf {
    root.join(inside.strip_prefix("/").unwrap_or(inside))
}

fn mount_at(
    source: Option<&OsStr>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: &str,
) -> Result<(), Failed> {
    let options = (!options.is_empty()).then_some(options);
    mount(source, target, kind, flags, options).map_err(|errno| Failed::errno(SetupStep::Mount, Some(target), errno))
}
