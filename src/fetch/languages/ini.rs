//! *Ini* files as tools of languages have them: `[section]`, `key = value`, further lines of a value indented.
//!
//! Invariant: any text is read; what is no line of such a file says nothing.

/// The pairs of a file in their order: section (empty before the first), key in lower case, value.
///
/// Lines of a value are joined by line feeds. A line that begins with `#` or `;` is a comment.
pub(super) fn pairs(text: &str) -> Vec<(String, String, String)> {
    let mut pairs: Vec<(String, String, String)> = Vec::new();
    let (mut section, mut is_open) = (String::new(), false);
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t'])
            && is_open
            && let Some((_, _, value)) = pairs.last_mut()
        {
            value.push('\n');
            value.push_str(trimmed);
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim().to_ascii_lowercase();
            is_open = false;
            continue;
        }
        if let Some((key, value)) = trimmed.split_once(['=', ':']) {
            let key = key.trim().to_ascii_lowercase();
            pairs.push((section.clone(), key, value.trim().to_owned()));
            is_open = true;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_comments_and_lines_that_go_on_are_read() {
        let text = "a=1\n# no\n[Global]\nIndex-URL = https://x/simple\nextra = one\n  two\n\n\tthree\n; no\n[s]\nb: 2\nnothing\n";
        let read = pairs(text);
        let shown: Vec<(&str, &str, &str)> = read
            .iter()
            .map(|(s, k, v)| (s.as_str(), k.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("", "a", "1"),
                ("global", "index-url", "https://x/simple"),
                ("global", "extra", "one\ntwo\nthree"),
                ("s", "b", "2"),
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "[\\[\\]=:# a\n;]{0,60}") {
            let _ = pairs(&text);
        }
    }
}
