//! An *image* is a config, a manifest and layers as one immutable value with its raw bytes.
//!
//! Invariant: manifest and config are canonical JSON, their digests are of exactly these bytes, and the
//! config's diffIDs are the layers' in order. [`assemble`] depends on its [`Recipe`] alone: not on the clock, the umask,
//! the machine, the number of threads, or whether it finds anything in its caches.
//!
//! The way there: `settings` (the spec's values, checked) and `sources` (its files, read) → `layout` (the whole file
//! system: `root`, `join`, `files`, `accounts`) → `program` (does the command start?) → [`plan()`] and `cut` (which
//! layer holds what; below them all may lie a `base`) → [`layer::pack`] → `document` (config and manifest). `cache` remembers the outcome of the middle.

mod accounts;
mod base;
mod cache;
mod certificates;
mod configured;
mod cut;
mod data;
mod debug;
mod document;
mod error;
mod filesystem;
mod format;
mod index;
mod join;
mod layout;
mod locale;
mod numbers;
mod permissions;
mod plan;
mod program;
mod recipe;
mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod timestamp;
mod value;

pub use accounts::{AccountFile, AccountFiles};
pub use base::{Base, BaseEntry, looked_up, needs_accounts, needs_links};
pub use cache::ImageCache;
pub use debug::{Debug, DebugTree, seen as debug_tools_seen};
pub use document::{FORMAT_ANNOTATION, LISTS_SIZE_MAX, PACKAGES_ANNOTATION, STORE_PATHS_ANNOTATION};
pub use error::{Collision, ImageError};
pub use format::{Format, UnknownFormat};
pub use index::{ImageIndex, IndexError, IndexPart, Listed, platform_of};
pub use numbers::numbers;
pub use plan::{closure_graph, explain, fits, plan, plan_fleet, replan, root_path};
pub use program::{Lack, LoadFault, Owner};
pub use recipe::{ClosureMember, Configured, ContentRoot, Generated, GeneratedKind, Recipe, RootPackage};
pub use settings::DEFAULT_PATH;
pub use sources::local_files;
pub use timestamp::{parse as parse_time, rfc3339 as format_time};
pub use value::{Image, ImageLayer};

use crate::capability;
use crate::event::{Event, Reporter};
use crate::layer::{self, LayerCache, PackOptions};
use crate::root::PackageRecord;
use base::BaseParts;
use cut::Cut;
use settings::Settings;

/// What an image is made with. No digest depends on it.
#[derive(Debug, Default)]
pub struct Resources<'a> {
    /// Number of threads that pack; 0 is as many as the machine has.
    pub threads: usize,
    /// Where packed layers are kept.
    pub layers: Option<&'a LayerCache>,
    /// Where it is kept which layers made up an image.
    pub images: Option<&'a ImageCache>,
}

/// Makes an image: lays it out, checks that its command can start, cuts it into layers and packs them.
///
/// With both caches an image that was made before costs no look at any store path. Errors name the spec's field, the
/// path in the image and the store paths that are to blame.
pub fn assemble(recipe: &Recipe, resources: &Resources<'_>, reporter: &dyn Reporter) -> Result<Image, ImageError> {
    let finish = Finish::new(recipe, resources, reporter)?;
    tell_of_capabilities(recipe, reporter)?;
    let key = recipe.layout_key(cache::VERSION);
    if let Some((cache, cuts)) = resources
        .images
        .and_then(|cache| Some((cache, cache.get(&key, recipe)?)))
    {
        // Where the layer cache lost what this record speaks of, and the files are gone too, the long way says so.
        if let Ok(image) = finish.image(cuts) {
            if recipe.files_are_current()? {
                return Ok(image);
            }
            cache.remove(&key);
            return Err(ImageError::FilesChanged);
        }
    }
    let plan = plan::plan(recipe)?;
    let layout = layout::lay_out(recipe, &finish.settings)?;
    let unknown = program::check(recipe, &finish.settings, &layout.files)?;
    if !unknown.is_empty() {
        reporter.report(Event::Note {
            text: format!("not checked, as it must come from the base: {}", unknown.join(", ")),
        });
    }
    let without_locale = match recipe.base {
        Some(_) => None,
        None => locale::missing(&finish.settings, &layout.files)?,
    };
    if !layout.data.is_empty() {
        let (name, data) = (&recipe.spec.name.value, layout.data.join(", "));
        let text = format!("{name}: joined where libraries of the closure look: {data}");
        reporter.report(Event::Note { text });
    }
    let mut cuts = cut::cut(recipe, &layout, &plan)?;
    let (above, notes) = debug::cut(recipe, &layout, cuts.len())?;
    cuts.extend(above);
    for text in notes {
        reporter.report(Event::Note { text });
    }
    // What is warned of is said each time, and so looked at each time.
    let remembers = without_locale.is_none();
    let record = (resources.images.filter(|_| remembers)).and_then(|_| cache::record(&cuts, recipe));
    if let Some(text) = without_locale {
        reporter.report(Event::Warning { text });
    }
    let image = finish.image(cuts)?;
    // Store paths never change, the user's files do: an image of half an edit is no image of either state.
    if !recipe.files_are_current()? {
        return Err(ImageError::FilesChanged);
    }
    if let (Some(cache), Some(record)) = (resources.images, record)
        && let Err(error) = cache.put(&key, &record)
    {
        // A cache that cannot be written costs the next build its time, not this one its image.
        reporter.report(Event::Warning {
            text: format!("the image cache is left out: {error}: {}", error.source),
        });
    }
    Ok(image)
}

