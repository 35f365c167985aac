//! A Go project from its go.sum to an image: modules that the test writes, found at a proxy on loopback.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use layerize::digest::{Digest, GoHash};

use crate::attest::validate;
use crate::specs::{answer_of_image, assert_tested, bare_spec, take_spec};
use crate::support::{DEV_IMAGE, GO, Place, Ran, have, rebuilt_from_what_is_kept};
use crate::web::{Reply, Server};

/// A published module.
#[derive(Clone)]
struct Module {
    path: &'static str,
    version: &'static str,
    /// Its files, `go.mod` first.
    files: Vec<(String, String)>,
    /// What stands before the names of its files, instead of its name and version.
    prefix: Option<&'static str>,
}

impl Module {
    fn new(path: &'static str, version: &'static str, files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Self {
            path,
            version,
            files: files.collect(),
            prefix: None,
        }
    }

    fn with(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    fn named(&self) -> Vec<(String, &str)> {
        let own = format!("{}@{}", self.path, self.version);
        let prefix = self.prefix.unwrap_or(&own);
        let files = self.files.iter();
        files
            .map(|(name, text)| (format!("{prefix}/{name}"), text.as_str()))
            .collect()
    }

    fn zip(&self) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, text) in self.named() {
            writer.start_file(name.as_str(), options).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    /// Its lines in a go.sum.
    fn sums(&self) -> String {
        let files = self
            .named()
            .into_iter()
            .map(|(name, text)| (name, Digest::of(text.as_bytes())));
        let zip = GoHash::of_files(files).unwrap();
        let go_mod = GoHash::of_go_mod(Digest::of(self.files[0].1.as_bytes()));
        let (path, version) = (self.path, self.version);
        format!("{path} {version} {zip}\n{path} {version}/go.mod {go_mod}\n")
    }

    /// Where a proxy has its files, without their ending.
    fn place(&self) -> String {
        let escape = |c: char| match c.is_ascii_uppercase() {
            true => format!("!{}", c.to_ascii_lowercase()),
            false => c.to_string(),
        };
        format!(
            "/{}/@v/{}",
            self.path.chars().map(escape).collect::<String>(),
            self.version
        )
    }
}

/// A proxy of modules.
struct Proxy {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    server: Server,
}

impl Proxy {
    fn new(modules: &[Module]) -> Self {
        let files: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
        let answers = Arc::clone(&files);
        // Go writes the `!` of a capital letter by its number.
        let server = Server::start(
            move |path| match answers.lock().unwrap().get(&path.replace("%21", "!")) {
                Some(bytes) => Reply::ok(bytes),
                None => Reply::status(404),
            },
        );
        let proxy = Self { files, server };
        modules.iter().for_each(|module| proxy.publish(module));
        proxy
    }

    fn set(&self, path: String, bytes: impl Into<Vec<u8>>) {
        self.files.lock().unwrap().insert(path, bytes.into());
    }

    fn publish(&self, module: &Module) {
        let place = module.place();
        let info = format!(
            "{{\"Version\":\"{}\",\"Time\":\"2020-01-01T00:00:00Z\"}}",
            module.version
        );
        self.set(format!("{place}.info"), info);
        self.set(format!("{place}.mod"), module.files[0].1.as_bytes());
        self.set(format!("{place}.zip"), module.zip());
        let list = format!("{}/list", place.rsplit_once('/').unwrap().0);
        self.set(list, format!("{}\n", module.version));
    }

