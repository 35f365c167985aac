//! *Checks* of single texts: names, addresses, numbers written as text. Pure.
//!
//! Invariant: what a check accepts can be used without quoting or checking it again; what it refuses comes
//! back with what is wrong and what to write instead.

use crate::digest::Digest;
use crate::oci::Platform;
use crate::store_path::{LogicalPath, StoreDir};

mod image;

pub(super) use image::{
    base_image, compression, emulate, file_path, image_name, join, mode, pattern, platform, ports, signal, strategy,
    tag, tar_profile, time_zone, timestamp, user_name, walls,
};

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    /// In a few words, beside the caret.
    pub(super) label: String,
    /// What to write instead.
    pub(super) help: Option<String>,
}

/// The result of a check.
pub(super) type Check<T = ()> = Result<T, Complaint>;

pub(super) fn refuse<T>(label: impl Into<String>) -> Check<T> {
    Err(Complaint {
        label: label.into(),
        help: None,
    })
}

pub(super) fn advise<T>(label: impl Into<String>, help: impl Into<String>) -> Check<T> {
    Err(Complaint {
        label: label.into(),
        help: Some(help.into()),
    })
}

/// The candidate spelt most like `word`, if any is near enough to be meant.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    let near = (length / 3).clamp(1, 3).min(length.saturating_sub(1));
    (candidates.into_iter())
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= near && *candidate != word)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Longest package name, version or alias in bytes: with both and a suffix, a store path's name still fits.
pub(super) const NAME_MAX: usize = 96;

/// A package's name: a letter or digit, then letters, digits, `+ - . _`.
pub(super) fn package_name(text: &str) -> Check {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    match text.as_bytes() {
        [] => refuse("it is empty"),
        bytes if bytes.len() > NAME_MAX => refuse(format!("it is longer than {NAME_MAX} bytes")),
        bytes if !bytes.iter().all(|&byte| allowed(byte)) => {
            let label = "only ASCII letters, digits and `+ - . _` are allowed";
            let fixed = text.replace(|c: char| !c.is_ascii() || !allowed(c as u8), "-");
            match fixed.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()) {
                "" => refuse(label),
                fixed => advise(label, format!("write `{fixed}`")),
            }
        }
        [first, ..] if !first.is_ascii_alphanumeric() => refuse("it must start with a letter or digit"),
        _ => Ok(()),
    }
}

/// The alias of an import: as a package's name, and not `deb`.
pub(super) fn alias(text: &str) -> Check {
    if text == "deb" {
        return advise(
            "`deb:NAME` is a Debian package",
            "choose another name, such as `debian-base`",
        );
    }
    package_name(text)
}

/// A version: what a store path's name may hold.
pub(super) fn version(text: &str) -> Check<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
    match text.as_bytes() {
        [] => advise("it is empty", "leave `version` out"),
        bytes if bytes.len() > NAME_MAX => refuse(format!("it is longer than {NAME_MAX} bytes")),
        bytes if !bytes.iter().all(|&byte| allowed(byte)) => {
            refuse("only ASCII letters, digits and `+ - . _ ? =` are allowed")
        }
        _ => Ok(text.to_owned()),
    }
}

/// A Debian package's name (Debian policy §5.6.1): two or more of `a-z 0-9 + - .`, a letter or digit first.
pub(super) fn debian_name(text: &str) -> Check {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    match text.as_bytes() {
        [] => advise("the name is missing", "write `deb:NAME`"),
        [_] => refuse("a Debian package's name has at least two characters"),
        bytes if bytes.len() > NAME_MAX => refuse(format!("it is longer than {NAME_MAX} bytes")),
        bytes if bytes.contains(&b'=') => {
            let name = text.split('=').next().unwrap_or_default();
            advise(
                "a version cannot be given here",
                format!("write `{name}`: the lock pins its version"),
            )
        }
        bytes if bytes.contains(&b':') => {
            let name = text.split(':').next().unwrap_or_default();
            advise(
                "an architecture cannot be given here",
                format!("write `{name}`: `[debian] architecture` holds for all"),
            )
        }
        bytes if bytes.iter().any(u8::is_ascii_uppercase) => advise(
            "a Debian package's name has no capitals",
            format!("write `{}`", text.to_ascii_lowercase()),
        ),
        bytes if !bytes.iter().all(|&byte| allowed(byte)) => refuse("only `a-z`, `0-9` and `+ - .` are allowed"),
        [first, ..] if !first.is_ascii_alphanumeric() => refuse("it must start with a letter or digit"),
        _ => Ok(()),
    }
}

