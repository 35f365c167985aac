//! The connections of a farm, with and without TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream::byte_stream_server::ByteStreamServer;
use bazel_remote_apis::google::longrunning::operations_server::OperationsServer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::State;
use super::services::Services;

/// Largest message that is read.
const MESSAGE_MAX: usize = 16 << 20;

/// A server that ends when this is dropped.
pub struct Up {
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.thread.take().unwrap().join();
    }
}

/// Serves at a port, 0 for any that is free; gives the port.
#[expect(clippy::disallowed_methods, reason = "this thread is the farm's own")]
pub fn serve(state: &Arc<State>, port: u16) -> (u16, Up) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (end, ended) = oneshot::channel::<()>();
    let state = state.clone();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let serving = run(listener, state);
            tokio::select! {
                _ = ended => {}
                () = serving => {}
            }
        });
        // What it still does is dropped, and with it every connection.
        runtime.shutdown_background();
    });
    let up = Up {
        end: Some(end),
        thread: Some(thread),
    };
    (port, up)
}

async fn run(listener: TcpListener, state: Arc<State>) {
    let (sender, incoming) = mpsc::channel(1);
    let tls = state.rules.tls.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let (sender, tls) = (sender.clone(), tls.clone());
            tokio::spawn(async move {
                let stream: Box<dyn Stream> = match tls {
                    None => Box::new(stream),
                    Some(config) => match tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                };
                let _ = sender.send(Ok::<_, io::Error>(Connection(stream))).await;
            });
        }
    });
    let services = Services(state);
    let storage = api::content_addressable_storage_server::ContentAddressableStorageServer::new(services.clone());
    let _ = Server::builder()
        .add_service(api::capabilities_server::CapabilitiesServer::new(services.clone()))
        .add_service(storage.max_decoding_message_size(MESSAGE_MAX))
        .add_service(api::action_cache_server::ActionCacheServer::new(services.clone()))
        .add_service(api::execution_server::ExecutionServer::new(services.clone()))
        .add_service(OperationsServer::new(services.clone()))
        .add_service(ByteStreamServer::new(services))
        .serve_with_incoming(ReceiverStream::new(incoming))
        .await;
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

struct Connection(Box<dyn Stream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
