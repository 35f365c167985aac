//! Why a sandbox was *refused*, told from the step that failed and from what the machine says of itself.
//!
//! Invariant: a cause is named only where the machine's settings show it; each cause comes with what to type.

use std::io;
use std::path::{Path, PathBuf};

use nix::libc;

use super::request::{Refusal, SetupStep};
use crate::fsio::{PathError, read_limited};

/// Why something could not be run in a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Preparing files for it failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The helper process could not be started or waited for.
    #[error("cannot start the sandbox's helper process")]
    Start {
        /// Why.
        source: io::Error,
    },
    /// The helper process ended and told nothing.
    #[error(
        "the sandbox's helper process exited without answering: it was killed, or it is another version of layerize"
    )]
    NoReply,
    /// The machine refused a step of the setup.
    #[error("cannot set up the sandbox: cannot {}{}{}", step.infinitive(), quoted(path.as_deref()), because(*cause))]
    Refused {
        /// Which step.
        step: SetupStep,
        /// The path it was about.
        path: Option<PathBuf>,
        /// What of the machine's settings is to blame, where that shows.
        cause: Option<Cause>,
        /// The system's error.
        source: io::Error,
    },
}

impl SandboxError {
    pub(super) fn start(source: io::Error) -> Self {
        Self::Start { source }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        let cause = Cause::of(&refusal, &Facts::gather());
        Self::Refused {
            source: refusal.source(),
            step: refusal.step,
            path: refusal.path,
            cause,
        }
    }

    /// What to type next.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Refused { cause: Some(cause), .. } => Some(cause.help()),
            Self::Refused {
                step: SetupStep::UserNamespace | SetupStep::IdMap | SetupStep::Namespaces | SetupStep::Overlay,
                cause: None,
                ..
            } => Some(
                "find what forbids namespaces: `unshare --user --map-root-user --mount true` must work (in a chroot it \
                 never does); or build without a sandbox: `--sandbox=none`"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

fn quoted(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!(" `{}`", path.display()))
}

fn because(cause: Option<Cause>) -> String {
    cause.map_or_else(String::new, |cause| format!(": {}", cause.text()))
}

/// A setting of the machine that forbids sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's and Arch's hardened kernels).
    UnprivilegedUsernsClone,
    /// `user.max_user_namespaces` is 0 or all are in use.
    MaxUserNamespaces,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu 23.10 and later).
    AppArmor,
    /// A container's system call filter or missing capabilities.
    Container,
    /// Running as root without `CAP_SETFCAP`: root cannot be mapped.
    NoSetfcap,
    /// The kernel is older than 5.11: no overlayfs in user namespaces.
    OldKernel,
    /// The kernel is older than 6.7: no registrations of emulators in user namespaces.
    OldKernelForEmulators,
    /// The kernel has no registrations of emulators at all.
    NoBinfmt,
    /// The kernel has no overlayfs.
    NoOverlay,
    /// The packages lie on an overlay already (a container's root) and there are too many for one more.
    OverlayTooDeep,
    /// A container hides parts of `/proc`, so that no fresh one may be mounted.
    MaskedProc,
    /// An ordinary user, who may not change the root.
    NotRoot,
    /// What is to be started has a format that the kernel does not start here.
    NotForThisProcessor,
    /// The kernel is older than 5.19: calls cannot be answered so that no signal comes in between.
    OldKernelForTracing,
    /// The machine or a container lets nobody trace a process.
    NoTracing,
    /// Running as root without a capability that changing the root, or the user, takes.
    NoCapability(&'static str),
}

