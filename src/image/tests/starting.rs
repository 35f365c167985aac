//! Commands that could not start are refused.

use super::*;

/// A 64-bit little-endian ELF file for `machine` with an interpreter, or a static one.
fn elf(machine: u16, interpreter: Option<&str>) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16] = 3;
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[20] = 1;
    bytes[52] = 64;
    bytes[54] = 56;
    if let Some(interpreter) = interpreter {
        bytes[32] = 64;
        bytes[56] = 1;
        let name = format!("{interpreter}\0");
        let mut segment = vec![0; 56];
        segment[0] = 3;
        segment[8] = 120;
        segment[32] = name.len() as u8;
        bytes.extend(segment);
        bytes.extend(name.bytes());
    }
    bytes
}

const TEXT: &str = "`{app}/bin/x` cannot start: it is a text that does not begin with `#!`, which only a shell would run (a \
                    container's runtime says \"exec format error\")";
const X86_64: u16 = 62;
const AARCH64: u16 = 183;

fn fixture(programs: &[(&str, &[u8])]) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.content(
        "app",
        &[("bin/hello", "#!/bin/sh"), ("bin/sh", ""), ("share/data", "x")],
    );
    let physical = fixture.members[0].physical.clone();
    fs::write(physical.join("bin/sh"), elf(X86_64, None)).unwrap();
    for (path, bytes) in [("bin/sh", &elf(X86_64, None)[..])].iter().chain(programs) {
        fs::write(physical.join(path), bytes).unwrap();
        fs::set_permissions(physical.join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    (fixture.members[0].nar_hash, fixture.members[0].nar_size) = describe(&fixture.logical("app"), &physical);
    fixture
}

fn outcome(fixture: &mut Fixture, entrypoint: &str) -> Result<(), String> {
    fixture.spec.entrypoint = vec![entrypoint.to_owned(), "--flag".to_owned()];
    fixture
        .assemble()
        .map(drop)
        .map_err(|error| fixture.short(&error.to_string()))
}

#[test]
fn commands_are_found_as_a_runtime_finds_them() {
    let mut fixture = fixture(&[]);
    let cases: &[(&str, Result<(), &str>)] = &[
        ("hello", Ok(())),
        ("/bin/hello", Ok(())),
        ("bin/hello", Ok(())),
        ("hallo", Err("the entrypoint `hallo` is not in the image")),
        (
            "/usr/bin/hello",
            Err("the entrypoint `/usr/bin/hello` is not in the image"),
        ),
        ("/bin", Err("the entrypoint `/bin` is not in the image")),
        ("/share/data", Err("the entrypoint `/share/data` is not executable")),
    ];
    for (entrypoint, expected) in cases {
        assert_eq!(
            outcome(&mut fixture, entrypoint),
            expected.map_err(str::to_owned),
            "{entrypoint}"
        );
    }
    fixture.spec.env = BTreeMap::from([("PATH".to_owned(), "/nowhere:relative:/share".to_owned())]);
    assert_eq!(
        outcome(&mut fixture, "hello"),
        Err("the entrypoint `hello` is not in the image".to_owned())
    );
    assert_eq!(
        outcome(&mut fixture, "data"),
        Err("the entrypoint `/share/data` is not executable".to_owned())
    );
    fixture.spec.workdir = Some("/bin".to_owned());
    assert_eq!(outcome(&mut fixture, "./hello"), Ok(()));
    fixture.spec.volumes = vec!["/plugins".to_owned()];
    assert_eq!(
        outcome(&mut fixture, "/plugins/run"),
        Ok(()),
        "it may come with the volume"
    );
}

#[test]
fn a_missing_command_gets_advice() {
    let mut fixture = fixture(&[]);
    fixture.spec.cmd = vec!["helo".to_owned()];
    let help = |fixture: &Fixture| fixture.assemble().unwrap_err().help().unwrap();
    assert_eq!(fixture.error(), "the cmd `helo` is not in the image");
    assert_eq!(help(&fixture), "did you mean `hello`?");
    fixture.spec.cmd = vec!["/usr/bin/hello".to_owned()];
    assert_eq!(help(&fixture), "did you mean `hello`?");
    fixture.spec.cmd = vec!["nginx".to_owned()];
    assert_eq!(
        help(&fixture),
        format!("it was looked for in `{DEFAULT_PATH}`; add the package that has it to `contents` or `root`")
    );
}

#[test]
fn interpreters_are_followed() {
    let missing = "/lib64/ld-linux-x86-64.so.2";
    let dynamic = elf(X86_64, Some(missing));
    let present = elf(X86_64, Some("/bin/sh"));
    let cases: &[(&[u8], Result<(), &str>)] = &[
        (&elf(X86_64, None), Ok(())),
        (&present, Ok(())),
        (b"#! /bin/sh -e\n", Ok(())),
        (b"#!/bin/hello", Ok(())),
        (b"no header at all", Err(TEXT)),
        (b"", Err(TEXT)),
        (
            &dynamic,
            Err("`{app}/bin/x` cannot start: its interpreter `/lib64/ld-linux-x86-64.so.2` is not in the image"),
        ),
        (
            b"#!/usr/bin/python3\nprint()\n",
            Err("`{app}/bin/x` cannot start: its interpreter `/usr/bin/python3` is not in the image"),
        ),
        (
            &elf(AARCH64, None),
            Err("`{app}/bin/x` cannot start: it is for arm64, and the image for linux/amd64"),
        ),
        (b"#!/bin/x", Ok(())),
    ];
    for (bytes, expected) in cases {
        let mut fixture = fixture(&[("bin/x", bytes)]);
        assert_eq!(
            outcome(&mut fixture, "x"),
            expected.map_err(str::to_owned),
            "{}",
            bytes.escape_ascii()
        );
    }
    let mut nested = fixture(&[("bin/y", &dynamic), ("bin/x", b"#!/bin/y\n")]);
    assert_eq!(
        outcome(&mut nested, "x"),
        Err("`{app}/bin/y` cannot start: its interpreter `/lib64/ld-linux-x86-64.so.2` is not in the image".to_owned())
    );
    let mut arm = fixture(&[("bin/x", &elf(AARCH64, None))]);
    arm.platform = "linux/arm64";
    assert_eq!(outcome(&mut arm, "x"), Ok(()));
}

#[test]
fn damaged_headers_are_no_panic() {
    let whole = elf(X86_64, Some("/bin/sh"));
    let mut fixture = fixture(&[("bin/x", &whole)]);
    fixture.spec.entrypoint = vec!["x".to_owned()];
    let recipe = fixture.recipe();
    let settings = Settings::new(&fixture.spec).unwrap();
    let layout = layout::lay_out(&recipe, &settings).unwrap();
    let program = fixture.members[0].physical.join("bin/x");
    for at in 0..whole.len() {
        for (value, length) in [(0, whole.len()), (0x7f, whole.len() - 30), (0xff, whole.len())] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            bytes.truncate(length);
            fs::write(&program, &bytes).unwrap();
            // Refused or not: either is fine.
            let _ = program::check(&recipe, &settings, &layout.files);
        }
    }
}

