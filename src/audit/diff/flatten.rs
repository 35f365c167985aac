//! A *flattened image* is the file system that its layers make, whatever their number and order.
//!
//! Invariant: layers are applied as the OCI image-spec has it (layer.md, "Applying Changesets"): a later entry takes
//! the place of an earlier one, `.wh.NAME` removes NAME and all below, `.wh..wh..opq` all that lower layers put into
//! its directory. A hard link is the file it names.

use std::collections::BTreeMap;
use std::io;

use super::super::budget::Budget;
use super::super::facts::Fact;
use crate::archive::{Kind, clean};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Files by path, each with the index of its layer.
pub(super) type Flat = BTreeMap<Vec<u8>, (usize, Fact)>;

/// Whether a path is that of a whiteout.
pub(super) fn is_whiteout(path: &[u8]) -> bool {
    split(path).1.starts_with(WHITEOUT)
}

/// Applies a layer to those below it. Where other layers lie below them all (`above`), its whiteouts stay as files: what
/// they hide is not known.
pub(super) fn apply(
    flat: &mut Flat,
    index: usize,
    facts: Vec<Fact>,
    above: bool,
    budget: &mut Budget,
) -> io::Result<()> {
    // Whiteouts first: they mean lower layers only, wherever they stand in this one.
    for fact in &facts {
        let (dir, name) = split(&fact.path);
        if name == OPAQUE {
            remove_below(flat, dir);
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            let path = if dir.is_empty() {
                hidden.to_vec()
            } else {
                [dir, b"/", hidden].concat()
            };
            remove_below(flat, &path);
            flat.remove(&path);
        }
    }
    for fact in facts {
        if is_whiteout(&fact.path) {
            if above {
                flat.insert(fact.path.clone(), (index, fact));
            }
            continue;
        }
        if fact.entry.kind != Kind::Directory {
            remove_below(flat, &fact.path);
        }
        let fact = linked(flat, fact, budget)?;
        flat.insert(fact.path.clone(), (index, fact));
    }
    Ok(())
}

/// A hard link as the file that it is another name of; the link itself where there is no such file. What the file has is
/// there once more, and paid for.
fn linked(flat: &Flat, fact: Fact, budget: &mut Budget) -> io::Result<Fact> {
    if fact.entry.kind != Kind::HardLink {
        return Ok(fact);
    }
    let Some((_, target)) = flat.get(&clean(&fact.entry.link)) else {
        return Ok(fact);
    };
    let (bytes, pieces) = target.size();
    budget.take(bytes, pieces)?;
    let mut own = target.clone();
    own.body = Some(target.body_path().to_vec());
    own.path = fact.path;
    own.entry.path = fact.entry.path;
    Ok(own)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Removes everything below a directory; the root is the empty path.
fn remove_below(flat: &mut Flat, dir: &[u8]) {
    if dir.is_empty() {
        flat.clear();
        return;
    }
    let from = [dir, b"/"].concat();
    let below: Vec<Vec<u8>> = flat
        .range(from.clone()..)
        .map(|(path, _)| path)
        .take_while(|path| path.starts_with(&from))
        .cloned()
        .collect();
    for path in below {
        flat.remove(&path);
    }
}
