//! What belongs to a tree and is elsewhere: submodules and files of Git LFS.

use std::fs;
use std::process::Command;

use super::GitPlace;

/// Submodules are part of a tree, in one another too, each as its parent names it; without them they are empty directories.
#[test]
fn submodules_are_part_of_a_tree() {
    let place = GitPlace::new("git = \"../up.git\"");
    for name in ["one.git", "two.git"] {
        place.repository(name, &[]);
    }
    let inner = place.object("two.git", "blob", b"two");
    let inner = place.tree("two.git", &[("100755", b"inner", &inner)]);
    let inner = place.commit("two.git", &inner, "v1");
    let modules = place.object(
        "one.git",
        "blob",
        b"[submodule \"x\"]\n\tpath = sub/two\n\turl = ../two.git\n",
    );
    let sub = place.tree("one.git", &[("160000", b"two", &inner)]);
    let middle = place.tree(
        "one.git",
        &[("100644", b".gitmodules", &modules), ("40000", b"sub", &sub)],
    );
    let middle = place.commit("one.git", &middle, "v1");
    // The same repository stands in the tree twice, once at another commit.
    let modules = "[submodule \"one\"]\n\tpath = one\n\turl = ../one.git\n\
                   [submodule \"again\"]\n\tpath = z\n\turl = ./../two.git\n[include]\n\tpath = /etc/passwd\n";
    let modules = place.object("up.git", "blob", modules.as_bytes());
    let tree = place.tree(
        "up.git",
        &[
            ("100644", b".gitmodules", &modules),
            ("160000", b"one", &middle),
            ("160000", b"z", &inner),
        ],
    );
    let commit = place.commit("up.git", &tree, "v1");
    place.run(&["lock"]).success();
    let built = place.built();
    for path in ["one/sub/two/inner", "z/inner"] {
        assert_eq!(fs::read_to_string(built.join(path)).unwrap(), "two", "{path}");
    }
    place.source("git = \"../up.git\", submodules = false");
    place.run(&["lock"]).success();
    let bare = place.built();
    assert_eq!(
        layerize::fsio::sorted_names(&bare).unwrap(),
        [".gitmodules", "one", "z"]
    );
    assert_eq!(layerize::fsio::sorted_names(&bare.join("one")).unwrap(), [""; 0]);

    // What git itself checks out is the same.
    place.git("", &["clone", "-q", "--recurse-submodules", "up.git", "clone"]);
    assert_eq!(place.git("clone", &["rev-parse", "HEAD"]), commit);
    let same = Command::new("diff")
        .args(["-r", "--exclude=.git"])
        .arg(place.at("clone"))
        .arg(&built)
        .output()
        .unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
}

/// The address of the repository itself, as its own submodule.
const UP: &str = "../up.git";

/// `.gitmodules` with one submodule.
fn named(name: &str, path: &str, url: &str) -> String {
    format!("[submodule \"{name}\"]\n\tpath = {path}\n\turl = {url}\n")
}

