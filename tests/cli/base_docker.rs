//! Bases as the field has them, over which an image is laid, loaded into Docker and run there: accounts behind links, a
//! `/usr` that is not merged, histories and ports that do not fit, large users, digests by sha512.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::crafted::{Crafted, Entry, Parts, tar_of};
use crate::support::{Place, have, peer};

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\nweb:x:44:\nlogs:x:55:\n";

/// A place with a program `id` that prints its user and group, and an image name that is removed in the end.
struct Docker {
    place: Place,
    name: String,
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.name]).output();
    }
}

impl Docker {
    fn new(test: &str) -> Option<Self> {
        if !have("docker", &["info"]) || !have("gcc", &["--version"]) {
            return None;
        }
        let place = Place::new();
        place.write(
            "id.c",
            "#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf(\"%d:%d\\n\", getuid(), getgid()); return 0; }\n",
        );
        let mut gcc = Command::new("gcc");
        peer(
            gcc.args(["-static", "-Os", "-s", "-o", "id", "id.c"])
                .current_dir(&place.project),
        );
        let name = format!("layerize-test-base-{test}-{}", std::process::id());
        Some(Self { place, name })
    }

    /// Writes the base `oci:base:v1`.
    fn base(&self, parts: &Parts) {
        let _ = fs::remove_dir_all(self.place.project.join("base"));
        let _ = fs::remove_file(self.place.project.join("layerize.lock"));
        parts.write(&Crafted::at(&self.place.project.join("base")));
    }

    fn spec(&self, more: &str) {
        self.place.write(
            "layerize.toml",
            &format!("[image.{}]\nbase = \"oci:base:v1\"\nfiles = {{ \"/id\" = {{ source = \"id\", mode = \"0755\" }} }}\nentrypoint = [\"/id\"]\n{more}",
                self.name),
        );
    }

    /// Builds the image and loads it.
    #[track_caller]
    fn load(&self) {
        let to = format!("docker-daemon:{}", self.name);
        self.place.run(&["build", &self.name, "-o", &to]).success();
    }

    fn docker(&self, args: &[&str]) -> String {
        peer(Command::new("docker").args(args).current_dir(&self.place.project)).stdout
    }

    /// What the image's program prints.
    fn run(&self, flags: &[&str]) -> String {
        let run = [&["run", "--rm", "--network", "none"], flags, &[&self.name]].concat();
        self.docker(&run).trim().to_owned()
    }

    /// A file of the image as a container has it.
    fn file(&self, path: &str) -> Vec<u8> {
        let container = self.docker(&["create", &self.name]).trim().to_owned();
        let copied = Command::new("docker")
            .args(["cp", &format!("{container}:{path}"), "-"])
            .output()
            .unwrap();
        self.docker(&["rm", "-f", &container]);
        let mut archive = tar::Archive::new(copied.stdout.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut bytes = Vec::new();
        std::io::copy(&mut entry, &mut bytes).unwrap();
        bytes
    }
}

/// A layer.
fn layer(entries: &[Entry]) -> Vec<u8> {
    tar_of(entries)
}

fn symlink(path: &[u8], target: &[u8]) -> Entry {
    Entry::of(path, b'2', target)
}

fn dir(path: &[u8]) -> Entry {
    Entry::of(path, b'5', b"")
}

/// Every way in which `/etc/passwd` can stand in a base, by its layers.
fn ways() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let group = || Entry::file(b"etc/group", GROUP);
    let hard = |path: &[u8], target: &[u8]| Entry::of(path, b'1', target);
    vec![
        (
            "a file",
            vec![layer(&[dir(b"etc"), group(), Entry::file(b"etc/passwd", PASSWD)])],
        ),
        (
            "a symlink in its own layer",
            vec![layer(&[
                dir(b"etc"),
                group(),
                Entry::file(b"usr/lib/passwd", PASSWD),
                symlink(b"etc/passwd", b"../usr/lib/passwd"),
            ])],
        ),
        (
            "an absolute symlink into a lower layer",
            vec![
                layer(&[dir(b"etc"), group(), Entry::file(b"usr/lib/passwd", PASSWD)]),
                layer(&[symlink(b"etc/passwd", b"/usr/lib/passwd")]),
            ],
        ),
        (
            "a symlink into a higher layer, through a linked directory",
            vec![
                layer(&[
                    dir(b"etc"),
                    group(),
                    symlink(b"etc/passwd", b"/lib/passwd"),
                    symlink(b"lib", b"usr/lib"),
                ]),
                layer(&[dir(b"usr"), dir(b"usr/lib"), Entry::file(b"usr/lib/passwd", PASSWD)]),
            ],
        ),
        (
            "a hard link",
            vec![layer(&[
                dir(b"etc"),
                group(),
                Entry::file(b"etc/accounts", PASSWD),
                hard(b"etc/passwd", b"etc/accounts"),
            ])],
        ),
        (
            "a hard link whose other name was deleted",
            vec![
                layer(&[
                    dir(b"etc"),
                    group(),
                    Entry::file(b"etc/accounts", PASSWD),
                    hard(b"etc/passwd", b"etc/accounts"),
                ]),
                layer(&[Entry::file(b"etc/.wh.accounts", b"")]),
            ],
        ),
        (
            "a file over a symlink",
            vec![
                layer(&[dir(b"etc"), group(), symlink(b"etc/passwd", b"/nowhere")]),
                layer(&[Entry::file(b"etc/.wh.passwd", b"")]),
                layer(&[Entry::file(b"etc/passwd", PASSWD)]),
            ],
        ),
    ]
}

