//! Images from a real Nix store: closures that real Nix built, in a chroot store of each test's own.

mod knowledge;
mod mixed;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerize::fsio::{FileLock, LockKind};

use crate::support::{LAYERIZE, Place, Ran, have, is_root, peer, podman_run, shared_cache};

/// Paths of the closure below the program, in a chain with branches.
const LIBRARIES: usize = 64;

/// A chroot store that real Nix builds in, without network, below a directory of the test.
struct Nix {
    root: PathBuf,
    dir: PathBuf,
}

impl Nix {
    /// `None` (after saying so) where Nix is not installed.
    fn new(place: &Place) -> Option<Self> {
        if !have("nix-build", &["--version"]) {
            return None;
        }
        let nix = Self {
            root: place.path().join("chroot"),
            dir: place.path().join("expressions"),
        };
        fs::create_dir_all(&nix.dir).unwrap();
        Some(nix)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.dir)
            .args(["--store", self.root.to_str().unwrap()])
            .current_dir(&self.dir);
        command
    }

    /// Builds an expression; `link` is made in the directory of the expressions.
    #[track_caller]
    fn build(&self, expression: &str, link: &str) -> String {
        fs::write(self.dir.join("default.nix"), expression).unwrap();
        let mut command = self.command("nix-build");
        command
            .args([
                "--option",
                "sandbox",
                "true",
                "--option",
                "sandbox-paths",
                "/bin /usr /lib /lib64",
            ])
            .args(["--option", "build-users-group", "", "--option", "substitute", "false"])
            .args(["--out-link", link, "default.nix"]);
        peer(&mut command).line().to_owned()
    }

    /// What `nix-store --query --requisites` prints, sorted.
    fn requisites(&self, path: &str) -> BTreeSet<String> {
        let ran = peer(self.command("nix-store").args(["--query", "--requisites", path]));
        ran.stdout.lines().map(str::to_owned).collect()
    }

    fn database(&self) -> PathBuf {
        self.root.join("nix/var/nix/db/db.sqlite")
    }
}

