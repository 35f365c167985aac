//! The rules by which contents are joined, one case each.

use proptest::prelude::*;

use super::filesystem::{Content, Found, NodeKind};
use super::*;

/// What the contents, in order, become; contents are named `a`, `b`, ….
fn joined(contents: &[&[(&str, &str)]]) -> Vec<String> {
    let mut fixture = Fixture::new();
    for (name, entries) in ["a", "b", "c"].iter().zip(contents) {
        fixture.content(name, entries);
    }
    without_base(fixture.layout().unwrap())
}

/// What is joined, from which contents, to what.
type Rule = (
    &'static str,
    &'static [&'static [(&'static str, &'static str)]],
    &'static [&'static str],
);

const RULES: &[Rule] = &[
    (
        "top-level directories are real, deeper ones of one content one symlink",
        &[&[("bin/x", "1"), ("share/doc/x/y", "1"), ("share/z", "1")]],
        &[
            "bin/ 755",
            "bin/x -> {a}/bin/x",
            "share/ 755",
            "share/doc -> {a}/share/doc",
            "share/z -> {a}/share/z",
        ],
    ),
    (
        "a directory of several contents is real",
        &[&[("share/doc/a/f", "1")], &[("share/doc/b/f", "1")]],
        &[
            "share/ 755",
            "share/doc/ 755",
            "share/doc/a -> {a}/share/doc/a",
            "share/doc/b -> {b}/share/doc/b",
        ],
    ),
    (
        "what is below etc, var and the like is always real",
        &[&[("etc/ssl/certs/x", "1"), ("var/lib/", "")]],
        &[
            "etc/ssl/ 755",
            "etc/ssl/certs/ 755",
            "etc/ssl/certs/x -> {a}/etc/ssl/certs/x",
            "var/ 755",
            "var/lib/ 755",
        ],
    ),
    (
        "symlinks are linked to, not followed; dangling and absolute ones too",
        &[&[
            ("bin/dangling", "-> nowhere"),
            ("bin/abs", "-> /layerize/x"),
            ("lib", "-> bin"),
            ("bin/up", "-> .."),
        ]],
        &[
            "bin/ 755",
            "bin/abs -> {a}/bin/abs",
            "bin/dangling -> {a}/bin/dangling",
            "bin/up -> {a}/bin/up",
            "lib -> {a}/lib",
        ],
    ),
    (
        "a symlink to a directory merges with a directory",
        &[&[("lib/a", "1"), ("lib64", "-> lib")], &[("lib64/b", "1")]],
        &[
            "lib/ 755",
            "lib/a -> {a}/lib/a",
            "lib64/ 755",
            "lib64/a -> {a}/lib/a",
            "lib64/b -> {b}/lib64/b",
        ],
    ),
    (
        "files of the same bytes and mode do not collide, and the first wins",
        &[
            &[("share/x", "same"), ("bin/y", "#!same")],
            &[("share/x", "same"), ("bin/y", "#!same")],
        ],
        &["bin/ 755", "bin/y -> {a}/bin/y", "share/ 755", "share/x -> {a}/share/x"],
    ),
    (
        "dangling symlinks of the same text do not collide",
        &[&[("share/x", "-> gone")], &[("share/x", "-> gone")]],
        &["share/ 755", "share/x -> {a}/share/x"],
    ),
    (
        "nix-support stays out, a file at the top goes in",
        &[&[
            ("nix-support/propagated", "1"),
            ("README", "1"),
            ("share/nix-support/x", "1"),
        ]],
        &[
            "README -> {a}/README",
            "share/ 755",
            "share/nix-support -> {a}/share/nix-support",
        ],
    ),
    (
        "bin merges into usr/bin where a content has that, in whatever order they come",
        &[
            &[("bin/x", "1"), ("lib/m/x", "1")],
            &[("usr/bin/y", "1"), ("usr/lib/m/y", "1")],
        ],
        &[
            "bin -> usr/bin",
            "lib -> usr/lib",
            "usr/ 755",
            "usr/bin/ 755",
            "usr/bin/x -> {a}/bin/x",
            "usr/bin/y -> {b}/usr/bin/y",
            "usr/lib/ 755",
            "usr/lib/m/ 755",
            "usr/lib/m/x -> {a}/lib/m/x",
            "usr/lib/m/y -> {b}/usr/lib/m/y",
        ],
    ),
    ("an empty content brings nothing", &[&[]], &[]),
];

#[test]
fn rules() {
    for (what, contents, expected) in RULES {
        assert_eq!(joined(contents), *expected, "{what}");
    }
}

#[test]
fn the_same_content_twice_is_no_collision() {
    let mut fixture = Fixture::new();
    fixture.content("a", &[("bin/x", "1"), ("share/doc/", "")]);
    fixture.contents.push(fixture.contents[0].clone());
    assert_eq!(
        without_base(fixture.layout().unwrap()),
        [
            "bin/ 755",
            "bin/x -> {a}/bin/x",
            "share/ 755",
            "share/doc -> {a}/share/doc"
        ]
    );
}

#[test]
fn a_link_through_another_store_path_is_the_same_file() {
    let mut fixture = Fixture::new();
    fixture.content("a", &[("bin/x", "1")]);
    let target = format!("-> {}/bin/x", fixture.logical("a"));
    fixture.content("b", &[("bin/x", &target)]);
    assert_eq!(
        without_base(fixture.layout().unwrap()),
        ["bin/ 755", "bin/x -> {a}/bin/x"]
    );
}

