//! *Paragraphs* of Debian control files (deb822(5)): fields, continued on lines that begin with a space.
//!
//! Invariant: pure; what is not a paragraph is an error with its line.

use std::collections::BTreeMap;

/// The fields of one paragraph by lower-case name; continuation lines keep their newlines, not their first space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Paragraph(BTreeMap<String, String>);

impl Paragraph {
    /// The value of a field (name in lower case).
    pub(super) fn get(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    /// The words of each line of a field's value after its first line: file lists.
    pub(super) fn rows(&self, field: &str) -> Vec<Vec<&str>> {
        self.get(field)
            .unwrap_or_default()
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| !words.is_empty())
            .collect()
    }
}

/// Parses paragraphs; an OpenPGP signature around them (`.dsc` files) is taken off, as it was or will be checked by
/// hash. The error is the line, from 1, that is not a field.
pub(super) fn parse(text: &str) -> Result<Vec<Paragraph>, usize> {
    let mut paragraphs = Vec::new();
    let mut current = Paragraph::default();
    let mut field = None::<String>;
    let mut in_armor_header = false;
    for (index, line) in text.lines().enumerate() {
        match line {
            "-----BEGIN PGP SIGNED MESSAGE-----" => in_armor_header = true,
            "-----BEGIN PGP SIGNATURE-----" => break,
            _ if line.trim().is_empty() => {
                in_armor_header = false;
                field = None;
                if !current.0.is_empty() {
                    paragraphs.push(std::mem::take(&mut current));
                }
            }
            _ if in_armor_header || line.starts_with('#') => {}
            _ if line.starts_with([' ', '\t']) => {
                let name = field.as_ref().ok_or(index + 1)?;
                let value = current.0.entry(name.clone()).or_default();
                value.push('\n');
                value.push_str(&line[1..]);
            }
            _ => {
                let (name, value) = line.split_once(':').ok_or(index + 1)?;
                let name = name.to_ascii_lowercase();
                current.0.insert(name.clone(), value.trim().to_owned());
                field = Some(name);
            }
        }
    }
    if !current.0.is_empty() {
        paragraphs.push(current);
    }
    Ok(paragraphs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_continue_and_paragraphs_end() {
        let paragraphs = parse("A: 1\nB:\n x y\n\tz\n# note\nc: 3:4\n\n\nA: 2\n").unwrap();
        assert_eq!(paragraphs.len(), 2);
        assert_eq!(paragraphs[0].get("a"), Some("1"));
        assert_eq!(paragraphs[0].rows("b"), [vec!["x", "y"], vec!["z"]]);
        assert_eq!(paragraphs[0].get("c"), Some("3:4"));
        assert_eq!(paragraphs[1].get("a"), Some("2"));
        assert_eq!(paragraphs[1].get("b"), None);
    }

    #[test]
    fn a_signature_is_taken_off() {
        let text = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nA: 1\n\n-----BEGIN PGP SIGNATURE-----\n\nabc\n";
        let paragraphs = parse(text).unwrap();
        assert_eq!(paragraphs.len(), 1);
        assert_eq!(paragraphs[0].get("a"), Some("1"));
    }

    #[test]
    fn what_is_no_field_is_named_by_its_line() {
        assert_eq!(parse("A: 1\nnonsense\n"), Err(2));
        assert_eq!(parse(" continued\n"), Err(1));
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_control() {
        crate::testing::fuzz("control", |bytes| {
            for paragraph in super::parse(&String::from_utf8_lossy(bytes)).into_iter().flatten() {
                let _ = (paragraph.get("Package"), paragraph.rows("Files"));
            }
        });
    }
}
