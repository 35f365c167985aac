//! A registry in this process that does what the specification says, except where a test told it otherwise, and keeps
//! an account of every request.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::digest::Digest;
use crate::http::wire::lock;

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

struct Request {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: BTreeMap<String, String>,
    length: usize,
}

fn read_request(input: &mut impl io::BufRead) -> io::Result<Option<(Request, String)>> {
    let mut line = String::new();
    if input.take(1 << 16).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        input.take(1 << 16).read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query,
        headers,
        length,
    };
    Ok(Some((request, target.to_owned())))
}

fn serve(shared: &Shared, connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut input = BufReader::new(connection.try_clone()?);
    while let Some((request, target)) = read_request(&mut input)? {
        let busy = shared.busy.fetch_add(1, Ordering::SeqCst) + 1;
        shared.busiest.fetch_max(busy, Ordering::SeqCst);
        let at = {
            let mut log = lock(&shared.log);
            log.push(Seen {
                method: request.method.clone(),
                path: target,
                headers: request.headers.clone(),
                body: 0,
                text: String::new(),
                status: 0,
            });
            log.len() - 1
        };
        let result = answer(shared, &request, &mut input, &connection, at);
        shared.busy.fetch_sub(1, Ordering::SeqCst);
        if !result? {
            return Ok(());
        }
    }
    Ok(())
}

/// The act of the first rule that means this request.
fn act_for(shared: &Shared, method: &str, target: &str) -> Option<Arc<Act>> {
    let mut rules = lock(&shared.rules);
    for rule in rules.iter_mut() {
        let fits = (rule.method == "*" || rule.method == method) && target.contains(&rule.path);
        if !fits || rule.times == 0 {
            continue;
        }
        if rule.skip > 0 {
            rule.skip -= 1;
            continue;
        }
        rule.times -= 1;
        return Some(rule.act.clone());
    }
    None
}

/// Answers a request; `false` ends the connection.
fn answer(
    shared: &Shared,
    request: &Request,
    input: &mut impl Read,
    connection: &TcpStream,
    at: usize,
) -> io::Result<bool> {
    let target = lock(&shared.log)[at].path.clone();
    let mut act = act_for(shared, &request.method, &target);
    if let Some(Act::First(first)) = act.as_deref() {
        first(shared);
        act = act_for(shared, &request.method, &target);
    }
    let mut limit = usize::MAX;
    match act.as_deref() {
        Some(Act::Early(answer)) => return early(shared, answer, input, connection, at),
        Some(Act::CutRequest(bytes) | Act::Stall(bytes)) => limit = *bytes,
        _ => {}
    }
    if let Some(refused) = refusal(shared, request) {
        return early(shared, &refused, input, connection, at);
    }
    let took = take_body(shared, request, input, limit, at)?;
    match act.as_deref() {
        Some(Act::CutRequest(_)) => {
            connection.shutdown(Shutdown::Both)?;
            return Ok(false);
        }
        Some(Act::Stall(_)) => {
            std::thread::sleep(Duration::from_secs(3));
            return Ok(false);
        }
        _ => {}
    }
    let mut answer = match act.as_deref() {
        Some(Act::Reply(answer) | Act::Endless(answer) | Act::Drip(answer)) => answer.clone(),
        _ => handle(shared, request, took),
    };
    if let Some(Act::Edit(edit)) = act.as_deref() {
        edit(&mut answer);
    }
    lock(&shared.log)[at].status = answer.status;
    send(&answer, request, connection, act.as_deref())
}

/// Answers at once, and lets the client read that before the connection ends, as Go's server does.
fn early(
    shared: &Shared,
    answer: &Answer,
    input: &mut impl Read,
    mut connection: &TcpStream,
    at: usize,
) -> io::Result<bool> {
    lock(&shared.log)[at].status = answer.status;
    let head = lock(&shared.log)[at].method == "HEAD";
    let close = answer.clone().with("Connection", "close");
    connection.write_all(&head_of(&close, close.body.len()))?;
    if !head {
        connection.write_all(&close.body)?;
    }
    connection.shutdown(Shutdown::Write)?;
    connection.set_read_timeout(Some(Duration::from_millis(500)))?;
    let _ = io::copy(&mut input.take(256 << 10), &mut io::sink());
    Ok(false)
}

