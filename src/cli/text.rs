//! Words and numbers as people read them.

use crate::closure::Chain;
use crate::spec::parse_size;
use crate::store::Evidence;
use crate::store_path::StoreDir;
use indicatif::DecimalBytes;

/// Bytes in decimal units: `13.40 MB`.
pub fn size(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

/// A number of bytes: `20GB`, `512 MiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "write a number with its unit, such as 512MiB or 20GB".to_owned())
}

/// A span of time in seconds: days, or a number with its unit (`12h`, `8w`).
pub fn duration(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let seconds = UNITS.iter().find(|(names, _)| names.contains(&unit.trim()));
    let span = number.parse::<u64>().ok().zip(seconds);
    // A signed number of seconds holds it.
    let span = span.and_then(|(number, (_, seconds))| number.checked_mul(*seconds));
    span.filter(|&span| span <= i64::MAX.cast_unsigned())
        .ok_or_else(|| "write days, or a number with `s`, `m`, `h`, `d` or `w`, such as 30d".to_owned())
}

/// Units of time by their names, and their seconds.
const UNITS: [(&[&str], u64); 5] = [
    (&["w"], 7 * 24 * 60 * 60),
    (&["", "d"], 24 * 60 * 60),
    (&["h"], 60 * 60),
    (&["m", "min"], 60),
    (&["s"], 1),
];

/// A span of time in seconds for people: `30 days`, `90 minutes`.
pub fn span(seconds: u64) -> String {
    let units = [("days", 24 * 60 * 60), ("hours", 60 * 60), ("minutes", 60)];
    let whole = units
        .into_iter()
        .find(|(_, unit)| seconds > 0 && seconds.is_multiple_of(*unit));
    let (name, unit) = whole.unwrap_or(("seconds", 1));
    let (count, name) = (
        seconds / unit,
        if seconds == unit { &name[..name.len() - 1] } else { name },
    );
    format!("{count} {name}")
}

/// A chain for people, a line a step.
pub fn render_chain(chain: &Chain, dir: &StoreDir) -> String {
    let mut lines = vec![dir.join(&chain.root)];
    for (depth, step) in chain.steps.iter().enumerate() {
        let because = match &step.evidence {
            Evidence::Found(place) => place.to_string(),
            Evidence::Declared { via } => format!("declared by {}", via.name()),
        };
        lines.push(format!("{}└─ {} ({because})", "   ".repeat(depth), dir.join(&step.to)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        let cases = [
            ("30", Some("30 days")),
            ("1d", Some("1 day")),
            ("2w", Some("14 days")),
            ("12h", Some("12 hours")),
            ("36 h", Some("36 hours")),
            ("90m", Some("90 minutes")),
            ("61s", Some("61 seconds")),
            ("0", Some("0 seconds")),
            ("1y", None),
            ("d", None),
            ("-1d", None),
            ("1.5d", None),
            ("99999999999999w", None),
            ("18446744073709551615s", None),
        ];
        for (text, shown) in cases {
            assert_eq!(duration(text).ok().map(span).as_deref(), shown, "{text}");
        }
    }
}
