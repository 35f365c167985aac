//! Roots, files, users and what every image has.

use super::*;

fn text(text: &str) -> ImageFileKind {
    ImageFileKind::Text(text.to_owned())
}

fn find<'a>(lines: &'a [String], path: &str) -> &'a str {
    let starts = |line: &&String| {
        line.split([' '])
            .next()
            .is_some_and(|first| first.trim_end_matches('/') == path)
    };
    lines.iter().find(starts).map_or("", String::as_str)
}

#[test]
fn every_image_has_accounts_and_tmp() {
    assert_eq!(
        Fixture::new().layout().unwrap(),
        [
            "etc/ 755",
            "etc/group 644 \"root:x:0:\\nnogroup:x:65534:\\n\"",
            "etc/nsswitch.conf 644 \"passwd: files\\ngroup: files\\nshadow: files\\nhosts: files dns\\n\"",
            "etc/passwd 644 \"root:x:0:0:root:/root:/bin/sh\\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\\n\"",
            "tmp/ 1777",
        ]
    );
}

#[test]
fn a_root_is_laid_out_with_what_debian_images_have() {
    let mut fixture = Fixture::new();
    fixture.package(
        "bash",
        &[
            ("usr/bin/bash", "#!1"),
            ("usr/bin/rbash", "-> bash"),
            ("var/lib/dpkg/status.d/bash", "Package: bash\n"),
            ("tmp/", ""),
            ("usr/lib64/ld", "#!"),
        ],
    );
    fixture.package(
        "mawk",
        &[
            ("usr/bin/mawk", "#!2"),
            (
                "var/lib/dpkg/alternatives.d/mawk",
                "install /usr/bin/awk awk /usr/bin/mawk 5\n",
            ),
        ],
    );
    let lines = fixture.layout().unwrap();
    let expected = [
        "bin -> usr/bin",
        "lib64 -> usr/lib64",
        "usr/bin/awk -> /usr/bin/mawk",
        "usr/bin/bash 755 \"#!1\"",
        "usr/bin/rbash -> bash",
        "var/lib/dpkg/status.d/bash 644 \"Package: bash\\n\"",
        "tmp/ 1777",
        "var/tmp/ 1777",
        "root/ 700",
        "run/ 755",
        "run/lock/ 1777",
        "proc/ 755",
        "var/log/ 755",
        "var/run -> /run",
    ];
    for line in expected {
        assert!(lines.contains(&line.to_owned()), "{line} in {lines:#?}");
    }
    assert!(find(&lines, "etc/passwd").contains("www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\\n"));
    assert!(find(&lines, "etc/os-release").contains("ID=debian\\n"));
    assert!(!lines.iter().any(|line| line.contains("alternatives.d")));
}

#[test]
fn contents_that_are_debian_packages_get_their_alternatives() {
    let mut fixture = Fixture::new();
    let record = "install /usr/bin/awk awk /usr/bin/mawk 5\n";
    fixture.content(
        "mawk",
        &[
            ("usr/bin/mawk", "#!"),
            ("var/lib/dpkg/alternatives.d/mawk", record),
            ("var/lib/dpkg/status.d/mawk", "x"),
        ],
    );
    assert_eq!(
        without_base(fixture.layout().unwrap()),
        [
            "bin -> usr/bin",
            "usr/ 755",
            "usr/bin/ 755",
            "usr/bin/awk -> /usr/bin/mawk",
            "usr/bin/mawk -> {mawk}/usr/bin/mawk",
            "var/ 755",
            "var/lib/ 755",
            "var/lib/dpkg/ 755",
            "var/lib/dpkg/status.d/ 755",
            "var/lib/dpkg/status.d/mawk -> {mawk}/var/lib/dpkg/status.d/mawk",
        ]
    );
}

