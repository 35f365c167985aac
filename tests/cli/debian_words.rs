//! What a spec asks of Debian's packages by one word, with Debian's own packages.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::support::{Place, have, is_root, peer};

/// A program with its scripts, without a package that it depends on; and a whole small system, less what no container needs.
const SPEC: &str = r#"
[image.web]
root = ["deb:nginx"]
configure = true
exclude = ["deb:iproute2"]
entrypoint = ["/usr/sbin/nginx", "-t"]

[image.system]
essential = true
configure = false
exclude = ["deb:apt", "deb:e2fsprogs"]
cmd = ["/bin/sh", "-c", "ls / | wc -l"]

[image.broken]
root = ["deb:nginx"]
configure = false
exclude = ["deb:libpcre2-8-0"]
entrypoint = ["/usr/sbin/nginx"]
"#;

/// The paths in an archive of an image, as another tool unpacks it.
fn paths(place: &Place, archive: &str) -> BTreeSet<String> {
    let dir = place.path().join(format!("unpacked-{archive}"));
    fs::create_dir_all(&dir).unwrap();
    peer(
        Command::new("tar")
            .arg("-xf")
            .arg(place.project.join(archive))
            .arg("-C")
            .arg(&dir),
    );
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    let mut paths = BTreeSet::new();
    for layer in manifest[0]["Layers"].as_array().unwrap() {
        let layer = dir.join(layer.as_str().unwrap());
        let listed = peer(Command::new("tar").arg("-tf").arg(layer));
        paths.extend(listed.stdout.lines().map(|line| line.trim_end_matches('/').to_owned()));
    }
    paths
}

#[test]
fn essential_and_excluded_packages() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::new();
    place.write("layerize.toml", SPEC);
    place.run(&["lock"]).success();
    place.run(&["build", "web", "system"]).success();
    let web = paths(&place, "web.tar");
    // nginx needs iproute2, which needs libbpf0, which needs libelf1.
    for (path, expected) in [
        ("usr/sbin/nginx", true),
        ("etc/nginx/sites-enabled/default", true),
        ("var/lib/dpkg/status.d/nginx", true),
        ("var/lib/dpkg/status.d/iproute2", false),
        ("var/lib/dpkg/status.d/libelf1", false),
        ("usr/bin/ss", false),
        ("bin/ss", false),
    ] {
        assert_eq!(web.contains(path), expected, "{path}");
    }
    let sbom = place.run(&["sbom", "web", "--format", "cyclonedx"]).success();
    for text in ["deb:iproute2=", ": excluded by the spec", "deb:libelf1="] {
        assert!(sbom.stdout.contains(text), "{text}");
    }
    let system = paths(&place, "system.tar");
    for (package, expected) in [
        ("dash", true),
        ("perl-base", true),
        ("libpam-runtime", true),
        ("tzdata", true),
        ("usr-is-merged", true),
        ("apt", false),
        ("libgnutls30", false),
        ("e2fsprogs", false),
        ("usrmerge", false),
    ] {
        let path = format!("var/lib/dpkg/status.d/{package}");
        assert_eq!(system.contains(&path), expected, "{package}");
    }
    if have("docker", &["info"]) && is_root() {
        for image in ["web", "system"] {
            let archive = place.project.join(format!("{image}.tar"));
            peer(Command::new("docker").args(["load", "-i"]).arg(archive));
            let name = format!("{image}:latest");
            peer(Command::new("docker").args(["run", "--rm", "--network", "none", &name]));
            peer(Command::new("docker").args(["rmi", &name]));
        }
    }
    place.run(&["build", "broken"]).exits(2).says(&[
        "`/usr/sbin/nginx` cannot start: `libpcre2-8.so.0` is not in the image",
        "`exclude` leaves out `deb:libpcre2-8-0`",
    ]);
}
