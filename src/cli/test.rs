//! `layerize test`: the tests that a spec has for its images.

use clap::Args;

use super::complete;
use super::context::{self, Context};
use super::error::advised;
use super::flags::{BuildFlags, PlatformOrAll, value};
use super::outcome::Outcome;
use super::places::Names;
use super::trials::{self, Shown};
use crate::project::trials::Trial;
use crate::project::{self, ImageOptions, PlatformChoice, work};

/// Arguments of `layerize test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Images of the spec [default: all images]
    #[arg(add = complete::images())]
    images: Vec<String>,
    /// Only tests whose IMAGE/TEST holds this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Test only images for these platforms, separated by commas, or `all` [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', value_parser = value::<PlatformOrAll>)]
    platform: Vec<PlatformOrAll>,
    /// Fail where a test is skipped as nothing here runs its image; `--no-skip=false` lets it be [default: where `CI` is set]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "false")]
    no_skip: Option<bool>,
    #[command(flatten)]
    flags: BuildFlags,
}

impl TestArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Several(&mut self.images), &mut self.flags)
    }
}

/// Builds the images, runs their tests, and says what failed.
pub fn run(args: &TestArgs, context: &Context) -> anyhow::Result<Outcome> {
    let work = work::prepare(
        &args.images,
        &args
            .flags
            .options_for(PlatformOrAll::choice(&args.platform, PlatformChoice::Own)),
        &context.environment,
    )?;
    let images = project::images(&work, &ImageOptions::default(), &context.environment)?;
    let all = trials::run(
        &images,
        args.filter.as_deref(),
        args.flags.jobs,
        &work,
        Shown::AsResult,
        context,
    )?;
    if all.is_empty() {
        return Err(match &args.filter {
            Some(filter) => advised(
                format!("no test's name holds `{filter}`"),
                "`layerize test` without `--filter` runs all of them",
            ),
            None => advised(
                "there are no tests of these images",
                "add `[image.NAME.tests.TEST]` with what is to come of it: `layerize help spec`",
            ),
        });
    }
    let (has_skipped, is_strict) = (
        all.iter().any(Trial::was_skipped),
        args.no_skip.unwrap_or_else(context::in_ci),
    );
    let remark = match (has_skipped, is_strict) {
        (true, true) => "; a skipped test is a failure here (`--no-skip=false` lets it be)",
        (true, false) if all.iter().all(Trial::was_skipped) => {
            "; nothing was tested (`--no-skip` makes that a failure, and so does CI)"
        }
        _ => "",
    };
    context.ui.note(&format!("{}{remark}.", trials::summary(&all)));
    Ok(match all.iter().any(Trial::has_failed) || has_skipped && is_strict {
        true => Outcome::No,
        false => Outcome::Done,
    })
}
