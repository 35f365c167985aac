//! A *source package* (dsc(5), dpkg-source(1)) as a tree: upstream's files with `debian/` in it.
//!
//! Invariant: the tree is a function of the files' bytes and names; no patch is applied here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::control;
use crate::archive::compression::Decompressor;
use crate::fetch::FetchError;
use crate::fetch::unpack::{Remarks, UnpackError, unpack};
use crate::fsio::{self, IoContext};
use crate::oci::CompressionFormat;

/// Largest `.dsc`, in bytes.
const DSC_MAX: u64 = 1 << 20;

/// Largest uncompressed `.diff` of a package in format 1.0, in bytes.
const DIFF_MAX: u64 = 1 << 30;

/// Where the difference of a package in format 1.0 stands in the unpacked tree.
pub const DIFF_NAME: &str = "debian.diff";

/// Unpacks a Debian source package (`.dsc` first among `files`: name and path of each) into `dest`, a new
/// directory: upstream's tree with `debian/` in it.
///
/// Patches are left to the build. What it has to do, in this order, in the unpacked tree:
/// 1. where the file `debian.diff` stands at the top (formats 1.0 with a difference): `patch -p1 < debian.diff`,
///    which also makes `debian/`;
/// 2. where `debian/patches/series` stands: apply each patch that it names with `patch -p1`.
///
/// Formats: 1.0, 3.0 (native), 3.0 (quilt) with any number of additional upstream tarballs.
pub fn unpack_deb_source(files: &[(String, PathBuf)], dest: &Path) -> Result<Remarks, FetchError> {
    let name = files.first().map_or("", |(name, _)| name).to_owned();
    unpack_source(files, dest).map_err(|source| FetchError::Unpack {
        name,
        source: Box::new(source),
    })
}

fn unpack_source(files: &[(String, PathBuf)], dest: &Path) -> Result<Remarks, UnpackError> {
    let parts = Parts::read(files)?;
    if fs::symlink_metadata(dest).is_ok() {
        return Err(UnpackError::Exists {
            dest: dest.display().to_string(),
        });
    }
    let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let work = tempfile::Builder::new()
        .prefix(".layerize-unpack-")
        .tempdir_in(parent)
        .context("create a temporary directory in", parent)?;
    let tree = work.path().join("tree");
    let remarks = unpack(parts.upstream, None, &tree)?;
    for (component, tarball) in &parts.components {
        replace(&work, tarball, &tree.join(component))?;
    }
    if let Some(debian) = parts.debian {
        unpack_debian(&work, debian, &tree)?;
    }
    if let Some(diff) = parts.diff {
        write_diff(diff, &tree.join(DIFF_NAME))?;
    }
    fs::rename(&tree, dest).context("rename an unpacked tree to", dest)?;
    Ok(remarks)
}

/// The files of a source package by what they are.
struct Parts<'a> {
    upstream: &'a Path,
    components: BTreeMap<String, &'a Path>,
    debian: Option<&'a Path>,
    diff: Option<&'a Path>,
}

impl<'a> Parts<'a> {
    fn read(files: &'a [(String, PathBuf)]) -> Result<Self, UnpackError> {
        let Some(((name, dsc), rest)) = files.split_first().filter(|((name, _), _)| name.ends_with(".dsc")) else {
            return Err(wrong("a source package must have its `.dsc` first"));
        };
        let text = fsio::read_limited(dsc, DSC_MAX)?;
        let text = String::from_utf8(text).map_err(|_| wrong(format!("`{name}` is not UTF-8")))?;
        let paragraphs =
            control::parse(&text).map_err(|line| wrong(format!("line {line} of `{name}` is not a field")))?;
        let paragraph = paragraphs.first().ok_or_else(|| wrong(format!("`{name}` is empty")))?;
        let rows = paragraph.rows("files");
        let listed: Vec<&str> = rows.iter().filter_map(|row| row.get(2).copied()).collect();
        let find = |listed: &str| {
            let found = rest.iter().find(|(name, _)| name == listed);
            found
                .map(|(_, path)| path.as_path())
                .ok_or_else(|| wrong(format!("`{name}` lists `{listed}`, which is not among its files")))
        };
        match paragraph.get("format").unwrap_or("1.0") {
            "1.0" => Self::format_1(&listed, find),
            "3.0 (native)" => Self::native(&listed, find),
            "3.0 (quilt)" => Self::quilt(&listed, find),
            other => Err(wrong(format!(
                "the source format `{other}` is not supported (1.0, 3.0 (native) and 3.0 (quilt) are)"
            ))),
        }
    }

    fn format_1(listed: &[&str], find: impl Fn(&str) -> Result<&'a Path, UnpackError>) -> Result<Self, UnpackError> {
        let diff = only(listed, "difference", |name| name.ends_with(".diff.gz"))?;
        let kind = if diff.is_some() { ".orig.tar." } else { ".tar." };
        let tarball = only(listed, "tarball", |name| tarball_of(name, kind).is_some())?;
        Ok(Self {
            upstream: find(tarball.ok_or_else(|| wrong("it lists no tarball"))?)?,
            components: BTreeMap::new(),
            debian: None,
            diff: diff.map(find).transpose()?,
        })
    }

    fn native(listed: &[&str], find: impl Fn(&str) -> Result<&'a Path, UnpackError>) -> Result<Self, UnpackError> {
        let tarball = only(listed, "tarball", |name| tarball_of(name, ".tar.").is_some())?;
        Ok(Self {
            upstream: find(tarball.ok_or_else(|| wrong("it lists no tarball"))?)?,
            components: BTreeMap::new(),
            debian: None,
            diff: None,
        })
    }

