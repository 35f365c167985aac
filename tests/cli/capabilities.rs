//! File capabilities: from the spec into containers, as `setcap` and `getcap` know them, and told where they are lost.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use layerize::capability::{FileCapabilities, ParseCapabilitiesError, of_file, shown};

use crate::support::{Place, Ran, have, is_root, peer, podman};

const SPEC: &str = r#"
[image.bound]
root = ["deb:busybox-static"]
configure = false
user = "1000:1000"
permissions = [{ path = "/usr/bin/busybox", capabilities = ["cap_net_bind_service=ep"] }]

[image.plain]
root = ["deb:busybox-static"]
configure = false
user = "1000:1000"

[image.other]
root = ["deb:busybox-static"]
configure = false
permissions = [{ path = "/usr/bin/busybox", capabilities = ["cap_net_raw=ep"] }]
"#;

/// Whether a tool's output says that `setcap` works here: root, and a file system that keeps the attribute.
fn have_setcap() -> bool {
    is_root() && have("getcap", &["/"]) && have("setcap", &["-h"])
}

fn setcap(text: &str, file: &Path) -> bool {
    let mut command = Command::new("setcap");
    let status = command
        .arg(text)
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.unwrap().success()
}

/// What `getcap` prints of a file, without its name.
fn getcap(file: &Path) -> String {
    let printed = peer(Command::new("getcap").arg(file)).stdout;
    let name = file.display().to_string();
    printed
        .trim_end()
        .trim_start_matches(&name)
        .strip_prefix(' ')
        .unwrap_or_default()
        .to_owned()
}

/// The whole way: a spec's capabilities are in the layer, and an ordinary user's program has them in a container.
#[test]
fn an_ordinary_user_binds_a_port_below_1024_in_docker() {
    let place = Place::new();
    place.write("layerize.toml", SPEC);
    place.run(&["build", "bound", "plain", "other"]).success();
    let inspected = place.run(&["inspect", "--layers", "bound.tar"]).success().stdout;
    assert!(
        inspected.contains("/usr/bin/busybox cap_net_bind_service=ep"),
        "{inspected}"
    );
    let told = place.run(&["explain", "bound.tar", "/bin/busybox"]).success().stdout;
    assert!(told.contains("  can        cap_net_bind_service=ep\n"), "{told}");
    let differing = place.run(&["diff", "bound.tar", "other.tar"]).exits(1).stdout;
    for text in [
        "xattr",
        "security.capability cap_net_bind_service=ep",
        "security.capability cap_net_raw=ep",
    ] {
        assert!(differing.contains(text), "{differing}");
    }
    place.run(&["verify", "bound.tar"]).success();
    if !have("docker", &["info"]) {
        return;
    }
    for (name, status, printed) in [("bound", 0, "bound\n"), ("plain", 1, "")] {
        peer(
            Command::new("docker")
                .args(["load", "-i"])
                .arg(place.project.join(format!("{name}.tar"))),
        );
        let script = "busybox httpd -p 80 -h / && echo bound";
        let ran = Ran::of(
            Command::new("docker")
                .args([
                    "run",
                    "--rm",
                    "--network",
                    "none",
                    "--sysctl",
                    "net.ipv4.ip_unprivileged_port_start=1024",
                ])
                .args([&format!("{name}:latest"), "busybox", "sh", "-c", script])
                .output()
                .unwrap(),
        );
        assert_eq!(
            (ran.status, ran.stdout.as_str()),
            (status, printed),
            "{name}: {}",
            ran.stderr
        );
        let _ = Command::new("docker").args(["rmi", &format!("{name}:latest")]).output();
    }
}

/// skopeo hands the layer on as it is, and umoci and podman give the file the attribute that `getcap` reads.
#[test]
fn other_unpackers_give_the_file_what_getcap_reads() {
    if !have_setcap() {
        return;
    }
    let place = Place::new();
    place.write("layerize.toml", SPEC);
    place.run(&["build", "bound"]).success();
    let archive = format!("docker-archive:{}", place.project.join("bound.tar").display());
    if have("skopeo", &["--version"]) && have("umoci", &["--version"]) {
        let layout = place.path().join("layout");
        peer(
            Command::new("skopeo")
                .args(["copy", "--insecure-policy", &archive])
                .arg(format!("oci:{}:x", layout.display())),
        );
        let bundle = place.path().join("bundle");
        peer(
            Command::new("umoci")
                .args(["unpack", "--image"])
                .arg(format!("{}:x", layout.display()))
                .arg(&bundle),
        );
        assert_eq!(
            getcap(&bundle.join("rootfs/usr/bin/busybox")),
            "cap_net_bind_service=ep"
        );
    }
    if have("podman", &["--version"]) {
        let loaded = peer(podman(&place).args(["load", "-i"]).arg(place.project.join("bound.tar")));
        let name = loaded
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("Loaded image: "));
        let name = name
            .unwrap_or_else(|| panic!("podman load said: {}", loaded.stdout))
            .to_owned();
        let mounted = peer(podman(&place).args(["image", "mount", &name]));
        let root = Path::new(mounted.line()).to_owned();
        assert_eq!(getcap(&root.join("usr/bin/busybox")), "cap_net_bind_service=ep");
        peer(podman(&place).args(["image", "umount", &name]));
    }
}

