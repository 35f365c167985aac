//! What a *machine* is called: by its kernel, by Debian, by QEMU.
//!
//! Invariant: names alone; whether one runs what is for another is found out by trying.

/// The kernel's name of the machine that layerize was compiled for, which is the one that runs scripts.
pub fn own_machine() -> &'static str {
    match std::env::consts::ARCH {
        "arm" => "armv7l",
        "powerpc64" => "powerpc64le",
        "x86" => "i686",
        other => other,
    }
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
