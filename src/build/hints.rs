//! *Hints*: what the last lines of a failed script's log say about why it failed, and what to type then.
//!
//! Invariant: a hint comes from what a program printed, never from guessing; a Debian package is named only where the
//! program is known to be in it.

/// A failure that many builds share.
struct Sign {
    /// One of these texts, in lower case, is in a line…
    any: &'static [&'static str],
    /// …and one of these too; empty: nothing more is asked for.
    and: &'static [&'static str],
    hint: &'static str,
}

const SIGNS: &[Sign] = &[
    Sign {
        any: &[
            "homeless-shelter",
            "$home is not",
            "home is not set",
            "$home not set",
            "home directory is not",
            "nor $home are defined",
            "could not determine home",
            "couldn't find the home",
            "cannot find home",
        ],
        and: &[],
        hint: "a build has no home directory: begin its script with `export HOME=$TMPDIR`",
    },
    Sign {
        any: &["setcap", "setfcap", "cap_set_file", "set capabilities"],
        and: &[
            "operation not permitted",
            "invalid argument",
            "operation not supported",
            "not permitted",
        ],
        hint: "a build runs as an ordinary user, and what it makes has no file capabilities: leave them to the image, \
               `permissions = [{ path = \"/…\", capabilities = [\"cap_net_bind_service=ep\"] }]` in `[image.NAME]`",
    },
    Sign {
        any: &[
            "chown",
            "changing ownership",
            "cannot change owner",
            "change group",
            "setuid",
            "setgid",
            "mknod",
            "cannot change mode",
            "changing permissions",
            "setting permissions",
            "chmod",
        ],
        and: &[
            "operation not permitted",
            "invalid argument",
            "operation not supported",
            "not permitted",
        ],
        hint: "a build runs as an ordinary user, and what it makes has no owners and no setuid bits: leave that to the image, \
               `permissions = [{ path = \"/…\", mode = \"4755\", owner = \"root\" }]` in `[image.NAME]`",
    },
    Sign {
        any: &[
            "temporary failure in name resolution",
            "temporary failure resolving",
            "network is unreachable",
            "could not resolve host",
            "couldn't resolve host",
            "could not resolve proxy",
            "unable to resolve host",
            "name or service not known",
            "nodename nor servname",
            "no such host",
            "unknown host",
            "failed to resolve",
            "failed to lookup address",
            "failed to establish a new connection",
            "eai_again",
            "enotfound",
            "enetunreach",
            "spurious network error",
            "dial tcp",
        ],
        and: &[],
        hint: "a build has no network: give what it downloads as `source = { url = \"…\" }` of a package of its own, and that \
               package in `tools` or `libraries`",
    },
    Sign {
        any: &[
            "no required module provides package",
            "missing go.sum entry",
            "updates to go.mod needed",
            "updates to go.sum needed",
            "import lookup disabled by -mod=",
        ],
        and: &[],
        hint: "`go.mod` and `go.sum` are not what the sources import: run `go mod tidy` and build again",
    },
    Sign {
        any: &["exec format error", "cannot execute binary file"],
        and: &[],
        hint: "a program of another machine was run. A cross build (`cross = true`) runs this machine's programs only: have the \
               script run none of what it compiles, or leave `cross` out, and an emulator runs all of it",
    },
    Sign {
        any: &["inconsistent vendoring in"],
        and: &[],
        hint: "the `vendor` directory is not what `go.mod` says: run `go mod vendor` and build again",
    },
];

