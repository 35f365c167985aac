//! The *greeting*: the first line that is printed in a root, which says what the worker is like.
//!
//! Invariant: it is printed by what travels in the root before the script runs, and taken away before anybody sees it; where
//! there is none, the worker did not make the root the root. What it says is a worker's word: of our own helper, where that made
//! the walls, and of the opening otherwise.

use std::fmt;

use super::error::{RemoteError, shortened};
use crate::walls::Walls;

/// How it begins.
pub(super) const GREETING: &str = "layerize: in the root, ";

/// How the helper's words on walls begin, which come next where it made some.
const BEHIND: &str = "behind ";

/// How that begins which the helper says where it can make no walls.
const REFUSAL: &str = "layerize: no walls at the worker: ";

/// Longest greeting, in bytes.
const GREETING_MAX: usize = 96;

/// Longest refusal that is told, in bytes.
const REFUSAL_MAX: usize = 4 << 10;

/// What the opening says of walls that the helper made.
pub(super) fn behind(walls: Walls) -> String {
    format!("{BEHIND}{walls}, ")
}

/// What the helper says where it can make no walls.
pub(super) fn refusal(reason: &str) -> String {
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{REFUSAL}{reason}\n")
}

/// What a greeting says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Greeting {
    /// Whether there is a network.
    pub network: Network,
    /// The walls that the helper made, where one did.
    pub walls: Option<Walls>,
}

impl Greeting {
    /// Reads what follows the beginning.
    fn parse(words: &[u8]) -> Option<Self> {
        let words = std::str::from_utf8(words).ok()?;
        let (walls, network) = match words.strip_prefix(BEHIND) {
            None => (None, words),
            Some(rest) => {
                let (walls, network) = rest.split_once(", ")?;
                let walls = walls.parse().ok().filter(|walls| is_made_by_helper(*walls))?;
                (Some(walls), network)
            }
        };
        let network = Network::ALL.into_iter().find(|known| known.word() == network)?;
        Some(Self { network, walls })
    }
}

/// Whether a helper at a worker makes these walls. Traced ones stop nobody who tries to get around them, and a worker is
/// somebody else's.
pub(super) fn is_made_by_helper(walls: Walls) -> bool {
    matches!(walls, Walls::Namespaces | Walls::Chroot)
}

/// Whether there is a network where a script ran, as it could see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// None but loopback.
    None,
    /// Packets have somewhere to go.
    Some,
    /// There is no `/proc` that would say it.
    Unknown,
}

impl Network {
    const ALL: [Self; 3] = [Self::None, Self::Some, Self::Unknown];

    /// Its word in the greeting.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::None => "no network",
            Self::Some => "network",
            Self::Unknown => "network unknown",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "a worker has no network",
            Self::Some => "a worker has a network",
            Self::Unknown => "a worker shows no `/proc`, and so not whether it has a network",
        })
    }
}

/// Takes away the greeting with which everything begins that is printed in the root.
pub(super) struct Greeted<'a> {
    output: &'a mut dyn FnMut(&[u8]),
    /// What came before it is clear whether it is the greeting.
    begun: Vec<u8>,
    is_clear: bool,
    greeting: Option<Greeting>,
    refusal: Option<String>,
    /// Whether what is printed where there is no greeting is for the user.
    tells_strangers: bool,
}

impl<'a> Greeted<'a> {
    /// Gives what comes after the greeting to `output`.
    pub(super) fn new(output: &'a mut dyn FnMut(&[u8])) -> Self {
        Self {
            output,
            begun: Vec::new(),
            is_clear: false,
            greeting: None,
            refusal: None,
            tells_strangers: true,
        }
    }

    /// The same where it is only tried whether there is a greeting: what stands in its place is nobody's concern.
    pub(super) fn that_may_lack(mut self) -> Self {
        self.tells_strangers = false;
        self
    }

    /// What the greeting said; `None` where there was none.
    pub(super) fn greeting(&self) -> Option<Greeting> {
        self.greeting
    }

    /// The same, where there must be one.
    pub(super) fn expect(&self, builder: &str) -> Result<Greeting, RemoteError> {
        let builder = || builder.to_owned();
        match (self.greeting, &self.refusal) {
            (Some(greeting), _) => Ok(greeting),
            (None, Some(reason)) => Err(RemoteError::NoWalls {
                builder: builder(),
                reason: reason.clone(),
            }),
            (None, None) => Err(RemoteError::NoRoot { builder: builder() }),
        }
    }