impl Cause {
    /// The cause that the facts show.
    fn of(refusal: &Refusal, facts: &Facts) -> Option<Self> {
        // A container's filter may also pretend that a call does not exist.
        let denied =
            matches!(refusal.errno, libc::EPERM | libc::EACCES) || refusal.errno == libc::ENOSYS && facts.is_filtered;
        match refusal.step {
            SetupStep::UserNamespace if refusal.errno == libc::ENOSPC => Some(Self::MaxUserNamespaces),
            SetupStep::IdMap if denied && facts.is_root && !facts.has_setfcap => Some(Self::NoSetfcap),
            SetupStep::UserNamespace | SetupStep::IdMap | SetupStep::Namespaces if denied => facts.userns_refused(),
            SetupStep::Propagation
            | SetupStep::Mount
            | SetupStep::HostName
            | SetupStep::Loopback
            | SetupStep::Pivot
                if denied =>
            {
                facts.userns_refused()
            }
            SetupStep::Emulator if refusal.errno == libc::ENODEV => Some(Self::NoBinfmt),
            SetupStep::Emulator if facts.kernel < (6, 7) => Some(Self::OldKernelForEmulators),
            SetupStep::Emulator if denied => facts.userns_refused(),
            SetupStep::Exec if refusal.errno == libc::ENOEXEC => Some(Self::NotForThisProcessor),
            SetupStep::Overlay if refusal.errno == libc::ENODEV => Some(Self::NoOverlay),
            SetupStep::Overlay if facts.kernel < (5, 11) => Some(Self::OldKernel),
            SetupStep::Overlay if refusal.errno == libc::EINVAL && facts.root_is_overlay => Some(Self::OverlayTooDeep),
            SetupStep::Overlay if denied => facts.userns_refused(),
            SetupStep::Proc if denied => Some(Self::MaskedProc),
            SetupStep::Limits if denied && facts.is_filtered => Some(Self::Container),
            SetupStep::Trace if facts.kernel < (5, 19) => Some(Self::OldKernelForTracing),
            SetupStep::Trace if denied => Some(Self::NoTracing),
            SetupStep::Chroot | SetupStep::Builder if denied && !facts.is_root => Some(Self::NotRoot),
            SetupStep::Chroot if denied => Some(Self::NoCapability("SYS_CHROOT")),
            SetupStep::Builder if denied => Some(Self::NoCapability("SETUID` and `SETGID")),
            _ => None,
        }
    }

    fn text(self) -> String {
        let text = match self {
            Self::NoCapability(name) => return format!("this is root without the capability `{name}`"),
            Self::NotForThisProcessor => {
                let machine = std::env::consts::ARCH;
                return format!("it is no program for this machine's processor, {machine}");
            }
            Self::NotRoot => "only root can do that",
            Self::OldKernelForTracing => "this kernel is older than Linux 5.19",
            Self::NoTracing => {
                "a container's system call filter, or the machine (the sysctl `kernel.yama.ptrace_scope`), forbids it"
            }
            Self::UnprivilegedUsernsClone => "the sysctl `kernel.unprivileged_userns_clone` is 0",
            Self::MaxUserNamespaces => "the sysctl `user.max_user_namespaces` allows no more of them",
            Self::AppArmor => "AppArmor forbids it (the sysctl `kernel.apparmor_restrict_unprivileged_userns` is 1)",
            Self::Container => "a container's system call filter or missing capabilities forbid it",
            Self::NoSetfcap => "this is root without the capability CAP_SETFCAP",
            Self::OldKernel => "this kernel is older than Linux 5.11",
            Self::OldKernelForEmulators => "this kernel is older than Linux 6.7",
            Self::NoBinfmt => "this kernel has no binfmt_misc",
            Self::NoOverlay => "this kernel has no overlayfs",
            Self::OverlayTooDeep => "the store lies on an overlay (a container's root) and the packages are too many",
            Self::MaskedProc => "a container hides parts of its own /proc",
        };
        text.to_owned()
    }

