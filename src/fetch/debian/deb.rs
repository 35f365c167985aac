//! A *binary package* (`.deb`, deb(5)) as a tree.
//!
//! Invariant: the tree is a function of the `.deb`'s bytes alone. It has the package's files with `/bin`, `/lib`
//! and so on below `usr`, and beside them what the package manager would have made of it without running
//! anything: its control paragraph and checksums in `var/lib/dpkg/status.d`, what it asks `update-alternatives`
//! for (`root::ALTERNATIVES_DIR`), what a tree does not hold of its files (`root::RECORDS_DIR`), and the bundle of the
//! certificates it ships.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use super::{control, postinst, usrmerge};
use crate::archive::Kind;
use crate::archive::ar::{ArError, ArReader};
use crate::archive::compression::Decompressor;
use crate::archive::tar::{Entry, GNU_SPARSE, Streamed, TarPolicy, TarReader};
use crate::capability::FileCapabilities;
use crate::fetch::FetchError;
use crate::fetch::unpack::UnpackError;
use crate::fetch::unpack::tree::{Duplicates, EntryPath, Node, TreeWriter};
use crate::fsio::{self, IoContext};
use crate::oci::canonical_json;
use crate::root::{self, Ownership, PackageRecord};

/// Most bytes of each file of `control.tar` that is read: the checksums of a million files.
pub(super) const CONTROL_MAX: u64 = 128 << 20;

/// Where scanners look for the packages of an image without dpkg, one file a package (as distroless images have it).
const STATUS_DIR: &str = "var/lib/dpkg/status.d";

/// Certificates that `update-ca-certificates` would bundle, and the bundle.
const CERTIFICATES_DIR: &[u8] = b"usr/share/ca-certificates/";
const CERTIFICATES_BUNDLE: &[u8] = b"etc/ssl/certs/ca-certificates.crt";

/// Unpacks a `.deb` into `dest`, a new directory: usr-merged, maintainer scripts not run, its control paragraph
/// in `var/lib/dpkg/status.d/PACKAGE` and its checksums in `PACKAGE.md5sums` beside it, its
/// `update-alternatives --install` lines in `var/lib/dpkg/alternatives.d/PACKAGE`, the CA bundle made where it
/// ships certificates.
///
/// Absolute symlinks to what the package itself brings become relative, so that they lead somewhere where the
/// store path stands alone. Modes are 0755 or 0644, hard links copies; what they are in the package is in its record,
/// `var/lib/dpkg/attributes.d/PACKAGE`.
pub fn unpack_deb(deb: &Path, package: &str, dest: &Path) -> Result<(), FetchError> {
    unpack(deb, package, dest).map_err(|source| FetchError::Unpack {
        name: format!("deb:{package}"),
        source: Box::new(source),
    })
}

fn unpack(deb: &Path, package: &str, dest: &Path) -> Result<(), UnpackError> {
    if !super::is_package_name(package) {
        return Err(wrong(format!("`{package}` is not a package name")));
    }
    let file = File::open(deb).context("open", deb)?;
    let size = file.metadata().context("read", deb)?.len();
    let mut archive = ArReader::new(&file).map_err(not_ar)?;
    check_version(&mut archive)?;
    let control = ControlFiles::read(expect(&mut archive, "control.tar")?)?;
    control.check(package)?;
    let mut tree = TreeWriter::new(dest, size, Duplicates::MustBeEqual)?;
    let record = unpack_data(expect(&mut archive, "data.tar")?, &mut tree)?;
    make_links_relative(&mut tree);
    control.write(package, record, &mut tree)?;
    write_certificates(&mut tree)?;
    tree.publish(false)?;
    Ok(())
}

