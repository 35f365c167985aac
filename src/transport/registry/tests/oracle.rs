//! Real peers: Debian's `docker-registry` is pushed to, skopeo, podman and docker pull what arrived.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::{RegistryConfig, RemoteImage};
use super::faulty::{Faulty, Ways};
use super::*;
use crate::digest::Digest;
use crate::transport::read::ReadOptions;
use crate::transport::testing::{oracle, podman, run, runnable, stdout};
use crate::transport::{Source, read_blob};

/// A `docker-registry` on loopback, ended when dropped.
pub(super) struct Distribution {
    child: Child,
    pub(super) host: String,
    pub(super) dir: tempfile::TempDir,
}

impl Distribution {
    /// Starts one; `extra` are more lines of its configuration, `{dir}` in them its directory. `None` where it is not
    /// installed, which is said.
    pub(super) fn start(extra: &str) -> Option<Self> {
        if !oracle("docker-registry") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let at = dir.path().display();
            let extra = extra.replace("{dir}", &at.to_string());
            let text = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {at}/data\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{extra}"
            );
            let config = dir.path().join("config.yml");
            std::fs::write(&config, text).unwrap();
            let mut command = Command::new("docker-registry");
            command
                .arg("serve")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(20) && child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    let host = format!("127.0.0.1:{port}");
                    return Some(Self { child, host, dir });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start");
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads an image back whole, verified.
pub(super) fn pull(name: &str, options: &ReadOptions) -> (Digest, Vec<Vec<u8>>) {
    let image = RemoteImage::open(name, options).unwrap();
    let manifest = image.manifest().unwrap();
    let blobs = std::iter::once(&manifest.config)
        .chain(&manifest.layers)
        .map(|descriptor| read_blob(&image, descriptor, 1 << 30, "a blob").unwrap())
        .collect();
    (Digest::of(manifest.bytes()), blobs)
}

#[test]
fn an_image_goes_to_a_real_registry_and_comes_back() {
    let Some(registry) = Distribution::start("") else {
        return;
    };
    let config = RegistryConfig::default();
    let host = &registry.host;
    let first = sized(&[(1, 300_000), (2, 10), (3, 2_000_000)]);
    let total: u64 = first.layers.iter().map(|layer| layer.size()).sum::<u64>() + first.config.size();
    let name = format!("{host}/team/app:1");

    let summary = push(&config, &name, &first).unwrap();
    assert_eq!((summary.blobs_sent, summary.blob_bytes_sent), (4, total));
    assert_eq!(summary.bytes_sent, total + first.manifest.size());
    assert_eq!(summary.digest, Some(first.digest()));

    let again = push(&config, &name, &first).unwrap();
    assert_eq!((again.requests, again.bytes_sent, again.bytes_skipped), (2, 0, total));

    let second = sized(&[(1, 300_000), (9, 10), (3, 2_000_000)]);
    let changed = push(&config, &format!("{host}/team/app:2"), &second).unwrap();
    assert_eq!(changed.blob_bytes_sent, second.layers[1].size() + second.config.size());
    assert_eq!(changed.blobs_skipped, 2);

    let options = PushOptions {
        mount_from: vec!["team/app".to_owned()],
        ..PushOptions::default()
    };
    let mounted = push_with(&config, &format!("{host}/other:1"), &second, &options).unwrap();
    assert_eq!((mounted.blobs_mounted, mounted.blobs_sent), (4, 0));
    assert_eq!(mounted.bytes_sent, second.manifest.size());

    let read = ReadOptions::default();
    let (digest, blobs) = pull(&name, &read);
    assert_eq!(digest, first.digest());
    let sizes: Vec<usize> = blobs.iter().map(Vec::len).collect();
    assert_eq!(sizes.iter().sum::<usize>() as u64, total);
    let (digest, _) = pull(&format!("{host}/other@{}", second.digest()), &read);
    assert_eq!(digest, second.digest());
}

#[test]
fn skopeo_podman_and_docker_pull_what_was_pushed_by_digest() {
    let Some(registry) = Distribution::start("") else {
        return;
    };
    let Some(image) = runnable(Compression::Gzip(6), "pushed by the registry client\n") else {
        return;
    };
    let config = RegistryConfig::default();
    let name = format!("{}/runs", registry.host);
    push(&config, &format!("{name}:1"), &image).unwrap();
    let by_digest = format!("{name}@{}", image.digest());
    if oracle("skopeo") {
        let mut inspect = Command::new("skopeo");
        inspect
            .args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"])
            .arg(format!("docker://{name}:1"));
        assert_eq!(stdout(&mut inspect), image.digest().to_string());
        let out = registry.dir.path().join("copied");
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "--src-tls-verify=false", "--insecure-policy"])
            .arg(format!("docker://{by_digest}"));
        run(copy.arg(format!("oci:{}", out.display())));
        let file = out.join("blobs/sha256").join(image.digest().hex());
        assert_eq!(std::fs::read(file).unwrap(), image.manifest.bytes());
    }
    if oracle("podman") {
        let mut command = Command::new("podman");
        command.args(podman(registry.dir.path()));
        run(command.args(["pull", "-q", "--tls-verify=false"]).arg(&by_digest));
        let mut command = Command::new("podman");
        command
            .args(podman(registry.dir.path()))
            .args(["run", "--rm", "--network", "none"]);
        command
            .args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"])
            .arg(&by_digest);
        assert_eq!(stdout(&mut command), "hello from layerize");
    }
    if oracle("docker") {
        run(Command::new("docker").args(["pull", "-q"]).arg(&by_digest));
        let text = stdout(
            Command::new("docker")
                .args(["run", "--rm", "--network", "none"])
                .arg(&by_digest),
        );
        run(Command::new("docker").args(["rmi", "-f"]).arg(&by_digest));
        assert_eq!(text, "hello from layerize");
    }
}

