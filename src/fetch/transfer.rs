//! A *transfer*: the bytes behind an address (`file:`, `http:`, `https:`, a directory), as a stream.
//!
//! Invariant: nothing here trusts the bytes; connections have a time limit without progress but none in all.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};
use url::Url;

use super::FetchError;
use crate::event::{Event, Reporter};
use crate::fsio::IoContext;
use crate::http::address::{host_of, same_origin};
use crate::http::client::{Client, Reply, SAYS_NOTHING, Tuning};
use crate::http::pace::{Persistence, retry_after, status_may_pass};
use crate::http::{self, HttpConfig, HttpError, tls};

/// How a transfer that failed for a reason that may pass is tried again. Where nobody is told of a wait, it is not long.
const PERSISTENCE: Persistence = Persistence {
    pause: Duration::from_millis(500),
    pause_max: Duration::from_secs(30),
    wait_max: Duration::from_secs(60),
    attempts: 4,
    attempts_at_first: 4,
};

/// The longest wait that a server may ask for where somebody is told of it.
const WAIT_MAX_TOLD: Duration = Duration::from_secs(600);

/// How many bytes further an attempt must get so that those before it do not count. A server that gives a few bytes at
/// a time is given up.
const PROGRESS_MIN: u64 = 1 << 20;

/// Something that can be fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A file of this machine.
    Local(PathBuf),
    /// `http:` or `https:`.
    Http(Box<Url>),
}

impl Address {
    /// Parses the address of a file: `file:`, `http:` or `https:`.
    pub(crate) fn parse(text: &str) -> Result<Self, FetchError> {
        let wrong = |reason| FetchError::Address {
            url: text.to_owned(),
            reason,
        };
        let url = Url::parse(text).map_err(|_| wrong("it is not an address; write `file:///…` or `https://…`"))?;
        match url.scheme() {
            "http" | "https" => Ok(Self::Http(Box::new(url))),
            "file" => {
                let path = url.to_file_path();
                path.map(Self::Local)
                    .map_err(|()| wrong("it names another host than this machine"))
            }
            _ => Err(wrong("only `file:`, `http:` and `https:` are supported")),
        }
    }

    /// Joins a mirror (a directory, or an address of one) and a path below it.
    pub(crate) fn below(mirror: &str, path: &str) -> Result<Self, FetchError> {
        let is_safe = |part: &str| !matches!(part, "" | "." | "..");
        if !path.split('/').all(is_safe) {
            return Err(FetchError::Address {
                url: path.to_owned(),
                reason: "a path below a mirror may not hold `..`",
            });
        }
        if !mirror.contains(':') {
            return Ok(Self::Local(Path::new(mirror).join(path)));
        }
        let mut address = Self::parse(mirror)?;
        match &mut address {
            Self::Local(dir) => dir.push(path),
            Self::Http(url) => {
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop_if_empty().extend(path.split('/'));
                }
            }
        }
        Ok(address)
    }

    /// The address of what lies below, as a directory; `path` leads downwards.
    pub(crate) fn joined(self, path: &str) -> Result<Self, FetchError> {
        match self {
            Self::Local(dir) => Self::below(&dir.display().to_string(), path),
            Self::Http(url) => Self::below(url.as_str(), path),
        }
    }

    /// The same with a query; a local file has none.
    pub(crate) fn with_query(mut self, query: &str) -> Self {
        if let Self::Http(url) = &mut self {
            url.set_query(Some(query));
        }
        self
    }

    /// The host, with its port where that is not the usual one; empty for a local file.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Local(_) => String::new(),
            Self::Http(url) => host_of(url),
        }
    }

    /// Whether no network is needed.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// As the user would write it; a password in it is left out.
    pub(crate) fn display(&self) -> String {
        match self {
            Self::Local(path) => format!("file://{}", path.display()),
            Self::Http(url) => {
                let mut url = url.clone();
                if url.password().is_some() && url.set_password(None).is_err() {
                    return format!("{}://…", url.scheme());
                }
                url.to_string()
            }
        }
    }
}

/// Opens addresses; keeps connections.
pub(crate) struct Transfer<'a> {
    client: Client,
    /// Who the user is at everything below an address, beside what the machine's own files say.
    logins: Mutex<Vec<(Url, HeaderValue)>>,
    /// Who is told of waits that servers ask for.
    reporter: Option<&'a dyn Reporter>,
}

impl Transfer<'static> {
    /// One that keeps its waits to itself. No connection is made yet.
    pub(crate) fn new(config: &HttpConfig) -> Self {
        Self::with_persistence(config, PERSISTENCE, None)
    }

    /// One that does not wait long between attempts.
    #[cfg(test)]
    pub(crate) fn impatient() -> Self {
        let persistence = Persistence {
            pause: Duration::from_millis(1),
            ..PERSISTENCE
        };
        Self::with_persistence(&HttpConfig::default(), persistence, None)
    }
}

