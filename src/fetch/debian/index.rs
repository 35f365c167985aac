//! *Index records*: what an archive says of a package (`apt-cache show`, `apt-cache showsrc`), parsed and checked.
//!
//! Invariant: pure; a record has everything that a lock needs, or it is an error that names the package.

use super::control::{self, Paragraph};
use super::{is_package_name, is_version};
use crate::digest::Digest;
use crate::fetch::FetchError;
use crate::spec::{LockedDebSource, LockedFile};

/// What an index says of a version of a binary package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndexRecord {
    pub package: String,
    pub version: String,
    pub architecture: String,
    pub filename: String,
    pub size: u64,
    pub sha256: Digest,
    /// `Pre-Depends` and `Depends`, each the alternatives' names.
    pub depends: Vec<Vec<String>>,
    pub provides: Vec<String>,
    /// Name and version of its source package.
    pub source: (String, String),
}

/// Parses the records that `apt-cache show` printed; one that lacks something is an error of its own.
pub(super) fn parse_binary(text: &str) -> Result<Vec<Result<IndexRecord, FetchError>>, FetchError> {
    Ok(paragraphs(text)?.iter().map(IndexRecord::parse).collect())
}

impl IndexRecord {
    fn parse(paragraph: &Paragraph) -> Result<Self, FetchError> {
        let (package, version) = name_and_version(paragraph)?;
        let field = |name| field(paragraph, &package, name);
        let filename = field("filename")?.trim_start_matches("./").to_owned();
        let sha256 = field("sha256")?;
        let sha256 = Digest::from_hex(sha256).map_err(|error| answer(&package, &error.to_string()))?;
        let size = number(&package, field("size")?)?;
        let (source, source_version) = match paragraph.get("source").and_then(|source| source.split_once(" (")) {
            Some((name, version)) => (name.to_owned(), version.trim_end_matches(')').to_owned()),
            None => (paragraph.get("source").unwrap_or(&package).to_owned(), version.clone()),
        };
        let relations = |name| parse_relations(paragraph.get(name).unwrap_or_default());
        let provides = relations("provides").into_iter().flatten().collect();
        Ok(Self {
            architecture: field("architecture")?.to_owned(),
            depends: [relations("pre-depends"), relations("depends")].concat(),
            source: (source, source_version),
            package,
            version,
            filename,
            size,
            sha256,
            provides,
        })
    }
}

/// Parses the records that `apt-cache showsrc` printed: name and what is locked.
pub(super) fn parse_source(text: &str) -> Result<Vec<(String, LockedDebSource)>, FetchError> {
    let mut sources = Vec::new();
    for paragraph in paragraphs(text)? {
        let (package, version) = name_and_version(&paragraph)?;
        let directory = field(&paragraph, &package, "directory")?.to_owned();
        let mut files = Vec::new();
        for row in paragraph.rows("checksums-sha256") {
            let [digest, size, name] = row[..] else {
                return Err(answer(&package, "its list of files is malformed"));
            };
            if name.contains('/') || name.starts_with('.') {
                return Err(answer(&package, "the name of one of its files is malformed"));
            }
            files.push(LockedFile {
                name: name.to_owned(),
                size: number(&package, size)?,
                sha256: Digest::from_hex(digest).map_err(|error| answer(&package, &error.to_string()))?,
            });
        }
        if files.iter().filter(|file| file.name.ends_with(".dsc")).count() != 1 {
            return Err(answer(&package, "it does not list one `.dsc` with its SHA-256"));
        }
        files.sort_by_key(|file| (!file.name.ends_with(".dsc"), file.name.clone()));
        let source = LockedDebSource {
            archive: None,
            version,
            directory,
            files,
        };
        sources.push((package, source));
    }
    Ok(sources)
}

/// The names in a relation field (Debian policy §7.1): groups of alternatives, without versions, architectures and
/// build profiles.
fn parse_relations(text: &str) -> Vec<Vec<String>> {
    text.split(',')
        .map(|group| {
            let names = group.split('|').map(|alternative| {
                let end = alternative.find(['(', '[', '<', ':']).unwrap_or(alternative.len());
                alternative[..end].trim().to_owned()
            });
            names.filter(|name| !name.is_empty()).collect::<Vec<_>>()
        })
        .filter(|group| !group.is_empty())
        .collect()
}

fn paragraphs(text: &str) -> Result<Vec<Paragraph>, FetchError> {
    control::parse(text).map_err(|line| FetchError::AptAnswer {
        subject: "its index".to_owned(),
        reason: format!("line {line} is not a field"),
    })
}

