//! A *size* as people read it.
//!
//! Invariant: never wider than eight characters; decimal units, as registries and disks count.

/// `0 B`, `999 B`, `1.0 kB`, `12.7 MB`, `3.2 GB`: one digit after the point, rounded half up.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10;
    let mut divisor = 1;
    let mut unit = "B";
    for next in UNITS {
        divisor *= 1000;
        unit = next;
        // What rounds up to 1000.0 is 1.0 of the next unit.
        if (tenths + divisor / 2) / divisor < 10_000 {
            break;
        }
    }
    tenths = (tenths + divisor / 2) / divisor;
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_and_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1049, "1.0 kB"),
            (1050, "1.1 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (12_658_112, "12.7 MB"),
            (3_222_650_368, "3.2 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }
}
