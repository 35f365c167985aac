//! A *recipe* is everything that decides an image's digest, as one value.
//!
//! Invariant: plain data; nothing in it is looked up again, and where things are on this machine is no part of its
//! serialised form. That form is made by patterns without `..`: whoever adds a field to the recipe or to the spec's image
//! says there what it is to the digest. The key of the image cache is a digest of it, and what a user asked for beyond
//! the spec (which decides whether a digest may be recorded, and is told in the provenance) is a difference of two.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::base::Base;
use super::debug::Debug;
use super::error::ImageError;
use super::format::Format;
use super::sources::{self, Source, SourceEntry};
use crate::digest::Digest;
use crate::layer::partition::{History, LayerPlan, Origin};
use crate::oci::{Compression, Platform, TarProfile, canonical_json};
use crate::spec;
use crate::store_path::{LogicalPath, PathInfo, StoreDir};

/// Everything that decides an image's digest.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The spec's image, or an equivalent made from options. What is resolved in the fields below is not read from it:
    /// `contents`, `root`, `base`, `platform`, `created`, `compression`, `nix_db` and `layers.tar_profile`.
    pub spec: spec::Image,
    /// The spec's `files`, as they were on disk when the recipe was made.
    pub(super) files: Vec<Source>,
    /// What is joined under `/`, in the order of the spec's `contents`; each a member of `closure`.
    pub contents: Vec<ContentRoot>,
    /// All store paths that go in at their own place, in any order.
    pub closure: Vec<ClosureMember>,
    /// Debian packages laid out at `/`, in order.
    pub root: Vec<RootPackage>,
    /// What the maintainer scripts of `root` made, laid over it.
    pub configured: Option<Configured>,
    /// What was made for this image by something else than its spec: a Nix database. Nothing may stand in its place.
    pub generated: Vec<Generated>,
    /// The image that this one is laid over.
    pub base: Option<Base>,
    /// What the image is for.
    pub platform: Platform,
    /// Seconds since 1970 that the config's `created` says.
    pub created: i64,
    /// How layers are compressed.
    pub compression: Compression,
    /// Whether each layer is one gzip member, for consumers that read no more than the first.
    pub single_member: bool,
    /// The dialect of the layers' tars.
    pub tar_profile: TarProfile,
    /// The layer plan to be used as it is; `None`: one is made.
    pub plan: Option<LayerPlan>,
    /// The layer plan of the release before, from which a new one starts.
    pub previous: Option<LayerPlan>,
    /// What was seen to change, from elsewhere than `previous`.
    pub history: History,
    /// What a debug image has above the image that all the rest is of.
    pub debug: Option<Debug>,
}

/// What is asked for that only manifest, config and compression depend on: an image that differs in nothing else is laid
/// out and cut into layers in the same way.
const NOT_LAID_OUT: &[&str] = &[
    "annotations",
    "compression",
    "created",
    "labels",
    "ports",
    "single-member",
    "stop-signal",
    "tar-profile",
];

impl Recipe {
    /// The recipe of an image of nothing but its spec's `files`, which are read.
    pub fn new(spec: spec::Image, platform: Platform, created: i64) -> Result<Self, ImageError> {
        Ok(Self {
            files: sources::read(&spec)?,
            spec,
            contents: Vec::new(),
            closure: Vec::new(),
            root: Vec::new(),
            configured: None,
            generated: Vec::new(),
            base: None,
            platform,
            created,
            compression: Compression::default(),
            single_member: false,
            tar_profile: TarProfile::default(),
            plan: None,
            previous: None,
            history: History::default(),
            debug: None,
        })
    }

    /// The store paths that are in the image at their own places: the closure, and the tools of a debug image.
    pub fn members(&self) -> impl Iterator<Item = &ClosureMember> {
        self.closure.iter().chain(self.debug.iter().map(|debug| &debug.tools))
    }

    /// One of the [`members`](Self::members), by its place among them.
    pub(super) fn member(&self, index: usize) -> Option<&ClosureMember> {
        self.closure.get(index).or_else(|| self.members().nth(index))
    }

