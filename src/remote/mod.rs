//! *Remote builders*: what a sandbox would run here, run at a server of the Remote Execution API, version 2
//! (github.com/bazelbuild/remote-apis), and what it made brought here.
//!
//! Invariant: a builder can make a build fail, or last; what it gives is written only where its step's output goes, is
//! the bytes that it announced, and is judged here like the output of a step that ran here. Nothing here knows of
//! derivations: a step is a [`Sandbox`], and its output a directory, file or link.
//!
//! From below: `blob` (a name of bytes), `tree` (directories by their hashes), `disk` (trees of this machine), `line` (the
//! connections) → `transfer` (blobs sent and fetched), `execution` (an action watched to its end), `greeting` (what a worker
//! is like) → `helper` (this program, which travels), `worker` (what it does there) → `root` (a sandbox as an action),
//! `outcome` (what came of it).

mod address;
mod blob;
mod disk;
mod error;
mod execution;
mod greeting;
mod helper;
mod line;
mod outcome;
mod root;
mod transfer;
mod tree;
mod worker;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use tonic::Code;
use tonic::metadata::AsciiMetadataValue;

pub use address::{BuilderAddress, BuilderAddressError};
pub use error::RemoteError;
pub use greeting::Network;
pub use helper::WORKER;
pub use worker::work;

use crate::fsio::{IoContext, read_limited, remove_tree};
use crate::http::HttpConfig;
use crate::nar;
use crate::parallel::{Seat, Seats};
use crate::sandbox::{Outcome, Sandbox};
use crate::walls::Walls;
use disk::Trees;
use execution::{Ended, Execution, Watcher};
use greeting::{Greeted, Greeting};
use helper::Helpers;
use line::{Line, MESSAGE_MAX};
use outcome::Wanted;
use root::{Outputs, Work};
use transfer::Transfers;

/// Steps under way at a builder unless its configuration says otherwise.
pub const DEFAULT_JOBS: usize = 200;

/// Steps that are being prepared, sent or fetched at once: this bounds memory.
const SEATS: usize = 8;

/// Largest file of a token, in bytes.
const TOKEN_MAX: u64 = 64 << 10;

/// Largest list of what is in the store at the end, in bytes.
const LISTED_MAX: u64 = 1 << 20;

/// How often a step is sent and run again because the builder lost something.
const ROUNDS: usize = 4;

/// How a builder is reached and asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuilderConfig {
    /// Where it is.
    pub address: BuilderAddress,
    /// Properties by which it chooses its workers.
    pub properties: BTreeMap<String, String>,
    /// File with the token that it wants.
    pub token_file: Option<PathBuf>,
    /// Most steps under way there.
    pub jobs: usize,
    /// What makes what a worker is sent the root of what it runs; `None`: it is tried.
    pub root: Option<RootMaker>,
}

/// What makes the tree that a worker is sent the root of what it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootMaker {
    /// The worker itself.
    Worker,
    /// The helper, which travels there, as the worker only changes its directory.
    Helper,
}

impl BuilderConfig {
    /// A builder of which nothing is known but where it is.
    pub fn at(address: BuilderAddress) -> Self {
        Self {
            address,
            properties: BTreeMap::new(),
            token_file: None,
            jobs: DEFAULT_JOBS,
            root: None,
        }
    }
}

/// A builder.
pub struct Farm {
    config: BuilderConfig,
    http: HttpConfig,
    trees: Trees,
    seats: Seats,
    helpers: Helpers,
    /// Whether the helper makes the root: as was said, or as it turned out.
    needs_helper: AtomicBool,
    contact: Mutex<Option<Result<Arc<Contact>, RemoteError>>>,
}

impl std::fmt::Debug for Farm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Farm")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A builder that answered.
struct Contact {
    line: Line,
    transfers: Transfers,
    platform: api::Platform,
    /// Whether it says that it takes no links with absolute paths. Some say so and take them.
    forbids_absolute_links: bool,
}

/// Where what a step makes goes.
#[derive(Debug, Clone, Copy)]
pub struct RemotePlace<'a> {
    /// The directory that is `/layerize/store` inside: it gets the output, and an empty file for each other name that is in
    /// it at the end.
    pub store: &'a Path,
    /// Name of the output there.
    pub name: &'a str,
    /// The directory that is `/build` inside: it gets what tells which command failed.
    pub build: &'a Path,
}

