//! What of a project can be *carried* elsewhere: its texts and local files, by paths that hold on any machine.
//!
//! Invariant: what comes out can be loaded again from nothing but itself; it was tried. Paths are relative to the
//! lowest directory that all of it lies in, whose own name is not told.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::artifact::TextKind;
use crate::fsio::normalize;
use crate::spec::{self, Image, ImageFileKind, Lock, Workspace};

/// Name of the lock beside a spec.
const LOCK_NAME: &str = "layerize.lock";
/// Largest layer plan that is carried along, in bytes.
const PLAN_MAX: u64 = 64 << 20;

/// The texts and local files of a project.
#[derive(Debug, Clone, Default)]
pub struct Portable {
    /// The spec, among the texts.
    pub spec: String,
    /// The texts by path.
    pub texts: BTreeMap<String, (TextKind, Vec<u8>)>,
    /// Local files and trees of images by path, and where they are on this machine.
    pub files: BTreeMap<String, PathBuf>,
}

/// What can be carried of a project with these of its images, local files with `with_files`; or why nothing can.
pub fn portable(workspace: &Workspace, lock: &Lock, images: &[&Image], with_files: bool) -> Result<Portable, String> {
    let Some(root) = workspace.files.first() else {
        return Err("there is no spec".to_owned());
    };
    let mut texts: BTreeMap<PathBuf, (TextKind, Vec<u8>)> = BTreeMap::new();
    for file in &workspace.files {
        texts.insert(normalize(&file.path), (TextKind::Spec, file.text.clone().into_bytes()));
    }
    let lock_path = normalize(&root.path).with_file_name(LOCK_NAME);
    texts.insert(lock_path, (TextKind::Lock, spec::lock::print(lock).into_bytes()));
    let mut files: BTreeSet<PathBuf> = match with_files {
        true => images.iter().flat_map(|image| local_files(image)).collect(),
        false => BTreeSet::new(),
    };
    // What lies in a tree comes with it.
    let all = files.clone();
    files.retain(|file| !file.ancestors().skip(1).any(|above| all.contains(above)));
    for path in images.iter().filter_map(|image| plan_file(image)) {
        let carried = path.ancestors().any(|above| files.contains(above));
        if let Ok(bytes) = crate::fsio::read_limited(&path, PLAN_MAX)
            && !carried
        {
            texts.insert(path, (TextKind::Plan, bytes));
        }
    }
    let common = common_dir(texts.keys().chain(&files))?;
    let named = |path: &Path| relative(path, &common);
    let portable = Portable {
        spec: named(&normalize(&root.path))?,
        texts: (texts.into_iter())
            .map(|(path, text)| Ok((named(&path)?, text)))
            .collect::<Result<_, String>>()?,
        files: (files.into_iter())
            .map(|path| Ok((named(&path)?, path)))
            .collect::<Result<_, String>>()?,
    };
    portable.try_out()?;
    Ok(portable)
}

/// The local files and trees that an image takes in.
pub(super) fn local_files(image: &Image) -> impl Iterator<Item = PathBuf> {
    image.files.values().filter_map(|file| match &file.value.kind {
        ImageFileKind::Source(source) => Some(normalize(&image.dir.join(source))),
        _ => None,
    })
}

fn plan_file(image: &Image) -> Option<PathBuf> {
    let plan = image.layers.plan.as_ref()?;
    Some(normalize(&image.dir.join(&plan.value)))
}

/// The lowest directory that all paths lie in, or are.
fn common_dir<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<PathBuf, String> {
    let mut common: Option<PathBuf> = None;
    for path in paths {
        let dir = if path.is_dir() {
            path.clone()
        } else {
            path.parent().unwrap_or(Path::new("")).to_owned()
        };
        common = Some(match common {
            None => dir,
            Some(common) => {
                let both = common.components().zip(dir.components());
                both.take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
            }
        });
    }
    let common = common.unwrap_or_default();
    match common.parent() {
        Some(_) => Ok(common),
        None => Err("its files lie in directories that have nothing in common".to_owned()),
    }
}

fn relative(path: &Path, dir: &Path) -> Result<String, String> {
    let below = path
        .strip_prefix(dir)
        .map_err(|_| format!("`{}` lies elsewhere", path.display()))?;
    match below.to_str() {
        Some("") => Ok(".".to_owned()),
        Some(text) if !text.contains(char::is_control) => Ok(text.to_owned()),
        _ => Err(format!("the name `{}` cannot be written down", path.display())),
    }
}

/// Reads specs from texts alone, as if they lay in `root`.
pub(super) fn load<'t>(
    root: &Path,
    spec: &str,
    text: impl Fn(&str) -> Option<&'t str>,
) -> Result<Workspace, spec::Diagnostics> {
    spec::load(&root.join(spec), &mut |path| {
        let below = path.strip_prefix(root).ok().and_then(Path::to_str);
        let found = below.and_then(&text).map(str::to_owned);
        found.ok_or_else(|| io::Error::other("it is not among the texts that are kept"))
    })
}

impl Portable {
    /// Loads the specs as somebody will who has nothing else.
    fn try_out(&self) -> Result<(), String> {
        let text = |path: &str| {
            let (kind, bytes) = self.texts.get(path)?;
            (*kind == TextKind::Spec).then(|| std::str::from_utf8(bytes).ok())?
        };
        let loaded = load(Path::new("/kept"), &self.spec, text);
        loaded
            .map(drop)
            .map_err(|_| "a spec or a certificate is named by its absolute path".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_named_from_the_lowest_directory_of_all() {
        let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
        for (given, common) in [
            (&["/p/a/x.toml", "/p/b/y.toml"][..], Some("/p")),
            (&["/p/a/x.toml", "/p/a/y"], Some("/p/a")),
            (&["/p/x", "/q/y"], None),
        ] {
            assert_eq!(
                common_dir(paths(given).iter()).ok(),
                common.map(PathBuf::from),
                "{given:?}"
            );
        }
        assert_eq!(relative(Path::new("/p/a/x"), Path::new("/p")).unwrap(), "a/x");
        assert_eq!(relative(Path::new("/p"), Path::new("/p")).unwrap(), ".");
        assert!(relative(Path::new("/q"), Path::new("/p")).is_err());
        assert_eq!(normalize(Path::new("/a/./b/../../../c")), Path::new("/c"));
    }
}