    fn quilt(listed: &[&str], find: impl Fn(&str) -> Result<&'a Path, UnpackError>) -> Result<Self, UnpackError> {
        let upstream = only(listed, "upstream tarball", |name| {
            tarball_of(name, ".orig.tar.").is_some()
        })?;
        let debian = only(listed, "`debian` tarball", |name| {
            tarball_of(name, ".debian.tar.").is_some()
        })?;
        let mut components = BTreeMap::new();
        for name in listed {
            let Some(component) = component(name) else { continue };
            if component == "debian" || components.insert(component.to_owned(), find(name)?).is_some() {
                return Err(wrong(format!("`{name}` cannot be its tarball of `{component}`")));
            }
        }
        Ok(Self {
            upstream: find(upstream.ok_or_else(|| wrong("it lists no `.orig.tar`"))?)?,
            components,
            debian: Some(find(debian.ok_or_else(|| wrong("it lists no `.debian.tar`"))?)?),
            diff: None,
        })
    }
}

/// The one name that `is` says yes to; several are an error.
fn only<'a>(listed: &[&'a str], what: &str, is: impl Fn(&str) -> bool) -> Result<Option<&'a str>, UnpackError> {
    let mut names = listed.iter().copied().filter(|name| is(name));
    let first = names.next();
    match names.next() {
        Some(_) => Err(wrong(format!("it lists more than one {what}"))),
        None => Ok(first),
    }
}

/// What comes before `kind` in the name of a tarball: `hello_2.10` of `hello_2.10.orig.tar.gz`.
fn tarball_of<'a>(name: &'a str, kind: &str) -> Option<&'a str> {
    let (stem, extension) = name.rsplit_once('.')?;
    let compressed = matches!(extension, "gz" | "xz" | "bz2" | "zst" | "lzma");
    let stem = stem.strip_suffix(kind.trim_end_matches('.'))?;
    (compressed && !stem.is_empty()).then_some(stem)
}

/// `COMPONENT` of `NAME_VERSION.orig-COMPONENT.tar.EXTENSION`.
fn component(name: &str) -> Option<&str> {
    let (_, component) = tarball_of(name, ".tar.")?.rsplit_once(".orig-")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (!component.is_empty() && component.bytes().all(allowed)).then_some(component)
}

/// Unpacks `tarball` to `place`, in the place of what is there.
fn replace(work: &TempDir, tarball: &Path, place: &Path) -> Result<(), UnpackError> {
    let part = work.path().join("part");
    unpack(tarball, None, &part)?;
    fsio::remove_tree(place)?;
    fs::rename(&part, place).context("rename an unpacked tree to", place)?;
    Ok(())
}

/// Unpacks the tarball that holds `debian/`, which replaces what upstream has of that name.
fn unpack_debian(work: &TempDir, tarball: &Path, tree: &Path) -> Result<(), UnpackError> {
    let part = work.path().join("part");
    unpack(tarball, Some(0), &part)?;
    for name in fsio::sorted_names(&part)? {
        if name != "debian" {
            return Err(wrong(format!(
                "its `debian` tarball holds `{}` beside `debian`",
                name.to_string_lossy()
            )));
        }
    }
    let (source, place) = (part.join("debian"), tree.join("debian"));
    if !fs::symlink_metadata(&source).is_ok_and(|metadata| metadata.is_dir()) {
        return Err(wrong("its `debian` tarball holds no directory `debian`"));
    }
    fsio::remove_tree(&place)?;
    fs::rename(&source, &place).context("rename an unpacked tree to", &place)?;
    fsio::remove_tree(&part)?;
    Ok(())
}

/// Writes the uncompressed difference of a package in format 1.0.
fn write_diff(diff: &Path, place: &Path) -> Result<(), UnpackError> {
    if fs::symlink_metadata(place).is_ok() {
        return Err(wrong(format!("upstream has a file `{DIFF_NAME}` of its own")));
    }
    let file = File::open(diff).context("open", diff)?;
    let mut bytes = Vec::new();
    Decompressor::with_format(CompressionFormat::Gzip, file)
        .and_then(|text| text.take(DIFF_MAX + 1).read_to_end(&mut bytes))
        .map_err(|source| UnpackError::Damaged { source })?;
    if bytes.len() as u64 > DIFF_MAX {
        return Err(UnpackError::TooLarge {
            limit: format!("{DIFF_MAX} bytes of difference"),
        });
    }
    fs::write(place, bytes).context("write", place)?;
    Ok(())
}

fn wrong(reason: impl Into<String>) -> UnpackError {
    UnpackError::Package { reason: reason.into() }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_dsc() {
        crate::testing::fuzz("dsc", |bytes| {
            let dir = tempfile::tempdir().unwrap();
            let dsc = dir.path().join("x.dsc");
            std::fs::write(&dsc, bytes).unwrap();
            let names = [
                "hello_2.10.orig.tar.gz",
                "hello_2.10-3.debian.tar.xz",
                "hello_2.10.orig-doc.tar.gz",
            ];
            let mut files = vec![("x.dsc".to_owned(), dsc.clone())];
            files.extend(names.map(|name| (name.to_owned(), dsc.clone())));
            let _ = super::Parts::read(&files).map(drop);
        });
    }
}
