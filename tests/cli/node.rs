//! A Node project from its lock file to an image: packages that the test writes, in a registry of its own on loopback, which
//! real npm locks and installs from.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use crate::attest::validate;
use crate::specs::{answer_of_image, assert_tested, bare_spec, take_spec};
use crate::support::{DEV_IMAGE, NODE, Place, Ran, have, peer, rebuilt_from_what_is_kept, skipped};
use crate::web::{Reply, Server};

/// A file of a tarball.
#[derive(Debug, Clone)]
enum File {
    Text(&'static str),
    Program(&'static str),
    Link(&'static str),
}

/// A published package.
#[derive(Clone)]
struct Package {
    manifest: Value,
    /// The directory around its files.
    top: &'static str,
    files: Vec<(&'static str, File)>,
}

impl Package {
    fn new(manifest: Value, files: &[(&'static str, File)]) -> Self {
        Self {
            manifest,
            top: "package",
            files: files.to_vec(),
        }
    }

    fn tarball(&self) -> Vec<u8> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let manifest = serde_json::to_string_pretty(&self.manifest).unwrap();
        let mut add = |path: &str, content: &[u8], mode: u32, link: Option<&str>| {
            let mut header = tar::Header::new_ustar();
            let name = format!("{}/{path}", self.top);
            // A name that leads out is written as it is.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_mode(mode);
            if let Some(link) = link {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name(link).unwrap();
            }
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive.append(&header, content).unwrap();
        };
        add("package.json", manifest.as_bytes(), 0o644, None);
        for (path, file) in &self.files {
            match file {
                File::Text(text) => add(path, text.as_bytes(), 0o644, None),
                File::Program(text) => add(path, text.as_bytes(), 0o755, None),
                File::Link(target) => add(path, &[], 0o777, Some(target)),
            }
        }
        let mut bytes = archive.into_inner().unwrap().finish().unwrap();
        bytes.flush().unwrap();
        bytes
    }
}

fn integrity(bytes: &[u8]) -> String {
    format!("sha512-{}", STANDARD.encode(Sha512::digest(bytes)))
}

/// What is served: pages by path. `base` is where.
fn pages(packages: &[(Value, Vec<u8>)], base: &str) -> BTreeMap<String, Vec<u8>> {
    let mut pages = BTreeMap::new();
    let mut by_name: BTreeMap<&str, serde_json::Map<String, Value>> = BTreeMap::new();
    for (manifest, tarball) in packages {
        let [name, version] = ["name", "version"].map(|key| manifest[key].as_str().unwrap());
        let path = format!("/{name}/-/{}-{version}.tgz", name.rsplit('/').next().unwrap());
        let mut shown = manifest.clone();
        shown["dist"] = json!({ "tarball": format!("{base}{path}"), "integrity": integrity(tarball) });
        let scripts = &manifest["scripts"];
        if ["preinstall", "install", "postinstall"]
            .iter()
            .any(|name| scripts[*name].is_string())
        {
            shown["hasInstallScript"] = json!(true);
        }
        by_name.entry(name).or_default().insert(version.to_owned(), shown);
        pages.insert(path, tarball.clone());
    }
    for (name, versions) in by_name {
        let latest = versions.keys().next_back().unwrap();
        let page = json!({ "name": name, "dist-tags": { "latest": latest }, "versions": versions });
        pages.insert(format!("/{}", name.replace('/', "%2f")), page.to_string().into_bytes());
    }
    pages
}

/// A registry that the test fills.
struct Registry {
    server: Server,
    pages: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Registry {
    fn of(packages: &[Package]) -> Self {
        let pages = Arc::new(Mutex::new(BTreeMap::new()));
        let served = Arc::clone(&pages);
        let server = Server::start(move |path| match served.lock().unwrap().get(path) {
            Some(page) => Reply::ok(page),
            None => Reply::status(404),
        });
        let registry = Self { server, pages };
        registry.publish(packages);
        registry
    }

    fn publish(&self, packages: &[Package]) {
        let published: Vec<_> = packages.iter().map(|of| (of.manifest.clone(), of.tarball())).collect();
        self.publish_tarballs(&published);
    }

    /// Tarballs with what their registry says of them.
    fn publish_tarballs(&self, packages: &[(Value, Vec<u8>)]) {
        *self.pages.lock().unwrap() = pages(packages, &self.server.url(""));
    }

    fn layerize(&self, place: &Place, arguments: &[&str]) -> Ran {
        let mut command = place.command(arguments);
        command.env("npm_config_registry", self.server.url("/"));
        Ran::of(command.output().unwrap())
    }

    /// Real npm in a directory, with nothing of the user's.
    #[track_caller]
    fn npm(&self, dir: &Path, arguments: &[&str]) {
        let home = dir.parent().unwrap().join("npm-home");
        let mut command = Command::new("npm");
        command.args(arguments).current_dir(dir).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", &home);
        command.env("npm_config_registry", self.server.url("/"));
        for quiet in ["audit", "fund", "update_notifier"] {
            command.env(format!("npm_config_{quiet}"), "false");
        }
        peer(&mut command);
    }
}

fn packages() -> Vec<Package> {
    use File::{Program, Text};
    let package = |manifest: Value, files: &[(&'static str, File)]| Package::new(manifest, files);
    let mut odd = package(
        json!({ "name": "odd", "version": "0.0.1-beta.1", "main": "./lib" }),
        &[
            ("lib/index.js", Text("module.exports = 'odd';\n")),
            ("lib/run.sh", Program("#!/bin/sh\n")),
        ],
    );
    odd.top = "other-name";
    let mut packages = further_packages();
    packages.extend([
        package(
            json!({ "name": "left", "version": "1.0.0", "bin": "./cli.js", "license": "MIT",
                    "dependencies": { "@scope/right": "^1.0.0" } }),
            &[
                (
                    "cli.js",
                    Text("#!/usr/bin/env node\r\nconsole.log('left', require('.'));\r\n"),
                ),
                (
                    "index.js",
                    Text("module.exports = `left with ${require('@scope/right')}`;\n"),
                ),
                (".gitignore", Text("*.log\n")),
                ("deep/.npmignore", Text("own\n")),
                ("deep/.gitignore", Text("git\n")),
            ],
        ),
        package(
            json!({ "name": "@scope/right", "version": "1.0.0", "bin": { "right-tool": "bin/tool.js" } }),
            &[
                ("bin/tool.js", Program("#!/usr/bin/env node\nconsole.log('tool 1');\n")),
                ("index.js", Text("module.exports = 'right 1';\n")),
            ],
        ),
        package(
            json!({ "name": "@scope/right", "version": "2.0.0", "bin": { "right-tool": "bin/tool.js" },
                    "license": "(ISC OR MIT)" }),
            &[
                ("bin/tool.js", Program("#!/usr/bin/env node\nconsole.log('tool 2');\n")),
                ("index.js", Text("module.exports = 'right 2';\n")),
            ],
        ),
        package(
            json!({ "name": "mac", "version": "1.0.0", "os": ["darwin"], "dependencies": { "only-mac": "1", "odd": "0.0.1-beta.1" } }),
            &[],
        ),
        package(
            json!({ "name": "only-mac", "version": "1.0.0", "dependencies": { "deep-mac": "1" } }),
            &[],
        ),
        package(json!({ "name": "deep-mac", "version": "1.0.0" }), &[]),
        package(
            json!({ "name": "linux", "version": "1.0.0", "os": ["linux", "!win32"] }),
            &[],
        ),
        odd,
    ]);
    packages
}

/// Packages that are needed by development, bring others along, want others beside them, or have scripts.
fn further_packages() -> Vec<Package> {
    use File::Text;
    let package = |manifest: Value, files: &[(&'static str, File)]| Package::new(manifest, files);
    vec![
        package(
            json!({ "name": "dev-tool", "version": "1.0.0", "bin": { "dev-tool": "t.js" },
                    "dependencies": { "dev-deep": "1" } }),
            &[(
                "t.js",
                Text(
                    "#!/usr/bin/env node\nrequire('fs').writeFileSync('made.js', `module.exports = ${require('dev-deep')};`);\n",
                ),
            )],
        ),
        package(
            json!({ "name": "dev-deep", "version": "1.0.0" }),
            &[("index.js", Text("module.exports = 7;\n"))],
        ),
        package(
            json!({ "name": "bundler", "version": "1.0.0", "dependencies": { "inner": "1" }, "bundleDependencies": ["inner"] }),
            &[
                (
                    "node_modules/inner/package.json",
                    Text("{\"name\":\"inner\",\"version\":\"1.0.0\",\"bin\":\"i.js\"}"),
                ),
                ("node_modules/inner/i.js", Text("#!/usr/bin/env node\n")),
            ],
        ),
        package(json!({ "name": "inner", "version": "1.0.0" }), &[]),
        package(
            json!({ "name": "plugin", "version": "1.0.0", "peerDependencies": { "left": "1", "absent": "1" },
                    "peerDependenciesMeta": { "absent": { "optional": true } } }),
            &[],
        ),
        package(
            json!({ "name": "installs", "version": "1.0.0", "scripts": { "postinstall": "node make.js" },
                    "dependencies": { "dev-deep": "1" } }),
            &[(
                "make.js",
                Text(
                    "require('fs').writeFileSync('made.txt', `made by ${process.env.npm_package_name} ${require('dev-deep')}`);\n",
                ),
            )],
        ),
    ]
}

const MANIFEST: &str = r#"{
  "name": "@own/app",
  "version": "3.1.0",
  "main": "main.js",
  "workspaces": ["packages/*"],
  "scripts": { "build": "dev-tool && npm run second -- 'a b'", "second": "node second.js" },
  "dependencies": {
    "left": "^1.0.0", "@scope/right": "^2.0.0", "bundler": "1", "plugin": "1", "installs": "1", "odd": "0.0.1-beta.1",
    "other": "npm:@scope/right@^1.0.0", "packed": "file:vendor/packed.tgz"
  },
  "devDependencies": { "dev-tool": "1" },
  "optionalDependencies": { "mac": "1", "linux": "1" }
}
"#;

const MAIN: &str = "const member = require('member');\n\
    console.log(require('left'), require('@scope/right'), require('odd'), require('other'), member);\n";

/// A project with a member of its workspace, locked by real npm; `None` where there is no npm.
fn project(registry: &Registry, node: &str) -> Option<Place> {
    if !have("npm", &["--version"]) {
        return None;
    }
    let place = Place::new();
    place.take_debs(NODE);
    let spec = format!("[package.app]\nsource = {{ path = \".\" }}\nnode = {node}\n{IMAGE}");
    place
        .write("layerize.toml", &spec)
        .write("package.json", MANIFEST)
        .write("main.js", MAIN)
        .write(
            "second.js",
            "require('fs').writeFileSync('second.txt', process.argv[2]);\n",
        )
        .write(
            "packages/member/package.json",
            "{\"name\":\"member\",\"version\":\"1.0.0\",\"bin\":\"m.js\",\"dependencies\":{\"@scope/right\":\"1\"}}",
        )
        .write(
            "packages/member/index.js",
            "module.exports = `member with ${require('@scope/right')}`;\n",
        )
        .write("packages/member/m.js", "#!/usr/bin/env node\n");
    let packed = Package::new(
        json!({ "name": "packed", "version": "1.0.0", "dependencies": { "@scope/right": "1" } }),
        &[("index.js", File::Text("module.exports = 'packed';\n"))],
    );
    fs::create_dir(place.project.join("vendor")).unwrap();
    fs::write(place.project.join("vendor/packed.tgz"), packed.tarball()).unwrap();
    registry.npm(&place.project, &["install", "--package-lock-only"]);
    registry.layerize(&place, &["lock"]).success();
    Some(place)
}

const IMAGE: &str = r#"
[image.app]
root = ["deb:nodejs"]
contents = ["app"]
entrypoint = ["app"]

[image.app.tests.says]
run = ["app"]
expect = { stdout = "left with right 1 right 2 odd right 1 member with right 1" }
"#;

/// The tree of the store whose name ends so.
fn output(place: &Place, name: &str) -> PathBuf {
    let store = place.store().join("store");
    let name = format!("-{name}");
    let paths = layerize::fsio::sorted_names(&store).unwrap();
    let mut found = paths
        .iter()
        .filter(|path| path.to_string_lossy().get(32..) == Some(&name));
    let found = found.next().unwrap_or_else(|| panic!("{name} is not in {paths:?}"));
    store.join(found)
}

/// What is below a directory: kind, executable bit and content by path.
fn tree(dir: &Path) -> BTreeMap<String, String> {
    let mut nodes = BTreeMap::new();
    let mut rest = vec![PathBuf::new()];
    while let Some(below) = rest.pop() {
        for name in layerize::fsio::sorted_names(&dir.join(&below)).unwrap() {
            let path = below.join(name);
            let physical = dir.join(&path);
            let metadata = fs::symlink_metadata(&physical).unwrap();
            let text = if metadata.is_dir() {
                rest.push(path.clone());
                "directory".to_owned()
            } else if metadata.is_symlink() {
                format!("-> {}", fs::read_link(&physical).unwrap().display())
            } else {
                let executable = metadata.permissions().mode() & 0o111 != 0;
                let content = fs::read(&physical).unwrap();
                format!("{executable} {:?}", String::from_utf8_lossy(&content))
            };
            nodes.insert(path.to_string_lossy().into_owned(), text);
        }
    }
    nodes.remove(".package-lock.json");
    nodes
}

/// What real npm makes of the project.
fn npm_tree(registry: &Registry, place: &Place, arguments: &[&str]) -> BTreeMap<String, String> {
    let dir = place.path().join(format!("npm{}", arguments.join("")));
    peer(Command::new("cp").arg("-r").arg(&place.project).arg(&dir));
    registry.npm(&dir, &[&["ci"], arguments].concat());
    tree(&dir.join("node_modules"))
}

#[test]
fn what_is_laid_out_is_what_npm_lays_out() {
    let registry = Registry::of(&packages());
    for (node, arguments) in [
        ("{ omit = [] }", ["--ignore-scripts"].as_slice()),
        ("{}", &["--ignore-scripts", "--omit=dev"]),
        (
            "{ omit = [\"dev\", \"optional\", \"peer\"] }",
            &["--ignore-scripts", "--omit=dev", "--omit=optional", "--omit=peer"],
        ),
        ("{ scripts = [\"installs\"] }", &["--omit=dev"]),
        ("{ build = \"build\" }", &["--ignore-scripts", "--omit=dev"]),
    ] {
        let Some(place) = project(&registry, node) else { return };
        registry.layerize(&place, &["build", "app"]).success();
        let app = output(&place, "app").join("lib/app");
        let laid = tree(&app.join("node_modules"));
        let real = npm_tree(&registry, &place, arguments);
        assert!(real.contains_key("left/node_modules/@scope/right/index.js"), "{real:?}");
        for (path, what) in &real {
            assert_eq!(laid.get(path), Some(what), "{node}: {path}");
        }
        let more: Vec<_> = laid.keys().filter(|path| !real.contains_key(*path)).collect();
        assert_eq!(more, Vec::<&String>::new(), "{node}");
        let built = [("made.js", "module.exports = 7;"), ("second.txt", "a b")];
        for (path, text) in built {
            let made = fs::read_to_string(app.join(path)).ok();
            assert_eq!(made.as_deref(), node.contains("build").then_some(text), "{node}");
        }
    }
}

/// An image runs what it has, laid out or in the store; another user elsewhere makes the same bytes, and nothing is asked of the
/// registry a second time.
#[test]
fn an_image_runs_and_comes_out_alike_elsewhere_and_offline() {
    let registry = Registry::of(&packages());
    let Some(place) = project(&registry, "{ build = \"build\" }") else {
        return;
    };
    let laid = IMAGE.replace("contents = [\"app\"]", "lay = { \"/srv/app\" = \"app\" }");
    let spec = fs::read_to_string(place.project.join("layerize.toml")).unwrap();
    place.write(
        "layerize.toml",
        &format!("{spec}{}", laid.replace("image.app", "image.laid")),
    );
    let built = registry.layerize(&place, &["build"]).success();
    registry.layerize(&place, &["test"]).success();
    for image in ["app.tar", "laid.tar"] {
        place.run(&["verify", image]).success();
    }
    assert!(
        registry.server.requests("/left/-/left-1.0.0.tgz") <= 1,
        "a tarball is fetched once for all"
    );

    // The other user has neither downloads nor a registry.
    let kept = place
        .run(&["build", "laid", "--offline", "--inputs=all", "-o", "oci:kept"])
        .success();
    let digest = kept.line().split(' ').next().unwrap();
    assert!(built.stdout.contains(digest), "{digest}: {}", built.stdout);
    rebuilt_from_what_is_kept(&place, "kept");

    let mut judged = Vec::new();
    for image in ["app", "laid"] {
        for (format, end) in [("spdx", "spdx.json"), ("cyclonedx", "cdx.json")] {
            let file = format!("{image}.{end}");
            place.run(&["sbom", image, "--format", format, "-o", &file]).success();
            judged.push(format!("{format}={file}"));
        }
        // What only the build needed is what the image was made of, too.
        let document = fs::read_to_string(place.project.join(format!("{image}.spdx.json"))).unwrap();
        for (purl, licence) in [
            ("pkg:npm/left@1.0.0", Some("MIT")),
            ("pkg:npm/%40scope/right@2.0.0", Some("(ISC OR MIT)")),
            ("pkg:npm/%40scope/right@1.0.0", None),
            ("pkg:npm/bundler@1.0.0", None),
            ("pkg:npm/dev-tool@1.0.0", None),
        ] {
            let found = licences(&document, purl);
            let expected = licence.unwrap_or("NOASSERTION");
            assert!(
                !found.is_empty() && found.iter().all(|found| found == expected),
                "{image}: {purl}: {found:?}"
            );
        }
    }
    validate(&place, &judged.iter().map(String::as_str).collect::<Vec<_>>());

    // What moves with an edit is what was edited.
    let layers = |image: &str| place.inspect_layers(image, "digest").into_iter().collect::<Vec<_>>();
    let before = layers("laid.tar");
    place.write("main.js", &format!("{MAIN}// edited\n"));
    registry.layerize(&place, &["build", "laid"]).success();
    let after = layers("laid.tar");
    let moved = after.iter().filter(|layer| !before.contains(layer)).count();
    assert_eq!((before.len(), moved), (after.len(), 1), "{before:?} {after:?}");
}

/// What an SPDX document says of the licence of each package with this URL.
fn licences(document: &str, purl: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(document).unwrap();
    let packages = document["packages"].as_array().unwrap().iter();
    let named = packages.filter(|package| package["externalRefs"][0]["referenceLocator"] == purl);
    named
        .map(|package| package["licenseDeclared"].as_str().unwrap().to_owned())
        .collect()
}

/// A dev container has what a shell has, and writes none of it into the project.
fn a_dev_container_has_the_packages_in_volumes(registry: &Registry, place: &Place) {
    registry.layerize(place, &DEV_IMAGE).success();
    let file = registry.layerize(place, &["env", "--devcontainer"]).success().stdout;
    let file: Value = serde_json::from_str(&file).unwrap();
    let targets = file["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount.as_str().unwrap());
    let prefix = "type=volume,target=${containerWorkspaceFolder}";
    let volumes = targets.enumerate().map(|(number, target)| {
        let volume = place.path().join(format!("volume{number}"));
        fs::create_dir(&volume).unwrap();
        format!("{}:/project{}", volume.display(), target.strip_prefix(prefix).unwrap())
    });
    let volumes: Vec<String> = volumes.collect();
    let ran = place.in_dev_container(&volumes, &["node", "probe.mjs"]).success();
    assert_eq!(ran.stdout, "left with right 1 7 edited with right 1\n");
    place
        .in_dev_container(&volumes, &["bash", "-c", "npx dev-tool"])
        .success();
    let told = place.in_dev_container(&[], &["node", "probe.mjs"]).exits(1);
    told.says(&["nothing is mounted there"]);
    for volume in volumes {
        // The places of volumes are made in the project, as by an engine.
        let place_of = volume.rsplit_once(":/project/").unwrap().1;
        fs::remove_dir(place.project.join(place_of)).unwrap();
    }
}

/// A shell has the packages where Node looks for them, with those of development, and the project as it is edited; nothing
/// of it stays there.
fn a_shell_has_the_packages_and_leaves_the_project_alone(registry: &Registry, place: &Place) {
    place.write(
        "probe.mjs",
        "import left from 'left';\nimport deep from 'dev-deep';\nimport member from 'member';\nconsole.log(left, deep, member);\n",
    );
    let shell = |command: &[&str]| {
        let shell = [&["shell", "--"][..], command].concat();
        registry.layerize(place, &shell).success().stdout
    };
    let nested = "packages/member/index.js";
    assert_eq!(
        shell(&["node", "probe.mjs"]),
        "left with right 1 7 member with right 1\n"
    );
    place.write(nested, "module.exports = `edited with ${require('@scope/right')}`;\n");
    let program = "console.log(require('member'))";
    assert_eq!(shell(&["node", "-e", program]), "edited with right 1\n");
    shell(&["npx", "dev-tool"]);
    assert_eq!(
        fs::read_to_string(place.project.join("made.js")).unwrap(),
        "module.exports = 7;"
    );
    for dir in ["node_modules", "packages/member/node_modules"] {
        assert!(!place.project.join(dir).exists(), "{dir}");
    }
    a_dev_container_has_the_packages_in_volumes(registry, place);
    // What npm laid out is as it was.
    place.write("node_modules/left/index.js", "module.exports = 'own';\n");
    assert_eq!(shell(&["left"]), "left left with right 1\n");
    let own = tree(&place.project.join("node_modules"));
    assert_eq!(own.keys().collect::<Vec<_>>(), ["left", "left/index.js"]);
    fs::remove_dir_all(place.project.join("node_modules")).unwrap();
    std::os::unix::fs::symlink("/tmp", place.project.join("node_modules")).unwrap();
    let refused = registry.layerize(place, &["shell", "--", "true"]).exits(2);
    refused.says(&["node_modules", "is a link or a file", "put it aside"]);
}

/// What `init` writes builds and runs with no edit.
#[test]
fn a_first_spec_needs_no_edit() {
    let registry = Registry::of(&packages());
    let Some(place) = project(&registry, "{}") else { return };
    for name in ["layerize.toml", "layerize.lock"] {
        fs::remove_file(place.project.join(name)).unwrap();
    }
    let manifest = MANIFEST.replace("\"main\": \"main.js\"", "\"bin\": { \"other\": \"main.js\" }");
    place
        .write(
            "package.json",
            &manifest.replace("\"scripts\": {", "\"scripts\": { \"start\": \"node main.js\","),
        )
        .write("main.js", &format!("#!/usr/bin/env node\n{MAIN}"));
    registry.layerize(&place, &["init", "--name", "first"]).success();
    registry.layerize(&place, &["build"]).success();
    let expected = "left with right 1 right 2 odd right 1 member with right 1\n";
    for program in [["run", "--isolated", "first"].as_slice(), &["run", "first"]] {
        assert_eq!(registry.layerize(&place, program).success().stdout, expected);
    }
    a_shell_has_the_packages_and_leaves_the_project_alone(&registry, &place);
}

#[test]
fn what_is_wrong_with_a_package_is_told_and_nothing_is_registered() {
    use File::{Link, Text};
    let good = Package::new(
        json!({ "name": "bad", "version": "1.0.0" }),
        &[("index.js", Text("good\n"))],
    );
    let registry = Registry::of(std::slice::from_ref(&good));
    let place = Place::new();
    place.take_debs(NODE);
    let spec = "[package.app]\nsource = { path = \".\", include = [\"*.json\"] }\nnode = {}\n";
    let manifest = "{\"dependencies\":{\"bad\":\"1\"},\"main\":\"package.json\"}";
    place.write("layerize.toml", spec).write("package.json", manifest);
    let lock_of = |integrity: &str| {
        let entry = json!({ "version": "1.0.0", "integrity": integrity });
        let lock = json!({ "lockfileVersion": 3, "packages":
            { "": { "dependencies": { "bad": "1" } }, "node_modules/bad": entry } });
        place.write("package-lock.json", &lock.to_string());
    };
    let lock = |package: &Package| lock_of(&integrity(&package.tarball()));
    lock(&good);
    registry.layerize(&place, &["lock"]).success();
    let is_there = |place: &Place| {
        let paths = layerize::fsio::sorted_names(&place.store().join("store")).unwrap();
        paths.iter().any(|path| path.to_string_lossy().contains("-node-bad"))
    };
    let with =
        |path: &'static str, file: File| Package::new(json!({ "name": "bad", "version": "1.0.0" }), &[(path, file)]);
    for (package, said) in [
        (with("../../evil", Text("x")), "its name holds `..`"),
        (
            with("link", Link("/etc/passwd")),
            "`link` is a symlink, which packages of npm's do not hold",
        ),
    ] {
        registry.publish(std::slice::from_ref(&package));
        lock(&package);
        registry.layerize(&place, &["build", "app"]).exits(2).says(&[said]);
        assert!(!is_there(&place), "{said}");
    }
    let bomb = bomb();
    registry.publish_tarballs(&[(good.manifest.clone(), bomb.clone())]);
    lock_of(&integrity(&bomb));
    registry
        .layerize(&place, &["build", "app"])
        .exits(2)
        .says(&["bad-1.0.0.tgz", "2048 MiB"]);
    assert!(!is_there(&place), "a bomb");
    // The registry answers other bytes than were locked, and then none.
    lock(&with("index.js", Text("never published")));
    registry.publish(std::slice::from_ref(&good));
    let other = registry
        .layerize(&place, &["build", "app"])
        .exits(2)
        .says(&["bad-1.0.0.tgz", "sha512"]);
    assert!(other.stderr.contains("help:"), "{}", other.stderr);
    registry.publish(&[]);
    registry
        .layerize(&place, &["build", "app"])
        .exits(2)
        .says(&["bad-1.0.0.tgz"]);
    assert!(!is_there(&place));
    // A build that fails says what npm would.
    registry.publish(std::slice::from_ref(&good));
    lock(&good);
    place.write(
        "package.json",
        "{\"dependencies\":{\"bad\":\"1\"},\"bin\":\"gone.js\",\"name\":\"app\"}",
    );
    let failed = registry.layerize(&place, &["build", "app"]).exits(2);
    failed.says(&["`bin` of package.json names `gone.js`, which is not there"]);
    assert!(is_there(&place));
}

/// A tarball of a few kilobytes that says it holds three gigabytes.
fn bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut header = tar::Header::new_gnu();
    header.set_path("package/zeros").unwrap();
    header.set_mode(0o644);
    header.set_size(3 << 30);
    header.set_cksum();
    encoder.write_all(header.as_bytes()).unwrap();
    for _ in 0..64 {
        encoder.write_all(&[0; 1 << 16]).unwrap();
    }
    encoder.finish().unwrap()
}

/// git in a directory, with nothing of the machine's or the user's; what it prints.
fn git(place: &Place, dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    place.prepare(&mut command);
    command.env("GIT_CONFIG_NOSYSTEM", "1").current_dir(dir);
    let own = ["-c", "user.name=a", "-c", "user.email=a@x.invalid"];
    peer(command.args(own).args(args)).stdout.trim().to_owned()
}

/// Makes a repository of these files beside the project; its address with the commit.
fn repository(place: &Place, name: &str, files: &[(&str, &str)]) -> String {
    let dir = place.path().join(name);
    for (path, text) in files {
        let file = dir.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    git(place, &dir, &["init", "-q", "-b", "main"]);
    git(place, &dir, &["add", "-A", "-f"]);
    git(place, &dir, &["commit", "-q", "-m", "x"]);
    format!(
        "git+file://{}#{}",
        dir.display(),
        git(place, &dir, &["rev-parse", "HEAD"])
    )
}

/// A package that says which of its files are it, and one that says which are not.
fn repositories(place: &Place) -> [String; 2] {
    let listing = r#"{"name":"listing","version":"1.2.0","license":"ISC","main":"lib","bin":{"listing":"bin/run.js"},
        "files":["lib/","*.txt"],"dependencies":{"left":"1"}}"#;
    let listing = [
        ("package.json", listing),
        ("lib/index.js", "module.exports = 'listed';\n"),
        ("lib/.npmignore", "*.tmp\n"),
        ("lib/a.tmp", ""),
        (
            "bin/run.js",
            "#!/usr/bin/env node\nconsole.log(require('..'), require('left'));\n",
        ),
        ("bin/other.js", ""),
        ("one.txt", ""),
        ("test/one.js", ""),
        ("Readme.md", ""),
        (".npmrc", ""),
    ];
    let leaving = [
        ("package.json", r#"{"name":"@own/leaving","version":"0.1.0"}"#),
        (".gitignore", "*.log\n/made/\n"),
        ("index.js", "module.exports = 'left over';\n"),
        ("x.log", ""),
        ("made/x.js", ""),
        ("deep/made/x.js", ""),
        ("deep/.gitignore", "y.js\n"),
        ("deep/y.js", ""),
        ("package-lock.json", "{}"),
    ];
    [
        repository(place, "listing", &listing),
        repository(place, "leaving", &leaving),
    ]
}

/// A spec that depends on repositories.
const OF_REPOSITORIES: &str = "[package.app]\nsource = { path = \".\" }\nnode = {}\n\n[image.app]\nroot = [\"deb:nodejs\"]\n\
                lay = { \"/app\" = \"app\" }\nentrypoint = [\"app\"]\n\n[image.app.tests.says]\nrun = [\"app\"]\n\
                expect = { stdout = \"listed left over\" }\n";

/// Packages of git repositories are pinned by their content and are what npm packs of them; a rebuild needs no repository.
#[test]
fn packages_of_repositories_are_what_npm_packs() {
    if !have("npm", &["--version"]) || !have("git", &["--version"]) {
        return;
    }
    let registry = Registry::of(&packages());
    let place = Place::new();
    place.take_debs(NODE);
    let [listing, leaving] = repositories(&place);
    let spec = OF_REPOSITORIES;
    let manifest = json!({ "name": "app", "version": "1.0.0", "main": "main.js",
        "dependencies": { "listing": listing, "@own/leaving": leaving } });
    place
        .write("layerize.toml", spec)
        .write("package.json", &manifest.to_string())
        .write("main.js", "console.log(require('listing'), require('@own/leaving'));\n");
    registry.npm(&place.project, &["install", "--package-lock-only"]);
    let real = npm_tree(&registry, &place, &[]);
    registry.layerize(&place, &["lock"]).success();
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    for url in [&listing, &leaving] {
        assert!(lock.contains(url.rsplit('#').next().unwrap()), "{url}: {lock}");
    }
    registry.layerize(&place, &["build", "app"]).success();
    let laid = tree(&output(&place, "app").join("lib/app/node_modules"));
    assert_eq!(laid, real);
    place.run(&["test"]).success();
    let sbom = place.run(&["sbom", "app"]).success().stdout;
    for purl in [
        "pkg:npm/listing@1.2.0",
        "pkg:npm/%40own/leaving@0.1.0",
        "pkg:npm/left@1.0.0",
    ] {
        assert!(sbom.contains(purl), "{purl}: {sbom}");
    }

    // Without the repositories.
    for name in ["listing", "leaving"] {
        fs::remove_dir_all(place.path().join(name)).unwrap();
    }
    place
        .run(&["build", "app", "--offline", "--inputs=all", "-o", "oci:kept"])
        .success();
    rebuilt_from_what_is_kept(&place, "kept");
}

/// What is made by `prepare` is made where that is wanted, and a lock file that names no whole commit is refused.
#[test]
fn packages_of_repositories_are_prepared_where_that_is_wanted() {
    if !have("npm", &["--version"]) || !have("git", &["--version"]) {
        return;
    }
    let registry = Registry::of(&packages());
    let place = Place::new();
    place.take_debs(NODE);
    let spec = OF_REPOSITORIES;
    place.write("layerize.toml", spec);
    let prepared = repository(
        &place,
        "prepared",
        &[
            (
                "package.json",
                r#"{"name":"prepared","version":"1.0.0","main":"made.js","files":["made.js"],"scripts":{"prepare":"node make.js"}}"#,
            ),
            (
                "make.js",
                "require('fs').writeFileSync('made.js', \"module.exports = 'prepared';\\n\");\n",
            ),
        ],
    );
    let manifest =
        json!({ "name": "app", "version": "1.0.0", "main": "main.js", "dependencies": { "prepared": prepared } });
    place
        .write("package.json", &manifest.to_string())
        .write("main.js", "console.log(require('prepared'));\n");
    registry.npm(&place.project, &["install", "--package-lock-only"]);
    registry.layerize(&place, &["build", "--locked", "app"]).exits(2);
    registry
        .layerize(&place, &["build", "app"])
        .exits(2)
        .says(&["its script `prepare`", "scripts = [\"prepared\"]"]);
    place.write(
        "layerize.toml",
        &spec.replace("node = {}", "node = { scripts = [\"prepared\"] }"),
    );
    registry.layerize(&place, &["build", "app"]).success();
    assert_eq!(place.run(&["run", "app"]).success().stdout, "prepared\n");

    // A lock file that names no whole commit.
    let lock = fs::read_to_string(place.project.join("package-lock.json")).unwrap();
    let commit = prepared.rsplit('#').next().unwrap();
    place.write("package-lock.json", &lock.replace(&format!("#{commit}\""), "#main\""));
    place.write("package.json", &manifest.to_string().replace(commit, "main"));
    let refused = registry.layerize(&place, &["lock"]).exits(2);
    refused.says(&["the repository of `prepared` cannot be taken: its commit has not all its digits"]);
}

/// The manifests and tarballs of `name` and all that it needs, made of what Debian has of them.
fn of_debian(modules: &BTreeMap<String, PathBuf>, name: &str) -> Vec<(Value, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut wanted = vec![name.to_owned()];
    while let Some(name) = wanted.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let dir = &modules[&name];
        let text = fs::read_to_string(dir.join("package.json")).unwrap();
        let mut manifest: Value = serde_json::from_str(&text).unwrap();
        // Debian's versions are not those that were asked for, and some are other packages.
        let needed = manifest["dependencies"].as_object().cloned().unwrap_or_default();
        let needed: Vec<String> = needed
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| modules.contains_key(name))
            .collect();
        let ranges: serde_json::Map<String, Value> = needed.iter().map(|name| (name.clone(), json!("*"))).collect();
        let mut plain = json!({ "dependencies": ranges });
        for key in ["name", "version", "main", "license", "type", "exports", "bin"] {
            if !manifest[key].is_null() {
                plain[key] = manifest[key].take();
            }
        }
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::none()));
        let mut add = |path: &Path, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            archive
                .append_data(&mut header, Path::new("package").join(path), content)
                .unwrap();
        };
        add(Path::new("package.json"), plain.to_string().as_bytes());
        let files = tree(dir)
            .into_keys()
            .filter(|path| path != "package.json" && !path.starts_with("node_modules/"));
        for path in files.filter(|path| dir.join(path).symlink_metadata().unwrap().is_file()) {
            add(Path::new(&path), &fs::read(dir.join(&path)).unwrap());
        }
        let tarball = archive.into_inner().unwrap().finish().unwrap();
        found.insert(name, (plain, tarball));
        wanted.extend(needed);
    }
    found.into_values().collect()
}

/// What Debian has of express, as tarballs.
fn express() -> Vec<(Value, Vec<u8>)> {
    let debian = Place::new();
    debian.write(
        "layerize.toml",
        "[image.x]\nroot = [\"deb:node-express\"]\nconfigure = false\n",
    );
    debian.run(&["build"]).success();
    let mut modules = BTreeMap::new();
    let store = debian.store().join("store");
    for path in layerize::fsio::sorted_names(&store).unwrap() {
        let dir = store.join(path).join("usr/share/nodejs");
        for name in layerize::fsio::sorted_names(&dir).unwrap_or_default() {
            let module = dir.join(&name);
            if module.join("package.json").is_file() {
                modules.insert(name.to_string_lossy().into_owned(), module);
            }
        }
    }
    let published = of_debian(&modules, "express");
    assert!(published.len() > 30, "{}", published.len());
    published
}

/// Has npm write the lock file of the example anew, where Debian has replaced something since it was committed; the repository's
/// own too, with `LAYERIZE_BLESS=1`.
#[expect(clippy::disallowed_methods, reason = "fixtures are written where that is asked for")]
fn lock_express(place: &Place, registry: &Registry, published: &[(Value, Vec<u8>)]) {
    let locked = fs::read_to_string(place.project.join("package-lock.json")).unwrap_or_default();
    if published
        .iter()
        .all(|(_, tarball)| locked.contains(&integrity(tarball)))
    {
        return;
    }
    skipped("the lock file of specs/express-service is not that of Debian's express of today: it is written anew");
    fs::remove_file(place.project.join("package-lock.json")).unwrap_or_default();
    // The port of this registry says nothing to others.
    let lock = ["install", "--package-lock-only", "--omit-lockfile-registry-resolved"];
    registry.npm(&place.project, &lock);
    if std::env::var_os("LAYERIZE_BLESS").is_some() {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/express-service/package-lock.json");
        fs::copy(place.project.join("package-lock.json"), own).unwrap();
    }
}

/// The example: `init` and `load` over sources and a lock file that real npm installs from serve a request, with no edit; the spec
/// that is committed passes its tests, and bills of materials have every package.
#[test]
fn an_express_service_answers() {
    if !have("npm", &["--version"]) {
        return;
    }
    let published = express();
    let registry = Registry::of(&[]);
    registry.publish_tarballs(&published);
    let place = bare_spec("express-service");
    place.take_debs(NODE);
    lock_express(&place, &registry, &published);
    registry.layerize(&place, &["init", "--name", "express"]).success();
    if have("docker", &["info"]) {
        registry.layerize(&place, &["load", "--engine", "docker"]).success();
        let answer = answer_of_image("express", |port| format!("PORT={port}"), "/hello/you");
        assert!(answer.ends_with("Hello, you!"), "{answer}");
    }

    take_spec(&place, "express-service", |place, verb| registry.layerize(place, verb));
    registry.layerize(&place, &["build", "--locked"]).success();
    let real = npm_tree(&registry, &place, &[]);
    let laid = tree(&output(&place, "service").join("lib/service/node_modules"));
    assert_eq!(laid.keys().collect::<Vec<_>>(), real.keys().collect::<Vec<_>>());
    assert!(laid == real, "the same places hold other files");
    assert_tested(&place, 2);
    for (format, file) in [("spdx", "../express.spdx.json"), ("cyclonedx", "../express.cdx.json")] {
        place
            .run(&["sbom", "service", "--format", format, "-o", file])
            .success();
        let document = fs::read_to_string(place.project.join(file)).unwrap();
        for (manifest, _) in &published {
            let [name, version] = ["name", "version"].map(|key| manifest[key].as_str().unwrap());
            let purl = format!("pkg:npm/{name}@{version}\"");
            assert!(document.contains(&purl), "{format} lacks {purl}");
        }
    }
    validate(&place, &["spdx=../express.spdx.json", "cyclonedx=../express.cdx.json"]);
}
