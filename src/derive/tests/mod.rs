//! Tests of plans: what steps a spec comes to, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::debs::Resolution;
use super::*;
use crate::digest::Digest;
use crate::graph;
use crate::spec::{
    self, GitCommit, Lock, LockedDeb, LockedDebSource, LockedFile, LockedGit, LockedUrl, Source, Workspace,
};
use crate::store_path::StoreHash;

mod certificates;
mod cross;
mod exclude;
mod hashes;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/derive")
}

fn check_golden(name: &str, actual: &str) {
    let path = fixtures().join(name);
    #[expect(clippy::disallowed_methods, reason = "set by hand to write the expected files anew")]
    let bless = std::env::var_os("LAYERIZE_BLESS").is_some();
    if bless {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{name} differs\n--- expected\n{expected}\n--- actual\n{actual}"
    );
}

fn workspace() -> Workspace {
    load(&|text| text)
}

/// The fixture's workspace with the root's text changed.
fn load(change: &dyn Fn(String) -> String) -> Workspace {
    let root = Path::new("/plan");
    let workspace = spec::load(root, &mut |path| {
        let text = fs::read_to_string(fixtures().join(path.strip_prefix("/plan").unwrap()))?;
        Ok(if path.parent() == Some(root) {
            change(text)
        } else {
            text
        })
    });
    workspace.unwrap_or_else(|errors| panic!("{errors}"))
}

/// Who depends on whom among the Debian packages of these tests.
const DEPENDS: &[(&str, &[&[&str]])] = &[
    ("gcc", &[&["cpp"], &["libc6-dev", "libc-dev"], &["binutils"]]),
    ("cpp", &[&["libc6"]]),
    ("binutils", &[&["libc6"]]),
    ("libc6-dev", &[&["libc6"], &["linux-libc-dev"]]),
    ("libssl-dev", &[&["libssl3"]]),
    ("libssl3", &[&["libc6"], &["debconf", "cdebconf"]]),
    ("libc6", &[&["libgcc-s1"]]),
    ("libgcc-s1", &[&["gcc-12-base"], &["libc6"]]),
    ("nginx", &[&["libssl3"], &["nginx-common"]]),
    ("gdb", &[&["libc6"]]),
    ("hello", &[&["libc6"]]),
];

/// A lock in which every wanted package comes with everything that it depends on.
fn lock_for(workspace: &Workspace) -> Lock {
    let depends = |name: &str| {
        let found = DEPENDS.iter().find(|(known, _)| *known == name);
        found.map_or(&[][..], |(_, depends)| depends)
    };
    let mut lock = Lock {
        architecture: Some("amd64".to_owned()),
        ..Lock::default()
    };
    for wanted in spec::deb_sets(workspace) {
        let resolved = graph::closure(wanted.clone(), |name| depends(name).iter().map(|any| any[0].to_owned()));
        lock.deb_sets.insert(wanted, resolved.into_iter().collect());
    }
    for name in lock.deb_sets.values().flatten() {
        lock.debs.insert(name.clone(), locked_deb(name, depends(name)));
    }
    for name in spec::deb_sources(workspace) {
        let file = |suffix: &str| LockedFile {
            name: format!("{name}_1{suffix}"),
            size: 1,
            sha256: Digest::of(suffix.as_bytes()),
        };
        let source = LockedDebSource {
            archive: None,
            version: "1".to_owned(),
            directory: format!("pool/{name}"),
            files: vec![file(".orig.tar.gz"), file(".dsc"), file(".debian.tar.xz")],
        };
        lock.deb_sources.insert(name.clone(), source);
    }
    for (name, url) in spec::unpinned_urls(workspace) {
        let sha256 = Digest::of(url.as_bytes());
        lock.urls.insert(name, LockedUrl { size: 7, sha256 });
    }
    for (name, source) in spec::git_sources(workspace) {
        let locked = LockedGit {
            wanted: source.wanted(),
            commit: GitCommit::parse(&"0123456789".repeat(4)).expect("it is a commit"),
            size: 7,
            nar_hash: Digest::of(source.reference.text().as_bytes()),
        };
        lock.git.insert(name, locked);
    }
    lock
}

fn locked_deb(name: &str, depends: &[&[&str]]) -> LockedDeb {
    LockedDeb {
        archive: None,
        version: "1:1.0~rc1-2".to_owned(),
        architecture: "amd64".to_owned(),
        filename: format!("pool/main/{name}_1.0~rc1-2_amd64.deb"),
        size: 10,
        sha256: Digest::of(name.as_bytes()),
        depends: (depends.iter())
            .map(|any| any.iter().map(|name| (*name).to_owned()).collect())
            .collect(),
        source: (name.to_owned(), "1".to_owned()),
    }
}

