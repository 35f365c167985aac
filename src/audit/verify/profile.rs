//! A *profile* is what one consumer of images, or good practice, asks for beyond the specification.
//!
//! Invariant: every rule has a name, a sentence that says what must be, and the fact it rests on; a profile that is not
//! asked for is silent.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Serialize;

use super::layer::LayerSeen;
use super::{ATTESTATION, Problems, ReadDocuments};
use crate::oci::{CompressionFormat, LayerLimit, REF_NAME, Reference};
use crate::transport::{DockerList, Source};

/// Bytes of all layers, unpacked, that AWS Lambda takes.
const LAMBDA_SIZE_MAX: u64 = 10_000_000_000;

/// Whose rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Profile {
    /// `docker load` of Docker 20.10, and of later ones with graph drivers.
    #[serde(rename = "docker-20")]
    Docker20,
    /// AWS Lambda.
    #[serde(rename = "lambda")]
    Lambda,
    /// What the specification recommends, and what any known client trips over.
    #[serde(rename = "strict")]
    Strict,
}

/// A rule of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its name within the profile.
    pub name: &'static str,
    /// What must be.
    pub rule: &'static str,
    /// Why: what was measured, reported or written down.
    pub fact: &'static str,
}

const fn rule(name: &'static str, rule: &'static str, fact: &'static str) -> Rule {
    Rule { name, rule, fact }
}

const DOCKER_20: &[Rule] = &[
    rule(
        "layers",
        "at most 125 layers",
        "docker load fails with \"max depth exceeded\" from 126 layers (measured with 20.10 and 26.1)",
    ),
    rule(
        "compression",
        "layers are gzip or plain",
        "docker load of 20.10 refuses zstd layers (measured)",
    ),
    rule(
        "list",
        "an archive has manifest.json",
        "docker load of 20.10, and of 26.1 with a graph driver, refuses a bare OCI layout (measured)",
    ),
    rule(
        "names",
        "names are NAME:TAG of the distribution grammar",
        "docker load stops at a name that it cannot parse",
    ),
];

const LAMBDA: &[Rule] = &[
    rule(
        "parents",
        "each entry's parent directories are entries too, in its layer or a lower one",
        "Lambda refuses images without them (rules_aws#103, rules_img#258)",
    ),
    rule(
        "compression",
        "layers are gzip",
        "Lambda refuses plain layers (rules_oci#645, rules_aws#145), and zstd is not among what it documents",
    ),
    rule(
        "history",
        "the config's history has an entry for each layer",
        "Lambda refuses images without (rules_oci#777)",
    ),
    rule(
        "index",
        "the image is not listed beside attestations or other platforms",
        "Lambda refuses indexes (buildx#1509)",
    ),
    rule(
        "platform",
        "linux/amd64 or linux/arm64",
        "Lambda runs no other (AWS, \"Container image requirements\")",
    ),
    rule(
        "size",
        "at most 10 GB unpacked",
        "Lambda's quota (AWS, \"Lambda quotas\")",
    ),
];

const STRICT: &[Rule] = &[
    rule(
        "parents-first",
        "a directory comes before what is in it",
        "a tool that unpacks in order first creates a missing parent with a mode of its own",
    ),
    rule(
        "whiteout-order",
        "whiteouts come before the other entries of their directory",
        "image-spec, layer.md: whiteouts SHOULD be listed first",
    ),
    rule(
        "whiteout-target",
        "a whiteout deletes something of a lower layer",
        "image-spec, layer.md: whiteouts MUST apply to lower layers only",
    ),
    rule(
        "below-link",
        "nothing is below a path that is a link or a file in the layers below, unless the layer replaces it",
        "Docker, containerd and podman put a directory in its place; umoci and podman's vfs storage follow the link (measured)",
    ),
    rule(
        "end",
        "a layer's tar ends in exactly 1024 zero bytes",
        "with 2048 or more podman 5.4 refuses the image as zstd:chunked (measured)",
    ),
    rule(
        "zstd-start",
        "a zstd layer does not begin with a skippable frame",
        "podman then does not recognise it as zstd (measured)",
    ),
    rule(
        "media-types",
        "documents and layers have OCI's media types, and none is non-distributable",
        "image-spec, layer.md: non-distributable layers are deprecated; registries may refuse mixtures",
    ),
    rule(
        "index-media-type",
        "an index states its media type",
        "image-spec, image-index.md: SHOULD; apple/container#330 needs it",
    ),
    rule(
        "platform",
        "operating system and architecture are Go's names of known ones",
        "image-spec, config.md: SHOULD",
    ),
    rule(
        "names",
        "a layout's names follow the grammar of org.opencontainers.image.ref.name",
        "image-spec, annotations.md: SHOULD",
    ),
    rule(
        "utf-8",
        "paths are UTF-8",
        "pax records are UTF-8 by definition; tools differ in what they make of other bytes",
    ),
];

