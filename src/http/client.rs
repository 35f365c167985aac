//! A *client* sends requests to hosts, each as it is configured and when it may be asked, and gives their answers.
//!
//! Invariant: a host is asked through one connection pool, made with its own certificates and proxy; redirects are
//! followed only where the caller says so, and then judged.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use url::Url;

use super::address::{self, Home, Stray};
use super::config::HttpConfig;
use super::error::{HttpError, SetupError};
use super::netrc::Netrc;
use super::pace::{Pace, Persistence};
use super::proxy::Proxies;
use super::tls;
use super::wire::{Answer, Head, Patience, Supply, Wire, lock};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long nothing may move where a host can be done without.
const OPTIONAL_IDLE: Duration = Duration::from_secs(20);
/// Most redirects that are followed.
pub(crate) const REDIRECTS_MAX: usize = 10;

/// How patient and how persistent a client is.
#[derive(Debug, Clone)]
pub(crate) struct Tuning {
    pub(crate) patience: Patience,
    pub(crate) persistence: Persistence,
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
        }
    }
}

/// What a client did.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    /// Bytes of requests' bodies.
    pub(crate) sent: AtomicU64,
    /// Requests that waited for their turn, and for how long in all.
    pub(crate) waits: AtomicU64,
    pub(crate) waited_ms: AtomicU64,
}

/// A request.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<&'a mut dyn Supply>,
    /// What the host is called where it is configured.
    pub(crate) host: &'a str,
    /// With whose other requests it waits.
    pub(crate) pace: &'a str,
}

/// An answer, with its body still to be read.
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    /// Where it came from, after redirects.
    pub(crate) url: Url,
}

impl Reply {
    /// Its status.
    pub(crate) fn status(&self) -> u16 {
        self.answer.status().as_u16()
    }

    /// A header that is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.answer.headers().get(name)?.to_str().ok()
    }

    /// The `Location` header, resolved against where the answer came from and judged as one that `home` gave.
    pub(crate) fn location(&self, home: Home<'_>) -> Result<Option<Url>, Stray> {
        let Some(location) = self.answer.headers().get(LOCATION) else {
            return Ok(None);
        };
        let text = location.to_str().map_err(|_| Stray::Malformed)?;
        address::resolve(text, &self.url, home).map(Some)
    }

    /// Whether the answer sends a request with this method, and without a change to it, elsewhere (RFC 9110, 15.4).
    pub(crate) fn has_moved(&self, method: &Method) -> bool {
        let status = self.status();
        let safe = matches!(*method, Method::GET | Method::HEAD);
        matches!(status, 307 | 308) || (matches!(status, 301..=303) && safe)
    }
}

/// Sends requests.
pub(crate) struct Client {
    pub(crate) config: HttpConfig,
    pub(crate) tuning: Tuning,
    pub(crate) pace: Pace,
    pub(crate) counters: Counters,
    /// By origin.
    pools: Mutex<BTreeMap<String, reqwest::Client>>,
    netrc: OnceLock<Netrc>,
}

impl Client {
    /// A client that has asked nobody; nothing is started yet.
    pub(crate) fn new(config: &HttpConfig, mut tuning: Tuning) -> Self {
        if config.is_optional {
            tuning.patience.idle = tuning.patience.idle.min(OPTIONAL_IDLE);
            tuning.persistence.attempts_at_first = 1;
        }
        Self {
            config: config.clone(),
            tuning,
            pace: Pace::default(),
            counters: Counters::default(),
            pools: Mutex::default(),
            netrc: OnceLock::new(),
        }
    }

    /// Sends a request when its host may be asked, and waits for the head of its answer. Any status is an answer.
    pub(crate) fn send(&self, request: Request<'_>) -> Result<Answer, HttpError> {
        let pool = self.pool(request.url, request.host)?;
        let waited = self.pace.wait(request.pace)?;
        if waited >= Duration::from_millis(1) {
            self.counters.waits.fetch_add(1, Ordering::Relaxed);
            let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            self.counters.waited_ms.fetch_add(waited, Ordering::Relaxed);
        }
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let head = Head {
            method: request.method,
            url: request.url,
            headers: request.headers,
        };
        let mut counted = request.body.map(|body| Counted(body, &self.counters.sent));
        let body = counted.as_mut().map(|body| body as &mut dyn Supply);
        let wire = Wire::start().map_err(HttpError::Start)?;
        let answer = wire.send(&pool, head, body, self.tuning.patience)?;
        self.pace.answered(request.pace);
        Ok(answer)
    }

