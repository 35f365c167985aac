//! What an output refers to and should not: warned about, refused, or taken out.

use crate::support::Place;

/// A tool that is large, a library that leads to it, and programs that name them.
const SPEC: &str = r##"
[package.crates]
script = "mkdir -p $out/src; head -c 100000 /dev/zero > $out/src/lib.rs"

[package.lib]
tools = ["crates"]
script = "mkdir $out; echo built with /layerize/store/*-crates > $out/lib"

[package.named]
tools = ["crates"]
script = '''
mkdir -p $out/bin
printf 'panicked at ' > $out/bin/app
echo /layerize/store/*-crates/src/lib.rs >> $out/bin/app
'''

[package.refused]
tools = ["crates"]
no-references = ["crates"]
script = "mkdir $out; echo again; echo /layerize/store/*-crates > $out/app"

[package.through]
tools = ["crates"]
libraries = ["lib"]
no-references = ["crates"]
script = "mkdir $out; echo /layerize/store/*-lib > $out/app"

[package.stripped]
tools = ["crates"]
libraries = ["lib"]
no-references = ["crates"]
strip-references = ["crates", "lib"]
script = '''
mkdir $out
echo panicked at /layerize/store/*-crates/src/lib.rs in /layerize/store/*-lib > $out/app
ln -s /layerize/store/*-crates $out/link
echo $out > $out/self
'''

[package.packed]
tools = ["crates"]
strip-references = ["crates"]
script = "mkdir $out; echo /layerize/store/*-crates | gzip -n > $out/app.gz"

[package.called]
tools = ["crates"]
strip-references = ["crates"]
script = "mkdir $out; touch $out/$(basename /layerize/store/*-crates)"
"##;

fn project() -> Place {
    let place = Place::with_script("true");
    place.write("layerize.toml", SPEC);
    place
}

fn closure(place: &Place, name: &str) -> Vec<String> {
    let listed = place.run(&["closure", name]).success().stdout;
    listed.lines().map(str::to_owned).collect()
}

/// A Rust program whose panic messages name the sources of its crates has them all in its closure: 103 MB in the field.
#[test]
fn a_tool_in_the_closure_is_warned_about() {
    let place = project();
    let warning = "warning: `named` keeps its tool `crates` in its closure (bin/app, byte 28)";
    let advice = "`strip-references = [\"crates\"]` takes its path out";
    // Also when it is reused, as in every later run: who sees the image may not have seen the build.
    for _ in 0..2 {
        place.run(&["build", "named"]).success().says(&[warning, advice]);
    }
    let listed = place.run(&["closure", "named"]).success().stdout;
    assert!(listed.contains("-crates"), "{listed}");
}

#[test]
fn a_reference_that_is_refused_fails_the_build() {
    let place = project();
    for _ in 0..2 {
        // The second time nothing has been recorded either.
        place.run(&["build", "refused"]).exits(2).says(&[
            "cannot build `refused`: its output refers to",
            "which is `crates` (app, byte 16)",
            "help: have the script write it without that path, or take it out: `strip-references = [\"crates\"]`",
        ]);
    }
    place.run(&["build", "through"]).exits(2).says(&[
        "cannot build `through`: its output refers to",
        "-lib`, and so has `crates` in its closure (app, byte 16)",
    ]);
}