fn head_of(answer: &Answer, length: usize) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} Said\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let named = answer
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if !named && answer.status != 204 {
        head += &format!("Content-Length: {length}\r\n");
    }
    (head + "\r\n").into_bytes()
}

fn send(answer: &Answer, request: &Request, mut connection: &TcpStream, act: Option<&Act>) -> io::Result<bool> {
    match act {
        Some(Act::Endless(_)) => {
            connection.write_all(&head_of(answer, 1 << 50))?;
            loop {
                connection.write_all(&[b'x'; 1 << 14])?;
            }
        }
        Some(Act::Drip(_)) => {
            connection.write_all(&head_of(answer, answer.body.len().max(1000)))?;
            for piece in answer.body.chunks((answer.body.len() / 40).max(1)) {
                connection.write_all(piece)?;
                std::thread::sleep(Duration::from_millis(20));
            }
            std::thread::sleep(Duration::from_secs(3));
            return Ok(false);
        }
        _ => {}
    }
    let mut bytes = head_of(answer, answer.body.len());
    if request.method != "HEAD" {
        bytes.extend_from_slice(&answer.body);
    }
    if let Some(Act::CutAnswer(end)) = act {
        connection.write_all(&bytes[..bytes.len().min(*end)])?;
        connection.shutdown(Shutdown::Both)?;
        return Ok(false);
    }
    connection.write_all(&bytes)?;
    Ok(true)
}

/// The body of a request: into its upload as it comes, else into memory.
struct Took {
    bytes: Vec<u8>,
    refused: Option<Answer>,
}

fn upload_id(path: &str) -> Option<&str> {
    let (_, id) = path.split_once("/blobs/uploads/")?;
    (!id.is_empty()).then_some(id)
}

fn take_body(shared: &Shared, request: &Request, input: &mut impl Read, limit: usize, at: usize) -> io::Result<Took> {
    let mut took = Took {
        bytes: Vec::new(),
        refused: chunk_refusal(shared, request),
    };
    let id = upload_id(&request.path).filter(|_| took.refused.is_none());
    let mut left = request.length.min(limit);
    let mut buffer = vec![0; 64 << 10];
    let throttle = lock(&shared.ways).throttle;
    while left > 0 {
        if let Some(rest) = throttle {
            std::thread::sleep(rest);
        }
        let want = left.min(buffer.len());
        let count = input.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= count;
        lock(&shared.log)[at].body += count;
        let mut store = lock(&shared.store);
        match id.and_then(|id| store.uploads.get_mut(id)) {
            Some(upload) => upload.bytes.extend_from_slice(&buffer[..count]),
            None => took.bytes.extend_from_slice(&buffer[..count]),
        }
    }
    let mut log = lock(&shared.log);
    if took.bytes.len() < 1 << 16 {
        log[at].text = String::from_utf8_lossy(&took.bytes).into_owned();
    }
    Ok(took)
}

