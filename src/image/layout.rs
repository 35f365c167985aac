//! A *layout* is an image's whole file system before it is cut into layers.
//!
//! Invariant: a function of the recipe. It is made in this order, where later steps give way to what is there already,
//! except `files`, which replace it:
//!
//! 1. the packages of `root`, laid out at `/` (directories 0755, files 0644 or 0755, all root's; `/tmp`, `/var/tmp` and
//!    `/run/lock` 1777, `/root` 0700, as everywhere below);
//! 2. the `contents`, joined ([`join`](super::join));
//! 3. what the packages' maintainer scripts made, the links that their `update-alternatives` would have made, the data that
//!    libraries of the closure look for ([`data`]), the certificates and the time zone that the spec names; where scripts should
//!    run and cannot, the directories that an init makes of packages' data come with the accounts;
//! 4. the `files` of the spec: files and symlinks replace what is there, directories merge, and a path below a joined
//!    directory opens it up;
//! 5. what was made for the image: its Nix database;
//! 6. what every image has: `/tmp`, `/etc/passwd`, `/etc/group` and an `/etc/nsswitch.conf` that looks into `/etc/hosts`
//!    first; with a `root` also what Debian's base-files and its script bring (`/root`, `/home`, `/run`, `/var/log`,
//!    `/var/run` and the like, the kernel's mount points) and an `/etc/os-release`;
//! 7. the users' homes, the working directory and the volumes;
//! 8. the modes and owners of the spec's `permissions`.
//!
//! Over a [`base`] the last two bring nothing but the homes of declared users and, where there are any, the
//! base's accounts with them: what every image has, the base has.

use std::path::Path;

use super::accounts::{self, AccountFile, AccountFiles, Accounts};
use super::base::{self, BaseEntry};
use super::certificates;
use super::configured;
use super::data;
use super::error::ImageError;
use super::filesystem::{Content, FileSystem, Found, Node, NodeKind, Origin, directory_mode, push, relative, shown};
use super::join::join;
use super::permissions::{self, Attributes};
use super::program::similar;
use super::recipe::{Generated, GeneratedKind, Recipe, RootPackage};
use super::settings::Settings;
use super::sources::{Source, SourceEntry, SourceKind, normal_path};
use crate::configure::Record;
use crate::fsio;
use crate::root::{self, Composed, Ownership, RootEntry};
use crate::store_path::LogicalPath;

/// Directories that an image with a root has, whatever its packages bring: those that runtimes mount over, and those
/// that Debian's maintainer scripts take for granted.
const ROOT_DIRS: &[&str] = &[
    "dev",
    "home",
    "proc",
    "root",
    "run/lock",
    "sys",
    "var/cache",
    "var/lib",
    "var/log",
    "var/tmp",
];

/// Links that the script of Debian's base-files makes.
const ROOT_LINKS: &[(&str, &str)] = &[("var/lock", "/run/lock"), ("var/run", "/run")];

/// Largest `etc/passwd` or `etc/group` of an image's own that is read.
pub(super) const ACCOUNTS_SIZE_MAX: u64 = 1 << 20;

/// By convention the home of users who have none.
const NO_HOME: &str = "/nonexistent";

const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n";

/// For a root without Debian's base-files. It names no version, as no package says which release it is from.
const OS_RELEASE: &str = "ID=debian\nNAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux\"\n";

/// The file system of an image, and the part of it that the packages of `root` bring.
#[derive(Debug)]
pub(super) struct Layout {
    pub files: FileSystem,
    pub root: Composed,
    /// Modes, owners and capabilities in store paths that the spec gives.
    pub attributes: Attributes,
    /// What data of the closure stands where libraries look for it, each kind with its places.
    pub data: Vec<String>,
}

