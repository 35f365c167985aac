//! `layerize explain`: which layer and store path hold a file of an image, why it is there, and what made it.
//!
//! Invariant: what the image says is told of any tool's image; what only the store knows is left out where it does not.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::audit::{self, Explanation};
use crate::closure::{self, Chain};
use crate::digest::Digest;
use crate::escape::shown;
use crate::store::{PathDetails, Store};
use crate::store_path::{StoreDir, StorePath};

use super::context::Context;
use super::outcome::Outcome;
use super::text::{render_chain, size};

/// Most lines of a script and most store paths of one kind of input that are shown to people.
const LINES_SHOWN: usize = 12;
const INPUTS_SHOWN: usize = 8;

/// Arguments of `layerize explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// An image, named as for `inspect`
    source: String,
    /// A path in it; links of the image are followed
    path: String,
    /// Which platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

/// All that is known of a file.
#[derive(Debug, Serialize)]
struct ExplainReport {
    #[serde(flatten)]
    image: Explanation,
    /// The store path of the Debian package whose file it is, where it was laid out at `/`.
    package_path: Option<String>,
    /// The shortest ways from what the image is made for to the store path; `None` where the store has it not.
    why: Option<Vec<Chain>>,
    made: Option<MadeBy>,
}

/// What made the store path.
#[derive(Debug, Serialize)]
struct MadeBy {
    derivation: Option<Digest>,
    sandboxed: bool,
    nar_size: u64,
    /// The resolved derivation: the action with its script, variables and inputs.
    resolved: Option<Value>,
}

/// Prints where a file comes from; the answer is no if the image has no such file.
pub fn run(args: &ExplainArgs, context: &Context) -> anyhow::Result<Outcome> {
    let source = context.environment.source(&args.source, args.platform.as_deref())?;
    let image = audit::explain(source.as_ref(), &args.path)?;
    let mut report = ExplainReport {
        image,
        package_path: None,
        why: None,
        made: None,
    };
    report.ask_store(context)?;
    let text = match context.ui.json() {
        true => serde_json::to_string(&report)?,
        false => report.render(),
    };
    context.ui.data(text.trim_end())?;
    Ok(match report.image.file {
        Some(_) => Outcome::Done,
        None => Outcome::No,
    })
}

impl ExplainReport {
    /// Adds what the store knows. A machine that never built anything has no store, and is not given one.
    fn ask_store(&mut self, context: &Context) -> anyhow::Result<()> {
        if !context.environment.store_dir.is_dir() {
            return Ok(());
        }
        let parse = |text: &String| StoreDir::layerize().split(text).map(|(path, _)| path);
        let store = context.environment.store()?;
        let Some(path) = self.image.store_path.as_ref().and_then(parse) else {
            return self.ask_for_package(&store);
        };
        let Some(details) = store.info_full(&path)? else {
            return Ok(());
        };
        self.made = Some(MadeBy::of(&details)?);
        let roots: BTreeSet<StorePath> = self.image.roots.iter().filter_map(parse).collect();
        self.why = Some(why(&store, &roots, &path)?);
        Ok(())
    }

    /// A file of a package that was laid out at `/` belongs to none of the image's store paths: the store may have the
    /// package's.
    fn ask_for_package(&mut self, store: &Store) -> anyhow::Result<()> {
        let names: BTreeSet<&str> = self
            .image
            .packages
            .iter()
            .filter_map(|package| package.split('=').next())
            .collect();
        let below = self.image.path.trim_start_matches('/');
        if self.image.file.is_none() || names.is_empty() {
            return Ok(());
        }
        for info in store.list()? {
            let named = names
                .iter()
                .any(|name| info.path.name().starts_with(&format!("{name}-")));
            let has_it = || store.physical(&info.path).join(below).symlink_metadata().is_ok();
            let Some(details) = (named && has_it())
                .then(|| store.info_full(&info.path))
                .transpose()?
                .flatten()
            else {
                continue;
            };
            let made = MadeBy::of(&details)?;
            let package = made
                .resolved
                .as_ref()
                .and_then(|resolved| resolved["action"]["package"].as_str());
            if package.is_some_and(|package| names.contains(package)) {
                self.package_path = Some(StoreDir::layerize().join(&info.path));
                self.made = Some(made);
                return Ok(());
            }
        }
        Ok(())
    }

    fn render(&self) -> String {
        let mut text = String::new();
        self.render_image(&mut text);
        if let Some(store_path) = &self.image.store_path {
            let _ = writeln!(text, "store path   {store_path}");
            let below = self.image.below.as_deref().unwrap_or_default();
            if !below.is_empty() {
                let _ = writeln!(text, "  as         {below}");
            }
        }
        match self.image.packages.as_slice() {
            [] => {}
            [one] => drop(writeln!(text, "package      {}", shown(one))),
            many => drop(writeln!(text, "package      one of {}", shown(&many.join(", ")))),
        }
        if let Some(path) = &self.package_path {
            let _ = writeln!(text, "from         {path}");
        }
        for chain in self.why.iter().flatten() {
            let lines = render_chain(chain, &StoreDir::layerize());
            let _ = writeln!(text, "because      {}", lines.replace('\n', "\n             "));
        }
        if let Some(made) = &self.made {
            made.render(&mut text);
        } else if self.image.store_path.is_some() {
            let _ = writeln!(text, "made by      unknown: the store of this machine does not have it");
        }
        text
    }

    fn render_image(&self, text: &mut String) {
        let image = &self.image;
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
            None => writeln!(text, "file         the image has none there"),
        };
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
}

impl MadeBy {
    fn of(details: &PathDetails) -> anyhow::Result<Self> {
        Ok(Self {
            derivation: details.provenance.derivation,
            sandboxed: details.provenance.sandboxed,
            nar_size: details.info.nar_size,
            resolved: details
                .derivation_json
                .as_deref()
                .map(serde_json::from_str)
                .transpose()?,
        })
    }

    fn render(&self, text: &mut String) {
        let _ = match &self.derivation {
            Some(derivation) => writeln!(text, "made by      derivation {derivation}"),
            None => writeln!(text, "made by      nothing: it was added to the store as it is"),
        };
        if !self.sandboxed {
            let _ = writeln!(text, "             without a sandbox");
        }
        let Some(action) = self.resolved.as_ref().map(|resolved| &resolved["action"]) else {
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
}

/// The shortest ways from the image's roots to a path, as far as the store has them.
fn why(store: &Store, roots: &BTreeSet<StorePath>, path: &StorePath) -> anyhow::Result<Vec<Chain>> {
    let mut known = BTreeSet::new();
    for root in roots {
        if store.info(root)?.is_some() {
            known.insert(root.clone());
        }
    }
    let mut chains = closure::why(store, &known, path)?;
    let shortest = chains.iter().map(|chain| chain.steps.len()).min().unwrap_or(0);
    chains.retain(|chain| chain.steps.len() == shortest);
    Ok(chains)
}
