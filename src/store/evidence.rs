//! *Evidence* says why one store path refers to another: where its hash was found, or who declared it.
//!
//! Invariant: for people and for `closure --why`; no digest depends on it.

use std::fmt;

use serde::Serialize;

use crate::store_path::StorePath;

/// Why a path has a reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "because")]
pub enum Evidence {
    /// The scan found the hash of the other path.
    Found(Place),
    /// The package at `via`, which the path also refers to, depends on it.
    Declared {
        /// The package that brought it in.
        via: StorePath,
    },
}

/// Where a hash was found first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Path in the tree, with `\xNN` for bytes that are no UTF-8; empty where the tree is one file or symlink.
    pub file: String,
    /// Containers around it, outermost first: `gzip`, `zip member META-INF/MANIFEST.MF`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inside: Vec<String>,
    /// Where the hash begins, in bytes of what the innermost container holds (for a name: of the name).
    pub offset: u64,
    /// How it stands there.
    pub kind: PlaceKind,
}

/// How a hash stands where it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceKind {
    /// As 32 bytes of a file.
    Content,
    /// As 32 UTF-16 characters of a file, of either byte order.
    #[serde(rename = "utf-16")]
    Utf16,
    /// In the target of a symlink.
    Symlink,
    /// In the name of an entry.
    Name,
}

impl PlaceKind {
    /// The word it is stored and printed as.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Utf16 => "utf-16",
            Self::Symlink => "symlink",
            Self::Name => "name",
        }
    }

    /// The kind that `word` names.
    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::Content, Self::Utf16, Self::Symlink, Self::Name]
            .into_iter()
            .find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(place) => place.fmt(f),
            Self::Declared { via } => write!(f, "declared by {}'s dependencies", via.name()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = if self.file.is_empty() {
            "the file itself"
        } else {
            &self.file
        };
        match self.kind {
            PlaceKind::Symlink => return write!(f, "{file}: target of the symlink"),
            PlaceKind::Name => return write!(f, "{file}: its name"),
            PlaceKind::Content | PlaceKind::Utf16 => write!(f, "{file}")?,
        }
        for container in &self.inside {
            write!(f, ", in its {container}")?;
        }
        write!(f, ", byte {}", self.offset)?;
        if self.kind == PlaceKind::Utf16 {
            f.write_str(" (UTF-16)")?;
        }
        Ok(())
    }
}

/// A path of bytes as text: UTF-8 as it is, every other byte and every control character escaped.
pub(super) fn printable(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                control if control.is_control() => text.extend(control.escape_default()),
                other => text.push(other),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_any_bytes_are_printable() {
        assert_eq!(printable("bin/ä b".as_bytes()), "bin/ä b");
        assert_eq!(printable(b"a\xff\\\n"), "a\\xff\\\\\\n");
    }

    #[test]
    fn places_read_as_sentences() {
        let place = |kind, inside: &[&str]| Place {
            file: "lib/a.jar".to_owned(),
            inside: inside.iter().map(ToString::to_string).collect(),
            offset: 7,
            kind,
        };
        for (place, text) in [
            (place(PlaceKind::Content, &[]), "lib/a.jar, byte 7"),
            (
                place(PlaceKind::Utf16, &["gzip"]),
                "lib/a.jar, in its gzip, byte 7 (UTF-16)",
            ),
            (place(PlaceKind::Symlink, &[]), "lib/a.jar: target of the symlink"),
            (place(PlaceKind::Name, &[]), "lib/a.jar: its name"),
        ] {
            assert_eq!(place.to_string(), text);
            assert_eq!(PlaceKind::parse(place.kind.word()), Some(place.kind));
        }
    }
}
