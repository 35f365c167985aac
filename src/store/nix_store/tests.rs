//! A Nix store in every state that its database can be in, without Nix; with real Nix it is read in `tests/cli/nix.rs`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use rusqlite::Connection;

use super::database::{AccessMode, NixDatabase};
use super::*;

/// A root with a store of four paths, one of which is not a path of the database.
struct Scene {
    dir: tempfile::TempDir,
}

fn path(name: &str) -> StorePath {
    let hash = match name {
        "libc" => "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr",
        "curl-8.9" => "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr",
        "app" => "2mdqa9w1p6cmli6976v4wi0sw9r4p5pr",
        _ => "3mdqa9w1p6cmli6976v4wi0sw9r4p5pr",
    };
    format!("{hash}-{name}").parse().unwrap()
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scene = Self { dir };
        let logical = |name: &str| StoreDir::nix().join(&path(name));
        scene.tree("libc", &[("lib/libc.so", "no references")]);
        scene.tree("curl-8.9", &[("bin/curl", &format!("needs {}/lib", logical("libc")))]);
        scene.tree(
            "app",
            &[("run", &format!("{} {}", logical("curl-8.9"), logical("app")))],
        );
        symlink(logical("libc"), scene.physical("app").join("link")).unwrap();
        scene.tree("unregistered", &[("x", "x")]);
        // Searched as Nix does it: what is compressed is not unpacked, and no other spelling counts.
        let wide: Vec<u8> = logical("unregistered").bytes().flat_map(|byte| [byte, 0]).collect();
        fs::write(scene.physical("libc").join("wide"), wide).unwrap();
        scene.write_database(&["libc", "curl-8.9", "app"]);
        scene
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn physical(&self, name: &str) -> PathBuf {
        self.root().join("nix/store").join(path(name).to_string())
    }

    fn tree(&self, name: &str, files: &[(&str, &str)]) {
        for (file, text) in files {
            let file = self.physical(name).join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
    }

    fn file(&self) -> PathBuf {
        self.root().join("nix/var/nix/db/db.sqlite")
    }

    fn write_database(&self, names: &[&str]) {
        let scanner = Scanner::new(&self.root().join("nix/store")).unwrap();
        let infos: Vec<PathInfo> = names
            .iter()
            .map(|name| scanner.path(&path(name)).unwrap().unwrap().info)
            .collect();
        fs::create_dir_all(self.file().parent().unwrap()).unwrap();
        fs::write(self.file(), register::database(&infos).unwrap()).unwrap();
    }

    /// A process of Nix's that has registered `unregistered` and not yet moved it from the log to the database.
    fn writer(&self) -> Connection {
        let connection = Connection::open(self.file()).unwrap();
        connection.pragma_update(None, "journal_mode", "wal").unwrap();
        connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        let logical = StoreDir::nix().join(&path("unregistered"));
        let hash = format!("sha256:{}", "0".repeat(64));
        connection
            .execute(
                "insert into ValidPaths (path, hash, registrationTime, narSize) values (?1, ?2, 1, 8)",
                [&logical, &hash],
            )
            .unwrap();
        connection
    }

    fn open(&self) -> NixStore {
        NixStore::open(self.root(), None).unwrap()
    }
}

fn access(scene: &Scene) -> AccessMode {
    NixDatabase::open(scene.root()).unwrap().unwrap().access()
}

fn names(info: &PathInfo) -> Vec<String> {
    let own = info.self_reference.then(|| "itself".to_owned());
    info.references
        .iter()
        .map(|path| path.name().to_owned())
        .chain(own)
        .collect()
}

#[test]
fn the_database_and_the_files_say_the_same() {
    let scene = Scene::new();
    let recorded = scene.open();
    assert_eq!(
        (recorded.source(), access(&scene)),
        ("the database", AccessMode::Immutable)
    );
    assert_eq!(recorded.details(&path("unregistered")).unwrap(), None);
    let known: Vec<PathInfo> = ["libc", "curl-8.9", "app"]
        .iter()
        .map(|name| recorded.info(&path(name)).unwrap().unwrap())
        .collect();
    let away = scene.root().join("db");
    fs::rename(scene.root().join("nix/var"), &away).unwrap();
    let scanned = scene.open();
    assert!(!scanned.has_records() && recorded.has_records());
    for (name, references) in [
        ("libc", &[][..]),
        ("curl-8.9", &["libc"]),
        ("app", &["libc", "curl-8.9", "itself"]),
    ] {
        let info = known.iter().find(|info| info.path == path(name)).unwrap().clone();
        assert_eq!(names(&info), references, "{name}");
        assert_eq!(scanned.info(&path(name)).unwrap(), Some(info));
    }
    assert!(scanned.info(&path("unregistered")).unwrap().is_some());
}

#[test]
fn evidence_is_found_by_looking() {
    let scene = Scene::new();
    let store = scene.open();
    let evidence = |from: &str, to: &str| store.evidence(&path(from), &path(to)).unwrap();
    let Some(Evidence::Found(place)) = evidence("app", "curl-8.9") else {
        panic!("not found")
    };
    assert_eq!((place.file.as_str(), place.offset), ("run", 11));
    assert!(matches!(evidence("app", "app"), Some(Evidence::Found(_))));
    assert_eq!(evidence("libc", "app"), None);
    fs::write(scene.physical("curl-8.9").join("bin/curl"), "no more").unwrap();
    assert!(matches!(evidence("curl-8.9", "libc"), Some(Evidence::Declared { .. })));
}

#[test]
fn what_is_only_in_the_log_is_seen_and_nothing_is_written() {
    let scene = Scene::new();
    let writer = scene.writer();
    let registered = || scene.open().details(&path("unregistered")).unwrap().is_some();
    let files = || crate::fsio::sorted_names(scene.file().parent().unwrap()).unwrap();
    let before = files();
    assert!(before.len() > 1, "no log: {before:?}");
    assert_eq!(access(&scene), AccessMode::Shared);
    assert!(registered());
    // Without the log's index, as after a crash.
    let index = PathBuf::from(format!("{}-shm", scene.file().display()));
    let copy = scene.root().join("copy");
    fs::create_dir_all(copy.join("nix/var/nix/db")).unwrap();
    fs::create_dir_all(copy.join("nix/store")).unwrap();
    for name in ["db.sqlite", "db.sqlite-wal"] {
        fs::copy(
            scene.file().with_file_name(name),
            copy.join("nix/var/nix/db").join(name),
        )
        .unwrap();
    }
    let database = NixDatabase::open(&copy).unwrap().unwrap();
    assert_eq!(database.access(), AccessMode::Copied);
    assert!(database.path(&path("unregistered")).unwrap().is_some());
    assert_eq!(
        crate::fsio::sorted_names(&copy.join("nix/var/nix/db")).unwrap().len(),
        2
    );
    assert!(index.exists() && files() == before);
    drop(writer);
    // Its last user has moved the log into the database and removed it.
    assert_eq!(access(&scene), AccessMode::Immutable);
    assert!(registered());
}

#[test]
fn a_database_that_changes_is_read_again() {
    let scene = Scene::new();
    let database = NixDatabase::open(scene.root()).unwrap().unwrap();
    assert!(database.path(&path("unregistered")).unwrap().is_none());
    let writer = scene.writer();
    assert!(database.path(&path("unregistered")).unwrap().is_some());
    assert_eq!(database.access(), AccessMode::Shared);
    drop(writer);
}

#[test]
fn links_are_followed_within_the_root() {
    let scene = Scene::new();
    let store = scene.open();
    let profiles = scene.root().join("nix/var/nix/profiles");
    fs::create_dir_all(&profiles).unwrap();
    symlink("default-3-link", profiles.join("default")).unwrap();
    symlink(StoreDir::nix().join(&path("app")), profiles.join("default-3-link")).unwrap();
    symlink("/nix/var/nix/profiles/default", scene.root().join("current")).unwrap();
    symlink("loop", scene.root().join("loop")).unwrap();
    let app = |below: &str| Linked {
        path: path("app"),
        below: below.to_owned(),
    };
    for start in [
        profiles.join("default"),
        scene.root().join("current"),
        scene.physical("app"),
    ] {
        assert_eq!(store.resolve(&start).unwrap(), app(""), "{}", start.display());
    }
    assert_eq!(store.resolve(&scene.physical("app").join("run")).unwrap(), app("run"));
    assert_eq!(store.leads_to(Path::new("/etc/passwd")).unwrap(), None);
    for (start, reason) in [
        ("loop", "circle"),
        ("missing", "does not exist"),
        ("nix/var", "it is `"),
    ] {
        let error = store.resolve(&scene.root().join(start)).unwrap_err();
        assert!(error.to_string().contains(reason) && error.help().is_some(), "{error}");
    }
}

#[test]
fn what_nix_does_not_write_is_named() {
    let scene = Scene::new();
    let damage = |sql: &str| {
        scene.write_database(&["libc", "curl-8.9", "app"]);
        Connection::open(scene.file()).unwrap().execute_batch(sql).unwrap();
        let error = scene.open().details(&path("curl-8.9")).unwrap_err();
        assert!(
            error.help().is_some() || error.to_string().contains("cannot read"),
            "{error}"
        );
        error.to_string()
    };
    assert!(damage("update ValidPaths set hash = 'md5:x'").contains("`md5:x` as the hash"));
    assert!(damage("update ValidPaths set narSize = null").contains("has no size"));
    let foreign = "update ValidPaths set path = '/gnu/store/x' where path like '%-libc'";
    assert!(damage(foreign).contains("`/gnu/store/x` is not a path"));
    fs::write(scene.file(), "no database").unwrap();
    assert!(
        NixStore::open(scene.root(), None)
            .unwrap_err()
            .to_string()
            .contains("cannot read the Nix database")
    );
    let none = NixStore::open(&scene.root().join("nix"), None).unwrap_err();
    assert!(none.help().unwrap().contains("--nix-store"), "{none}");
}

#[test]
fn files_that_nix_does_not_leave_so_are_suspects() {
    let scene = Scene::new();
    let root = scene.physical("libc");
    let settle = || {
        for entry in crate::nar::walk(&root) {
            let file = entry.unwrap().below(&root);
            let mode = if file.is_dir() { 0o555 } else { 0o444 };
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
            fs::File::open(&file).unwrap().set_modified(time).unwrap();
        }
    };
    settle();
    let store = scene.open();
    let suspects = || store.suspects(&path("libc"), 5).unwrap().join(", ");
    assert_eq!(suspects(), "");
    fs::set_permissions(root.join("lib"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(suspects(), "`lib` (writable)");
    settle();
    fs::set_permissions(root.join("wide"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(root.join("wide"), "tampered").unwrap();
    assert_eq!(suspects(), "`wide` (written to, and writable)");
    fs::set_permissions(root.join("wide"), fs::Permissions::from_mode(0o444)).unwrap();
    assert_eq!(suspects(), "`wide` (written to)");
}

#[test]
fn a_graph_that_is_none_says_why() {
    let hash = "\"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"";
    let item = |rest: &str| format!("[{{\"path\": \"/nix/store/{}\", {rest}}}]", path("libc"));
    for (text, reason) in [
        ("".to_owned(), "EOF"),
        ("1".to_owned(), "neither a list nor an object"),
        ("{}".to_owned(), "no path"),
        ("[1]".to_owned(), "element 0 is not an object"),
        ("[{}]".to_owned(), "element 0 has no `path`"),
        ("[{\"path\": \"/gnu/store/x\"}]".to_owned(), "is not a path of"),
        (item("\"narSize\": 1, \"references\": []"), "`narHash`"),
        (item(&format!("\"narHash\": {hash}, \"references\": []")), "`narSize`"),
        (item(&format!("\"narHash\": {hash}, \"narSize\": 1")), "`references`"),
    ] {
        let error = graph::parse(&text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let text = item(&format!(
        "\"narHash\": {{\"algorithm\": \"sha256\", \"format\": \"base64\", \"hash\": {}}}, \"narSize\": 1, \"references\": []",
        hash.replace("sha256-", "")
    ));
    assert_eq!(graph::parse(&text).unwrap().len(), 1);
}

/// The bytes of a database may never change: an image's digest depends on them.
#[test]
fn a_database_for_an_image_is_what_it_was() {
    let info = |name: &str, references: &[&str], own| PathInfo {
        path: path(name),
        nar_hash: Digest::of(name.as_bytes()),
        nar_size: 4096,
        references: references.iter().map(|name| path(name)).collect(),
        self_reference: own,
    };
    let members = [
        info("app", &["libc", "curl-8.9"], true),
        info("libc", &[], false),
        info("curl-8.9", &["libc"], false),
    ];
    let made = register::database(&members).unwrap();
    let mut reversed = members.to_vec();
    reversed.reverse();
    assert_eq!(register::database(&reversed).unwrap(), made);
    assert_eq!(
        Digest::of(&made).to_string(),
        "sha256:9036468491eceb19a70bec88c9c246085937a5efbfe5d1b202183757b6ee68a7"
    );
    // A file that was written in one go: rollback journal, counters that agree.
    assert_eq!((&made[..16], &made[18..20]), (&b"SQLite format 3\0"[..], &[1, 1][..]));
    assert_eq!(made[24..28], made[92..96]);
    let paths: Vec<String> = state_directory(&members, &[path("app")].into())
        .unwrap()
        .into_iter()
        .map(|entry| entry.path)
        .collect();
    assert!(
        paths.contains(&format!("/nix/var/nix/gcroots/layerize/{}", path("app"))),
        "{paths:?}"
    );
}