/// Docker looks the name up in the container's root, links followed: what it finds is what we found.
#[test]
fn a_named_user_is_found_in_any_passwd_of_a_base() {
    let Some(docker) = Docker::new("passwd") else { return };
    for (way, layers) in ways() {
        docker.base(&Parts::of(layers));
        docker.spec("user = \"web\"\n");
        docker.load();
        assert_eq!(docker.run(&[]), "33:44", "{way}");
        // One more user: those of the base stay, and where they were a link a file stands now.
        docker.spec("users = { own = 1000 }\nuser = \"own:logs\"\n");
        docker.load();
        assert_eq!(docker.run(&[]), "1000:55", "{way}");
        assert_eq!(docker.run(&["--user", "web"]), "33:44", "{way}");
        docker.spec("user = \"nobody-there\"\n");
        docker
            .place
            .run(&["build", &docker.name, "-o", "x.tar"])
            .exits(2)
            .says(&["nobody-there"]);
    }
}

/// passwd(5) says nothing of an encoding: the bytes of names and comments in Latin-1 stay.
#[test]
fn bytes_of_passwd_that_are_not_utf_8_stay() {
    let Some(docker) = Docker::new("bytes") else { return };
    let passwd =
        b"root:x:0:0:root:/root:/bin/sh\nj\xfcrgen:x:7:7:J\xfcrgen M\xfcller:/:/bin/sh\nweb:x:33:44::/:/bin/sh";
    let group = b"root:x:0:\nb\xfcro:x:44:j\xfcrgen\n";
    docker.base(&Parts::of(vec![layer(&[
        dir(b"etc"),
        Entry::file(b"etc/passwd", passwd),
        Entry::file(b"etc/group", group),
    ])]));
    docker.spec("users = { own = 1000 }\nuser = \"own\"\n");
    docker.load();
    assert_eq!(docker.run(&[]), "1000:1000");
    let own = b"\nown:x:1000:1000:own:/:/sbin/nologin\n";
    assert_eq!(docker.file("/etc/passwd"), [&passwd[..], own].concat());
    assert_eq!(docker.file("/etc/group"), [&group[..], b"own:x:1000:\n"].concat());
}

/// A base whose `/etc` is a link keeps all that is there: the accounts go to where the link leads. (Docker makes an `/etc`
/// of its own for every container and so hides it, whatever the image; podman follows the link.)
#[test]
fn accounts_over_a_base_whose_etc_is_a_link_go_where_it_leads() {
    let place = Place::new();
    place.write("doc", "#!/bin/sh\n");
    let base = [
        dir(b"usr"),
        dir(b"usr/etc"),
        Entry::file(b"usr/etc/conf", b"conf"),
        Entry::file(b"usr/etc/passwd", PASSWD),
        Entry::file(b"usr/etc/group", GROUP),
        symlink(b"etc", b"usr/etc"),
    ];
    Parts::of(vec![layer(&base)]).write(&Crafted::at(&place.project.join("base")));
    place.write(
        "layerize.toml",
        "[image.app]\nbase = \"oci:base:v1\"\nentrypoint = [\"/doc\"]\nusers = { own = 1000 }\nuser = \"own\"\n\
         [image.app.files]\n\"/doc\" = { source = \"doc\", mode = \"0755\" }\n",
    );
    place.run(&["build", "app", "-o", "oci:out:v1"]).success();
    place.run(&["verify", "--profile", "strict", "oci:out:v1"]).success();
    for (path, seen) in [("/etc/passwd", "layer 1"), ("/etc/conf", "layer 0")] {
        let told = place.run(&["explain", "oci:out:v1", path]).success().stdout;
        assert!(told.contains("link       /etc → usr/etc (layer 0)"), "{told}");
        let seen = told.lines().find(|line| line.starts_with(seen)).unwrap();
        assert!(seen.ends_with("← seen"), "{told}");
    }
    if have("umoci", &["--version"]) {
        let mut umoci = Command::new("umoci");
        umoci.args(["unpack", "--rootless", "--image", "out:v1", "bundle"]);
        peer(umoci.current_dir(&place.project));
        let etc = place.project.join("bundle/rootfs/etc");
        assert!(fs::symlink_metadata(&etc).unwrap().is_symlink());
        let own = b"own:x:1000:1000:own:/:/sbin/nologin\n";
        assert_eq!(fs::read(etc.join("passwd")).unwrap(), [PASSWD, own].concat());
        assert_eq!(fs::read(etc.join("conf")).unwrap(), b"conf");
    }
}