/// Makes the layout.
pub(super) fn lay_out(recipe: &Recipe, settings: &Settings) -> Result<Layout, ImageError> {
    let members = recipe.closure.iter();
    let mut files = FileSystem::new(members.map(|member| (member.logical.as_str(), member.physical.as_path())));
    let over_base = recipe.base.is_some();
    if let Some(base) = &recipe.base {
        add_directories_of_base(base, &mut files)?;
    }
    let root = lay_out_root(recipe, &mut files)?;
    join(&recipe.contents, over_base, &mut files)?;
    configured::lay_over(recipe, &mut files)?;
    add_alternatives(recipe, &mut files)?;
    let data = data::lay_out(recipe, &mut files)?;
    certificates::add(recipe, &mut files)?;
    add_time_zone(recipe, &mut files)?;
    let owned = add_sources(&recipe.files, &mut files)?;
    add_generated(&recipe.generated, &mut files)?;
    let accounts = add_accounts(recipe, &mut files)?;
    set_owners(owned, &accounts, &mut files)?;
    configured::add_boot_directories(recipe, &accounts, &mut files)?;
    if !over_base {
        add_base(recipe.has_root(), &mut files)?;
    }
    for user in recipe
        .spec
        .users
        .values()
        .map(|user| &user.value)
        .filter(|user| user.home != NO_HOME)
    {
        add_directory(&normal_path("users", &user.home)?, (user.uid, user.gid), &mut files)?;
    }
    // Runtimes make them where they are missing; an entry of ours would take the base's owner and mode away.
    for path in settings.workdir.iter().chain(&settings.volumes).filter(|_| !over_base) {
        add_directory(relative(path.as_bytes()), (0, 0), &mut files)?;
    }
    if !over_base || recipe.spec.user.is_some() {
        check_user(settings, &accounts)?;
    }
    let attributes = permissions::apply(recipe, &accounts, &mut files)?;
    Ok(Layout {
        files,
        root,
        attributes,
        data,
    })
}

/// Makes the directories and symlinks that a base has, or is taken to have, so that what goes to `/bin` goes to where
/// `/bin` leads, and hides nothing.
fn add_directories_of_base(base: &base::Base, files: &mut FileSystem) -> Result<(), ImageError> {
    let entries = base.links.clone().unwrap_or_else(|| {
        let assumed = base::links().map(|(link, target)| (link, BaseEntry::Symlink(target)));
        assumed.collect()
    });
    // All links come first: a directory that one leads to may be another.
    let mut directories = Vec::new();
    for (path, entry) in &entries {
        match entry {
            BaseEntry::Symlink(target) => directories.push(add_link_of_base(path, target, files)?),
            BaseEntry::Directory => directories.push(path.clone().into_bytes()),
        }
    }
    for directory in directories {
        make_directory_of_base(&directory, files)?;
    }
    Ok(())
}

/// Makes a link of the base's; gives the path that it leads to.
fn add_link_of_base(link: &str, target: &str, files: &mut FileSystem) -> Result<Vec<u8>, ImageError> {
    let parent = make_directory_of_base(root::parent(link.as_bytes()), files)?;
    let mut path = parent.clone();
    push(&mut path, link.rsplit('/').next().unwrap_or(link).as_bytes());
    if files.node(&path).is_none() {
        files.insert(path, Node::symlink(target).from(Origin::Base))?;
    }
    let mut led = if target.starts_with('/') { Vec::new() } else { parent };
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => led.truncate(root::parent(&led).len()),
            name => push(&mut led, name.as_bytes()),
        }
    }
    Ok(led)
}

/// Makes a directory that is in the base, links of the base's on the way followed; gives its real path.
fn make_directory_of_base(path: &[u8], files: &mut FileSystem) -> Result<Vec<u8>, ImageError> {
    let mut real = Vec::new();
    for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
        push(&mut real, name);
        match files.resolve(&real)? {
            Some((led, Found::Directory)) => real = led,
            Some(_) => {}
            None if files.node(&real).is_some() => {}
            None => files.insert(real.clone(), Node::directory(directory_mode(&real)).from(Origin::Base))?,
        }
    }
    Ok(real)
}