impl Profile {
    /// All profiles.
    pub const ALL: [Self; 3] = [Self::Docker20, Self::Lambda, Self::Strict];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker20 => "docker-20",
            Self::Lambda => "lambda",
            Self::Strict => "strict",
        }
    }

    /// Its rules.
    pub fn rules(self) -> &'static [Rule] {
        match self {
            Self::Docker20 => DOCKER_20,
            Self::Lambda => LAMBDA,
            Self::Strict => STRICT,
        }
    }

    /// The fact that a rule rests on.
    pub fn fact(self, name: &str) -> Option<&'static str> {
        self.rules().iter().find(|rule| rule.name == name).map(|rule| rule.fact)
    }
}

/// The text names no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a profile: docker-20, lambda and strict are")]
pub struct ParseProfileError {
    /// What was to be parsed.
    pub text: String,
}

impl FromStr for Profile {
    type Err = ParseProfileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == text);
        found.ok_or_else(|| ParseProfileError { text: text.to_owned() })
    }
}

/// Applies what can be told without a layer's entries; those are looked at while they are read.
pub(super) fn check(
    source: &dyn Source,
    found: &ReadDocuments<'_>,
    layers: &BTreeMap<usize, LayerSeen>,
    problems: &mut Problems,
) {
    for profile in problems.profiles.clone() {
        match profile {
            Profile::Docker20 => docker_20(source, found, layers, problems),
            Profile::Lambda => lambda(source, found, layers, problems),
            Profile::Strict => strict(source, found, layers, problems),
        }
    }
}

fn docker_20(
    source: &dyn Source,
    found: &ReadDocuments<'_>,
    layers: &BTreeMap<usize, LayerSeen>,
    problems: &mut Problems,
) {
    const ME: Profile = Profile::Docker20;
    let count = found.manifest.layers.len();
    if count > LayerLimit::DOCKER.get() {
        let text = format!("there are {count}, and at most {} can be loaded", LayerLimit::DOCKER);
        problems.rule(ME, "layers", "manifest, layers", text);
    }
    for (index, layer) in layers {
        if !matches!(layer.packing, CompressionFormat::Gzip | CompressionFormat::None) {
            let text = format!("it is {}", layer.packing.name());
            problems.rule(ME, "compression", &format!("layer {index}"), text);
        }
    }
    if source.docker_list().is_some_and(|list| list != DockerList::Names) {
        problems.rule(ME, "list", "archive", "it has no `manifest.json`".to_owned());
    }
    for name in source.names() {
        if let Err(error) = name.parse::<Reference>() {
            problems.rule(ME, "names", &format!("name `{name}`"), error.reason.to_owned());
        }
    }
}

fn lambda(
    source: &dyn Source,
    found: &ReadDocuments<'_>,
    layers: &BTreeMap<usize, LayerSeen>,
    problems: &mut Problems,
) {
    const ME: Profile = Profile::Lambda;
    for (index, layer) in layers {
        if layer.packing != CompressionFormat::Gzip {
            let how = match layer.packing {
                CompressionFormat::None => "not compressed",
                other => other.name(),
            };
            problems.rule(ME, "compression", &format!("layer {index}"), format!("it is {how}"));
        }
    }
    if let Some(config) = &found.config {
        let history = config.history.iter().filter(|entry| !entry.is_empty_layer());
        let (history, layers) = (history.count(), found.manifest.layers.len());
        if history != layers {
            let text = format!("it tells of {history} layers, and there are {layers}");
            problems.rule(ME, "history", "config, history", text);
        }
        if !["amd64", "arm64"].contains(&config.architecture.as_str()) || config.os != "linux" {
            let text = format!("it is for {}/{}", config.os, config.architecture);
            problems.rule(ME, "platform", "config", text);
        }
    }
    let others = source.index().map_or(0, |index| {
        let others = index.manifests.iter();
        let others = others.filter(|other| other.digest != found.manifest.digest());
        others
            .filter(|other| other.is_attestation() || other.platform.is_some())
            .count()
    });
    if others > 0 {
        let text = format!("{others} attestations or images of other platforms are listed beside it");
        problems.rule(ME, "index", "index, manifests", text);
    }
    let size: u64 = layers.values().map(|layer| layer.tar_size).sum();
    if size > LAMBDA_SIZE_MAX {
        problems.rule(ME, "size", "manifest, layers", format!("they unpack to {size} bytes"));
    }
}

