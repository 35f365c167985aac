//! What decides an image's digest is in its recipe, and so in everything that derives from it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::image::AccountFiles;
use crate::image::recipe::each_changed;
use crate::layer::partition::{History, PlanOptions, partition};
use crate::oci::{LayerStrategy, TarProfile, canonical_json};
use crate::spec::{Dependency, Image as SpecImage, Layers, PackageName, PermissionPaths};

/// An image with something of everything, so that whatever is changed changes something.
fn sample() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.member("lib-1.0", &[("lib/x", "1")], &[]);
    fixture.member("spare-1.0", &[("lib/y", "2")], &[]);
    fixture.content("app", &[("bin/app", "#!/usr/bin/sh\n"), ("share/x/y", "1")]);
    fixture.package("sh", &[("usr/bin/sh", "#!"), ("usr/bin/rsh", "-> sh")]);
    fixture.package("data", &[("usr/share/data", "1")]);
    write_tree(fixture.dir.path(), &[("conf", "text"), ("other", "TEXT")]);
    fixture.file("/etc/conf", ImageFileKind::Source("conf".to_owned()));
    fixture.user("web", 7, "/home/web");
    fixture.spec.entrypoint = vec!["app".to_owned()];
    fixture
}

fn digest(recipe: &Recipe) -> Option<Digest> {
    assemble(recipe, &Resources::default(), &Silent)
        .ok()
        .map(|image| image.digest())
}

fn diff_ids(recipe: &Recipe) -> Option<Vec<crate::digest::DiffId>> {
    let image = assemble(recipe, &Resources::default(), &Silent).ok()?;
    image.layers.iter().map(|layer| layer.diff_id).collect()
}

/// Every field of the recipe that the rest of it does not have, changed in turn.
fn with_other_fields(fixture: &Fixture) -> Vec<(&'static str, Recipe)> {
    let base = Base {
        name: Some("docker.io/library/base:1".to_owned()),
        image: Fixture::new().assemble().unwrap(),
        accounts: Some(AccountFiles::default()),
        links: None,
    };
    let single = PlanOptions {
        strategy: "single".parse().unwrap(),
        ..PlanOptions::default()
    };
    let graph = closure_graph(&fixture.recipe()).unwrap();
    let coarse = partition(&graph, &single).unwrap();
    let mut history = History::default();
    let earlier = partition(&graph, &single).unwrap();
    let mut later = fixture.recipe();
    later.closure[0].logical = later.closure[0]
        .logical
        .as_str()
        .replace("/layerize/store/0", "/layerize/store/1")
        .parse()
        .unwrap();
    history.observe(&earlier, &closure_graph(&later).unwrap());
    let configured = Configured {
        logical: "/layerize/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-configured"
            .parse()
            .unwrap(),
        physical: PathBuf::from("/nowhere"),
        nar_hash: Digest::of(b"configured"),
        numbers: BTreeMap::new(),
    };
    let debug = crate::image::Debug {
        tools: fixture.recipe().closure[0].clone(),
        debs: Vec::new(),
        built: Vec::new(),
        taken: BTreeSet::new(),
    };
    each_changed!(Recipe, fixture.recipe(), {
        spec: |spec| spec.labels.insert("spec".to_owned(), "other".to_owned()),
        files: |files| files.clear(),
        contents: |contents| contents.clear(),
        closure: |closure| closure.retain(|member| member.name != "spare-1.0"),
        root: |root| root.truncate(1),
        configured: |place| *place = Some(configured.clone()),
        generated: |generated| generated.push(Generated {
            path: "/made".to_owned(),
            kind: GeneratedKind::Symlink("x".to_owned()),
        }),
        base: |place| *place = Some(base.clone()),
        platform: |platform| *platform = "linux/arm64".parse().unwrap(),
        created: |created| *created = 2,
        compression: |compression| *compression = Compression::None,
        single_member: |single| *single = true,
        tar_profile: |profile| *profile = TarProfile::Nix2container,
        plan: |plan| *plan = Some(coarse.clone()),
        previous: |previous| *previous = Some(coarse.clone()),
        history: |place| *place = history.clone(),
        debug: |place| *place = Some(debug.clone()),
    })
}

