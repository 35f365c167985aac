//! Every place that an image can be in, as the source and as the sink of a copy: a row for each pair of places.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::copy::build;
use crate::registry::registry_in;
use crate::served::{Demands, Registry};
use crate::support::{Place, Ran, have, peer};

/// A kind of place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `docker-archive:FILE`.
    DockerArchive,
    /// `oci-archive:FILE`.
    OciArchive,
    /// `oci:DIR`.
    Layout,
    /// Standard output of one command, or standard input of the other.
    Pipe,
    /// As a source one registry, as a sink another.
    Registry,
    /// Docker's daemon.
    Docker,
    /// podman's storage.
    Podman,
}

const KINDS: [Kind; 7] = [
    Kind::DockerArchive,
    Kind::OciArchive,
    Kind::Layout,
    Kind::Pipe,
    Kind::Registry,
    Kind::Docker,
    Kind::Podman,
];

impl Kind {
    /// Engines keep config and layers, and make a manifest of their own.
    pub fn is_engine(self) -> bool {
        matches!(self, Self::Docker | Self::Podman)
    }

    /// Whether an index fits there.
    pub fn holds_indexes(self) -> bool {
        matches!(self, Self::OciArchive | Self::Layout | Self::Registry)
    }
}

/// All places at once, as far as this machine has them.
pub struct Places {
    /// Where commands run.
    pub place: Place,
    registries: Option<[Registry; 2]>,
    /// What names in engines begin with.
    mark: String,
    /// What this machine has.
    pub kinds: Vec<Kind>,
}

impl Drop for Places {
    fn drop(&mut self) {
        if self.kinds.contains(&Kind::Docker) {
            let pattern = format!("reference=*{}*", self.mark);
            let listed = peer(Command::new("docker").args(["image", "ls", "-q", "--filter", &pattern]));
            for id in listed.stdout.lines() {
                // Several names may be of one image.
                let _ = Command::new("docker").args(["rmi", "-f", id]).output();
            }
        }
    }
}

impl Places {
    /// All that this machine has; what it lacks is said.
    pub fn new() -> Self {
        let place = Place::new();
        let registries = registry_in(&place, "one", Demands::default())
            .map(|one| [one, registry_in(&place, "two", Demands::default()).unwrap()]);
        let has = |kind: &Kind| match kind {
            Kind::Registry => registries.is_some(),
            Kind::Docker => have("docker", &["info"]),
            Kind::Podman => have("podman", &["--version"]),
            _ => true,
        };
        let kinds: Vec<Kind> = KINDS.into_iter().filter(has).collect();
        if kinds.contains(&Kind::Podman) {
            own_podman(&place);
        }
        Self {
            mark: format!("layerize-test-places-{}", std::process::id()),
            place,
            registries,
            kinds,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        let bin = self.place.project.join("bin");
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()));
        command
    }

    /// Runs `layerize` to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Where `tag` is in a place of a kind, as a source (`at` 0) or as a sink (`at` 1).
    pub fn location(&self, kind: Kind, tag: &str, at: usize) -> String {
        let mark = &self.mark;
        match kind {
            Kind::DockerArchive => format!("docker-archive:{at}{tag}.docker.tar:{mark}:{tag}"),
            Kind::OciArchive => format!("oci-archive:{at}{tag}.oci.tar:{tag}"),
            Kind::Layout => format!("oci:layout{at}:{tag}"),
            Kind::Pipe => "-".to_owned(),
            Kind::Registry => {
                let host = &self.registries.as_ref().unwrap()[at].host;
                format!("docker://{host}/team/app:{tag}")
            }
            Kind::Docker => format!("docker-daemon:{mark}-{at}:{tag}"),
            Kind::Podman => format!("containers-storage:localhost/{mark}-{at}:{tag}"),
        }
    }

    /// Copies from one place to another: standard input is the file `0source`, standard output becomes `1TAG`.
    pub fn copy(&self, from: (Kind, &str), to: (Kind, &str)) -> Ran {
        let (source, sink) = (self.location(from.0, from.1, 0), self.location(to.0, to.1, 1));
        let mut command = self.command(&["copy", &source, &sink]);
        if from.0 == Kind::Pipe {
            command.stdin(fs::File::open(self.place.project.join("source.tar")).unwrap());
        }
        let piped = self.place.project.join(format!("1{}.pipe.tar", to.1));
        if to.0 != Kind::Pipe {
            return Ran::of(command.output().unwrap());
        }
        command.stdout(Stdio::from(fs::File::create(piped).unwrap()));
        Ran::of(command.output().unwrap())
    }

    /// Digest, config digest and diffIDs of what a copy wrote.
    fn identity(&self, kind: Kind, tag: &str) -> (Value, Value, Vec<Value>) {
        let location = match kind {
            Kind::Pipe => format!("1{tag}.pipe.tar"),
            kind => self.location(kind, tag, 1),
        };
        let seen = self.run(&["inspect", "--json", &location]).success();
        identity_of(&serde_json::from_str(&seen.stdout).unwrap())
    }
}

fn identity_of(seen: &Value) -> (Value, Value, Vec<Value>) {
    let layers = seen["layers"].as_array().unwrap().iter();
    (
        seen["digest"].clone(),
        seen["config_digest"].clone(),
        layers.map(|layer| layer["diff_id"].clone()).collect(),
    )
}