/// What came of a step at a builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it had a network; `None` where it did not end by itself.
    pub network: Option<Network>,
    /// The walls that the helper made around it, where it made the root.
    pub walls: Option<Walls>,
}

impl Ran {
    /// Of a step that did not end by itself.
    fn stopped(outcome: Outcome) -> Self {
        Self {
            outcome,
            network: None,
            walls: None,
        }
    }
}

impl Farm {
    /// A builder, for steps whose inputs are in the store below `store_dir`; it is not called yet.
    pub fn new(config: BuilderConfig, http: HttpConfig, store_dir: &Path) -> Self {
        Self {
            needs_helper: AtomicBool::new(config.root == Some(RootMaker::Helper)),
            helpers: Helpers::default(),
            config,
            http,
            trees: Trees::new(store_dir),
            seats: Seats::new(SEATS),
            contact: Mutex::new(None),
        }
    }

    /// Its address.
    pub fn name(&self) -> String {
        self.config.address.to_string()
    }

    /// Why what a step made is not taken where workers must have no network.
    pub fn has_network(&self, network: Network) -> RemoteError {
        RemoteError::Walls {
            builder: self.name(),
            network,
        }
    }

    /// Why what a step made is not taken where its walls must be stronger.
    pub fn is_weak(&self, walls: Walls, least: Walls) -> RemoteError {
        RemoteError::Weak {
            builder: self.name(),
            walls,
            least,
        }
    }

    /// Whether it is known that steps run there behind walls that the helper makes.
    pub fn makes_walls(&self) -> bool {
        self.config.root == Some(RootMaker::Helper)
    }

    /// Most steps under way there.
    pub fn jobs(&self) -> usize {
        self.config.jobs
    }

    /// A seat for work on a step here, of which there are few.
    pub fn seat(&self) -> Seat<'_> {
        self.seats.sit()
    }

    /// Runs what `sandbox` would run here, and writes what it made to `place`; what it prints goes to `output`.
    pub fn run(
        &self,
        sandbox: &Sandbox,
        place: RemotePlace<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Ran, RemoteError> {
        let has_helper = self.needs_helper.load(Ordering::Relaxed);
        let ran = self.contact().and_then(|contact| {
            let mut step = RemoteStep {
                farm: self,
                contact: &contact,
                place,
                outputs: Outputs::new(place.name, has_helper),
                has_helper,
            };
            match step.run(sandbox, output) {
                // Its script has not run.
                Err(RemoteError::NoRoot { .. }) if step.is_tried() => {
                    self.needs_helper.store(true, Ordering::Relaxed);
                    step.has_helper = true;
                    step.outputs = Outputs::new(place.name, true);
                    step.run(sandbox, output)
                }
                ran => ran,
            }
        });
        match ran {
            Err(RemoteError::Cancelled) => Ok(Ran::stopped(Outcome::Cancelled)),
            Err(error) if error.is_for_all() => {
                let again = error.again();
                *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = Some(Err(again));
                Err(error)
            }
            ran => ran,
        }
    }

    fn contact(&self) -> Result<Arc<Contact>, RemoteError> {
        let mut contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        match &*contact {
            Some(Ok(contact)) => Ok(contact.clone()),
            Some(Err(error)) => Err(error.again()),
            None => {
                let made = Arc::new(self.call()?);
                *contact = Some(Ok(made.clone()));
                Ok(made)
            }
        }
    }

    /// Calls the builder for the first time, and sees whether it can do what is needed.
    fn call(&self) -> Result<Contact, RemoteError> {
        let token = self.config.token_file.as_ref().map(|file| token(file)).transpose()?;
        let line = Line::new(&self.config.address, token, &self.http, self.config.jobs)?;
        let request = api::GetCapabilitiesRequest {
            instance_name: line.instance.clone(),
        };
        let capabilities = line.call("asking what it can do", || {
            let client = api::capabilities_client::CapabilitiesClient::new(line.channel());
            let mut client = client.max_decoding_message_size(MESSAGE_MAX);
            let request = line.request(request.clone());
            async move { client.get_capabilities(request).await }
        })?;
        line.answered();
        check(&capabilities, &line.builder)?;
        let cache = capabilities.cache_capabilities.unwrap_or_default();
        let disallowed = i32::from(api::symlink_absolute_path_strategy::Value::Disallowed);
        let properties = self.config.properties.iter();
        let properties = properties.map(|(name, value)| api::platform::Property {
            name: name.clone(),
            value: value.clone(),
        });
        Ok(Contact {
            line,
            transfers: Transfers::new(u64::try_from(cache.max_batch_total_size_bytes).unwrap_or(0)),
            platform: api::Platform {
                properties: properties.collect(),
            },
            forbids_absolute_links: cache.symlink_absolute_path_strategy == disallowed,
        })
    }
}

