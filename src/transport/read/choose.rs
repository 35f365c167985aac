//! A *choice* among the images of an OCI layout: by name first, then by platform.
//!
//! Invariant: never a guess: where more than one image fits, the error lists them; attestations are never images.

use std::collections::{BTreeMap, BTreeSet};

use super::super::nested::Flat;
use super::super::{TransportError, names, parse};
use super::faces::{self, Faces};
use super::{Container, ReadOptions, StoredImage, document, top_index};
use crate::digest::ContentDigest;
use crate::oci::{
    self, CONTAINERD_NAME, Descriptor, Document, INDEX_DEPTH_MAX, Index, NoChoice, Platform, REF_NAME, Raw,
    UnknownEntry,
};

/// Most indexes of a layout that are read to find an image by its digest.
const INDEXES_MAX: usize = 100;

pub(super) fn open(
    container: Container,
    place: &str,
    name: Option<&str>,
    options: &ReadOptions,
) -> Result<StoredImage, TransportError> {
    check_layout(&container, place)?;
    let index = top_index(&container, place)?.ok_or_else(|| TransportError::Missing {
        place: place.to_owned(),
        what: "`index.json`".to_owned(),
    })?;
    let listed = index.manifests.iter();
    let mut candidates: Vec<Descriptor> = listed.filter(|found| !found.is_attestation()).cloned().collect();
    if candidates.is_empty() {
        candidates.clone_from(&index.manifests);
    }
    let layout = Layout {
        container: &container,
        place,
        options,
    };
    let named = layout.by_name(&index, &candidates, name)?;
    let Chosen {
        document,
        descriptor,
        index: nearest,
    } = layout.descend(named)?;
    // A nested index carries its names at the top, an image there on each of its descriptors.
    let same: BTreeSet<ContentDigest> = [descriptor.digest]
        .into_iter()
        .chain(top_digests(&candidates, name))
        .collect();
    let names: BTreeSet<String> = index
        .manifests
        .iter()
        .filter(|found| same.contains(&found.digest))
        .filter_map(display_name)
        .collect();
    let faces = match &document {
        Document::Index(_) => Faces::default(),
        Document::Manifest(manifest) => faces::compare(&container, place, &index, manifest, &names)?,
    };
    Ok(StoredImage {
        place: place.to_owned(),
        container,
        index: Some(nearest),
        document,
        names: names.into_iter().collect(),
        synthesized: false,
        elsewhere: BTreeMap::new(),
        docker: faces.docker,
        contradictions: faces.contradictions,
    })
}

pub(super) fn check_layout(container: &Container, place: &str) -> Result<(), TransportError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marker {
        image_layout_version: String,
    }
    let bytes = container
        .read("oci-layout", 4096)?
        .ok_or_else(|| TransportError::NotAnImage {
            place: place.to_owned(),
            reason: "there is an `index.json` but no `oci-layout` in it".to_owned(),
        })?;
    let layout: Marker = parse(&bytes, place, "`oci-layout`")?;
    if layout.image_layout_version.starts_with("1.") {
        return Ok(());
    }
    Err(TransportError::Malformed {
        place: place.to_owned(),
        what: "`oci-layout`".to_owned(),
        reason: format!(
            "its version is `{}`, and only 1.x is known",
            layout.image_layout_version
        ),
    })
}

fn has_name(descriptor: &Descriptor, name: &str) -> bool {
    let exact = |key| descriptor.annotation(key) == Some(name);
    let same = |text: &str| names::same(text, name);
    exact(REF_NAME) || exact(CONTAINERD_NAME) || descriptor.annotation(CONTAINERD_NAME).is_some_and(same)
}

fn display_name(descriptor: &Descriptor) -> Option<String> {
    descriptor
        .annotation(CONTAINERD_NAME)
        .or_else(|| descriptor.annotation(REF_NAME))
        .map(str::to_owned)
}

/// Digests at the top level that stand for the choice where it was made inside a nested index.
fn top_digests(candidates: &[Descriptor], name: Option<&str>) -> Vec<ContentDigest> {
    let chosen = |descriptor: &&Descriptor| name.is_none_or(|name| has_name(descriptor, name));
    let nested = candidates.iter().filter(chosen).filter(|found| found.is_index());
    nested.map(|descriptor| descriptor.digest).collect()
}

/// What a name leaves to choose from.
struct Candidates {
    entries: Vec<Descriptor>,
    unknown: Vec<UnknownEntry>,
    /// The index that lists them.
    index: Raw<Index>,
}

