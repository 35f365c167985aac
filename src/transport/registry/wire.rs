//! The *wire* sends one HTTP request and gives its answer, on a thread of its own that moves the bytes.
//!
//! Invariant: no wait is without end, and none has a deadline as a whole: what counts is that bytes move. An answer
//! that comes before the request was sent whole is the answer.

use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode, Url};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};

/// How many pieces of a body wait for the connection to take them.
const PIECES_AHEAD: usize = 2;

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
    Broken(reqwest::Error),
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

/// The runtime thread.
pub(super) struct Wire {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || drop(runtime.block_on(stopped)))?;
        Ok(Arc::new(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        }))
    }

    /// Sends a request with a body that is supplied piece by piece, and waits for the head of its answer.
    pub(super) fn send(
        self: &Arc<Self>,
        client: &Client,
        head: Head<'_>,
        body: Option<&mut dyn Supply>,
        patience: Patience,
    ) -> Result<Answer, WireError> {
        let request = client.request(head.method, head.url.clone()).headers(head.headers);
        let (pipe, request) = match &body {
            None => (None, request),
            Some(supply) => {
                let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
                let left = supply.left();
                let piped = Piped { receiver, left };
                (Some(sender), request.body(reqwest::Body::wrap(piped)))
            }
        };
        let request = request.build().map_err(WireError::Broken)?;
        let uploads = matches!(*request.method(), Method::PUT | Method::PATCH);
        let answer = if uploads { patience.answer } else { patience.idle };
        let patience = Patience { answer, ..patience };
        let exchange = exchange(client.execute(request), pipe.clone().zip(body), patience);
        let response = self.handle.block_on(exchange)?;
        Ok(Answer {
            response,
            patience,
            rest: Bytes::new(),
            _pipe: pipe,
            wire: self.clone(),
        })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // The last holder may be a task of the runtime itself, which cannot wait for its own thread.
        let thread = self.thread.take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

/// What waiting for room in the pipe came to.
enum Turn<'a> {
    Room(mpsc::Permit<'a, Result<Bytes, Abort>>),
    Answered(Result<reqwest::Response, WireError>),
    /// The connection takes no more; the answer says why.
    Closed,
}

type Pipe = mpsc::Sender<Result<Bytes, Abort>>;

async fn exchange(
    execute: impl Future<Output = reqwest::Result<reqwest::Response>>,
    body: Option<(Pipe, &mut dyn Supply)>,
    patience: Patience,
) -> Result<reqwest::Response, WireError> {
    let mut response = pin!(async { execute.await.map_err(failed) });
    if let Some((pipe, supply)) = body {
        loop {
            let turn = turn(response.as_mut(), &pipe);
            let turn = tokio::time::timeout(patience.idle, turn).await;
            match turn.map_err(|_| WireError::Stalled(patience.idle))? {
                Turn::Answered(result) => return result,
                Turn::Closed => break,
                Turn::Room(room) => match supply.next() {
                    Ok(Some(bytes)) => room.send(Ok(bytes)),
                    Ok(None) => break,
                    Err(error) => {
                        room.send(Err(Abort));
                        return Err(WireError::Source(error));
                    }
                },
            }
        }
    }
    let answer = tokio::time::timeout(patience.answer, response).await;
    answer.map_err(|_| WireError::Stalled(patience.answer))?
}

/// Waits until the pipe has room or the answer is there, whichever is first.
async fn turn<'a>(
    mut response: Pin<&mut impl Future<Output = Result<reqwest::Response, WireError>>>,
    pipe: &'a Pipe,
) -> Turn<'a> {
    let mut room = pin!(pipe.reserve());
    std::future::poll_fn(|context| {
        if let Poll::Ready(result) = response.as_mut().poll(context) {
            return Poll::Ready(Turn::Answered(result));
        }
        room.as_mut().poll(context).map(|room| match room {
            Ok(room) => Turn::Room(room),
            Err(_) => Turn::Closed,
        })
    })
    .await
}

fn failed(error: reqwest::Error) -> WireError {
    let error = error.without_url();
    if error.is_connect() {
        WireError::Connect(error)
    } else {
        WireError::Broken(error)
    }
}

/// A body whose pieces come through a pipe.
struct Piped {
    receiver: mpsc::Receiver<Result<Bytes, Abort>>,
    left: u64,
}

/// The body ends before its length: the connection is closed, so that the registry does not take it for whole.
#[derive(Debug)]
struct Abort;

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body was given up")
    }
}

impl std::error::Error for Abort {}

impl Body for Piped {
    type Data = Bytes;
    type Error = Abort;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Abort>>> {
        self.receiver.poll_recv(context).map(|piece| match piece {
            Some(Ok(bytes)) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
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

/// The head of an answer, with its body still to be read.
pub(super) struct Answer {
    response: reqwest::Response,
    patience: Patience,
    rest: Bytes,
    /// An early answer's request is not ended while the answer is read: that would close the connection.
    _pipe: Option<Pipe>,
    wire: Arc<Wire>,
}

impl Answer {
    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Its headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
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
        let idle = self.patience.idle;
        let response = &mut self.response;
        let piece = self
            .wire
            .handle
            .block_on(async { tokio::time::timeout(idle, response.chunk()).await });
        match piece {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(io::Error::other(error.without_url())),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no byte came for {} s", idle.as_secs_f32()),
            )),
        }
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
pub(super) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
