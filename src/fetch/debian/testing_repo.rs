//! A Debian *archive* made by hand in a temporary directory, which real apt reads through `file:`.

use std::fs;
use std::path::Path;

use super::AptSources;
use super::testing::{Deb, control, oracle};
use crate::digest::Digest;
use crate::fetch::FetchConfig;
use crate::fetch::unpack::testing::{Tar, gzip, xz};
use crate::fsio;
use crate::plan::{Download, Origin};
use crate::spec::{LockedDeb, LockedDebSource};

/// An archive with a flat index, its user's cache and apt state beside it.
pub(crate) struct Repo {
    dir: tempfile::TempDir,
    packages: Vec<String>,
    sources: Vec<String>,
}

impl Repo {
    pub(crate) fn new() -> Self {
        let repo = Self {
            dir: tempfile::tempdir().unwrap(),
            packages: Vec::new(),
            sources: Vec::new(),
        };
        fs::create_dir_all(repo.archive().join("pool")).unwrap();
        repo.write();
        repo
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The archive's top directory, which also serves as a mirror.
    pub(crate) fn archive(&self) -> std::path::PathBuf {
        self.dir.path().join("archive")
    }

    /// Adds a version of a package with further control fields.
    pub(crate) fn add(&mut self, package: &str, version: &str, fields: &str) {
        let paragraph = control(package, version, fields);
        let tar = Tar::new().file("./control", &paragraph);
        let data = Tar::new().file(&format!("./usr/share/{package}/version"), version);
        let deb = Deb::new(tar, data).bytes();
        let filename = format!("pool/{package}_{}_all.deb", version.replace(':', "%3a"));
        fs::write(self.archive().join(&filename), &deb).unwrap();
        let digest = Digest::of(&deb).hex();
        let size = deb.len();
        self.packages.push(format!(
            "{paragraph}Filename: ./{filename}\nSize: {size}\nSHA256: {digest}\n"
        ));
        self.write();
    }

    /// Adds a source package.
    pub(crate) fn add_source(&mut self, package: &str, version: &str) {
        let files = [
            (
                format!("{package}_{version}.dsc"),
                format!("Format: 3.0 (native)\nVersion: {version}\nFiles:\n x 1 {package}_{version}.tar.xz\n")
                    .into_bytes(),
            ),
            (
                format!("{package}_{version}.tar.xz"),
                xz(&Tar::new().file("p/debian/rules", "r").finish()),
            ),
        ];
        let mut rows = String::new();
        for (name, content) in &files {
            fs::write(self.archive().join("pool").join(name), content).unwrap();
            rows.push_str(&format!("\n {} {} {name}", Digest::of(content).hex(), content.len()));
        }
        self.sources.push(format!(
            "Package: {package}\nBinary: {package}\nVersion: {version}\nArchitecture: any\nFormat: 3.0 (native)\nDirectory: pool\nChecksums-Sha256:{rows}\n"
        ));
        self.write();
    }

    /// Drops all versions of a package, as a mirror does after a point release; the files stay where they are.
    pub(crate) fn drop_from_index(&mut self, package: &str, version: &str) {
        let start = format!("Package: {package}\nVersion: {version}\n");
        self.packages.retain(|record| !record.starts_with(&start));
        self.write();
    }

    pub(crate) fn reverse(&mut self) {
        self.packages.reverse();
        self.write();
    }

    fn write(&self) {
        fs::write(self.archive().join("Packages"), self.packages.join("\n")).unwrap();
        fs::write(
            self.archive().join("Sources.gz"),
            gzip(self.sources.join("\n").as_bytes()),
        )
        .unwrap();
    }

    /// Signs the index with a new key, and gives the public key's file.
    pub(crate) fn sign(&self, armor: bool) -> std::path::PathBuf {
        // GnuPG's sockets need a short path.
        let home = tempfile::Builder::new().prefix("g").tempdir_in("/tmp").unwrap();
        fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let index = fs::read(self.archive().join("Packages")).unwrap();
        let release = format!(
            "Origin: test\nSuite: test\nDate: Thu, 01 Jan 2015 00:00:00 UTC\nSHA256:\n {} {} Packages\n",
            Digest::of(&index).hex(),
            index.len()
        );
        let archive = self.archive();
        let path = |name: &str| archive.join(name).display().to_string();
        fs::write(path("Release"), release).unwrap();
        let keyring = self.path().join("keyring-without-extension");
        let keyring_path = keyring.display().to_string();
        let gpg = |arguments: &[&str]| {
            let common = [
                "--homedir",
                home.path().to_str().unwrap(),
                "--batch",
                "--yes",
                "--passphrase",
                "",
            ];
            oracle("gpg", &[&common, arguments].concat())
        };
        gpg(&["--quick-generate-key", "test@localhost", "rsa2048", "sign", "never"]);
        gpg(&["--clearsign", "--output", &path("InRelease"), &path("Release")]);
        let armor: &[&str] = if armor { &["--armor"] } else { &[] };
        gpg(&[armor, &["--output", &keyring_path, "--export"]].concat());
        oracle(
            "gpgconf",
            &["--homedir", home.path().to_str().unwrap(), "--kill", "all"],
        );
        keyring
    }

    pub(crate) fn apt_sources(&self) -> AptSources {
        AptSources {
            sources: vec![format!("deb [trusted=yes] file:{} ./", self.archive().display())],
            keyring: None,
            architecture: Some("amd64".to_owned()),
        }
    }

    pub(crate) fn config(&self) -> FetchConfig {
        FetchConfig {
            cache: self.path().join("cache"),
            apt_state: self.path().join("apt"),
            apt: self.apt_sources(),
            ..FetchConfig::default()
        }
    }

    pub(crate) fn forget_cache(&self) {
        fsio::remove_tree(&self.path().join("cache")).unwrap();
    }
}

/// The download of a locked package.
pub(crate) fn deb_download(package: &str, deb: &LockedDeb) -> Download {
    Download {
        name: deb.filename.rsplit('/').next().unwrap().to_owned(),
        sha256: deb.sha256,
        size: Some(deb.size),
        origin: Origin::Deb {
            package: package.to_owned(),
            version: deb.version.clone(),
            architecture: deb.architecture.clone(),
            filename: deb.filename.clone(),
        },
    }
}

/// The downloads of a locked source package.
pub(crate) fn source_downloads(package: &str, source: &LockedDebSource) -> Vec<Download> {
    let download = |file: &crate::spec::LockedFile| Download {
        name: file.name.clone(),
        sha256: file.sha256,
        size: Some(file.size),
        origin: Origin::DebSource {
            package: package.to_owned(),
            version: source.version.clone(),
            filename: format!("{}/{}", source.directory, file.name),
        },
    };
    source.files.iter().map(download).collect()
}
