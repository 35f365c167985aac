//! The *wire* sends one HTTP request and gives its answer; one thread of the process moves the bytes of all requests.
//!
//! Invariant: that thread runs the HTTP library and nothing of ours that could wait. What supplies a body's bytes and
//! what reads an answer runs on the thread of its caller, which waits on a channel of the standard library: so what
//! supplies bytes may itself ask another host for them. No wait is without end, and none has a deadline as a whole:
//! what counts is that bytes move. An answer that comes before the request was sent whole is the answer.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, Response, StatusCode, Url};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

/// How many pieces of a request's body wait for the connection to take them.
const PIECES_AHEAD: usize = 2;
/// How many pieces of an answer's body wait to be read.
const PIECES_WAITING: usize = 8;

/// How long bytes may rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Between two pieces of a body, in either direction.
    pub(super) idle: Duration,
    /// From the last byte of an upload to the first of its answer: a registry hashes a large blob in this time.
    pub(super) answer: Duration,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum WireError {
    /// No connection could be made.
    Connect(reqwest::Error),
    /// The connection ended, or what came was not HTTP.
    Broken(Box<dyn Error + Send + Sync>),
    /// No byte moved for this long.
    Stalled(Duration),
    /// The body to be sent cannot be read.
    Source(io::Error),
}

/// Pieces of a request's body.
pub(super) trait Supply {
    /// How many bytes are to come.
    fn left(&self) -> u64;
    /// The next piece; `None` when all were given.
    fn next(&mut self) -> io::Result<Option<Bytes>>;
}

/// What is asked.
pub(super) struct Head<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
}

/// The way to the thread that moves bytes.
#[derive(Clone)]
pub(super) struct Wire(Handle);

impl Wire {
    /// Starts the thread, if it does not run yet; it ends with the process.
    pub(super) fn start() -> io::Result<Self> {
        static STARTED: Mutex<Option<Handle>> = Mutex::new(None);
        let mut started = lock(&STARTED);
        if let Some(handle) = &*started {
            return Ok(Self(handle.clone()));
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where a thread becomes the runtime's; nobody else waits in it"
        )]
        let run = move || runtime.block_on(std::future::pending::<()>());
        std::thread::Builder::new().name("http".to_owned()).spawn(run)?;
        *started = Some(handle.clone());
        Ok(Self(handle))
    }

    /// Sends a request with a body that is supplied piece by piece, and waits for the head of its answer.
    pub(super) fn send(
        &self,
        client: &Client,
        head: Head<'_>,
        body: Option<&mut dyn Supply>,
        patience: Patience,
    ) -> Result<Answer, WireError> {
        let (sender, news) = channel();
        let request = client.request(head.method, head.url.clone()).headers(head.headers);
        let (pipe, request) = match &body {
            None => (None, request),
            Some(supply) => {
                let (pipe, pieces) = mpsc::unbounded_channel();
                let piped = Piped {
                    pieces,
                    left: supply.left(),
                    news: sender.clone(),
                };
                (Some(pipe), request.body(reqwest::Body::wrap(piped)))
            }
        };
        let request = request.build().map_err(|error| WireError::Broken(error.into()))?;
        let uploads = matches!(*request.method(), Method::PUT | Method::PATCH);
        let answer = if uploads { patience.answer } else { patience.idle };
        let room = Arc::new(Semaphore::new(PIECES_WAITING));
        let task = self.0.spawn(exchange(client.execute(request), sender, room.clone()));
        let exchange = Exchange {
            news,
            room,
            pipe,
            patience: Patience { answer, ..patience },
            _task: Aborting(task.abort_handle()),
        };
        exchange.answer(body)
    }
}

/// What the thread that moves bytes tells about one exchange.
enum News {
    /// The connection took a piece of the request's body.
    Taken,
    /// The connection takes no more of it; the answer says why.
    Closed,
    /// The head of the answer is there, or it is clear that none will come.
    Answered(reqwest::Result<(StatusCode, HeaderMap)>),
    /// A piece of the answer's body; `None` is its end.
    Piece(reqwest::Result<Option<Bytes>>),
}

/// Executes a request; reads the body of its answer, but not further ahead than there is room.
async fn exchange(execute: impl Future<Output = reqwest::Result<Response>>, news: Sender<News>, room: Arc<Semaphore>) {
    let answered = execute.await;
    let (head, response) = match answered {
        Ok(response) => (Ok((response.status(), response.headers().clone())), Some(response)),
        Err(error) => (Err(error), None),
    };
    let told = news.send(News::Answered(head));
    let Some(mut response) = response.filter(|_| told.is_ok()) else {
        return;
    };
    while let Ok(permit) = room.acquire().await {
        permit.forget();
        let piece = response.chunk().await;
        let more = matches!(piece, Ok(Some(_)));
        if news.send(News::Piece(piece)).is_err() || !more {
            return;
        }
    }
}

/// Ends the exchange's task when nobody waits for it any more, and with it the connection, unless that is free.
struct Aborting(AbortHandle);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A request under way, as its caller sees it.
struct Exchange {
    news: Receiver<News>,
    /// Room for pieces of the answer.
    room: Arc<Semaphore>,
    /// An early answer's request is not ended while the answer is read: that would close the connection.
    pipe: Option<Pipe>,
    patience: Patience,
    _task: Aborting,
}