/// Submodules that lead elsewhere than a submodule may.
#[test]
fn a_hostile_submodule_is_refused() {
    let place = GitPlace::new("git = \"../up.git\", tag = \"bad\"");
    let file = place.object("up.git", "blob", b"x");
    let inner = place.tree("up.git", &[("100644", b"a", &file)]);
    let commit = place.commit("up.git", &inner, "v1");
    let lacking = "1".repeat(40);
    for (modules, object, says) in [
        (
            named("m", "m", "../none.git"),
            &commit,
            vec!["there is no git repository", "none.git"],
        ),
        (named("m", "m", UP), &lacking, vec!["has no commit 1111"]),
        (
            named("m", "n", UP),
            &commit,
            vec!["submodule `m`", "does not say where it is", "submodules = false"],
        ),
        (
            named("m", "../../x", UP),
            &commit,
            vec!["`../../x`", "leads out of the tree"],
        ),
        (named("m", "/x", UP), &commit, vec!["leads out of the tree"]),
        (
            named("../../x", "m", UP),
            &commit,
            vec!["`../../x`", "leads out of the tree"],
        ),
        (named("m", "-x", UP), &commit, vec!["begins with `-`"]),
        (named("m", "m", "--upload-pack=touch"), &commit, vec!["begins with `-`"]),
        (
            named("m", "m", "\"ext::sh -c true\""),
            &commit,
            vec!["programs that git is to run"],
        ),
        (
            named("m", "m", "ssh://-oProxyCommand=x/y"),
            &commit,
            vec!["begins with no `-`"],
        ),
        (
            named("m", "m", "../../../../../../../../x"),
            &commit,
            vec!["above where repositories are"],
        ),
        (
            named("m", "m", "up.git"),
            &commit,
            vec!["neither an address nor begins with"],
        ),
        (named("m", "m", "\"../up.git\\n\""), &commit, vec!["control character"]),
        (
            named("m", "m", UP) + &named("n", "m", UP),
            &commit,
            vec!["two of this path"],
        ),
        (
            "[submodule\n".to_owned(),
            &commit,
            vec!["`.gitmodules`", "submodules = false"],
        ),
    ] {
        let modules = place.object("up.git", "blob", modules.as_bytes());
        let tree = place.tree(
            "up.git",
            &[("100644", b".gitmodules", &modules), ("160000", b"m", object)],
        );
        place.commit("up.git", &tree, "bad");
        place.refuses(&says);
    }
}

/// Pointers of Git LFS are never taken without a word: an error, the files, or the pointers because somebody says so.
#[test]
fn files_of_lfs_stand_in_place_of_their_pointers() {
    let place = GitPlace::new("git = \"../up.git\"");
    let content = "large\n".repeat(1000);
    let digest = layerize::digest::Digest::of(content.as_bytes()).hex();
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {}\n",
        content.len()
    );
    place.files(
        &[
            ("big", &pointer),
            ("small", "version https://git-lfs.github.com/spec/v1\n"),
        ],
        "v1",
    );
    place.refuses(&["a file of commit", "is in Git LFS: `big`", "lfs = true", "lfs = false"]);

    place.source("git = \"../up.git\", lfs = false");
    place.run(&["lock"]).success();
    assert_eq!(fs::read_to_string(place.built().join("big")).unwrap(), pointer);

    place.source("git = \"../up.git\", lfs = true");
    place
        .run(&["lock"])
        .exits(2)
        .says(&["`big` of", "is not in its Git LFS", &digest, "git lfs push"]);
    let object = place
        .at("up.git/lfs/objects")
        .join(&digest[..2])
        .join(&digest[2..4])
        .join(&digest);
    fs::create_dir_all(object.parent().unwrap()).unwrap();
    fs::write(&object, "other").unwrap();
    place.run(&["lock"]).exits(2).says(&["5 bytes"]);
    fs::write(&object, &content).unwrap();
    place.run(&["lock"]).success();
    assert_eq!(fs::read_to_string(place.built().join("big")).unwrap(), content);
    assert!(place.lock().contains("lfs = true"));
}
/// A `.gitmodules` that is no file, and a file below a submodule.
#[test]
fn a_submodule_stands_alone_at_its_place() {
    let place = GitPlace::new("git = \"../up.git\", tag = \"bad\"");
    let file = place.object("up.git", "blob", b"x");
    let inner = place.tree("up.git", &[("100644", b"a", &file)]);
    let commit = place.commit("up.git", &inner, "v1");
    let target = place.object("up.git", "blob", b"/etc/passwd");
    let linked = place.tree(
        "up.git",
        &[("120000", b".gitmodules", &target), ("160000", b"m", &commit)],
    );
    place.commit("up.git", &linked, "bad");
    place.refuses(&["`.gitmodules`", "it is no file"]);
    // A file below a submodule, which a checkout would write into it.
    let modules = place.object("up.git", "blob", b"[submodule \"m\"]\n\tpath = m\n\turl = ../up.git\n");
    let tree = place.tree(
        "up.git",
        &[
            ("100644", b".gitmodules", &modules),
            ("160000", b"m", &commit),
            ("40000", b"m", &inner),
        ],
    );
    place.commit("up.git", &tree, "bad");
    place.refuses(&["two entries have this name"]);
}
