//! Tests of planning: strategies, groups, weights, updates, limits.

use std::path::Path;

use proptest::prelude::{prop, prop_assert, proptest};
use proptest::strategy::Strategy as _;

use super::*;
use sequences::{Dice, debian};

/// Text of a file of `fixtures/layer`.
fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/layer").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Sixteen releases of a web application (see `scripts/plan-table`).
fn medium() -> Vec<Graph> {
    (0..16)
        .map(|release| Graph::parse_json(&fixture(&format!("medium/v{release}.json"))).unwrap())
        .collect()
}

fn with_layers(max_layers: usize) -> PlanOptions {
    PlanOptions {
        max_layers,
        ..PlanOptions::default()
    }
}

#[test]
fn plans_do_not_depend_on_the_order_of_their_input() {
    let releases = medium();
    let previous = partition(&releases[4], &with_layers(20)).unwrap();
    let mut nodes = releases[5].nodes().to_vec();
    let mut dice = Dice(7);
    for round in 0..3 {
        for at in 0..nodes.len() {
            let other = dice.roll(nodes.len());
            nodes.swap(at, other);
            nodes[at].references.reverse();
        }
        let graph = Graph::new(nodes.clone()).unwrap();
        for strategy in LayerStrategy::ALL
            .into_iter()
            .filter(|strategy| *strategy != LayerStrategy::PerPath)
        {
            let options = PlanOptions {
                strategy,
                ..with_layers(20)
            };
            assert_eq!(
                partition(&graph, &options).unwrap(),
                partition(&releases[5], &options).unwrap(),
                "{strategy} {round}"
            );
        }
        let options = PlanOptions {
            previous: Some(previous.clone()),
            ..with_layers(20)
        };
        assert_eq!(
            partition(&graph, &options).unwrap(),
            partition(&releases[5], &options).unwrap()
        );
    }
}

#[test]
fn plans_do_not_depend_on_hashes() {
    let graph = &medium()[0];
    let other_hash = |path: &String| {
        path.chars()
            .enumerate()
            .map(|(at, c)| match (at, c) {
                (11..43, 'a'..='y') => (c as u8 + 1) as char,
                (11..43, 'z') => 'a',
                _ => c,
            })
            .collect::<String>()
    };
    let nodes = graph.nodes().iter().map(|node| Node {
        path: other_hash(&node.path),
        references: node.references.iter().map(other_hash).collect(),
        ..node.clone()
    });
    let renamed = Graph::new(nodes.collect()).unwrap();
    for strategy in LayerStrategy::ALL
        .into_iter()
        .filter(|strategy| *strategy != LayerStrategy::PerPath)
    {
        let options = PlanOptions {
            strategy,
            ..with_layers(20)
        };
        let mut plan = partition(graph, &options).unwrap();
        for layer in &mut plan.layers {
            layer.paths = layer.paths.iter().map(other_hash).collect();
            layer.paths.sort();
        }
        assert_eq!(plan, partition(&renamed, &options).unwrap(), "{strategy}");
    }
}

#[test]
fn plan_files_come_back_and_are_golden() {
    let releases = medium();
    let first = partition(
        &releases[0],
        &PlanOptions {
            carried: true,
            ..with_layers(10)
        },
    )
    .unwrap();
    let second = partition(
        &releases[1],
        &PlanOptions {
            previous: Some(first.clone()),
            ..with_layers(10)
        },
    )
    .unwrap();
    assert_eq!(LayerPlan::parse(&second.print()).unwrap(), second);
    assert_eq!(second.history.observed("webapp"), Observed { changed: 1, seen: 1 });
    assert_eq!(second.history.observed("libc6"), Observed { changed: 0, seen: 1 });
    assert_eq!(
        second.history.observed("medium-env"),
        Observed { changed: 0, seen: 1 },
        "it changed with the application"
    );
    assert_eq!(
        second.print(),
        fixture("plan-v1.json"),
        "a change to plans that are kept"
    );
}