/// A manifest that was chosen, or an index where it is wanted whole.
struct Chosen {
    document: Document,
    descriptor: Descriptor,
    /// The index that lists it.
    index: Raw<Index>,
}

/// A layout that is read.
struct Layout<'a> {
    container: &'a Container,
    place: &'a str,
    options: &'a ReadOptions,
}

impl Layout<'_> {
    /// The entries that a name means (`@N` the N-th, `@DIGEST` the one of that digest); all of them without a name.
    fn by_name(
        &self,
        index: &Raw<Index>,
        candidates: &[Descriptor],
        name: Option<&str>,
    ) -> Result<Candidates, TransportError> {
        let of = |entries: Vec<Descriptor>, unknown: &[UnknownEntry]| Candidates {
            entries,
            unknown: unknown.to_vec(),
            index: index.clone(),
        };
        let Some(name) = name else {
            return Ok(of(candidates.to_vec(), &index.unknown));
        };
        let special = name.strip_prefix('@');
        if let Some(digest) = special.and_then(|text| text.parse::<ContentDigest>().ok())
            && let Some(found) = self.by_digest(index, digest)
        {
            return Ok(found);
        }
        let found: Vec<Descriptor> = match special.and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => candidates.get(number).cloned().into_iter().collect(),
            None => {
                let named = |found: &&Descriptor| has_name(found, name);
                let found: Vec<Descriptor> = candidates.iter().filter(named).cloned().collect();
                // What stands beside images is found by its name as well.
                match found.is_empty() {
                    true => index.manifests.iter().filter(named).cloned().collect(),
                    false => found,
                }
            }
        };
        match found.is_empty() {
            true => Err(self.choose(Some(name), candidates)),
            false => Ok(of(found, &[])),
        }
    }

    /// The entry of this digest, at the top or in an index below.
    fn by_digest(&self, index: &Raw<Index>, digest: ContentDigest) -> Option<Candidates> {
        let (mut level, mut read) = (vec![index.clone()], 0);
        for _ in 0..INDEX_DEPTH_MAX {
            let mut next = Vec::new();
            for index in level {
                if let Some(found) = index.manifests.iter().find(|found| found.digest == digest) {
                    return Some(Candidates {
                        entries: vec![found.clone()],
                        unknown: Vec::new(),
                        index,
                    });
                }
                for nested in index.manifests.iter().filter(|found| found.is_index()) {
                    read += 1;
                    if read <= INDEXES_MAX
                        && let Ok(Document::Index(nested)) = self.document(nested)
                    {
                        next.push(nested);
                    }
                }
            }
            level = next;
        }
        None
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Document, TransportError> {
        document(self.container, self.place, descriptor, "the manifest")
    }

    /// Follows indexes down to one manifest.
    fn descend(&self, mut from: Candidates) -> Result<Chosen, TransportError> {
        for _ in 0..INDEX_DEPTH_MAX {
            if let Some(flat) = self.flat(&from) {
                return self.choose_among(&flat, &from);
            }
            let descriptor = self.pick(&from)?;
            match self.document(&descriptor)? {
                Document::Index(nested) if !self.options.whole => {
                    from = Candidates {
                        entries: nested.manifests.clone(),
                        unknown: nested.unknown.clone(),
                        index: nested,
                    };
                }
                document => {
                    return Ok(Chosen {
                        document,
                        descriptor,
                        index: from.index,
                    });
                }
            }
        }
        Err(TransportError::nested_too_deep(self.place))
    }

    /// The images of all indexes below, where indexes stand beside images or other indexes that no name tells apart.
    fn flat(&self, from: &Candidates) -> Option<Flat> {
        let is_named = from.entries.len() > 1 && from.entries.iter().any(|entry| display_name(entry).is_some());
        if self.options.whole || is_named {
            return None;
        }
        let flat = Flat::of(&from.entries, &from.index, &|entry| self.document(entry))?;
        let is_here = |entry: &Descriptor| self.container.has(&super::blob_path(&entry.digest));
        let is_whole = flat.entries().all(is_here);
        is_whole.then_some(flat)
    }

    fn choose_among(&self, flat: &Flat, from: &Candidates) -> Result<Chosen, TransportError> {
        let chosen = flat.choose(self.options.platform.as_ref());
        let (descriptor, index) = chosen.map_err(|why| self.no_choice(why, &from.entries))?;
        Ok(Chosen {
            document: self.document(descriptor)?,
            descriptor: descriptor.clone(),
            index: index.clone(),
        })
    }

    /// The entry that is wanted, of those that are there: `docker save` lists platforms that the engine does not hold.
    fn pick(&self, from: &Candidates) -> Result<Descriptor, TransportError> {
        let wanted = self.options.platform.as_ref();
        let is_here = |entry: &&Descriptor| self.container.has(&super::blob_path(&entry.digest));
        let (here, absent): (Vec<&Descriptor>, Vec<&Descriptor>) = from.entries.iter().partition(is_here);
        let why = match oci::choose(here.iter().copied(), &from.unknown, wanted) {
            Ok(found) => return Ok(found.clone()),
            Err(why) => why,
        };
        match oci::choose(absent.iter().copied(), &[], wanted) {
            // The only one, or the wanted one, is what is missing.
            Ok(gone) if here.is_empty() || wanted.is_some_and(|wanted| serves(gone, wanted)) => {
                Err(absent_error(self.place, [gone], &here))
            }
            Err(NoChoice::Platforms { .. }) if here.is_empty() => Err(absent_error(self.place, absent, &here)),
            _ => Err(self.no_choice(why, &from.entries)),
        }
    }

    fn no_choice(&self, why: NoChoice, candidates: &[Descriptor]) -> TransportError {
        let named = candidates.iter().any(|found| display_name(found).is_some());
        match (why, self.address()) {
            (NoChoice::Alike { .. }, _) if named => self.choose(None, candidates),
            (NoChoice::Alike { digests }, Some(address)) => TransportError::Alike {
                place: self.place.to_owned(),
                choices: digests.iter().map(|digest| format!("{address}:@{digest}")).collect(),
            },
            (NoChoice::Artifacts { digests }, Some(address)) => TransportError::Artifacts {
                place: self.place.to_owned(),
                choices: digests.iter().map(|digest| format!("{address}:@{digest}")).collect(),
            },
            (why, _) => TransportError::no_choice(self.place, self.options.platform.as_ref(), why),
        }
    }

    fn choose(&self, asked: Option<&str>, candidates: &[Descriptor]) -> TransportError {
        let names: Vec<String> = candidates.iter().filter_map(display_name).collect();
        let address = self.address();
        let address = |name: &String| address.as_ref().map(|address| format!("{address}:{name}"));
        TransportError::Choose {
            place: self.place.to_owned(),
            asked: asked.map(str::to_owned),
            choices: match names.is_empty() {
                true => (0..candidates.len())
                    .filter_map(|number| address(&format!("@{number}")))
                    .collect(),
                false => names
                    .iter()
                    .map(|name| address(name).unwrap_or_else(|| name.clone()))
                    .collect(),
            },
        }
    }

    /// The place as it is written where a name follows; none for a stream.
    fn address(&self) -> Option<String> {
        address(self.container, self.place)
    }
}

