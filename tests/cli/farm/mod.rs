//! A *farm* of the tests' own: a server of the Remote Execution API on loopback, which runs actions in our own sandbox, or
//! answers as a test wants it to.

mod job;
mod services;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use layerize::digest::Digest;
use prost::Message;
use rustls::ServerConfig;
use tokio::sync::watch;
use tonic::Status;

pub use job::{Answer, Job, Worker};

/// How long a test waits for something to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Files that are no larger are kept in any case: among them are the messages that are read.
const SMALL: i64 = 8 << 10;

/// What decides what comes of an action.
pub type Answers = Box<dyn Fn(&Job) -> Answer + Send + Sync>;

/// What decides whether a call fails: its name, and how often it was made before.
pub type Faults = Box<dyn Fn(&str, usize) -> Option<Status> + Send + Sync>;

/// How a farm behaves.
pub struct Rules {
    pub answers: Answers,
    pub faults: Faults,
    /// The token without which nothing is done.
    pub token: Option<&'static str>,
    /// The instance that it is.
    pub instance: &'static str,
    /// Whether it says that it allows no links with absolute paths.
    pub disallows_links: bool,
    /// After so many bytes the first upload of a large file breaks off.
    pub upload_breaks_at: Option<usize>,
    /// After so many bytes each reading of a large file ends.
    pub read_breaks_at: Option<usize>,
    /// Bytes that are given for a file in place of its own.
    pub forged: BTreeMap<String, Vec<u8>>,
    /// Whether it says that it has all files that are not small, which nobody will read.
    pub pretends: bool,
    /// With TLS.
    pub tls: Option<ServerConfig>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            answers: Box::new(Job::run),
            faults: Box::new(|_, _| None),
            token: None,
            instance: "",
            disallows_links: false,
            upload_breaks_at: None,
            read_breaks_at: None,
            forged: BTreeMap::new(),
            pretends: false,
            tls: None,
        }
    }
}

impl Rules {
    /// A farm that answers so, and runs nothing.
    pub fn answering(answers: impl Fn(&Job) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            answers: Box::new(answers),
            pretends: true,
            ..Self::default()
        }
    }
}

/// An operation, which is over when it has an answer.
pub type Operation = watch::Receiver<Option<Result<api::ExecuteResponse, Status>>>;

/// What a farm has and knows.
pub struct State {
    pub rules: Rules,
    dir: tempfile::TempDir,
    cache: Mutex<BTreeMap<String, api::ActionResult>>,
    operations: Mutex<BTreeMap<String, Operation>>,
    uploads: Mutex<BTreeMap<String, Vec<u8>>>,
    counts: Mutex<BTreeMap<String, usize>>,
    changed: Condvar,
}