#[test]
fn unknown_platforms_get_advice() {
    let mut fixture = fixture(&[]);
    fixture.platform = "linux/amd46";
    let error = fixture.assemble().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot make an image for `linux/amd46`: no such platform is known"
    );
    assert_eq!(error.help().unwrap(), "did you mean `linux/amd64`?");
}

#[test]
fn values_that_a_config_cannot_have_are_refused() {
    let change = |change: &dyn Fn(&mut spec::Image)| {
        let mut fixture = Fixture::new();
        change(&mut fixture.spec);
        fixture.error()
    };
    let pair = |key: &str| BTreeMap::from([(key.to_owned(), "v".to_owned())]);
    assert_eq!(
        change(&|spec| spec.env = pair("A=B")),
        "`A=B` cannot be used in `env`: a variable's name is not empty and holds no `=`"
    );
    assert_eq!(
        change(&|spec| spec.labels = pair("dev.layerize.x")),
        "`dev.layerize.x` cannot be used in `labels`: keys that begin with `dev.layerize.` are layerize's own"
    );
    assert_eq!(
        change(&|spec| spec.user = Some("2147483648".to_owned())),
        "`2147483648` cannot be used in `user`: Docker starts no container with a user or group ID above 2147483647"
    );
    assert_eq!(
        change(&|spec| spec.workdir = Some("app".to_owned())),
        "`app` in `workdir` is not a path in an image: it must be absolute and hold no `.`, `..` or NUL"
    );
    let mut fixture = Fixture::new();
    fixture.content("a", &[]);
    fixture.spec.layers.max = Some(limit(1));
    assert_eq!(
        fixture.error(),
        "the image needs at least 2 layers, and the limit is 1; Docker loads no more than 125"
    );
    let recipe = Recipe {
        created: i64::MAX,
        ..fixture.recipe()
    };
    let error = assemble(&recipe, &Resources::default(), &Silent).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot say that an image was created 9223372036854775807 seconds")
    );
}

/// runc, and with it Docker and podman: "exec format error". A shell would run it, and so does `env`, as execvp(3) has it.
#[test]
fn a_text_without_a_first_line_for_the_kernel_cannot_start() {
    let mut fixture = fixture(&[
        ("bin/text", b"echo hello\n"),
        ("bin/empty", b""),
        ("bin/marked", b"\xef\xbb\xbf#!/bin/sh\necho hello\n"),
        ("bin/by-env", b"#!/bin/env text\n"),
        ("bin/env", &elf(X86_64, None)),
        ("bin/windows", b"MZ\x90\0\x03\0\0\0"),
    ]);
    for name in ["text", "empty", "marked"] {
        let error = outcome(&mut fixture, name).unwrap_err();
        assert!(
            error.contains("does not begin with `#!`") && error.contains("exec format error"),
            "{name}: {error}"
        );
        let help = fixture.assemble().unwrap_err().help().unwrap_or_default();
        assert!(
            help.contains("write `#!/bin/sh`") && help.contains("entrypoint = [\"/bin/sh\", \""),
            "{name}: {help}"
        );
    }
    for name in ["by-env", "windows"] {
        assert_eq!(outcome(&mut fixture, name), Ok(()), "{name}");
    }
}
