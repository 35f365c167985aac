//! *Restoring* a project from what is kept of it: texts into memory, local files below one directory, local sources into
//! the store.
//!
//! Invariant: nothing is written outside that directory and the store, and a kept spec takes no file of this machine
//! into an image.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::artifact::{Part, PartKind, TextKind};
use super::error::InputsError;
use super::find::FoundInputs;
use super::portable::{self, local_files};
use crate::derive::source_name;
use crate::fsio::{self, IoContext};
use crate::nar;
use crate::spec::{self, Image, Inputs, Lock, Package, PackageName, Source, Workspace};
use crate::store::Store;
use crate::store_path::StorePath;

/// Largest kept spec or lock, in bytes.
const TEXT_MAX: u64 = 16 << 20;
/// Largest kept layer plan, in bytes.
const PLAN_MAX: u64 = 64 << 20;
/// Most bytes of all kept texts together.
const TEXTS_MAX: u64 = 256 << 20;
/// Largest manifest or config of a base, in bytes.
const BASE_MAX: u64 = 32 << 20;

/// A project as it was when its image was made.
#[derive(Debug)]
pub struct Restored {
    /// Holds what is written to disk; removed when dropped.
    pub dir: tempfile::TempDir,
    /// The specs.
    pub workspace: Workspace,
    /// The lock.
    pub lock: Lock,
    /// Where the packages' local sources are in the store.
    pub sources: BTreeMap<PackageName, StorePath>,
    /// Manifest and config of the image's base.
    pub base: Vec<Vec<u8>>,
}

/// The images of the project that is kept.
pub fn image_names(found: &FoundInputs) -> Result<Vec<String>, InputsError> {
    let workspace = found.workspace(found.spec()?, Path::new("/kept"))?;
    Ok(workspace.images.into_keys().collect())
}

/// Restores the project of an image.
pub fn restore(found: &FoundInputs, image: &str, store: &Store) -> Result<Restored, InputsError> {
    let spec = found.spec()?;
    let dir = tempfile::Builder::new().prefix("layerize-inputs-").tempdir();
    let dir = dir.context("create a directory in", std::env::temp_dir())?;
    // Links on the way there must not make what lies in it seem to lie elsewhere.
    let root = fs::canonicalize(dir.path())
        .context("read", dir.path())?
        .join("project");
    let mut workspace = found.workspace(spec, &root)?;
    let lock = found.lock()?;
    found.restore_files(&root)?;
    let Some(wanted) = workspace.images.get(image) else {
        return Err(found.malformed(format!("its spec has no image `{}`", image.escape_debug())));
    };
    found.check_files(wanted, &root)?;
    let packages = workspace
        .only(&BTreeSet::new(), &BTreeSet::from([image.to_owned()]))
        .packages;
    let sources = found.restore_sources(&packages, store)?;
    let base = found.artifact.parts.iter().filter(|part| part.kind == PartKind::Base);
    let base = base.map(|part| found.bytes(part, BASE_MAX, "a document of the base"));
    // Where packages are looked for is this machine's business, not that of whoever made an image.
    workspace.inputs = Inputs::default();
    (workspace.debian.sources, workspace.debian.keyring) = (Vec::new(), None);
    Ok(Restored {
        base: base.collect::<Result<_, _>>()?,
        dir,
        workspace,
        lock,
        sources,
    })
}

impl FoundInputs {
    /// Where the spec is among the texts.
    fn spec(&self) -> Result<&str, InputsError> {
        let about = &self.artifact.about;
        about.spec.as_deref().ok_or_else(|| InputsError::NoSpec {
            place: self.place.clone(),
            unportable: about.unportable.clone(),
        })
    }

    /// Reads the specs, as if they lay in `root`.
    fn workspace(&self, spec: &str, root: &Path) -> Result<Workspace, InputsError> {
        let mut texts: BTreeMap<&str, String> = BTreeMap::new();
        let mut total = 0;
        for (path, part) in self.artifact.texts(TextKind::Spec) {
            total += part.size;
            if total > TEXTS_MAX {
                return Err(self.malformed(format!("its specs have more than {TEXTS_MAX} bytes")));
            }
            texts.insert(path, self.text(part, "the spec")?);
        }
        let text = |path: &str| texts.get(path).map(String::as_str);
        portable::load(root, spec, text).map_err(|source| InputsError::Spec {
            what: "spec",
            place: self.place.clone(),
            source,
        })
    }

    fn lock(&self) -> Result<Lock, InputsError> {
        let lock = self.artifact.texts(TextKind::Lock).next();
        let (_, part) = lock.ok_or_else(|| self.malformed("there is no lock".to_owned()))?;
        spec::lock::parse(&self.text(part, "the lock")?).map_err(|source| InputsError::Spec {
            what: "lock",
            place: self.place.clone(),
            source,
        })
    }

