//! A report of differences *as one page*: the layers of both sides as a map, then every difference, to be folded.
//!
//! Invariant: a function of the report; nothing is loaded and nothing is run (the page's own policy forbids both);
//! whatever an image holds stands in it as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::super::human_size;
use super::{
    ArchiveChange, Cause, Class, ContentChange, DiffReport, Difference, FieldChange, FileChange, InsideChange,
    LayerChange, LayerPlace, Side, StorePathChange,
};
use crate::escape::shown_line;
use crate::store_path::LogicalPath;

mod map;

const STYLE: &str = include_str!("style.css");
/// Longest value that is shown, in characters.
const VALUE_MAX: usize = 2000;

impl DiffReport {
    /// The report as a page.
    pub fn render_html(&self) -> String {
        let verdict = if self.equal() { "equal" } else { "different" };
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>layerize diff: {} and {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <main>\n<h1>Two images, <span class=\"verdict {verdict}\">{verdict}</span></h1>\n",
            escaped(&self.a.place),
            escaped(&self.b.place)
        );
        body(self, &mut page);
        for image in &self.images {
            let platform = escaped(image.platform.as_deref().unwrap_or_default());
            let verdict = if image.equal() { "equal" } else { "different" };
            let _ = writeln!(
                page,
                "<h2>{platform} <span class=\"verdict {verdict}\">{verdict}</span></h2>"
            );
            body(image, &mut page);
        }
        page.push_str("</main>\n</body>\n</html>\n");
        page
    }
}

fn body(report: &DiffReport, page: &mut String) {
    page.push_str("<section class=\"sides\">\n");
    side("a", &report.a, page);
    side("b", &report.b, page);
    page.push_str("</section>\n");
    chips(report, page);
    if !report.a.layers.is_empty() || !report.b.layers.is_empty() {
        map::draw(report, page);
    }
    match report.same_files {
        Some(true) => page.push_str("<p class=\"note\">The same files, in other layers.</p>\n"),
        Some(false) => page.push_str("<p class=\"note\">Other files, in other layers.</p>\n"),
        None => {}
    }
    differences(report, page);
    if report.omitted > 0 {
        let _ = writeln!(page, "<p class=\"note\">… and {} more files.</p>", report.omitted);
    }
    if report.ignored > 0 {
        let _ = writeln!(
            page,
            "<p class=\"note\">{} differences were ignored.</p>",
            report.ignored
        );
    }
}

fn side(name: &str, side: &Side, page: &mut String) {
    let digest = side
        .digest
        .map_or_else(|| "no manifest".to_owned(), |digest| digest.to_string());
    let bytes: u64 = side.layers.iter().map(|layer| layer.size).sum();
    let layers = match side.layers.len() {
        0 => String::new(),
        count => format!("<span class=\"dim\">{count} layers, {}</span>", human_size(bytes)),
    };
    let _ = writeln!(
        page,
        "<div class=\"side {name}\"><b>{}</b><code>{digest}</code>{layers}</div>",
        escaped(&side.place)
    );
}

/// The classes with how many differences each has.
fn chips(report: &DiffReport, page: &mut String) {
    let mut counts: BTreeMap<Class, usize> = BTreeMap::new();
    for class in report.differences.iter().filter_map(Difference::class) {
        *counts.entry(class).or_default() += 1;
    }
    if counts.is_empty() {
        return;
    }
    page.push_str("<p class=\"chips\">");
    for (class, count) in counts {
        let _ = write!(page, "{}<span class=\"count\">{count}</span> ", chip(class));
    }
    page.push_str("</p>\n");
}

fn chip(class: Class) -> String {
    format!(
        "<span class=\"chip\" title=\"{}\">{class}</span>",
        escaped(class.meaning())
    )
}