    fn is_told(&self) -> bool {
        self.greeting.is_some() || (self.tells_strangers && self.refusal.is_none())
    }

    /// Takes what was printed next.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        if self.is_clear {
            if self.is_told() {
                (self.output)(bytes);
            }
            return;
        }
        self.begun.extend_from_slice(bytes);
        let line = self.begun.iter().position(|&byte| byte == b'\n');
        let may_be = |start: &str, most: usize| {
            let prefix = self.begun.len().min(start.len());
            self.begun[..prefix] == start.as_bytes()[..prefix] && self.begun.len() <= most
        };
        if line.is_none() && (may_be(GREETING, GREETING_MAX) || may_be(REFUSAL, REFUSAL_MAX)) {
            return;
        }
        self.is_clear = true;
        let begun = std::mem::take(&mut self.begun);
        let words = |start: &str| line.and_then(|end| begun[..end].strip_prefix(start.as_bytes()));
        self.greeting = words(GREETING).and_then(Greeting::parse);
        self.refusal = words(REFUSAL).map(|reason| shortened(&String::from_utf8_lossy(reason)));
        let start = match (self.greeting, line) {
            (Some(_), Some(end)) => end + 1,
            _ => 0,
        };
        if start < begun.len() && self.is_told() {
            (self.output)(&begun[start..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_taken_away_in_whatever_pieces_it_comes() {
        let walls = Walls::LADDER.into_iter().filter(|walls| is_made_by_helper(*walls));
        let walls: Vec<Option<Walls>> = walls.map(Some).chain([None]).collect();
        for (network, walls) in Network::ALL
            .into_iter()
            .flat_map(|network| walls.iter().map(move |walls| (network, *walls)))
        {
            let behind = walls.map(behind).unwrap_or_default();
            let text = format!(
                "{GREETING}{behind}{}\nlayerize: in the root, network\nmore",
                network.word()
            );
            for size in 1..=text.len() {
                let mut rest = Vec::new();
                let mut take = |bytes: &[u8]| rest.extend_from_slice(bytes);
                let mut greeted = Greeted::new(&mut take);
                for piece in text.as_bytes().chunks(size) {
                    greeted.take(piece);
                }
                assert_eq!(greeted.greeting(), Some(Greeting { network, walls }), "{size}");
                assert_eq!(rest, b"layerize: in the root, network\nmore", "{size}");
            }
        }
    }

    #[test]
    fn what_is_no_greeting_stays() {
        for text in [
            "",
            "layerize: in the rooms\n",
            "layerize: in the root, network maybe\n",
            "layerize: in the root, behind builder, no network\n",
            "layerize: in the root, behind none, no network\n",
            "layerize: in the root, behind a hedge, no network\n",
            "layerize: in the root, behind namespaces\n",
            "bash: not found\nlayerize: in the root, network\n",
            &format!("{GREETING}{}", "x".repeat(100)),
        ] {
            let mut rest = Vec::new();
            let mut take = |bytes: &[u8]| rest.extend_from_slice(bytes);
            let mut greeted = Greeted::new(&mut take);
            greeted.take(text.as_bytes());
            assert_eq!(greeted.greeting(), None, "{text}");
            assert!(matches!(greeted.expect("b"), Err(RemoteError::NoRoot { .. })), "{text}");
            assert_eq!(rest, text.as_bytes());

            let mut ignore = |_: &[u8]| panic!("{text}");
            let mut tried = Greeted::new(&mut ignore).that_may_lack();
            tried.take(text.as_bytes());
            tried.take(b"more");
            assert!(tried.expect("b").is_err());
        }
    }

    #[test]
    fn a_helper_that_can_make_no_walls_says_why() {
        let mut ignore = |_: &[u8]| panic!("the error tells it");
        let mut greeted = Greeted::new(&mut ignore);
        for piece in refusal("cannot create a user namespace:\n Operation not permitted\u{1b}[0m")
            .as_bytes()
            .chunks(7)
        {
            greeted.take(piece);
        }
        let Err(RemoteError::NoWalls { reason, .. }) = greeted.expect("b") else {
            panic!("walls")
        };
        assert_eq!(
            reason,
            "cannot create a user namespace: Operation not permitted\\u{1b}[0m"
        );
    }
}
