//! What the steps of a *debug image* make: tools that run wherever they stand, and what a debugger asks for of a package.
//!
//! Invariant: a function of the trees that are given. Tools name their loader and their libraries by their own store path, so
//! that they neither need nor touch what the image has; sources are those that debug information names, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::BuildError;
use crate::elf::{self, Sources};
use crate::fsio::{IoContext, PathError, copy_file, create_dir_all, sorted_names, walk};
use crate::root::{self, MERGED_DIRS, RootEntry};

/// Shells that can be `sh`, best first.
const SHELLS: [&str; 3] = ["dash", "bash", "busybox"];

/// Most links followed on the way to a loader.
const LINKS_MAX: usize = 8;

/// Where a script finds its source.
const SOURCE: &str = "build/source";

/// Where debuggers look for files of debug information, by build ID; and where packages put them.
const BUILD_IDS: &str = "usr/lib/debug/.build-id";
const BUILD_IDS_OF_PACKAGES: [&str; 2] = ["lib/debug/.build-id", BUILD_IDS];

/// Makes one tree `dest` of `packages` (name and tree, each after what it depends on), which will stand at `logical`; gives
/// the programs that cannot be linked to it.
pub(super) fn make_tools(
    packages: &[(String, PathBuf)],
    logical: &str,
    dest: &Path,
) -> Result<BTreeSet<String>, BuildError> {
    let composed = root::compose(packages)?;
    let mut links = BTreeMap::new();
    create_dir_all(dest)?;
    for (path, entry) in &composed.entries {
        let place = dest.join(OsStr::from_bytes(path));
        match entry {
            RootEntry::Directory => create_dir_all(&place)?,
            RootEntry::File {
                physical, executable, ..
            } => {
                copy_file(physical, &place)?;
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(&place, fs::Permissions::from_mode(mode)).context("set the mode of", &place)?;
            }
            RootEntry::Symlink { target } => drop(links.insert(path.clone(), target.clone())),
        }
    }
    let trees: Vec<&Path> = packages.iter().map(|(_, tree)| tree.as_path()).collect();
    for (link, target) in root::alternatives(&trees)? {
        let link = merged(link.trim_start_matches('/').as_bytes());
        links.entry(link).or_insert_with(|| target.into_bytes());
    }
    let bin = dest.join("usr/bin");
    if let Some(shell) = SHELLS.into_iter().find(|shell| bin.join(shell).is_file())
        && !bin.join("sh").exists()
    {
        links
            .entry(b"usr/bin/sh".to_vec())
            .or_insert_with(|| shell.as_bytes().to_vec());
    }
    for (link, target) in links {
        make_link(dest, &link, &target)?;
    }
    link_programs(logical, dest)
}

/// Makes a symlink that stays in the tree: one that begins at `/` means the tree's own.
fn make_link(dest: &Path, link: &[u8], target: &[u8]) -> Result<(), PathError> {
    let place = dest.join(OsStr::from_bytes(link));
    let mut text = Vec::new();
    if let Some(below) = target.strip_prefix(b"/") {
        let depth = link.iter().filter(|&&byte| byte == b'/').count();
        text.extend(b"../".repeat(depth));
        text.extend(merged(below));
    } else {
        text.extend_from_slice(target);
    }
    if let Some(parent) = place.parent() {
        create_dir_all(parent)?;
    }
    match place.symlink_metadata() {
        Ok(_) => Ok(()),
        Err(_) => symlink(OsStr::from_bytes(&text), &place).context("create the link", &place),
    }
}

/// `bin/awk` → `usr/bin/awk`: where packages' trees have what the merged `/usr` shows at the top.
fn merged(below: &[u8]) -> Vec<u8> {
    let top = below.split(|&byte| byte == b'/').next().unwrap_or_default();
    match MERGED_DIRS.iter().any(|name| name.as_bytes() == top) && below != top {
        true => [b"usr/", below].concat(),
        false => below.to_vec(),
    }
}

/// Gives each program of a tree the tree's own loader and libraries.
fn link_programs(logical: &str, dest: &Path) -> Result<BTreeSet<String>, BuildError> {
    let run_path: Vec<String> = (library_dirs(dest)?.iter())
        .map(|dir| format!("{logical}/{dir}"))
        .collect();
    let run_path = run_path.join(":");
    let mut left = BTreeSet::new();
    for entry in walk(dest) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // The C library can be run as well, and must not look for another one.
        if !entry.file_type().is_file() || name.contains(".so") {
            continue;
        }
        let Some(interpreter) = elf::read(entry.path())?.and_then(|elf| elf.interpreter) else {
            continue;
        };
        let is_linked = match loader(dest, &interpreter) {
            Some(loader) => elf::relink(entry.path(), &format!("{logical}/{loader}"), &run_path)?,
            None => false,
        };
        if !is_linked {
            let below = entry.path().strip_prefix(dest).unwrap_or(entry.path());
            left.insert(below.display().to_string());
        }
    }
    Ok(left)
}

