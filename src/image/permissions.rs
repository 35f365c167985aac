//! *Permissions* give modes, owners and file capabilities to what is in an image, wherever it comes from, by path or by
//! pattern.
//!
//! Invariant: a function of the spec, of the image's paths and of which of them are directories; a rule that fits
//! nothing is an error, and where two rules fit one entry the later one has the last word on what it says.
//!
//! A pattern fits whole absolute paths: `*` any part of a name, `**` any part of a path, `?` one character of a name.
//! It gives directories the right to be entered by whoever may read them, so that one mode serves a whole tree; and
//! capabilities to regular files alone, as nothing else can have any.

use std::collections::BTreeMap;

use super::accounts::Accounts;
use super::error::ImageError;
use super::filesystem::{FileSystem, Found, NodeKind, Origin, absolute, push, shown};
use super::layout::{unknown_group, unknown_user};
use super::recipe::Recipe;
use super::sources::normal_path;
use crate::capability::FileCapabilities;
use crate::layer::Attribute;
use crate::spec::{Permission, PermissionPaths};
use crate::store_path::LogicalPath;

/// Modes, owners and capabilities of entries of store paths that are not the usual ones, by store path.
pub(super) type Attributes = BTreeMap<LogicalPath, Vec<Attribute>>;

/// A rule with its names looked up.
struct AppliedRule<'a> {
    permission: &'a Permission,
    uid: Option<u32>,
    gid: Option<u32>,
    used: bool,
    /// Whether its capabilities were given to a file.
    given: bool,
}

/// Applies an image's rules to its nodes; gives what they say of its store paths.
pub(super) fn apply(recipe: &Recipe, accounts: &Accounts, files: &mut FileSystem) -> Result<Attributes, ImageError> {
    let mut rules = Vec::new();
    for permission in &recipe.spec.permissions {
        let uid = permission.owner.as_ref().map(|name| {
            let found = accounts.uid(name);
            found.ok_or_else(|| unknown_user("permissions", name, accounts))
        });
        let gid = permission.group.as_ref().map(|name| {
            let found = accounts.gid(name);
            found.ok_or_else(|| unknown_group("permissions", name, accounts))
        });
        rules.push(AppliedRule {
            permission,
            uid: uid.transpose()?,
            gid: gid.transpose()?,
            used: false,
            given: false,
        });
    }
    if rules.is_empty() {
        return Ok(Attributes::new());
    }
    make_directories(&rules, files)?;
    apply_to_nodes(&mut rules, files)?;
    let attributes = apply_to_store(recipe, &mut rules, files)?;
    for rule in &rules {
        rule.check(files)?;
    }
    Ok(attributes)
}

/// Whether a rule says what capabilities the file at an absolute path has.
pub(super) fn say_capabilities(recipe: &Recipe, path: &str) -> bool {
    let mut rules = recipe.spec.permissions.iter();
    rules.any(|rule| rule.capabilities.is_some() && rule_fits(&rule.paths, path.as_bytes()))
}

