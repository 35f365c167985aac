//! `certificates` of an image: its programs trust Debian's authorities and one's own, and nobody else.

use std::fs;
use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::support::{Place, have, in_another_world, peer};

/// A server of each certificate, and programs that ask it: one by the bundle, one by OpenSSL's own places.
const SPEC: &str = r#"
[image.configured]
root = ["deb:curl", "deb:dash", "deb:openssl"]
certificates = ["keys/corp.pem"]
files = { "/srv" = "server" }
tests.known = { run = ["sh", "-ec", "sh /srv/serve known; sh /srv/ask"], expect = { stdout = "curl: yes\nopenssl: yes" } }
tests.stranger = { run = ["sh", "-ec", "sh /srv/serve stranger; sh /srv/ask"], expect = { stdout = "curl: no\nopenssl: no" } }

[image.data]
root = ["deb:curl", "deb:dash", "deb:openssl"]
configure = false
certificates = ["keys/corp.pem"]
files = { "/srv" = "server" }
tests.known = { run = ["sh", "-ec", "sh /srv/serve known; sh /srv/ask"], expect = { stdout = "curl: yes\nopenssl: yes" } }
tests.stranger = { run = ["sh", "-ec", "sh /srv/serve stranger; sh /srv/ask"], expect = { stdout = "curl: no\nopenssl: no" } }

[image.alone]
root = ["deb:openssl"]
configure = false
exclude = ["deb:ca-certificates"]
certificates = ["keys/corp.pem"]

[image.bundle]
certificates = ["keys/corp.pem"]

[image.debian]
certificates = true
"#;

const SERVE: &str = "openssl s_server -accept 4433 -cert /srv/$1.pem -key /srv/$1.key -www -quiet &\n\
                     until openssl s_client -connect localhost:4433 </dev/null >/dev/null 2>&1; do :; done\n";

const ASK: &str = "curl -so /dev/null https://localhost:4433/ && echo curl: yes || echo curl: no\n\
                   openssl s_client -connect localhost:4433 -verify_return_error </dev/null >/dev/null 2>&1 && \
                   echo openssl: yes || echo openssl: no\n";

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A project with the spec, an authority's certificate, and two servers of which it signed one.
fn project() -> Place {
    let place = Place::new();
    let authorities = [("known", authority("corp")), ("stranger", authority("nobody"))];
    for (name, issuer) in &authorities {
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let server = server.signed_by(&key, issuer).unwrap();
        place.write(&format!("server/{name}.pem"), &server.pem());
        place.write(&format!("server/{name}.key"), &key.serialize_pem());
    }
    place.write("keys/corp.pem", &authorities[0].1.pem());
    place.write("server/serve", SERVE).write("server/ask", ASK);
    place.write("layerize.toml", SPEC);
    place
}

/// A file of an image.
fn file(place: &Place, archive: &str, path: &str) -> String {
    let dir = place.path().join(format!("unpacked-{archive}"));
    fs::create_dir_all(&dir).unwrap();
    let tar = |archive: &Path| peer(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&dir));
    tar(&place.project.join(archive));
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    for layer in manifest[0]["Layers"].as_array().unwrap() {
        tar(&dir.join(layer.as_str().unwrap()));
    }
    fs::read_to_string(dir.join(path)).unwrap()
}

/// What `openssl verify` says of both servers by a bundle.
fn judged(place: &Place, bundle: &str) -> [bool; 2] {
    let file = place.path().join("bundle");
    fs::write(&file, bundle).unwrap();
    ["known", "stranger"].map(|name| {
        let server = place.project.join(format!("server/{name}.pem"));
        let mut command = Command::new("openssl");
        command
            .arg("verify")
            .arg("-no-CApath")
            .arg("-CAfile")
            .arg(&file)
            .arg(server);
        command.output().unwrap().status.success()
    })
}

