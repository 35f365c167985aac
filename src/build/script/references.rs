//! The *references* that an output may have, and those that are taken out of it, as its package says.
//!
//! Invariant: a refused reference is told in the words of the spec.

use std::collections::BTreeSet;

use super::ScriptStep;
use crate::build::BuildError;
use crate::build::error::RefusedReference;
use crate::closure;
use crate::derive::Input;
use crate::store::{ReferencePolicy, StoreError};
use crate::store_path::StorePath;

impl ScriptStep<'_> {
    pub(super) fn stripped(&self) -> BTreeSet<StorePath> {
        let stripped = self.script.strip_references.iter();
        stripped.filter_map(|input| self.path_of(input)).cloned().collect()
    }

    /// What the output may not refer to: what leads to a path that may not be in its closure, and what is taken out of it.
    pub(super) fn policy(&self, visible: &BTreeSet<StorePath>) -> Result<ReferencePolicy, BuildError> {
        let unwanted = self.script.no_references.iter();
        let unwanted: BTreeSet<&StorePath> = unwanted.filter_map(|input| self.path_of(input)).collect();
        let mut policy = ReferencePolicy {
            stripped: self.stripped(),
            ..ReferencePolicy::default()
        };
        if unwanted.is_empty() {
            return Ok(policy);
        }
        for path in visible {
            let closure = closure::compute(self.store, &BTreeSet::from([path.clone()]))?;
            if closure.members.iter().any(|member| unwanted.contains(&member.path)) {
                policy.forbidden.insert(path.clone());
            }
        }
        Ok(policy)
    }

    /// A refused reference in the words of the spec.
    pub(super) fn explain(&self, error: StoreError) -> BuildError {
        let StoreError::RefusedReference { path, evidence } = error else {
            return error.into();
        };
        let named = |inputs: &[Input]| {
            let mut inputs = inputs.iter().filter(|input| self.path_of(input) == Some(&path));
            inputs.next().map(|input| self.script.name_of(input, &path))
        };
        let stripped = named(&self.script.strip_references);
        let direct = stripped.clone().or_else(|| named(&self.script.no_references));
        let all = self.script.no_references.iter();
        let all = all.filter_map(|input| Some(self.script.name_of(input, self.path_of(input)?)));
        BuildError::RefusedReference(Box::new(RefusedReference {
            label: self.derivation.label.clone(),
            stripped: stripped.is_some(),
            through: direct.is_none(),
            name: direct.unwrap_or_else(|| all.collect::<Vec<_>>().join("`, `")),
            path,
            evidence: *evidence,
        }))
    }
}
