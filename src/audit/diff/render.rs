//! A report of differences *for people*: one line a difference, what the first image has before what the second has.
//!
//! Invariant: a function of the report; values are cut to one line.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::human_size;
use super::{ArchiveChange, Aspect, DiffReport, Difference, FieldChange, FileChange, LayerChange, LayerPlace};

const VALUE_MAX: usize = 120;

impl DiffReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let digest = |digest: &Option<crate::digest::Digest>| {
            digest.map_or_else(|| "no manifest".to_owned(), |digest| digest.to_string())
        };
        let _ = writeln!(text, "- {}  {}", self.a.place, digest(&self.a.digest));
        let _ = writeln!(text, "+ {}  {}", self.b.place, digest(&self.b.digest));
        if self.equal() {
            text.push_str("the images are equal\n");
            return text;
        }
        self.differences
            .iter()
            .for_each(|difference| render(difference, &mut text));
        if self.omitted > 0 {
            let _ = writeln!(text, "… and {} more files", self.omitted);
        }
        match self.same_files {
            Some(true) => text.push_str("same files, other layering\n"),
            Some(false) => text.push_str("other files, other layering\n"),
            None => {}
        }
        text
    }
}

fn render(difference: &Difference, text: &mut String) {
    let _ = match difference {
        Difference::Manifest(change) => writeln!(text, "manifest  {}", field(change)),
        Difference::Config(change) => writeln!(text, "config    {}", field(change)),
        Difference::Layer(change) => writeln!(text, "layer     {}", layer(change)),
        Difference::StorePath(change) => writeln!(text, "store     {} → {}", change.a, change.b),
        Difference::File(change) => writeln!(text, "file      {}", file(change)),
        Difference::Archive(change) => writeln!(text, "tar       {}", archive(change)),
    };
}

fn field(change: &FieldChange) -> String {
    let value = |value: &Option<Value>| {
        value
            .as_ref()
            .map_or_else(|| "absent".to_owned(), |value| cut(&value.to_string()))
    };
    format!("{}: {} → {}", change.field, value(&change.a), value(&change.b))
}

fn layer(change: &LayerChange) -> String {
    match change {
        LayerChange::Added { b, digest, size } => format!("+{b} added: {digest}, {}", human_size(*size)),
        LayerChange::Removed { a, digest, size } => format!("-{a} removed: {digest}, {}", human_size(*size)),
        LayerChange::Moved { a, b, digest } => format!("{a} → {b} moved: {digest}"),
        LayerChange::Compression { a, b, from, to } => format!("{} compression only: {from} → {to}", indexes(*a, *b)),
        LayerChange::Changed { a, b, from, to } => format!("{} changed: {from} → {to}", indexes(*a, *b)),
    }
}

fn indexes(a: usize, b: usize) -> String {
    if a == b { a.to_string() } else { format!("{a}/{b}") }
}

fn file(change: &FileChange) -> String {
    let value = |value: &Option<String>| cut(value.as_deref().unwrap_or("absent"));
    let (a, b) = (value(&change.a), value(&change.b));
    let path = &change.path;
    let mut line = match change.aspect {
        Aspect::Added => format!("+{path} added: {b}"),
        Aspect::Removed => format!("-{path} removed: {a}"),
        // The place where contents differ says more than their digests.
        Aspect::Content if change.content.is_some() => format!("{path} content"),
        aspect => format!("{path} {}: {a} → {b}", word(aspect)),
    };
    let _ = write!(line, "  ({})", place(change.layer));
    if let Some(content) = &change.content {
        let _ = write!(line, ", from byte {}", content.offset);
        for text in content.text.iter().flat_map(|text| text.lines()) {
            let _ = write!(line, "\n            {text}");
        }
    }
    line
}

fn archive(change: &ArchiveChange) -> String {
    let first = if change.first.is_empty() {
        String::new()
    } else {
        format!(", first `{}`", change.first)
    };
    let entries = if change.entries == 0 {
        String::new()
    } else {
        format!(" of {} entries", change.entries)
    };
    let (a, b) = (cut(&change.a), cut(&change.b));
    if change.aspect == Aspect::Order {
        return format!("order{entries}: `{a}` → `{b}`  ({})", place(change.layer));
    }
    format!(
        "{} {}{entries}: {a} → {b}{first}  ({})",
        word(change.aspect),
        change.what,
        place(change.layer)
    )
}

fn place(layer: LayerPlace) -> String {
    match (layer.a, layer.b) {
        (Some(a), Some(b)) => format!("layer {}", indexes(a, b)),
        (Some(only), None) | (None, Some(only)) => format!("layer {only}"),
        (None, None) => "no layer".to_owned(),
    }
}

fn word(aspect: Aspect) -> &'static str {
    match aspect {
        Aspect::Added => "added",
        Aspect::Removed => "removed",
        Aspect::Type => "type",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Mtime => "mtime",
        Aspect::Size => "size",
        Aspect::Content => "content",
        Aspect::Link => "link target",
        Aspect::Device => "device",
        Aspect::Xattr => "xattr",
        Aspect::Order => "order",
        Aspect::Dialect => "dialect",
    }
}

fn cut(value: &str) -> String {
    let clean: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.char_indices().nth(VALUE_MAX) {
        Some((at, _)) => format!("{}…", &clean[..at]),
        None => clean,
    }
}
