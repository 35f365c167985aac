//! Images made of small trees, judged whole.

mod bases;
mod caching;
mod certificates;
mod data;
mod golden;
mod joining;
mod laying_out;
mod loading;
mod oracles;
mod planning;
mod recipe;
mod starting;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::digest::Digest;
use crate::event::Silent;
use crate::layer::partition::Origin;
use crate::layer::{LayerContent, LayerError, LayerInput, StoreEntry};
use crate::oci::{Compression, LayerCodec, LayerLimit};
use crate::spec::{self, ImageFile, ImageFileKind, Span, Spanned};
use crate::store_path::LogicalPath;

/// A recipe being put together, with its trees on disk.
struct Fixture {
    dir: tempfile::TempDir,
    members: Vec<ClosureMember>,
    contents: Vec<ContentRoot>,
    root: Vec<RootPackage>,
    generated: Vec<Generated>,
    spec: spec::Image,
    platform: &'static str,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = empty_spec(dir.path());
        Self {
            dir,
            members: Vec::new(),
            contents: Vec::new(),
            root: Vec::new(),
            generated: Vec::new(),
            spec,
            platform: "linux/amd64",
        }
    }

    /// Adds a store path to the closure. Entries are path and text; see [`write_entry`].
    fn member(&mut self, name: &str, entries: &[(&str, &str)], references: &[&str]) {
        let base = format!("{:0>32}-{name}", self.members.len());
        let physical = self.dir.path().join("store").join(&base);
        write_tree(&physical, entries);
        let logical = format!("/layerize/store/{base}").parse().unwrap();
        let (nar_hash, nar_size) = describe(&logical, &physical);
        let references = references.iter().map(|name| self.logical(name)).collect();
        self.members.push(ClosureMember {
            name: name.to_owned(),
            logical,
            physical,
            nar_hash,
            nar_size,
            references,
            is_built: true,
            origin: Origin::default(),
        });
    }

    /// Adds a store path to the closure and joins it under `/`.
    fn content(&mut self, name: &str, entries: &[(&str, &str)]) {
        self.member(name, entries, &[]);
        self.contents.push(ContentRoot {
            name: name.to_owned(),
            logical: self.logical(name),
        });
    }

    /// Lays a Debian package out at `/`.
    fn package(&mut self, name: &str, entries: &[(&str, &str)]) {
        let physical = self.dir.path().join("store").join(format!("deb-{name}"));
        write_tree(&physical, entries);
        let logical = format!("/layerize/store/{:0>32}-{name}-1.0-1", self.root.len());
        let logical = logical.parse().unwrap();
        let (nar_hash, nar_size) = describe(&logical, &physical);
        self.root.push(RootPackage {
            name: name.to_owned(),
            version: "1.0-1".to_owned(),
            logical,
            physical,
            nar_hash,
            nar_size,
            is_part: false,
            origin: Origin::Distribution,
        });
    }

    fn file(&mut self, path: &str, kind: ImageFileKind) -> &mut ImageFile {
        let file = ImageFile {
            kind,
            mode: None,
            owner: None,
            group: None,
        };
        self.spec.files.insert(path.to_owned(), spanned(file));
        &mut self.spec.files.get_mut(path).unwrap().value
    }

    fn user(&mut self, name: &str, uid: u32, home: &str) {
        let user = spec::User {
            uid,
            gid: uid,
            home: home.to_owned(),
            shell: "/bin/sh".to_owned(),
        };
        self.spec.users.insert(name.to_owned(), spanned(user));
    }

    fn permission(&mut self, paths: spec::PermissionPaths, mode: u32) {
        self.spec.permissions.push(spec::Permission {
            paths,
            mode: Some(mode),
            owner: None,
            group: None,
            capabilities: None,
        });
    }

    fn generate(&mut self, path: &str, kind: GeneratedKind) {
        self.generated.push(Generated {
            path: path.to_owned(),
            kind,
        });
    }

    fn logical(&self, name: &str) -> LogicalPath {
        let member = self.members.iter().find(|member| member.name == name);
        member.map(|member| member.logical.clone()).unwrap()
    }

    fn recipe(&self) -> Recipe {
        self.try_recipe().unwrap()
    }

    fn try_recipe(&self) -> Result<Recipe, ImageError> {
        let mut recipe = Recipe::new(self.spec.clone(), self.platform.parse().unwrap(), 1)?;
        recipe.contents = self.contents.clone();
        recipe.closure = self.members.clone();
        recipe.root = self.root.clone();
        recipe.generated = self.generated.clone();
        Ok(recipe)
    }

    fn assemble(&self) -> Result<Image, ImageError> {
        assemble(&self.try_recipe()?, &Resources::default(), &Silent)
    }

    /// The image's nodes: `path/ mode`, `path -> target`, `path mode text`; store paths as `{name}`.
    fn layout(&self) -> Result<Vec<String>, ImageError> {
        let layout = layout::lay_out(&self.try_recipe()?, &Settings::new(&self.spec)?)?;
        Ok(layout.files.nodes().map(|(path, node)| self.show(path, node)).collect())
    }

    fn show(&self, path: &[u8], node: &filesystem::Node) -> String {
        use filesystem::{Content, NodeKind};
        let path = String::from_utf8_lossy(path);
        let owner = match (node.uid, node.gid) {
            (0, 0) => String::new(),
            (uid, gid) => format!(" {uid}:{gid}"),
        };
        match &node.kind {
            NodeKind::Directory => format!("{path}/ {:o}{owner}", node.mode),
            NodeKind::Symlink(target) => format!("{path} -> {}{owner}", self.short(&String::from_utf8_lossy(target))),
            NodeKind::File(Content::Bytes(bytes)) => {
                format!("{path} {:o}{owner} {:?}", node.mode, String::from_utf8_lossy(bytes))
            }
            NodeKind::File(Content::Disk { physical, .. }) => {
                let text = fs::read_to_string(physical).unwrap();
                format!("{path} {:o}{owner} {text:?}", node.mode)
            }
        }
    }

    /// A text with store paths written as `{name}`.
    fn short(&self, text: &str) -> String {
        self.members.iter().fold(text.to_owned(), |text, member| {
            text.replace(member.logical.as_str(), &format!("{{{}}}", member.name))
        })
    }

    fn error(&self) -> String {
        self.short(&self.assemble().unwrap_err().to_string())
    }
}

