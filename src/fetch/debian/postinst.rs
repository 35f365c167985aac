//! What a *postinst* script would have asked `update-alternatives` for, read from its text: the script is never run.
//!
//! Invariant: only commands of literal words count; one with a variable or a substitution is left out.

use std::fmt::Write as _;

use super::usrmerge::merged_absolute;

/// The lines for `root::ALTERNATIVES_DIR` that `script` asks for; empty where there are none.
pub(super) fn alternatives(script: &str) -> String {
    let mut lines = String::new();
    for command in commands(script) {
        let mut words = command.iter().map(|word| word.as_deref());
        let is_call =
            |word: Option<&str>| word.is_some_and(|word| word.rsplit('/').next() == Some("update-alternatives"));
        if words.by_ref().any(is_call) {
            let arguments: Option<Vec<&str>> = words.collect();
            if let Some(install) = arguments.and_then(|arguments| install_lines(&arguments)) {
                lines.push_str(&install);
            }
        }
    }
    lines
}

/// `--install LINK NAME PATH PRIORITY [--slave LINK NAME PATH]…` as lines; `None` for another action.
fn install_lines(arguments: &[&str]) -> Option<String> {
    let mut lines = None;
    let mut rest = arguments;
    while let [option, tail @ ..] = rest {
        rest = match (*option, tail) {
            ("--install", [link, name, target, priority, tail @ ..]) => {
                let priority: i32 = priority.parse().ok()?;
                check(&[link, name, target])?;
                lines = Some(format!(
                    "install {} {name} {} {priority}\n",
                    merged_absolute(link),
                    merged_absolute(target)
                ));
                tail
            }
            ("--slave" | "--follower", [link, name, target, tail @ ..]) => {
                check(&[link, name, target])?;
                let (link, target) = (merged_absolute(link), merged_absolute(target));
                writeln!(lines.as_mut()?, "slave {link} {name} {target}").ok()?;
                tail
            }
            ("--quiet" | "--force" | "--verbose" | "--debug" | "--skip-auto", tail) => tail,
            // Redirections and the like end the arguments.
            (option, _) if !option.starts_with("--") => break,
            _ => return None,
        };
    }
    lines
}

fn check(words: &[&str; 3]) -> Option<()> {
    let [link, name, target] = words;
    let plain = |word: &str| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c.is_control());
    (link.starts_with('/') && target.starts_with('/') && words.iter().all(|word| plain(word)) && !name.contains('/'))
        .then_some(())
}

/// The simple commands of a shell script, as words; a word that is not literal is `None`.
///
/// Enough of the shell's grammar for what packages write: quotes, escapes, continued lines, comments, and the
/// operators that end a command. Here-documents are read as commands, which does no harm.
fn commands(script: &str) -> Vec<Vec<Option<String>>> {
    let mut commands = vec![Vec::new()];
    let mut chars = script.chars().peekable();
    let mut word: Option<Word> = None;
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(escaped) => word.get_or_insert_default().text.push(escaped),
            },
            '\'' => {
                let word = word.get_or_insert_default();
                word.text.extend(chars.by_ref().take_while(|&char| char != '\''));
            }
            '"' => quoted(&mut chars, word.get_or_insert_default()),
            '#' if word.is_none() => {
                while chars.peek().is_some_and(|&char| char != '\n') {
                    chars.next();
                }
            }
            ' ' | '\t' => end_word(&mut commands, &mut word),
            '\n' | ';' | '&' | '|' | '(' | ')' => {
                end_word(&mut commands, &mut word);
                commands.push(Vec::new());
            }
            '$' | '`' | '*' | '?' | '[' | '{' | '~' => {
                let word = word.get_or_insert_default();
                word.expands = true;
                word.text.push(char);
            }
            char => word.get_or_insert_default().text.push(char),
        }
    }
    end_word(&mut commands, &mut word);
    commands
}

#[derive(Default)]
struct Word {
    text: String,
    /// Whether the shell would replace something in it.
    expands: bool,
}

/// Reads the inside of double quotes into `word`.
fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut Word) {
    while let Some(char) = chars.next() {
        match char {
            '"' => return,
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(escaped) => word.text.push(escaped),
            },
            char => {
                word.expands |= matches!(char, '$' | '`');
                word.text.push(char);
            }
        }
    }
}

fn end_word(commands: &mut [Vec<Option<String>>], word: &mut Option<Word>) {
    if let (Some(word), Some(command)) = (word.take(), commands.last_mut()) {
        command.push((!word.expands).then_some(word.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_installs_are_found() {
        let script = r#"#!/bin/sh
set -e
if [ "$1" = "configure" ]; then
    update-alternatives --quiet \
        --install /usr/bin/awk awk /usr/bin/mawk 5 \
        --slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz \
        --slave "/usr/bin/nawk" 'nawk' /usr/bin/mawk
    /usr/bin/update-alternatives --install /bin/nc nc /bin/nc.openbsd 50 >/dev/null || true
fi # update-alternatives --install /a b /c 1
"#;
        assert_eq!(
            alternatives(script),
            "install /usr/bin/awk awk /usr/bin/mawk 5\n\
             slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz\n\
             slave /usr/bin/nawk nawk /usr/bin/mawk\n\
             install /usr/bin/nc nc /usr/bin/nc.openbsd 50\n"
        );
    }

    #[test]
    fn what_is_not_literal_or_not_an_install_is_left_out() {
        for script in [
            "update-alternatives --install /usr/bin/$i $i /usr/bin/vim 30",
            "update-alternatives --install \"$LINK\" x /y 1",
            "update-alternatives --install `x` x /y 1",
            "update-alternatives --remove awk /usr/bin/mawk",
            "update-alternatives --install /usr/bin/x x /usr/bin/y",
            "update-alternatives --install /usr/bin/x x /usr/bin/y many",
            "update-alternatives --install relative x /usr/bin/y 1",
            "update-alternatives --install /usr/bin/x a/b /usr/bin/y 1",
            "update-alternatives --slave /usr/bin/x a /usr/bin/y",
            "update-alternatives --install '/usr/bin/a b' a /usr/bin/y 1",
            "echo update-alternatives",
            "# update-alternatives --install /a b /c 1",
            "",
            "'unclosed",
            "\"unclosed \\",
        ] {
            assert_eq!(alternatives(script), "", "{script}");
        }
    }

    #[test]
    fn a_negative_priority_and_one_line_conditions_are_read() {
        assert_eq!(
            alternatives("[ -x /usr/bin/y ] && update-alternatives --install /usr/bin/x x /usr/bin/y -10;"),
            "install /usr/bin/x x /usr/bin/y -10\n"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_script_gives_well_formed_lines(script in "(update-alternatives|--install|--slave|/a|b|5|[ \\\\\"'\n$;#]){0,40}") {
            for line in alternatives(&script).lines() {
                let words = line.split(' ').count();
                proptest::prop_assert!(matches!((line.split(' ').next(), words), (Some("install"), 5) | (Some("slave"), 4)));
            }
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_postinst() {
        crate::testing::fuzz("postinst", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            for line in super::alternatives(&text).lines() {
                let words: Vec<&str> = line.split(' ').collect();
                assert!(
                    matches!(words[..], ["install", _, _, _, _] | ["slave", _, _, _]),
                    "{line}"
                );
            }
        });
    }
}
