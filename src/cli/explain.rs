//! `layerize explain`: which layer and store path hold a file of an image, why it is there, and what made it; with
//! `--scripts`, what became of the maintainer scripts of its packages.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use crate::audit::{Explanation, Reading};
use crate::configure::ScriptsOutcome;
use crate::escape::shown;
use crate::execution::Execution;
use crate::project::explain::{FileStory, MadeBy, explain};
use crate::project::scripts::{self, ScriptsStory};
use crate::project::work;
use crate::project::{PlatformChoice, ProjectError};
use crate::store_path::StoreDir;
use crate::walls::Walls;

use super::complete;
use super::context::Context;
use super::documents::finished;
use super::flags::{BuildFlags, PlatformOrAll, value};
use super::outcome::Outcome;
use super::places::Names;
use super::text::{render_chain, size};

/// Most lines of a script and most store paths of one kind of input that are shown to people.
const LINES_SHOWN: usize = 12;
const INPUTS_SHOWN: usize = 8;

/// Arguments of `layerize explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// An image, named as for `inspect`; with --scripts, one of the spec
    #[arg(add = complete::images_or_files())]
    source: String,
    /// A path in it; links of the image are followed
    #[arg(required_unless_present = "scripts")]
    path: Option<String>,
    /// Tell instead which maintainer scripts of its Debian packages ran and what they made
    #[arg(long, conflicts_with = "path")]
    scripts: bool,
    /// Which platforms of a multi-platform image, separated by commas, or `all` [default of --scripts: this machine's]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', value_parser = value::<PlatformOrAll>)]
    platform: Vec<PlatformOrAll>,
    #[command(flatten)]
    flags: BuildFlags,
}

impl ExplainArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Each(vec![&mut self.source]), &mut self.flags)
    }
}

/// Prints where a file comes from; the answer is no if the image has no such file.
pub fn run(args: &ExplainArgs, context: &Context) -> anyhow::Result<Outcome> {
    let Some(path) = &args.path else {
        return explain_scripts(args, context);
    };
    let choice = PlatformOrAll::choice(&args.platform, PlatformChoice::Own);
    let is_one = choice.names_one();
    let mut outcome = Outcome::Done;
    for (number, (platform, source)) in context
        .environment
        .sources(&args.source, &choice)?
        .into_iter()
        .enumerate()
    {
        let story = FileStory {
            platform: platform.filter(|_| !is_one),
            ..explain(source.as_ref(), path, &context.environment)?
        };
        if story.image.file.is_none() {
            outcome = Outcome::No;
        }
        let text = match context.ui.json() {
            true => serde_json::to_string(&story)?,
            false => render(&story),
        };
        print(&text, number, context)?;
    }
    Ok(outcome)
}

/// Prints what is told of one of several platforms, apart from that of the one before.
fn print(text: &str, number: usize, context: &Context) -> anyhow::Result<()> {
    if number > 0 && !context.ui.json() {
        context.ui.data("")?;
    }
    context.ui.data(text.trim_end())?;
    Ok(())
}

/// Prints what became of the maintainer scripts of an image of the spec; it is built where it is not in the store.
fn explain_scripts(args: &ExplainArgs, context: &Context) -> anyhow::Result<Outcome> {
    if finished(std::slice::from_ref(&args.source)).is_some() {
        let image = args.source.clone();
        return Err(ProjectError::Finished { image }.into());
    }
    let targets = std::slice::from_ref(&args.source);
    let platforms = PlatformOrAll::choice(&args.platform, PlatformChoice::Own);
    let is_one = platforms.names_one();
    let work = work::prepare(targets, &args.flags.options_for(platforms), &context.environment)?;
    context.ui.clear();
    for (number, mut story) in scripts::stories(&work, &args.source)?.into_iter().enumerate() {
        story.platform = story.platform.filter(|_| !is_one);
        let text = match context.ui.json() {
            true => serde_json::to_string(&story)?,
            false => render_scripts(&story),
        };
        print(&text, number, context)?;
    }
    Ok(Outcome::Done)
}

fn render_scripts(story: &ScriptsStory) -> String {
    let mut text = String::new();
    if let Some(platform) = &story.platform {
        let _ = writeln!(text, "{platform}");
    }
    if story.packages.is_empty() {
        text += match story.wanted {
            true => "no package is laid out at /",
            false => "no script runs: the image has no `root`, or says `configure = false`",
        };
        return text;
    }
    let width = story.packages.keys().map(String::len).max().unwrap_or_default();
    for (package, outcome) in &story.packages {
        let _ = match outcome {
            ScriptsOutcome::Skipped { reason } => writeln!(text, "{package:width$}  skipped: {reason}"),
            _ => writeln!(text, "{package:width$}  {}", outcome.word()),
        };
        let ScriptsOutcome::Ran { made, left_out } = outcome else {
            continue;
        };
        for path in made.iter().take(LINES_SHOWN) {
            let _ = writeln!(text, "  made      /{}", shown(path));
        }
        if made.len() > LINES_SHOWN {
            let _ = writeln!(text, "            and {} more", made.len() - LINES_SHOWN);
        }
        for (path, reason) in left_out.iter().take(LINES_SHOWN) {
            let _ = writeln!(text, "  left out  /{}: {reason}", shown(path));
        }
        if left_out.len() > LINES_SHOWN {
            let _ = writeln!(text, "            and {} more", left_out.len() - LINES_SHOWN);
        }
    }
    text
}

