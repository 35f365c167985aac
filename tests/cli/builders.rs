//! Builders: scripts that run at a farm make what they make here, and what the farm is like is known.

use std::fs;

use layerize::sandbox::Sandbox;
use layerize::walls::Walls;
use serde_json::Value;
use tonic::{Code, Status};

use crate::farm::{Answer, Farm, Job, Rules};
use crate::support::{LAYERIZE, Place, Ran, script_spec, skipped};

/// Makes what differs where the surroundings do: modes, times, links, limits, what is in the store and what is not.
const SCRIPT: &str = r#"
mkdir -p $out/bin $out/share/empty
stat -c '%n %A %U %G %Y' . run.sh docs docs/a docs/a/text >$out/share/source
{ id -u; id -g; umask; ulimit -c; ulimit -n; pwd; echo "$0 $PATH $HOME $TMPDIR $PWD"; } >$out/share/who
env | sort >$out/share/variables
printf '#!/bin/sh\necho hello\n' >$out/bin/hello
chmod 700 $out/bin/hello
ln -s ../bin/hello $out/share/relative
ln -s $out/bin/hello $out/share/absolute
ln -s /etc/passwd $out/share/outside
cp -R /build/source/docs $out/share/docs
echo changed >>/build/source/run.sh
echo "to standard error" >&2
head -c 3000000 /dev/zero | tr '\0' x >$out/share/large
"#;

/// A project of two packages, of which one needs the other; its source may be deep.
pub fn project(is_deep: bool) -> Place {
    let place = Place::new();
    if is_deep {
        place.write(&format!("source/docs/{}file", "d/".repeat(900)), "deep\n");
    }
    place
        .write("source/docs/a/text", "text\n")
        .write("source/run.sh", "echo run\n");
    let spec = format!(
        "[package.thing]\nsource = \"source\"\nscript = '''\n{SCRIPT}'''\n\n\
         [package.user]\nruntime = [\"thing\"]\n\
         script = \"mkdir $out; $package_thing/bin/hello | tee $out/f; head -c 5 $package_thing/share/large >>$out/f\"\n\n\
         [image.thing]\ncontents = [\"user\"]\n"
    );
    place.write("layerize.toml", &spec);
    place.lock_base();
    place
}

/// A small package and no source.
pub fn small() -> Place {
    Place::with_script("mkdir $out; echo made >$out/made")
}

/// Has that package built anew: its script is another one that makes the same.
pub fn renew(place: &Place, number: usize) {
    let spec = script_spec(&format!("mkdir $out; echo made >$out/made # {number}"));
    place.write("layerize.toml", &spec);
}

/// Builds the image of a place at a farm.
pub fn build(place: &Place, farm: &Farm, flags: &[&str]) -> Ran {
    let address = farm.address();
    place.run(&[&["build", "thing", "--builder", &address], flags].concat())
}

/// What the store says of the only path whose name ends so; `None` where there is none.
pub fn info(place: &Place, name: &str) -> Option<Value> {
    let names = layerize::fsio::sorted_names(&place.store().join("store")).unwrap();
    let name = names.iter().find(|path| path.to_string_lossy().ends_with(name))?;
    let path = format!("/layerize/store/{}", name.to_string_lossy());
    let ran = place.run(&["store", "info", "--json", &path]).success();
    let read: Value = serde_json::from_str(&ran.stdout).unwrap();
    Some(read.as_array().map_or(read.clone(), |all| all[0].clone()))
}

/// The walls of that path.
pub fn walls(place: &Place, name: &str) -> String {
    let info = info(place, name).unwrap();
    info["walls"].as_str().unwrap().to_owned()
}

/// Asserts that nothing was built, and that nothing is left of the try.
#[track_caller]
pub fn is_clean(place: &Place, what: &str) {
    let names = layerize::fsio::sorted_names(&place.store().join("store")).unwrap();
    let made: Vec<_> = names
        .iter()
        .filter(|name| name.to_string_lossy().ends_with("-thing"))
        .collect();
    assert!(made.is_empty(), "{what}: {made:?}");
    let staged = layerize::fsio::sorted_names(&place.store().join("tmp")).unwrap();
    assert!(staged.is_empty(), "{what}: {staged:?}");
}