/// Where the tree has the loader that programs know as `interpreter`.
fn loader(dest: &Path, interpreter: &str) -> Option<String> {
    let mut below = merged(interpreter.strip_prefix('/')?.as_bytes());
    for _ in 0..LINKS_MAX {
        let place = dest.join(OsStr::from_bytes(&below));
        let metadata = place.symlink_metadata().ok()?;
        if metadata.is_file() {
            return String::from_utf8(below).ok();
        }
        let target = fs::read_link(&place).ok()?;
        below = merged(&root::resolve(root::parent(&below), target.as_os_str().as_bytes()));
    }
    None
}

/// The directories of a tree in which loaders look for libraries, those of the machine's own kind first.
fn library_dirs(dest: &Path) -> Result<Vec<String>, PathError> {
    let lib = dest.join("usr/lib");
    let mut dirs = Vec::new();
    if lib.is_dir() {
        for name in sorted_names(&lib)? {
            let name = name.to_string_lossy().into_owned();
            if name.contains("-linux-") && lib.join(&name).is_dir() {
                dirs.push(format!("usr/lib/{name}"));
            }
        }
        dirs.push("usr/lib".to_owned());
    }
    Ok(dirs)
}

/// Makes `dest` of what a debugger asks for of `output`: its files of debug information, and the sources that they, or its
/// programs and libraries, name below `/build/source`. `source` is what was there: a tree, or a file of this name.
pub(super) fn make_info(output: &Path, source: Option<(&Path, &str)>, dest: &Path) -> Result<(), PathError> {
    create_dir_all(dest)?;
    for dir in BUILD_IDS_OF_PACKAGES {
        copy_files(&output.join(dir), &dest.join(BUILD_IDS))?;
    }
    let Some((source, name)) = source else { return Ok(()) };
    let named = named_sources(output)?;
    for path in named.files {
        let Ok(below) = path.strip_prefix(Path::new("/").join(SOURCE)) else {
            continue;
        };
        let Some(file) = find_source(source, name, below) else {
            continue;
        };
        let to = dest.join(SOURCE).join(below);
        if let Some(parent) = to.parent() {
            create_dir_all(parent)?;
        }
        copy_file(&file, &to)?;
    }
    let dirs = named
        .passed
        .iter()
        .map(|path| path.strip_prefix(Path::new("/").join(SOURCE)));
    for below in dirs.flatten() {
        let dir = dest.join(SOURCE).join(below);
        // What the script made a directory of may be a file of the source.
        if !dir.exists() {
            create_dir_all(&dir)?;
        }
    }
    Ok(())
}

/// The sources that anything in a tree names.
fn named_sources(tree: &Path) -> Result<Sources, PathError> {
    let mut named = Sources::default();
    for entry in walk(tree) {
        let entry = entry?;
        if entry.file_type().is_file() {
            let Sources { mut files, mut passed } = elf::sources(entry.path())?;
            named.files.append(&mut files);
            named.passed.append(&mut passed);
        }
    }
    Ok(named)
}

/// The file that stood at `below` the directory of the source; nothing that a link leads to outside of it.
fn find_source(source: &Path, name: &str, below: &Path) -> Option<PathBuf> {
    if !source.is_dir() {
        return (below == Path::new(name)).then(|| source.to_owned());
    }
    let file = source.join(below).canonicalize().ok()?;
    (file.is_file() && file.starts_with(source.canonicalize().ok()?)).then_some(file)
}

