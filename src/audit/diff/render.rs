//! A report of differences *for people*: a summary, then one line a difference, what the first image has before what the
//! second has; those of a package's files below the line of the package.
//!
//! Invariant: a function of the report; values are cut to one line.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::human_size;
use super::groups::{self, Group};
use super::{
    ArchiveChange, Cause, Class, ContentChange, DiffReport, Difference, FieldChange, FileChange, InsideChange,
    LayerChange, LayerPlace, StorePathChange,
};
use crate::escape::{shown, shown_line};

const VALUE_MAX: usize = 120;
/// Files of a package that are listed where one image has them all and the other has none.
const ONE_SIDED_MAX: usize = 8;
/// Columns before what belongs to the line above.
const INDENT: usize = 12;

impl DiffReport {
    /// The report for people, with a line for every file.
    pub fn render(&self) -> String {
        self.render_with(usize::MAX)
    }

    /// The report for people, in which packages of which one image has many files and the other has none take one line.
    pub fn render_short(&self) -> String {
        self.render_with(ONE_SIDED_MAX)
    }

    fn render_with(&self, one_sided_max: usize) -> String {
        let mut text = String::new();
        let digest = |digest: &Option<crate::digest::ContentDigest>| {
            digest.map_or_else(|| "no manifest".to_owned(), |digest| digest.to_string())
        };
        let platform = self
            .platform
            .as_ref()
            .map(|platform| format!("  {}", cut(platform)))
            .unwrap_or_default();
        let _ = writeln!(text, "- {}  {}{platform}", cut(&self.a.place), digest(&self.a.digest));
        let _ = writeln!(text, "+ {}  {}{platform}", cut(&self.b.place), digest(&self.b.digest));
        let ignored = match self.ignored {
            0 => String::new(),
            count => format!(", {count} differences ignored"),
        };
        if self.equal() && self.images.is_empty() {
            let _ = writeln!(text, "the images are equal{ignored}");
            return text;
        }
        if !self.differences.is_empty() {
            let _ = writeln!(text, "summary   {}", groups::summary(self));
        }
        let (tars, others): (Vec<_>, Vec<_>) = (self.differences.iter())
            .filter(|difference| !matches!(difference, Difference::StorePath(_) | Difference::File(_)))
            .partition(|difference| matches!(difference, Difference::Archive(_)));
        others.into_iter().for_each(|difference| render(difference, &mut text));
        for group in groups::groups(self) {
            render_group(&group, one_sided_max, &mut text);
        }
        tars.into_iter().for_each(|difference| render(difference, &mut text));
        if self.omitted > 0 {
            let _ = writeln!(text, "… and {} more files", self.omitted);
        }
        match self.same_files {
            Some(true) => text.push_str("same files, other layering\n"),
            Some(false) => text.push_str("other files, other layering\n"),
            None => {}
        }
        for image in &self.images {
            text.push_str(&image.render_with(one_sided_max));
        }
        if self.platform.is_none() && !self.classes.is_empty() {
            let classes: Vec<&str> = self.classes.iter().map(|class| class.name()).collect();
            let _ = writeln!(text, "{} classes: {}{ignored}", classes.len(), classes.join(", "));
        }
        text
    }
}

fn render(difference: &Difference, text: &mut String) {
    let _ = match difference {
        Difference::Index(change) => writeln!(text, "index     {}", field(change)),
        Difference::Manifest(change) => writeln!(text, "manifest  {}", field(change)),
        Difference::Config(change) => writeln!(text, "config    {}", field(change)),
        Difference::Layer(change) => writeln!(text, "layer     {}", layer(change.class, &change.change)),
        Difference::StorePath(change) => writeln!(text, "store     {}", store_path(change)),
        Difference::File(change) => writeln!(text, "file      {}", file(change, INDENT)),
        Difference::Archive(change) => writeln!(text, "tar       {}", archive(change)),
    };
}

/// The line of a package, and below it those of its files; files of no package stand by themselves.
fn render_group(group: &Group<'_>, one_sided_max: usize, text: &mut String) {
    let side = group.one_sided().filter(|_| group.files.len() > one_sided_max);
    let _ = match (group.change, group.owner, side) {
        (Some(change), ..) => writeln!(text, "store     {}", store_path(change)),
        (None, Some(owner), Some(side)) => {
            let (sign, count) = (if side == Class::Added { '+' } else { '-' }, group.files.len());
            let _ = writeln!(
                text,
                "package   {sign}{} {}: {count} files (--verbose lists them)",
                cut(owner),
                side.name()
            );
            return;
        }
        (None, Some(owner), None) => writeln!(text, "package   {}", cut(owner)),
        (None, None, _) => Ok(()),
    };
    let by = match group.change.is_some() || group.owner.is_some() {
        true => 2,
        false => 0,
    };
    for change in &group.files {
        let _ = writeln!(text, "{:by$}file      {}", "", file(change, INDENT + by));
    }
}

fn store_path(change: &StorePathChange) -> String {
    let (a, b) = (cut(&change.a), cut(&change.b));
    let mut line = match change.class {
        Class::Package => format!("package {}: {a} → {b}", cut(&change.name)),
        _ => format!("{a} → {b}"),
    };
    for said in change.causes.iter().map(cause) {
        let _ = write!(line, "\n{:INDENT$}because of {said}", "");
    }
    line
}

fn cause(cause: &Cause) -> String {
    let value = |value: &Option<String>| cut(value.as_deref().unwrap_or("absent"));
    let mut line = cut(&cause.input);
    for input in cause.through.iter().rev() {
        let _ = write!(line, " of {}", cut(input));
    }
    match &cause.text {
        Some(text) => indented(text, INDENT + 2, &mut line),
        None => {
            let _ = write!(line, ": {} → {}", value(&cause.a), value(&cause.b));
        }
    }
    line
}

