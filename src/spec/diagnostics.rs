//! A *diagnostic* is one thing wrong with a spec or a lock: what, where, and what to write instead.
//!
//! Invariant: rendering never fails whatever the texts hold, control characters of a file never reach the
//! terminal, and the order is that of the files and of the places in them.

use std::fmt;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Renderer, Snippet};
use serde_json::{Value, json};

use crate::escape::{shown, shown_message};

use super::load::relative;
use super::types::{SourceFile, Span};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, one line: lower case, no period, names in backticks.
    pub message: String,
    /// Where; `None` where no file's text is to blame.
    pub span: Option<Span>,
    /// What stands there, in a few words, beside the caret.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
    /// What else is good to know, each with its place where it has one.
    pub notes: Vec<Note>,
}

/// An addition to a [`Diagnostic`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// One line.
    pub message: String,
    /// The place it speaks of.
    pub span: Option<Span>,
}

impl Diagnostic {
    /// A diagnostic without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span: None,
            label: String::new(),
            help: None,
            notes: Vec::new(),
        }
    }

    /// Adds the place and what stands there.
    #[must_use]
    pub fn at(mut self, span: Span, label: impl Into<String>) -> Self {
        self.span = Some(span);
        self.label = label.into();
        self
    }

    /// Adds advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a line without a place.
    #[must_use]
    pub fn note(mut self, message: impl Into<String>) -> Self {
        self.notes.push(Note {
            message: message.into(),
            span: None,
        });
        self
    }

    /// Adds a line about another place.
    #[must_use]
    pub fn note_at(mut self, span: Span, message: impl Into<String>) -> Self {
        self.notes.push(Note {
            message: message.into(),
            span: Some(span),
        });
        self
    }
}

/// Everything that is wrong, with the texts it is wrong in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// At least one, in order of file and place.
    pub items: Vec<Diagnostic>,
    /// The files that spans index.
    pub files: Vec<SourceFile>,
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    /// The plain rendering, without its last line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl Diagnostics {
    /// Sorts `items` by place and drops repetitions (one file may be imported by two ways).
    pub fn new(mut items: Vec<Diagnostic>, files: Vec<SourceFile>) -> Self {
        let place = |item: &Diagnostic| {
            let span = item.span.as_ref();
            span.map_or((usize::MAX, 0, 0), |span| (span.file, span.range.start, span.range.end))
        };
        items.sort_by_key(place);
        items.dedup();
        Self { items, files }
    }

    /// The same with the files' absolute paths as seen from the absolute directory `dir`.
    #[must_use]
    pub fn shown_from(mut self, dir: &Path) -> Self {
        for file in &mut self.files {
            file.path = relative(&file.path, dir);
        }
        self
    }

    /// The text for people: each diagnostic with its file, line, column and caret; `color` by ANSI sequences.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let rendered: Vec<String> = (self.items.iter())
            .map(|item| {
                let report = renderer.render(&[self.group(item)]);
                // An empty source line would otherwise end in the space that follows its number.
                report.lines().map(|line| format!("{}\n", line.trim_end())).collect()
            })
            .collect();
        rendered.join("\n")
    }

    /// The same for programs: lines and columns count from 1, columns in characters.
    pub fn to_json(&self) -> Value {
        let items: Vec<Value> = self.items.iter().map(|item| self.item_json(item)).collect();
        json!({ "errors": items })
    }

    fn item_json(&self, item: &Diagnostic) -> Value {
        let notes: Vec<Value> = (item.notes.iter())
            .map(|note| json!({ "message": note.message, "place": self.place_json(note.span.as_ref()) }))
            .collect();
        json!({
            "message": item.message,
            "label": item.label,
            "help": item.help,
            "place": self.place_json(item.span.as_ref()),
            "notes": notes,
        })
    }

    fn place_json(&self, span: Option<&Span>) -> Value {
        let Some((file, range)) = span.and_then(|span| self.locate(span)) else {
            return Value::Null;
        };
        let (line, column) = position(&file.text, range.start);
        let (end_line, end_column) = position(&file.text, range.end);
        json!({
            "file": file.path.display().to_string(),
            "line": line,
            "column": column,
            "end_line": end_line,
            "end_column": end_column,
        })
    }

    fn group<'a>(&'a self, item: &'a Diagnostic) -> Group<'a> {
        let title = Level::ERROR.primary_title(shown(&item.message));
        let mut elements: Vec<Element<'a>> = self.snippets(item).into_iter().map(Element::from).collect();
        let unplaced = item.notes.iter().filter(|note| note.span.is_none());
        elements.extend(unplaced.map(|note| Level::NOTE.message(shown_message(&note.message)).into()));
        let help = item.help.iter();
        elements.extend(help.map(|help| Level::HELP.message(shown_message(help)).into()));
        title.elements(elements)
    }

    /// One snippet a file: the diagnostic's own place first, then its notes' places.
    fn snippets<'a>(&'a self, item: &'a Diagnostic) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let own = item
            .span
            .iter()
            .map(|span| (span, AnnotationKind::Primary, &item.label));
        let notes =
            (item.notes.iter()).filter_map(|note| Some((note.span.as_ref()?, AnnotationKind::Context, &note.message)));
        let mut by_file: Vec<(usize, Snippet<'a, _>)> = Vec::new();
        for (span, kind, label) in own.chain(notes) {
            let Some((file, range)) = self.locate(span) else {
                continue;
            };
            let label = (!label.is_empty()).then(|| shown(label));
            let annotation = kind.span(range).label(label);
            match by_file.iter().position(|(index, _)| *index == span.file) {
                Some(found) => {
                    let (index, snippet) = by_file.swap_remove(found);
                    by_file.insert(found, (index, snippet.annotation(annotation)));
                }
                None => {
                    let path = shown(&file.path.display().to_string()).into_owned();
                    let snippet = Snippet::source(file.text.as_str()).path(path);
                    by_file.push((span.file, snippet.annotation(annotation)));
                }
            }
        }
        by_file.into_iter().map(|(_, snippet)| snippet).collect()
    }

    /// The file of `span`, and its range cut to the text and to whole characters.
    fn locate(&self, span: &Span) -> Option<(&SourceFile, std::ops::Range<usize>)> {
        let file = self.files.get(span.file)?;
        let floor = |index: usize| {
            let index = index.min(file.text.len());
            (0..=index).rev().find(|&i| file.text.is_char_boundary(i)).unwrap_or(0)
        };
        let start = floor(span.range.start);
        Some((file, start..floor(span.range.end).max(start)))
    }
}

