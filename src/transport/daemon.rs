//! A *daemon* is a container engine on this machine, reached through its own command: `docker` or `podman`.
//!
//! Invariant: an image counts as loaded only when the engine names it by the digest that was sent; the engine's
//! process is never killed, and what it says on failure is shown.
//!
//! Only what the engine lacks is sent. An image whose ID it has gets the names and nothing else. Docker keeps layers by
//! the chain of diffIDs from the bottom up, looks there before it opens a layer's file, and never misses one that the
//! archive leaves out: so the lowest layers that an image of the engine's has as its own lowest ones are left out. Podman
//! reads a docker-archive whole, but of a layout only the blobs that it lacks: it is given a temporary one without the
//! layers that any of its images has. Where that fails (an engine with another storage, an image removed in between)
//! everything is sent.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;

use super::read::{self, ReadOptions};
use super::write::{Layout, Stream, docker_warnings, refuse_artifact};
use super::{Sink, Source, Tally, Transferred, TransportError, names};
use crate::child::{self, RunningChild};
use crate::digest::{ContentDigest, DiffId, Digest};
use crate::fsio::IoContext;
use crate::image::{Image, ImageLayer};
use crate::oci::LayerCodec;

/// Most bytes of an engine's output that are kept.
const OUTPUT_MAX: usize = 64 << 10;

/// Longest line of an engine's list that is read; 125 diffIDs are below 10 kB.
const LINE_MAX: u64 = 64 << 10;
/// Most images that an engine is asked about at once.
const INSPECT_MAX: usize = 500;

/// A kind of engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

