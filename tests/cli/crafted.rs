//! Images made by hand: sound, odd or hostile ones that no tool would write.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use layerize::digest::Digest;
use layerize::oci::Artifact;
use serde_json::{Value, json};

/// Memory that a command may take whatever it is given, in bytes.
pub const MEMORY_MAX: u64 = 512 << 20;

/// The most memory that any command of this test took, in bytes. Tests run in processes of their own (nextest), and
/// must themselves stay small: what a new process takes at first is its parent's.
pub fn peak_memory() -> u64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    u64::try_from(usage.max_rss()).unwrap() * 1024
}

/// Asserts that no command of this test took more memory than any may.
#[track_caller]
pub fn memory_is_bounded(what: &str) {
    let peak = peak_memory();
    assert!(peak < MEMORY_MAX, "{what}: {} MB of memory", peak >> 20);
}

/// A layout under construction.
pub struct Crafted {
    /// Its directory.
    pub dir: PathBuf,
}

impl Crafted {
    /// An empty layout in a new directory, or one that is there already.
    pub fn at(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { dir: dir.to_owned() }
    }

    /// Stores a blob.
    pub fn put(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        fs::write(self.blob(&digest), bytes).unwrap();
        digest
    }

    /// The file of a blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Stores an artifact and gives its descriptor.
    pub fn artifact(&self, artifact: &Artifact) -> Value {
        self.put(&artifact.manifest);
        for (_, blob) in &artifact.blobs {
            self.put(blob);
        }
        artifact.descriptor()
    }

    /// Changes the list in `index.json`.
    pub fn edit_index(&self, edit: impl FnOnce(&mut Vec<Value>)) {
        let path = self.dir.join("index.json");
        let mut index: Value = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
            Err(_) => json!({ "schemaVersion": 2, "manifests": [] }),
        };
        edit(index["manifests"].as_array_mut().unwrap());
        let mut file = fs::File::create(path).unwrap();
        file.write_all(index.to_string().as_bytes()).unwrap();
    }
}
