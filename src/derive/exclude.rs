//! What an image *leaves out* of the Debian packages that its own come to: what it excludes, and what only that needed.
//!
//! Invariant: a package stays if one that was asked for leads to it without passing what is excluded, whatever alternative
//! the way takes. A name that excludes nothing is an error.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::{self, Diagnostic, Image, Lock};

use super::LeftOut;
use super::debs::Resolution;
use super::script::resolve;

/// The Debian packages of an image.
pub(super) struct DebsOfImage<'a> {
    /// Those that are laid out at `/`.
    pub(super) root: Resolution<'a>,
    /// Those that `contents` names and what these depend on.
    pub(super) contents: Resolution<'a>,
    /// What it does not get.
    pub(super) left_out: BTreeMap<String, LeftOut>,
}

impl<'a> DebsOfImage<'a> {
    /// As the lock has them.
    pub(super) fn new(lock: &'a Lock, image: &Image) -> Result<Self, Box<Diagnostic>> {
        let (name, place) = (&image.name.value, &image.name.span);
        let excluded: BTreeSet<&str> = image.exclude.iter().map(|name| name.value.as_str()).collect();
        let mut left_out = BTreeMap::new();
        let mut part = |key: &str, wanted: Vec<String>| -> Result<Resolution<'a>, Box<Diagnostic>> {
            let whole = resolve(lock, &wanted, &format!("`{key}` of image `{name}`"), place)?;
            let (kept, gone) = whole.without(&wanted, &excluded);
            left_out.extend(gone.into_iter().map(|(name, why)| (name.to_owned(), why)));
            Ok(kept)
        };
        let root = part("root", spec::root_debs(image))?;
        let contents = part("contents", spec::contents_debs(image))?;
        left_out.retain(|name, _| !root.contains(name) && !contents.contains(name));
        for name in &image.exclude {
            if !left_out.contains_key(&name.value) {
                let message = format!(
                    "`exclude` names `deb:{}`, which nothing of image `{}` depends on",
                    name.value, image.name.value
                );
                let known = spec::did_you_mean(&name.value, root.names().chain(contents.names()));
                let help = match known {
                    Some(known) => format!("did you mean `deb:{known}`?"),
                    None => "leave it out: it would not be in the image anyway".to_owned(),
                };
                let diagnostic = Diagnostic::new(message).at(name.span.clone(), "not among its Debian packages");
                return Err(Box::new(diagnostic.help(help)));
            }
        }
        Ok(Self {
            root,
            contents,
            left_out,
        })
    }
}
