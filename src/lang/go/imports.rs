//! The *head* of a Go file: what it is part of, when it counts, and what it imports (The Go Programming Language
//! Specification, "Source file organization"; `go help buildconstraint`).
//!
//! Invariant: [`Head::stub`] is in the same package under the same conditions and imports the same as the file; nothing
//! else of the file is in it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// What the beginning of a Go file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Comments that say when the file counts, in their order.
    constraints: Vec<String>,
    /// The package that it is part of.
    pub(super) package: String,
    /// What it imports.
    pub(super) imports: BTreeSet<String>,
    /// What it says to cgo: comments before `import "C"`.
    pub(super) cgo: String,
}

impl Head {
    /// Reads the beginning of a file; `None` where that is no Go.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut tokens = Tokens {
            rest: text.trim_start_matches('\u{feff}'),
            comments: String::new(),
            constraints: Vec::new(),
        };
        if tokens.next()? != "package" {
            return None;
        }
        let package = tokens.next()?.to_owned();
        let mut head = Self {
            constraints: std::mem::take(&mut tokens.constraints),
            package,
            ..Self::default()
        };
        loop {
            tokens.comments.clear();
            if tokens.next() != Some("import") {
                return Some(head);
            }
            match tokens.next()? {
                "(" => loop {
                    match tokens.next()? {
                        ")" => break,
                        word => head.import(word, &mut tokens)?,
                    }
                },
                word => head.import(word, &mut tokens)?,
            }
        }
    }

    /// Takes an import whose first word was read: its path, or what it is called.
    fn import(&mut self, word: &str, tokens: &mut Tokens<'_>) -> Option<()> {
        let path = if word.starts_with(['"', '`']) {
            word
        } else {
            tokens.next()?
        };
        let path = path.get(1..path.len().checked_sub(1)?)?;
        if path == "C" {
            self.cgo.push_str(&tokens.comments);
        }
        self.imports.insert(path.to_owned());
        tokens.comments.clear();
        Some(())
    }

    /// A file that stands for this one where only imports matter.
    pub(super) fn stub(&self) -> String {
        let mut text = String::new();
        for constraint in &self.constraints {
            let _ = writeln!(text, "{constraint}");
        }
        let _ = writeln!(text, "\npackage {}\n", self.package);
        for path in &self.imports {
            let name = if path == "C" { "" } else { "_ " };
            let _ = writeln!(text, "import {name}\"{path}\"");
        }
        text
    }

    /// Whether the file counts on some systems, or with some tags, only.
    pub(super) fn is_conditional(&self) -> bool {
        !self.constraints.is_empty()
    }

    /// Whether the file is only for those who name it on the command line.
    pub(super) fn is_ignored(&self) -> bool {
        let ignored = |line: &String| line.ends_with("build ignore");
        self.constraints.iter().any(ignored)
    }
}

/// The tokens of a file, as far as its head has them.
struct Tokens<'a> {
    rest: &'a str,
    /// What stood in comments since this was emptied.
    comments: String,
    constraints: Vec<String>,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Option<&'a str> {
        loop {
            let blank = |c: char| c.is_whitespace() || c == ';';
            self.rest = self.rest.trim_start_matches(blank);
            if let Some(comment) = self.rest.strip_prefix("//") {
                let line = comment.lines().next().unwrap_or_default();
                self.rest = &comment[line.len()..];
                let _ = writeln!(self.comments, "{line}");
                if line.starts_with("go:build ") || line.trim_start().starts_with("+build ") {
                    self.constraints.push(format!("//{}", line.trim_end()));
                }
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                let end = comment.find("*/")?;
                let _ = writeln!(self.comments, "{}", &comment[..end]);
                self.rest = &comment[end + 2..];
            } else {
                break;
            }
        }
        let first = self.rest.chars().next()?;
        let length = match first {
            '"' | '`' => self.rest[1..].find(first)? + 2,
            c if is_word(c) => self.rest.find(|c: char| !is_word(c)).unwrap_or(self.rest.len()),
            c => c.len_utf8(),
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(token)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_ends_where_code_begins() {
        let text = "\u{feff}// Copyright.\n//go:build linux && !x\n// +build linux,!x\n\n/* package no */\npackage main // own\n\n\
                    import \"fmt\"\nimport (\n\t. \"a.b/c\"; _ `d.e/f`\n\tname \"g.h/i/v2\" // why\n)\n\n\
                    // #cgo LDFLAGS: -lz\n/*\n#include <zlib.h>\n*/\nimport \"C\"\n\nvar x = `import \"no\"`\nimport \"late\"\n";
        let head = Head::parse(text).unwrap();
        assert_eq!(head.package, "main");
        let imports: Vec<&str> = head.imports.iter().map(String::as_str).collect();
        assert_eq!(imports, ["C", "a.b/c", "d.e/f", "fmt", "g.h/i/v2"]);
        assert_eq!(head.cgo, " #cgo LDFLAGS: -lz\n\n#include <zlib.h>\n\n");
        assert_eq!(
            head.stub(),
            "//go:build linux && !x\n// +build linux,!x\n\npackage main\n\nimport \"C\"\nimport _ \"a.b/c\"\n\
             import _ \"d.e/f\"\nimport _ \"fmt\"\nimport _ \"g.h/i/v2\"\n"
        );
        let again = Head::parse(&head.stub()).unwrap();
        assert_eq!((again.imports, again.constraints), (head.imports, head.constraints));
    }

    #[test]
    fn what_is_no_go_has_no_head() {
        for text in [
            "",
            "// package x",
            "/* package x",
            "func x() {}",
            "package",
            "package x; import (",
            "package x; import \"a",
        ] {
            assert_eq!(Head::parse(text), None, "{text}");
        }
        let alone = Head::parse("package x").unwrap();
        assert_eq!(alone.stub(), "\npackage x\n\n");
        assert!(Head::parse("//go:build ignore\npackage x").unwrap().is_ignored());
    }
}