impl<'a> Transfer<'a> {
    /// One that tells of the waits that servers ask for, and so keeps longer ones. No connection is made yet.
    pub(crate) fn telling(config: &HttpConfig, reporter: &'a dyn Reporter) -> Self {
        let persistence = Persistence {
            wait_max: WAIT_MAX_TOLD,
            ..PERSISTENCE
        };
        Self::with_persistence(config, persistence, Some(reporter))
    }

    fn with_persistence(config: &HttpConfig, persistence: Persistence, reporter: Option<&'a dyn Reporter>) -> Self {
        let tuning = Tuning {
            persistence,
            ..Tuning::default()
        };
        Self {
            client: Client::new(config, tuning),
            logins: Mutex::default(),
            reporter,
        }
    }

    /// Remembers who the user is at everything below an address.
    pub(crate) fn know_login(&self, prefix: Url, login: HeaderValue) {
        self.known_logins().push((prefix, login));
    }

    fn known_logins(&self) -> std::sync::MutexGuard<'_, Vec<(Url, HeaderValue)>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The login that was configured for the smallest part of an origin that an address is in.
    fn login(&self, url: &Url) -> Option<HeaderValue> {
        let is_below = |prefix: &Url| same_origin(prefix, url) && url.path().starts_with(prefix.path());
        let logins = self.known_logins();
        let fitting = logins.iter().filter(|(prefix, _)| is_below(prefix));
        let nearest = fitting.max_by_key(|(prefix, _)| prefix.path().len());
        nearest.map(|(_, login)| login.clone())
    }

    /// Whether the user allows answers of a host to lead to this machine and its network.
    pub(crate) fn may_lead_inside(&self, host: &str) -> bool {
        self.client.config.private_network.contains(host)
    }

    /// The whole of what is at `address`, of at most `limit` bytes, in one of the forms that `accept` lists.
    pub(crate) fn page(&self, address: &Address, accept: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let shown = address.display();
        let read = |content: &mut dyn Read| {
            let mut bytes = Vec::new();
            match content.take(limit + 1).read_to_end(&mut bytes) {
                Ok(_) if bytes.len() as u64 > limit => Err(FetchError::TooLarge {
                    url: shown.clone(),
                    limit,
                }),
                Ok(_) => Ok(bytes),
                Err(error) => Err(FetchError::Interrupted {
                    url: shown.clone(),
                    source: Box::new(error),
                }),
            }
        };
        match address {
            Address::Local(path) => read(&mut open(path, address)?),
            Address::Http(url) => self.attempts(url, address, &|| 0, || {
                let mut headers = HeaderMap::new();
                if let Ok(accept) = HeaderValue::from_str(accept) {
                    headers.insert(ACCEPT, accept);
                }
                read(&mut self.ask(Method::GET, url, &shown, 0, headers)?.answer)
            }),
        }
    }

    /// Hands the bytes behind `address` to `receive`, again where that failed for a reason that may pass (no
    /// connection, no progress, an overloaded server).
    pub(crate) fn with<T>(
        &self,
        address: &Address,
        mut receive: impl FnMut(&mut dyn Read) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        self.resume(address, || 0, |_, content| receive(content))
    }

    /// As [`with`](Self::with) for the bytes from a position on. `position` is asked before each attempt; `receive`
    /// is told where its bytes begin: there, or at 0 where the server does not do ranges (RFC 9110, section 14). An
    /// attempt that got much further than those before it is counted as the first.
    pub(crate) fn resume<T>(
        &self,
        address: &Address,
        position: impl Fn() -> u64,
        mut receive: impl FnMut(u64, &mut dyn Read) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        match address {
            Address::Local(path) => receive(0, &mut open(path, address)?),
            Address::Http(url) => self.attempts(url, address, &position, || {
                let (start, mut content) = self.get(url, &address.display(), position())?;
                receive(start, &mut content.answer)
            }),
        }
    }

    /// Whether `address` has something, without receiving it: its size in bytes where that is told.
    pub(crate) fn probe(&self, address: &Address) -> Result<Option<u64>, FetchError> {
        let url = match address {
            Address::Local(path) => return open(path, address).map(|_| None),
            Address::Http(url) => url,
        };
        let shown = address.display();
        let reply = self.attempts(url, address, &|| 0, || match self.send(Method::HEAD, url, &shown, 0) {
            Err(FetchError::Status { status, .. }) if SAYS_NOTHING.contains(&status.as_u16()) => {
                self.send(Method::GET, url, &shown, 0)
            }
            reply => reply,
        })?;
        Ok(reply.header(CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok()))
    }

