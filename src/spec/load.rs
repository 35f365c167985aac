//! *Loading* a spec with everything it imports into one [`Workspace`].
//!
//! Invariant: pure but for the callback that reads files; each file is read and checked once, however many
//! ways lead to it, and the result does not depend on how the user names the root file.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::certificates;
use super::diagnostics::{Diagnostic, Diagnostics};
use super::file::{self, SpecFile};
use super::image_debug;
use super::imported::ImportedSpec;
use super::names::{self, Scope};
use super::syntax;
use super::types::{Dependency, Package, PackageName, SourceFile, Span, Spanned, Workspace};
use crate::fsio::normalize;
use crate::graph;

/// Name of a spec in its folder.
pub const FILE_NAME: &str = "layerize.toml";

/// Most files that one spec may import, directly or not.
const FILES_MAX: usize = 1000;

/// Most packages of a workspace, and most ways of imports: a file imported by two ways counts twice, so that a
/// few files can make very many.
const PACKAGES_MAX: usize = 20_000;

/// Most imports one after the other.
const DEPTH_MAX: usize = 32;

/// Largest spec file in bytes.
const FILE_SIZE_MAX: usize = 16 << 20;

/// Reads the spec at `root`, a folder with a `layerize.toml` or a `.toml` file, all that it imports, and the certificates
/// that its images name, by `read`. Either everything is right, or all that is wrong comes back at once.
///
/// Of an imported file only the packages count: its images are not imported, and the root's `[debian]` holds
/// for all. Imported paths are joined and shortened as text (`a/../b` is `b`), so that one file has one name:
/// `root` had better be absolute: else a file that leads back to it counts as another (it is still a cycle), and
/// relative `file:` addresses stay relative.
/// [`Diagnostics::shown_from`] shortens paths for people.
pub fn load(root: &Path, read: &mut dyn FnMut(&Path) -> io::Result<String>) -> Result<Workspace, Diagnostics> {
    let mut loader = SpecLoader::default();
    loader.add_file(spec_path(root), None);
    while let Some((index, importer)) = loader.unread.pop_front() {
        loader.read_file(index, importer, read);
    }
    loader.check_import_cycles();
    loader.check_names();
    loader.read_certificates(read);
    loader.finish()
}

/// Checks a single text as if it stood in `layerize.toml`; nothing can be imported.
pub fn parse(text: &str) -> Result<Workspace, Diagnostics> {
    let root = Path::new(FILE_NAME);
    load(root, &mut |path| match path == root {
        true => Ok(text.to_owned()),
        false => Err(io::ErrorKind::NotFound.into()),
    })
}

/// The spec file that `path` means: itself if it ends in `.toml`, else `layerize.toml` in it.
pub fn spec_path(path: &Path) -> PathBuf {
    let is_file = path.extension().is_some_and(|extension| extension == "toml");
    normalize(&if is_file { path.to_owned() } else { path.join(FILE_NAME) })
}

#[derive(Default)]
struct SpecLoader {
    texts: Vec<SourceFile>,
    specs: Vec<SpecFile>,
    /// For each file, its imports by alias; `None` for one that could not be read.
    imports: Vec<BTreeMap<String, Option<usize>>>,
    unread: VecDeque<(usize, Option<(String, Span)>)>,
    errors: Vec<Diagnostic>,
}

impl SpecLoader {
    /// Index of the file at `path`, queued to be read where it is new.
    fn add_file(&mut self, path: PathBuf, importer: Option<(String, Span)>) -> Option<usize> {
        if let Some(index) = self.texts.iter().position(|file| file.path == path) {
            return Some(index);
        }
        if self.texts.len() == FILES_MAX {
            let span = importer.map(|(_, span)| span);
            let mut diagnostic = Diagnostic::new(format!("more than {FILES_MAX} spec files are imported"));
            diagnostic.span = span;
            self.errors.push(diagnostic);
            return None;
        }
        self.texts.push(SourceFile {
            path,
            text: String::new(),
        });
        self.specs.push(SpecFile::default());
        self.imports.push(BTreeMap::new());
        self.unread.push_back((self.texts.len() - 1, importer));
        Some(self.texts.len() - 1)
    }

