//! A *timestamp* is seconds since 1970 as the text that OCI configs hold (RFC 3339, UTC, whole seconds).
//!
//! Invariant: a function of the number alone: no clock, no time zone data, no leap seconds.

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const LAST: i64 = 253_402_300_799;

const SECONDS_PER_DAY: i64 = 86_400;

/// The text of `seconds` since 1970-01-01T00:00:00Z; `None` before year 0 or after year 9999.
pub fn rfc3339(seconds: i64) -> Option<String> {
    let (year, month, day) = civil(seconds.div_euclid(SECONDS_PER_DAY));
    if seconds > LAST || !(0..=9999).contains(&year) {
        return None;
    }
    let second = seconds.rem_euclid(SECONDS_PER_DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    Some(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    ))
}

/// The seconds since 1970 of a time as layerize writes it (`1970-01-01T00:00:01Z`); `None` of any other text, another way to
/// say the same included.
pub fn parse(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Years are counted from March, as in `civil`.
    let year = if month <= 2 { year - 1 } else { year };
    let month = if month <= 2 { month + 9 } else { month - 3 };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    (rfc3339(seconds)? == text).then_some(seconds)
}

/// Year, month and day of a day since 1970-01-01 in the proleptic Gregorian calendar.
///
/// Years are counted from March, so that the leap day is a year's last: then months before a given one have
/// `(153 m + 2) / 5` days, and 400 years have 146,097.
fn civil(day: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    const DAYS_0000_03_01_TO_1970: i64 = 719_468;
    // Far beyond any year that can be written; the bound keeps the sums below from overflowing.
    let shifted = day.clamp(-4_000_000, 4_000_000) + DAYS_0000_03_01_TO_1970;
    let (era, day_of_era) = (shifted.div_euclid(DAYS_PER_ERA), shifted.rem_euclid(DAYS_PER_ERA));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_date() {
        // `date -u -d @N +%Y-%m-%dT%H:%M:%SZ`
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:01Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST, "9999-12-31T23:59:59Z"),
            (-62_167_219_200, "0000-01-01T00:00:00Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(rfc3339(seconds).as_deref(), Some(expected), "{seconds}");
            assert_eq!(parse(expected), Some(seconds), "{seconds}");
        }
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:01+00:00",
            "1970-02-30T00:00:01Z",
            "1970-1-01T00:00:01Z",
            "+970-01-01T00:00:01Z",
            "1970-01-01T24:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        for seconds in [LAST + 1, -62_167_219_201, i64::MAX, i64::MIN] {
            assert_eq!(rfc3339(seconds), None, "{seconds}");
        }
    }
}
