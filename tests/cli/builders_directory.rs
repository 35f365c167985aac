//! Builders whose workers only change to the directory of what they are sent: our helper travels along, makes the walls there
//! and says which.

use std::fs;

use crate::builders::{build, can_run, is_clean, project, small, walls};
use crate::farm::{Answer, Farm, Job, Rules, Worker};
use crate::support::{Place, Ran, is_root, skipped};

/// A farm of such workers.
fn farm_of(worker: Worker) -> Farm {
    Farm::start(Rules {
        answers: Box::new(move |job| job.run_in_directory(worker)),
        ..Rules::default()
    })
}

/// Builds at a farm of which the configuration says who makes roots there.
fn build_with(place: &Place, farm: &Farm, root: &str, flags: &[&str]) -> Ran {
    let config = place.path().join("config/layerize");
    fs::create_dir_all(&config).unwrap();
    let text = format!("[builders.mine]\naddress = \"{}\"\nroot = \"{root}\"\n", farm.address());
    fs::write(config.join("config.toml"), text).unwrap();
    place.run(&[&["build", "thing", "--builder", "mine"], flags].concat())
}

#[test]
fn a_worker_that_only_changes_its_directory_makes_what_is_made_here() {
    if !can_run() {
        return;
    }
    let here = project(false);
    let line = here.run(&["build", "thing"]).success().line().to_owned();
    let farm = farm_of(Worker::Plain);
    let there = here.elsewhere();
    there.lock_base();
    // Nobody said what it is like: the first step tells.
    let ran = build(&there, &farm, &[]).success();
    assert_eq!(ran.line(), line, "{}", ran.stderr);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("layerize: in the root"), "{}", ran.stderr);
    assert_eq!(farm.state.counted("execute"), 3);
    assert_eq!(walls(&there, "-thing"), "namespaces");
    assert_eq!(walls(&there, "-user"), "namespaces");
    there.run(&["store", "verify"]).success();

    // What somebody said saves the try. The farm remembers, and strong walls may be required.
    let third = here.elsewhere();
    third.lock_base();
    let ran = build_with(&third, &farm, "helper", &["--require-sandbox", "namespaces"]).success();
    assert_eq!(ran.line(), line);
    assert_eq!(farm.state.counted("execute"), 3);
    assert_eq!(walls(&third, "-thing"), "namespaces");

    // A script that fails is told as one that fails here.
    let place = Place::with_script("echo so far >&2; false; echo never");
    build_with(&place, &farm, "helper", &[])
        .exits(2)
        .says(&["so far", "`false` (line 1 of its script) failed with exit status 1"]);
    is_clean(&place, "a script that failed");

    // Where that was said, nothing is tried.
    let place = small();
    build_with(&place, &farm, "worker", &[])
        .exits(2)
        .says(&["does not make what it is sent the root", "`root`"]);
    is_clean(&place, "no helper");
}

#[test]
fn the_walls_are_those_that_the_worker_has() {
    if !can_run() {
        return;
    }
    if !is_root() {
        return skipped("workers that are root without namespaces");
    }
    let here = small();
    let line = here.run(&["build", "thing"]).success().line().to_owned();
    let chrooted = farm_of(Worker::WithoutNamespaces);
    let there = here.elsewhere();
    there.lock_base();
    build_with(&there, &chrooted, "helper", &["--require-sandbox", "namespaces"])
        .exits(2)
        .says(&["`namespaces` is required", "the helper could make `chroot`", "help: "]);
    is_clean(&there, "weak walls");
    let ran = build_with(&there, &chrooted, "helper", &["--require-sandbox", "chroot"]).success();
    assert_eq!(ran.line(), line, "{}", ran.stderr);
    assert_eq!(walls(&there, "-thing"), "chroot");

    let open = farm_of(Worker::WithoutWalls);
    let place = small();
    build_with(&place, &open, "helper", &[]).exits(2).says(&[
        "have no walls for what they run: `namespaces`: ",
        "cannot create a user namespace",
        "`chroot`: ",
        "help: ",
    ]);
    is_clean(&place, "no walls");
    let ran = build_with(&place, &open, "helper", &["--builder-fallback"]).success();
    assert!(ran.stderr.contains("is built here instead"), "{}", ran.stderr);
}

/// Only a helper that was sent makes walls, and only what a helper makes is believed of it.
#[test]
fn walls_that_no_helper_made_are_not_believed() {
    let greeting = |text: &'static str| {
        Farm::start(Rules::answering(move |job: &Job| {
            let Answer::Result(mut result) = job.made() else {
                unreachable!()
            };
            result.stdout_raw = text.as_bytes().to_vec();
            Answer::Result(result)
        }))
    };
    let boasting = greeting("layerize: in the root, behind namespaces, no network\n");
    let place = small();
    build(&place, &boasting, &[]).success();
    assert_eq!(walls(&place, "-thing"), "builder");
    // A helper's network is its own.
    let open = greeting("layerize: in the root, behind namespaces, network\n");
    let place = small();
    build_with(&place, &open, "helper", &["--require-sandbox", "builder"])
        .exits(2)
        .says(&["has a network"]);
    build_with(&place, &open, "helper", &[])
        .success()
        .says(&["warning: scripts at `grpc://"]);
    assert_eq!(walls(&place, "-thing"), "none");
    // What stands where the root does not is not what was asked for.
    let beside = Farm::start(Rules::answering(|job: &Job| {
        let Answer::Result(mut result) = job.made() else {
            unreachable!()
        };
        result.output_directories[0].path = result.output_directories[0].path.replacen("root/", "", 1);
        Answer::Result(result)
    }));
    let place = small();
    build_with(&place, &beside, "helper", &[])
        .exits(2)
        .says(&["which nobody asked for"]);
    is_clean(&place, "another place");
}
