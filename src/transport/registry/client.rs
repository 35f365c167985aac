//! A *client* speaks to registries: it shows who it is, follows redirects, waits when asked to, and tries again.
//!
//! Invariant: a login goes to the registry's own origin and to the token server that it names, to no other; whatever
//! is read of an answer is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use reqwest::{Method, StatusCode, Url};

use super::address;
use super::error::{RegistryError, printable, read_errors};
use super::retry::{Pace, Persistence, retry_after};
use super::token::Auth;
use super::wire::{Answer, Head, Patience, Supply, Wire, WireError, lock};
use super::{Endpoint, Login, RegistryConfig};
use crate::event::{Event, Reporter};
use crate::transport::TransportError;

/// Most redirects that are followed.
const REDIRECTS_MAX: usize = 10;
/// Most bytes of an error's body that are read.
const ERROR_MAX: usize = 64 << 10;
/// Most of a run's warnings that are shown.
const WARNINGS_MAX: usize = 50;
/// Pauses shorter than this are not told.
const TOLD_FROM: Duration = Duration::from_millis(900);

/// How patient and how persistent a client is.
#[derive(Debug, Clone)]
pub(super) struct Tuning {
    pub(super) patience: Patience,
    pub(super) persistence: Persistence,
    /// Bytes of a chunk where nothing else limits it: below what proxies commonly allow (100 MB).
    pub(super) chunk: u64,
    /// Blobs above this size are sent in chunks from the start.
    pub(super) chunks_over: u64,
    /// Blobs of at least this size have their sessions remembered.
    pub(super) remembered_from: u64,
    /// Who the user is everywhere, whatever is configured.
    pub(super) login: Option<Login>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            patience: Patience {
                idle: Duration::from_secs(60),
                answer: Duration::from_secs(600),
            },
            persistence: Persistence {
                pause: Duration::from_millis(500),
                pause_max: Duration::from_secs(30),
                wait_max: Duration::from_secs(300),
                attempts: 8,
                attempts_at_first: 3,
            },
            chunk: 64 << 20,
            chunks_over: 4 << 30,
            remembered_from: 1 << 20,
            login: None,
        }
    }
}

/// At which endpoint, in which repository, to do what.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) endpoint: Endpoint,
    pub(super) repository: String,
    /// Scopes of tokens; the one that matters most is first, because some registries read only that.
    pub(super) scopes: Vec<String>,
}

/// The body of a request.
pub(super) enum Payload<'a> {
    None,
    Bytes(Bytes),
    Stream(&'a mut dyn Replay),
}

/// A body that can be given again.
pub(super) trait Replay: Supply {
    /// Goes back to its first byte.
    fn rewind(&mut self) -> io::Result<()>;
}

/// A request.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) payload: Payload<'a>,
    pub(super) access: &'a Access,
    /// What is being done, for messages: `upload the blob …`.
    pub(super) action: &'a str,
}

impl<'a> Call<'a> {
    /// A request without body.
    pub(super) fn new(method: Method, url: Url, access: &'a Access, action: &'a str) -> Self {
        Self {
            method,
            url,
            headers: Vec::new(),
            payload: Payload::None,
            access,
            action,
        }
    }

    /// With a header.
    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a body.
    pub(super) fn payload(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }

    fn rewind(&mut self) -> Result<(), RegistryError> {
        match &mut self.payload {
            Payload::Stream(replay) => replay.rewind().map_err(|source| RegistryError::Source {
                action: self.action.to_owned(),
                source,
            }),
            _ => Ok(()),
        }
    }

    fn host(&self) -> &str {
        &self.access.endpoint.host
    }
}

/// An answer, with its body still to be read.
pub(super) struct Reply {
    pub(super) answer: Answer,
    /// Where it came from, after redirects.
    pub(super) url: Url,
}

impl Reply {
    /// Its status.
    pub(super) fn status(&self) -> u16 {
        self.answer.status().as_u16()
    }

    /// A header that is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.answer.headers().get(name)?.to_str().ok()
    }

    /// The `Location` header, resolved against where the answer came from and judged.
    pub(super) fn location(&self, call: &Call<'_>) -> Result<Option<Url>, RegistryError> {
        let Some(location) = self.answer.headers().get(LOCATION) else {
            return Ok(None);
        };
        let location = location.to_str().map_err(|_| "its address is malformed".to_owned());
        let resolved = location.and_then(|text| address::resolve(text, &self.url, &call.access.endpoint.base));
        resolved.map(Some).map_err(|reason| RegistryError::Protocol {
            action: call.action.to_owned(),
            host: address::host_of(&self.url),
            reason,
        })
    }
}