#[test]
fn well_known_directories_have_their_modes_whoever_brings_them() {
    let mut fixture = Fixture::new();
    fixture.content("base-files", &[("tmp/", ""), ("root/", ""), ("var/tmp/x", "1")]);
    let lines = fixture.layout().unwrap();
    for line in ["tmp/ 1777", "root/ 700", "var/tmp/ 1777"] {
        assert!(lines.contains(&line.to_owned()), "{line} in {lines:#?}");
    }
}

#[test]
fn what_packages_bring_themselves_is_not_made() {
    let mut fixture = Fixture::new();
    fixture.package(
        "base-files",
        &[
            ("usr/lib/os-release", "ID=x\n"),
            ("etc/os-release", "-> ../usr/lib/os-release"),
            ("etc/nsswitch.conf", "own\n"),
        ],
    );
    let lines = fixture.layout().unwrap();
    assert_eq!(
        find(&lines, "etc/os-release"),
        "etc/os-release -> ../usr/lib/os-release"
    );
    assert_eq!(find(&lines, "etc/nsswitch.conf"), "etc/nsswitch.conf 644 \"own\\n\"");
}

#[test]
fn files_of_every_kind_go_where_the_spec_says() {
    let mut fixture = Fixture::new();
    write_tree(
        fixture.dir.path(),
        &[
            ("conf/app.toml", "a = 1"),
            ("conf/sub/run", "#!x"),
            ("conf/link", "-> app.toml"),
            ("conf/empty/", ""),
            ("one", "#!one"),
        ],
    );
    fixture.user("app", 1000, "/home/app");
    fixture.file("/etc/app", ImageFileKind::Source("conf".to_owned()));
    fixture.file("/opt/one", ImageFileKind::Source("one".to_owned()));
    let private = fixture.file("/srv/private", ImageFileKind::Source("conf".to_owned()));
    (private.mode, private.owner, private.group) = (Some(0o640), Some("app".to_owned()), Some("65534".to_owned()));
    fixture.file("/usr/local/bin/s", ImageFileKind::Symlink("../../x".to_owned()));
    fixture.file("/var/data/", ImageFileKind::Directory).mode = Some(0o2770);
    fixture.file("//motd", text("hi\n")).mode = Some(0o4755);
    let lines: Vec<_> = without_base(fixture.layout().unwrap());
    assert_eq!(
        lines,
        [
            "etc/app/ 755",
            "etc/app/app.toml 644 \"a = 1\"",
            "etc/app/empty/ 755",
            "etc/app/link -> app.toml",
            "etc/app/sub/ 755",
            "etc/app/sub/run 755 \"#!x\"",
            "home/ 755",
            "home/app/ 755 1000:1000",
            "motd 4755 \"hi\\n\"",
            "opt/ 755",
            "opt/one 755 \"#!one\"",
            "srv/ 755",
            "srv/private/ 750 1000:65534",
            "srv/private/app.toml 640 1000:65534 \"a = 1\"",
            "srv/private/empty/ 750 1000:65534",
            "srv/private/link -> app.toml 1000:65534",
            "srv/private/sub/ 750 1000:65534",
            "srv/private/sub/run 640 1000:65534 \"#!x\"",
            "usr/ 755",
            "usr/local/ 755",
            "usr/local/bin/ 755",
            "usr/local/bin/s -> ../../x",
            "var/ 755",
            "var/data/ 2770",
        ]
    );
}

#[test]
fn files_replace_and_open_up_what_contents_bring() {
    let mut fixture = Fixture::new();
    fixture.content(
        "a",
        &[
            ("share/doc/a/readme", "1"),
            ("share/doc/a/sub/x", "1"),
            ("share/doc/b", "2"),
            ("bin/tool", "#!1"),
        ],
    );
    fixture.file("/share/doc/a/mine", text("3"));
    fixture.file("/bin/tool", text("4")).mode = Some(0o755);
    fixture.file("/tmp", ImageFileKind::Directory).mode = Some(0o700);
    let lines = fixture.layout().unwrap();
    assert_eq!(find(&lines, "tmp"), "tmp/ 700");
    assert_eq!(
        without_base(lines),
        [
            "bin/ 755",
            "bin/tool 755 \"4\"",
            "share/ 755",
            "share/doc/ 755",
            "share/doc/a/ 755",
            "share/doc/a/mine 644 \"3\"",
            "share/doc/a/readme -> {a}/share/doc/a/readme",
            "share/doc/a/sub -> {a}/share/doc/a/sub",
            "share/doc/b -> {a}/share/doc/b",
        ]
    );
}

