//! Debian's maintainer scripts, run while an image is made: what they make is in the image, what ran them is not.

use std::collections::BTreeSet;
use std::process::Command;

use crate::support::{Place, have, in_another_world, peer};

/// A site that only nginx's postinst enables, an account of its own, and nothing that ran the scripts.
const SPEC: &str = r#"
[image.web]
root = ["deb:nginx"]
entrypoint = ["/usr/sbin/nginx", "-t"]
"#;

fn place() -> Option<Place> {
    if !have("apt-get", &["--version"]) {
        return None;
    }
    let place = Place::new();
    place.write("layerize.toml", SPEC);
    place.run(&["lock"]).success();
    Some(place)
}

/// The paths in an image, as another tool unpacks it.
fn paths(place: &Place, archive: &str) -> BTreeSet<String> {
    let unpacked = place.path().join("layers");
    std::fs::create_dir(&unpacked).unwrap();
    peer(
        Command::new("tar")
            .arg("-xf")
            .arg(place.project.join(archive))
            .current_dir(&unpacked),
    );
    let manifest = std::fs::read_to_string(unpacked.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let mut paths = BTreeSet::new();
    for layer in manifest[0]["Layers"].as_array().unwrap() {
        let listed = peer(
            Command::new("tar")
                .args(["-tf", layer.as_str().unwrap()])
                .current_dir(&unpacked),
        );
        paths.extend(
            listed
                .stdout
                .lines()
                .map(|line| line.trim_matches(['.', '/']).to_owned()),
        );
    }
    paths
}

/// A file of an image, as another tool unpacks it: that of the topmost layer that has it.
fn file(place: &Place, archive: &str, path: &str) -> String {
    let unpacked = tempfile::tempdir().unwrap();
    let tar = |arguments: &[&str]| {
        let mut tar = Command::new("tar");
        let output = tar.args(arguments).current_dir(unpacked.path()).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let archive = place.project.join(archive);
    assert!(tar(&["-xf", archive.to_str().unwrap()]).0);
    let manifest = std::fs::read_to_string(unpacked.path().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let mut layers = manifest[0]["Layers"].as_array().unwrap().iter().rev();
    let found = layers.find_map(|layer| {
        let (is_there, text) = tar(&["-xOf", layer.as_str().unwrap(), path]);
        is_there.then_some(text)
    });
    found.unwrap_or_else(|| panic!("no layer has {path}"))
}

/// Users keep their numbers whoever comes beside them, with a lock that has them and with one that has none yet, and the
/// spec's own win.
#[test]
fn a_user_keeps_its_number_whoever_is_installed_beside_it() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::new();
    let spec = |root: &str, rest: &str| {
        let entrypoint = "entrypoint = [\"/usr/bin/redis-server\"]";
        place.write(
            "layerize.toml",
            &format!("[image.web]\nroot = [{root}]\n{entrypoint}\n{rest}\n"),
        );
    };
    let number = || -> String {
        let passwd = file(&place, "web.tar", "etc/passwd");
        let line = passwd.lines().find(|line| line.starts_with("redis:")).unwrap();
        line.split(':').nth(2).unwrap().to_owned()
    };
    let locked = || std::fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    spec("\"deb:redis-server\"", "");
    place.run(&["lock"]).success();
    let unrecorded = place.run(&["build", "--locked"]).success();
    assert!(!locked().contains("[[account]]"), "--locked writes nothing");
    let recorded = place.run(&["build"]).success();
    assert_eq!(unrecorded.line(), recorded.line());
    let own = number();
    let entry = format!("[[account]]\nimage = \"web\"\nname = \"redis\"\nnumber = {own}\n");
    assert!(locked().ends_with(&entry), "{}", locked());

    let both = "\"deb:haproxy\", \"deb:redis-server\"";
    spec(both, "");
    place.run(&["build"]).success();
    assert_eq!(number(), own);
    assert!(locked().contains("name = \"haproxy\""));
    let passwd = file(&place, "web.tar", "etc/passwd");
    let numbers = passwd
        .lines()
        .map(|line| line.split(':').nth(2).unwrap().parse().unwrap());
    let numbers: Vec<u32> = numbers.collect();
    assert!(numbers.is_sorted(), "{passwd}");

    // Another number in the lock, and one in the spec.
    let other = locked().replace(&format!("number = {own}\n"), "number = 901\n");
    place.write("layerize.lock", &other);
    place.run(&["build", "--locked"]).success();
    assert_eq!(number(), "901");
    spec(both, "users = { redis = 1500 }");
    place.run(&["build", "--locked"]).success();
    assert_eq!(number(), "1500");
    assert!(file(&place, "web.tar", "etc/group").contains("redis:x:1500:"));
}

/// What the scripts make is there, and neither a shell nor `dpkg` nor Perl is; the digest is that of another store, of a
/// user and of a check in other surroundings; and the program accepts its configuration.
#[test]
fn what_scripts_make_is_in_the_image_and_what_ran_them_is_not() {
    let Some(place) = place() else { return };
    let built = place
        .run(&["build", "--locked", "web", "-o", "docker-archive:web.tar"])
        .success();
    let digest = built.line().split(' ').next().unwrap().to_owned();
    let paths = paths(&place, "web.tar");
    for made in [
        "etc/nginx/sites-enabled/default",
        "etc/passwd",
        "var/www/html/index.nginx-debian.html",
    ] {
        assert!(paths.contains(made), "{made} is missing: {paths:#?}");
    }
    for tool in [
        "usr/bin/dash",
        "usr/bin/sh",
        "usr/bin/bash",
        "usr/bin/dpkg",
        "usr/bin/perl",
        "var/lib/dpkg/lock",
    ] {
        assert!(!paths.contains(tool), "{tool} is in the image");
    }
    place.run(&["verify", "web.tar"]).success();

    let other = place.elsewhere();
    let again = other.run(&["build", "--locked", "web"]).success();
    assert!(again.line().starts_with(&digest), "{} is not {digest}", again.stdout);
    let checked = place.run(&["check", "web"]).success();
    assert!(
        checked
            .stdout
            .lines()
            .any(|line| line.starts_with("same     image web")),
        "{}",
        checked.stdout
    );
    assert!(
        checked.stdout.lines().filter(|line| line.starts_with("same ")).count() >= 3,
        "tools, configured packages and the image are checked:\n{}",
        checked.stdout
    );
    if have("docker", &["info"]) {
        let archive = place.project.join("web.tar");
        let loaded = peer(Command::new("docker").args(["load", "-q", "-i"]).arg(archive));
        let image = loaded.stdout.trim().rsplit(' ').next().unwrap().to_owned();
        let ran = peer(Command::new("docker").args(["run", "--rm", "--network", "none", &image]));
        assert!(ran.stderr.contains("test is successful"), "{}", ran.stderr);
    }
}

/// As an ordinary user in other surroundings, owners and modes that scripts set come out as they do for root.
#[test]
fn a_user_configures_as_root_does() {
    let Some(place) = place() else { return };
    let built = place.run(&["build", "--locked", "web"]).success();
    let (_other, ran) = in_another_world(&place, &["build", "--locked", "web"]);
    assert_eq!(ran.line(), built.line());
}

/// What the scripts of a package would have made is not there, and nothing else is missing.
#[test]
fn scripts_are_left_out_by_name() {
    let Some(place) = place() else { return };
    let skipping = |name: &str| format!("{SPEC}configure = {{ skip = [\"deb:{name}\"] }}\n");
    place.write("layerize.toml", &skipping("nginx-common"));
    place.run(&["build", "web", "-o", "docker-archive:web.tar"]).success();
    let paths = paths(&place, "web.tar");
    assert!(!paths.contains("etc/nginx/sites-enabled/default"));
    assert!(paths.contains("etc/nginx/sites-available/default"));
    place.write("layerize.toml", &skipping("nginy"));
    place
        .run(&["build", "web"])
        .exits(2)
        .says(&["`configure` skips `deb:nginy`", "did you mean `deb:nginx`?"]);
}

/// B4 and B7: Java's trust store and PHP's enabled modules are made by scripts alone. B5: a UTF-8 locale of the image's own.
/// That Java trusts the authorities that its scripts collect is shown by `specs/java`.
#[test]
fn php_has_its_modules_and_the_locale_is_there() {
    if !have("apt-get", &["--version"]) || !have("docker", &["info"]) {
        return;
    }
    let place = Place::new();
    place.write(
        "layerize.toml",
        r#"
[image.php]
root = ["deb:php-cli", "deb:php-mbstring"]
env = { LC_ALL = "C.UTF-8" }
"#,
    );
    place.run(&["lock"]).success();
    let run = |image: &str, arguments: &[&str]| {
        let archive = format!("{image}.tar");
        let to = format!("docker-archive:{archive}");
        let built = place.run(&["build", "--locked", image, "-o", &to]).success();
        let loaded = peer(
            Command::new("docker")
                .args(["load", "-q", "-i"])
                .arg(place.project.join(archive)),
        );
        let name = loaded.stdout.trim().rsplit(' ').next().unwrap().to_owned();
        let mut docker = Command::new("docker");
        docker.args(["run", "--rm", "--network", "none", &name]).args(arguments);
        let ran = peer(&mut docker);
        peer(Command::new("docker").args(["rmi", "-f", &name]));
        (built.stderr, ran.stdout)
    };
    let (told, modules) = run("php", &["php", "-r", "var_dump(function_exists('mb_strlen'));"]);
    assert_eq!(modules.trim(), "bool(true)");
    assert!(!told.contains("`LC_ALL` is `C.UTF-8`"), "{told}");
    assert!(paths(&place, "php.tar").contains("usr/lib/locale/C.utf8/LC_CTYPE"));
}

/// A package's file gives way where another package's preinst diverts it, and the scripts see what the image has.
#[test]
fn what_a_preinst_diverts_gives_way_in_the_image() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::new();
    place.write(
        "layerize.toml",
        "[image.vim]\nroot = [\"deb:vim-tiny\", \"deb:vim-runtime\"]\nconfigure = true\nentrypoint = [\"/usr/bin/vi\"]\n",
    );
    place.run(&["build", "vim", "-o", "docker-archive:vim.tar"]).success();
    let paths = paths(&place, "vim.tar");
    let doc = "usr/share/vim/vim90/doc";
    for path in [
        "usr/bin/vi",
        &format!("{doc}/help.txt"),
        &format!("{doc}/help.txt.vim-tiny"),
    ] {
        assert!(paths.contains(path), "{path} is missing");
    }
    if have("docker", &["info"]) {
        let archive = place.project.join("vim.tar");
        let loaded = peer(Command::new("docker").args(["load", "-q", "-i"]).arg(archive));
        let image = loaded.stdout.trim().rsplit(' ').next().unwrap().to_owned();
        let ran = |arguments: &[&str]| {
            let mut docker = Command::new("docker");
            docker.args(["run", "--rm", "--network", "none", &image]);
            peer(docker.args(arguments)).stdout
        };
        let help = ran(&["-es", "-c", "help", "-c", "%print", "-c", "qall!"]);
        assert!(help.contains("main help file"), "{help}");
        peer(Command::new("docker").args(["rmi", "-f", &image]));
    }
}

/// What scripts ask is answered, with what is wrong told; locales are made without what they are made of.
#[test]
fn questions_are_answered_and_locales_are_made() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::new();
    let spec = |answers: &str, locales: &str| {
        let text = format!("[image.zone]\nroot = [\"deb:tzdata\"]\ndebconf = {{ {answers} }}\nlocales = [{locales}]\n");
        place.write("layerize.toml", &text);
    };
    spec("\"tzdata/Area\" = \"Europe\", \"tzdata/Areas\" = \"Europa\"", "");
    let wrong = [
        "did you mean `tzdata/Areas`?",
        "`Europa` is no answer to `tzdata/Areas`: write one of `Africa`",
    ];
    place.run(&["build"]).exits(2).says(&wrong);
    spec("", "\"en_UK.UTF-8\"");
    place
        .run(&["build"])
        .exits(2)
        .says(&["Debian has no locale `en_UK.UTF-8`", "did you mean"]);

    let answers = "\"tzdata/Areas\" = \"Europe\", \"tzdata/Zones/Europe\" = \"Berlin\"";
    spec(answers, "\"en_US.UTF-8\", \"de_DE@euro\"");
    place.run(&["build", "-o", "docker-archive:zone.tar"]).success();
    assert_eq!(file(&place, "zone.tar", "etc/timezone"), "Europe/Berlin\n");
    let paths = paths(&place, "zone.tar");
    for made in [
        "usr/lib/locale/en_US.utf8/LC_CTYPE",
        "usr/lib/locale/de_DE@euro/LC_COLLATE",
    ] {
        assert!(paths.contains(made), "{made} is missing");
    }
    let sources = paths.iter().filter(|path| path.starts_with("usr/share/i18n"));
    assert_eq!(sources.count(), 0);
    let (_other, again) = in_another_world(&place, &["build", "--locked"]);
    assert_eq!(again.line(), place.run(&["build", "--locked"]).line());
}