    fn run(&self, place: &Place, arguments: &[&str]) -> Ran {
        let mut command = place.command(arguments);
        Ran::of(command.env("GOPROXY", self.server.url("")).output().unwrap())
    }
}

fn greet() -> Module {
    Module::new(
        "example.invalid/Greet",
        "v1.2.0",
        &[
            (
                "go.mod",
                "module example.invalid/Greet\n\ngo 1.18\n\nrequire example.invalid/word/v2 v2.0.1\n",
            ),
            (
                "greet.go",
                "package greet\n\nimport \"example.invalid/word/v2/sub\"\n\nfunc Hello() string { return \"hello \" + sub.Word() }\n",
            ),
        ],
    )
}

fn word() -> Module {
    word_of("world")
}

/// The same, or another version of it, which says another word.
fn word_of(word: &str) -> Module {
    let text =
        format!("package sub\n\nimport \"strings\"\n\nfunc Word() string {{ return strings.ToUpper(\"{word}\") }}\n");
    Module::new(
        "example.invalid/word/v2",
        if word == "world" { "v2.0.1" } else { "v2.0.2" },
        &[
            (
                "go.mod",
                "module example.invalid/word/v2\n\ngo 1.16\n\nrequire example.invalid/old v0.1.0\n",
            ),
            ("sub/sub.go", &text),
        ],
    )
}

/// Needs none of the others.
fn apart() -> Module {
    Module::new(
        "example.invalid/apart",
        "v1.0.0",
        &[
            ("go.mod", "module example.invalid/apart\n\ngo 1.18\n"),
            ("apart.go", "package apart\n\nconst End = \"\"\n"),
        ],
    )
}

/// Required by a `go.mod`, and nothing of it is imported.
fn old() -> Module {
    Module::new(
        "example.invalid/old",
        "v0.1.0",
        &[("go.mod", "module example.invalid/old\n")],
    )
}

const SPEC: &str = r#"[package.prog]
version = "1.0"
source = { path = ".", include = ["**/*.go", "go.*"] }
env = { GOFLAGS = "-v" }
go = {}

[image.app]
contents = ["prog"]
entrypoint = ["prog"]

[image.app.tests.says]
run = ["prog"]
expect = { stdout = "hello WORLD" }
"#;

const GO_MOD: &str = "module example.invalid/prog\n\ngo 1.18\n\nrequire example.invalid/Greet v1.2.0\n\n\
    require example.invalid/apart v1.0.0\n\nrequire example.invalid/word/v2 v2.0.1 // indirect\n";

const MAIN: &str = "package main\n\nimport (\n\t\"fmt\"\n\n\tgreet \"example.invalid/Greet\"\n\t\"example.invalid/apart\"\n)\n\n\
    func main() { fmt.Println(apart.End + greet.Hello()) }\n";

fn project() -> (Place, Proxy) {
    let place = Place::new();
    place.take_debs(GO);
    let (greet, word) = (greet(), word());
    place
        .write("layerize.toml", SPEC)
        .write("go.mod", GO_MOD)
        .write("go.sum", &(apart().sums() + &greet.sums() + &word.sums()))
        .write("main.go", MAIN);
    (place, Proxy::new(&[apart(), greet, word, old()]))
}

fn built(ran: &Ran) -> Vec<&str> {
    let lines = ran.stderr.lines();
    lines.filter_map(|line| line.strip_prefix("building ")).collect()
}

/// The names of the store's paths that end so.
fn paths(store: &Path, end: &str) -> Vec<String> {
    let names = layerize::fsio::sorted_names(&store.join("store")).unwrap_or_default();
    let names = names.into_iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(end)).collect()
}

