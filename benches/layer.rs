//! What `scripts/bench-pack` runs: packs a closure, describes one, or plans a made-up one. Not for users.
//!
//! `layer describe DIR`: prints the closure JSON of the trees in DIR, references from DIR/references.json.
//! `layer pack GRAPH --out DIR [--compression C] [--threads N] [--cache DIR] [--layers N]`: GRAPH is such a JSON;
//! prints `{"layers":…,"tar":…,"stored":…,"seconds":…}`.
//! `layer plan N`: plans N made-up paths into 100 layers and prints the seconds.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use layerize::digest::Digest;
use layerize::event::Silent;
use layerize::layer::partition::{Graph, Node, PlanOptions, partition};
use layerize::layer::{
    LayerCache, LayerContent, LayerError, LayerInput, PackOptions, StoreEntry, for_each_layer, pack,
};
use layerize::oci::Compression;
use serde_json::{Value, json};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let printed = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["describe", dir] => describe(Path::new(dir))?,
        ["pack", graph, ref options @ ..] => pack_graph(graph, options)?,
        ["plan", count] => plan(count.parse()?)?,
        // `cargo test` and `cargo bench` run every bench: without arguments there is nothing to do.
        [] => return Ok(()),
        _ => bail!("unknown arguments: {arguments:?}"),
    };
    #[expect(clippy::print_stdout, reason = "this is a program")]
    {
        println!("{printed}");
    }
    Ok(())
}

/// A tree's archive hash and size: packing verifies them, and says what they are.
fn archive(logical: &str, physical: &Path) -> Result<(Digest, u64)> {
    let entry = StoreEntry {
        logical: logical.parse()?,
        physical: physical.to_owned(),
        nar_hash: Digest::of(b""),
        nar_size: 0,
        attributes: Vec::new(),
    };
    let options = PackOptions {
        compression: Compression::None,
        threads: 1,
        ..PackOptions::default()
    };
    let input = LayerInput {
        content: LayerContent::StorePaths(vec![entry]),
        comment: String::new(),
    };
    match pack(&[input], &options, &Silent) {
        Err(LayerError::Changed {
            actual, actual_size, ..
        }) => Ok((actual, actual_size)),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("`{}` has no archive hash", physical.display()),
    }
}

fn describe(dir: &Path) -> Result<Value> {
    let references: BTreeMap<String, Vec<String>> =
        serde_json::from_slice(&std::fs::read(dir.join("references.json"))?)?;
    let logical = |name: &String| format!("/layerize/store/{name}");
    let nodes = references.iter().map(|(name, references)| {
        let physical = dir.join(name);
        let (hash, size) = archive(&logical(name), &physical)?;
        let references: Vec<_> = references.iter().map(logical).collect();
        Ok(json!({"path": logical(name), "physical": physical, "narHash": hash, "narSize": size, "references": references}))
    });
    Ok(Value::Array(nodes.collect::<Result<_>>()?))
}

fn pack_graph(file: &str, options: &[&str]) -> Result<Value> {
    let option = |name: &str| {
        options
            .iter()
            .position(|option| *option == name)
            .and_then(|at| options.get(at + 1).copied())
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read `{file}`"))?;
    let begun = Instant::now();
    let graph = Graph::parse_json(&text)?;
    let plan = partition(
        &graph,
        &PlanOptions {
            max_layers: option("--layers").map_or(Ok(100), str::parse)?,
            ..PlanOptions::default()
        },
    )?;
    let entries = entries(&text)?;
    let inputs: Vec<LayerInput> = plan
        .layers
        .iter()
        .map(|layer| LayerInput {
            content: LayerContent::StorePaths(
                layer
                    .paths
                    .iter()
                    .filter_map(|path| entries.get(path))
                    .cloned()
                    .collect(),
            ),
            comment: String::new(),
        })
        .collect();
    let cache = option("--cache")
        .map(|dir| LayerCache::open(Path::new(dir)))
        .transpose()?;
    let options = PackOptions {
        compression: option("--compression").unwrap_or("gzip").parse()?,
        threads: option("--threads").map_or(Ok(0), str::parse)?,
        cache: cache.as_ref(),
        scratch: option("--out").map(PathBuf::from),
        ..PackOptions::default()
    };
    let layers = pack(&inputs, &options, &Silent)?;
    if let Some(out) = option("--out") {
        let path = Path::new(out).join("layers");
        let file = File::create(&path)?;
        let ends = layers.iter().scan(0, |end, layer| {
            *end += layer.size;
            Some(*end)
        });
        let placed: Vec<_> = layers
            .iter()
            .zip(ends)
            .map(|(layer, end)| (layer, end - layer.size))
            .collect();
        for_each_layer(
            &placed,
            |(layer, _)| layer.size,
            |(layer, at)| layer.blob.copy_to(layer.digest, layer.size, &file, *at, &path),
        )?;
    }
    let digests: String = layers.iter().map(|layer| layer.digest.to_string()).collect();
    Ok(json!({
        "layers": layers.len(),
        "tar": layers.iter().map(|layer| layer.tar_size).sum::<u64>(),
        "stored": layers.iter().map(|layer| layer.size).sum::<u64>(),
        "digest": Digest::of(digests.as_bytes()),
        "seconds": begun.elapsed().as_secs_f64(),
    }))
}

fn entries(text: &str) -> Result<BTreeMap<String, StoreEntry>> {
    let nodes: Vec<Value> = serde_json::from_str(text)?;
    let entries = nodes.iter().map(|node| {
        let field = |name: &str| node[name].as_str().with_context(|| format!("a path without `{name}`"));
        let entry = StoreEntry {
            logical: field("path")?.parse()?,
            physical: field("physical")?.into(),
            nar_hash: field("narHash")?.parse()?,
            nar_size: node["narSize"].as_u64().context("a path without `narSize`")?,
            attributes: Vec::new(),
        };
        Ok((entry.logical.to_string(), entry))
    });
    entries.collect()
}

/// A closure of `count` paths in which each refers to a few earlier ones, mostly to popular ones.
fn plan(count: usize) -> Result<Value> {
    let mut state = 1u64;
    let mut roll = |sides: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % sides.max(1)
    };
    let path = |at: usize| format!("/layerize/store/{at:032}-p{at}");
    let mut nodes = Vec::with_capacity(count);
    for at in 0..count {
        let mut references: Vec<String> = (0..roll(6)).map(|_| path(roll(at))).collect();
        references.extend((0..roll(3)).map(|_| path(roll(at.min(50)))));
        references.retain(|_| at > 0);
        nodes.push(Node {
            size: 1 << (8 + roll(17)),
            references,
            ..Node::new(path(at))
        });
    }
    let begun = Instant::now();
    let graph = Graph::new(nodes)?;
    let layers = partition(&graph, &PlanOptions::default())?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(json!({"paths": count, "layers": layers.layers.len(), "seconds": seconds}))
}
