//! `layerize serve`: engines and tools pull from it, and get what `build` makes of the spec as it is.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Place, Ran, have, is_root, peer, podman, skipped};

/// An image of a package that a script makes of `word`, and one of a file alone.
const SPEC: &str = r##"
[package.thing]
source = { path = "src" }
script = 'mkdir -p $out/share; cp word $out/share/word; echo $out >> $out/share/word'

[image.thing]
contents = ["thing"]
tag = "1.0"

[image."team/plain"]
files = { "/etc/motd" = { text = "welcome\n" } }
"##;

fn project() -> Place {
    let place = Place::new();
    place.write("layerize.toml", SPEC).write("src/word", "word\n");
    place.lock_base();
    place
}

/// A registry that runs, and ends when it is dropped.
pub struct Served {
    child: Child,
    /// `127.0.0.1:PORT`
    pub host: String,
    log: PathBuf,
}

impl Served {
    pub fn start(place: &Place, more: &[&str]) -> Self {
        Self::start_in(place, &place.project, &[&["serve"], more].concat())
    }

    /// As [`start`](Self::start), from another directory, with all arguments.
    pub fn start_in(place: &Place, dir: &Path, arguments: &[&str]) -> Self {
        let log = place.path().join("serve.log");
        let mut command = place.command(&[arguments, &["--listen", "127.0.0.1:0", "-v"]].concat());
        command.current_dir(dir);
        command.stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(!line.is_empty(), "{}", fs::read_to_string(&log).unwrap());
        Self {
            child,
            host: line.trim().to_owned(),
            log,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its status, after a signal that asks it to end.
    fn end(mut self, signal: Signal) -> Option<i32> {
        let started = Instant::now();
        self.signal(signal);
        let status = self.child.wait().unwrap();
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
        status.code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// The digest that `build` makes of an image.
fn built(place: &Place, image: &str) -> String {
    let ran = place.run(&["build", image, "-o", "oci:built"]).success();
    ran.line().split(' ').next().unwrap().to_owned()
}

fn skopeo(args: &[&str]) -> Ran {
    Ran::of(Command::new("skopeo").args(args).output().unwrap())
}

#[test]
fn docker_pulls_what_build_makes_and_sees_edits() {
    if !have("docker", &["info"]) {
        return;
    }
    let place = project();
    // Engines know images by their content: this one is no other test's.
    place.write("src/word", &format!("docker {}\n", std::process::id()));
    let served = Served::start(&place, &[]);
    let name = format!("{}/thing", served.host);
    let docker = |args: &[&str]| peer(Command::new("docker").args(args)).stdout;
    let of = |name: &str| {
        docker(&["pull", "-q", name]);
        docker(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", name])
            .trim()
            .to_owned()
    };
    let first = of(&name);
    assert_eq!(first, format!("{name}@{}", built(&place, "thing")));
    assert!(served.log().contains("built thing: "), "{}", served.log());
    assert_eq!(of(&format!("{name}:1.0")), first);
    docker(&["pull", "-q", &first]);

    place.write("src/word", &format!("edited {}\n", std::process::id()));
    docker(&["pull", "-q", &name]);
    let digests = docker(&["image", "inspect", "--format", "{{json .RepoDigests}}", &name]);
    let second = built(&place, "thing");
    assert!(!first.ends_with(&second) && digests.contains(&second), "{digests}");
    // The first one is there by its digest for as long as somebody may want it.
    docker(&["rmi", "-f", &name, &format!("{name}:1.0"), &first]);
    docker(&["pull", "-q", &first]);
    docker(&["rmi", "-f", &first, &format!("{name}@{second}")]);

    // What cannot be built is told where it was asked for, and in the log.
    place.write("layerize.toml", &SPEC.replace("cp word", "cp nothing"));
    let failed = Ran::of(Command::new("docker").args(["pull", &name]).output().unwrap());
    assert!(
        failed.stderr.contains("thing") && failed.stderr.contains("fail"),
        "{}",
        failed.stderr
    );
    assert!(served.log().contains("error: "), "{}", served.log());
    assert_eq!(served.end(Signal::TERM), Some(0));
}

#[test]
fn podman_and_skopeo_pull_what_build_makes() {
    if !have("skopeo", &["--version"]) || !have("podman", &["--version"]) {
        return;
    }
    let place = project();
    let served = Served::start(&place, &[]);
    let host = &served.host;
    let digest = built(&place, "thing");
    let tags = skopeo(&["list-tags", "--tls-verify=false", &format!("docker://{host}/thing")]).success();
    let tags: Value = serde_json::from_str(&tags.stdout).unwrap();
    assert_eq!(tags["Tags"], serde_json::json!(["1.0", "latest"]));
    let to = place.path().join("copied");
    for (name, image) in [("thing:1.0", "thing"), ("team/plain", "team/plain")] {
        let (from, to) = (
            format!("docker://{host}/{name}"),
            format!("oci:{}:{image}", to.display()),
        );
        skopeo(&["copy", "-q", "--src-tls-verify=false", &from, &to]).success();
        let verified = place.run(&["verify", &to]).success();
        assert!(verified.stdout.contains(&built(&place, image)), "{}", verified.stdout);
    }

    let name = format!("{host}/thing");
    peer(podman(&place).args(["pull", "-q", "--tls-verify=false", &name]));
    let seen = peer(podman(&place).args(["image", "inspect", "--format", "{{.Digest}}", &name]));
    assert_eq!(seen.stdout.trim(), digest);
    peer(podman(&place).args(["pull", "-q", "--tls-verify=false", &format!("{name}@{digest}")]));

    // What is wrong is told in the client's own words, and in ours.
    let absent = skopeo(&["inspect", "--tls-verify=false", &format!("docker://{host}/absent")]).exits(1);
    absent.says(&["there is no image `absent` here: there are team/plain, thing"]);
    place.write("layerize.toml", &SPEC.replace("cp word", "cp nothing"));
    let failed = skopeo(&["inspect", "--tls-verify=false", &format!("docker://{name}")]).exits(1);
    failed.says(&["thing"]);
    place.write("layerize.toml", &SPEC.replace("contents", "content"));
    let failed = skopeo(&["inspect", "--tls-verify=false", &format!("docker://{name}")]).exits(1);
    failed.says(&["unknown key `content`"]);
    place.write("layerize.toml", SPEC);
    skopeo(&["inspect", "--tls-verify=false", &format!("docker://{name}")]).success();
    assert_eq!(served.end(Signal::INT), Some(0));
}

/// A containerd of this test alone.
struct Containerd {
    child: Child,
    socket: PathBuf,
}

impl Containerd {
    fn start(place: &Place) -> Self {
        let at = |name: &str| place.path().join(name).display().to_string();
        let (dir, socket) = (place.path().join("containerd"), place.path().join("c.sock"));
        fs::create_dir(&dir).unwrap();
        let config = format!(
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\nroot = \"{}\"\nstate = \"{}\"\n\
             [grpc]\naddress = \"{}\"\n",
            at("containerd/root"),
            at("containerd/state"),
            socket.display()
        );
        fs::write(dir.join("config.toml"), config).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(dir.join("config.toml"));
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let containerd = Self { child, socket };
        let started = Instant::now();
        while !Ran::of(containerd.ctr(&["version"]).output().unwrap())
            .stdout
            .contains("Server")
        {
            let log = fs::read_to_string(dir.join("log")).unwrap();
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "containerd does not answer:\n{log}"
            );
            thread::sleep(Duration::from_millis(50));
        }
        containerd
    }

    fn ctr(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(args);
        command
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn containerd_pulls_what_build_makes() {
    if !have("containerd", &["--version"]) || !have("ctr", &["--version"]) {
        return;
    }
    if !is_root() {
        return skipped("containerd runs as root alone");
    }
    let place = project();
    let token = place.path().join("token");
    fs::write(&token, "a-token-of-some-length\n").unwrap();
    let open = Served::start(&place, &[]);
    let guarded = Served::start(&place, &["--token-file", token.to_str().unwrap()]);
    let digest = built(&place, "thing");
    let containerd = Containerd::start(&place);
    for (served, user) in [
        (&open, &[][..]),
        (&guarded, &["--user", "me:a-token-of-some-length"][..]),
    ] {
        let name = format!("{}/thing:1.0", served.host);
        let pull = ["images", "pull", "--plain-http", "--snapshotter", "native"];
        peer(&mut containerd.ctr(&[&pull, user, &[&name]].concat()));
        let listed = peer(&mut containerd.ctr(&["images", "ls", &format!("name=={name}")])).stdout;
        assert!(listed.contains(&digest), "{listed}");
    }
    // What `layerize help serve` has for nodes of a cluster; the pair is `x:a-token-of-some-length`.
    let (host, hosts) = (&guarded.host, place.path().join("hosts"));
    let dir = hosts.join(host);
    fs::create_dir_all(&dir).unwrap();
    let text = format!(
        "[host.\"http://{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  [host.\"http://{host}\".header]\n    \
         Authorization = [\"Basic eDphLXRva2VuLW9mLXNvbWUtbGVuZ3Ro\"]\n"
    );
    fs::write(dir.join("hosts.toml"), text).unwrap();
    let name = format!("{host}/team/plain:latest");
    let pull = ["images", "pull", "--snapshotter", "native", "--hosts-dir"];
    peer(&mut containerd.ctr(&[&pull[..], &[hosts.to_str().unwrap(), &name]].concat()));

    let name = format!("{}/thing:1.0", guarded.host);
    let denied = Ran::of(
        containerd
            .ctr(&["images", "pull", "--plain-http", &name])
            .output()
            .unwrap(),
    );
    assert!(denied.status != 0 && denied.stderr.contains("401"), "{denied:?}");
    // containerd asks for the head alone: the reason stands in the first line of the answer.
    place.write("layerize.toml", &SPEC.replace("cp word", "cp nothing"));
    let failed = containerd
        .ctr(&["images", "pull", "--plain-http", &format!("{}/thing:1.0", open.host)])
        .output();
    let failed = Ran::of(failed.unwrap());
    assert!(
        failed.status != 0 && failed.stderr.contains("cannot build `thing`"),
        "{}",
        failed.stderr
    );
}

/// What refers to a served image is what `build --attach` puts beside a written one.
#[test]
fn referrers_are_the_documents_that_build_attaches() {
    let place = project();
    let served = Served::start(&place, &[]);
    let attach = ["--sbom", "spdx,cyclonedx", "--provenance", "--attach"];
    place
        .run(&[&["build", "thing", "-o", "oci:attached:1"], &attach[..]].concat())
        .success();
    let name = format!("docker://{}/thing", served.host);
    place.run(&["copy", "--referrers", &name, "oci:pulled:1"]).success();
    let manifests = |dir: &str| -> Vec<String> {
        let index = fs::read(place.project.join(dir).join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let listed = index["manifests"].as_array().unwrap().iter();
        let mut digests: Vec<String> = listed
            .map(|entry| entry["digest"].as_str().unwrap().to_owned())
            .collect();
        digests.sort();
        digests
    };
    let pulled = manifests("pulled");
    assert!(pulled.len() >= 4, "an image and three documents: {pulled:?}");
    assert_eq!(pulled, manifests("attached"));
    let sbom = place.run(&["sbom", &name]);
    assert!(sbom.stdout.contains("SPDX"), "{sbom:?}");
}

#[test]
fn fifty_clients_have_an_image_built_once() {
    if !have("skopeo", &["--version"]) {
        return;
    }
    let place = project();
    // Long enough for all to come while it is built.
    place.write(
        "layerize.toml",
        &SPEC.replace("mkdir -p $out/share", "sleep 2; mkdir -p $out/share"),
    );
    let served = Served::start(&place, &[]);
    let from = format!("docker://{}/thing", served.host);
    let to = |number: usize| format!("dir:{}", place.path().join(format!("pulled-{number}")).display());
    let mut pulls: Vec<Child> = (0..50)
        .map(|number| {
            let mut command = Command::new("skopeo");
            command.args(["copy", "-q", "--src-tls-verify=false", &from, &to(number)]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    // Some do not wait for it.
    for pull in pulls.drain(..5) {
        let mut pull = pull;
        pull.kill().unwrap();
        pull.wait().unwrap();
    }
    let pulls: Vec<Ran> = pulls
        .into_iter()
        .map(|pull| Ran::of(pull.wait_with_output().unwrap()))
        .collect();
    for pull in pulls {
        pull.success();
    }
    let log = served.log();
    assert_eq!(log.matches("built thing: ").count(), 1, "{log}");
    // What all got is right: skopeo checks every digest.
    let memory = fs::read_to_string(format!("/proc/{}/status", served.child.id())).unwrap();
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 300_000, "{peak} kB");
}

#[test]
fn elsewhere_than_on_loopback_there_is_a_token() {
    let place = project();
    let log = place.path().join("open.log");
    let mut command = place.command(&["serve", "--listen", "0.0.0.0:0"]);
    command.stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port = line.trim().rsplit(':').next().unwrap().to_owned();
    let served = Served {
        child,
        host: format!("127.0.0.1:{port}"),
        log,
    };
    let text = served.log();
    let token = text
        .lines()
        .find_map(|line| Some(line.split_once("the password ")?.1.trim().to_owned()))
        .unwrap();
    assert!(token.len() >= 32, "{text}");
    let name = format!("docker://{}/team/plain", served.host);
    if have("skopeo", &["--version"]) {
        let inspect = ["inspect", "--tls-verify=false", &name];
        skopeo(&inspect).exits(1).says(&["unauthorized"]);
        skopeo(&[&inspect[..], &["--creds", &format!("me:{token}")]].concat()).success();
        skopeo(&[&inspect[..], &["--creds", "me:another-token-of-length"]].concat()).exits(1);
    }
    // Logins as people do them, and layerize's own.
    let login = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).env("DOCKER_CONFIG", place.path().join("docker"));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    };
    if have("podman", &["--version"]) {
        let file = place.path().join("auth.json");
        let args = [
            "login",
            "--tls-verify=false",
            "--authfile",
            file.to_str().unwrap(),
            "-u",
            "me",
            "--password-stdin",
        ];
        login("podman", &[&args[..], &[&served.host]].concat()).success();
        let mut inspect = place.command(&["inspect", &name]);
        inspect.env("REGISTRY_AUTH_FILE", file);
        peer(&mut inspect);
        place.run(&["inspect", &name]).exits(2);
    }
    if have("docker", &["info"]) {
        login("docker", &["login", "-u", "me", "--password-stdin", &served.host]).success();
        let image = format!("{}/team/plain", served.host);
        let mut pull = Command::new("docker");
        peer(
            pull.args(["pull", "-q", &image])
                .env("DOCKER_CONFIG", place.path().join("docker")),
        );
        peer(Command::new("docker").args(["rmi", &image]));
    }
    assert!(
        !served.log().replacen(&token, "", 1).contains(&token),
        "the token is told once"
    );
}

/// A spec that is gone for a moment, as while an editor writes it, is not looked for in the directories above.
#[test]
fn a_spec_that_is_gone_is_an_error_and_not_another_spec() {
    let place = project();
    let motto = |text: &str| format!("[image.plain]\nfiles = {{ \"/etc/motd\" = {{ text = \"{text}\" }} }}\n");
    place
        .write("layerize.toml", &motto("above"))
        .write("below/layerize.toml", &motto("below"));
    let below = place.project.join("below");
    let served = Served::start_in(&place, &below, &["serve"]);
    let reference = format!("docker://{}/plain:latest", served.host);
    let pull = || skopeo(&["inspect", "--tls-verify=false", &reference]);
    let first = pull().success().stdout;
    fs::rename(below.join("layerize.toml"), below.join("aside")).unwrap();
    assert_ne!(pull().status, 0);
    fs::rename(below.join("aside"), below.join("layerize.toml")).unwrap();
    assert_eq!(pull().success().stdout, first);
}

#[test]
fn what_cannot_be_served_is_told_at_once() {
    let place = project();
    let served = Served::start(&place, &[]);
    place.run(&["serve", "--listen", &served.host]).exits(2).says(&[
        "cannot listen on 127.0.0.1:",
        "`--listen 127.0.0.1:0` takes a free port",
    ]);
    place
        .run(&["serve", "--listen", "localhost"])
        .exits(2)
        .says(&["--listen"]);
    place
        .run(&["serve", "--listen", "203.0.113.1:0"])
        .exits(2)
        .says(&["name an address of this machine"]);
    place
        .write("short", "short")
        .run(&["serve", "--token-file", "short"])
        .exits(2)
        .says(&["holds no token"]);
    place
        .run(&["serve", "--token-file", "absent"])
        .exits(2)
        .says(&["absent"]);
    place.write("layerize.toml", "[package.thing]\nscript = 'true'\n");
    place
        .run(&["serve", "--listen", "127.0.0.1:0"])
        .exits(2)
        .says(&["the spec has no image"]);
    fs::remove_file(place.project.join("layerize.toml")).unwrap();
    place
        .run(&["serve", "--listen", "127.0.0.1:0"])
        .exits(2)
        .says(&["layerize.toml"]);
    let mut json = place
        .write("layerize.toml", SPEC)
        .command(&["serve", "--json", "--listen", "127.0.0.1:0"]);
    let mut child = json.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["event"], "serving");
    assert!(line["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// An interrupt in the middle of a build ends both.
#[test]
fn an_interrupt_ends_what_is_built() {
    let place = project();
    let spec = SPEC.replace("mkdir -p $out/share", "echo begun; sleep 1000; mkdir -p $out/share");
    place.write("layerize.toml", &spec);
    let served = Served::start(&place, &[]);
    let mut pull = place.command(&["inspect", &format!("docker://{}/thing", served.host)]);
    let pull = pull.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while !served.log().contains("thing> begun") {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", served.log());
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(served.end(Signal::INT), Some(0));
    assert_ne!(Ran::of(pull.wait_with_output().unwrap()).status, 0);
    // Nothing is left that would hold up the next one.
    place.write("layerize.toml", SPEC);
    built(&place, "thing");
}

/// The status line of an answer to a request that calls the registry by a name.
fn called(served: &Served, name: &str) -> String {
    let mut stream = std::net::TcpStream::connect(&served.host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = format!("GET /v2/_catalog HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn who_calls_the_registry_by_another_name_is_told_nothing() {
    let place = project();
    let served = Served::start(&place, &["--host", "registry.example"]);
    let port = served.host.rsplit(':').next().unwrap();
    for own in ["localhost", "127.0.0.1", "registry.example"] {
        assert!(called(&served, &format!("{own}:{port}")).contains(" 200 "), "{own}");
    }
    for other in ["evil.example", "localhost.evil.example", "192.0.2.1"] {
        let line = called(&served, &format!("{other}:{port}"));
        assert!(line.contains(" 421 ") && line.contains("not called"), "{line}");
    }
    // A token is what no page has.
    let token = place.path().join("token");
    fs::write(&token, "a-token-of-some-length\n").unwrap();
    let guarded = Served::start(&place, &["--token-file", token.to_str().unwrap()]);
    assert!(called(&guarded, "evil.example").contains(" 401 "));
}

#[test]
fn tls_and_a_store_path_by_its_name() {
    use rcgen::{CertificateParams, KeyPair};
    let place = project();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    place
        .write("own.pem", &certificate.pem())
        .write("own.key", &key.serialize_pem());
    let flags = ["--tls-cert", "own.pem", "--tls-key", "own.key"];
    let served = Served::start(&place, &flags);
    let digest = built(&place, "thing");
    let pull = |name: &str, to: &str| {
        let from = format!("docker://{}/{name}", served.host);
        place.run(&["copy", "--ca-file", "own.pem", &from, to])
    };
    let copied = pull("thing:1.0", "oci:pulled:1").success();
    assert!(copied.stdout.contains(&digest), "{}", copied.stdout);
    let from = format!("docker://{}/thing", served.host);
    let other = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let other = other.self_signed(&KeyPair::generate().unwrap()).unwrap();
    place.write("other.pem", &other.pem());
    place
        .run(&["copy", "--ca-file", "other.pem", &from, "oci:untrusted:1"])
        .exits(2)
        .says(&["certificate"]);

    // What is in the store is there by its own name, and is what `build` makes of it.
    let listed = place.run(&["store", "ls"]).success().stdout;
    let path = listed.lines().filter_map(|line| line.split_whitespace().next());
    let path = path.into_iter().find(|path| path.ends_with("-thing")).unwrap();
    let built = place.run(&["build", path, "-o", "oci:path"]).success();
    let copied = pull(&format!("{}:latest", &path[1..]), "oci:pulled-path:1").success();
    let digest = built.line().split(' ').next().unwrap();
    assert!(copied.stdout.contains(digest), "{} {}", copied.stdout, built.stdout);
    let absent = format!("layerize/store/{}-absent", "0".repeat(32));
    pull(&absent, "oci:absent:1").exits(2).says(&["absent"]);

    place.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
    for (key, said) in [
        ("other.key", "cannot be used with the key"),
        ("own.pem", "no private key"),
    ] {
        place
            .run(&[
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--tls-cert",
                "own.pem",
                "--tls-key",
                key,
            ])
            .exits(2)
            .says(&["cannot speak TLS", said]);
    }
}
