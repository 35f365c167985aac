//! A registry in this process that does what the specification says, except where a test told it otherwise, and keeps
//! an account of every request.

mod answers;
mod connection;

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::digest::Digest;
use crate::http::wire::lock;

pub(super) use answers::basic;
use connection::serve;

/// What happens to a request instead of, or beside, what should.
pub(super) enum Act {
    /// This answer, after the request's body was read.
    Reply(Answer),
    /// This answer before the body, which is not read.
    Early(Answer),
    /// The connection ends when so many bytes of the body were read.
    CutRequest(usize),
    /// The request is done, and so many bytes of its answer arrive.
    CutAnswer(usize),
    /// The request's body is not read beyond so many bytes, and there is no answer.
    Stall(usize),
    /// The answer is changed.
    Edit(Box<dyn Fn(&mut Answer) + Send + Sync>),
    /// Something happens before the request is looked at.
    First(Box<dyn Fn(&Shared) + Send + Sync>),
    /// An answer whose body does not end.
    Endless(Answer),
    /// The answer's head, then a few bytes now and then, for a second or so.
    Drip(Answer),
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn text(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// An error as the specification writes it.
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message, "detail": {} }] });
        Self::new(status)
            .with("Content-Type", "application/json")
            .text(body.to_string())
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.headers.retain(|(header, _)| !header.eq_ignore_ascii_case(name));
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.into()));
    }
}

struct Rule {
    method: &'static str,
    path: String,
    skip: usize,
    times: usize,
    act: Arc<Act>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query.
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    /// How many bytes of its body were read.
    pub(super) body: usize,
    /// The body of a form or a manifest.
    pub(super) text: String,
    pub(super) status: u16,
}

/// How the registry differs from others where they may differ.
#[derive(Debug, Clone, Default)]
pub(super) struct Ways {
    /// Tokens are wanted; the login that gets them, where anonymous ones are not enough.
    pub(super) tokens: bool,
    pub(super) login: Option<(String, String)>,
    pub(super) expires_in: Option<u64>,
    /// A name and a password are wanted.
    pub(super) basic: Option<(String, String)>,
    pub(super) referrers: bool,
    pub(super) oci_tag: bool,
    pub(super) etags: bool,
    pub(super) chunk_max: Option<usize>,
    pub(super) no_chunks: bool,
    /// PATCH is answered 201, with the range of the first one.
    pub(super) stuck_range: bool,
    pub(super) no_status: bool,
    /// Mounts: the status that is answered instead.
    pub(super) mount: Option<u16>,
    /// Every location is good for one request.
    pub(super) fresh_locations: bool,
    pub(super) min_chunk: Option<u64>,
    /// Where tokens are got, where not from the registry itself.
    pub(super) realm: Option<String>,
    /// A rest after each piece of a body.
    pub(super) throttle: Option<Duration>,
}

/// An upload's bytes, repository and the state that its next location must have.
#[derive(Default)]
pub(super) struct Upload {
    pub(super) bytes: Vec<u8>,
    state: u64,
    first_end: Option<usize>,
}

#[derive(Default)]
pub(super) struct Store {
    pub(super) blobs: BTreeMap<(String, Digest), Vec<u8>>,
    pub(super) manifests: BTreeMap<(String, String), (Vec<u8>, String)>,
    pub(super) uploads: BTreeMap<String, Upload>,
    pub(super) tokens: BTreeMap<String, Vec<String>>,
}

/// Makes a token that allows these scopes.
pub(super) type Mint = Box<dyn Fn(&[String]) -> String + Send + Sync>;

pub(super) struct Shared {
    /// Makes tokens for another registry.
    pub(super) mint: Mutex<Option<Mint>>,
    pub(super) ways: Mutex<Ways>,
    pub(super) store: Mutex<Store>,
    pub(super) log: Mutex<Vec<Seen>>,
    rules: Mutex<Vec<Rule>>,
    stop: AtomicBool,
    next: AtomicU64,
    host: String,
    busy: AtomicUsize,
    pub(super) busiest: AtomicUsize,
}

impl Shared {
    /// Makes all tokens worthless.
    pub(super) fn revoke(&self) {
        lock(&self.store).tokens.clear();
    }
}

/// The registry.
pub(super) struct Faulty {
    pub(super) shared: Arc<Shared>,
    pub(super) host: String,
}

impl Faulty {
    pub(super) fn start(ways: Ways) -> Self {
        Self::start_as("127.0.0.1", ways)
    }

    /// One that answers under a name of loopback.
    pub(super) fn start_as(name: &str, ways: Ways) -> Self {
        let listener = TcpListener::bind((name.trim_matches(['[', ']']), 0)).unwrap();
        let host = format!("{name}:{}", listener.local_addr().unwrap().port());
        let shared = Arc::new(Shared {
            mint: Mutex::default(),
            ways: Mutex::new(ways),
            store: Mutex::default(),
            log: Mutex::default(),
            rules: Mutex::default(),
            stop: AtomicBool::new(false),
            next: AtomicU64::new(1),
            host: host.clone(),
            busy: AtomicUsize::new(0),
            busiest: AtomicUsize::new(0),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if accepting.stop.load(Ordering::Relaxed) {
                    return;
                }
                let (shared, Ok(connection)) = (accepting.clone(), connection) else {
                    continue;
                };
                std::thread::spawn(move || {
                    let _ = serve(&shared, connection);
                });
            }
        });
        Self { shared, host }
    }

    /// From the request number `skip` on of this method (`*`: any) whose path holds `path`, `times` times.
    pub(super) fn rule(&self, method: &'static str, path: &str, skip: usize, times: usize, act: Act) {
        let path = path.to_owned();
        let act = Arc::new(act);
        lock(&self.shared.rules).push(Rule {
            method,
            path,
            skip,
            times,
            act,
        });
    }

    /// The next such request.
    pub(super) fn once(&self, method: &'static str, path: &str, act: Act) {
        self.rule(method, path, 0, 1, act);
    }

    pub(super) fn log(&self) -> Vec<Seen> {
        lock(&self.shared.log).clone()
    }

    /// The requests of this method whose path holds `path`.
    pub(super) fn seen(&self, method: &str, path: &str) -> Vec<Seen> {
        let all = self.log();
        all.into_iter()
            .filter(|seen| (method == "*" || seen.method == method) && seen.path.contains(path))
            .collect()
    }

    /// Bytes of upload bodies that arrived, in all.
    pub(super) fn arrived(&self) -> usize {
        self.seen("*", "/blobs/uploads/").iter().map(|seen| seen.body).sum()
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.busy.load(Ordering::SeqCst) == 0
    }

    pub(super) fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        lock(&self.shared.store)
            .blobs
            .contains_key(&(repository.to_owned(), *digest))
    }

    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<Vec<u8>> {
        let store = lock(&self.shared.store);
        store
            .manifests
            .get(&(repository.to_owned(), reference.to_owned()))
            .map(|(bytes, _)| bytes.clone())
    }

    pub(super) fn put_manifest(&self, repository: &str, reference: &str, bytes: &[u8], kind: &str) {
        let mut store = lock(&self.shared.store);
        for name in [reference.to_owned(), Digest::of(bytes).to_string()] {
            store
                .manifests
                .insert((repository.to_owned(), name), (bytes.to_vec(), kind.to_owned()));
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.host);
    }
}
