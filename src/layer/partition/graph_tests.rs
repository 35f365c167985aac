//! Tests of reading closure graphs in their many forms.

use super::*;

const A: &str = "/nix/store/0000000000000000000000000000000a-libfoo-1.2";
const B: &str = "/nix/store/0000000000000000000000000000000b-app";

fn node(path: &str, references: &[&str]) -> Node {
    Node {
        size: 1,
        references: references.iter().map(|&reference| reference.to_owned()).collect(),
        ..Node::new(path.to_owned())
    }
}

#[test]
fn names_lose_their_versions() {
    for (path, package, full) in [
        (A, "libfoo", "libfoo-1.2"),
        (B, "app", "app"),
        (
            "/s/0000000000000000000000000000000b-gcc-12-base-12.2.0",
            "gcc",
            "gcc-12-base-12.2.0",
        ),
        (
            "/s/0000000000000000000000000000000b-libpython3.11-stdlib-3.11.2",
            "libpython3.11-stdlib",
            "libpython3.11-stdlib-3.11.2",
        ),
        ("libfoo-1", "libfoo", "libfoo-1"),
    ] {
        assert_eq!((package_name(path), full_name(path)), (package, full));
    }
}

#[test]
fn keys_are_the_shortest_names_that_differ() {
    let hash = |n: usize| format!("/s/{n:032}-");
    let names = [
        "gcc-12-base-12.2.0",
        "gcc-12-libs-12.2.0",
        "zlib-1.2",
        "zlib-1.3",
        "same-1",
        "same-1",
        "solo-9",
    ];
    let paths: Vec<String> = names.iter().enumerate().map(|(n, name)| hash(n) + name).collect();
    let keys = unique_keys(paths.iter().map(|path| (package_name(path), path.as_str())));
    assert_eq!(
        keys,
        [
            "gcc-12-base",
            "gcc-12-libs",
            "zlib-1.2",
            "zlib-1.3",
            "same-1#1",
            "same-1#2",
            "solo"
        ]
    );
}

#[test]
fn the_forms_of_the_json_are_the_same_graph() {
    let list = format!(
        r#"[{{"path":"{B}","references":["{A}","{B}"],"narSize":5}},{{"path":"{A}","references":[],"narSize":7,"narHash":"x"}}]"#
    );
    let by_path = format!(r#"{{"{A}":{{"references":[],"narSize":7}},"{B}":{{"references":["{A}"],"narSize":5}}}}"#);
    let short = format!(
        r#"[{{"path":"{B}","references":["{}"],"narSize":5}},{{"path":"{A}","references":[],"narSize":7}}]"#,
        &A[11..]
    );
    let exported = format!(r#"{{"exportReferencesGraph":{{"graph":["x"]}},"graph":{list}}}"#);
    let other_key = format!(r#"{{"system":"x86_64-linux","closure":{list}}}"#);
    for json in [&list, &by_path, &short, &exported, &other_key] {
        let graph = Graph::parse_json(json).unwrap();
        assert_eq!(graph.keys(), ["app", "libfoo"], "{json}");
        assert_eq!(
            (graph.size(), graph.references(0), graph.references(1)),
            (12, &[1][..], &[][..])
        );
        assert_eq!(graph.closure(0).count(), 2);
    }
}

#[test]
fn other_json_is_refused_with_its_place() {
    for (json, text) in [
        ("[", "cannot read the JSON".to_owned()),
        (
            "3",
            "cannot read `the document` of the graph: it is neither a list nor an object".into(),
        ),
        (
            r#"[{"narSize":1}]"#,
            r#"cannot read `{"narSize":1}` of the graph: it has no `path`"#.into(),
        ),
        (
            &format!(r#"[{{"path":"{A}","references":[]}}]"#),
            format!("cannot read `{A}` of the graph: it has no `narSize` in bytes"),
        ),
        (
            &format!(r#"[{{"path":"{A}","narSize":-1,"references":[]}}]"#),
            format!("cannot read `{A}` of the graph: it has no `narSize` in bytes"),
        ),
        (
            &format!(r#"[{{"path":"{A}","narSize":1}}]"#),
            format!("cannot read `{A}` of the graph: it has no list of `references`"),
        ),
        (
            &format!(r#"{{"{A}":null}}"#),
            format!(
                "cannot read `{A}` of the graph: it is not an object with `references` and `narSize` (is the path valid in its store?)"
            ),
        ),
    ] {
        assert_eq!(Graph::parse_json(json).unwrap_err().to_string(), text);
    }
}

#[test]
fn open_graphs_and_doubled_paths_are_refused() {
    let open = Graph::new(vec![node(B, &[A])]).unwrap_err();
    assert_eq!(
        open.to_string(),
        format!("`{B}` refers to `{A}`, which is not in the graph")
    );
    assert!(open.help().unwrap().contains("--recursive"));
    let twice = Graph::new(vec![node(A, &[]), node(A, &[])]).unwrap_err();
    assert_eq!(twice.to_string(), format!("`{A}` appears in it twice"));
}

#[test]
fn cycles_share_their_closure() {
    let path = |name: &str| format!("/s/{:0>32}-{name}", name);
    let (a, b, c, d) = (path("a"), path("b"), path("c"), path("d"));
    let graph = Graph::new(vec![
        node(&a, &[&b]),
        node(&b, &[&c, &d]),
        node(&c, &[&a]),
        node(&d, &[]),
    ])
    .unwrap();
    let members: Vec<Vec<usize>> = (0..4).map(|at| graph.closure(at).iter().collect()).collect();
    assert_eq!(members, [vec![0, 1, 2, 3], vec![0, 1, 2, 3], vec![0, 1, 2, 3], vec![3]]);
}

#[test]
fn users_name_paths_keys_or_packages() {
    let path = |name: &str| format!("/s/{:0>32}-{name}", name.len());
    let graph = Graph::new(vec![
        node(&path("zlib-1.2"), &[]),
        node(&path("zlib-1.3.0"), &[]),
        node(&path("app-1"), &[]),
    ])
    .unwrap();
    assert_eq!(graph.named("app"), [0]);
    assert_eq!(graph.named("zlib"), [1, 2]);
    assert_eq!(graph.named("zlib-1.2"), [1]);
    assert_eq!(graph.named(&path("zlib-1.3.0")), [2]);
    assert_eq!(graph.named("app-1"), [0]);
    assert!(graph.named("nothing").is_empty());
}
