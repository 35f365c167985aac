//! A *config* says what a container of an image runs, and which layers the image has (OCI image-spec, config.md).
//!
//! Invariant: sets and maps are in the order of their keys; what is empty is left out when it is written. Fields are read
//! by `oci-spec`'s types; members of `config` that these do not know (`Healthcheck`, `OnBuild`) are kept beside them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::manifest::sorted;
use super::media_type::DocumentKind;
use super::platform::Platform;
use super::raw::{DocumentError, Typed};
use super::shape::{self, Shape};
use crate::digest::DiffId;

/// Largest config in bytes: what podman, skopeo and buildah read (containers/image, `iolimits`).
pub const CONFIG_SIZE_MAX: u64 = 4 << 20;

/// The config of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Processor architecture, as it is written; empty where it is not said.
    pub architecture: String,
    /// Operating system, as it is written; empty where it is not said.
    pub os: String,
    /// Version of the operating system, where it is said: that of Windows must fit the machine's.
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Variant of the processor, as it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// When the image was made (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What a container runs.
    #[serde(rename = "config")]
    pub execution: Execution,
    /// The layers' diffIDs, lowest first.
    #[serde(rename = "rootfs", serialize_with = "root_fs")]
    pub diff_ids: Vec<DiffId>,
    /// How the layers came about.
    pub history: Vec<History>,
}

/// What a container runs: `config` of a config.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// `user[:group]`, names or numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `80/tcp`; foreign configs may have other texts.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", serialize_with = "go_set")]
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=VALUE`, in its own order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The command, before `cmd`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The command's arguments, or the command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Directories that a container writes to.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", serialize_with = "go_set")]
    pub volumes: BTreeSet<String>,
    /// The directory that the command starts in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Free-form facts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What ends a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Members that the specification does not know.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// A step by which an image came about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// When (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_layer: Option<bool>,
}

impl Config {
    /// What the image runs on; `None` where that is not said or cannot be understood.
    pub fn platform(&self) -> Option<Platform> {
        Platform::read(
            &self.os,
            &self.architecture,
            self.variant.as_deref(),
            self.os_version.as_deref(),
        )
    }

    /// The history entries that made layers, in the layers' order.
    pub fn layer_history(&self) -> impl Iterator<Item = &History> {
        self.history.iter().filter(|entry| !entry.is_empty_layer())
    }
}

impl History {
    /// Whether it made no layer.
    pub fn is_empty_layer(&self) -> bool {
        self.empty_layer == Some(true)
    }
}

impl Typed for Config {
    const KIND: DocumentKind = DocumentKind::Config;
    const SHAPE: Shape = shape::CONFIG;
    const FOREIGN: &'static [&'static str] = &[];
    const SIZE_MAX: u64 = CONFIG_SIZE_MAX;

    fn from_json(mut value: Value) -> Result<Self, DocumentError> {
        let execution = value.get("config").into_iter();
        let others = execution.flat_map(|config| shape::others(config, shape::EXECUTION));
        let others = others.map(|(key, value)| (key.clone(), value.clone())).collect();
        shape::settle(&mut value, Self::SHAPE);
        let spec: oci_spec::image::ImageConfiguration =
            serde_json::from_value(value).map_err(DocumentError::field(Self::KIND))?;
        let history = spec.history().iter().flatten().map(|entry| History {
            created: entry.created().clone(),
            created_by: entry.created_by().clone(),
            author: entry.author().clone(),
            comment: entry.comment().clone(),
            empty_layer: entry.empty_layer(),
        });
        let diff_id = |text: &String| {
            text.parse().map_err(|_| DocumentError::Algorithm {
                kind: Self::KIND,
                digest: text.clone(),
            })
        };
        Ok(Self {
            architecture: spec.architecture().to_string(),
            os: spec.os().to_string(),
            os_version: spec.os_version().clone(),
            variant: spec.variant().clone(),
            created: spec.created().clone(),
            execution: Execution {
                others,
                ..spec.config().as_ref().map(Execution::read).unwrap_or_default()
            },
            diff_ids: spec.rootfs().diff_ids().iter().map(diff_id).collect::<Result<_, _>>()?,
            history: history.collect(),
        })
    }
}

impl Execution {
    fn read(spec: &oci_spec::image::Config) -> Self {
        let set = |keys: &Option<Vec<String>>| keys.iter().flatten().cloned().collect();
        let list = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
        Self {
            user: spec.user().clone(),
            exposed_ports: set(spec.exposed_ports()),
            env: list(spec.env()),
            entrypoint: list(spec.entrypoint()),
            cmd: list(spec.cmd()),
            volumes: set(spec.volumes()),
            working_dir: spec.working_dir().clone(),
            labels: sorted(spec.labels().as_ref()),
            stop_signal: spec.stop_signal().clone(),
            others: BTreeMap::new(),
        }
    }
}

/// An object whose values are all `{}`, as Go writes a set.
fn go_set<S: Serializer>(keys: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let empty = BTreeMap::<(), ()>::new();
    serializer.collect_map(keys.iter().map(|key| (key, &empty)))
}

fn root_fs<S: Serializer>(diff_ids: &[DiffId], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct RootFs<'a> {
        r#type: &'static str,
        diff_ids: &'a [DiffId],
    }
    let r#type = "layers";
    RootFs { r#type, diff_ids }.serialize(serializer)
}
