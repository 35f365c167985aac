//! A *cause* is the input of a build whose change explains that its output is another: found by comparing two resolved
//! derivations (their text is described in `derive::resolve`), and those of their inputs.
//!
//! Invariant: pure; a change is told once, where it begins; bounded in depth and number.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::packages::{matching, name_of, package_of};
use super::sequence::{self, TextLimits};
use super::{Cause, Class};

/// Inputs of inputs of inputs that are followed.
const DEPTH_MAX: usize = 12;
const CAUSES_MAX: usize = 40;
const LINES_MAX: usize = 40;

/// Lists of store paths in a script's derivation, with the word for one of them. `root` comes last: it repeats tools
/// and libraries with what they need.
const LISTS: [(&str, &str); 4] = [
    ("tools", "tool"),
    ("libraries", "library"),
    ("runtime", "runtime input"),
    ("root", "build root package"),
];

/// The inputs that changed between two store paths; empty where a side's derivation is not known.
pub(super) fn causes(a: &str, b: &str, derivation: &dyn Fn(&str) -> Option<String>) -> Vec<Cause> {
    let mut search = Search {
        derivation,
        seen: BTreeSet::new(),
        found: Vec::new(),
    };
    search.paths(a, b, &[]);
    search.found.truncate(CAUSES_MAX);
    search.found
}

struct Search<'a> {
    derivation: &'a dyn Fn(&str) -> Option<String>,
    /// Pairs of store paths that were compared.
    seen: BTreeSet<(String, String)>,
    found: Vec<Cause>,
}