/// Every text that `setcap` takes is taken, with the value that it writes and the text that `getcap` prints; what it
/// refuses is refused. (An `e` without `p` or `i`, and
/// a text that gives nothing, are mistakes here and nothing to `setcap`.)
#[test]
fn setcap_and_getcap_agree() {
    if !have_setcap() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("program");
    let mut texts: Vec<String> = [
        "cap_net_bind_service=ep",
        "cap_net_raw,cap_net_admin=p",
        "=ep",
        "all=p",
        "all=ip cap_kill-i",
        "cap_chown=p+i",
        "0,40=ep",
        "CAP_CHOWN=P",
        "CAP_CHOWN=p",
        "cap_chown",
        "cap_foo=p",
        "cap_chown=ep cap_kill=i",
        "cap_chown=ip cap_chown-p",
        "+p",
        "=p cap_syslog-p cap_bpf-p",
        "cap_chown=p,cap_kill=p",
        "cap_chown+p=i",
        "cap_chown-",
        "cap_chown+ip-p",
    ]
    .map(str::to_owned)
    .to_vec();
    // All pairs of flags on two capabilities of either half of the words.
    for (one, flags) in [
        ("cap_kill", "p"),
        ("cap_bpf", "i"),
        ("cap_setuid", "ip"),
        ("cap_perfmon", "eip"),
    ] {
        for (other, more) in [
            ("cap_chown", "p"),
            ("cap_syslog", "i"),
            ("cap_audit_read", "ip"),
            ("3", "ep"),
        ] {
            texts.push(format!("{one}={flags} {other}={more}"));
            texts.push(format!("all={more} {one}-{flags}"));
        }
    }
    let mut taken = 0;
    for text in texts {
        fs::write(&file, "").unwrap();
        let ours = text.parse::<FileCapabilities>();
        let only_ours = matches!(
            ours,
            Err(ParseCapabilitiesError::OnlyEffective | ParseCapabilitiesError::Nothing)
        );
        assert_eq!(setcap(&text, &file), ours.is_ok() || only_ours, "{text}: {ours:?}");
        let Ok(ours) = ours else { continue };
        taken += 1;
        let value = of_file(&file).unwrap();
        assert_eq!(value, ours.to_bytes(), "{text}");
        assert_eq!(ours.to_string(), getcap(&file), "{text}");
        assert_eq!(shown(&value), getcap(&file), "{text}");
    }
    assert!(taken > 25, "{taken}");
    // Those of a user namespace alone (revision 3) are told with its root.
    fs::write(&file, "").unwrap();
    peer(Command::new("setcap").args(["-n", "1000", "cap_kill=ep"]).arg(&file));
    assert_eq!(getcap(&file), "cap_kill=ep", "getcap without -n leaves it out");
    assert_eq!(shown(&of_file(&file).unwrap()), "cap_kill=ep [rootid=1000]");
}

/// A local source, an archive and a file of the image that have some: each is told once, with the line to write.
#[test]
fn capabilities_that_get_lost_are_told() {
    if !have_setcap() {
        return;
    }
    let place = Place::new();
    place.write("src/bin/serve", "#!/bin/sh\n");
    place.write("src/bin/other", "#!/bin/sh\n");
    assert!(setcap("cap_net_bind_service=ep", &place.project.join("src/bin/serve")));
    peer(
        Command::new("tar")
            .args([
                "--create",
                "--format=pax",
                "--xattrs",
                "--xattrs-include=security.*",
                "--file",
            ])
            .arg(place.project.join("src.tar"))
            .arg("-C")
            .arg(&place.project)
            .arg("src"),
    );
    let sum = layerize::digest::Digest::of(&fs::read(place.project.join("src.tar")).unwrap());
    let spec = format!(
        "[package.local]\nsource = \"src\"\n\n[package.archive]\nsource = {{ url = \"file://{}\", sha256 = \"{}\" }}\n\n\
         [image.app]\ncontents = [\"local\", \"archive\"]\nfiles = {{ \"/opt/serve\" = \"src/bin/serve\" }}\n",
        place.project.join("src.tar").display(),
        sum.hex()
    );
    place.write("layerize.toml", &spec.replace("\"local\", \"archive\"", "\"local\""));
    let lost = |what: &str, path: &str, rule: &str| {
        format!(
            "`{what}` brings file capabilities, which are not kept: `{path}` (cap_net_bind_service=ep); where an image is to \
             have them, write `permissions = [{{ {rule}, capabilities = [\"cap_net_bind_service=ep\"] }}]`"
        )
    };
    let built = place.run(&["build", "app"]).success();
    for text in [
        lost("src", "bin/serve", "pattern = \"/**/bin/serve\""),
        lost("files", "/opt/serve", "path = \"/opt/serve\""),
    ] {
        assert_eq!(built.stderr.matches(&text).count(), 1, "{text}\n{}", built.stderr);
    }
    place.write("layerize.toml", &spec.replace("\"local\", \"archive\"", "\"archive\""));
    let built = place.run(&["build", "app"]).success();
    let text = lost("src.tar", "bin/serve", "pattern = \"/**/bin/serve\"");
    assert_eq!(built.stderr.matches(&text).count(), 1, "{}", built.stderr);
    // A rule that says what the file has ends the warning.
    let rule = "permissions = [{ path = \"/opt/serve\", capabilities = [] }]\n";
    place.write(
        "layerize.toml",
        &(spec.replace("\"local\", \"archive\"", "\"archive\"") + rule),
    );
    let built = place.run(&["build", "app"]).success();
    assert!(
        !built.stderr.contains("`files` brings file capabilities"),
        "{}",
        built.stderr
    );
}
