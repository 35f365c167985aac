//! Tests of closures in a real store.

use std::fs;

use super::*;
use crate::store::NewOutput;
use crate::store::Store;
use crate::store_path::StoreDir;
use crate::walls::Walls;

struct Scene {
    _dir: tempfile::TempDir,
    store: Store,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        Self { _dir: dir, store }
    }

    /// An output with a file `refs` that names `references`, and with `declared` ones through the first of them.
    fn add(&self, name: &str, references: &[&StorePath], declared: &[&StorePath]) -> StorePath {
        let staging = self.store.stage().unwrap();
        let tree = staging.path().join("out");
        fs::create_dir(&tree).unwrap();
        let lines: Vec<String> = references.iter().map(|path| format!("{path}\n")).collect();
        fs::write(tree.join("refs"), format!("{name}\n{}", lines.concat())).unwrap();
        let output = NewOutput {
            name,
            tree: &tree,
            candidates: &references.iter().map(|&path| path.clone()).collect(),
            declare: &|found| {
                let via = found.first().cloned();
                declared
                    .iter()
                    .filter_map(|&path| Some((path.clone(), via.clone()?)))
                    .collect()
            },
            derivation: None,
            policy: &crate::store::ANY_REFERENCE,
            walls: Walls::Namespaces,
            execution: crate::execution::Execution::Native,
        };
        self.store.add_output(&output).unwrap().path
    }
}

/// `app` → `lib` → `libc`, `app` → `libc`, `tool` → `lib`, and `libc` declares `data` for `app`.
fn sample(scene: &Scene) -> [StorePath; 5] {
    let data = scene.add("data", &[], &[]);
    let libc = scene.add("libc", &[], &[]);
    let lib = scene.add("lib", &[&libc], &[]);
    let tool = scene.add("tool", &[&lib], &[]);
    let app = scene.add("app", &[&lib], &[&data]);
    [data, libc, lib, tool, app]
}

fn names<'a>(paths: impl IntoIterator<Item = &'a StorePath>) -> Vec<&'a str> {
    paths.into_iter().map(StorePath::name).collect()
}

#[test]
fn a_closure_holds_what_is_reached_and_nothing_else() {
    let scene = Scene::new();
    let [data, libc, lib, tool, app] = sample(&scene);
    let closure = compute(&scene.store, &BTreeSet::from([app.clone()])).unwrap();
    let members: BTreeSet<_> = closure.members.iter().map(|member| member.path.clone()).collect();
    assert_eq!(
        members,
        BTreeSet::from([app.clone(), lib.clone(), libc.clone(), data.clone()])
    );
    assert!(closure.members.is_sorted_by_key(|member| &member.path));
    assert!(closure.get(&tool).is_none());
    let sizes = closure.closure_sizes();
    let size = |path| closure.get(path).unwrap().nar_size;
    assert_eq!(sizes[&lib], size(&lib) + size(&libc));
    assert_eq!(sizes[&app], closure.nar_size());
    let order = names(closure.topological().into_iter().map(|member| &member.path));
    let place = |name| order.iter().position(|other| *other == name).unwrap();
    assert!(place("libc") < place("lib") && place("lib") < place("app") && place("data") < place("app"));
}

#[test]
fn an_invalid_root_is_named() {
    let scene = Scene::new();
    let path: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-gone".parse().unwrap();
    let error = compute(&scene.store, &BTreeSet::from([path])).unwrap_err();
    let text = "the store path `0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-gone` is not valid";
    assert_eq!(error.to_string(), text);
    assert!(error.help().unwrap().contains("layerize store ls"));
}

#[test]
fn why_gives_the_shortest_chain_with_its_evidence() {
    let scene = Scene::new();
    let [data, libc, lib, tool, app] = sample(&scene);
    let roots = BTreeSet::from([app.clone(), tool.clone()]);
    let chains = why(&scene.store, &roots, &libc).unwrap();
    assert_eq!(names(chains.iter().map(|chain| &chain.root)), names(&roots));
    for chain in &chains {
        assert_eq!(names(chain.steps.iter().map(|step| &step.to)), ["lib", "libc"]);
        let evidence: Vec<String> = chain.steps.iter().map(|step| step.evidence.to_string()).collect();
        let first = chain.root.name().len() + 1;
        assert_eq!(evidence, [format!("refs, byte {first}"), "refs, byte 4".to_owned()]);
    }
    let chains = why(&scene.store, &roots, &data).unwrap();
    let steps: Vec<String> = chains
        .iter()
        .flat_map(|chain| &chain.steps)
        .map(|step| step.evidence.to_string())
        .collect();
    assert_eq!(steps, ["declared by lib's dependencies"]);
    assert_eq!(why(&scene.store, &BTreeSet::from([lib.clone()]), &app).unwrap(), []);
    let own = why(&scene.store, &BTreeSet::from([lib.clone()]), &lib).unwrap();
    assert_eq!(
        own,
        [Chain {
            root: lib,
            steps: Vec::new()
        }]
    );
}

#[test]
fn a_tree_unfolds_each_path_once() {
    let path =
        |hash: char, name: &str| -> StorePath { format!("{}-{name}", hash.to_string().repeat(32)).parse().unwrap() };
    let [a, b, c, d] = [path('1', "a"), path('2', "b"), path('3', "c"), path('4', "d")];
    let member = |path: &StorePath, references: &[&StorePath]| PathInfo {
        path: path.clone(),
        nar_hash: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
        nar_size: 100,
        references: references.iter().map(|&path| path.clone()).collect(),
        self_reference: path.name() == "d",
    };
    // b and c refer to each other.
    let closure = Closure {
        dir: crate::store_path::StoreDir::layerize(),
        roots: vec![a.clone()],
        members: vec![
            member(&a, &[&b, &c]),
            member(&b, &[&c, &d]),
            member(&c, &[&b]),
            member(&d, &[]),
        ],
    };
    let text = format!(
        "{0}{a}  100 B, closure 400 B\n├── {0}{b}{1}\n│   ├── {0}{c}{1} …\n│   └── {0}{d}  100 B\n└── {0}{c}{1}\n    \
         └── {0}{b}{1} …\n",
        "/layerize/store/", "  100 B, closure 300 B"
    );
    assert_eq!(closure.tree().to_string(), text);
    assert_eq!(
        names(closure.topological().into_iter().map(|member| &member.path)),
        ["d", "c", "b", "a"]
    );
    assert_eq!(closure.tree().roots[0].closure_size, 400);
    let dot = closure.dot();
    assert!(dot.starts_with("digraph closure {\n") && dot.ends_with("}\n"));
    assert!(dot.contains(&format!(
        "  \"{b}\" -> \"{c}\";\n  \"{b}\" -> \"{d}\";\n  \"{c}\" -> \"{b}\";\n"
    )));
    let logical = |path| StoreDir::layerize().join(path);
    let json = serde_json::to_value(closure.report()).unwrap();
    assert_eq!(json["narSize"], 400);
    assert_eq!(json["paths"][0]["path"], logical(&d));
    assert_eq!(json["paths"][0]["references"], serde_json::json!([logical(&d)]));
}
