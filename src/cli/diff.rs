//! `layerize diff`: whether two images are equal, and all that differs.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::audit::{self, Child, Class, DiffOptions, DiffReport};
use crate::digest::ContentDigest;
use crate::oci::{Document, Index, Platform, Raw};
use crate::store::Store;
use crate::store_path::StoreDir;
use crate::transport::{Location, Source, TransportError};

use super::complete;
use super::context::Context;
use super::error::advised;
use super::flags::{BuildFlags, value};
use super::outcome::Outcome;
use super::output;
use super::places::Names;
use crate::project;
use crate::project::Target;
use crate::project::{ImageOptions, NamedImage, PlatformChoice, Project};
use crate::project::{target, work};

/// Arguments of `layerize diff`.
#[derive(Debug, Args)]
#[command(after_long_help = classes())]
pub struct DiffArgs {
    /// An image, named as for `inspect`; or an image or package of the spec, or a store path, which is built
    #[arg(add = complete::targets_or_files())]
    a: String,
    /// The other image, named likewise
    #[arg(add = complete::targets_or_files())]
    b: String,
    /// Which platform of multi-platform images [default: all of both, one by one]
    #[arg(long, value_name = "OS/ARCH", value_parser = value::<Platform>)]
    platform: Option<Platform>,
    /// Compare names and indexes too: what the places say of the images
    #[arg(long)]
    indexes: bool,
    /// Classes of differences to ignore, separated by commas; repeatable
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    ignore: Vec<String>,
    /// Write the report to a file as an HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    flags: BuildFlags,
}

impl DiffArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Each(vec![&mut self.a, &mut self.b]), &mut self.flags)
    }
}

/// All classes with their meanings, for the long help.
fn classes() -> String {
    let line = |class: &Class| format!("  {:<18} {}\n", class.name(), class.meaning());
    let lines: String = Class::ALL.iter().map(line).collect();
    format!("Classes of differences:\n{lines}")
}

/// Prints what differs; the answer is no if anything does.
pub fn run(args: &DiffArgs, context: &Context) -> anyhow::Result<Outcome> {
    let mut options = DiffOptions {
        indexes: args.indexes,
        ..DiffOptions::default()
    };
    for class in &args.ignore {
        options.ignore.insert(class.trim().parse::<Class>()?);
    }
    let (a, b) = (open(&args.a, args, context)?, open(&args.b, args, context)?);
    if matches!(a, OpenedSide::Made(_)) || matches!(b, OpenedSide::Made(_)) {
        // What was just made is at no place that could name it.
        options.ignore.insert(Class::Names);
    }
    let mut report = match (a, b) {
        (OpenedSide::One(a), OpenedSide::One(b)) => audit::diff(a.as_ref(), b.as_ref(), &options)?,
        (a, b) => audit::diff_indexes(&a.children()?, &b.children()?, &options)?,
    };
    // Derivations are found where the store is; without one that can be read there is nothing to explain by.
    if context.environment.store_dir.join("db").is_dir()
        && let Ok(store) = context.environment.store()
    {
        report.explain(&|path| derivation(&store, path));
    }
    context.ui.clear();
    let page = args.html.as_deref();
    if page.is_some() {
        output::write(report.render_html().as_bytes(), page, context)?;
    }
    let text = if context.ui.json() {
        serde_json::to_string(&report)?
    } else {
        colored(&report, context)
    };
    output::report(&text, page, context)?;
    Ok(if report.equal() { Outcome::Done } else { Outcome::No })
}

/// What an argument names: an image, or several of one index.
enum OpenedSide {
    One(Box<dyn Source>),
    Many(Vec<Child>),
    /// The same, made of an image of the spec.
    Made(Vec<Child>),
}

impl OpenedSide {
    fn children(self) -> anyhow::Result<Vec<Child>> {
        match self {
            Self::Many(children) | Self::Made(children) => Ok(children),
            Self::One(source) => Ok(vec![Child {
                platform: platform_of(source.as_ref())?,
                source,
            }]),
        }
    }
}

/// The platform that an image's config names.
fn platform_of(source: &dyn Source) -> anyhow::Result<String> {
    let report = audit::inspect(source, audit::InspectOptions::default())?;
    Ok(report.platform)
}

fn open(text: &str, args: &DiffArgs, context: &Context) -> anyhow::Result<OpenedSide> {
    if let Some(side) = built(text, args, context)? {
        return Ok(side);
    }
    let (environment, platform) = (&context.environment, args.platform.as_ref());
    if platform.is_some() {
        return Ok(OpenedSide::One(environment.source(text, platform)?));
    }
    let mut children = Vec::new();
    for (platform, source) in environment.sources(text, &PlatformChoice::All)? {
        let Some(platform) = platform else {
            return Ok(OpenedSide::One(source));
        };
        let platform = platform.to_string();
        children.push(Child { platform, source });
    }
    Ok(OpenedSide::Many(children))
}

