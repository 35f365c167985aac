//! A Debian *archive* made by hand in a directory: small packages and a flat index, which real apt reads through
//! `file:`. `tests/cli` uses this file too.
//!
//! Invariant: equal calls make equal bytes, so that digests of what is built from them can be golden.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// An archive and its index.
pub struct Archive {
    dir: PathBuf,
    packages: Vec<String>,
    sources: Vec<String>,
    /// Fields of its Release file; it has none where they are empty.
    release: String,
}

impl Archive {
    /// An empty archive in `dir`, a new directory.
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("pool")).unwrap();
        let archive = Self {
            dir: dir.to_owned(),
            packages: Vec::new(),
            sources: Vec::new(),
            release: String::new(),
        };
        archive.write();
        archive
    }

    /// Adds a version of a package with further control fields; it holds one file that names the version.
    pub fn add(&mut self, package: &str, version: &str, fields: &str) {
        let path = format!("usr/share/{package}/version");
        self.add_files(package, version, fields, &[(&path, 0o644, version)]);
    }

    /// Adds a version of a package with files: path, mode and content of each.
    pub fn add_files(&mut self, package: &str, version: &str, fields: &str, files: &[(&str, u32, &str)]) {
        self.add_package(package, version, fields, files, &[]);
    }

    /// Adds a version of a package with files and maintainer scripts, each by its name (`postinst`).
    pub fn add_package(
        &mut self,
        package: &str,
        version: &str,
        fields: &str,
        files: &[(&str, u32, &str)],
        scripts: &[(&str, &str)],
    ) {
        let paragraph = control(package, version, fields);
        let scripts = scripts.iter().map(|&(name, text)| (name, 0o755, text));
        let members: Vec<_> = std::iter::once(("control", 0o644, paragraph.as_str()))
            .chain(scripts)
            .collect();
        let deb = ar(&[
            ("debian-binary".to_owned(), b"2.0\n".to_vec()),
            ("control.tar".to_owned(), tar(&members)),
            ("data.tar".to_owned(), tar(files)),
        ]);
        let (version, architecture) = (version.replace(':', "%3a"), architecture(fields).0);
        let filename = format!("pool/{package}_{version}_{architecture}.deb");
        fs::write(self.dir.join(&filename), &deb).unwrap();
        let (size, digest) = (deb.len(), sha256(&deb));
        self.packages.push(format!(
            "{paragraph}Filename: ./{filename}\nSize: {size}\nSHA256: {digest}\n"
        ));
        self.write();
    }

    /// Adds a source package.
    pub fn add_source(&mut self, package: &str, version: &str) {
        let tarball = format!("{package}_{version}.tar.gz");
        let dsc = format!("Format: 3.0 (native)\nVersion: {version}\nFiles:\n x 1 {tarball}\n");
        let files = [
            (format!("{package}_{version}.dsc"), dsc.into_bytes()),
            (tarball, gzip(&tar(&[("p/debian/rules", 0o644, "r")]))),
        ];
        let mut rows = String::new();
        for (name, content) in &files {
            fs::write(self.dir.join("pool").join(name), content).unwrap();
            rows.push_str(&format!("\n {} {} {name}", sha256(content), content.len()));
        }
        self.sources.push(format!(
            "Package: {package}\nBinary: {package}\nVersion: {version}\nArchitecture: any\nFormat: 3.0 (native)\nDirectory: pool\nChecksums-Sha256:{rows}\n"
        ));
        self.write();
    }

    /// Drops a version from the index, as an archive does when it is replaced; the files stay where they are.
    pub fn drop_from_index(&mut self, package: &str, version: &str) {
        let (of_package, of_version) = (format!("Package: {package}\n"), format!("\nVersion: {version}\n"));
        let is_dropped = |record: &String| record.starts_with(&of_package) && record.contains(&of_version);
        self.packages.retain(|record| !is_dropped(record));
        self.sources.retain(|record| !is_dropped(record));
        self.write();
    }

    /// Turns the order of the index around.
    pub fn reverse(&mut self) {
        self.packages.reverse();
        self.write();
    }

    /// Gives the archive a Release file with these fields, lines each.
    pub fn describe(&mut self, fields: &str) {
        fields.clone_into(&mut self.release);
        self.write();
    }

    /// A line of apt sources for the archive.
    pub fn source_line(&self) -> String {
        format!("deb [trusted=yes] file:{} ./", self.dir.display())
    }

    fn write(&self) {
        let sources = self.sources.join("\n").into_bytes();
        let indexes = [
            ("Packages", self.packages.join("\n").into_bytes()),
            ("Sources.gz", gzip(&sources)),
            ("Sources", sources),
        ];
        let mut rows = String::new();
        for (name, content) in &indexes {
            fs::write(self.dir.join(name), content).unwrap();
            rows.push_str(&format!(" {} {} {name}\n", sha256(content), content.len()));
        }
        if !self.release.is_empty() {
            let release = format!("{}SHA256:\n{rows}", self.release);
            fs::write(self.dir.join("Release"), release).unwrap();
        }
    }
}

/// The control paragraph of a package, which is for all architectures unless `more` names one.
pub fn control(package: &str, version: &str, more: &str) -> String {
    let (architecture, more) = architecture(more);
    format!(
        "Package: {package}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: Nobody <nobody@localhost>\n{more}Description: a test\n"
    )
}

/// The architecture that fields name, and the other fields.
fn architecture(fields: &str) -> (&str, String) {
    let (named, others): (Vec<&str>, Vec<&str>) =
        (fields.split_inclusive('\n')).partition(|line| line.starts_with("Architecture: "));
    let named = named.first().and_then(|line| line.trim_end().split_once(": "));
    (named.map_or("all", |(_, name)| name), others.concat())
}

/// An ar(5) archive of these members.
pub fn ar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let size = content.len();
        let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644);
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        if size % 2 != 0 {
            bytes.push(b'\n');
        }
    }
    bytes
}

fn tar(files: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(1);
        builder
            .append_data(&mut header, format!("./{path}"), content.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
