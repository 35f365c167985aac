//! Golden tests over `fixtures/spec`: specs that are right with what becomes of them, specs that are wrong
//! with what is said. `LAYERIZE_BLESS=1` writes the expected files anew.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

pub(super) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/spec")
}

/// The `.toml` files in a folder of fixtures, sorted.
pub(super) fn cases(folder: &str) -> Vec<String> {
    #[expect(clippy::disallowed_methods, reason = "a test's own fixtures, sorted here")]
    let entries = fs::read_dir(fixtures().join(folder)).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    names.sort();
    names
}

/// Loads a fixture as if the fixtures lay in `/spec`.
pub(super) fn load_case(folder: &str, name: &str) -> Result<Workspace, Diagnostics> {
    let root = Path::new("/spec").join(folder);
    load(&root.join(name), &mut |path| {
        let below = path.strip_prefix("/spec").expect("imports stay among the fixtures");
        fs::read_to_string(fixtures().join(below))
    })
    .map_err(|diagnostics| diagnostics.shown_from(&root))
}

/// Compares with the file `name` among the fixtures.
pub(super) fn check_golden(name: &str, actual: &str) {
    let path = fixtures().join(name);
    #[expect(clippy::disallowed_methods, reason = "set by hand to write the expected files anew")]
    let bless = std::env::var_os("LAYERIZE_BLESS").is_some();
    if bless {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{name} differs\n--- expected\n{expected}\n--- actual\n{actual}"
    );
}

#[test]
fn wrong_specs_are_explained() {
    let cases = cases("bad");
    assert!(cases.len() >= 30);
    for case in cases {
        let diagnostics = load_case("bad", &case).expect_err(&case);
        let golden = format!("bad/{}", case.replace(".toml", ".txt"));
        check_golden(&golden, &diagnostics.render(false));
    }
}

#[test]
fn right_specs_are_understood() {
    for case in cases("ok") {
        let mut workspace = load_case("ok", &case).unwrap_or_else(|errors| panic!("{case}\n{errors}"));
        workspace.files.iter_mut().for_each(|file| file.text.clear());
        let golden = format!("ok/{}", case.replace(".toml", ".txt"));
        check_golden(&golden, &format!("{workspace:#?}\n"));
    }
}

/// A workspace in which `files` are all there is, by path.
fn load_files(root: &str, files: &[(String, String)]) -> Result<Workspace, Diagnostics> {
    load(Path::new(root), &mut |path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found
            .map(|(_, text)| text.clone())
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    })
}

#[test]
fn a_missing_root_is_explained() {
    let errors = load_files("/none", &[]).unwrap_err();
    let expected = "error: cannot read `/none/layerize.toml`: there is no such file";
    assert_eq!(errors.to_string().lines().next(), Some(expected));
    assert!(errors.to_string().contains("change to a folder with a `layerize.toml`"));
}

/// Editors of Windows and git's `autocrlf` write `\r\n`, some a byte-order mark: the same spec and lock all the same.
#[test]
fn line_ends_and_a_byte_order_mark_change_nothing() {
    let text =
        "[package.a]\nscript = \"\"\"\nmkdir -p $out/bin\nprintf '\\\\r' > $out/x\n\"\"\"\nenv = { A = \"\\r\" }\n";
    let script = |text: &str| {
        let workspace = crate::spec::parse(text).unwrap();
        let package = workspace.packages.values().next().unwrap().clone();
        (package.script.unwrap().value, package.env["A"].value.clone())
    };
    let plain = script(text);
    assert_eq!(plain.0, "mkdir -p $out/bin\nprintf '\\r' > $out/x\n");
    assert_eq!(plain.1, "\r", "an escape is what it says");
    for other in [text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
        assert_eq!(script(&other), plain);
    }
    let lock = crate::spec::lock::print(&crate::spec::Lock::default());
    let other = format!("\u{feff}{}", lock.replace('\n', "\r\n"));
    assert_eq!(crate::spec::lock::parse(&other).unwrap(), crate::spec::Lock::default());
    // The place of an error is still the one the editor shows.
    let error = crate::spec::parse("[package.a]\r\nverzion = 1\r\n").unwrap_err();
    let shown = error.render(false);
    assert!(shown.contains("layerize.toml:2:1"), "{shown}");
}

#[test]
fn a_file_is_read_once() {
    let mut reads = Vec::new();
    let dir = fixtures();
    load(Path::new("/spec/ok/diamond.toml"), &mut |path| {
        reads.push(path.to_owned());
        fs::read_to_string(dir.join(path.strip_prefix("/spec").unwrap()))
    })
    .unwrap();
    assert_eq!(
        reads,
        [
            "/spec/ok/diamond.toml",
            "/spec/lib/base.toml",
            "/spec/lib/other/layerize.toml"
        ]
        .map(PathBuf::from)
    );
}