#[test]
fn modules_are_compiled_once_and_a_program_refers_to_nothing() {
    let (place, proxy) = project();
    proxy.run(&place, &["lock"]).success();
    let cold = proxy.run(&place, &["build", "app"]).success();
    let steps = ["go (library)", "prog (dependencies)", "prog"];
    assert_eq!(built(&cold), steps, "{}", cold.stderr);
    place.run(&["test"]).success();
    let closure = place.run(&["closure", "prog"]).success().stdout;
    assert_eq!(closure.lines().count(), 1, "{closure}");

    // Another version of a module: it is compiled, what depends on it, and nothing else; a check compiles all, and compares.
    let newer = word_of("world!");
    proxy.publish(&newer);
    place
        .write("go.sum", &(apart().sums() + &greet().sums() + &newer.sums()))
        .write("go.mod", &GO_MOD.replace("v2.0.1", "v2.0.2"));
    let bumped = proxy.run(&place, &["build", "prog", "--verbose"]).success();
    let compiled = |ran: &Ran| -> Vec<String> {
        let lines = ran
            .stderr
            .lines()
            .filter_map(|line| line.split_once("> example.invalid/"));
        lines.map(|(_, package)| package.to_owned()).collect()
    };
    assert_eq!(compiled(&bumped), ["word/v2/sub", "Greet", "prog"], "{}", bumped.stderr);
    place.run(&["check", "prog"]).success();
    // Back again, all is there.
    place
        .write("go.sum", &(apart().sums() + &greet().sums() + &word().sums()))
        .write("go.mod", GO_MOD);
    let back = place.run(&["build", "app", "--verbose"]).success();
    assert_eq!(compiled(&back), [""; 0], "{}", back.stderr);

    let kept = place
        .run(&["build", "app", "--offline", "--inputs=all", "-o", "oci:kept"])
        .success();
    let digest = |ran: &Ran| ran.stdout.split(' ').next().unwrap().to_owned();
    assert_eq!(digest(&kept), digest(&cold));
    rebuilt_from_what_is_kept(&place, "kept");

    let documents = [
        ("sbom", &["--format=spdx"][..], "app.spdx.json"),
        ("sbom", &["--format=cyclonedx"], "app.cdx.json"),
        ("provenance", &[], "app.provenance.json"),
    ];
    for (verb, more, file) in documents {
        place.run(&[&[verb, "app", "-o", file], more].concat()).success();
    }
    let sbom = fs::read_to_string(place.project.join("app.spdx.json")).unwrap();
    for text in [
        "pkg:golang/example.invalid/greet@v1.2.0",
        "pkg:golang/example.invalid/word/v2@v2.0.1",
        "pkg:golang/example.invalid/apart@v1.0.0",
    ] {
        assert_eq!(sbom.matches(text).count(), 1, "{text}: {sbom}");
    }
    let judged = [
        "spdx=app.spdx.json",
        "cyclonedx=app.cdx.json",
        "provenance=app.provenance.json",
    ];
    validate(&place, &judged);

    // An edit of a source file leaves what was compiled before it, and comes out as if there were nothing.
    place.write("main.go", &MAIN.replace("greet.Hello()", "greet.Hello(), 2"));
    let edited = place.run(&["build", "prog"]).success();
    assert_eq!(built(&edited), ["prog"], "{}", edited.stderr);
    place.write(
        "layerize.toml",
        &SPEC.replace("go = {}", "go = { incremental = false }"),
    );
    let whole = place.run(&["build", "prog"]).success();
    assert_eq!(built(&whole), ["prog"], "{}", whole.stderr);
    assert_eq!(whole.stdout, edited.stdout);

    a_shell_finds_the_modules_and_leaves_the_project_alone(&place);
    what_the_source_brings_of_others_is_listed(&place);
}

/// What the source brings of others is what it says it is.
fn what_the_source_brings_of_others_is_listed(place: &Place) {
    let module = |text: String, module: &Module| {
        let (path, version) = (module.path, module.version);
        let files = module.files.iter().filter(|(name, _)| name.ends_with(".go"));
        let dirs = files.map(|(name, content)| {
            place.write(&format!("vendor/{path}/{name}"), content);
            let dir = name
                .rsplit_once('/')
                .map_or(String::new(), |(dir, _)| format!("/{dir}"));
            format!("{path}{dir}\n")
        });
        format!("{text}# {path} {version}\n## explicit\n{}", dirs.collect::<String>())
    };
    let modules = [apart(), greet(), word()].iter().fold(String::new(), module);
    place.write("vendor/modules.txt", &modules);
    let vendored = SPEC.replace("\"**/*.go\"", "\"**/*.go\", \"vendor/**\"");
    place.write("layerize.toml", &vendored);
    place.run(&["build", "app", "--offline"]).success();
    place.run(&["sbom", "app", "-o", "vendored.json"]).success();
    let sbom = fs::read_to_string(place.project.join("vendored.json")).unwrap();
    for text in ["greet@v1.2.0", "word/v2@v2.0.1"] {
        let purl = format!("pkg:golang/example.invalid/{text}");
        assert_eq!(sbom.matches(&purl).count(), 1, "{purl}: {sbom}");
    }
    validate(place, &["spdx=vendored.json"]);
}