#[test]
fn programs_trust_the_authority_of_the_spec_and_no_stranger() {
    if !have("apt-get", &["--version"]) || !have("openssl", &["version"]) {
        return;
    }
    let place = project();
    place.run(&["lock"]).success();
    let tested = place.run(&["test", "configured", "data"]);
    assert!(tested.status == 0, "{}\n{}", tested.stdout, tested.stderr);

    let images = ["configured", "data", "alone", "bundle", "debian"];
    let build = [&["build", "--locked"][..], &images].concat();
    let built = place.run(&build).success();
    let corp = fs::read_to_string(place.project.join("keys/corp.pem"))
        .unwrap()
        .replace('\r', "");
    let bundle = |image: &str| file(&place, &format!("{image}.tar"), "etc/ssl/certs/ca-certificates.crt");
    let count = |text: &str| text.matches("BEGIN CERTIFICATE").count();
    let debian = count(&bundle("debian"));
    assert!(debian > 50, "{debian}");
    assert_eq!(judged(&place, &bundle("debian")), [false, false]);
    for (image, expected) in [
        ("configured", debian + 1),
        ("data", debian + 1),
        ("alone", 1),
        ("bundle", debian + 1),
    ] {
        assert_eq!(count(&bundle(image)), expected, "{image}");
        assert_eq!(judged(&place, &bundle(image)), [true, false], "{image}");
        let own = file(
            &place,
            &format!("{image}.tar"),
            "usr/local/share/ca-certificates/corp.crt",
        );
        assert_eq!(own, corp, "{image}");
        let provenance = place.run(&["provenance", image]).success().stdout;
        assert!(
            provenance.contains("usr/local/share/ca-certificates/corp.crt"),
            "{image}"
        );
    }
    // Without Debian packages there is the bundle, and nothing that its package depends on.
    let paths = place.run(&["inspect", "--json", "bundle.tar"]).success().stdout;
    assert!(!paths.contains("openssl"), "{paths}");

    let again = ["build", "--locked", "configured", "bundle"];
    let (_other, elsewhere) = in_another_world(&place, &again);
    let both = built
        .stdout
        .lines()
        .filter(|line| line.ends_with("configured.tar") || line.ends_with("bundle.tar"));
    assert_eq!(elsewhere.stdout.lines().collect::<Vec<_>>(), both.collect::<Vec<_>>());

    // Another certificate is another image; the same one from elsewhere is not.
    fs::rename(place.project.join("keys"), place.project.join("moved")).unwrap();
    place.write("layerize.toml", &SPEC.replace("keys/", "moved/"));
    assert_eq!(place.run(&build).success().stdout, built.stdout);
    place.write("moved/corp.pem", &authority("other").pem());
    let other = place
        .run(&["build", "--locked", "data", "alone", "bundle", "debian"])
        .success();
    for (before, now) in built.stdout.lines().skip(1).zip(other.stdout.lines()) {
        assert_eq!(before == now, before.ends_with("debian.tar"), "{before}\n{now}");
    }
}

#[test]
fn a_rebuild_needs_no_certificate_but_what_is_kept() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = project();
    place.run(&["lock"]).success();
    let layout = place.path().join("layout");
    let image = format!("oci:{}", layout.display());
    place.run(&["build", "bundle", "--inputs", "-o", &image]).success();
    fs::remove_dir_all(place.project.join("keys")).unwrap();
    let missing = place.run(&["build", "debian"]).exits(2);
    missing.says(&[
        "the certificate `keys/corp.pem` cannot be read: there is no such file",
        "layerize.toml:4:17",
    ]);

    let rebuilt = Place::new().run(&["rebuild", &image]).success();
    assert!(
        rebuilt.line().starts_with("same     image bundle"),
        "{}",
        rebuilt.stdout
    );
}

#[test]
fn what_no_program_will_accept_is_warned_of_and_a_key_is_refused() {
    let place = project();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "long gone");
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let key = KeyPair::generate().unwrap();
    place.write("old.pem", &params.self_signed(&key).unwrap().pem());
    place.write(
        "layerize.toml",
        "[image.app]\nroot = [\"deb:ca-certificates\"]\nconfigure = false\n\
         certificates = [\"old.pem\", \"server/known.pem\"]\n",
    );
    place.write("key.pem", &key.serialize_pem());
    if have("apt-get", &["--version"]) {
        place.run(&["build", "app"]).success().says(&[
            "image `app`: the certificate `long gone` in `old.pem` is valid until 2001-01-01T00:00:00Z alone",
            "in `server/known.pem` is not an authority's",
        ]);
    }
    place.write("layerize.toml", "[image.app]\ncertificates = [\"key.pem\"]\n");
    let refused = place
        .run(&["build", "app"])
        .exits(2)
        .says(&["key.pem:1:1", "a private key, which would be published with the image"]);
    let secret = key.serialize_pem();
    let secret = secret.lines().nth(1).unwrap();
    assert!(!refused.stderr.contains(secret), "{}", refused.stderr);
}