    fn read_file(
        &mut self,
        index: usize,
        importer: Option<(String, Span)>,
        read: &mut dyn FnMut(&Path) -> io::Result<String>,
    ) {
        let path = self.texts[index].path.clone();
        let text = read(&path).and_then(|text| match text.len() {
            0..=FILE_SIZE_MAX => Ok(text),
            _ => Err(io::Error::other(format!("it is larger than {FILE_SIZE_MAX} bytes"))),
        });
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                self.specs[index].unreadable = true;
                self.errors.push(unreadable(&path, &error, importer));
                return;
            }
        };
        let text = syntax::normalized(&text).into_owned();
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let spec = file::read(index, &dir, &text, &mut self.errors);
        self.texts[index].text = text;
        for (alias, import) in &spec.imports {
            let path = spec_path(&dir.join(&import.value));
            let imported = self.add_file(path, Some((alias.clone(), import.span.clone())));
            self.imports[index].insert(alias.clone(), imported);
        }
        // What they have is not known here.
        let elsewhere = spec.elsewhere.keys().map(|alias| (alias.clone(), None));
        self.imports[index].extend(elsewhere);
        self.specs[index] = spec;
    }

    /// Reports files that import themselves. The edges that close such cycles are cut, so that names can
    /// still be looked up.
    fn check_import_cycles(&mut self) {
        let successors: Vec<Vec<usize>> = (self.imports.iter())
            .map(|imports| imports.values().flatten().copied().collect())
            .collect();
        let mut cycles = Vec::new();
        graph::post_order(&successors, &mut |cycle| cycles.push(cycle.to_vec()));
        for cycle in cycles {
            let (Some(&first), Some(&last)) = (cycle.first(), cycle.last()) else {
                continue;
            };
            let closing: Vec<String> = (self.imports[last].iter())
                .filter(|(_, target)| **target == Some(first))
                .map(|(alias, _)| alias.clone())
                .collect();
            let root_dir = self.texts[0].path.parent().unwrap_or(Path::new("")).to_owned();
            let around: Vec<String> = (cycle.iter().chain([&first]))
                .map(|&file| relative(&self.texts[file].path, &root_dir).display().to_string())
                .collect();
            for alias in closing {
                let span = self.specs[last].imports[&alias].span.clone();
                let diagnostic = Diagnostic::new(format!("import cycle: {}", around.join(" → ")))
                    .at(span, "imports a file that imports this one")
                    .help("move the packages that both need into a third file");
                self.errors.push(diagnostic);
                self.imports[last].insert(alias, None);
            }
        }
    }

    fn check_names(&mut self) {
        let scope = Scope {
            files: &self.specs,
            imports: &self.imports,
        };
        for index in 0..self.specs.len() {
            names::check(&scope, index, &mut self.errors);
        }
    }

    /// Reads the certificates of the root's images; the others' count for nothing.
    fn read_certificates(&mut self, read: &mut dyn FnMut(&Path) -> io::Result<String>) {
        let images = self.specs[0].images.values_mut();
        self.errors.extend(certificates::load(images, &mut self.texts, read));
    }

    fn finish(mut self) -> Result<Workspace, Diagnostics> {
        let (mut packages, mut imports) = (BTreeMap::new(), BTreeMap::new());
        if self.errors.is_empty() {
            self.instantiate(&mut packages, &mut imports);
        }
        if !self.errors.is_empty() {
            return Err(Diagnostics::new(self.errors, self.texts));
        }
        let root = self.specs.swap_remove(0);
        Ok(Workspace {
            files: self.texts,
            packages,
            imports,
            images: image_debug::with_debug_images(root.images, root.debug),
            debian: root.debian,
            inputs: root.inputs,
            cache: root.cache,
            build: root.build,
        })
    }

    /// Gives every package its qualified name, once for each way of imports that leads to its file.
    fn instantiate(
        &mut self,
        packages: &mut BTreeMap<PackageName, Package>,
        imports: &mut BTreeMap<String, ImportedSpec>,
    ) {
        let mut todo = vec![(0, String::new(), 0)];
        let mut ways = 0;
        while let Some((index, prefix, depth)) = todo.pop() {
            ways += 1;
            if ways > PACKAGES_MAX || packages.len() > PACKAGES_MAX || depth > DEPTH_MAX {
                let (what, most) = match depth > DEPTH_MAX {
                    true => ("imports one after the other", DEPTH_MAX),
                    false => ("packages or ways of imports", PACKAGES_MAX),
                };
                let diagnostic = Diagnostic::new(format!("there are more than {most} {what}"));
                self.errors.push(diagnostic.note(format!("one of them is `{prefix}…`")));
                return;
            }
            for (name, package) in &self.specs[index].packages {
                let qualified = PackageName(format!("{prefix}{name}"));
                packages.insert(qualified.clone(), qualify(package, qualified, &prefix));
            }
            let dir = self.texts[index].path.parent().unwrap_or(Path::new(""));
            for (alias, import) in &self.specs[index].elsewhere {
                let qualified = PackageName(format!("{prefix}{alias}"));
                packages.insert(qualified.clone(), import.tree(qualified.clone(), dir));
                imports.insert(qualified.0, import.clone());
            }
            let imported = (self.imports[index].iter()).filter_map(|(alias, target)| Some((alias, (*target)?)));
            todo.extend(imported.map(|(alias, target)| (target, format!("{prefix}{alias}:"), depth + 1)));
        }
    }
}