/// Why a request is refused before its body is read: no login, or no token.
fn refusal(shared: &Shared, request: &Request) -> Option<Answer> {
    let ways = lock(&shared.ways).clone();
    let shown = request
        .headers
        .get("authorization")
        .map(String::as_str)
        .unwrap_or_default();
    if !request.path.starts_with("/v2/") {
        return None;
    }
    if let Some((name, password)) = &ways.basic {
        return (shown != basic(name, password)).then(|| {
            Answer::error(401, "UNAUTHORIZED", "who are you").with("WWW-Authenticate", "Basic realm=\"test\"")
        });
    }
    if !ways.tokens {
        return None;
    }
    let repository = repository_of(&request.path);
    let action = if matches!(request.method.as_str(), "GET" | "HEAD") {
        "pull"
    } else {
        "pull,push"
    };
    let wanted = format!("repository:{repository}:{action}");
    let store = lock(&shared.store);
    let allowed = shown.strip_prefix("Bearer ").and_then(|token| store.tokens.get(token));
    let covers = |scope: &String| scope == &wanted || scope == &format!("repository:{repository}:pull,push");
    if allowed.is_some_and(|scopes| scopes.iter().any(covers)) {
        return None;
    }
    let error = if allowed.is_some() {
        ",error=\"insufficient_scope\""
    } else {
        ""
    };
    let challenge = format!(
        "Bearer realm=\"http://{}/token?static=1\",service=\"test\",scope=\"{wanted}\"{error}",
        ways.realm.as_ref().unwrap_or(&shared.host)
    );
    Some(Answer::error(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", challenge))
}

pub(super) fn basic(name: &str, password: &str) -> String {
    use base64::Engine as _;
    format!(
        "Basic {}",
        base64::prelude::BASE64_STANDARD.encode(format!("{name}:{password}"))
    )
}

fn repository_of(path: &str) -> String {
    let path = path.strip_prefix("/v2/").unwrap_or(path);
    let end = ["/manifests/", "/blobs/", "/referrers/"]
        .iter()
        .filter_map(|mark| path.find(mark))
        .min();
    path[..end.unwrap_or(path.len())].to_owned()
}

fn chunk_refusal(shared: &Shared, request: &Request) -> Option<Answer> {
    if request.method != "PATCH" {
        return None;
    }
    let ways = lock(&shared.ways);
    let store = lock(&shared.store);
    let upload = store.uploads.get(upload_id(&request.path)?)?;
    if ways.no_chunks {
        return Some(Answer::error(405, "UNSUPPORTED", "no chunks here"));
    }
    if ways.chunk_max.is_some_and(|max| request.length > max) {
        return Some(Answer::error(
            416,
            "RANGE_INVALID",
            "exceeds the maximum permissible limit",
        ));
    }
    let range = request.headers.get("content-range")?;
    let start = range.split('-').next()?.parse::<usize>().ok()?;
    (start != upload.bytes.len()).then(|| Answer::error(416, "RANGE_INVALID", "out of order"))
}

fn handle(shared: &Shared, request: &Request, took: Took) -> Answer {
    let path = request.path.clone();
    let repository = repository_of(&path);
    let rest = path.strip_prefix(&format!("/v2/{repository}/")).unwrap_or_default();
    if path == "/v2/" {
        return Answer::new(200).text("{}");
    }
    if path == "/token" {
        return token(shared, request, &took.bytes);
    }
    if let Some(reference) = rest.strip_prefix("manifests/") {
        return manifest(shared, request, &repository, reference, took.bytes);
    }
    if let Some(digest) = rest.strip_prefix("referrers/") {
        return referrers(shared, &repository, digest);
    }
    if rest.starts_with("blobs/uploads/") {
        return upload(shared, request, &repository, took.refused);
    }
    let Some(digest) = rest
        .strip_prefix("blobs/")
        .and_then(|digest| digest.parse::<Digest>().ok())
    else {
        return Answer::error(404, "NOT_FOUND", "no such path");
    };
    let store = lock(&shared.store);
    let Some(blob) = store.blobs.get(&(repository, digest)) else {
        return Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let from = request
        .headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) => Answer::new(206)
            .with(
                "Content-Range",
                format!("bytes {from}-{}/{}", blob.len() - 1, blob.len()),
            )
            .text(&blob[from..]),
        None => Answer::new(200)
            .with("Docker-Content-Digest", digest.to_string())
            .text(blob.clone()),
    }
}

fn token(shared: &Shared, request: &Request, body: &[u8]) -> Answer {
    let ways = lock(&shared.ways).clone();
    let form: Vec<(String, String)> = url::form_urlencoded::parse(body).into_owned().collect();
    let scopes: Vec<String> = if request.method == "POST" {
        let scope = form
            .iter()
            .find(|(name, _)| name == "scope")
            .map(|(_, scope)| scope.clone());
        scope.unwrap_or_default().split(' ').map(str::to_owned).collect()
    } else {
        request
            .query
            .iter()
            .filter(|(name, _)| name == "scope")
            .map(|(_, scope)| scope.clone())
            .collect()
    };
    if let Some((name, password)) = &ways.login {
        let shown = request.headers.get("authorization").map(String::as_str);
        let refreshed = form
            .iter()
            .any(|(name, value)| name == "refresh_token" && value == password);
        if shown != Some(basic(name, password).as_str()) && !refreshed {
            return Answer::new(401).text("{\"details\":\"incorrect username or password\"}");
        }
    }
    let token = match &*lock(&shared.mint) {
        Some(mint) => mint(&scopes),
        None => format!("token-{}", shared.next.fetch_add(1, Ordering::Relaxed)),
    };
    lock(&shared.store).tokens.insert(token.clone(), scopes);
    let name = if request.method == "POST" {
        "access_token"
    } else {
        "token"
    };
    let mut answer = serde_json::json!({ name: token });
    if let Some(seconds) = ways.expires_in {
        answer["expires_in"] = seconds.into();
    }
    Answer::new(200)
        .with("Content-Type", "application/json")
        .text(answer.to_string())
}

fn manifest(shared: &Shared, request: &Request, repository: &str, reference: &str, body: Vec<u8>) -> Answer {
    let ways = lock(&shared.ways).clone();
    let key = (repository.to_owned(), reference.to_owned());
    let mut store = lock(&shared.store);
    let etag = |bytes: &[u8]| format!("\"{}\"", Digest::of(bytes).hex());
    if request.method != "PUT" {
        let Some((bytes, kind)) = store.manifests.get(&key) else {
            return Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        };
        let mut answer = Answer::new(200)
            .with("Content-Type", kind)
            .with("Docker-Content-Digest", Digest::of(bytes).to_string())
            .text(bytes.clone());
        if ways.etags {
            answer.set("ETag", etag(bytes));
        }
        return answer;
    }
    let now = store.manifests.get(&key).map(|(bytes, _)| etag(bytes));
    if request
        .headers
        .get("if-match")
        .is_some_and(|wanted| now.as_ref() != Some(wanted))
    {
        return Answer::error(412, "PRECONDITION_FAILED", "somebody was faster");
    }
    let read: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let layers = read["layers"].as_array().cloned().unwrap_or_default();
    for descriptor in layers
        .iter()
        .chain([&read["config"]])
        .filter(|descriptor| descriptor.is_object())
    {
        let digest: Digest = descriptor["digest"].as_str().unwrap_or_default().parse().unwrap();
        if !store.blobs.contains_key(&(repository.to_owned(), digest)) {
            return Answer::error(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
        }
    }
    for child in read["manifests"].as_array().into_iter().flatten() {
        let child = child["digest"].as_str().unwrap_or_default().to_owned();
        let index_of_referrers = reference.starts_with("sha256-");
        if !index_of_referrers && !store.manifests.contains_key(&(repository.to_owned(), child)) {
            return Answer::error(400, "MANIFEST_UNKNOWN", "a child is not there");
        }
    }
    let digest = Digest::of(&body);
    let mut answer = Answer::new(201)
        .with("Docker-Content-Digest", digest.to_string())
        .with("Location", format!("/v2/{repository}/manifests/{digest}"));
    let kind = request.headers.get("content-type").cloned().unwrap_or_default();
    let mut names = vec![reference.to_owned(), digest.to_string()];
    if ways.oci_tag {
        for (_, tag) in request.query.iter().filter(|(name, _)| name == "tag") {
            answer = answer.with("OCI-Tag", tag);
            names.push(tag.clone());
        }
    }
    if ways.referrers && read["subject"].is_object() {
        answer.set("OCI-Subject", read["subject"]["digest"].as_str().unwrap_or_default());
    }
    for name in names {
        store
            .manifests
            .insert((repository.to_owned(), name), (body.clone(), kind.clone()));
    }
    answer
}

fn referrers(shared: &Shared, repository: &str, digest: &str) -> Answer {
    if !lock(&shared.ways).referrers {
        return Answer::new(404).text("404 page not found");
    }
    let store = lock(&shared.store);
    let mut listed = BTreeMap::new();
    for ((_, _), (bytes, kind)) in store.manifests.iter().filter(|((name, _), _)| name == repository) {
        let read: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        if read["subject"]["digest"] == digest {
            let entry = serde_json::json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len(),
                "artifactType": read["artifactType"], "annotations": read["annotations"] });
            listed.insert(Digest::of(bytes), entry);
        }
    }
    let listed: Vec<_> = listed.into_values().collect();
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": listed });
    Answer::new(200)
        .with("Content-Type", "application/vnd.oci.image.index.v1+json")
        .text(index.to_string())
}

