//! A *repository* of a test: an archive made by hand in a temporary directory, and who uses it.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use super::AptSources;
use super::solve::{Request, resolve_sets, resolve_sources};
use super::testing_archive::Archive;
use crate::digest::Digest;
use crate::event::Silent;
use crate::fetch::{FetchConfig, Update};
use crate::fsio;
use crate::spec::Lock;
use crate::testing::output;

/// An archive, with its user's cache and apt state beside it.
pub(crate) struct Repo {
    dir: tempfile::TempDir,
    archive: Archive,
}

impl Deref for Repo {
    type Target = Archive;

    fn deref(&self) -> &Archive {
        &self.archive
    }
}

impl DerefMut for Repo {
    fn deref_mut(&mut self) -> &mut Archive {
        &mut self.archive
    }
}

impl Repo {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::new(&dir.path().join("archive"));
        Self { dir, archive }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The archive's top directory, which also serves as a mirror.
    pub(crate) fn archive(&self) -> std::path::PathBuf {
        self.dir.path().join("archive")
    }

    /// Locks sets of packages and source packages, starting from `old`.
    pub(crate) fn lock(&self, sets: &[&[&str]], sources: &[&str], old: &Lock, update: &Update) -> Lock {
        let config = self.config();
        let request = Request {
            sources: &self.apt_sources(),
            old,
            update,
            config: &config,
            reporter: &Silent,
        };
        let set = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let debs = resolve_sets(&sets.iter().map(set).collect(), &request).unwrap();
        let sources = sources.iter().map(|name| (*name).to_owned()).collect();
        Lock {
            architecture: debs.architecture,
            debs: debs.debs,
            deb_sets: debs.deb_sets,
            deb_sources: resolve_sources(&sources, &request).unwrap(),
            ..Lock::default()
        }
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
            output("gpg", &[&common, arguments].concat())
        };
        gpg(&["--quick-generate-key", "test@localhost", "rsa2048", "sign", "never"]);
        gpg(&["--clearsign", "--output", &path("InRelease"), &path("Release")]);
        let armor: &[&str] = if armor { &["--armor"] } else { &[] };
        gpg(&[armor, &["--output", &keyring_path, "--export"]].concat());
        output(
            "gpgconf",
            &["--homedir", home.path().to_str().unwrap(), "--kill", "all"],
        );
        keyring
    }

    pub(crate) fn apt_sources(&self) -> AptSources {
        AptSources {
            sources: vec![self.source_line()],
            keyring: None,
            architecture: Some("amd64".to_owned()),
            snapshots: Vec::new(),
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

    /// A configuration whose apt has an archive without packages: what comes, comes from elsewhere.
    pub(crate) fn config_without_apt(&self) -> FetchConfig {
        let mut config = self.config();
        config.apt.sources = vec![Archive::new(&self.path().join("empty")).source_line()];
        config
    }

    pub(crate) fn forget_cache(&self) {
        fsio::remove_tree(&self.path().join("cache")).unwrap();
    }
}
