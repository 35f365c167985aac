//! What is in which layer.

use std::collections::BTreeSet;

use super::*;
use crate::layer::partition::LayerPlan;
use crate::oci::LayerStrategy;

/// Eight packages at `/` and eight store paths, each of which refers to the one before.
fn many() -> Fixture {
    let mut fixture = Fixture::new();
    for index in 0..8 {
        let (name, file) = (format!("lib{index}-1.0"), format!("lib/{index}"));
        let before: Vec<_> = fixture
            .members
            .last()
            .map(|member| member.name.clone())
            .into_iter()
            .collect();
        let before: Vec<_> = before.iter().map(String::as_str).collect();
        fixture.member(&name, &[(&file, &"x".repeat(100 * index))], &before);
        fixture.package(
            &format!("deb{index}"),
            &[
                (&format!("usr/share/{index}"), "y"),
                (&format!("usr/lib/l{index}"), "-> x"),
            ],
        );
    }
    fixture.contents.push(ContentRoot {
        name: "lib7".to_owned(),
        logical: fixture.logical("lib7-1.0"),
    });
    fixture
}

fn made(fixture: &Fixture) -> LayerPlan {
    plan(&fixture.recipe()).unwrap()
}

/// The names in each layer of a plan.
fn names(plan: &LayerPlan) -> Vec<Vec<String>> {
    let name = |path: &String| path.rsplit('/').next().unwrap()[33..].to_owned();
    let layers = plan.layers.iter().map(|layer| layer.paths.iter().map(name).collect());
    layers.collect()
}

#[test]
fn everything_is_in_one_layer_whatever_their_number() {
    let mut fixture = many();
    let mut whole = BTreeSet::new();
    for max in [3, 4, 7, 16, 17, 18, 125] {
        fixture.spec.layers.max = Some(limit(max));
        let image = fixture.assemble().unwrap();
        assert!(image.layers.len() <= max, "{max}");
        assert!(max > 17 || image.layers.len() == max, "{max}: {}", image.layers.len());
        let mut seen = BTreeSet::new();
        for entry in image
            .layers
            .iter()
            .flat_map(entries)
            .filter(|entry| !entry.starts_with('d'))
        {
            assert!(seen.insert(entry.clone()), "{max}: {entry} stands in two layers");
        }
        if whole.is_empty() {
            whole = seen;
        } else {
            assert_eq!(seen, whole, "{max}");
        }
        assert_sound(&image);
    }
    assert!(whole.len() > 24, "{whole:?}");
}

#[test]
fn layers_are_shared_out_by_size_and_none_is_left_unused() {
    let cases: &[(u64, u64, usize, (usize, usize))] = &[
        (1, 1, 3, (1, 1)),
        (1, 1, 9, (4, 4)),
        (3, 1, 9, (6, 2)),
        (1, 1000, 9, (1, 7)),
        (1000, 1, 9, (7, 1)),
        (1000, 1, 12, (8, 3)),
        (1, 1000, 12, (3, 8)),
        (0, 0, 9, (1, 7)),
        (1, 1, 100, (8, 8)),
    ];
    for &(root_size, store_size, max, expected) in cases {
        let mut fixture = many();
        fixture.root.iter_mut().for_each(|package| package.nar_size = root_size);
        fixture
            .members
            .iter_mut()
            .for_each(|member| member.nar_size = store_size);
        fixture.spec.layers.max = Some(limit(max));
        fixture.spec.layers.strategy = Some(spanned(LayerStrategy::Biggest));
        let plan = made(&fixture);
        let at_root = plan
            .layers
            .iter()
            .filter(|layer| layer.paths[0].rfind('/') == Some(0))
            .count();
        assert_eq!(
            (at_root, plan.layers.len() - at_root),
            expected,
            "{root_size} {store_size} {max}"
        );
    }
}