/// Tells which files have capabilities on disk, or would be given some by packages' scripts, that the image does not get.
fn tell_of_capabilities(recipe: &Recipe, reporter: &dyn Reporter) -> Result<(), ImageError> {
    let mut told = vec![("files".to_owned(), sources::capabilities(recipe))];
    if recipe.configured.is_none() {
        for package in &recipe.root {
            for (name, record) in PackageRecord::read_all(&package.physical)? {
                let asked = record.setcap.into_iter().map(|(path, text)| (format!("/{path}"), text));
                told.push((format!("deb:{name}"), asked.collect()));
            }
        }
    }
    let members = recipe.contents.iter().filter_map(|content| {
        let member = recipe.closure.iter().find(|member| member.logical == content.logical)?;
        Some((content, member))
    });
    for (content, member) in members {
        for record in PackageRecord::read_all(&member.physical)?.into_values() {
            // A rule names it by this pattern: the hash of a store path changes.
            let dir = content.logical.dir();
            let asked = record.capabilities.into_iter().chain(record.setcap);
            let asked =
                asked.map(|(path, text)| (format!("{dir}/*-{}/{path}", content.logical.store_path().name()), text));
            told.push((content.name.clone(), asked.collect()));
        }
    }
    for (what, mut capable) in told {
        capable.retain(|path, _| !permissions::say_capabilities(recipe, path));
        if let Some(text) = capability::not_kept(&what, &capable) {
            reporter.report(Event::Warning { text });
        }
    }
    Ok(())
}

/// The last step: layers are packed, and the documents written.
struct Finish<'a> {
    recipe: &'a Recipe,
    base: Option<BaseParts>,
    settings: Settings,
    created: String,
    pack: PackOptions<'a>,
    reporter: &'a dyn Reporter,
}

impl<'a> Finish<'a> {
    fn new(recipe: &'a Recipe, resources: &Resources<'a>, reporter: &'a dyn Reporter) -> Result<Self, ImageError> {
        let own = Settings::new(&recipe.spec)?;
        let created = timestamp::rfc3339(recipe.created).ok_or(ImageError::Created {
            seconds: recipe.created,
        })?;
        if !recipe.platform.is_known() {
            return Err(ImageError::Platform {
                platform: recipe.platform.clone(),
            });
        }
        let base = recipe.base.as_ref();
        let base = base.map(|base| BaseParts::new(base, &recipe.platform)).transpose()?;
        let mut settings = match &base {
            Some(base) => base.merge(own, &recipe.spec),
            None => own,
        };
        locale::set_default(recipe, &mut settings);
        let pack = PackOptions {
            compression: recipe.compression,
            profile: recipe.tar_profile,
            single_member: recipe.single_member,
            threads: resources.threads,
            cache: resources.layers,
            ..PackOptions::default()
        };
        Ok(Self {
            recipe,
            base,
            settings,
            created,
            pack,
            reporter,
        })
    }

    fn image(&self, cuts: Vec<Cut>) -> Result<Image, ImageError> {
        let (inputs, packages): (Vec<_>, Vec<_>) = cuts.into_iter().map(|cut| (cut.input, cut.packages)).unzip();
        let layers = layer::pack(&inputs, &self.pack, self.reporter)?;
        let below = self.recipe.base.as_ref().zip(self.base.as_ref());
        document::write(
            &self.settings,
            &self.recipe.platform,
            &self.created,
            below,
            layers,
            &packages,
            self.recipe.format(),
        )
    }
}
