//! What is refused of git sources: by the spec, the lock, the repository or the tree. Nothing is left of it.

use std::fs;
use std::os::unix::fs::symlink;

use super::GitPlace;

/// What a spec cannot say is told with its place, and no git is run.
#[test]
fn a_spec_that_could_do_harm_is_refused() {
    for (source, says) in [
        ("git = \"--upload-pack=touch x\"", "begins with `-`"),
        ("git = \"ext::sh -c touch% x\"", "programs that git is to run"),
        ("git = \"ssh://-oProxyCommand=x/a\"", "begins with no `-`"),
        ("git = \"../up.git\", rev = \"--upload-pack=x\"", "begins with `-`"),
        ("git = \"../up.git\", branch = \"-x\"", "begins with `-`"),
        (
            "git = \"../up.git\", tag = \"a..b\"",
            "no tag or branch has such a name",
        ),
        ("git = \"../up.git\", rev = \"HEAD~1\"", "an expression is not fetched"),
        (
            "git = \"../up.git\", rev = \"v1\", tag = \"v1\"",
            "has both `rev` and `tag`",
        ),
        (
            "git = \"../up.git\", sha256 = \"\"",
            "does not belong to a `git` source",
        ),
        ("git = \"../up.git\", url = \"https://x.invalid/a\"", "has both"),
        ("url = \"ssh://x.invalid/a.git\"", "{ git = "),
        ("git = \"\"", "it is empty"),
    ] {
        let place = GitPlace::new(source);
        place.run(&["lock"]).exits(2).says(&[says, "layerize.toml:3"]);
        place.has_nothing();
    }
}

/// What a repository may lack: a commit, its tree, and a commit without files; a tag and a branch have the same name.
fn ambiguities(place: &GitPlace) -> (String, String, String) {
    let commit = place.files(&[("a", "1")], "v1.0");
    let tree = place.git("up.git", &["rev-parse", &format!("{commit}^{{tree}}")]);
    place.git("up.git", &["branch", "v1.0", &commit]);
    let other = place.git("up.git", &["commit-tree", "-m", "other", &tree]);
    place.git("up.git", &["branch", "-f", "v1.0", &other]);
    fs::create_dir(place.at("linked")).unwrap();
    symlink(place.at("up.git"), place.at("linked/.git")).unwrap();
    fs::create_dir(place.at("plain")).unwrap();
    fs::write(place.at("file"), "").unwrap();
    let empty = place.object("up.git", "tree", b"");
    let empty = place.git("up.git", &["commit-tree", "-m", "empty", &empty]);
    (commit, tree, empty)
}

/// What a repository does not have, or is not.
#[test]
fn what_is_not_there_is_told() {
    let place = GitPlace::new("git = \"../up.git\"");
    place.refuses(&["`", "up.git` has no commit"]);
    let (commit, tree, empty) = ambiguities(&place);
    for (source, says) in [
        (
            "git = \"../none.git\"".to_owned(),
            vec!["there is no git repository at", "relative to the spec"],
        ),
        (
            "git = \"x.invalid/a/b\"".to_owned(),
            vec!["there is no git repository at"],
        ),
        ("git = \"../plain\"".to_owned(), vec!["there is no git repository at"]),
        ("git = \"../file\"".to_owned(), vec!["there is no git repository at"]),
        (
            "git = \"../linked\"".to_owned(),
            vec!["linked/.git` is a symlink", "name the repository that it leads to"],
        ),
        (
            "git = \"../up.git\", tag = \"v1.1\"".to_owned(),
            vec!["has no tag v1.1", "did you mean `v1.0`?"],
        ),
        (
            "git = \"../up.git\", branch = \"zzz\"".to_owned(),
            vec!["has no branch zzz", "git ls-remote"],
        ),
        (
            "git = \"../up.git\", rev = \"zzz\"".to_owned(),
            vec!["has no tag or branch `zzz`"],
        ),
        (
            "git = \"../up.git\", rev = \"v1.0\"".to_owned(),
            vec!["both a tag and a branch", "tag = \"v1.0\""],
        ),
        (
            format!("git = \"../up.git\", rev = \"{}\"", &commit[..10]),
            vec!["a commit has all its 40 digits", "git rev-parse"],
        ),
        (
            format!("git = \"../up.git\", rev = \"{tree}\""),
            vec!["is a tree and no commit"],
        ),
        (
            format!("git = \"../up.git\", rev = \"{}\"", "0".repeat(40)),
            vec!["has no commit 000"],
        ),
        (format!("git = \"../up.git\", rev = \"{empty}\""), vec!["is empty"]),
        (
            "git = \"https://127.0.0.1:1/a.git\"".to_owned(),
            vec!["cannot reach `https://127.0.0.1:1/a.git`", "proxy"],
        ),
        (
            "git = \"https://me:secret@127.0.0.1:1/a.git\"".to_owned(),
            vec!["cannot reach `https://127.0.0.1:1/a.git`"],
        ),
    ] {
        place.source(&source);
        place.refuses(&says);
        let told = place.run(&["lock"]).stderr;
        assert!(!told.contains("secret"), "{told}");
    }
    place.source("git = \"https://127.0.0.1:1/a.git\"");
    place
        .run(&["lock", "--offline"])
        .exits(2)
        .says(&["`--offline` forbids using the network"]);
}

