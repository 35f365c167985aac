//! What a *machine* is called, by its kernel, by Debian and by QEMU, and what the lock pins for machines that build.
//!
//! Invariant: names alone; whether a machine runs what is for another is found out by trying.

use super::cross::is_crossed_on;
use super::lock::Lock;
use super::needs::wants_scripts;
use super::platforms::{architectures, home_architecture};
use super::types::{Emulate, Image, Package, Workspace};

/// The Debian package with programs that emulate each machine.
const EMULATOR_DEB: &str = "qemu-user-static";

/// The kernel's name of the machine that layerize was compiled for, which is the one that runs scripts.
pub fn own_machine() -> &'static str {
    match std::env::consts::ARCH {
        "arm" => "armv7l",
        "powerpc64" => "powerpc64le",
        "x86" => "i686",
        other => other,
    }
}

/// The Debian packages of emulators, as they are resolved for a machine.
pub fn emulator_debs() -> Vec<String> {
    vec![EMULATOR_DEB.to_owned()]
}

/// What the program is called that emulates a machine, in QEMU's packages of all releases of Debian.
pub fn emulator_programs(machine: &str) -> Vec<String> {
    let name = match machine {
        "armv5tel" | "armv7l" => "arm",
        "i686" => "i386",
        "powerpc64le" => "ppc64le",
        other => other,
    };
    vec![format!("qemu-{name}-static"), format!("qemu-{name}")]
}

/// The system of Debian's architecture, as Nix names it: `aarch64-linux`.
pub fn system(architecture: &str) -> String {
    format!("{}-linux", machine(architecture))
}

/// The name part of the store path of the emulator of a machine.
pub fn emulator_name(machine: &str) -> String {
    format!("emulator-of-{machine}")
}

/// Whether a machine, by its Debian architecture, runs scripts of the workspace, or tests of its images, through an emulator.
pub fn wants_emulator(workspace: &Workspace, lock: &Lock, machine: &str) -> bool {
    let home = home_architecture(workspace, lock);
    let is_foreign =
        |architecture: &String| architecture != machine && (machine, architecture.as_str()) != ("amd64", "i386");
    let is_run = |seen: &Workspace, package: &Package| package.is_built() && !is_crossed_on(seen, package, machine);
    let runs = |image: &Image| wants_scripts(image) || !image.tests.is_empty();
    let has_programs = |seen: &Workspace| {
        seen.packages.values().any(|package| is_run(seen, package)) || seen.images.values().any(runs)
    };
    let foreign = || architectures(workspace, &home).into_iter().filter(is_foreign);
    workspace.build.emulate == Emulate::Auto
        && foreign().any(|architecture| has_programs(&workspace.at(&architecture, &home)))
}

/// GNU's name of a machine with Debian on it, by the kernel's name of that: what the programs of its cross compilers begin
/// with.
pub fn gnu_triplet(machine: &str) -> Option<&'static str> {
    Some(match machine {
        "x86_64" => "x86_64-linux-gnu",
        "aarch64" => "aarch64-linux-gnu",
        "armv5tel" => "arm-linux-gnueabi",
        "armv7l" => "arm-linux-gnueabihf",
        "i686" => "i686-linux-gnu",
        "loongarch64" => "loongarch64-linux-gnu",
        "powerpc64le" => "powerpc64le-linux-gnu",
        "riscv64" => "riscv64-linux-gnu",
        "s390x" => "s390x-linux-gnu",
        _ => return None,
    })
}

/// The kernel's name of the machine for Debian's architecture.
pub(crate) fn machine(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "armel" => "armv5tel",
        "armhf" => "armv7l",
        "i386" => "i686",
        "loong64" => "loongarch64",
        "ppc64el" => "powerpc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn an_emulator_is_wanted_where_scripts_are_for_another_machine() {
        let script = "[package.x]\nscript = \"true\"\n";
        let root = "[image.x]\nroot = [\"deb:ab\"]\n";
        let both = "contents = [\"x\"]\nplatform = [\"linux/amd64\", \"linux/s390x\"]\n";
        for (architecture, rest, on_amd64, on_arm64) in [
            ("arm64", script, true, false),
            ("amd64", script, false, true),
            ("i386", script, false, true),
            ("arm64", root, true, false),
            (
                "arm64",
                "[image.x]\nroot = [\"deb:ab\"]\nconfigure = false\n",
                false,
                false,
            ),
            ("arm64", "[image.x]\ncontents = [\"deb:ab\"]\n", false, false),
            (
                "arm64",
                "[image.x]\ncontents = [\"deb:ab\"]\n[image.x.tests.a]\nrun = [\"/x\"]\n",
                true,
                false,
            ),
            (
                "arm64",
                "[build]\nemulate = \"never\"\n[package.x]\nscript = \"true\"\n",
                false,
                false,
            ),
            (
                "arm64",
                "[build]\nemulate = \"machine\"\n[package.x]\nscript = \"true\"\n",
                false,
                false,
            ),
            ("amd64", &format!("{script}[image.x]\n{both}"), true, true),
        ] {
            let text = format!("[debian]\narchitecture = \"{architecture}\"\n{rest}");
            let workspace = parse(&text).unwrap_or_else(|errors| panic!("{text}: {errors}"));
            let wanted = ["amd64", "arm64"].map(|machine| wants_emulator(&workspace, &Lock::default(), machine));
            assert_eq!(wanted, [on_amd64, on_arm64], "{text}");
        }
    }
}
