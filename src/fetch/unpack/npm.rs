//! *Packages of npm's* as npm lays them out: without the one directory around them, whatever that is called, their programs
//! executable.
//!
//! Invariant: the tree is the one that npm makes of the tarball (its parts `pacote` and `bin-links`), but that links, which npm
//! leaves out in silence, are errors: what publishes packages writes none.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::tree::{Duplicates, EntryPath, Node, TreeWriter};
use super::{EntryContent, Remarks, UnpackError, content_of, named, npm_files};
use crate::archive::Kind;
use crate::archive::tar::{Streamed, TarPolicy, TarReader};
use crate::fetch::FetchError;
use crate::fetch::git::restore_archive;
use crate::fsio::{self, IoContext, PathError};

/// What says of a package what it is.
const MANIFEST: &[u8] = b"package.json";

/// Largest `package.json` that is read, in bytes.
const MANIFEST_MAX: u64 = 16 << 20;

/// Unpacks a tarball of npm's into `dest`, a new directory, or into the directory `at` in that; `name` is what messages call it.
pub fn unpack_npm(archive: &Path, name: &str, at: Option<&str>, dest: &Path) -> Result<Remarks, FetchError> {
    let Some(at) = at else {
        return unpack(archive, dest).map_err(|source| named(name, source));
    };
    let place = dest.join(at);
    fsio::create_dir_all(place.parent().unwrap_or(dest))?;
    unpack(archive, &place).map_err(|source| {
        // What is left of it in its parents is nobody's.
        let removed = fsio::remove_tree(dest);
        removed.map_or_else(FetchError::from, |()| named(name, source))
    })
}

/// Restores the archive of a repository's tree as [`unpack_npm`] does a tarball, with what `npm pack` would take of it.
///
/// # Errors
///
/// An archive that is none, and a tree without a `package.json`.
pub fn unpack_npm_repository(archive: &Path, name: &str, at: Option<&str>, dest: &Path) -> Result<(), FetchError> {
    let place = at.map_or_else(|| dest.to_owned(), |at| dest.join(at));
    fsio::create_dir_all(place.parent().unwrap_or(dest))?;
    let packed = restore_archive(archive, name, &place).and_then(|()| pack(&place).map_err(|error| named(name, error)));
    if packed.is_err() {
        fsio::remove_tree(dest)?;
    }
    packed
}

fn pack(root: &Path) -> Result<(), UnpackError> {
    let file = root.join("package.json");
    if !fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_file()) {
        return Err(not_npm("the repository has no `package.json` at its top"));
    }
    let manifest: Value = serde_json::from_slice(&fsio::read_limited(&file, MANIFEST_MAX)?).unwrap_or_default();
    // What is made of it first is made of all of it.
    if manifest["scripts"]["prepare"].is_null() {
        npm_files::keep_packed(root, &manifest)?;
    }
    for target in targets(&manifest) {
        // Links are gone, so that it is where it seems to be, unless its name leads out.
        let is_inside = target.split('/').all(|part| part != "..");
        let program = root.join(target.trim_start_matches('/'));
        if is_inside && fs::symlink_metadata(&program).is_ok_and(|metadata| metadata.is_file()) {
            make_program(&program)?;
        }
    }
    Ok(())
}

fn unpack(archive: &Path, dest: &Path) -> Result<Remarks, UnpackError> {
    let file = File::open(archive).context("open", archive)?;
    let size = file.metadata().context("read", archive)?.len();
    let EntryContent::Tar(content) = content_of(&file, archive)? else {
        return Err(not_npm("it is no tar"));
    };
    let mut tree = TreeWriter::new(dest, size, Duplicates::LastWins)?;
    read_entries(content, &mut tree)?;
    if tree.nodes().is_empty() {
        return Err(not_npm("there is nothing in it"));
    }
    for program in programs(&tree)? {
        make_program(&tree.physical(&program))?;
    }
    tree.publish(false)
}

