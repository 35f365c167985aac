//! An *opened image* is a source's manifest and config, read and parsed once.
//!
//! Invariant: both documents are kept as bytes and as values; every layer of the manifest is listed, with its diffID
//! where the config has one for it.

use serde_json::Value;

use super::AuditError;
use crate::digest::DiffId;
use crate::oci::{Config, Descriptor, History, Manifest, Raw};
use crate::transport::{Source, TransportError};

/// Most values of a document that are held as such.
const VALUES_MAX: usize = 200_000;

/// Most layers that are looked at; no engine stacks a tenth of them.
const LAYERS_MAX: usize = 10_000;

/// Manifest and config of an image.
pub(super) struct Opened<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) manifest: Raw<Manifest>,
    pub(super) manifest_value: Value,
    pub(super) config: Raw<Config>,
    pub(super) config_value: Value,
    pub(super) layers: Vec<OpenedLayer>,
}

/// A layer as the documents describe it.
#[derive(Debug, Clone)]
pub(super) struct OpenedLayer {
    pub(super) descriptor: Descriptor,
    /// `None` where the config has too few.
    pub(super) diff_id: Option<DiffId>,
}

impl<'a> Opened<'a> {
    pub(super) fn new(source: &'a dyn Source) -> Result<Self, AuditError> {
        let place = source.place();
        let manifest = source.manifest()?;
        check_values(manifest.bytes(), place, "the manifest")?;
        let config = source.config()?;
        check_values(config.bytes(), place, "the config")?;
        if manifest.layers.len() > LAYERS_MAX {
            return Err(TransportError::Malformed {
                place: place.to_owned(),
                what: "the manifest".to_owned(),
                reason: format!(
                    "it has {} layers, and at most {LAYERS_MAX} are looked at",
                    manifest.layers.len()
                ),
            }
            .into());
        }
        let layers = manifest.layers.iter().enumerate();
        let layers = layers.map(|(index, descriptor)| OpenedLayer {
            descriptor: descriptor.clone(),
            diff_id: config.diff_ids.get(index).copied(),
        });
        Ok(Self {
            source,
            manifest_value: manifest.json(),
            config_value: config.json(),
            layers: layers.collect(),
            manifest,
            config,
        })
    }

    /// The layers for a report.
    pub(super) fn side_layers(&self) -> Vec<super::SideLayer> {
        let history = self.layer_history();
        let comment = |index: usize| {
            let entry = history.get(index)?;
            entry.comment.as_deref().or(entry.created_by.as_deref())
        };
        let layers = self.layers.iter().enumerate();
        layers
            .map(|(index, layer)| super::SideLayer {
                digest: layer.descriptor.digest,
                diff_id: layer.diff_id,
                size: layer.descriptor.size,
                holds: super::diff::holds(&layer.descriptor, comment(index)),
            })
            .collect()
    }

    /// The history entries that made layers, in the layers' order.
    pub(super) fn layer_history(&self) -> Vec<&History> {
        let history = self.config.history.iter();
        history.filter(|entry| !entry.is_empty_layer()).collect()
    }
}

/// Refuses a document of so many values that holding it as such, several times in a comparison, would take more memory than
/// there is for it: a value costs some hundred bytes where its text may have two. What commas stand in strings is counted too.
pub(super) fn check_values(bytes: &[u8], place: &str, what: &str) -> Result<(), TransportError> {
    if memchr::memchr_iter(b',', bytes).count() <= VALUES_MAX {
        return Ok(());
    }
    Err(TransportError::Malformed {
        place: place.to_owned(),
        what: what.to_owned(),
        reason: format!("it has more than {VALUES_MAX} values: this is not an image to run"),
    })
}
