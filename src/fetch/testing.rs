//! What the tests of fetching share: a web server on the loopback interface.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server answers.
pub(crate) struct Reply(Vec<u8>);

impl Reply {
    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        Self::cut(body, body.len())
    }

    /// An answer that announces more bytes than it has.
    pub(crate) fn cut(body: impl AsRef<[u8]>, announced: usize) -> Self {
        let mut reply =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n").into_bytes();
        reply.extend_from_slice(body.as_ref());
        Self(reply)
    }

    /// The bytes of `body` from `start` on, all of which are announced and `sent` of which are sent.
    pub(crate) fn partial(body: &[u8], start: usize, sent: usize) -> Self {
        let (rest, total) = (&body[start..], body.len());
        let mut reply = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{total}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            total - 1,
            rest.len()
        )
        .into_bytes();
        reply.extend_from_slice(&rest[..sent.min(rest.len())]);
        Self(reply)
    }

    pub(crate) fn status(status: u16) -> Self {
        Self(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes())
    }

    /// An answer that asks to be asked again after some seconds.
    pub(crate) fn throttled(status: u16, seconds: u64) -> Self {
        let reply =
            format!("HTTP/1.1 {status} X\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        Self(reply.into_bytes())
    }

    pub(crate) fn redirect(to: &str) -> Self {
        let reply = format!("HTTP/1.1 302 X\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        Self(reply.into_bytes())
    }
}

/// A web server that lives as long as the test's process.
pub(crate) struct Server {
    port: u16,
    requests: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&str) -> Reply + Send + 'static) -> Self {
        Self::start_counting(move |path, _| answer(path))
    }

    /// `answer` gets the path and how often it was asked for before.
    pub(crate) fn start_counting(answer: impl Fn(&str, usize) -> Reply + Send + 'static) -> Self {
        Self::start_ranged(move |path, count, _| answer(path, count))
    }

    /// `answer` gets the position at which the wanted range begins, too: 0 where no range is wanted.
    pub(crate) fn start_ranged(answer: impl Fn(&str, usize, usize) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(BTreeMap::new()));
        let counts = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                if reader.read_line(&mut line).is_err() {
                    continue;
                }
                let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                let mut start = 0;
                while line.trim() != "" {
                    line.clear();
                    if reader.read_line(&mut line).is_err() {
                        break;
                    }
                    if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                        start = range.trim().trim_end_matches('-').parse().unwrap();
                    }
                }
                let count = {
                    let mut counts = counts.lock().unwrap();
                    let count = counts.entry(path.clone()).or_insert(0);
                    *count += 1;
                    *count - 1
                };
                // A client that went away is no failure of the test.
                let _ = stream.write_all(&answer(&path, count, start).0);
            }
        });
        Self { port, requests }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn requests(&self, path: &str) -> usize {
        self.requests.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}