    /// Whether Debian packages are laid out at `/`, and not only a few files of some.
    pub(super) fn has_root(&self) -> bool {
        self.root.iter().any(|package| !package.is_part)
    }

    /// The rules by which the image is made.
    pub fn format(&self) -> Format {
        Format::current(self.tar_profile)
    }

    /// What spec and options ask for, by the spec's keys. What was found for it (store paths, packages, the bytes of
    /// files, a base's digest) and the image's names are left out.
    pub fn asked(&self) -> Map<String, Value> {
        let Self {
            spec,
            files: _,
            contents: _,
            closure: _,
            root: _,
            configured: _,
            generated: _,
            base: _,
            platform,
            created,
            compression,
            single_member,
            tar_profile,
            plan,
            previous,
            history,
            debug: _,
        } = self;
        let digest_of = |plan: &LayerPlan| Digest::of(plan.print().as_bytes());
        let mut asked = asked_of_spec(spec);
        asked["layers"]["plan"] = json!(plan.as_ref().map(digest_of));
        asked["layers"]["previous"] = json!(previous.as_ref().map(digest_of));
        asked["layers"]["history"] = json!(history);
        asked["platform"] = json!(platform);
        asked["created"] = json!(created);
        asked["compression"] = json!(compression.to_string());
        asked["single-member"] = json!(single_member);
        asked["tar-profile"] = json!(tar_profile);
        match asked {
            Value::Object(asked) => asked,
            _ => Map::new(),
        }
    }

    /// What is asked for here and not by `plain`: the keys whose values differ, with the values here. Of a key with a
    /// table of settings (`layers`, `env`, …) the entries that differ.
    pub fn asked_beyond(&self, plain: &Self) -> Map<String, Value> {
        difference(&self.asked(), &plain.asked())
    }

    /// The key of everything that the image's layout, its checks and its cut into layers depend on.
    pub(super) fn layout_key(&self, version: u32) -> Digest {
        let mut asked = self.asked();
        for key in NOT_LAID_OUT {
            asked.remove(*key);
        }
        Digest::of(&canonical_json(&(version, self.format().number, asked, self.found())))
    }

    /// All that is known of it before anything is built: the format, what is asked for, and the files on disk.
    pub fn request(&self) -> impl Serialize + '_ {
        (self.format().number, self.asked(), files(&self.files))
    }

    /// Whether the files on disk are still those of the recipe.
    pub(super) fn files_are_current(&self) -> Result<bool, ImageError> {
        let now = sources::read(&self.spec)?;
        Ok(canonical_json(&files(&now)) == canonical_json(&files(&self.files)))
    }

    /// What was found for what is asked for.
    fn found(&self) -> impl Serialize + '_ {
        let Self {
            spec: _,
            files: sources,
            contents,
            closure,
            root,
            configured,
            generated,
            base,
            platform: _,
            created: _,
            compression: _,
            single_member: _,
            tar_profile: _,
            plan: _,
            previous: _,
            history: _,
            debug,
        } = self;
        let base = base.as_ref().map(
            |Base {
                 name,
                 image,
                 accounts,
                 links,
             }| (name, image.digest(), accounts, links),
        );
        (
            files(sources),
            contents,
            closure,
            root,
            configured,
            generated,
            base,
            debug,
        )
    }
}

impl Serialize for Recipe {
    /// As the format's number, what is asked for and what was found for it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.format().number, self.asked(), self.found()).serialize(serializer)
    }
}

