//! The *listener* takes connections, as many as are allowed, and gives each its answers.
//!
//! Invariant: one thread moves the bytes of all clients, and waits for none; what waits for a disk or another host does so in a
//! bounded number of threads. At the end every connection is closed, at the latest after a grace.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::Desk;
use super::body::AnswerBody;
use super::patient::Patient;
use super::shelf::{HELD, Shelf};
use super::workshop::Workshop;
use super::{Answered, ServeOptions};

/// How soon it is seen that the registry is to end.
const GLANCE: Duration = Duration::from_millis(100);

/// How long answers under way may take after that.
const GRACE: Duration = Duration::from_secs(1);

/// How many threads wait for disks and other hosts.
const READERS: usize = 64;

/// How long no connection is taken after one could not be: the process is out of files, and may have some again.
const PAUSE: Duration = Duration::from_millis(200);

/// How often it is looked for images that nobody asks for.
const ROUND: Duration = Duration::from_secs(60);

/// Bytes of a request's head, and of an answer that waits to be written.
const BUFFER: usize = 64 << 10;

/// Takes connections until the options say that the registry is to end.
pub(super) fn run(listener: TcpListener, workshop: Workshop, options: &ServeOptions) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(READERS)
        .build()?;
    let desk = Arc::new(Desk {
        workshop,
        shelf: Arc::new(Shelf::default()),
        token: options.token.clone(),
        hosts: options.hosts.clone(),
    });
    #[expect(
        clippy::disallowed_methods,
        reason = "this thread becomes the runtime's, and nobody else waits in it"
    )]
    let ended = runtime.block_on(take_all(listener, desk, options));
    // A reader that waits for another host ends by itself, and holds up nobody.
    runtime.shutdown_background();
    ended
}

async fn take_all(listener: TcpListener, desk: Arc<Desk>, options: &ServeOptions) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(options.connections));
    let (end, ending) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut round = Instant::now();
    while !(options.is_ending)() {
        if round.elapsed() > ROUND {
            round = Instant::now();
            if desk.shelf.forget_rested(HELD) {
                desk.workshop.rest();
            }
        }
        while connections.try_join_next().is_some() {}
        let Ok(Ok(place)) = timeout(GLANCE, room.clone().acquire_owned()).await else {
            continue;
        };
        let (stream, client) = match timeout(GLANCE, listener.accept()).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(_)) => {
                sleep(PAUSE).await;
                continue;
            }
            Err(_) => continue,
        };
        let connection = connection(stream, client, desk.clone(), options, ending.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop((end, listener));
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
    Ok(())
}

/// Answers the requests of one connection. What goes wrong with it is the client's affair: it sees an answer that ends early.
fn connection(
    stream: TcpStream,
    client: SocketAddr,
    desk: Arc<Desk>,
    options: &ServeOptions,
    mut ending: watch::Receiver<()>,
) -> impl Future<Output = ()> + use<> {
    let _ = stream.set_nodelay(true);
    let (stream, secure, patience) = (
        Patient::new(stream, options.write_patience),
        options.secure.clone(),
        options.head_patience,
    );
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_patience)
        .max_buf_size(BUFFER);
    async move {
        match secure {
            None => converse(stream, client, desk, &builder, &mut ending).await,
            Some(secure) => {
                if let Some(stream) = secure.greet(stream, patience).await {
                    converse(stream, client, desk, &builder, &mut ending).await;
                }
            }
        }
    }
}

/// Answers what comes on a stream, until it or the registry ends.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client: SocketAddr,
    desk: Arc<Desk>,
    builder: &http1::Builder,
    ending: &mut watch::Receiver<()>,
) {
    let service = service_fn(move |request| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(answer(&desk, client, &request).await) }
    });
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut ended = pin!(ending.changed());
    let mut is_ending = false;
    poll_fn(|context| {
        if !is_ending && ended.as_mut().poll(context).is_ready() {
            is_ending = true;
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(context).map(drop)
    })
    .await;
}

async fn answer(desk: &Desk, client: SocketAddr, request: &Request<Incoming>) -> Response<AnswerBody> {
    let (method, uri) = (request.method(), request.uri());
    let answer = desk.answer(method, uri, request.headers()).await;
    desk.workshop.tell(Answered {
        client: client.to_string(),
        method: method.to_string(),
        path: uri.path().to_owned(),
        status: answer.status().as_u16(),
    });
    answer
}