fn read_entries(content: impl Read, tree: &mut TreeWriter) -> Result<(), UnpackError> {
    let mut archive = TarReader::new(Streamed(content), TarPolicy::SOURCE);
    let mut ignores = BTreeSet::new();
    while let Some(entry) = archive.next_entry()? {
        let Some(path) = tree.stripped(&entry.path, 1)? else {
            tree.skip_entry(entry.size)?;
            continue;
        };
        match entry.kind {
            Kind::Directory => tree.directory(&path)?,
            Kind::File if entry.path.ends_with(b"/") => tree.directory(&path)?,
            Kind::File => match as_npm_names_it(&path, &mut ignores) {
                Some(path) => tree.file(&path, entry.mode & 0o111 != 0, entry.size, &mut archive)?,
                None => tree.skip_entry(entry.size)?,
            },
            kind => {
                let kind = kind.name();
                let reason = format!(
                    "its entry `{}` is a {kind}, which packages of npm's do not hold",
                    path.display()
                );
                return Err(not_npm(reason));
            }
        }
    }
    archive.finish()?;
    Ok(())
}

fn not_npm(reason: impl Into<String>) -> UnpackError {
    UnpackError::Package { reason: reason.into() }
}

/// What a file is called once it is unpacked: a `.gitignore` is a `.npmignore` there, unless the package has one.
fn as_npm_names_it(path: &EntryPath, ignores: &mut BTreeSet<Vec<u8>>) -> Option<EntryPath> {
    let bytes = path.as_bytes();
    let start = bytes
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1);
    match &bytes[start..] {
        b".npmignore" => {
            ignores.insert(bytes.to_vec());
            Some(path.clone())
        }
        b".gitignore" => {
            let renamed = [&bytes[..start], b".npmignore"].concat();
            (!ignores.contains(&renamed)).then(|| EntryPath::trusted(renamed))
        }
        _ => Some(path.clone()),
    }
}

/// The files that `package.json` calls programs, of the package and of those that it brings along.
fn programs(tree: &TreeWriter) -> Result<Vec<Vec<u8>>, PathError> {
    let is_file = |path: &[u8]| tree.nodes().get(path) == Some(&Node::File);
    let mut programs = Vec::new();
    for path in tree.nodes().keys().filter(|path| is_manifest(path) && is_file(path)) {
        let dir = path.strip_suffix(MANIFEST).unwrap_or_default();
        let text = fsio::read_limited(&tree.physical(path), MANIFEST_MAX)?;
        // One that cannot be read is for npm's tools and the program to complain of.
        let manifest: Value = serde_json::from_slice(&text).unwrap_or_default();
        let normal = |target: &str| {
            let parts = target.split('/').filter(|part| !matches!(*part, "" | "."));
            [dir, parts.collect::<Vec<_>>().join("/").as_bytes()].concat()
        };
        programs.extend(
            targets(&manifest)
                .into_iter()
                .map(normal)
                .filter(|target| is_file(target)),
        );
    }
    Ok(programs)
}