/// Whether our sandbox can be had here, in which the farm runs actions.
pub fn can_run() -> bool {
    let staging = tempfile::tempdir().unwrap();
    let can = Sandbox::try_walls(Walls::Namespaces, Some(LAYERIZE.as_ref()), staging.path());
    if let Err(error) = &can {
        skipped(&format!(
            "builders that run actions: there are no namespaces here: {error}"
        ));
    }
    can.is_ok()
}

#[test]
fn what_is_built_there_is_what_is_built_here() {
    if !can_run() {
        return;
    }
    let here = project(true);
    let line = here.run(&["build", "thing"]).success().line().to_owned();
    let farm = Farm::start(Rules::default());
    let there = here.elsewhere();
    there.lock_base();
    let ran = build(&there, &farm, &[]).success();
    assert_eq!(ran.line(), line);
    assert!(ran.stderr.contains("at grpc://127.0.0.1"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("layerize: in the root"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    assert_eq!(farm.state.counted("execute"), 2);
    assert_eq!(walls(&there, "-thing"), "builder");
    assert_eq!(walls(&there, "-user"), "builder");
    there.run(&["store", "verify"]).success();
    let log = there.run(&["explain", "thing", "/layerize"]);
    assert!(log.status <= 2);

    // The next machine takes what the farm remembers, and sends nothing.
    let sent = farm.state.counted("blobs sent");
    let third = here.elsewhere();
    third.lock_base();
    assert_eq!(build(&third, &farm, &[]).success().line(), line);
    assert_eq!(farm.state.counted("execute"), 2);
    assert_eq!(farm.state.counted("cache hit"), 2);
    assert_eq!(farm.state.counted("blobs sent"), sent);
    assert_eq!(walls(&third, "-thing"), "builder");
}

#[test]
fn a_script_that_fails_or_leaves_more_says_so_as_it_does_here() {
    if !can_run() {
        return;
    }
    let farm = Farm::start(Rules::default());
    let place = small();
    for (script, said) in [
        (
            "echo before\nfalse # comment\necho after",
            &["before", "line 2", "false"][..],
        ),
        ("echo x >$out; echo y >/layerize/store/other", &["other"]),
        ("true", &["$out"]),
        ("exit 7", &["7"]),
    ] {
        place.write("layerize.toml", &script_spec(script));
        let here = place.run(&["build", "thing"]).exits(2);
        let there = build(&place, &farm, &[]).exits(2).says(said);
        // But for where it ran and where the log is.
        let told = |ran: &Ran| {
            let lines = ran
                .stderr
                .lines()
                .filter(|line| line.contains("error") || line.contains("help"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(told(&here), told(&there), "{script}");
        is_clean(&place, script);
    }
    let spec = "[package.thing]\ntimeout = \"1s\"\nscript = \"sleep 20\"\n\n[image.thing]\ncontents = [\"thing\"]\n";
    place.write("layerize.toml", spec);
    build(&place, &farm, &[]).exits(2).says(&["1 s"]);
    is_clean(&place, "a timeout");
}

#[test]
fn what_a_worker_is_like_is_known_and_can_be_refused() {
    let greeting = |text: &'static str| {
        Farm::start(Rules::answering(move |job: &Job| {
            let Answer::Result(mut result) = job.made() else {
                unreachable!()
            };
            result.stdout_raw = text.as_bytes().to_vec();
            Answer::Result(result)
        }))
    };
    let walled = greeting("layerize: in the root, no network\n");
    let place = small();
    build(&place, &walled, &["--require-sandbox", "namespaces"])
        .exits(2)
        .says(&["scripts are to run behind `builder`, and something requires `namespaces`"]);
    build(&place, &walled, &["--require-sandbox", "chroot"])
        .exits(2)
        .says(&["requires `chroot`"]);
    assert_eq!(walled.state.counted("execute"), 0);
    is_clean(&place, "required walls");
    let line = build(&place, &walled, &["--require-sandbox", "builder"])
        .success()
        .line()
        .to_owned();
    assert_eq!(walls(&place, "-thing"), "builder");

    for (text, said) in [
        ("layerize: in the root, network\n", "has a network"),
        ("layerize: in the root, network unknown\n", "shows no `/proc`"),
    ] {
        let open = greeting(text);
        let place = small();
        build(&place, &open, &["--require-sandbox", "builder"]).exits(2).says(&[
            "`builder` is required",
            said,
            "help: ",
        ]);
        is_clean(&place, text);
        let ran = build(&place, &open, &[])
            .success()
            .says(&["warning: scripts at `grpc://", said]);
        assert_eq!(ran.line(), line);
        assert_eq!(walls(&place, "-thing"), "none");
    }
    let rootless = greeting("sh: /usr/libexec/layerize/remote: not found\n");
    renew(&place, 1);
    build(&place, &rootless, &[])
        .exits(2)
        .says(&["does not make what it is sent the root", "layerize help builders"]);

    // No sandbox of this machine is a builder.
    place
        .run(&["build", "--sandbox", "builder"])
        .exits(2)
        .says(&["no sandbox of this machine", "--builder"]);
}

#[test]
fn shared_caches_say_that_a_builder_made_it_and_who_takes_that() {
    let farm = Farm::start(Rules::answering(Job::made));
    let place = small();
    let keys = place.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let made = place
        .run(&["store", "key", "generate", "ci-1", "--dir", keys.to_str().unwrap()])
        .success();
    let (public, secret) = (made.line().to_owned(), keys.join("ci-1.secret"));
    let cache = format!("file://{}", place.path().join("cache-of-all").display());
    let flags = ["--cache-to", &cache, "--cache-sign-key", secret.to_str().unwrap()];
    let line = build(&place, &farm, &flags).success().line().to_owned();

    let taken = ["--cache-from", &cache, "--cache-trusted-key", &public];
    // Who has no builder says that those of builders will do.
    let other = place.elsewhere();
    other.lock_base();
    let refused = other
        .run(&[&["build", "thing", "--locked"][..], &taken].concat())
        .success();
    assert_eq!(refused.line(), line);
    let said = "it was built behind `builder`, which is less than `traced`: `[build] require = \"builder\"` takes it";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
    assert_ne!(walls(&other, "-thing"), "builder");
    // Nor where the builder is layerize elsewhere, which knows its walls; here nobody answers.
    let peer = place.elsewhere();
    peer.lock_base();
    let elsewhere = ["--builder", "ssh://127.0.0.1:1"];
    peer.run(&[&["build", "thing", "--locked"][..], &taken, &elsewhere].concat())
        .exits(2)
        .says(&[said, "ssh://127.0.0.1:1"]);
    for flags in [
        &["--require-sandbox", "builder"][..],
        &["--builder", "grpc://127.0.0.1:1"],
    ] {
        let other = place.elsewhere();
        other.lock_base();
        let ran = other
            .run(&[&["build", "thing", "--locked"][..], &taken, flags].concat())
            .success();
        assert_eq!(ran.line(), line);
        assert!(!ran.stderr.contains("less than"), "{}", ran.stderr);
    }
}

#[test]
fn links_with_absolute_paths_are_sent_to_whoever_takes_them() {
    let lenient = Farm::start(Rules {
        disallows_links: true,
        ..Rules::answering(Job::made)
    });
    let place = small();
    build(&place, &lenient, &[]).success();
    for strict in [
        Rules::answering(|_| Answer::Broken(Status::invalid_argument("symlink target is absolute"))),
        Rules::answering(|_| Answer::status(Code::InvalidArgument, "symlink target is absolute")),
    ] {
        let strict = Farm::start(Rules {
            disallows_links: true,
            ..strict
        });
        renew(&place, 1);
        build(&place, &strict, &[]).exits(2).says(&[
            "takes no links with absolute paths, such as `",
            "symlink target is absolute",
            "symlink_absolute_path_strategy",
        ]);
    }
}

#[test]
fn a_token_a_name_and_an_instance() {
    let farm = Farm::start(Rules {
        token: Some("s3cr3t"),
        instance: "main/x",
        ..Rules::answering(Job::made)
    });
    let place = small();
    let config = place.path().join("config/layerize");
    fs::create_dir_all(&config).unwrap();
    let configured = |section: &str| {
        let text = format!(
            "[build]\nbuilder = \"mine\"\n[builders.mine]\naddress = \"{}/main/x\"\n{section}",
            farm.address()
        );
        fs::write(config.join("config.toml"), text).unwrap();
    };
    fs::write(config.join("token"), "wrong\n").unwrap();
    configured("");
    place
        .run(&["build", "thing"])
        .exits(2)
        .says(&["who are you?", "token-file"]);
    configured("token-file = \"token\"\n");
    let wrong = place
        .run(&["build", "thing"])
        .exits(2)
        .says(&["who are you?", "token-file"]);
    assert!(!wrong.stderr.contains("wrong"), "{}", wrong.stderr);
    fs::write(config.join("token"), "two\nlines\n").unwrap();
    place
        .run(&["build", "thing"])
        .exits(2)
        .says(&["token", "more than one line"]);
    fs::remove_file(config.join("token")).unwrap();
    place.run(&["build", "thing"]).exits(2).says(&["token"]);
    is_clean(&place, "tokens");
    assert_eq!(farm.state.counted("execute"), 0);
    // What the farm does not do is done here where that was said; with no builder at all it is not even asked.
    let asked = farm.state.counted("capabilities");
    fs::write(config.join("token"), "s3cr3t\n").unwrap();
    let ran = place.run(&["build", "thing"]).success();
    assert_eq!(farm.state.counted("execute"), 1);
    assert!(farm.state.counted("capabilities") > asked);
    assert!(!ran.stderr.contains("s3cr3t"));

    fs::remove_file(config.join("config.toml")).unwrap();
    renew(&place, 1);
    let address = farm.address();
    place
        .run(&["build", "thing", "--builder", &address])
        .exits(2)
        .says(&["who are you?"]);
    place
        .run(&["build", "thing", "--builder", "mine"])
        .exits(2)
        .says(&["no builder `mine`", "layerize help builders"]);
}

/// What runs scripts on this machine in any case does so whatever builder there is, behind this machine's walls.
#[test]
fn shells_and_checks_are_of_this_machine() {
    if !can_run() {
        return;
    }
    let place = small();
    place.run(&["build", "thing"]).success();
    let config = place.path().join("config/layerize");
    fs::create_dir_all(&config).unwrap();
    let text = "[build]\nbuilder = \"grpc://127.0.0.1:1\"\nrequire = \"namespaces\"\n";
    fs::write(config.join("config.toml"), text).unwrap();
    place.run(&["shell", "-q", "--build", "thing", "-c", "exit 3"]).exits(3);
    place.run(&["check", "thing"]).success();
}

#[test]
fn tls_with_an_authority_of_ones_own() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let own = own.signed_by(&key, &authority).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = config
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], private)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let farm = Farm::start(Rules {
        tls: Some(config),
        ..Rules::answering(Job::made)
    });
    let place = small();
    let address = format!("grpcs://localhost:{}", farm.port);
    place.write("ca.pem", &authority.pem());
    let trusted = ["build", "thing", "--builder", &address, "--ca-file", "ca.pem"];
    place
        .run(&["build", "thing", "--builder", &address])
        .exits(2)
        .says(&["certificate", "--ca-file"]);
    let plain = format!("grpc://localhost:{}", farm.port);
    place
        .run(&["build", "thing", "--builder", &plain])
        .exits(2)
        .says(&["does not answer"]);
    let other = format!("grpcs://127.0.0.1:{}", farm.port);
    let named = ["build", "thing", "--builder", &other, "--ca-file", "ca.pem"];
    place.run(&named).exits(2).says(&["certificate"]);
    is_clean(&place, "certificates");
    place.run(&trusted).success();
    assert_eq!(farm.state.counted("execute"), 1);
}
