//! Documents and bundles in a registry, and what is beside them.

use super::*;

/// A registry on a port of its own, stopped at the end.
struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    fn start(place: &Place) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let root = place.path().join("registry");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            root.display()
        );
        place.write("registry.yml", &config);
        let process = Command::new("docker-registry")
            .args(["serve", "registry.yml"])
            .current_dir(&place.project)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { process, address };
        for _ in 0..200 {
            if TcpStream::connect(&registry.address).is_ok() {
                return registry;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the registry did not start");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn documents_and_signatures_lie_in_a_registry_too() {
    if !have("docker-registry", &["--version"]) {
        return;
    }
    let place = with_files();
    let registry = Registry::start(&place);
    let name = format!("docker://{}/team/app:v1", registry.address);
    let plain = ["--plain-http", registry.address.as_str()];
    let run = |args: &[&str]| place.run(&[args, &plain[..]].concat());
    let built = run(&[
        "build",
        "-o",
        &name,
        "--sbom",
        "spdx",
        "--provenance",
        "--attach",
        "--beside",
    ])
    .success();
    assert_eq!(built.stdout.lines().count(), 3, "{}", built.stdout);
    run(&["key", "generate", "own"]).success();
    run(&["key", "generate", "stranger"]).success();
    run(&["verify-signature", &name, "--key", "own.pub"]).exits(1);
    run(&["sign", &name, "--key", "own.key"]).success();
    run(&["sign", &name, "--key", "own.key", "--predicate", "app.provenance.json"]).success();
    run(&["verify-signature", &name, "--key", "own.pub"]).success();
    run(&["verify-signature", &name, "--key", "own.pub", "--type", "provenance"]).success();
    run(&["rebuild", &name, "--attest", "--key", "own.key"]).success();
    let summed = run(&["verify-signature", &name, "--key", "own.pub", "--type", "vsa"]).success();
    assert!(
        summed.line().contains("https://slsa.dev/verification_summary/v1"),
        "{}",
        summed.stdout
    );
    let refused = run(&["verify-signature", &name, "--key", "stranger.pub"]).exits(1);
    assert!(refused.stdout.contains("signed by another key"), "{}", refused.stdout);
    let inspected = parsed(run(&["inspect", "--json", &name]).success().stdout);
    assert_eq!(inspected["digest"], digest_of(built.stdout.lines().next().unwrap()));
    // What others attach hides no signature here either.
    for (reason, document) in foreign_bundles() {
        if document.is_empty() {
            continue;
        }
        fs::write(place.project.join("foreign.json"), document).unwrap();
        run(&["attach", &name, "foreign.json", "--type", BUNDLE_TYPE]).success();
        let refused = run(&["verify-signature", &name, "--key", "stranger.pub"]).exits(1);
        assert!(
            refused.stdout.contains(reason),
            "`{reason}` is missing in {}",
            refused.stdout
        );
        run(&["verify-signature", &name, "--key", "own.pub"]).success();
    }
    if have("skopeo", &["--version"]) {
        let copy = [
            "copy",
            "--insecure-policy",
            "--src-tls-verify=false",
            &name,
            "oci:copied:v1",
        ];
        peer(Command::new("skopeo").args(copy).current_dir(&place.project));
    }
}

/// What stands where a bundle is expected, without vouching for anything.
fn foreign_bundles() -> Vec<(&'static str, Vec<u8>)> {
    let material = json!({ "publicKey": { "hint": "bm9ib2R5" } });
    let envelope = json!({ "payload": "e30=", "payloadType": "application/vnd.in-toto+json",
        "signatures": [{ "sig": "AAAA" }] });
    let bundle = |material: &Value, envelope: &Value| {
        let bundle = json!({ "mediaType": BUNDLE_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope });
        bundle.to_string().into_bytes()
    };
    let certificate = json!({ "certificate": { "rawBytes": "AAAA" } });
    vec![
        ("it is not a bundle that can be checked", b"no JSON".to_vec()),
        ("it is not a bundle that can be checked", Vec::new()),
        ("missing field", b"{}".to_vec()),
        ("signed by another key: bm9ib2R5", bundle(&material, &envelope)),
        ("with a certificate", bundle(&certificate, &envelope)),
        ("no DSSE envelope", bundle(&material, &Value::Null)),
        (
            "it is not a bundle that can be checked",
            "[".repeat(100_000).into_bytes(),
        ),
    ]
}

/// An artifact of an image that holds `document`, whatever it is called.
fn artifact_of(image: &str, size: usize, document: Vec<u8>) -> Artifact {
    let subject = Subject {
        media_type: MediaType::MANIFEST.to_owned(),
        digest: image.parse().unwrap(),
        size: size as u64,
    };
    Artifact::new(
        subject,
        BUNDLE_TYPE,
        std::collections::BTreeMap::new(),
        document,
        "bundle",
    )
}

/// One broken or foreign bundle, nine hundred of them, or one of 60 MB used to hide the valid one behind them. Each is
/// read, checked and dropped, and what was rejected is listed.
#[test]
fn no_bundle_hides_another_whatever_its_size_number_or_damage() {
    let place = with_files();
    let built = place.run(&["build", "-q", "-o", "oci:layout:v1"]).success();
    place.run(&["key", "generate", "own"]).success();
    place.run(&["key", "generate", "stranger"]).success();
    let image = digest_of(built.line()).to_owned();
    let layout = Crafted::at(&place.project.join("layout"));
    let size = fs::metadata(layout.blob(&image.parse().unwrap())).unwrap().len() as usize;
    let mut entries: Vec<Value> = (0..900)
        .map(|number| layout.artifact(&artifact_of(&image, size, format!("bundle {number}").into_bytes())))
        .collect();
    let foreign = foreign_bundles();
    entries.extend(
        foreign
            .iter()
            .map(|(_, document)| layout.artifact(&artifact_of(&image, size, document.clone()))),
    );
    // 60 MB of what takes the most memory as a value, of a payload, and more than is read at all.
    let zeros = "0,".repeat(30 << 20);
    let wide = format!(r#"{{"mediaType":"{BUNDLE_TYPE}","verificationMaterial":{{"x":[{zeros}0]}}}}"#);
    entries.push(layout.artifact(&artifact_of(&image, size, wide.into_bytes())));
    let payload = "A".repeat(60 << 20);
    let heavy = format!(
        r#"{{"mediaType":"{BUNDLE_TYPE}","verificationMaterial":{{}},"dsseEnvelope":{{"payload":"{payload}","payloadType":"application/vnd.in-toto+json","signatures":[{{"sig":"AAAA"}}]}}}}"#
    );
    drop((zeros, payload));
    entries.push(layout.artifact(&artifact_of(&image, size, heavy.into_bytes())));
    let (gone, damaged) = (
        artifact_of(&image, size, b"gone".to_vec()),
        artifact_of(&image, size, b"damaged".to_vec()),
    );
    for artifact in [&gone, &damaged] {
        entries.push(layout.artifact(artifact));
    }
    fs::remove_file(layout.blob(&gone.blobs[1].0)).unwrap();
    fs::write(layout.blob(&damaged.digest), "{}").unwrap();
    let verify = |key: &str| place.run(&["verify-signature", "oci:layout:v1", "--key", key]);
    place
        .run(&["sign", "oci:layout:v1", "--key", "own.key", "-o", "own.json"])
        .success();
    // The valid one comes last, in the list under the image's fallback tag, behind an entry that cannot be read.
    let own = layout.artifact(&artifact_of(&image, size, read(&place, "own.json")));
    let broken = json!({ "mediaType": MediaType::MANIFEST, "digest": "sha256:short", "size": 1 });
    entries.extend([broken, own]);
    let list = json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": entries }).to_string();
    let tag = image.replace(':', "-");
    let list = json!({ "mediaType": MediaType::INDEX, "digest": layout.put(list.as_bytes()), "size": list.len(),
        "annotations": { "org.opencontainers.image.ref.name": tag } });
    layout.edit_index(|manifests| manifests.push(list));
    let refused = verify("stranger.pub").exits(1).stdout;
    let rejected = 900 + foreign.len() + 4;
    // Theirs, the valid one by another key, and that an entry could not be read.
    assert_eq!(refused.lines().count(), rejected + 2, "{refused}");
    for (reason, _) in &foreign {
        assert!(refused.contains(reason), "`{reason}` is missing in {refused}");
    }
    for reason in [
        "signature does not match",
        "it cannot be read: ",
        "1 entries of the list are not descriptors",
    ] {
        assert!(refused.contains(reason), "`{reason}` is missing in {refused}");
    }
    let vouched = verify("own.pub").success();
    assert!(vouched.line().ends_with(" own.pub"), "{}", vouched.stdout);
    assert_eq!(vouched.stderr.matches("rejected sha256:").count(), rejected);
    memory_is_bounded("verify-signature");
}

/// A bundle that was changed in its place is no longer the blob that its artifact names.
#[test]
fn an_attached_bundle_is_verified_before_it_is_read() {
    let place = with_files();
    place.run(&["build", "-q", "-o", "oci:layout:v1"]).success();
    place.run(&["key", "generate", "own"]).success();
    let signed = place.run(&["sign", "oci:layout:v1", "--key", "own.key"]).success();
    let artifact = format!("layout/blobs/sha256/{}", &digest_of(signed.line())[7..]);
    let artifact = parsed(read(&place, &artifact));
    let blob = artifact["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    let blob = place.project.join(format!("layout/blobs/{blob}"));
    let text = fs::read_to_string(&blob).unwrap().replace("\"sig\":\"", "\"sig\":\"A");
    fs::write(&blob, text).unwrap();
    let refused = place
        .run(&["verify-signature", "oci:layout:v1", "--key", "own.pub"])
        .exits(1);
    assert!(refused.stdout.contains("it cannot be read: "), "{}", refused.stdout);
}

#[test]
fn what_cannot_hold_documents_is_said_before_anything_is_built() {
    let place = with_files();
    for (args, texts) in [
        (&["build", "--attach"][..], &["nothing to attach", "--sbom spdx"][..]),
        (
            &["build", "--attach", "--sbom", "spdx"],
            &["NAME.tar cannot hold referrers", "oci:DIR"],
        ),
        (
            &["build", "--attach", "--provenance", "-o", "x.tar"],
            &["nothing can be attached", "x.tar"],
        ),
        (&["attach", "x.tar", "file"], &["nothing can be attached"]),
    ] {
        place.run(args).exits(2).says(texts);
    }
    assert!(!Path::new(&place.project.join("x.tar")).exists());
    place.run(&["build", "-q", "-o", "oci:layout:v1"]).success();
    place.write("note.txt", "a note");
    place
        .run(&["attach", "oci:layout:v1", "note.txt"])
        .exits(2)
        .says(&["its kind is not known", "--type"]);
    let attached = place
        .run(&["attach", "oci:layout:v1", "note.txt", "--type", "text/plain"])
        .success();
    assert!(
        attached.line().contains(" text/plain oci:layout:v1"),
        "{}",
        attached.stdout
    );
    place.run(&["inspect", "oci:layout"]).success();
}
