//! *Documents*: the config and manifest of an image, from its settings and packed layers.
//!
//! Invariant: written by [`Raw::write`] from `oci`'s types, so that their bytes change with no release of a dependency.
//! What is empty is left out, never `null`. The shape, part of the numbered format:
//!
//! - config (OCI image-spec, config.md): `architecture`, `os`, `variant` where the platform has one, `created`,
//!   `config` with what the spec gives (`Env` sorted by name and always with `PATH`), `rootfs.diff_ids`, and one
//!   `history` entry a layer, whose `created_by` is `layerize` and whose `comment` says what the layer holds;
//! - manifest (manifest.md): schema 2, OCI's media types, the user's annotations and `dev.layerize.format`;
//! - a layer's descriptor says in `dev.layerize.store-paths` which store paths it holds and in `dev.layerize.packages`
//!   which Debian packages (`NAME=VERSION`), in both separated by single spaces. Registries refuse manifests above
//!   4 MiB, so that where all lists together are longer than [`LISTS_SIZE_MAX`], no layer has one.

use super::base::{Base, BaseParts};
use super::error::ImageError;
use super::format::Format;
use super::settings::Settings;
use super::value::{Image, ImageLayer};
use crate::layer::PackedLayer;
use crate::oci::{
    Annotations, Config, ConfigDocument, Descriptor, DocumentError, Execution, History, Manifest, MediaType, Platform,
    Port, Raw,
};
use crate::store_path::LogicalPath;

/// Annotation of the manifest: the [`Format`] by which the image was made.
pub const FORMAT_ANNOTATION: &str = "dev.layerize.format";
/// Annotation of a layer's descriptor: the store paths in it.
pub const STORE_PATHS_ANNOTATION: &str = "dev.layerize.store-paths";
/// Annotation of a layer's descriptor: the Debian packages in it.
pub const PACKAGES_ANNOTATION: &str = "dev.layerize.packages";

/// Most bytes that the lists of all layers may have together.
pub const LISTS_SIZE_MAX: usize = 512 << 10;

const AUTHOR: &str = "layerize";

/// Makes the image of a base's layers, if there is one, and packed layers over them; `packages` are each packed layer's
/// Debian packages. Documents that no registry takes and nobody reads back are an error.
pub(super) fn write(
    settings: &Settings,
    platform: &Platform,
    created: &str,
    base: Option<(&Base, &BaseParts)>,
    packed: Vec<PackedLayer>,
    packages: &[Vec<String>],
    format: Format,
) -> Result<Image, ImageError> {
    let comments: Vec<_> = packed.iter().map(|layer| layer.comment.clone()).collect();
    let lists = lists(&packed, packages);
    let own = packed.into_iter().zip(lists).map(|(layer, annotations)| {
        let media_type = layer.compression.media_type();
        let descriptor = Descriptor {
            annotations,
            ..Descriptor::new(media_type, layer.digest, layer.size)
        };
        ImageLayer::packed(descriptor, layer)
    });
    let (mut layers, mut history) = base.map_or_else(Default::default, |(_, parts)| {
        (parts.layers.clone(), parts.history.clone())
    });
    layers.extend(own);
    history.extend(comments.into_iter().map(|comment| History {
        created: Some(created.to_owned()),
        created_by: Some(AUTHOR.to_owned()),
        comment: Some(comment).filter(|comment| !comment.is_empty()),
        ..History::default()
    }));
    let config = Raw::write(Config {
        architecture: platform.architecture().to_owned(),
        os: platform.os().to_owned(),
        os_version: None,
        variant: platform.variant().map(str::to_owned),
        created: Some(created.to_owned()),
        execution: execution(settings),
        diff_ids: layers.iter().filter_map(|layer| layer.diff_id).collect(),
        history,
    })
    .map_err(too_large)?;
    let mut annotations = settings.annotations.clone();
    annotations.insert(FORMAT_ANNOTATION.to_owned(), format.to_string());
    let manifest = Raw::write(Manifest::new(
        Descriptor::new(MediaType::CONFIG, config.digest(), config.size()),
        layers.iter().map(|layer| layer.descriptor.clone()).collect(),
        annotations,
    ))
    .map_err(too_large)?;
    Ok(Image {
        manifest,
        config: ConfigDocument::Image(config),
        layers,
    })
}

fn too_large(error: DocumentError) -> ImageError {
    ImageError::Document(Box::new(error))
}

/// What each packed layer's descriptor says of its content.
fn lists(layers: &[PackedLayer], packages: &[Vec<String>]) -> Vec<Annotations> {
    let lists: Vec<_> = layers
        .iter()
        .zip(packages)
        .map(|(layer, packages)| {
            [
                (STORE_PATHS_ANNOTATION, names(&layer.store_paths)),
                (PACKAGES_ANNOTATION, packages.join(" ")),
            ]
        })
        .collect();
    let size: usize = lists.iter().flatten().map(|(_, list)| list.len()).sum();
    let annotations = |lists: [(&str, String); 2]| {
        let told = lists
            .into_iter()
            .filter(|(_, list)| !list.is_empty() && size <= LISTS_SIZE_MAX);
        told.map(|(key, list)| (key.to_owned(), list)).collect()
    };
    lists.into_iter().map(annotations).collect()
}

/// Store paths as an annotation lists them.
fn names(paths: &[LogicalPath]) -> String {
    let names: Vec<&str> = paths.iter().map(LogicalPath::as_str).collect();
    names.join(" ")
}

fn execution(settings: &Settings) -> Execution {
    let env = settings.env.iter().map(|(name, value)| format!("{name}={value}"));
    Execution {
        user: settings.user.clone(),
        exposed_ports: settings.ports.iter().map(Port::to_string).collect(),
        env: env.collect(),
        entrypoint: settings.entrypoint.clone(),
        cmd: settings.cmd.clone(),
        volumes: settings.volumes.clone(),
        working_dir: settings.workdir.clone(),
        labels: settings.labels.clone(),
        stop_signal: settings.stop_signal.clone(),
        others: settings.rest.clone(),
    }
}
