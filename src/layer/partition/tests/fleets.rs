//! Images planned together: what they share, what they group, what they had before.

use super::*;

/// The first release of three images, and the paths of all.
fn images() -> (Vec<Graph>, u64) {
    let images: Vec<Graph> = ["web", "php", "java"]
        .iter()
        .map(|title| debian(title, 1, false).remove(0))
        .collect();
    let nodes = images.iter().flat_map(Graph::nodes);
    let sizes: BTreeMap<&str, u64> = nodes.map(|node| (node.path.as_str(), node.size)).collect();
    let all = sizes.values().sum();
    (images, all)
}

fn fleet(images: &[Graph], options: &PlanOptions) -> Fleet {
    let images: Vec<_> = images.iter().map(|graph| (graph, options.clone())).collect();
    planned_together(&images)
}

/// Plans, and sees that every plan is one of its image.
fn planned_together(images: &[(&Graph, PlanOptions)]) -> Fleet {
    let fleet = plan_fleet(images).unwrap();
    for (plan, (graph, options)) in fleet.plans.iter().zip(images) {
        assert!(plan.layers.len() <= options.max_layers);
        plan.clone().check(graph).unwrap();
    }
    fleet
}

#[test]
fn fleets_share_layers() {
    let (images, all) = images();
    let together = fleet(&images, &with_layers(40));
    assert_eq!(together.together.push, all, "no path is sent twice");
    assert!(together.apart.push > all);
    // Two layers cannot hold three images' sets of paths: each is planned by itself.
    let apart = fleet(&images, &with_layers(2));
    assert_eq!(apart.together, apart.apart);
    assert_eq!(apart.plans[0], partition(&images[0], &with_layers(2)).unwrap());
    let options = vec![(&images[0], with_layers(0))];
    assert!(matches!(plan_fleet(&options), Err(PlanError::TooMany { .. })));
    assert_eq!(plan_fleet(&[]).unwrap().plans, []);
}

#[test]
fn a_fleet_does_not_depend_on_the_order_of_its_images() {
    let (mut images, _) = images();
    let mut forth = fleet(&images, &with_layers(20));
    images.reverse();
    let back = fleet(&images, &with_layers(20));
    forth.plans.reverse();
    assert!(forth == back);
}

#[test]
fn each_image_keeps_its_limit_groups_and_strategy() {
    let (images, _) = images();
    let grouped = PlanOptions {
        groups: vec![vec!["app".to_owned(), "libc6".to_owned()]],
        ..with_layers(20)
    };
    let single = PlanOptions {
        strategy: LayerStrategy::Single,
        ..with_layers(20)
    };
    let fleet = planned_together(&[
        (&images[0], grouped),
        (&images[1], with_layers(60)),
        (&images[2], single),
    ]);
    let [web, php, java] = &fleet.plans[..] else { panic!() };
    let group: Vec<_> = web.layers.iter().filter(|layer| layer.reason == GROUPED).collect();
    assert!(group.len() == 1 && group[0].paths.len() == 2, "{group:?}");
    assert!(php.layers.len() > 20);
    assert_eq!((java.layers.len(), java.strategy.as_str()), (1, "single"));
    let shared = php.layers.iter().filter(|layer| web.layers.contains(layer)).count();
    assert!(shared > 3, "the others share all the same: {shared}");
}

#[test]
fn a_fleet_keeps_what_did_not_change() {
    let titles = ["web", "php", "java"];
    let releases: Vec<Vec<Graph>> = titles.iter().map(|title| debian(title, 1, false)).collect();
    let mut before = fleet(
        &releases.iter().map(|all| all[0].clone()).collect::<Vec<_>>(),
        &with_layers(30),
    );
    for release in 1..5 {
        let images = releases.iter().zip(&before.plans).map(|(all, plan)| {
            let previous = Some(plan.clone());
            (
                &all[release],
                PlanOptions {
                    previous,
                    carried: true,
                    ..with_layers(30)
                },
            )
        });
        let images: Vec<_> = images.collect();
        let after = planned_together(&images);
        let held: BTreeSet<&Vec<String>> = before
            .plans
            .iter()
            .flat_map(|plan| &plan.layers)
            .map(|layer| &layer.paths)
            .collect();
        let new: BTreeMap<&str, u64> = images
            .iter()
            .flat_map(|(graph, _)| graph.nodes())
            .filter(|node| !held.iter().any(|paths| paths.contains(&node.path)))
            .map(|node| (node.path.as_str(), node.size))
            .collect();
        let least: u64 = new.values().sum();
        assert!(after.together.push >= least, "{release}");
        assert!(
            after.together.push <= least + 60_000_000,
            "{release}: {:?} {least}",
            after.together
        );
        assert!(
            after.plans[0].history.observed("app").seen > 0,
            "what is seen is remembered"
        );
        before = after;
    }
}

proptest! {
    #[test]
    fn every_plan_of_a_fleet_holds_its_paths_once(
        graphs in prop::collection::vec((any_graph(), 1..12usize), 1..4),
        next in any_graph(),
    ) {
        let images: Vec<_> = graphs.iter().map(|(graph, max_layers)| (graph, with_layers(*max_layers))).collect();
        let before = planned_together(&images);
        // The first image changes, the others stay as they are.
        let graphs = std::iter::once(&next).chain(graphs.iter().skip(1).map(|(graph, _)| graph));
        let images = graphs.zip(&before.plans).zip(&images).map(|((graph, plan), (_, options))| {
            (graph, PlanOptions { previous: Some(plan.clone()), carried: true, ..options.clone() })
        });
        let images: Vec<_> = images.collect();
        let after = planned_together(&images);
        prop_assert!(after.together.push <= after.apart.push + 5 * after.apart.per_release);
    }
}
