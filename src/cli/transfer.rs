//! Writes what is at hand, an image or an index, to a place, and prints where it is now.

use std::path::Path;

use anyhow::Context as _;

use crate::project::KeptInputs;
use crate::project::place::{Transfer, TransferOptions, destinations};
use crate::transport::{Content, Location};

use super::context::Context;
use super::flags::TransferFlags;
use super::output;
use super::sinks::not_kept;

/// Writes `content` to `location` and under all further tags; `names` are those it has by itself. What is to be kept
/// beside it goes there once, whatever the number of tags.
pub fn write(
    content: &Content,
    keep: &[KeptInputs<'_>],
    location: &Location,
    names: &[String],
    flags: &TransferFlags,
    context: &Context,
) -> anyhow::Result<()> {
    write_beside(content, keep, location, names, (flags, &[]), context)
}

/// As [`write`], where these repositories, each with its registry's host, may have some of the blobs.
pub fn write_beside(
    content: &Content,
    mut keep: &[KeptInputs<'_>],
    location: &Location,
    names: &[String],
    (flags, beside): (&TransferFlags, &[(String, String)]),
    context: &Context,
) -> anyhow::Result<()> {
    let options = TransferOptions {
        beside: beside.to_vec(),
        ..flags.options()
    };
    let transfer = Transfer::new(&options, &context.environment);
    let file = flags.digest_file.as_deref();
    for to in destinations(location, &options.tags, names)? {
        let place = &to.location;
        let sink = transfer.open(place, keep)?;
        let is_there = transfer
            .put(content, sink.as_ref(), &to)
            .map_err(anyhow::Error::from)
            .and_then(|is_there| {
                told(content, place, file, context)?;
                Ok(is_there)
            })
            .with_context(|| format!("cannot write to `{place}`"))?;
        if is_there {
            for keep in std::mem::take(&mut keep) {
                keep.put(sink.as_ref(), &place.to_string(), options.dry_run)
                    .with_context(|| not_kept(place))?;
            }
        }
    }
    if file.is_some() {
        output::write(format!("{}\n", content.digest()).as_bytes(), file, context)?;
    }
    Ok(())
}

/// Prints a line that says where what is, unless that is where it goes.
fn told(content: &Content, place: &Location, file: Option<&Path>, context: &Context) -> anyhow::Result<()> {
    if place.is_standard_output() || context.ui.json() {
        return Ok(());
    }
    output::report(&format!("{} {place}", content.digest()), file, context)
}