/// What a spec's image asks for, but for what a recipe has resolved.
fn asked_of_spec(spec: &spec::Image) -> Value {
    let spec::Image {
        allow_missing,
        name: _,
        dir: _,
        tag: _,
        contents,
        root,
        lay,
        exclude,
        debconf,
        locales,
        certificates,
        configure,
        base,
        files,
        users,
        entrypoint,
        cmd,
        env,
        workdir,
        user,
        ports,
        volumes,
        labels,
        annotations,
        stop_signal,
        healthcheck,
        // What is tried decides nothing.
        tests: _,
        layers,
        platforms: _,
        compression: _,
        permissions,
        created: _,
        nix_db,
        timezone,
        utf8,
        join,
        debug,
    } = spec;
    let asked = json!({
        "allow-missing": allow_missing,
        "annotations": annotations,
        "base": base,
        "certificates": certificates.as_ref().map(asked_of_certificates),
        "cmd": cmd,
        "configure": configure,
        "contents": contents,
        "debconf": debconf,
        "entrypoint": entrypoint,
        "env": env,
        "exclude": exclude,
        "files": files,
        "join": join,
        "lay": lay,
        "labels": labels,
        "layers": asked_of_layers(layers),
        "locales": locales,
        "nix-db": nix_db,
        "permissions": permissions,
        "ports": ports,
        "root": root,
        "stop-signal": stop_signal,
        "timezone": timezone,
        "user": user,
        "users": users,
        "utf-8": utf8,
        "volumes": volumes,
        "workdir": workdir,
    });
    with_health(with_debug(asked, debug.as_ref()), healthcheck.as_ref())
}

/// Images without a health check are asked for as they were before there were any.
fn with_health(mut asked: Value, healthcheck: Option<&spec::HealthCheck>) -> Value {
    if let Some(healthcheck) = healthcheck {
        asked["healthcheck"] = json!(healthcheck);
    }
    asked
}

/// The image that a debug image is of does not know of it.
fn with_debug(mut asked: Value, debug: Option<&spec::DebugImage>) -> Value {
    if let Some(spec::DebugImage { of: _, tools }) = debug {
        asked["debug"] = json!({ "tools": tools });
    }
    asked
}

/// The user's own by their names; where they were read decides nothing.
fn asked_of_certificates(certificates: &spec::Certificates) -> Value {
    let spec::Certificates { files: _, own } = certificates;
    let own = own.iter().map(|(name, own)| (name, &own.certificate));
    json!(own.collect::<BTreeMap<_, _>>())
}

fn asked_of_layers(layers: &spec::Layers) -> Value {
    let spec::Layers {
        strategy,
        tar_profile: _,
        max,
        beyond_docker,
        groups,
        weights,
        plan,
    } = layers;
    json!({
        "beyond-docker": beyond_docker,
        "groups": groups,
        "kept": plan.is_some(),
        "max": max,
        "strategy": strategy,
        "weights": weights,
    })
}

/// Files as an image has them: without where they are on disk.
fn files(sources: &[Source]) -> Vec<impl Serialize + '_> {
    fn file(source: &Source) -> impl Serialize + '_ {
        let Source {
            path,
            entries,
            mode,
            owner,
            group,
        } = source;
        let entries: Vec<_> = entries.iter().map(SourceEntry::key).collect();
        (path.escape_ascii().to_string(), entries, mode, owner, group)
    }
    sources.iter().map(file).collect()
}

/// The entries of `a` that `b` has not, or has with other values; of tables in both, theirs.
fn difference(a: &Map<String, Value>, b: &Map<String, Value>) -> Map<String, Value> {
    let differs = |(key, value): (&String, &Value)| match (value, b.get(key)) {
        (value, Some(other)) if value == other => None,
        (Value::Object(value), Some(Value::Object(other))) => {
            Some((key.clone(), Value::Object(difference(value, other))))
        }
        (value, _) => Some((key.clone(), value.clone())),
    };
    a.iter().filter_map(differs).collect()
}

/// An entry of an image that was made for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Generated {
    /// Absolute path in the image.
    pub path: String,
    /// What it is.
    pub kind: GeneratedKind,
}

/// What a [`Generated`] entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneratedKind {
    /// A directory with these permission bits.
    Directory(u32),
    /// A file, 0644.
    File(#[serde(serialize_with = "digest_of")] Arc<[u8]>),
    /// A symlink.
    Symlink(String),
}

