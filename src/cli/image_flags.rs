//! The *image flags*: what the command line says of an image.
//!
//! Invariant: flags that make up an image are for images of store paths alone; with an image of a spec they are refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::image::ContentRoot;
use crate::layer::TarProfile;
use crate::oci::Compression;
use crate::spec::{self, Spanned};

use super::error::advised;
use super::permissions::permissions;
use super::roots::image_name;

/// Options that make up an image of store paths, or change one of the spec.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Image options")]
pub struct ImageFlags {
    /// Name of an image of store paths, with its tag if it has one [default: the first path's name]
    #[arg(long, value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// Program of an image of store paths; repeat for its fixed arguments
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub entrypoint: Vec<String>,
    /// Default argument of an image of store paths; repeatable
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub cmd: Vec<String>,
    /// Variable of an image of store paths; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Working directory of an image of store paths
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User of an image of store paths
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Label of an image of store paths; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Port of an image of store paths; repeatable
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub port: Vec<String>,
    /// Image that an image of store paths is laid over: docker://NAME, oci:DIR:TAG, docker-archive:FILE, …
    #[arg(long, value_name = "IMAGE")]
    pub base: Option<String>,
    /// Platform of an image of store paths; several, separated by commas, make an index [default: linux/amd64]
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// gzip[:LEVEL], zstd[:LEVEL] or none [default: the spec's, else gzip]
    #[arg(long, value_name = "HOW")]
    pub compression: Option<Compression>,
    /// Most layers [default: the spec's, else 100]
    #[arg(long, value_name = "N")]
    pub max_layers: Option<u32>,
    /// Allow more layers than Docker loads
    #[arg(long)]
    pub beyond_docker: bool,
    /// How store paths are grouped into layers [default: the spec's, else churn]
    #[arg(long, value_name = "NAME")]
    pub strategy: Option<String>,
    /// Take the layers from a plan file: one of `layerize plan --json`, or written by hand
    #[arg(long, value_name = "FILE", conflicts_with = "previous")]
    pub plan: Option<PathBuf>,
    /// Start from the release before, a plan file or an image, and keep what did not change as it is
    #[arg(long, value_name = "PLAN|IMAGE")]
    pub previous: Option<String>,
    /// Put a Nix database into the image that knows its /nix/store paths, so that Nix works in it
    #[arg(long)]
    pub nix_db: bool,
    /// Whose dialect the layers' tars are written in: layerize, nix2container or dockertools [default: the spec's, else layerize]
    #[arg(long, value_name = "TOOL")]
    pub tar_profile: Option<TarProfile>,
    /// Give permission bits to a path in the image, or to all that a pattern of *, ** and ? fits; repeatable
    #[arg(long, value_name = "PATH=MODE")]
    pub chmod: Vec<String>,
    /// Give an owner to a path in the image, or to all that a pattern fits; repeatable
    #[arg(long, value_name = "PATH=OWNER[:GROUP]")]
    pub chown: Vec<String>,
    /// One gzip member a layer, for consumers that read no more than the first
    #[arg(long)]
    pub single_member: bool,
    /// Number of threads that pack [default: the number of cores]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub pack_threads: usize,
}

impl ImageFlags {
    /// The flags of an image of store paths that has this name and says nothing else.
    pub fn named(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..Self::default()
        }
    }

    /// The flags as the spec of an image of store paths.
    pub fn to_spec(&self, contents: &[ContentRoot]) -> anyhow::Result<spec::Image> {
        let of_content = || contents.first().and_then(|content| image_name(&content.name));
        let name = self.name.clone().or_else(of_content).ok_or_else(|| {
            advised(
                "an image of store paths needs a name",
                "add for example `--name app --entrypoint app`",
            )
        })?;
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (name.as_str(), "latest"),
        };
        let mut image = spec::Image {
            tag: tag.to_owned(),
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            env: pairs("--env", &self.env)?,
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            ports: self.port.clone(),
            labels: pairs("--label", &self.label)?,
            ..spec::Image::new(name)
        };
        self.change(&mut image)?;
        Ok(image)
    }

    /// Which platform of a finished image, or for an image of store paths.
    pub fn platform(&self) -> Option<&str> {
        self.platform.as_deref()
    }

    /// The flags that were given and change the image, by name, for its provenance.
    pub fn options(&self) -> BTreeMap<String, Value> {
        let given = |list: &[String]| (!list.is_empty()).then(|| json!(list));
        let file = |path: &Path| json!(path.file_name().map(|name| name.to_string_lossy()));
        let options = [
            ("name", self.name.as_ref().map(|name| json!(name))),
            ("entrypoint", given(&self.entrypoint)),
            ("cmd", given(&self.cmd)),
            ("env", given(&self.env)),
            ("workdir", self.workdir.as_ref().map(|dir| json!(dir))),
            ("user", self.user.as_ref().map(|user| json!(user))),
            ("label", given(&self.label)),
            ("port", given(&self.port)),
            ("compression", self.compression.map(|how| json!(how.to_string()))),
            ("max-layers", self.max_layers.map(|max| json!(max))),
            ("beyond-docker", self.beyond_docker.then_some(Value::Bool(true))),
            ("strategy", self.strategy.as_ref().map(|name| json!(name))),
            ("plan", self.plan.as_deref().map(file)),
            ("previous", self.previous.as_deref().map(|text| file(Path::new(text)))),
            ("single-member", self.single_member.then_some(Value::Bool(true))),
        ];
        let options = options.into_iter();
        options
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect()
    }

    /// Applies the flags that any image takes.
    pub fn change(&self, image: &mut spec::Image) -> anyhow::Result<()> {
        image.permissions.extend(permissions(&self.chmod, &self.chown)?);
        image.nix_db |= self.nix_db;
        image.layers.beyond_docker |= self.beyond_docker;
        if let Some(max) = self.max_layers {
            image.layers.max = Some(Spanned::nowhere(max));
        }
        if let Some(strategy) = &self.strategy {
            image.layers.strategy = Some(Spanned::nowhere(strategy.clone()));
        }
        Ok(())
    }

    /// An image of the spec says these things in the spec.
    pub fn refuse_path_flags(&self) -> anyhow::Result<()> {
        let given = [
            ("--name", self.name.is_some()),
            ("--entrypoint", !self.entrypoint.is_empty()),
            ("--cmd", !self.cmd.is_empty()),
            ("--env", !self.env.is_empty()),
            ("--workdir", self.workdir.is_some()),
            ("--user", self.user.is_some()),
            ("--label", !self.label.is_empty()),
            ("--port", !self.port.is_empty()),
            ("--platform", self.platform.is_some()),
            ("--base", self.base.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => Err(advised(
                format!("`{flag}` is for images of store paths; this image is described by the spec"),
                match *flag {
                    "--platform" => {
                        "say it in layerize.toml; a lock is for one architecture: build on each, and join the images with \
                         `layerize index create`"
                    }
                    _ => "say it in layerize.toml",
                },
            )),
        }
    }
}

/// `KEY=VALUE` arguments.
pub fn pairs(flag: &str, arguments: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    arguments
        .iter()
        .map(|argument| match argument.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(advised(
                format!("`{flag} {argument}` has no value"),
                format!("write `{flag} KEY=VALUE`"),
            )),
        })
        .collect()
}
