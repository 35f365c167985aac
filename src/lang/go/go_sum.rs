//! A *go.sum* or *go.work.sum*: the hashes of modules (Go Modules Reference, "go.sum files").
//!
//! Invariant: what comes back has a hash of a kind that is known; each file of a module has one.

use std::collections::BTreeMap;

use super::go_mod::{Module, is_module_path, is_version};
use crate::digest::GoHash;
use crate::lang::LangError;

/// The hashes that a project knows modules by.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GoSum {
    /// Of modules' zips.
    pub(super) zips: BTreeMap<Module, GoHash>,
    /// Of modules' `go.mod`s.
    pub(super) mods: BTreeMap<Module, GoHash>,
}

impl GoSum {
    /// Adds what the text of `file` says.
    pub(super) fn read(&mut self, text: &str, file: &str) -> Result<(), LangError> {
        for (index, line) in text.lines().enumerate() {
            let wrong = |message: String| {
                let help = "take the file from version control, or run `go mod tidy`";
                LangError::at(format!("`{file}`, line {}", index + 1), message, help)
            };
            let words: Vec<&str> = line.split_whitespace().collect();
            let (path, version, hash) = match words.as_slice() {
                [] => continue,
                [path, version, hash] => (*path, *version, *hash),
                _ => return Err(wrong("a line is not a module, its version and a hash".to_owned())),
            };
            // Go reads over hashes of kinds that it does not know.
            if !hash.starts_with("h1:") {
                continue;
            }
            let number = version.strip_suffix("/go.mod").unwrap_or(version);
            if !is_module_path(path) || !is_version(number) {
                return Err(wrong(
                    format!("`{path} {version}` is no version of a module")
                        .escape_debug()
                        .to_string(),
                ));
            }
            let hash: GoHash = hash.parse().map_err(|_| {
                wrong(format!(
                    "the hash of `{path} {version}` is no `h1:` and 32 bytes in base 64"
                ))
            })?;
            let module = Module {
                path: path.to_owned(),
                version: number.to_owned(),
            };
            let known = if number == version {
                &mut self.zips
            } else {
                &mut self.mods
            };
            if known.insert(module, hash).is_some_and(|other| other != hash) {
                return Err(wrong(format!("`{path} {version}` has another hash than before")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "h1:Bs9G7ntMEWT+Eqzbmp96OpkKKuSUzzvyht2R+o5Grz4=";
    const OTHER: &str = "h1:NqM8EUOU14njkJ3fqMW+pc6Ldnwhi/IjpwHt7yyuwOQ=";

    #[test]
    fn zips_and_go_mods_have_hashes_of_their_own() {
        let text =
            format!("\na.b/C v1.0.0 {HASH}\na.b/C v1.0.0/go.mod {OTHER}\nd.e v2.0.0/go.mod {HASH}\nd.e v2.0.0 h9:x\n");
        let mut sum = GoSum::default();
        sum.read(&text, "go.sum").unwrap();
        sum.read(&text, "go.work.sum").unwrap();
        assert_eq!((sum.zips.len(), sum.mods.len()), (1, 2));
        let module = sum.zips.keys().next().unwrap();
        assert_eq!(sum.zips[module].to_string(), HASH);
        assert_eq!(sum.mods[module].to_string(), OTHER);
    }

    #[test]
    fn a_line_that_pins_nothing_is_told() {
        for (line, said) in [
            (
                format!("a.b/c v1.0.0 {HASH} x"),
                "is not a module, its version and a hash",
            ),
            ("a.b/c v1.0.0 h1:AAAA".to_owned(), "is no `h1:` and 32 bytes"),
            (format!("../c v1.0.0 {HASH}"), "is no version of a module"),
            (format!("a.b/c v1/../.. {HASH}"), "is no version of a module"),
            (
                format!("a.b/c v1.0.0 {HASH}\na.b/c v1.0.0 {OTHER}"),
                "another hash than before",
            ),
        ] {
            let error = GoSum::default().read(&line, "go.sum").unwrap_err();
            assert!(error.to_string().contains(said), "{line}: {error}");
        }
    }
}
