//! What a command takes from a *Nix store*: paths that arguments name, that the spec's `contents` pin in the lock, and
//! that an image's config mentions.
//!
//! Invariant: the store is opened when something in it is first asked for, and never written to; what the lock pins is
//! compared with what is there before it is used.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::closure::{self, Closure};
use crate::image::ImageError;
use crate::layer::LayerError;
use crate::spec::{self, ImageFileKind, Lock, LockedNix, Workspace};
use crate::store::nix_store::{Linked, NixStore};
use crate::store::{ReadStore, StoreError};
use crate::store_path::{HASH_CHARS, NAME_MAX, StoreDir, StorePath};

use super::error::advised;
use super::ui::Ui;

/// Files that are named where a store path is not what Nix registered.
const SUSPECTS_MAX: usize = 5;

/// A Nix store that is opened when it is needed.
pub struct LazyNix {
    root: PathBuf,
    graph: Option<PathBuf>,
    store: OnceCell<NixStore>,
}

impl LazyNix {
    /// The store below `root`, told of by `graph` where one is given.
    pub fn new(root: PathBuf, graph: Option<PathBuf>) -> Self {
        Self {
            root,
            graph,
            store: OnceCell::new(),
        }
    }

    /// Opens it, or gives it where it is open.
    pub fn get(&self) -> anyhow::Result<&NixStore> {
        if self.store.get().is_none() {
            let store = NixStore::open(&self.root, self.graph.as_deref())?;
            // Nobody else can have set it: a cell is of one thread.
            let _ = self.store.set(store);
        }
        Ok(self.store.get().expect("it was just set"))
    }

    /// Whether there is such a store at all.
    pub fn exists(&self) -> bool {
        self.root.join("nix/store").is_dir()
    }

    /// Says so where there is nothing that paths could be compared with.
    pub fn warn_of_missing_records(&self, ui: &Ui) {
        if let Some(store) = self.store.get().filter(|store| !store.has_records()) {
            ui.note(&format!(
                "the Nix store of `{}` has no database: its paths are taken as they are on disk now",
                store.root().display()
            ));
        }
    }

    /// The store path that an argument names: `/nix/store/HASH-NAME`, or with a `/` in it (or anyhow, where `bare`) a
    /// link or profile that leads to one; `None` where the argument means something else.
    pub fn argument(&self, text: &str, bare: bool) -> anyhow::Result<Option<StorePath>> {
        let path = Path::new(text);
        if text.starts_with(&format!("{}/", StoreDir::NIX)) {
            return self.whole(text, self.get()?.resolve(path)?).map(Some);
        }
        let may_lead = (bare || text.contains('/')) && path.symlink_metadata().is_ok() && self.exists();
        match may_lead.then(|| self.get()).transpose()? {
            Some(store) => match store.leads_to(path)? {
                Some(linked) => self.whole(text, linked).map(Some),
                None => Ok(None),
            },
            None => Ok(None),
        }
    }

    /// A path that must be a store path and nothing in one.
    fn whole(&self, text: &str, Linked { path, below }: Linked) -> anyhow::Result<StorePath> {
        let logical = StoreDir::nix().join(&path);
        if !below.is_empty() {
            let message = format!("`{text}` leads into a store path and not to one");
            return Err(advised(
                message,
                format!("name `{logical}`, and the file in `--entrypoint`"),
            ));
        }
        self.valid(&path, text)?;
        Ok(path)
    }

    fn valid(&self, path: &StorePath, named_by: &str) -> anyhow::Result<()> {
        let store = self.get()?;
        if store.info(path)?.is_some() {
            return Ok(());
        }
        let logical = StoreDir::nix().join(path);
        let names = if named_by == logical {
            String::new()
        } else {
            format!(", which `{named_by}` names,")
        };
        let message = format!(
            "`{logical}`{names} is not valid in the Nix store of `{}`, as {} says",
            store.root().display(),
            store.source()
        );
        let help =
            format!("`nix-store --realise {logical}` fetches or builds it; `--nix-store DIR` names another store");
        Err(advised(message, help))
    }

