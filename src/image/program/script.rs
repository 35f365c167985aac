//! The first line of a *script*, as the kernel (execve(2)) and `env` (GNU coreutils) read it.
//!
//! Invariant: pure; what either would refuse is a [`Line::Malformed`].

/// Bytes of a file that the kernel looks for the line in (`BINPRM_BUF_SIZE`).
const LINE_MAX: usize = 256;

/// What a script begins with.
pub(super) const MARK: &[u8] = b"#!";

/// What the first line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// No script.
    None,
    /// The interpreter, and where that is `env` the command that `env` looks for.
    Interpreter { path: String, command: Option<String> },
    /// It cannot run: why, and what to write.
    Malformed { reason: String, help: String },
}

/// Reads the first line of a file that begins with `head`.
pub(super) fn first_line(head: &[u8]) -> Line {
    let Some(rest) = head.strip_prefix(MARK) else {
        return Line::None;
    };
    let end = rest.iter().position(|&byte| byte == b'\n');
    let line = &rest[..end.unwrap_or(rest.len()).min(LINE_MAX - 2)];
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = line.trim_ascii_start();
    let path_end = line.iter().position(is_blank);
    let path = &line[..path_end.unwrap_or(line.len())];
    let is_cut = end.is_none_or(|end| end > LINE_MAX - 2) && rest.len() >= LINE_MAX - 2;
    if path_end.is_none() && is_cut {
        return malformed(
            "its first line is longer than the 255 bytes that the kernel reads",
            "make the interpreter's path shorter, for instance by a link in `/usr/bin`",
        );
    }
    if path.is_empty() {
        // To the kernel no script at all.
        return Line::None;
    }
    if line.ends_with(b"\r") {
        return malformed(
            "its lines end as on Windows: the kernel takes the carriage return as part of the first line",
            "convert it: `sed -i 's/\\r$//' FILE`",
        );
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rest = path_end.map_or(&[][..], |end| line[end..].trim_ascii());
    let (path, argument) = (text(path), text(rest));
    if path.rsplit('/').next() != Some("env") {
        return Line::Interpreter { path, command: None };
    }
    match env_command(&argument) {
        Ok(command) => Line::Interpreter { path, command },
        Err((reason, help)) => Line::Malformed { reason, help },
    }
}

/// Whether a file that begins with `head` is a text: what a person may have written as a script. One without a byte is.
pub(super) fn is_text(head: &[u8]) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    let is_cut = |error: std::str::Utf8Error| error.error_len().is_none();
    !head.iter().any(is_control) && std::str::from_utf8(head).map_or_else(is_cut, |_| true)
}

fn malformed(reason: &str, help: &str) -> Line {
    Line::Malformed {
        reason: reason.to_owned(),
        help: help.to_owned(),
    }
}

/// The command that `env` runs, given the one argument that the kernel makes of the rest of the line.
fn env_command(argument: &str) -> Result<Option<String>, (String, String)> {
    let is_split = argument.starts_with("--split-string")
        || argument
            .split_whitespace()
            .next()
            .is_some_and(|word| word.starts_with('-') && !word.starts_with("--") && word.contains('S'));
    if is_split {
        let rest = match argument.strip_prefix("--split-string") {
            Some(rest) => rest.trim_start_matches('='),
            None => argument.split_once('S').map_or("", |(_, rest)| rest),
        };
        return Ok(command_of(rest.split_whitespace()));
    }
    if !argument.starts_with('-') && argument.contains([' ', '\t']) {
        return Err((
            format!("the kernel gives `env` the rest of the line as one word, and no program is called `{argument}`"),
            format!("write `#!/usr/bin/env -S {argument}`"),
        ));
    }
    Ok(command_of(std::iter::once(argument).filter(|word| !word.is_empty())))
}

/// The first word that is neither an option nor a variable.
fn command_of<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<String> {
    while let Some(word) = words.next() {
        match word {
            "-u" | "-C" | "--unset" | "--chdir" => drop(words.next()),
            _ if word.starts_with('-') || word.contains('=') => {}
            _ => return Some(word.trim_matches(['"', '\'']).to_owned()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreter(path: &str, command: Option<&str>) -> Line {
        Line::Interpreter {
            path: path.to_owned(),
            command: command.map(str::to_owned),
        }
    }

    /// execve(2): spaces and tabs after `#!` are skipped, the interpreter ends at the next, the rest is one argument.
    #[test]
    fn first_lines_are_read_as_the_kernel_and_env_do() {
        let cases: &[(&str, Line)] = &[
            ("", Line::None),
            ("echo", Line::None),
            ("#!", Line::None),
            ("#!  \n", Line::None),
            ("#!/bin/sh", interpreter("/bin/sh", None)),
            ("#! \t/bin/sh\t-e x \necho", interpreter("/bin/sh", None)),
            ("#!/usr/bin/env python3\n", interpreter("/usr/bin/env", Some("python3"))),
            (
                "#!/usr/bin/env  -S python3 -u\n",
                interpreter("/usr/bin/env", Some("python3")),
            ),
            (
                "#!/usr/bin/env -Spython3 -u\n",
                interpreter("/usr/bin/env", Some("python3")),
            ),
            (
                "#!/usr/bin/env -vS -i A=1 -u B node --x\n",
                interpreter("/usr/bin/env", Some("node")),
            ),
            (
                "#!/usr/bin/env --split-string=perl -w\n",
                interpreter("/usr/bin/env", Some("perl")),
            ),
            ("#!/usr/bin/env\n", interpreter("/usr/bin/env", None)),
            ("#!/usr/bin/env A=1\n", interpreter("/usr/bin/env", None)),
        ];
        for (text, expected) in cases {
            assert_eq!(first_line(text.as_bytes()), *expected, "{text:?}");
        }
    }

    #[test]
    fn texts_are_told_from_programs_of_other_kinds() {
        for text in [
            &b""[..],
            b"echo hello\n",
            b"\xef\xbb\xbf#!/bin/sh\n",
            "caf\u{e9}\n".as_bytes(),
            b"caf\xc3",
        ] {
            assert!(is_text(text), "{text:?}");
        }
        // ELF, PE, Mach-O, WebAssembly, Java's classes and archives: what a kernel may have been told to run.
        let others = [
            &b"\x7fELF"[..],
            b"MZ\x90\0",
            b"\xcf\xfa\xed\xfe",
            b"\0asm\x01",
            b"\xca\xfe\xba\xbe",
            b"PK\x03\x04",
        ];
        for program in others {
            assert!(!is_text(program), "{program:?}");
        }
    }

    #[test]
    fn what_the_kernel_or_env_refuse_is_malformed() {
        let long = format!("#!/{}\n", "x".repeat(300));
        for (text, reason) in [
            ("#!/bin/sh\r\necho\r\n", "as on Windows"),
            ("#!/bin/sh -e\r\n", "as on Windows"),
            ("#!/usr/bin/env python3 -u\n", "no program is called `python3 -u`"),
            (&long, "longer than the 255 bytes"),
        ] {
            match first_line(text.as_bytes()) {
                Line::Malformed { reason: actual, .. } => assert!(actual.contains(reason), "{text:?}: {actual}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
        // What follows the interpreter may be cut: the kernel runs it with the part that it read.
        let argument = format!("#!/bin/sh {}\n", "x".repeat(300));
        assert_eq!(first_line(argument.as_bytes()), interpreter("/bin/sh", None));
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_first_line() {
        crate::testing::fuzz("first-line", |bytes| {
            let _ = super::first_line(bytes);
        });
    }
}
