//! Words and numbers as people read them.

use indicatif::DecimalBytes;

/// Bytes in decimal units: `13.40 MB`.
pub fn size(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}
