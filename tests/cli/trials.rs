//! Tests of images: run behind walls, told in one line each, and in the way of what is not as it should be.

use serde_json::Value;

use crate::support::{Place, Ran};

/// A shell, and a program that serves.
const BOX: &str = r##"
[image.box]
root = ["deb:coreutils", "deb:dash", "deb:perl-base"]
configure = false
users = { app = 1000 }
user = "app"
env = { GREETING = "hello" }
entrypoint = ["/bin/serve"]
cmd = ["8080"]
ports = [8080]
stop-signal = "SIGQUIT"

[image.box.files]
"/data" = { directory = true, owner = "app", group = "app" }
"/bin/serve" = { mode = "0755", text = '''
#!/usr/bin/perl
use IO::Socket::INET;
$| = 1;
my $port = shift; my $answer = shift // $ENV{GREETING};
$SIG{QUIT} = sub { print "bye\n"; exit 3 };
$SIG{TERM} = sub { exit 9 };
my $listener = IO::Socket::INET->new(LocalPort => $port, Listen => 5, ReuseAddr => 1) or die "cannot listen: $!";
print "serving\n";
while (1) {
    my $client = $listener->accept or next;
    my $line = <$client> // "";
    my $status = $line =~ m{ /missing } ? "404 Not Found" : "200 OK";
    print $client "HTTP/1.1 $status\r\n\r\n$answer\n";
    close $client;
}
''' }
"##;

fn boxed(tests: &str) -> Place {
    let place = Place::new();
    // A first line in a text of several begins after the quotes.
    place.write(
        "layerize.toml",
        &format!("{}{tests}", BOX.replace("text = '''\n", "text = '''")),
    );
    place
}

const TESTS: &str = r#"
[image.box.tests.port]
expect = { port = 8080 }

[image.box.tests.http]
expect = { http = { path = "/", body = "hello" }, stdout = "/^bye$/", status = 3 }

[image.box.tests.http-missing]
env = { GREETING = "gone" }
expect = { http = { path = "/missing", status = 404, body = "/^g.ne$/" } }

[image.box.tests.low-port]
args = ["80"]
expect = { port = 80 }

[image.box.tests.beside]
exec = [["dash", "-c", "id -un; test -d /proc/self"], ["dash", "-c", "echo $GREETING > /data/x; cat /data/x"]]
expect = { port = 8080, stdout = "hello", file = { "/data/x" = "hello" } }

[image.box.tests.runs]
run = ["dash", "-c", "cat; echo err >&2; exit 7"]
stdin = "from outside\n"
expect = { status = 7, stdout = "from outside", stderr = "err" }

[image.box.tests.root]
user = "root"
run = ["id", "-u"]
expect = { stdout = "0" }

