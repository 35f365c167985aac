//! Programs and libraries that could not be loaded are errors: what the kernel and the loader would say in a container
//! ("no such file or directory", "cannot open shared object file") is said when the image is made.

use super::*;
use crate::elf::testing::{AARCH64, LOADER, Sample, X86_64, library, program};

const LIBC_DIR: &str = "usr/lib/x86_64-linux-gnu";

/// A Debian root with a C library and `sh`, and room for more.
fn debian() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.package(
        "libc6",
        &[
            ("usr/lib64/none", ""),
            (&format!("{LIBC_DIR}/none"), ""),
            ("usr/bin/none", ""),
        ],
    );
    put(&fixture, "deb-libc6", "usr/lib64/ld-linux-x86-64.so.2", &loader());
    put(
        &fixture,
        "deb-libc6",
        &format!("{LIBC_DIR}/libc.so.6"),
        &library(&["ld-linux-x86-64.so.2"]),
    );
    put(&fixture, "deb-libc6", "usr/bin/sh", &program(&["libc.so.6"]));
    put(&fixture, "deb-libc6", "usr/bin/env", &program(&["libc.so.6"]));
    fixture
}

fn loader() -> Sample<'static> {
    Sample {
        soname: Some("ld-linux-x86-64.so.2"),
        ..library(&[])
    }
}

fn put(fixture: &Fixture, tree: &str, path: &str, sample: &Sample<'_>) {
    put_bytes(fixture, tree, path, &sample.bytes());
}