/// A section for each level, in which files stand by what owns them.
fn differences(report: &DiffReport, page: &mut String) {
    let mut sections: Vec<(String, Vec<&Difference>)> = Vec::new();
    for difference in &report.differences {
        let title = title(difference);
        match sections.iter_mut().find(|(known, _)| *known == title) {
            Some((_, list)) => list.push(difference),
            None => sections.push((title, vec![difference])),
        }
    }
    for (title, list) in sections {
        let count = match list.len() {
            1 => "1 difference".to_owned(),
            count => format!("{count} differences"),
        };
        let _ = writeln!(
            page,
            "<details class=\"level\" open><summary><span>{}</span> <span class=\"dim\">{count}</span></summary>\n\
             <table><thead><tr><th>class</th><th>what</th><th>first</th><th>second</th></tr></thead><tbody>",
            escaped(&title)
        );
        list.iter().for_each(|difference| row(difference, page));
        page.push_str("</tbody></table></details>\n");
    }
}

fn title(difference: &Difference) -> String {
    match difference {
        Difference::Index(_) => "Index".to_owned(),
        Difference::Manifest(_) => "Manifest".to_owned(),
        Difference::Config(_) => "Config".to_owned(),
        Difference::Layer(_) => "Layers".to_owned(),
        Difference::StorePath(_) => "Packages".to_owned(),
        Difference::File(FileChange {
            store_path: Some(path), ..
        }) => format!("Files of {path}"),
        Difference::File(FileChange {
            package: Some(name),
            layer,
            ..
        }) => format!("Files of {name} in {}", place(*layer)),
        Difference::File(change) => format!("Files in {}", place(change.layer)),
        Difference::Archive(_) => "How the tars are written".to_owned(),
    }
}

fn row(difference: &Difference, page: &mut String) {
    let (what, a, b, more) = match difference {
        Difference::Index(change) | Difference::Manifest(change) | Difference::Config(change) => field(change),
        Difference::Layer(change) => layer(&change.change),
        Difference::StorePath(change) => store_path(change),
        Difference::File(change) => file(change),
        Difference::Archive(change) => archive(change),
    };
    let class = difference
        .class()
        .map_or_else(|| "<span class=\"dim\">see below</span>".to_owned(), chip);
    let cell = |value: Option<String>| match value {
        None => "<td class=\"absent\">–</td>".to_owned(),
        Some(value) => format!("<td><code>{}</code></td>", escaped(&cut(&value))),
    };
    let _ = writeln!(
        page,
        "<tr class=\"row\"><td>{class}</td><td class=\"what\">{}</td>{}{}</tr>",
        escaped(&what),
        cell(a),
        cell(b)
    );
    if !more.is_empty() {
        let _ = writeln!(page, "<tr class=\"more\"><td></td><td colspan=\"3\">{more}</td></tr>");
    }
}

type Row = (String, Option<String>, Option<String>, String);

fn field(change: &FieldChange) -> Row {
    let value = |value: &Option<Value>| value.as_ref().map(ToString::to_string);
    (change.field.clone(), value(&change.a), value(&change.b), String::new())
}

fn layer(change: &LayerChange) -> Row {
    let sized = |digest: &crate::digest::ContentDigest, size: u64| Some(format!("{digest}, {}", human_size(size)));
    let (what, a, b) = match change {
        LayerChange::Added { b, digest, size } => (format!("layer {b} added"), None, sized(digest, *size)),
        LayerChange::Removed { a, digest, size } => (format!("layer {a} removed"), sized(digest, *size), None),
        LayerChange::Moved { a, b, digest } => {
            let what = format!("layer {a} moved to {b}");
            (what, Some(digest.to_string()), Some(digest.to_string()))
        }
        LayerChange::Compression { a, b, from, to } => {
            let what = format!("layer {}, the same tar", indexes(*a, *b));
            (what, Some(from.clone()), Some(to.clone()))
        }
        LayerChange::Changed { a, b, from, to } => {
            let what = format!("layer {} changed", indexes(*a, *b));
            (what, Some(from.to_string()), Some(to.to_string()))
        }
        LayerChange::KeptElsewhere { a, b, digest, urls } => {
            let layer = a.or(*b).unwrap_or_default();
            let what = format!("layer {layer} kept elsewhere, its files not compared");
            let text = Some(format!("{digest}, {}", urls.join(", ")));
            (what, a.and(text.clone()), b.and(text))
        }
    };
    (what, a, b, String::new())
}

fn indexes(a: usize, b: usize) -> String {
    if a == b { a.to_string() } else { format!("{a}/{b}") }
}