    fn attempts<T>(
        &self,
        url: &Url,
        address: &Address,
        position: &dyn Fn() -> u64,
        mut attempt: impl FnMut() -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let (host, mut failures, mut furthest) = (host_of(url), 0, position());
        loop {
            let began = Instant::now();
            let error = match attempt() {
                Ok(received) => {
                    self.client.pace.worked(&host);
                    return Ok(received);
                }
                Err(_) if http::is_cancelled() => return Err(FetchError::Cancelled { url: address.display() }),
                Err(error) => error,
            };
            failures += 1;
            if position() >= furthest + PROGRESS_MIN {
                (failures, furthest) = (1, position());
                self.client.pace.worked(&host);
            }
            let persistence = &self.client.tuning.persistence;
            let asked = match &error {
                FetchError::Status { retry_after, .. } => *retry_after,
                _ => None,
            };
            let too_long = asked.is_some_and(|asked| asked > persistence.wait_max);
            let attempts = match self.client.pace.has_answered(&host) {
                true => persistence.attempts,
                false => persistence.attempts.min(persistence.attempts_at_first),
            };
            if failures >= attempts || too_long || !may_pass(&error) {
                return Err(error);
            }
            let pause = self.client.pace.failed(&host, began, asked, persistence);
            if let Some(reporter) = self.reporter.filter(|_| asked.is_some()) {
                reporter.report(Event::Waiting {
                    host: host.clone(),
                    milliseconds: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                    reason: error.to_string(),
                });
            }
        }
    }

    /// The bytes from `position` on, or all where the server gives all: where they begin, and they.
    fn get(&self, url: &Url, shown: &str, position: u64) -> Result<(u64, Reply), FetchError> {
        let reply = self.send(Method::GET, url, shown, position)?;
        match reply.answer.status() {
            StatusCode::OK => Ok((0, reply)),
            StatusCode::PARTIAL_CONTENT if begins_at(&reply, position) => Ok((position, reply)),
            // What is there already is not the beginning of what the server has.
            _ => self.get(url, shown, 0),
        }
    }

    /// Asks for the bytes from `position` on. Comes back with an answer that has them, all, or word that there are none
    /// from there on.
    fn send(&self, method: Method, url: &Url, shown: &str, position: u64) -> Result<Reply, FetchError> {
        self.ask(method, url, shown, position, HeaderMap::new())
    }

    /// As [`send`](Self::send), with these headers too.
    fn ask(
        &self,
        method: Method,
        url: &Url,
        shown: &str,
        position: u64,
        mut headers: HeaderMap,
    ) -> Result<Reply, FetchError> {
        if position > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={position}-"))
        {
            headers.insert(RANGE, range);
        }
        let reply = self
            .client
            .fetch(method, url, &headers, self.login(url))
            .map_err(|error| unanswered(shown, error))?;
        match reply.answer.status() {
            StatusCode::OK => Ok(reply),
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if position > 0 => Ok(reply),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(FetchError::NotFound { url: shown.to_owned() }),
            status => Err(FetchError::Status {
                url: shown.to_owned(),
                status,
                retry_after: retry_after(reply.answer.headers()),
            }),
        }
    }
}

/// A file of this machine.
fn open(path: &Path, address: &Address) -> Result<Local, FetchError> {
    match File::open(path) {
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => Ok(Local(file)),
        Ok(_) => Err(FetchError::Address {
            url: address.display(),
            reason: "it is not a file",
        }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(FetchError::NotFound { url: address.display() })
        }
        Err(error) => Err(error).context("open", path)?,
    }
}

/// A local file, which may be as large as a download: its reader sees a cancellation, too.
struct Local(File);

impl Read for Local {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if http::is_cancelled() {
            return Err(io::Error::other(HttpError::Cancelled));
        }
        self.0.read(buffer)
    }
}

/// Whether a partial answer begins where it was asked to (`Content-Range: bytes START-END/SIZE`).
fn begins_at(reply: &Reply, position: u64) -> bool {
    let range = reply.header(CONTENT_RANGE.as_str());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    start == Some(position)
}

/// A request without an answer.
pub(super) fn unanswered(url: &str, error: HttpError) -> FetchError {
    let url = url.to_owned();
    match error {
        HttpError::Unreachable { source, .. } => FetchError::Unreachable { url, source },
        HttpError::Broken { source, .. } => FetchError::Interrupted { url, source },
        error @ HttpError::Stalled { .. } => FetchError::Interrupted {
            url,
            source: error.into(),
        },
        error => FetchError::Http { url, source: error },
    }
}

/// Whether the same request may succeed in a while.
fn may_pass(error: &FetchError) -> bool {
    match error {
        FetchError::Interrupted { .. } => true,
        FetchError::Unreachable { source, .. } => !tls::is_refused(source.as_ref()),
        FetchError::Status { status, .. } => status_may_pass(*status),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
