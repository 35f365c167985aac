//! A workspace *as seen from a platform*: what of it is made for that one, as if it were made for no other.
//!
//! Invariant: what is seen from a platform does not depend on which others there are.
//!
//! Platforms go by Debian's names of their architectures, of which each platform that a spec may name has one. One of them is
//! *home*: what names no platform is for it.

use std::collections::BTreeSet;

use super::cross::wants_cross;
use super::lock::Lock;
use super::machine::{machine, own_machine};
use super::types::{Image, PackageName, Workspace};
use crate::oci::Platform;

/// The architecture of all that names no platform: what the spec says, else what the lock is for, else the machine's.
pub fn home_architecture(workspace: &Workspace, lock: &Lock) -> String {
    let said = workspace.debian.architecture.as_ref().or(lock.architecture.as_ref());
    said.cloned().unwrap_or_else(|| machine_architecture().to_owned())
}

/// Debian's name of the architecture of this machine; `amd64` where it has none.
pub fn machine_architecture() -> &'static str {
    let names = Platform::DEBIAN_ARCHITECTURES;
    let own = names.into_iter().find(|name| machine(name) == own_machine());
    own.unwrap_or("amd64")
}

/// The architectures that the workspace is for: home, and those of its images.
pub fn architectures(workspace: &Workspace, home: &str) -> BTreeSet<String> {
    let images = workspace.images.values();
    let named = images.flat_map(|image| image.architectures(home)).map(str::to_owned);
    named.chain([home.to_owned()]).collect()
}

impl Image {
    /// Debian's names of the architectures that it is made for.
    pub fn architectures<'a>(&'a self, home: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self
            .platforms
            .iter()
            .filter_map(|platform| platform.value.debian_architecture());
        named.chain(self.platforms.is_empty().then_some(home))
    }
}

impl Workspace {
    /// The part of the workspace that is made for an architecture: its images, each for that alone, with the packages that
    /// they need, and at home also the packages that no image needs.
    pub fn at(&self, architecture: &str, home: &str) -> Self {
        let is_some_crossed = self.packages.values().any(|package| wants_cross(self, package));
        if architecture == home && architectures(self, home).len() == 1 {
            let mut seen = self.clone();
            if is_some_crossed {
                seen.debian.architecture = Some(architecture.to_owned());
            }
            return seen;
        }
        let is_for = |image: &Image| image.architectures(home).any(|known| known == architecture);
        let here = self.images.iter().filter(|(_, image)| is_for(image));
        let here: BTreeSet<String> = here.map(|(name, _)| name.clone()).collect();
        let mut alone = BTreeSet::new();
        if architecture == home {
            let of_images = self
                .only(&BTreeSet::new(), &self.images.keys().cloned().collect())
                .packages;
            let others = self.packages.keys().filter(|name| !of_images.contains_key(*name));
            alone.extend(others.cloned().collect::<Vec<PackageName>>());
        }
        let mut seen = self.only(&alone, &here);
        for image in seen.images.values_mut() {
            image
                .platforms
                .retain(|platform| platform.value.debian_architecture() == Some(architecture));
        }
        if architecture != home {
            let plans = seen.images.values_mut().filter_map(|image| image.layers.plan.as_mut());
            for plan in plans {
                plan.value = plan_of(&plan.value, architecture);
            }
        }
        if architecture != home || is_some_crossed {
            seen.debian.architecture = Some(architecture.to_owned());
        }
        seen
    }
}

/// The file in which a layer plan for a further platform is kept, beside the one at home: `web.plan.arm64.json`.
fn plan_of(file: &str, architecture: &str) -> String {
    match file.strip_suffix(".json") {
        Some(stem) => format!("{stem}.{architecture}.json"),
        None => format!("{file}.{architecture}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const SPEC: &str = r#"
        [debian]
        architecture = "amd64"
        [package.lib]
        source = { path = "lib" }
        [package.app]
        source = { path = "app" }
        script = "true"
        runtime = ["lib"]
        [package.board]
        source = { path = "board" }
        [package.tool]
        source = { path = "tool" }
        [image.app]
        contents = ["app"]
        platform = ["linux/amd64", "linux/arm64", "linux/arm/v7"]
        layers = { plan = "app.plan.json" }
        [image.board]
        contents = ["board"]
        platform = "linux/arm64"
        [image.plain]
        contents = ["lib"]
        debug = true
    "#;

    fn seen(architecture: &str) -> String {
        let seen = parse(SPEC).unwrap().at(architecture, "amd64");
        let images = seen.images.iter().map(|(name, image)| {
            let platforms: Vec<String> = image.platforms.iter().map(|one| one.value.to_string()).collect();
            let plan = image.layers.plan.as_ref().map_or("", |plan| plan.value.as_str());
            format!("{name}[{}]{plan}", platforms.join(","))
        });
        let packages = seen.packages.keys().map(|name| name.0.clone());
        images.chain(packages).collect::<Vec<_>>().join(" ")
    }

    /// Each platform has its images, each for it alone, with what they need; what no image needs is at home.
    #[test]
    fn a_workspace_is_seen_from_each_platform() {
        let workspace = parse(SPEC).unwrap();
        let all: Vec<String> = architectures(&workspace, "amd64").into_iter().collect();
        assert_eq!(all, ["amd64", "arm64", "armhf"]);
        assert_eq!(
            seen("amd64"),
            "app[linux/amd64]app.plan.json plain[] plain-debug[] app lib tool"
        );
        assert_eq!(
            seen("arm64"),
            "app[linux/arm64]app.plan.arm64.json board[linux/arm64] app board lib"
        );
        assert_eq!(seen("armhf"), "app[linux/arm/v7]app.plan.armhf.json app lib");
        assert_eq!(seen("s390x"), "");
        assert_eq!(
            workspace.at("arm64", "amd64").debian.architecture.as_deref(),
            Some("arm64")
        );
    }

    #[test]
    fn home_is_what_the_spec_says_or_the_lock_or_the_machine() {
        let mut workspace = parse(SPEC).unwrap();
        let mut lock = Lock {
            architecture: Some("s390x".to_owned()),
            ..Lock::default()
        };
        assert_eq!(home_architecture(&workspace, &lock), "amd64");
        workspace.debian.architecture = None;
        assert_eq!(home_architecture(&workspace, &lock), "s390x");
        lock.architecture = None;
        assert_eq!(home_architecture(&workspace, &lock), machine_architecture());
        assert_eq!(machine(machine_architecture()), own_machine());
    }
}
