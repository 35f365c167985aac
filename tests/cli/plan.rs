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
    let layers = place.inspect_layers("oci:layout", "store_paths");
    assert_eq!(layers.len(), 2, "one of both paths, one of links: {layers:?}");
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
        let inspected = place.inspect(image);
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
    kept(&place, "");
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

/// A spec of two images that share two packages and keep their plans. Each alone would put its own package, the
/// smallest, with one of these.
fn kept(place: &Place, more: &str) {
    place
        .write("shared/s", &"s".repeat(50_000))
        .write("common/c", &"c".repeat(50_000))
        .write("one/o", &format!("1{more}"))
        .write("two/t", "2");
    place.write(
        "layerize.toml",
        "[package]\nshared = { source = \"shared\" }\ncommon = { source = \"common\" }\n\
         one = { source = \"one\" }\ntwo = { source = \"two\" }\n\
         [image.a]\ncontents = [\"shared\", \"common\", \"one\"]\nlayers = { max = 3, plan = \"a.plan.json\" }\n\
         [image.b]\ncontents = [\"shared\", \"common\", \"two\"]\nlayers = { max = 3, plan = \"b.plan.json\" }\n",
    );
}

#[test]
fn a_kept_plan_is_made_updated_and_committed() {
    let place = Place::new();
    kept(&place, "");
    let plan = || fs::read_to_string(place.project.join("a.plan.json")).unwrap();
    place.run(&["lock"]).success();
    place
        .run(&["build", "--locked", "a"])
        .exits(2)
        .says(&["`a.plan.json` is missing", "without `--locked`"]);
    let first = place.run(&["build", "a"]).success();
    assert!(
        first.stderr.contains("layer plan `a.plan.json` written"),
        "{}",
        first.stderr
    );
    let written = plan();
    let again = place.run(&["build", "--locked", "a"]).success();
    assert_eq!(
        (again.line(), plan()),
        (first.line(), written.clone()),
        "nothing changed"
    );
    assert!(!again.stderr.contains("layer plan"), "{}", again.stderr);
    place
        .run(&["build", "--locked", "a", "--provenance", "--beside"])
        .success();
    let provenance = fs::read_to_string(place.project.join("a.provenance.json")).unwrap();
    let digest = layerize::digest::Digest::of(written.as_bytes()).hex();
    assert!(provenance.contains("layer-plan") && provenance.contains(&digest));

    // What changed is planned anew, and remembered.
    kept(&place, " changed");
    place
        .run(&["build", "--locked", "a"])
        .exits(2)
        .says(&["`a.plan.json` was made for another closure"]);
    assert_eq!(plan(), written, "what is refused writes nothing");
    place.run(&["build", "a"]).success();
    let updated: serde_json::Value = serde_json::from_str(&plan()).unwrap();
    assert_eq!(
        updated["history"]["one"],
        serde_json::json!({ "changed": 1, "seen": 1 })
    );
    assert_eq!(
        updated["history"]["shared"],
        serde_json::json!({ "changed": 0, "seen": 1 })
    );

    // A plan by hand is used or refused, never written over; flags leave the kept plan alone.
    place.run(&["build", "a", "--strategy", "single"]).success();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&plan()).unwrap(), updated);
    let by_hand = "{\"layers\":[{\"paths\":[\"/layerize/store/x\"]}]}";
    place.write("a.plan.json", by_hand);
    place.run(&["build", "a"]).exits(2).says(&["/layerize/store/"]);
    assert_eq!(plan(), by_hand);
    place.write("a.plan.json", "{");
    place.run(&["build", "a"]).exits(2).says(&["a.plan.json"]);
    assert_eq!(plan(), "{");
}

#[test]
fn plans_made_together_are_kept_and_built() {
    let place = Place::new();
    kept(&place, "");
    let saved = place.run(&["plan", "--save", "a", "b"]).success();
    assert!(saved.stderr.contains("planned together"), "{}", saved.stderr);
    let layers = |image: &str| -> Vec<serde_json::Value> {
        place.run(&["build", "--locked", image]).success();
        place.inspect_layers(&format!("{image}.tar"), "digest")
    };
    let (a, b) = (layers("a"), layers("b"));
    assert!(a.iter().any(|layer| b.contains(layer)), "{a:?} {b:?}");
    // A plan that starts from elsewhere, within other limits, is kept too when that is asked for.
    place.run(&["plan", "--save", "a", "--max-layers", "2"]).success();
    let plan = fs::read_to_string(place.project.join("a.plan.json")).unwrap();
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["layers"].as_array().unwrap().len(), 1, "{plan}");
    place
        .run(&["plan", "a", "b", "--explain", "shared"])
        .exits(2)
        .says(&["one image"]);
    place.write(
        "layerize.toml",
        "[package.p]\nsource = \"one\"\n[image.i]\ncontents = [\"p\"]\n",
    );
    place
        .run(&["plan", "--save", "i"])
        .exits(2)
        .says(&["`i`", "i.plan.json"]);
}

#[test]
fn an_image_is_planned_with_what_earlier_releases_show() {
    let place = Place::new();
    let add = |name: &str, text: &str| {
        place.write(&format!("{name}/file-{name}"), text);
        place.run(&["store", "add", name]).success().line().to_owned()
    };
    let steady = ["a", "b", "c"].map(|name| add(name, name));
    fs::create_dir(place.project.join("history")).unwrap();
    let mut last = String::new();
    for release in 0..8 {
        last = add("d", &release.to_string());
        let paths: Vec<&String> = steady.iter().chain([&last]).collect();
        let plan = serde_json::json!({ "layers": [{ "paths": paths }] }).to_string();
        place.write(&format!("history/{release}.json"), &plan);
    }
    let plan = |more: &[&str]| -> Vec<usize> {
        let mut args = vec!["plan", "--json", "--name", "x", "--max-layers", "3"];
        args.extend(steady.iter().map(String::as_str));
        args.push(&last);
        args.extend(more);
        let printed = place.run(&args).success().stdout;
        let plan: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let layers = plan["layers"].as_array().unwrap().iter();
        let alone = |layer: &&serde_json::Value| layer["paths"] == serde_json::json!([last]);
        vec![plan["layers"].as_array().unwrap().len(), layers.filter(alone).count()]
    };
    assert_eq!(
        plan(&["--history", "history"]),
        [2, 1],
        "what always changed stands alone"
    );
}

#[test]
fn packages_at_the_root_are_told_by_the_image_before() {
    let place = Place::new();
    place.write(
        "layerize.toml",
        "[image.rooted]\nroot = [\"deb:gzip\"]\nconfigure = false\nlayers = { max = 3 }\n",
    );
    place
        .run(&["build", "--strategy", "biggest", "-o", "oci:one"])
        .success();
    let layers = |image: &str| place.inspect_layers(image, "digest");
    place
        .run(&["build", "--previous", "oci:one", "-o", "oci:two"])
        .success();
    assert_eq!(layers("oci:one"), layers("oci:two"), "what did not change stands");
    let told = place.run(&["plan", "--explain", "gzip"]).success().stdout;
    assert!(told.contains("gzip-") && told.contains("re-sends"), "{told}");
}