/// A link that leads nowhere promises accounts that are not there: it is told as what it is, and what to write.
#[test]
fn a_passwd_that_leads_nowhere_is_told_as_such() {
    let place = Place::new();
    place.write("doc", "#!/bin/sh\n");
    let layouts: [(&[Entry], &str); 3] = [
        (
            &[symlink(b"etc/passwd", b"/nowhere")],
            "it is a link to `/nowhere`, where nothing is",
        ),
        (&[symlink(b"etc/passwd", b"passwd")], "in a circle"),
        (&[dir(b"etc/passwd")], "neither a file nor a link to one"),
    ];
    for (entries, reason) in layouts {
        let _ = fs::remove_dir_all(place.project.join("base"));
        let _ = fs::remove_file(place.project.join("layerize.lock"));
        Parts::of(vec![layer(entries)]).write(&Crafted::at(&place.project.join("base")));
        let spec = |user: &str| {
            let text = format!(
                "[image.app]\nbase = \"oci:base:v1\"\nfiles = {{ \"/doc\" = {{ source = \"doc\", mode = \"0755\" }} }}\nentrypoint = [\"/doc\"]\nuser = \"{user}\"\n"
            );
            place.write("layerize.toml", &text);
        };
        spec("web");
        let ran = place.run(&["build", "app", "-o", "oci:out:v1"]).exits(2);
        let ran = ran.says(&[
            "cannot use the base of image `app`",
            "`/etc/passwd` of the image cannot be read",
            reason,
        ]);
        assert!(!ran.stderr.contains("damaged"), "{}", ran.stderr);
        // The advice works.
        ran.says(&["write numbers instead of names"]);
        spec("33");
        place.run(&["build", "app", "-o", "oci:out:v1"]).success();
    }
}

/// Case 05 of the field: the base's `/bin` is a directory (Alpine, busybox), so that what is put there stays there.
#[test]
fn a_program_at_bin_of_a_base_without_merged_usr_is_found() {
    let Some(docker) = Docker::new("unmerged") else { return };
    let bases: [(&str, &[Entry]); 2] = [
        (
            "not merged",
            &[dir(b"bin"), Entry::file(b"bin/sh", b"x"), dir(b"usr"), dir(b"usr/bin")],
        ),
        (
            "merged",
            &[
                symlink(b"bin", b"usr/bin"),
                dir(b"usr"),
                dir(b"usr/bin"),
                Entry::file(b"usr/bin/sh", b"x"),
            ],
        ),
    ];
    for (what, entries) in bases {
        docker.base(&Parts::of(vec![layer(entries)]));
        docker.place.write(
            "layerize.toml",
            &format!(
                "[image.{0}]\nbase = \"oci:base:v1\"\nentrypoint = [\"/bin/app\"]\n[image.{0}.files]\n\"/bin/app\" = {{ source = \"id\", mode = \"0755\" }}\n",
                docker.name
            ),
        );
        docker.load();
        assert_eq!(docker.run(&[]), "0:0", "{what}");
        // Nothing of the base is hidden by what was added.
        assert_eq!(docker.file("/bin/sh"), b"x", "{what}");
    }
}

/// Engines demand an entry for each layer: `docker history` fails otherwise, and podman refuses to push.
#[test]
fn a_history_of_a_base_that_does_not_fit_its_layers_is_mended() {
    let Some(docker) = Docker::new("history") else { return };
    let entry = |text: &str| json!({ "created_by": text });
    let empty = json!({ "created_by": "ENV", "empty_layer": true });
    let two = || vec![layer(&[Entry::file(b"a", b"a")]), layer(&[Entry::file(b"b", b"b")])];
    for (what, history) in [
        ("none", json!([])),
        ("null", Value::Null),
        ("too few", json!([entry("one"), empty])),
        ("too many", json!([entry("1"), entry("2"), entry("3"), entry("4")])),
        ("only empty ones", json!([empty, empty])),
    ] {
        let mut parts = Parts::of(two());
        parts.config["history"] = history;
        docker.base(&parts);
        docker.spec("");
        docker.load();
        assert_eq!(docker.run(&[]), "0:0", "{what}");
        let listed = docker.docker(&["history", "-q", &docker.name]);
        assert!(listed.lines().count() >= 3, "{what}: {listed}");
        docker.place.run(&["build", &docker.name, "-o", "oci:out:v1"]).success();
        docker.place.run(&["verify", "oci:out:v1"]).success();
    }
}