fn token(file: &Path) -> Result<AsciiMetadataValue, RemoteError> {
    let bytes = read_limited(file, TOKEN_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let value = AsciiMetadataValue::try_from(format!("Bearer {}", text.trim()));
    let mut value = value
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "it holds more than one line of ASCII"))
        .context("use the token in", file)?;
    value.set_sensitive(true);
    Ok(value)
}

/// That a builder can run what it is sent.
fn check(capabilities: &api::ServerCapabilities, builder: &str) -> Result<(), RemoteError> {
    let unfit = |reason: &str, help| {
        Err(RemoteError::Unfit {
            builder: builder.to_owned(),
            reason: reason.to_owned(),
            help,
        })
    };
    let sha256 = i32::from(api::digest_function::Value::Sha256);
    let Some(execution) = capabilities
        .execution_capabilities
        .as_ref()
        .filter(|execution| execution.exec_enabled)
    else {
        return unfit(
            "it keeps files and runs nothing",
            "name a builder whose server offers the Execution service",
        );
    };
    // A builder that says nothing of several has the one.
    let runs = execution.digest_function == sha256 || execution.digest_functions.contains(&sha256);
    let cache = capabilities.cache_capabilities.clone().unwrap_or_default();
    if !runs || !cache.digest_functions.contains(&sha256) {
        return unfit(
            "it does not name files by SHA-256",
            "configure its digest function as SHA256",
        );
    }
    let newest = capabilities.high_api_version.as_ref();
    let oldest = capabilities.low_api_version.as_ref();
    if newest.is_some_and(|newest| (newest.major, newest.minor) < (2, 1))
        || oldest.is_some_and(|oldest| oldest.major > 2)
    {
        return unfit(
            "it does not speak version 2.1 of the Remote Execution API",
            "update its server",
        );
    }
    Ok(())
}

/// A step on its way.
struct RemoteStep<'a> {
    farm: &'a Farm,
    contact: &'a Contact,
    place: RemotePlace<'a>,
    outputs: Outputs,
    /// Whether the helper makes its root.
    has_helper: bool,
}

