//! A *modules.txt*: which modules the packages of a `vendor` directory are of (Go Modules Reference, "Vendoring").
//!
//! Invariant: modules come back that packages in there are of, under the name and version that their files were published by.

use super::go_mod::{Module, is_module_path, is_version};

/// The modules that the text names with packages; those that directories of the source stand for are left out.
pub(super) fn modules(text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(module) = line.strip_prefix("# ") {
            current = published(module);
        } else if !line.starts_with('#') && !line.trim().is_empty() {
            found.extend(current.take());
        }
    }
    found
}

/// `PATH VERSION`, or what it is replaced by: `PATH [VERSION] => PATH VERSION`.
fn published(text: &str) -> Option<Module> {
    let taken = text.split_once(" => ").map_or(text, |(_, by)| by);
    let (path, version) = taken.trim().split_once(' ')?;
    (is_module_path(path) && is_version(version)).then(|| Module {
        path: path.to_owned(),
        version: version.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_with_packages_are_named_as_they_were_published() {
        let text = "## workspace\n# a.b/C v1.0.0\n## explicit; go 1.17\na.b/C\na.b/C/d\n# d.e/none v1.0.0\n## explicit\n\
                    # x.y/z v1.0.0 => x.y/fork v1.1.0\nx.y/z\n# l.m/n v0.0.0 => ./n\nl.m/n\n# ../p v1.0.0\np\n\
                    # x.y/z => x.y/fork v1.1.0\n";
        let found: Vec<String> = modules(text)
            .into_iter()
            .map(|of| format!("{} {}", of.path, of.version))
            .collect();
        assert_eq!(found, ["a.b/C v1.0.0", "x.y/fork v1.1.0"]);
    }
}