/// What a run did.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) waits: AtomicU64,
    pub(super) waited_ms: AtomicU64,
}

/// Speaks to registries.
pub(super) struct Client<'r> {
    pub(super) config: RegistryConfig,
    pub(super) tuning: Tuning,
    pub(super) reporter: &'r dyn Reporter,
    pub(super) counters: Counters,
    pub(super) auth: Auth,
    pace: Pace,
    wire: Wire,
    clients: Mutex<BTreeMap<String, reqwest::Client>>,
    warned: Mutex<BTreeSet<String>>,
}

impl<'r> Client<'r> {
    /// A client that has spoken to nobody.
    pub(super) fn new(
        config: &RegistryConfig,
        tuning: Tuning,
        reporter: &'r dyn Reporter,
    ) -> Result<Self, TransportError> {
        Ok(Self {
            config: config.clone(),
            tuning,
            reporter,
            counters: Counters::default(),
            auth: Auth::default(),
            pace: Pace::default(),
            wire: Wire::start().map_err(|source| RegistryError::Start { source })?,
            clients: Mutex::default(),
            warned: Mutex::default(),
        })
    }

    /// Sends a request until its answer has one of the `expected` statuses, or it is clear that it will not.
    pub(super) fn call(&self, call: &mut Call<'_>, expected: &[u16]) -> Result<Reply, TransportError> {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let error = match self.once(call) {
                Ok(reply) if expected.contains(&reply.status()) => {
                    self.pace.worked(call.host());
                    return Ok(reply);
                }
                Ok(reply) => self.refusal(call, reply)?,
                Err(TransportError::Registry(error)) => *error,
                Err(error) => return Err(error),
            };
            failures += 1;
            self.pause(call.access, error, failures, began)?;
            call.rewind()?;
        }
    }

    /// Arranges for the pause after a failure; gives the error back where nothing is to be hoped for.
    pub(super) fn pause(
        &self,
        access: &Access,
        error: RegistryError,
        failures: u32,
        began: Instant,
    ) -> Result<(), RegistryError> {
        let (host, persistence) = (&access.endpoint.host, &self.tuning.persistence);
        let mut attempts = persistence.attempts;
        if !self.pace.has_answered(host) || access.endpoint.mirror {
            attempts = attempts.min(persistence.attempts_at_first);
        }
        if !error.may_pass() || failures >= attempts {
            return Err(error);
        }
        let asked = error.retry_after();
        if let Some(asked) = asked.filter(|asked| *asked > persistence.wait_max) {
            return Err(RegistryError::Busy {
                action: action_of(&error),
                host: host.clone(),
                seconds: asked.as_secs(),
                limit: persistence.wait_max.as_secs(),
            });
        }
        let pause = self.pace.failed(host, began, asked, persistence);
        self.counters.retries.fetch_add(1, Ordering::Relaxed);
        if pause >= TOLD_FROM {
            self.reporter.report(Event::Waiting {
                host: host.clone(),
                milliseconds: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                reason: error.to_string(),
            });
        }
        Ok(())
    }

    /// Bytes moved to or from the host: its failures before do not count any more.
    pub(super) fn progressed(&self, access: &Access) {
        self.pace.worked(&access.endpoint.host);
    }

    /// Sends a request, with a login where one is asked for, and follows redirects. Any status is an answer.
    pub(super) fn once(&self, call: &mut Call<'_>) -> Result<Reply, TransportError> {
        let mut url = call.url.clone();
        let (mut hops, mut challenged) = (0, 0);
        loop {
            let own = address::same_origin(&url, &call.access.endpoint.base);
            let authorization = match own {
                true => self.authorization(call.access, call.action)?,
                false => None,
            };
            let reply = self.exchange(call, &url, authorization.as_ref())?;
            let status = reply.answer.status();
            if own && matches!(status.as_u16(), 401 | 403) && challenged < 2 {
                challenged += 1;
                if self.answer_challenge(call, reply.answer.headers(), status, authorization.as_ref())? {
                    call.rewind()?;
                    continue;
                }
            }
            let moved = matches!(status.as_u16(), 307 | 308)
                || (matches!(status.as_u16(), 301..=303) && matches!(call.method, Method::GET | Method::HEAD));
            match reply.location(call) {
                Ok(Some(next)) if moved => url = next,
                Err(error) if moved => return Err(error.into()),
                _ => return Ok(reply),
            }
            hops += 1;
            if hops > REDIRECTS_MAX {
                return Err(self.protocol(call, format!("it redirects more than {REDIRECTS_MAX} times")));
            }
            call.rewind()?;
        }
    }

    /// One request and its answer.
    fn exchange(
        &self,
        call: &mut Call<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Reply, TransportError> {
        let headers = headers(call, authorization)?;
        let client = self.client(url, call)?;
        let waited = self.pace.wait(call.host());
        if waited >= Duration::from_millis(1) {
            self.counters.waits.fetch_add(1, Ordering::Relaxed);
            let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            self.counters.waited_ms.fetch_add(waited, Ordering::Relaxed);
        }
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let head = Head {
            method: call.method.clone(),
            url,
            headers,
        };
        let mut whole;
        let body: Option<&mut dyn Supply> = match &mut call.payload {
            Payload::None => None,
            Payload::Bytes(bytes) => {
                whole = Whole(Some(bytes.clone()));
                Some(&mut whole)
            }
            Payload::Stream(replay) => Some(&mut **replay),
        };
        let mut counted = body.map(|body| Counted(body, &self.counters.sent));
        let body = counted.as_mut().map(|body| body as &mut dyn Supply);
        let sent = self.wire.send(&client, head, body, self.tuning.patience);
        let answer = sent.map_err(|error| wire_error(error, call.action, address::host_of(url)))?;
        self.pace.answered(call.host());
        self.show_warnings(answer.headers(), &call.access.endpoint.host);
        Ok(Reply {
            answer,
            url: url.clone(),
        })
    }

    /// Sends a request to a token server; the answer's status and at most `limit` bytes of its body.
    pub(super) fn ask_token_server(
        &self,
        call: &mut Call<'_>,
        authorization: Option<&HeaderValue>,
        limit: usize,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), TransportError> {
        let url = call.url.clone();
        let mut reply = self.exchange(call, &url, authorization)?;
        let (status, headers) = (reply.answer.status(), reply.answer.headers().clone());
        let body = reply.answer.read_limited(limit);
        let (body, whole) = body.map_err(|source| broken(call.action, address::host_of(&url), source))?;
        if !whole && status.is_success() {
            return Err(self.protocol(call, format!("its token is longer than {limit} bytes")));
        }
        Ok((status, headers, body))
    }

    /// The error that an unexpected answer is. A `HEAD` has no words: they are asked for with a `GET`.
    fn refusal(&self, call: &Call<'_>, mut reply: Reply) -> Result<RegistryError, TransportError> {
        let status = reply.status();
        if call.method == Method::HEAD && (400..500).contains(&status) && status != 429 {
            let mut get = Call::new(Method::GET, call.url.clone(), call.access, call.action);
            get.headers.clone_from(&call.headers);
            if let Some(found) = self.once(&mut get).ok().filter(|found| found.status() == status) {
                reply = found;
            }
        }
        Ok(self.status_error(call, reply))
    }

    /// Reads the words of an answer that says no.
    pub(super) fn status_error(&self, call: &Call<'_>, mut reply: Reply) -> RegistryError {
        let status = reply.answer.status();
        // What cannot be read of the words is left out: the status is the news.
        let (body, _) = reply.answer.read_limited(ERROR_MAX).unwrap_or_default();
        let content_type = reply.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let (codes, words) = read_errors(&body, content_type);
        let (action, host) = (call.action.to_owned(), address::host_of(&reply.url));
        if matches!(status.as_u16(), 401 | 403) {
            let who = self.who(call.access);
            return RegistryError::Denied {
                action,
                host,
                who,
                status,
                words,
            };
        }
        RegistryError::Status {
            retry_after: retry_after(reply.answer.headers()),
            action,
            host,
            status,
            codes,
            words,
        }
    }

    /// Who the user is there.
    pub(super) fn login(&self, access: &Access) -> Result<Login, TransportError> {
        match &self.tuning.login {
            Some(login) => Ok(login.clone()),
            None => self.config.login(&access.endpoint.host, &access.repository),
        }
    }

    /// Who the user is, for messages.
    fn who(&self, access: &Access) -> String {
        match self.login(access) {
            Ok(Login::Basic { username, .. }) => format!("the user `{}`", printable(&username, 64)),
            Ok(Login::IdentityToken(_)) => "the holder of the identity token".to_owned(),
            Ok(Login::RegistryToken(_)) => "the holder of the registry token".to_owned(),
            _ => "an anonymous user".to_owned(),
        }
    }

    /// The HTTP client for a URL's host, made once.
    fn client(&self, url: &Url, call: &Call<'_>) -> Result<reqwest::Client, TransportError> {
        let origin = url.origin().ascii_serialization();
        if let Some(client) = lock(&self.clients).get(&origin) {
            return Ok(client.clone());
        }
        let home = &call.access.endpoint;
        let client = if address::same_origin(url, &home.base) {
            self.config.client(home)?
        } else {
            let mut base = url.clone();
            base.set_path("/");
            base.set_query(None);
            let host = address::host_of(url);
            self.config.client(&Endpoint {
                host,
                base,
                mirror: false,
                prefix: String::new(),
            })?
        };
        lock(&self.clients).insert(origin, client.clone());
        Ok(client)
    }

    /// `Warning: 299 - "…"` (distribution-spec, "Warnings"): shown once each.
    fn show_warnings(&self, headers: &HeaderMap, host: &str) {
        for value in headers.get_all("warning") {
            let Some(text) = value
                .to_str()
                .ok()
                .and_then(|value| value.trim().strip_prefix("299 - \""))
            else {
                continue;
            };
            let text = text.strip_suffix('"').unwrap_or(text).replace("\\\"", "\"");
            let text = format!("`{host}` says: {}", printable(&text, 500));
            let mut warned = lock(&self.warned);
            if warned.len() < WARNINGS_MAX && warned.insert(text.clone()) {
                drop(warned);
                self.reporter.report(Event::Warning { text });
            }
        }
    }

    /// An answer that is not followed.
    pub(super) fn protocol(&self, call: &Call<'_>, reason: impl Into<String>) -> TransportError {
        let error = RegistryError::Protocol {
            action: call.action.to_owned(),
            host: call.host().to_owned(),
            reason: reason.into(),
        };
        error.into()
    }
}

