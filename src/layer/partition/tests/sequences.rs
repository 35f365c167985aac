//! Bytes re-sent over sequences of releases: the measured one, and made ones.

use super::*;

/// Megabytes re-sent at 10, 20, 40 and 100 layers.
fn row(releases: &[Graph], way: PlanningMethod) -> [u64; 4] {
    [10, 20, 40, 100].map(|layers| {
        let sent = simulate(releases, way, &with_layers(layers)).unwrap();
        assert_eq!(sent.steps.len(), releases.len() - 1);
        (sent.resent() + 500_000) / 1_000_000
    })
}

#[test]
fn baselines_send_what_their_originals_send() {
    let releases = medium();
    for (strategy, expected) in [
        (LayerStrategy::Popularity, [2457, 2347, 2063, 559]),
        (LayerStrategy::Biggest, [1202, 819, 645, 559]),
        (LayerStrategy::SizeFirst, [964, 698, 605, 559]),
        (LayerStrategy::Single, [2737; 4]),
    ] {
        assert_eq!(
            row(&releases, PlanningMethod::Scratch(strategy)),
            expected,
            "{strategy}"
        );
    }
    assert_eq!(row(&releases, PlanningMethod::Bound), [559; 4]);
}

#[test]
fn churn_sends_least_and_carried_plans_send_less() {
    let releases = medium();
    let scratch = row(&releases, PlanningMethod::Scratch(LayerStrategy::Churn));
    let carried = row(&releases, PlanningMethod::Carried);
    assert!(
        scratch
            .iter()
            .zip([811, 647, 571, 559])
            .all(|(sent, bound)| *sent <= bound),
        "{scratch:?}"
    );
    assert!(
        carried
            .iter()
            .zip([719, 601, 571, 559])
            .all(|(sent, bound)| *sent <= bound),
        "{carried:?}"
    );
    assert_eq!(
        (scratch, carried),
        ([811, 647, 570, 559], [666, 593, 563, 559]),
        "better or worse than it was"
    );
}

