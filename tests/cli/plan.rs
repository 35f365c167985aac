//! `layerize plan`: plans of graphs and images, plans given to a build, updates, questions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Place, peer};

fn releases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/layer/medium")
}

fn release(number: usize) -> String {
    releases().join(format!("v{number}.json")).to_str().unwrap().to_owned()
}

#[test]
fn a_plan_is_a_pure_function_of_the_graph() {
    let place = Place::new();
    let plan = |graph: &str, strategy: &str| {
        let args = [
            "plan",
            "--json",
            "--graph",
            graph,
            "--max-layers",
            "20",
            "--strategy",
            strategy,
        ];
        place.run(&args).success().stdout
    };
    let graph: serde_json::Value = serde_json::from_str(&fs::read_to_string(release(0)).unwrap()).unwrap();
    let mut nodes = graph["graph"].as_array().unwrap().clone();
    nodes.reverse();
    place.write("reversed.json", &serde_json::to_string_pretty(&nodes).unwrap());
    for strategy in ["churn", "size-first", "popularity", "biggest", "dominator", "single"] {
        let made = plan(&release(0), strategy);
        assert_eq!(made, plan("reversed.json", strategy), "{strategy}");
        let value: serde_json::Value = serde_json::from_str(&made).unwrap();
        let layers = value["layers"].as_array().unwrap();
        assert!(layers.len() <= 20, "{strategy}");
        let paths: usize = layers
            .iter()
            .map(|layer| layer["paths"].as_array().unwrap().len())
            .sum();
        assert_eq!(paths, nodes.len(), "{strategy}: every path exactly once");
    }
    place
        .run(&["plan", "--graph", &release(0), "--strategy", "chrun"])
        .exits(2)
        .says(&["`chrun`", "`churn`"]);
    place
        .run(&["plan", "--graph", &release(0), "--max-layers", "126"])
        .exits(2)
        .says(&["126", "125"]);
    place
        .run(&["plan", "--graph", "missing.json"])
        .exits(2)
        .says(&["missing.json"]);
}

