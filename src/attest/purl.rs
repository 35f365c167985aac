//! A *package URL* (purl) names a package in a way that scanners and vulnerability databases look up.
//!
//! Invariant: canonical by the purl specification: qualifiers sorted by key, empty ones left out, components
//! percent-encoded but for unreserved characters and `:` (in qualifiers `/` too).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode as encode};

use crate::digest::{Digest, FileHash};

/// What is encoded in the value of a qualifier.
const QUALIFIER: &AsciiSet = &COMPONENT.remove(b'/');

/// What is encoded in a component.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// A Debian binary package.
pub(super) fn debian(name: &str, version: Option<&str>, architecture: Option<&str>) -> String {
    let name = name.to_ascii_lowercase();
    build("deb/debian", &name, version, &[("arch", architecture)])
}

/// A Debian source package.
pub(super) fn debian_source(name: &str, version: &str) -> String {
    debian(name, Some(version), Some("source"))
}

/// Software that no registry of packages knows.
pub(super) fn generic(name: &str, version: Option<&str>) -> String {
    build("generic", name, version, &[])
}

/// A crate of Rust.
pub(super) fn cargo(name: &str, version: &str) -> String {
    build("cargo", name, Some(version), &[])
}

/// A crate of a repository; `location` is where others find that.
pub(super) fn git_cargo(name: &str, version: &str, location: Option<&str>) -> String {
    build("cargo", name, Some(version), &[("vcs_url", location)])
}

/// A distribution of Python; its name as the registry compares names.
pub(super) fn pypi(name: &str, version: &str) -> String {
    let name = name.to_ascii_lowercase().replace('_', "-");
    build("pypi", &name, Some(version), &[])
}

/// A package of npm; its scope is the name space.
pub(super) fn npm(name: &str, version: &str) -> String {
    git_npm(name, version, None)
}

/// A package of npm from a repository; `location` is where others find that.
pub(super) fn git_npm(name: &str, version: &str, location: Option<&str>) -> String {
    let qualifiers = [("vcs_url", location)];
    match name.split_once('/') {
        Some((scope, name)) => build(
            &format!("npm/{}", encode(scope, COMPONENT)),
            name,
            Some(version),
            &qualifiers,
        ),
        None => build("npm", name, Some(version), &qualifiers),
    }
}

/// A module of Go; all of its path but the last part is the name space.
pub(super) fn golang(module: &str, version: &str) -> String {
    let lower = module.to_ascii_lowercase();
    match lower.rsplit_once('/') {
        Some((space, name)) => {
            let space: Vec<String> = space
                .split('/')
                .map(|part| encode(part, COMPONENT).to_string())
                .collect();
            build(&format!("golang/{}", space.join("/")), name, Some(version), &[])
        }
        None => build("golang", &lower, Some(version), &[]),
    }
}

/// A file that was downloaded; an address without a host (`file:`) says nothing to others and is left out.
pub(super) fn download(name: &str, version: Option<&str>, url: Option<&str>, hash: &FileHash) -> String {
    let checksum = hash.content().map(|digest| digest.to_string());
    let url = url.filter(|url| url.starts_with("https://") || url.starts_with("http://"));
    build(
        "generic",
        name,
        version,
        &[("checksum", checksum.as_deref()), ("download_url", url)],
    )
}

/// The tree of a commit; `location` is where others find it.
pub(super) fn git(name: &str, commit: &str, location: Option<&str>) -> String {
    build("generic", name, Some(commit), &[("vcs_url", location)])
}

/// Where a commit is, as SPDX and package URLs write it: `git+https://HOST/PATH@COMMIT`.
pub(super) fn git_location(address: &str, commit: &str) -> String {
    let address = match address.split_once(':') {
        _ if address.starts_with("git://") => return format!("{address}@{commit}"),
        // `USER@HOST:PATH` is ssh's.
        Some((host, path)) if !address.contains("://") => format!("ssh://{host}/{}", path.trim_start_matches('/')),
        _ => address.to_owned(),
    };
    format!("git+{address}@{commit}")
}

/// A package of Nix.
pub(super) fn nix(name: &str, version: Option<&str>) -> String {
    build("nix", name, version, &[])
}

/// An image; `name` may begin with a registry and a path.
pub(super) fn oci(name: &str, digest: &Digest, architecture: Option<&str>, tag: Option<&str>) -> String {
    let lower = name.to_ascii_lowercase();
    let last = lower.rsplit('/').next().unwrap_or(&lower);
    let repository = lower.contains('/').then_some(lower.as_str());
    let version = digest.to_string();
    build(
        "oci",
        last,
        Some(&version),
        &[("arch", architecture), ("repository_url", repository), ("tag", tag)],
    )
}

/// The qualifiers must be sorted by key.
fn build(kind: &str, name: &str, version: Option<&str>, qualifiers: &[(&str, Option<&str>)]) -> String {
    let mut text = format!("pkg:{kind}/{}", encode(name, COMPONENT));
    if let Some(version) = version.filter(|version| !version.is_empty()) {
        text.push('@');
        text.push_str(&encode(version, COMPONENT).to_string());
    }
    let mut separator = '?';
    for (key, value) in qualifiers {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text.push(separator);
            text.push_str(key);
            text.push('=');
            text.push_str(&encode(value, QUALIFIER).to_string());
            separator = '&';
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_are_canonical() {
        // Each is what `packageurl-python` prints of what it parses; `tests/cli/sbom.rs` asks it again.
        let digest = Digest::of(b"");
        for (purl, expected) in [
            (
                debian("libstdc++6", Some("1:12.2~rc-3+b1"), Some("amd64")),
                "pkg:deb/debian/libstdc%2B%2B6@1:12.2~rc-3%2Bb1?arch=amd64".to_owned(),
            ),
            (debian("x", None, None), "pkg:deb/debian/x".to_owned()),
            (
                debian_source("hello", "2.10-3"),
                "pkg:deb/debian/hello@2.10-3?arch=source".to_owned(),
            ),
            (generic("a b/c", Some("")), "pkg:generic/a%20b%2Fc".to_owned()),
            (
                download("a", Some("1"), Some("https://x.invalid/a?b=c&d#e"), &digest.into()),
                format!("pkg:generic/a@1?checksum={digest}&download_url=https://x.invalid/a%3Fb%3Dc%26d%23e"),
            ),
            (
                download("a", None, Some("file:///home/me/a"), &digest.into()),
                format!("pkg:generic/a?checksum={digest}"),
            ),
            (
                pypi("Zope.Interface_x", "7.2"),
                "pkg:pypi/zope.interface-x@7.2".to_owned(),
            ),
            (
                npm("@scope/name", "1.0.0-rc.1"),
                "pkg:npm/%40scope/name@1.0.0-rc.1".to_owned(),
            ),
            (npm("left-pad", "1.3.0"), "pkg:npm/left-pad@1.3.0".to_owned()),
            (
                golang("github.com/BurntSushi/toml", "v1.2.0+incompatible"),
                "pkg:golang/github.com/burntsushi/toml@v1.2.0%2Bincompatible".to_owned(),
            ),
            (golang("std", "v1"), "pkg:golang/std@v1".to_owned()),
            (nix("glibc", Some("2.38-27")), "pkg:nix/glibc@2.38-27".to_owned()),
            (
                oci("Registry.example/team/App", &digest, Some("amd64"), Some("v1")),
                format!("pkg:oci/app@{digest}?arch=amd64&repository_url=registry.example/team/app&tag=v1"),
            ),
            (oci("app", &digest, None, None), format!("pkg:oci/app@{digest}")),
        ] {
            assert_eq!(purl, expected);
        }
    }
}