fn strict(
    source: &dyn Source,
    found: &ReadDocuments<'_>,
    layers: &BTreeMap<usize, LayerSeen>,
    problems: &mut Problems,
) {
    const ME: Profile = Profile::Strict;
    for (index, layer) in layers {
        let subject = format!("layer {index}");
        if layer.trailer.bytes != 1024 {
            let text = format!("{} bytes follow its last entry", layer.trailer.bytes);
            problems.rule(ME, "end", &subject, text);
        }
        if layer.begins_with_skippable_frame {
            let text = "it begins with a skippable frame".to_owned();
            problems.rule(ME, "zstd-start", &subject, text);
        }
    }
    if !source.synthesized() {
        let layers = found.manifest.layers.iter().enumerate();
        let layers = layers.map(|(index, layer)| {
            (
                format!("manifest, layers[{index}].mediaType"),
                layer.media_type.as_str(),
            )
        });
        let manifest = ("manifest, mediaType".to_owned(), found.manifest.media_type());
        for (subject, media_type) in std::iter::once(manifest).chain(layers) {
            if !media_type.starts_with("application/vnd.oci.image.") || media_type.contains(".nondistributable.") {
                problems.rule(ME, "media-types", &subject, format!("it is `{media_type}`"));
            }
        }
    }
    if source.index().is_some_and(|index| !index.says_media_type()) {
        problems.rule(ME, "index-media-type", "index, mediaType", "it is missing".to_owned());
    }
    if let Some(config) = &found.config
        && !config.platform().is_some_and(|known| known.is_known())
    {
        let text = format!("`{}/{}` is not known", config.os, config.architecture);
        problems.rule(ME, "platform", "config", text);
    }
    for descriptor in source.index().iter().flat_map(|index| &index.manifests) {
        let name = descriptor.annotation(REF_NAME);
        let name = name.filter(|name| descriptor.digest == found.manifest.digest() && !is_ref_name(name));
        if let Some(name) = name {
            problems.rule(
                ME,
                "names",
                &format!("name `{name}`"),
                "it breaks the grammar".to_owned(),
            );
        }
        if descriptor.annotation(ATTESTATION).is_some() && descriptor.digest == found.manifest.digest() {
            problems.rule(ME, "media-types", "index", "it is an attestation".to_owned());
        }
    }
}

/// annotations.md: `ref ::= component ("/" component)*`, `component ::= alphanum (separator alphanum)*`,
/// `separator ::= [-._:@+] | "--"`.
fn is_ref_name(name: &str) -> bool {
    name.split('/').all(|component| {
        let parts: Vec<&str> = component.split(|c: char| "-._:@+".contains(c)).collect();
        let alphanum = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let single = component.replace("--", "-");
        parts.iter().all(alphanum)
            || single
                .split(|c: char| "-._:@+".contains(c))
                .collect::<Vec<_>>()
                .iter()
                .all(alphanum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_named_and_their_rules_are_unique() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse::<Profile>().unwrap(), profile);
            let names: std::collections::BTreeSet<&str> = profile.rules().iter().map(|rule| rule.name).collect();
            assert_eq!(names.len(), profile.rules().len());
            assert!(
                profile
                    .rules()
                    .iter()
                    .all(|rule| profile.fact(rule.name) == Some(rule.fact))
            );
        }
        assert!("podman".parse::<Profile>().is_err());
        let at_most = format!("at most {} layers", LayerLimit::DOCKER);
        assert!(DOCKER_20.iter().any(|rule| rule.rule == at_most), "{at_most}");
    }

    #[test]
    fn names_of_layouts_follow_their_grammar() {
        for name in ["latest", "v1.0", "docker.io/library/x:1", "a--b", "x@sha256:ab"] {
            assert!(is_ref_name(name), "{name}");
        }
        for name in ["", "a//b", "-a", "a b", "a---b", "a/"] {
            assert!(!is_ref_name(name), "{name}");
        }
    }
}