/// A sequence of random numbers that is the same everywhere.
pub(super) struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// Releases of an application on top of a Debian package graph: it changes most of the time, its settings and assets now
/// and then, a package every second or third release (some packages more than others), and packages come and go
/// where `moving`. What refers to a changed path is rebuilt, as in any hashed store.
pub(super) fn debian(title: &str, seed: u64, moving: bool) -> Vec<Graph> {
    let document: serde_json::Value = serde_json::from_str(&fixture(&format!("debian/{title}.json"))).unwrap();
    let base = Graph::parse_json(&document.to_string()).unwrap();
    let listed = |key: &str| {
        document[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|path| path.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (programs, extra) = (listed("programs"), listed("extra"));
    let mut dice = Dice(seed);
    let hot: Vec<String> = (0..8)
        .map(|_| base.nodes()[dice.roll(base.len())].path.clone())
        .collect();
    let mut revisions: BTreeMap<String, usize> = BTreeMap::new();
    let mut added: Vec<String> = Vec::new();
    let mut releases = vec![release(&base, &programs, &revisions)];
    for _ in 1..16 {
        let mut change = |what: &str| *revisions.entry(what.to_owned()).or_default() += 1;
        for (what, percent) in [("app", 80), ("settings", 30), ("assets", 10)] {
            if dice.roll(100) < percent {
                change(what);
            }
        }
        match dice.roll(100) {
            0..20 => change(&hot[dice.roll(hot.len())]),
            20..40 => change(&base.nodes()[dice.roll(base.len())].path.clone()),
            _ => {}
        }
        if moving && dice.roll(100) < 25 {
            let package = extra[dice.roll(extra.len())].clone();
            match added.iter().position(|other| *other == package) {
                Some(at) => drop(added.remove(at)),
                None => added.push(package),
            }
        }
        releases.push(release(&base, &[&programs[..], &added].concat(), &revisions));
    }
    releases
}

/// The closure of `wanted` with an application on top.
fn release(base: &Graph, wanted: &[String], revisions: &BTreeMap<String, usize>) -> Graph {
    let revision = |what: &str| revisions.get(what).copied().unwrap_or(0);
    let index: BTreeMap<&str, usize> = (0..base.len()).map(|at| (base.nodes()[at].path.as_str(), at)).collect();
    let mut held = BTreeSet::new();
    for path in wanted {
        held.extend(base.closure(index[path.as_str()]).iter());
    }
    // The revisions of all that a path refers to stand for its hash.
    let renamed = |path: &str| {
        let below = base.closure(index[path]).iter();
        let sum: usize = below
            .map(|node| (node + 1) * 1000 * revision(&base.nodes()[node].path))
            .sum();
        let (_, name) = path["/layerize/store/".len()..].split_once('-').unwrap();
        format!("/layerize/store/{sum:032}-{name}")
    };
    let mut nodes: Vec<Node> = held
        .iter()
        .map(|&node| Node {
            path: renamed(&base.nodes()[node].path),
            references: base.nodes()[node].references.iter().map(|path| renamed(path)).collect(),
            ..base.nodes()[node].clone()
        })
        .collect();
    let below: Vec<String> = wanted.iter().map(|path| renamed(path)).collect();
    let hash = |what: &str, below: &[String]| {
        let digest = crate::digest::Digest::of(format!("{what} {} {below:?}", revision(what)).as_bytes());
        format!(
            "/layerize/store/{}-{what}",
            &digest.hex()[..crate::store_path::HASH_CHARS]
        )
    };
    let mut add = |name: &str, size: u64, references: Vec<String>| {
        let path = hash(name, &references);
        nodes.push(Node {
            name: name.to_owned(),
            size,
            references,
            origin: Origin::Own,
            ..Node::new(path.clone())
        });
        path
    };
    let app = add("app", 14_000_000, below);
    let settings = add("settings", 2000, vec![app.clone()]);
    let assets = add("assets", 5_000_000, Vec::new());
    add("env", 30_000, vec![app, settings, assets]);
    Graph::new(nodes).unwrap()
}

#[test]
fn the_same_order_holds_on_other_sequences() {
    for moving in [false, true] {
        let sequences: Vec<Vec<Graph>> = ["web", "java", "php"]
            .iter()
            .flat_map(|title| [1, 2].map(|seed| debian(title, seed, moving)))
            .collect();
        for layers in [10, 20, 40] {
            let total = |way| -> u64 {
                let sent = sequences
                    .iter()
                    .map(|releases| simulate(releases, way, &with_layers(layers)).unwrap().resent());
                sent.sum()
            };
            let ways = [
                PlanningMethod::Scratch(LayerStrategy::SizeFirst),
                PlanningMethod::Scratch(LayerStrategy::Churn),
                PlanningMethod::Carried,
                PlanningMethod::Bound,
            ];
            let [size_first, churn, carried, bound] = ways.map(total);
            // With many layers all come near the bound, and carrying a plan has nothing left to save.
            let spare = if layers == 40 { bound / 1000 } else { 0 };
            let ordered = size_first > churn && churn + spare > carried && carried >= bound;
            assert!(
                ordered,
                "moving {moving}, {layers} layers: {:?}",
                (size_first, churn, carried, bound)
            );
        }
    }
}

#[test]
fn two_small_packages_added_to_a_root_load_little() {
    let base = &debian("web", 1, false)[0];
    // Packages at `/` refer to nothing.
    let root = |more: &[(&str, u64)]| {
        let path = |name: &str| format!("/{name:0>32}-{name}-1.0");
        let more = more.iter().map(|&(name, size)| Node {
            size,
            ..Node::new(path(name))
        });
        let nodes = base.nodes().iter().map(|node| Node {
            references: Vec::new(),
            ..node.clone()
        });
        let nodes = nodes.chain(more).map(|node| Node {
            origin: Origin::Distribution,
            ..node
        });
        Graph::new(nodes.collect()).unwrap()
    };
    let (before, after) = (root(&[]), root(&[("jq", 120_000), ("less", 310_000)]));
    for (layers, share) in [(20, 8), (40, 15), (100, 15)] {
        let sent = simulate(
            &[before.clone(), after.clone()],
            PlanningMethod::Scratch(LayerStrategy::Churn),
            &with_layers(layers),
        );
        let loaded = sent.unwrap().loaded();
        assert!(
            loaded * share < before.size(),
            "{layers} layers: {loaded} of {} bytes",
            before.size()
        );
    }
}

/// What `scripts/plan-table` shows.
#[test]
#[ignore = "prints a table"]
#[expect(clippy::print_stderr, reason = "that is what it is for")]
fn table() {
    let ways = [
        LayerStrategy::Popularity,
        LayerStrategy::Biggest,
        LayerStrategy::Dominator,
        LayerStrategy::SizeFirst,
        LayerStrategy::Churn,
    ]
    .map(PlanningMethod::Scratch);
    let ways: Vec<PlanningMethod> = ways
        .into_iter()
        .chain([PlanningMethod::Carried, PlanningMethod::Bound])
        .collect();
    let debian_all = |moving| -> Vec<Vec<Graph>> {
        let titles = ["web", "java", "php", "science"];
        titles
            .iter()
            .flat_map(|title| [1, 2, 3].map(|seed| debian(title, seed, moving)))
            .collect()
    };
    let sets = [
        ("medium", vec![medium()]),
        ("debian, packages stay", debian_all(false)),
        ("debian, packages come and go", debian_all(true)),
    ];
    for (title, sequences) in sets {
        let of = format!("of {} sequences, by number of layers", sequences.len());
        for (what, bytes) in [
            ("re-sent to a registry", Simulated::resent as fn(&Simulated) -> u64),
            ("loaded by Docker", Simulated::loaded),
        ] {
            eprintln!("\n{title}: MB {what} {of}");
            eprintln!("{:18}{:>9}{:>9}{:>9}{:>9}{:>9}", "", 10, 20, 40, 60, 100);
            for &way in &ways {
                let cells = [10, 20, 40, 60, 100].map(|layers| {
                    let sent = sequences
                        .iter()
                        .map(|releases| bytes(&simulate(releases, way, &with_layers(layers)).unwrap()));
                    format!("{:>9}", (sent.sum::<u64>() + 500_000) / 1_000_000)
                });
                eprintln!("{:18}{}", way.name(), cells.concat());
            }
        }
    }
}
