//! What is known of a store: by its database, by Nix, by a graph, or by looking.

use super::*;

/// Everything that an ordinary user needs: the program, and the store as others see it.
fn as_user(place: &Place, args: &[&str]) -> Command {
    let program = place.path().join("layerize-copy");
    if !program.exists() {
        fs::copy(LAYERIZE, &program).unwrap();
    }
    let home = place.path().join("user");
    fs::create_dir_all(&home).unwrap();
    let mut command = match is_root() {
        true => {
            peer(Command::new("chown").arg("4242:4242").arg(&home));
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid", "4242", "--regid", "4242", "--clear-groups"])
                .arg(&program);
            command
        }
        false => Command::new(&program),
    };
    place.prepare(command.args(args));
    command
        .env("HOME", &home)
        .env("XDG_DATA_HOME", home.join("data"))
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("XDG_CACHE_HOME", home.join("cache"))
        .current_dir(&home);
    command
}

#[test]
fn root_and_an_ordinary_user_pack_the_same_image_from_every_source_of_knowledge() {
    let Some((place, nix, path)) = built() else { return };
    let root = nix.root.to_str().unwrap();
    let program = format!("{path}/bin/program");
    let args = build_args(&program, &path, "oci-archive:out.tar");
    let expected = digest(&layerize(&place, &nix, &args).success());
    let user = |extra: &[&str]| {
        layerize::fsio::remove_tree(&place.path().join("user/data")).unwrap();
        let mut command = as_user(&place, &[&["--nix-store", root], extra, &args[..]].concat());
        let ran = Ran::of(command.output().unwrap());
        assert_eq!(digest(&ran.success()), expected, "{extra:?}");
    };
    user(&[]);
    let json = path_info(&nix, &path);
    let database = nix.database();
    let away = database.with_extension("away");
    fs::rename(&database, &away).unwrap();
    for (name, text) in shapes(&json) {
        let file = place.path().join(name);
        fs::write(&file, text).unwrap();
        user(&["--closure-graph", file.to_str().unwrap()]);
    }
    // No database and no graph: the files themselves say it all.
    user(&[]);
    let listed = layerize(&place, &nix, &["closure", &path]).success().stdout;
    fs::rename(&away, &database).unwrap();
    assert_eq!(layerize(&place, &nix, &["closure", &path]).success().stdout, listed);
}

fn path_info(nix: &Nix, path: &str) -> String {
    let mut command = nix.command("nix");
    command.args(["--extra-experimental-features", "nix-command"]);
    peer(command.args(["path-info", "--json", "--recursive", path])).stdout
}

/// What Nix 2.8 says, in its own shape and in those of other versions and of `exportReferencesGraph`.
fn shapes(json: &str) -> [(&'static str, String); 4] {
    let list: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
    let by_path: serde_json::Map<String, serde_json::Value> = list
        .iter()
        .map(|item| (item["path"].as_str().unwrap().to_owned(), item.clone()))
        .collect();
    let bare = |text: &str| text.trim_start_matches("/nix/store/").to_owned();
    let newest = by_path.iter().map(|(path, item)| {
        let mut item = item.clone();
        let references = item["references"].as_array().unwrap().iter();
        item["references"] = references.map(|path| bare(path.as_str().unwrap())).collect();
        (bare(path), item)
    });
    let newest: serde_json::Map<String, serde_json::Value> = newest.collect();
    let newest = serde_json::json!({ "version": 2, "storeDir": "/nix/store", "info": newest });
    let references_graph = serde_json::json!({ "closure": list, "outputs": {} });
    [
        ("old.json", json.to_owned()),
        ("new.json", serde_json::Value::Object(by_path).to_string()),
        ("newest.json", newest.to_string()),
        ("references.json", references_graph.to_string()),
    ]
}

#[test]
fn a_database_that_only_the_daemon_may_read_is_asked_for_through_nix() {
    let Some((place, nix, path)) = built() else { return };
    let json = path_info(&nix, &path);
    // A graph of the program alone, written without `--recursive`.
    let list: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let alone: Vec<_> = list.iter().filter(|item| item["path"] == *path).collect();
    let file = place.path().join("alone.json");
    fs::write(&file, serde_json::json!(alone).to_string()).unwrap();
    let graph = file.to_str().unwrap();
    layerize(&place, &nix, &["--closure-graph", graph, "closure", &path])
        .exits(2)
        .says(&["is missing", "refers to it", "--recursive"]);
    if !is_root() {
        return;
    }
    // In place of Nix and its daemon a program that says what Nix said.
    let (bin, answer) = (place.path().join("bin"), place.path().join("answer.json"));
    fs::create_dir(&bin).unwrap();
    fs::write(&answer, &json).unwrap();
    let script = format!(
        "#!/bin/sh\ncase $* in *path-info*) exec cat {};; esac\n",
        answer.display()
    );
    fs::write(bin.join("nix"), script).unwrap();
    fs::set_permissions(bin.join("nix"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(nix.database(), fs::Permissions::from_mode(0o600)).unwrap();
    let root = nix.root.to_str().unwrap();
    let user = |args: &[&str]| {
        let mut command = as_user(&place, &[&["--nix-store", root], args].concat());
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        Ran::of(command.output().unwrap()).success().stdout
    };
    let info = user(&["store", "info", &path]);
    assert!(info.contains("`nix path-info`"), "{info}");
    assert_eq!(
        user(&["closure", &path]),
        layerize(&place, &nix, &["closure", &path]).success().stdout
    );
}

/// A process that has the database open and something of its own in the log, as a running Nix has.
struct Writer(std::process::Child);

impl Writer {
    fn start(database: &Path) -> Self {
        let script = "import sqlite3, sys
c = sqlite3.connect(sys.argv[1])
c.execute('pragma journal_mode = wal')
c.execute('pragma wal_autocheckpoint = 0')
c.execute('insert into DerivationOutputs select max(id), ?, ? from ValidPaths', ('x', 'y'))
c.commit()
print('ready', flush=True)
sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(database)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The database as an ordinary user finds it while Nix works on it.
#[test]
fn an_ordinary_user_reads_what_is_in_the_log() {
    if !is_root() || !have("python3", &["--version"]) {
        return;
    }
    let Some((place, nix, path)) = built() else { return };
    let root = nix.root.to_str().unwrap();
    let expected = layerize(&place, &nix, &["closure", &path]).success().stdout;
    let writer = Writer::start(&nix.database());
    let beside = |end: &str| PathBuf::from(format!("{}{end}", nix.database().display()));
    let mode = |end: &str, mode| fs::set_permissions(beside(end), fs::Permissions::from_mode(mode)).unwrap();
    assert!(fs::metadata(beside("-wal")).unwrap().len() > 0 && beside("-shm").exists());
    let closure = || {
        Ran::of(
            as_user(&place, &["--nix-store", root, "closure", &path])
                .output()
                .unwrap(),
        )
    };
    // The log's index may be read, as Nix leaves it.
    mode("-shm", 0o644);
    assert_eq!(closure().success().stdout, expected);
    // It may not: database and log are copied.
    mode("-shm", 0o600);
    assert_eq!(closure().success().stdout, expected);
    // The log may not be read either: without it nobody knows what is valid.
    mode("-wal", 0o600);
    closure().exits(2).says(&["--closure-graph"]);
    mode("-wal", 0o644);
    // The writer is killed: log and index stay as they are.
    drop(writer);
    assert!(fs::metadata(beside("-wal")).unwrap().len() > 0);
    assert_eq!(closure().success().stdout, expected);
    let owned = fs::metadata(beside("-wal")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owned), 0);
}