fn sources(workspace: &Workspace) -> BTreeMap<PackageName, StorePath> {
    let local = workspace.packages.iter().filter_map(|(name, package)| {
        let Source::Path { path, .. } = &package.source.as_ref()?.value else {
            return None;
        };
        let hash = Digest::of(package.dir.join(path).to_str()?.as_bytes());
        let hash = StoreHash::from_bytes(hash.as_bytes()[..20].try_into().unwrap());
        Some((
            name.clone(),
            StorePath::new(hash, &source_name(package, false)).unwrap(),
        ))
    });
    local.collect()
}

fn plan_of(workspace: &Workspace, lock: &Lock) -> BuildPlan {
    make(workspace, lock, &sources(workspace), &BTreeMap::new()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A store path for each input, from the step's own text: as if outputs never changed.
fn paths(plan: &BuildPlan) -> Vec<StorePath> {
    let mut paths: Vec<StorePath> = Vec::new();
    for step in &plan.steps {
        let text = resolved_json(step, &|input| path_of(&paths, input));
        let hash = StoreHash::from_bytes(Digest::of(text.as_bytes()).as_bytes()[..20].try_into().unwrap());
        paths.push(StorePath::new(hash, &step.name).unwrap());
    }
    paths
}

fn path_of(paths: &[StorePath], input: &Input) -> StorePath {
    match input {
        Input::Step(step) => paths[*step].clone(),
        Input::Path(path) => path.clone(),
    }
}

/// Resolved texts of all steps.
fn texts(plan: &BuildPlan) -> Vec<String> {
    let paths = paths(plan);
    let texts = (plan.steps.iter()).map(|step| resolved_json(step, &|input| path_of(&paths, input)));
    texts.collect()
}

fn describe(plan: &BuildPlan, input: &Input) -> String {
    match input {
        Input::Step(step) => format!("{step}:{}", plan.steps[*step].label),
        Input::Path(path) => path.to_string(),
    }
}

fn describe_all<'a>(plan: &BuildPlan, inputs: impl IntoIterator<Item = &'a Input>) -> String {
    let all: Vec<String> = inputs.into_iter().map(|input| describe(plan, input)).collect();
    all.join(" ")
}

/// A plan for people: steps, then what names mean.
fn overview(plan: &BuildPlan) -> String {
    let mut text = String::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let _ = writeln!(text, "{index}: {} → {}", step.label, step.name);
        for download in step.downloads() {
            let _ = writeln!(text, "    {} {:?} {:?}", download.name, download.size, download.origin);
        }
        let Action::Script(script) = &step.action else { continue };
        let _ = writeln!(
            text,
            "    system {} timeout {:?}",
            script.system, script.timeout_seconds
        );
        let _ = writeln!(text, "    source {}", describe_all(plan, &script.source));
        let _ = writeln!(text, "    root {}", describe_all(plan, &script.root));
        let _ = writeln!(text, "    tools {}", describe_all(plan, &script.tools));
        let _ = writeln!(text, "    libraries {}", describe_all(plan, &script.libraries));
        let _ = writeln!(text, "    runtime {}", describe_all(plan, &script.runtime));
        for (input, declared) in &script.declared {
            let _ = writeln!(
                text,
                "    {} declares {}",
                describe(plan, input),
                describe_all(plan, declared)
            );
        }
    }
    for (name, input) in &plan.packages {
        let _ = writeln!(text, "package {name}: {}", describe(plan, input));
    }
    for (name, image) in &plan.images {
        let _ = writeln!(text, "image {name}");
        let _ = writeln!(text, "    contents {}", describe_all(plan, &image.contents));
        let _ = writeln!(text, "    declared {}", describe_all(plan, &image.declared));
        let _ = writeln!(text, "    root {}", describe_all(plan, &image.root));
    }
    text
}

#[test]
fn the_plan_is_what_it_was() {
    let workspace = workspace();
    let plan = plan_of(&workspace, &lock_for(&workspace));
    check_golden("plan.txt", &overview(&plan));
}

#[test]
fn steps_come_after_their_inputs() {
    let workspace = workspace();
    let plan = plan_of(&workspace, &lock_for(&workspace));
    for (index, step) in plan.steps.iter().enumerate() {
        for input in step.inputs() {
            assert!(!matches!(input, Input::Step(step) if *step >= index), "{}", step.label);
        }
    }
}

#[test]
fn equal_steps_are_one() {
    let workspace = workspace();
    let plan = plan_of(&workspace, &lock_for(&workspace));
    let package = |name: &str| &plan.packages[&PackageName(name.to_owned())];
    assert_eq!(package("one:zlib"), package("two:zlib"));
    assert_eq!(plan.images["zlib"].contents, [package("one:zlib").clone()]);
    let keys: BTreeSet<String> = plan.steps.iter().map(super::resolve::step_key).collect();
    assert_eq!(keys.len(), plan.steps.len());
}

