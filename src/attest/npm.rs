//! The *manifests* of npm's packages in an image: what they say of their licences.
//!
//! Invariant: what cannot be read says nothing; no link is followed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use serde_json::Value;

use super::licence::Licence;
use super::purl;
use crate::fsio;

/// Largest `package.json` that is read, in bytes.
const MANIFEST_MAX: u64 = 4 << 20;

/// The licence of the package in `dir`.
pub(super) fn licence(dir: &Path) -> Option<Licence> {
    declared(&manifest(dir)?)
}

/// The licences of all packages that are in some `node_modules` below `tree`, by package URL.
pub(super) fn licences(tree: &Path) -> BTreeMap<String, Licence> {
    let entries = fsio::walk(tree).filter_map(Result::ok);
    let dirs = entries.filter(|entry| entry.file_type().is_dir() && is_package(entry.path()));
    let said = dirs.filter_map(|dir| {
        let manifest = manifest(dir.path())?;
        let purl = purl::npm(manifest["name"].as_str()?, manifest["version"].as_str()?);
        Some((purl, declared(&manifest)?))
    });
    said.collect()
}

/// Whether a directory is where packages are: `node_modules/NAME`, `node_modules/@SCOPE/NAME`.
fn is_package(dir: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(OsStr::to_owned).unwrap_or_default();
    let scope = dir
        .parent()
        .filter(|parent| name(parent).as_encoded_bytes().starts_with(b"@"));
    let around = scope.unwrap_or(dir).parent();
    around.is_some_and(|around| name(around) == "node_modules")
}

fn manifest(dir: &Path) -> Option<Value> {
    let path = dir.join("package.json");
    let is_file = path.symlink_metadata().is_ok_and(|status| status.is_file());
    let bytes = is_file
        .then(|| fsio::read_limited(&path, MANIFEST_MAX).ok())
        .flatten()?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(text).ok()
}

/// `license`, which is an expression, or as it was before an object; or `licenses`, of which one may choose.
fn declared(manifest: &Value) -> Option<Licence> {
    let one = |value: &Value| value.as_str().or(value["type"].as_str()).map(str::to_owned);
    let of_one = one(&manifest["license"]);
    let all = [&manifest["license"], &manifest["licenses"]]
        .into_iter()
        .filter_map(Value::as_array);
    let all: Vec<String> = all.flatten().filter_map(one).collect();
    Licence::declared(&of_one.unwrap_or_else(|| all.join(" OR ")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn licences_are_read_in_all_forms_that_npm_had() {
        let expression = |text: &str| Some(Licence::Expression(text.to_owned()));
        for (manifest, expected) in [
            (json!({ "license": "MIT" }), expression("MIT")),
            (json!({ "license": "(MIT OR ISC)" }), expression("(MIT OR ISC)")),
            (json!({ "license": { "type": "ISC", "url": "x" } }), expression("ISC")),
            (
                json!({ "licenses": [{ "type": "MIT" }, { "type": "Apache-2.0" }] }),
                expression("MIT OR Apache-2.0"),
            ),
            (json!({ "license": ["MIT", "ISC"] }), expression("MIT OR ISC")),
            (
                json!({ "license": "SEE LICENSE IN LICENSE" }),
                Some(Licence::Words("SEE LICENSE IN LICENSE".to_owned())),
            ),
            (json!({ "license": 7 }), None),
            (json!({}), None),
            (json!([]), None),
        ] {
            assert_eq!(declared(&manifest), expected, "{manifest}");
        }
    }

    #[test]
    fn packages_are_found_wherever_they_are_nested() {
        let dir = tempfile::tempdir().unwrap();
        for (at, name, licence) in [
            ("lib/app", "app", "MIT"),
            ("lib/app/node_modules/a", "a", "ISC"),
            ("lib/app/node_modules/a/node_modules/@s/b", "@s/b", "0BSD"),
            ("lib/app/node_modules/a/lib", "no", "MIT"),
            ("lib/app/node_modules/bad", "bad", "\", "),
        ] {
            let dir = dir.path().join(at);
            fs::create_dir_all(&dir).unwrap();
            let text = format!("{{\"name\":\"{name}\",\"version\":\"1.0.0\",\"license\":\"{licence}\"}}");
            fs::write(dir.join("package.json"), text).unwrap();
        }
        std::os::unix::fs::symlink("a", dir.path().join("lib/app/node_modules/link")).unwrap();
        let found: Vec<String> = licences(dir.path()).into_keys().collect();
        assert_eq!(found, ["pkg:npm/%40s/b@1.0.0", "pkg:npm/a@1.0.0"]);
    }
}
