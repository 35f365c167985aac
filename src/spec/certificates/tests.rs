//! The key, the files that it names, and what an image with it needs.

use super::super::{Diagnostics, Workspace, deb_sets, load as load_spec, root_debs};
use super::*;

const AUTHORITY: &str = include_str!("../../../fixtures/workloads/tls/ca.pem");

/// Another certificate, which is signed by nobody: nobody checks that.
fn other() -> String {
    AUTHORITY.replacen("hkjOPQQD", "hkjOPQQC", 1)
}

/// A spec with these lines in an image, beside these files.
fn loaded(lines: &str, files: &[(&str, &str)]) -> Result<Workspace, Diagnostics> {
    let spec = format!("[image.app]\n{lines}\n");
    load_spec(Path::new("/p/layerize.toml"), &mut |path| {
        let path = path.to_str().unwrap();
        if path == "/p/layerize.toml" {
            return Ok(spec.clone());
        }
        let text = files.iter().find(|(name, _)| format!("/p/{name}") == path);
        match text {
            Some((_, "DIR")) => Err(io::ErrorKind::IsADirectory.into()),
            Some((_, "BINARY")) => Err(io::ErrorKind::InvalidData.into()),
            Some((_, text)) => Ok((*text).to_owned()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    })
}

fn names(workspace: &Workspace) -> Vec<&str> {
    let own = workspace.images["app"]
        .certificates
        .iter()
        .flat_map(|certificates| certificates.own.keys());
    own.map(String::as_str).collect()
}

#[test]
fn each_certificate_has_a_name_of_its_file() {
    let (one, two) = (AUTHORITY, format!("{AUTHORITY}{}", other()));
    assert_ne!(other(), AUTHORITY);
    for (lines, files, expected) in [
        ("certificates = true", vec![], vec![]),
        ("certificates = ['corp.pem']", vec![("corp.pem", one)], vec!["corp"]),
        (
            "certificates = ['../x/./My Corp.crt']",
            vec![("../x/My Corp.crt", one)],
            vec!["My_Corp"],
        ),
        ("certificates = ['a/.pem']", vec![("a/.pem", one)], vec!["_.pem"]),
        (
            "certificates = ['corp']",
            vec![("corp", two.as_str())],
            vec!["corp-1", "corp-2"],
        ),
        // Twice is once, from whatever file.
        (
            "certificates = ['a.pem', 'a.pem', 'b.pem']",
            vec![("a.pem", one), ("b.pem", one)],
            vec!["a"],
        ),
    ] {
        let files: Vec<(String, &str)> = (files.into_iter())
            .map(|(name, text)| (name.trim_start_matches("../").to_owned(), text))
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        let lines = lines.replace("../", "");
        let workspace = loaded(&lines, &files).unwrap_or_else(|errors| panic!("{lines}: {errors}"));
        assert_eq!(names(&workspace), expected, "{lines}");
        assert!(workspace.files.len() <= 1 + files.len(), "{lines}");
    }
}

#[test]
fn the_texts_are_part_of_the_spec() {
    let workspace = loaded("certificates = ['corp.pem']", &[("corp.pem", AUTHORITY)]).unwrap();
    let file = workspace.files.last().unwrap();
    assert_eq!(
        (file.path.to_str().unwrap(), file.text.as_str()),
        ("/p/corp.pem", AUTHORITY)
    );
}

#[test]
fn an_image_with_packages_gets_the_package_and_another_one_the_bundle() {
    for (lines, root, sets) in [
        ("certificates = true", "", "ca-certificates"),
        (
            "certificates = true\nroot = ['deb:curl']",
            "ca-certificates curl",
            "ca-certificates curl",
        ),
        (
            "certificates = true\nroot = ['deb:ca-certificates']",
            "ca-certificates",
            "ca-certificates",
        ),
        ("certificates = false\nroot = ['deb:curl']", "curl", "curl"),
        ("certificates = []\nroot = ['deb:curl']", "curl", "curl"),
        (
            "certificates = true\nroot = ['deb:curl']\nexclude = ['deb:ca-certificates']",
            "ca-certificates curl",
            "ca-certificates curl",
        ),
    ] {
        let workspace = loaded(&format!("{lines}\nfiles = {{ '/a' = {{ text = '' }} }}"), &[]).unwrap();
        let image = &workspace.images["app"];
        assert_eq!(root_debs(image).join(" "), root, "{lines}");
        let found = deb_sets(&workspace);
        assert!(found.iter().any(|set| set.join(" ") == sets), "{lines}: {found:?}");
    }
}

/// What is said of a spec with these lines beside these files.
#[track_caller]
fn told(lines: &str, files: &[(&str, &str)], expected: &[&str]) {
    let errors = loaded(lines, files).expect_err(lines).to_string();
    for text in expected {
        assert!(errors.contains(text), "{lines}: {text}\n{errors}");
    }
    assert!(!errors.contains("c2VjcmV0"), "what is secret is shown: {errors}");
}

#[test]
fn a_key_that_is_wrong_is_told_with_what_to_write() {
    let types = "must be a boolean or an array of strings";
    for (lines, expected) in [
        (
            "certificates = 'corp.pem'",
            &[types, "write `certificates = [\"corp.pem\"]`"][..],
        ),
        ("certificates = { a = 1 }", &[types, "these and your own"]),
        ("certificates = [1]", &["must be a string"]),
        ("certificates = ['']", &["layerize.toml:2:17"]),
        (
            "certificates = ['https://corp/ca.pem']",
            &["this is an address, not a path"],
        ),
        (
            "certificates = true\nbase = 'oci:base'",
            &["has no effect over a base", "give it a whole bundle"],
        ),
        ("certificates = false", &["image `app` is empty"]),
        ("certificate = true\nroot = ['deb:a']", &["did you mean `certificates`"]),
    ] {
        told(lines, &[], expected);
    }
}

#[test]
fn a_file_that_is_wrong_is_told_at_its_line() {
    let key = format!("{AUTHORITY}-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    let large = "#".repeat(FILE_MAX + 1);
    let here = "layerize.toml:2:18";
    for (text, expected) in [
        (None, &["`x.pem` cannot be read: there is no such file", here][..]),
        (Some("DIR"), &["it is a directory", "name each of its files", here]),
        (Some("BINARY"), &["it is not a text", "openssl x509 -in", here]),
        (Some(&large), &["certificates no more than 1048576", here]),
        (Some(""), &["it is empty", here]),
        (Some(&AUTHORITY[..300]), &["it is cut off", "x.pem:1:1", "named here"]),
        (
            Some(&key),
            &["a private key, which would be published", "x.pem:11:1", "take it out"],
        ),
    ] {
        let files: Vec<_> = text.iter().map(|text| ("x.pem", *text)).collect();
        told("certificates = [ 'x.pem' ]", &files, expected);
    }
}

#[test]
fn two_certificates_of_one_name_are_an_error() {
    let other = other();
    told(
        "certificates = ['a/ca.pem', 'b/ca.crt']",
        &[("a/ca.pem", AUTHORITY), ("b/ca.crt", &other)],
        &[
            "`a/ca.pem` and `b/ca.crt` would both be `ca.crt`",
            "rename one",
            "the first is named here",
        ],
    );
}

#[test]
fn all_files_are_told_at_once_and_beside_the_specs_own_mistakes() {
    let errors = loaded(
        "certificates = ['x.pem', 'y.pem']\nuser = 'nobody-at-all'\nfiles = { '/a' = { text = '' } }",
        &[],
    );
    assert_eq!(errors.unwrap_err().items.len(), 3);
}

#[test]
fn names_are_such_as_scripts_leave_alone() {
    for (path, expected) in [
        ("corp.pem", "corp"),
        ("a/b/corp.root.crt", "corp.root"),
        ("corp.pem/", "corp"),
        ("Zürich (neu), A.cer", "Z_rich__neu___A"),
        ("-x.pem", "_-x"),
        ("..", "_.."),
        ("corp.txt", "corp.txt"),
    ] {
        assert_eq!(base_name(path), expected, "{path}");
    }
    assert_eq!(base_name(&"ü".repeat(300)).len(), NAME_MAX);
}