fn render(story: &FileStory) -> String {
    let mut text = String::new();
    if let Some(platform) = &story.platform {
        let _ = writeln!(text, "platform     {platform}");
    }
    render_image(&story.image, &mut text);
    if let Some(store_path) = &story.image.store_path {
        let _ = writeln!(text, "store path   {store_path}");
        let below = story.image.below.as_deref().unwrap_or_default();
        if !below.is_empty() {
            let _ = writeln!(text, "  as         {below}");
        }
    }
    match story.image.packages.as_slice() {
        [] => {}
        [one] => drop(writeln!(text, "package      {}", shown(one))),
        many => drop(writeln!(text, "package      one of {}", shown(&many.join(", ")))),
    }
    if let Some(path) = &story.package_path {
        let _ = writeln!(text, "from         {path}");
    }
    for chain in story.why.iter().flatten() {
        let lines = render_chain(chain, &StoreDir::layerize());
        let _ = writeln!(text, "because      {}", lines.replace('\n', "\n             "));
    }
    if let Some(made) = &story.made {
        render_made(made, &mut text);
    } else if story.image.store_path.is_some() {
        let _ = writeln!(text, "made by      unknown: the store of this machine does not have it");
    }
    text
}

fn render_image(image: &Explanation, text: &mut String) {
    let _ = writeln!(text, "path         {}", image.asked);
    for link in &image.links {
        let _ = writeln!(
            text,
            "  link       {} → {} (layer {})",
            link.path, link.target, link.layer
        );
    }
    if image.path != image.asked {
        let _ = writeln!(text, "  leads to   {}", image.path);
    }
    let _ = match &image.file {
        Some(file) => writeln!(
            text,
            "file         {}, mode {}, owner {}, {}",
            file.kind,
            file.mode,
            file.owner,
            size(file.size)
        ),
        None if image.kept_elsewhere.is_empty() => writeln!(text, "file         not in the image"),
        None => writeln!(text, "file         not in the layers that could be read"),
    };
    if let Some(capabilities) = image.file.as_ref().and_then(|file| file.capabilities.as_ref()) {
        let _ = writeln!(text, "  can        {}", shown(capabilities));
    }
    for Reading { layer, link, leads } in &image.readings {
        let _ = writeln!(
            text,
            "differs      layer {layer} has files below `{link}`, which is a symlink to `{leads}` in the layers below: Docker, \
             containerd and podman put a directory in its place, as is told here; umoci and podman's vfs storage follow the \
             link"
        );
    }
    for mention in &image.layers {
        let mark = if mention.counts { "  ← seen" } else { "" };
        let _ = writeln!(
            text,
            "layer {:<6} {} {}{mark}",
            mention.layer, mention.digest, mention.what
        );
        if let Some(comment) = mention.comment.as_ref().filter(|comment| !comment.is_empty()) {
            let _ = writeln!(text, "             {}", shown(comment));
        }
    }
}

fn render_made(made: &MadeBy, text: &mut String) {
    let _ = match &made.derivation {
        Some(derivation) => writeln!(text, "made by      derivation {derivation}"),
        None => writeln!(text, "made by      nothing: it was added to the store as it is"),
    };
    match made.walls {
        Walls::Namespaces => {}
        Walls::None => drop(writeln!(text, "             without walls")),
        Walls::Builder => drop(writeln!(text, "             at a builder")),
        Walls::Chroot | Walls::Traced => drop(writeln!(text, "             behind {}", made.walls)),
    }
    if made.execution != Execution::Native {
        let _ = writeln!(text, "             {}", made.execution);
    }
    let Some(action) = made.resolved.as_ref().map(|resolved| &resolved["action"]) else {
        return;
    };
    let word = |key: &str| action[key].as_str().map(str::to_owned);
    for key in ["kind", "package", "sha256", "system", "source"] {
        if let Some(value) = word(key) {
            let _ = writeln!(text, "  {key:<10} {value}");
        }
    }
    for key in ["tools", "libraries", "runtime"] {
        let paths: Vec<&str> = action[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for path in paths.iter().take(INPUTS_SHOWN) {
            let _ = writeln!(text, "  {key:<10} {path}");
        }
        if paths.len() > INPUTS_SHOWN {
            let _ = writeln!(text, "             and {} more", paths.len() - INPUTS_SHOWN);
        }
    }
    let root = action["root"].as_array().map_or(0, Vec::len);
    if root > 0 {
        let _ = writeln!(text, "  root       {root} Debian packages");
    }
    for (key, value) in action["env"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "  env        {key}={}", shown(value.as_str().unwrap_or_default()));
    }
    let script = word("script").unwrap_or_default();
    for line in script.trim().lines().take(LINES_SHOWN) {
        let _ = writeln!(text, "  script     {line}");
    }
}