/// Debian's name of an architecture.
pub(super) fn architecture(text: &str) -> Check<String> {
    if Platform::DEBIAN_ARCHITECTURES.contains(&text) {
        return Ok(text.to_owned());
    }
    let known = Platform::DEBIAN_ARCHITECTURES.join("`, `");
    match OTHER_ARCHITECTURES.iter().find(|(other, _)| *other == text) {
        Some((_, debian)) => advise(
            "not Debian's name of an architecture",
            format!("Debian calls it `{debian}`"),
        ),
        None => match did_you_mean(text, Platform::DEBIAN_ARCHITECTURES) {
            Some(similar) => advise("unknown architecture", format!("did you mean `{similar}`?")),
            None => advise("unknown architecture", format!("write one of `{known}`")),
        },
    }
}

/// What others call Debian's architectures.
const OTHER_ARCHITECTURES: &[(&str, &str)] = &[
    ("x86_64", "amd64"),
    ("x86-64", "amd64"),
    ("aarch64", "arm64"),
    ("386", "i386"),
    ("i686", "i386"),
    ("arm", "armhf"),
    ("armv7", "armhf"),
    ("ppc64le", "ppc64el"),
    ("mips64le", "mips64el"),
];

/// The name of an environment variable.
pub(super) fn env_name(text: &str) -> Check {
    match text {
        "" => refuse("it is empty"),
        _ if text.contains('=') => {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            advise("it contains a `=`", format!("write `{name} = \"{value}\"`"))
        }
        _ if text.contains('\0') => refuse("it contains a NUL character"),
        _ => Ok(()),
    }
}

/// The name of a build's environment variable: not one that layerize sets for its own purposes.
pub(super) fn build_env_name(text: &str) -> Check {
    if text == "out" || text.starts_with("LAYERIZE_") {
        return refuse("layerize sets this variable itself");
    }
    env_name(text)?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match text.chars().all(is_word) && !text.starts_with(|c: char| c.is_ascii_digit()) {
        true => Ok(()),
        false => refuse("a shell knows letters, digits and `_` alone in the name of a variable, no digit first"),
    }
}

/// A non-empty text.
pub(super) fn nonempty(text: &str) -> Check<String> {
    match text.trim() {
        "" => refuse("it is empty"),
        _ => Ok(text.to_owned()),
    }
}

/// The name of a library, or the absolute path of an interpreter.
pub(super) fn loadable_name(text: &str) -> Check<String> {
    let is_name = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*');
    match is_name && (text.starts_with('/') || !text.contains('/')) {
        true => Ok(text.to_owned()),
        false => advise(
            "neither a library's name nor an absolute path",
            "write it as the error names it, such as `libcuda.so.1`: no patterns",
        ),
    }
}

/// A path on the user's machine.
pub(super) fn local_path(text: &str) -> Check<String> {
    if text.contains("://") {
        return advise(
            "this is an address, not a path",
            "only a package's `source` is fetched: `[package.NAME] source = { url = \"…\" }`",
        );
    }
    if let Some(below) = text.strip_prefix("~/") {
        return advise(
            "`~` is the shell's",
            format!("write a path relative to this file instead of `~/{below}`"),
        );
    }
    nonempty(text)
}

/// A place that keeps files by digest: `docker://NAME`, `oci:DIR`, or a directory.
pub(super) fn input_place(text: &str) -> Check<String> {
    if let Some((transport, rest)) = text.split_once(':').filter(|(before, _)| !before.contains('/')) {
        return match (transport, rest.strip_prefix("//")) {
            ("docker", Some(name)) if !name.is_empty() => Ok(text.to_owned()),
            ("oci", _) if !rest.is_empty() => Ok(text.to_owned()),
            ("http" | "https", Some(_)) => advise(
                "a mirror is the machine's own business",
                "give it with `--mirror`, or in `[debian] mirrors` of `config.toml`",
            ),
            _ => advise(
                "it is not a place that can keep inputs",
                "write `docker://HOST/NAME`, `oci:DIR`, or a directory",
            ),
        };
    }
    local_path(text)
}

