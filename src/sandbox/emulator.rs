//! An *emulator* runs programs for another processor in a sandbox, as the kernel is told to have it do (binfmt_misc).
//!
//! Invariant: the registration is the sandbox's own: no process outside is changed by it, and none inside can see or change
//! it. The emulator is opened when it is registered, so that nothing of it is in the root.
//!
//! Only root of a user namespace may register, and scripts are not root in theirs. So there are two, one in the other: the
//! kernel looks for registrations in a process's own user namespace, and else in those around it (Linux 6.7).

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::helper::Failed;
use super::request::SetupStep;
use crate::fsio::{IoContext, PathError, create_dir_all};

/// Where the registrations are mounted, in the helper's working directory.
const MOUNT_POINT: &str = "binfmt";

/// How ELF files of one kind of processor look, and the smallest program for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processor {
    /// The kernel's name of the machine: `aarch64`.
    pub machine: &'static str,
    is_64: bool,
    is_big_endian: bool,
    /// `e_machine`.
    elf_machine: u16,
    /// `e_flags` of programs that kernels take.
    elf_flags: u32,
    /// Instructions that end a process with status 0.
    exit: &'static [u8],
}

const fn little(machine: &'static str, elf_machine: u16, exit: &'static [u8]) -> Processor {
    Processor {
        machine,
        is_64: true,
        is_big_endian: false,
        elf_machine,
        elf_flags: 0,
        exit,
    }
}

const ARM: Processor = Processor {
    is_64: false,
    elf_flags: 0x0500_0000,
    // mov r7, #1; mov r0, #0; svc 0
    ..little("armv7l", 40, b"\x01\x70\xa0\xe3\0\0\xa0\xe3\0\0\0\xef")
};

/// The processors that Debian has packages for.
const PROCESSORS: [Processor; 9] = [
    // mov eax, 60; xor edi, edi; syscall
    little("x86_64", 62, b"\xb8\x3c\0\0\0\x31\xff\x0f\x05"),
    // mov x8, #93; mov x0, #0; svc 0
    little("aarch64", 183, b"\xa8\x0b\x80\xd2\0\0\x80\xd2\x01\0\0\xd4"),
    ARM,
    Processor {
        machine: "armv5tel",
        ..ARM
    },
    Processor {
        is_64: false,
        // mov eax, 1; xor ebx, ebx; int 0x80
        ..little("i686", 3, b"\xb8\x01\0\0\0\x31\xdb\xcd\x80")
    },
    // li a7, 93; li a0, 0; ecall
    little("riscv64", 243, b"\x93\x08\xd0\x05\x13\x05\0\0\x73\0\0\0"),
    Processor {
        elf_flags: 2,
        // li r0, 1; li r3, 0; sc
        ..little("powerpc64le", 21, b"\x01\0\0\x38\0\0\x60\x38\x02\0\0\x44")
    },
    Processor {
        is_big_endian: true,
        // lghi %r2, 0; svc 1
        ..little("s390x", 22, b"\xa7\x29\0\0\x0a\x01")
    },
    // ori $a7, $zero, 93; ori $a0, $zero, 0; syscall 0
    little("loongarch64", 258, b"\x0b\x74\x81\x03\x04\0\x80\x03\0\0\x2b\0"),
];