impl Exchange {
    /// Supplies the body, as far as it is wanted, and waits for the head of the answer.
    fn answer(mut self, body: Option<&mut dyn Supply>) -> Result<Answer, WireError> {
        let early = match body {
            Some(supply) => self.supply(supply)?,
            None => None,
        };
        let head = match early {
            Some(head) => head,
            None => self.head()?,
        };
        let (status, headers) = head.map_err(failed)?;
        Ok(Answer {
            status,
            headers,
            exchange: self,
            rest: Bytes::new(),
            ended: false,
        })
    }

    /// Supplies the body until it is at its end or an answer is there, which is given back.
    fn supply(&mut self, supply: &mut dyn Supply) -> Result<Option<Answered>, WireError> {
        let mut ahead = 0;
        loop {
            let has_room = ahead < PIECES_AHEAD;
            let wait = if has_room { Duration::ZERO } else { self.patience.idle };
            match self.news.recv_timeout(wait) {
                Ok(News::Answered(head)) => return Ok(Some(head)),
                Ok(News::Taken) => {
                    ahead -= 1;
                    continue;
                }
                Ok(News::Closed) => return Ok(None),
                Ok(News::Piece(_)) => continue,
                Err(RecvTimeoutError::Timeout) if has_room => {}
                Err(RecvTimeoutError::Timeout) => return Err(WireError::Stalled(wait)),
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
            let (piece, unread) = match supply.next() {
                Ok(Some(bytes)) => (Ok(bytes), None),
                Ok(None) => return Ok(None),
                Err(error) => (Err(Abort), Some(error)),
            };
            if let Some(pipe) = &self.pipe {
                // Where nobody takes it, the news say why.
                let _ = pipe.send(piece);
            }
            if let Some(error) = unread {
                return Err(WireError::Source(error));
            }
            ahead += 1;
        }
    }

    /// Waits for the head of the answer.
    fn head(&self) -> Result<Answered, WireError> {
        loop {
            match self.news.recv_timeout(self.patience.answer) {
                Ok(News::Answered(head)) => return Ok(head),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err(WireError::Stalled(self.patience.answer)),
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
    }

    /// The next piece of the answer's body; `None` at its end.
    fn piece(&self) -> io::Result<Option<Bytes>> {
        let idle = self.patience.idle;
        loop {
            match self.news.recv_timeout(idle) {
                Ok(News::Piece(piece)) => {
                    self.room.add_permits(1);
                    return piece.map_err(|error| io::Error::other(error.without_url()));
                }
                // Of a request that was answered early.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    let reason = format!("no byte came for {} s", idle.as_secs_f32());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other(Gone)),
            }
        }
    }
}

type Answered = reqwest::Result<(StatusCode, HeaderMap)>;
type Pipe = mpsc::UnboundedSender<Result<Bytes, Abort>>;

fn failed(error: reqwest::Error) -> WireError {
    let error = error.without_url();
    if error.is_connect() {
        WireError::Connect(error)
    } else {
        WireError::Broken(error.into())
    }
}

fn gone() -> WireError {
    WireError::Broken(Gone.into())
}

/// The task of an exchange ended without an answer, which only a panic in it does.
#[derive(Debug)]
struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the HTTP library gave the request up")
    }
}

impl Error for Gone {}

/// A body whose pieces come through a pipe.
struct Piped {
    pieces: mpsc::UnboundedReceiver<Result<Bytes, Abort>>,
    left: u64,
    news: Sender<News>,
}

/// The body ends before its length: the connection is closed, so that the registry does not take it for whole.
#[derive(Debug)]
struct Abort;

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body was given up")
    }
}

impl Error for Abort {}

impl Body for Piped {
    type Data = Bytes;
    type Error = Abort;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Abort>>> {
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(Ok(bytes)) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                // Nobody listens any more when the exchange is over.
                let _ = self.news.send(News::Taken);
                Some(Ok(Frame::data(bytes)))
            }
            Some(Err(abort)) => Some(Err(abort)),
            None if self.left > 0 => Some(Err(Abort)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.news.send(News::Closed);
    }
}

/// The head of an answer, with its body still to be read.
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    exchange: Exchange,
    rest: Bytes,
    ended: bool,
}

impl Answer {
    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Its headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// At most `limit` bytes of the body, and whether these are all.
    pub(super) fn read_limited(&mut self, limit: usize) -> io::Result<(Vec<u8>, bool)> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece()? {
            let room = limit - bytes.len();
            bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.len() > room {
                return Ok((bytes, false));
            }
        }
        Ok((bytes, true))
    }

    fn piece(&mut self) -> io::Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        let piece = self.exchange.piece()?;
        self.ended = piece.is_none();
        Ok(piece)
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.rest.is_empty() {
            match self.piece()? {
                None => return Ok(0),
                Some(piece) => self.rest = piece,
            }
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

/// Locks what no panic leaves in disorder.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