/// What a place of a shared cache may be.
const CACHE_PLACES: &str =
    "write `docker://HOST/NAME`, `oci:DIR`, or for a binary cache `file:DIR` or `https://HOST/PATH`";

/// A place of a shared cache that is read: `docker://HOST/NAME` or `oci:DIR` without a tag, `file:DIR` or `https://…`.
pub(super) fn cache_place(text: &str) -> Check<String> {
    if let Some(rest) = ["file:", "http://", "https://"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
    {
        return match rest.is_empty() {
            true => advise("it names no binary cache", CACHE_PLACES),
            false => Ok(text.to_owned()),
        };
    }
    let (name, is_registry) = match (text.strip_prefix("docker://"), text.strip_prefix("oci:")) {
        (Some(name), _) => (name, true),
        (None, Some(name)) => (name, false),
        (None, None) => return advise("it is not a place for a shared cache", CACHE_PLACES),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    if name.is_empty() || (is_registry && !name.contains('/')) {
        return advise("it names no repository", CACHE_PLACES);
    }
    if last.contains([':', '@']) {
        return advise(
            "it names one image",
            "leave out what follows the name: entries have tags of their own",
        );
    }
    Ok(text.to_owned())
}

/// A place of a shared cache that is written: a binary cache only in a directory.
pub(super) fn written_cache_place(text: &str) -> Check<String> {
    match text.starts_with("http:") || text.starts_with("https:") {
        true => advise(
            "a binary cache is not written over HTTP",
            "name the directory that the web server serves: `file:DIR`",
        ),
        false => cache_place(text),
    }
}

/// A public key: `NAME:BASE64` of 32 bytes.
pub(super) fn public_key(text: &str) -> Check<String> {
    let is_key = text.split_once(':').is_some_and(|(name, encoded)| {
        !name.is_empty() && encoded.len() == 44 && encoded.ends_with('=') && encoded.is_ascii()
    });
    match is_key {
        true => Ok(text.to_owned()),
        false => advise(
            "it is not a public key",
            "write `NAME:BASE64`, as `layerize store key generate NAME` prints it",
        ),
    }
}

/// An absolute path without `.`, `..` or empty components, `/` itself allowed.
pub(super) fn absolute_path(text: &str) -> Check<String> {
    let Some(relative) = text.strip_prefix('/') else {
        return match text {
            "" => refuse("it is empty"),
            _ => advise(
                "it must be absolute",
                format!("write `/{}`", text.trim_start_matches("./")),
            ),
        };
    };
    if text.contains('\0') {
        return refuse("it contains a NUL character");
    }
    let clean: Vec<&str> = (relative.split('/'))
        .filter(|component| !matches!(*component, "" | "."))
        .collect();
    if clean.contains(&"..") {
        return refuse("`..` is not allowed");
    }
    let clean = format!("/{}", clean.join("/"));
    if clean != text {
        return advise("it is not in its shortest form", format!("write `{clean}`"));
    }
    Ok(clean)
}

/// Longest `timeout` in seconds: a year.
const DURATION_MAX: u64 = 365 * 24 * 3600;

/// `512MiB`, `8GB`: bytes, at least one.
pub(super) fn size(text: &str) -> Check<u64> {
    match parse_size(text) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => advise("not a size", "write a number with its unit, such as `512MiB` or `8GB`"),
    }
}

/// Parses `20GB`, `500 MiB`, `1000` into bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// `90s`, `30m`, `1h30m`, `2d`: seconds, at least one.
pub(super) fn duration(text: &str) -> Check<u64> {
    let advice = "write a number with `s`, `m`, `h` or `d`, such as `30m` or `1h30m`";
    let mut seconds = 0u64;
    let mut rest = text;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let Ok(number) = rest[..digits].parse::<u64>() else {
            return advise("not a duration", advice);
        };
        let unit = match rest[digits..].chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86400,
            Some(_) => return advise("not a duration", advice),
            None => {
                return advise(
                    "the unit is missing",
                    format!("write `{text}s` for seconds, `{text}m` for minutes"),
                );
            }
        };
        if unit >= smallest {
            return advise("the units must go from large to small", advice);
        }
        smallest = unit;
        seconds = seconds.saturating_add(number.saturating_mul(unit));
        rest = &rest[digits + 1..];
    }
    match seconds {
        0 => advise("it must be longer than nothing", advice),
        1..=DURATION_MAX => Ok(seconds),
        _ => refuse("it is longer than a year"),
    }
}

