//! Tests of the fix-up on real files made by the machine's compiler: `prog` needs `libb`, `libb` needs `liba`.

use std::process::Command;

use super::*;

const OUT: &str = "/layerize/store/00000000000000000000000000000000-out";

/// A store with `a` and `b` in it, and an output whose program is linked against `b`.
struct Fixture {
    dir: tempfile::TempDir,
}

fn path(name: &str) -> String {
    let digit = if name == "out" { "0" } else { "1" };
    format!("/layerize/store/{}-{name}", digit.repeat(32))
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for name in ["a", "b", "unused", "out"] {
            fs::create_dir_all(fixture.physical(name).join("lib")).unwrap();
        }
        fs::write(fixture.physical("unused").join("lib/libunused.so"), "").unwrap();
        fixture.library("a", "int a(void) { return 40; }", &[]);
        fixture.library("b", "int a(void); int b(void) { return a() + 2; }", &["-la"]);
        fixture
    }

    fn physical(&self, name: &str) -> PathBuf {
        self.dir
            .path()
            .join(path(name).strip_prefix("/layerize/store/").unwrap())
    }

    fn compile(&self, arguments: &[&str], source: &str) {
        let file = self.dir.path().join("source.c");
        fs::write(&file, source).unwrap();
        let mut compiler = Command::new("cc");
        compiler
            .arg(&file)
            .args(arguments)
            .arg("-Wl,--disable-new-dtags,--allow-shlib-undefined");
        for name in ["a", "b"] {
            compiler.arg("-L").arg(self.physical(name).join("lib"));
        }
        assert!(compiler.status().unwrap().success());
    }

    fn library(&self, name: &str, source: &str, arguments: &[&str]) {
        let file = self.physical(name).join(format!("lib/lib{name}.so"));
        let soname = format!("-Wl,-soname,lib{name}.so");
        self.compile(
            &[
                &["-shared", "-fPIC", "-nostdlib", &soname, "-o", file.to_str().unwrap()],
                arguments,
            ]
            .concat(),
            source,
        );
    }

    /// The output's `bin/prog`, linked against `b` with this run path.
    fn program(&self, run_path: &str) -> PathBuf {
        let file = self.physical("out").join("bin/prog");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let run_path = format!("-Wl,-rpath,{run_path}");
        let unresolved = "-Wl,--unresolved-symbols=ignore-in-shared-libs";
        let source = "int b(void); int main(void) { return b(); }";
        self.compile(&["-o", file.to_str().unwrap(), &run_path, unresolved, "-lb"], source);
        file
    }

    fn fix(&self) -> Missing {
        self.fix_with(&Linkage::default(), &[])
    }

    fn fix_with(&self, linkage: &Linkage, kept: &[String]) -> Missing {
        let (tree, logical) = (self.physical("out"), path("out"));
        fix(&Places {
            logical: &logical,
            tree: &tree,
            store: self.dir.path(),
            linkage,
            kept,
        })
        .unwrap()
    }
}

fn run_path(file: &Path) -> Option<String> {
    elf::read(file)
        .unwrap()
        .unwrap()
        .run_path
        .map(|run_path| run_path.value)
}