fn location(repository: &str, id: &str, upload: &Upload) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}?_state={}", upload.state)
}

fn parameter(request: &Request, name: &str) -> Option<String> {
    let found = request.query.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.clone())
}

/// Begins an upload, or mounts a blob.
fn begin(shared: &Shared, request: &Request, repository: &str) -> Answer {
    let ways = lock(&shared.ways).clone();
    let mut store = lock(&shared.store);
    if let (Some(digest), Some(from)) = (parameter(request, "mount"), parameter(request, "from")) {
        let digest: Digest = digest.parse().unwrap();
        match (ways.mount, store.blobs.get(&(from, digest)).cloned()) {
            (None, Some(blob)) => {
                store.blobs.insert((repository.to_owned(), digest), blob);
                return Answer::new(201).with("Docker-Content-Digest", digest.to_string());
            }
            (Some(status), _) if status != 202 => return Answer::error(status, "UNSUPPORTED", "no mounts"),
            _ => {}
        }
    }
    let id = format!("upload-{}", shared.next.fetch_add(1, Ordering::Relaxed));
    let upload = Upload::default();
    let mut answer = Answer::new(202)
        .with("Location", location(repository, &id, &upload))
        .with("Range", "0-0");
    if let Some(least) = ways.min_chunk {
        answer.set("OCI-Chunk-Min-Length", least.to_string());
    }
    store.uploads.insert(id, upload);
    answer
}