    /// The closure of paths of the store.
    pub fn closure(&self, roots: &BTreeSet<StorePath>) -> anyhow::Result<Closure> {
        let store = self.get()?;
        closure::compute(store, roots).map_err(|error| match error {
            StoreError::NotValid { path, needed_by } => {
                let dir = StoreDir::nix();
                let named =
                    needed_by.map_or_else(String::new, |path| format!(" `{}` refers to it, but", dir.join(&path)));
                let message = format!(
                    "`{}` is missing:{named} {} does not know it",
                    dir.join(&path),
                    store.source()
                );
                let help = match &self.graph {
                    Some(_) => "write the whole closure to the graph: `nix path-info --json --recursive PATH`",
                    None => "`nix-store --verify` tells what is wrong with the store",
                };
                advised(message, help)
            }
            other => other.into(),
        })
    }

    /// What the lock says of `{ nix = "NAME" }` of a spec in `dir`.
    pub fn pin(&self, name: &str, dir: &Path) -> anyhow::Result<LockedNix> {
        let store = self.get()?;
        let path = self.whole(name, store.resolve(&dir.join(name))?)?;
        let closure = self.closure(&BTreeSet::from([path.clone()]))?;
        let nar_hash = closure.get(&path).map(|info| info.nar_hash);
        Ok(LockedNix {
            path: StoreDir::nix().join(&path),
            nar_hash: nar_hash.expect("a closure holds its root"),
            closure: NixStore::closure_digest(&closure.members),
        })
    }

    /// Links of the spec that lead elsewhere now than the lock says, a sentence each, by name. A link that is gone, on
    /// a machine where nothing was built, is no change.
    pub fn moved(&self, workspace: &Workspace, lock: &Lock) -> anyhow::Result<Vec<(String, String)>> {
        let mut moved = Vec::new();
        for (name, dir) in spec::nix_contents(workspace) {
            let link = dir.join(&name);
            let Some(locked) = lock.nix.get(&name).filter(|_| link.symlink_metadata().is_ok()) else {
                continue;
            };
            let now = self.exists().then(|| self.get()).transpose()?;
            let now = now.map(|store| store.leads_to(&link)).transpose()?.flatten();
            if let Some(now) = now.map(|linked| StoreDir::nix().join(&linked.path))
                && now != locked.path
            {
                let reason = format!("`{name}` leads to `{now}` now, and not to `{}`", locked.path);
                moved.push((name, reason));
            }
        }
        Ok(moved)
    }

    /// The store path that the lock pins, found to be what it was when it was pinned.
    pub fn locked(&self, name: &str, lock: &Lock) -> anyhow::Result<StorePath> {
        let locked = lock.nix.get(name);
        let split = locked.and_then(|locked| Some((locked, StoreDir::nix().split(&locked.path)?.0)));
        let Some((locked, path)) = split else {
            return Err(advised(format!("`{name}` is not in the lock"), "run `layerize lock`"));
        };
        self.valid(&path, name)?;
        let closure = self.closure(&BTreeSet::from([path.clone()]))?;
        let nar_hash = closure.get(&path).map(|info| info.nar_hash);
        let differs = if nar_hash != Some(locked.nar_hash) {
            format!("the content of `{}`", locked.path)
        } else if NixStore::closure_digest(&closure.members) != locked.closure {
            format!("something in the closure of `{}`", locked.path)
        } else {
            return Ok(path);
        };
        Err(advised(
            format!("{differs} is not what the lock pins: it was built to another result on this machine"),
            format!("copy it from where the lock was made, or run `layerize lock --update {name}`"),
        ))
    }

    /// Adds to an error of a store path with other content than Nix registered which of its files show that.
    pub fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        let changed = error
            .chain()
            .find_map(|cause| match cause.downcast_ref::<ImageError>() {
                Some(ImageError::Layer(LayerError::Changed { path, .. })) => StoreDir::nix().split(path),
                _ => None,
            });
        let (Some((path, _)), Ok(store)) = (changed, self.get()) else {
            return error;
        };
        let logical = StoreDir::nix().join(&path);
        let what = match store.suspects(&path, SUSPECTS_MAX) {
            Ok(suspects) if !suspects.is_empty() => format!(
                "Nix leaves every file with the time 1 and read-only, but not so in it are: {}",
                suspects.join(", ")
            ),
            _ => "which file differs cannot be told: all have the time 1 and are read-only, as Nix leaves them"
                .to_owned(),
        };
        error.context(format!("`{logical}` is not what Nix registered; {what}"))
    }
}

