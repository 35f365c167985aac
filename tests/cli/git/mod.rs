//! Git sources as users meet them: pinned, moved, kept, and hostile. The repositories are made here.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Place, Ran, peer};

mod parts;
mod refused;

/// A place whose downloads are its own, and repositories beside its project.
struct GitPlace(Place);

impl GitPlace {
    /// A project whose package `src` has this source, beside an empty repository `up.git`.
    fn new(source: &str) -> Self {
        let place = Self(Place::new());
        place.repository("up.git", &[]);
        place.source(source);
        place
    }

    fn source(&self, source: &str) -> &Self {
        let spec =
            format!("[package.src]\nversion = \"1\"\nsource = {{ {source} }}\n\n[image.app]\ncontents = [\"src\"]\n");
        self.0.write("layerize.toml", &spec);
        self
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.0.command(args);
        command.env("XDG_CACHE_HOME", self.at("cache"));
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// git in a repository beside the project, with nothing of the machine's or the user's; what it prints.
    #[track_caller]
    fn git<S: AsRef<OsStr>>(&self, repository: &str, args: &[S]) -> String {
        let mut command = Command::new("git");
        self.0.prepare(&mut command);
        for (variable, value) in [
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@x.invalid"),
            ("GIT_AUTHOR_DATE", "1000000000 +0000"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@x.invalid"),
            ("GIT_COMMITTER_DATE", "1000000000 +0000"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
        ] {
            command.env(variable, value);
        }
        let at = if repository.is_empty() {
            self.0.path().to_owned()
        } else {
            self.at(repository)
        };
        let ran = peer(
            command
                .args(["-c", "protocol.file.allow=always"])
                .args(args)
                .current_dir(at),
        );
        ran.stdout.trim().to_owned()
    }

    fn repository(&self, name: &str, options: &[&str]) {
        let mut args = vec!["init", "-q", "--bare", "-b", "main"];
        args.extend(options);
        args.push(name);
        self.git("", &args);
    }

    /// The name of an object, written as it is.
    #[track_caller]
    fn object(&self, repository: &str, kind: &str, bytes: &[u8]) -> String {
        let file = self.at("object");
        fs::write(&file, bytes).unwrap();
        let file = file.to_str().unwrap();
        self.git(repository, &["hash-object", "-w", "--literally", "-t", kind, file])
    }

    /// A tree of entries in this order: mode, name and object.
    #[track_caller]
    fn tree(&self, repository: &str, entries: &[(&str, &[u8], &str)]) -> String {
        let mut bytes = Vec::new();
        for (mode, name, object) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            let digits = (0..object.len()).step_by(2);
            bytes.extend(digits.map(|at| u8::from_str_radix(&object[at..at + 2], 16).unwrap()));
        }
        self.object(repository, "tree", &bytes)
    }

    /// A commit of a tree, to which `main` and a tag lead.
    #[track_caller]
    fn commit(&self, repository: &str, tree: &str, tag: &str) -> String {
        let commit = self.git(repository, &["commit-tree", "-m", tag, tree]);
        self.git(repository, &["update-ref", "refs/heads/main", &commit]);
        self.git(repository, &["tag", "-f", tag, &commit]);
        commit
    }

    /// A commit of files, in `up.git`.
    #[track_caller]
    fn files(&self, files: &[(&str, &str)], tag: &str) -> String {
        let entries: Vec<(String, String)> = (files.iter())
            .map(|(name, text)| ((*name).to_owned(), self.object("up.git", "blob", text.as_bytes())))
            .collect();
        let entries: Vec<(&str, &[u8], &str)> = (entries.iter())
            .map(|(name, object)| ("100644", name.as_bytes(), object.as_str()))
            .collect();
        let tree = self.tree("up.git", &entries);
        self.commit("up.git", &tree, tag)
    }

    /// The physical tree of what is built.
    #[track_caller]
    fn built(&self) -> PathBuf {
        let built = self.run(&["build", "src", "--locked"]).success();
        self.0
            .store()
            .join("store")
            .join(built.line().rsplit('/').next().unwrap())
    }

    /// Locking fails, says this, and leaves nothing: no lock, and nothing in a store.
    #[track_caller]
    fn refuses(&self, says: &[&str]) {
        self.run(&["lock"]).exits(2).says(says);
        self.has_nothing();
    }

    #[track_caller]
    fn has_nothing(&self) {
        assert!(!self.0.project.join("layerize.lock").exists(), "a lock was written");
        let store = self.0.store().join("store");
        assert!(layerize::fsio::sorted_names(&store).unwrap_or_default().is_empty());
        let files = layerize::fsio::sorted_names(&self.at("cache/layerize/fetch/sha256")).unwrap_or_default();
        assert_eq!(files, [""; 0], "files in the download cache");
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.0.project.join("layerize.lock")).unwrap()
    }
}

/// A configuration of the user's that would run programs and change files; they leave a mark in what comes back.
fn evil_configuration(place: &GitPlace) -> PathBuf {
    let evil = place.at("ran");
    let config = format!(
        "[core]\n\tautocrlf = true\n\thooksPath = {0}\n[filter \"evil\"]\n\tsmudge = touch {0}/ran\n\trequired = true\n",
        evil.display()
    );
    fs::write(place.at(".gitconfig"), config).unwrap();
    fs::create_dir(&evil).unwrap();
    let hook = evil.join("reference-transaction");
    fs::write(&hook, format!("#!/bin/sh\ntouch {}/ran\n", evil.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    evil
}

/// A tree is what was committed, whatever attributes and configuration would make of it at a checkout or in an archive.
#[test]
fn a_tree_is_what_was_committed() {
    let place = GitPlace::new("git = \"../up.git\"");
    let blob = |text: &str| place.object("up.git", "blob", text.as_bytes());
    let attributes = "* text eol=crlf ident\nleft-out export-ignore\nsubst export-subst\n*.x filter=evil\n";
    let (attributes, file) = (blob(attributes), blob("a\n$Id$ $Format:%H$\n"));
    let (link, outside) = (blob("../run"), blob("/etc/hostname"));
    let dir = place.tree("up.git", &[("120000", b"l", &link), ("100664", b"old", &file)]);
    let tree = place.tree(
        "up.git",
        &[
            ("100644", b".gitattributes", &attributes),
            ("120000", b"absolute", &outside),
            ("40000", b"dir", &dir),
            ("100644", b"dir-", &file),
            ("100644", b"left-out", &file),
            ("100755", b"run", &file),
            ("100644", b"subst", &file),
            ("100644", b"y.x", &file),
        ],
    );
    let commit = place.commit("up.git", &tree, "v1");
    let evil = evil_configuration(&place);
    // A hook of git runs layerize with variables of its own.
    let mut locked = place.command(&["lock"]);
    locked
        .env("GIT_DIR", "/nonexistent")
        .env("GIT_INDEX_FILE", "/nonexistent");
    let locked = Ran::of(locked.output().unwrap()).success();
    assert!(locked.stdout.is_empty());
    locked.says(&[&format!("+ git of src {commit}")]);
    let lock = place.lock();
    for line in [
        "ref = \"HEAD\"".to_owned(),
        format!("commit = \"{commit}\""),
        "submodules = true".to_owned(),
    ] {
        assert!(lock.contains(&line), "{lock}");
    }

    let built = place.built();
    let names: Vec<_> = layerize::fsio::sorted_names(&built).unwrap();
    assert_eq!(
        names,
        [
            ".gitattributes",
            "absolute",
            "dir",
            "dir-",
            "left-out",
            "run",
            "subst",
            "y.x"
        ]
    );
    for name in ["dir-", "dir/old", "left-out", "run", "subst", "y.x"] {
        assert_eq!(
            fs::read_to_string(built.join(name)).unwrap(),
            "a\n$Id$ $Format:%H$\n",
            "{name}"
        );
        let mode = fs::metadata(built.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if name == "run" { 0o555 } else { 0o444 }, "{name}");
    }
    assert_eq!(fs::read_link(built.join("dir/l")).unwrap(), Path::new("../run"));
    assert_eq!(
        fs::read_link(built.join("absolute")).unwrap(),
        Path::new("/etc/hostname")
    );
    assert!(!evil.join("ran").exists(), "a hook or a filter ran");
    assert_eq!(place.run(&["lock", "--check"]).success().stdout, "");
}

/// The same tree has the same hash however it is asked for, and Nix would say the same.
#[test]
fn each_way_to_name_a_commit_leads_to_it() {
    let place = GitPlace::new("git = \"../up.git\"");
    let first = place.files(&[("a", "1")], "v1");
    place.git("up.git", &["tag", "-a", "-m", "annotated", "annotated", &first]);
    let second = place.files(&[("a", "2")], "v2");
    place.git("up.git", &["branch", "side", &first]);
    let repository = place.at("up.git");
    for (source, commit) in [
        ("git = \"../up.git\"".to_owned(), &second),
        (format!("git = \"../up.git\", rev = \"{first}\""), &first),
        ("git = \"../up.git\", rev = \"v1\"".to_owned(), &first),
        ("git = \"../up.git\", rev = \"side\"".to_owned(), &first),
        ("git = \"../up.git\", rev = \"refs/heads/main\"".to_owned(), &second),
        ("git = \"../up.git\", tag = \"annotated\"".to_owned(), &first),
        ("git = \"../up.git\", branch = \"side\"".to_owned(), &first),
        ("git = \"file:../up.git\", tag = \"v1\"".to_owned(), &first),
        (
            format!("git = \"file://{}\", tag = \"v1\"", repository.display()),
            &first,
        ),
        (format!("git = \"{}\", tag = \"v1\"", repository.display()), &first),
    ] {
        place.source(&source);
        place.run(&["lock", "--offline"]).success();
        assert!(place.lock().contains(&format!("commit = \"{commit}\"")), "{source}");
        let expected = if *commit == first { "1" } else { "2" };
        assert_eq!(
            fs::read_to_string(place.built().join("a")).unwrap(),
            expected,
            "{source}"
        );
    }
}

/// What is locked stays where a tag was moved or a branch went on; both are told where they are to be told.
#[test]
fn a_moved_tag_is_told() {
    let place = GitPlace::new("git = \"../up.git\", tag = \"v1\"");
    let first = place.files(&[("a", "1")], "v1");
    place.run(&["lock"]).success();
    let second = place.files(&[("a", "2")], "v1");
    let moved = place.run(&["lock"]).success();
    moved.says(&[
        &format!("tag v1 of `src` was moved: it is commit {second} now; the lock keeps {first}"),
        "`layerize lock --update src` takes the new one",
        "is current",
    ]);
    assert_eq!(fs::read_to_string(place.built().join("a")).unwrap(), "1");
    // The repository has the old commit no more in anything that has a name.
    fs::remove_dir_all(place.at("cache")).unwrap();
    layerize::fsio::remove_tree(&place.0.store()).unwrap();
    assert_eq!(fs::read_to_string(place.built().join("a")).unwrap(), "1");

    let updated = place.run(&["lock", "--update", "src"]).success();
    updated.says(&[
        &format!("tag v1 of `src` was moved: it was commit {first} and is {second} now"),
        &format!("~ git of src {first} → {second}"),
    ]);
    assert_eq!(fs::read_to_string(place.built().join("a")).unwrap(), "2");

    place.source("git = \"../up.git\", branch = \"main\"");
    place.run(&["lock"]).success();
    let third = place.files(&[("a", "3")], "v3");
    let silent = place.run(&["lock"]).success().says(&["is current"]);
    assert!(!silent.stderr.contains("moved"), "a branch goes on: {}", silent.stderr);
    let updated = place.run(&["lock", "--update"]).success();
    assert!(!updated.stderr.contains("moved"), "{}", updated.stderr);
    updated.says(&[&format!("~ git of src {second} → {third}")]);
}

/// A tree that was fetched, is in the store, or is kept beside an image is had without git and without the repository.
#[test]
fn a_repository_that_is_gone_is_not_missed() {
    let place = GitPlace::new("git = \"../up.git\", tag = \"v1\"");
    place.files(&[("a", "1"), ("b", "2")], "v1");
    let kept = format!("oci:{}", place.at("kept").display());
    let image = place.run(&["build", "app", "--inputs", "-o", &kept]).success();
    let digest = image.line().split(' ').next().unwrap().to_owned();
    fs::rename(place.at("up.git"), place.at("gone")).unwrap();

    let bin = place.at("bin");
    fs::create_dir(&bin).unwrap();
    let without_git = |args: &[&str]| {
        let mut command = place.command(args);
        Ran::of(command.env("PATH", &bin).output().unwrap())
    };
    without_git(&["build", "src", "--locked", "--offline"]).success();
    layerize::fsio::remove_tree(&place.0.store()).unwrap();
    without_git(&["build", "src", "--locked", "--offline"]).success();
    fs::remove_dir_all(place.at("cache")).unwrap();
    without_git(&["build", "src", "--locked", "--offline"]).success();
    layerize::fsio::remove_tree(&place.0.store()).unwrap();
    let asked = without_git(&["build", "src", "--locked"]).exits(2);
    asked.says(&[
        "not on this machine",
        "`git` is not installed",
        "apt-get install git",
        "--inputs-from",
    ]);
    place
        .run(&["build", "src", "--locked"])
        .exits(2)
        .says(&["there is no git repository at"]);
    without_git(&["build", "src", "--locked", "--offline", "--inputs-from", &kept]).success();
    layerize::fsio::remove_tree(&place.0.store()).unwrap();
    fs::remove_dir_all(place.at("cache")).unwrap();
    let again = without_git(&["rebuild", &kept]);
    let again = again.success();
    assert!(
        again.stdout.contains(&digest) || again.stderr.contains(&digest),
        "{again:?}"
    );
}

/// A repository that lost an object, and a copy in the cache that did.
#[test]
fn damage_is_told_or_mended() {
    let place = GitPlace::new("git = \"../up.git\", tag = \"v1\"");
    place.files(&[("a", "1")], "v1");
    let file = place.object("up.git", "blob", b"1");
    place.run(&["lock"]).success();
    let lock = place.lock();

    // In the cache: it is fetched anew.
    let repositories = place.at("cache/layerize/fetch/git");
    let packs = |dir: &Path| -> Vec<PathBuf> {
        let repository = layerize::fsio::sorted_names(dir).unwrap();
        let repository = repository
            .iter()
            .find(|name| name.to_str().unwrap().ends_with(".git"))
            .unwrap();
        let packs = dir.join(repository).join("objects/pack");
        let names = layerize::fsio::sorted_names(&packs).unwrap();
        names.iter().map(|name| packs.join(name)).collect()
    };
    for pack in packs(&repositories) {
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0xff);
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    layerize::fsio::remove_tree(&place.at("cache/layerize/fetch/sha256")).unwrap();
    assert_eq!(fs::read_to_string(place.built().join("a")).unwrap(), "1");
    assert_eq!(place.lock(), lock);

    // In the repository itself.
    fs::remove_dir_all(place.at("cache")).unwrap();
    layerize::fsio::remove_tree(&place.0.store()).unwrap();
    fs::remove_file(place.0.project.join("layerize.lock")).unwrap();
    fs::remove_file(place.at("up.git/objects").join(&file[..2]).join(&file[2..])).unwrap();
    place.refuses(&["git cannot fetch from", "up.git"]);
}

/// A server that gives no commit but those that it names, and one that knows SHA-256.
#[test]
fn servers_and_repositories_differ() {
    let place = GitPlace::new("git = \"../up.git\"");
    let first = place.files(&[("a", "1")], "v1");
    let entries = place.git("up.git", &["rev-parse", &format!("{first}^{{tree}}")]);
    let second = place.git("up.git", &["commit-tree", "-p", &first, "-m", "second", &entries]);
    place.git("up.git", &["update-ref", "refs/heads/main", &second]);
    place.git("up.git", &["tag", "-d", "v1"]);
    // As servers were before protocol version 2: a client does not even ask them for a commit without a name.
    let bin = place.at("bin");
    fs::create_dir(&bin).unwrap();
    let script = "#!/bin/sh\nexec git-of-the-machine \"$@\" 2>&2\n";
    let script = script.replace(
        "exec git-of-the-machine \"$@\"",
        "PATH=/usr/local/bin:/usr/bin:/bin\nn=$#\nwhile [ $n -gt 0 ]; do\n a=$1; shift\n [ \"$a\" = protocol.version=2 ] && a=protocol.version=0\n \
         set -- \"$@\" \"$a\"; n=$((n-1))\ndone\nexec git \"$@\"",
    );
    fs::write(bin.join("git"), script).unwrap();
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
    place.source(&format!("git = \"../up.git\", rev = \"{first}\""));
    let mut command = place.command(&["lock"]);
    Ran::of(command.env("PATH", &path).output().unwrap()).success();
    assert!(place.lock().contains(&first));
    let trace = place.git("up.git", &["rev-parse", "HEAD"]);
    assert_eq!(trace, second);

    place.repository("sha256.git", &["--object-format=sha256"]);
    let file = place.object("sha256.git", "blob", b"1");
    let tree = place.tree("sha256.git", &[("100644", b"a", &file)]);
    let commit = place.commit("sha256.git", &tree, "v1");
    assert_eq!(commit.len(), 64);
    let hash = |lock: &str| {
        lock.lines()
            .find(|line| line.starts_with("nar-sha256"))
            .unwrap()
            .to_owned()
    };
    let expected = hash(&place.lock());
    for source in ["tag = \"v1\"".to_owned(), format!("rev = \"{commit}\"")] {
        place.source(&format!("git = \"../sha256.git\", {source}"));
        place.run(&["lock"]).success();
        assert!(place.lock().contains(&commit));
        assert_eq!(hash(&place.lock()), expected, "the tree is the same");
    }
}

/// An interrupt ends git with what it started.
#[test]
fn an_interrupt_ends_git() {
    let place = GitPlace::new("git = \"../up.git\"");
    let bin = place.at("bin");
    fs::create_dir(&bin).unwrap();
    let begun = place.at("begun");
    fs::write(
        bin.join("git"),
        format!("#!/bin/sh\ntouch {}\nsleep 987\n", begun.display()),
    )
    .unwrap();
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = place.command(&["lock"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !begun.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.exits(130);
}