/// A SHA-256 as `sha256sum` prints it, with or without `sha256:`, or `sha256-` and base 64.
pub(super) fn sha256(text: &str) -> Check<Digest> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if let Some(digest) = Digest::from_hex(hex).ok().or_else(|| Digest::from_sri(text)) {
        return Ok(digest);
    }
    let is_other = ["sha1", "sha384", "sha512", "md5"].iter().any(|other| {
        let rest = text.strip_prefix(other);
        rest.is_some_and(|rest| rest.starts_with(['-', ':']))
    });
    let all_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    match hex.len() {
        _ if text.starts_with("sha256-") => {
            refuse("after `sha256-` come the 32 bytes of the hash in base 64: 44 characters")
        }
        _ if is_other => advise(
            "this is another kind of hash",
            "write the file's SHA-256, or leave `sha256` out, and `layerize lock` pins it",
        ),
        0 => advise("it is empty", "leave `sha256` out, and `layerize lock` pins it"),
        64 if all_hex => advise(
            "it must be in lower case",
            format!("write `{}`", hex.to_ascii_lowercase()),
        ),
        count if all_hex => refuse(format!("a SHA-256 has 64 hexadecimal digits, this has {count}")),
        _ => refuse("a SHA-256 is 64 hexadecimal digits, as `sha256sum` prints them"),
    }
}

/// `https:`, `http:` or `file:`, and something after it.
pub(super) fn url(text: &str) -> Check<String> {
    let Some((scheme, rest)) = text.split_once(':') else {
        return advise(
            "not a URL",
            "write `https://…` or `file:///…`, or `path = \"…\"` for a path",
        );
    };
    let is_web = matches!(scheme, "http" | "https");
    if text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return advise("it holds a space or a control character", "write a space as `%20`");
    }
    match scheme {
        "http" | "https" | "file" => {}
        "git" | "git+https" | "git+ssh" | "ssh" => {
            let plain = text.trim_start_matches("git+");
            return advise(
                "this is the address of a repository",
                format!("write `{{ git = \"{plain}\", tag = \"…\" }}`"),
            );
        }
        _ => {
            return advise(
                format!("`{scheme}:` cannot be fetched"),
                "only `https:`, `http:` and `file:` can",
            );
        }
    }
    let host = rest.strip_prefix("//").and_then(|rest| rest.split('/').next());
    if is_web && host.is_none_or(str::is_empty) {
        return advise("the host is missing", format!("write `{scheme}://HOST/PATH`"));
    }
    if rest.trim_matches('/').is_empty() {
        return refuse("the path is missing");
    }
    Ok(text.to_owned())
}

/// The logical path of something in layerize's store: `/layerize/store/<32 base32 characters>-<name>`.
pub(super) fn store_path(text: &str) -> Check<LogicalPath> {
    if !text.starts_with("/layerize/store/") {
        let help = if text.starts_with("/nix/store/") {
            "paths of a Nix store can be used in an image's `contents`, or on the command line"
        } else {
            "write `deb:NAME`, the name of a package, or `/layerize/store/HASH-NAME`"
        };
        return advise("not a path in layerize's store", help);
    }
    below(StoreDir::LAYERIZE, text)
}

/// A path of a Nix store, `/nix/store/<32 base32 characters>-<name>`; a slash at its end is left out.
pub(super) fn nix_path(text: &str) -> Check<LogicalPath> {
    let text = text.trim_end_matches('/');
    match text.starts_with("/nix/store/") {
        true => below(StoreDir::NIX, text),
        false => advise("not a path of a Nix store", "write `/nix/store/HASH-NAME`"),
    }
}

/// A path that begins with the directory of a store.
fn below(dir: &str, text: &str) -> Check<LogicalPath> {
    match text.parse::<LogicalPath>() {
        Ok(path) if path.dir() == dir => Ok(path),
        _ if text[dir.len() + 1..].contains('/') => advise(
            "it points into a store path",
            format!("name the store path itself: `{dir}/HASH-NAME`"),
        ),
        _ => advise("not a store path", format!("write `{dir}/HASH-NAME`")),
    }
}

#[cfg(test)]
mod tests;