/// As Nix's `remove-references-to`: `e` is not a letter of base 32, so that what stands there is no path any more.
#[test]
fn references_are_taken_out_of_what_is_not_compressed() {
    let place = project();
    let built = place.run(&["build", "stripped"]).success();
    assert!(!built.stderr.contains("`stripped` keeps"), "{}", built.stderr);
    let path = built.line().to_owned();
    let physical = place.store().join("store").join(path.rsplit('/').next().unwrap());
    let e = "e".repeat(32);
    let text = std::fs::read_to_string(physical.join("app")).unwrap();
    assert_eq!(
        text,
        format!("panicked at /layerize/store/{e}-crates/src/lib.rs in /layerize/store/{e}-lib\n")
    );
    let link = std::fs::read_link(physical.join("link")).unwrap();
    assert_eq!(link.to_str().unwrap(), format!("/layerize/store/{e}-crates"));
    let own = std::fs::read_to_string(physical.join("self")).unwrap();
    assert_eq!(own.trim_end(), path, "what it says of itself stays");
    assert_eq!(closure(&place, "stripped").len(), 1);
    place.run(&["store", "verify", &path]).success();
    place.run(&["check", "stripped"]).success();

    for (name, place_in_it) in [("packed", "app.gz, in its gzip"), ("called", "its name")] {
        place.run(&["build", name]).exits(2).says(&[
            "its output refers to",
            place_in_it,
            "help: `strip-references` cannot take `crates` out of a name or of what is compressed",
        ]);
    }
}

/// A script finds what it is given where `$package_NAME` says, whatever a name holds; Debian's packages and what is not
/// given are not there.
#[test]
fn a_script_is_told_where_packages_are() {
    let place = Place::with_script("true");
    place.write(
        "base/layerize.toml",
        "[package.zlib]\nscript = \"mkdir $out; echo z > $out/z\"\n\n[package.wide]\nscript = \"mkdir $out; ln -s $package_zlib/z $out/z\"\ntools = [\"zlib\"]\n",
    );
    let given =
        "tools = [\"a-tool\", \"base:wide\"]\nlibraries = [\"lib.1\"]\nruntime = [\"c++\"]\ndev = [\"other\"]\n";
    let script = "mkdir $out; env | grep ^package_ | sort > $out/given; test -e $package_a_tool/bin/x -a -h $package_base_wide/z";
    let spec = |package: &str| {
        let mut text = "[imports]\nbase = { path = \"base\" }\n".to_owned();
        for name in ["a-tool", "\"lib.1\"", "\"c++\"", "other"] {
            text.push_str(&format!(
                "\n[package.{name}]\nscript = \"mkdir -p $out/bin; echo x > $out/bin/x\"\n"
            ));
        }
        place.write("layerize.toml", &format!("{text}\n[package.app]\n{package}"));
    };
    spec(&format!("{given}script = \"{script}\"\n"));
    let path = |name: &str| place.run(&["build", name]).success().line().to_owned();
    let expected = [
        ("a_tool", path("a-tool")),
        ("base_wide", path("base:wide")),
        ("c__", path("c++")),
        ("lib_1", path("lib.1")),
    ];
    let lines = |pairs: &[(&str, String)]| {
        let lines = pairs.iter().map(|(name, path)| format!("package_{name}={path}\n"));
        lines.collect::<String>()
    };
    let app = path("app");
    let read = |app: &str| {
        let tree = app.trim_start_matches("/layerize/store/");
        std::fs::read_to_string(place.store().join("store").join(tree).join("given")).unwrap()
    };
    assert_eq!(read(&app), lines(&expected));
    assert!(
        closure(&place, "app").iter().any(|line| line.contains("-a-tool")),
        "it refers to what it names"
    );

    // A shell has what `dev` adds, too.
    let shell = place
        .run(&["shell", "app", "--", "bash", "-c", "env | grep ^package_ | sort"])
        .success();
    let mut with_dev = expected.to_vec();
    with_dev.push(("other", path("other")));
    assert_eq!(shell.stdout, lines(&with_dev));

    // The user's own variable of the same name wins; what is another variable makes another package.
    spec(&format!(
        "{given}env = {{ package_c__ = \"mine\" }}\nscript = \"{script}\"\n"
    ));
    assert!(read(&path("app")).contains("package_c__=mine\n"));

    // Two names that one variable would stand for.
    spec("tools = [\"a-tool\", \"a_tool\"]\nscript = \"x\"\n\n[package.a_tool]\nscript = \"x\"\n");
    place.run(&["build", "app"]).exits(2).says(&[
        "the places of `a-tool` and `a_tool` would both be in `$package_a_tool`",
        "rename one of them",
    ]);
}
