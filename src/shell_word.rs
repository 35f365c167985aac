//! A *word* of a shell: a text that a shell takes as it is.
//!
//! Invariant: in single quotes every character but the quote stands for itself (POSIX, Shell Command Language, 2.2.2), in shells and
//! in the readers of `.env` files alike.

use std::ffi::OsStr;

/// The text as one word of a shell's. Bytes of a path that are not UTF-8 are lost.
pub fn quoted(text: impl AsRef<OsStr>) -> String {
    format!("'{}'", text.as_ref().to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_one_word() {
        for text in ["", "a b$c", "it's", "'", "''\n\\", "/a b/c'd$", "`x`\"y\""] {
            let command = format!("printf %s {}", quoted(text));
            let said = std::process::Command::new("sh")
                .args(["-c", &command])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), text, "{command}");
        }
    }
}