impl Engine {
    /// The name of its program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// The first of docker and podman whose program starts.
    pub fn find() -> Result<Self, TransportError> {
        [Self::Docker, Self::Podman]
            .into_iter()
            .find(|engine| {
                let version = child::output(Command::new(engine.program()).arg("--version"));
                version.is_ok_and(|output| output.status.success())
            })
            .ok_or(TransportError::NoEngine)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

impl FromStr for Engine {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self, TransportError> {
        match text {
            "docker" => Ok(Self::Docker),
            "podman" => Ok(Self::Podman),
            _ => Err(TransportError::Unsupported {
                action: "load images into",
                place: text.to_owned(),
                instead: "the engines are `docker` and `podman`".to_owned(),
            }),
        }
    }
}

/// What a load did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The engine that has the image now.
    pub engine: Engine,
    /// The image ID by which it knows it.
    pub id: String,
    /// What it said.
    pub output: String,
    /// Bytes that were sent, and those that it had.
    pub transferred: Transferred,
}

/// Loads an image into an engine, under these names, and checks that the engine has it.
pub fn load(image: &Image, names: &[String], engine: Engine) -> Result<Loaded, TransportError> {
    Daemon::new(engine).load(image, names)
}

/// An engine and how it is called.
#[derive(Debug, Clone)]
pub struct Daemon {
    engine: Engine,
    program: OsString,
    arguments: Vec<OsString>,
    name: Option<String>,
    tally: Tally,
}

impl Daemon {
    /// The engine by its usual program, found in `PATH`.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            program: engine.program().into(),
            arguments: Vec::new(),
            name: None,
            tally: Tally::default(),
        }
    }

    /// Called by another program.
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self
    }

    /// With arguments before the verb, such as `--root DIR` or `--context NAME`.
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// With one more name for images that are put.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Sends what the engine lacks of the image to its `load`, and asks the engine what it has then.
    pub fn load(&self, image: &Image, names: &[String]) -> Result<Loaded, TransportError> {
        refuse_artifact(image)?;
        let mut names = names.to_vec();
        names.extend(self.name.clone());
        let loaded = |id, output| Loaded {
            engine: self.engine,
            id,
            output,
            transferred: self.tally.total(),
        };
        if self.tag(image, &names)? {
            let layers = image.layers.iter().map(|layer| layer.size());
            self.tally
                .skipped(layers.sum::<u64>() + image.manifest.size() + image.config.size());
            return Ok(loaded(self.check(image, &names)?, String::new()));
        }
        let present = self.present_layers(image).unwrap_or_default();
        let is_wanted = |layer: &&ImageLayer| layer.is_absent() && !present.contains(&layer.digest());
        if let Some(layer) = image.layers.iter().find(is_wanted) {
            let place = self.program.display().to_string();
            return Err(TransportError::needs_layer(&place, &layer.descriptor));
        }
        if !present.is_empty()
            && let Ok(output) = self.send_lacking(image, &names, &present)
            && let Ok(id) = self.check(image, &names)
        {
            return Ok(loaded(id, output));
        }
        let output = self.send(image, &names, &BTreeSet::new())?;
        Ok(loaded(self.check(image, &names)?, output))
    }

    /// Gives the names to the image if the engine has it.
    fn tag(&self, image: &Image, names: &[String]) -> Result<bool, TransportError> {
        let known = [image.config_digest(), image.digest()];
        let has = |digest: &&Digest| {
            let id = self.inspect(&digest.to_string());
            id.is_ok_and(|id| id.trim_start_matches("sha256:") == digest.hex())
        };
        let Some(digest) = known.iter().find(has) else {
            return Ok(false);
        };
        for name in names::parse_all(names)? {
            self.run(&["tag", &digest.to_string(), &name.to_string()])?;
        }
        Ok(true)
    }

    /// The blobs of layers that need not be sent. Docker: the image's lowest layers, as far up as an image of the engine's
    /// has the same ones, but for one that the image needs again further up. Podman: all uncompressed ones that it has, as
    /// those alone it finds by the diffID.
    fn present_layers(&self, image: &Image) -> Result<BTreeSet<ContentDigest>, TransportError> {
        let (mut most, mut known) = (0, BTreeSet::new());
        let wanted: Vec<DiffId> = image.layers.iter().filter_map(|layer| layer.diff_id).collect();
        self.each_image(&mut |found| {
            let same = wanted.iter().zip(&found).take_while(|(wanted, found)| wanted == found);
            most = most.max(same.count());
            known.extend(found.into_iter().filter(|found| wanted.contains(found)));
        })?;
        if self.engine == Engine::Podman {
            let has = |layer: &&ImageLayer| layer.diff_id.is_some_and(|diff_id| known.contains(&diff_id));
            let plain = image
                .layers
                .iter()
                .filter(|layer| layer.codec() == Some(LayerCodec::None));
            return Ok(plain.filter(has).map(ImageLayer::digest).collect());
        }
        let (below, above) = image.layers.split_at(most);
        let mut present: BTreeSet<ContentDigest> = below.iter().map(ImageLayer::digest).collect();
        above.iter().for_each(|layer| {
            present.remove(&layer.digest());
        });
        Ok(present)
    }

    /// Gives the diffIDs of each image that the engine has.
    fn each_image(&self, each: &mut dyn FnMut(Vec<DiffId>)) -> Result<(), TransportError> {
        let mut ids = BTreeSet::new();
        self.lines(&["image", "ls", "-aq", "--no-trunc"], &mut |line| {
            ids.insert(line.to_owned());
        })?;
        let ids: Vec<String> = ids.into_iter().collect();
        for some in ids.chunks(INSPECT_MAX) {
            let mut arguments = vec!["image", "inspect", "--format", "{{json .RootFS.Layers}}"];
            arguments.extend(some.iter().map(String::as_str));
            self.lines(&arguments, &mut |line| {
                each(serde_json::from_str(line).unwrap_or_default());
            })?;
        }
        Ok(())
    }

    /// Sends the image without the layers `present`; gives what the engine said.
    fn send_lacking(
        &self,
        image: &Image,
        names: &[String],
        present: &BTreeSet<ContentDigest>,
    ) -> Result<String, TransportError> {
        if self.engine == Engine::Docker {
            return self.send(image, names, present);
        }
        let dir = tempfile::tempdir().context("create a temporary directory in", std::env::temp_dir())?;
        let layout = Layout::new(&dir.path().join("image"), Some("image")).without(present);
        layout.put(image, &[])?;
        let transferred = layout.transferred();
        self.tally.wrote(transferred.written);
        self.tally.skipped(transferred.skipped);
        // Podman makes a name of the path, which must have no capitals; afterwards it is taken away again.
        let mut pull = self.command(&["pull", "--quiet", "oci:image:image"]);
        pull.current_dir(dir.path());
        let output = self.finish(pull, &["pull"])?;
        let id = image.config_digest().to_string();
        self.run(&["untag", &id])?;
        for name in names::parse_all(names)? {
            self.run(&["tag", &id, &name.to_string()])?;
        }
        Ok(output)
    }

    /// Streams the image without the files of the layers `present`; gives what the engine said.
    fn send(
        &self,
        image: &Image,
        names: &[String],
        present: &BTreeSet<ContentDigest>,
    ) -> Result<String, TransportError> {
        let mut running = self.spawn(&["load"], Stdio::piped())?;
        let stdin = running
            .child
            .stdin
            .take()
            .expect("standard input was asked to be a pipe");
        let place = format!("{} load", self.program.display());
        let collect = Output::collect(&mut running.child);
        let stream = Stream::new(stdin, &place);
        let sent = stream.put_without(image, names, present);
        let transferred = stream.transferred();
        self.tally.wrote(transferred.written);
        self.tally.skipped(transferred.skipped);
        drop(stream);
        let status = running.wait().map_err(|source| self.missing(source))?;
        let output = collect.join();
        match sent {
            // The engine ends early when it fails: what it said is the reason, the broken pipe its consequence.
            Ok(()) | Err(TransportError::ReaderGone { .. }) if !status.success() => {
                Err(self.failed(&["load"], status, &output.err_or_out()))
            }
            sent => sent.map(|()| output.out),
        }
    }

    /// Reads an image of an engine, through its `save`.
    pub(super) fn open(
        &self,
        name: &str,
        place: &str,
        options: &ReadOptions,
    ) -> Result<Box<dyn Source>, TransportError> {
        if name.starts_with('-') {
            return Err(TransportError::Name {
                text: name.to_owned(),
                reason: "it begins with `-`",
            });
        }
        let mut running = self.spawn(&["save", name], Stdio::null())?;
        let mut stdout = running
            .child
            .stdout
            .take()
            .expect("standard output was asked to be a pipe");
        let collect = Output::collect(&mut running.child);
        let image = read::stream(&mut stdout, place, options);
        // Read what is left, so that the engine can end.
        let _ = io::copy(&mut stdout, &mut io::sink());
        let status = running.wait().map_err(|source| self.missing(source))?;
        let output = collect.join();
        if !status.success() {
            return Err(self.failed(&["save", name], status, &output.err_or_out()));
        }
        Ok(Box::new(image?))
    }

    /// Asks the engine for the image ID of every name; it must be the image's.
    fn check(&self, image: &Image, names: &[String]) -> Result<String, TransportError> {
        // Docker's containerd store takes the manifest's digest for the image ID, all others the config's.
        let known = [image.config_digest(), image.digest()];
        let mut asked: Vec<String> = names::parse_all(names)?.iter().map(ToString::to_string).collect();
        if asked.is_empty() {
            let by_config = image.config_digest().to_string();
            let found = self.inspect(&by_config).is_ok();
            asked.push(if found { by_config } else { image.digest().to_string() });
        }
        let mut first = None;
        for name in asked {
            let id = self.inspect(&name)?;
            let hex = id.strip_prefix("sha256:").unwrap_or(&id);
            if !known.iter().any(|digest| digest.hex() == hex) {
                return Err(TransportError::EngineDiffers {
                    program: self.program.display().to_string(),
                    name,
                    expected: image.config_digest(),
                    actual: id,
                });
            }
            first.get_or_insert(id);
        }
        Ok(first.unwrap_or_default())
    }

    fn inspect(&self, name: &str) -> Result<String, TransportError> {
        self.run(&["image", "inspect", "--format", "{{.Id}}", name])
    }

    /// Runs the engine's program to its end; gives the end of what it prints.
    fn run(&self, arguments: &[&str]) -> Result<String, TransportError> {
        self.finish(self.command(arguments), arguments)
    }

    fn finish(&self, mut command: Command, arguments: &[&str]) -> Result<String, TransportError> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = RunningChild::spawn(&mut command).map_err(|source| self.missing(source))?;
        let collect = Output::collect(&mut running.child);
        let status = running.wait().map_err(|source| self.missing(source))?;
        let output = collect.join();
        if !status.success() {
            return Err(self.failed(arguments, status, &output.err_or_out()));
        }
        Ok(output.out.trim().to_owned())
    }

    /// Hands on the lines that the engine's program prints, however many they are; one that is too long is cut.
    fn lines(&self, arguments: &[&str], each: &mut dyn FnMut(&str)) -> Result<(), TransportError> {
        let mut running = self.spawn(arguments, Stdio::null())?;
        let stdout = running
            .child
            .stdout
            .take()
            .expect("standard output was asked to be a pipe");
        let collect = Output::collect(&mut running.child);
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while let Ok(count) = (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line) {
            if count == 0 {
                break;
            }
            each(String::from_utf8_lossy(&line).trim());
            line.clear();
        }
        let status = running.wait().map_err(|source| self.missing(source))?;
        let output = collect.join();
        if !status.success() {
            return Err(self.failed(&arguments[..2.min(arguments.len())], status, &output.err_or_out()));
        }
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(arguments);
        command
    }

    fn spawn(&self, arguments: &[&str], stdin: Stdio) -> Result<RunningChild, TransportError> {
        let mut command = self.command(arguments);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        RunningChild::spawn(&mut command).map_err(|source| self.missing(source))
    }

    fn missing(&self, source: io::Error) -> TransportError {
        if child::is_ended() {
            return self.stopped();
        }
        TransportError::EngineMissing {
            program: self.program.display().to_string(),
            source,
        }
    }

    fn stopped(&self) -> TransportError {
        TransportError::EngineStopped {
            program: self.program.display().to_string(),
        }
    }

    fn failed(&self, arguments: &[&str], status: ExitStatus, output: &str) -> TransportError {
        if child::is_ended() {
            return self.stopped();
        }
        const UNREACHABLE: [&str; 4] = [
            "Cannot connect to the Docker daemon",
            "Is the docker daemon running",
            "permission denied while trying to connect",
            "Cannot connect to Podman",
        ];
        let program = self.program.display().to_string();
        let output = output.trim().to_owned();
        if UNREACHABLE.iter().any(|text| output.contains(text)) {
            return TransportError::EngineUnreachable { program, output };
        }
        let command = format!("{program} {}", arguments.join(" "));
        TransportError::EngineFailed {
            command,
            status: status.to_string(),
            output,
        }
    }
}

