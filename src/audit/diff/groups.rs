//! *Groups* are a report's file differences by the package that owns the files, and its *summary* is what it counts.
//!
//! Invariant: functions of the report; every file difference is in one group, in the report's order.

use std::collections::BTreeMap;

use crate::store_path::StoreDir;

use super::{Class, DiffReport, Difference, FileChange, LayerChange, StorePathChange};

/// The file differences of one package, or of none.
pub(super) struct Group<'r> {
    /// What became of the package's store path or version.
    pub change: Option<&'r StorePathChange>,
    /// What it is called where nothing became of that: a store path or a package's name; `None` for files of no package.
    pub owner: Option<&'r str>,
    /// The differences.
    pub files: Vec<&'r FileChange>,
}

impl Group<'_> {
    /// The one class of all of them, if it says that the files are on one side alone.
    pub fn one_sided(&self) -> Option<Class> {
        let class = self.files.first()?.class;
        let is_side = matches!(class, Class::Added | Class::Removed);
        (is_side && self.files.iter().all(|file| file.class == class)).then_some(class)
    }
}

/// The groups of a report: of the packages that changed, in their order, of other packages in that of their first files, and of
/// no package at the end.
pub(super) fn groups(report: &DiffReport) -> Vec<Group<'_>> {
    let changes = report.differences.iter().filter_map(|difference| match difference {
        Difference::StorePath(change) => Some(change),
        _ => None,
    });
    let mut groups: Vec<Group<'_>> = changes
        .map(|change| Group {
            change: Some(change),
            owner: None,
            files: Vec::new(),
        })
        .collect();
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        let Some(change) = group.change else { continue };
        for text in [&change.name, &change.a, &change.b] {
            known.entry(text).or_insert(index);
        }
    }
    let mut of_none = Vec::new();
    for difference in &report.differences {
        let Difference::File(file) = difference else { continue };
        let path = file.store_path.as_ref().map(|path| path.as_str());
        let link = linked_path(file).filter(|path| known.contains_key(path));
        let Some(owner) = path.or(file.package.as_deref()).or(link) else {
            of_none.push(file);
            continue;
        };
        let index = *known.entry(owner).or_insert_with(|| {
            groups.push(Group {
                change: None,
                owner: Some(owner),
                files: Vec::new(),
            });
            groups.len() - 1
        });
        groups[index].files.push(file);
    }
    if !of_none.is_empty() {
        groups.push(Group {
            change: None,
            owner: None,
            files: of_none,
        });
    }
    groups
}

/// The store path into which a link leads that differs in nothing but the hash of that.
fn linked_path(file: &FileChange) -> Option<&str> {
    let target = file.a.as_deref().filter(|_| file.class == Class::StoreHash)?;
    let dirs = [StoreDir::layerize(), StoreDir::nix()];
    let below = dirs.iter().find_map(|dir| Some(dir.split(target)?.1.len()))?;
    Some(target[..target.len() - below].trim_end_matches('/'))
}

/// What a report counts, in one line, layers and files as the second image has them: `1 field of the config, 2 of 14 layers, 1 package, 5 differences of files (2 added, 3 content)`.
pub(super) fn summary(report: &DiffReport) -> String {
    let (mut index, mut manifest, mut config, mut paths, mut tars) = (0, 0, 0, 0, 0);
    let (mut layers, mut gone) = (0, 0);
    let mut files: BTreeMap<Class, usize> = BTreeMap::new();
    for difference in &report.differences {
        match difference {
            Difference::Index(_) => index += 1,
            Difference::Manifest(_) => manifest += 1,
            Difference::Config(_) => config += 1,
            Difference::Layer(layer) => match layer.change {
                LayerChange::Moved { .. } => {}
                LayerChange::Removed { .. } | LayerChange::KeptElsewhere { b: None, .. } => gone += 1,
                _ => layers += 1,
            },
            Difference::StorePath(_) => paths += 1,
            Difference::File(file) => *files.entry(file.class).or_default() += 1,
            Difference::Archive(_) => tars += 1,
        }
    }
    let told: usize = files.values().sum();
    let mut parts = Vec::new();
    let mut part = |count: usize, text: String| {
        if count > 0 {
            parts.push(text);
        }
    };
    part(index, format!("{} of the index", counted(index, "field")));
    part(manifest, format!("{} of the manifest", counted(manifest, "field")));
    part(config, format!("{} of the config", counted(config, "field")));
    part(
        layers,
        format!("{layers} of {}", counted(report.b.layers.len(), "layer")),
    );
    if layers == 0 {
        part(gone, format!("{} less", counted(gone, "layer")));
    }
    part(paths, counted(paths, "package"));
    let kinds: Vec<String> = files
        .iter()
        .map(|(class, count)| format!("{count} {}", class.name()))
        .collect();
    let more = match report.omitted {
        0 => String::new(),
        omitted => format!(", {omitted} more not listed"),
    };
    part(
        told,
        format!("{} ({}{more})", counted(told, "difference of files"), kinds.join(", ")),
    );
    part(tars, format!("{} in how tars are written", counted(tars, "difference")));
    parts.join(", ")
}

fn counted(count: usize, what: &str) -> String {
    match (count, what.split_once(' ')) {
        (1, _) => format!("1 {what}"),
        (count, Some((first, rest))) => format!("{count} {first}s {rest}"),
        (count, None) => format!("{count} {what}s"),
    }
}
