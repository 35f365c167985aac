//! The *platform* that packages are chosen for, by the names that Node has for it.
//!
//! Invariant: pure; a package's `os`, `cpu` and `libc` are judged as npm judges them (its part `npm-install-checks`).

use crate::spec::{Lock, machine};

/// What a package's `os`, `cpu` and `libc` are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Platform {
    cpu: &'static str,
}

/// What a package says of where it works; empty lists say nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    pub(super) os: Vec<String>,
    pub(super) cpu: Vec<String>,
    pub(super) libc: Vec<String>,
}

impl Platform {
    /// That of the packages of `layerize.lock`.
    pub(super) fn of(lock: &Lock) -> Self {
        let machine = lock.architecture.as_deref().map_or(std::env::consts::ARCH, machine);
        let cpu = match machine {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            "armv5tel" | "armv7l" => "arm",
            "i686" => "ia32",
            "loongarch64" => "loong64",
            "powerpc64le" => "ppc64",
            "riscv64" => "riscv64",
            "s390x" => "s390x",
            _ => "unknown",
        };
        Self { cpu }
    }

    /// What of it a package does not work on, for messages: `os = darwin`; `None` where it works.
    pub(super) fn refused(&self, wanted: &Wanted) -> Option<String> {
        let fields = [
            ("os", "linux", &wanted.os),
            ("cpu", self.cpu, &wanted.cpu),
            ("libc", "glibc", &wanted.libc),
        ];
        let refused = fields.into_iter().find(|(_, value, list)| !allows(list, value));
        refused.map(|(field, _, list)| format!("{field} = {}", list.join(", ")))
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        format!("linux, {}, glibc", self.cpu)
    }
}

/// Whether a list allows `value`: it names it, or names others only to refuse them.
fn allows(list: &[String], value: &str) -> bool {
    if let [only] = list
        && only == "any"
    {
        return true;
    }
    let refused: Vec<&str> = list.iter().filter_map(|entry| entry.strip_prefix('!')).collect();
    let named = list.iter().any(|entry| entry == value);
    !refused.contains(&value) && (named || refused.len() == list.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_npm_reads_them() {
        for (list, expected) in [
            (vec![], true),
            (vec!["any"], true),
            (vec!["linux"], true),
            (vec!["darwin"], false),
            (vec!["darwin", "linux"], true),
            (vec!["!win32"], true),
            (vec!["!linux"], false),
            (vec!["!win32", "darwin"], false),
            (vec!["linux", "!linux"], false),
        ] {
            let list: Vec<String> = list.into_iter().map(str::to_owned).collect();
            assert_eq!(allows(&list, "linux"), expected, "{list:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let platform = Platform { cpu: "x64" };
        let list = |text: &str| vec![text.to_owned()];
        let wanted = Wanted {
            os: list("linux"),
            cpu: list("arm64"),
            libc: list("musl"),
        };
        assert_eq!(platform.refused(&wanted).as_deref(), Some("cpu = arm64"));
        let wanted = Wanted {
            cpu: list("x64"),
            ..wanted
        };
        assert_eq!(platform.refused(&wanted).as_deref(), Some("libc = musl"));
        assert_eq!(platform.refused(&Wanted::default()), None);
    }
}