fn indented(text: &str, by: usize, out: &mut String) {
    for line in text.lines() {
        let _ = write!(out, "\n{:by$}{}", "", shown_line(line));
    }
}

fn field(change: &FieldChange) -> String {
    let value = |value: &Option<Value>| {
        value
            .as_ref()
            .map_or_else(|| "absent".to_owned(), |value| cut(&value.to_string()))
    };
    format!("{}: {} → {}", cut(&change.field), value(&change.a), value(&change.b))
}

fn layer(class: Option<Class>, change: &LayerChange) -> String {
    match change {
        LayerChange::Added { b, digest, size } => format!("+{b} added: {digest}, {}", human_size(*size)),
        LayerChange::Removed { a, digest, size } => format!("-{a} removed: {digest}, {}", human_size(*size)),
        LayerChange::Moved { a, b, digest } => format!("{a} → {b} moved: {digest}"),
        LayerChange::Compression { a, b, from, to } => {
            let what = class.map_or("", Class::name);
            format!("{} {what} only: {} → {}", indexes(*a, *b), cut(from), cut(to))
        }
        LayerChange::Changed { a, b, from, to } => format!("{} changed: {from} → {to}", indexes(*a, *b)),
        LayerChange::KeptElsewhere { a, b, digest, urls } => {
            let layer = a.or(*b).unwrap_or_default();
            let of = if a.is_some() { "first" } else { "second" };
            let urls = cut(&urls.join(", "));
            format!("{layer} of the {of} image is kept elsewhere, its files were not compared: {digest}, {urls}")
        }
    }
}

fn indexes(a: usize, b: usize) -> String {
    if a == b { a.to_string() } else { format!("{a}/{b}") }
}

fn file(change: &FileChange, indent: usize) -> String {
    let value = |value: &Option<String>| cut(value.as_deref().unwrap_or("absent"));
    let (a, b) = (value(&change.a), value(&change.b));
    let path = shown(&change.path);
    let mut line = match change.class {
        Class::Added => format!("+{path} added: {b}"),
        Class::Removed => format!("-{path} removed: {a}"),
        Class::Renamed => format!("{path} renamed: → {b}"),
        Class::StoreHash if change.content.is_none() => {
            format!("{path} link target (only store paths): {a} → {b}")
        }
        // The place where contents differ says more than their digests.
        Class::Content | Class::StoreHash if change.content.is_some() => format!("{path} {}", word(change.class)),
        class => format!("{path} {}: {a} → {b}", word(class)),
    };
    // Where the path does not say the package, its layer may.
    let package = change.package.as_ref().filter(|_| change.store_path.is_none());
    let package = package.map(|name| format!(", package {name}")).unwrap_or_default();
    let _ = write!(line, "  ({}{})", place(change.layer), cut(&package));
    if let Some(found) = &change.content {
        content(found, indent, &mut line);
    }
    line
}

fn content(change: &ContentChange, by: usize, line: &mut String) {
    let _ = match change.text {
        Some(_) => write!(line, ", from byte {}", change.offset),
        None => write!(
            line,
            ", {}, {} bytes from byte {}",
            change.kind, change.bytes, change.offset
        ),
    };
    if let Some(text) = &change.text {
        indented(text, by, line);
    }
    for part in &change.inside {
        let _ = write!(line, "\n{:by$}{}", "", inside(part, by));
    }
}

fn inside(change: &InsideChange, by: usize) -> String {
    let mut line = match (&change.a, &change.b) {
        (Some(a), Some(b)) => format!("{}: {} → {}", cut(&change.part), cut(a), cut(b)),
        (Some(a), None) if change.part.starts_with("section") && a.contains("differ") => {
            format!("{}: {}", cut(&change.part), cut(a))
        }
        (Some(a), None) => format!("-{}: {}", cut(&change.part), cut(a)),
        (None, Some(b)) => format!("+{}: {}", cut(&change.part), cut(b)),
        (None, None) => cut(&change.part),
    };
    if let Some(found) = &change.content {
        content(found, by + 2, &mut line);
    }
    line
}

fn archive(change: &ArchiveChange) -> String {
    let first = if change.first.is_empty() {
        String::new()
    } else {
        format!(", first `{}`", cut(&change.first))
    };
    let entries = if change.entries == 0 {
        String::new()
    } else {
        format!(" of {} entries", change.entries)
    };
    let (a, b) = (cut(&change.a), cut(&change.b));
    if change.class == Class::Order {
        return format!("order{entries}: `{a}` → `{b}`  ({})", place(change.layer));
    }
    format!("{}{entries}: {a} → {b}{first}  ({})", change.what, place(change.layer))
}

fn place(layer: LayerPlace) -> String {
    match (layer.a, layer.b) {
        (Some(a), Some(b)) => format!("layer {}", indexes(a, b)),
        (Some(only), None) | (None, Some(only)) => format!("layer {only}"),
        (None, None) => "no layer".to_owned(),
    }
}

fn word(class: Class) -> &'static str {
    match class {
        Class::Link => "link target",
        Class::StoreHash => "content (only hashes of store paths)",
        Class::HardLink => "hard link",
        Class::ImpliedDirectory => "directory entry",
        Class::TarSparse => "stored",
        class => class.name(),
    }
}

fn cut(value: &str) -> String {
    let shown = shown(value);
    match shown.char_indices().nth(VALUE_MAX) {
        Some((at, _)) => format!("{}…", &shown[..at]),
        None => shown.into_owned(),
    }
}
