//! `layerize copy-closure`: packages and store paths, with all they refer to, between this machine and another over ssh.
//!
//! Invariant: what each machine takes it has checked itself; what stopped in the middle goes on from there.

use std::collections::BTreeSet;

use clap::{ArgGroup, Args};
use serde_json::json;

use crate::binary_cache::{NixPublicKey, Trust};
use crate::peer::{Activation, Copied, Installed, Named, PeerLine, SshAddress};
use crate::project::{PlatformChoice, Target, Work, work};
use crate::store_path::{StoreDir, StorePath};

use super::complete;
use super::context::Context;
use super::error::advised;
use super::flags::{BuildFlags, value};
use super::outcome::Outcome;
use super::places::Names;
use super::programs;
use super::text::size;

/// Arguments of `layerize copy-closure`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("direction").required(true))]
pub struct CopyClosureArgs {
    /// Packages of the spec, or store paths; with `--from`, store paths or names of what is kept or installed there
    #[arg(required = true, value_name = "NAME|PATH", add = complete::targets())]
    targets: Vec<String>,
    /// Machine to copy them to: ssh://[USER@]HOST[:PORT][?program=PATH&store=DIR]
    #[arg(long, value_name = "ADDRESS", group = "direction", value_parser = value::<SshAddress>)]
    to: Option<SshAddress>,
    /// Machine to copy them from
    #[arg(long, value_name = "ADDRESS", group = "direction", value_parser = value::<SshAddress>)]
    from: Option<SshAddress>,
    /// Install them there, too, in place of packages of their names; `layerize rollback` there takes that back
    #[arg(long, conflicts_with = "from")]
    profile: bool,
    /// Which goes first there where two packages have a file of one name: the lower [default: 5]
    #[arg(
        long,
        value_name = "N",
        requires = "profile",
        conflicts_with = "from",
        allow_hyphen_values = true
    )]
    priority: Option<i32>,
    /// Trusted key of paths that their content does not prove, NAME:BASE64; repeatable, besides the configuration's
    #[arg(long, value_name = "KEY", conflicts_with = "to", value_parser = value::<NixPublicKey>)]
    trusted_key: Vec<NixPublicKey>,
    /// Take paths that neither their content proves nor anybody signed, too
    #[arg(long)]
    no_check_sigs: bool,
    #[command(flatten)]
    flags: BuildFlags,
}

impl CopyClosureArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        // Those of another machine are names there.
        let names = match self.from {
            Some(_) => Names::Each(Vec::new()),
            None => Names::Packages(&mut self.targets),
        };
        (names, &mut self.flags)
    }
}

/// Copies closures.
pub fn run(args: &CopyClosureArgs, context: &Context) -> anyhow::Result<Outcome> {
    match (&args.to, &args.from) {
        (Some(to), _) => copy_to(args, to, context),
        (None, Some(from)) => copy_from(args, from, context),
        (None, None) => Err(advised(
            "no machine is named",
            "write `--to ssh://HOST` or `--from ssh://HOST`",
        )),
    }
}

fn copy_to(args: &CopyClosureArgs, to: &SshAddress, context: &Context) -> anyhow::Result<Outcome> {
    if args.profile {
        programs::check_installable(&args.targets)?;
    }
    let work = work::prepare_packages_first(
        &args.targets,
        &args.flags.options_for(PlatformChoice::Own),
        &context.environment,
    )?;
    let mut roots = BTreeSet::new();
    for target in &work.targets {
        if let Target::Nix(path) = target {
            return Err(advised(
                format!("`{}` is a path of a Nix store", StoreDir::nix().join(path)),
                "copy those with Nix (`nix copy --to ssh://HOST`), or through a binary cache: `layerize store copy`",
            ));
        }
        roots.extend(work.roots(target));
    }
    let packages = match args.profile {
        true => packages(&work)?,
        false => Vec::new(),
    };
    let mut line = PeerLine::open(to, args.no_check_sigs, || tell_waiting(to, context))?;
    let copied = line.copy_to(&work.store, &roots, context.ui)?;
    context.ui.clear();
    let how = format!("copied to {to}");
    let activate = |line: &mut PeerLine| {
        let priority = args.priority;
        line.activate(Activation { packages, priority })
    };
    if context.ui.json() {
        // One result, of both.
        let installed = args.profile.then(|| activate(&mut line)).transpose()?;
        context.ui.data(&result(&copied, installed.as_ref()).to_string())?;
        return Ok(Outcome::Done);
    }
    tell(&copied, &how, context)?;
    if args.profile {
        let installed = activate(&mut line)?;
        let before = installed
            .previous
            .map_or(String::new(), |before| format!(" (before: {before})"));
        context.ui.note(&format!(
            "Generation {} of the profile is in use at {to}{before}; programs are in {}.",
            installed.generation, installed.bin
        ));
        if let Some(previous) = installed.previous {
            let back = to.command_here(&format!("rollback {previous}"));
            context.ui.note(&format!("Back: `{back}`"));
        }
    }
    Ok(Outcome::Done)
}