#[test]
fn all_collisions_are_reported_at_once() {
    let cases: &[(&str, &str, &str)] = &[
        ("1", "2", "other bytes"),
        ("1", "22", "another size"),
        ("x", "#!", "another mode and size"),
        ("1", "-> gone", "a file and a dangling symlink"),
        ("-> gone", "-> away", "two dangling symlinks"),
    ];
    for (first, second, what) in cases {
        let mut fixture = Fixture::new();
        fixture.content("a", &[("share/p", first), ("share/dir/x", "1"), ("share/fine", "")]);
        fixture.content("b", &[("share/p", second), ("share/dir", "a file")]);
        assert_eq!(
            fixture.error(),
            "cannot join the contents under `/`: 2 paths are brought twice\n  \
             `/share/dir`: `{a}/share/dir` and `{b}/share/dir`\n  \
             `/share/p`: `{a}/share/p` and `{b}/share/p`",
            "{what}"
        );
    }
}

#[test]
fn a_package_of_root_and_a_content_can_collide() {
    let mut fixture = Fixture::new();
    fixture.package("deb", &[("usr/bin/x", "#!1"), ("usr/bin/same", "same")]);
    fixture.content("a", &[("bin/x", "#!2"), ("bin/same", "same")]);
    assert_eq!(
        fixture.error(),
        "cannot join the contents under `/`: 1 path is brought twice\n  `/usr/bin/x`: `/usr/bin/x` and `{a}/bin/x`"
    );
}

#[test]
fn many_collisions_are_counted() {
    let names: Vec<_> = (0..30).map(|n| format!("share/{n:02}")).collect();
    let tree = |text| names.iter().map(|name| (name.as_str(), text)).collect::<Vec<_>>();
    let mut fixture = Fixture::new();
    fixture.content("a", &tree("1"));
    fixture.content("b", &tree("2"));
    let error = fixture.error();
    assert!(error.contains(": 30 paths are brought twice\n"), "{error}");
    assert!(error.ends_with("\n  and 10 more"), "{error}");
}

#[test]
fn contents_must_be_directories_of_the_closure() {
    let mut fixture = Fixture::new();
    fixture.content("tool", &[("bin/x", "1")]);
    fs::remove_dir_all(&fixture.members[0].physical).unwrap();
    fs::write(&fixture.members[0].physical, "a file").unwrap();
    assert_eq!(
        fixture.error(),
        "cannot join `tool` under `/`: `{tool}` is a file, not a directory"
    );
    let help = fixture.assemble().unwrap_err().help().unwrap();
    assert!(
        help.contains("`$out/bin/00000000000000000000000000000000-tool`"),
        "{help}"
    );
    fixture.members.clear();
    assert!(fixture.error().ends_with("is not there"), "{}", fixture.error());
}

/// Trees of few names, so that they meet often; an entry that cannot stand beside an earlier one is left out.
fn any_tree() -> impl Strategy<Value = BTreeMap<String, String>> {
    let entry = (prop::collection::vec("[abe]", 1..4), "[12]|#!1|-> [ab]");
    prop::collection::vec(entry, 0..6).prop_map(|entries| {
        let mut tree: BTreeMap<String, String> = BTreeMap::new();
        for (names, text) in entries {
            // `e` at the top is `etc`, where directories are always real.
            let path = names.join("/").replacen('e', "etc", 1);
            let below = |a: &str, b: &str| a.starts_with(&format!("{b}/"));
            if !tree
                .keys()
                .any(|other| *other == path || below(other, &path) || below(&path, other))
            {
                tree.insert(path, text);
            }
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_path_of_a_content_is_at_its_place(trees in prop::collection::vec(any_tree(), 1..4)) {
        let mut fixture = Fixture::new();
        for (name, tree) in ["a", "b", "c"].iter().zip(&trees) {
            let entries: Vec<_> = tree.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
            fixture.content(name, &entries);
        }
        let recipe = fixture.recipe();
        let settings = Settings::new(&fixture.spec).unwrap();
        let layout = match layout::lay_out(&recipe, &settings) {
            Ok(layout) => layout,
            Err(error) => {
                // One content alone collides with nothing; one whose `etc` is not a directory leaves no place for accounts.
                let collide = matches!(error, ImageError::Collisions { .. }) && trees.len() > 1;
                let no_etc = matches!(&error, ImageError::NotADirectory { parent, .. } if parent == "/etc");
                prop_assert!(collide || no_etc, "{}", error);
                return Ok(());
            }
        };
        for (member, tree) in fixture.members.iter().zip(&trees) {
            for path in tree.keys() {
                let inside = layout.files.resolve(&[member.logical.relative().as_bytes(), b"/", path.as_bytes()].concat()).unwrap();
                let joined = layout.files.resolve(path.as_bytes()).unwrap();
                prop_assert_eq!(bytes_of(inside), bytes_of(joined), "{}", path);
            }
        }
        for (path, _) in layout.files.nodes() {
            let parent = crate::root::parent(path);
            prop_assert!(parent.is_empty() || layout.files.node(parent).unwrap().kind == NodeKind::Directory);
        }
    }
}

/// What a path leads to, as far as two equal files are equal: its bytes and executable bit, or that it is a directory.
fn bytes_of(found: Option<(Vec<u8>, Found)>) -> Option<(bool, Vec<u8>)> {
    match found?.1 {
        Found::File {
            executable,
            content: Content::Disk { physical, .. },
        } => Some((executable, fs::read(physical).unwrap())),
        Found::File {
            content: Content::Bytes(bytes),
            ..
        } => Some((false, bytes.to_vec())),
        _ => Some((true, b"directory".to_vec())),
    }
}