/// A store path that an image's config or files mention.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mention {
    /// Whether it is in a Nix store; else it is in layerize's.
    pub nix: bool,
    /// The path.
    pub path: StorePath,
    /// Where it stands: `entrypoint`, `env`, a path of `files`.
    pub field: String,
}

/// The store paths that an image cannot do without because its own settings lead into them: in its command, its
/// variables, its directories, and the links and texts among its files.
pub fn mentions(image: &spec::Image) -> BTreeSet<Mention> {
    let mut texts: Vec<(&str, &str)> = Vec::new();
    texts.extend(image.entrypoint.iter().map(|word| ("entrypoint", word.as_str())));
    texts.extend(image.cmd.iter().map(|word| ("cmd", word.as_str())));
    texts.extend(image.env.values().map(|value| ("env", value.as_str())));
    texts.extend(image.workdir.iter().map(|path| ("workdir", path.as_str())));
    texts.extend(image.users.values().map(|user| ("users", user.value.shell.as_str())));
    texts.extend(image.files.iter().filter_map(|(path, file)| match &file.value.kind {
        ImageFileKind::Text(text) | ImageFileKind::Symlink(text) => Some((path.as_str(), text.as_str())),
        ImageFileKind::Source(_) | ImageFileKind::Directory => None,
    }));
    let mut found = BTreeSet::new();
    for (field, text) in texts {
        for (dir, nix) in [(StoreDir::NIX, true), (StoreDir::LAYERIZE, false)] {
            found.extend(paths_in(text, dir).into_iter().map(|path| Mention {
                nix,
                path,
                field: field.to_owned(),
            }));
        }
    }
    found
}

/// All `DIR/HASH-NAME` in a text. A name ends where no name could go on, and never with a full stop.
fn paths_in(text: &str, dir: &str) -> Vec<StorePath> {
    let prefix = format!("{dir}/");
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte);
    text.match_indices(&prefix)
        .filter_map(|(at, _)| {
            let rest = &text.as_bytes()[at + prefix.len()..];
            let length = rest
                .iter()
                .take(HASH_CHARS + 1 + NAME_MAX)
                .take_while(|byte| in_name(byte))
                .count();
            let base = std::str::from_utf8(&rest[..length]).ok()?;
            base.trim_end_matches(['.', '?']).parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_paths_are_found_in_texts() {
        let hash = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr";
        let text = format!(
            "--a=/nix/store/{hash}-one-1.0/bin/x:/nix/store/{hash}-two, see /nix/store/{hash}-three. /nix/store/{hash} \
             /nix/store/zz-four /layerize/store/{hash}-five;/nix/store/{hash}-"
        );
        let names = |dir| {
            paths_in(&text, dir)
                .iter()
                .map(|path| path.name().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(StoreDir::NIX), ["one-1.0", "two", "three"]);
        assert_eq!(names(StoreDir::LAYERIZE), ["five"]);
    }

    #[test]
    fn an_image_mentions_paths_in_its_command_its_variables_and_its_links() {
        let path = |name: &str| format!("/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-{name}");
        let mut image = spec::Image::new("x");
        image.entrypoint = vec![format!("{}/bin/a", path("a"))];
        image.cmd = vec![format!("--config={}", path("b"))];
        image.env = [("PATH".to_owned(), format!("{}/bin:{}/bin", path("c"), path("d")))].into();
        image.workdir = Some(path("e"));
        image.labels = [("source".to_owned(), path("not-this"))].into();
        let found: Vec<String> = mentions(&image)
            .into_iter()
            .map(|mention| format!("{} {}", mention.field, mention.path.name()))
            .collect();
        assert_eq!(found, ["entrypoint a", "cmd b", "env c", "env d", "workdir e"]);
    }
}
