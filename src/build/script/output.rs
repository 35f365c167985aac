//! The *output* of a script: whether it is one, its run paths, and what it may and does refer to.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{NAMES_SHOWN, PreparedScript, ScriptStep};
use crate::build::BuildError;
use crate::build::error::Reason;
use crate::build::fixup::{self, Missing, Places};
use crate::build::link::{self, Linkage};
use crate::event::Event;
use crate::fsio::{IoContext, normalize, sorted_names};
use crate::sandbox::Outcome;
use crate::sandbox::emulator::Processor;
use crate::store::{Declare, NewOutput};
use crate::store_path::{StoreDir, StorePath};

impl ScriptStep<'_> {
    /// What is wrong with how the script ended and with what it left; `None`: nothing.
    pub(super) fn judge(&self, prepared: &PreparedScript<'_>, outcome: Outcome) -> Result<Option<Reason>, BuildError> {
        let out = OsString::from(prepared.scratch.to_string());
        match outcome {
            Outcome::Exited(0) => {}
            Outcome::Exited(status) => return Ok(Some(Reason::Status(status))),
            Outcome::Signaled(signal) => return Ok(Some(Reason::Signal(signal))),
            Outcome::TimedOut => return Ok(Some(Reason::TimedOut(self.script.timeout_seconds.unwrap_or(0)))),
            Outcome::Exceeded(bound) => return Ok(Some(Reason::Exceeded(bound, self.options.bounds))),
            Outcome::Cancelled => return Err(BuildError::Cancelled),
        }
        // Without walls it is the store itself.
        if prepared.place.is_none() {
            let mut others = sorted_names(&prepared.store)?;
            others.retain(|name| *name != out && !is_visible(name, &prepared.visible));
            if !others.is_empty() {
                others.truncate(NAMES_SHOWN);
                let names = others.iter().map(|name| name.to_string_lossy().into_owned()).collect();
                return Ok(Some(Reason::OutsideOutput(names)));
            }
        }
        let made = prepared.store.join(out);
        match made.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => {
                let target = fs::read_link(&made).context("read the link", &made)?;
                let reason = (!self.stays_in_store(prepared, &target)).then_some(Reason::LeadsOut(target));
                Ok(reason)
            }
            Ok(_) => Ok(None),
            Err(_) => Ok(Some(Reason::NoOutput)),
        }
    }

    /// Whether a link at `$out` leads into one of the paths that the script was given: all else is gone afterwards.
    fn stays_in_store(&self, prepared: &PreparedScript<'_>, target: &Path) -> bool {
        let below = normalize(&Path::new(StoreDir::LAYERIZE).join(target));
        let Ok(below) = below.strip_prefix(StoreDir::LAYERIZE) else {
            return false;
        };
        let first = below.components().next().map(|name| name.as_os_str().to_owned());
        first.is_some_and(|name| is_visible(&name, &prepared.visible))
            && self.store.dir().join("store").join(below).symlink_metadata().is_ok()
    }

    /// Takes the output from where the script made it, and shrinks its run paths.
    pub(super) fn take_output(&self, prepared: &PreparedScript<'_>) -> Result<PathBuf, BuildError> {
        let tree = prepared.staging.path().join("output");
        match &prepared.place {
            Some(place) => place.take(&tree)?,
            None => {
                let made = prepared.store.join(prepared.scratch.to_string());
                fs::rename(&made, &tree).context("move", &made)?;
            }
        }
        self.store.check_output(&tree, &self.derivation.name)?;
        let logical = StoreDir::layerize().join(&prepared.scratch);
        let missing = fixup::fix(&Places {
            logical: &logical,
            tree: &tree,
            store: &self.store.dir().join("store"),
            linkage: &Linkage::of_script(self.store, self.script, self.paths)?,
            kept: &link::kept_on_run_paths(self.script, self.paths),
        })?;
        if self.script.is_cross() {
            self.check_target(&tree)?;
        }
        if self.variations.is_empty() {
            self.warn_of(&missing);
        }
        Ok(tree)
    }

    /// Refuses what a compiler of this machine's own made, where another's was to be used.
    fn check_target(&self, tree: &Path) -> Result<(), BuildError> {
        let Some(processor) = Processor::of_system(&self.script.system) else {
            return Ok(());
        };
        let mut files = fixup::programs_for(tree, processor)?;
        if files.is_empty() {
            return Ok(());
        }
        files.truncate(NAMES_SHOWN);
        Err(BuildError::NotForTarget {
            label: self.derivation.label.clone(),
            target: self.script.target().to_owned(),
            machine: self.script.system.clone(),
            files,
        })
    }

    /// What is to enter the store.
    pub(super) fn new_output<'a>(
        &self,
        prepared: &'a PreparedScript<'_>,
        tree: &'a Path,
        declare: &'a Declare<'a>,
    ) -> NewOutput<'a>
    where
        Self: 'a,
    {
        NewOutput {
            name: self.derivation.name.as_str(),
            tree,
            candidates: &prepared.visible,
            declare,
            derivation: Some(self.digest),
            policy: &prepared.policy,
            walls: prepared.walls,
            execution: self.execution,
        }
    }

    /// References besides those found: what found Debian packages depend on, and `runtime` with what it depends on.
    pub(super) fn declare(&self, found: &BTreeSet<StorePath>) -> Vec<(StorePath, StorePath)> {
        let runtime: BTreeSet<&StorePath> = self
            .script
            .runtime
            .iter()
            .filter_map(|input| self.path_of(input))
            .collect();
        let mut declared: BTreeSet<(StorePath, StorePath)> =
            runtime.iter().map(|&path| (path.clone(), path.clone())).collect();
        for (package, needs) in &self.script.declared {
            let Some(via) = self
                .path_of(package)
                .filter(|path| found.contains(path) || runtime.contains(path))
            else {
                continue;
            };
            let needs = needs.iter().filter_map(|input| self.path_of(input));
            declared.extend(needs.map(|path| (path.clone(), via.clone())));
        }
        declared.into_iter().collect()
    }

    /// Says which programs and libraries will be looked for outside the store.
    fn warn_of(&self, missing: &Missing) {
        if missing.is_empty() || self.script.prebuilt {
            return;
        }
        let label = &self.derivation.label;
        let mut named: Vec<String> = missing
            .iter()
            .map(|(name, file)| format!("`{name}` (for `{file}`)"))
            .collect();
        if named.len() > NAMES_SHOWN {
            let more = named.split_off(NAMES_SHOWN).len();
            named.push(format!("{more} more"));
        }
        let advice = match self.script.libraries.is_empty() {
            true => "`libraries = [\"deb:libc6-dev\"]` links it to the store",
            false => "add the Debian packages that have them to `libraries`",
        };
        self.reporter.report(Event::Warning {
            text: format!(
                "`{label}` needs {} from outside the store: it runs only where that is installed, as in an image \
                 whose `root` has it; {advice}",
                named.join(", ")
            ),
        });
    }
}

fn is_visible(name: &OsString, visible: &BTreeSet<StorePath>) -> bool {
    let path = name.to_str().and_then(|name| name.parse().ok());
    path.is_some_and(|path: StorePath| visible.contains(&path))
}