impl Search<'_> {
    /// Compares what made two store paths; false where that is not known.
    fn paths(&mut self, a: &str, b: &str, through: &[String]) -> bool {
        let read = |path: &str| -> Option<Value> { serde_json::from_str(&(self.derivation)(path)?).ok() };
        let (Some(x), Some(y)) = (read(a), read(b)) else {
            return false;
        };
        let before = self.found.len();
        let (p, q) = (&x["action"], &y["action"]);
        if is_deb(p) && is_deb(q) && p["package"] == q["package"] {
            self.lock_entry(&x, &y, through);
            return self.found.len() > before;
        }
        for (field, what) in [
            ("name", "name and version"),
            ("format", "rules of layerize's derivations"),
        ] {
            self.field(what, &x[field], &y[field], through);
        }
        if p["kind"] == q["kind"] {
            self.actions(p, q, through);
        } else {
            self.field("kind of step", &p["kind"], &q["kind"], through);
        }
        self.found.len() > before
    }

    /// A Debian package is what the lock says of it: version and digest.
    fn lock_entry(&mut self, a: &Value, b: &Value, through: &[String]) {
        let text = |value: &Value| {
            let name = value["name"].as_str().unwrap_or_default();
            let version = name
                .strip_prefix(package_of(name))
                .unwrap_or_default()
                .trim_start_matches('-');
            let digest: String = value["action"]["sha256"]
                .as_str()
                .unwrap_or_default()
                .chars()
                .take(12)
                .collect();
            format!("{version} (sha256 {digest}…)")
        };
        let package = a["action"]["package"].as_str().unwrap_or_default();
        let (p, q) = (text(a), text(b));
        if p != q {
            self.push(&format!("lock entry deb:{package}"), through, Some(p), Some(q), None);
        }
    }

    /// The name of an input as the spec would have it.
    fn label(&self, what: &str, path: &str) -> String {
        let known = (self.derivation)(path).and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let prefix = if known.is_some_and(|value| is_deb(&value["action"])) {
            "deb:"
        } else {
            ""
        };
        format!("{what} {prefix}{}", package_of(name_of(path)))
    }

    fn actions(&mut self, a: &Value, b: &Value, through: &[String]) {
        for (field, what) in [
            ("package", "package"),
            ("sha256", "download"),
            ("strip", "leading directories"),
            ("system", "system"),
            ("sandbox", "rules of the sandbox"),
            ("debianPatches", "Debian's patches"),
        ] {
            self.field(what, &a[field], &b[field], through);
        }
        self.files(&a["files"], &b["files"], through);
        self.lists("source", &list(&a["source"]), &list(&b["source"]), through);
        if let (Some(x), Some(y)) = (a["script"].as_str(), b["script"].as_str())
            && x != y
        {
            self.push(
                "script",
                through,
                None,
                None,
                Some(sequence::unified(x, y, &TextLimits::new(LINES_MAX))),
            );
        }
        let (x, y) = (map(&a["env"]), map(&b["env"]));
        for key in x.keys().chain(y.keys()).copied().collect::<BTreeSet<_>>() {
            let (p, q) = (x.get(key), y.get(key));
            if p != q {
                let text = |value: Option<&&Value>| Some(value?.as_str()?.to_owned());
                self.push(&format!("env {key}"), through, text(p), text(q), None);
            }
        }
        for (field, what) in LISTS {
            self.lists(what, &list(&a[field]), &list(&b[field]), through);
        }
    }

    /// The files of a Debian source package, which are named by its version.
    fn files(&mut self, a: &Value, b: &Value, through: &[String]) {
        let (x, y) = (map(a), map(b));
        if x == y {
            return;
        }
        let lone = |own: &BTreeMap<&str, &Value>, other: &BTreeMap<&str, &Value>| {
            let names = own.keys().filter(|name| !other.contains_key(*name));
            names.copied().collect::<Vec<_>>().join(", ")
        };
        let (p, q) = (lone(&x, &y), lone(&y, &x));
        if !p.is_empty() || !q.is_empty() {
            let version = |files: &BTreeMap<&str, &Value>| {
                let dsc = files.keys().find_map(|name| name.strip_suffix(".dsc"))?;
                Some(dsc.replacen('_', " ", 1))
            };
            let (version_a, version_b) = (version(&x), version(&y));
            if version_a.is_some() && version_b.is_some() && version_a != version_b {
                self.push("Debian source package", through, version_a, version_b, None);
            } else {
                self.push("files of the source package", through, Some(p), Some(q), None);
            }
        }
        for (name, digest) in &x {
            if y.get(name).is_some_and(|other| other != digest) {
                self.field(&format!("source file {name}"), digest, y[name], through);
            }
        }
    }

    fn lists(&mut self, what: &str, a: &[String], b: &[String], through: &[String]) {
        let (set_a, set_b): (BTreeSet<String>, BTreeSet<String>) =
            (a.iter().cloned().collect(), b.iter().cloned().collect());
        if set_a == set_b {
            if a != b {
                let names = |list: &[String]| Some(list.iter().map(|path| name_of(path)).collect::<Vec<_>>().join(" "));
                self.push(&format!("order of {what}s"), through, names(a), names(b), None);
            }
            return;
        }
        let pairs = matching(&set_a, &set_b);
        for pair in &pairs {
            if self.seen.insert((pair.a.clone(), pair.b.clone())) {
                self.input(what, &pair.a, &pair.b, pair.class, through);
            }
        }
        let lone = |own: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
            let matched = |path: &&String| pairs.iter().any(|pair| pair.a == **path || pair.b == **path);
            own.difference(other).filter(|path| !matched(path)).cloned().collect()
        };
        for path in lone(&set_a, &set_b) {
            if self.seen.insert((path.clone(), String::new())) {
                let input = self.label(what, &path);
                self.push(&input, through, Some(name_of(&path).to_owned()), None, None);
            }
        }
        for path in lone(&set_b, &set_a) {
            if self.seen.insert((String::new(), path.clone())) {
                let input = self.label(what, &path);
                self.push(&input, through, None, Some(name_of(&path).to_owned()), None);
            }
        }
    }

    /// An input that is another: of another version, or because of one of its own inputs.
    fn input(&mut self, what: &str, a: &str, b: &str, class: Class, through: &[String]) {
        let input = self.label(what, a);
        let name = |path: &str| Some(name_of(path).to_owned());
        if class == Class::Package && what != "source" {
            return self.push(&input, through, name(a), name(b), None);
        }
        let further: Vec<String> = through.iter().cloned().chain([input.clone()]).collect();
        if through.len() >= DEPTH_MAX || !self.paths(a, b, &further) {
            self.push(&input, through, Some(a.to_owned()), Some(b.to_owned()), None);
        }
    }

    fn field(&mut self, what: &str, a: &Value, b: &Value, through: &[String]) {
        if a != b {
            let text = |value: &Value| match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            self.push(what, through, text(a), text(b), None);
        }
    }

    fn push(&mut self, input: &str, through: &[String], a: Option<String>, b: Option<String>, text: Option<String>) {
        if self.found.len() < CAUSES_MAX {
            self.found.push(Cause {
                input: input.to_owned(),
                through: through.to_vec(),
                a,
                b,
                text,
            });
        }
    }
}

fn is_deb(action: &Value) -> bool {
    action["kind"] == "unpack-deb"
}