#[test]
fn an_updated_plan_keeps_what_did_not_change() {
    let place = Place::new();
    let first = place
        .run(&["plan", "--json", "--graph", &release(0), "--max-layers", "20"])
        .success();
    place.write("plan.json", &first.stdout);
    let args = [
        "plan",
        "--json",
        "--graph",
        &release(1),
        "--max-layers",
        "20",
        "--previous",
        "plan.json",
    ];
    let second = place.run(&args).success().stdout;
    let layers = |plan: &str| -> Vec<serde_json::Value> {
        let plan: serde_json::Value = serde_json::from_str(plan).unwrap();
        plan["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["paths"].clone())
            .collect()
    };
    let (before, after) = (layers(&first.stdout), layers(&second));
    let kept = after.iter().filter(|layer| before.contains(layer)).count();
    assert!(kept >= before.len() / 2, "{kept} of {} layers stayed", before.len());
    assert!(second.contains("\"history\""), "what changed is remembered: {second}");
}

#[test]
fn a_simulation_compares_strategies_and_the_bound() {
    let place = Place::new();
    let releases = releases();
    let args = [
        "plan",
        "--json",
        "--simulate",
        releases.to_str().unwrap(),
        "--max-layers",
        "20",
    ];
    let lines = place.run(&args).success().stdout;
    let resent = |way: &str| -> u64 {
        let line = lines.lines().find(|line| line.contains(&format!("\"{way}\""))).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()["resent"]
            .as_u64()
            .unwrap()
    };
    let order = [
        "per-path bound",
        "churn --previous",
        "churn",
        "size-first",
        "popularity",
        "single",
    ];
    assert!(
        order.windows(2).all(|pair| resent(pair[0]) <= resent(pair[1])),
        "{lines}"
    );
}

#[test]
fn a_build_takes_a_plan_and_refuses_a_wrong_one() {
    let place = Place::new();
    place.write("a/file", "a").write("b/file-b", "b");
    let a = place.run(&["store", "add", "a"]).success().line().to_owned();
    let b = place.run(&["store", "add", "b"]).success().line().to_owned();
    let build = |plan: &str| {
        place.write("plan.json", plan);
        place.run(&[
            "build",
            &a,
            &b,
            "--name",
            "x",
            "--plan",
            "plan.json",
            "-o",
            "oci:layout",
        ])
    };
    let together = format!("{{\"layers\":[{{\"paths\":[{a:?},{b:?}]}}]}}");
    build(&together).success();
    let inspected = place.run(&["inspect", "--json", "oci:layout"]).success().stdout;
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(
        inspected["layers"].as_array().unwrap().len(),
        2,
        "one of both paths, one of links: {inspected}"
    );
    build(&format!("{{\"layers\":[{{\"paths\":[{a:?}]}}]}}"))
        .exits(2)
        .says(&[&b]);
    build(&format!("{{\"layers\":[{{\"paths\":[{a:?},{a:?},{b:?}]}}]}}"))
        .exits(2)
        .says(&[&a, "twice"]);
    build("{}").exits(2).says(&["plan.json"]);

    let explained = place
        .run(&["plan", &a, &b, "--name", "x", "--explain", &a])
        .success()
        .stdout;
    assert!(explained.contains(&a) && explained.contains("re-sends"), "{explained}");
}

#[test]
fn a_build_starts_from_the_image_before() {
    let place = Place::new();
    let add = |name: &str, text: &str| {
        place.write(&format!("{name}/file-{name}"), text);
        place.run(&["store", "add", name]).success().line().to_owned()
    };
    let names = ["a", "b", "c", "d"];
    let paths: Vec<String> = names.iter().map(|name| add(name, name)).collect();
    let layers = |image: &str| -> Vec<serde_json::Value> {
        let inspected = place.run(&["inspect", "--json", image]).success().stdout;
        let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        let layers = inspected["layers"].as_array().unwrap().iter();
        layers
            .filter(|layer| layer["store_paths"] != serde_json::json!([]))
            .map(|layer| layer["diff_id"].clone())
            .collect()
    };
    let build = |paths: &[String], more: &[&str]| {
        let mut args = vec!["build", "--name", "x"];
        args.extend(paths.iter().map(String::as_str));
        args.extend(more);
        place.run(&args).success()
    };
    // An odd partition that no strategy would make: only the image can tell the next build of it.
    place.write(
        "odd.json",
        &serde_json::json!({ "layers": [
            { "paths": [paths[0], paths[3]] }, { "paths": [paths[1], paths[2]] },
        ]})
        .to_string(),
    );
    build(&paths, &["--plan", "odd.json", "-o", "oci:one"]);
    let changed: Vec<String> = [&paths[..3], &[add("d", "changed")]].concat();
    build(&changed, &["--previous", "oci:one", "-o", "oci:two"]);
    let (before, after) = (layers("oci:one"), layers("oci:two"));
    assert_eq!(
        before.iter().filter(|layer| after.contains(layer)).count(),
        1,
        "{before:?} {after:?}"
    );
    place
        .run(&["build", &paths[0], "--name", "x", "--previous", "missing"])
        .exits(2)
        .says(&["`missing`"]);
}

#[test]
fn images_planned_together_share_layers() {
    let place = Place::new();
    place
        .write("shared/s", &"s".repeat(5000))
        .write("one/o", "1")
        .write("two/t", "2");
    place.write(
        "layerize.toml",
        "[package.shared]\nsource = \"shared\"\n[package.one]\nsource = \"one\"\n[package.two]\nsource = \"two\"\n\
         [image.a]\ncontents = [\"shared\", \"one\"]\n[image.b]\ncontents = [\"shared\", \"two\"]\n",
    );
    let planned = place.run(&["plan", "a", "b"]).success();
    assert!(planned.stderr.contains("planned together"), "{}", planned.stderr);
    assert!(
        planned.stdout.contains("a:") && planned.stdout.contains("b:"),
        "{}",
        planned.stdout
    );
}

#[test]
fn load_pipes_into_the_engine() {
    if !crate::support::have("docker", &["info"]) {
        return;
    }
    let place = Place::new();
    place
        .write("app.c", "#include <stdio.h>\nint main(void) { puts(\"loaded\"); }\n")
        .write("app/bin/.keep", "");
    peer(
        Command::new("gcc")
            .args(["-static", "-o", "app/bin/app", "app.c"])
            .current_dir(&place.project),
    );
    let path = place.run(&["store", "add", "app"]).success().line().to_owned();
    let name = format!("layerize-load-{}", std::process::id());
    let args = [
        "load",
        &path,
        "--engine",
        "docker",
        "--name",
        &name,
        "--entrypoint",
        "app",
    ];
    let loaded = place.run(&args).success();
    assert!(
        loaded.line().starts_with("sha256:") && loaded.line().contains(&name),
        "{}",
        loaded.stdout
    );
    let ran = peer(Command::new("docker").args(["run", "--rm", "--network", "none", &name]));
    assert_eq!(ran.stdout, "loaded\n");
    peer(Command::new("docker").args(["rmi", &name]));
}
