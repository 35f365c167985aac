//! The *ui* shows events to people: live lines on a terminal, plain lines in a pipe, or JSON for programs.
//!
//! Invariant: one printer; standard output is written by [`Ui::data`] and [`Ui::result`] (and, with `--json`, by events)
//! alone. What is printed for people went through [`escape`](crate::escape): no text from outside moves the cursor.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::escape::{shown, shown_colored, shown_json, shown_lines, shown_message};
use crate::event::{Event, Reporter};

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A live line for each thing under way.
    Terminal,
    /// A line for each thing that ended.
    Plain,
    /// Warnings and errors only.
    Quiet,
    /// Every event as a line of JSON on standard output.
    Json,
}

impl Mode {
    /// The mode that the flags ask for, or else what standard error is.
    pub fn choose(quiet: bool, json: bool) -> Self {
        match (json, quiet, io::stderr().is_terminal()) {
            (true, ..) => Self::Json,
            (_, true, _) => Self::Quiet,
            (_, _, true) => Self::Terminal,
            _ => Self::Plain,
        }
    }
}

/// Shows events and counts them for the summary.
pub struct Ui {
    mode: Mode,
    color: bool,
    verbose: bool,
    bars: MultiProgress,
    started: Instant,
    state: Mutex<DisplayState>,
}

#[derive(Default)]
struct DisplayState {
    running: BTreeMap<String, ProgressBar>,
    built: Vec<String>,
    reused: usize,
    shared: usize,
    unpacked: usize,
    fetched: usize,
    fetched_bytes: u64,
    layers_packed: usize,
    layers_cached: usize,
}