#[test]
fn a_tree_can_be_laid_over_the_whole_image() {
    let mut fixture = Fixture::new();
    fixture.package("bash", &[("usr/bin/bash", "#!1"), ("root/", "")]);
    write_tree(
        fixture.dir.path(),
        &[("rootfs/bin/mine", "#!2"), ("rootfs/root/.profile", "3")],
    );
    let over = fixture.file("/", ImageFileKind::Source("rootfs".to_owned()));
    (over.mode, over.owner) = (Some(0o600), Some("33".to_owned()));
    let lines = fixture.layout().unwrap();
    assert_eq!(find(&lines, "usr/bin/mine"), "usr/bin/mine 600 33:0 \"#!2\"");
    assert_eq!(
        find(&lines, "root"),
        "root/ 700",
        "a directory that was there keeps its mode and owner"
    );
}

#[test]
fn misplaced_files_are_refused() {
    let cases: &[(&str, ImageFileKind, &str)] = &[
        (
            "etc/x",
            text(""),
            "`etc/x` in `files` is not a path in an image: it must be absolute and hold no `.`, `..` or NUL",
        ),
        (
            "/etc/../x",
            text(""),
            "`/etc/../x` in `files` is not a path in an image: it must be absolute and hold no `.`, `..` or NUL",
        ),
        (
            "/",
            text(""),
            "cannot put a file at `/`: the image has a directory there",
        ),
        (
            "/bin",
            text(""),
            "cannot put a file at `/bin`: the image has a directory there",
        ),
        (
            "/bin/x/y",
            text(""),
            "cannot put anything at `/bin/x/y`: `/bin/x` is not a directory in the image",
        ),
        (
            "/layerize/store",
            text(""),
            "cannot put a file at `/layerize/store`: the image has a directory there",
        ),
        (
            "/gone/x",
            text(""),
            "cannot put anything at `/gone/x`: `/gone` is not a directory in the image",
        ),
    ];
    for (path, kind, expected) in cases {
        let mut fixture = Fixture::new();
        fixture.content("a", &[("bin/x", "1"), ("gone", "-> nowhere")]);
        fixture.file(path, kind.clone());
        assert_eq!(fixture.error(), *expected);
        assert!(path.starts_with('/') || fixture.assemble().unwrap_err().help() == Some("write `/etc/x`".to_owned()));
    }
    let mut fixture = Fixture::new();
    fixture.content("a", &[("bin/x", "1")]);
    let inside = format!("{}/bin/y", fixture.logical("a"));
    fixture.file(&inside, text(""));
    assert_eq!(
        fixture.error(),
        "cannot put anything at `{a}/bin/y`: store paths never change"
    );
    fixture.spec.files.clear();
    fixture.file("/a", text("")).mode = Some(0o10000);
    assert_eq!(fixture.error(), "the mode 10000 of `/a` in `files` is more than 7777");
    fixture.spec.files.clear();
    fixture.file("/a", text(""));
    fixture.file("/a/", text(""));
    assert_eq!(fixture.error(), "`files` has `/a` twice");
    fixture.spec.files.clear();
    fixture.file("/a", ImageFileKind::Source("missing".to_owned()));
    assert!(fixture.error().starts_with("cannot read `"), "{}", fixture.error());
    nix::unistd::mkfifo(&fixture.dir.path().join("missing"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(
        fixture.error().contains("neither a file, a directory nor a symlink"),
        "{}",
        fixture.error()
    );
}

#[test]
fn names_of_users_and_groups_must_be_in_the_image() {
    let mut fixture = Fixture::new();
    fixture.user("app", 1000, "/");
    let file = fixture.file("/x", text(""));
    file.owner = Some("ap".to_owned());
    let error = fixture.assemble().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`files` names the user `ap`, which the image does not have"
    );
    assert_eq!(error.help().unwrap(), "did you mean `app`?");
    let file = fixture.file("/x", text(""));
    file.group = Some("wheel".to_owned());
    let error = fixture.assemble().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`files` names the group `wheel`, which the image does not have"
    );
    assert_eq!(
        error.help().unwrap(),
        "add `wheel` to the image's `users`, or write the group's number"
    );
    fixture.spec.files.clear();
    for (user, expected) in [
        ("1000:1000", None),
        ("app:nogroup", None),
        (
            "www-data",
            Some("`user` names the user `www-data`, which the image does not have"),
        ),
        ("app:", Some("`user` names the group ``, which the image does not have")),
        ("0:x", Some("`user` names the group `x`, which the image does not have")),
    ] {
        fixture.spec.user = Some(user.to_owned());
        assert_eq!(
            fixture.layout().err().map(|error| error.to_string()).as_deref(),
            expected,
            "{user}"
        );
    }
}

