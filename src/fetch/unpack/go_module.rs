//! A *Go module* as proxies give it: a zip of files named `MODULE@VERSION/FILE`.
//!
//! Invariant: what the zip is known by is the hash of its files alone, so nothing else of it reaches the tree: no mode,
//! no link, no time, no empty directory. Names are taken as they are stored, for those are what is hashed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::tree::{Duplicates, EntryPath, TreeWriter};
use super::{FetchError, UnpackError, named};
use crate::archive::Kind;
use crate::archive::zip::{Member, ZipError, ZipReader};
use crate::digest::{GoHash, HashingWriter};
use crate::fsio::IoContext;

/// Most bytes of a module's files together, as Go has it (golang.org/x/mod/zip, `MaxZipFile`).
const BYTES_MAX: u64 = 500 << 20;
/// Most members of a module's zip.
const MEMBERS_MAX: usize = 200_000;

/// Go's hash of the files of a module's zip (golang.org/x/mod/sumdb/dirhash, `HashZip`).
pub(crate) fn hash_go_module(zip: &Path) -> Result<GoHash, UnpackError> {
    let mut files = Vec::new();
    each_file(zip, &mut |name, _, content| {
        let mut sink = HashingWriter::new(io::sink());
        io::copy(content, &mut sink).map_err(|source| UnpackError::Damaged { source })?;
        let (_, hasher, _) = sink.finish();
        files.push((name.to_owned(), hasher.digest()));
        Ok(())
    })?;
    GoHash::of_files(files).ok_or_else(|| UnpackError::malformed("a name holds a line feed"))
}

/// Unpacks the zip of a module into `dest`, a new directory; `name` is what messages call it.
pub fn unpack_go_module(zip: &Path, name: &str, module: &str, version: &str, dest: &Path) -> Result<(), FetchError> {
    unpack(zip, &format!("{module}@{version}/"), dest).map_err(|source| named(name, source))
}

fn unpack(zip: &Path, prefix: &str, dest: &Path) -> Result<(), UnpackError> {
    let size = zip.metadata().context("read", zip)?.len();
    let mut tree = TreeWriter::new(dest, size, Duplicates::MustBeEqual)?;
    each_file(zip, &mut |name, member, content| {
        let below = name.strip_prefix(prefix).ok_or_else(|| UnpackError::Escape {
            entry: name.escape_debug().to_string(),
            reason: "the files of a module's zip lie below `MODULE@VERSION/`",
        })?;
        let path = EntryPath::parse(below.as_bytes())?;
        if path.as_bytes() != below.as_bytes() {
            return Err(UnpackError::malformed(format!(
                "the name `{}` is not a plain path",
                name.escape_debug()
            )));
        }
        tree.file(&path, false, member.size, content)
    })?;
    tree.publish(false).map(drop)
}

/// Takes a file of a zip: its name, what the directory says of it, and its content.
type TakeFile<'a> = dyn FnMut(&str, &Member, &mut dyn Read) -> Result<(), UnpackError> + 'a;

