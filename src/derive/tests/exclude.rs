//! What an image leaves out of the Debian packages that its own come to.

use super::*;
use crate::spec::Diagnostics;

/// The names at `/`, and what is left out, of an image with these keys.
fn image(keys: &str) -> Result<(Vec<String>, BTreeMap<String, LeftOut>), Diagnostics> {
    let workspace = spec::parse(&format!("[image.app]\n{keys}\n")).unwrap_or_else(|errors| panic!("{errors}"));
    let plan = make(&workspace, &lock_for(&workspace), &BTreeMap::new(), &BTreeMap::new())?;
    let inputs = &plan.images["app"];
    let name = |input: &Input| match input {
        Input::Step(step) => plan.steps[*step].label.replace("deb:", ""),
        Input::Path(path) => path.to_string(),
    };
    let (root, declared) = (inputs.root.iter().map(name), inputs.declared.iter().map(name));
    Ok((root.chain(declared).collect(), inputs.left_out.clone()))
}

#[test]
fn what_only_the_excluded_needed_goes_with_it() {
    use LeftOut::{Excluded, NeededByExcluded};
    for (keys, kept, left_out) in [
        (
            "root = ['deb:nginx']\nexclude = ['deb:libssl3']",
            &["nginx-common", "nginx"][..],
            &[
                ("libssl3", Excluded),
                ("debconf", NeededByExcluded),
                ("libc6", NeededByExcluded),
                ("libgcc-s1", NeededByExcluded),
                ("gcc-12-base", NeededByExcluded),
            ][..],
        ),
        (
            "root = ['deb:nginx', 'deb:hello']\nexclude = ['deb:libssl3', 'deb:gcc-12-base']",
            &["libgcc-s1", "libc6", "hello", "nginx-common", "nginx"],
            &[
                ("libssl3", Excluded),
                ("gcc-12-base", Excluded),
                ("debconf", NeededByExcluded),
            ],
        ),
        // The packages of `contents` bring what they depend on, too.
        (
            "contents = ['deb:libssl3']\nexclude = ['deb:debconf']",
            &["libc6", "libgcc-s1", "gcc-12-base"],
            &[("debconf", Excluded)],
        ),
    ] {
        let (mut names, found) = image(&format!("{keys}\nconfigure = false")).unwrap();
        let mut kept = kept.to_vec();
        names.sort();
        kept.sort_unstable();
        assert_eq!(names, kept, "{keys}");
        let expected = left_out.iter().map(|(name, why)| ((*name).to_owned(), *why));
        assert_eq!(found, expected.collect(), "{keys}");
    }
}

#[test]
fn an_exclusion_of_nothing_is_an_error() {
    for (name, help) in [
        ("libssl", "did you mean `deb:libssl3`?"),
        ("gcc", "leave it out: it would not be in the image anyway"),
    ] {
        let keys = format!("root = ['deb:nginx']\nexclude = ['deb:{name}']\nconfigure = false");
        let error = image(&keys).unwrap_err().to_string();
        let message = format!("`exclude` names `deb:{name}`, which nothing of image `app` depends on");
        assert!(error.contains(&message) && error.contains(help), "{error}");
    }
}

/// The package manager is told to go on without what is missing, and only then.
#[test]
fn packages_are_configured_without_what_is_excluded() {
    let step = |keys: &str| {
        let workspace = spec::parse(&format!(
            "[image.app]\nroot = ['deb:nginx']\nconfigure = true\n{keys}\n"
        ));
        let workspace = workspace.unwrap_or_else(|errors| panic!("{errors}"));
        let plan = plan_of(&workspace, &lock_for(&workspace));
        let Some(Input::Step(step)) = plan.images["app"].configured else {
            panic!("no step configures the packages");
        };
        let Action::Configure(configure) = &plan.steps[step].action else {
            panic!("{:?}", plan.steps[step]);
        };
        let names: BTreeSet<String> = configure.groups.iter().flatten().map(|deb| deb.name.clone()).collect();
        (names, configure.incomplete, texts(&plan)[step].contains("incomplete"))
    };
    let (all, incomplete, said) = step("");
    assert!(all.contains("libssl3") && !incomplete && !said);
    let (some, incomplete, said) = step("exclude = ['deb:libssl3']");
    assert_eq!(some, BTreeSet::from(["nginx", "nginx-common"].map(str::to_owned)));
    assert!(incomplete && said);
}