/// The first member is `debian-binary` and says which version of the format follows.
pub(super) fn check_version(archive: &mut ArReader<&File>) -> Result<(), UnpackError> {
    let member = archive.next_member().map_err(not_ar)?;
    let Some(member) = member.filter(|member| member.name == b"debian-binary") else {
        return Err(wrong("it is not a Debian package: `debian-binary` does not come first"));
    };
    let mut version = String::new();
    let content = archive.content(&member).map_err(not_ar)?;
    let read = content.take(16).read_to_string(&mut version);
    read.map_err(|source| UnpackError::Damaged { source })?;
    if !version.starts_with("2.") {
        return Err(wrong(format!(
            "it is of version `{}` of the format, not 2",
            version.trim()
        )));
    }
    Ok(())
}

/// The next member that is not a private one (`_…`, to be skipped), decompressed; its name must start with `name`.
pub(super) fn expect<'a, 'f>(
    archive: &'a mut ArReader<&'f File>,
    name: &str,
) -> Result<impl Read + use<'a, 'f>, UnpackError> {
    loop {
        let Some(member) = archive.next_member().map_err(not_ar)? else {
            return Err(wrong(format!("it has no `{name}`")));
        };
        let found = String::from_utf8_lossy(&member.name);
        if found.starts_with('_') {
            continue;
        }
        if !matches!(found.strip_prefix(name), Some("" | ".gz" | ".xz" | ".zst" | ".bz2")) {
            return Err(wrong(format!("it has `{found}` where `{name}` must be")));
        }
        let content = archive.content(&member).map_err(not_ar)?;
        return Decompressor::new(content).map_err(|source| UnpackError::Damaged { source });
    }
}

pub(super) fn not_ar(error: ArError) -> UnpackError {
    match error {
        ArError::Io(source) => UnpackError::Damaged { source },
        ArError::Malformed(reason) => UnpackError::malformed(format!("it is not a Debian package: {reason}")),
    }
}

/// What `control.tar` says.
#[derive(Default)]
struct ControlFiles {
    paragraph: String,
    md5sums: Vec<u8>,
    preinst: String,
    postinst: String,
}

impl ControlFiles {
    fn read(tar: impl Read) -> Result<Self, UnpackError> {
        let mut files = Self::default();
        // A longer one counts as cut off.
        let mut archive = TarReader::new(Streamed(tar.take(4 * CONTROL_MAX)), TarPolicy::SOURCE);
        while let Some(entry) = archive.next_entry()? {
            if entry.kind != Kind::File {
                continue;
            }
            let path = EntryPath::parse(&entry.path)?;
            if !matches!(path.as_bytes(), b"control" | b"md5sums" | b"preinst" | b"postinst") {
                continue;
            }
            if entry.size > CONTROL_MAX {
                return Err(UnpackError::TooLarge {
                    limit: format!("{CONTROL_MAX} bytes of `{}`", path.display()),
                });
            }
            let mut bytes = Vec::new();
            let read = archive.read_to_end(&mut bytes);
            read.map_err(|source| UnpackError::Damaged { source })?;
            match path.as_bytes() {
                b"md5sums" => files.md5sums = bytes,
                b"preinst" => files.preinst = String::from_utf8_lossy(&bytes).into_owned(),
                b"postinst" => files.postinst = String::from_utf8_lossy(&bytes).into_owned(),
                _ => {
                    files.paragraph =
                        String::from_utf8(bytes).map_err(|_| wrong("its control paragraph is not UTF-8"))?;
                }
            }
        }
        archive.finish()?;
        Ok(files)
    }

    /// The paragraph is that of `package`.
    fn check(&self, package: &str) -> Result<(), UnpackError> {
        let paragraphs = control::parse(&self.paragraph)
            .map_err(|line| wrong(format!("line {line} of its control paragraph is not a field")))?;
        match paragraphs.first().and_then(|paragraph| paragraph.get("package")) {
            Some(name) if name == package => Ok(()),
            Some(name) => Err(wrong(format!("it holds the package `{name}`"))),
            None => Err(wrong("its control paragraph names no package")),
        }
    }

