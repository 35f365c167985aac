//! A read-only *registry* of images that are made when somebody pulls them (OCI distribution-spec v1.1: pull and content
//! discovery).
//!
//! Invariant: nothing is taken in; what is given is what its digest says; no client can make another wait, or the process grow,
//! beyond fixed bounds.
//!
//! From below: `route` (what a request asks for), `hosts` (by what name) and `fault` (why it is refused), pure → `login` (who may
//! ask), `secure` (encryption) → `shelf` (images
//! that were made) and `workshop` (images being made, once for all who ask) → `body` (bytes on their way) → `answer` (what is
//! said to a request) → `listen` (connections, and how long they may rest).

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::image::Listed;
use crate::oci::Artifact;

mod answer;
mod body;
mod fault;
mod headers;
mod hosts;
mod listen;
mod login;
mod patient;
mod route;
mod secure;
mod shelf;
#[cfg(test)]
mod tests;
mod workshop;

pub use hosts::Hosts;
pub use login::{Token, TokenError};
pub use secure::Secure;

/// What a registry serves, and who is told of it. Calls come from several threads and may take as long as a build does.
pub trait Stock: Sync {
    /// The names that images have now, without making any.
    fn names(&self) -> Result<Vec<ServedName>, Failure>;

    /// Makes an image, or finds it, as it is now: with those for its other platforms in an index, where it is for several. Of a
    /// store path it is one with its closure.
    fn image(&self, image: &str) -> Result<Listed, Failure>;

    /// What is to be listed as referring to an image, or to that of one platform; nothing where none has that digest now.
    fn documents(&self, image: &str, digest: &Digest) -> Result<Vec<Artifact>, Failure>;

    /// A request was answered.
    fn answered(&self, answered: &Answered);

    /// No image is held any more: what is kept for images may be tidied up.
    fn rest(&self);
}

/// A name under which an image is pulled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServedName {
    /// Its repository.
    pub repository: String,
    /// Its tag.
    pub tag: String,
    /// What the image is called where it is made, or a store path.
    pub image: String,
}

/// Why an image is not to be had, as clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its first line says what failed.
    pub text: String,
}

impl Failure {
    fn ending() -> Self {
        Self {
            text: "the registry is about to end".to_owned(),
        }
    }
}

/// A request, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Who asked: address and port.
    pub client: String,
    /// How: `GET`.
    pub method: String,
    /// For what: the path.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
}

/// How a registry is run.
#[derive(Clone)]
pub struct ServeOptions {
    /// What clients must show.
    pub token: Option<Token>,
    /// By what names they may call the registry.
    pub hosts: Hosts,
    /// How bytes are encrypted, where they are.
    pub secure: Option<Secure>,
    /// Most connections at a time; others wait to be taken.
    pub connections: usize,
    /// How long the head of a request may take, and how long a connection may rest between two.
    pub head_patience: Duration,
    /// How long a client may take nothing of an answer.
    pub write_patience: Duration,
    /// Whether the registry is to end, which is asked every tenth of a second.
    pub is_ending: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl ServeOptions {
    /// The usual bounds, for a registry that ends when `is_ending` says so.
    pub fn new(is_ending: Arc<dyn Fn() -> bool + Send + Sync>) -> Self {
        Self {
            token: None,
            hosts: Hosts::default(),
            secure: None,
            connections: 256,
            head_patience: Duration::from_secs(30),
            write_patience: Duration::from_secs(60),
            is_ending,
        }
    }
}

/// Answers requests at `listener` until the options say that it is to end.
pub fn serve(listener: TcpListener, stock: &dyn Stock, options: &ServeOptions) -> std::io::Result<()> {
    let (workshop, bench) = workshop::open();
    std::thread::scope(|scope| {
        bench.man(scope, stock);
        listen::run(listener, workshop, options)
    })
}