/// Signs tokens as distribution's token specification has them, with a certificate that is written to `dir`.
fn mint(dir: &std::path::Path) -> super::faulty::Mint {
    use base64::Engine as _;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["tokens".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    std::fs::write(dir.join("tokens.pem"), certificate.pem()).unwrap();
    let chain = BASE64_STANDARD.encode(certificate.der());
    let random = ring::rand::SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der(), &random).unwrap();
    Box::new(move |scopes| {
        #[expect(clippy::disallowed_methods, reason = "the registry looks at its clock")]
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let access = scopes.iter().map(|scope| {
            let words: Vec<&str> = scope.split(':').collect();
            let actions: Vec<&str> = words[2].split(',').collect();
            serde_json::json!({ "type": words[0], "name": words[1], "actions": actions })
        });
        let access: Vec<_> = access.collect();
        let head = serde_json::json!({ "typ": "JWT", "alg": "ES256", "x5c": [chain] });
        let claims = serde_json::json!({ "iss": "issuer", "sub": "me", "aud": "test", "exp": now + 300, "nbf": now - 10,
            "iat": now, "jti": format!("{now}"), "access": access });
        let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(head), part(claims));
        let signature = key.sign(&ring::rand::SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    })
}

#[test]
fn a_real_registry_with_a_token_server_is_pushed_to_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Faulty::start(Ways {
        login: Some(("me".into(), "secret".into())),
        ..Ways::default()
    });
    *lock(&tokens.shared.mint) = Some(mint(dir.path()));
    let extra = format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: test\n    issuer: issuer\n    rootcertbundle: {}/tokens.pem\n",
        tokens.host,
        dir.path().display()
    );
    let Some(registry) = Distribution::start(&extra) else {
        return;
    };
    let login = Login::Basic {
        username: "me".into(),
        password: "secret".into(),
    };
    let tuning = RegistryTuning {
        login: Some(login),
        ..hasty()
    };
    let image = sized(&[(1, 300_000), (2, 20)]);
    let config = RegistryConfig::default();
    let options = PushOptions::default();
    let pusher = Pusher::tuned(&config, &options, tuning.clone(), &crate::event::Silent).unwrap();
    let at = |name: &str| -> Reference { format!("{}/{name}", registry.host).parse().unwrap() };
    pusher.push(&at("a/b:1"), &[&image], &[], &[]).unwrap();
    let mounted = pusher.push(&at("c:1"), &[&image], &[], &[]).unwrap();
    assert_eq!(
        mounted.blobs_mounted, 3,
        "the token allows to read the other repository"
    );
    let read = RemoteImage::tuned(&at("c:1").to_string(), &ReadOptions::default(), tuning).unwrap();
    assert_eq!(read.manifest().unwrap().bytes(), image.manifest.bytes());
    let error = push(&config, &at("a/b:1").to_string(), &image).unwrap_err();
    assert!(
        text(&error).contains("incorrect username or password"),
        "{}",
        text(&error)
    );
    assert!(
        registry_log_is_clean(&tokens),
        "the registry's tokens never went to the token server"
    );
}

