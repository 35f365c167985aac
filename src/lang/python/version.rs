//! *Versions* of Python projects and what is asked of them (PEP 440).
//!
//! Invariant: versions compare as PEP 440 orders them; what is none is no [`Version`].

use std::cmp::Ordering;

/// A version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    epoch: u64,
    /// Without zeros at its end.
    release: Vec<u64>,
    /// `a`, `b` or `rc` with a number.
    pre: Option<(char, u64)>,
    post: Option<u64>,
    dev: Option<u64>,
    local: Vec<LocalPart>,
}

/// A segment of a local version; numbers come after words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum LocalPart {
    Word(String),
    Number(u64),
}

impl Version {
    /// Reads a version in any spelling that PEP 440 allows.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let lower = text.trim().to_ascii_lowercase();
        let text = lower.strip_prefix('v').unwrap_or(&lower);
        let (public, local) = match text.split_once('+') {
            Some((public, local)) => (public, local_parts(local)?),
            None => (text, Vec::new()),
        };
        let (epoch, rest) = match public.split_once('!') {
            Some((epoch, rest)) => (epoch.parse().ok()?, rest),
            None => (0, public),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (numbers, mut suffix) = rest.split_at(end);
        let mut release: Vec<u64> = numbers
            .strip_suffix('.')
            .unwrap_or(numbers)
            .split('.')
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?;
        while release.len() > 1 && release.last() == Some(&0) {
            release.pop();
        }
        let pre = [
            ("alpha", 'a'),
            ("beta", 'b'),
            ("preview", 'c'),
            ("pre", 'c'),
            ("rc", 'c'),
            ("a", 'a'),
            ("b", 'b'),
            ("c", 'c'),
        ];
        let pre = pre
            .into_iter()
            .find_map(|(word, kind)| Some((kind, suffixed(&mut suffix, word)?)));
        let post = ["post", "rev", "r"]
            .into_iter()
            .find_map(|word| suffixed(&mut suffix, word))
            .or_else(|| {
                let number = suffix.strip_prefix('-')?.parse().ok()?;
                suffix = "";
                Some(number)
            });
        let dev = suffixed(&mut suffix, "dev");
        suffix.is_empty().then_some(Self {
            epoch,
            release,
            pre,
            post,
            dev,
            local,
        })
    }

    /// Whether its first numbers are those of `prefix` (`==3.11.*`).
    fn starts_with(&self, prefix: &[u64]) -> bool {
        let numbers = self.release.iter().copied().chain(std::iter::repeat(0));
        numbers.zip(prefix).all(|(own, wanted)| own == *wanted)
    }

    /// What orders it but for the local part: a development release comes before all others of its number, and a
    /// pre-release before the release.
    fn key(&self) -> (u64, &[u64], (u8, char, u64), u64, u64) {
        let pre = match (self.pre, self.post, self.dev) {
            (Some((kind, number)), _, _) => (1, kind, number),
            (None, None, Some(_)) => (0, ' ', 0),
            (None, _, _) => (2, ' ', 0),
        };
        let post = self.post.map_or(0, |number| number.saturating_add(1));
        (self.epoch, &self.release, pre, post, self.dev.unwrap_or(u64::MAX))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key()).then_with(|| self.local.cmp(&other.local))
    }
}

/// The number behind `word`, with the separators that are allowed around it, taken from the front of `text`.
fn suffixed(text: &mut &str, word: &str) -> Option<u64> {
    let separator = |c: char| matches!(c, '.' | '-' | '_');
    let rest = text.strip_prefix(separator).unwrap_or(text).strip_prefix(word)?;
    let numbered = rest.strip_prefix(separator).unwrap_or(rest);
    let end = numbered.find(|c: char| !c.is_ascii_digit()).unwrap_or(numbered.len());
    let (number, after) = match end {
        0 => (0, rest),
        end => (numbered[..end].parse().ok()?, &numbered[end..]),
    };
    *text = after;
    Some(number)
}

fn local_parts(text: &str) -> Option<Vec<LocalPart>> {
    let part = |part: &str| {
        let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
        plain.then(|| match part.parse() {
            Ok(number) => LocalPart::Number(number),
            Err(_) => LocalPart::Word(part.to_owned()),
        })
    };
    text.split(['.', '-', '_']).map(part).collect()
}