/// Few files, but 2⁴⁰ ways through them.
#[test]
fn very_many_ways_of_imports_are_refused() {
    let diamond = |depth: usize, name: &dyn Fn(usize) -> String| -> Vec<(String, String)> {
        (0..depth)
            .map(|n| {
                let imports = format!("imports.a = {0:?}\nimports.b = {0:?}\n", name(n + 1));
                (format!("/{}", name(n)), imports)
            })
            .chain([(format!("/{}", name(depth)), String::new())])
            .collect()
    };
    let name = |n: usize| format!("f{n}.toml");
    let errors = load_files("/f0.toml", &diamond(30, &name)).unwrap_err();
    assert_eq!(
        errors.items[0].message,
        "there are more than 20000 packages or ways of imports"
    );
    let errors = load_files("/f0.toml", &diamond(40, &name)).unwrap_err();
    assert_eq!(
        errors.items[0].message,
        "there are more than 32 imports one after the other"
    );
    let chain: Vec<(String, String)> = (0..1100)
        .map(|n| (format!("/{}", name(n)), format!("imports.a = {:?}\n", name(n + 1))))
        .collect();
    let errors = load_files("/f0.toml", &chain).unwrap_err();
    assert_eq!(errors.items[0].message, "more than 1000 spec files are imported");
}

#[test]
fn deep_nesting_does_no_harm() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{ a = ".repeat(100_000)),
        format!("[{}]", ["a"; 100_000].join(".")),
        format!("{} = 1", ["a"; 1000].join(".")),
    ] {
        assert!(!parse(&text).unwrap_err().items.is_empty());
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Examples to damage.
    fn examples() -> Vec<String> {
        let read = |folder: &str| {
            let texts = cases(folder)
                .into_iter()
                .map(move |case| fixtures().join(folder).join(case));
            texts.map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>()
        };
        [read("ok"), read("bad")].concat()
    }

    fn survives(text: &str) -> Result<(), TestCaseError> {
        if let Err(diagnostics) = parse(text) {
            prop_assert!(!diagnostics.items.is_empty());
            let rendered = diagnostics.render(false);
            prop_assert!(rendered.starts_with("error: "));
            let escapes = rendered.contains('\u{1b}');
            prop_assert!(!escapes);
            diagnostics.to_json();
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_explained(text in "\\PC{0,200}") {
            survives(&text)?;
        }

        #[test]
        fn anything_like_toml_is_read_or_explained(
            text in "([\\[\\]{}=.,\"'#\n\t\\\\ a-c0-9_-]|package|image|source|\"\"\"|\u{1b}|ä){0,80}"
        ) {
            survives(&text)?;
        }

        #[test]
        fn damaged_specs_are_read_or_explained(
            example in any::<prop::sample::Index>(),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..30usize, "[\\[\\]{}=.,\"' \n\u{1b}a0ä]{0,3}"), 1..4),
        ) {
            let examples = examples();
            let mut text = example.get(&examples).clone();
            for (position, length, insert) in cuts {
                let floor = |index: usize| (0..=index.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap();
                let start = floor(position.index(text.len() + 1));
                let end = floor(start + length).max(start);
                text.replace_range(start..end, &insert);
            }
            survives(&text)?;
        }

        /// A value of any type in any key's place.
        #[test]
        fn every_value_may_be_of_any_type(
            key in any::<prop::sample::Index>(),
            value in any::<prop::sample::Index>(),
        ) {
            let keys = [
                "imports", "imports.a", "imports.a.path", "debian", "debian.sources", "debian.keyring",
                "debian.architecture", "debian.snapshots", "debian.base", "inputs", "inputs.from", "inputs.withhold", "package", "package.a", "package.a.version", "package.a.source",
                "package.a.source.path", "package.a.source.include", "package.a.source.gitignore",
                "package.a.source.url", "package.a.source.redistribute", "package.a.source.sha256", "package.a.source.unpack", "package.a.source.strip",
                "package.a.source.deb-source", "package.a.tools", "package.a.env", "package.a.env.A",
                "package.a.script", "package.a.timeout", "package.a.base", "image", "image.a", "image.a.tag",
                "image.a.contents", "image.a.root", "image.a.base", "image.a.files", "image.a.files.\"/a\"",
                "image.a.files.\"/a\".mode", "image.a.files.\"/a\".owner", "image.a.users", "image.a.users.u",
                "image.a.users.u.uid", "image.a.entrypoint", "image.a.env", "image.a.workdir", "image.a.user",
                "image.a.ports", "image.a.volumes", "image.a.labels", "image.a.stop-signal", "image.a.healthcheck", "image.a.healthcheck.run", "image.a.healthcheck.interval", "image.a.layers",
                "image.a.layers.max", "image.a.layers.groups", "image.a.layers.weights", "image.a.layers.weights.a",
                "image.a.platform", "image.a.compression",
            ];
            let values = [
                "\"\"", "\"a\"", "\"\\u0000\"", "0", "-1", "99999999999999999999", "0x7f", "0o644", "1.5", "nan", "-inf",
                "true", "1979-05-27T07:32:00Z", "[]", "[[]]", "[1, \"a\", {}]", "{}", "{ a = 1 }", "{ \"\" = {} }",
                "{ path = [] }", "[{ a = [] }]",
            ];
            survives(&format!("{} = {}\n", key.get(&keys), value.get(&values)))?;
        }
    }
}
