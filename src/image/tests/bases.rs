//! What a base's documents and directories do to the image over it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::transport::testing::{Node, image_of, layer, tar};

/// What is known of a base's directories.
type Links<'a> = Option<&'a [(&'a str, BaseEntry)]>;

/// A base of one layer with this config, changed.
fn base(change: impl Fn(&mut Value), links: Links<'_>) -> Base {
    let layers = vec![layer(&tar(&[Node::dir("usr")]), Compression::None)];
    let diff_ids: Vec<_> = layers.iter().filter_map(|layer| layer.diff_id).collect();
    let mut config = json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    change(&mut config);
    let links = links.map(|links| {
        let links = links.iter().map(|(path, entry)| ((*path).to_owned(), entry.clone()));
        links.collect::<BTreeMap<_, _>>()
    });
    Base {
        name: None,
        image: image_of(layers, &config, None),
        accounts: None,
        links,
    }
}

fn over(base: Base, fixture: &Fixture) -> Result<Image, String> {
    let recipe = Recipe {
        base: Some(base),
        ..fixture.recipe()
    };
    assemble(&recipe, &Resources::default(), &Silent).map_err(|error| error.to_string())
}

fn file(path: &str) -> Fixture {
    let mut fixture = Fixture::new();
    write_tree(fixture.dir.path(), &[("app", "#!")]);
    fixture.file(path, ImageFileKind::Source("app".to_owned()));
    fixture
}

/// Alpine and busybox have directories where a merged `/usr` has links.
#[test]
fn what_goes_to_bin_goes_to_where_bin_of_the_base_leads() {
    let link = |target: &str| BaseEntry::Symlink(target.to_owned());
    let cases: [(Links<'_>, &str); 6] = [
        (None, "usr/bin/app"),
        (Some(&[("bin", link("usr/bin"))]), "usr/bin/app"),
        (
            Some(&[("bin", BaseEntry::Directory), ("usr/bin", BaseEntry::Directory)]),
            "bin/app",
        ),
        (Some(&[]), "bin/app"),
        (
            Some(&[("bin", link("/usr/sbin")), ("usr/sbin", link("x"))]),
            "usr/x/app",
        ),
        (Some(&[("bin", link("../usr/./bin/"))]), "usr/bin/app"),
    ];
    for (links, expected) in cases {
        let image = over(base(|_| {}, links), &file("/bin/app")).unwrap();
        let entries = entries(image.layers.last().unwrap());
        let found = entries.iter().find(|entry| entry.ends_with("app")).unwrap();
        assert!(found.ends_with(&format!(" {expected}")), "{links:?}: {entries:?}");
        assert!(
            !entries.iter().any(|entry| entry.starts_with('l')),
            "no link of the base is made again: {entries:?}"
        );
    }
}

/// The links that Debian's packages bring would take the place of the directories of such a base.
#[test]
fn packages_laid_out_at_the_root_need_a_base_that_is_laid_out_like_them() {
    let mut fixture = Fixture::new();
    fixture.package("tool", &[("usr/bin/tool", "#!")]);
    let links: &[(&str, BaseEntry)] = &[("bin", BaseEntry::Directory)];
    assert_eq!(
        over(base(|_| {}, Some(links)), &fixture).unwrap_err(),
        "`/bin` is a directory in the base and a symlink in the packages of `root`"
    );
    let links: &[(&str, BaseEntry)] = &[("bin", BaseEntry::Symlink("usr/bin".to_owned()))];
    over(base(|_| {}, Some(links)), &fixture).unwrap();
}

/// Engines demand as many entries that made layers as there are layers.
#[test]
fn a_history_that_does_not_fit_the_layers_is_made_to() {
    let step = |text: &str| json!({ "created_by": text });
    let empty = json!({ "created_by": "ENV", "empty_layer": true });
    for (history, expected) in [
        (json!(null), vec![None]),
        (json!([]), vec![None]),
        (json!([empty]), vec![Some("ENV"), None]),
        (json!([step("ADD"), empty]), vec![Some("ADD"), Some("ENV")]),
        (json!([step("ADD"), step("RUN")]), vec![None]),
    ] {
        let image = over(base(|config| config["history"] = history.clone(), None), &file("/app")).unwrap();
        let config = image.config.image().unwrap();
        let (_, own) = config.history.split_last().map(|(own, below)| (below, own)).unwrap();
        let below = &config.history[..config.history.len() - 1];
        let told: Vec<_> = below.iter().map(|entry| entry.created_by.as_deref()).collect();
        assert_eq!(told, expected, "{history}");
        assert_eq!(own.created_by.as_deref(), Some("layerize"));
        assert_sound(&image);
    }
}

#[test]
fn what_a_base_says_of_containers_is_understood_or_refused() {
    let run = |run: Value| over(base(|config| config["config"] = run.clone(), None), &file("/app"));
    let nulls =
        json!({ "Labels": null, "Env": null, "Entrypoint": null, "Cmd": null, "Volumes": null, "ExposedPorts": null });
    assert_sound(&run(nulls).unwrap());
    assert_sound(&run(json!({ "Labels": { "a": null } })).unwrap());
    let image = run(json!({ "ExposedPorts": { "33060-33061/tcp": {}, "53/udp": {} } })).unwrap();
    let ports = &image.config.image().unwrap().execution.exposed_ports;
    assert_eq!(ports.iter().collect::<Vec<_>>(), ["33060/tcp", "33061/tcp", "53/udp"]);
    for (config, reason) in [
        (json!({ "ExposedPorts": { "http": {} } }), "`http` is not a port"),
        (
            json!({ "User": "4294967295" }),
            "Docker starts no container with one above 2147483647",
        ),
        (
            json!({ "User": "0:2147483648" }),
            "Docker starts no container with one above 2147483647",
        ),
    ] {
        let error = run(config).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    run(json!({ "User": "2147483647" })).unwrap();
}

#[test]
fn a_base_of_another_system_is_refused() {
    let windows = |config: &mut Value| {
        config["os"] = json!("windows");
        config["os.version"] = json!("10.0.17763.1");
    };
    let error = over(base(windows, None), &file("/app")).unwrap_err();
    assert!(error.contains("layerize makes images for Linux"), "{error}");
    let error = over(
        base(|config| config["architecture"] = json!("arm64"), None),
        &file("/app"),
    )
    .unwrap_err();
    assert_eq!(error, "the base is for `linux/arm64`, the image for `linux/amd64`");
}

/// Which specs make it worth reading a base's layers.
#[test]
fn links_are_looked_up_where_the_spec_names_a_path_below_one() {
    let needs = |change: &dyn Fn(&mut spec::Image)| {
        let mut fixture = Fixture::new();
        change(&mut fixture.spec);
        needs_links(&fixture.spec)
    };
    assert!(!needs(&|_| {}));
    assert!(!needs(&|spec| spec.entrypoint = vec!["app".to_owned()]));
    assert!(!needs(&|spec| spec.entrypoint = vec!["/usr/bin/app".to_owned()]));
    assert!(!needs(
        &|spec| spec.env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())])
    ));
    assert!(needs(&|spec| spec.entrypoint = vec!["/bin/app".to_owned()]));
    assert!(needs(
        &|spec| spec.cmd = vec!["sh".to_owned(), "-c".to_owned(), "exec /sbin/init".to_owned()]
    ));
    assert!(needs(&|spec| spec.workdir = Some("/var/run/app".to_owned())));
    assert!(needs_links(&file("/lib/x").spec));
}