[image.box.tests.walls]
run = ["dash", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1; cat /etc/hostname /etc/resolv.conf; ls /sys"]
expect = { stdout = '/\A\s*lo\nlocalhost\n\z/' }
"#;

const FAILING: &str = r#"
[image.box.tests.bad-status]
run = ["dash", "-c", "echo printed; exit 4"]

[image.box.tests.bad-stdout]
run = ["echo", "other"]
expect = { stdout = "expected" }

[image.box.tests.bad-pattern]
run = ["echo", "other"]
expect = { stdout = "/expected/" }

[image.box.tests.bad-file]
run = ["true"]
expect = { file = { "/data/none" = "x" } }

[image.box.tests.bad-program]
run = ["nosuch"]

[image.box.tests.bad-user]
run = ["true"]
user = "nobody-here"

[image.box.tests.bad-http]
expect = { http = { status = 204, body = "else" } }

[image.box.tests.bad-port]
timeout = "1s"
expect = { port = 9 }

[image.box.tests.bad-beside]
exec = ["false"]
expect = { port = 8080 }

[image.box.tests.ends-early]
args = ["no-port"]
expect = { port = 8080 }

[image.box.tests.takes-long]
timeout = "1s"
run = ["sleep", "60"]
"#;

/// Each test that was told: its name, its result, what failed.
fn told(ran: &Ran) -> Vec<(String, String, String)> {
    let events = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let tests = events.filter(|event| event["event"] == "test-finished");
    let mut all: Vec<_> = tests
        .map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let failures = event["failures"].as_array().into_iter().flatten();
            let failures: Vec<&str> = failures.map(|failure| failure.as_str().unwrap()).collect();
            (text("test"), text("result"), failures.join("; "))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn what_comes_as_it_is_to_come_passes_and_changes_nothing() {
    let place = boxed("");
    let digest = place
        .run(&["build"])
        .success()
        .line()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    place
        .run(&["test"])
        .exits(2)
        .says(&["there are no tests of these images", "help: add"]);
    place.write(
        "layerize.toml",
        &std::fs::read_to_string(boxed(TESTS).project.join("layerize.toml")).unwrap(),
    );
    let ran = place.run(&["test", "--json"]).success();
    let names: Vec<String> = told(&ran).into_iter().map(|(name, ..)| name).collect();
    let expected = [
        "beside",
        "http",
        "http-missing",
        "low-port",
        "port",
        "root",
        "runs",
        "walls",
    ];
    assert_eq!(names, expected);
    assert!(
        told(&ran).iter().all(|(_, result, _)| result == "passed"),
        "{}",
        ran.stdout
    );

    let filtered = place.run(&["test", "--filter", "http", "box"]).success();
    assert_eq!(
        filtered.stdout.lines().filter(|line| line.starts_with("ok ")).count(),
        2,
        "{}",
        filtered.stdout
    );
    place
        .run(&["test", "--filter", "nothing"])
        .exits(2)
        .says(&["no test's name holds `nothing`"]);

    let _ = std::fs::remove_file(place.project.join("box.tar"));
    let built = place.run(&["build", "--test", "--provenance"]).success();
    assert!(
        built.line().starts_with(&digest),
        "tests change no digest: {}",
        built.stdout
    );
    let provenance = std::fs::read_to_string(place.project.join("box.provenance.json")).unwrap();
    let provenance: Value = serde_json::from_str(&provenance).unwrap();
    let byproducts = provenance["predicate"]["runDetails"]["byproducts"].as_array().unwrap();
    let tests = byproducts.iter().find(|made| made["name"] == "tests").unwrap();
    assert_eq!(tests["digest"]["sha256"], digest.strip_prefix("sha256:").unwrap());
    assert_eq!(tests["annotations"]["http"], "passed");
    assert_eq!(tests["annotations"].as_object().unwrap().len(), expected.len());
}

#[test]
fn what_does_not_is_told_and_nothing_is_written() {
    let place = boxed(FAILING);
    let ran = place.run(&["test", "--json"]).exits(1);
    let told = told(&ran);
    assert!(told.iter().all(|(_, result, _)| result == "failed"), "{}", ran.stdout);
    let expected = [
        ("bad-beside", "`false` beside it: exit status 1"),
        ("bad-file", "there is no file `/data/none`"),
        ("bad-http", "`/` at port 8080: status 200 and not 204"),
        (
            "bad-pattern",
            "standard output: nothing matches /expected/ in:\n    other",
        ),
        ("bad-port", "nothing answered at port 9 within 1 s"),
        ("bad-program", "cannot start `nosuch`"),
        ("bad-status", "exit status 4"),
        (
            "bad-stdout",
            "standard output: expected:\n    expected\n  found:\n    other",
        ),
        ("bad-user", "the image has no user `nobody-here`"),
        ("ends-early", "the program does not serve: it ended with exit status"),
        ("takes-long", "it did not end within 1 s and was killed"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((name, _, failures), (expected_name, text)) in told.iter().zip(expected) {
        assert!(name == expected_name && failures.contains(text), "{name}: {failures}");
    }
    let shown = place.run(&["test", "--filter", "bad-status"]).exits(1).stdout;
    assert!(shown.starts_with("FAIL  box/bad-status "), "{shown}");
    assert!(
        shown.contains("printed") && shown.contains("the whole log: "),
        "{shown}"
    );

    for arguments in [
        &["build", "--test"][..],
        &["push", "--test", "box", "registry.invalid/box:1"],
    ] {
        place
            .run(arguments)
            .exits(1)
            .says(&["FAIL  box/bad-status", "a test failed"]);
    }
    assert!(!place.project.join("box.tar").exists());
    place.run(&["build"]).success();
}

#[test]
fn an_image_that_nothing_here_runs_is_skipped_loudly() {
    let place = Place::new();
    place.write(
        "layerize.toml",
        r#"
[build]
emulate = "never"
[image.far]
platform = "linux/s390x"
allow-missing = ["/x"]
files = { "/etc/motd" = { text = "x" } }
[image.far.tests.any]
run = ["/x"]
[image.far.tests.other]
run = ["/x"]
"#,
    );
    let ran = place.run(&["test"]).success().says(&[
        "the tests of images for linux/s390x are not run: cannot run the programs of `far`: they are for s390x-linux",
        "emulator: `emulate = \"never\"` in `[build]`",
        "leave `emulate` out",
        "0 passed, 2 skipped; nothing was tested (`--no-skip`",
    ]);
    assert_eq!(ran.stderr.matches("are not run").count(), 1, "{}", ran.stderr);
    assert!(
        ran.stdout
            .starts_with("SKIP  far/any: the image is for linux/s390x, and this machine is "),
        "{}",
        ran.stdout
    );
    // Where nobody reads it, it counts; what runs counts as it comes out.
    let near = "[image.near]\ntests.one.run = [\"/x\"]\nfiles = { \"/x\" = \"x\" }\n";
    let text = std::fs::read_to_string(place.project.join("layerize.toml")).unwrap();
    place.write("layerize.toml", &(text + near)).write("x", "#!/x\n");
    for (ci, flag, status) in [
        (None, None, 0),
        (None, Some("--no-skip"), 1),
        (Some("true"), None, 1),
        (Some("1"), Some("--no-skip=false"), 0),
        (Some("false"), None, 0),
    ] {
        let mut command = place.command(&["test", "far"]);
        command.args(flag).envs(ci.map(|ci| ("CI", ci)));
        let ran = Ran::of(command.output().unwrap()).exits(status);
        assert_eq!(
            ran.stderr.contains("a skipped test is a failure here"),
            status == 1,
            "{}",
            ran.stderr
        );
    }
}