fn place(layer: LayerPlace) -> String {
    match (layer.a, layer.b) {
        (Some(a), Some(b)) => format!("layer {}", indexes(a, b)),
        (Some(only), None) | (None, Some(only)) => format!("layer {only}"),
        (None, None) => "no layer".to_owned(),
    }
}

fn store_path(change: &StorePathChange) -> Row {
    let causes: String = change.causes.iter().map(cause).collect();
    let more = if causes.is_empty() {
        causes
    } else {
        format!("<ul class=\"causes\">{causes}</ul>")
    };
    (
        change.name.clone(),
        Some(change.a.clone()),
        Some(change.b.clone()),
        more,
    )
}

fn cause(cause: &Cause) -> String {
    let through: String = cause
        .through
        .iter()
        .rev()
        .map(|input| format!(" of {}", escaped(input)))
        .collect();
    let value = |value: &Option<String>| escaped(value.as_deref().unwrap_or("absent"));
    let what = match &cause.text {
        Some(text) => lines(text),
        None => format!(": <code>{}</code> → <code>{}</code>", value(&cause.a), value(&cause.b)),
    };
    format!("<li>because of <b>{}</b>{through}{what}</li>", escaped(&cause.input))
}

fn file(change: &FileChange) -> Row {
    let more = change.content.as_ref().map(content).unwrap_or_default();
    // The section's title says the store path.
    let owner = change.store_path.as_ref().map_or("", LogicalPath::relative);
    let below = change.path.strip_prefix(owner).map(|path| path.trim_start_matches('/'));
    let path = below.filter(|path| !path.is_empty()).unwrap_or(&change.path);
    (path.to_owned(), change.a.clone(), change.b.clone(), more)
}

fn content(change: &ContentChange) -> String {
    let summary = match change.text {
        Some(_) => format!("text, from byte {}", change.offset),
        None => format!("{}, {} bytes from byte {}", change.kind, change.bytes, change.offset),
    };
    let text = change.text.as_deref().map(lines).unwrap_or_default();
    let parts: String = change.inside.iter().map(inside).collect();
    let parts = if parts.is_empty() {
        parts
    } else {
        format!("<ul>{parts}</ul>")
    };
    if text.is_empty() && parts.is_empty() {
        return format!("<span class=\"dim\">{summary}</span>");
    }
    format!("<details open><summary class=\"dim\">{summary}</summary>{text}{parts}</details>")
}

fn inside(change: &InsideChange) -> String {
    let mut text = format!("<li><b>{}</b>", escaped(&cut(&change.part)));
    let values: Vec<String> = [&change.a, &change.b]
        .into_iter()
        .flatten()
        .map(|value| format!("<code>{}</code>", escaped(&cut(value))))
        .collect();
    if !values.is_empty() {
        let _ = write!(text, ": {}", values.join(" → "));
    }
    if let Some(found) = &change.content {
        text.push_str(&content(found));
    }
    text.push_str("</li>");
    text
}

/// A unified diff, its lines coloured.
fn lines(text: &str) -> String {
    let mut out = "<pre>".to_owned();
    for line in text.lines() {
        let class = match line.chars().next() {
            Some('+') => "ins",
            Some('-') => "del",
            Some('@') => "hunk",
            _ => "ctx",
        };
        let _ = write!(out, "<span class=\"{class}\">{} </span>", escaped(line));
    }
    out.push_str("</pre>");
    out
}

fn archive(change: &ArchiveChange) -> Row {
    let entries = match change.entries {
        0 => String::new(),
        count => format!(" of {count} entries, first {}", change.first),
    };
    let what = format!("{}: {}{entries}", place(change.layer), change.what);
    (what, Some(change.a.clone()), Some(change.b.clone()), String::new())
}

fn cut(value: &str) -> String {
    match value.char_indices().nth(VALUE_MAX) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value.to_owned(),
    }
}

/// Text as it may stand anywhere in the page: no markup, and nothing that would move or hide other text.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in shown_line(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        assert_eq!(
            escaped("<script>alert('x')</script> & \"y\"\u{202e}\u{0}\u{1b}[0m"),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;y&quot;\\u{202e}\\u{0}\\u{1b}[0m"
        );
        assert!(!lines("+<img src=x onerror=1>").contains("<img"));
    }
}