fn list(value: &Value) -> Vec<String> {
    match value {
        Value::String(path) => vec![path.clone()],
        Value::Array(paths) => paths.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn map(value: &Value) -> BTreeMap<&str, &Value> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.as_str(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(name: &str) -> String {
        format!("/layerize/store/{name}")
    }

    fn script(change: impl Fn(&mut Value)) -> String {
        let mut value = json!({
            "action": {
                "kind": "script", "debianPatches": true, "declared": {}, "env": { "CFLAGS": "-O2" },
                "libraries": [path("l1-libc6-2.36-9")], "root": [path("t1-gcc-12.2.0-14"), path("l1-libc6-2.36-9")],
                "runtime": [], "sandbox": 1, "script": "./configure\nmake\nmake install\n",
                "source": path("s1-hello-2.10-source"), "system": "x86_64-linux",
                "tools": [path("t1-gcc-12.2.0-14"), path("u1-own")],
            },
            "format": 1, "name": "hello-2.10", "store": "/layerize/store",
        });
        change(&mut value);
        value.to_string()
    }

    /// What is told of two versions of `hello`, whose other inputs' derivations are these.
    fn told(change: impl Fn(&mut Value), others: &[(&str, Value)]) -> Vec<String> {
        let known: BTreeMap<String, String> = others
            .iter()
            .map(|(name, action)| {
                (
                    path(name),
                    json!({ "action": action, "format": 1, "name": "x" }).to_string(),
                )
            })
            .chain([
                (path("a-hello-2.10"), script(|_| {})),
                (path("b-hello-2.10"), script(change)),
            ])
            .collect();
        let found = causes(&path("a-hello-2.10"), &path("b-hello-2.10"), &|path| {
            known.get(path).cloned()
        });
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let line = |cause: &Cause| {
            let value = cause
                .text
                .clone()
                .unwrap_or_else(|| format!("{} → {}", shown(&cause.a), shown(&cause.b)));
            let through: String = cause.through.iter().map(|input| format!("{input} > ")).collect();
            format!("{through}{}: {value}", cause.input)
        };
        found.iter().map(line).collect()
    }

    #[test]
    fn the_input_that_changed_is_named_once() {
        let one = |change: fn(&mut Value)| told(change, &[]);
        assert_eq!(one(|_| {}), [""; 0]);
        assert_eq!(
            one(|v| v["action"]["env"]["CFLAGS"] = "-O3".into()),
            ["env CFLAGS: -O2 → -O3"]
        );
        assert_eq!(one(|v| v["action"]["env"]["NEW"] = "1".into()), ["env NEW: - → 1"]);
        assert_eq!(
            one(|v| v["action"]["script"] = "./configure --x\nmake\nmake install\n".into()),
            ["script: @@ -1,3 +1,3 @@\n-./configure\n+./configure --x\n make\n make install"]
        );
        // A tool is in the build root too, and told once.
        let gcc = |v: &mut Value| {
            v["action"]["tools"][0] = path("t2-gcc-12.2.0-15").into();
            v["action"]["root"][0] = path("t2-gcc-12.2.0-15").into();
        };
        assert_eq!(told(gcc, &[]), ["tool gcc: gcc-12.2.0-14 → gcc-12.2.0-15"]);
        assert_eq!(
            one(|v| drop(v["action"]["tools"].as_array_mut().unwrap().pop())),
            ["tool own: own → -"]
        );
        assert_eq!(
            one(|v| v["action"]["tools"].as_array_mut().unwrap().reverse()),
            ["order of tools: gcc-12.2.0-14 own → own gcc-12.2.0-14"]
        );
        assert_eq!(
            one(|v| v["action"]["sandbox"] = 2.into()),
            ["rules of the sandbox: 1 → 2"]
        );
    }

    #[test]
    fn a_rebuilt_input_is_followed_to_where_the_change_begins() {
        let files = |version: &str| json!({ "kind": "unpack-deb-source", "files": { format!("hello_2.10-{version}.dsc"): "0", "hello_2.10.orig.tar.gz": "1" } });
        let source = |v: &mut Value| v["action"]["source"] = path("s2-hello-2.10-source").into();
        assert_eq!(
            told(
                source,
                &[
                    ("s1-hello-2.10-source", files("2")),
                    ("s2-hello-2.10-source", files("3"))
                ]
            ),
            ["source hello > Debian source package: hello 2.10-2 → hello 2.10-3"]
        );
        let download = |digest: &str| json!({ "kind": "unpack", "sha256": digest, "strip": null });
        let own = |v: &mut Value| v["action"]["tools"][1] = path("u2-own").into();
        assert_eq!(
            told(own, &[("u1-own", download("0")), ("u2-own", download("1"))]),
            ["tool own > download: 0 → 1"]
        );
        // What made it is not known: the paths are all there is to say.
        assert_eq!(
            told(own, &[]),
            ["tool own: /layerize/store/u1-own → /layerize/store/u2-own"]
        );
    }

    #[test]
    fn a_debian_package_is_its_lock_entry() {
        let deb = |version: &str, digest: &str| {
            let action = json!({ "kind": "unpack-deb", "package": "libc6", "sha256": digest });
            Some(json!({ "action": action, "format": 1, "name": format!("libc6-{version}") }).to_string())
        };
        let derivation = |path: &str| match path.ends_with('9') {
            true => deb("2.36-9", "00112233445566778899"),
            false => deb("2.36-10", "aabbccddeeff00112233"),
        };
        let found = causes(&path("a-libc6-2.36-9"), &path("b-libc6-2.36-10"), &derivation);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].input, "lock entry deb:libc6");
        assert_eq!(found[0].a.as_deref(), Some("2.36-9 (sha256 001122334455…)"));
        assert_eq!(found[0].b.as_deref(), Some("2.36-10 (sha256 aabbccddeeff…)"));
    }

    #[test]
    fn inputs_that_go_in_circles_end() {
        let circle = |_: &str| Some(json!({ "action": { "kind": "script", "source": path("a-x") } }).to_string());
        assert_eq!(causes(&path("a-x"), &path("b-x"), &circle), []);
    }
}
