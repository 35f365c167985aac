//! *Earlier releases* of an image, as closure graphs or layer plans in a directory, and what is learnt from them.
//!
//! Invariant: releases are in the order of their file names, in which `v2` is before `v10`.

use std::path::{Path, PathBuf};

use crate::fsio;
use crate::layer::partition::{self, Graph, History, LayerPlan, Node, PlanOptions, PlanningMethod, Simulated};
use crate::oci::LayerStrategy;

use super::error::ProjectError;

/// Largest graph file that is read: some 100,000 paths.
const GRAPH_BYTES_MAX: u64 = 512 << 20;

/// Strategies that fit any number of layers.
const SIMULATED: [LayerStrategy; 6] = [
    LayerStrategy::Single,
    LayerStrategy::Popularity,
    LayerStrategy::Biggest,
    LayerStrategy::Dominator,
    LayerStrategy::SizeFirst,
    LayerStrategy::Churn,
];

/// A release that was read: all its paths as one layer, and as a graph.
pub type Release = (LayerPlan, Graph);

/// The earlier releases in a directory, oldest first.
pub fn read_dir(dir: &Path) -> Result<Vec<Release>, ProjectError> {
    files(dir)?.iter().map(|file| read(file)).collect()
}

/// The files of a directory of releases, oldest first.
fn files(dir: &Path) -> Result<Vec<PathBuf>, ProjectError> {
    let mut names = fsio::sorted_names(dir)?;
    names.sort_by_key(|name| (name.len(), name.clone()));
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// Reads a release from its plan or its closure graph.
fn read(path: &Path) -> Result<Release, ProjectError> {
    let text = read_text(path)?;
    let graph = match LayerPlan::parse(&text) {
        Ok(plan) => {
            let paths = plan.layers.iter().flat_map(|layer| &layer.paths);
            Graph::new(paths.cloned().map(Node::new).collect())?
        }
        Err(_) => Graph::parse_json(&text).map_err(|source| ProjectError::NoRelease {
            path: path.to_owned(),
            source,
        })?,
    };
    let single = PlanOptions {
        strategy: LayerStrategy::Single,
        ..PlanOptions::default()
    };
    Ok((partition::partition(&graph, &single)?, graph))
}

/// What was seen to change from release to release, and from the last of them to `graph`.
pub fn learn(earlier: &[Release], graph: &Graph) -> History {
    let mut history = History::default();
    let graphs = earlier.iter().skip(1).map(|(_, graph)| graph).chain([graph]);
    for ((before, _), after) in earlier.iter().zip(graphs) {
        history.observe(before, after);
    }
    history
}

/// Reads a closure graph.
pub fn read_graph(path: &Path) -> Result<Graph, ProjectError> {
    Graph::parse_json(&read_text(path)?).map_err(|source| ProjectError::NoGraph {
        path: path.to_owned(),
        source,
    })
}

fn read_text(path: &Path) -> Result<String, ProjectError> {
    let bytes = fsio::read_limited(path, GRAPH_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|_| ProjectError::NotText { path: path.to_owned() })
}

/// Replays the closure graphs of a directory with each strategy: what is sent at first and at every release.
pub fn simulate(dir: &Path, options: &PlanOptions) -> Result<Vec<(PlanningMethod, Simulated)>, ProjectError> {
    let files = files(dir)?;
    let releases = files.iter().map(|file| read_graph(file));
    let releases = releases.collect::<Result<Vec<_>, _>>()?;
    if releases.len() < 2 {
        return Err(ProjectError::FewReleases {
            dir: dir.to_owned(),
            count: releases.len(),
        });
    }
    let planned = SIMULATED.into_iter().map(PlanningMethod::Scratch);
    planned
        .chain([PlanningMethod::Carried, PlanningMethod::Bound])
        .map(|method| Ok((method, partition::simulate(&releases, method, options)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(names: &[&str]) -> String {
        let path = |name: &str| format!("/nix/store/{}-{name}", "0".repeat(32 - name.len()) + name);
        let entry = |name: &&str| serde_json::json!({ "path": path(name), "narSize": 1000, "references": [] });
        serde_json::json!(names.iter().map(entry).collect::<Vec<_>>()).to_string()
    }

    fn dir_of(files: &[(&str, String)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn releases_are_read_in_the_order_of_their_numbers() {
        let text = || graph(&["a"]);
        let dir = dir_of(&[("v10", text()), ("v2", text()), ("v1", text())]);
        let names: Vec<_> = files(dir.path()).unwrap();
        let names: Vec<_> = names
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["v1", "v2", "v10"]);
        assert_eq!(read_dir(dir.path()).unwrap().len(), 3);
    }

    #[test]
    fn what_is_no_release_is_named() {
        let dir = dir_of(&[("a.json", "{\"x\":".to_owned())]);
        let error = read_dir(dir.path()).unwrap_err();
        assert!(
            matches!(&error, ProjectError::NoRelease { path, .. } if path.ends_with("a.json")),
            "{error}"
        );
        std::fs::write(dir.path().join("a.json"), [0xff]).unwrap();
        assert!(matches!(read_dir(dir.path()), Err(ProjectError::NotText { .. })));
    }

    #[test]
    fn a_simulation_needs_two_releases() {
        let one = dir_of(&[("1", graph(&["a"]))]);
        let options = PlanOptions::default();
        let error = simulate(one.path(), &options).unwrap_err();
        assert!(matches!(error, ProjectError::FewReleases { count: 1, .. }), "{error}");
        let two = dir_of(&[("1", graph(&["a", "b"])), ("2", graph(&["a", "c"]))]);
        let results = simulate(two.path(), &options).unwrap();
        assert_eq!(results.len(), SIMULATED.len() + 2);
        // One layer is sent whole each time.
        let (_, single) = &results[0];
        assert_eq!((single.first, single.resent()), (2000, 2000));
    }
}
