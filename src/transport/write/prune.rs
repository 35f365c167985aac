//! A layout directory *loses* entries, and with them the blobs that nothing in it refers to any more.
//!
//! Invariant: `index.json` is written before a blob goes; a blob that any entry leads to stays, and where that cannot be told
//! nothing goes. A referrer does not keep its subject (image-spec, "subject": it may be missing).

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::super::{Layout, TransportError};
use crate::digest::{ContentDigest, Digest};
use crate::fsio::{self, IoContext};
use crate::oci::{Document, INDEX_SIZE_MAX, REF_NAME, canonical_json, parse_json};

/// What went out of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Layout {
    /// Writes a manifest or an index, all of whose blobs are there, under a name.
    pub fn put_document(&self, name: &str, document: &Document) -> Result<(), TransportError> {
        let _lock = self.locked()?;
        let digest = Digest::of(document.bytes());
        self.document(&digest.into(), document.bytes())?;
        fsio::sync_file_system(&self.path)?;
        let mut entry = json!({
            "mediaType": document.media_type(),
            "digest": digest,
            "size": document.bytes().len(),
            "annotations": { REF_NAME: name },
        });
        if let Document::Manifest(manifest) = document
            && let Some(kind) = &manifest.artifact_type
        {
            entry["artifactType"] = json!(kind);
        }
        self.merge_index(&[entry])
    }

    /// Takes out what has these names and digests. What stands under the name `beside` of an image that was listed by one of
    /// them, and is listed by nothing else, goes too.
    pub fn remove(
        &self,
        entries: &BTreeSet<(String, ContentDigest)>,
        beside: &dyn Fn(&Digest) -> String,
    ) -> Result<Freed, TransportError> {
        let _lock = self.locked()?;
        let Some(old) = self.read_index()? else {
            return Ok(Freed::default());
        };
        let mut index = old.json();
        let listed = index["manifests"].as_array().cloned().unwrap_or_default();
        let goes = |entry: &&Value| {
            let digest = entry["digest"].as_str().and_then(|digest| digest.parse().ok());
            name_of(entry).zip(digest).is_some_and(|pair| entries.contains(&pair))
        };
        let (gone, mut kept): (Vec<&Value>, Vec<&Value>) = listed.iter().partition(goes);
        self.drop_companions(&gone, &mut kept, beside)?;
        let reached = self.reached(&kept)?;
        index["manifests"] = json!(kept);
        fsio::write_atomic(&self.path.join("index.json"), &canonical_json(&index))?;
        self.sweep_blobs(&reached)
    }

    /// Leaves out of `kept` what stands beside images that only `gone` listed.
    fn drop_companions(
        &self,
        gone: &[&Value],
        kept: &mut Vec<&Value>,
        beside: &dyn Fn(&Digest) -> String,
    ) -> Result<(), TransportError> {
        let mut images = BTreeSet::new();
        for entry in gone {
            let document = entry["digest"].as_str().map(|digest| self.json(digest)).transpose()?;
            let listed = document.flatten().map(|document| digests(&document["manifests"]));
            images.extend(listed.unwrap_or_default());
        }
        let named = images
            .iter()
            .filter_map(|image| Some((beside(&image.parse().ok()?), image)));
        let named: Vec<(String, &String)> = named.collect();
        let is_beside = |entry: &Value, name: &str| name_of(entry).as_deref() == Some(name);
        let others = kept
            .iter()
            .filter(|entry| !named.iter().any(|(name, _)| is_beside(entry, name)));
        let others: Vec<&Value> = others.copied().collect();
        let reached = self.reached(&others)?;
        for (name, _) in named.iter().filter(|(_, image)| !reached.contains(*image)) {
            let companions = kept.iter().filter(|entry| is_beside(entry, name));
            let companions: Vec<Value> = companions.map(|entry| entry["digest"].clone()).collect();
            // Its entry as a referrer has no name.
            kept.retain(|entry| {
                let is_unnamed = name_of(entry).is_none() && companions.contains(&entry["digest"]);
                !is_unnamed && !is_beside(entry, name)
            });
        }
        Ok(())
    }

    /// The digests that lead from `entries` to blobs.
    fn reached(&self, entries: &[&Value]) -> Result<BTreeSet<String>, TransportError> {
        let (mut reached, mut read) = (BTreeSet::new(), BTreeSet::new());
        let mut open: Vec<String> = entries.iter().flat_map(|entry| digests(entry)).collect();
        while let Some(digest) = open.pop() {
            if !read.insert(digest.clone()) {
                continue;
            }
            if let Some(document) = self.json(&digest)? {
                open.extend(digests(&document["manifests"]));
                reached.extend(digests(&document));
            }
            reached.insert(digest);
        }
        Ok(reached)
    }

    /// A document of the layout; `None` where it is not there, or is none. A damaged one is an error.
    fn json(&self, digest: &str) -> Result<Option<Value>, TransportError> {
        let Some((algorithm, hex)) = digest.split_once(':').filter(|(_, hex)| is_hex(hex)) else {
            return Ok(None);
        };
        if !algorithm.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(None);
        }
        let path = self.path.join("blobs").join(algorithm).join(hex);
        match fs::metadata(&path).context("look at", &path) {
            Ok(metadata) if metadata.len() > INDEX_SIZE_MAX => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let bytes = fsio::read_limited(&path, INDEX_SIZE_MAX)?;
        match parse_json(&bytes) {
            Ok(document) => Ok(Some(document)),
            // An index may list anything, and what is no JSON refers to nothing.
            Err(_) if !bytes.trim_ascii_start().starts_with(b"{") => Ok(None),
            Err(source) => Err(TransportError::Json {
                place: self.place(),
                what: format!("the document `{digest}`, which says what must stay"),
                source,
            }),
        }
    }

    /// Deletes the blobs that were not reached.
    fn sweep_blobs(&self, reached: &BTreeSet<String>) -> Result<Freed, TransportError> {
        let dir = self.path.join("blobs/sha256");
        let mut freed = Freed::default();
        for name in fsio::sorted_names(&dir)? {
            let Some(hex) = name.to_str().filter(|name| name.len() == 64 && is_hex(name)) else {
                continue;
            };
            if reached.contains(&format!("sha256:{hex}")) {
                continue;
            }
            let path = dir.join(hex);
            let size = fs::metadata(&path).context("look at", &path)?.len();
            fs::remove_file(&path).context("remove", &path)?;
            freed.blobs += 1;
            freed.bytes += size;
        }
        Ok(freed)
    }
}

fn name_of(entry: &Value) -> Option<String> {
    entry["annotations"][REF_NAME].as_str().map(str::to_owned)
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// All digests in a document, except of what it is about.
fn digests(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(digests).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, _)| name.as_str() != "subject");
            let found = fields.flat_map(|(name, value)| match value {
                Value::String(digest) if name == "digest" => vec![digest.clone()],
                value => digests(value),
            });
            found.collect()
        }
        _ => Vec::new(),
    }
}