fn digest_of<S: Serializer>(bytes: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    Digest::of(bytes).serialize(serializer)
}

/// A store path that is joined under `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContentRoot {
    /// What the user calls it, for messages: `hello`, `deb:curl`.
    pub name: String,
    /// Its place in the image.
    pub logical: LogicalPath,
}

/// A store path that goes into the image at its own place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClosureMember {
    /// Name part of the store path, for messages and for the groups and weights of the spec: `hello-2.10`.
    pub name: String,
    /// Its place in the image.
    pub logical: LogicalPath,
    /// Where its tree is on disk.
    #[serde(skip)]
    pub physical: PathBuf,
    /// SHA-256 of its canonical archive.
    pub nar_hash: Digest,
    /// Size of that archive in bytes.
    pub nar_size: u64,
    /// The members it refers to, itself left out.
    pub references: BTreeSet<LogicalPath>,
    /// Whether a script of the spec made it, or the user named it: its programs must be able to start.
    pub is_built: bool,
    /// Whose releases change it.
    pub origin: Origin,
}

impl ClosureMember {
    /// The member that a store's record describes, its tree being at `physical`.
    pub fn new(info: &PathInfo, dir: &StoreDir, physical: PathBuf, is_built: bool, origin: Origin) -> Self {
        Self {
            name: info.path.name().to_owned(),
            logical: dir.logical(&info.path),
            physical,
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
            references: info.references.iter().map(|reference| dir.logical(reference)).collect(),
            is_built,
            origin,
        }
    }
}

/// A Debian package whose tree is laid out at `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RootPackage {
    /// Package name.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// Its store path, by which layer plans name it; the image has its files at `/` instead.
    pub logical: LogicalPath,
    /// Where its tree is on disk.
    #[serde(skip)]
    pub physical: PathBuf,
    /// SHA-256 of the tree's canonical archive.
    pub nar_hash: Digest,
    /// Size of that archive in bytes.
    pub nar_size: u64,
    /// Whether it is but a few files of the package, which make no Debian system of an image.
    pub is_part: bool,
    /// Whose releases change it.
    pub origin: Origin,
}

/// A store path that holds what maintainer scripts made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Configured {
    /// Its store path; it is no part of the image.
    pub logical: LogicalPath,
    /// Where it is on disk.
    #[serde(skip)]
    pub physical: PathBuf,
    /// SHA-256 of its canonical archive.
    pub nar_hash: Digest,
    /// The number of each user and group that the scripts made: [`numbers`](super::numbers()).
    pub numbers: BTreeMap<String, u32>,
}

/// Copies of a value of a struct with each field changed in turn, by the field's name. The pattern has no `..`: a field
/// that is added to the struct is a field that its tests must change.
#[cfg(test)]
macro_rules! each_changed {
    ($type:ident, $sample:expr, { $($field:ident: |$value:ident| $change:expr),* $(,)? }) => {{
        let sample: $type = $sample;
        let $type { $($field: _),* } = &sample;
        vec![$((stringify!($field), {
            let mut changed = sample.clone();
            let $value = &mut changed.$field;
            let _ = $change;
            changed
        })),*]
    }};
}
#[cfg(test)]
pub(crate) use each_changed;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_names_everything_by_logical_paths() {
        let path = |text: &str| text.parse().unwrap();
        let info = PathInfo {
            path: path("1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-hello-2.10"),
            nar_hash: Digest::of(b"x"),
            nar_size: 7,
            references: BTreeSet::from([path("0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-libc6-2.36")]),
            self_reference: true,
        };
        let member = ClosureMember::new(
            &info,
            &StoreDir::nix(),
            PathBuf::from("/physical"),
            true,
            Origin::Unknown,
        );
        assert_eq!(member.name, "hello-2.10");
        assert_eq!(
            member.logical.as_str(),
            "/nix/store/1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-hello-2.10"
        );
        let references: Vec<_> = member.references.iter().map(LogicalPath::as_str).collect();
        assert_eq!(references, ["/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-libc6-2.36"]);
    }
}
