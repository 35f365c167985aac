//! A *transfer*: the bytes behind an address (`file:`, `http:`, `https:`, a directory), as a stream.
//!
//! Invariant: nothing here trusts the bytes; connections have a time limit without progress but none in all.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use reqwest::blocking::{Client, Response};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, RANGE};
use reqwest::{Method, StatusCode, Url, redirect};

use super::FetchError;
use crate::fsio::IoContext;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an answer, or the next bytes of one, may take to come.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
/// How many redirects are followed.
const REDIRECTS_MAX: usize = 10;
/// How often a transfer that failed for a reason that may pass is tried, the first time included.
const ATTEMPTS: u32 = 4;
/// The pause before the second attempt; it doubles with each.
const BACKOFF: Duration = Duration::from_millis(500);

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
pub(crate) struct Transfer {
    client: OnceLock<Result<Client, String>>,
    plain: OnceLock<Result<Client, String>>,
    backoff: Duration,
}

impl Transfer {
    /// No connection is made yet.
    pub(crate) fn new() -> Self {
        Self {
            client: OnceLock::new(),
            plain: OnceLock::new(),
            backoff: BACKOFF,
        }
    }

    /// One that does not wait long between attempts.
    #[cfg(test)]
    pub(crate) fn impatient() -> Self {
        Self {
            backoff: Duration::from_millis(1),
            ..Self::new()
        }
    }

    /// Hands the bytes behind `address` to `receive`, again where that failed for a reason that may pass (no
    /// connection, no progress, an overloaded server).
    pub(crate) fn with<T>(
        &self,
        address: &Address,
        mut receive: impl FnMut(&mut dyn Read) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        self.attempts(address, || {
            self.open(address).and_then(|mut content| receive(&mut content))
        })
    }

    /// As [`with`](Self::with) for the bytes from a position on. `position` is asked before each attempt; `receive`
    /// is told where its bytes begin: there, or at 0 where the server does not do ranges (RFC 9110, section 14).
    pub(crate) fn resume<T>(
        &self,
        address: &Address,
        position: impl Fn() -> u64,
        mut receive: impl FnMut(u64, &mut dyn Read) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        self.attempts(address, || match (address, position()) {
            (Address::Http(url), position @ 1..) => {
                let (start, mut content) = self.get(url, &address.display(), position)?;
                receive(start, &mut content)
            }
            _ => self.open(address).and_then(|mut content| receive(0, &mut content)),
        })
    }

    /// Whether `address` has something, without receiving it: its size in bytes where that is told.
    pub(crate) fn probe(&self, address: &Address) -> Result<Option<u64>, FetchError> {
        let Address::Http(url) = address else {
            return self.open(address).map(|_| None);
        };
        let shown = address.display();
        self.attempts(address, || match self.send(Method::HEAD, url, &shown, 0) {
            // Servers need not know HEAD (RFC 9110, section 9.1).
            Err(FetchError::Status { status, .. }) if ["405", "501"].iter().any(|code| status.starts_with(code)) => {
                Ok(self.send(Method::GET, url, &shown, 0)?.content_length())
            }
            Err(error) => Err(error),
            // `content_length` is that of the body, which an answer to HEAD has not.
            Ok(response) => Ok(header(&response, CONTENT_LENGTH).and_then(|size| size.parse().ok())),
        })
    }

    fn attempts<T>(
        &self,
        address: &Address,
        mut attempt_once: impl FnMut() -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let mut pause = self.backoff;
        let mut attempt = 1;
        loop {
            match attempt_once() {
                Err(error) if attempt < ATTEMPTS && !address.is_local() && may_pass(&error) => {}
                result => return result,
            }
            thread::sleep(pause);
            pause *= 2;
            attempt += 1;
        }
    }