/// What binutils, an independent reader, says the dynamic section holds.
fn readelf(file: &Path) -> String {
    let output = Command::new("readelf")
        .args(["--dynamic", "--wide"])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn lib(name: &str) -> String {
    format!("{}/lib", path(name))
}

#[test]
fn run_paths_keep_what_is_used_also_by_libraries() {
    let fixture = Fixture::new();
    let [a, b, unused] = ["a", "b", "unused"].map(lib);
    let file = fixture.program(&format!(
        "{unused}:{a}:{b}:{a}:/opt/lib:$ORIGIN/../lib:/build/source/.libs"
    ));
    let size = fs::metadata(&file).unwrap().len();
    fixture.fix();
    let expected = format!("{a}:{b}:/opt/lib:$ORIGIN/../lib");
    assert_eq!(run_path(&file).unwrap(), expected);
    assert!(readelf(&file).contains(&format!("Library rpath: [{expected}]")));
    let bytes = fs::read(&file).unwrap();
    assert_eq!(bytes.len() as u64, size);
    assert!(memchr::memmem::find(&bytes, unused.as_bytes()).is_none());
    // A second time there is nothing to do.
    fixture.fix();
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

/// Case B3: Go's own linker and rust-lld give a program the usual interpreter and no run path.
#[test]
fn a_program_that_passed_by_the_wrapper_is_linked_to_the_store() {
    let fixture = Fixture::new();
    let [a, b, unused] = ["a", "b", "unused"].map(lib);
    let file = fixture.program("$ORIGIN/../lib");
    let usual = elf::read(&file).unwrap().unwrap().interpreter.unwrap();
    let name = usual.rsplit('/').next().unwrap();
    let interpreter = format!("{a}/{name}");
    fs::copy(&usual, fixture.physical("a").join("lib").join(name)).unwrap();
    let linkage = Linkage::sample(&interpreter, &[unused, a.clone(), b.clone()]);
    fixture.fix_with(&linkage, &[]);
    let elf = elf::read(&file).unwrap().unwrap();
    assert_eq!(elf.interpreter, Some(interpreter));
    assert_eq!(elf.run_path.unwrap().value, format!("$ORIGIN/../lib:{a}:{b}"));
    assert!(
        readelf(&file).contains("(RPATH)"),
        "libraries of libraries are found by it"
    );
    let bytes = fs::read(&file).unwrap();
    fixture.fix_with(&linkage, &[]);
    assert_eq!(fs::read(&file).unwrap(), bytes, "a second time there is nothing to do");
    // Where the build's libraries have nothing that it needs, it is as it was made.
    let plain = fixture.program("$ORIGIN/../lib");
    let bytes = fs::read(&plain).unwrap();
    fixture.fix_with(&Linkage::sample(&format!("{a}/{name}"), &[lib("unused")]), &[]);
    assert_eq!(fs::read(&plain).unwrap(), bytes);
}

/// What is opened by `dlopen` is nowhere written: `runtime` says it.
#[test]
fn what_runtime_names_stays_on_the_run_path() {
    let fixture = Fixture::new();
    let [a, b, unused] = ["a", "b", "unused"].map(lib);
    let file = fixture.program(&format!("{a}:{b}:{unused}"));
    fixture.fix_with(&Linkage::default(), &[format!("{}/", path("unused"))]);
    assert_eq!(run_path(&file).unwrap(), format!("{a}:{b}:{unused}"));
}

#[test]
fn a_run_path_of_which_nothing_is_used_goes() {
    let fixture = Fixture::new();
    let file = fixture.program(&lib("unused"));
    assert!(readelf(&file).contains("(RPATH)"));
    let before = readelf(&file).lines().count();
    let missing = fixture.fix();
    assert_eq!(run_path(&file), None);
    let text = readelf(&file);
    assert!(!text.contains("(RPATH)") && text.contains("(NEEDED)"), "{text}");
    assert!(text.lines().count() < before);
    assert_eq!(missing.get("libb.so").map(String::as_str), Some("bin/prog"));
}

#[test]
fn what_no_store_path_provides_is_told() {
    let fixture = Fixture::new();
    fixture.program(&format!("{}:{}", lib("a"), lib("b")));
    let missing = fixture.fix();
    let names: Vec<&str> = missing.keys().map(String::as_str).collect();
    assert!(
        names.contains(&"libc.so.6") && names.iter().any(|name| name.contains("/ld-linux")),
        "{names:?}"
    );
    assert!(!names.contains(&"liba.so") && !names.contains(&"libb.so"), "{names:?}");

    // Nobody starts what Cargo works with but Cargo, in a build.
    let tree = fixture.physical("out");
    let work = tree.join("release");
    fs::create_dir_all(work.join("build")).unwrap();
    fs::rename(tree.join("bin"), work.join("build/crate")).unwrap();
    assert_eq!(fixture.fix().len(), missing.len());
    fs::create_dir(work.join(".fingerprint")).unwrap();
    assert_eq!(fixture.fix(), Missing::new());
}

#[test]
fn the_end_of_a_run_path_may_be_another_string() {
    let fixture = Fixture::new();
    let file = fixture.physical("out").join("lib/libx.so");
    // GNU's linker lets the symbol `gnu` share the last bytes of the run path; others, mold among them, do not.
    let rpath = format!("-Wl,-rpath,{}:{}/gnu", lib("a"), lib("unused"));
    let source = "int a(void); int gnu(void) { return a(); }";
    fixture.compile(
        &[
            "-fuse-ld=bfd",
            "-shared",
            "-fPIC",
            "-nostdlib",
            "-o",
            file.to_str().unwrap(),
            "-s",
            &rpath,
            "-la",
        ],
        source,
    );
    assert!(memchr::memmem::find(&fs::read(&file).unwrap(), b"\0gnu\0").is_none());
    fixture.fix();
    assert_eq!(run_path(&file).unwrap(), lib("a"));
    let output = Command::new("readelf")
        .args(["--dyn-syms", "--wide"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains(" gnu\n"));
}

#[test]
fn links_are_followed_within_the_store_alone() {
    let fixture = Fixture::new();
    let places = Places {
        logical: OUT,
        tree: &fixture.physical("out"),
        store: fixture.dir.path(),
        linkage: &Linkage::default(),
        kept: &[],
    };
    let lib_dir = fixture.physical("out").join("lib");
    for (name, target) in [
        (
            "relative",
            "../../11111111111111111111111111111111-a/lib/liba.so".to_owned(),
        ),
        ("absolute", format!("{}/liba.so", lib("a"))),
        ("loop", "loop".to_owned()),
        ("outside", "/etc/passwd".to_owned()),
        ("escape", "../../../../../../../../etc/passwd".to_owned()),
    ] {
        std::os::unix::fs::symlink(target, lib_dir.join(name)).unwrap();
    }
    let found = |name: &str| places.find(&format!("{OUT}/lib/{name}"));
    assert_eq!(found("relative"), Some(fixture.physical("a").join("lib/liba.so")));
    assert_eq!(found("absolute"), found("relative"));
    for name in ["loop", "outside", "escape", "../../../../etc/passwd", "missing"] {
        assert_eq!(found(name), None, "{name}");
    }
}

#[test]
fn damaged_files_are_left_alone() {
    let fixture = Fixture::new();
    let file = fixture.program(&format!("{}:{}:{}", lib("a"), lib("b"), lib("unused")));
    let whole = fs::read(&file).unwrap();
    let damaged = fixture.dir.path().join("damaged");
    for length in (0..whole.len()).step_by(37).take(200) {
        fs::write(&damaged, &whole[..length]).unwrap();
        assert!(elf::read(&damaged).unwrap().is_none_or(|elf| elf.needed.len() <= 2));
    }
    // Every byte of the header and the program headers, made as large as it can be.
    for index in 4..whole.len().min(1024) {
        let mut bytes = whole.clone();
        bytes[index] = 0xff;
        fs::write(&damaged, &bytes).unwrap();
        elf::read(&damaged).unwrap();
    }
}

/// What is for a machine is found wherever it is, and nothing else.
#[test]
fn programs_for_a_machine_are_found() {
    use crate::elf::testing::{AARCH64, Sample, X86_64, program};
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let of = |machine: u16| {
        Sample {
            machine,
            ..program(&[])
        }
        .bytes()
    };
    write("bin/here", &of(X86_64));
    write("bin/there", &of(AARCH64));
    write("lib/deep/down/here", &of(X86_64));
    write("share/text", b"text");
    write("release/.fingerprint/crate/lib", b"text");
    write("release/build/crate/build-script-build", &of(X86_64));
    std::os::unix::fs::symlink("here", dir.path().join("bin/link")).unwrap();
    let found = |system: &str| {
        let mut found = programs_for(dir.path(), Processor::of_system(system).unwrap()).unwrap();
        found.sort();
        found
    };
    assert_eq!(found("x86_64-linux"), ["bin/here", "lib/deep/down/here"]);
    assert_eq!(found("aarch64-linux"), ["bin/there"]);
    assert_eq!(found("s390x-linux"), Vec::<String>::new());
}