    fn help(self) -> String {
        const CONTAINER: &str = "start the container with `--privileged`, or with `--security-opt seccomp=unconfined \
            --security-opt apparmor=unconfined` and, to docker, `--security-opt systempaths=unconfined`, to podman, \
            `--security-opt unmask=ALL`";
        match self {
            Self::UnprivilegedUsernsClone => "sudo sysctl kernel.unprivileged_userns_clone=1".to_owned(),
            Self::MaxUserNamespaces => "sudo sysctl user.max_user_namespaces=15000".to_owned(),
            Self::AppArmor => {
                "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give layerize an AppArmor profile \
                 with `userns,` in it"
                    .to_owned()
            }
            Self::Container | Self::MaskedProc => CONTAINER.to_owned(),
            Self::NoSetfcap => format!("run as an ordinary user, add `--cap-add SETFCAP`, or {CONTAINER}"),
            Self::OldKernel => "use a newer kernel, or build without a sandbox: `--sandbox=none`".to_owned(),
            Self::OldKernelForEmulators => {
                "use a newer kernel, or teach the machine: `sudo apt install qemu-user-static binfmt-support`"
                    .to_owned()
            }
            Self::NoBinfmt => "sudo modprobe binfmt_misc".to_owned(),
            Self::NoOverlay => "sudo modprobe overlay".to_owned(),
            Self::OverlayTooDeep => "put the store on a volume: `--store DIR`".to_owned(),
            Self::NotForThisProcessor => {
                "programs of images for another processor run through an emulator: `layerize run --isolated IMAGE` \
                 (`layerize help emulation`)"
                    .to_owned()
            }
            Self::OldKernelForTracing => "use a newer kernel".to_owned(),
            Self::NoTracing => {
                "the sysctl `kernel.yama.ptrace_scope` must be 0 or 1, and a container's filter must allow `ptrace`, `seccomp` and \
                 `openat2`, as those of Docker 20.10 and podman do: or start it with `--security-opt seccomp=unconfined`"
                    .to_owned()
            }
            Self::NotRoot => "be root in the container: `docker run --user 0`".to_owned(),
            Self::NoCapability(name) => format!("let the container keep `{name}`: `--cap-add`"),
        }
    }
}

/// What the machine says of itself.
#[derive(Debug, Clone, Default)]
struct Facts {
    unprivileged_userns_clone: Option<u64>,
    max_user_namespaces: Option<u64>,
    apparmor_restricts: Option<u64>,
    is_root: bool,
    has_setfcap: bool,
    is_filtered: bool,
    root_is_overlay: bool,
    kernel: (u32, u32),
}

impl Facts {
    fn gather() -> Self {
        let number = |path: &str| text(path).trim().parse().ok();
        let status = text("/proc/self/status");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)
        };
        let capabilities = field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        const CAP_SETFCAP: u32 = 31;
        Self {
            unprivileged_userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            is_root: nix::unistd::geteuid().is_root(),
            has_setfcap: capabilities.is_some_and(|set| set >> CAP_SETFCAP & 1 == 1),
            is_filtered: field("Seccomp:") == Some("2"),
            root_is_overlay: text("/proc/self/mounts")
                .lines()
                .any(|line| line.split(' ').nth(1) == Some("/") && line.split(' ').nth(2) == Some("overlay")),
            kernel: version(&text("/proc/sys/kernel/osrelease")),
        }
    }

    /// Why namespaces, or what they allow, are refused.
    fn userns_refused(&self) -> Option<Cause> {
        match self {
            Self {
                max_user_namespaces: Some(0),
                ..
            } => Some(Cause::MaxUserNamespaces),
            Self {
                unprivileged_userns_clone: Some(0),
                is_root: false,
                ..
            } => Some(Cause::UnprivilegedUsernsClone),
            Self {
                apparmor_restricts: Some(1),
                is_root: false,
                ..
            } => Some(Cause::AppArmor),
            Self { is_filtered: true, .. } => Some(Cause::Container),
            _ => None,
        }
    }
}

