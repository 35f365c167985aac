//! *Tools* that end up in what a package refers to: told each time, whether the package is built or reused.
//!
//! Invariant: nothing is opened; what the store recorded when it took the package in is enough.

use std::collections::BTreeSet;

use super::BuildError;
use crate::derive::{Action, Derivation, Input};
use crate::event::{Event, Reporter};
use crate::store::Store;
use crate::store_path::StorePath;

/// Warns of the tools that `path`, which `derivation` made, refers to: what only the build needs makes an image large, and
/// rarely is what the program needs.
pub(super) fn warn_of_tools<'p>(
    store: &Store,
    derivation: &Derivation,
    path: &StorePath,
    path_of: impl Fn(&Input) -> Option<&'p StorePath>,
    reporter: &dyn Reporter,
) -> Result<(), BuildError> {
    let Action::Script(script) = &derivation.action else {
        return Ok(());
    };
    let wanted: BTreeSet<&Input> = script.libraries.iter().chain(&script.runtime).collect();
    let tools: Vec<&Input> = script.tools.iter().filter(|tool| !wanted.contains(tool)).collect();
    if tools.is_empty() {
        return Ok(());
    }
    let references = store.info_full(path)?.map(|details| details.evidence);
    let references = references.unwrap_or_default();
    for tool in tools {
        let Some((tool_path, evidence)) = path_of(tool).and_then(|path| references.get_key_value(path)) else {
            continue;
        };
        let name = script.name_of(tool, tool_path);
        reporter.report(Event::Warning {
            text: format!(
                "`{}` keeps its tool `{name}` in its closure ({evidence}): if the program needs it, move it to \
                 `runtime`; if not, `strip-references = [\"{name}\"]` takes its path out, and `no-references = \
                 [\"{name}\"]` makes it an error",
                derivation.label
            ),
        });
    }
    Ok(())
}