/// Hands each file of a zip to `take`, with its name as it is stored. Names of directories, which Go passes over when it
/// unpacks and takes for empty files when it hashes, are refused: modules' zips have none.
fn each_file(zip: &Path, take: &mut TakeFile<'_>) -> Result<(), UnpackError> {
    let file = File::open(zip).context("open", zip)?;
    let failed = |error: ZipError| match error {
        ZipError::Damaged(source) => UnpackError::Damaged { source },
        error @ ZipError::Unsupported(_) => UnpackError::Unsupported {
            entry: String::new(),
            source: Box::new(error),
        },
    };
    let mut archive = ZipReader::new(BufReader::new(file)).map_err(failed)?;
    if archive.len() > MEMBERS_MAX {
        return Err(UnpackError::TooLarge {
            limit: format!("{MEMBERS_MAX} files"),
        });
    }
    let (mut seen, mut left) = (BTreeSet::new(), BYTES_MAX);
    for index in 0..archive.len() {
        let member = archive.member(index).map_err(failed)?;
        let name =
            String::from_utf8(member.raw_name.clone()).map_err(|_| UnpackError::malformed("a name is not UTF-8"))?;
        if member.kind != Kind::File {
            return Err(UnpackError::Special {
                entry: name.escape_debug().to_string(),
                kind: format!("a {}, and modules' zips hold files alone", member.kind.name()),
            });
        }
        left = left.checked_sub(member.size).ok_or_else(|| UnpackError::TooLarge {
            limit: format!("{} MiB, the most that Go takes", BYTES_MAX >> 20),
        })?;
        let mut content = archive.content(index).map_err(failed)?;
        take(&name, &member, &mut content)?;
        if !seen.insert(name) {
            return Err(UnpackError::malformed("two files have one name"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::unpack::testing::show;
    use crate::fetch::unpack::tests::zips::zipped;

    fn in_file(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zip");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn hash(bytes: &[u8]) -> Result<String, String> {
        let (_dir, path) = in_file(bytes);
        let hash = hash_go_module(&path);
        hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
    }

    const FILES: &[(&str, u32, &str)] = &[
        ("example.com/m@v1.0.0/go.mod", 0o100_644, "module example.com/m\n"),
        ("example.com/m@v1.0.0/a/a.go", 0o100_755, "package a\n"),
        ("example.com/m@v1.0.0/LICENSE", 0o100_644, ""),
    ];

    /// The expected value is `go mod download -json`'s `Sum` of this module (Go 1.27), and that of a shell pipeline:
    /// `sha256sum $(find -type f | sort) | sha256sum | xxd -r -p | base64`.
    #[test]
    fn the_hash_is_that_of_go_and_of_the_files_alone() {
        let expected = "h1:Bs9G7ntMEWT+Eqzbmp96OpkKKuSUzzvyht2R+o5Grz4=";
        assert_eq!(hash(&zipped(FILES)).as_deref(), Ok(expected));
        let mut other: Vec<_> = FILES
            .iter()
            .map(|&(name, _, content)| (name, 0o100_600, content))
            .collect();
        other.reverse();
        assert_eq!(hash(&zipped(&other)).as_deref(), Ok(expected));
        other[0].2 = "x";
        assert_ne!(hash(&zipped(&other)).as_deref(), Ok(expected));
    }

    #[test]
    fn a_module_is_unpacked_as_files_without_modes() {
        let (dir, zip) = in_file(&zipped(FILES));
        let dest = dir.path().join("tree");
        unpack_go_module(&zip, "m", "example.com/m", "v1.0.0", &dest).unwrap();
        assert_eq!(
            show(&dest),
            [
                "LICENSE 644 ",
                "a/ 755",
                "a/a.go 644 package a\n",
                "go.mod 644 module example.com/m\n",
            ]
        );
        let error = unpack_go_module(&zip, "m", "example.com/m", "v1.0.1", &dir.path().join("other")).unwrap_err();
        assert_eq!(error.to_string(), "cannot unpack `m`");
        assert!(!dir.path().join("other").exists());
    }

    #[test]
    fn hostile_zips_are_refused() {
        for (entries, message) in [
            (&[("m@v1/", 0o040_755, "")][..], "hold files alone"),
            (&[("m@v1/link", 0o120_777, "/etc/passwd")], "hold files alone"),
            (&[("m@v1/a\nb", 0o100_644, "")], "a name holds a line feed"),
        ] {
            let error = hash(&zipped(entries)).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        for bytes in [&b""[..], b"no zip", &zipped(FILES)[..200]] {
            assert!(hash(bytes).is_err());
        }
        for (name, message) in [
            ("m@v1/../../x", "leads out"),
            ("m@v1/./x", "is not a plain path"),
            ("m@v1//x", "is not a plain path"),
            ("other@v1/x", "leads out"),
        ] {
            let (dir, zip) = in_file(&zipped(&[(name, 0o100_644, "")]));
            let error = unpack(&zip, "m@v1/", &dir.path().join("tree")).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert!(!dir.path().join("tree").exists());
        }
        // A member whose size the directory understates, and more than Go takes.
        let mut bomb = zipped(&[("m@v1/x", 0o100_644, "0123456789")]);
        let directory = bomb.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
        bomb[directory + 24..directory + 28].copy_from_slice(&(600u32 << 20).to_le_bytes());
        assert!(hash(&bomb).unwrap_err().contains("unpacks to more than 500 MiB"));
        bomb[directory + 24..directory + 28].copy_from_slice(&3u32.to_le_bytes());
        assert!(hash(&bomb).is_err());
    }
}