    /// Asks for what is at an address (`GET`, `HEAD`), with the user's login for its host, and follows redirects. Any
    /// other status is an answer.
    /// `login` goes before what the machine's own files say.
    pub(crate) fn fetch(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        login: Option<HeaderValue>,
    ) -> Result<Reply, HttpError> {
        let login = match login {
            Some(login) => Some(login),
            None => self.login(url)?,
        };
        let mut home = url.clone();
        // A login is a header and no part of an address that others are compared with.
        let _ = home.set_username("").and_then(|()| home.set_password(None));
        let home_host = address::host_of(&home);
        let bounds = Home {
            url: &home,
            host: &home_host,
            may_lead_inside: self.config.private_network.contains(&home_host),
        };
        let mut url = home.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut headers = headers.clone();
            if let Some(login) = login.as_ref().filter(|_| address::same_origin(&url, &home)) {
                headers.insert(AUTHORIZATION, login.clone());
            }
            let host = address::host_of(&url);
            let answer = self.send(Request {
                method: method.clone(),
                url: &url,
                headers,
                body: None,
                host: &host,
                pace: &home_host,
            })?;
            let reply = Reply { answer, url };
            match reply.location(bounds) {
                Ok(Some(next)) if reply.has_moved(&method) => url = next,
                Err(stray) if reply.has_moved(&method) => {
                    return Err(HttpError::Redirect {
                        host,
                        reason: stray.to_string(),
                        help: stray.help(),
                    });
                }
                _ => return Ok(reply),
            }
        }
        Err(HttpError::Redirect {
            host: home_host,
            reason: format!("it redirects more than {REDIRECTS_MAX} times"),
            help: None,
        })
    }

    /// Who the user is for a download: the address says it, or the netrc file does. What the file says does not go over
    /// plain HTTP to another machine.
    pub(crate) fn login(&self, url: &Url) -> Result<Option<HeaderValue>, HttpError> {
        if !url.username().is_empty() || url.password().is_some() {
            let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            return Ok(basic(
                &decode(url.username()),
                &decode(url.password().unwrap_or_default()),
            ));
        }
        let Some(path) = &self.config.netrc else {
            return Ok(None);
        };
        if url.scheme() != "https" && !address::is_loopback(url) {
            return Ok(None);
        }
        let netrc = match self.netrc.get() {
            Some(netrc) => netrc,
            None => {
                let read = Netrc::read(path)?;
                self.netrc.get_or_init(|| read)
            }
        };
        let host = url.host_str().unwrap_or_default();
        let login = netrc.login(host);
        Ok(login.and_then(|login| basic(&login.username, &login.password)))
    }

    /// The connections to a URL's origin, with the host's certificates and proxy. They follow no redirects and have no
    /// deadline for a whole request: the caller sees to both.
    fn pool(&self, url: &Url, host: &str) -> Result<reqwest::Client, SetupError> {
        let origin = url.origin().ascii_serialization();
        if let Some(pool) = lock(&self.pools).get(&origin) {
            return Ok(pool.clone());
        }
        let proxies = Proxies::new(&self.config.proxies)?;
        let by_tls = proxies.choose(url).is_some_and(|proxy| proxy.scheme() == "https");
        let tls = tls::client_config(&self.config, host, by_tls || url.scheme() == "https")?;
        let pool = reqwest::Client::builder()
            .user_agent(concat!("layerize/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT.min(self.tuning.patience.idle))
            .no_proxy()
            .proxy(reqwest::Proxy::custom(move |url| proxies.choose(url).cloned()))
            .tls_backend_preconfigured(tls)
            .build();
        let pool = pool.map_err(|source| SetupError::Client {
            host: host.to_owned(),
            source,
        })?;
        Ok(lock(&self.pools).entry(origin).or_insert(pool).clone())
    }
}

/// Statuses of answers to `HEAD` that say nothing of what another request would be answered: not every server, nor what is
/// before it, does `HEAD` (RFC 9110, 9.1), or does it for everyone who may do other things.
pub(crate) const SAYS_NOTHING: [u16; 5] = [400, 401, 403, 405, 501];

/// The `Authorization` of a name and a password (RFC 7617).
pub(crate) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    let pair = format!("{username}:{password}");
    sensitive(&format!("Basic {}", BASE64_STANDARD.encode(pair)))
}

/// A header's value that is shown nowhere; `None` where it cannot be one.
pub(crate) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A body in one piece.
pub(crate) struct Whole(pub(crate) Option<Bytes>);

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
