//! *Permissions* on the command line: `--chmod` and `--chown` as rules of a spec.
//!
//! Invariant: owners come after modes, each in the order of the arguments; a pattern is what holds a wild card.

use crate::spec::{Permission, PermissionPaths};

use super::error::advised;

/// The rules of `--chmod` and `--chown`.
pub fn permissions(modes: &[String], owners: &[String]) -> anyhow::Result<Vec<Permission>> {
    let rule = |flag: &str, argument: &str| match argument.rsplit_once('=') {
        Some((path, value)) if path.starts_with(['/', '*']) && !value.is_empty() => Ok((
            Permission {
                paths: match path.contains(['*', '?']) {
                    true => PermissionPaths::Pattern(path.to_owned()),
                    false => PermissionPaths::Path(path.to_owned()),
                },
                mode: None,
                owner: None,
                group: None,
            },
            value.to_owned(),
        )),
        _ => Err(advised(
            format!("`{flag} {argument}` is no rule"),
            "write for example `--chmod /var/lib/app=0750` or `--chown '/srv/**=1000:1000'`",
        )),
    };
    let mut rules = Vec::new();
    for argument in modes {
        let (rule, mode) = rule("--chmod", argument)?;
        let bits = u32::from_str_radix(&mode, 8).ok().filter(|&mode| mode <= 0o7777);
        let bits =
            bits.ok_or_else(|| advised(format!("`{mode}` is no permission bits"), "write them in octal: `0750`"))?;
        rules.push(Permission {
            mode: Some(bits),
            ..rule
        });
    }
    for argument in owners {
        let (rule, owner) = rule("--chown", argument)?;
        let (user, group) = match owner.split_once(':') {
            Some((user, group)) => (user.to_owned(), Some(group.to_owned())),
            None => (owner, None),
        };
        rules.push(Permission {
            owner: Some(user).filter(|user| !user.is_empty()),
            group: group.filter(|group| !group.is_empty()),
            ..rule
        });
    }
    Ok(rules)
}
