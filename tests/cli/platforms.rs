//! One spec for several platforms: the lock, each platform's image, and the index of them through the verbs. The archive is
//! the tests' own, and nothing of another platform is run.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::archive::Archive;
use crate::registry::registry;
use crate::serve::Served;
use crate::served::Demands;
use crate::support::{Place, Ran, have, peer, podman};

/// What an image is for in most tests.
const BOTH: &str = r#"["linux/amd64", "linux/arm64"]"#;

/// The platforms of `BOTH`.
const PLATFORMS: [&str; 2] = ["linux/amd64", "linux/arm64"];

/// This machine's platform, and the other one.
fn machine_and_other() -> [&'static str; 2] {
    let [amd64, arm64] = PLATFORMS;
    match cfg!(target_arch = "x86_64") {
        true => [amd64, arm64],
        false => [arm64, amd64],
    }
}

struct Project {
    place: Place,
    archive: Archive,
}

impl Project {
    /// A project whose image is for `platform`, as a spec writes it; `None` where apt is not on this machine.
    fn new(platform: &str) -> Option<Self> {
        if !have("apt-get", &["--version"]) {
            return None;
        }
        let place = Place::new();
        let mut archive = Archive::new(&place.path().join("archive"));
        archive.describe(
            "Origin: Test\nLabel: Test\nSuite: stable\nCodename: test\nDate: Thu, 26 Nov 2026 21:03:35 UTC\n",
        );
        for architecture in ["amd64", "arm64", "armhf"] {
            let fields = format!("Architecture: {architecture}\n");
            let library = format!("code of {architecture}\n");
            archive.add_files("libx1", "1.0", &fields, &[("usr/lib/libx.data", 0o644, &library)]);
            archive.add("prog", "1.0", &format!("{fields}Depends: libx1, shared\n"));
        }
        archive.add("shared", "1.0", "");
        let project = Self { place, archive };
        project.place.write("motd", "hello\n").write("data/file", "data\n");
        project.write_spec(platform);
        Some(project)
    }

    fn write_spec(&self, platform: &str) {
        self.write_spec_for("amd64", platform, "");
    }

    fn write_spec_for(&self, home: &str, platform: &str, more: &str) {
        let source = self.archive.source_line();
        let platform = match platform {
            "" => String::new(),
            platform => format!("platform = {platform}\n"),
        };
        self.place.write(
            "layerize.toml",
            &format!(
                "[debian]\nsources = [\"{source}\"]\narchitecture = \"{home}\"\n\n[package.data]\nsource = {{ path = \"data\" }}\n\n\
                 [image.web]\nroot = [\"deb:prog\"]\nconfigure = false\ncontents = [\"data\"]\nfiles = {{ \"/etc/motd\" = \"motd\" }}\n\
                 {platform}{more}"
            ),
        );
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.place.run(args)
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.place.project.join("layerize.lock")).unwrap()
    }

    fn forget_lock(&self) {
        fs::remove_file(self.place.project.join("layerize.lock")).unwrap();
    }

    /// Builds into a layout of this name; the digest of what was written.
    fn build(&self, layout: &str, more: &[&str]) -> String {
        let sink = format!("oci:{layout}:v1");
        let built = self.run(&[&["build", "-o", &sink], more].concat()).success();
        built.line().split(' ').next().unwrap().to_owned()
    }

    /// The digest of the image for a platform that is at a place.
    fn digest(&self, source: &str, platform: &str) -> String {
        let seen = self
            .run(&["inspect", "--json", "--platform", platform, source])
            .success();
        let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
        seen["digest"].as_str().unwrap().to_owned()
    }
}

