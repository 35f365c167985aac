//! A registry on loopback over images that are at hand, and a client that says and sees every byte.

mod clients;
mod conformance;
mod content;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::image::{Image, ImageIndex};
use crate::oci::{Compression, MediaType, Subject};
use crate::transport::testing::{Node, image, tar};

/// Images that are made at once, or when the test lets them be.
pub(super) struct Shop {
    pub names: Mutex<Vec<ServedName>>,
    pub images: Mutex<BTreeMap<String, Result<Listed, Failure>>>,
    /// How many makings were begun.
    pub begun: AtomicUsize,
    /// How many makings of one image were under way at most.
    pub most: AtomicUsize,
    making: AtomicUsize,
    closed: Mutex<bool>,
    opened: Condvar,
    pub answered: Mutex<Vec<Answered>>,
    pub rested: AtomicUsize,
}

impl Shop {
    /// `app` with tags `1.0`, `latest`, `B` and `a`, and `team/other` with the tag `latest`. [`endless`] can be put in place
    /// of one.
    pub fn new() -> Self {
        let name = |repository: &str, tag: &str| ServedName {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            image: repository.to_owned(),
        };
        let names = ["latest", "a", "1.0", "B"].map(|tag| name("app", tag));
        let names = names.into_iter().chain([name("team/other", "latest")]);
        Self {
            names: Mutex::new(names.collect()),
            images: Mutex::new(BTreeMap::from([
                ("app".to_owned(), Ok(Listed::Image(sample("app")))),
                ("team/other".to_owned(), Ok(Listed::Image(sample("other")))),
            ])),
            begun: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            making: AtomicUsize::new(0),
            closed: Mutex::new(false),
            opened: Condvar::new(),
            answered: Mutex::default(),
            rested: AtomicUsize::new(0),
        }
    }

    pub fn put(&self, name: &str, image: Result<Image, Failure>) {
        let made = image.map(Listed::Image);
        self.images.lock().unwrap().insert(name.to_owned(), made);
    }

    pub fn put_index(&self, name: &str, index: ImageIndex) {
        let made = Ok(Listed::Index(index));
        self.images.lock().unwrap().insert(name.to_owned(), made);
    }

    /// The images that a name stands for.
    pub fn images_of(&self, name: &str) -> Result<Vec<Image>, Failure> {
        Ok(match self.images.lock().unwrap()[name].clone()? {
            Listed::Image(image) => vec![image],
            Listed::Index(index) => index.images().into_iter().cloned().collect(),
        })
    }

    /// Makings begun from now on wait for [`open`](Self::open).
    pub fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.opened.notify_all();
    }

    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

impl Stock for Shop {
    fn names(&self) -> Result<Vec<ServedName>, Failure> {
        Ok(self.names.lock().unwrap().clone())
    }

    fn image(&self, name: &str) -> Result<Listed, Failure> {
        // What is made is what was there when it was begun.
        let image = self.images.lock().unwrap()[name].clone();
        self.begun.fetch_add(1, Ordering::SeqCst);
        let making = self.making.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(making, Ordering::SeqCst);
        let closed = self.closed.lock().unwrap();
        drop(self.opened.wait_while(closed, |closed| *closed).unwrap());
        self.making.fetch_sub(1, Ordering::SeqCst);
        image
    }

    fn documents(&self, name: &str, digest: &Digest) -> Result<Vec<Artifact>, Failure> {
        let images = self.images_of(name)?;
        let Some(image) = images.iter().find(|image| image.digest() == *digest) else {
            return Ok(Vec::new());
        };
        let subject = Subject {
            media_type: MediaType::MANIFEST.to_owned(),
            digest: image.digest(),
            size: image.manifest.size(),
        };
        let document = |kind: &str| {
            let annotations = BTreeMap::from([("kind".to_owned(), kind.to_owned())]);
            Artifact::new(
                subject.clone(),
                kind,
                annotations,
                format!("{kind} of {name}").into_bytes(),
                "file",
            )
        };
        Ok(vec![
            document("text/one"),
            document("text/two"),
            document("text/one+more"),
        ])
    }

    fn answered(&self, answered: &Answered) {
        self.answered.lock().unwrap().push(answered.clone());
    }

    fn rest(&self) {
        self.rested.fetch_add(1, Ordering::SeqCst);
    }
}

/// An image that `mark` makes another than others: one layer of a few bytes and one of a megabyte.
pub(super) fn sample(mark: &str) -> Image {
    let small = tar(&[Node::file("mark", mark)]);
    let large: Vec<u8> = (0..1_000_000u32).map(|number| (number % 251) as u8).collect();
    let large = tar(&[Node::file("large", large)]);
    image(&[(small, Compression::default()), (large, Compression::None)])
}

/// An image whose upper layer has more bytes than any system keeps for a connection. They are not those of its digest.
pub(super) fn endless() -> Image {
    let mut image = sample("endless");
    let size = 32 << 20;
    image.layers[1].descriptor.size = size;
    image.layers[1].content = crate::layer::Blob::File {
        path: "/dev/zero".into(),
        offset: 0,
        len: size,
    };
    image
}

/// A registry that ends when it is dropped.
pub(super) struct Running {
    pub address: SocketAddr,
    pub shop: Arc<Shop>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Running {
    pub fn start(change: impl FnOnce(&mut ServeOptions)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (shop, stop) = (Arc::new(Shop::new()), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let mut options = ServeOptions::new(Arc::new(move || stopped.load(Ordering::SeqCst)));
        change(&mut options);
        let stock = shop.clone();
        let thread = std::thread::spawn(move || serve(listener, stock.as_ref(), &options));
        Self {
            address,
            shop,
            stop,
            thread: Some(thread),
        }
    }

    pub fn plain() -> Self {
        Self::start(|_| {})
    }

    /// Asks with `GET`, and these lines of headers.
    pub fn get(&self, path: &str, headers: &[&str]) -> Reply {
        self.ask("GET", path, headers)
    }

    pub fn head(&self, path: &str, headers: &[&str]) -> Reply {
        self.ask("HEAD", path, headers)
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Reply {
        let mut stream = self.send(method, path, headers);
        let mut bytes = Vec::new();
        // A connection that is cut shows in the length of what came.
        let _ = stream.read_to_end(&mut bytes);
        Reply::parse(&bytes)
    }

    /// Sends a request and reads nothing of its answer.
    pub fn send(&self, method: &str, path: &str, headers: &[&str]) -> TcpStream {
        let mut stream = self.connect();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.address
        );
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        stream
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// What the registry came to when it was told to end.
    pub fn stop(mut self) -> std::io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        self.shop.open();
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub status: u16,
    pub reason: String,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("an answer has a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let first: Vec<&str> = lines.next().unwrap().splitn(3, ' ').collect();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        Self {
            status: first[1].parse().unwrap(),
            reason: first[2].to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(
            self.status,
            status,
            "{}\n{}",
            self.reason,
            String::from_utf8_lossy(&self.body)
        );
        self
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of its only error, which has a message.
    #[track_caller]
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/json");
        let document = self.json();
        let errors = document["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{document}");
        assert!(!errors[0]["message"].as_str().unwrap().is_empty(), "{document}");
        errors[0]["code"].as_str().unwrap().to_owned()
    }
}