fn registry_log_is_clean(tokens: &Faulty) -> bool {
    let shown = |seen: &super::faulty::Seen| seen.headers.get("authorization").cloned().unwrap_or_default();
    tokens.log().iter().all(|seen| !shown(seen).starts_with("Bearer"))
}

/// Requests and body bytes of an update of one leaf of a hundred layers, beside skopeo: run with `--no-capture`.
#[test]
fn an_update_of_one_of_a_hundred_layers_costs_less_than_with_skopeo() {
    let layers: Vec<(u64, usize)> = (0..100).map(|seed| (seed + 1, 20_000)).collect();
    let mut changed = layers.clone();
    changed[50].0 = 1000;
    let (first, second) = (sized(&layers), sized(&changed));
    let ours = Faulty::start(Ways::default());
    to(&ours, &first).unwrap();
    let cost = |registry: &Faulty, from: usize| {
        let log = registry.log();
        (
            log.len() - from,
            log[from..].iter().map(|seen| seen.body).sum::<usize>(),
        )
    };
    let from = ours.log().len();
    to(&ours, &second).unwrap();
    let (requests, bytes) = cost(&ours, from);
    let leaf = second.layers[50].size() as usize + second.config.size() as usize + second.manifest.size() as usize;
    assert_eq!(bytes, leaf, "the leaf, the config and the manifest");
    assert!(requests <= 10, "{requests}");
    if !oracle("skopeo") {
        return;
    }
    let theirs = Faulty::start(Ways::default());
    let dir = tempfile::tempdir().unwrap();
    let mut costs = Vec::new();
    for (name, image) in [("first", &first), ("second", &second)] {
        let layout = format!("oci:{}", dir.path().join(name).display());
        let sink = layout.parse::<crate::transport::Location>().unwrap();
        sink.sink(None, &RegistryConfig::default(), &crate::event::Silent)
            .unwrap()
            .put(image, &[])
            .unwrap();
        let from = theirs.log().len();
        let mut copy = Command::new("skopeo");
        copy.args([
            "copy",
            "-q",
            "--dest-tls-verify=false",
            "--insecure-policy",
            "--preserve-digests",
        ])
        .arg(&layout);
        run(copy.arg(format!("docker://{}/app:1", theirs.host)));
        costs.push(cost(&theirs, from));
    }
    let (their_requests, their_bytes) = costs[1];
    assert!(
        requests <= their_requests && bytes <= their_bytes,
        "{requests} {bytes}, {their_requests} {their_bytes}"
    );
    let text = format!(
        "layerize: {requests} requests, {bytes} bytes; skopeo: {their_requests} requests, {their_bytes} bytes\n"
    );
    std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
}
