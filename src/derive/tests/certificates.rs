//! What the certificates of an image are steps of.

use super::*;

const AUTHORITY: &str = include_str!("../../../fixtures/workloads/tls/ca.pem");

/// The steps of an image with these keys, beside a file `corp.pem` with this text, and their texts.
fn planned(keys: &str, pem: &str) -> (ImageInputs, Vec<String>) {
    let workspace = spec::load(Path::new("/p"), &mut |path| match path.ends_with("corp.pem") {
        true => Ok(pem.to_owned()),
        false => Ok(format!("[image.app]\n{keys}\n")),
    });
    let workspace = workspace.unwrap_or_else(|errors| panic!("{errors}"));
    let plan = plan_of(&workspace, &lock_for(&workspace));
    (plan.images["app"].clone(), texts(&plan))
}

/// The text of the step that an input is.
fn text<'t>(input: &Option<Input>, texts: &'t [String]) -> &'t str {
    match input {
        Some(Input::Step(step)) => &texts[*step],
        other => panic!("{other:?} is no step"),
    }
}

#[test]
fn scripts_are_given_them_as_they_are_printed() {
    let keys = "root = ['deb:nginx']\ncertificates = ";
    let configured = |certificates: &str, pem: &str| {
        let (inputs, texts) = planned(&format!("{keys}{certificates}"), pem);
        assert_eq!(inputs.authorities, None);
        text(&inputs.configured, &texts).to_owned()
    };
    let own = configured("['corp.pem']", AUTHORITY);
    let expected = format!("\"certificates\":{{\"corp\":\"{}\"}}", AUTHORITY.replace('\n', "\\n"));
    assert!(own.contains(&expected), "{own}");
    // How the file is written down changes nothing, what it holds does, and where there is none nothing is said.
    assert_eq!(configured("['corp.pem']", &AUTHORITY.replace('\n', "\r\n")), own);
    let other = AUTHORITY.replacen("hkjOPQQD", "hkjOPQQC", 1);
    assert_ne!(configured("['corp.pem']", &other), own);
    assert!(!configured("true", "").contains("certificates\":"));
}

#[test]
fn without_packages_the_bundle_is_a_part_of_debians() {
    let (inputs, texts) = planned("certificates = ['corp.pem']", AUTHORITY);
    let part = text(&inputs.authorities, &texts);
    assert!(
        part.contains("\"kind\":\"deb-part\",\"part\":\"authorities\""),
        "{part}"
    );
    assert!(inputs.configured.is_none() && inputs.root.is_empty());
    assert!(inputs.all().contains(inputs.authorities.as_ref().unwrap()));
    // What is one's own is laid over it; the part is the same for all.
    let (same, texts) = planned("certificates = true", "");
    assert_eq!(text(&same.authorities, &texts), part);
}
