//! ELF files made for tests: headers, a dynamic section and its strings, and no code.

use object::elf::{DT_FLAGS_1, DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRSZ, DT_STRTAB};

/// What a file is to ask of the loader. 64 bits, little-endian.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample<'a> {
    pub machine: u16,
    pub interpreter: Option<&'a str>,
    pub soname: Option<&'a str>,
    pub needed: &'a [&'a str],
    pub rpath: Option<&'a str>,
    pub runpath: Option<&'a str>,
    pub no_default_dirs: bool,
}

pub(crate) const X86_64: u16 = 62;
pub(crate) const AARCH64: u16 = 183;

/// The usual loader of amd64.
pub(crate) const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// A program of amd64 with the usual loader.
pub(crate) fn program<'a>(needed: &'a [&'a str]) -> Sample<'a> {
    Sample {
        interpreter: Some(LOADER),
        ..library(needed)
    }
}

/// A library of amd64.
pub(crate) fn library<'a>(needed: &'a [&'a str]) -> Sample<'a> {
    Sample {
        machine: X86_64,
        needed,
        ..Sample::default()
    }
}

impl Sample<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut strings = vec![0];
        let mut add = |text: &str| {
            let at = strings.len() as u64;
            strings.extend(text.bytes().chain([0]));
            at
        };
        let mut dynamic: Vec<(i64, u64)> = Vec::new();
        for name in self.needed {
            dynamic.push((DT_NEEDED.0, add(name)));
        }
        for (tag, text) in [
            (DT_SONAME, self.soname),
            (DT_RPATH, self.rpath),
            (DT_RUNPATH, self.runpath),
        ] {
            dynamic.extend(text.map(|text| (tag.0, add(text))));
        }
        let interpreter = self.interpreter.map(|text| (add(text), text.len() as u64 + 1));
        if self.no_default_dirs {
            dynamic.push((DT_FLAGS_1.0, 0x800));
        }
        let segments = 2 + u64::from(interpreter.is_some());
        let strings_at = 64 + segments * 56;
        let table_at = strings_at + strings.len() as u64;
        dynamic.extend([(DT_STRTAB.0, strings_at), (DT_STRSZ.0, strings.len() as u64), (0, 0)]);
        let table_size = dynamic.len() as u64 * 16;
        let mut bytes = vec![0; 64];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16] = 3;
        bytes[18..20].copy_from_slice(&self.machine.to_le_bytes());
        bytes[20] = 1;
        bytes[32] = 64;
        bytes[52] = 64;
        bytes[54] = 56;
        bytes[56] = segments as u8;
        let mut segment = |kind: u32, at: u64, size: u64| {
            bytes.extend(kind.to_le_bytes());
            bytes.extend(4_u32.to_le_bytes());
            for value in [at, at, at, size, size, 1] {
                bytes.extend(value.to_le_bytes());
            }
        };
        segment(1, 0, table_at + table_size);
        segment(2, table_at, table_size);
        if let Some((at, size)) = interpreter {
            segment(3, strings_at + at, size);
        }
        bytes.extend(strings);
        for (tag, value) in dynamic {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes
    }
}