/// Whether an entry is for the wanted platform, as far as it says.
fn serves(entry: &Descriptor, wanted: &Platform) -> bool {
    let platform = entry.platform.as_ref();
    platform.is_some_and(|platform| wanted.rank(platform).is_some())
}

/// What is said of entries whose manifests are not there; `here` are the others.
pub(super) fn absent_error<'a>(
    place: &str,
    absent: impl IntoIterator<Item = &'a Descriptor>,
    here: &[&Descriptor],
) -> TransportError {
    let absent: Vec<&Descriptor> = absent.into_iter().collect();
    if let [only] = absent[..]
        && only.platform.is_none()
    {
        return TransportError::Missing {
            place: place.to_owned(),
            what: format!("the blob `{}`", only.digest),
        };
    }
    let name = |entry: &&Descriptor| match &entry.platform {
        Some(platform) => platform.to_string(),
        None => entry.digest.to_string(),
    };
    TransportError::Absent {
        place: place.to_owned(),
        absent: absent.iter().map(name).collect(),
        present: here.iter().filter_map(|entry| entry.platform.clone()).collect(),
    }
}

/// See [`Layout::address`].
pub(super) fn address(container: &Container, place: &str) -> Option<String> {
    let explicit = ["oci:", "oci-archive:", "docker-archive:"];
    if explicit.iter().any(|transport| place.starts_with(transport)) {
        return Some(place.to_owned());
    }
    let is_stream = place == "-" || place.split_once(':').is_some_and(|(before, _)| !before.contains('/'));
    let transport = match container.is_dir() {
        true => "oci",
        false if container.has("manifest.json") => "docker-archive",
        false => "oci-archive",
    };
    (!is_stream).then(|| format!("{transport}:{place}"))
}
