//! An *image* is a config, a manifest and layers as one immutable value with its raw bytes.
//!
//! Invariant: manifest and config are canonical JSON, their digests are of exactly these bytes, and the
//! config's diffIDs are the layers' in order. [`assemble`] depends on its request alone: not on the clock, the umask,
//! the machine, the number of threads, or whether it finds anything in its caches.
//!
//! The way there: `settings` (the spec's values, checked) and `sources` (its files, read) → `layout` (the whole file
//! system: `root`, `join`, `files`, `accounts`) → `program` (does the command start?) → [`plan()`] and `cut` (which
//! layer holds what; below them all may lie a `base`) → [`layer::pack`] → `document` (config and manifest). `cache` remembers the outcome of the middle.

mod accounts;
mod base;
mod cache;
mod cut;
mod document;
mod error;
mod filesystem;
mod index;
mod join;
mod layout;
mod permissions;
mod plan;
mod program;
mod request;
mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod timestamp;
mod validate;

pub use base::{Base, needs_accounts};
pub use cache::ImageCache;
pub use document::{FORMAT_ANNOTATION, LISTS_SIZE_MAX, PACKAGES_ANNOTATION, STORE_PATHS_ANNOTATION};
pub use error::{Collision, ImageError};
pub use index::{Index, IndexError, platform_of};
pub use plan::{closure_graph, explain, fits, plan, plan_fleet, replan, root_path};
pub use request::{ClosureMember, ContentRoot, Generated, GeneratedKind, ImageRequest, RootPackage};
pub use settings::DEFAULT_PATH;
pub use sources::local_files;
pub use timestamp::{parse as parse_time, rfc3339 as format_time};
pub use validate::{Fault, validate};

use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::layer::{self, Layer, PackOptions};
use base::BaseParts;
use cut::Cut;
use settings::Settings;

/// A whole image, ready for a sink.
#[derive(Debug, Clone)]
pub struct Image {
    /// Canonical bytes of the manifest.
    pub manifest: Vec<u8>,
    /// Digest of `manifest`: the image's digest.
    pub digest: Digest,
    /// Canonical bytes of the config.
    pub config: Vec<u8>,
    /// Digest of `config`: the image ID that Docker shows.
    pub config_digest: Digest,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

/// Makes an image: lays it out, checks that its command can start, cuts it into layers and packs them.
///
/// With `cache`, and a layer cache among the pack options, an image that was made before costs no look at any store
/// path. Errors name the spec's field, the path in the image and the store paths that are to blame.
pub fn assemble(
    request: &ImageRequest<'_>,
    options: &PackOptions<'_>,
    cache: Option<&ImageCache>,
    reporter: &dyn Reporter,
) -> Result<Image, ImageError> {
    let own = Settings::new(request.spec)?;
    let sources = sources::read(request.spec)?;
    let created = timestamp::rfc3339(request.created).ok_or(ImageError::Created {
        seconds: request.created,
    })?;
    if !request.platform.is_known() {
        return Err(ImageError::Platform {
            platform: request.platform.clone(),
        });
    }
    let base = request
        .base
        .as_ref()
        .map(|base| BaseParts::new(base, &request.platform))
        .transpose()?;
    let settings = match &base {
        Some(base) => base.merge(own, request.spec),
        None => own,
    };
    let finish = |cuts: Vec<Cut>| -> Result<Image, ImageError> {
        let (inputs, packages): (Vec<_>, Vec<_>) = cuts.into_iter().map(|cut| (cut.input, cut.packages)).unzip();
        let layers = layer::pack(&inputs, options, reporter)?;
        let below = request.base.as_ref().zip(base.as_ref());
        Ok(document::write(
            &settings,
            &request.platform,
            &created,
            below,
            layers,
            &packages,
            options.profile,
        ))
    };
    let identity = plan::identity(request);
    let key = cache::key(request, &sources, &identity);
    // Store paths never change, the user's files do: an image of half an edit is no image of either state.
    let unchanged =
        || -> Result<bool, ImageError> { Ok(cache::key(request, &sources::read(request.spec)?, &identity) == key) };
    if let Some((cache, cuts)) = cache.and_then(|cache| Some((cache, cache.get(&key, request)?))) {
        // Where the layer cache lost what this record speaks of, and the files are gone too, the long way says so.
        if let Ok(image) = finish(cuts) {
            if unchanged()? {
                return Ok(image);
            }
            cache.remove(&key);
            return Err(ImageError::FilesChanged);
        }
    }
    let plan = plan::plan(request)?;
    let layout = layout::lay_out(request, &settings, &sources)?;
    program::check(&settings, &layout.files, &request.platform, request.base.is_some())?;
    let cuts = cut::cut(request, &layout, &plan)?;
    let record = cache.and_then(|_| cache::record(&cuts, request));
    let image = finish(cuts)?;
    if !unchanged()? {
        return Err(ImageError::FilesChanged);
    }
    if let (Some(cache), Some(record)) = (cache, record)
        && let Err(error) = cache.put(&key, &record)
    {
        // A cache that cannot be written costs the next build its time, not this one its image.
        reporter.report(Event::Warning {
            text: format!("the image cache is left out: {error}: {}", error.source),
        });
    }
    Ok(image)
}