impl State {
    fn new(rules: Rules) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["blobs", "executable", "jobs"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self {
            rules,
            dir,
            cache: Mutex::default(),
            operations: Mutex::default(),
            uploads: Mutex::default(),
            counts: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Counts something; gives how often it was counted before.
    pub fn count(&self, what: &str, by: usize) -> usize {
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry(what.to_owned()).or_default();
        let before = *count;
        *count += by;
        self.changed.notify_all();
        before
    }

    /// How often something was counted.
    pub fn counted(&self, what: &str) -> usize {
        self.counts.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    /// Waits until something was counted so often.
    #[track_caller]
    pub fn wait_for(&self, what: &str, least: usize) {
        let until = Instant::now() + PATIENCE;
        let mut counts = self.counts.lock().unwrap();
        while counts.get(what).copied().unwrap_or_default() < least {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: {counts:?}");
            counts = self.changed.wait_timeout(counts, left).unwrap().0;
        }
    }

    fn blob_file(&self, hash: &str) -> PathBuf {
        self.dir.path().join("blobs").join(hash)
    }

    /// Whether it has a blob.
    pub fn has(&self, digest: &api::Digest) -> bool {
        digest.size_bytes == 0
            || self.rules.pretends && digest.size_bytes > SMALL
            || fs::metadata(self.blob_file(&digest.hash)).is_ok_and(|file| file.len() == digest.size_bytes as u64)
    }

    /// A blob's bytes.
    pub fn blob(&self, digest: &api::Digest) -> Option<Vec<u8>> {
        match self.rules.forged.get(&digest.hash) {
            Some(bytes) => Some(bytes.clone()),
            None if digest.size_bytes == 0 => Some(Vec::new()),
            None => fs::read(self.blob_file(&digest.hash)).ok(),
        }
    }

    /// Keeps bytes.
    pub fn put(&self, bytes: &[u8]) -> api::Digest {
        let digest = api::Digest {
            hash: Digest::of(bytes).hex(),
            size_bytes: bytes.len() as i64,
        };
        let file = self.blob_file(&digest.hash);
        if !file.exists() {
            let mut new = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
            new.write_all(bytes).unwrap();
            new.as_file()
                .set_permissions(fs::Permissions::from_mode(0o644))
                .unwrap();
            new.persist(&file).unwrap();
        }
        digest
    }

    /// Keeps a message.
    pub fn put_message(&self, message: &impl Message) -> api::Digest {
        self.put(&message.encode_to_vec())
    }

    /// Loses a blob.
    pub fn lose(&self, digest: &api::Digest) {
        let _ = fs::remove_file(self.blob_file(&digest.hash));
    }

    /// A message that it has.
    pub fn message<M: Message + Default>(&self, digest: Option<&api::Digest>) -> M {
        let bytes = self.blob(digest.expect("a digest")).expect("a blob that was sent");
        M::decode(bytes.as_slice()).unwrap()
    }

    /// Whatever the action, this is what it remembers of it.
    pub fn remember(&self, action: &api::Digest, result: api::ActionResult) {
        self.cache.lock().unwrap().insert(action.hash.clone(), result);
    }

    /// Forgets what came of actions, and what was counted.
    pub fn forget(&self) {
        self.cache.lock().unwrap().clear();
        self.counts.lock().unwrap().clear();
    }

    /// How many bytes it keeps.
    pub fn kept_bytes(&self) -> usize {
        let blobs = self.dir.path().join("blobs");
        let names = layerize::fsio::sorted_names(&blobs).unwrap();
        let sizes = names.iter().map(|name| fs::metadata(blobs.join(name)).unwrap().len());
        sizes.sum::<u64>() as usize
    }

    /// A file that can be linked into a root.
    fn linkable(&self, digest: &api::Digest, executable: bool) -> PathBuf {
        if digest.size_bytes == 0 {
            self.put(b"");
        }
        let plain = self.blob_file(&digest.hash);
        if !executable {
            return plain;
        }
        let file = self.dir.path().join("executable").join(&digest.hash);
        if !file.exists() {
            let copy = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
            fs::copy(&plain, copy.path()).unwrap();
            copy.as_file()
                .set_permissions(fs::Permissions::from_mode(0o755))
                .unwrap();
            copy.persist(&file).unwrap();
        }
        file
    }

    /// Writes a directory to `dest`, its files as links to what is kept, as workers do.
    pub fn write_directory(&self, digest: Option<&api::Digest>, dest: &Path) {
        fs::create_dir(dest).unwrap();
        let directory: api::Directory = self.message(digest);
        for file in &directory.files {
            let kept = self.linkable(file.digest.as_ref().unwrap(), file.is_executable);
            fs::hard_link(kept, dest.join(&file.name)).unwrap();
        }
        for link in &directory.symlinks {
            std::os::unix::fs::symlink(&link.target, dest.join(&link.name)).unwrap();
        }
        for below in &directory.directories {
            self.write_directory(below.digest.as_ref(), &dest.join(&below.name));
        }
    }
}

/// A farm that is up until it is dropped or killed.
pub struct Farm {
    pub state: Arc<State>,
    pub port: u16,
    up: Option<wire::Up>,
}

impl Farm {
    pub fn start(rules: Rules) -> Self {
        let state = Arc::new(State::new(rules));
        let (port, up) = wire::serve(&state, 0);
        Self {
            state,
            port,
            up: Some(up),
        }
    }

    /// Ends it as a machine ends that loses its power: every connection breaks.
    pub fn kill(&mut self) {
        self.up = None;
    }

    /// Starts it again where it was; of operations nothing is known any more.
    pub fn revive(&mut self) {
        self.kill();
        self.state.operations.lock().unwrap().clear();
        self.up = Some(wire::serve(&self.state, self.port).1);
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("grpc://127.0.0.1:{}", self.port)
    }
}
