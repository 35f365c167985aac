//! *Image options*: what the command line says of images, beside the spec.
//!
//! Invariant: options that describe an image of store paths are refused for an image of the spec, which says these things
//! itself; all others change either.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::image::{ContentRoot, Recipe};
use crate::inputs::MadeWith;
use crate::oci::{Compression, LayerLimit, LayerStrategy, Platform, Port, TarProfile};
use crate::spec::{self, Permission, PermissionPaths, Spanned};

use super::error::ProjectError;
use super::roots::image_name;

/// What flags say of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// What describes an image of store paths.
    pub described: Description,
    /// What an image of store paths is for; several make an index. What is made of one of the spec, the work says.
    pub platforms: Vec<Platform>,
    /// How layers are compressed.
    pub compression: Option<Compression>,
    /// Most layers.
    pub max_layers: Option<LayerLimit>,
    /// Whether there may be more layers than Docker loads.
    pub beyond_docker: bool,
    /// How store paths are grouped into layers.
    pub strategy: Option<LayerStrategy>,
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
    pub ports: Vec<Port>,
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

    /// What of the options neither an image of a spec nor the spec tells, to be kept with its inputs.
    pub fn made_with(&self) -> MadeWith {
        let Self {
            // Of an image of store paths, which has no inputs to keep.
            described: _,
            platforms: _,
            compression,
            // The layers of the image tell how they were planned.
            max_layers: _,
            beyond_docker: _,
            strategy: _,
            plan: _,
            previous: _,
            nix_db,
            // The image's format names it.
            tar_profile: _,
            permissions,
            single_member,
            pack_threads: _,
        } = self;
        let (chmod, chown) = permission_texts(permissions);
        MadeWith {
            compression: compression.map(|how| how.to_string()),
            chmod,
            chown,
            nix_db: *nix_db,
            single_member: *single_member,
        }
    }

    /// The options that an image was made with, as they were kept.
    pub fn from_made_with(made_with: &MadeWith) -> Result<Self, ProjectError> {
        let MadeWith {
            compression,
            chmod,
            chown,
            nix_db,
            single_member,
        } = made_with;
        Ok(Self {
            compression: compression.as_ref().map(|how| how.parse()).transpose()?,
            permissions: permissions(chmod, chown)?,
            nix_db: *nix_db,
            single_member: *single_member,
            ..Self::default()
        })
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
        let ports: BTreeSet<Port> = ports.into_iter().collect();
        Ok(spec::Image {
            tag: tag.to_owned(),
            entrypoint,
            cmd,
            env,
            workdir,
            user,
            ports: ports.into_iter().collect(),
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
            layers.strategy = Some(Spanned::nowhere(*strategy));
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
            ("--base", base.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => Err(ProjectError::PathFlag { flag }),
        }
    }
}

/// The rules of `--chmod PATH=MODE` and `--chown PATH=OWNER[:GROUP]`, modes before owners.
pub fn permissions(modes: &[String], owners: &[String]) -> Result<Vec<Permission>, ProjectError> {
    let mut rules = Vec::new();
    for argument in modes {
        let (rule, mode) = rule("--chmod", argument)?;
        let bits = u32::from_str_radix(&mode, 8).ok().filter(|&mode| mode <= 0o7777);
        let bits = bits.ok_or(ProjectError::Mode { mode })?;
        rules.push(Permission {
            mode: Some(bits),
            ..rule
        });
    }
    for argument in owners {
        let (rule, owner) = rule("--chown", argument)?;
        let (user, group) = match owner.split_once(':') {
            Some((user, group)) => (user.to_owned(), Some(group.to_owned())),
            None => (owner, None),
        };
        rules.push(Permission {
            owner: Some(user).filter(|user| !user.is_empty()),
            group: group.filter(|group| !group.is_empty()),
            ..rule
        });
    }
    Ok(rules)
}

/// A rule that does nothing yet, and what it is to do.
fn rule(flag: &'static str, argument: &str) -> Result<(Permission, String), ProjectError> {
    let found = argument.rsplit_once('=');
    let found = found.filter(|(path, value)| path.starts_with(['/', '*']) && !value.is_empty());
    let (path, value) = found.ok_or_else(|| ProjectError::PermissionRule {
        flag,
        argument: argument.to_owned(),
    })?;
    let paths = match path.contains(['*', '?']) {
        true => PermissionPaths::Pattern(path.to_owned()),
        false => PermissionPaths::Path(path.to_owned()),
    };
    let rule = Permission {
        paths,
        mode: None,
        owner: None,
        group: None,
        capabilities: None,
    };
    Ok((rule, value.to_owned()))
}

/// The arguments of `--chmod` and of `--chown` that give these rules.
fn permission_texts(rules: &[Permission]) -> (Vec<String>, Vec<String>) {
    let (mut modes, mut owners) = (Vec::new(), Vec::new());
    for Permission {
        paths,
        mode,
        owner,
        group,
        capabilities: _,
    } in rules
    {
        modes.extend(mode.map(|mode| format!("{paths}={mode:04o}")));
        match (owner, group) {
            (None, None) => {}
            (owner, None) => owners.push(format!("{paths}={}", owner.as_deref().unwrap_or_default())),
            (owner, Some(group)) => owners.push(format!("{paths}={}:{group}", owner.as_deref().unwrap_or_default())),
        }
    }
    (modes, owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept beside an image gives the same options when it is read back: a rebuild would differ otherwise.
    #[test]
    fn options_survive_being_kept_beside_an_image() {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let modes = texts(&["/var/lib/app=0750", "/srv/**=4755"]);
        let owners = texts(&["/a=b=1000:1000", "*/x=app", "/g=:adm"]);
        let options = ImageOptions {
            compression: Some("zstd:7".parse().unwrap()),
            permissions: permissions(&modes, &owners).unwrap(),
            nix_db: true,
            single_member: true,
            ..ImageOptions::default()
        };
        let made_with = options.made_with();
        assert_eq!((&made_with.chmod, &made_with.chown), (&modes, &owners));
        assert_eq!(ImageOptions::from_made_with(&made_with).unwrap(), options);
    }

    #[test]
    fn rules_that_are_none_are_refused_with_an_example() {
        for (mode, owner) in [
            (Some("/a"), None),
            (Some("a=0750"), None),
            (Some("/a="), None),
            (Some("/a=0800"), None),
            (Some("/a=10000"), None),
            (None, Some("/a")),
            (None, Some("b=root")),
        ] {
            let texts = |text: Option<&str>| text.map(str::to_owned).into_iter().collect::<Vec<_>>();
            let error = permissions(&texts(mode), &texts(owner)).unwrap_err();
            assert!(error.help().is_some(), "{mode:?} {owner:?}: {error}");
        }
    }
}