fn tell_waiting(address: &SshAddress, context: &Context) {
    context.ui.note(&format!("Waiting for {address} to answer."));
}

/// What each target is called in a profile.
fn packages(work: &Work) -> anyhow::Result<Vec<Named>> {
    let named = |target: &Target| match target {
        Target::Package(name) => Ok(Named {
            name: name.0.clone(),
            path: work.path(&work.plan.packages[name]),
        }),
        Target::Path(path) => Ok(Named {
            name: crate::profile::name_of(path),
            path: path.clone(),
        }),
        Target::Image(name) => Err(advised(
            format!("`{name}` is an image, and packages are installed"),
            "name the package, or push the image: `layerize push`",
        )),
        Target::Nix(path) => Err(advised(
            format!("`{}` is a path of a Nix store", StoreDir::nix().join(path)),
            "install it with Nix",
        )),
    };
    work.targets.iter().map(named).collect()
}

fn copy_from(args: &CopyClosureArgs, from: &SshAddress, context: &Context) -> anyhow::Result<Outcome> {
    let store = context.environment.store()?;
    store.check_writable()?;
    let configured = context.config.nix_trusted_keys.iter().map(|key| key.parse());
    let trust = Trust {
        keys: args
            .trusted_key
            .iter()
            .cloned()
            .map(Ok)
            .chain(configured)
            .collect::<Result<_, _>>()?,
        unsigned: args.no_check_sigs,
    };
    let mut line = PeerLine::open(from, false, || tell_waiting(from, context))?;
    let judge = |info: &_, signatures: &_| trust.check_signed(info, signatures, &StoreDir::layerize());
    let copied = line.copy_from(&store, &args.targets, &judge, context.ui)?;
    context.ui.clear();
    tell(&copied, &format!("copied from {from}"), context)?;
    Ok(Outcome::Done)
}

/// What was done, for programs.
fn result(copied: &Copied, installed: Option<&Installed>) -> serde_json::Value {
    let dir = StoreDir::layerize();
    let paths = |paths: &[StorePath]| paths.iter().map(|path| dir.join(path)).collect::<Vec<_>>();
    let mut value = json!({
        "roots": paths(&copied.roots),
        "copied": paths(&copied.copied),
        "bytes": copied.bytes,
        "there": copied.there,
    });
    if let Some(installed) = installed {
        value["generation"] = json!(installed.generation);
        value["previous"] = json!(installed.previous);
        value["bin"] = json!(installed.bin);
    }
    value
}

fn tell(copied: &Copied, how: &str, context: &Context) -> anyhow::Result<()> {
    let dir = StoreDir::layerize();
    if context.ui.json() {
        context.ui.data(&result(copied, None).to_string())?;
        return Ok(());
    }
    for root in &copied.roots {
        context.ui.data(&dir.join(root))?;
    }
    let count = match copied.copied.len() {
        1 => "1 store path".to_owned(),
        count => format!("{count} store paths"),
    };
    let bytes = size(copied.bytes);
    context
        .ui
        .note(&format!("{count} ({bytes}) {how}; {} were there before.", copied.there));
    Ok(())
}
