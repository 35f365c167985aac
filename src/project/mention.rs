//! A *mention* is a store path that an image cannot do without because its own settings lead into it.
//!
//! Invariant: pure; what is found is looked up by whoever asks.

use std::collections::BTreeSet;

use crate::spec::{self, ImageFileKind};
use crate::store_path::{HASH_CHARS, NAME_MAX, StoreDir, StorePath};

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