/// Line and column of a byte offset, both from 1; the column counts characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostics() -> Diagnostics {
        let span = |file, range| Span { file, range };
        let files = ["ä = 1\nb = \u{1b}2\n", "c = 3\n"].map(|text| SourceFile {
            path: "layerize.toml".into(),
            text: text.to_owned(),
        });
        let first = Diagnostic::new("`b` is wrong")
            .at(span(0, 7..8), "here")
            .note_at(span(0, 0..2), "because of this")
            .note_at(span(1, 0..1), "and that")
            .note("so it is")
            .help("write `c`");
        let second = Diagnostic::new("nothing there").at(span(0, 90..99), "past the end");
        Diagnostics::new(
            vec![Diagnostic::new("no place"), second, first.clone(), first],
            files.into(),
        )
    }

    #[test]
    fn diagnostics_render_in_order_with_carets() {
        let expected = "\
error: `b` is wrong
 --> layerize.toml:2:1
  |
1 | ä = 1
  | - because of this
2 | b = ␛2
  | ^ here
  |
 ::: layerize.toml:1:1
  |
1 | c = 3
  | - and that
  |
  = note: so it is
  = help: write `c`

error: nothing there
 --> layerize.toml:2:8
  |
2 | b = ␛2
  |       ^ past the end

error: no place
";
        assert_eq!(diagnostics().render(false), expected);
        assert_eq!(diagnostics().to_string(), expected.trim_end());
    }

    #[test]
    fn colours_are_asked_for() {
        let esc = |text: &str| text.matches('\u{1b}').count();
        assert_eq!(esc(&diagnostics().render(false)), 0);
        assert!(esc(&diagnostics().render(true)) > 10);
    }

    #[test]
    fn json_counts_lines_and_columns_from_one() {
        let json = diagnostics().to_json();
        assert_eq!(json["errors"].as_array().unwrap().len(), 3);
        let first = &json["errors"][0];
        assert_eq!(first["message"], "`b` is wrong");
        assert_eq!(
            first["place"],
            json!({"file": "layerize.toml", "line": 2, "column": 1, "end_line": 2, "end_column": 2})
        );
        assert_eq!(first["notes"][0]["place"]["end_column"], 2, "columns count characters");
        assert_eq!(json["errors"][2]["place"], Value::Null);
    }
}