    fn write(&self, package: &str, mut record: PackageRecord, tree: &mut TreeWriter) -> Result<(), UnpackError> {
        let mut status = String::new();
        for line in self.paragraph.lines().filter(|line| !line.trim().is_empty()) {
            status.push_str(line);
            status.push('\n');
            if line.to_ascii_lowercase().starts_with("package:") {
                status.push_str("Status: install ok installed\n");
            }
        }
        write_file(tree, &format!("{STATUS_DIR}/{package}"), status.as_bytes())?;
        if !self.md5sums.is_empty() {
            write_file(tree, &format!("{STATUS_DIR}/{package}.md5sums"), &self.md5sums)?;
        }
        let alternatives = postinst::alternatives(&self.postinst);
        if !alternatives.is_empty() {
            let path = format!("{}/{package}", root::ALTERNATIVES_DIR);
            write_file(tree, &path, alternatives.as_bytes())?;
        }
        record.setcap = postinst::capabilities(&self.postinst);
        for script in [&self.preinst, &self.postinst] {
            record.diversions.extend(postinst::diversions(script, package));
        }
        if !record.is_empty() {
            write_file(
                tree,
                &format!("{}/{package}", root::RECORDS_DIR),
                &canonical_json(&record),
            )?;
        }
        Ok(())
    }
}

fn write_file(tree: &mut TreeWriter, path: &str, content: &[u8]) -> Result<(), UnpackError> {
    let path = EntryPath::parse(path.as_bytes())?;
    tree.file(&path, false, content.len() as u64, &mut Cursor::new(content))
}

fn unpack_data(tar: impl Read, tree: &mut TreeWriter) -> Result<PackageRecord, UnpackError> {
    let mut archive = TarReader::new(Streamed(tar), TarPolicy::SOURCE);
    let mut noted = Noted::default();
    while let Some(entry) = archive.next_entry()? {
        let original = EntryPath::parse(&entry.path)?;
        let path = EntryPath::trusted(usrmerge::merged(original.as_bytes()));
        noted.note(&entry, &path);
        match entry.kind {
            Kind::Directory => tree.directory(&path)?,
            Kind::File | GNU_SPARSE => {
                drop_link_to_itself(tree, &path);
                tree.file(&path, entry.mode & 0o111 != 0, entry.size, &mut archive)?;
            }
            Kind::Symlink => {
                let target_after = usrmerge::merged_target(original.as_bytes(), &entry.link);
                let itself = root::resolve(root::parent(path.as_bytes()), &target_after) == path.as_bytes();
                // `/bin/x -> /usr/bin/x` beside `/usr/bin/x`: after the merge they are one file.
                if (itself && original != path) || usrmerge::is_merge_link(original.as_bytes(), &entry.link) {
                    continue;
                }
                if itself && tree.nodes().contains_key(path.as_bytes()) {
                    continue;
                }
                tree.symlink(&path, &target_after)?;
            }
            Kind::HardLink => {
                let target = EntryPath::parse(&entry.link)?;
                let target = EntryPath::trusted(usrmerge::merged(target.as_bytes()));
                if target != path {
                    tree.hard_link(&path, &target)?;
                    noted.link(&path, &target);
                }
            }
            kind => return Err(UnpackError::special(&original, kind)),
        }
    }
    archive.finish()?;
    Ok(noted.record())
}

/// What of the entries a tree does not hold.
#[derive(Default)]
struct Noted {
    record: PackageRecord,
    /// Paths by the file that they are: the one that came first.
    links: BTreeMap<String, BTreeSet<String>>,
    /// The first path of a link.
    first: BTreeMap<String, String>,
}