/// Images whose packages are configured share the step that configures the tools; where no script can run, what says which
/// packages have some is a step each.
#[test]
fn images_share_the_tools_that_configure_their_packages() {
    let of = |more: &str| {
        let workspace = load(&|text| {
            let text = text.replace("configure = false\n", more);
            text.replace("[image.zlib]", "[image.other]\nroot = [\"deb:hello\"]\n\n[image.zlib]")
        });
        plan_of(&workspace, &lock_for(&workspace))
    };
    let action = |plan: &BuildPlan, input: &Input| match input {
        Input::Step(step) => plan.steps[*step].action.clone(),
        Input::Path(path) => panic!("{path} is no step"),
    };
    let plan = of("configure = { skip = [\"deb:nginx\"] }\n");
    let mut tools = BTreeSet::new();
    for (image, skip, last) in [("app", vec!["nginx"], "nginx"), ("other", vec![], "hello")] {
        let inputs = &plan.images[image];
        let configured = inputs.configured.as_ref().unwrap();
        assert!(inputs.all().contains(configured) && inputs.unrun.is_empty());
        let Action::Configure(configure) = action(&plan, configured) else {
            panic!("{image} is not configured")
        };
        assert_eq!(configure.system, "x86_64-linux");
        assert_eq!(configure.skip, skip.into_iter().map(str::to_owned).collect());
        assert_eq!(configure.groups.last().unwrap()[0].name, last);
        let (output, packages) = configure.tools.clone().unwrap();
        assert_eq!(packages.len(), spec::tool_debs().len());
        let Action::Configure(of_tools) = action(&plan, &output) else {
            panic!("the tools are not configured")
        };
        assert_eq!((of_tools.tools, of_tools.groups.concat()), (None, packages));
        tools.insert(output);
    }
    assert_eq!(tools.len(), 1);

    let plan = of("base = \"oci:base\"\n");
    let app = &plan.images["app"];
    assert_eq!(app.configured, None);
    assert_eq!(app.unrun.len(), app.root.len());
    let control = action(&plan, &app.unrun["nginx"]);
    assert!(matches!(control, Action::UnpackDebControl { package, .. } if package == "nginx"));
    assert!(app.all().contains(&app.unrun["nginx"]));
}

#[test]
fn equal_steps_take_the_longest_time() {
    for (one, two, expected) in [
        ("timeout = \"1m\"", "timeout = \"2m\"", Some(120)),
        ("timeout = \"1m\"", "", None),
    ] {
        let text = format!(
            "package.a = {{ source = \"src\", script = \"make\", base = false, {one} }}\n\
             package.b = {{ source = \"src\", script = \"make\", base = false, {two} }}\n"
        );
        let mut workspace = spec::parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
        for package in workspace.packages.values_mut() {
            package.name.value = PackageName("same".to_owned());
        }
        let path: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-same-source".parse().unwrap();
        let sources = [(PackageName("same".to_owned()), path)].into();
        let plan = make(&workspace, &Lock::default(), &sources, &BTreeMap::new()).unwrap();
        assert_eq!(plan.steps.len(), 1);
        let Action::Script(script) = &plan.steps[0].action else {
            panic!()
        };
        assert_eq!(script.timeout_seconds, expected);
    }
}

#[test]
fn the_order_of_lock_and_spec_does_not_matter() {
    let workspace = workspace();
    let lock = lock_for(&workspace);
    let plan = plan_of(&workspace, &lock);
    let mut shuffled = lock.clone();
    for deb in shuffled.debs.values_mut() {
        deb.depends.reverse();
        deb.depends.iter_mut().for_each(|any| any.reverse());
    }
    shuffled.deb_sets.values_mut().for_each(|resolved| resolved.reverse());
    shuffled
        .deb_sources
        .values_mut()
        .for_each(|source| source.files.reverse());
    assert_eq!(plan_of(&workspace, &shuffled), plan);
    let reversed = load(&|text| {
        let mut tables: Vec<&str> = text.split("\n\n").collect();
        tables.reverse();
        tables.join("\n\n")
    });
    assert_eq!(plan_of(&reversed, &lock), plan);
}

#[test]
fn a_shell_is_the_build_with_what_dev_adds() {
    let workspace = workspace();
    let lock = lock_for(&workspace);
    let plan = plan_of(&workspace, &lock);
    let name = PackageName("app".to_owned());
    let made = shell(&workspace, &lock, &plan, &name).unwrap();
    assert!(made.own.contains(&plan.debs["gdb"]) && !made.own.contains(&plan.debs["bash"]));
    assert_eq!(made.debs["bash"], plan.debs["bash"]);
    let shell = made.script;
    let Some(Input::Step(step)) = plan.packages.get(&name) else {
        panic!()
    };
    let Action::Script(build) = &plan.steps[*step].action else {
        panic!()
    };
    assert!(shell.root.contains(&plan.debs["gdb"]) && !build.root.contains(&plan.debs["gdb"]));
    let tool = plan.packages[&PackageName("two:tool".to_owned())].clone();
    assert_eq!(shell.tools, [build.tools.clone(), vec![tool]].concat());
    assert_eq!(
        (
            &shell.script,
            &shell.env,
            &shell.source,
            &shell.libraries,
            &shell.runtime
        ),
        (
            &build.script,
            &build.env,
            &build.source,
            &build.libraries,
            &build.runtime
        )
    );
}