#[test]
fn a_given_plan_is_used_as_it_is() {
    let mut fixture = many();
    let mut given = made(&fixture);
    let all: Vec<String> = given.layers.iter().flat_map(|layer| layer.paths.clone()).collect();
    given.layers.truncate(1);
    given.layers[0].paths = all.clone();
    let recipe = Recipe {
        plan: Some(given.clone()),
        ..fixture.recipe()
    };
    let image = assemble(&recipe, &Resources::default(), &Silent).unwrap();
    assert_eq!(image.layers.len(), 3, "packages and store paths share no layer");
    let paths = image.layers[1].descriptor.annotation(STORE_PATHS_ANNOTATION).unwrap();
    assert_eq!(paths.split(' ').count(), 8);
    assert_eq!(
        comments(&image)[0],
        "deb0 1.0-1, deb1 1.0-1, deb2 1.0-1, deb3 1.0-1 and 4 more"
    );
    let refused = |given: LayerPlan| {
        let recipe = Recipe {
            plan: Some(given),
            ..fixture.recipe()
        };
        let error = assemble(&recipe, &Resources::default(), &Silent).unwrap_err();
        std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string)
    };
    let mut short = given.clone();
    short.layers[0].paths.retain(|path| !path.ends_with("lib3-1.0"));
    assert_eq!(
        fixture.short(&refused(short)),
        "no layer of the plan contains `{lib3-1.0}`"
    );
    let mut foreign = given.clone();
    foreign.layers[0].paths.push("/nowhere".to_owned());
    assert_eq!(
        refused(foreign),
        "the plan lists `/nowhere`, which is not in the closure"
    );
    let spread = |count: usize| {
        let mut spread = given.clone();
        let layer = spread.layers.remove(0);
        for path in layer.paths.into_iter().take(count) {
            let mut alone = given.layers[0].clone();
            alone.paths = vec![path];
            spread.layers.push(alone);
        }
        spread
    };
    let recipe = Recipe {
        plan: Some(spread(16)),
        ..fixture.recipe()
    };
    assert_eq!(plan(&recipe).unwrap().layers.len(), 16);
    for index in 0..120 {
        fixture.member(&format!("more{index}-1.0"), &[("x", "")], &[]);
    }
    let mut too_many = spread(16);
    for member in &fixture.members[8..] {
        let mut alone = given.layers[0].clone();
        alone.paths = vec![member.logical.to_string()];
        too_many.layers.push(alone);
    }
    let recipe = Recipe {
        plan: Some(too_many),
        ..fixture.recipe()
    };
    let error = assemble(&recipe, &Resources::default(), &Silent).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the layer plan makes 137 layers with that of the other files, and Docker loads no more than 125"
    );
}

#[test]
fn groups_and_weights_may_name_both_parts() {
    let mut fixture = many();
    fixture.spec.layers.groups = vec![["deb1", "lib2", "lib5", "deb4"].map(str::to_owned).to_vec()];
    fixture.spec.layers.weights = BTreeMap::from([("deb0".to_owned(), 1), ("lib0".to_owned(), 2)]);
    let names = names(&made(&fixture));
    assert!(
        names.contains(&vec!["deb1-1.0-1".to_owned(), "deb4-1.0-1".to_owned()]),
        "{names:?}"
    );
    assert!(
        names.contains(&vec!["lib2-1.0".to_owned(), "lib5-1.0".to_owned()]),
        "{names:?}"
    );
    fixture.spec.layers.groups = vec![vec!["lib22".to_owned()]];
    let error = fixture.assemble().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(
        (error.to_string().as_str(), source.as_str()),
        (
            "cannot plan the image's layers",
            "`lib22` is not a package of the closure"
        )
    );
    assert_eq!(error.help().unwrap(), "did you mean `lib2`?");
}

#[test]
fn a_change_moves_its_own_layers_only() {
    let mut fixture = many();
    fixture.spec.layers.max = Some(limit(9));
    let before = fixture.assemble().unwrap();
    let previous = made(&fixture);
    // The first of the chain stays what it is; the last store path and one package are made anew.
    fixture.members.pop();
    fixture.contents.clear();
    fixture.member("lib7-1.1", &[("lib/7", "new")], &["lib6-1.0"]);
    fixture.root.remove(3);
    fixture.package("deb3", &[("usr/share/3", "new")]);
    let recipe = Recipe {
        previous: Some(previous),
        ..fixture.recipe()
    };
    let after = assemble(&recipe, &Resources::default(), &Silent).unwrap();
    assert!(after.layers.len() <= 9);
    let digests: BTreeSet<_> = before.layers.iter().map(|layer| layer.digest()).collect();
    let kept = after
        .layers
        .iter()
        .filter(|layer| digests.contains(&layer.digest()))
        .count();
    // The layer of the changed package, that of the changed path, and that of the links are new.
    assert!(kept + 3 >= after.layers.len(), "{kept} of {}", after.layers.len());
}