/// In a shell Go finds the modules and builds what is edited; what it compiles is kept outside the project.
fn a_shell_finds_the_modules_and_leaves_the_project_alone(place: &Place) {
    let before = layerize::fsio::sorted_names(&place.project).unwrap();
    let run = ["shell", "prog", "--", "go", "run", "."];
    for number in ["3", "4"] {
        place.write(
            "main.go",
            &MAIN.replace("greet.Hello()", &format!("greet.Hello(), {number}")),
        );
        assert_eq!(place.run(&run).success().line(), format!("hello WORLD {number}"));
    }
    place.write("main.go", MAIN);
    place.run(&DEV_IMAGE).success();
    let ran = place.in_dev_container(&[], &["go", "run", "."]).success();
    assert_eq!(ran.line(), "hello WORLD");
    fs::remove_dir_all(place.project.join("dev")).unwrap();
    assert_eq!(layerize::fsio::sorted_names(&place.project).unwrap(), before);

    // A release of Debian's by its own name, which is not on the path.
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    let start = lock.find("golang-1.").unwrap();
    let end = start + lock[start + 9..].find('-').unwrap() + 9;
    let toolchain = format!("go = {{ toolchain = \"deb:{}-go\" }}", &lock[start..end]);
    place.write("layerize.toml", &SPEC.replace("go = {}", &toolchain));
    let list = ["shell", "prog", "--pure", "--", "go", "list", "-deps", "."];
    let ran = place.run(&list).success();
    assert!(ran.stdout.contains("example.invalid/word/v2/sub"), "{}", ran.stdout);
    place.write("layerize.lock", &lock);
}

/// Asserts that the build says these texts, and that the store has nothing of it.
#[track_caller]
fn fails(place: &Place, proxy: &Proxy, said: &[&str]) {
    proxy.run(place, &["build", "prog"]).exits(2).says(said);
    let store = place.store();
    for end in ["-go-example.invalid_Greet-v1.2.0", "-prog-1.0", "-prog-dependencies"] {
        assert!(paths(&store, end).is_empty(), "{end}: {said:?}");
    }
}

/// A module whose bytes no other run has left in the download cache.
fn unseen(place: &Place) -> Module {
    greet().with("unseen.go", &format!("package greet // {}\n", place.path().display()))
}

#[test]
fn what_is_wrong_with_a_module_is_told_and_nothing_is_registered() {
    let (place, proxy) = project();
    proxy.run(&place, &["lock"]).success();
    let fails = |said: &[&str]| fails(&place, &proxy, said);
    let unseen = unseen(&place);
    let lock = |module: &Module| place.write("go.sum", &(apart().sums() + &module.sums() + &word().sums()));
    let name = "example.invalid/Greet";

    // The proxy has other bytes than were locked, none, or no zip.
    lock(&unseen);
    fails(&[name, "v1.2.0", "other content"]);
    let zip = format!("{}.zip", unseen.place());
    proxy.set(zip.clone(), "<html>no such luck</html>");
    fails(&[name]);
    proxy.files.lock().unwrap().remove(&zip);
    fails(&[name, "`go mod download`"]);

    // Zips that lead out of their directory, belong elsewhere, or are bombs.
    let leads_out = unseen.clone().with("../../../escape", "x");
    lock(&leads_out);
    proxy.publish(&leads_out);
    fails(&[name, "leads out"]);
    assert!(!place.path().join("data/escape").exists());
    let elsewhere = Module {
        prefix: Some("example.invalid/other@v1.2.0"),
        ..unseen.clone()
    };
    lock(&elsewhere);
    proxy.publish(&elsewhere);
    fails(&[name, "MODULE@VERSION"]);
    lock(&unseen);
    let mut bomb = unseen.zip();
    let directory = bomb.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    bomb[directory + 24..directory + 28].copy_from_slice(&(600u32 << 20).to_le_bytes());
    proxy.set(zip, bomb);
    fails(&[name, "500 MiB"]);
}

