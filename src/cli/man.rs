//! `layerize man`: the manual as man pages, for those who package layerize.
//!
//! Invariant: pages are made from the arguments that clap parses and from the chapters that `help` prints, and from
//! nothing else; they name no date.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command};
use roff::{Inline, Roff, bold, roman};

use crate::fsio;

use super::context::Context;
use super::manual::{ManualBlock, TOPICS, Topic};
use super::outcome::Outcome;

/// Arguments of `layerize man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where to write the pages: `layerize.1`, `layerize-COMMAND.1` and `layerize-TOPIC.7`
    dir: PathBuf,
}

/// Writes a page for the program, one for each command, and one for each chapter.
pub fn run(args: &ManArgs, program: Command, context: &Context) -> anyhow::Result<Outcome> {
    fsio::create_dir_all(&args.dir)?;
    clap_mangen::generate_to(program, &args.dir)
        .with_context(|| format!("cannot write man pages to `{}`", args.dir.display()))?;
    for topic in TOPICS {
        let path = args.dir.join(format!("layerize-{}.7", topic.name));
        fsio::write_atomic(&path, page(topic).as_bytes())?;
    }
    context.ui.note(&format!("Wrote man pages to {}.", args.dir.display()));
    Ok(Outcome::Done)
}

/// A chapter as a page of section 7.
fn page(topic: &Topic) -> String {
    let (name, version) = (format!("layerize-{}", topic.name), env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control(
        "TH",
        [name.as_str(), "7", "", &format!("layerize {version}"), "layerize"],
    );
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - {}", topic.title()))]);
    page.control("SH", ["DESCRIPTION"]);
    for block in topic.blocks() {
        match block {
            ManualBlock::Heading(text) => drop(page.control("SH", [text.to_uppercase().as_str()])),
            ManualBlock::Paragraph(text) => {
                page.control("PP", []);
                page.text(inlines(&text));
            }
            ManualBlock::Item(text) => {
                page.control("IP", ["-", "2"]);
                page.text(inlines(&text));
            }
            ManualBlock::Code(lines) => {
                page.control("PP", []);
                page.control("RS", ["4"]);
                page.control("nf", []);
                for line in lines {
                    page.text([roman(line)]);
                }
                page.control("fi", []);
                page.control("RE", []);
            }
        }
    }
    page.render()
}

/// A text in which what stands between back quotes is bold.
fn inlines(text: &str) -> Vec<Inline> {
    let part = |(index, part): (usize, &str)| match index % 2 {
        0 => roman(part),
        _ => bold(part),
    };
    text.split('`').enumerate().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chapters_become_pages() {
        for topic in TOPICS {
            let page = page(topic);
            assert!(page.contains(&format!(".TH layerize-{} 7 ", topic.name)), "{page}");
        }
    }
}