fn lay_out_root(recipe: &Recipe, files: &mut FileSystem) -> Result<Composed, ImageError> {
    let packages: Vec<_> = recipe
        .root
        .iter()
        .map(|package| (package.name.clone(), package.physical.clone()))
        .collect();
    let root = root::compose(&packages)?;
    for (path, entry) in &root.entries {
        let of_base = files.node(path).filter(|node| node.origin == Origin::Base);
        let differs = |base, root| ImageError::BaseDiffers {
            path: shown(path),
            base,
            root,
        };
        match (of_base.map(|node| &node.kind), entry) {
            // A link of the base's stays the base's.
            (Some(NodeKind::Symlink(_)), RootEntry::Symlink { .. }) => {}
            (Some(NodeKind::Symlink(_)), RootEntry::Directory) => return Err(differs("a symlink", "a directory")),
            // It would take the place of the directory, and all that the base has in it would be gone.
            (Some(NodeKind::Directory), RootEntry::Symlink { .. }) => return Err(differs("a directory", "a symlink")),
            _ => files.insert(path.clone(), root_node(recipe, path, entry, &root))?,
        }
    }
    Ok(root)
}

/// An entry of the root as the image has it. A file's bytes are named by its package's hash and its path.
pub(super) fn root_node(recipe: &Recipe, path: &[u8], entry: &RootEntry, root: &Composed) -> Node {
    let node = match entry {
        RootEntry::Directory => Node::directory(directory_mode(path)),
        RootEntry::Symlink { target } => Node::symlink(target.clone()),
        RootEntry::File {
            physical,
            size,
            executable,
            package,
        } => {
            let package = recipe.root.get(*package).map(|package| package.nar_hash.to_string());
            let content = Content::Disk {
                physical: physical.clone(),
                size: *size,
                identity: format!("{} {}", package.unwrap_or_default(), path.escape_ascii()),
            };
            Node::file(content, *executable)
        }
    };
    let node = match root.attributes.get(path) {
        Some(&Ownership { mode, uid, gid }) => Node { mode, uid, gid, ..node },
        None => node,
    };
    let capabilities = root.capabilities.get(path).and_then(|text| text.parse().ok());
    let node = Node { capabilities, ..node };
    node.from(Origin::Root)
}

fn add_alternatives(recipe: &Recipe, files: &mut FileSystem) -> Result<(), ImageError> {
    let member = |logical: &LogicalPath| recipe.closure.iter().find(|member| member.logical == *logical);
    let contents = recipe
        .contents
        .iter()
        .filter_map(|content| member(&content.logical))
        .map(|member| member.physical.as_path());
    // A content that is not a directory was refused by the join.
    // What scripts that ran asked for is in what they made.
    let skipped = match &recipe.configured {
        Some(configured) => Some(Record::read(&configured.physical)?.skipped),
        None => None,
    };
    let asks = |package: &&RootPackage| {
        skipped
            .as_ref()
            .is_none_or(|skipped| skipped.contains_key(&package.name))
    };
    let packages: Vec<&Path> = recipe
        .root
        .iter()
        .filter(asks)
        .map(|package| package.physical.as_path())
        .chain(contents)
        .collect();
    for (link, target) in root::alternatives(&packages)? {
        let link = normal_path("root", &link)?;
        if files.resolve(root::parent(&link))?.is_some() {
            let path = files.make_parent(&link)?;
            if files.lookup(&path)?.is_none() {
                files.insert(path, Node::symlink(target))?;
            }
        }
    }
    Ok(())
}

/// The time zone as Debian's tools set it: what programs of all languages look at is one of the two files.
fn add_time_zone(recipe: &Recipe, files: &mut FileSystem) -> Result<(), ImageError> {
    let Some(zone) = &recipe.spec.timezone else {
        return Ok(());
    };
    let link = Node::symlink(format!("/usr/share/zoneinfo/{}", zone.value));
    let name = Node::text(format!("{}\n", zone.value));
    for (path, node) in [("etc/localtime", link), ("etc/timezone", name)] {
        let path = files.make_parent(path.as_bytes())?;
        files.insert(path, node)?;
    }
    Ok(())
}

/// What was made for the image stands at its own place: anything of the user's there is a mistake.
fn add_generated(generated: &[Generated], files: &mut FileSystem) -> Result<(), ImageError> {
    for Generated { path, kind } in generated {
        let path = normal_path("generated", path)?;
        let node = match kind {
            GeneratedKind::Directory(mode) => {
                let path = files.make_directory(&path)?;
                files.insert(path, Node::directory(*mode))?;
                continue;
            }
            GeneratedKind::File(bytes) => Node::file(Content::Bytes(bytes.clone()), false),
            GeneratedKind::Symlink(target) => Node::symlink(target.as_str()),
        };
        let place = files.make_parent(&path)?;
        if files.lookup(&place)?.is_some() {
            return Err(ImageError::Taken { path: shown(&path) });
        }
        files.insert(place, node)?;
    }
    Ok(())
}

