//! *Image options*: what the command line says of images, beside the spec.
//!
//! Invariant: options that describe an image of store paths are refused for an image of the spec, which says these things
//! itself; all others change either.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::image::{ContentRoot, Recipe};
use crate::layer::TarProfile;
use crate::oci::Compression;
use crate::spec::{self, Permission, Spanned};

use super::error::ProjectError;
use super::roots::image_name;

/// What flags say of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// What describes an image of store paths.
    pub described: Description,
    /// What the image is for; several make an index. Of store paths only.
    pub platforms: Vec<String>,
    /// How layers are compressed.
    pub compression: Option<Compression>,
    /// Most layers.
    pub max_layers: Option<u32>,
    /// Whether there may be more layers than Docker loads.
    pub beyond_docker: bool,
    /// How store paths are grouped into layers.
    pub strategy: Option<String>,
    /// File of a layer plan that is used as it is.
    pub plan: Option<PathBuf>,
    /// The release before: a plan file, or where its image is.
    pub previous: Option<String>,
    /// Whether the image has a Nix database.
    pub nix_db: bool,
    /// The dialect of the layers' tars.
    pub tar_profile: Option<TarProfile>,
    /// Modes and owners, after those of the spec.
    pub permissions: Vec<Permission>,
    /// Whether each layer is one gzip member.
    pub single_member: bool,
    /// Number of threads that pack; 0: the number of cores. No digest depends on it.
    pub pack_threads: usize,
}

/// What describes an image of store paths, as the keys of `[image.NAME]` do for one of the spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Name, with its tag if it has one; `None`: that of the first store path.
    pub name: Option<String>,
    /// `entrypoint`.
    pub entrypoint: Vec<String>,
    /// `cmd`.
    pub cmd: Vec<String>,
    /// `env`.
    pub env: BTreeMap<String, String>,
    /// `workdir`.
    pub workdir: Option<String>,
    /// `user`.
    pub user: Option<String>,
    /// `labels`.
    pub labels: BTreeMap<String, String>,
    /// `ports`.
    pub ports: Vec<String>,
    /// `base`.
    pub base: Option<String>,
}

impl ImageOptions {
    /// The options of an image of store paths that has this name and says nothing else.
    pub fn named(name: &str) -> Self {
        let mut options = Self::default();
        options.described.name = Some(name.to_owned());
        options
    }

    /// The options as the spec of an image of store paths.
    pub(super) fn to_spec(&self, contents: &[ContentRoot]) -> Result<spec::Image, ProjectError> {
        let Description {
            name,
            entrypoint,
            cmd,
            env,
            workdir,
            user,
            labels,
            ports,
            base,
        } = self.described.clone();
        let of_content = || contents.first().and_then(|content| image_name(&content.name));
        let name = name.or_else(of_content).ok_or(ProjectError::NoName)?;
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (name.as_str(), "latest"),
        };
        Ok(spec::Image {
            tag: tag.to_owned(),
            entrypoint,
            cmd,
            env,
            workdir,
            user,
            ports,
            labels,
            base: base.map(Spanned::nowhere),
            ..spec::Image::new(name)
        })
    }

    /// Applies the options that any image takes. What must be read from somewhere, the plans, is left to the caller.
    pub(super) fn apply(&self, recipe: &mut Recipe) {
        let Self {
            described: _,
            platforms: _,
            compression,
            max_layers,
            beyond_docker,
            strategy,
            plan: _,
            previous: _,
            nix_db,
            tar_profile,
            permissions,
            single_member,
            pack_threads: _,
        } = self;
        let layers = &mut recipe.spec.layers;
        layers.beyond_docker |= beyond_docker;
        if let Some(max) = max_layers {
            layers.max = Some(Spanned::nowhere(*max));
        }
        if let Some(strategy) = strategy {
            layers.strategy = Some(Spanned::nowhere(strategy.clone()));
        }
        recipe.spec.nix_db |= nix_db;
        recipe.spec.permissions.extend(permissions.iter().cloned());
        recipe.compression = compression.unwrap_or(recipe.compression);
        recipe.tar_profile = tar_profile.unwrap_or(recipe.tar_profile);
        recipe.single_member |= single_member;
    }

    /// Refuses what an image of the spec says in the spec.
    pub(super) fn refuse_description(&self) -> Result<(), ProjectError> {
        let Description {
            name,
            entrypoint,
            cmd,
            env,
            workdir,
            user,
            labels,
            ports,
            base,
        } = &self.described;
        let given = [
            ("--name", name.is_some()),
            ("--entrypoint", !entrypoint.is_empty()),
            ("--cmd", !cmd.is_empty()),
            ("--env", !env.is_empty()),
            ("--workdir", workdir.is_some()),
            ("--user", user.is_some()),
            ("--label", !labels.is_empty()),
            ("--port", !ports.is_empty()),
            ("--platform", !self.platforms.is_empty()),
            ("--base", base.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => Err(ProjectError::PathFlag { flag }),
        }
    }
}
