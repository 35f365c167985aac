//! From drafts to *named images*, assembled and ready to be written.
//!
//! Invariant: an image depends on its draft's recipe alone; what was kept from earlier builds only saves time.

use std::collections::{BTreeMap, BTreeSet};
#[cfg(debug_assertions)]
use std::sync::{Mutex, PoisonError};

#[cfg(debug_assertions)]
use crate::audit;
use crate::digest::Digest;
use crate::image::{self, Image, ImageError, ImageIndex, Resources};
use crate::layer::LayerError;
use crate::oci::Platform;
use crate::spec::machine_architecture;
use crate::store_path::{StoreDir, StorePath};
use crate::transport::Content;
#[cfg(debug_assertions)]
use crate::transport::Source;

use super::draft::{Draft, drafts};
use super::environment::Environment;
use super::error::ProjectError;
use super::missing;
use super::options::ImageOptions;
use super::target::Target;
use super::work::Work;

/// An assembled image with its names.
#[derive(Clone)]
pub struct NamedImage {
    /// What the user calls it; names the default archive.
    pub name: String,
    /// `NAME:TAG`, for the sinks.
    pub names: Vec<String>,
    /// What it was made from.
    pub draft: Draft,
    /// The image; where it is made for several platforms, the machine's own, else the first.
    pub image: Image,
    /// The images for all platforms, where there are several.
    pub index: Option<ImageIndex>,
    /// The image for each platform by itself, where there are several; of an image of the spec.
    pub parts: Vec<NamedImage>,
}

impl NamedImage {
    /// The image of a draft, alone and under the draft's name.
    fn new(image: Image, draft: Draft) -> Self {
        let name = draft.name().to_owned();
        Self {
            names: vec![draft.recipe.spec.reference()],
            name,
            draft,
            image,
            index: None,
            parts: Vec::new(),
        }
    }

    /// The images of a spec for several platforms under the name that they share.
    fn joined(mut parts: Vec<Self>) -> Result<Self, ProjectError> {
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return Ok(only);
        }
        let images = parts.iter().map(|part| part.image.clone()).collect();
        let index = ImageIndex::new(images, BTreeMap::new())?;
        let machine = Platform::from_debian(machine_architecture());
        let own = parts
            .iter()
            .find(|part| Some(&part.draft.recipe.platform) == machine.as_ref());
        let Self {
            name,
            names,
            draft,
            image,
            ..
        } = own.unwrap_or(&parts[0]).clone();
        Ok(Self {
            name,
            names,
            draft,
            image,
            index: Some(index),
            parts,
        })
    }

    /// It for each platform by itself.
    pub fn each(&self) -> impl Iterator<Item = &Self> {
        let alone = self.parts.is_empty().then_some(self);
        alone.into_iter().chain(&self.parts)
    }

    /// What a place that holds one image gets, where that is not all of them: the machine's own.
    ///
    /// # Errors
    ///
    /// An image for several platforms, none of which is the machine's.
    pub fn own(&self) -> Result<&Self, ProjectError> {
        let machine = Platform::from_debian(machine_architecture());
        let is_own = |part: &&Self| self.parts.is_empty() || Some(&part.draft.recipe.platform) == machine.as_ref();
        self.each().find(is_own).ok_or_else(|| ProjectError::NotForMachine {
            name: format!("image `{}`", self.name),
            platforms: self.each().map(|part| part.draft.recipe.platform.clone()).collect(),
            machine: machine.map(Box::new),
        })
    }

    /// What is to be written: the image, or all of them.
    pub fn content(&self) -> Content {
        match &self.index {
            Some(index) => Content::Index(index.clone()),
            None => Content::Image(self.image.clone()),
        }
    }
}