/// A node whose owner is yet to be set.
struct Owned<'a> {
    path: Vec<u8>,
    source: &'a Source,
}

fn add_sources<'a>(sources: &'a [Source], files: &mut FileSystem) -> Result<Vec<Owned<'a>>, ImageError> {
    let mut owned = Vec::new();
    for source in sources {
        for entry in &source.entries {
            let mut path = source.path.clone();
            if !entry.path.is_empty() {
                push(&mut path, &entry.path);
            }
            if let Some(path) = add_source(source, entry, &path, files)? {
                owned.push(Owned { path, source });
            }
        }
    }
    Ok(owned)
}

/// Puts one entry into the image; gives its real path, unless it is a directory that was there already.
fn add_source(
    source: &Source,
    entry: &SourceEntry,
    path: &[u8],
    files: &mut FileSystem,
) -> Result<Option<Vec<u8>>, ImageError> {
    let single = source.entries.len() == 1;
    match &entry.kind {
        SourceKind::Directory => {
            let is_new = files.resolve(path)?.is_none();
            let path = files.make_directory(path)?;
            // A directory that was there keeps its mode and owner, unless it alone is what the spec speaks of.
            if path.is_empty() || !(is_new || single) {
                return Ok(None);
            }
            let mode = match source.mode {
                Some(mode) if single => mode,
                // Who may read a file of the tree may enter its directories.
                Some(mode) => mode & 0o777 | (mode & 0o444) >> 2,
                None => files
                    .node(&path)
                    .map_or_else(|| directory_mode(&path), |node| node.mode),
            };
            files.insert(path.clone(), Node::directory(mode))?;
            Ok(Some(path))
        }
        SourceKind::Symlink(target) => {
            let path = files.make_parent(path)?;
            files.insert(path.clone(), Node::symlink(target.clone()))?;
            Ok(Some(path))
        }
        SourceKind::File {
            executable, content, ..
        } => {
            let path = files.make_parent(path)?;
            let node = Node::file(content.clone(), *executable);
            let mode = source.mode.unwrap_or(node.mode);
            files.insert(path.clone(), Node { mode, ..node })?;
            Ok(Some(path))
        }
    }
}

fn set_owners(owned: Vec<Owned<'_>>, accounts: &Accounts, files: &mut FileSystem) -> Result<(), ImageError> {
    for Owned { path, source } in owned {
        let (mut uid, mut gid) = (0, 0);
        if let Some(owner) = &source.owner {
            uid = accounts
                .uid(owner)
                .ok_or_else(|| unknown_user("files", owner, accounts))?;
        }
        if let Some(group) = &source.group {
            gid = accounts
                .gid(group)
                .ok_or_else(|| unknown_group("files", group, accounts))?;
        }
        if let Some(node) = files.node(&path).cloned() {
            files.insert(path, Node { uid, gid, ..node })?;
        }
    }
    Ok(())
}

/// What is wrong with a user that accounts do not know.
pub(super) fn unknown_user(field: &'static str, name: &str, accounts: &Accounts) -> ImageError {
    if let Some(error) = number_error(field, name) {
        return error;
    }
    ImageError::UnknownAccount {
        field,
        kind: "user",
        name: name.to_owned(),
        similar: similar(name, accounts.user_names()),
    }
}

/// What is wrong with a group that accounts do not know.
pub(super) fn unknown_group(field: &'static str, name: &str, accounts: &Accounts) -> ImageError {
    if let Some(error) = number_error(field, name) {
        return error;
    }
    ImageError::UnknownAccount {
        field,
        kind: "group",
        name: name.to_owned(),
        similar: similar(name, accounts.group_names()),
    }
}

/// Every number is known but those that nobody can have.
fn number_error(field: &'static str, name: &str) -> Option<ImageError> {
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| ImageError::Value {
        field,
        value: name.to_owned(),
        reason: accounts::ID_REASON,
    })
}