/// A directory that stands only because a store path is below it, such as `/nix`, becomes a node where it is named.
fn make_directories(rules: &[AppliedRule<'_>], files: &mut FileSystem) -> Result<(), ImageError> {
    for rule in rules {
        if let PermissionPaths::Path(path) = &rule.permission.paths {
            let path = normal_path("permissions", path)?;
            if files.physical(&path).is_none() && files.lookup(&path)? == Some(Found::Directory) && !path.is_empty() {
                files.make_directory(&path)?;
            }
        }
    }
    Ok(())
}

fn apply_to_nodes(rules: &mut [AppliedRule<'_>], files: &mut FileSystem) -> Result<(), ImageError> {
    let mut changed = Vec::new();
    for (path, node) in files.nodes() {
        let mut new = node.clone();
        let full = absolute(path);
        let is_directory = node.kind == NodeKind::Directory;
        for rule in rules.iter_mut().filter(|rule| rule.fits(&full)) {
            rule.used = true;
            if !matches!(node.kind, NodeKind::Symlink(_)) {
                new.mode = rule.mode(is_directory).unwrap_or(new.mode);
            }
            if matches!(node.kind, NodeKind::File(_)) {
                new.capabilities = rule.capabilities(new.capabilities);
            }
            new.uid = rule.uid.unwrap_or(new.uid);
            new.gid = rule.gid.unwrap_or(new.gid);
        }
        if new != *node {
            // What a package of `root` brings is in its own layer as the package has it: this is laid over it.
            changed.push((path.to_vec(), new.from(Origin::Own)));
        }
    }
    for (path, node) in changed {
        files.insert(path, node)?;
    }
    Ok(())
}

fn apply_to_store(
    recipe: &Recipe,
    rules: &mut [AppliedRule<'_>],
    files: &FileSystem,
) -> Result<Attributes, ImageError> {
    let mut attributes = Attributes::new();
    for member in &recipe.closure {
        let logical = member.logical.as_str().as_bytes();
        if !rules.iter().any(|rule| rule.may_fit_below(logical)) {
            continue;
        }
        let mut found = Vec::new();
        let mut todo = vec![normal_path("permissions", member.logical.as_str())?];
        while let Some(path) = todo.pop() {
            let full = absolute(&path);
            let Some(entry) = files.lookup(&path)? else { continue };
            found.extend(attribute(
                rules,
                &full,
                &full[(logical.len() + 1).min(full.len())..],
                &entry,
            ));
            if entry == Found::Directory {
                for name in files.names(&path)? {
                    let mut below = path.clone();
                    push(&mut below, &name);
                    todo.push(below);
                }
            }
        }
        if !found.is_empty() {
            found.sort_by(|a, b| a.path.cmp(&b.path));
            attributes.insert(member.logical.clone(), found);
        }
    }
    Ok(attributes)
}

fn attribute(rules: &mut [AppliedRule<'_>], full: &[u8], below: &[u8], entry: &Found) -> Option<Attribute> {
    let mut attribute = Attribute {
        path: below.to_vec(),
        ..Attribute::default()
    };
    for rule in rules.iter_mut().filter(|rule| rule.fits(full)) {
        rule.used = true;
        if !matches!(entry, Found::Symlink(_)) {
            attribute.mode = rule.mode(*entry == Found::Directory).or(attribute.mode);
        }
        if matches!(entry, Found::File { .. }) {
            attribute.capabilities = rule.capabilities(attribute.capabilities);
        }
        attribute.uid = rule.uid.unwrap_or(attribute.uid);
        attribute.gid = rule.gid.unwrap_or(attribute.gid);
    }
    let usual = Attribute {
        path: attribute.path.clone(),
        ..Attribute::default()
    };
    (attribute != usual).then_some(attribute)
}

impl AppliedRule<'_> {
    fn fits(&self, path: &[u8]) -> bool {
        rule_fits(&self.permission.paths, path)
    }

    /// Whether it could fit `root` or something below it, as far as the part without wild cards tells.
    fn may_fit_below(&self, root: &[u8]) -> bool {
        let fixed = match &self.permission.paths {
            PermissionPaths::Path(path) => path.as_bytes(),
            PermissionPaths::Pattern(pattern) => {
                let end = pattern.find(['*', '?']).unwrap_or(pattern.len());
                &pattern.as_bytes()[..end]
            }
        };
        fixed.starts_with(root) || root.starts_with(fixed)
    }

    /// What a file has after this rule that had `before`.
    fn capabilities(&mut self, before: Option<FileCapabilities>) -> Option<FileCapabilities> {
        match self.permission.capabilities {
            None => before,
            Some(capabilities) => {
                self.given = true;
                (!capabilities.is_empty()).then_some(capabilities)
            }
        }
    }

    /// That it did something; the error says where its path leads.
    fn check(&self, files: &FileSystem) -> Result<(), ImageError> {
        let no_file = self.used && self.permission.capabilities.is_some() && !self.given;
        if self.used && !no_file {
            return Ok(());
        }
        let rule = self.permission.paths.to_string();
        let leads = match &self.permission.paths {
            PermissionPaths::Path(path) => files.resolve(&normal_path("permissions", path)?)?,
            PermissionPaths::Pattern(_) => None,
        };
        let leads = leads.map(|(path, _)| shown(&path)).filter(|path| *path != rule);
        Err(match no_file {
            true => ImageError::CapabilitiesOfNoFile { rule, leads },
            false => ImageError::NothingFits { rule, leads },
        })
    }

    fn mode(&self, is_directory: bool) -> Option<u32> {
        let mode = self.permission.mode?;
        match &self.permission.paths {
            PermissionPaths::Pattern(_) if is_directory => Some(mode | (mode & 0o444) >> 2),
            _ => Some(mode),
        }
    }
}

fn rule_fits(paths: &PermissionPaths, path: &[u8]) -> bool {
    match paths {
        PermissionPaths::Path(own) => own.as_bytes() == path,
        PermissionPaths::Pattern(pattern) => fits(pattern.as_bytes(), path),
    }
}

/// Whether `pattern` fits the whole of `path`. The work is the product of their lengths, whatever the pattern.
fn fits(pattern: &[u8], path: &[u8]) -> bool {
    // After each token, the set of lengths of `path` that have been consumed by then.
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let (length, token) = match &pattern[at..] {
            [b'*', b'*', ..] => (2, PatternToken::Any),
            [b'*', ..] => (1, PatternToken::InName),
            [b'?', ..] => (1, PatternToken::One),
            [byte, ..] => (1, PatternToken::Byte(*byte)),
            [] => break,
        };
        let mut next = vec![false; path.len() + 1];
        for (end, slot) in next.iter_mut().enumerate() {
            let (stays, last) = (reached[end], end.checked_sub(1));
            let one = last.is_some_and(|last| reached[last] && token.takes(path[last]));
            *slot = one || (token.repeats() && stays);
        }
        if token.repeats() {
            for end in 1..=path.len() {
                next[end] |= next[end - 1] && token.takes(path[end - 1]);
            }
        }
        reached = next;
        at += length;
    }
    reached[path.len()]
}

#[derive(Clone, Copy)]
enum PatternToken {
    Any,
    InName,
    One,
    Byte(u8),
}

impl PatternToken {
    fn repeats(self) -> bool {
        matches!(self, Self::Any | Self::InName)
    }

    fn takes(self, byte: u8) -> bool {
        match self {
            Self::Any => true,
            Self::InName | Self::One => byte != b'/',
            Self::Byte(own) => own == byte,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_paths() {
        for (pattern, path, expected) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a/bc", false),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/", true),
            ("/a/*", "/a/b/c", false),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/a", false),
            ("/**/bin/*", "/nix/store/x/bin/y", true),
            ("/**/bin/*", "/nix/store/x/lib/y", false),
            ("/nix/store/*-app-*/run?", "/nix/store/abc-app-1.0/run2", true),
            ("/nix/store/*-app-*/run?", "/nix/store/abc-app-1.0/run/", false),
            ("**", "/anything/at all", true),
            ("", "", true),
            ("", "/", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
        let hostile = "**a".repeat(200);
        assert!(!fits(hostile.as_bytes(), "a".repeat(199).as_bytes()));
    }
}
