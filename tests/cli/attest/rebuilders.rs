//! Summaries of rebuilds, and thresholds of independent rebuilders.

use super::*;

/// A rebuilder with a key of its own and a copy of the project, but nothing of what was built in it.
fn rebuilder(project: &Place, name: &str) -> Place {
    let own = Place::new();
    for file in ["layerize.toml", "conf/app.conf"] {
        own.write(file, &String::from_utf8(read(project, file)).unwrap());
    }
    own.run(&["key", "generate", name]).success();
    for file in [format!("{name}.key"), format!("{name}.pub")] {
        fs::copy(own.project.join(&file), project.project.join(&file)).unwrap();
    }
    own
}

/// Two rebuild an image, each with a key of their own: a threshold of two is met. One who signed another digest, or the
/// same key twice, does not count.
#[test]
fn a_threshold_of_independent_rebuilders_is_met_or_told() {
    let place = with_files();
    place.run(&["build", "-q", "-o", "oci:layout:v1"]).success();
    place.run(&["key", "generate", "stranger"]).success();
    let image = format!("oci:{}:v1", place.project.join("layout").display());
    let rebuild = |who: &Place, key: &str, more: &[&str]| {
        who.run(&[&["rebuild", &image, "--attest", "--key", key][..], more].concat())
    };
    let verify =
        |more: &[&str]| place.run(&[&["verify-signature", "oci:layout:v1", "--type", "vsa"][..], more].concat());
    let both = ["--threshold", "2", "--key", "a.pub", "--key", "b.pub"];
    let (a, b) = (rebuilder(&place, "a"), rebuilder(&place, "b"));
    let none = verify(&both).exits(1);
    assert!(none.stdout.contains("no bundle is attached"), "{}", none.stdout);
    let attached = rebuild(&a, "a.key", &[]).success();
    assert!(
        attached.stdout.starts_with("same     image team/app sha256:"),
        "{}",
        attached.stdout
    );
    assert_eq!(attached.stdout.lines().count(), 2, "{}", attached.stdout);
    verify(&["--key", "a.pub"]).success();
    let one = verify(&both).exits(1);
    assert!(
        one.stdout.contains("1 of the 2 keys that are wanted vouch for it"),
        "{}",
        one.stdout
    );
    // A key that is given twice, under two names, is one key; and a key that signed twice is one rebuilder.
    fs::copy(place.project.join("a.pub"), place.project.join("again.pub")).unwrap();
    verify(&["--threshold", "2", "--key", "a.pub", "--key", "again.pub"])
        .exits(2)
        .says(&["cannot be met by 1 different keys", "--key FILE"]);
    std::thread::sleep(Duration::from_millis(1100));
    rebuild(&a, "a.key", &[]).success();
    verify(&both).exits(1);
    rebuild(&b, "b.key", &[]).success();
    let met = verify(&both).success();
    let vouched: Vec<&str> = met
        .stdout
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(vouched, ["a.pub", "b.pub"]);
    let told = parsed(verify(&[&both[..], &["--json"]].concat()).success().stdout);
    assert_eq!((&told["ok"], &told["threshold"]), (&Value::from(true), &Value::from(2)));
    assert_eq!(told["vouched"].as_object().unwrap().len(), 2);
    let few = verify(&["--threshold", "2", "--key", "a.pub", "--key", "stranger.pub"]).exits(1);
    assert!(few.stdout.contains("signed by another key"), "{}", few.stdout);
    assert!(few.stdout.contains("1 of the 2 keys"), "{}", few.stdout);
}

