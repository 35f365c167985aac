//! `layerize lock`: pins what comes from outside.

use anyhow::bail;
use clap::Args;

use crate::fetch::Update;
use crate::spec;

use super::Outcome;
use super::build::BuildFlags;
use super::context::{Context, shown};
use super::golden;
use super::project::Project;

/// Arguments of `layerize lock`.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// Resolve these anew (Debian packages, source packages, packages with a URL, Nix links), or everything if none is named
    #[arg(long, num_args = 0.., value_name = "NAME")]
    update: Option<Vec<String>>,
    /// Build every image, and record its digest: `build --locked` then fails where the same inputs give another one
    #[arg(long, conflicts_with = "check")]
    golden: bool,
    /// Change nothing: exit status 1 if the lock is not current
    #[arg(long, conflicts_with = "update")]
    check: bool,
    /// Use nothing but what was fetched before
    #[arg(long)]
    offline: bool,
    /// Directory, file: or http: address with Debian packages, tried before the machine's apt; repeatable
    #[arg(long, value_name = "MIRROR")]
    mirror: Vec<String>,
}

/// Makes the lock current and says what changed.
pub fn run(args: &LockArgs, context: &Context) -> anyhow::Result<Outcome> {
    let mut project = Project::load(context)?;
    if args.check {
        let reasons = project.lock_reasons(context)?;
        if reasons.is_empty() {
            return Ok(Outcome::Done);
        }
        for reason in reasons {
            context.ui.line(&reason);
        }
        return Ok(Outcome::No);
    }
    let update = match &args.update {
        None => Update::Nothing,
        Some(names) if names.is_empty() => Update::Everything,
        Some(names) => Update::Names(
            names
                .iter()
                .map(|name| name.trim_start_matches("deb:").to_owned())
                .collect(),
        ),
    };
    let before = project.lock.clone();
    project.update_lock(&update, args.offline, &args.mirror, context)?;
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
            bail!("`{unknown}` is not in the lock: it is no Debian package, source package or download of this spec");
        }
    }
    if args.golden {
        let flags = BuildFlags {
            offline: args.offline,
            mirror: args.mirror.clone(),
            ..BuildFlags::default()
        };
        golden::record(&mut project, &flags, context)?;
    }
    let changes = changes(&before, &project.lock);
    for change in &changes {
        context.ui.line(change);
    }
    context.ui.clear();
    let path = shown(&project.lock_path());
    context.ui.line(&match changes.len() {
        0 => format!("{} is current.", path.display()),
        count => format!("{} written, {count} changed.", path.display()),
    });
    Ok(Outcome::Done)
}

/// What is different, a line each: added, removed, or with another version or hash.
fn changes(before: &spec::Lock, after: &spec::Lock) -> Vec<String> {
    let mut entries = std::collections::BTreeMap::<String, (Option<String>, Option<String>)>::new();
    for (label, value) in pins(before) {
        entries.entry(label).or_default().0 = Some(value);
    }
    for (label, value) in pins(after) {
        entries.entry(label).or_default().1 = Some(value);
    }
    entries
        .into_iter()
        .filter_map(|(label, change)| match change {
            (None, Some(new)) => Some(format!("+ {label} {new}")),
            (Some(old), None) => Some(format!("- {label} {old}")),
            (Some(old), Some(new)) if old != new => Some(format!("~ {label} {old} → {new}")),
            _ => None,
        })
        .collect()
}

fn pins(lock: &spec::Lock) -> Vec<(String, String)> {
    let debs = lock
        .debs
        .iter()
        .map(|(name, deb)| (format!("deb:{name}"), deb.version.clone()));
    let sources = lock
        .deb_sources
        .iter()
        .map(|(name, source)| (format!("deb-source:{name}"), source.version.clone()));
    let urls = lock
        .urls
        .iter()
        .map(|(name, url)| (format!("url of {name}"), url.sha256.to_string()));
    let nix = lock.nix.iter().map(|(name, nix)| {
        let pin = format!("{} {}", nix.path, nix.closure);
        (format!("nix:{name}"), pin)
    });
    let bases = lock
        .bases
        .iter()
        .map(|(name, base)| (format!("base of {name}"), base.sha256.to_string()));
    let golden = lock.golden.iter().map(|(key, golden)| {
        let label = format!("digest of {} ({}, {})", key.image, key.platform, key.compression);
        (label, golden.digest.to_string())
    });
    debs.chain(sources)
        .chain(urls)
        .chain(nix)
        .chain(bases)
        .chain(golden)
        .collect()
}