fn unreadable(path: &Path, error: &io::Error, importer: Option<(String, Span)>) -> Diagnostic {
    let missing = error.kind() == io::ErrorKind::NotFound;
    let why = if missing {
        "there is no such file".to_owned()
    } else {
        error.to_string()
    };
    match importer {
        Some((alias, span)) => Diagnostic::new(format!("cannot import `{alias}`: {why}"))
            .at(span, format!("means `{}`", path.display()))
            .help(format!(
                "`path` names a folder with a `{FILE_NAME}`, or a `.toml` file, relative to this file"
            )),
        None => {
            let diagnostic = Diagnostic::new(format!("cannot read `{}`: {why}", path.display()));
            match missing {
                true => diagnostic.help(format!("change to a folder with a `{FILE_NAME}`, or write one")),
                false => diagnostic,
            }
        }
    }
}

fn qualify(package: &Package, name: PackageName, prefix: &str) -> Package {
    let rename = |dependencies: &[Spanned<Dependency>]| {
        let renamed = dependencies.iter().map(|dependency| Spanned {
            value: match &dependency.value {
                Dependency::Package(name) => Dependency::Package(PackageName(format!("{prefix}{name}"))),
                other => other.clone(),
            },
            span: dependency.span.clone(),
        });
        renamed.collect()
    };
    Package {
        name: Spanned {
            value: name,
            span: package.name.span.clone(),
        },
        tools: rename(&package.tools),
        libraries: rename(&package.libraries),
        runtime: rename(&package.runtime),
        dev: rename(&package.dev),
        no_references: rename(&package.no_references),
        strip_references: rename(&package.strip_references),
        ..package.clone()
    }
}

/// An absolute path as seen from the absolute directory `dir`; any other path as it is.
pub(super) fn relative(path: &Path, dir: &Path) -> PathBuf {
    if !path.is_absolute() || !dir.is_absolute() {
        return path.to_owned();
    }
    let common = path
        .components()
        .zip(dir.components())
        .take_while(|(a, b)| a == b)
        .count();
    // A path that shares nothing but the root is clearer in full.
    if common <= 1 && dir.components().count() > 1 {
        return path.to_owned();
    }
    let up = dir.components().skip(common).map(|_| Component::ParentDir);
    up.chain(path.components().skip(common)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shortened_as_text() {
        for (path, expected) in [
            ("a/./b//c", "a/b/c"),
            ("a/../b", "b"),
            ("../a/../../b", "../../b"),
            ("/../a", "/a"),
            ("/a/b/../../..", "/"),
        ] {
            assert_eq!(normalize(Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn paths_are_shown_from_a_directory() {
        for (path, dir, expected) in [
            ("/p/a/x.toml", "/p/a", "x.toml"),
            ("/p/a/x.toml", "/p/b/c", "../../a/x.toml"),
            ("/p/x.toml", "/q", "/p/x.toml"),
            ("x.toml", "/q", "x.toml"),
            ("/x.toml", "/", "x.toml"),
        ] {
            assert_eq!(relative(Path::new(path), Path::new(dir)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn a_folder_means_its_spec() {
        assert_eq!(spec_path(Path::new("a/..")), Path::new("layerize.toml"));
        assert_eq!(spec_path(Path::new("b/x.toml")), Path::new("b/x.toml"));
        assert_eq!(spec_path(Path::new("b/toml")), Path::new("b/toml/layerize.toml"));
    }
}
