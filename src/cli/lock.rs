//! `layerize lock`: pins what comes from outside.

use anyhow::bail;
use clap::Args;

use crate::digest::Digest;
use crate::fetch::{self, AptSources, Update};
use crate::spec;

use super::context::Context;
use super::error::advised;
use super::flags::BuildFlags;
use super::outcome::Outcome;
use crate::project::Project;
use crate::project::golden;

/// Arguments of `layerize lock`.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// Resolve these again (Debian packages, source packages, packages with a URL, Nix links), or everything if none is named
    #[arg(long, num_args = 0.., value_name = "NAME")]
    update: Option<Vec<String>>,
    /// Resolve again only the Debian packages and source packages that no source has any more, and what their new
    /// versions need; the sources are asked for all that is locked, whatever was downloaded before
    #[arg(long, conflicts_with_all = ["update", "check"])]
    refresh: bool,
    /// Build every image, and record its digest: `build --locked` then fails where the same inputs give another one
    #[arg(long, conflicts_with = "check")]
    golden: bool,
    /// Change nothing: exit status 1 if the lock is not current
    #[arg(long, conflicts_with = "update")]
    check: bool,
    /// Do not use the network: use only what was fetched before
    #[arg(long)]
    offline: bool,
    /// Directory, file: or http: address with Debian packages, tried before the machine's apt; repeatable
    #[arg(long, value_name = "MIRROR")]
    mirror: Vec<String>,
}

/// Makes the lock current and says what changed.
pub fn run(args: &LockArgs, context: &Context) -> anyhow::Result<Outcome> {
    let mut project = Project::load(&context.environment)?;
    if args.check {
        let reasons = project.lock_reasons(&context.environment)?;
        if reasons.is_empty() {
            return Ok(Outcome::Done);
        }
        for reason in reasons {
            context.ui.line(&reason);
        }
        return Ok(Outcome::No);
    }
    let update = update(args, &project, context)?;
    let before = project.lock.clone();
    project.update_lock(&update, args.offline, &args.mirror, &context.environment)?;
    let after = &project.lock;
    if let Update::Names(names) = &update {
        let known = |name: &String| {
            after.debs.contains_key(name)
                || after.nix.contains_key(name)
                || after.deb_sources.contains_key(name)
                || after.urls.contains_key(&spec::PackageName(name.clone()))
                || after.bases.contains_key(name)
        };
        if let Some(unknown) = names.iter().find(|name| !known(name)) {
            bail!(
                "`{unknown}` is not in the lock: it is not a Debian package, source package or download of this spec"
            );
        }
    }
    if args.golden {
        let flags = BuildFlags {
            offline: args.offline,
            mirror: args.mirror.clone(),
            ..BuildFlags::default()
        };
        golden::record(&mut project, &flags.options(), &context.environment)?;
    }
    let changes = changes(&before, &project.lock);
    for change in &changes {
        context.ui.line(change);
    }
    context.ui.clear();
    let path = project.lock_path();
    let path = context.shown(&path);
    context.ui.line(&match changes.len() {
        0 if project.lock != before => format!("{} written.", path.display()),
        0 if args.refresh => format!("{} is current: everything in it is still available.", path.display()),
        0 => format!("{} is current.", path.display()),
        count => format!("{} written, {count} changed.", path.display()),
    });
    Ok(Outcome::Done)
}

/// What the flags say is to be resolved anew.
fn update(args: &LockArgs, project: &Project, context: &Context) -> anyhow::Result<Update> {
    if args.refresh && args.offline {
        return Err(advised(
            "`--refresh` asks the sources what they still have, which `--offline` forbids",
            "leave out `--offline`; `layerize build --offline` builds from what was fetched before, gone or not",
        ));
    }
    if args.refresh {
        let sources = AptSources::of(&project.workspace);
        let config = context.environment.fetch_config(args.offline, &args.mirror, sources);
        return Ok(Update::Gone(fetch::gone(&project.lock, &config, context.ui)?));
    }
    Ok(match &args.update {
        None => Update::Nothing,
        Some(names) if names.is_empty() => Update::Everything,
        Some(names) => Update::Names(
            names
                .iter()
                .map(|name| name.trim_start_matches("deb:").to_owned())
                .collect(),
        ),
    })
}

/// What is different, a line each: added, removed, or with another version or hash.
fn changes(before: &spec::Lock, after: &spec::Lock) -> Vec<String> {
    let mut entries = std::collections::BTreeMap::<String, (Option<ShownPin>, Option<ShownPin>)>::new();
    for (label, pin) in pins(before) {
        entries.entry(label).or_default().0 = Some(pin);
    }
    for (label, pin) in pins(after) {
        entries.entry(label).or_default().1 = Some(pin);
    }
    entries
        .into_iter()
        .filter_map(|(label, change)| match change {
            (None, Some(new)) => Some(format!("+ {label} {}", new.shown)),
            (Some(old), None) => Some(format!("- {label} {}", old.shown)),
            (Some(old), Some(new)) if old.shown != new.shown => {
                Some(format!("~ {label} {} → {}", old.shown, new.shown))
            }
            (Some(old), Some(new)) if old != new => Some(format!("~ {label} {}: other files", new.shown)),
            _ => None,
        })
        .collect()
}

/// What an entry of a lock is pinned to.
#[derive(PartialEq, Eq)]
struct ShownPin {
    /// As people tell it from another: a version or a digest.
    shown: String,
    /// Digests of its files, where `shown` is none.
    files: Vec<Digest>,
}

impl From<String> for ShownPin {
    fn from(shown: String) -> Self {
        let files = Vec::new();
        Self { shown, files }
    }
}

fn pins(lock: &spec::Lock) -> Vec<(String, ShownPin)> {
    let debs = lock.debs.iter().map(|(name, deb)| {
        let (shown, files) = (deb.version.clone(), vec![deb.sha256]);
        (format!("deb:{name}"), ShownPin { shown, files })
    });
    let sources = lock.deb_sources.iter().map(|(name, source)| {
        let shown = source.version.clone();
        let files = source.files.iter().map(|file| file.sha256).collect();
        (format!("deb-source:{name}"), ShownPin { shown, files })
    });
    let urls = lock
        .urls
        .iter()
        .map(|(name, url)| (format!("url of {name}"), url.sha256.to_string().into()));
    let nix = lock.nix.iter().map(|(name, nix)| {
        let pin = format!("{} {}", nix.path, nix.closure);
        (format!("nix:{name}"), pin.into())
    });
    let bases = lock
        .bases
        .iter()
        .map(|(name, base)| (format!("base of {name}"), base.sha256.to_string().into()));
    let golden = lock.golden.iter().map(|(key, golden)| {
        let label = format!("digest of {} ({}, {})", key.image, key.platform, key.compression);
        (label, golden.digest.to_string().into())
    });
    debs.chain(sources)
        .chain(urls)
        .chain(nix)
        .chain(bases)
        .chain(golden)
        .collect()
}
