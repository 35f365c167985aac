//! A header is *written* field by field.
//!
//! Invariant: numbers are octal digits with leading zeros and one NUL, the checksum is six digits, NUL, space
//! (POSIX.1-2017, pax, "ustar Interchange Format"; the `tar` crate would write seven digits). What is written feeds
//! digests: see the dialects in `layer::tar` and `layer::profile`.

use ::tar::Header;

use super::BLOCK;

/// Longest name that the field for it holds, in bytes.
pub const NAME_MAX: usize = 100;

/// Longest prefix of a name.
pub const PREFIX_MAX: usize = 155;

/// Largest size that eleven octal digits can say, in bytes.
pub const SIZE_MAX: u64 = 0o77_777_777_777;

/// Largest number of a user or group that seven octal digits can say.
pub const ID_MAX: u32 = 0o7_777_777;

/// What the fields of one ustar header hold, already known to fit.
pub struct HeaderFields<'a> {
    /// First part of the name, without the slash between the two.
    pub prefix: &'a [u8],
    /// Name, or its second part.
    pub name: &'a [u8],
    /// Target of a link.
    pub target: &'a [u8],
    /// Bytes of content.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type flag.
    pub flag: u8,
    /// Modification time, in seconds since the epoch.
    pub mtime: u64,
    /// Name of both the owner and the group.
    pub owner: &'a [u8],
    /// Whether the device fields hold zeros in octal; else NULs.
    pub devices: bool,
}

impl Default for HeaderFields<'_> {
    /// A file of no name, mode or content, of 1 second after the epoch.
    fn default() -> Self {
        Self {
            prefix: b"",
            name: b"",
            target: b"",
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            flag: b'0',
            mtime: 1,
            owner: b"",
            devices: true,
        }
    }
}

impl HeaderFields<'_> {
    /// The header.
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut header = Header::new_ustar();
        let ustar = header.as_ustar_mut().expect("it was made as ustar");
        put(&mut ustar.name, self.name);
        put_octal(&mut ustar.mode[..7], u64::from(self.mode));
        put_octal(&mut ustar.uid[..7], u64::from(self.uid));
        put_octal(&mut ustar.gid[..7], u64::from(self.gid));
        put_octal(&mut ustar.size[..11], self.size);
        put_octal(&mut ustar.mtime[..11], self.mtime);
        ustar.typeflag = [self.flag];
        put(&mut ustar.linkname, self.target);
        put(&mut ustar.uname, self.owner);
        put(&mut ustar.gname, self.owner);
        if self.devices {
            put_octal(&mut ustar.dev_major[..7], 0);
            put_octal(&mut ustar.dev_minor[..7], 0);
        }
        put(&mut ustar.prefix, self.prefix);
        ustar.cksum = *b"        ";
        let sum: u64 = header.as_bytes().iter().map(|&byte| u64::from(byte)).sum();
        let field = &mut header.as_old_mut().cksum;
        put_octal(&mut field[..6], sum);
        field[6] = 0;
        *header.as_bytes()
    }
}

/// Appends a header and the content that belongs to it, padded.
pub fn append_with_content(out: &mut Vec<u8>, header: &HeaderFields<'_>, content: &[u8]) {
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(content);
    out.resize(out.len() + padding(content.len() as u64), 0);
}

/// Appends a pax record, `<length> <keyword>=<value>\n`, where the length counts its own digits.
pub fn append_record(out: &mut Vec<u8>, keyword: &str, value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    out.extend_from_slice(format!("{length} {keyword}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Number of NULs that follow content of `size` bytes.
pub fn padding(size: u64) -> usize {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

fn put(field: &mut [u8], bytes: &[u8]) {
    field[..bytes.len()].copy_from_slice(bytes);
}

fn put_octal(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}