impl RemoteStep<'_> {
    fn run(&self, sandbox: &Sandbox, output: &mut dyn FnMut(&[u8])) -> Result<Ran, RemoteError> {
        let Contact {
            line,
            transfers,
            platform,
            forbids_absolute_links,
        } = self.contact;
        let farm = self.farm;
        let helper = match self.has_helper {
            true => Some(farm.helpers.of(sandbox.helper.as_deref())?),
            false => None,
        };
        let mut skip_cache = false;
        let mut lost = None;
        for _ in 0..ROUNDS {
            let seat = farm.seat();
            let work = root::compose(&farm.trees, sandbox, &self.outputs, platform, helper.as_deref())?;
            if !skip_cache && let Some(result) = self.known(&work)? {
                match self.finish(&result, output, None) {
                    // What is remembered is not there any more.
                    Err(RemoteError::Gone { .. }) => skip_cache = true,
                    finished => return finished,
                }
            }
            transfers.send(line, &work.sent, &work.messages)?;
            drop(seat);
            let mut greeted = self.greeted(output);
            let mut watcher = Watcher {
                output: &mut |bytes| greeted.take(bytes),
                has_streamed: false,
            };
            let ended = Execution::run(line, work.action, skip_cache, &mut watcher).map_err(|error| {
                match forbids_absolute_links.then(|| work.root.absolute_link()).flatten() {
                    Some(link) => error.because_of_link(link),
                    None => error,
                }
            })?;
            let has_streamed = watcher.has_streamed;
            let _seat = farm.seat();
            let finished = match ended {
                Ended::TimedOut => return Ok(Ran::stopped(Outcome::TimedOut)),
                Ended::Missing => {
                    transfers.forget();
                    let (builder, what) = (line.builder.clone(), "files that it was sent".to_owned());
                    lost = Some(RemoteError::Gone { builder, what });
                    continue;
                }
                Ended::Result(result) => match greeted.greeting().filter(|_| has_streamed) {
                    Some(greeting) => self.finish(&result, &mut |_| {}, Some(greeting)),
                    None => self.finish(&result, output, None),
                },
            };
            match finished {
                Err(error @ RemoteError::Gone { .. }) => lost = Some(error),
                finished => return finished,
            }
            skip_cache = true;
        }
        Err(lost.unwrap_or_else(|| line.wrong("nothing")))
    }

    fn greeted<'o>(&self, output: &'o mut dyn FnMut(&[u8])) -> Greeted<'o> {
        let greeted = Greeted::new(output);
        match self.is_tried() {
            true => greeted.that_may_lack(),
            false => greeted,
        }
    }

    /// Whether it is tried if the worker makes the root, and else sent again with the helper.
    fn is_tried(&self) -> bool {
        !self.has_helper && self.farm.config.root.is_none()
    }

    /// What the builder remembers of an action that it ran before.
    fn known(&self, work: &Work) -> Result<Option<api::ActionResult>, RemoteError> {
        let line = &self.contact.line;
        let request = api::GetActionResultRequest {
            instance_name: line.instance.clone(),
            action_digest: Some(work.action.to_api()),
            digest_function: api::digest_function::Value::Sha256.into(),
            ..api::GetActionResultRequest::default()
        };
        let client = api::action_cache_client::ActionCacheClient::new(line.channel());
        let (mut client, request) = (client.max_decoding_message_size(MESSAGE_MAX), line.request(request));
        match line.wait(async move { client.get_action_result(request).await })? {
            Ok(response) => Ok(Some(response.into_inner()).filter(|result| result.exit_code == 0)),
            // It is asked to run it then, and says what is wrong where something is.
            Err(status) if status.code() != Code::Unauthenticated => Ok(None),
            Err(status) => Err(line.error("asking what it has built", &status)),
        }
    }

    /// Takes what came of an action; `told` is what its log said, where it was read while it came.
    fn finish(
        &self,
        result: &api::ActionResult,
        output: &mut dyn FnMut(&[u8]),
        told: Option<Greeting>,
    ) -> Result<Ran, RemoteError> {
        let Contact { line, transfers, .. } = self.contact;
        let greeting = match told {
            Some(greeting) => greeting,
            None => {
                let mut greeted = self.greeted(output);
                outcome::take_log(line, result, &mut |bytes| greeted.take(bytes))?;
                greeted.expect(&line.builder)?
            }
        };
        let Outputs {
            out, listed, failed, ..
        } = &self.outputs;
        let places = [
            (out, self.place.store.join(self.place.name)),
            (listed, self.place.build.join(".layerize-store")),
            (failed, self.place.build.join(".layerize-failed")),
        ];
        let wanted: Vec<Wanted<'_>> = places
            .iter()
            .map(|(path, dest)| Wanted {
                path,
                dest,
                inside: self.outputs.inside(path),
                is_read: *path != out,
            })
            .collect();
        for (_, dest) in &places {
            remove_tree(dest)?;
        }
        let mut result = result.clone();
        if result.exit_code != 0 {
            // What a script left that failed is nobody's.
            result.output_files.retain(|file| file.path == *failed);
            result.output_symlinks.clear();
            result.output_directories.clear();
        }
        outcome::take(line, transfers, &result, &wanted)?;
        self.note_others(&places[1].1)?;
        Ok(Ran {
            outcome: Outcome::Exited(result.exit_code),
            network: Some(greeting.network),
            // Where the worker made the root, nothing of ours made walls.
            walls: greeting.walls.filter(|_| self.has_helper),
        })
    }

    /// Makes an empty file for each name that was in the store at the end and is not there.
    fn note_others(&self, listed: &Path) -> Result<(), RemoteError> {
        if listed.symlink_metadata().is_err() {
            return Ok(());
        }
        let line = &self.contact.line;
        let size = listed.symlink_metadata().context("read", listed)?.len();
        if size > LISTED_MAX {
            return Err(line.wrong(format!("a list of {size} bytes of what is in the store")));
        }
        let text = read_limited(listed, LISTED_MAX)?;
        for name in String::from_utf8_lossy(&text).lines() {
            let is_name = !name.is_empty() && name.len() <= nar::MAX_NAME && !name.contains(['/', '\0']);
            if !is_name || matches!(name, "." | "..") {
                return Err(line.wrong(format!(
                    "`{}` is no name of what is in the store",
                    error::shortened(name)
                )));
            }
            let place = self.place.store.join(name);
            if place.symlink_metadata().is_err() && name != self.place.name {
                fs::write(&place, "").context("write", &place)?;
            }
        }
        Ok(())
    }
}
