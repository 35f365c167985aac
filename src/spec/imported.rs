//! *Imports*: other spec files, and projects elsewhere with locks of their own.
//!
//! Invariant: pure; what a project elsewhere has is not known here, so that names of its packages are checked by whoever has
//! read it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::checks::{self, did_you_mean};
use super::diagnostics::{Diagnostic, Diagnostics};
use super::file::SpecFile;
use super::git;
use super::keys::{self, Key};
use super::package::{refuse_foreign_keys, unpacked_url};
use super::reader::{Field, Reader};
use super::types::{Dependency, Package, PackageName, Source, Span, Spanned, Workspace};

/// `[imports] ALIAS = { git = … }` or `{ url = … }`: a project elsewhere, whose packages are made as its own lock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedSpec {
    /// Where its tree is from.
    pub source: Spanned<Source>,
    /// `dir`: where its spec is in the tree; empty: in the tree itself.
    pub dir: String,
}

impl Workspace {
    /// The packages of the root file: neither those of imports nor the trees of these.
    pub fn own_packages(&self) -> impl Iterator<Item = &PackageName> {
        let own = |name: &&PackageName| !name.0.contains(':') && !self.imports.contains_key(&name.0);
        self.packages.keys().filter(own)
    }
}

/// What an alias stands for.
pub(super) enum Import {
    /// A spec file beside this one, by its path as written.
    File(Spanned<String>),
    /// A project elsewhere.
    Elsewhere(ImportedSpec),
}

/// Reads `ALIAS = { … }`, whose paths are relative to `dir`.
pub(super) fn read(reader: &mut Reader<'_>, entry: &Field<'_>, dir: &Path) -> Option<Import> {
    let what = format!("import `{}`", entry.key);
    let kinds: [(&'static str, &'static [Key]); 3] = [
        ("path", keys::IMPORT),
        ("url", keys::IMPORT_URL),
        ("git", keys::IMPORT_GIT),
    ];
    let all = kinds.iter().flat_map(|(_, keys)| keys.iter()).collect();
    let table = reader.table(entry, what, all)?;
    let Some((kind, own)) = kinds.iter().find(|(kind, _)| table.get(kind).is_some()) else {
        let diagnostic = Diagnostic::new(format!("{} does not say where from", table.what))
            .at(table.span, "one of `path`, `url` and `git` is missing")
            .help(format!(
                "write `{0} = {{ path = \"../DIR\" }}`, or of a project elsewhere `{0} = {{ git = \"…\", tag = \"…\" }}`",
                entry.key
            ));
        reader.error(diagnostic);
        return None;
    };
    refuse_foreign_keys(reader, &table, kind, own, &kinds);
    let source = match *kind {
        "path" => {
            return reader
                .checked(&table.get("path")?, checks::local_path)
                .map(Import::File);
        }
        "url" => unpacked_url(reader, &table, dir, Some(true))?,
        _ => Source::Git(Box::new(git::read(reader, &table, dir)?)),
    };
    let dir = match table.get("dir") {
        Some(field) => reader.checked(&field, checks::local_path)?.value,
        None => String::new(),
    };
    let span = entry.span.clone();
    Some(Import::Elsewhere(ImportedSpec {
        source: Spanned { value: source, span },
        dir,
    }))
}

/// A package and a project elsewhere cannot share a name: the project's tree is known by its alias.
pub(super) fn check_aliases(reader: &mut Reader<'_>, file: &SpecFile) {
    for (alias, import) in &file.elsewhere {
        if let Some(package) = file.packages.get(alias) {
            let diagnostic = Diagnostic::new(format!("`{alias}` is an import and a package"))
                .at(import.source.span.clone(), "the import")
                .note_at(package.name.span.clone(), "the package")
                .help("give one of them another name");
            reader.error(diagnostic);
        }
    }
}

impl ImportedSpec {
    /// The package whose source the project's tree is.
    pub(super) fn tree(&self, name: PackageName, dir: &Path) -> Package {
        Package {
            name: Spanned {
                value: name,
                span: self.source.span.clone(),
            },
            dir: dir.to_owned(),
            version: None,
            source: Some(self.source.clone()),
            language: None,
            tools: Vec::new(),
            libraries: Vec::new(),
            runtime: Vec::new(),
            dev: Vec::new(),
            no_references: Vec::new(),
            strip_references: Vec::new(),
            env: BTreeMap::new(),
            script: None,
            timeout_seconds: None,
            cache_dirs: Vec::new(),
            base: false,
            cross: None,
        }
    }
}

impl Workspace {
    /// The project elsewhere that a name is of, by its alias, and the name there.
    pub fn imported<'n>(&self, name: &'n PackageName) -> Option<(&str, &'n str)> {
        self.imports.keys().find_map(|alias| {
            let rest = name.0.strip_prefix(alias.as_str())?.strip_prefix(':')?;
            Some((alias.as_str(), rest))
        })
    }
}

/// Whether the import `alias` has each package that the workspace names of it; `known` is what it has.
pub fn check_imported(workspace: &Workspace, alias: &str, known: &BTreeSet<String>) -> Result<(), Diagnostics> {
    let of_packages = workspace.packages.values().flat_map(|package| {
        let lists = [&package.tools, &package.libraries, &package.runtime, &package.dev];
        lists.into_iter().flat_map(|list| names(list))
    });
    let of_images = workspace.images.values().flat_map(|image| {
        let laid = image.lay.values().map(|package| (&package.value, &package.span));
        names(&image.contents).chain(laid)
    });
    let unknown = of_packages.chain(of_images).filter_map(|(name, span)| {
        let (of, rest) = workspace.imported(name)?;
        (of == alias && !known.contains(rest)).then(|| unknown(name, rest, span, alias, known))
    });
    let unknown: Vec<Diagnostic> = unknown.collect();
    match unknown.is_empty() {
        true => Ok(()),
        false => Err(Diagnostics::new(unknown, workspace.files.clone())),
    }
}

fn names(list: &[Spanned<Dependency>]) -> impl Iterator<Item = (&PackageName, &Span)> {
    list.iter().filter_map(|dependency| match &dependency.value {
        Dependency::Package(name) => Some((name, &dependency.span)),
        _ => None,
    })
}

fn unknown(name: &PackageName, rest: &str, span: &Span, alias: &str, known: &BTreeSet<String>) -> Diagnostic {
    let diagnostic = Diagnostic::new(format!("unknown package `{name}`")).at(span.clone(), "no such package");
    diagnostic.help(match did_you_mean(rest, known.iter().map(String::as_str)) {
        Some(similar) => format!("did you mean `{alias}:{similar}`?"),
        None if known.is_empty() => format!("`{alias}` holds no packages"),
        None => {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            format!("`{alias}` holds `{}`", known.join("`, `"))
        }
    })
}