#[test]
fn a_package_that_brings_nothing_new_has_no_layer() {
    let mut fixture = Fixture::new();
    fixture.package("one", &[("usr/share/x", "1")]);
    fixture.package("two", &[("usr/share/x", "1")]);
    assert_eq!(
        comments(&fixture.assemble().unwrap()),
        ["one 1.0-1", "links, files and accounts"]
    );
}

/// The recipe of an image with some of the fixture's packages and store paths.
fn part(fixture: &Fixture, packages: usize, members: usize) -> Recipe {
    let mut recipe = fixture.recipe();
    recipe.root.truncate(packages);
    recipe.closure.truncate(members);
    recipe
}

#[test]
fn images_share_layers_of_packages_and_of_store_paths() {
    let mut fixture = many();
    fixture.spec.layers.max = Some(limit(7));
    let requests = [part(&fixture, 8, 5), part(&fixture, 4, 8)];
    let fleet = plan_fleet(&requests).unwrap();
    for (planned, recipe) in fleet.plans.iter().zip(&requests) {
        assert!(
            planned.layers.len() <= 6,
            "one more is for links: {}",
            planned.layers.len()
        );
        let given = Recipe {
            plan: Some(planned.clone()),
            ..part(&fixture, recipe.root.len(), recipe.closure.len())
        };
        assert_eq!(
            plan(&given).unwrap().layers,
            planned.layers,
            "it is a plan of the image"
        );
    }
    let [one, two] = &fleet.plans[..] else { panic!() };
    let shared = |at_root: bool| {
        let layers = one.layers.iter().filter(|layer| two.layers.contains(layer));
        layers
            .filter(|layer| (layer.paths[0].rfind('/') == Some(0)) == at_root)
            .count()
    };
    assert!(
        shared(true) > 0 && shared(false) > 0,
        "{:?} {:?}",
        names(one),
        names(two)
    );
    assert!(fleet.together.push < fleet.apart.push);
    // One whose plan is given keeps it.
    let given = made(&fixture);
    let keeps = Recipe {
        plan: Some(given.clone()),
        ..fixture.recipe()
    };
    let fleet = plan_fleet(&[keeps, part(&fixture, 4, 8)]).unwrap();
    assert_eq!(fleet.plans[0], given);
}

#[test]
fn packages_are_explained_and_planned_anew_as_store_paths_are() {
    let mut fixture = many();
    fixture.spec.layers.max = Some(limit(6));
    fixture.spec.layers.strategy = Some(spanned(LayerStrategy::Single));
    let coarse = made(&fixture);
    fixture.spec.layers.strategy = None;
    let recipe = fixture.recipe();
    assert!(!fits(&recipe, &coarse).unwrap(), "a plan by another strategy");
    let coarse = LayerPlan {
        strategy: "churn".to_owned(),
        ..coarse
    };
    assert!(fits(&recipe, &coarse).unwrap());
    let advice = replan(&recipe, &coarse).unwrap().unwrap();
    assert!(advice.bytes_now > 0 && advice.saved_per_release > 0);
    for name in ["deb3", "lib3"] {
        let told = explain(&recipe, &coarse, name).unwrap();
        assert!(told.path.contains(name) && told.together_with.len() == 7);
    }
    let error = explain(&recipe, &coarse, "deb33").unwrap_err();
    let help = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
    assert!(help.contains("`deb33`"), "{help}");
    let mut short = coarse.clone();
    short.layers.pop();
    assert!(!fits(&recipe, &short).unwrap());
    fixture.spec.layers.groups = vec![vec!["lib3".to_owned(), "lib5".to_owned()]];
    assert!(!fits(&fixture.recipe(), &coarse).unwrap(), "groups that were not there");
    assert!(fits(&fixture.recipe(), &made(&fixture)).unwrap());
    fixture.spec.layers.groups = vec![vec!["lib33".to_owned()]];
    assert!(fits(&fixture.recipe(), &coarse).is_err());
    fixture.spec.layers.groups.clear();
    fixture.spec.layers.max = Some(limit(2));
    assert!(fits(&fixture.recipe(), &coarse).is_err(), "no plan fits so few layers");
}

#[test]
fn more_layers_than_docker_loads_are_asked_for_by_name() {
    let mut fixture = many();
    fixture.spec.layers.max = Some(limit(126));
    let error = plan(&fixture.recipe()).unwrap_err();
    assert!(matches!(error, ImageError::LayersMax { max: 126, .. }));
    fixture.spec.layers.beyond_docker = true;
    assert_eq!(made(&fixture).layers.len(), 16);
}