impl Ui {
    /// A printer in `mode`; `verbose` shows every line that builds write.
    pub fn new(mode: Mode, color: bool, verbose: bool) -> Self {
        let target = match mode {
            Mode::Terminal => ProgressDrawTarget::stderr(),
            _ => ProgressDrawTarget::hidden(),
        };
        let bars = MultiProgress::with_draw_target(target);
        Self {
            mode,
            color,
            verbose,
            bars,
            started: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// Whether errors and diagnostics may be coloured.
    pub fn color(&self) -> bool {
        self.color
    }

    /// Whether standard output is to hold JSON.
    pub fn json(&self) -> bool {
        self.mode == Mode::Json
    }

    /// Whether everything is to be told.
    pub fn verbose(&self) -> bool {
        self.verbose
    }

    /// How many layers were packed and not found in the cache.
    pub fn layers_packed(&self) -> usize {
        self.lock().layers_packed
    }

    /// Writes a line or a report to standard output: JSON where that is asked for, else text, in which every field that comes
    /// from outside was escaped where it was put in.
    pub fn data(&self, text: &str) -> io::Result<()> {
        let text = match self.json() {
            true => shown_json(text),
            false => self.own(text),
        };
        self.write(text.as_bytes())
    }

    /// Writes a result to standard output, its bytes as they are, with a newline at the end; on a terminal, where they would
    /// be obeyed, controls are escaped as JSON has it.
    pub fn result(&self, bytes: &[u8]) -> io::Result<()> {
        match std::str::from_utf8(bytes) {
            Ok(text) if io::stdout().is_terminal() => self.write(shown_json(text).as_bytes()),
            _ => self.write(bytes),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.bars.suspend(|| {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            if !bytes.ends_with(b"\n") {
                out.write_all(b"\n")?;
            }
            out.flush()
        })
    }

    /// Writes a line for people to standard error, above what is live; it may go on in lines that two spaces begin.
    pub fn line(&self, text: &str) {
        self.lines(&shown_message(text));
    }

    /// Writes a report of several lines to standard error; fields from outside were escaped where they were put in.
    pub fn lines(&self, text: &str) {
        let text = self.own(text);
        // A closed standard error must not stop the work.
        let _ = self.bars.suspend(|| writeln!(io::stderr(), "{text}"));
    }

    /// A text of several lines, in which colours stay that may be there: see [`Ui::paint`].
    fn own<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.color {
            true => shown_colored(text),
            false => shown_lines(text),
        }
    }

    /// A line beside data, for people who look: not in quiet mode, nor beside JSON.
    pub fn note(&self, text: &str) {
        self.done(text);
    }

    /// Clears the live lines and says what was done.
    pub fn summary(&self) {
        self.clear();
        let state = self.lock();
        let mut parts = Vec::new();
        if !state.built.is_empty() || state.shared > 0 {
            parts.push(format!("{} built", state.built.len()));
        }
        if state.shared > 0 {
            parts.push(format!("{} from shared caches", state.shared));
        }
        if state.unpacked > 0 {
            parts.push(format!("{} unpacked", state.unpacked));
        }
        if state.reused > 0 {
            parts.push(format!("{} reused", state.reused));
        }
        if state.fetched > 0 {
            parts.push(format!(
                "{} fetched ({})",
                state.fetched,
                DecimalBytes(state.fetched_bytes)
            ));
        }
        if state.layers_packed + state.layers_cached > 0 {
            parts.push(format!(
                "{} layers packed, {} from cache",
                state.layers_packed, state.layers_cached
            ));
        }
        drop(state);
        if !parts.is_empty() && matches!(self.mode, Mode::Terminal | Mode::Plain) {
            let elapsed = self.started.elapsed();
            let elapsed = if elapsed < Duration::from_secs(10) {
                format!("{:.2} s", elapsed.as_secs_f64())
            } else {
                HumanDuration(elapsed).to_string()
            };
            self.line(&format!("{} in {elapsed}.", parts.join(", ")));
        }
    }

    /// Removes the live lines, so that what follows starts on a clean terminal.
    pub fn clear(&self) {
        for (_, bar) in std::mem::take(&mut self.lock().running) {
            bar.finish_and_clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, DisplayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, name: &str, style: &str, length: Option<u64>) {
        if self.mode != Mode::Terminal {
            return;
        }
        let bar = self.bars.add(ProgressBar::no_length());
        if let Some(length) = length {
            bar.set_length(length);
        }
        bar.set_style(ProgressStyle::with_template(style).expect("a template of ours"));
        bar.set_prefix(shown(name).into_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.lock().running.insert(name.to_owned(), bar);
    }

    fn end(&self, name: &str) {
        if let Some(bar) = self.lock().running.remove(name) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn with_bar(&self, name: &str, change: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = self.lock().running.get(name) {
            change(bar);
        }
    }

    /// A line about something that ended: not in quiet mode.
    fn done(&self, text: &str) {
        if matches!(self.mode, Mode::Terminal | Mode::Plain) {
            self.line(text);
        }
    }

    fn show(&self, event: &Event) {
        match event {
            Event::BuildStarted { name, at } => {
                let at = at.as_ref().map_or_else(String::new, |at| format!(" at {at}"));
                let style = format!(
                    "{{spinner}} building {{prefix}}{} {{elapsed}} {{wide_msg:.dim}}",
                    template_text(&at)
                );
                self.start(name, &style, None);
                if self.mode == Mode::Plain {
                    self.line(&format!("building {name}{at}"));
                }
            }
            Event::BuildOutput { name, line } if self.verbose => self.line(&format!("{name}> {line}")),
            Event::BuildOutput { name, line } => self.with_bar(name, |bar| bar.set_message(shown(line).into_owned())),
            Event::BuildFinished { name, path } => {
                self.end(name);
                self.done(&format!("built {name}: {path}"));
            }
            Event::Unpacked { name, path } => {
                // One line for each of a hundred unpacked packages would bury what the user asked for.
                if !name.starts_with("deb:") || self.verbose {
                    self.done(&format!("unpacked {name}: {path}"));
                }
            }
            Event::BuildShared { name, path, from } => self.done(&format!("took {name} from {from}: {path}")),
            Event::BuildPublished { name, to, sent } => {
                self.done(&format!("kept {name} in {to} ({} sent)", DecimalBytes(*sent)))
            }
            Event::Reused { name, path } if self.verbose => self.done(&format!("reused {name}: {path}")),
            Event::Reused { .. } => {}
            Event::NotKept { name, part, reason } if self.verbose => {
                self.done(&format!("{name}: `{part}` is compiled anew after each edit: {reason}"));
            }
            Event::NotKept { .. } => {}
            Event::FetchStarted { name, size } => self.start(
                name,
                "{spinner} fetching {prefix} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {wide_bar}",
                *size,
            ),
            Event::FetchProgress { name, bytes } => self.with_bar(name, |bar| bar.set_position(*bytes)),
            Event::FetchAsked { name, place, answer } if self.verbose => {
                self.done(&format!("{name} in {place}: {answer}"))
            }
            Event::FetchAsked { .. } => {}
            Event::FetchFinished { name, bytes, from } => {
                self.end(name);
                if self.verbose {
                    self.done(&format!("fetched {name} ({}) from {from}", DecimalBytes(*bytes)));
                } else if !name.starts_with("deb:") {
                    self.done(&format!("fetched {name} ({})", DecimalBytes(*bytes)));
                }
            }
            Event::LayerStarted { layer, layers, size } => self.start(
                &layer_name(*layer, *layers),
                "{spinner} packing {prefix} {elapsed} {wide_msg:.dim}",
                Some(*size),
            ),
            Event::LayerFinished { layer, layers, .. } => self.end(&layer_name(*layer, *layers)),
            Event::Note { text } => self.done(&format!("note: {text}")),
            Event::Warning { text } => {
                self.lines(&format!("{} {}", self.paint("warning:", "1;33"), shown_message(text)));
            }
            _ => self.show_transfer(event),
        }
    }

    /// What is told of bytes on their way to registries and other places.
    fn show_transfer(&self, event: &Event) {
        match event {
            Event::BlobStarted { name, size, .. } => self.start(
                name,
                "{spinner} pushing {prefix:.dim} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {wide_bar}",
                Some(*size),
            ),
            Event::BlobProgress { name, bytes } => self.with_bar(name, |bar| bar.set_position(*bytes)),
            Event::BlobFinished { name, .. } => self.end(name),
            Event::Waiting {
                host,
                milliseconds,
                reason,
            } => {
                let seconds = Duration::from_millis(*milliseconds).as_secs_f32();
                self.done(&format!("waiting {seconds:.1} s for {host}: {reason}"));
            }
            Event::Pushed {
                references,
                requests,
                sent,
                skipped,
                mounted,
                ..
            } => self.done(&format!(
                "pushed {}: {requests} requests, {} sent, {} there, {} mounted",
                references.join(", "),
                DecimalBytes(*sent),
                DecimalBytes(*skipped),
                DecimalBytes(*mounted)
            )),
            Event::InputsKept { .. } => self.show_kept(event),
            Event::ImageServed {
                digest, references, ..
            } => self.done(&format!("{} is {digest}", references.join(", "))),
            Event::Answered {
                client,
                method,
                path,
                status,
            } if self.verbose => self.done(&format!("{client}: {method} {path}: {status}")),
            Event::Transferred {
                destination,
                written,
                skipped,
                milliseconds,
                dry_run,
                ..
            } => {
                let (written, skipped) = (DecimalBytes(*written), DecimalBytes(*skipped));
                let rest = format!("{skipped} there already");
                self.done(&match dry_run {
                    true => format!("{destination}: {written} to write, {rest}"),
                    false => {
                        let seconds = Duration::from_millis(*milliseconds).as_secs_f64();
                        format!("{destination}: {written} written, {rest}, in {seconds:.2} s")
                    }
                });
            }
            _ => {}
        }
    }

    /// What is told of the inputs that are kept beside an image.
    fn show_kept(&self, event: &Event) {
        let Event::InputsKept {
            destination,
            inputs,
            withheld,
            requests,
            blobs_sent,
            bytes_sent,
            blobs_there,
            dry_run,
            ..
        } = event
        else {
            return;
        };
        let withheld = match withheld {
            0 => String::new(),
            withheld => format!(" ({withheld} more may not be copied)"),
        };
        let verb = if *dry_run { "to send" } else { "sent" };
        let sent = format!("{blobs_sent} blobs {verb} ({})", DecimalBytes(*bytes_sent));
        self.done(&format!(
            "{inputs} inputs{withheld} kept at {destination}: {requests} requests, {sent}, {blobs_there} there"
        ));
    }

    /// Wraps a word in an SGR colour where colours are wanted.
    pub fn paint(&self, word: &str, sgr: &str) -> String {
        if self.color {
            format!("\x1b[{sgr}m{word}\x1b[0m")
        } else {
            word.to_owned()
        }
    }

    /// As [`Ui::paint`] for standard output: not where a program reads it, unless colours are asked for.
    pub fn paint_out(&self, word: &str, sgr: &str) -> String {
        if self.color && (io::stdout().is_terminal() || !io::stderr().is_terminal()) {
            self.paint(word, sgr)
        } else {
            word.to_owned()
        }
    }

    fn count(&self, event: &Event) {
        let mut state = self.lock();
        match event {
            Event::BuildFinished { name, .. } => state.built.push(name.clone()),
            Event::BuildShared { .. } => state.shared += 1,
            Event::Unpacked { .. } => state.unpacked += 1,
            Event::Reused { .. } => state.reused += 1,
            Event::FetchFinished { bytes, .. } => {
                state.fetched += 1;
                state.fetched_bytes += bytes;
            }
            Event::LayerFinished { cached: true, .. } => state.layers_cached += 1,
            Event::LayerFinished { cached: false, .. } => state.layers_packed += 1,
            _ => {}
        }
    }
}

impl Reporter for Ui {
    fn report(&self, event: Event) {
        self.count(&event);
        if self.mode != Mode::Json {
            return self.show(&event);
        }
        let line = serde_json::to_string(&event).expect("events hold strings and numbers");
        // A consumer that went away must not stop the work; the exit status tells what became of it.
        let _ = self.data(&line);
    }
}

/// A text that stands in a template for itself.
fn template_text(text: &str) -> String {
    shown(text).replace('{', "{{").replace('}', "}}")
}

fn layer_name(layer: usize, layers: usize) -> String {
    format!("layer {} of {layers}", layer + 1)
}