/// Whether a version is what `wanted` (`>=3.9,<4`) asks for; `None` where that cannot be read.
pub(super) fn satisfies(version: &Version, wanted: &str) -> Option<bool> {
    let mut all = true;
    for clause in wanted.split(',').map(str::trim).filter(|clause| !clause.is_empty()) {
        let operators = ["===", "==", "!=", "~=", "<=", ">=", "<", ">"];
        let operator = operators.into_iter().find(|operator| clause.starts_with(operator))?;
        all &= compare(version, operator, clause[operator.len()..].trim())?;
    }
    Some(all)
}

/// Whether `version OPERATOR wanted` holds; `None` where that is no comparison of versions.
pub(super) fn compare(version: &Version, operator: &str, wanted: &str) -> Option<bool> {
    if let Some(prefix) = wanted.strip_suffix(".*") {
        let numbers: Vec<u64> = prefix
            .split('.')
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?;
        return match operator {
            "==" => Some(version.starts_with(&numbers)),
            "!=" => Some(!version.starts_with(&numbers)),
            _ => None,
        };
    }
    let other = Version::parse(wanted)?;
    let without_local = |version: &Version| Version {
        local: Vec::new(),
        ..version.clone()
    };
    // A local part counts only where it is asked for.
    let own = match other.local.is_empty() {
        true => without_local(version),
        false => version.clone(),
    };
    Some(match operator {
        "==" | "===" => own == other,
        "!=" => own != other,
        "<=" => own <= other,
        ">=" => own >= other,
        // Neither a pre-release nor a post-release of the same number is beyond it.
        "<" => own < other && !(own.release == other.release && own.pre.is_some() && other.pre.is_none()),
        ">" => own > other && !(own.release == other.release && own.post.is_some() && other.post.is_none()),
        "~=" => {
            let numbers: Vec<u64> = wanted
                .split(|c: char| !c.is_ascii_digit() && c != '.')
                .next()?
                .trim_end_matches('.')
                .split('.')
                .map(|number| number.parse().ok())
                .collect::<Option<_>>()?;
            let (_, prefix) = numbers.split_last()?;
            !prefix.is_empty() && own >= other && own.starts_with(prefix)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    /// The order that PEP 440 gives as its example, and its spellings.
    #[test]
    fn versions_are_ordered_as_the_standard_has_it() {
        let order = [
            "0.9",
            "1.0.dev456",
            "1.0a1",
            "1.0a2.dev456",
            "1.0a12.dev456",
            "1.0a12",
            "1.0b1.dev456",
            "1.0b2",
            "1.0b2.post345.dev456",
            "1.0b2.post345",
            "1.0rc1.dev456",
            "1.0rc1",
            "1.0",
            "1.0+abc.5",
            "1.0+abc.7",
            "1.0+5",
            "1.0.post456.dev34",
            "1.0.post456",
            "1.0.15",
            "1.1.dev1",
            "1!0.1",
        ];
        for pair in order.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        for (one, other) in [
            ("1.0", "1.0.0"),
            ("v1.0-alpha_1", "1a1"),
            ("1.0-1", "1.0.post1"),
            ("1.0c3", "1.0rc3"),
            ("1.0post", "1.0.post0"),
        ] {
            assert_eq!(version(one), version(other), "{one} {other}");
        }
        for text in ["", "x", "1.x", "1..2", "1.0+", "1.0 2", "1!"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_asked_of_versions() {
        for (own, wanted, expected) in [
            ("3.11.2", ">=3.9,<4", Some(true)),
            ("3.11.2", ">=3.12", Some(false)),
            ("3.11.2", "==3.11.*", Some(true)),
            ("3.11.2", "!=3.11.*", Some(false)),
            ("3.11.2", "~=3.10", Some(true)),
            ("3.11.2", "~=3.10.1", Some(false)),
            ("3.11.2", "", Some(true)),
            ("1.0+local", "==1.0", Some(true)),
            ("1.0rc1", "<1.0", Some(false)),
            ("1.0.post1", ">1.0", Some(false)),
            ("3.11", "=>3", None),
            ("3.11", ">=x", None),
        ] {
            assert_eq!(satisfies(&version(own), wanted), expected, "{own} {wanted}");
        }
    }
}