fn upload(shared: &Shared, request: &Request, repository: &str, refused: Option<Answer>) -> Answer {
    let Some(id) = upload_id(&request.path) else {
        return begin(shared, request, repository);
    };
    let ways = lock(&shared.ways).clone();
    let mut store = lock(&shared.store);
    let Some(upload) = store.uploads.get_mut(id) else {
        return Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown to registry");
    };
    if ways.fresh_locations && parameter(request, "_state") != Some(upload.state.to_string()) {
        return Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "stale location");
    }
    match request.method.as_str() {
        "GET" if ways.no_status => Answer::error(405, "UNSUPPORTED", "no status"),
        "GET" => {
            let mut answer = Answer::new(204).with("Location", location(repository, id, upload));
            if !upload.bytes.is_empty() {
                answer.set("Range", format!("0-{}", upload.bytes.len() - 1));
            }
            answer
        }
        "PATCH" if refused.is_some() => refused.unwrap(),
        "PATCH" => {
            upload.state += 1;
            let end = upload.bytes.len().saturating_sub(1);
            let first = *upload.first_end.get_or_insert(end);
            let (status, end) = if ways.stuck_range { (201, first) } else { (202, end) };
            Answer::new(status)
                .with("Location", location(repository, id, upload))
                .with("Range", format!("0-{end}"))
        }
        "PUT" => {
            let digest: Digest = parameter(request, "digest").unwrap().parse().unwrap();
            let upload = store.uploads.remove(id).unwrap();
            if Digest::of(&upload.bytes) != digest {
                return Answer::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
            }
            store.blobs.insert((repository.to_owned(), digest), upload.bytes);
            Answer::new(201)
                .with("Docker-Content-Digest", digest.to_string())
                .with("Location", format!("/v2/{repository}/blobs/{digest}"))
        }
        "DELETE" => {
            store.uploads.remove(id);
            Answer::new(204)
        }
        _ => Answer::error(405, "UNSUPPORTED", "no such method"),
    }
}