#[test]
fn what_cannot_be_built_by_what_the_source_says_is_told() {
    let (place, proxy) = project();
    proxy.run(&place, &["lock"]).success();
    let fails = |said: &[&str]| fails(&place, &proxy, said);
    let unseen = unseen(&place);
    let name = unseen.path;

    // The hash in go.sum is another, or is none, or is missing.
    proxy.publish(&unseen);
    let sums = unseen.sums() + &word().sums() + &apart().sums();
    let hash = sums.split_whitespace().nth(2).unwrap();
    let other = word().sums().split_whitespace().nth(2).unwrap().to_owned();
    place.write("go.sum", &sums.replacen(hash, &other, 1));
    // A hash of another module, whose zip is at hand by it, leads to that: its files do not lie where these should.
    fails(&[name]);
    place.write("go.sum", &sums.replacen(hash, "h1:AAAA", 1));
    fails(&["`go.sum`, line 1", "is no `h1:`"]);
    place.write("go.sum", &(word().sums() + &apart().sums()));
    fails(&[
        "`go.sum` has no hashes of `example.invalid/Greet v1.2.0`",
        "go mod tidy",
    ]);
    place.write(
        "go.sum",
        &sums
            .replacen("v1.2.0/go.mod h1:", "v1.2.0/go.mod h1:/", 1)
            .replacen("=\n", "\n", 2),
    );
    fails(&["`go.sum`, line"]);

    // What the source says cannot be built.
    place.write("go.sum", &sums);
    place.write("go.mod", &format!("{GO_MOD}replace {name} => ../../greet\n"));
    fails(&["replaced by `../../greet`, which is outside the source"]);
    let untidy = MAIN.replace("\"fmt\"", "\"fmt\"\n\t_ \"example.invalid/unknown/x\"");
    place.write("go.mod", GO_MOD).write("main.go", &untidy);
    fails(&["`main.go` imports `example.invalid/unknown/x`", "`go mod tidy`"]);
    place.write("go.mod", &GO_MOD.replace("go 1.18", "go 1.99"));
    let newer = ["it is for Go 1.99", "`deb:golang-go`", "toolchain", "go1.99.0.linux-"];
    fails(&newer);
    place.run(&["lock"]).exits(2).says(&newer);
}

/// A module that brings its C along.
fn add() -> Module {
    let go = "package add\n\n// #include \"add.h\"\nimport \"C\"\n\nfunc Add(a, b int) int { return int(C.add(C.int(a), C.int(b))) }\n";
    Module::new(
        "example.invalid/add",
        "v0.3.0",
        &[
            ("go.mod", "module example.invalid/add\n\ngo 1.18\n"),
            ("add.go", go),
            ("add.h", "int add(int a, int b);\n"),
            (
                "add.c",
                "#include \"add.h\"\n\nint add(int a, int b) { return a + b; }\n",
            ),
        ],
    )
}

/// The example: `init` and `load` over sources and go.sum serve a request, with no edit; the spec that is committed passes its
/// tests, and bills of materials have every module.
#[test]
fn a_service_with_c_answers() {
    let place = bare_spec("go-service");
    place.take_debs(GO);
    let modules = [greet(), add(), word()];
    let sums: String = modules.iter().map(Module::sums).collect();
    let text = fs::read_to_string(place.project.join("go.sum")).unwrap();
    assert_eq!(text, sums, "the example has the modules of this test");
    let proxy = Proxy::new(&modules);
    proxy.publish(&old());
    proxy.run(&place, &["init", "--name", "go-service"]).success();
    let body = "hello WORLD 42 42";
    if have("docker", &["info"]) {
        proxy.run(&place, &["load", "--engine", "docker"]).success();
        let answer = answer_of_image("go-service", |port| format!("PORT={port}"), "/");
        assert!(answer.ends_with(body), "{answer}");
    }

    take_spec(&place, "go-service", |place, verb| proxy.run(place, verb));
    proxy.run(&place, &["build", "--locked"]).success();
    assert_tested(&place, 1);
    for (format, file) in [("spdx", "service.spdx.json"), ("cyclonedx", "service.cdx.json")] {
        place
            .run(&["sbom", "service", "--format", format, "-o", file])
            .success();
        let sbom = fs::read_to_string(place.project.join(file)).unwrap();
        for module in ["greet@v1.2.0", "word/v2@v2.0.1", "add@v0.3.0"] {
            let purl = format!("pkg:golang/example.invalid/{module}");
            assert!(sbom.contains(&purl), "{purl}: {sbom}");
        }
    }
    validate(&place, &["spdx=service.spdx.json", "cyclonedx=service.cdx.json"]);
}