/// Trees that no checkout would make: each is refused by its name, and nothing is taken of it.
#[test]
fn a_hostile_tree_is_refused() {
    let place = GitPlace::new("git = \"../up.git\", tag = \"bad\"");
    let file = place.object("up.git", "blob", b"x");
    let inner = place.tree("up.git", &[("100644", b"config", &file)]);
    let long = [b'n'; 256];
    let zero = place.object("up.git", "blob", b"a\0b");
    let far = place.object("up.git", "blob", &[b'a'; 5000]);
    let nothing = place.object("up.git", "blob", b"");
    for (entries, says) in [
        (vec![("40000", &b".."[..], &inner)], "no file can have such a name"),
        (vec![("40000", b".", &inner)], "no file can have such a name"),
        (vec![("40000", b".git", &inner)], "`.git` is git's own"),
        (vec![("40000", b".GIT", &inner)], "`.git` is git's own"),
        (vec![("100644", b"a/../../b", &file)], "no file can have such a name"),
        (vec![("100644", b"a\nb", &file)], "`a\\nb` of commit"),
        (vec![("100644", b"\x1b[31m", &file)], "holds a control character"),
        (vec![("100644", &long, &file)], "longer than the system takes"),
        (
            vec![("100644", b"a", &file), ("100644", b"a", &file)],
            "two entries have this name",
        ),
        (
            vec![("100644", b"a", &file), ("40000", b"a", &inner)],
            "two entries have this name",
        ),
        (
            vec![("120000", b"a", &file), ("40000", b"a", &inner)],
            "two entries have this name",
        ),
        (vec![("120000", b"a", &zero)], "no symlink can have such a target"),
        (vec![("120000", b"a", &far)], "no symlink can have such a target"),
        (vec![("120000", b"a", &nothing)], "no symlink can have such a target"),
    ] {
        let tree = place.tree(
            "up.git",
            &entries.iter().map(|(a, b, c)| (*a, *b, c.as_str())).collect::<Vec<_>>(),
        );
        place.commit("up.git", &tree, "bad");
        place.refuses(&[says]);
    }
}

/// A lock that was tampered with, and one whose commit is gone.
#[test]
fn what_the_lock_does_not_say_is_not_taken() {
    let place = GitPlace::new("git = \"../up.git\", tag = \"v1\"");
    let commit = place.files(&[("a", "1")], "v1");
    place.run(&["lock"]).success();
    let lock = place.lock();
    let hash = lock
        .lines()
        .find_map(|line| line.strip_prefix("nar-sha256 = "))
        .unwrap()
        .trim_matches('"')
        .to_owned();
    let lacking = "0123456789".repeat(4);
    for (from, to, says) in [
        (
            hash.as_str(),
            "0".repeat(64),
            &["has other content than the lock says", &hash[..], "--update NAME"][..],
        ),
        (&commit, lacking.clone(), &["has no commit 0123456789", "--update"]),
        (
            &commit,
            commit[..39].to_owned(),
            &["a commit has 40 or 64 hexadecimal digits"],
        ),
        ("refs/tags/v1", "--upload-pack=x".to_owned(), &["option"]),
        ("refs/tags/v1", lacking, &["two commits"]),
        ("lfs = false", "lfs = 0".to_owned(), &["boolean"]),
    ] {
        fs::remove_dir_all(place.at("cache")).unwrap_or_default();
        place.0.write("layerize.lock", &lock.replace(from, &to));
        place.run(&["build", "src", "--locked"]).exits(2).says(says);
        let store = layerize::fsio::sorted_names(&place.0.store().join("store")).unwrap_or_default();
        assert!(store.is_empty(), "{to}: {store:?}");
    }
    place.0.write("layerize.lock", &lock);
    place.source("git = \"../up.git\", tag = \"v2\"");
    place.run(&["build", "src", "--locked"]).exits(2).says(&[
        "missing: the git source of package `src` (tag v2)",
        "no longer needed: the git source of package `src` (tag v1)",
    ]);
}
