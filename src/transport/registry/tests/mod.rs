//! What a push and a pull survive, against a registry that fails on purpose, and what real peers say of the outcome.

mod companions;
mod faulty;
mod flow;
mod logins;
mod oracle;
mod processes;
mod pulling;
mod pushing;
mod refusing;
mod uploading;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use super::client::RegistryTuning;
use super::{Login, PushOptions, PushSummary, Pusher, RegistryConfig};
use crate::event::{Event, Reporter};
use crate::http::client;
use crate::http::pace::Persistence;
use crate::http::wire::{Patience, lock};
use crate::image::Image;
use crate::oci::{Compression, Reference};
use crate::transport::TransportError;
use crate::transport::testing::{Node, image, tar};

/// A client that does not wait long.
fn hasty() -> RegistryTuning {
    RegistryTuning {
        http: client::Tuning {
            patience: Patience {
                idle: Duration::from_millis(600),
                answer: Duration::from_millis(1500),
            },
            persistence: Persistence {
                pause: Duration::from_millis(5),
                pause_max: Duration::from_millis(40),
                wait_max: Duration::from_secs(3),
                attempts: 6,
                attempts_at_first: 3,
            },
        },
        chunk: 1 << 20,
        chunks_over: 64 << 20,
        remembered_from: 1,
        login: None,
    }
}

/// Bytes that do not compress, another sequence for each seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// An image of layers of these sizes, each other bytes for each seed.
fn sized(layers: &[(u64, usize)]) -> Image {
    let tars: Vec<(Vec<u8>, Compression)> = layers
        .iter()
        .enumerate()
        .map(|(at, (seed, len))| {
            let node = Node::file(&format!("file{at}"), noise(*seed, *len));
            (tar(&[node]), Compression::None)
        })
        .collect();
    image(&tars)
}

/// Keeps what it is told.
#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl Reporter for Told {
    fn report(&self, event: Event) {
        lock(&self.0).push(event);
    }
}

impl Told {
    fn warnings(&self) -> BTreeSet<String> {
        let told = lock(&self.0);
        told.iter()
            .filter_map(|event| match event {
                Event::Warning { text } => Some(text.clone()),
                _ => None,
            })
            .collect()
    }
}

/// Pushes with little patience.
fn push(config: &RegistryConfig, target: &str, image: &Image) -> Result<PushSummary, TransportError> {
    push_with(config, target, image, &PushOptions::default())
}

/// Pushes to `app:1` of a registry of the test.
fn to(registry: &faulty::Faulty, image: &Image) -> Result<PushSummary, TransportError> {
    push(&RegistryConfig::default(), &format!("{}/app:1", registry.host), image)
}

/// Pushes as somebody.
fn as_user(registry: &faulty::Faulty, login: Login, image: &Image) -> Result<PushSummary, TransportError> {
    let target: Reference = format!("{}/app:1", registry.host).parse().unwrap();
    let tuning = RegistryTuning {
        login: Some(login),
        ..hasty()
    };
    let options = PushOptions::default();
    Pusher::tuned(&RegistryConfig::default(), &options, tuning, &crate::event::Silent)?.push(
        &target,
        &[image],
        &[],
        &[],
    )
}

/// The whole text of an error and its causes.
fn text(error: &TransportError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn push_with(
    config: &RegistryConfig,
    target: &str,
    image: &Image,
    options: &PushOptions,
) -> Result<PushSummary, TransportError> {
    let target: Reference = target.parse().unwrap();
    Pusher::tuned(config, options, hasty(), &crate::event::Silent)?.push(&target, &[image], &[], &[])
}

/// An image of two small layers.
fn small() -> Image {
    sized(&[(1, 1000), (2, 2000)])
}
