//! Real Nix as the oracle: what it writes is taken, what is written it takes, and both sign alike.

use std::process::Command;

use super::*;
use crate::nar::oracle::Nix;
use crate::walls::Walls;

/// Nix with the options that the command `nix` wants, on its own store of `/nix/store`.
struct Peer {
    dir: tempfile::TempDir,
}

impl Peer {
    fn find() -> Option<Self> {
        Nix::find()?;
        let dir = tempfile::tempdir().unwrap();
        Some(Self { dir })
    }

    fn store(&self, name: &str, store_dir: &str) -> String {
        format!("local?root={}&store={store_dir}", self.dir.path().join(name).display())
    }

    /// Runs a program of Nix; gives whether it ended well, and what it printed.
    fn run(&self, program: &str, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.dir.path());
        if program == "nix" {
            command.args(["--extra-experimental-features", "nix-command"]);
        }
        let output = command.args(args).current_dir(self.dir.path()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    #[track_caller]
    fn ok(&self, program: &str, args: &[&str]) -> String {
        let (ok, text) = self.run(program, args);
        assert!(ok, "{program} {args:?}: {text}");
        text
    }

    /// A secret key that Nix made.
    fn key(&self, name: &str) -> SecretKey {
        self.ok("nix-store", &["--generate-binary-cache-key", name, "secret", "public"]);
        let key = SecretKey::parse(&fs::read_to_string(self.dir.path().join("secret")).unwrap()).unwrap();
        let public = fs::read_to_string(self.dir.path().join("public")).unwrap();
        assert_eq!(public.trim_end(), key.public().to_string());
        key
    }
}

#[test]
fn nix_takes_what_was_exported_and_signed() {
    let Some(nix) = Peer::find() else { return };
    let key = SecretKey::generate("ours-1").unwrap();
    for compression in [CompressionFormat::Xz, CompressionFormat::Zstd, CompressionFormat::None] {
        let scene = Scene::compressed(compression);
        let store = Store::open_nix(&scene.dir.path().join("maker")).unwrap();
        sign(&store, &scene.paths.iter().cloned().collect(), &key).unwrap();
        let cache = scene.dir.path().join("signed");
        let options = ExportOptions { compression, keys: &[] };
        export(
            &cache,
            &StoreDir::nix(),
            &members(&store, &scene.roots()).unwrap(),
            &options,
            &Silent,
        )
        .unwrap();
        let (from, to) = (
            format!("file://{}", cache.display()),
            nix.store(&compression.to_string(), "/nix/store"),
        );
        let app = StoreDir::nix().join(&scene.paths[2]);
        let copy = |trusted: &str| {
            let mut args = vec!["copy", "--from", &from, "--to", &to, "--option", "require-sigs", "true"];
            args.extend(["--option", "trusted-public-keys", trusted, &app]);
            nix.run("nix", &args)
        };
        let (ok, text) = copy(&SecretKey::generate("ours-1").unwrap().public().to_string());
        assert!(!ok && text.contains("lacks a valid signature"), "{text}");
        let (ok, text) = copy(&key.public().to_string());
        assert!(ok, "{compression}: {text}");
        nix.ok("nix-store", &["--store", &to, "--verify", "--check-contents"]);
        let closure = nix.ok("nix-store", &["--store", &to, "-qR", &app]);
        let ours: BTreeSet<String> = scene.paths.iter().map(|path| StoreDir::nix().join(path)).collect();
        let theirs = closure
            .lines()
            .filter(|line| line.starts_with('/'))
            .map(str::to_owned)
            .collect();
        assert_eq!(ours, theirs);
    }
}

#[test]
fn what_nix_exported_and_signed_is_taken_and_signed_alike() {
    let Some(nix) = Peer::find() else { return };
    let key = nix.key("theirs-1");
    // A path that refers to another, made by Nix from what we exported.
    let scene = Scene::new();
    let own = nix.store("own", "/nix/store");
    let app = StoreDir::nix().join(&scene.paths[2]);
    nix.ok(
        "nix",
        &["copy", "--no-check-sigs", "--from", &scene.url(), "--to", &own, &app],
    );
    for compression in ["xz", "zstd", "none", "bzip2", "gzip"] {
        let dir = nix.dir.path().join(format!("cache-{compression}"));
        let secret = nix.dir.path().join("secret");
        let to = format!(
            "file://{}?compression={compression}&secret-key={}",
            dir.display(),
            secret.display()
        );
        let (ok, text) = nix.run("nix", &["copy", "--store", &own, "--to", &to, &app]);
        assert!(ok, "{compression}: {text}");
        let trust = Trust {
            keys: vec![key.public()],
            unsigned: false,
        };
        crate::fsio::remove_tree(&scene.dir.path().join("taker")).unwrap();
        let fetched = scene.fetch(&to, &trust).unwrap();
        assert_eq!((fetched.len(), scene.fetched().len()), (3, 3), "{compression}");
        for path in &scene.paths {
            let text = fs::read_to_string(dir.join(format!("{}.narinfo", path.hash()))).unwrap();
            let theirs = NarInfo::parse(&text, &StoreDir::nix()).unwrap();
            let ours = key.sign(&fingerprint(&theirs.info, &StoreDir::nix()));
            assert!(theirs.attestation.signatures.contains(&ours), "{text}");
            assert_eq!(theirs.print(&StoreDir::nix()), text);
        }
    }
}

#[test]
fn paths_of_our_own_store_go_to_nix_and_back() {
    let Some(nix) = Peer::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, 1);
    let plain = store.add_tree("tree", &tree).unwrap();
    let flat = dir.path().join("flat");
    fs::write(&flat, "content").unwrap();
    let file = store.add_file_flat("flat", &flat, &Digest::of(b"content")).unwrap();
    let own = output_that_refers_to_itself(&store, &plain.path);
    let roots = BTreeSet::from([own.path.clone(), file.path.clone()]);
    let cache = dir.path().join("cache");
    let options = ExportOptions::default();
    let members = members(&store, &roots).unwrap();
    assert_eq!(members.len(), 3);
    export(&cache, &StoreDir::layerize(), &members, &options, &Silent).unwrap();
    // All three are addressed by their content: nobody needs to sign them.
    let (from, to) = (
        format!("file://{}", cache.display()),
        nix.store("own", "/layerize/store"),
    );
    let path = StoreDir::layerize().join(&own.path);
    let file = StoreDir::layerize().join(&file.path);
    let (ok, text) = nix.run(
        "nix",
        &[
            "copy",
            "--from",
            &format!("{from}?store=/layerize/store"),
            "--to",
            &to,
            &path,
            &file,
        ],
    );
    assert!(ok, "{text}");
    nix.ok("nix-store", &["--store", &to, "--verify", "--check-contents"]);
    let other = Store::open(&dir.path().join("other")).unwrap();
    let cache = BinaryCache::open(&from, &StoreDir::layerize(), &HttpConfig::default()).unwrap();
    let fetched = fetch_closure(&other, &roots, &[cache], &Trust::default(), &Silent).unwrap();
    assert_eq!(fetched.len(), 3);
    assert_eq!(other.verify(true).unwrap(), []);
    assert_eq!(other.info(&own.path).unwrap(), Some(own));
}

fn output_that_refers_to_itself(store: &Store, other: &StorePath) -> PathInfo {
    let scratch: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-own".parse().unwrap();
    let staging = store.stage().unwrap();
    let tree = staging.path().join("out");
    fs::write(
        &tree,
        format!(
            "{} {}",
            StoreDir::layerize().join(&scratch),
            StoreDir::layerize().join(other)
        ),
    )
    .unwrap();
    let output = crate::store::NewOutput {
        name: "own",
        tree: &tree,
        candidates: &BTreeSet::from([other.clone()]),
        declare: &|_| Vec::new(),
        derivation: None,
        policy: &crate::store::ANY_REFERENCE,
        walls: Walls::Namespaces,
        execution: crate::execution::Execution::Native,
    };
    match store.add_rewritten(&output, &scratch).unwrap() {
        crate::store::Rewritten::Registered(info) => info,
        crate::store::Rewritten::NamesItself { .. } => unreachable!("a text can be rewritten"),
    }
}
