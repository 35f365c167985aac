//! *Merged `/usr`*: where the files of a package that was made for `/bin`, `/lib` and so on really belong.
//!
//! Invariant: pure; a path is moved at most once, and a symlink means after the move what it meant before.

use crate::root::{self, MERGED_DIRS};

/// Where `path` (relative to the root) is after the merge.
pub(super) fn merged(path: &[u8]) -> Vec<u8> {
    let top = path.split(|&byte| byte == b'/').next().unwrap_or_default();
    if MERGED_DIRS.iter().any(|dir| dir.as_bytes() == top) {
        [b"usr/", path].concat()
    } else {
        path.to_vec()
    }
}

/// As [`merged`], for an absolute path in text.
pub(super) fn merged_absolute(path: &str) -> String {
    let relative = merged(path.trim_start_matches('/').as_bytes());
    format!("/{}", String::from_utf8_lossy(&relative))
}

/// Whether a package's top-level entry is one of the links that merge `/usr` (`bin -> usr/bin`).
pub(super) fn is_merge_link(path: &[u8], target: &[u8]) -> bool {
    !path.contains(&b'/') && merged(path) != path && root::resolve(&[], target) == merged(path)
}

/// The target that the symlink at `path` (before the merge) must have to mean after the merge what `target` meant
/// before. Unchanged where it still does.
pub(super) fn merged_target(path: &[u8], target: &[u8]) -> Vec<u8> {
    let meaning = merged(&root::resolve(root::parent(path), target));
    let place = merged(path);
    let dir = root::parent(&place);
    if root::resolve(dir, target) == meaning {
        target.to_vec()
    } else if target.starts_with(b"/") {
        [b"/", meaning.as_slice()].concat()
    } else {
        relative(dir, &meaning)
    }
}

/// The relative path that leads from directory `from` to `to`, both relative to the root.
pub(super) fn relative(from: &[u8], to: &[u8]) -> Vec<u8> {
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|&byte| byte == b'/')
            .filter(|part| !part.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    };
    let (from, to) = (parts(from), parts(to));
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[common..].iter().map(|_| b"..".to_vec());
    let path: Vec<Vec<u8>> = up.chain(to[common..].iter().cloned()).collect();
    match path.is_empty() {
        true => b".".to_vec(),
        false => path.join(&b'/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn top_level_directories_move_below_usr() {
        for (path, expected) in [
            ("bin/sh", "usr/bin/sh"),
            ("lib", "usr/lib"),
            ("lib64/ld.so", "usr/lib64/ld.so"),
            ("usr/bin/sh", "usr/bin/sh"),
            ("library/x", "library/x"),
            ("etc/lib", "etc/lib"),
        ] {
            assert_eq!(merged(path.as_bytes()), expected.as_bytes());
        }
        assert_eq!(merged_absolute("/bin/nc"), "/usr/bin/nc");
        assert!(is_merge_link(b"lib64", b"usr/lib64"));
        assert!(is_merge_link(b"bin", b"/usr/bin"));
        assert!(!is_merge_link(b"lib64", b"lib"));
        assert!(!is_merge_link(b"etc", b"usr/etc"));
    }

    #[test]
    fn targets_keep_their_meaning() {
        for (path, target, expected) in [
            ("lib/x/liba.so", "liba.so.1", "liba.so.1"),
            ("lib/x/liba.so", "../y/liba.so.1", "../y/liba.so.1"),
            ("lib/x/liba.so", "../../usr/lib/x/liba.so.1", "liba.so.1"),
            ("usr/lib/x/liba.so", "../../../lib/x/liba.so.1", "liba.so.1"),
            ("usr/share/a", "../../bin/a", "../bin/a"),
            ("bin/a", "../etc/a", "../../etc/a"),
            ("lib64/ld.so", "/lib/x/ld.so", "/usr/lib/x/ld.so"),
            ("bin/a", "/etc/a", "/etc/a"),
            ("usr/bin/a", "../lib/a", "../lib/a"),
            ("lib64", "lib", "lib"),
        ] {
            let got = merged_target(path.as_bytes(), target.as_bytes());
            assert_eq!(String::from_utf8(got).unwrap(), expected, "{path} -> {target}");
        }
    }

    proptest! {
        #[test]
        fn a_merged_symlink_means_the_merged_thing(
            path in "(bin|lib|usr/lib|etc|usr/share)(/[a-c]){1,3}",
            target in "(/|(\\.\\./){0,4})(bin/|lib/|usr/|etc/)?[a-c](/[a-c]){0,2}",
        ) {
            let (path, target) = (path.as_bytes(), target.as_bytes());
            let meant = merged(&root::resolve(root::parent(path), target));
            let place = merged(path);
            let means = root::resolve(root::parent(&place), &merged_target(path, target));
            prop_assert_eq!(means, meant);
        }

        #[test]
        fn a_relative_path_leads_there(from in "([a-c](/[a-c]){0,3})?", to in "([a-c](/[a-c]){0,3})?") {
            prop_assert_eq!(root::resolve(from.as_bytes(), &relative(from.as_bytes(), to.as_bytes())), to.as_bytes());
        }
    }
}
