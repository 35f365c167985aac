//! *Artifacts* are compared as the documents they are: manifests, and configs where they are JSON; blobs by their digests.
//!
//! Invariant: what blobs of an unknown kind hold is not guessed at.

use serde_json::Value;

use super::super::AuditError;
use super::super::artifact::is_artifact;
use super::super::opened::check_values;
use super::{Difference, documents};
use crate::oci::{CONFIG_SIZE_MAX, Manifest, Raw, parse_json};
use crate::transport::{Source, read_blob};

/// What differs between two manifests of which one at least is an artifact's; `None` of two images.
pub(super) fn differences(a: &dyn Source, b: &dyn Source) -> Result<Option<Vec<Difference>>, AuditError> {
    let (x, y) = (a.manifest()?, b.manifest()?);
    if !is_artifact(a, &x) && !is_artifact(b, &y) {
        return Ok(None);
    }
    check_values(x.bytes(), a.place(), "the manifest")?;
    check_values(y.bytes(), b.place(), "the manifest")?;
    let configs = configs((a, &x), (b, &y))?;
    let (mut value_a, mut value_b) = (x.json(), y.json());
    if value_a == value_b {
        let change = documents::encoding("manifest's", x.bytes(), y.bytes());
        return Ok(Some(vec![Difference::Manifest(change)]));
    }
    if configs.is_some() {
        // They follow from the config.
        for config in [&mut value_a["config"], &mut value_b["config"]] {
            if let Some(config) = config.as_object_mut() {
                config.retain(|key, _| !matches!(key.as_str(), "digest" | "size" | "data"));
            }
        }
    }
    let mut changes = documents::whole_manifest(&value_a, &value_b);
    let config = configs
        .map(|(p, q)| documents::whole_config(&p, &q))
        .unwrap_or_default();
    if changes.is_empty() && config.is_empty() {
        // The same values in other bytes.
        changes = documents::whole_manifest(&x.json(), &y.json());
    }
    let changes = changes.into_iter().map(Difference::Manifest);
    Ok(Some(
        changes.chain(config.into_iter().map(Difference::Config)).collect(),
    ))
}

/// The configs of both, where they differ and are JSON.
fn configs(
    (a, x): (&dyn Source, &Raw<Manifest>),
    (b, y): (&dyn Source, &Raw<Manifest>),
) -> Result<Option<(Value, Value)>, AuditError> {
    if x.config.digest == y.config.digest || x.config.size.max(y.config.size) > CONFIG_SIZE_MAX {
        return Ok(None);
    }
    let read = |source: &dyn Source, manifest: &Manifest| -> Result<Option<Value>, AuditError> {
        let bytes = read_blob(source, &manifest.config, CONFIG_SIZE_MAX, "the config")?;
        check_values(&bytes, source.place(), "the config")?;
        Ok(parse_json(&bytes).ok())
    };
    Ok(read(a, x)?.zip(read(b, y)?))
}