    fn text(&self, part: &Part, what: &str) -> Result<String, InputsError> {
        let bytes = self.bytes(part, TEXT_MAX, what)?;
        String::from_utf8(bytes).map_err(|_| self.malformed(format!("{what} `{}` is not UTF-8", part.digest)))
    }

    /// Writes local files and layer plans below `root`. Where they go they do not meet: that was checked when the
    /// artifact was read.
    fn restore_files(&self, root: &Path) -> Result<(), InputsError> {
        for part in &self.artifact.parts {
            match &part.kind {
                PartKind::Files { path } => {
                    let dest = if path == "." { root.to_owned() } else { root.join(path) };
                    make_parent(&dest)?;
                    self.unpack(part, &dest)?;
                }
                PartKind::Text {
                    kind: TextKind::Plan,
                    path,
                } => {
                    let dest = root.join(path);
                    make_parent(&dest)?;
                    fsio::write_atomic(&dest, &self.bytes(part, PLAN_MAX, "a layer plan")?)?;
                }
                _ => {}
            }
        }
        Ok(fsio::create_dir_all(root)?)
    }

    fn unpack(&self, part: &Part, dest: &Path) -> Result<(), InputsError> {
        let mut reader = self.part(part)?;
        nar::restore(&mut reader, dest).map_err(|source| InputsError::Archive {
            place: self.place.clone(),
            digest: part.digest,
            source,
        })?;
        // The archive ends before its reader does where there are more bytes than there may be.
        match reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.malformed(format!("`{}` is longer than its archive", part.digest))),
            Err(source) => Err(source).context("read an archive for", dest)?,
        }
    }

    /// What an image takes in must be among the restored files: by its name, and where its links lead.
    fn check_files(&self, image: &Image, root: &Path) -> Result<(), InputsError> {
        let outside = |path: PathBuf| InputsError::Outside {
            place: self.place.clone(),
            path,
        };
        let mut missing = Vec::new();
        for path in local_files(image) {
            let Ok(below) = path.strip_prefix(root) else {
                return Err(outside(path));
            };
            match fs::canonicalize(&path) {
                Ok(real) if real.starts_with(root) => {}
                Ok(_) => return Err(outside(below.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(format!("`{}`", below.display())),
                Err(error) => return Err(error).context("read", &path)?,
            }
        }
        self.nothing_missing(missing)
    }

    /// Adds the local sources of these packages to the store.
    fn restore_sources(
        &self,
        packages: &BTreeMap<PackageName, Package>,
        store: &Store,
    ) -> Result<BTreeMap<PackageName, StorePath>, InputsError> {
        let kept: BTreeMap<&PackageName, &Part> = (self.artifact.parts.iter())
            .filter_map(|part| match &part.kind {
                PartKind::Source { package } => Some((package, part)),
                _ => None,
            })
            .collect();
        let (mut sources, mut missing) = (BTreeMap::new(), Vec::new());
        for (name, package) in packages {
            let Some(Source::Path { path, .. }) = package.source.as_ref().map(|source| &source.value) else {
                continue;
            };
            match kept.get(name) {
                Some(part) => drop(sources.insert(name.clone(), self.add_source(package, part, store)?)),
                None => missing.push(format!("`{path}`, the source of package `{name}`")),
            }
        }
        self.nothing_missing(missing)?;
        Ok(sources)
    }

    fn add_source(&self, package: &Package, part: &Part, store: &Store) -> Result<StorePath, InputsError> {
        let stage = store.stage()?;
        let tree = stage.path().join("source");
        self.unpack(part, &tree)?;
        let metadata = fs::symlink_metadata(&tree).context("read", &tree)?;
        if metadata.is_symlink() {
            return Err(self.malformed(format!("the source of `{}` is a symlink", package.name.value)));
        }
        let added = store.add_leaf(&source_name(package, metadata.is_file()), &tree, None)?;
        Ok(added.path)
    }

    fn nothing_missing(&self, missing: Vec<String>) -> Result<(), InputsError> {
        match missing.is_empty() {
            true => Ok(()),
            false => Err(InputsError::NoSources {
                place: self.place.clone(),
                missing,
            }),
        }
    }

    fn malformed(&self, reason: String) -> InputsError {
        InputsError::Malformed {
            place: self.place.clone(),
            reason,
        }
    }
}

fn make_parent(path: &Path) -> Result<(), InputsError> {
    Ok(fsio::create_dir_all(path.parent().unwrap_or(path))?)
}
