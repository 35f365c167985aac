//! Plans of packages that are compiled for another machine.

use super::*;
use crate::spec::{machine_architecture, own_machine};

/// Debian's name of a machine that this one is not, and Nix's.
fn other() -> (&'static str, &'static str) {
    match machine_architecture() {
        "arm64" => ("s390x", "s390x-linux"),
        _ => ("arm64", "aarch64-linux"),
    }
}

fn spec_for(architecture: &str, cross: &str) -> String {
    format!(
        "[debian]\narchitecture = \"{architecture}\"\nbase = [\"bash\"]\n\
         [package.app]\ntools = [\"deb:gcc\", \"gen\"]\nlibraries = [\"lib\", \"deb:libssl-dev\", \"deb:libc6-dev\"]\n\
         dev = [\"deb:gdb\"]\nno-references = [\"gen\"]\nscript = \"true\"\n{cross}\n\
         [package.lib]\nscript = \"true\"\ntools = [\"deb:gcc\"]\n\
         [package.gen]\nscript = \"true\"\ntools = [\"deb:gcc\"]\n"
    )
}

/// A lock of all that a workspace needs here, with the C library that cross compilers bring.
fn lock_with_tools(workspace: &Workspace) -> Lock {
    let architecture = workspace.debian.architecture.clone().unwrap();
    let mut lock = Lock {
        architecture: Some(architecture.clone()),
        ..lock_for(workspace)
    };
    let sets = spec::cross_sets(workspace, &architecture, machine_architecture());
    let machine = lock.machines.entry(machine_architecture().to_owned()).or_default();
    for set in sets.into_keys() {
        let mut resolved = set.clone();
        resolved.push("libc6-dev-arm64-cross".to_owned());
        for name in &resolved {
            let deb = LockedDeb {
                sha256: Digest::of(format!("the machine's {name}").as_bytes()),
                ..locked_deb(name, &[])
            };
            machine.debs.insert(name.clone(), deb);
        }
        machine.deb_sets.insert(set, resolved);
    }
    lock
}

fn script_of(plan: &BuildPlan, package: &str) -> Script {
    let Some(Input::Step(step)) = plan.packages.get(&PackageName(package.to_owned())) else {
        panic!("`{package}` has no step");
    };
    match &plan.steps[*step].action {
        Action::Script(script) => script.as_ref().clone(),
        other => panic!("{other:?}"),
    }
}

fn labels(plan: &BuildPlan, inputs: &[Input]) -> Vec<String> {
    let label = |input: &Input| match input {
        Input::Step(step) => plan.steps[*step].label.clone(),
        Input::Path(path) => path.to_string(),
    };
    inputs.iter().map(label).collect()
}

/// Tools are this machine's, libraries the target's; the root has the target's below the machine's.
#[test]
fn what_is_run_is_the_machines_and_what_is_linked_to_the_targets() {
    let (architecture, system) = other();
    let workspace = spec::parse(&spec_for(architecture, "cross = true")).unwrap();
    let lock = lock_with_tools(&workspace);
    let plan = make(&workspace, &lock, &BTreeMap::new(), &BTreeMap::new()).unwrap();
    let app = script_of(&plan, "app");
    assert_eq!(app.system, format!("{}-linux", own_machine()));
    assert_eq!(app.target.as_deref(), Some(system));
    assert!(app.is_cross());
    let root = labels(&plan, &app.root);
    let place = |name: &str| root.iter().rposition(|label| label == name);
    assert!(place("deb:libssl3") < place("deb:bash"), "{root:?}");
    assert!(root.iter().any(|label| label.starts_with("deb:gcc-")), "{root:?}");
    assert!(root.iter().all(|label| !label.ends_with("-cross")), "{root:?}");
    // The C library of the target, which both may have, is the target's.
    let machines = |name: &str| plan.machine.debs.get(name);
    assert!(app.libraries.contains(&plan.debs["libc6-dev"]));
    assert!(app.root.contains(machines("gcc").unwrap()));
    // A package of the spec that is run is another one than the same for the target.
    let (run, linked) = (
        &plan.machine.packages[&PackageName("gen".to_owned())],
        script_of(&plan, "gen"),
    );
    assert_eq!(app.tools, std::slice::from_ref(run));
    assert_eq!(app.no_references, std::slice::from_ref(run));
    assert_eq!(app.variables["package_gen"], *run);
    assert_eq!((linked.system.as_str(), linked.target), (system, None));
    assert_eq!(
        app.variables["package_lib"],
        plan.packages[&PackageName("lib".to_owned())]
    );
    assert_eq!(app.names[run], "gen");
    // What it is compiled for is hashed, and read back.
    let path = |input: &Input| {
        let digest = Digest::of(format!("{input:?}").as_bytes());
        let hash = StoreHash::from_bytes(digest.as_bytes()[..20].try_into().unwrap());
        StorePath::new(hash, "x").unwrap()
    };
    let Some(Input::Step(step)) = plan.packages.get(&PackageName("app".to_owned())) else {
        panic!()
    };
    let text = resolved_json(&plan.steps[*step], &path);
    assert!(text.contains(&format!("\"target\":\"{system}\"")), "{text}");
    assert_eq!(
        resolved_json(&recorded(&text).unwrap(), &|input| match input {
            Input::Path(path) => path.clone(),
            Input::Step(_) => panic!(),
        }),
        text
    );
    // The shell has the tools of the machine.
    let shell = shell(&workspace, &lock, &plan, &PackageName("app".to_owned())).unwrap();
    assert!(shell.debs.contains_key("gdb") && !shell.debs.contains_key("libssl3"));
    assert!(shell.own.contains(machines("gdb").unwrap()) && !shell.own.contains(machines("bash").unwrap()));
}

/// Where nothing is crossed, what a package says of it changes what the script is told and nothing else; without it, nothing.
#[test]
fn at_home_the_tools_are_as_ever() {
    let plan_of = |cross: &str| {
        let workspace = spec::parse(&spec_for(machine_architecture(), cross)).unwrap();
        let lock = Lock {
            architecture: Some(machine_architecture().to_owned()),
            ..lock_for(&workspace)
        };
        assert_eq!(
            spec::cross_sets(&workspace, machine_architecture(), machine_architecture()),
            BTreeMap::new()
        );
        make(&workspace, &lock, &BTreeMap::new(), &BTreeMap::new()).unwrap()
    };
    let (plain, crossed) = (plan_of(""), plan_of("cross = true"));
    let with_target = Script {
        target: Some(format!("{}-linux", own_machine())),
        ..script_of(&plain, "app")
    };
    assert_eq!(script_of(&crossed, "app"), with_target);
    assert_eq!(script_of(&crossed, "lib"), script_of(&plain, "lib"));
    assert_eq!(crossed.machine, MachinePart::default());
}

/// A lock without what this machine takes is told, with the package.
#[test]
fn a_lock_without_tools_is_told() {
    let workspace = spec::parse(&spec_for(other().0, "cross = true")).unwrap();
    let lock = Lock {
        machines: BTreeMap::new(),
        ..lock_with_tools(&workspace)
    };
    let error = make(&workspace, &lock, &BTreeMap::new(), &BTreeMap::new())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("not in the lock") && error.contains("layerize lock"),
        "{error}"
    );
}