/// The files that a `package.json` calls programs.
fn targets(manifest: &Value) -> Vec<&str> {
    match &manifest["bin"] {
        Value::String(target) => vec![target],
        Value::Object(named) => named.values().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether a path is that of the `package.json` of the package, or of one in a `node_modules` of it.
fn is_manifest(path: &[u8]) -> bool {
    let Some(dir) = path.strip_suffix(MANIFEST) else {
        return false;
    };
    // What follows the last slash is nothing.
    let mut parts = dir.split(|&byte| byte == b'/').rev().skip(1);
    match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => dir.is_empty(),
        (_, Some(b"node_modules"), _) => true,
        (_, Some(scope), Some(b"node_modules")) => scope.starts_with(b"@"),
        _ => false,
    }
}

/// Makes a file executable; a first line that names its interpreter ends as Linux reads it.
fn make_program(path: &Path) -> Result<(), PathError> {
    let text = fs::read(path).context("read", path)?;
    let line = text.iter().position(|&byte| byte == b'\n');
    if let Some(end) = line.filter(|&end| end > 2 && text.starts_with(b"#!") && text[end - 1] == b'\r') {
        let fixed = [&text[..end - 1], &text[end..]].concat();
        fs::write(path, fixed).context("write", path)?;
    }
    fs::set_permissions(path, Permissions::from_mode(0o755)).context("set the mode of", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::unpack::testing::show;

    fn tarball(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, content: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o600);
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        match kind {
            tar::EntryType::Regular => {
                header.set_size(content.len() as u64);
                header.set_cksum();
                builder.append(&header, content.as_bytes()).unwrap();
            }
            _ => {
                header.set_size(0);
                header.set_link_name(content).unwrap();
                header.set_cksum();
                builder.append(&header, std::io::empty()).unwrap();
            }
        }
    }

    fn unpacked(bytes: &[u8]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("x.tgz");
        fs::write(&archive, bytes).unwrap();
        let dest = dir.path().join("out");
        let result = unpack_npm(&archive, "x-1.0.tgz", None, &dest);
        assert_eq!(result.is_ok(), dest.exists());
        let deep = dir.path().join("deep");
        let also = unpack_npm(&archive, "x-1.0.tgz", Some("app/node_modules/x"), &deep);
        assert_eq!((result.is_ok(), result.is_ok()), (also.is_ok(), deep.exists()));
        if also.is_ok() {
            assert_eq!(show(&dest), show(&deep.join("app/node_modules/x")));
        }
        result.map(|_| show(&dest)).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", source.unwrap_or_default())
        })
    }

    #[test]
    fn a_package_is_unpacked_as_npm_does_it() {
        let bytes = tarball(|builder| {
            let file = tar::EntryType::Regular;
            let manifest = r#"{"bin":{"a":"./bin/a.js","gone":"gone.js","out":"../x"}}"#;
            add(builder, "any/package.json", file, manifest);
            add(builder, "any/bin/a.js", file, "#!/usr/bin/env node\r\nx\r\n");
            add(builder, "any/.gitignore", file, "git");
            add(builder, "any/lib/.npmignore", file, "npm");
            add(builder, "any/lib/.gitignore", file, "git");
            add(builder, "beside", file, "nothing");
            let inner = r#"{"bin":"i.js"}"#;
            for dir in ["node_modules/in", "node_modules/@s/in", "node_modules/in/lib"] {
                add(builder, &format!("any/{dir}/package.json"), file, inner);
                add(builder, &format!("any/{dir}/i.js"), file, "i");
            }
        });
        assert_eq!(
            unpacked(&bytes).unwrap(),
            [
                ".npmignore 644 git",
                "bin/ 755",
                "bin/a.js 755 #!/usr/bin/env node\nx\r\n",
                "lib/ 755",
                "lib/.npmignore 644 npm",
                "node_modules/ 755",
                "node_modules/@s/ 755",
                "node_modules/@s/in/ 755",
                "node_modules/@s/in/i.js 755 i",
                "node_modules/@s/in/package.json 644 {\"bin\":\"i.js\"}",
                "node_modules/in/ 755",
                "node_modules/in/i.js 755 i",
                "node_modules/in/lib/ 755",
                "node_modules/in/lib/i.js 644 i",
                "node_modules/in/lib/package.json 644 {\"bin\":\"i.js\"}",
                "node_modules/in/package.json 644 {\"bin\":\"i.js\"}",
                "package.json 644 {\"bin\":{\"a\":\"./bin/a.js\",\"gone\":\"gone.js\",\"out\":\"../x\"}}",
            ]
        );
    }

    #[test]
    fn what_no_package_holds_is_refused() {
        for (path, kind, content, said) in [
            (
                "package/../../evil",
                tar::EntryType::Regular,
                "x",
                "its name holds `..`",
            ),
            ("package/link", tar::EntryType::Symlink, "/etc/passwd", "a symlink"),
            ("package/hard", tar::EntryType::Link, "package/a", "a hard link"),
            ("package/pipe", tar::EntryType::Fifo, "x", "a fifo"),
        ] {
            let bytes = tarball(|builder| {
                add(builder, "package/a", tar::EntryType::Regular, "a");
                add(builder, path, kind, content);
            });
            let error = unpacked(&bytes).unwrap_err();
            assert!(error.contains(said), "{path}: {error}");
        }
        assert!(unpacked(b"no archive").unwrap_err().contains("no tar"));
        assert!(unpacked(&tarball(|_| ())).is_err());
    }
}