    fn open(&self, address: &Address) -> Result<Box<dyn Read>, FetchError> {
        match address {
            Address::Local(path) => match File::open(path) {
                Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => Ok(Box::new(file)),
                Ok(_) => Err(FetchError::Address {
                    url: address.display(),
                    reason: "it is not a file",
                }),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    Err(FetchError::NotFound { url: address.display() })
                }
                Err(error) => Err(error).context("open", path)?,
            },
            Address::Http(url) => Ok(self.get(url, &address.display(), 0)?.1),
        }
    }

    /// The bytes from `position` on, or all where the server gives all: where they begin, and they.
    fn get(&self, url: &Url, shown: &str, position: u64) -> Result<(u64, Box<dyn Read>), FetchError> {
        let response = self.send(Method::GET, url, shown, position)?;
        match response.status() {
            StatusCode::OK => Ok((0, Box::new(Body(response)))),
            StatusCode::PARTIAL_CONTENT if begins_at(&response, position) => Ok((position, Box::new(Body(response)))),
            // What is there already is not the beginning of what the server has.
            _ => self.get(url, shown, 0),
        }
    }

    /// Asks for the bytes from `position` on. Comes back with an answer that has them, all, or word that there are none
    /// from there on.
    fn send(&self, method: Method, url: &Url, shown: &str, position: u64) -> Result<Response, FetchError> {
        let mut request = self.client(url, shown)?.request(method, url.clone());
        if position > 0 {
            request = request.header(RANGE, format!("bytes={position}-"));
        }
        let response = request.send().map_err(|error| FetchError::Unreachable {
            url: shown.to_owned(),
            source: Box::new(error.without_url()),
        })?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if position > 0 => Ok(response),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(FetchError::NotFound { url: shown.to_owned() }),
            status => Err(FetchError::Status {
                url: shown.to_owned(),
                status: status.to_string(),
            }),
        }
    }

    /// The client for `url`. On a machine without any root certificates plain `http:` must work all the same
    /// (what it brings is verified by digest), so that has a client of its own then.
    fn client(&self, url: &Url, shown: &str) -> Result<&Client, FetchError> {
        let unreachable = |message: &String| FetchError::Unreachable {
            url: shown.to_owned(),
            source: message.clone().into(),
        };
        let client = self.client.get_or_init(|| build_client(false));
        match client {
            Ok(client) => Ok(client),
            Err(_) if url.scheme() == "http" => {
                let plain = self.plain.get_or_init(|| build_client(true));
                plain.as_ref().map_err(unreachable)
            }
            Err(message) => Err(unreachable(message)),
        }
    }
}

fn header(response: &Response, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Whether a partial answer begins where it was asked to (`Content-Range: bytes START-END/SIZE`).
fn begins_at(response: &Response, position: u64) -> bool {
    let range = header(response, CONTENT_RANGE);
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    start == Some(position)
}

/// A response's body, its errors without the address (the caller names it).
struct Body(Response);

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

/// Builds a client that trusts the machine's root certificates (or none) and takes the proxies that the
/// environment names.
fn build_client(without_roots: bool) -> Result<Client, String> {
    // The default of the whole process; where somebody installed one before, that one serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("layerize/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(PROGRESS_TIMEOUT)
        .redirect(redirect::Policy::custom(follow));
    let builder = match without_roots {
        true => builder.tls_certs_only([]),
        false => builder,
    };
    builder.build().map_err(|error| chain(&error))
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let downgrade = attempt.url().scheme() == "http" && attempt.previous().iter().any(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTS_MAX {
        attempt.error(format!("more than {REDIRECTS_MAX} redirects"))
    } else if downgrade {
        attempt.error("it redirects from `https:` to `http:`")
    } else {
        attempt.follow()
    }
}

/// Whether the same request may succeed in a while.
fn may_pass(error: &FetchError) -> bool {
    match error {
        FetchError::Interrupted { .. } => true,
        FetchError::Unreachable { source, .. } => {
            let error = source.downcast_ref::<reqwest::Error>();
            error.is_some_and(|error| error.is_connect() || error.is_timeout() || error.is_request())
        }
        FetchError::Status { status, .. } => status.starts_with('5') || status.starts_with("429"),
        _ => false,
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
