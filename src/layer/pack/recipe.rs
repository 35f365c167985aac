//! A *recipe* is what a layer is made of: its parts in order, and the keys by which the cache knows them.
//!
//! Invariant: a key covers all that the packed bytes depend on (rules, engine, block size, content) and nothing else.

use super::{Attribute, LayerContent, LayerInput, StoreEntry};
use crate::digest::Digest;
use crate::layer::codec::Engine;
use crate::layer::tree::{Tree, compare_paths};
use crate::layer::{FORMAT, LayerError};
use crate::oci::TarProfile;
use crate::store_path::LogicalPath;

/// What a layer is made of, with the keys of its pieces.
pub(super) struct LayerParts<'i> {
    /// Names the layer in the cache.
    pub key: Digest,
    pub pieces: Vec<LayerPart<'i>>,
    /// In the order of the layer.
    pub store_paths: Vec<&'i LogicalPath>,
}

/// A part of a layer, packed by itself.
pub(super) enum LayerPart<'i> {
    /// What a profile puts before everything else.
    Beginning,
    Parents(Vec<Vec<u8>>),
    StorePath(Digest, &'i StoreEntry),
    Tree(Digest, &'i Tree),
    Trailer,
}

impl<'i> LayerParts<'i> {
    /// The parts of a layer, in order.
    pub fn new(input: &'i LayerInput, engine: Engine, profile: TarProfile) -> Result<Self, LayerError> {
        let rules = Rules { engine, profile };
        let mut pieces = Vec::new();
        if profile == TarProfile::Nix2container {
            pieces.push(LayerPart::Beginning);
        }
        let mut store_paths = Vec::new();
        match &input.content {
            LayerContent::StorePaths(entries) => {
                let mut sorted: Vec<&StoreEntry> = entries.iter().collect();
                sorted.sort_by(|a, b| compare_paths(a.logical.as_str().as_bytes(), b.logical.as_str().as_bytes()));
                let mut above = Vec::new();
                for entry in sorted {
                    let new = missing_parents(&entry.logical, &mut above);
                    if !new.is_empty() {
                        pieces.push(LayerPart::Parents(new));
                    }
                    pieces.push(LayerPart::StorePath(store_path_key(entry, rules), entry));
                    store_paths.push(&entry.logical);
                }
            }
            LayerContent::Tree(tree) => pieces.push(LayerPart::Tree(tree_key(tree, rules), tree)),
        }
        pieces.push(LayerPart::Trailer);
        Ok(Self {
            key: layer_key(&pieces, rules),
            pieces,
            store_paths,
        })
    }
}

/// Directories above `logical` that no earlier path of the layer has.
fn missing_parents(logical: &LogicalPath, above: &mut Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let relative = logical.relative();
    let parents = relative
        .bytes()
        .enumerate()
        .filter(|&(_, byte)| byte == b'/')
        .map(|(index, _)| relative.as_bytes()[..index].to_vec());
    let new: Vec<_> = parents.filter(|parent| !above.contains(parent)).collect();
    above.extend(new.iter().cloned());
    new
}

/// Checks that no store path stands in two places.
pub(super) fn check_unique(recipes: &[LayerParts<'_>]) -> Result<(), LayerError> {
    let mut seen = std::collections::BTreeSet::new();
    for path in recipes.iter().flat_map(|recipe| &recipe.store_paths) {
        if !seen.insert(*path) {
            return Err(LayerError::Twice { path: (*path).clone() });
        }
    }
    Ok(())
}

/// What packed bytes depend on beside what they are of and [`FORMAT`].
#[derive(Clone, Copy)]
struct Rules {
    engine: Engine,
    profile: TarProfile,
}

/// A key covers all that packed bytes depend on: the rules, and `what` they are of.
fn key(Rules { engine, profile }: Rules, what: &str) -> Digest {
    let Engine {
        compression,
        single_member,
    } = engine;
    let (name, block) = (engine.name(), engine.block_size());
    let profile = match profile {
        TarProfile::Layerize => String::new(),
        other => format!(" profile {other}"),
    };
    let rules = format!("format {FORMAT}{profile}\n{name} {compression:?} single {single_member} block {block}");
    Digest::of(format!("{rules}\n{what}").as_bytes())
}

fn store_path_key(entry: &StoreEntry, rules: Rules) -> Digest {
    let StoreEntry { logical, nar_hash, .. } = entry;
    let attributes = entry.attributes.iter().map(|attribute| {
        let Attribute {
            path,
            mode,
            uid,
            gid,
            capabilities,
        } = attribute;
        let capabilities = capabilities.map(|capabilities| format!("\ncapability {}", capabilities.to_hex()));
        let capabilities = capabilities.unwrap_or_default();
        format!("{capabilities}\n{mode:?} {uid} {gid} {}", path.escape_ascii())
    });
    let attributes: String = attributes.collect();
    key(
        rules,
        // What packed bytes of before hard links were kept under has another first word.
        &format!("linked store path {nar_hash} {} {logical}{attributes}", entry.nar_size),
    )
}

fn tree_key(tree: &Tree, rules: Rules) -> Digest {
    key(rules, &format!("tree {}", tree.identity()))
}

fn layer_key(pieces: &[LayerPart<'_>], rules: Rules) -> Digest {
    let keys = pieces.iter().filter_map(|piece| match piece {
        LayerPart::StorePath(key, _) | LayerPart::Tree(key, _) => Some(key.to_string()),
        LayerPart::Beginning | LayerPart::Parents(_) | LayerPart::Trailer => None,
    });
    key(rules, &format!("layer {}", keys.collect::<Vec<_>>().join(" ")))
}
