//! What in files that scripts make says *when* they were made, or in which order, made to say nothing.
//!
//! Invariant: pure; a file that is not of the form that is expected stays as it is.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

/// Java's store of certificates of authorities, as Debian's `ca-certificates-java` makes it.
const JAVA_STORE: &str = "etc/ssl/certs/java/cacerts";

/// The password of that store, which is public: it protects nothing.
const JAVA_PASSWORD: &str = "changeit";

/// What Java hashes with the password (`sun.security.provider.JavaKeyStore`).
const JAVA_WHITENER: &[u8] = b"Mighty Aphrodite";

/// Milliseconds since 1970 that each certificate is said to be from: one second, as all files of an image.
const JAVA_DATE: u64 = 1000;

/// The most bytes of a file that is rewritten.
pub(super) const SIZE_MAX: u64 = 16 << 20;

/// Gives the content that a file has in an image; `None`: what it has.
pub(super) type Rewrite = fn(&[u8]) -> Option<Vec<u8>>;

/// How the file at `path` is rewritten; `None`: not at all.
pub(super) fn rewrite(path: &str) -> Option<Rewrite> {
    match path {
        JAVA_STORE => Some(java_store),
        "etc/passwd" | "etc/group" => Some(sorted_by_number),
        "etc/shadow" => Some(without_days),
        _ => None,
    }
}

/// Accounts sorted by their number, which is their third field, then by name: in whatever order scripts added them.
fn sorted_by_number(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines: Vec<&str> = text.split_terminator('\n').collect();
    let number = |line: &str| line.split(':').nth(2).and_then(|field| field.parse::<u32>().ok());
    lines.sort_by_key(|line| (number(line).unwrap_or(u32::MAX), line.to_owned()));
    Some(joined(lines.into_iter()))
}

/// Passwords without the day on which they were last changed: day 0 would ask for a new one.
fn without_days(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines: Vec<String> = (text.split_terminator('\n'))
        .map(|line| {
            let mut fields: Vec<&str> = line.split(':').collect();
            if let Some(day) = fields.get_mut(2) {
                *day = "";
            }
            fields.join(":")
        })
        .collect();
    lines.sort();
    Some(joined(lines.iter().map(String::as_str)))
}

fn joined<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<u8> {
    lines.flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}

/// A Java key store (`JKS`) whose trusted certificates are all from one date.
fn java_store(bytes: &[u8]) -> Option<Vec<u8>> {
    const MAGIC: u32 = 0xfeed_feed;
    const TRUSTED: u32 = 2;
    let mut out = bytes.get(..bytes.len().checked_sub(20)?)?.to_vec();
    let mut at = 0;
    if number(&out, &mut at)? != MAGIC || number(&out, &mut at)? != 2 {
        return None;
    }
    for _ in 0..number(&out, &mut at)? {
        if number(&out, &mut at)? != TRUSTED {
            return None;
        }
        text(&out, &mut at)?;
        out.get_mut(at..at + 8)?.copy_from_slice(&JAVA_DATE.to_be_bytes());
        at += 8;
        text(&out, &mut at)?;
        let size = number(&out, &mut at)? as usize;
        at = at.checked_add(size).filter(|&end| end <= out.len())?;
    }
    if at != out.len() {
        return None;
    }
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for unit in JAVA_PASSWORD.encode_utf16() {
        hash.update(&unit.to_be_bytes());
    }
    hash.update(JAVA_WHITENER);
    hash.update(&out);
    out.extend_from_slice(hash.finish().as_ref());
    Some(out)
}

fn number(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let field = bytes.get(*at..*at + 4)?;
    *at += 4;
    Some(u32::from_be_bytes(field.try_into().ok()?))
}

/// Passes over a text, whose length stands before it in two bytes.
fn text(bytes: &[u8], at: &mut usize) -> Option<()> {
    let size = u16::from_be_bytes(bytes.get(*at..*at + 2)?.try_into().ok()?);
    *at = (*at + 2)
        .checked_add(usize::from(size))
        .filter(|&end| end <= bytes.len())?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store of one certificate (three bytes that are none) from a date.
    fn store(date: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [0xfeed_feed_u32, 2, 1, 2] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        text(&mut bytes, "debian:x.pem");
        bytes.extend_from_slice(&date.to_be_bytes());
        text(&mut bytes, "X.509");
        bytes.extend_from_slice(&3_u32.to_be_bytes());
        bytes.extend_from_slice(b"abc");
        bytes.extend_from_slice(&[0; 20]);
        bytes
    }

    fn content(path: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        rewrite(path)?(bytes)
    }

    #[test]
    fn what_is_not_text_or_not_of_these_files_stays_as_it_is() {
        for path in ["etc/passwd", "etc/group", "etc/shadow"] {
            assert_eq!(content(path, b"\xff:x:1:1::/:\n"), None, "{path}");
        }
        assert!(rewrite("etc/hosts").is_none());
    }

    #[test]
    fn java_stores_of_two_dates_become_one() {
        let [a, b] = [1_700_000_000_123, 1_800_000_000_456].map(|date| content(JAVA_STORE, &store(date)).unwrap());
        assert_eq!(a, b);
        assert_eq!(a.len(), store(0).len());
        assert_eq!(content(JAVA_STORE, b"not one"), None);
        assert_eq!(content(JAVA_STORE, &store(0)[..40]), None);
    }

    #[test]
    fn accounts_come_in_the_order_of_their_numbers() {
        let sorted = content("etc/passwd", b"b:x:101:1::/:\na:x:100:1::/:\nroot:x:0:0::/:\n").unwrap();
        assert_eq!(sorted, b"root:x:0:0::/:\na:x:100:1::/:\nb:x:101:1::/:\n");
        // shadow(5): an empty day means that passwords do not age.
        assert_eq!(
            content("etc/shadow", b"root:*:20000:0:99999:7:::\n").unwrap(),
            b"root:*::0:99999:7:::\n"
        );
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_normalise() {
        crate::testing::fuzz("normalise", |bytes| {
            for path in [super::JAVA_STORE, "etc/passwd", "etc/shadow"] {
                let rewrite = super::rewrite(path).unwrap();
                if let Some(once) = rewrite(bytes) {
                    assert_eq!(rewrite(&once).as_ref(), Some(&once), "{path}");
                }
            }
        });
    }
}
