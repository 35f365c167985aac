//! A text from outside is *escaped* before people see it: nothing in it can move a cursor, set a title, write a clipboard,
//! turn the direction of what follows, or stand as a line of its own.
//!
//! Invariant: what is harmless stays as it is, so that escaping twice is escaping once; every character that is not is
//! written as Rust writes it in a string (`\n`, `\u{1b}`), and every byte that is not UTF-8 as `\xff`. Terminals obey the
//! controls of ECMA-48 (C0, and C1 in UTF-8 too); the order of characters is changed by the controls of UAX #9.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A text for one line.
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Bytes, such as those of a path, for one line.
pub fn shown_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&shown(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// One line of a text, whose tabs are its own.
pub fn shown_line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\t')
}

/// A report of several lines, whose newlines and tabs are our own: what its fields were escaped for, once more.
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// As [`shown_lines`], with the colours (SGR, `ESC [ … m`) that we put in ourselves.
pub fn shown_colored(text: &str) -> Cow<'_, str> {
    let mut parts = text.split("\u{1b}[");
    let mut out = shown_lines(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let parameters = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        out.push_str(if parameters.starts_with('m') {
            "\u{1b}["
        } else {
            "\\u{1b}["
        });
        out.push_str(&shown_lines(part));
    }
    Cow::Owned(out)
}

/// A message, whose newlines are our own where two spaces follow: no line of a message begins at the margin but its first.
pub fn shown_message(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.split('\n').enumerate() {
        match (number, line.starts_with("  ")) {
            (0, _) => {}
            (_, true) => out.push('\n'),
            (_, false) => out.push_str("\\n"),
        }
        out.push_str(&shown_line(line));
    }
    Cow::Owned(out)
}

/// JSON text: what is harmful in it can only stand in strings, where an escape is the same character.
pub fn shown_json(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_harmful(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut units = [0; 2];
    for c in text.chars() {
        if is_harmful(c) && c != '\n' {
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let harmful = |c: char| is_harmful(c) && !stays(c);
    if !text.chars().any(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match harmful(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Whether a character does something to what is around it: controls, line and paragraph separators, marks, embeddings,
/// overrides and isolates of direction, annotation marks, tags, and the marks of byte order and of invisible operators.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Escapes that terminals obey, and characters that change what people read.
    const HARMFUL: &[&str] = &[
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1b]52;c;aGk=\x07",
        "\x1bc",
        "\u{9b}2J",
        "\u{90}q\u{9c}",
        "\x07",
        "\x08",
        "\r",
        "\0",
        "\x7f",
        "\u{85}",
        "\u{202e}",
        "\u{2066}",
        "\u{2069}",
        "\u{200f}",
        "\u{61c}",
        "\u{2028}",
        "\u{2029}",
        "\u{feff}",
        "\u{e0041}",
        "\u{fff9}",
    ];

    #[test]
    fn nothing_harmful_is_left_and_nothing_harmless_is_changed() {
        for text in HARMFUL {
            let text = format!("a{text}b");
            for shown in [
                shown(&text).into_owned(),
                shown_bytes(text.as_bytes()),
                shown_line(&text).into_owned(),
                shown_lines(&text).into_owned(),
                shown_message(&text).into_owned(),
            ] {
                assert!(!shown.chars().any(is_harmful), "{text:?} became {shown:?}");
                assert!(
                    shown.starts_with('a') && shown.ends_with('b'),
                    "{text:?} became {shown:?}"
                );
                assert_eq!(super::shown(&shown), shown, "escaping twice is escaping once");
            }
        }
        for text in ["", "hello", "ä € 日本語 \u{1f600}", "a\\b", "`\"'", "\u{200d}"] {
            assert!(matches!(shown(text), Cow::Borrowed(same) if same == text));
            assert_eq!(shown_bytes(text.as_bytes()), text);
        }
        assert_eq!(shown("\x1b[2J\n\t\u{202e}"), r"\u{1b}[2J\n\t\u{202e}");
        assert_eq!(shown_bytes(b"\xff\xfe/\xc3\xa4\x80\n"), "\\xff\\xfe/ä\\x80\\n");
    }

    #[test]
    fn lines_are_ours_where_they_can_be() {
        assert_eq!(shown_lines("a\n\tb\r\n"), "a\n\tb\\r\n");
        assert_eq!(shown_message("a\n  b\nerror: c\n"), "a\n  b\\nerror: c\\n");
        assert_eq!(shown_message("a\n  b"), "a\n  b");
    }

    #[test]
    fn of_escapes_colours_alone_stay_where_they_are_ours() {
        assert_eq!(
            shown_colored("\u{1b}[1;31mred\u{1b}[0m\n\u{1b}[2J\u{1b}]0;x\u{7}"),
            "\u{1b}[1;31mred\u{1b}[0m\n\\u{1b}[2J\\u{1b}]0;x\\u{7}"
        );
        assert_eq!(shown_colored("plain"), "plain");
    }

    #[test]
    fn json_says_the_same_with_escapes() {
        for text in HARMFUL {
            let json = serde_json::to_string(text).unwrap();
            let shown = shown_json(&json);
            assert!(!shown.chars().any(is_harmful), "{shown:?}");
            assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), **text);
        }
        assert!(matches!(shown_json("{\"a\":1}\n{}"), Cow::Borrowed(_)));
    }
}