/// Programs that are in Debian packages of another name, or whose package is known to exist.
const PROGRAMS: &[(&str, &str)] = &[
    ("aclocal", "automake"),
    ("ar", "binutils"),
    ("as", "binutils"),
    ("autoconf", "autoconf"),
    ("automake", "automake"),
    ("autoreconf", "autoconf"),
    ("bc", "bc"),
    ("bison", "bison"),
    ("bzip2", "bzip2"),
    ("c++", "g++"),
    ("cargo", "cargo"),
    ("cc", "gcc"),
    ("clang", "clang"),
    ("cmake", "cmake"),
    ("curl", "curl"),
    ("file", "file"),
    ("flex", "flex"),
    ("g++", "g++"),
    ("gawk", "gawk"),
    ("gcc", "gcc"),
    ("gfortran", "gfortran"),
    ("git", "git"),
    ("go", "golang-go"),
    ("gperf", "gperf"),
    ("help2man", "help2man"),
    ("intltoolize", "intltool"),
    ("jar", "default-jdk-headless"),
    ("java", "default-jre-headless"),
    ("javac", "default-jdk-headless"),
    ("jq", "jq"),
    ("ld", "binutils"),
    ("libtoolize", "libtool"),
    ("m4", "m4"),
    ("make", "make"),
    ("makeinfo", "texinfo"),
    ("meson", "meson"),
    ("msgfmt", "gettext"),
    ("mvn", "maven"),
    ("nasm", "nasm"),
    ("ninja", "ninja-build"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("objcopy", "binutils"),
    ("objdump", "binutils"),
    ("patch", "patch"),
    ("patchelf", "patchelf"),
    ("perl", "perl"),
    ("php", "php-cli"),
    ("pip", "python3-pip"),
    ("pip3", "python3-pip"),
    ("pkg-config", "pkg-config"),
    ("protoc", "protobuf-compiler"),
    ("python", "python3"),
    ("python3", "python3"),
    ("ranlib", "binutils"),
    ("readelf", "binutils"),
    ("rsync", "rsync"),
    ("ruby", "ruby"),
    ("rustc", "rustc"),
    ("strip", "binutils"),
    ("tclsh", "tcl"),
    ("unzip", "unzip"),
    ("wget", "wget"),
    ("which", "debianutils"),
    ("xsltproc", "xsltproc"),
    ("xxd", "xxd"),
    ("xz", "xz-utils"),
    ("yacc", "bison"),
    ("yasm", "yasm"),
    ("zip", "zip"),
    ("zstd", "zstd"),
];

/// The hint that fits the last lines of a log, the latest line that says anything first.
pub(super) fn hint(tail: &[String]) -> Option<String> {
    let of_line = |line: &String| {
        let lower = line.to_lowercase();
        let has = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
        let sign = SIGNS
            .iter()
            .find(|sign| has(sign.any) && (sign.and.is_empty() || has(sign.and)));
        sign.map(|sign| sign.hint.to_owned())
            .or_else(|| missing_program(line).map(hint_for_program))
    };
    tail.iter().rev().find_map(of_line)
}

/// Whether the log says that memory, or that processes, ran out.
pub(super) fn ran_out(tail: &[String]) -> bool {
    const SIGNS: [&str; 7] = [
        "cannot allocate memory",
        "out of memory",
        "memory exhausted",
        "memoryerror",
        "bad_alloc",
        "memory allocation of",
        "resource temporarily unavailable",
    ];
    let lines = tail.iter().map(|line| line.to_lowercase());
    lines
        .into_iter()
        .any(|line| SIGNS.iter().any(|sign| line.contains(sign)))
}

fn hint_for_program(name: &str) -> String {
    match PROGRAMS.binary_search_by(|(known, _)| known.cmp(&name)) {
        Ok(index) => format!("add `\"deb:{}\"`, which has `{name}`, to `tools`", PROGRAMS[index].1),
        Err(_) => format!(
            "`{name}` is not among the build's programs: add the package that has it to `tools`; where it is Debian's, \
             `apt-file search bin/{name}` tells which, and it is written `\"deb:PACKAGE\"`"
        ),
    }
}

/// The program that a line says is missing, as shells and those who start programs put it.
fn missing_program(line: &str) -> Option<&str> {
    let line = line.trim_end();
    let name = |text: &'_ str| -> Option<&str> {
        let text = text.trim_matches(|c: char| "`'\"‘’“” ".contains(c));
        let is_name = !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte));
        // What is looked for by a path is not a program that a package would bring.
        if !is_name {
            None
        } else {
            line.find(text).map(|at| &line[at..at + text.len()])
        }
    };
    // bash: `run: line 3: cmake: command not found`; dash: `run: 3: cmake: not found`.
    let shell = line
        .strip_suffix(": command not found")
        .or_else(|| line.strip_suffix(": not found"));
    if let Some(start) = shell {
        return name(start.rsplit(": ").next()?);
    }
    // make, env, xargs, nice and the like: `make: gcc: No such file or directory`, `env: ‘python’: No such file or directory`.
    if let Some(start) = line.strip_suffix(": No such file or directory") {
        let (program, missing) = start.rsplit_once(": ")?;
        let starter = program.split([':', '[', ' ']).next()?;
        let starts = [
            "make",
            "env",
            "/usr/bin/env",
            "xargs",
            "nice",
            "timeout",
            "nohup",
            "sudo",
        ]
        .contains(&starter);
        return starts.then(|| name(missing)).flatten();
    }
    // Go: `exec: "gcc": executable file not found in $PATH`.
    if let Some((start, _)) = line.split_once(": executable file not found") {
        return name(start.rsplit(": ").next()?.trim_start_matches("exec "));
    }
    // rustc: error: linker `cc` not found
    if let Some((_, rest)) = line.split_once("linker `") {
        let (program, rest) = rest.split_once('`')?;
        return rest.starts_with(" not found").then(|| name(program)).flatten();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<String> {
        hint(&[line.to_owned(), "make: *** [Makefile:3: all] Error 1".to_owned()])
    }

    #[test]
    fn common_failures_have_hints() {
        for (line, expected) in [
            (
                "unable to set CAP_SETFCAP effective capability: Operation not permitted",
                "capabilities = [",
            ),
            (
                "mkdir: cannot create directory '/homeless-shelter': Read-only file system",
                "export HOME=$TMPDIR",
            ),
            (
                "build cache is required, but could not be located: GOCACHE is not defined and neither $XDG_CACHE_HOME nor \
                 $HOME are defined",
                "export HOME=$TMPDIR",
            ),
            (
                "chown: changing ownership of '/x': Operation not permitted",
                "permissions = [{ path",
            ),
            (
                "chown: changing ownership of '/x': Invalid argument",
                "permissions = [{ path",
            ),
            (
                "chmod: changing permissions of 'sudo': Operation not permitted",
                "permissions = [{ path",
            ),
            (
                "install: cannot change ownership of '/x': Operation not permitted",
                "permissions = [{ path",
            ),
            (
                "curl: (6) Could not resolve host: example.org",
                "a build has no network",
            ),
            (
                "dial tcp: lookup proxy.example on [::1]:53: connection refused",
                "a build has no network",
            ),
            ("npm ERR! code EAI_AGAIN", "a build has no network"),
            (
                "warning: spurious network error (3 tries remaining)",
                "a build has no network",
            ),
            (
                "/usr/libexec/layerize/script: line 3: cmake: command not found",
                "`\"deb:cmake\"`",
            ),
            (
                "/usr/libexec/layerize/script: 3: cc: not found",
                "`\"deb:gcc\"`, which has `cc`",
            ),
            ("make: gcc: No such file or directory", "`\"deb:gcc\"`"),
            ("make[2]: msgfmt: No such file or directory", "`\"deb:gettext\"`"),
            (
                "env: ‘python’: No such file or directory",
                "`\"deb:python3\"`, which has `python`",
            ),
            (
                "cgo: C compiler \"gcc\" not found: exec: \"gcc\": executable file not found in $PATH",
                "`\"deb:gcc\"`",
            ),
            ("error: linker `cc` not found", "`\"deb:gcc\"`"),
            (
                "run: line 1: frobnicate: command not found",
                "apt-file search bin/frobnicate",
            ),
        ] {
            let hint = of(line).unwrap_or_else(|| panic!("no hint for: {line}"));
            assert!(hint.contains(expected), "{line}\n{hint}");
        }
    }

    #[test]
    fn module_files_that_are_not_tidy_are_made_so() {
        for (line, expected) in [
            (
                "main.go:4:2: no required module provides package a.b/c; to add it:",
                "run `go mod tidy`",
            ),
            (
                "go: a.b/c@v1.0.0: missing go.sum entry; to add it:",
                "run `go mod tidy`",
            ),
            ("go: inconsistent vendoring in /build/source:", "run `go mod vendor`"),
        ] {
            let hint = of(line).unwrap_or_else(|| panic!("no hint for: {line}"));
            assert!(hint.contains(expected), "{line}\n{hint}");
        }
    }

    #[test]
    fn other_failures_have_none() {
        for line in [
            "cat: /build/missing: No such file or directory",
            "main.c:1:10: fatal error: zlib.h: No such file or directory",
            "error: `x` not found",
            "chmod 755 done",
            "Permission denied",
            "test: not found: 3",
            "",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn programs_are_sorted() {
        assert!(PROGRAMS.is_sorted_by(|a, b| a.0 < b.0));
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_build_log() {
        crate::testing::fuzz("build-log", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let tail: Vec<String> = text.lines().map(str::to_owned).collect();
            let _ = (super::hint(&tail), super::ran_out(&tail));
        });
    }
}