/// The text of a small file of `/proc`; empty where there is none.
fn text(path: &str) -> String {
    read_limited(Path::new(path), 1 << 20)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// `6.1.0-13-amd64` → (6, 1); unknown is new.
fn version(release: &str) -> (u32, u32) {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (u32::MAX, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(step: SetupStep, errno: i32) -> Refusal {
        Refusal {
            step,
            path: None,
            errno,
            detail: None,
        }
    }

    #[test]
    fn causes_follow_from_the_facts() {
        use SetupStep::{Exec, IdMap, Limits, Overlay, Proc, Propagation, Trace, UserNamespace};
        let facts = |change: fn(&mut Facts)| {
            let mut facts = Facts {
                kernel: (6, 1),
                max_user_namespaces: Some(9),
                ..Facts::default()
            };
            change(&mut facts);
            facts
        };
        let plain = facts(|_| {});
        let root = facts(|f| f.is_root = true);
        let clone = facts(|f| f.unprivileged_userns_clone = Some(0));
        let apparmor = facts(|f| f.apparmor_restricts = Some(1));
        let filtered = facts(|f| f.is_filtered = true);
        let none = facts(|f| f.max_user_namespaces = Some(0));
        let old = facts(|f| f.kernel = (5, 10));
        let container = facts(|f| f.root_is_overlay = true);
        let limit = Some(Cause::MaxUserNamespaces);
        for (facts, step, errno, cause) in [
            (&plain, UserNamespace, libc::EPERM, None),
            (&plain, UserNamespace, libc::ENOSPC, limit),
            (&none, UserNamespace, libc::EPERM, limit),
            (&clone, UserNamespace, libc::EPERM, Some(Cause::UnprivilegedUsernsClone)),
            (&apparmor, IdMap, libc::EACCES, Some(Cause::AppArmor)),
            (&apparmor, Propagation, libc::EACCES, Some(Cause::AppArmor)),
            (&filtered, UserNamespace, libc::EPERM, Some(Cause::Container)),
            (&root, IdMap, libc::EPERM, Some(Cause::NoSetfcap)),
            (&plain, Overlay, libc::ENODEV, Some(Cause::NoOverlay)),
            (&old, Overlay, libc::EPERM, Some(Cause::OldKernel)),
            (&container, Overlay, libc::EINVAL, Some(Cause::OverlayTooDeep)),
            (&plain, SetupStep::Emulator, libc::ENODEV, Some(Cause::NoBinfmt)),
            (
                &plain,
                SetupStep::Emulator,
                libc::EPERM,
                Some(Cause::OldKernelForEmulators),
            ),
            (&plain, Proc, libc::EPERM, Some(Cause::MaskedProc)),
            (&plain, Trace, libc::EPERM, Some(Cause::NoTracing)),
            (&filtered, Trace, libc::ENOSYS, Some(Cause::NoTracing)),
            (&old, Trace, libc::EINVAL, Some(Cause::OldKernelForTracing)),
            (&filtered, Limits, libc::ENOSYS, Some(Cause::Container)),
            (&plain, Limits, libc::ENOSYS, None),
            (&plain, Exec, libc::ENOENT, None),
            (&plain, Exec, libc::ENOEXEC, Some(Cause::NotForThisProcessor)),
        ] {
            assert_eq!(
                Cause::of(&refusal(step, errno), facts),
                cause,
                "{step:?} {errno} {facts:?}"
            );
        }
    }

    #[test]
    fn the_message_names_step_cause_and_fix() {
        let error = SandboxError::Refused {
            step: SetupStep::UserNamespace,
            path: None,
            cause: Some(Cause::UnprivilegedUsernsClone),
            source: io::Error::from_raw_os_error(libc::EPERM),
        };
        assert_eq!(
            error.to_string(),
            "cannot set up the sandbox: cannot create a user namespace: the sysctl \
             `kernel.unprivileged_userns_clone` is 0"
        );
        assert_eq!(error.help().unwrap(), "sudo sysctl kernel.unprivileged_userns_clone=1");
    }

    #[test]
    fn kernel_versions_are_read() {
        assert_eq!(version("6.1.0-13-amd64\n"), (6, 1));
        assert_eq!(version("5.15-rc1"), (5, 15));
        assert_eq!(version(""), (u32::MAX, 0));
    }
}
