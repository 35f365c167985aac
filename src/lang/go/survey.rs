//! What a *survey* of a Go project finds: enough for a first spec.
//!
//! Invariant: nothing here is needed for a build; what cannot be read is left to the build to explain.

use std::collections::{BTreeMap, BTreeSet};

use super::LangError;
use super::project::{GoProject, OwnFile, parent};
use crate::lang::{ProjectSurvey, SourceTree};

/// Libraries of the system by the names that cgo links them by (`-lNAME`, `pkg-config: NAME`), and the Debian packages to
/// link against.
const LIBRARIES: &[(&[&str], &str)] = &[
    (&["archive", "libarchive"], "libarchive-dev"),
    (&["asound", "alsa"], "libasound2-dev"),
    (&["bz2"], "libbz2-dev"),
    (&["crypto", "ssl", "libcrypto", "libssl", "openssl"], "libssl-dev"),
    (&["curl", "libcurl"], "libcurl4-openssl-dev"),
    (&["git2", "libgit2"], "libgit2-dev"),
    (&["glib-2.0", "gobject-2.0", "gio-2.0"], "libglib2.0-dev"),
    (&["lz4", "liblz4"], "liblz4-dev"),
    (&["lzma", "liblzma"], "liblzma-dev"),
    (&["pam"], "libpam0g-dev"),
    (&["pcap", "libpcap"], "libpcap-dev"),
    (&["pq", "libpq"], "libpq-dev"),
    (&["seccomp", "libseccomp"], "libseccomp-dev"),
    (&["sodium", "libsodium"], "libsodium-dev"),
    (&["sqlite3"], "libsqlite3-dev"),
    (&["systemd", "libsystemd"], "libsystemd-dev"),
    (&["vips"], "libvips-dev"),
    (&["virt", "libvirt"], "libvirt-dev"),
    (&["xml2", "libxml-2.0"], "libxml2-dev"),
    (&["z", "zlib"], "zlib1g-dev"),
    (&["zmq", "libzmq"], "libzmq3-dev"),
    (&["zstd", "libzstd"], "libzstd-dev"),
];

/// Modules that are linked with a library of the system, without what follows their names.
const MODULES: &[(&str, &str)] = &[
    ("github.com/coreos/go-systemd/v22/sdjournal", "libsystemd-dev"),
    ("github.com/davidbyttow/govips", "libvips-dev"),
    ("github.com/google/gopacket", "libpcap-dev"),
    ("github.com/gopacket/gopacket", "libpcap-dev"),
    ("github.com/h2non/bimg", "libvips-dev"),
    ("github.com/jamesruan/sodium", "libsodium-dev"),
    ("github.com/libgit2/git2go", "libgit2-dev"),
    ("github.com/msteinert/pam", "libpam0g-dev"),
    ("github.com/pebbe/zmq4", "libzmq3-dev"),
    ("github.com/seccomp/libseccomp-golang", "libseccomp-dev"),
    ("libvirt.org/go/libvirt", "libvirt-dev"),
];

/// The oldest Go among Debian's that are in use (that of Debian 12).
const DEBIANS: (u32, u32) = (1, 19);

/// Looks at the project in `source`.
pub(in crate::lang) fn survey(source: &SourceTree) -> Result<ProjectSurvey, LangError> {
    let project = GoProject::read(source, "")?;
    let files = project.own_files()?;
    let mut libraries = BTreeSet::new();
    let imports: BTreeSet<&String> = files.iter().flat_map(|file| &file.head.imports).collect();
    for (module, deb) in MODULES {
        if imports.iter().any(|path| path.starts_with(module)) {
            libraries.insert(*deb);
        }
    }
    for name in files.iter().flat_map(|file| linked(&file.head.cgo)) {
        let found = LIBRARIES.iter().find(|(names, _)| names.contains(&name));
        libraries.extend(found.map(|(_, deb)| *deb));
    }
    let newer = project.go().filter(|(go, _)| (go.major, go.minor) > DEBIANS);
    Ok(ProjectSurvey {
        programs: programs(&project, &files),
        libraries: libraries.into_iter().collect(),
        compiler: newer.map(|(go, _)| go.release()),
    })
}

/// What cgo is told to link with.
fn linked(comment: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for line in comment.lines() {
        let Some((kind, values)) = line.trim().strip_prefix("#cgo ").and_then(|rest| rest.split_once(':')) else {
            continue;
        };
        let words = values.split_whitespace();
        match kind.split_whitespace().last() {
            Some("pkg-config") => names.extend(words.filter(|word| !word.starts_with('-'))),
            Some("LDFLAGS") => names.extend(words.filter_map(|word| word.strip_prefix("-l"))),
            _ => {}
        }
    }
    names
}

/// What the programs are called: that of the module itself first, then those of `cmd`, then others, examples last.
fn programs(project: &GoProject<'_>, files: &[OwnFile]) -> Vec<String> {
    let mut found = BTreeMap::new();
    for file in files {
        if file.head.package != "main" || file.head.is_ignored() {
            continue;
        }
        let dir = parent(&file.path);
        let Some(path) = project.import_path(dir) else { continue };
        let is_aside = |part| ["example", "examples", "hack", "tools", "test", "internal"].contains(&part);
        let rank = match dir {
            "" => 0,
            dir if dir.split('/').any(is_aside) => 3,
            dir if dir.split('/').any(|part| part == "cmd") => 1,
            _ => 2,
        };
        found.insert((rank, dir.to_owned()), program(&path));
    }
    let module = project.import_path("").map(|path| program(&path));
    let mut programs: Vec<String> = Vec::new();
    for ((rank, _), name) in found {
        if programs.contains(&name) {
            continue;
        }
        match rank < 3 && Some(&name) == module.as_ref() {
            true => programs.insert(0, name),
            false => programs.push(name),
        }
    }
    programs
}

/// What Go calls the program of a package: the last part of its path that is no major version.
fn program(path: &str) -> String {
    let is_major = |part: &str| {
        let number = part.strip_prefix('v').unwrap_or_default();
        !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
    };
    let mut parts = path.rsplit('/').peekable();
    let last = parts.next().unwrap_or_default();
    match parts.peek() {
        Some(before) if is_major(last) => (*before).to_owned(),
        _ => last.to_owned(),
    }
}