/// A rebuild that gives another digest signs nothing; a signature over another digest is told and counts for nobody.
#[test]
fn a_summary_is_made_of_the_same_digest_alone_and_counts_for_no_other() {
    let place = with_files();
    place.run(&["build", "-q", "-o", "oci:layout:v1"]).success();
    let (a, b) = (rebuilder(&place, "a"), rebuilder(&place, "b"));
    b.write("conf/app.conf", "other\n");
    let image = format!("oci:{}:v1", place.project.join("layout").display());
    let attest = |who: &Place, image: &str, key: &str, more: &[&str]| {
        who.run(&[&["rebuild", image, "--attest", "--key", key][..], more].concat())
    };
    let index = read(&place, "layout/index.json");
    let differs = attest(&b, &image, "b.key", &[]).exits(1);
    assert!(differs.stdout.starts_with("DIFFERS"), "{}", differs.stdout);
    attest(&b, &image, "b.key", &["-o", "b.json"]).exits(1);
    assert!(!b.project.join("b.json").exists(), "a rebuild that differs was signed");
    assert!(read(&place, "layout/index.json") == index, "something was attached");
    // What b does rebuild is another image; a signature over that one is not a vote for ours.
    b.run(&["build", "-q", "-o", "oci:own:v1"]).success();
    attest(&b, "oci:own:v1", "b.key", &["-o", "b.json"]).success();
    attest(&a, &image, "a.key", &["-o", "a.json"]).success();
    for name in ["a", "b"] {
        let owner = if name == "a" { &a } else { &b };
        let file = format!("{name}.json");
        fs::copy(owner.project.join(&file), place.project.join(&file)).unwrap();
    }
    let verify = |bundles: &[&str], threshold: &str| {
        let mut args = vec![
            "verify-signature",
            "oci:layout:v1",
            "--type",
            "vsa",
            "--threshold",
            threshold,
        ];
        args.extend(["--key", "a.pub", "--key", "b.pub"]);
        args.extend(bundles.iter().flat_map(|bundle| ["--bundle", bundle]));
        place.run(&args)
    };
    let refused = verify(&["b.json"], "1").exits(1);
    assert_eq!(refused.stdout, "b.json: it is about another image\n");
    let refused = verify(&["a.json", "b.json"], "2").exits(1);
    assert!(
        refused.stdout.contains("b.json: it is about another image"),
        "{}",
        refused.stdout
    );
    assert!(refused.stdout.contains("a.json a.pub\n"), "{}", refused.stdout);
    assert!(refused.stdout.contains("1 of the 2 keys"), "{}", refused.stdout);
    verify(&["b.json", "a.json"], "1")
        .success()
        .says(&["rejected b.json: it is about another image"]);
    let more = [
        "--bundle",
        "a.json",
        "--key",
        "a.pub",
        "--type",
        "vsa",
        "-o",
        "a.vsa.json",
    ];
    place
        .run(&[&["verify-signature", "oci:layout:v1"][..], &more].concat())
        .success();
    validate(&place, &["vsa=a.vsa.json", "dsse=a.json=a.pub"]);
    let statement = parsed(read(&place, "a.vsa.json"));
    assert_eq!(statement["predicate"]["verificationResult"], "PASSED");
    let spec = json!({ "sha256": Digest::of(&read(&place, "layerize.toml")).hex() });
    let from = &statement["predicate"]["https://layerize.dev/rebuild/v1"];
    assert_eq!(from["spec"], json!([{ "name": "layerize.toml", "digest": spec }]));
}

#[test]
fn what_keeps_a_summary_from_being_made_is_said_before_anything_is_built() {
    let place = with_files();
    place
        .run(&["build", "-q", "-o", "app.tar", "-o", "oci:layout:v1"])
        .success();
    place.run(&["key", "generate", "own"]).success();
    for (args, texts) in [
        (
            &["app.tar", "--attest", "--key", "own.key"][..],
            &["nothing can be attached", "-o FILE"][..],
        ),
        (&["app.tar", "--attest"], &["--key"]),
        (&["app.tar", "--key", "own.key"], &["--attest"]),
        (
            &["oci:layout:v1", "--attest", "--key", "own.pub"],
            &["it is a public key", "`.key`"],
        ),
        (&["oci:layout:v1", "--attest", "--key", "none.key"], &["none.key"]),
    ] {
        place.run(&[&["rebuild"][..], args].concat()).exits(2).says(texts);
    }
    place
        .run(&["rebuild", "app.tar", "--attest", "--key", "own.key", "-o", "own.json"])
        .success();
    let streamed = place
        .run(&["rebuild", "app.tar", "--attest", "--key", "own.key", "-o", "-"])
        .success();
    assert_eq!(
        parsed(&streamed.stdout)["mediaType"],
        "application/vnd.dev.sigstore.bundle.v0.3+json"
    );
    assert!(
        streamed.stderr.contains("same     image team/app"),
        "{}",
        streamed.stderr
    );
    place
        .run(&[
            "verify-signature",
            "app.tar",
            "--key",
            "own.pub",
            "--bundle",
            "own.json",
            "--policy",
            "x",
        ])
        .exits(2)
        .says(&["--type vsa"]);
}