/// What a platform's image is does not depend on which others there are, nor on how many a lock is for.
#[test]
fn each_image_is_what_it_is_alone() {
    let Some(project) = Project::new("") else { return };
    let amd64 = project.build("one", &[]);
    let before = project.lock();
    project.write_spec(BOTH);
    project
        .run(&["build", "--locked", "-o", "oci:all:v1"])
        .exits(2)
        .says(&["layerize.lock is stale", "arm64: missing: the resolution of `deb:prog`"]);
    let index = project.build("all", &[]);
    let both = project.lock();
    let added = both.strip_prefix(&before).expect("what was locked is as it was");
    assert!(added.contains("[[platform.arm64.deb]]"), "{added}");
    assert_eq!(project.build("again", &["--locked"]), index);
    assert_eq!(project.digest("oci:all:v1", "linux/amd64"), amd64);
    let arm64 = project.digest("oci:all:v1", "linux/arm64");
    for layout in ["oci:all:v1", "oci:again:v1"] {
        for platform in PLATFORMS {
            project.run(&["verify", layout, "--platform", platform]).success();
        }
    }
    // One of them alone, of the same spec.
    for (platform, digest) in [("linux/amd64", &amd64), ("linux/arm64", &arm64)] {
        assert_eq!(&project.build("part", &["--platform", platform]), digest);
    }
    // A third one in the lock.
    project.write_spec(r#"["linux/amd64", "linux/arm64", "linux/arm/v7"]"#);
    project.run(&["lock"]).success().says(&["+ deb:prog (armhf) 1.0"]);
    assert!(project.lock().starts_with(&both));
    project.build("three", &[]);
    assert_eq!(project.digest("oci:three:v1", "linux/amd64"), amd64);
    assert_eq!(project.digest("oci:three:v1", "linux/arm64"), arm64);
    // And at a home of its own, with a lock of its own.
    project.forget_lock();
    project.write_spec_for("arm64", "", "");
    assert_eq!(project.build("native", &[]), arm64);
    // What is no longer needed goes.
    project.forget_lock();
    project.write_spec(BOTH);
    project.run(&["lock"]).success();
    assert_eq!(project.lock(), both);
    project.write_spec(r#""linux/amd64""#);
    project
        .run(&["lock", "--check"])
        .exits(1)
        .says(&["no longer needed: all that is for `arm64`"]);
    project.run(&["lock"]).success().says(&["- deb:prog (arm64) 1.0"]);
    assert_eq!(project.lock(), before);
    assert_eq!(project.build("last", &["--locked"]), amd64);
}

/// An update of one platform leaves the others what they are locked to.
#[test]
fn a_platform_is_updated_by_itself() {
    let Some(mut project) = Project::new(BOTH) else { return };
    project.run(&["lock"]).success();
    for architecture in ["amd64", "arm64"] {
        project.archive.add(
            "prog",
            "2.0",
            &format!("Architecture: {architecture}\nDepends: libx1, shared\n"),
        );
    }
    let locked = project.lock();
    let changed = project
        .run(&["lock", "--update", "prog", "--platform", "linux/arm64"])
        .success();
    let changed = changed.says(&["~ deb:prog (arm64) 1.0 → 2.0"]);
    assert!(!changed.stderr.contains("~ deb:prog 1.0"), "{}", changed.stderr);
    let at = |text: &str| text.find("[[platform.").unwrap();
    assert_eq!(project.lock()[..at(&project.lock())], locked[..at(&locked)]);
    project
        .run(&["lock", "--update", "--platform", "all"])
        .success()
        .says(&["~ deb:prog 1.0 → 2.0"]);
    project
        .run(&["lock", "--update", "--platform", "linux/s390x"])
        .exits(2)
        .says(&[
            "nothing in layerize.toml is for linux/s390x",
            "linux/amd64 and linux/arm64",
        ]);
    // What an archive no longer has of one platform.
    project.archive.drop_from_index("libx1", "1.0");
    for architecture in ["amd64", "arm64"] {
        project
            .archive
            .add("libx1", "1.1", &format!("Architecture: {architecture}\n"));
    }
    let refreshed = project.run(&["lock", "--refresh"]).success();
    refreshed.says(&["~ deb:libx1 1.0 → 1.1", "~ deb:libx1 (arm64) 1.0 → 1.1"]);
}

/// Debian 12 has nothing for riscv64: what a release lacks is told with the architecture.
#[test]
fn an_architecture_that_no_source_has_is_told() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::new();
    place.write(
        "layerize.toml",
        "[image.x]\nroot = [\"deb:netbase\"]\nconfigure = false\nplatform = [\"linux/amd64\", \"linux/riscv64\"]\n",
    );
    place.run(&["lock"]).exits(2).says(&[
        "there is no Debian package `netbase` for riscv64",
        "leave it out of `platform`, or name a release that has it in `[debian] sources`",
    ]);
}

/// The verbs that write, of an image for several platforms.
#[test]
fn what_is_written_is_all_or_the_machines_own() {
    let Some(project) = Project::new(BOTH) else { return };
    let [machine, other] = machine_and_other();
    let index = project.build("all", &["--sbom", "spdx", "--provenance"]);
    let own = project.digest("oci:all:v1", machine);
    for file in [
        "web.linux-amd64.spdx.json",
        "web.linux-arm64.spdx.json",
        "web.linux-arm64.provenance.json",
    ] {
        assert!(project.place.project.join(file).is_file(), "{file}");
    }
    // Places that hold one image get the machine's.
    let built = project
        .run(&["build"])
        .success()
        .says(&[&format!("not for {other}"), "`-o oci:DIR`"]);
    assert_eq!(built.line(), format!("{own} docker-archive:web.tar"));
    let built = project
        .run(&["build", "-o", "oci-archive:all.tar:v1", "-o", "docker-archive:own.tar"])
        .success();
    let lines: Vec<&str> = built.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            format!("{index} oci-archive:all.tar:v1"),
            format!("{own} docker-archive:own.tar")
        ]
    );
    let one = project
        .run(&["build", "--platform", other, "-o", "docker-archive:other.tar"])
        .success();
    assert!(one.line().starts_with(&project.digest("oci:all:v1", other)));
    project.run(&["build", "--platform", "linux/s390x"]).exits(2).says(&[
        "image `web` is for linux/amd64 and linux/arm64, not for linux/s390x",
        "platform = […]",
    ]);
}