/// The image of a store path or of a target of the spec, if the text names one and no file or layout.
fn built(text: &str, args: &DiffArgs, context: &Context) -> anyhow::Result<Option<OpenedSide>> {
    let is_path = StoreDir::layerize()
        .split(text.trim_end_matches('/'))
        .is_some_and(|(_, below)| below.is_empty());
    if !is_path && !is_target(text, context) {
        return Ok(None);
    }
    let platforms = match &args.platform {
        Some(platform) if is_for_several(text, context) => PlatformChoice::These(vec![platform.clone()]),
        _ => PlatformChoice::All,
    };
    let options = args.flags.options_for(platforms);
    let mut work = work::prepare(&[text.to_owned()], &options, &context.environment)?;
    let mut options = ImageOptions::default();
    for target in &mut work.targets {
        if let Target::Package(name) = target {
            *target = Target::Path(work.paths[&work.plan.packages[name]].clone());
        }
        // The name is no part of the image.
        if let Target::Path(_) = target {
            options = ImageOptions::named("diff");
        }
    }
    let image = project::images(&work, &options, &context.environment)?.pop();
    let image = image.ok_or_else(|| {
        advised(
            format!("no image can be made of `{text}`"),
            "name an image, a package or a store path",
        )
    })?;
    let index = image.index.as_ref().map(|index| index.document.clone());
    let source = |image: &NamedImage| -> Box<dyn Source> {
        Box::new(Built {
            place: text.to_owned(),
            image: image.image.clone(),
            index: index.clone(),
        })
    };
    if image.parts.is_empty() {
        return Ok(Some(OpenedSide::One(source(&image))));
    }
    let children = image.parts.iter().map(|part| Child {
        platform: part.draft.recipe.platform.to_string(),
        source: source(part),
    });
    Ok(Some(OpenedSide::Made(children.collect())))
}

/// Whether a text names an image of the spec that is for several platforms.
fn is_for_several(text: &str, context: &Context) -> bool {
    let project = Project::load(&context.environment).ok();
    let image = project.as_ref().and_then(|project| project.workspace.images.get(text));
    image.is_some_and(|image| image.platforms.len() > 1)
}

/// Whether a text names something of the nearest spec. What is an image as it stands is meant as such.
fn is_target(text: &str, context: &Context) -> bool {
    let path = Path::new(text);
    let stands = path.is_file()
        || ["index.json", "manifest.json"]
            .iter()
            .any(|file| path.join(file).exists());
    let named_as_place = matches!(text.parse::<Location>(), Ok(location) if !matches!(location, Location::Path(_)));
    if stands || named_as_place {
        return false;
    }
    Project::load(&context.environment).is_ok_and(|project| target::name(text, &project).is_ok())
}

/// An image that was built to be compared, under the name by which it was asked for.
struct Built {
    place: String,
    image: crate::image::Image,
    /// The index of it and of those for other platforms.
    index: Option<Raw<Index>>,
}

impl Source for Built {
    fn place(&self) -> &str {
        &self.place
    }

    fn document(&self) -> Result<Document, TransportError> {
        self.image.document()
    }

    fn index(&self) -> Option<&Raw<Index>> {
        self.index.as_ref()
    }

    fn blob(&self, digest: &ContentDigest, size: u64) -> Result<Box<dyn std::io::Read + Send>, TransportError> {
        self.image.blob(digest, size)
    }
}

/// The derivation that made a store path, if the store knows it.
fn derivation(store: &Store, path: &str) -> Option<String> {
    let (path, _) = StoreDir::layerize().split(path)?;
    store.info_full(&path).ok()??.derivation_json
}

/// The report for people, what is gone and what is new in colours where colours are wanted.
fn colored(report: &DiffReport, context: &Context) -> String {
    let text = match context.ui.verbose() {
        true => report.render(),
        false => report.render_short(),
    };
    let line = |line: &str| match line.trim_start().chars().next() {
        Some('-') => context.ui.paint_out(line, "31"),
        Some('+') => context.ui.paint_out(line, "32"),
        Some('@') => context.ui.paint_out(line, "36"),
        _ => match line.split_once(' ') {
            Some((level, rest)) if !level.is_empty() => format!("{} {rest}", context.ui.paint_out(level, "1")),
            _ => line.to_owned(),
        },
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
