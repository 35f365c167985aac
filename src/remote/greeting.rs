//! The *greeting*: the first line that is printed in a root, which says what the worker is like.
//!
//! Invariant: it is printed by what travels in the root before the script runs, and taken away before anybody sees it; where
//! there is none, the worker did not make the root the root. What it says is a worker's word.

use std::fmt;

use super::error::RemoteError;

/// How it begins.
pub(super) const GREETING: &str = "layerize: in the root, ";

/// Longest greeting, in bytes.
const GREETING_MAX: usize = 64;

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
    network: Option<Network>,
}

impl<'a> Greeted<'a> {
    /// Gives what comes after the greeting to `output`.
    pub(super) fn new(output: &'a mut dyn FnMut(&[u8])) -> Self {
        Self {
            output,
            begun: Vec::new(),
            is_clear: false,
            network: None,
        }
    }

    /// What the greeting said; `None` where there was none.
    pub(super) fn network(&self) -> Option<Network> {
        self.network
    }

    /// The same, where there must be one.
    pub(super) fn expect(&self, builder: &str) -> Result<Network, RemoteError> {
        self.network.ok_or_else(|| RemoteError::NoRoot {
            builder: builder.to_owned(),
        })
    }

    /// Takes what was printed next.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        if self.is_clear {
            return (self.output)(bytes);
        }
        self.begun.extend_from_slice(bytes);
        let line = self.begun.iter().position(|&byte| byte == b'\n');
        let prefix = self.begun.len().min(GREETING.len());
        let may_be = self.begun[..prefix] == GREETING.as_bytes()[..prefix] && self.begun.len() <= GREETING_MAX;
        if line.is_none() && may_be {
            return;
        }
        self.is_clear = true;
        let begun = std::mem::take(&mut self.begun);
        let words = line.and_then(|end| begun[..end].strip_prefix(GREETING.as_bytes()));
        self.network = words.and_then(|words| Network::ALL.into_iter().find(|known| known.word().as_bytes() == words));
        let start = match (self.network, line) {
            (Some(_), Some(end)) => end + 1,
            _ => 0,
        };
        if start < begun.len() {
            (self.output)(&begun[start..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_taken_away_in_whatever_pieces_it_comes() {
        for network in Network::ALL {
            let text = format!("{GREETING}{}\nlayerize: in the root, network\nmore", network.word());
            for size in 1..=text.len() {
                let mut rest = Vec::new();
                let mut take = |bytes: &[u8]| rest.extend_from_slice(bytes);
                let mut greeted = Greeted::new(&mut take);
                for piece in text.as_bytes().chunks(size) {
                    greeted.take(piece);
                }
                assert_eq!(greeted.network(), Some(network), "{size}");
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
            "bash: not found\nlayerize: in the root, network\n",
            &format!("{GREETING}{}", "x".repeat(100)),
        ] {
            let mut rest = Vec::new();
            let mut take = |bytes: &[u8]| rest.extend_from_slice(bytes);
            let mut greeted = Greeted::new(&mut take);
            greeted.take(text.as_bytes());
            assert_eq!(greeted.network(), None, "{text}");
            assert_eq!(rest, text.as_bytes());
        }
    }
}