/// Writes `etc/passwd` and `etc/group` where the image has none of its own, and gives the accounts that they hold.
fn add_accounts(recipe: &Recipe, files: &mut FileSystem) -> Result<Accounts, ImageError> {
    let users = &recipe.spec.users;
    let of_base = recipe
        .base
        .as_ref()
        .map(|base| base.accounts.clone().unwrap_or_default());
    let configured = configured::accounts(recipe, files)?;
    let made = match of_base.as_ref().or(configured.as_ref()) {
        Some(files) => accounts::over_base(users, files)?,
        None => Accounts::new(users, recipe.has_root())?.files(),
    };
    let mut file = |path: &str, made: AccountFile| -> Result<AccountFile, ImageError> {
        let text = made.0.clone();
        Ok(match files.resolve(path.as_bytes())? {
            Some(_) if configured.is_some() => {
                if !users.is_empty() {
                    let place = files.make_parent(path.as_bytes())?;
                    files.insert(place, Node::text(text))?;
                }
                made
            }
            Some(_) if !users.is_empty() => {
                return Err(ImageError::OwnAccounts {
                    path: format!("/{path}"),
                });
            }
            Some((_, Found::File { content, .. })) => read_accounts(&content)?,
            Some(_) => AccountFile::default(),
            None => {
                if of_base.is_none() || !users.is_empty() {
                    add(path, Node::text(text), files)?;
                }
                made
            }
        })
    };
    Ok(Accounts::read(&AccountFiles {
        passwd: file("etc/passwd", made.passwd)?,
        group: file("etc/group", made.group)?,
    }))
}

pub(super) fn read_accounts(content: &Content) -> Result<AccountFile, ImageError> {
    Ok(AccountFile(match content {
        Content::Bytes(bytes) => bytes.to_vec(),
        Content::Disk { physical, .. } => fsio::read_limited(physical, ACCOUNTS_SIZE_MAX)?,
    }))
}

fn add_base(with_root: bool, files: &mut FileSystem) -> Result<(), ImageError> {
    add("tmp", Node::directory(directory_mode(b"tmp")), files)?;
    add("etc/nsswitch.conf", Node::text(NSSWITCH), files)?;
    if with_root {
        for dir in ROOT_DIRS {
            add(dir, Node::directory(directory_mode(dir.as_bytes())), files)?;
        }
        for (link, target) in ROOT_LINKS {
            add(link, Node::symlink(*target), files)?;
        }
        add("etc/os-release", Node::text(OS_RELEASE), files)?;
    }
    Ok(())
}

/// Puts a node where the image has nothing (not even a symlink that leads nowhere).
fn add(path: &str, node: Node, files: &mut FileSystem) -> Result<(), ImageError> {
    let path = files.make_parent(path.as_bytes())?;
    if files.lookup(&path)?.is_none() {
        files.insert(path, node)?;
    }
    Ok(())
}

/// Makes a directory, owned by `(uid, gid)`, where the image has none; its missing parents are root's.
fn add_directory(path: &[u8], (uid, gid): (u32, u32), files: &mut FileSystem) -> Result<(), ImageError> {
    match files.resolve(path)? {
        Some((_, Found::Directory)) => Ok(()),
        Some(_) => Err(ImageError::NotADirectory {
            path: shown(path),
            parent: shown(path),
        }),
        None => {
            let path = files.make_directory(path)?;
            let mode = files
                .node(&path)
                .map_or_else(|| directory_mode(&path), |node| node.mode);
            let node = Node {
                uid,
                gid,
                ..Node::directory(mode)
            };
            files.insert(path, node)
        }
    }
}

/// Checks that the names in `user` are in the image; runtimes refuse to start it otherwise.
fn check_user(settings: &Settings, accounts: &Accounts) -> Result<(), ImageError> {
    let Some(text) = &settings.user else {
        return Ok(());
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text.as_str(), None),
    };
    if accounts.uid(user).is_none() {
        return Err(unknown_user("user", user, accounts));
    }
    match group.filter(|group| accounts.gid(group).is_none()) {
        Some(group) => Err(unknown_group("user", group, accounts)),
        None => Ok(()),
    }
}