/// Assembles all images among the targets; all store paths among them make up one.
pub fn images(
    work: &Work,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Vec<NamedImage>, ProjectError> {
    if options.platforms.len() > 1 && work.targets.iter().any(Target::is_path) {
        return for_platforms(work, options, environment);
    }
    let mut by_name: Vec<Vec<NamedImage>> = Vec::new();
    for work in work.everywhere() {
        for named in images_here(work, options, environment)? {
            match by_name.iter_mut().find(|parts| parts[0].name == named.name) {
                Some(parts) if !work.targets.iter().any(Target::is_path) => parts.push(named),
                _ => by_name.push(vec![named]),
            }
        }
    }
    for target in work
        .everywhere()
        .flat_map(|work| &work.targets)
        .collect::<BTreeSet<_>>()
    {
        if let Target::Image(_) = target {
            work.add_root(target)?;
        }
    }
    by_name.into_iter().map(NamedImage::joined).collect()
}

/// Assembles the images of one platform.
fn images_here(
    work: &Work,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Vec<NamedImage>, ProjectError> {
    let mut images = Vec::new();
    for draft in drafts(work, options, environment)? {
        if let Some(kept) = draft.kept.as_ref().filter(|_| work.options.locked) {
            kept.refuse_other(draft.recipe.plan.as_ref())?;
        }
        work.nix.note_missing_records(environment.reporter);
        let named = NamedImage::new(assemble_mending(&draft, work, environment)?, draft);
        if let (Some(kept), Some(plan)) = (&named.draft.kept, &named.draft.recipe.plan)
            && !kept.overridden
        {
            kept.keep(plan, environment.reporter)?;
        }
        images.push(named);
    }
    Ok(images)
}

/// Assembles an image; a store path that turns out not to be what was registered is made again first.
fn assemble_mending(draft: &Draft, work: &Work, environment: &Environment<'_>) -> Result<Image, ProjectError> {
    let mut tried = BTreeSet::new();
    loop {
        let error = match image_of(draft, environment) {
            Ok(image) => return Ok(image),
            Err(error) => error,
        };
        let changed = changed_path(&error).filter(|path| tried.insert(path.clone()));
        match changed {
            Some(path) if work.mend(&path, environment)? => {}
            _ => return Err(missing::name_packages(work.nix.explained(error), work)),
        }
    }
}

/// The path of layerize's store that was packed and is not what was registered, where that is what went wrong.
fn changed_path(error: &ProjectError) -> Option<StorePath> {
    let ProjectError::Making { source, .. } = error else {
        return None;
    };
    match &**source {
        ImageError::Layer(LayerError::Changed { path, .. }) => path.in_store(StoreDir::LAYERIZE).cloned(),
        _ => None,
    }
}

/// The image of store paths for several platforms. What only runs on one of them is found by the check of its program.
fn for_platforms(
    work: &Work,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Vec<NamedImage>, ProjectError> {
    let mut all: Vec<NamedImage> = Vec::new();
    for platform in &options.platforms {
        let options = ImageOptions {
            platforms: vec![platform.clone()],
            ..options.clone()
        };
        all.extend(images(work, &options, environment)?);
    }
    let images = all.iter().map(|named| named.image.clone()).collect();
    let index = ImageIndex::new(images, BTreeMap::new())?;
    let first = all.into_iter().next();
    Ok(first
        .map(|named| NamedImage {
            index: Some(index),
            ..named
        })
        .into_iter()
        .collect())
}

/// Assembles the image of a draft.
pub fn assemble(draft: Draft, environment: &Environment<'_>) -> Result<NamedImage, ProjectError> {
    Ok(NamedImage::new(image_of(&draft, environment)?, draft))
}

fn image_of(draft: &Draft, environment: &Environment<'_>) -> Result<Image, ProjectError> {
    let (layers, images) = (environment.layer_cache()?, environment.image_cache()?);
    let resources = Resources {
        threads: draft.threads,
        layers: Some(&layers),
        images: Some(&images),
    };
    let image = image::assemble(&draft.recipe, &resources, environment.reporter)
        .map_err(|source| ProjectError::making(draft.name(), source))?;
    #[cfg(debug_assertions)]
    assert_sound(&image, draft.recipe.base.as_ref());
    Ok(image)
}

/// Ends the program where the one validator finds something wrong with an image that was just made: debug builds do it, so
/// that every test that makes an image is a test of its documents and layers as well. An image is looked at once in a
/// process. What lies in a base's place is the base's, and is not fetched for this.
#[cfg(debug_assertions)]
fn assert_sound(image: &Image, base: Option<&image::Base>) {
    static SEEN: Mutex<BTreeSet<Digest>> = Mutex::new(BTreeSet::new());
    if !SEEN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(image.digest())
    {
        return;
    }
    let below = base.map_or(0, |base| base.image.layers.len());
    let report = audit::verify_above(image, below).expect("a built image has a manifest");
    assert!(
        report.ok() || image.layers.iter().skip(below).any(|layer| is_damaged(image, layer)),
        "layerize made an image with faults:\n{}",
        report.render()
    );
}

/// Whether the kept bytes of a layer are no longer those that were packed: a damaged cache is noticed when the layer is
/// written, and the layer is packed anew.
#[cfg(debug_assertions)]
fn is_damaged(image: &Image, layer: &image::ImageLayer) -> bool {
    let whole = Source::blob(image, &layer.digest(), layer.descriptor.size)
        .map(|mut blob| std::io::copy(&mut blob, &mut std::io::sink()));
    !matches!(whole, Ok(Ok(_)))
}

/// Assembles an image once more, with one thread and without anything that was kept; gives its digest.
pub fn digest_from_scratch(draft: &Draft, environment: &Environment<'_>) -> Result<Digest, ProjectError> {
    let resources = Resources {
        threads: 1,
        ..Resources::default()
    };
    Ok(image::assemble(&draft.recipe, &resources, environment.reporter)?.digest())
}

/// The file that an image is written to where nothing else is asked for.
pub fn archive_name(image: &str) -> String {
    format!("{}.tar", image.rsplit('/').next().unwrap_or(image))
}

#[cfg(debug_assertions)]
#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::digest::DiffId;
    use crate::image::ImageLayer;
    use crate::layer::Blob;
    use crate::oci::Compression;
    use crate::transport::testing::{Node, changed_manifest, config, image_of, layer, tar};

    /// A layer that no other test has, so that its image was not looked at before.
    fn layer_with(text: &str) -> ImageLayer {
        layer(&tar(&[Node::file("hello", text)]), Compression::default())
    }

    /// An image of one layer whose config `change` was made to.
    fn with_config(text: &str, change: impl FnOnce(&mut Value)) -> Image {
        let layer = layer_with(text);
        let mut config = config(&[layer.diff_id.unwrap()]);
        change(&mut config);
        image_of(vec![layer], &config, None)
    }

    /// What debug builds say of an image, if they end.
    fn complaint(image: &Image) -> Option<String> {
        let caught = catch_unwind(AssertUnwindSafe(|| assert_sound(image, None)));
        caught.err().map(|payload| *payload.downcast::<String>().unwrap())
    }

    #[test]
    fn debug_builds_end_over_a_faulty_image() {
        assert_eq!(complaint(&with_config("sound", |_| {})), None);
        let other: DiffId = layer_with("another layer").diff_id.unwrap();
        let faulty = [
            (
                with_config("diffID", |config| config["rootfs"]["diff_ids"] = json!([other])),
                "diff",
            ),
            (
                with_config("history", |config| config["history"] = json!([{}, {}])),
                "history",
            ),
            (with_config("platform", |config| config["os"] = json!("")), "os"),
            (
                changed_manifest(&with_config("config", |_| {}), |manifest| {
                    manifest["config"]["digest"] = json!(Digest::of(b"another config"));
                }),
                "config",
            ),
        ];
        for (image, part) in &faulty {
            let text = complaint(image).unwrap_or_else(|| panic!("nothing is said of the {part}"));
            assert!(text.starts_with("layerize made an image with faults:\n"), "{text}");
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    /// What a damaged cache holds is packed anew when the image is written: it is no fault of the image's.
    #[test]
    fn debug_builds_go_on_over_a_damaged_cache() {
        let mut image = with_config("damaged", |_| {});
        image.layers[0].content = Blob::Bytes(Arc::from(&b"not what was packed"[..]));
        assert_eq!(complaint(&image), None);
    }
}
