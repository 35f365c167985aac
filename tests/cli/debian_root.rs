//! Debian packages laid out at `/`: what a store path cannot hold of them is in the image all the same.

use std::fs;
use std::process::Command;

use crate::support::{Place, have, is_root, peer};

const SPEC: &str = r#"
[image.app]
root = ["deb:sudo", "deb:vim-tiny", "deb:vim-runtime", "deb:perl-base", "deb:iputils-ping"]
configure = false
"#;

/// The lines of `tar --list --verbose --numeric-owner` of all layers, as `MODE OWNER SIZE PATH`.
fn listing(place: &Place) -> Vec<String> {
    let dir = place.path().join("unpacked");
    fs::create_dir_all(&dir).unwrap();
    peer(
        Command::new("tar")
            .arg("-xf")
            .arg(place.project.join("app.tar"))
            .arg("-C")
            .arg(&dir),
    );
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    let mut lines = Vec::new();
    for layer in manifest[0]["Layers"].as_array().unwrap() {
        let mut command = Command::new("tar");
        command
            .args(["--list", "--verbose", "--numeric-owner", "--file"])
            .arg(dir.join(layer.as_str().unwrap()));
        for line in peer(&mut command).stdout.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            lines.push(format!(
                "{} {} {} {}",
                words[0],
                words[1],
                words[2],
                words[5..].join(" ")
            ));
        }
    }
    lines
}

/// Debian's own packages: setuid and strict modes (`dpkg-deb --contents` shows them), a hard link (`perl` was in images
/// twice), a diversion (vim-runtime's preinst, written with a function and variables; the two were said to collide), and
/// capabilities that a script that was not run would have given.
#[test]
fn packages_of_debian_keep_modes_links_and_diversions() {
    let place = Place::new();
    place.write("layerize.toml", SPEC);
    let built = place.run(&["build", "app"]).success();
    let warning = "`deb:iputils-ping` brings file capabilities, which are not kept: `/usr/bin/ping` (cap_net_raw=ep)";
    assert_eq!(built.stderr.matches(warning).count(), 1, "{}", built.stderr);
    place.run(&["verify", "app.tar"]).success();
    let lines = listing(&place);
    let has = |start: &str, end: &str| lines.iter().any(|line| line.starts_with(start) && line.ends_with(end));
    for (start, end) in [
        ("-rwsr-xr-x 0/0 ", " usr/bin/sudo"),
        ("-r--r----- 0/0 ", " etc/sudoers.d/README"),
        ("hrwxr-xr-x 0/0 0 ", "usr/bin/perl5.36.0 link to usr/bin/perl"),
        ("-rw-r--r-- 0/0 ", " usr/share/vim/vim90/doc/help.txt"),
        ("-rw-r--r-- 0/0 ", " usr/share/vim/vim90/doc/help.txt.vim-tiny"),
    ] {
        assert!(has(start, end), "{start}…{end}: {lines:#?}");
    }
    if have("docker", &["info"]) && is_root() {
        peer(
            Command::new("docker")
                .args(["load", "-i"])
                .arg(place.project.join("app.tar")),
        );
        let run = |args: &[&str]| {
            let mut command = Command::new("docker");
            peer(
                command
                    .args(["run", "--rm", "--network", "none", "app:latest"])
                    .args(args),
            )
            .stdout
        };
        let links = run(&[
            "perl",
            "-e",
            "print join q( ), map { (stat $_)[3] } @ARGV",
            "/usr/bin/perl",
            "/usr/bin/perl5.36.0",
        ]);
        assert_eq!(links, "2 2", "both names are one file");
        let help = run(&[
            "perl",
            "-e",
            "print -s for @ARGV",
            "/usr/share/vim/vim90/doc/help.txt.vim-tiny",
        ]);
        assert!(help.parse::<u64>().is_ok_and(|size| size > 0), "{help}");
        let version = run(&["vim.tiny", "--version"]);
        assert!(version.starts_with("VIM - Vi IMproved 9.0"), "{version}");
        let _ = Command::new("docker").args(["rmi", "app:latest"]).output();
    }
}
