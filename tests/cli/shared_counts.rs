//! What shared caches save, counted where it would arrive, and what is refused before anything is done for it.

use std::collections::BTreeSet;

use crate::registry::registry;
use crate::served::{Demands, Registry};
use crate::shared_builds::{Builder, SPEC};
use crate::support::{Place, Ran};

/// The requests that a command made of a registry.
struct Counted {
    mounted: usize,
    /// Blobs that were sent, in pieces or whole.
    sent: BTreeSet<String>,
    all: usize,
}

fn counted(registry: &Registry, command: impl FnOnce() -> Ran) -> Counted {
    let before = registry.requests().len();
    command().success();
    let requests = registry.requests().split_off(before);
    let is_upload = |path: &str| path.contains("/blobs/uploads/");
    let mounts = requests.iter().filter(|(method, path, status)| {
        method == "POST" && is_upload(path) && path.contains("mount=") && *status == 201
    });
    let sent = requests
        .iter()
        .filter(|(method, path, _)| matches!(method.as_str(), "PUT" | "PATCH") && is_upload(path))
        .map(|(_, path, _)| path.split('?').next().unwrap_or_default().to_owned());
    Counted {
        mounted: mounts.count(),
        sent: sent.collect(),
        all: requests.len(),
    }
}

/// The layers of an image are those of the cache: their bytes are in the registry, and what is pushed is names for them.
#[test]
fn what_is_in_a_cache_of_the_same_registry_is_mounted_and_not_sent() {
    let builder = Builder::new();
    let demands = Demands {
        log: true,
        ..Demands::default()
    };
    let Some(registry) = registry(&builder.place, demands) else {
        return;
    };
    let host = &registry.host;
    let cache = format!("docker://{host}/cache");
    builder.fill(&["push", "app", &format!("{host}/app:1")], &cache);
    let image = format!("docker://{host}/app:1");
    let layers = builder.place.inspect_layers(&image, "digest").len();
    let as_it_is = builder.place.elsewhere();
    let edited = builder.place.elsewhere();
    let spec = SPEC.replace("contents = [\"app\"]", "contents = [\"app\"]\nuser = \"1:1\"");
    edited.write("layerize.toml", &spec);
    // An image that is in the cache itself, and one whose packages are.
    for (number, place) in [as_it_is, edited].iter().enumerate() {
        let name = format!("{host}/team/app{number}:1");
        let push = builder.reading(&["push", "--locked", "app", &name, "--no-inputs"], &cache);
        let Counted { mounted, sent, all } = counted(&registry, || place.run(&push));
        // What is sent is the config, which is no layer.
        assert_eq!(
            (mounted, sent.len()),
            (layers, 1),
            "{number}: of {all} requests; {sent:?}"
        );
        place.run(&["verify", &format!("docker://{name}")]).success();
    }
}

/// Nothing is fetched and nothing is built for images that cannot all have one name.
#[test]
fn several_images_to_one_name_are_refused_before_anything_is_done() {
    let place = Place::new();
    let spec = "[package.gone]\nsource = { url = \"http://127.0.0.1:1/gone.tar\", sha256 = \"0\" }\n\
                [image.one]\ncontents = [\"gone\"]\n[image.two]\ncontents = [\"gone\"]\n";
    place.write(
        "layerize.toml",
        &spec.replace("\"0\"", &format!("\"{}\"", "0".repeat(64))),
    );
    for (arguments, says) in [
        (
            &["push", "127.0.0.1:1/name:1"][..],
            "2 images are to be pushed to one name",
        ),
        (
            &["push", "one", "two", "127.0.0.1:1/name:1"],
            "2 images are to be pushed to one name",
        ),
        (&["build", "-o", "oci:out:v1"], "2 images"),
        (&["build", "one", "two", "-o", "docker-archive:out.tar"], "2 images"),
        (
            &["build", "one", "two", "-o", "docker://127.0.0.1:1/name:1"],
            "2 images",
        ),
    ] {
        let ran = place.run(arguments).exits(2).says(&[says]);
        for done in ["fetch", "gone", "connect"] {
            assert!(!ran.stderr.contains(done), "{arguments:?}: {}", ran.stderr);
        }
    }
    assert!(!place.project.join("layerize.lock").exists());
    assert!(!place.project.join("out").exists());
}
