//! The *facts* of a layer: what each of its entries says, with a digest in place of each content.
//!
//! Invariant: memory grows with the number of entries and never with their sizes, and has a [`Budget`].

use std::collections::BTreeMap;

use super::AuditError;
use super::budget::{Budget, size_of_entry};
use super::stream::{LayerEnd, LayerStream};
use crate::archive::tar::Entry;
use crate::archive::{Kind, clean};
use crate::digest::{Digest, Hasher};
use crate::escape::shown_bytes;
use crate::oci::Descriptor;
use crate::transport::Source;

/// An entry, its content replaced by a digest.
#[derive(Debug, Clone)]
pub(super) struct Fact {
    /// Path without `./` and trailing slash.
    pub(super) path: Vec<u8>,
    /// The entry as read.
    pub(super) entry: Entry,
    /// Digest of a file's content, or of the file's that a hard link names.
    pub(super) content: Option<Digest>,
    /// Where the content of a hard link is: the path of the file it names.
    pub(super) body: Option<Vec<u8>>,
}

impl Fact {
    /// What it takes: bytes, and pieces on the heap. Its path stands in the maps by which sides are compared, too, and a
    /// difference of it in the report.
    pub(super) fn size(&self) -> (usize, usize) {
        let (bytes, pieces) = size_of_entry(&self.entry);
        (size_of::<Self>() + bytes + 2 * self.path.len(), pieces + 4)
    }

    /// The path for people.
    pub(super) fn shown(&self) -> String {
        shown(&self.path)
    }

    /// The path of the entry that holds the content.
    pub(super) fn body_path(&self) -> &[u8] {
        self.body.as_deref().unwrap_or(&self.path)
    }
}

/// All entries of a layer, in its order.
pub(super) struct LayerFacts {
    pub(super) facts: Vec<Fact>,
    pub(super) end: LayerEnd,
}

/// Reads a whole layer, as far as the budget goes.
pub(super) fn scan(
    source: &dyn Source,
    descriptor: &Descriptor,
    budget: &mut Budget,
) -> Result<LayerFacts, AuditError> {
    let mut stream = LayerStream::open(source, descriptor)?;
    let mut facts = Vec::new();
    let mut links = false;
    while let Some(entry) = stream.next_entry()? {
        let mut content = None;
        if matches!(entry.kind, Kind::File | Kind::Other(_)) {
            let mut hasher = Hasher::new();
            stream.body(|bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            content = Some(hasher.digest());
        }
        links |= entry.kind == Kind::HardLink;
        let fact = Fact {
            path: entry.clean_path(),
            entry,
            content,
            body: None,
        };
        let (bytes, pieces) = fact.size();
        stream.check(budget.take(bytes, pieces))?;
        facts.push(fact);
    }
    if links {
        resolve_links(&mut facts);
    }
    Ok(LayerFacts {
        facts,
        end: stream.finish()?,
    })
}

/// Gives hard links the content of the file that they name, if it comes before them in the layer.
fn resolve_links(facts: &mut [Fact]) {
    let mut files: BTreeMap<Vec<u8>, (Vec<u8>, Digest)> = BTreeMap::new();
    for fact in facts {
        if fact.entry.kind == Kind::HardLink {
            if let Some((body, digest)) = files.get(&clean(&fact.entry.link)).cloned() {
                fact.content = Some(digest);
                files.insert(fact.path.clone(), (body.clone(), digest));
                fact.body = Some(body);
            }
        } else if let Some(digest) = fact.content {
            files.insert(fact.path.clone(), (fact.path.clone(), digest));
        }
    }
}

impl LayerFacts {
    /// The entries by path; of a path that is there twice the last counts, as it does for whoever unpacks.
    pub(super) fn by_path(&self) -> BTreeMap<&[u8], &Fact> {
        self.facts.iter().map(|fact| (fact.path.as_slice(), fact)).collect()
    }
}

/// Bytes of a path for people.
pub(super) fn shown(path: &[u8]) -> String {
    match path {
        b"" => "/".to_owned(),
        path => shown_bytes(path),
    }
}
