//! A script *over what was kept* of former ones: what was compiled of each crate or package is laid before it, and kept after.
//!
//! Invariant: where laying or keeping fails, the build does not.

use super::{PreparedScript, ScriptStep};
use crate::build::BuildError;
use crate::build::units::UnitCache;
use crate::event::Event;
use crate::store_path::StorePath;
use crate::walls::Walls;

impl ScriptStep<'_> {
    /// [`execute`](Self::execute) over what is known of each crate; where that fails, without it.
    pub(super) fn execute_with(
        &self,
        scratch: &StorePath,
        cache: Option<&UnitCache<'_>>,
    ) -> Result<PreparedScript<'_>, BuildError> {
        let prepared = self.prepare(scratch, None)?;
        let cache = cache.filter(|_| prepared.walls != Walls::None);
        let laid = cache.map_or(Ok(0), |cache| cache.lay(&prepared.build))?;
        match self.run_prepared(prepared) {
            Err(BuildError::Script(failure))
                if laid > 0 && !cache.is_some_and(|cache| cache.fails_without(&failure.tail)) =>
            {
                let label = &self.derivation.label;
                let text = format!("`{label}` failed over what was compiled before; it is run again without");
                self.reporter.report(Event::Note { text });
                self.execute(scratch)
            }
            ran => ran,
        }
    }

    /// Keeps what was compiled on the way to `output`, where that was here and behind walls.
    pub(super) fn keep_units(&self, cache: &UnitCache<'_>, prepared: &PreparedScript<'_>, output: &StorePath) {
        if prepared.at.is_some() || prepared.walls == Walls::None {
            return;
        }
        let label = &self.derivation.label;
        match cache.keep(output, &prepared.build) {
            Ok(not_kept) => {
                for of in not_kept {
                    self.reporter.report(Event::NotKept {
                        name: label.clone(),
                        part: of.package,
                        reason: of.reason,
                    });
                }
            }
            Err(error) => {
                let text = format!("what `{label}` compiled is not kept crate by crate: {error}");
                self.reporter.report(Event::Warning { text });
            }
        }
    }
}