impl Noted {
    fn note(&mut self, entry: &Entry, path: &EntryPath) {
        let Ok(path) = String::from_utf8(path.as_bytes().to_vec()) else {
            return;
        };
        let usual = match entry.kind {
            Kind::Directory => 0o755,
            Kind::File | GNU_SPARSE if entry.mode & 0o111 != 0 => 0o755,
            Kind::File | GNU_SPARSE => 0o644,
            // A link is the file that it leads to.
            _ => return,
        };
        let id = |id: u64| u32::try_from(id).unwrap_or(0);
        let ownership = Ownership {
            mode: entry.mode,
            uid: id(entry.uid),
            gid: id(entry.gid),
        };
        let is_usual = (ownership.mode, ownership.uid, ownership.gid) == (usual, 0, 0);
        if !is_usual && !path.is_empty() {
            self.record.attributes.insert(path.clone(), ownership);
        }
        let capabilities = entry.any_capability().as_deref().and_then(FileCapabilities::from_bytes);
        if let Some(capabilities) = capabilities.filter(|capabilities| !capabilities.is_empty()) {
            self.record
                .capabilities
                .insert(path, capabilities.everywhere().to_string());
        }
    }

    /// Takes note of a hard link to an earlier file.
    fn link(&mut self, path: &EntryPath, target: &EntryPath) {
        let text = |path: &EntryPath| String::from_utf8(path.as_bytes().to_vec());
        let (Ok(path), Ok(target)) = (text(path), text(target)) else {
            return;
        };
        let first = self.first.get(&target).cloned().unwrap_or(target);
        if let Some(ownership) = self.record.attributes.get(&first).copied() {
            self.record.attributes.insert(path.clone(), ownership);
        }
        self.first.insert(path.clone(), first.clone());
        self.links
            .entry(first.clone())
            .or_insert_with(|| [first].into())
            .insert(path);
    }

    fn record(mut self) -> PackageRecord {
        let groups = self.links.into_values().map(|group| group.into_iter().collect());
        self.record.links = groups.collect();
        self.record.links.sort();
        self.record
    }
}

/// A symlink `/usr/bin/x -> /bin/x` that came before `/bin/x`: after the merge it leads to itself, and the file
/// takes its place.
fn drop_link_to_itself(tree: &mut TreeWriter, path: &EntryPath) {
    if let Some(Node::Symlink(target)) = tree.nodes().get(path.as_bytes())
        && root::resolve(root::parent(path.as_bytes()), target) == path.as_bytes()
    {
        tree.forget_symlink(path);
    }
}

/// Turns absolute symlinks to what the package itself brings into relative ones.
fn make_links_relative(tree: &mut TreeWriter) {
    let mut links = Vec::new();
    for (path, node) in tree.nodes() {
        let Node::Symlink(target) = node else { continue };
        let meaning = root::resolve(&[], target);
        if target.starts_with(b"/") && tree.nodes().contains_key(&meaning) {
            links.push((path.clone(), usrmerge::relative(root::parent(path), &meaning)));
        }
    }
    for (path, target) in links {
        tree.retarget(&path, target);
    }
}

/// Makes the bundle of the certificates that the package ships, as `update-ca-certificates` does: one after the
/// other, in the order of their names.
fn write_certificates(tree: &mut TreeWriter) -> Result<(), UnpackError> {
    let is_certificate =
        |path: &[u8], node: &Node| path.starts_with(CERTIFICATES_DIR) && path.ends_with(b".crt") && *node == Node::File;
    let certificates: Vec<_> = tree
        .nodes()
        .iter()
        .filter(|(path, node)| is_certificate(path, node))
        .map(|(path, _)| tree.physical(path))
        .collect();
    if certificates.is_empty() || tree.nodes().contains_key(CERTIFICATES_BUNDLE) {
        return Ok(());
    }
    let mut bundle = Vec::new();
    for certificate in certificates {
        bundle.extend(fsio::read_limited(&certificate, 1 << 20)?);
        if bundle.last() != Some(&b'\n') {
            bundle.push(b'\n');
        }
    }
    let path = EntryPath::trusted(CERTIFICATES_BUNDLE.to_vec());
    tree.file(&path, false, bundle.len() as u64, &mut Cursor::new(bundle))
}

pub(super) fn wrong(reason: impl Into<String>) -> UnpackError {
    UnpackError::Package { reason: reason.into() }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_deb_control() {
        crate::testing::fuzz("deb-control", |bytes| {
            if let Ok(control) = super::ControlFiles::read(bytes) {
                let _ = control.check("hello");
            }
        });
    }
}