fn action_of(error: &RegistryError) -> String {
    match error {
        RegistryError::Status { action, .. } => action.clone(),
        _ => "go on".to_owned(),
    }
}

fn headers(call: &Call<'_>, authorization: Option<&HeaderValue>) -> Result<HeaderMap, RegistryError> {
    const AGENT: &str = concat!("layerize/", env!("CARGO_PKG_VERSION"));
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    for (name, value) in &call.headers {
        let value = HeaderValue::from_str(value).map_err(|_| RegistryError::Protocol {
            action: call.action.to_owned(),
            host: call.host().to_owned(),
            reason: format!("the value of `{name}` cannot stand in a header"),
        })?;
        headers.insert(name.clone(), value);
    }
    let bodiless = matches!(call.payload, Payload::None);
    if bodiless && !matches!(call.method, Method::GET | Method::HEAD) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    Ok(headers)
}

fn wire_error(error: WireError, action: &str, host: String) -> RegistryError {
    let action = action.to_owned();
    match error {
        WireError::Connect(source) => RegistryError::Unreachable {
            action,
            host,
            source: source.into(),
        },
        WireError::Broken(source) => RegistryError::Broken { action, host, source },
        WireError::Stalled(patience) => RegistryError::Stalled { action, host, patience },
        WireError::Source(source) => RegistryError::Source { action, source },
    }
}

/// A connection that broke while an answer was read.
pub(super) fn broken(action: &str, host: String, source: io::Error) -> RegistryError {
    RegistryError::Broken {
        action: action.to_owned(),
        host,
        source: source.into(),
    }
}

/// A body in one piece.
struct Whole(Option<Bytes>);

impl Supply for Whole {
    fn left(&self) -> u64 {
        self.0.as_ref().map_or(0, |bytes| bytes.len() as u64)
    }

    fn next(&mut self) -> io::Result<Option<Bytes>> {
        Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
    }
}

/// Counts the bytes of a body.
struct Counted<'a>(&'a mut dyn Supply, &'a AtomicU64);

impl Supply for Counted<'_> {
    fn left(&self) -> u64 {
        self.0.left()
    }

    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let piece = self.0.next()?;
        if let Some(bytes) = &piece {
            self.1.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(piece)
    }
}