#[test]
fn an_image_may_bring_its_own_accounts() {
    let mut fixture = Fixture::new();
    fixture.file("/etc/passwd", text("me:x:7:8::/:/bin/sh\n"));
    fixture.file("/x", text("")).owner = Some("me".to_owned());
    fixture.spec.user = Some("me".to_owned());
    let lines = fixture.layout().unwrap();
    assert_eq!(find(&lines, "x"), "x 644 7:0 \"\"");
    fixture.user("app", 1, "/");
    let error = fixture.assemble().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot add the `users`: the image has a `/etc/passwd` of its own"
    );
    assert_eq!(error.help().unwrap(), "remove `users`, or what brings `/etc/passwd`");
}

#[test]
fn working_directory_volumes_and_homes_are_made_where_they_are_missing() {
    let mut fixture = Fixture::new();
    fixture.content("a", &[("share/www/index", "1")]);
    fixture.user("app", 5, "/srv/app");
    fixture.user("other", 6, "/share/www");
    fixture.spec.workdir = Some("/srv/app/work/".to_owned());
    fixture.spec.volumes = vec!["/var/lib/data".to_owned()];
    assert_eq!(
        without_base(fixture.layout().unwrap()),
        [
            "share/ 755",
            "share/www -> {a}/share/www",
            "srv/ 755",
            "srv/app/ 755 5:5",
            "srv/app/work/ 755",
            "var/ 755",
            "var/lib/ 755",
            "var/lib/data/ 755",
        ]
    );
    fixture.spec.workdir = Some("/etc/passwd".to_owned());
    assert_eq!(
        fixture.error(),
        "cannot put anything at `/etc/passwd`: `/etc/passwd` is not a directory in the image"
    );
}

#[test]
fn permissions_apply_to_whatever_is_there_and_the_last_one_wins() {
    let mut fixture = Fixture::new();
    fixture.content("app", &[("bin/app", "x!"), ("share/text", "text")]);
    fixture.package("base", &[("usr/share/doc", "doc")]);
    fixture.user("web", 33, "/srv");
    let pattern = |text: &str| spec::PermissionPaths::Pattern(text.to_owned());
    let path = |text: &str| spec::PermissionPaths::Path(text.to_owned());
    fixture.permission(pattern("/srv**"), 0o640);
    fixture.permission(path("/srv"), 0o711);
    fixture.permission(path("/layerize"), 0o750);
    fixture.permission(path("/usr/share/doc"), 0o600);
    let layout = fixture.layout().unwrap();
    for line in ["srv/ 711", "layerize/ 750", "usr/share/doc 600 \"doc\""] {
        assert!(
            layout.iter().any(|found| found.starts_with(line)),
            "`{line}` is missing in {layout:#?}"
        );
    }
    fixture.permission(pattern("/layerize/store/*-app/share/*"), 0o400);
    fixture.layout().unwrap();
    fixture.permission(path("/absent"), 0o400);
    let error = fixture.layout().unwrap_err();
    assert!(error.to_string().contains("`permissions` rule `/absent`"), "{error}");
    fixture.spec.permissions.pop();
    fixture.spec.permissions[0].owner = Some("nobody-here".to_owned());
    let error = fixture.layout().unwrap_err();
    assert!(
        error.to_string().contains("`permissions` names the user `nobody-here`"),
        "{error}"
    );
}