fn put_bytes(fixture: &Fixture, tree: &str, path: &str, bytes: &[u8]) {
    let path = fixture.dir.path().join("store").join(tree).join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Adds a package of the spec, or another store path, with these files.
fn app(fixture: &mut Fixture, name: &str, files: &[(&str, Sample<'_>)]) {
    fixture.content(name, &[("share/x", "")]);
    let base = fixture.members.last().unwrap().physical.clone();
    let base = base.file_name().unwrap().to_str().unwrap().to_owned();
    for (path, sample) in files {
        put(fixture, &base, path, sample);
    }
}

/// What is wrong with the image, judged without being packed: the trees were changed after they were hashed.
fn judge(fixture: &Fixture) -> Result<Vec<String>, ImageError> {
    let recipe = fixture.recipe();
    let settings = Settings::new(&fixture.spec)?;
    let layout = layout::lay_out(&recipe, &settings)?;
    program::check(&recipe, &settings, &layout.files)
}

#[track_caller]
fn refused(fixture: &Fixture, message: &str, help: &str) {
    let error = judge(fixture).unwrap_err();
    assert_eq!(fixture.short(&error.to_string()), message);
    assert_eq!(fixture.short(&error.help().unwrap()), help);
}

#[track_caller]
fn taken(fixture: &Fixture) {
    if let Err(error) = judge(fixture) {
        panic!("{error}");
    }
}

fn linked<'a>(needed: &'a [&'a str]) -> Sample<'a> {
    Sample {
        rpath: Some("/layerize/store/x-libs/lib"),
        ..program(needed)
    }
}

/// B9: a C++ program without its runtime was a warning, or nothing where the package was reused.
#[test]
fn a_cpp_program_without_its_runtime_is_an_error() {
    let mut fixture = debian();
    app(
        &mut fixture,
        "app",
        &[("bin/app", linked(&["libstdc++.so.6", "libc.so.6"]))],
    );
    fixture.spec.entrypoint = vec!["app".to_owned()];
    let message = "`{app}/bin/app` cannot start: `libstdc++.so.6` is not in the image where it is looked for \
                   (/layerize/store/x-libs/lib, /lib64, /usr/lib64, /lib/x86_64-linux-gnu, /usr/lib/x86_64-linux-gnu, /lib \
                   and 1 more)";
    // This loader has no directories built in: the usual ones of its name, in some order.
    let error = judge(&fixture).unwrap_err().to_string();
    assert!(fixture.short(&error).starts_with(&message[..90]), "{error}");
    assert_eq!(
        fixture.short(&judge(&fixture).unwrap_err().help().unwrap()),
        "add `deb:libstdc++6` to `libraries` of the package that makes `app`; where it comes from elsewhere at run time, \
         `allow-missing = [\"libstdc++.so.6\"]`"
    );
    fixture.spec.allow_missing = vec!["libstdc++.so.6".to_owned()];
    taken(&fixture);
    fixture.spec.allow_missing.clear();
    fixture.package("libstdc++6", &[(&format!("{LIBC_DIR}/y"), "")]);
    put(
        &fixture,
        "deb-libstdc++6",
        &format!("{LIBC_DIR}/libstdc++.so.6"),
        &library(&["libc.so.6"]),
    );
    taken(&fixture);
}

/// B9: numpy's extension modules are loaded by an interpreter that does not have the C++ runtime either.
#[test]
fn a_wheels_libraries_are_checked_without_a_program() {
    let mut fixture = debian();
    let site = "lib/python3.11/site-packages";
    let files = [
        (
            format!("{site}/numpy/core/m.cpython-311.so"),
            Sample {
                rpath: Some("$ORIGIN/../../numpy.libs"),
                ..library(&["libopenblas-1.so", "libc.so.6"])
            },
        ),
        (
            format!("{site}/numpy.libs/libopenblas-1.so"),
            library(&["libgfortran-2.so", "libc.so.6"]),
        ),
        (format!("{site}/numpy.libs/libgfortran-2.so"), library(&["libc.so.6"])),
    ];
    let files: Vec<(&str, Sample<'_>)> = files
        .iter()
        .map(|(path, sample)| (path.as_str(), sample.clone()))
        .collect();
    app(&mut fixture, "web", &files);
    taken(&fixture);
    let physical = fixture.members[0].physical.clone();
    let base = physical.file_name().unwrap().to_str().unwrap().to_owned();
    put(
        &fixture,
        &base,
        &format!("{site}/numpy.libs/libgfortran-2.so"),
        &library(&["libstdc++.so.6"]),
    );
    let error = judge(&fixture).unwrap_err();
    let text = fixture.short(&error.to_string());
    assert!(
        text.contains("numpy.libs/libgfortran-2.so` cannot be loaded: `libstdc++.so.6` is not in the image"),
        "{text}"
    );
    assert!(error.help().unwrap().starts_with("add `deb:libstdc++6` to `root`"));
    // A library may have been loaded by whoever loads this one: to be in the image is enough.
    put(
        &fixture,
        &base,
        "lib/elsewhere/libstdc++.so.6",
        &library(&["libc.so.6"]),
    );
    taken(&fixture);
}

/// Debian's packages bring plugins for what is not installed; what the entrypoint needs of them must be there.
#[test]
fn of_debian_packages_the_entrypoints_needs_are_checked() {
    let mut fixture = debian();
    put(
        &fixture,
        "deb-libc6",
        "usr/lib/plugins/libplugin.so",
        &library(&["libnowhere.so.1"]),
    );
    put(&fixture, "deb-libc6", "usr/bin/other", &program(&["libnowhere.so.1"]));
    fixture.spec.entrypoint = vec!["sh".to_owned()];
    taken(&fixture);
    fixture.spec.entrypoint = vec!["other".to_owned()];
    let error = judge(&fixture).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("`/usr/bin/other` cannot start: `libnowhere.so.1` is not in the image")
    );
    assert_eq!(
        error.help().unwrap(),
        "add the package that has it to `root`; where it comes from elsewhere at run time, \
         `allow-missing = [\"libnowhere.so.1\"]`"
    );
}

#[test]
fn a_debian_program_among_contents_is_told_to_be_a_root() {
    let mut fixture = Fixture::new();
    app(&mut fixture, "nodejs-18", &[("usr/bin/node", program(&["libc.so.6"]))]);
    let physical = fixture.members[0].physical.clone();
    write_tree(&physical, &[("var/lib/dpkg/status.d/nodejs", "Package: nodejs\n")]);
    taken(&fixture);
    fixture.spec.entrypoint = vec!["node".to_owned()];
    refused(
        &fixture,
        "`{nodejs-18}/usr/bin/node` cannot start: its interpreter `/lib64/ld-linux-x86-64.so.2` is not in the image",
        "write `root = [\"deb:nodejs\"]` in place of `contents`: Debian's programs look for everything at `/`",
    );
}

#[test]
fn an_unlinked_program_is_told_both_ways() {
    let mut fixture = Fixture::new();
    app(&mut fixture, "app", &[("bin/app", program(&["libc.so.6"]))]);
    refused(
        &fixture,
        "`{app}/bin/app` cannot start: its interpreter `/lib64/ld-linux-x86-64.so.2` is not in the image",
        "link it to the store with `libraries = [\"deb:libc6-dev\"]` in its package, or add `deb:libc6` to `root`",
    );
    fixture.spec.allow_missing = vec![LOADER.to_owned()];
    taken(&fixture);
}

#[test]
fn scripts_are_followed_to_what_env_runs() {
    let mut fixture = debian();
    app(&mut fixture, "app", &[]);
    let base = fixture.members[0]
        .physical
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    fixture.spec.entrypoint = vec!["x".to_owned()];
    let judge_script = |text: &str| {
        put_bytes(&fixture, &base, "bin/x", text.as_bytes());
        judge(&fixture)
            .map(drop)
            .map_err(|error| (fixture.short(&error.to_string()), error.help().unwrap()))
    };
    let cannot = |reason: &str, help: &str| Err((format!("`{{app}}/bin/x` cannot start: {reason}"), help.to_owned()));
    for text in [
        "#!/bin/sh\n",
        "#!/usr/bin/env sh\n",
        "#!/usr/bin/env -S sh -e\n",
        "#!/usr/bin/env A=1\n",
    ] {
        assert_eq!(judge_script(text), Ok(()), "{text}");
    }
    assert_eq!(
        judge_script("#!/bin/bash\n"),
        cannot(
            "its interpreter `/bin/bash` is not in the image",
            "add `deb:bash` to `root`"
        )
    );
    assert_eq!(
        judge_script("#!/usr/bin/env python3\n"),
        cannot(
            "`env` finds no `python3` in the image's `PATH`",
            "add `deb:python3` to `root`"
        )
    );
    assert_eq!(
        judge_script("#!/usr/bin/env -S my-tool x\n"),
        cannot(
            "`env` finds no `my-tool` in the image's `PATH`",
            "add the package that has `my-tool` to `contents` or `root`, or set `PATH` in `env`"
        )
    );
    assert_eq!(
        judge_script("#!/usr/bin/env sh -e\n"),
        cannot(
            "the kernel gives `env` the rest of the line as one word, and no program is called `sh -e`",
            "write `#!/usr/bin/env -S sh -e`"
        )
    );
    assert_eq!(
        judge_script("#!/bin/sh\r\nexit\r\n"),
        cannot(
            "its lines end as on Windows: the kernel takes the carriage return as part of the first line",
            "convert it: `sed -i 's/\\r$//' FILE`"
        )
    );
    // What `env` runs is followed in its turn.
    put(&fixture, &base, "bin/tool", &program(&["libnowhere.so.1"]));
    fixture.spec.allow_missing.clear();
    put_bytes(&fixture, &base, "bin/x", b"#!/usr/bin/env tool\n");
    assert!(
        judge(&fixture)
            .unwrap_err()
            .to_string()
            .contains("/bin/tool` cannot start: `libnowhere.so.1`")
    );
}

#[test]
fn a_dangling_link_is_named_with_its_target() {
    let mut fixture = debian();
    let root = fixture.dir.path().join("store/deb-libc6/usr");
    symlink("/etc/alternatives/node", root.join("bin/node")).unwrap();
    symlink("libz.so.1.2.13", root.join("lib/x86_64-linux-gnu/libz.so.1")).unwrap();
    app(&mut fixture, "app", &[("bin/app", program(&["libz.so.1"]))]);
    let error = judge(&fixture).unwrap_err().to_string();
    let expected = ": `/usr/lib/x86_64-linux-gnu/libz.so.1` is a symlink to `libz.so.1.2.13`, which leads nowhere";
    assert!(error.ends_with(expected), "{error}");
    fixture.spec.allow_missing = vec!["libz.so.1".to_owned()];
    let base = fixture.members[0]
        .physical
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    put_bytes(&fixture, &base, "bin/x", b"#!/usr/bin/node\n");
    fixture.spec.entrypoint = vec!["x".to_owned()];
    refused(
        &fixture,
        "`{app}/bin/x` cannot start: its interpreter `/usr/bin/node` is not in the image: `/usr/bin/node` is a symlink to \
         `/etc/alternatives/node`, which leads nowhere",
        "add `deb:nodejs` to `root`",
    );
}

#[test]
fn the_images_environment_is_the_loaders() {
    let mut fixture = debian();
    app(
        &mut fixture,
        "app",
        &[("bin/app", program(&["liba.so.1"])), ("opt/liba.so.1", library(&[]))],
    );
    let error = judge(&fixture).unwrap_err();
    let help = fixture.short(&error.help().unwrap());
    assert!(
        help.starts_with(
            "the image has `{app}/opt/liba.so.1`, where the loader does not look: `env = { LD_LIBRARY_PATH = "
        ),
        "{help}"
    );
    let directory = format!("/nowhere:{}/opt", fixture.logical("app"));
    fixture.spec.env.insert("LD_LIBRARY_PATH".to_owned(), directory);
    taken(&fixture);
}

/// Packages of Node bring the same addon for glibc, musl and other processors; only one is ever loaded.
#[test]
fn libraries_for_another_c_library_or_processor_are_passed_by() {
    let mut fixture = debian();
    let files = [
        ("prebuilds/linux-x64/addon.glibc.node", library(&["libc.so.6"])),
        (
            "prebuilds/linux-x64/addon.musl.node",
            library(&["libc.musl-x86_64.so.1"]),
        ),
        (
            "prebuilds/linux-arm64/addon.node",
            Sample {
                machine: AARCH64,
                ..library(&["libnowhere.so.1"])
            },
        ),
        (
            "prebuilds/linux-arm64/tool",
            Sample {
                machine: AARCH64,
                ..program(&["libnowhere.so.1"])
            },
        ),
    ];
    app(&mut fixture, "app", &files);
    taken(&fixture);
}

#[test]
fn static_programs_and_what_is_not_built_here_need_nothing() {
    let mut fixture = Fixture::new();
    app(
        &mut fixture,
        "app",
        &[(
            "bin/static",
            Sample {
                machine: X86_64,
                ..Sample::default()
            },
        )],
    );
    taken(&fixture);
    // A source that is kept for its data may hold any file.
    app(
        &mut fixture,
        "crates",
        &[("tests/data/prog", program(&["libnowhere.so.1"]))],
    );
    assert!(judge(&fixture).is_err());
    fixture.members[1].is_built = false;
    taken(&fixture);
}

#[test]
fn all_faults_are_told_at_once() {
    let mut fixture = debian();
    let needs = ["libcuda.so.1", "libgcc_s.so.1"];
    app(
        &mut fixture,
        "app",
        &[("bin/a", program(&needs)), ("bin/b", program(&["libgcc_s.so.1"]))],
    );
    let error = judge(&fixture).unwrap_err();
    let text = fixture.short(&error.to_string());
    assert!(
        text.starts_with("3 programs or libraries of the image lack what they need\n  `{app}/bin/a` cannot start"),
        "{text}"
    );
    let help = error.help().unwrap();
    let lines: Vec<&str> = help.lines().collect();
    assert_eq!(lines.len(), 2, "one each for what is missing: {help}");
    assert!(
        lines[0].starts_with("NVIDIA's container runtime brings it") && lines[0].contains("allow-missing"),
        "{help}"
    );
}

/// Where the image has the locale, programs are told; who says otherwise is heard.
#[test]
fn texts_are_utf_8_by_default() {
    let language = |fixture: &Fixture| {
        let mut settings = Settings::new(&fixture.spec).unwrap();
        locale::set_default(&fixture.recipe(), &mut settings);
        settings.env.get("LANG").cloned()
    };
    let mut fixture = debian();
    assert_eq!(language(&fixture), None, "the image does not have it");
    fixture.package("libc-bin", &[("usr/lib/locale/C.utf8/LC_CTYPE", "")]);
    assert_eq!(language(&fixture).as_deref(), Some("C.UTF-8"));
    fixture.spec.utf8 = false;
    assert_eq!(language(&fixture), None);
    fixture.spec.utf8 = true;
    for name in ["LC_CTYPE", "LC_ALL"] {
        fixture.spec.env = [(name.to_owned(), String::new())].into();
        assert_eq!(language(&fixture), None, "{name}");
    }
    fixture.spec.env = [("LANG".to_owned(), "de_DE.UTF-8".to_owned())].into();
    assert_eq!(language(&fixture).as_deref(), Some("de_DE.UTF-8"));
}

/// The time zone is what the spec says, whatever packages and scripts made of it; files of few packages make no system.
#[test]
fn a_time_zone_is_set_in_an_image_of_any_kind() {
    let mut fixture = Fixture::new();
    fixture.content("app", &[("bin/app", "")]);
    fixture.package("tzdata", &[("usr/share/zoneinfo/Europe/Berlin", "TZif")]);
    fixture.root[0].is_part = true;
    fixture.spec.timezone = Some(crate::spec::Spanned::nowhere("Europe/Berlin".to_owned()));
    let nodes = fixture.layout().unwrap();
    for node in [
        "etc/localtime -> /usr/share/zoneinfo/Europe/Berlin",
        "etc/timezone 644 \"Europe/Berlin\\n\"",
        "usr/share/zoneinfo/Europe/Berlin 644 \"TZif\"",
    ] {
        assert!(nodes.iter().any(|found| found == node), "{node}: {nodes:#?}");
    }
    assert!(
        nodes.iter().all(|node| !node.starts_with("etc/os-release")),
        "{nodes:#?}"
    );
    fixture.root[0].is_part = false;
    fixture.package(
        "other",
        &[
            ("etc/timezone", "Etc/UTC\n"),
            ("etc/localtime", "-> /usr/share/zoneinfo/Etc/UTC"),
        ],
    );
    let nodes = fixture.layout().unwrap();
    assert!(
        nodes.iter().any(|node| node == "etc/timezone 644 \"Europe/Berlin\\n\""),
        "{nodes:#?}"
    );
    assert!(
        nodes.iter().any(|node| node.starts_with("etc/os-release")),
        "{nodes:#?}"
    );
}

/// B5: `C.UTF-8` is a file of glibc's, which a minimal image does not have, and programs fell back to ASCII unsaid.
#[test]
fn a_locale_that_the_image_lacks_is_told() {
    let told = |fixture: &Fixture| {
        let settings = Settings::new(&fixture.spec).unwrap();
        let layout = layout::lay_out(&fixture.recipe(), &settings).unwrap();
        locale::missing(&settings, &layout.files).unwrap()
    };
    let mut fixture = debian();
    let set = |fixture: &mut Fixture, name: &str, value: &str| {
        fixture.spec.env.insert(name.to_owned(), value.to_owned());
    };
    assert_eq!(told(&fixture), None, "nothing is asked for");
    set(&mut fixture, "LANG", "C.UTF-8");
    let text = told(&fixture).unwrap();
    assert!(
        text.starts_with("`LANG` is `C.UTF-8`") && text.ends_with("add `deb:libc-bin` to `root`"),
        "{text}"
    );
    set(&mut fixture, "LC_ALL", "en_US.UTF-8");
    let text = told(&fixture).unwrap();
    assert!(
        text.starts_with("`LC_ALL` is `en_US.UTF-8`") && text.contains("`deb:locales-all`"),
        "{text}"
    );
    set(&mut fixture, "LC_ALL", "POSIX");
    assert_eq!(told(&fixture), None, "it is built in, and decides");
    fixture.spec.env.remove("LC_ALL");
    fixture.package("libc-bin", &[("usr/lib/locale/C.utf8/LC_CTYPE", "")]);
    assert_eq!(told(&fixture), None, "the image has it");

    // musl needs no files for it.
    let mut other = Fixture::new();
    other.content("app", &[("bin/app", "")]);
    set(&mut other, "LANG", "C.UTF-8");
    assert_eq!(told(&other), None);
}