/// `LIBRARIES` small paths that refer to each other, and a static program that refers to the last of them.
///
/// `leaf` is the content of the program's own data: with another one only the program's path changes.
fn expression(leaf: &str) -> String {
    format!(
        r#"
let
  derive = name: script: env: derivation ({{
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-ec" script ];
    PATH = "/bin:/usr/bin";
  }} // env);
  library = n: derive "library-${{toString n}}-1.0" ''
    mkdir -p $out/lib
    echo "library ${{toString n}} at $out needs $below" > $out/lib/library-${{toString n}}.so
    ln -s library-${{toString n}}.so $out/lib/library.so
    for i in $below; do ln -sfn $i $out/lib/needs-''${{i##*-library-}}; done
  '' {{ below = if n == 0 then [] else if n < 4 then [ (at (n - 1)) ] else [ (at (n - 1)) (at (n / 2)) ]; }};
  libraries = builtins.genList library {LIBRARIES};
  at = builtins.elemAt libraries;
  program = derive "program-2.0" ''
    mkdir -p $out/bin $out/share/empty
    printf '#include <stdio.h>\nint main(int n, char **v) {{ FILE *f = fopen("%s/share/text", "r"); char t[99]; if (!f || !fgets(t, 99, f)) return 1; printf("%%s", t); return n > 1 ? 3 : 0; }}\n' $out > p.c
    gcc -static -o $out/bin/program p.c
    echo 'static, {leaf}' > $out/share/text
    echo $libraries > $out/share/libraries
  '' {{ libraries = map at [ {last} {before} ]; }};
in program
"#,
        last = LIBRARIES - 1,
        before = LIBRARIES - 2,
    )
}

/// A place with a built closure: the program's path in the Nix store. It is built once for all tests.
fn built() -> Option<(Place, Nix, String)> {
    let place = Place::new();
    let nix = Nix::new(&place)?;
    let made = shared_cache().join("nix-chroot");
    let guard = FileLock::acquire(&shared_cache().join("nix-chroot.making"), LockKind::Exclusive).unwrap();
    let text = expression("one");
    if fs::read_to_string(made.join("expression")).unwrap_or_default() != text {
        let maker = Place::new();
        let nix = Nix::new(&maker)?;
        nix.build(&text, "result");
        layerize::fsio::remove_tree(&made).unwrap();
        fs::create_dir(&made).unwrap();
        copy(&nix.root, &made.join("chroot"));
        copy(&nix.dir.join("result"), &made.join("result"));
        fs::write(made.join("expression"), text).unwrap();
    }
    copy(&made.join("chroot"), &nix.root);
    copy(&made.join("result"), &nix.dir.join("result"));
    drop(guard);
    let path = fs::read_link(nix.dir.join("result")).unwrap();
    Some((place, nix, path.to_str().unwrap().to_owned()))
}

fn copy(from: &Path, to: &Path) {
    peer(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Runs `layerize` with the chroot store.
fn layerize(place: &Place, nix: &Nix, args: &[&str]) -> Ran {
    let root = nix.root.to_str().unwrap();
    place.run(&[&["--nix-store", root], args].concat())
}

fn digest(ran: &Ran) -> String {
    ran.line().split(' ').next().unwrap().to_owned()
}

#[test]
fn the_closure_is_that_of_nix() {
    let Some((place, nix, path)) = built() else { return };
    let listed = layerize(&place, &nix, &["closure", &path]).success();
    let ours: BTreeSet<String> = listed
        .stdout
        .lines()
        .map(|line| line.split('\t').next().unwrap().to_owned())
        .collect();
    let theirs = nix.requisites(&path);
    assert_eq!(ours, theirs);
    assert!(theirs.len() >= 60, "only {} paths", theirs.len());

    let info = layerize(&place, &nix, &["store", "info", "--json", &path])
        .success()
        .stdout;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let query = |what: &str| peer(nix.command("nix-store").args(["--query", what, &path])).stdout;
    let hash = query("--hash");
    let ours = info["narHash"].as_str().unwrap();
    assert_eq!(
        peer(Command::new("nix-hash").args(["--type", "sha256", "--to-base32", &ours[7..]])).line(),
        hash.trim().trim_start_matches("sha256:")
    );
    assert_eq!(info["narSize"].to_string(), query("--size").trim());
    assert_eq!(info["deriver"].as_str().unwrap(), query("--deriver").trim());

    for verb in [&["store", "info", &path][..], &["inspect", &path]] {
        let text = layerize(&place, &nix, verb).success().stdout;
        assert!(
            text.starts_with(&path) && text.contains("known from  the database"),
            "{text}"
        );
    }
    let tree = layerize(&place, &nix, &["closure", "--tree", &path]).success().stdout;
    assert!(tree.starts_with(&path) && tree.contains("├── /nix/store/"), "{tree}");
    let why = layerize(&place, &nix, &["closure", "--why", "library-0", &path])
        .success()
        .stdout;
    assert!(why.contains("lib/library-") && why.contains("-library-0-1.0"), "{why}");
    let plan = layerize(&place, &nix, &["plan", "--json", &path]).success().stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let planned: BTreeSet<String> = (plan["layers"].as_array().unwrap().iter())
        .flat_map(|layer| layer["paths"].as_array().unwrap())
        .map(|path| path.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(planned, theirs);
}

/// The program alone, its files not joined under `/`: its path stands in the command.
fn build_args<'a>(program: &'a str, path: &'a str, output: &'a str) -> Vec<&'a str> {
    vec![
        "build",
        path,
        "--name",
        "program",
        "--entrypoint",
        program,
        "-o",
        output,
    ]
}

/// Loads an archive into docker: its image's ID.
fn load(archive: &Path) -> String {
    let loaded = peer(Command::new("docker").args(["load", "--quiet", "-i"]).arg(archive)).stdout;
    loaded.trim().rsplit(": ").next().unwrap().to_owned()
}

/// The image of an archive as umoci unpacks it, which takes root; `None` where that cannot be.
fn unpacked(place: &Place, archive: &Path) -> Option<PathBuf> {
    if !is_root() || !have("umoci", &["--version"]) || !have("skopeo", &["--version"]) {
        return None;
    }
    let (layout, bundle) = (place.path().join("layout"), place.path().join("bundle"));
    for dir in [&layout, &bundle] {
        layerize::fsio::remove_tree(dir).unwrap();
    }
    let to = format!("oci:{}:image", layout.display());
    let from = format!("oci-archive:{}", archive.display());
    peer(Command::new("skopeo").args(["copy", "--preserve-digests", &from, &to]));
    let image = format!("{}:image", layout.display());
    peer(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
    Some(bundle.join("rootfs"))
}

#[test]
fn the_image_of_a_closure_runs_and_holds_the_store() {
    let Some((place, nix, path)) = built() else { return };
    let program = format!("{path}/bin/program");
    // Few layers: podman's vfs copies the whole tree for each of them.
    let mut args = build_args(&program, &path, "docker-archive:program.tar");
    args.extend(["--max-layers", "9"]);
    let built = layerize(&place, &nix, &args).success();
    assert!(
        built.line().ends_with(" docker-archive:program.tar"),
        "{}",
        built.stdout
    );
    let archive = place.project.join("program.tar");
    place.run(&["verify", "program.tar"]).success();
    if have("docker", &["info"]) {
        let image = load(&archive);
        let ran = peer(Command::new("docker").args(["run", "--rm", "--network", "none", &image]));
        assert_eq!(ran.stdout, "static, one\n");
    }
    if is_root() && have("podman", &["--version"]) {
        assert_eq!(podman_run(&place, &archive, &["program"]), "static, one\n");
    }
    let Some(rootfs) = unpacked(&place, &archive) else {
        return;
    };
    let paths = nix.requisites(&path);
    let hashes = |root: &Path| {
        let trees = paths.iter().map(|path| root.join(path.trim_start_matches('/')));
        peer(Command::new("nix-hash").args(["--type", "sha256"]).args(trees)).stdout
    };
    assert_eq!(hashes(&nix.root), hashes(&rootfs));
    let names = peer(Command::new("ls").arg(rootfs.join("nix/store")))
        .stdout
        .lines()
        .count();
    assert_eq!(names, paths.len());
}

/// Permission bits and owners, of what is at `/`, of links, and of what is in store paths.
#[test]
fn modes_and_owners_are_given_by_path_and_pattern() {
    let Some((place, nix, path)) = built() else { return };
    let args = |rules: &[&str]| {
        let mut args = build_args("program", &path, "docker-archive:out.tar")
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        args.extend(rules.iter().map(|rule| (*rule).to_owned()));
        args
    };
    let build = |rules: &[&str]| {
        let args = args(rules);
        layerize(&place, &nix, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let plain = digest(&build(&[]).success());
    let program = format!("--chmod={path}/bin/program=0500");
    let owned = digest(
        &build(&[
            "--chown=/nix=1000:100",
            "--chown=/nix/store=1000:100",
            "--chown=/nix/store/**=1000:100",
            "--chmod=/nix/store/*-library-7-*/**=0640",
            &program,
            "--chmod=/tmp=0700",
            "--nix-db",
        ])
        .success(),
    );
    assert_ne!(plain, owned);
    if let Some(rootfs) = unpacked(&place, &place.project.join("out.tar")) {
        let stat = |path: &str| {
            let metadata = fs::symlink_metadata(rootfs.join(path.trim_start_matches('/'))).unwrap();
            use std::os::unix::fs::MetadataExt;
            format!("{:o} {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
        };
        let paths = nix.requisites(&path);
        let library = paths.iter().find(|path| path.ends_with("-library-7-1.0")).unwrap();
        assert_eq!(stat("/nix"), "755 1000:100");
        assert_eq!(stat("/nix/store"), "755 1000:100");
        assert_eq!(stat(&path), "555 1000:100");
        assert_eq!(stat(&format!("{path}/bin/program")), "500 1000:100");
        assert_eq!(stat(library), "555 1000:100");
        assert_eq!(stat(&format!("{library}/lib")), "750 1000:100");
        assert_eq!(stat(&format!("{library}/lib/library-7.so")), "640 1000:100");
        assert_eq!(stat(&format!("{library}/lib/library.so")), "777 1000:100");
        assert_eq!(stat("/tmp"), "700 0:0");
    }
    // A second build takes it all from what the first one kept, with the same outcome.
    let again = build(&[]).success();
    assert_eq!(digest(&again), plain);
    build(&["--chmod=/nix/store/*-absent/**=0600"])
        .exits(2)
        .says(&["nothing in the image", "*-absent"]);
    build(&["--chown=/tmp=nobody-here"]).exits(2).says(&["nobody-here"]);
    build(&["--chmod=tmp=0600"])
        .exits(2)
        .says(&["--chmod", "is not a rule"]);
    build(&["--chmod=/tmp=999"]).exits(2).says(&["octal"]);
}

/// Digest of each layer, with the store paths in it.
fn layers(place: &Place, source: &str) -> BTreeSet<(String, String)> {
    let report = place.inspect(source);
    let layers = report["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| (layer["digest"].to_string(), layer["store_paths"].to_string()))
        .collect()
}

#[test]
fn another_leaf_moves_its_own_layer_alone_and_mentioned_paths_come_along() {
    let Some((place, nix, one)) = built() else { return };
    let two = nix.build(&expression("two"), "second");
    assert_ne!(one, two);
    let last = format!("-library-{}-1.0", LIBRARIES - 1);
    let library = nix
        .requisites(&one)
        .into_iter()
        .find(|path| path.ends_with(&last))
        .unwrap();
    // The program is not a content, so that no link at `/` leads to it: it is in the image because the command is in it.
    let build = |program: &str, output: &str| {
        let program = format!("{program}/bin/program");
        layerize(&place, &nix, &build_args(&program, &library, output)).success()
    };
    let _ = build(&one, "oci-archive:one.tar");
    let _ = build(&two, "oci-archive:two.tar");
    let (before, after) = (layers(&place, "one.tar"), layers(&place, "two.tar"));
    assert_eq!(before.len(), LIBRARIES + 2);
    let differing: Vec<_> = after.difference(&before).collect();
    assert_eq!(differing.len(), 1, "{differing:?}");
    assert!(
        differing[0].1.contains(&two) && !differing[0].1.contains("library"),
        "{differing:?}"
    );

    // As a content it is also linked to, and the layer of links changes with it.
    let _ = layerize(
        &place,
        &nix,
        &["build", &one, "--name", "program", "-o", "oci-archive:three.tar"],
    )
    .success();
    let _ = layerize(
        &place,
        &nix,
        &["build", &two, "--name", "program", "-o", "oci-archive:four.tar"],
    )
    .success();
    let (before, after) = (layers(&place, "three.tar"), layers(&place, "four.tar"));
    assert_eq!(after.difference(&before).count(), 2);

    let missing = "/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-absent";
    layerize(
        &place,
        &nix,
        &["build", &library, "--name", "x", "--env", &format!("X={missing}/bin")],
    )
    .exits(2)
    .says(&["`env` names", missing, "not in the store"]);
}

#[test]
fn a_tampered_path_is_an_error_that_names_the_file_and_leaves_nothing() {
    let Some((place, nix, path)) = built() else { return };
    let args = build_args("program", &path, "oci-archive:out.tar");
    let text = nix.root.join(path.trim_start_matches('/')).join("share/text");
    let original = fs::read(&text).unwrap();
    let time = fs::metadata(&text).unwrap().modified().unwrap();
    let write = |bytes: &[u8]| {
        fs::set_permissions(&text, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&text, bytes).unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o444)).unwrap();
    };
    write(b"static, bad\\n");
    layerize(&place, &nix, &args).exits(2).says(&[
        &format!("`{path}` is not what Nix registered"),
        "`share/text` (written to)",
        "nix-store --repair-path",
    ]);
    // Someone who also sets the time back leaves no trace but the hash.
    fs::File::open(&text).unwrap().set_modified(time).unwrap();
    layerize(&place, &nix, &args)
        .exits(2)
        .says(&["which file differs cannot be told", "its archive is sha256:"]);
    assert!(!place.project.join("out.tar").exists());
    write(&original);
    layerize(&place, &nix, &args).success();

    // A path that is registered and gone, one that was never there, and a file in one.
    let away = nix.root.join("away");
    fs::rename(nix.root.join(path.trim_start_matches('/')), &away).unwrap();
    layerize::fsio::remove_tree(&place.store()).unwrap();
    layerize(&place, &nix, &args).exits(2).says(&[&path]);
    fs::rename(&away, nix.root.join(path.trim_start_matches('/'))).unwrap();
    let absent = "/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-absent";
    layerize(&place, &nix, &["build", absent])
        .exits(2)
        .says(&[absent, "nix-store --realise", "--nix-store"]);
    let inside = format!("{path}/bin/program");
    layerize(&place, &nix, &["build", &inside])
        .exits(2)
        .says(&["points inside a store path", "--entrypoint"]);
    place
        .run(&["--nix-store", "/nowhere", "build", &path])
        .exits(2)
        .says(&["no Nix store", "--nix-store DIR"]);
}