/// The lines that are not in every image.
fn without_base(lines: Vec<String>) -> Vec<String> {
    let base = ["tmp/", "etc/ 755", "etc/passwd ", "etc/group ", "etc/nsswitch.conf "];
    lines
        .into_iter()
        .filter(|line| !base.iter().any(|base| line.starts_with(base)))
        .collect()
}

fn spanned<T>(value: T) -> Spanned<T> {
    let span = Span { file: 0, range: 0..0 };
    Spanned { value, span }
}

/// A limit of layers, beyond Docker's as well.
fn limit(layers: usize) -> Spanned<LayerLimit> {
    spanned(LayerLimit::new(layers, true).unwrap())
}

fn empty_spec(dir: &Path) -> spec::Image {
    spec::Image {
        dir: dir.to_owned(),
        ..spec::Image::new("app")
    }
}

fn write_tree(root: &Path, entries: &[(&str, &str)]) {
    fs::create_dir_all(root).unwrap();
    for (path, text) in entries {
        write_entry(&root.join(path.trim_end_matches('/')), path, text);
    }
}

/// A path that ends with `/` is a directory, a text `-> T` a symlink, a text that begins with `#!` an executable.
fn write_entry(place: &Path, path: &str, text: &str) {
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    if path.ends_with('/') {
        fs::create_dir_all(place).unwrap();
    } else if let Some(target) = text.strip_prefix("-> ") {
        symlink(target, place).unwrap();
    } else {
        fs::write(place, text).unwrap();
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        fs::set_permissions(place, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Hash and size of a tree's archive, as packing computes them when it verifies.
fn describe(logical: &LogicalPath, physical: &Path) -> (Digest, u64) {
    let entry = StoreEntry {
        logical: logical.clone(),
        physical: physical.to_owned(),
        nar_hash: Digest::of(b""),
        nar_size: 0,
        attributes: Vec::new(),
    };
    let input = LayerInput {
        content: LayerContent::StorePaths(vec![entry]),
        comment: String::new(),
    };
    let options = PackOptions {
        compression: Compression::None,
        threads: 1,
        ..PackOptions::default()
    };
    match layer::pack(&[input], &options, &Silent) {
        Err(LayerError::Changed {
            actual, actual_size, ..
        }) => (actual, actual_size),
        other => panic!("{other:?}"),
    }
}

/// What the history says of each layer.
fn comments(image: &Image) -> Vec<String> {
    let history = image.config.image().unwrap().history.iter();
    history.map(|entry| entry.comment.clone().unwrap_or_default()).collect()
}

/// The one validator finds nothing wrong with an image that was just made.
fn assert_sound(image: &Image) {
    let report = crate::audit::verify(image).unwrap();
    assert!(report.ok(), "{}", report.render());
}

/// The entries of a layer: `path kind mode uid:gid target`.
fn entries(layer: &ImageLayer) -> Vec<String> {
    let mut tar = Vec::new();
    let mut blob = layer.open();
    match layer.codec().unwrap() {
        LayerCodec::Gzip => flate2::read::MultiGzDecoder::new(&mut blob).read_to_end(&mut tar),
        LayerCodec::Zstd => zstd::stream::read::Decoder::new(&mut blob)
            .unwrap()
            .read_to_end(&mut tar),
        LayerCodec::None => blob.read_to_end(&mut tar),
    }
    .unwrap();
    let mut archive = tar::Archive::new(tar.as_slice());
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            let target = entry
                .link_name()
                .unwrap()
                .map(|target| format!(" -> {}", target.display()));
            let kind = match header.entry_type() {
                tar::EntryType::Directory => "d",
                tar::EntryType::Symlink => "l",
                tar::EntryType::Regular => "f",
                tar::EntryType::Link => "h",
                other => panic!("{other:?}"),
            };
            format!(
                "{kind} {:o} {}:{} {}{}",
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                entry.path().unwrap().to_string_lossy().trim_end_matches('/'),
                target.unwrap_or_default()
            )
        })
        .collect()
}
