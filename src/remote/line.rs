//! The *line* to a builder: its connections, how long it is waited for, and when it is asked again.
//!
//! Invariant: nothing of ours waits on the thread that moves bytes (see [`crate::http`]); whoever asks waits on its own,
//! sees a cancellation within a tenth of a second, and waits for no single answer without end.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::Uri;
use tonic::metadata::{AsciiMetadataValue, BinaryMetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tower::service_fn;

use super::address::BuilderAddress;
use super::error::{RemoteError, message_of};
use crate::http::tls;
use crate::http::wire::Wire;
use crate::http::{HttpConfig, SetupError};

/// How soon a cancellation is seen.
const GLANCE: Duration = Duration::from_millis(100);

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one answer may take, and how long bytes may rest in a stream that has them.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// First pause before a builder is asked again; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(250);

/// How often something is tried without any progress.
const TRIES: u32 = 6;

/// How often a builder is called that never answered.
const TRIES_AT_FIRST: u32 = 3;

/// After how long a connection is probed on which nothing comes, in seconds. Builders take it ill if HTTP/2 is used for that
/// more often than every five minutes.
const PROBE_AFTER: u32 = 30;

/// The same through HTTP/2.
const PING_EVERY: Duration = Duration::from_secs(301);

/// Executions on one connection: builders allow so many streams, and the next ones would wait unseen.
const STREAMS: usize = 50;

/// Largest message that is read, in bytes.
pub(super) const MESSAGE_MAX: usize = 16 << 20;

/// The connections to a builder.
pub(super) struct Line {
    /// Its address, for messages.
    pub builder: String,
    /// The instance there.
    pub instance: String,
    wire: Wire,
    /// For everything but executions.
    channel: Channel,
    /// For executions.
    executions: Vec<Channel>,
    next: AtomicUsize,
    token: Option<AsciiMetadataValue>,
    has_answered: OnceLock<()>,
}

/// How to connect.
struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Line {
    /// A line on which so many executions may be under way; nobody is called yet.
    pub(super) fn new(
        address: &BuilderAddress,
        token: Option<AsciiMetadataValue>,
        http: &HttpConfig,
        executions: usize,
    ) -> Result<Self, RemoteError> {
        let wire = Wire::start().map_err(RemoteError::Start)?;
        let connector = Arc::new(Connector::new(address, http)?);
        let uri = format!(
            "{}://{}",
            if address.is_secure { "https" } else { "http" },
            address.authority()
        );
        let unfit = |error: &dyn std::error::Error| RemoteError::Unfit {
            builder: address.to_string(),
            reason: error.to_string(),
            help: "write its address as `grpc://HOST:PORT`",
        };
        let endpoint = Endpoint::from_shared(uri).map_err(|error| unfit(&error))?;
        let endpoint = endpoint
            .user_agent(concat!("layerize/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| unfit(&error))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_adaptive_window(true);
        let count = executions.div_ceil(STREAMS).max(1);
        // A channel belongs to the thread on which it is made.
        let make = async move {
            let channels = (0..=count).map(|_| {
                let connector = connector.clone();
                endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| connector.clone().connect()))
            });
            channels.collect::<Vec<Channel>>()
        };
        let mut executions = waited(start(&wire, make), true)?;
        let channel = executions.swap_remove(0);
        Ok(Self {
            builder: address.to_string(),
            instance: address.instance.clone(),
            wire,
            channel,
            executions,
            next: AtomicUsize::new(0),
            token,
            has_answered: OnceLock::new(),
        })
    }

    /// The connection for everything but executions.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A connection for an execution.
    pub(super) fn execution_channel(&self) -> Channel {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.executions[next % self.executions.len()].clone()
    }

    /// A request that says who asks.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let who = api::RequestMetadata {
            tool_details: Some(api::ToolDetails {
                tool_name: "layerize".to_owned(),
                tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            ..api::RequestMetadata::default()
        };
        let who = BinaryMetadataValue::from_bytes(&who.encode_to_vec());
        let metadata = request.metadata_mut();
        metadata.insert_bin("build.bazel.remote.execution.v2.requestmetadata-bin", who);
        if let Some(token) = &self.token {
            metadata.insert("authorization", token.clone());
        }
        request
    }

    /// Asks, and asks again where the answer may be another one in a while.
    pub(super) fn call<T, F>(&self, what: &'static str, make: impl Fn() -> F) -> Result<T, RemoteError>
    where
        T: Send + 'static,
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        let mut tries = Tries::default();
        loop {
            match self.wait(make())? {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => tries.again(self, what, &status)?,
            }
        }
    }

    /// Waits for an answer as long as one may take.
    pub(super) fn wait<T, F>(&self, work: F) -> Result<Result<T, Status>, RemoteError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        self.start(work).wait()
    }

    /// Has something begun that is waited for later.
    pub(super) fn start<T, F>(&self, work: F) -> Pending<Result<T, Status>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        start(&self.wire, async {
            timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(too_long()))
        })
    }

    /// Tells something that must be told although the process is about to end; waits no longer than `patience`.
    pub(super) fn tell<F>(&self, patience: Duration, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let _ = waited(
            start(&self.wire, async move { drop(timeout(patience, work).await) }),
            false,
        );
    }

    /// Has something run that sends what it finds itself; it ends when what is given is dropped.
    pub(super) fn run(&self, work: impl Future<Output = ()> + Send + 'static) -> Running {
        Running(self.wire.spawn(work))
    }

    /// Takes note that the builder answered.
    pub(super) fn answered(&self) {
        let _ = self.has_answered.set(());
    }

    /// What a status is as an error.
    pub(super) fn error(&self, what: &'static str, status: &Status) -> RemoteError {
        let builder = self.builder.clone();
        let message = message_of(status);
        match is_of_connection(status) || status.code() == Code::DeadlineExceeded {
            true => RemoteError::Unreachable {
                builder,
                what,
                message,
                help: tls::advice(status, self.host()),
            },
            false => RemoteError::Refused {
                builder,
                what,
                code: status.code(),
                message,
            },
        }
    }

    /// What was given is not what it says.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> RemoteError {
        RemoteError::Wrong {
            builder: self.builder.clone(),
            reason: reason.into(),
        }
    }

    fn host(&self) -> &str {
        let rest = self
            .builder
            .split_once("://")
            .map_or(self.builder.as_str(), |(_, rest)| rest);
        rest.split_once('/').map_or(rest, |(host, _)| host)
    }
}