/// config.md knows no ranges, and Docker lists each port.
#[test]
fn ranges_of_ports_of_a_base_are_each_of_their_ports() {
    let Some(docker) = Docker::new("ports") else { return };
    let mut parts = Parts::of(vec![layer(&[Entry::file(b"a", b"a")])]);
    parts.config["config"]["ExposedPorts"] = json!({ "8000-8002/tcp": {}, "53/udp": {}, "9000": {} });
    docker.base(&parts);
    docker.spec("ports = [\"443\"]\n");
    docker.load();
    let ports = docker.docker(&[
        "image",
        "inspect",
        "--format",
        "{{json .Config.ExposedPorts}}",
        &docker.name,
    ]);
    let ports: Value = serde_json::from_str(&ports).unwrap();
    let all = ["443/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp", "9000/tcp"];
    assert_eq!(ports.as_object().unwrap().keys().collect::<Vec<_>>(), all);
    assert_eq!(docker.run(&[]), "0:0");
    docker.place.run(&["build", &docker.name, "-o", "oci:out:v1"]).success();
    docker.place.run(&["verify", "oci:out:v1"]).success();
}

/// Docker and runc start no container above 2^31 − 1; what it says of itself is the reason that we give.
#[test]
fn users_that_docker_cannot_start_are_refused_with_its_limit() {
    let Some(docker) = Docker::new("users") else { return };
    let most = "2147483647";
    docker.base(&Parts::of(vec![layer(&[Entry::file(b"a", b"a")])]));
    docker.spec(&format!("user = \"{most}:{most}\"\n"));
    docker.load();
    assert_eq!(docker.run(&[]), format!("{most}:{most}"));
    let refused = Command::new("docker")
        .args(["run", "--rm", "--user", "2147483648", &docker.name])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("0-2147483647"), "{said}");
    for user in ["2147483648", "4294967294", "4294967295", "4294967296", "1:2147483648"] {
        docker.spec(&format!("user = \"{user}\"\n"));
        docker
            .place
            .run(&["build", &docker.name, "-o", "x.tar"])
            .exits(2)
            .says(&["2147483647"]);
    }
    // The same in the base.
    let mut parts = Parts::of(vec![layer(&[Entry::file(b"a", b"a")])]);
    parts.config["config"]["User"] = "2147483648".into();
    docker.base(&parts);
    docker.spec("");
    docker
        .place
        .run(&["build", &docker.name, "-o", "x.tar"])
        .exits(2)
        .says(&["its user has the ID 2147483648", "2147483647"]);
}

/// descriptor.md registers sha512: such a base is read, verified, pinned and run.
#[test]
fn a_base_whose_manifest_is_named_by_sha512_is_used() {
    let Some(docker) = Docker::new("sha512") else { return };
    docker.base(&Parts::of(vec![layer(&[
        dir(b"etc"),
        Entry::file(b"etc/passwd", PASSWD),
        Entry::file(b"etc/group", GROUP),
    ])]));
    let base = Crafted::at(&docker.place.project.join("base"));
    let zero: layerize::digest::ContentDigest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let mut named = String::new();
    base.edit_index(|entries| {
        let digest = entries[0]["digest"].as_str().unwrap();
        let bytes = fs::read(base.dir.join("blobs").join(digest.replace(':', "/"))).unwrap();
        let hex = zero.same_algorithm(&bytes).hex();
        fs::create_dir_all(base.dir.join("blobs/sha512")).unwrap();
        fs::write(base.dir.join("blobs/sha512").join(&hex), &bytes).unwrap();
        fs::remove_file(base.dir.join("blobs").join(digest.replace(':', "/"))).unwrap();
        named = format!("sha512:{hex}");
        entries[0]["digest"] = named.as_str().into();
    });
    docker.spec("user = \"web\"\n");
    docker.load();
    assert_eq!(docker.run(&[]), "33:44");
    let path = base.dir.join("blobs").join(named.replace(':', "/"));
    let damaged = String::from_utf8(fs::read(&path).unwrap())
        .unwrap()
        .replacen("\"size\":", "\"size\": ", 1);
    fs::write(&path, damaged).unwrap();
    fs::remove_file(docker.place.project.join("layerize.lock")).unwrap();
    docker.place.run(&["lock"]).exits(2);
}