/// The verbs that read and tell, of an image for several platforms.
#[test]
fn what_is_told_is_of_each_platform() {
    let Some(project) = Project::new(BOTH) else { return };
    let [machine, other] = machine_and_other();
    project.build("all", &[]);
    let digests = PLATFORMS.map(|platform| project.digest("oci:all:v1", platform));
    project.run(&["build", "-o", "oci-archive:all.tar:v1"]).success();
    // Read back.
    project.run(&["diff", "oci:all:v1", "oci-archive:all.tar:v1"]).success();
    project
        .run(&["diff", "web", "oci:all:v1", "--platform", other])
        .success();
    project.run(&["diff", "web", "oci:all:v1"]).success();
    project.run(&["inputs", "check"]).success();
    project.run(&["inputs", "export", "oci:kept"]).success();
    project.run(&["copy", "--all", "oci:all:v1", "oci:copied:v1"]).success();
    assert_eq!(project.digest("oci:copied:v1", "linux/arm64"), digests[1]);
    let explained = project
        .run(&["explain", "oci:all:v1", "/etc/motd", "--platform", other])
        .success();
    assert!(explained.stdout.contains("motd"), "{}", explained.stdout);
    for platforms in ["all", "linux/amd64,linux/arm64"] {
        let args = ["explain", "--json", "oci:all:v1", "/etc/motd", "--platform", platforms];
        let told = project.run(&args).success().stdout;
        let told = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let told: Vec<String> = told.map(|one| one["platform"].as_str().unwrap().to_owned()).collect();
        assert_eq!(told, PLATFORMS);
        let told = project
            .run(&["explain", "--scripts", "web", "--platform", platforms])
            .success();
        assert_eq!(told.stdout.matches("no script runs").count(), 2, "{}", told.stdout);
        assert!(told.stdout.starts_with("linux/amd64\n"), "{}", told.stdout);
    }
    project.run(&["check", "web"]).success().says(&[]);
    let sbom = project.run(&["sbom", "web", "--platform", "linux/arm64"]).success();
    assert!(sbom.stdout.contains("arch=arm64"), "{}", sbom.stdout);
    project
        .run(&["sbom", "web", "--platform", "linux/amd64,linux/arm64"])
        .exits(2)
        .says(&["name one of them"]);
    assert!(project.run(&["provenance", "web"]).success().stdout.contains(machine));
    assert!(project.run(&["closure", "web"]).success().stdout.contains("data"));
    let inputs = project.run(&["inputs", "list"]).success();
    for deb in ["prog_1.0_amd64.deb", "prog_1.0_arm64.deb", "shared_1.0_all.deb"] {
        assert_eq!(inputs.stdout.matches(deb).count(), 1, "{deb}: {}", inputs.stdout);
    }
    // Data that both have is one layer of both.
    let layers = |platform: &str| {
        let seen = project
            .run(&["inspect", "--json", "--platform", platform, "oci:all:v1"])
            .success();
        let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
        let layers = seen["layers"].as_array().unwrap().iter();
        layers
            .map(|layer| layer["digest"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (amd64, arm64) = (layers("linux/amd64"), layers("linux/arm64"));
    let shared = amd64.iter().filter(|layer| arm64.contains(layer)).count();
    assert!(shared >= 2 && shared < amd64.len(), "{amd64:?} {arm64:?}");
    // Each is made again from the spec.
    for platform in PLATFORMS {
        let rebuilt = project
            .run(&["rebuild", "oci:all:v1", "--platform", platform, "--spec", "."])
            .success();
        assert!(rebuilt.stdout.contains("same"), "{}", rebuilt.stdout);
    }
    // Recorded digests are of each platform.
    project.run(&["lock", "--golden"]).success();
    let lock = project.lock();
    assert!(digests.iter().all(|digest| lock.contains(digest.as_str())), "{lock}");
    project.run(&["build", "--locked", "-o", "oci:golden:v1"]).success();
}

/// A plan is kept for each platform, beside that for home.
#[test]
fn a_plan_is_kept_for_each_platform() {
    let Some(project) = Project::new(BOTH) else { return };
    project.write_spec_for("amd64", BOTH, "layers = { plan = \"web.plan.json\" }\n");
    let index = project.build("all", &[]);
    let read = |file: &str| fs::read_to_string(project.place.project.join(file)).unwrap();
    let plans = ["web.plan.json", "web.plan.arm64.json"].map(read);
    assert_ne!(plans[0], plans[1]);
    assert_eq!(project.build("again", &["--locked"]), index);
    let shown = project.run(&["plan", "web"]).success();
    assert_eq!(shown.stdout.matches("web (linux/").count(), 2, "{}", shown.stdout);
    project.run(&["plan", "web", "--save"]).success();
    project.run(&["plan", "web", "--platform", "linux/arm64"]).success();
    assert!(
        project
            .run(&["plan", "web", "--explain", "data"])
            .exits(2)
            .stderr
            .contains("2 are planned")
    );
}

/// Engines get the image for a platform out of an index at a registry.
fn engines_pull(project: &Project, name: &str, platform: &str) {
    let location = format!("docker://{name}");
    let architecture = platform.strip_prefix("linux/").unwrap();
    if have("podman", &["info"]) {
        let mut podman = podman(&project.place);
        podman.args(["pull", "-q", "--tls-verify=false", "--platform", platform, name]);
        let id = peer(&mut podman).line().to_owned();
        let seen = project
            .run(&["inspect", "--json", "--platform", platform, &location])
            .success();
        let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
        assert!(seen.to_string().contains(&id), "{id} is the image's ID: {seen}");
    }
    if have("docker", &["info"]) {
        let docker = |args: &[&str]| peer(Command::new("docker").args(args));
        docker(&["pull", "-q", "--platform", platform, name]);
        let seen = docker(&[
            "image",
            "inspect",
            "--format",
            "{{.Architecture}} {{json .RootFS.Layers}}",
            name,
        ]);
        let (found, layers) = seen.line().split_once(' ').unwrap();
        assert_eq!(found, architecture);
        let config = project.run(&["inspect", "--json", "--platform", platform, &location]);
        let config = config.success().stdout;
        let layers: Vec<String> = serde_json::from_str(layers).unwrap();
        assert!(
            layers.iter().all(|layer| config.contains(layer)),
            "{layers:?}\n{config}"
        );
        docker(&["rmi", "-f", name]);
    }
}

/// What is served is the index, and whoever pulls gets what is for the platform that is wanted.
#[test]
fn an_index_is_served_and_pulled_by_platform() {
    let Some(project) = Project::new(BOTH) else { return };
    let index = project.build("all", &[]);
    let served = Served::start(&project.place, &[]);
    let name = format!("{}/web", served.host);
    let location = format!("docker://{name}");
    for platform in PLATFORMS {
        assert_eq!(
            project.digest(&location, platform),
            project.digest("oci:all:v1", platform)
        );
        project.run(&["verify", &location, "--platform", platform]).success();
        engines_pull(&project, &name, platform);
    }
    let copied = project
        .run(&["copy", "--all", "--referrers", &location, "oci:copied:v1"])
        .success();
    assert!(copied.stdout.contains(&index), "{}", copied.stdout);
    if have("skopeo", &["--version"]) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args([
            "copy",
            "-q",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
            &location,
        ]);
        peer(skopeo.arg(format!("oci:{}:v1", project.place.project.join("skopeo").display())));
        let seen = project.run(&["inspect", "--json", "--platform", PLATFORMS[1], "oci:skopeo:v1"]);
        assert!(seen.success().stdout.contains("arm64"));
    }
    drop(served);
    // One of them alone.
    let [_, other] = machine_and_other();
    let served = Served::start(&project.place, &["--platform", other]);
    let location = format!("docker://{}/web", served.host);
    assert_eq!(project.digest(&location, other), project.digest("oci:all:v1", other));
}

/// One push is one index, of which everybody takes what is for them; what is kept beside it makes each again.
#[test]
fn an_index_is_pushed_and_pulled_by_platform() {
    let Some(project) = Project::new(BOTH) else { return };
    let Some(registry) = registry(&project.place, Demands::default()) else {
        return;
    };
    let name = format!("{}/team/web:1", registry.host);
    let cache = format!("docker://{}/team/cache", registry.host);
    let key = ["--cache-to", &cache, "--cache-unsigned"];
    let pushed = project
        .run(&[&["push", "--inputs=all", "web", name.as_str()], &key[..]].concat())
        .success();
    let index = pushed.line().split(' ').next().unwrap().to_owned();
    assert_eq!(index, project.build("all", &[]));
    let location = format!("docker://{name}");
    for platform in PLATFORMS {
        let digest = project.digest(&location, platform);
        assert_eq!(digest, project.digest("oci:all:v1", platform));
        project.run(&["verify", &location, "--platform", platform]).success();
        // From what is kept beside it, and nothing else.
        let elsewhere = project.place.elsewhere();
        let rebuilt = elsewhere.run(&["rebuild", &location, "--platform", platform]).success();
        assert!(rebuilt.stdout.contains("same"), "{}", rebuilt.stdout);
        if have("skopeo", &["--version"]) {
            let architecture = platform.strip_prefix("linux/").unwrap();
            let mut skopeo = Command::new("skopeo");
            skopeo.args(["--override-arch", architecture, "inspect", "--tls-verify=false"]);
            skopeo.args(["--config", &location]);
            let config: Value = serde_json::from_str(&peer(&mut skopeo).stdout).unwrap();
            assert_eq!(config["architecture"], architecture);
        }
        engines_pull(&project, &name, platform);
    }
    // Somebody else finds both, and builds none.
    let from = ["--cache-from", &cache, "--cache-unsigned", "--locked"];
    let other = project.place.elsewhere();
    let second = format!("{}/team/web:2", registry.host);
    let found = other
        .run(&[&["push", "web", second.as_str()], &from[..]].concat())
        .success();
    let found = found.says(&["nothing is built"]);
    assert!(found.line().starts_with(&index), "{}", found.stdout);
}