/// A `podman` whose images are in the place itself.
fn own_podman(place: &Place) {
    let program = peer(Command::new("sh").args(["-c", "command -v podman"]));
    let at = |name: &str| place.path().join(name).display().to_string();
    let script = format!(
        "#!/bin/sh\nexec {} --root {} --runroot {} --storage-driver vfs --cgroup-manager cgroupfs --runtime runc \"$@\"\n",
        program.line(),
        at("podman"),
        at("podman-run")
    );
    place.write("bin/podman", &script);
    let podman = place.project.join("bin/podman");
    fs::set_permissions(&podman, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Where neither end is an engine the manifest's bytes stay what they are; engines keep the config's bytes and the tars
/// of the layers (the image ID and the diffIDs), which is all that they can give back.
#[test]
fn an_image_is_copied_between_every_pair_of_places() {
    let places = Places::new();
    build(&places.place, "text", &["-o", "oci:made:v1"]);
    let made = identity_of(&places.place.inspect("oci:made:v1"));
    for kind in &places.kinds {
        let sink = match kind {
            Kind::Pipe => "docker-archive:source.tar".to_owned(),
            kind => places.location(*kind, "source", 0),
        };
        places.run(&["copy", "oci:made:v1", &sink]).success();
    }
    let mut wrong = Vec::new();
    for from in &places.kinds {
        for to in &places.kinds {
            let tag = format!("from-{}", format!("{from:?}").to_lowercase());
            let ran = places.copy((*from, "source"), (*to, &tag));
            if ran.status != 0 {
                wrong.push(format!("{from:?} → {to:?}: status {}: {}", ran.status, ran.stderr));
                continue;
            }
            let found = places.identity(*to, &tag);
            let same =
                (from.is_engine() || to.is_engine() || found.0 == made.0) && (&found.1, &found.2) == (&made.1, &made.2);
            if !same {
                wrong.push(format!("{from:?} → {to:?}: {found:?}, not {made:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What an index lists goes along, in places that hold indexes.
#[test]
fn a_whole_index_is_copied_between_every_pair_of_places_that_hold_one() {
    let places = Places::new();
    for architecture in ["amd64", "arm64"] {
        let (platform, sink) = (format!("linux/{architecture}"), format!("oci:parts:{architecture}"));
        build(&places.place, architecture, &["--platform", &platform, "-o", &sink]);
    }
    let kinds: Vec<&Kind> = places.kinds.iter().filter(|kind| kind.holds_indexes()).collect();
    let digest_of = |ran: &Ran| ran.line().split(' ').next().unwrap().to_owned();
    let mut made = None;
    for kind in &kinds {
        let sink = places.location(**kind, "source", 0);
        let created = places
            .run(&["index", "create", &sink, "oci:parts:amd64", "oci:parts:arm64"])
            .success();
        assert_eq!(made.get_or_insert_with(|| digest_of(&created)), &digest_of(&created));
    }
    let made = made.unwrap();
    for from in &kinds {
        for to in &kinds {
            let tag = format!("from-{}", format!("{from:?}").to_lowercase());
            let (source, sink) = (places.location(**from, "source", 0), places.location(**to, &tag, 1));
            let copied = places.run(&["copy", "--all", &source, &sink]).success();
            assert_eq!(digest_of(&copied), made, "{from:?} → {to:?}");
            for platform in ["linux/amd64", "linux/arm64"] {
                places.run(&["verify", "--platform", platform, &sink]).success();
            }
        }
    }
}

/// The verbs that read at one registry while they write to another: each was once a blocking call inside the other's
/// runtime.
#[test]
fn every_verb_that_writes_reads_from_another_registry() {
    let places = Places::new();
    let Some([one, two]) = &places.registries else {
        return;
    };
    let (one, two) = (
        |name: &str| format!("docker://{}/{name}", one.host),
        |name: &str| format!("docker://{}/{name}", two.host),
    );
    let digest = build(&places.place, "base", &["-o", &one("base:1")]);
    let same = |image: &str| {
        places.run(&["verify", image]).success();
        places.place.inspect(image)["digest"] == digest.as_str()
    };
    // Into another repository of the same registry it is mounted, into the other one it is sent.
    places
        .run(&["copy", &one("base:1"), &one("elsewhere/base:1")])
        .success();
    assert!(same(&one("elsewhere/base:1")));
    let index = [&two("index:1"), &one("base:1")];
    places.run(&["index", "create", index[0], index[1]]).success();
    assert!(same(&two("index:1")));
    places
        .run(&["index", "add", index[0], &one("elsewhere/base:1")])
        .success();
    assert!(same(&two("index:1")));

    fs::create_dir_all(places.place.project.join("top/share")).unwrap();
    places.place.write("top/share/top", "top\n");
    let top = places.run(&["store", "add", "top"]).success().line().to_owned();
    let (base, sink) = (one("base:1"), two("top:1"));
    places
        .run(&["build", &top, "--name", "top:1", "--base", &base, "-o", &sink])
        .success();
    places.run(&["verify", &sink]).success();
    let layers = |image: &str| places.place.inspect_layers(image, "diff_id");
    let (below, all) = (layers(&base), layers(&sink));
    assert_eq!(all[..below.len()], below);
    assert!(all.len() > below.len());
}
