//! The order of Debian *versions* (deb-version(7)).

use std::cmp::Ordering;

/// Compares two versions as dpkg does.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, upstream_a, revision_a) = split(a);
    let (epoch_b, upstream_b, revision_b) = split(b);
    compare_part(epoch_a, epoch_b)
        .then_with(|| compare_part(upstream_a, upstream_b))
        .then_with(|| compare_part(revision_a, revision_b))
}

fn split(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Runs of other characters and of digits in turn: `~` sorts before the end, the end before letters, letters before
/// the rest; digits compare as numbers.
fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        if a.is_empty() && b.is_empty() {
            return Ordering::Equal;
        }
        let (text_a, text_b) = (take(&mut a, false), take(&mut b, false));
        for index in 0..text_a.len().max(text_b.len()) {
            let order = weight(text_a.get(index)).cmp(&weight(text_b.get(index)));
            if order != Ordering::Equal {
                return order;
            }
        }
        let (digits_a, digits_b) = (take(&mut a, true), take(&mut b, true));
        let strip = |digits: &[u8]| {
            let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
            digits[zeros..].to_vec()
        };
        let (digits_a, digits_b) = (strip(digits_a), strip(digits_b));
        let order = digits_a
            .len()
            .cmp(&digits_b.len())
            .then_with(|| digits_a.cmp(&digits_b));
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn take<'a>(text: &mut &'a [u8], digits: bool) -> &'a [u8] {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit() == digits).count();
    let (taken, rest) = text.split_at(count);
    *text = rest;
    taken
}

fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{oracle, output};

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let sorted = [
            "1.0~~",
            "1.0~~a",
            "1.0~",
            "1.0-0~1",
            "1.0",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb12u1",
            "1.0-10",
            "1.0a",
            "1.0+x",
            "1.0.1",
            "1.9",
            "1.10",
            "2",
            "1:0.1",
            "2:0",
        ];
        for (index, a) in sorted.iter().enumerate() {
            for (other, b) in sorted.iter().enumerate() {
                assert_eq!(compare(a, b), index.cmp(&other), "{a} {b}");
            }
        }
        assert_eq!(compare("1.01", "1.1"), Ordering::Equal);
        if !oracle("dpkg") {
            return;
        }
        for pair in sorted.windows(2) {
            output("dpkg", &["--compare-versions", pair[0], "lt", pair[1]]);
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_version() {
        crate::testing::fuzz("version", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let (a, b) = text.split_once('\n').unwrap_or((&text, ""));
            assert_eq!(super::compare(a, b), super::compare(b, a).reverse());
            assert!(super::compare(a, a).is_eq());
        });
    }
}
