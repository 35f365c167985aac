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

/// Case B6, and what else a C library is asked for: each line is what one library found at a place that is built into it.
const PROGRAM: &str = r#"
#include <iconv.h>
#include <langinfo.h>
#include <locale.h>
#include <magic.h>
#include <openssl/provider.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <term.h>
#include <time.h>

int main(void) {
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_default_verify_paths(tls);
    int issuers = sk_X509_OBJECT_num(X509_STORE_get0_objects(SSL_CTX_get_cert_store(tls)));
    printf("issuers %s\n", issuers > 50 ? "found" : "missing");
    printf("legacy %s\n", OSSL_PROVIDER_load(NULL, "legacy") ? "found" : "missing");
    magic_t magic = magic_open(MAGIC_MIME_TYPE);
    int loaded = magic_load(magic, NULL);
    printf("magic %s\n", loaded == 0 ? magic_buffer(magic, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16) : magic_error(magic));
    int error = 0;
    setupterm("xterm", 1, &error);
    printf("terminfo %d\n", error);
    char in[] = "\xa4", out[8] = "";
    char *from = in, *to = out;
    size_t left = 1, room = sizeof out;
    iconv_t convert = iconv_open("UTF-8", "ISO-8859-15");
    if (convert != (iconv_t)-1) iconv(convert, &from, &left, &to, &room);
    printf("iconv %s\n", out);
    setlocale(LC_ALL, "");
    printf("locale %s %s\n", setlocale(LC_CTYPE, NULL), nl_langinfo(CODESET));
    time_t summer = 1720000000;
    printf("zone %s\n", localtime(&summer)->tm_zone);
    return 0;
}
"#;

const FOUND: &str = "issuers found
legacy found
magic image/png
terminfo 1
iconv €
locale C.UTF-8 UTF-8
zone CEST
";

const CONTENTS: &str = r#"
[package.app]
source = { path = "src" }
tools = ["deb:gcc"]
libraries = ["deb:libc6-dev", "deb:libssl-dev", "deb:libmagic-dev", "deb:libncurses-dev"]
runtime = ["deb:ca-certificates", "deb:ncurses-base"]
script = "mkdir -p $out/bin; gcc -o $out/bin/app main.c -lssl -lcrypto -lmagic -ltinfo"

[image.app]
contents = ["app"]
entrypoint = ["app"]
timezone = "Europe/Berlin"

[image.apart]
contents = ["app"]
entrypoint = ["app"]
join = "contents"
utf-8 = false

[image.lost]
contents = ["app"]
timezone = "Europe/Berlim"
"#;

#[test]
fn libraries_of_the_closure_find_their_data() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::new();
    place.write("layerize.toml", CONTENTS);
    place.write("src/main.c", PROGRAM);
    place.run(&["lock"]).success();
    let built = place.run(&["build", "app", "apart"]).success();
    for text in [
        "app: joined where libraries of the closure look: character sets (`/usr/lib/x86_64-linux-gnu/gconv`), ",
        "certificates (`/etc/ssl`, `/usr/lib/ssl`, `/usr/share/ca-certificates`)",
        "file types (",
        "terminals (`/etc/terminfo`, `/usr/lib/terminfo`, `/usr/share/terminfo`)",
    ] {
        assert!(built.stderr.contains(text), "{text}: {}", built.stderr);
    }
    let env = |image: &str| {
        place
            .run(&["inspect", "--json", &format!("{image}.tar")])
            .success()
            .stdout
    };
    assert!(env("app").contains("LANG=C.UTF-8"), "{}", env("app"));
    assert!(!env("apart").contains("LANG="), "{}", env("apart"));
    let apart = paths(&place, "apart.tar");
    for path in ["usr/lib/x86_64-linux-gnu/gconv", "usr/lib/ssl", "usr/lib/locale"] {
        assert!(!apart.contains(path), "{path}");
    }
    let app = paths(&place, "app.tar");
    for path in [
        "etc/localtime",
        "etc/timezone",
        "usr/share/zoneinfo/Europe/Berlin",
        "usr/lib/locale/C.utf8/LC_CTYPE",
    ] {
        assert!(app.contains(path), "{path}");
    }
    // What belongs to a Debian system alone is not in it.
    for path in [
        "var/lock",
        "etc/os-release",
        "usr/bin/locale",
        "usr/share/zoneinfo/Europe/Paris",
    ] {
        assert!(!app.contains(path), "{path}");
    }
    place.run(&["build", "lost"]).exits(2).says(&[
        "there is no time zone `Europe/Berlim`",
        "did you mean `timezone = \"Europe/Berlin\"`?",
    ]);
    if have("docker", &["info"]) && is_root() {
        let archive = place.project.join("app.tar");
        peer(Command::new("docker").args(["load", "-i"]).arg(archive));
        let ran = peer(Command::new("docker").args(["run", "--rm", "--network", "none", "app:latest"]));
        assert_eq!(ran.stdout, FOUND);
        peer(Command::new("docker").args(["rmi", "app:latest"]));
    }
}