fn name_and_version(paragraph: &Paragraph) -> Result<(String, String), FetchError> {
    let package = field(paragraph, "a package", "package")?;
    let version = field(paragraph, package, "version")?;
    if !is_package_name(package) {
        return Err(answer(package, "that is not a package name"));
    }
    if !is_version(version) {
        return Err(answer(package, &format!("`{version}` is not a version")));
    }
    Ok((package.to_owned(), version.to_owned()))
}

fn field<'a>(paragraph: &'a Paragraph, package: &str, name: &str) -> Result<&'a str, FetchError> {
    let value = paragraph.get(name).filter(|value| !value.is_empty());
    value.ok_or_else(|| answer(package, &format!("its record has no field `{name}`")))
}

fn number(package: &str, text: &str) -> Result<u64, FetchError> {
    let parsed = text.parse();
    parsed.map_err(|_| answer(package, &format!("`{text}` is not a size")))
}

fn answer(subject: &str, reason: &str) -> FetchError {
    FetchError::AptAnswer {
        subject: subject.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_binary_record_is_read() {
        let text = format!(
            "Package: gcc\nVersion: 4:12.2.0-3\nArchitecture: amd64\nSource: gcc-defaults (1.203)\nPre-Depends: dpkg (>= 1)\n\
             Depends: cpp (= 4:12.2.0-3), gcc-12:any (>= 12.2.0-1~), a | b [amd64] <!nocheck>\n\
             Provides: c-compiler, gcc-x (= 4)\nFilename: ./pool/gcc_12.deb\nSize: 5216\nSHA256: {HEX}\nDescription: x\n y\n"
        );
        let records = parse_binary(&text).unwrap();
        let [Ok(record)] = &records[..] else {
            panic!("{records:?}")
        };
        assert_eq!(
            record.depends,
            [vec!["dpkg"], vec!["cpp"], vec!["gcc-12"], vec!["a", "b"]]
        );
        assert_eq!(record.provides, ["c-compiler", "gcc-x"]);
        assert_eq!(record.source, ("gcc-defaults".to_owned(), "1.203".to_owned()));
        assert_eq!((record.filename.as_str(), record.size), ("pool/gcc_12.deb", 5216));
    }

    #[test]
    fn a_record_without_what_a_lock_needs_is_an_error() {
        let whole = format!("Package: aa\nVersion: 1\nArchitecture: all\nFilename: p\nSize: 1\nSHA256: {HEX}\n");
        assert!(parse_binary(&whole).unwrap()[0].is_ok());
        for (from, to, message) in [
            ("SHA256:", "MD5sum:", "`aa`: its record has no field `sha256`"),
            ("Size: 1", "Size: x", "`aa`: `x` is not a size"),
            ("Package: aa", "Package: A/b", "`A/b`: that is not a package name"),
            ("Version: 1", "Version: x/1", "`aa`: `x/1` is not a version"),
        ] {
            let error = parse_binary(&whole.replace(from, to)).unwrap().remove(0).unwrap_err();
            assert!(error.to_string().ends_with(message), "{error}");
        }
    }

    #[test]
    fn a_source_record_is_read_with_its_dsc_first() {
        let text = format!(
            "Package: hello\nVersion: 2.10-3\nDirectory: pool/main/h/hello\nChecksums-Sha256:\n {HEX} 7 hello_2.10.orig.tar.gz\n \
             {HEX} 9 hello_2.10-3.dsc\n {HEX} 8 hello_2.10-3.debian.tar.xz\n"
        );
        let sources = parse_source(&text).unwrap();
        let files: Vec<_> = sources[0]
            .1
            .files
            .iter()
            .map(|file| (file.name.as_str(), file.size))
            .collect();
        assert_eq!(
            files,
            [
                ("hello_2.10-3.dsc", 9),
                ("hello_2.10-3.debian.tar.xz", 8),
                ("hello_2.10.orig.tar.gz", 7)
            ]
        );
        assert!(parse_source(&text.replace("hello_2.10-3.dsc", "hello_2.10-3.txt")).is_err());
        assert!(parse_source(&text.replace("hello_2.10-3.dsc", "../hello_2.10-3.dsc")).is_err());
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_index() {
        crate::testing::fuzz("index", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = super::parse_binary(&text);
            let _ = super::parse_source(&text);
        });
    }
}
