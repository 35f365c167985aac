//! A *client* speaks to registries: it shows who it is, follows redirects, waits when asked to, and tries again.
//!
//! Invariant: a login goes to the registry's own origin and to the token server that it names, to no other; whatever
//! is read of an answer is bounded.

use std::collections::BTreeSet;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};

use super::error::{RegistryError, printable, read_errors};
use super::token::Auth;
use super::{Endpoint, Login, RegistryConfig};
use crate::event::{Event, Reporter};
use crate::http::address::{self, Home};
pub(super) use crate::http::client::Reply;
use crate::http::client::{self, REDIRECTS_MAX, Request, Whole};
use crate::http::pace::retry_after;
use crate::http::wire::{Supply, lock};
use crate::transport::TransportError;

/// Most bytes of an error's body that are read.
const ERROR_MAX: usize = 64 << 10;
/// Most of a run's warnings that are shown.
const WARNINGS_MAX: usize = 50;
/// Pauses shorter than this are not told.
const TOLD_FROM: Duration = Duration::from_millis(900);

/// How patient and how persistent a client is.
#[derive(Debug, Clone)]
pub(super) struct RegistryTuning {
    pub(super) http: client::Tuning,
    /// Bytes of a chunk where nothing else limits it: below what proxies commonly allow (100 MB).
    pub(super) chunk: u64,
    /// Blobs above this size are sent in chunks from the start.
    pub(super) chunks_over: u64,
    /// Blobs of at least this size have their sessions remembered.
    pub(super) remembered_from: u64,
    /// Who the user is everywhere, whatever is configured.
    pub(super) login: Option<Login>,
}

impl Default for RegistryTuning {
    fn default() -> Self {
        Self {
            http: client::Tuning::default(),
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

impl Access {
    /// Whose answers are followed.
    pub(super) fn home(&self) -> Home<'_> {
        Home {
            url: &self.endpoint.base,
            host: &self.endpoint.host,
            may_lead_inside: self.endpoint.may_lead_inside,
        }
    }
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

/// Where an answer sends a request, judged as an address of the registry.
pub(super) fn location(reply: &Reply, call: &Call<'_>) -> Result<Option<Url>, RegistryError> {
    reply
        .location(call.access.home())
        .map_err(|stray| RegistryError::Protocol {
            action: call.action.to_owned(),
            host: address::host_of(&reply.url),
            reason: stray.to_string(),
            help: stray.help(),
        })
}

/// Speaks to registries.
pub(super) struct RegistryClient<'r> {
    pub(super) config: RegistryConfig,
    pub(super) tuning: RegistryTuning,
    pub(super) reporter: &'r dyn Reporter,
    /// Requests that were made again.
    pub(super) retries: AtomicU64,
    pub(super) auth: Auth,
    pub(super) http: client::Client,
    warned: Mutex<BTreeSet<String>>,
}

impl<'r> RegistryClient<'r> {
    /// A client that has spoken to nobody.
    pub(super) fn new(config: &RegistryConfig, tuning: RegistryTuning, reporter: &'r dyn Reporter) -> Self {
        Self {
            config: config.clone(),
            http: client::Client::new(&config.http, tuning.http.clone()),
            tuning,
            reporter,
            retries: AtomicU64::default(),
            auth: Auth::default(),
            warned: Mutex::default(),
        }
    }

    /// Sends a request until its answer has one of the `expected` statuses, or it is clear that it will not.
    pub(super) fn call(&self, call: &mut Call<'_>, expected: &[u16]) -> Result<Reply, TransportError> {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let error = match self.once(call) {
                Ok(reply) if expected.contains(&reply.status()) => {
                    self.http.pace.worked(call.host());
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
        let (host, persistence) = (&access.endpoint.host, &self.http.tuning.persistence);
        let mut attempts = persistence.attempts;
        if !self.http.pace.has_answered(host) || access.endpoint.mirror {
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
        let pause = self.http.pace.failed(host, began, asked, persistence);
        self.retries.fetch_add(1, Ordering::Relaxed);
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
        self.http.pace.worked(&access.endpoint.host);
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
            let moved = reply.has_moved(&call.method);
            match location(&reply, call) {
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
        let home = &call.access.endpoint;
        let host = match address::same_origin(url, &home.base) {
            true => home.host.clone(),
            false => address::host_of(url),
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
        let answer = self.http.send(Request {
            method: call.method.clone(),
            url,
            headers,
            body,
            host: &host,
            pace: &home.host,
        });
        let answer = answer.map_err(|error| RegistryError::of(error, call.action))?;
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
                registry: call.access.endpoint.host.clone(),
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
    pub(super) fn who(&self, access: &Access) -> String {
        match self.login(access) {
            Ok(Login::Basic { username, .. }) => format!("the user `{}`", printable(&username, 64)),
            Ok(Login::IdentityToken(_)) => "the holder of the identity token".to_owned(),
            Ok(Login::RegistryToken(_)) => "the holder of the registry token".to_owned(),
            _ => "an anonymous user".to_owned(),
        }
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
            help: None,
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
    let mut headers = HeaderMap::new();
    for (name, value) in &call.headers {
        let value = HeaderValue::from_str(value).map_err(|_| RegistryError::Protocol {
            action: call.action.to_owned(),
            host: call.host().to_owned(),
            reason: format!("the value of `{name}` cannot be sent in a header"),
            help: None,
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

/// A connection that broke while an answer was read.
pub(super) fn broken(action: &str, host: String, source: io::Error) -> RegistryError {
    RegistryError::Broken {
        action: action.to_owned(),
        host,
        source: source.into(),
    }
}
