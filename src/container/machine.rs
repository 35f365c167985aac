//! Whether this *machine* runs an image's programs: its own architecture's, and those that it was taught (binfmt_misc).
//!
//! Invariant: what cannot run is said before anything is unpacked.

use std::fs;
use std::path::Path;

use super::ContainerError;
use crate::oci::Config;
use crate::sandbox::Sandbox;
use crate::sandbox::emulator::Processor;
use crate::sandbox::tree::make_dir;
use crate::walls::Walls;

/// This machine's architectures as images name them, and as programs of emulators do.
const ARCHITECTURES: [(&str, &str, &str); 9] = [
    ("x86_64", "amd64", "x86_64"),
    ("x86", "386", "i386"),
    ("aarch64", "arm64", "aarch64"),
    ("arm", "arm", "arm"),
    ("riscv64", "riscv64", "riscv64"),
    ("powerpc64", "ppc64le", "ppc64le"),
    ("s390x", "s390x", "s390x"),
    ("loongarch64", "loong64", "loongarch64"),
    ("mips64", "mips64le", "mips64el"),
];

/// Refuses an image whose programs cannot run here. What the machine is not known to run is tried, in a sandbox in `staging`.
pub(super) fn check(config: &Config, helper: Option<&Path>, staging: &Path) -> Result<(), ContainerError> {
    let Some((platform, machine)) = foreign(config) else {
        return Ok(());
    };
    let processor = processor(&config.architecture).filter(|_| config.os == "linux");
    let Some(processor) = processor else {
        return Err(ContainerError::Foreign { platform, machine });
    };
    let place = staging.join("probe");
    make_dir(&place, 0o700)?;
    match Sandbox::try_processor(processor, Walls::Namespaces, helper, &place) {
        Ok(()) => Ok(()),
        Err(_) => Err(ContainerError::Foreign { platform, machine }),
    }
}

/// The processor of an image's architecture.
fn processor(architecture: &str) -> Option<&'static Processor> {
    let machine = match architecture {
        "386" => "i686",
        "arm" => "armv7l",
        "ppc64le" => "powerpc64le",
        other => ARCHITECTURES
            .iter()
            .find(|(_, own, _)| *own == other)
            .map(|(.., name)| *name)?,
    };
    Processor::of_system(&format!("{machine}-linux"))
}

/// The platform of an image whose programs do not run here, and this machine's.
pub fn foreign(config: &Config) -> Option<(String, String)> {
    let machine = ARCHITECTURES.iter().find(|(rust, ..)| *rust == std::env::consts::ARCH);
    let own = machine.map_or(std::env::consts::ARCH, |(_, own, _)| own);
    let architecture = config.architecture.as_str();
    // What an image does not say is taken for right.
    let is_own = architecture.is_empty() || architecture == own || (own, architecture) == ("amd64", "386");
    let is_linux = config.os.is_empty() || config.os == "linux";
    if is_linux && (is_own || is_emulated(architecture)) {
        return None;
    }
    Some((format!("{}/{architecture}", config.os), format!("linux/{own}")))
}

fn is_emulated(architecture: &str) -> bool {
    let emulated = ARCHITECTURES.iter().find(|(_, own, _)| *own == architecture);
    let text = emulated.and_then(|(.., name)| fs::read_to_string(format!("/proc/sys/fs/binfmt_misc/qemu-{name}")).ok());
    // Without the flag `F` the emulator would be looked for in the image.
    text.is_some_and(|text| {
        let has = |line: &str| text.lines().any(|known| known == line);
        let flags = text.lines().find_map(|line| line.strip_prefix("flags: "));
        has("enabled") && flags.is_some_and(|flags| flags.contains('F'))
    })
}