/// Every field of the image's layers, changed in turn.
fn other_layers(fixture: &Fixture) -> Vec<(&'static str, Layers)> {
    each_changed!(Layers, fixture.spec.layers.clone(), {
        strategy: |strategy| *strategy = Some(spanned(LayerStrategy::Single)),
        tar_profile: |profile| *profile = Some(spanned(TarProfile::Dockertools)),
        max: |max| *max = Some(limit(4)),
        beyond_docker: |beyond| *beyond = true,
        groups: |groups| groups.push(vec!["lib-1.0".to_owned(), "spare-1.0".to_owned()]),
        weights: |weights| weights.insert("lib-1.0".to_owned(), 7),
        plan: |plan| *plan = Some(spanned("plan.json".to_owned())),
    })
}

/// A test of an image.
fn a_test() -> spec::ImageTest {
    spec::ImageTest {
        name: spanned("starts".to_owned()),
        run: None,
        args: Vec::new(),
        env: BTreeMap::new(),
        user: None,
        stdin: None,
        exec: Vec::new(),
        timeout: 60,
        expect: spec::Expectation::default(),
    }
}

/// A rule of an image.
fn a_permission() -> spec::Permission {
    spec::Permission {
        paths: PermissionPaths::Path("/tmp".to_owned()),
        mode: Some(0o700),
        owner: None,
        group: None,
        capabilities: None,
    }
}

/// Every field of the spec's image, changed in turn; the files are read again.
fn with_other_spec(fixture: &Fixture) -> Vec<(&'static str, Recipe)> {
    let images = each_changed!(SpecImage, fixture.spec.clone(), {
        name: |name| name.value = "other".to_owned(),
        dir: |dir| *dir = dir.join("."),
        tag: |tag| *tag = "other".to_owned(),
        contents: |contents| contents.push(spanned(Dependency::Package(PackageName("x".to_owned())))),
        root: |root| root.push(spanned(Dependency::Debian("x".to_owned()))),
        lay: |laid| laid.insert("/x".to_owned(), spanned(PackageName("x".to_owned()))),
        base: |base| *base = Some(spanned("oci:base".to_owned())),
        files: |files| {
            let file = files.get_mut("/etc/conf").unwrap();
            file.value.kind = ImageFileKind::Source("other".to_owned());
        },
        users: |users| users.get_mut("web").unwrap().value.uid = 8,
        entrypoint: |words| words.push("x".to_owned()),
        cmd: |words| words.push("x".to_owned()),
        env: |env| env.insert("A".to_owned(), "B".to_owned()),
        workdir: |dir| *dir = Some("/w".to_owned()),
        user: |user| *user = Some("web".to_owned()),
        ports: |ports| ports.push("80".parse().unwrap()),
        volumes: |volumes| volumes.push("/v".to_owned()),
        labels: |labels| labels.insert("a".to_owned(), "b".to_owned()),
        annotations: |annotations| annotations.insert("a".to_owned(), "b".to_owned()),
        allow_missing: |names| names.push("libcuda.so.1".to_owned()),
        stop_signal: |signal| *signal = "SIGINT".parse().ok(),
        healthcheck: |check| *check = Some(spec::HealthCheck::Off),
        tests: |tests| tests.push(a_test()),
        layers: |layers| layers.max = Some(limit(5)),
        platforms: |platforms| platforms.push(spanned("linux/arm64".parse().unwrap())),
        compression: |compression| *compression = Some(spanned(Compression::None)),
        permissions: |permissions| permissions.push(a_permission()),
        created: |created| *created = Some(5),
        nix_db: |nix_db| *nix_db = true,
        debconf: |answers| answers.insert("a/b".to_owned(), "c".to_owned()),
        locales: |locales| locales.push("en_US.UTF-8".to_owned()),
        timezone: |zone| *zone = Some(crate::spec::Spanned::nowhere("Europe/Berlin".to_owned())),
        utf8: |utf8| *utf8 = !*utf8,
        join: |join| *join = Some(crate::spec::Join::Closure),
        exclude: |exclude| exclude.push(crate::spec::Spanned::nowhere("deb".to_owned())),
        configure: |configure| *configure = Some(spec::Configure::default()),
        certificates: |certificates| *certificates = Some(spec::Certificates::default()),
        debug: |debug| *debug = Some(spec::DebugImage {
            of: "first".to_owned(),
            tools: vec!["gdb".to_owned()],
        }),
    });
    let layers = other_layers(fixture);
    let layers = layers.into_iter().map(|(field, layers)| {
        let spec = SpecImage {
            layers,
            ..fixture.spec.clone()
        };
        (field, spec)
    });
    let recipes = images.into_iter().chain(layers).map(|(field, spec)| {
        let recipe = Recipe::new(spec, fixture.recipe().platform, 1).unwrap();
        let full = fixture.recipe();
        let recipe = Recipe {
            contents: full.contents,
            closure: full.closure,
            root: full.root,
            ..recipe
        };
        (field, recipe)
    });
    recipes.collect()
}