/// Copies the regular files of a tree, and of its links those that lead to one beside them.
fn copy_files(from: &Path, to: &Path) -> Result<(), PathError> {
    if !from.is_dir() {
        return Ok(());
    }
    let inside = from.canonicalize().context("follow", from)?;
    for entry in walk(from) {
        let entry = entry?;
        let Ok(below) = entry.path().strip_prefix(from) else {
            continue;
        };
        let Ok(file) = entry.path().canonicalize() else {
            continue;
        };
        let to = to.join(below);
        if file.is_file() && file.starts_with(&inside) && !to.exists() {
            if let Some(parent) = to.parent() {
                create_dir_all(parent)?;
            }
            copy_file(&file, &to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn links_of_tools_stay_in_their_tree() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, dest) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("dest"));
        write(&a.join("usr/bin/bash"), "#!");
        write(&a.join("usr/share/x/file"), "x");
        symlink("/usr/share/x/file", a.join("usr/share/x/link")).unwrap();
        symlink("/bin/bash", a.join("usr/bin/rbash")).unwrap();
        write(&b.join("usr/bin/mawk"), "#!");
        write(
            &b.join("var/lib/dpkg/alternatives.d/b"),
            "install /usr/bin/awk awk /usr/bin/mawk 5\n",
        );
        let packages = [("a".to_owned(), a), ("b".to_owned(), b)];
        assert_eq!(
            make_tools(&packages, "/layerize/store/x", &dest).unwrap(),
            BTreeSet::new()
        );
        for (link, target) in [
            ("usr/share/x/link", "../../../usr/share/x/file"),
            ("usr/bin/rbash", "../../usr/bin/bash"),
            ("usr/bin/awk", "../../usr/bin/mawk"),
            ("usr/bin/sh", "bash"),
            ("bin", "usr/bin"),
        ] {
            assert_eq!(fs::read_link(dest.join(link)).unwrap(), Path::new(target), "{link}");
            assert!(dest.join(link).exists(), "{link}");
        }
    }

    #[test]
    fn tools_are_linked_to_their_own_libraries() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, dest) = (dir.path().join("tree"), dir.path().join("dest"));
        write(&dir.path().join("main.c"), "int main(void) { return 0; }");
        let program = tree.join("usr/bin/prog");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        let mut compiler = Command::new("cc");
        compiler.arg(dir.path().join("main.c")).arg("-o").arg(&program);
        assert!(compiler.status().unwrap().success());
        let interpreter = elf::read(&program).unwrap().unwrap().interpreter.unwrap();
        let packages = [("tree".to_owned(), tree.clone())];
        // Without a loader it stays as it is, and that is told.
        let left = make_tools(&packages, "/layerize/store/x", &dest).unwrap();
        assert_eq!(left, BTreeSet::from(["usr/bin/prog".to_owned()]));
        fs::remove_dir_all(&dest).unwrap();
        let place = tree.join(format!("usr{interpreter}"));
        let library = tree.join("usr/lib/some-linux-gnu/ld.so");
        write(&library, "the loader");
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        symlink("/lib/some-linux-gnu/ld.so", &place).unwrap();
        assert_eq!(
            make_tools(&packages, "/layerize/store/x", &dest).unwrap(),
            BTreeSet::new()
        );
        let linked = elf::read(&dest.join("usr/bin/prog")).unwrap().unwrap();
        let expected = "/layerize/store/x/usr/lib/some-linux-gnu/ld.so";
        assert_eq!(linked.interpreter.as_deref(), Some(expected));
        let expected = "/layerize/store/x/usr/lib/some-linux-gnu:/layerize/store/x/usr/lib";
        assert_eq!(linked.run_path.unwrap().value, expected);
    }

    #[test]
    fn sources_are_those_that_are_named_and_there() {
        let dir = tempfile::tempdir().unwrap();
        let (source, output, dest) = (
            dir.path().join("source"),
            dir.path().join("out"),
            dir.path().join("dest"),
        );
        write(
            &source.join("src/main.c"),
            "#include \"../generated.h\"\nint main(void) { return X; }\n",
        );
        write(&source.join("src/unused.c"), "int unused;\n");
        write(&dir.path().join("generated.h"), "#define X 0\n");
        fs::create_dir_all(output.join("bin")).unwrap();
        // What the script itself made is in no source, and a link out of the source is not followed.
        symlink("../generated.h", source.join("generated.h")).unwrap();
        let mut compiler = Command::new("cc");
        compiler
            .args(["-g3", "src/main.c", "-o"])
            .arg(output.join("bin/prog"))
            .arg(format!("-ffile-prefix-map={}=/build/source", source.display()))
            .current_dir(&source);
        assert!(compiler.status().unwrap().success());
        write(&output.join("lib/debug/.build-id/ab/cd.debug"), "debug");
        symlink("cd.debug", output.join("lib/debug/.build-id/ab/ef.debug")).unwrap();
        symlink("/etc/passwd", output.join("lib/debug/.build-id/ab/00.debug")).unwrap();
        make_info(&output, Some((&source, "x")), &dest).unwrap();
        let mut files: Vec<String> = walk(&dest)
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| entry.path().strip_prefix(&dest).unwrap().display().to_string())
            .collect();
        files.sort();
        let expected = [
            "build/source/src/main.c",
            "usr/lib/debug/.build-id/ab/cd.debug",
            "usr/lib/debug/.build-id/ab/ef.debug",
        ];
        assert_eq!(files, expected);
        // A source that is one file has the name by which the script knew it.
        let (single, dest) = (source.join("src/main.c"), dir.path().join("single"));
        assert_eq!(
            find_source(&single, "main.c", Path::new("main.c")),
            Some(single.clone())
        );
        assert_eq!(find_source(&single, "main.c", Path::new("src/main.c")), None);
        make_info(&dir.path().join("source"), None, &dest).unwrap();
        assert!(dest.is_dir());
    }
}