/// What a file has of a rule is in the layer that holds it: of a package's file, of a content, of a file of the spec.
#[test]
fn capabilities_go_to_regular_files_wherever_they_come_from() {
    let mut fixture = Fixture::new();
    fixture.content("app", &[("bin/app", "#!"), ("bin/other", "#!"), ("share/text", "text")]);
    fixture.package(
        "base",
        &[
            ("usr/bin/ping", "#!"),
            ("usr/bin/pong", "-> ping"),
            ("usr/share/doc", "doc"),
        ],
    );
    fixture.file("/opt/serve", ImageFileKind::Text("x".to_owned())).mode = Some(0o755);
    let rule = |paths: spec::PermissionPaths, text: Option<&str>| spec::Permission {
        paths,
        mode: None,
        owner: None,
        group: None,
        capabilities: Some(text.map_or_else(Default::default, |text| text.parse().unwrap())),
    };
    let pattern = |text: &str| spec::PermissionPaths::Pattern(text.to_owned());
    let path = |text: &str| spec::PermissionPaths::Path(text.to_owned());
    fixture.spec.permissions = vec![
        rule(pattern("/**/bin/*"), Some("cap_net_raw=p")),
        rule(path("/opt/serve"), Some("cap_net_bind_service=ep")),
        rule(pattern("/layerize/store/*-app/bin/other"), None),
    ];
    let image = fixture.assemble().unwrap();
    assert_sound(&image);
    let inspected = crate::audit::inspect(&image, crate::audit::InspectOptions { layers: true }).unwrap();
    let capable: Vec<String> = inspected
        .layers
        .iter()
        .enumerate()
        .flat_map(|(layer, report)| {
            let of_layer = report.capabilities.iter();
            of_layer.map(move |(path, text)| format!("{layer} {path} {text}"))
        })
        .map(|line| fixture.short(&line))
        .collect();
    assert_eq!(
        capable,
        [
            "1 {app}/bin/app cap_net_raw=p",
            "2 /opt/serve cap_net_bind_service=ep",
            "2 /usr/bin/ping cap_net_raw=p",
        ]
    );
    // A link has none: the kernel asks the file that it leads to.
    let told = |fixture: &Fixture| {
        let error = fixture.layout().unwrap_err();
        (fixture.short(&error.to_string()), error.help().unwrap_or_default())
    };
    let no_file = "gives capabilities, and matches no regular file of the image";
    let in_store = "write `pattern = \"/layerize/store/*-app/bin/app\"`";
    for (link, fault, leads) in [
        (
            "/usr/bin/pong",
            no_file,
            "it leads to `/usr/bin/ping`: write `path = \"/usr/bin/ping\"`",
        ),
        ("/usr/bin/app", no_file, in_store),
        ("/bin/app", "matches nothing in the image", in_store),
    ] {
        fixture.spec.permissions = vec![rule(path(link), Some("=p"))];
        let (error, help) = told(&fixture);
        assert_eq!(error, format!("`permissions` rule `{link}` {fault}"));
        assert!(help.contains(leads), "{help}");
    }
    fixture.spec.permissions = vec![rule(pattern("/usr/share"), Some("=p"))];
    assert_eq!(told(&fixture).1, "");
}