impl Sink for Daemon {
    fn put(&self, image: &Image, names: &[String]) -> Result<Digest, TransportError> {
        self.load(image, names).map(|_| image.digest())
    }

    fn transferred(&self) -> Transferred {
        self.tally.total()
    }

    fn warnings(&self, image: &Image) -> Vec<String> {
        if self.engine == Engine::Docker {
            docker_warnings(image)
        } else {
            Vec::new()
        }
    }
}

/// Both outputs of a child, read by threads of their own so that the child never waits for us.
struct OutputReaders {
    out: Option<std::thread::JoinHandle<String>>,
    err: Option<std::thread::JoinHandle<String>>,
}

struct Output {
    out: String,
    err: String,
}

impl Output {
    fn collect(child: &mut Child) -> OutputReaders {
        fn keep(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
            std::thread::spawn(move || tail(&mut pipe))
        }
        OutputReaders {
            out: child.stdout.take().map(keep),
            err: child.stderr.take().map(keep),
        }
    }

    /// What explains a failure: standard error, else standard output.
    fn err_or_out(&self) -> String {
        let text = if self.err.trim().is_empty() {
            &self.out
        } else {
            &self.err
        };
        text.clone()
    }
}

impl OutputReaders {
    fn join(self) -> Output {
        let text = |handle: Option<std::thread::JoinHandle<String>>| {
            handle.and_then(|handle| handle.join().ok()).unwrap_or_default()
        };
        Output {
            out: text(self.out),
            err: text(self.err),
        }
    }
}

/// The last bytes of a stream, which is read to its end.
fn tail(pipe: &mut dyn Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(count) = pipe.read(&mut buffer) {
        if count == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > 2 * OUTPUT_MAX {
            kept.drain(..kept.len() - OUTPUT_MAX);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}