#[test]
fn a_shell_for_nothing_is_refused() {
    let workspace = workspace();
    let lock = lock_for(&workspace);
    let plan = plan_of(&workspace, &lock);
    for (name, expected) in [
        ("nope", "unknown package `nope`"),
        ("data", "package `data` has no script"),
    ] {
        let errors = shell(&workspace, &lock, &plan, &PackageName(name.to_owned())).unwrap_err();
        assert_eq!(errors.items[0].message, expected);
    }
}

#[test]
fn names_are_targets() {
    let workspace = workspace();
    let plan = plan_of(&workspace, &lock_for(&workspace));
    assert_eq!(
        plan.target("data"),
        Some(vec![plan.packages[&PackageName("data".to_owned())].clone()])
    );
    assert_eq!(plan.target("deb:gcc"), Some(vec![plan.debs["gcc"].clone()]));
    let image = plan.target("app").unwrap();
    assert!(image.len() > 5 && image.contains(&plan.debs["nginx"]));
    assert_eq!(plan.target("nope"), None);
    assert_eq!(plan.target("deb:nope"), None);
}

#[test]
fn what_the_lock_lacks_is_named() {
    let workspace = workspace();
    let full = lock_for(&workspace);
    let mut other = full.clone();
    other.architecture = Some("arm64".to_owned());
    let mut dangling = full.clone();
    dangling.debs.remove("libgcc-s1");
    let locked_arm = load(&|text| format!("debian.architecture = \"amd64\"\n{text}"));
    let mut said = String::new();
    for (title, workspace, lock, sources) in [
        ("empty lock", &workspace, &Lock::default(), sources(&workspace)),
        ("dangling name", &workspace, &dangling, sources(&workspace)),
        ("no sources", &workspace, &full, BTreeMap::new()),
        ("other architecture", &locked_arm, &other, sources(&workspace)),
    ] {
        let errors = make(workspace, lock, &sources, &BTreeMap::new()).expect_err(title);
        let _ = writeln!(said, "=== {title}\n{}", errors.render(false));
    }
    check_golden("lacking.txt", &said);
}

#[test]
fn a_part_of_the_workspace_needs_less() {
    let workspace = workspace();
    let lock = lock_for(&workspace);
    let only = workspace.only(&[PackageName("data".to_owned())].into(), &["zlib".to_owned()].into());
    let names: Vec<String> = only.packages.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["data", "one:zlib", "two:zlib"]);
    let plan = make(&only, &lock, &BTreeMap::new(), &BTreeMap::new()).unwrap_or_else(|errors| panic!("{errors}"));
    let full = plan_of(&workspace, &lock);
    let texts = |plan: &BuildPlan| texts(plan).into_iter().collect::<BTreeSet<String>>();
    assert!(texts(&plan).is_subset(&texts(&full)) && plan.steps.len() < full.steps.len());
}

proptest! {
    /// Whatever the graph, the order holds between packages that are on no common cycle.
    #[test]
    fn packages_come_after_what_they_depend_on(edges in prop::collection::vec((0..12usize, 0..12usize), 0..40)) {
        let name = |n: usize| format!("p{n:02}");
        let mut lock = Lock::default();
        for n in 0..12 {
            let depends: Vec<String> = edges.iter().filter(|(from, _)| *from == n).map(|(_, to)| name(*to)).collect();
            let depends: Vec<Vec<&str>> = depends.iter().map(|to| vec![to.as_str()]).collect();
            let depends: Vec<&[&str]> = depends.iter().map(Vec::as_slice).collect();
            lock.debs.insert(name(n), locked_deb(&name(n), &depends));
        }
        let all: Vec<String> = (0..12).map(name).collect();
        lock.deb_sets.insert(all.clone(), all.clone());
        let resolution = Resolution::new(&lock, &all).unwrap();
        let order = resolution.ordered();
        prop_assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 12);
        let place = |name: &str| order.iter().position(|other| *other == name).unwrap();
        for name in &order {
            let needed = resolution.needed_by(name);
            prop_assert!(!needed.contains(name));
            for other in needed {
                let cyclic = resolution.needed_by(other).contains(name);
                prop_assert!(cyclic || place(other) < place(name), "{} before {}", other, name);
            }
        }
    }
}
