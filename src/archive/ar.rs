//! The *ar* archive: 60-byte headers, members padded to even length (ar(5)); static libraries and Debian packages.
//!
//! Invariant: a member lies within the archive; the table of long names is bounded by `NAMES_MAX`.

use std::io::{self, Read, Seek, SeekFrom, Take};

/// First bytes of an archive.
pub const MAGIC: &[u8; 8] = b"!<arch>\n";

const HEADER: usize = 60;

/// Most bytes of long names: those of a million members.
const NAMES_MAX: u64 = 64 << 20;

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ArError {
    /// Reading failed, or the archive ends early.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are no ar archive.
    #[error("{0}")]
    Malformed(String),
}

/// Reads the members of an archive in order.
pub struct ArReader<R> {
    inner: R,
    size: u64,
    next: u64,
    /// Names that are too long for a header, as GNU keeps them.
    names: Vec<u8>,
}

/// A member; fields are those of its header, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Vec<u8>,
    /// Seconds since the epoch.
    pub mtime: String,
    /// Owner.
    pub uid: String,
    /// Group.
    pub gid: String,
    /// Type and permission bits in octal.
    pub mode: String,
    /// Bytes of its content.
    pub size: u64,
    start: u64,
}

impl<R: Read + Seek> ArReader<R> {
    /// Checks the magic.
    pub fn new(mut inner: R) -> Result<Self, ArError> {
        let size = inner.seek(SeekFrom::End(0))?;
        inner.rewind()?;
        let mut magic = Vec::new();
        inner.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        if magic != MAGIC {
            return Err(malformed("it does not start as an ar archive"));
        }
        Ok(Self {
            inner,
            size,
            next: MAGIC.len() as u64,
            names: Vec::new(),
        })
    }

    /// The next member; `None` at the end.
    pub fn next_member(&mut self) -> Result<Option<Member>, ArError> {
        loop {
            let Some(mut member) = self.read_header()? else {
                return Ok(None);
            };
            if member.name != b"//" {
                self.resolve_name(&mut member)?;
                return Ok(Some(member));
            }
            if member.size > NAMES_MAX {
                return Err(malformed("its table of long names is larger than 64 MiB"));
            }
            let mut names = Vec::new();
            self.content(&member)?.read_to_end(&mut names)?;
            self.names = names;
        }
    }

    /// The content of a member.
    pub fn content(&mut self, member: &Member) -> Result<Take<&mut R>, ArError> {
        self.inner.seek(SeekFrom::Start(member.start))?;
        Ok(self.inner.by_ref().take(member.size))
    }

    fn read_header(&mut self) -> Result<Option<Member>, ArError> {
        if self.next >= self.size {
            return Ok(None);
        }
        self.inner.seek(SeekFrom::Start(self.next))?;
        let mut header = [0; HEADER];
        self.inner.read_exact(&mut header)?;
        if !header.ends_with(b"`\n") {
            return Err(malformed("a header is malformed"));
        }
        let field = |range: std::ops::Range<usize>| {
            let text = std::str::from_utf8(&header[range]);
            text.map(|text| text.trim_end_matches(' ').to_owned())
                .map_err(|_| malformed("a header is not text"))
        };
        let name = field(0..16)?;
        let size = field(48..58)?;
        let size: u64 = size
            .parse()
            .map_err(|_| malformed(format!("the size of its member `{name}` is `{size}`")))?;
        let start = self.next + HEADER as u64;
        if size > self.size - start {
            return Err(malformed(format!("it is cut off within its member `{name}`")));
        }
        self.next = start + size + size % 2;
        Ok(Some(Member {
            name: name.into_bytes(),
            mtime: field(16..28)?,
            uid: field(28..34)?,
            gid: field(34..40)?,
            mode: field(40..48)?,
            size,
            start,
        }))
    }

    /// Looks up a name of GNU's `/OFFSET` or BSD's `#1/LENGTH`; others may end in a slash.
    fn resolve_name(&mut self, member: &mut Member) -> Result<(), ArError> {
        let text = String::from_utf8_lossy(&member.name).into_owned();
        if let Some(offset) = text.strip_prefix('/').and_then(|offset| offset.parse::<usize>().ok()) {
            let rest = self.names.get(offset..).unwrap_or_default();
            let name = rest.split(|&byte| byte == b'/').next().filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| malformed(format!("it has no long name `{text}`")))?;
            member.name = name.to_vec();
        } else if let Some(length) = text.strip_prefix("#1/").and_then(|length| length.parse::<u64>().ok()) {
            let left = member.size.checked_sub(length).filter(|_| length <= 1 << 16);
            let left = left.ok_or_else(|| malformed(format!("the length of a long name is `{text}`")))?;
            let mut name = Vec::new();
            self.content(member)?.take(length).read_to_end(&mut name)?;
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            name.truncate(end);
            (member.name, member.start, member.size) = (name, member.start + length, left);
        } else if let Some(name) = text.strip_suffix('/').filter(|name| !name.is_empty()) {
            member.name = name.as_bytes().to_vec();
        }
        Ok(())
    }
}

fn malformed(reason: impl Into<String>) -> ArError {
    ArError::Malformed(reason.into())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::testing::ar;
    use super::*;

    fn members(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ArError> {
        let mut reader = ArReader::new(Cursor::new(bytes))?;
        let mut found = Vec::new();
        while let Some(member) = reader.next_member()? {
            let mut content = Vec::new();
            reader.content(&member)?.read_to_end(&mut content)?;
            found.push((String::from_utf8_lossy(&member.name).into_owned(), content));
        }
        Ok(found)
    }

    #[test]
    fn short_and_long_names_are_read() {
        let bytes = ar(&[
            ("//", b"a_very_long_member_name.o/\nanother_long_one.o/\n"),
            ("/0", b"one"),
            ("/27", b""),
            ("short.o/", b"2"),
            ("/", b"symbols"),
            ("#1/8", b"bsd.o\0\0\0content"),
        ]);
        let read = members(&bytes).unwrap();
        let read: Vec<(&str, &[u8])> = read
            .iter()
            .map(|(name, data)| (name.as_str(), data.as_slice()))
            .collect();
        assert_eq!(
            read,
            [
                ("a_very_long_member_name.o", &b"one"[..]),
                ("another_long_one.o", b""),
                ("short.o", b"2"),
                ("/", b"symbols"),
                ("bsd.o", b"content"),
            ]
        );
    }

    #[test]
    fn damage_is_an_error() {
        let whole = ar(&[("a/", b"12345"), ("b/", b"6")]);
        assert_eq!(members(&whole).unwrap().len(), 2);
        for cut in [3, 20, 70, 100, whole.len() - 2] {
            assert!(members(&whole[..cut]).is_err(), "{cut}");
        }
        for (name, content) in [("/99", ""), ("#1/9", "short"), ("#1/99999999", "x")] {
            assert!(members(&ar(&[(name, content.as_bytes())])).is_err(), "{name}");
        }
        let mut wrong = whole.clone();
        wrong[8 + 48] = b'x';
        let error = members(&wrong).unwrap_err().to_string();
        assert_eq!(error, "the size of its member `a/` is `x`");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(changes in proptest::collection::vec((8usize..200, proptest::num::u8::ANY), 1..6)) {
            let mut bytes = ar(&[("//", b"name/\n"), ("/0", b"12345"), ("#1/4", b"nameand")]);
            for (place, byte) in changes {
                let place = place % bytes.len();
                bytes[place] = byte;
            }
            let _ = members(&bytes);
        }
    }
}
