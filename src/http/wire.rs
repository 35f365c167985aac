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
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, Response, StatusCode, Url};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use super::address::host_of;
use super::error::HttpError;
use super::tls;

/// How many pieces of a request's body wait for the connection to take them.
const PIECES_AHEAD: usize = 2;
/// How many pieces of an answer's body wait to be read.
const PIECES_WAITING: usize = 8;
/// How soon a cancellation is seen.
const GLANCE: Duration = Duration::from_millis(100);

/// How long bytes may rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Between two pieces of a body, in either direction.
    pub(crate) idle: Duration,
    /// From the last byte of an upload to the first of its answer: a server hashes a large blob in this time.
    pub(crate) answer: Duration,
}

/// Pieces of a request's body.
pub(crate) trait Supply {
    /// How many bytes are to come.
    fn left(&self) -> u64;
    /// The next piece; `None` when all were given.
    fn next(&mut self) -> io::Result<Option<Bytes>>;
}

/// What is asked.
pub(crate) struct Head<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: HeaderMap,
}

/// The way to the thread that moves bytes.
#[derive(Clone)]
pub(crate) struct Wire(Handle);

impl Wire {
    /// Starts the thread, if it does not run yet; it ends with the process.
    pub(crate) fn start() -> io::Result<Self> {
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

    /// Has the thread do something that only moves bytes.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.0.spawn(work).abort_handle()
    }

    /// Sends a request with a body that is supplied piece by piece, and waits for the head of its answer.
    pub(crate) fn send(
        &self,
        client: &Client,
        head: Head<'_>,
        body: Option<&mut dyn Supply>,
        patience: Patience,
    ) -> Result<Answer, HttpError> {
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
        let host = host_of(head.url);
        let request = request.build().map_err(|error| failed(&host, error))?;
        let uploads = matches!(*request.method(), Method::PUT | Method::PATCH);
        let answer = if uploads { patience.answer } else { patience.idle };
        let room = Arc::new(Semaphore::new(PIECES_WAITING));
        let task = self.0.spawn(exchange(client.execute(request), sender, room.clone()));
        let exchange = Exchange {
            news,
            room,
            pipe,
            host,
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
    /// Who is asked, for messages.
    host: String,
    patience: Patience,
    _task: Aborting,
}

impl Exchange {
    /// Supplies the body, as far as it is wanted, and waits for the head of the answer.
    fn answer(mut self, body: Option<&mut dyn Supply>) -> Result<Answer, HttpError> {
        let early = match body {
            Some(supply) => self.supply(supply)?,
            None => None,
        };
        let head = match early {
            Some(head) => head,
            None => self.head()?,
        };
        let (status, headers) = head.map_err(|error| failed(&self.host, error))?;
        Ok(Answer {
            status,
            headers,
            exchange: self,
            rest: Bytes::new(),
            ended: false,
        })
    }

    /// Supplies the body until it is at its end or an answer is there, which is given back.
    fn supply(&mut self, supply: &mut dyn Supply) -> Result<Option<Answered>, HttpError> {
        let mut ahead = 0;
        loop {
            let has_room = ahead < PIECES_AHEAD;
            let news = match has_room {
                true => self.news.try_recv().ok(),
                false => Some(self.next(self.patience.idle)?),
            };
            match news {
                Some(News::Answered(head)) => return Ok(Some(head)),
                Some(News::Taken) => {
                    ahead -= 1;
                    continue;
                }
                Some(News::Closed) => return Ok(None),
                Some(News::Piece(_)) => continue,
                None => {}
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
                return Err(HttpError::Source(error));
            }
            ahead += 1;
        }
    }

    /// Waits for the head of the answer.
    fn head(&self) -> Result<Answered, HttpError> {
        loop {
            if let News::Answered(head) = self.next(self.patience.answer)? {
                return Ok(head);
            }
        }
    }

    /// The next piece of the answer's body; `None` at its end.
    fn piece(&self) -> Result<Option<Bytes>, HttpError> {
        loop {
            // Others are of a request that was answered early.
            if let News::Piece(piece) = self.next(self.patience.idle)? {
                self.room.add_permits(1);
                return piece.map_err(|error| failed(&self.host, error));
            }
        }
    }

    /// What happens next, if it does within `patience`.
    fn next(&self, patience: Duration) -> Result<News, HttpError> {
        let started = Instant::now();
        loop {
            if super::is_cancelled() {
                return Err(HttpError::Cancelled);
            }
            let left = patience.saturating_sub(started.elapsed());
            match self.news.recv_timeout(left.min(GLANCE)) {
                Ok(news) => return Ok(news),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(HttpError::Broken {
                        host: self.host.clone(),
                        source: TaskGone.into(),
                    });
                }
                Err(RecvTimeoutError::Timeout) if left > GLANCE => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(HttpError::Stalled {
                        host: self.host.clone(),
                        patience,
                    });
                }
            }
        }
    }
}

type Answered = reqwest::Result<(StatusCode, HeaderMap)>;
type Pipe = mpsc::UnboundedSender<Result<Bytes, Abort>>;

fn failed(host: &str, error: reqwest::Error) -> HttpError {
    let host = host.to_owned();
    let error = error.without_url();
    // With TLS 1.3 a server looks at the client's certificate after the client takes the connection for made.
    match error.is_connect() || tls::is_refused(&error) {
        true => HttpError::Unreachable {
            host,
            source: error.into(),
        },
        false => HttpError::Broken {
            host,
            source: error.into(),
        },
    }
}

/// The task of an exchange ended without an answer, which only a panic in it does.
#[derive(Debug)]
struct TaskGone;

impl fmt::Display for TaskGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the HTTP library gave the request up")
    }
}

impl Error for TaskGone {}

/// A body whose pieces come through a pipe.
struct Piped {
    pieces: mpsc::UnboundedReceiver<Result<Bytes, Abort>>,
    left: u64,
    news: Sender<News>,
}

/// The body ends before its length: the connection is closed, so that the server does not take it for whole.
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
pub(crate) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    exchange: Exchange,
    rest: Bytes,
    ended: bool,
}

impl Answer {
    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Its headers.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// At most `limit` bytes of the body, and whether these are all.
    pub(crate) fn read_limited(&mut self, limit: usize) -> io::Result<(Vec<u8>, bool)> {
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
        let piece = self.exchange.piece().map_err(io::Error::other)?;
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
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