#[test]
fn nothing_may_stand_where_something_is_generated() {
    let mut fixture = Fixture::new();
    fixture.file("/var/db/x", ImageFileKind::Text("mine".to_owned()));
    fixture.generate("/var/db", GeneratedKind::Directory(0o700));
    let layout = fixture.layout().unwrap();
    assert!(layout.iter().any(|line| line.starts_with("var/db/ 700")), "{layout:#?}");
    fixture.generate("/var/db/x", GeneratedKind::File(b"made".as_slice().into()));
    let error = fixture.layout().unwrap_err();
    assert!(error.to_string().contains("`/var/db/x`"), "{error}");
}

/// A package's modes, owners, capabilities and hard links, as its record has them, are in its layer; what its scripts would
/// do to files is told where nothing of the image says it.
#[test]
fn a_package_keeps_what_a_store_path_cannot_hold() {
    let record = r#"{
        "attributes": {
            "root": {"mode": 448, "uid": 0, "gid": 0},
            "etc/secret": {"mode": 416, "uid": 0, "gid": 42},
            "usr/bin/b": {"mode": 2541, "uid": 0, "gid": 0},
            "usr/bin/a.b": {"mode": 2541, "uid": 0, "gid": 0}
        },
        "capabilities": {"usr/bin/ping": "cap_net_raw=ep"},
        "links": [["usr/bin/a.b", "usr/bin/b"]],
        "setcap": {"usr/bin/tool": "cap_kill=p"}
    }"#;
    let mut fixture = Fixture::new();
    fixture.package(
        "one",
        &[
            ("root/.profile", ""),
            ("etc/secret", "s"),
            ("etc/plain", "p"),
            ("usr/bin/b", "#!b"),
            ("usr/bin/a.b", "#!b"),
            ("usr/bin/ping", "#!p"),
            ("usr/bin/tool", "#!t"),
            ("var/lib/dpkg/attributes.d/one", record),
        ],
    );
    fixture.package("two", &[("root/.bashrc", ""), ("etc/other", "o")]);
    let mut told = Told::default();
    let image = assemble(&fixture.recipe(), &Resources::default(), &told).unwrap();
    assert_sound(&image);
    let mut lines: Vec<String> = image.layers.iter().flat_map(entries).collect();
    lines.retain(|line| {
        ["root", "etc/secret", "etc/plain", "usr/bin/"]
            .iter()
            .any(|part| line.contains(part))
    });
    for expected in [
        "d 700 0:0 root",
        "f 640 0:42 etc/secret",
        "f 644 0:0 etc/plain",
        "f 4755 0:0 usr/bin/a.b",
        "h 4755 0:0 usr/bin/b -> usr/bin/a.b",
        "f 755 0:0 usr/bin/ping",
    ] {
        assert!(lines.contains(&expected.to_owned()), "{expected}: {lines:#?}");
    }
    assert!(
        !lines
            .iter()
            .any(|line| line.starts_with("d 755") && line.ends_with(" root")),
        "{lines:#?}"
    );
    let expected = "`deb:one` brings file capabilities, which are not kept: `/usr/bin/tool` (cap_kill=p); where an image is to \
                    have them, write `permissions = [{ path = \"/usr/bin/tool\", capabilities = [\"cap_kill=p\"] }]`";
    assert_eq!(told.take(), [expected]);
    fixture.spec.permissions.push(spec::Permission {
        paths: spec::PermissionPaths::Path("/usr/bin/tool".to_owned()),
        mode: None,
        owner: None,
        group: None,
        capabilities: Some(Default::default()),
    });
    assemble(&fixture.recipe(), &Resources::default(), &told).unwrap();
    assert_eq!(told.take(), Vec::<String>::new());
}

/// What was warned of.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<String>>);

impl Told {
    fn take(&mut self) -> Vec<String> {
        std::mem::take(self.0.get_mut().unwrap())
    }
}

impl crate::event::Reporter for Told {
    fn report(&self, event: crate::event::Event) {
        if let crate::event::Event::Warning { text } = event {
            self.0.lock().unwrap().push(text);
        }
    }
}
