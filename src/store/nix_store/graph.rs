//! A *closure graph*: the JSON in which Nix tells what it knows of paths.
//!
//! Invariant: every shape that a Nix has written is read alike; hashes and sizes that are missing are an error that
//! names the path, for nothing could be verified without them.
//!
//! | shape | written by |
//! |---|---|
//! | `[{"path": "/nix/store/…", …}, …]` | `nix path-info --json` until 2.18 |
//! | `{"/nix/store/…": {…}, …}` | `nix path-info --json` since 2.19; `null` for what is not valid |
//! | `{"info": {"HASH-NAME": {…}}, "storeDir": "/nix/store", "version": …}` | the newest |
//! | `{"KEY": [{"path": …}, …], …}` | `exportReferencesGraph` with structured attributes; any key |

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::NixPath;
use super::hash::parse_hash;
use crate::digest::Digest;
use crate::store_path::{PathInfo, StoreDir, StorePath};

/// Most paths in a graph.
const PATHS_MAX: usize = 1 << 20;

/// Reads a graph; what is wrong with it, as a sentence.
pub(super) fn parse(text: &str) -> Result<BTreeMap<StorePath, NixPath>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut paths = BTreeMap::new();
    match &value {
        Value::Array(list) => read_list(list, &mut paths)?,
        Value::Object(map) => read_object(map, &mut paths)?,
        _ => return Err("it is neither a list nor an object".to_owned()),
    }
    if paths.is_empty() {
        return Err("it lists no path".to_owned());
    }
    Ok(paths)
}

fn read_list(list: &[Value], paths: &mut BTreeMap<StorePath, NixPath>) -> Result<(), String> {
    for (index, item) in list.iter().enumerate() {
        let item = item
            .as_object()
            .ok_or_else(|| format!("element {index} is not an object"))?;
        let path = item.get("path").and_then(Value::as_str);
        let path = path.ok_or_else(|| format!("element {index} has no `path`"))?;
        // Old Nix says so of paths that are not valid.
        if item.get("valid") != Some(&Value::Bool(false)) {
            insert(path, item, paths)?;
        }
    }
    Ok(())
}

fn read_object(map: &Map<String, Value>, paths: &mut BTreeMap<StorePath, NixPath>) -> Result<(), String> {
    if let Some(Value::Object(info)) = map.get("info") {
        return read_object(info, paths);
    }
    for (key, value) in map {
        match value {
            Value::Null => {}
            Value::Object(item) if key.contains('-') => insert(key, item, paths)?,
            Value::Array(list) if list.iter().any(|item| item.get("path").is_some()) => read_list(list, paths)?,
            // Attributes beside the graph.
            _ if parse_path(key).is_err() => {}
            _ => return Err(format!("`{key}` is not an object")),
        }
    }
    Ok(())
}

fn insert(path: &str, item: &Map<String, Value>, paths: &mut BTreeMap<StorePath, NixPath>) -> Result<(), String> {
    let found = read_path(path, item)?;
    if paths.len() >= PATHS_MAX {
        return Err(format!("it has more than {PATHS_MAX} paths"));
    }
    match paths.insert(found.info.path.clone(), found.clone()) {
        Some(earlier) if earlier.info != found.info => Err(format!("`{path}` appears in it twice, with other content")),
        _ => Ok(()),
    }
}

fn read_path(text: &str, item: &Map<String, Value>) -> Result<NixPath, String> {
    let path = parse_path(text)?;
    let wrong = |key: &str, wanted: &str| format!("`{key}` of `{text}` is missing or no {wanted}");
    let nar_hash = item.get("narHash").and_then(read_hash);
    let nar_size = item.get("narSize").and_then(Value::as_u64);
    let list = item.get("references").and_then(Value::as_array);
    let mut references = BTreeSet::new();
    for reference in list.ok_or_else(|| wrong("references", "list"))? {
        let reference = reference.as_str().ok_or_else(|| wrong("references", "list of paths"))?;
        references.insert(parse_path(reference)?);
    }
    let self_reference = references.remove(&path);
    let signatures = item.get("signatures").and_then(Value::as_array).into_iter().flatten();
    Ok(NixPath {
        info: PathInfo {
            path,
            nar_hash: nar_hash.ok_or_else(|| wrong("narHash", "SHA-256"))?,
            nar_size: nar_size.ok_or_else(|| wrong("narSize", "number"))?,
            references,
            self_reference,
        },
        deriver: item.get("deriver").and_then(Value::as_str).map(absolute),
        content_address: item.get("ca").and_then(Value::as_str).map(str::to_owned),
        signatures: signatures.filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

/// Text, or `{"algorithm": "sha256", "format": …, "hash": …}`.
fn read_hash(value: &Value) -> Option<Digest> {
    match value {
        Value::String(text) => parse_hash(text),
        Value::Object(parts) if parts.get("algorithm")?.as_str()? == "sha256" => {
            parse_hash(parts.get("hash")?.as_str()?)
        }
        _ => None,
    }
}

/// The newest Nix leaves the directory out.
fn absolute(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{}/{path}", StoreDir::NIX),
    }
}

fn parse_path(text: &str) -> Result<StorePath, String> {
    let base = text.strip_prefix(&format!("{}/", StoreDir::NIX)).unwrap_or(text);
    base.parse()
        .map_err(|_| format!("`{text}` is not a path of `{}`", StoreDir::NIX))
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_closure_graph() {
        crate::testing::fuzz("closure-graph", |bytes| {
            let _ = super::parse(&String::from_utf8_lossy(bytes));
        });
    }
}