impl Processor {
    /// The processor of a system as Nix names it (`aarch64-linux`).
    pub fn of_system(system: &str) -> Option<&'static Self> {
        let machine = system.strip_suffix("-linux")?;
        PROCESSORS.iter().find(|processor| processor.machine == machine)
    }

    /// Whether an ELF file with this class and `e_machine` is for it.
    pub fn is_of(&self, is_64: bool, elf_machine: u16) -> bool {
        (self.is_64, self.elf_machine) == (is_64, elf_machine)
    }

    /// The smallest program for it, which ends with status 0.
    pub(super) fn probe(&self) -> Vec<u8> {
        let (header, segment) = if self.is_64 { (64_u16, 56_u16) } else { (52, 32) };
        let start = u64::from(header + segment);
        let size = start + self.exit.len() as u64;
        let base = 0x40_0000;
        let mut bytes = self.ident().to_vec();
        let half = |value: u16| self.ordered(&value.to_be_bytes());
        let word = |value: u32| self.ordered(&value.to_be_bytes());
        // An address, an offset or a size.
        let wide = |value: u64| match self.is_64 {
            true => self.ordered(&value.to_be_bytes()),
            false => self.ordered(&value.to_be_bytes()[4..]),
        };
        bytes.extend([half(2), half(self.elf_machine), word(1)].concat());
        bytes.extend([wide(base + start), wide(header.into()), wide(0), word(self.elf_flags)].concat());
        bytes.extend([half(header), half(segment), half(1), half(0), half(0), half(0)].concat());
        // One segment, to be loaded, read and executed.
        let (loaded, flags) = (word(1), word(5));
        let place = [wide(0), wide(base), wide(base), wide(size), wide(size)].concat();
        bytes.extend(match self.is_64 {
            true => [loaded, flags, place, wide(0x1000)].concat(),
            false => [loaded, place, flags, wide(0x1000)].concat(),
        });
        bytes.extend(self.exit);
        bytes
    }

    /// How its ELF files begin.
    fn ident(&self) -> [u8; 16] {
        let mut ident = [0; 16];
        ident[..4].copy_from_slice(b"\x7fELF");
        ident[4] = if self.is_64 { 2 } else { 1 };
        ident[5] = if self.is_big_endian { 2 } else { 1 };
        ident[6] = 1;
        ident
    }

    /// Bytes of a number, the highest first, in the processor's order.
    fn ordered(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if !self.is_big_endian {
            bytes.reverse();
        }
        bytes
    }

    /// The registration of an emulator whose program is `name` in the working directory
    /// (Documentation/admin-guide/binfmt-misc.rst). Flags: the name by which a program is called is passed on, the program is
    /// open, and the emulator is opened now.
    fn rule(&self, name: &str) -> String {
        let kind = |value: u16| self.ordered(&value.to_be_bytes());
        let magic = [self.ident().to_vec(), kind(2), kind(self.elf_machine)].concat();
        // Of whichever system's ABI, at a fixed address or not.
        let mut mask = vec![0xff; 16];
        mask[7] = 0;
        mask.extend([kind(0xfffe), vec![0xff; 2]].concat());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        format!(":{}:M::{}:{}:{name}:POF", self.machine, hex(&magic), hex(&mask))
    }
}

/// An emulator for programs of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emulator {
    program: PathBuf,
    /// What it is called where processes are listed.
    name: String,
    rule: String,
}

impl Emulator {
    /// The emulator for `processor`, a program that needs no other files.
    pub fn new(processor: &Processor, program: PathBuf) -> Self {
        let name = format!("qemu-{}", processor.machine);
        Self {
            rule: processor.rule(&name),
            program,
            name,
        }
    }

    /// Prepares the directory in which the helper will run.
    pub(super) fn prepare(&self, staging: &Path) -> Result<(), PathError> {
        create_dir_all(&staging.join(MOUNT_POINT))?;
        let link = staging.join(&self.name);
        symlink(&self.program, &link).context("create the link", &link)
    }

    /// Registers it, as root of a user namespace that is to have no further use. Where the program is to be become by this
    /// process itself, it inherits what keeps the registration.
    pub(super) fn register(&self, is_inherited: bool) -> Result<(), Failed> {
        let at = Path::new(MOUNT_POINT);
        let failed = |errno| Failed::errno(SetupStep::Emulator, None, errno);
        unshare(CloneFlags::CLONE_NEWNS).map_err(failed)?;
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(failed)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("binfmt_misc"), at, Some("binfmt_misc"), flags, None::<&str>).map_err(failed)?;
        let failed = |error: std::io::Error| Failed::io(SetupStep::Emulator, &self.program, &error);
        fs::write(at.join("register"), &self.rule).map_err(failed)?;
        // The registration lasts as long as something of the file system is open.
        let kept = File::open(at.join("status")).map_err(failed)?;
        umount2(at, MntFlags::MNT_DETACH).map_err(|errno| Failed::errno(SetupStep::Emulator, None, errno))?;
        if is_inherited {
            rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty()).map_err(|error| failed(error.into()))?;
        }
        std::mem::forget(kept);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_programs_for_their_processors() {
        for processor in PROCESSORS {
            let system = format!("{}-linux", processor.machine);
            assert_eq!(Processor::of_system(&system), Some(&processor));
            let probe = processor.probe();
            let machine = [probe[18], probe[19]];
            let machine = match processor.is_big_endian {
                true => u16::from_be_bytes(machine),
                false => u16::from_le_bytes(machine),
            };
            assert_eq!(machine, processor.elf_machine);
            assert_eq!(
                probe.len(),
                if processor.is_64 { 120 } else { 84 } + processor.exit.len()
            );
        }
        assert_eq!(Processor::of_system("aarch64-darwin"), None);
        assert_eq!(Processor::of_system("vax-linux"), None);
    }

    #[test]
    fn a_rule_is_what_the_kernel_reads() {
        let aarch64 = Processor::of_system("aarch64-linux").unwrap();
        assert_eq!(
            aarch64.rule("qemu-aarch64"),
            ":aarch64:M::\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\
             \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:qemu-aarch64:POF"
        );
        let s390x = Processor::of_system("s390x-linux").unwrap();
        assert!(s390x.rule("x").contains("\\x00\\x02\\x00\\x16:"), "{}", s390x.rule("x"));
        assert!(s390x.rule("x").contains("\\xff\\xfe\\xff\\xff:"), "{}", s390x.rule("x"));
    }
}