/// What is no part of an image: its names, where its files are on this machine, and what is tried of it. What the recipe has resolved (the
/// platform, the compression, the date, the tar profile) counts there.
const NO_PART: [&str; 8] = [
    "name",
    "dir",
    "tag",
    "platforms",
    "compression",
    "created",
    "tar_profile",
    "tests",
];

#[test]
fn every_field_is_in_the_recipe_and_in_what_derives_from_it() {
    let fixture = sample();
    let plain = fixture.recipe();
    let plain_digest = digest(&plain).expect("the sample is sound");
    let plain_layers = diff_ids(&plain);
    let mut seen = BTreeSet::from([canonical_json(&plain)]);
    let mut other_digests = 0;
    for (of_spec, (field, recipe)) in with_other_fields(&fixture)
        .into_iter()
        .map(|changed| (false, changed))
        .chain(with_other_spec(&fixture).into_iter().map(|changed| (true, changed)))
    {
        let no_part = of_spec && NO_PART.contains(&field);
        let is_new = seen.insert(canonical_json(&recipe));
        assert!(is_new || no_part, "{field} is not in the recipe");
        let digest = digest(&recipe);
        other_digests += usize::from(digest.is_some_and(|digest| digest != plain_digest));
        if no_part {
            assert_eq!(digest, Some(plain_digest), "{field}");
            assert!(recipe.asked_beyond(&plain).is_empty(), "{field}");
        } else if ![
            "files",
            "contents",
            "closure",
            "root",
            "configured",
            "generated",
            "base",
            "debug",
        ]
        .contains(&field)
            || of_spec
        {
            assert!(
                !recipe.asked_beyond(&plain).is_empty(),
                "{field}: a digest would be recorded"
            );
        }
        // The oracle: whatever gives other layers has another key in the image cache.
        let unlike = diff_ids(&recipe) != plain_layers;
        let rules_of_layers = !of_spec && field == "tar_profile";
        if unlike && !rules_of_layers {
            assert_ne!(recipe.layout_key(0), plain.layout_key(0), "{field}");
        }
    }
    assert!(
        other_digests >= 25,
        "only {other_digests} changes gave another digest: the sample lost its point"
    );
}

#[test]
fn what_is_asked_beyond_is_told_by_key() {
    let fixture = sample();
    let plain = fixture.recipe();
    let mut recipe = plain.clone();
    recipe.spec.layers.max = Some(limit(7));
    recipe.spec.env.insert("A".to_owned(), "B".to_owned());
    recipe.single_member = true;
    let beyond = Value::Object(recipe.asked_beyond(&plain));
    assert_eq!(
        beyond,
        serde_json::json!({ "env": { "A": "B" }, "layers": { "max": 7 }, "single-member": true })
    );
    assert!(plain.asked_beyond(&plain).is_empty());
}

#[test]
fn a_recipe_names_no_place_of_this_machine() {
    let fixture = sample();
    let text = String::from_utf8(canonical_json(&fixture.recipe())).unwrap();
    let dir = fixture.dir.path().to_str().unwrap();
    assert!(!text.contains(dir), "{text}");
}
