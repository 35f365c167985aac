//! *Sources*: the archives that apt reads, as the machine or the spec has them, made into those of one kind.
//!
//! Invariant: what a source says is kept word for word but for its type: options, keys and suites are the user's.

use std::path::{Path, PathBuf};

use crate::spec::Workspace;

/// Where apt gets packages from, and for which architecture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AptSources {
    /// apt sources, deb822 or one-line; empty: those of the machine.
    pub sources: Vec<String>,
    /// Keyring for these sources; `None`: the machine's.
    pub keyring: Option<PathBuf>,
    /// Debian's name of the architecture (`amd64`); `None`: the machine's.
    pub architecture: Option<String>,
    /// Snapshot servers, beside those that the machine knows.
    pub snapshots: Vec<String>,
}

impl AptSources {
    /// The sources that a workspace's `[debian]` table names.
    pub fn of(workspace: &Workspace) -> Self {
        let dir = workspace.files.first().and_then(|file| file.path.parent());
        let keyring = workspace.debian.keyring.as_ref();
        Self {
            sources: workspace.debian.sources.clone(),
            keyring: keyring.map(|keyring| dir.unwrap_or(Path::new("")).join(keyring)),
            architecture: workspace.debian.architecture.clone(),
            snapshots: workspace.debian.snapshots.clone(),
        }
    }
}

/// What a source is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Binary packages: type `deb`.
    Binary,
    /// Source packages: type `deb-src`; a source of binary packages is taken to have theirs too.
    Source,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Binary => "deb",
            Self::Source => "deb-src",
        }
    }

    /// Whether a source of type `text` is one to be asked.
    fn takes(self, text: &str) -> bool {
        text == "deb" || (self == Self::Source && text == "deb-src")
    }
}

/// Text of apt sources and its format.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Text {
    /// sources.list(5), "one-line-style".
    OneLine(String),
    /// sources.list(5), "deb822-style".
    Deb822(String),
}

impl Text {
    /// Tells the format of sources that a spec holds.
    pub(super) fn sniff(text: &str) -> Self {
        let is_field = |line: &str| line.to_ascii_lowercase().starts_with("types:");
        match text.lines().any(|line| is_field(line.trim_start())) {
            true => Self::Deb822(text.to_owned()),
            false => Self::OneLine(text.to_owned()),
        }
    }

    /// The extension of a file that holds such sources.
    pub(super) fn extension(&self) -> &'static str {
        match self {
            Self::OneLine(_) => "list",
            Self::Deb822(_) => "sources",
        }
    }

    /// The text in which every source is of type `kind`; others are left out.
    pub(super) fn of_kind(&self, kind: Kind) -> String {
        match self {
            Self::OneLine(text) => one_line(text, kind),
            Self::Deb822(text) => deb822(text, kind),
        }
    }
}

fn one_line(text: &str, kind: Kind) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((word, rest)) = line.split_once([' ', '\t']) else {
            continue;
        };
        let line = format!("{} {}", kind.name(), rest.trim());
        // A `deb` line and its `deb-src` twin become one.
        if kind.takes(word) && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn deb822(text: &str, kind: Kind) -> String {
    let mut stanzas: Vec<String> = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let is_types = |line: &str| line.to_ascii_lowercase().starts_with("types:");
        let Some(types) = stanza.iter().find(|line| is_types(line)) else {
            continue;
        };
        let taken = types[6..].split_whitespace().any(|word| kind.takes(word));
        let stanza: String = stanza
            .iter()
            .map(|line| match is_types(line) {
                true => format!("Types: {}\n", kind.name()),
                false => format!("{line}\n"),
            })
            .collect();
        if taken && !stanzas.contains(&stanza) {
            stanzas.push(stanza);
        }
    }
    stanzas.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_LINE: &str = "# machine\ndeb [arch=amd64 signed-by=/k.gpg] http://m/debian  stable main # note\n\
        deb-src [arch=amd64 signed-by=/k.gpg] http://m/debian  stable main\n  deb-src\thttp://s/ x/\n\nnonsense\n";

    const DEB822: &str = "# machine\nTypes: deb\nURIs: http://m/debian\nSuites: stable\n updates\nSigned-By:\n key\n .\n end\n\n\
        types: deb-src\nURIs: http://s\nSuites: x/\n\nEnabled: no\n";

    #[test]
    fn one_line_sources_change_their_type() {
        let text = Text::sniff(ONE_LINE);
        assert_eq!(text.extension(), "list");
        assert_eq!(
            text.of_kind(Kind::Binary),
            "deb [arch=amd64 signed-by=/k.gpg] http://m/debian  stable main\n"
        );
        assert_eq!(
            text.of_kind(Kind::Source),
            "deb-src [arch=amd64 signed-by=/k.gpg] http://m/debian  stable main\ndeb-src http://s/ x/\n"
        );
    }

    #[test]
    fn deb822_sources_change_their_type() {
        let text = Text::sniff(DEB822);
        assert_eq!(text.extension(), "sources");
        let machine = "URIs: http://m/debian\nSuites: stable\n updates\nSigned-By:\n key\n .\n end\n";
        assert_eq!(text.of_kind(Kind::Binary), format!("Types: deb\n{machine}"));
        assert_eq!(
            text.of_kind(Kind::Source),
            format!("Types: deb-src\n{machine}\nTypes: deb-src\nURIs: http://s\nSuites: x/\n")
        );
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_apt_sources() {
        crate::testing::fuzz("apt-sources", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let sources = super::Text::sniff(&text);
            for kind in [super::Kind::Binary, super::Kind::Source] {
                let _ = sources.of_kind(kind);
            }
        });
    }
}
