//! Tests of the store as a whole.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::walls::Walls;

mod collection;
mod crash;
mod modes;
mod opening;
mod optimising;
mod oracle;
mod processes;
mod references;
mod verification;

/// A store in a temporary directory.
struct Scene {
    dir: tempfile::TempDir,
    store: Store,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        Self { dir, store }
    }

    /// What lies in `tmp` beside the sessions' own files.
    fn debris(&self) -> Vec<String> {
        let names = crate::fsio::sorted_names(&self.store.dir().join("tmp")).unwrap();
        let names = names.into_iter().map(|name| name.into_string().unwrap());
        names.filter(|name| !name.ends_with(".lock")).collect()
    }

    /// Adds `build`'s tree as an output that may refer to `candidates` and to `scratch`.
    fn output(
        &self,
        name: &str,
        scratch: Option<&StorePath>,
        candidates: &[&StorePath],
        build: impl Fn(&Path),
    ) -> PathInfo {
        self.added(name, candidates, build, |output| match scratch {
            None => self.store.add_output(output).unwrap(),
            Some(scratch) => match self.store.add_rewritten(output, scratch).unwrap() {
                Rewritten::Registered(info) => info,
                Rewritten::NamesItself { path, .. } => panic!("it must be built at {path}"),
            },
        })
    }

    /// Has `add` take `build`'s tree.
    fn added<T>(
        &self,
        name: &str,
        candidates: &[&StorePath],
        build: impl Fn(&Path),
        add: impl FnOnce(&NewOutput<'_>) -> T,
    ) -> T {
        let staging = self.store.stage().unwrap();
        let tree = staging.path().join("out");
        build(&tree);
        add(&NewOutput {
            name,
            tree: &tree,
            candidates: &candidates.iter().map(|&path| path.clone()).collect(),
            declare: &|_| Vec::new(),
            derivation: None,
            policy: &crate::store::ANY_REFERENCE,
            walls: Walls::Namespaces,
            execution: crate::execution::Execution::Native,
        })
    }
}

fn sample(tree: &Path) {
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("bin/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(tree.join("bin/run"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::write(tree.join("data"), "data").unwrap();
    symlink("bin/run", tree.join("link")).unwrap();
}

#[test]
fn a_tree_is_added_once_and_canonical() {
    let scene = Scene::new();
    let source = scene.dir.path().join("source");
    sample(&source);
    let info = scene.store.add_tree("sample", &source).unwrap();
    let physical = scene.store.physical(&info.path);
    for (name, mode) in [("", 0o555), ("bin", 0o555), ("bin/run", 0o555), ("data", 0o444)] {
        let metadata = fs::symlink_metadata(physical.join(name)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (mode, MTIME), "{name}");
    }
    assert_eq!(crate::nar::hash(&physical).unwrap(), (info.nar_hash, info.nar_size));
    assert_eq!(scene.store.add_tree("sample", &source).unwrap(), info);
    assert_eq!(scene.store.info(&info.path).unwrap(), Some(info.clone()));
    assert_eq!(scene.store.list().unwrap(), [info]);
}

#[test]
fn an_output_that_refers_to_itself_moves_to_its_content_address() {
    let scene = Scene::new();
    let build = |scratch: &str| {
        let scratch: StorePath = scratch.parse().unwrap();
        let text = format!("prefix=/layerize/store/{scratch}\n");
        scene.output("self", Some(&scratch), &[], |tree| {
            sample(tree);
            fs::write(tree.join("config"), &text).unwrap();
            symlink(format!("/layerize/store/{scratch}/data"), tree.join("absolute")).unwrap();
        })
    };
    let one = build("0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-self");
    let two = build("1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-self");
    assert_eq!(one, two, "the path it was built at leaves no trace");
    assert!(one.self_reference && one.references.is_empty());
    let physical = scene.store.physical(&one.path);
    let text = fs::read_to_string(physical.join("config")).unwrap();
    assert_eq!(text, format!("prefix=/layerize/store/{}\n", one.path));
    let target = fs::read_link(physical.join("absolute")).unwrap();
    assert_eq!(target, Path::new(&format!("/layerize/store/{}/data", one.path)));
    assert_eq!(crate::nar::hash(&physical).unwrap(), (one.nar_hash, one.nar_size));
    let metadata = fs::symlink_metadata(physical.join("config")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o444, MTIME));
}
