//! Words and numbers as people read them.

use crate::closure::Chain;
use crate::store::Evidence;
use crate::store_path::StoreDir;
use indicatif::DecimalBytes;

/// Bytes in decimal units: `13.40 MB`.
pub fn size(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

/// A chain for people, a line a step.
pub fn render_chain(chain: &Chain, dir: &StoreDir) -> String {
    let mut lines = vec![dir.join(&chain.root)];
    for (depth, step) in chain.steps.iter().enumerate() {
        let because = match &step.evidence {
            Evidence::Found(place) => place.to_string(),
            Evidence::Declared { via } => format!("declared by {}", via.name()),
        };
        lines.push(format!("{}└─ {} ({because})", "   ".repeat(depth), dir.join(&step.to)));
    }
    lines.join("\n")
}