#[test]
fn an_unchanged_closure_keeps_its_plan() {
    let releases = medium();
    for layers in [10, 30] {
        let mut plan = partition(
            &releases[0],
            &PlanOptions {
                carried: true,
                ..with_layers(layers)
            },
        )
        .unwrap();
        for graph in &releases[1..8] {
            plan = partition(
                graph,
                &PlanOptions {
                    previous: Some(plan),
                    ..with_layers(layers)
                },
            )
            .unwrap();
            let again = partition(
                graph,
                &PlanOptions {
                    previous: Some(plan.clone()),
                    ..with_layers(layers)
                },
            )
            .unwrap();
            assert_eq!(again.print(), plan.print());
        }
    }
}

#[test]
fn plans_by_hand_are_checked() {
    let graph = small();
    let path = |name: &str| graph.nodes()[graph.named(name)[0]].path.clone();
    let plan = |layers: &[&[String]]| {
        let layers: Vec<_> = layers.iter().map(|paths| serde_json::json!({"paths": paths})).collect();
        let mut plan = LayerPlan::parse(&serde_json::json!({"layers": layers}).to_string()).unwrap();
        plan.check(&graph).map(|()| plan).map_err(|error| error.to_string())
    };
    let (a, b, c) = (path("a"), path("b"), path("c"));
    let good = plan(&[&[c.clone(), a.clone()], std::slice::from_ref(&b)]).unwrap();
    assert_eq!((good.layers[0].size, good.strategy.as_str()), (40, "by-hand"));
    assert_eq!(
        plan(&[&[a.clone(), b.clone()]]),
        Err(format!("no layer of the plan contains `{c}`"))
    );
    assert_eq!(
        plan(&[&[a.clone(), b.clone()], &[c.clone(), a.clone()]]),
        Err(format!("`{a}` appears in it twice"))
    );
    assert_eq!(
        plan(&[&[a, b, c, "/x".into()]]),
        Err("the plan lists `/x`, which is not in the closure".into())
    );
    assert!(matches!(
        LayerPlan::parse(r#"{"format":2,"layers":[]}"#),
        Err(PlanError::Format { found: 2 })
    ));
    assert!(matches!(
        LayerPlan::parse(r#"{"layer":[]}"#),
        Err(PlanError::Json { .. })
    ));
}

/// c (30 bytes) refers to b (20), b to a (10).
fn small() -> Graph {
    let path = |name: &str| format!("/s/{name:0>32}-{name}-1.0");
    let node = |name: &str, size, references: &[&str]| Node {
        size,
        references: references.iter().map(|name| path(name)).collect(),
        ..Node::new(path(name))
    };
    Graph::new(vec![node("c", 30, &["b"]), node("b", 20, &["a"]), node("a", 10, &[])]).unwrap()
}

#[test]
fn groups_stand_and_the_rest_is_filled_around() {
    let graph = &medium()[0];
    let names = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let options = PlanOptions {
        groups: vec![names(&["libc6", "libssl3"]), names(&["webapp", "webapp-config"])],
        ..with_layers(10)
    };
    let mut plan = partition(graph, &options).unwrap();
    assert_eq!(plan.layers.len(), 10);
    plan.check(graph).unwrap();
    let grouped: Vec<_> = plan
        .layers
        .iter()
        .filter(|layer| layer.reason == "grouped by the spec")
        .collect();
    assert!(grouped.len() == 2 && grouped[0].paths.len() == 2 && grouped[0].paths[0].ends_with("-libc6-2.36"));
    let fails = |groups: &[&[&str]], max| {
        let groups = groups.iter().map(|group| names(group)).collect();
        let error = partition(
            graph,
            &PlanOptions {
                groups,
                ..with_layers(max)
            },
        )
        .unwrap_err();
        (error.to_string(), error.help().unwrap_or_default())
    };
    assert_eq!(
        fails(&[&["libssl"]], 10),
        (
            "`libssl` is not a package of the closure".into(),
            "did you mean `libssl3`?".into()
        )
    );
    assert_eq!(fails(&[&["libc6"], &["libc6"]], 10).0, "`libc6` is in two groups");
    assert_eq!(
        fails(&[&["libc6"]], 1).0,
        "2 layers are needed, and at most 1 are allowed"
    );
}

#[test]
fn weights_keep_what_changes_apart() {
    let graph = small();
    let plan = |weights: &[(&str, u32)]| {
        let weights = weights
            .iter()
            .map(|&(name, weight)| (name.to_owned(), weight))
            .collect();
        partition(
            &graph,
            &PlanOptions {
                weights,
                ..with_layers(2)
            },
        )
    };
    let apart = |name: &str, weights: &[(&str, u32)]| {
        let plan = plan(weights).unwrap();
        let alone = plan.layers.iter().find(|layer| layer.paths.len() == 1).unwrap();
        assert!(alone.paths[0].contains(&format!("-{name}-")), "{weights:?}");
    };
    apart("c", &[("c", 900_000)]);
    apart("a", &[("b", 900_000)]);
    assert!(matches!(plan(&[("c", 1_000_001)]), Err(PlanError::Weight { .. })));
    assert!(matches!(plan(&[("d", 1)]), Err(PlanError::Unknown { .. })));
}

#[test]
fn limits_count_all_layers() {
    let graph = small();
    let fails = |options: PlanOptions| partition(&graph, &options).unwrap_err().to_string();
    assert_eq!(
        fails(with_layers(126)),
        "126 layers are more than Docker's limit of 125"
    );
    partition(
        &graph,
        &PlanOptions {
            beyond_docker: true,
            ..with_layers(126)
        },
    )
    .unwrap();
    partition(&graph, &with_layers(125)).unwrap();
    assert_eq!(
        fails(PlanOptions {
            other_layers: 5,
            ..with_layers(5)
        }),
        "6 layers are needed, and at most 5 are allowed"
    );
    assert_eq!(
        partition(
            &graph,
            &PlanOptions {
                other_layers: 4,
                ..with_layers(5)
            }
        )
        .unwrap()
        .layers
        .len(),
        1
    );
    assert_eq!(
        fails(PlanOptions {
            strategy: LayerStrategy::PerPath,
            ..with_layers(2)
        }),
        "3 layers are needed, and at most 2 are allowed"
    );
    assert_eq!(
        partition(&Graph::new(Vec::new()).unwrap(), &with_layers(5))
            .unwrap()
            .layers,
        []
    );
}

#[test]
fn layers_stand_least_changing_first() {
    let graph = small();
    let plan = partition(&graph, &with_layers(3)).unwrap();
    let order: Vec<&str> = plan.layers.iter().map(|layer| &layer.paths[0][36..]).collect();
    assert_eq!(order, ["a-1.0", "b-1.0", "c-1.0"]);
}

#[test]
fn popularity_is_that_of_its_source() {
    // The example of the source: scores A1 B2 C3 D4 E5 F9 G2.
    let path = |name: &str| format!("/s/{name:0>32}-{name}");
    let edges = [
        ("A", "BG"),
        ("B", "CE"),
        ("C", "DE"),
        ("D", "F"),
        ("E", "F"),
        ("F", ""),
        ("G", ""),
    ];
    let nodes = edges.map(|(name, below)| Node {
        size: 1,
        references: below.chars().map(|c| path(&c.to_string())).collect(),
        ..Node::new(path(name))
    });
    let graph = Graph::new(nodes.to_vec()).unwrap();
    let all: Vec<usize> = (0..7).collect();
    let groups = baselines::popularity(&graph, &all, 4);
    let named: Vec<String> = groups
        .iter()
        .map(|group| group.iter().map(|&node| graph.keys()[node].as_str()).collect())
        .collect();
    assert_eq!(named, ["F", "E", "D", "CBGA"]);
}

#[test]
fn a_change_is_explained() {
    let releases = medium();
    let plan = partition(&releases[0], &with_layers(20)).unwrap();
    let told = explain(&plan, &releases[0], "libssl3").unwrap();
    assert!(told.path.ends_with("-libssl3-3.0.17"));
    assert!(plan.layers[told.layer].paths.contains(&told.path));
    assert_eq!(told.together_with.len() + 1, plan.layers[told.layer].paths.len());
    assert_eq!(told.layer_size, plan.layers[told.layer].size);
    assert_eq!((told.rebuilds, told.observed), (43, Observed::default()));
    assert!(told.resends_bytes >= told.least_bytes && told.resends_layers >= 2);
    assert_eq!(told.expected_changes, 2 * PRIOR, "its own and libc6's");
    let error = explain(&plan, &releases[0], "libssl").unwrap_err();
    assert!(matches!(error, PlanError::Unknown { .. }));
}

#[test]
fn planning_anew_is_weighed() {
    let releases = medium();
    let fresh = PlanOptions {
        carried: true,
        ..with_layers(10)
    };
    let popular = partition(
        &releases[0],
        &PlanOptions {
            strategy: LayerStrategy::Popularity,
            ..with_layers(10)
        },
    )
    .unwrap();
    let advice = replan(&popular, &releases[0], &with_layers(10)).unwrap().unwrap();
    assert!(advice.saved_per_release > 10_000_000 && advice.bytes_now > 100_000_000 && advice.releases() > 0);
    let good = partition(&releases[0], &fresh).unwrap();
    assert_eq!(replan(&good, &releases[0], &fresh).unwrap(), None);
}

#[test]
fn near_pairs_are_almost_as_good_as_all_pairs() {
    let mut dice = Dice(3);
    let path = |n: usize| format!("/s/{n:032}-p{n}");
    let nodes = (0..300).map(|n| Node {
        size: 1 + dice.roll(1_000_000) as u64,
        references: (0..n.min(3)).map(|_| path(dice.roll(n))).collect(),
        ..Node::new(path(n))
    });
    let graph = Graph::new(nodes.collect()).unwrap();
    let model = Model::new(&graph, &BTreeMap::new(), &History::default(), Outlook::Once);
    let cost = |groups: Vec<Group>| groups.iter().map(|group| model.cost(group)).sum::<i128>();
    let singles = || (0..graph.len()).map(|node| model.single(node)).collect::<Vec<_>>();
    let [all, near] = [1000, 60].map(|dense| churn::merge_down_beyond(dense, &model, singles(), 20));
    assert_eq!((all.len(), near.len()), (20, 20));
    let worst = cost(vec![model.group((0..graph.len()).collect())]);
    let (all, near) = (cost(all), cost(near));
    assert!(near * 100 <= all * 110 && near < worst, "{near} {all} {worst}");
}

fn any_graph() -> impl proptest::strategy::Strategy<Value = Graph> {
    prop::collection::vec((0..1_000_000u64, prop::collection::vec(0..40usize, 0..4)), 1..40).prop_map(|nodes| {
        let count = nodes.len();
        let path = |n: usize| format!("/s/{n:032}-p{n}");
        let nodes = nodes.into_iter().enumerate().map(|(n, (size, references))| Node {
            size,
            references: references.into_iter().map(|other| path(other % count)).collect(),
            ..Node::new(path(n))
        });
        Graph::new(nodes.collect()).unwrap()
    })
}

proptest! {
    #[test]
    fn every_plan_holds_every_path_once(graph in any_graph(), next in any_graph(), max_layers in 1..12usize) {
        let strategies = LayerStrategy::ALL.into_iter().filter(|strategy| *strategy != LayerStrategy::PerPath);
        for strategy in strategies {
            let mut plan = partition(&graph, &PlanOptions { strategy, ..with_layers(max_layers) }).unwrap();
            plan.check(&graph).unwrap();
            prop_assert!(plan.layers.len() <= max_layers && plan.layers.iter().all(|layer| !layer.paths.is_empty()));
            let carried = PlanOptions { previous: Some(plan), carried: true, ..with_layers(max_layers) };
            let mut plan = partition(&next, &carried).unwrap();
            plan.check(&next).unwrap();
            prop_assert!(plan.layers.len() <= max_layers);
        }
    }
}

mod fleets;
mod sequences;