fn too_long() -> Status {
    Status::deadline_exceeded(format!("no answer within {} s", PATIENCE.as_secs()))
}

/// Whether it is the connection that says so, and not who is at its other end.
fn is_of_connection(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}

/// How often something was tried.
#[derive(Debug, Default)]
pub(super) struct Tries(u32);

impl Tries {
    /// Waits before the next try; an error where `status` says that it would be in vain, or it was tried often enough.
    pub(super) fn again(&mut self, line: &Line, what: &'static str, status: &Status) -> Result<(), RemoteError> {
        let may_pass = is_of_connection(status)
            || matches!(
                status.code(),
                Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
                    | Code::Aborted
                    | Code::Internal
                    | Code::Cancelled
            );
        let most = if line.has_answered.get().is_some() {
            TRIES
        } else {
            TRIES_AT_FIRST
        };
        self.0 += 1;
        if !may_pass || tls::is_refused(status) || self.0 >= most {
            return Err(line.error(what, status));
        }
        let until = Instant::now() + PAUSE * 2_u32.pow(self.0 - 1);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if is_cancelled() {
                return Err(RemoteError::Cancelled);
            }
            std::thread::sleep(left.min(GLANCE));
        }
        Ok(())
    }

    /// Takes note that there was progress.
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Whether the process is about to end.
pub(super) fn is_cancelled() -> bool {
    crate::http::is_cancelled() || crate::sandbox::is_cancelled()
}

/// Something under way; dropped, it ends.
pub(super) struct Pending<T> {
    news: Receiver<T>,
    _running: Running,
}

impl<T> Pending<T> {
    /// Waits for it.
    pub(super) fn wait(self) -> Result<T, RemoteError> {
        waited(self, true)
    }
}

/// Something under way; dropped, it ends.
pub(super) struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn start<T: Send + 'static>(wire: &Wire, work: impl Future<Output = T> + Send + 'static) -> Pending<T> {
    let (sender, news) = channel();
    let running = wire.spawn(async move {
        // Nobody waits for it any more.
        let _ = sender.send(work.await);
    });
    Pending {
        news,
        _running: Running(running),
    }
}

fn waited<T>(pending: Pending<T>, may_be_cancelled: bool) -> Result<T, RemoteError> {
    loop {
        match pending.news.recv_timeout(GLANCE) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) if !(may_be_cancelled && is_cancelled()) => {}
            // It panicked, which ends the process.
            Err(_) => return Err(RemoteError::Cancelled),
        }
    }
}

impl Connector {
    fn new(address: &BuilderAddress, http: &HttpConfig) -> Result<Self, RemoteError> {
        let host = address.host.trim_matches(['[', ']']).to_owned();
        let tls = match address.is_secure {
            false => None,
            true => {
                let authority = address.authority();
                let mut config: ClientConfig = tls::client_config(http, &authority, true)?;
                config.alpn_protocols = vec![b"h2".to_vec()];
                let name = ServerName::try_from(host.clone()).map_err(|error| SetupError::Tls {
                    host: authority,
                    source: rustls::Error::General(error.to_string()),
                })?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        Ok(Self {
            host,
            port: address.port,
            tls,
        })
    }

    async fn connect(self: Arc<Self>) -> std::io::Result<TokioIo<Box<dyn Stream>>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &PROBE_AFTER)?;
        setsockopt(&stream, sockopt::TcpKeepInterval, &(PROBE_AFTER / 3))?;
        setsockopt(&stream, sockopt::TcpKeepCount, &3)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
        };
        Ok(TokioIo::new(stream))
    }
}

/// A connection, with or without TLS.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}
