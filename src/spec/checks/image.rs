//! Checks of texts that end up in an image: its names, its settings, its files.

use std::str::FromStr;

use super::{Check, Complaint, absolute_path, advise, did_you_mean, refuse};
use crate::oci::{
    Compression, LayerStrategy, ParseCompressionError, Platform, Port, StopSignal, StopSignalError, TarProfile,
};
use crate::spec::{Emulate, Join};
use crate::walls::Walls;

/// A platform that Debian has an architecture for.
pub(in super::super) fn platform(text: &str) -> Check<Platform> {
    let parsed = text.parse::<Platform>();
    if let Ok(platform) = &parsed
        && platform.debian_architecture().is_some()
    {
        return Ok(platform.clone());
    }
    let names: Vec<String> = Platform::debian().map(|platform| platform.to_string()).collect();
    let machine = text.strip_prefix("linux/").unwrap_or(text);
    let lone = || format!("linux/{machine}").parse().ok();
    let meant = Platform::from_debian(machine).or_else(lone);
    let meant = meant.filter(|platform: &Platform| platform.debian_architecture().is_some());
    let similar = || did_you_mean(text, names.iter().map(String::as_str)).map(str::to_owned);
    match meant.map(|platform| platform.to_string()).or_else(similar) {
        Some(meant) => advise("not a platform", format!("write `{meant}`")),
        None if parsed.is_ok_and(|platform| platform.os() != "linux") => {
            advise("only Linux images can be made", "write `linux/amd64`")
        }
        None => advise("unknown platform", format!("write one of `{}`", names.join("`, `"))),
    }
}

/// What of a closure stands at `/`.
pub(in super::super) fn join(text: &str) -> Check<Join> {
    one_of(text, &Join::NAMES, "unknown choice")
}

/// A name of the time zone database: `Europe/Berlin`, `UTC`, `America/Port-au-Prince`, `Etc/GMT+1`.
pub(in super::super) fn time_zone(text: &str) -> Check<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-".contains(c);
    let is_part = |part: &str| !part.is_empty() && part.chars().all(allowed);
    if text.len() <= 128 && text.split('/').all(is_part) {
        return Ok(text.to_owned());
    }
    let meant = text.trim().trim_start_matches("/usr/share/zoneinfo/").replace(' ', "_");
    match meant != text && meant.split('/').all(is_part) {
        true => advise("not a time zone", format!("write `{meant}`")),
        false => advise(
            "not a time zone",
            "write a name of the time zone database: `Europe/Berlin`, `Etc/UTC`",
        ),
    }
}

/// One path component of an image's name (OCI distribution-spec, "Pulling manifests"):
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, any number of them separated by `/`.
pub(in super::super) fn image_name(text: &str) -> Check {
    let component = |component: &str| {
        let words = component.split(|c: char| !c.is_ascii_alphanumeric());
        let separators = component.split(|c: char| c.is_ascii_alphanumeric());
        let mut inner = separators.filter(|separator| !separator.is_empty());
        words.clone().next().is_some_and(|word| !word.is_empty())
            && words.clone().next_back().is_some_and(|word| !word.is_empty())
            && inner.all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
    };
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.len() > 128 {
        return refuse("it is longer than 128 bytes");
    }
    if text.contains(':') {
        return advise("it contains a `:`", "write the tag as `tag = \"…\"`");
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let lower = text.to_ascii_lowercase();
        return advise("registries refuse capitals", format!("write `{lower}`"));
    }
    if !text.split('/').all(component) {
        return refuse("only `a-z` and `0-9`, separated by `.`, `_`, `__`, `-` or `/`, are allowed");
    }
    Ok(())
}

/// An image's tag (OCI distribution-spec): `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub(in super::super) fn tag(text: &str) -> Check<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    match text.as_bytes() {
        [] => advise("it is empty", "leave `tag` out for `latest`"),
        bytes if bytes.len() > 128 => refuse("it is longer than 128 characters"),
        [b'.' | b'-', ..] => refuse("it must start with a letter, a digit or `_`"),
        bytes if !bytes.iter().all(|&byte| allowed(byte)) => {
            refuse("only ASCII letters, digits and `_ . -` are allowed")
        }
        _ => Ok(text.to_owned()),
    }
}

/// The absolute path of a file or tree that a spec puts into an image; a tree may be laid out at `/` itself.
pub(in super::super) fn file_path(text: &str) -> Check {
    let path = absolute_path(text)?;
    if path == "/layerize/store" || path.starts_with("/layerize/store/") || path == "/layerize" {
        return advise(
            "`/layerize/store` contains only packages",
            "make a package of it and name it in `contents`",
        );
    }
    if path.split('/').any(|component| component.starts_with(".wh.")) {
        return refuse("a name that starts with `.wh.` would delete a file in a layer below");
    }
    if path.split('/').any(|component| component.len() > 255) || path.len() > 4095 {
        return refuse("it is longer than Linux allows");
    }
    Ok(())
}

/// `80`, `80/tcp`, `53/udp`, `8000-8010/tcp`: each port of a range, as `EXPOSE` of a Dockerfile takes it.
pub(in super::super) fn ports(text: &str) -> Check<Vec<Port>> {
    Port::parse_range(text).map_err(|error| Complaint {
        label: error.reason.to_owned(),
        help: error.help(),
    })
}

/// `gzip[:LEVEL]`, `zstd[:LEVEL]`, `none`.
pub(in super::super) fn compression(text: &str) -> Check<Compression> {
    text.parse().map_err(|error: ParseCompressionError| {
        let engine = text.split(':').next().unwrap_or(text);
        let meant = did_you_mean(engine, ["gzip", "zstd", "none"]).filter(|meant| *meant != engine);
        Complaint {
            label: error.reason.to_owned(),
            help: meant
                .map(|meant| format!("did you mean `{meant}`?"))
                .or_else(|| error.help()),
        }
    })
}

/// Permission bits in octal: `0644`, `755`, `0o1777`.
pub(in super::super) fn mode(text: &str) -> Check<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if octal && mode <= 0o7777 => Ok(mode),
        _ => advise("not permission bits", "write them in octal, such as `\"0644\"`"),
    }
}

/// A pattern of absolute paths.
pub(in super::super) fn pattern(text: &str) -> Check<String> {
    match text {
        "" => refuse("it is empty"),
        _ if !text.starts_with(['/', '*']) => advise("it must match absolute paths", format!("write `/**/{text}`")),
        _ if text.len() > 4095 => refuse("it is longer than a path can be"),
        _ => Ok(text.to_owned()),
    }
}

/// `2024-12-31T23:59:59Z`: RFC 3339 in UTC and whole seconds, as seconds since 1970.
pub(in super::super) fn timestamp(text: &str) -> Check<i64> {
    let wrong = || advise("not a time", "write seconds since 1970, or `\"2024-12-31T23:59:59Z\"`");
    let shape = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        13 | 16 => byte == b':',
        19 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    if text.len() != 20 || !text.bytes().enumerate().all(shape) {
        return wrong();
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap_or(-1);
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let (hour, minute, second) = (number(11..13), number(14..16), number(17..19));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => 0,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 || year < 1970 {
        return wrong();
    }
    // Years are counted from March, so that the leap day is a year's last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Ok(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// The name of a layer strategy.
pub(in super::super) fn strategy(text: &str) -> Check<LayerStrategy> {
    one_of(text, &LayerStrategy::NAMES, "unknown strategy")
}

/// The name of a tar profile.
pub(in super::super) fn tar_profile(text: &str) -> Check<TarProfile> {
    one_of(text, &TarProfile::NAMES, "unknown tar profile")
}

/// The name of walls.
pub(in super::super) fn walls(text: &str) -> Check<Walls> {
    one_of(text, &Walls::NAMES, "no walls")
}

/// What may run scripts for another processor.
pub(in super::super) fn emulate(text: &str) -> Check<Emulate> {
    one_of(text, &Emulate::NAMES, "no such way to run scripts")
}

/// A value whose texts are these few.
fn one_of<T: FromStr>(text: &str, choices: &[&str], complaint: &'static str) -> Check<T> {
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    match did_you_mean(text, choices.iter().copied()) {
        Some(similar) => advise(complaint, format!("did you mean `{similar}`?")),
        None => advise(complaint, format!("write one of `{}`", choices.join("`, `"))),
    }
}

/// A user's or group's name as `useradd` takes it: `[a-z_][a-z0-9_-]*`, at most 32 bytes.
pub(in super::super) fn user_name(text: &str) -> Check {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    match text.as_bytes() {
        [] => refuse("it is empty"),
        bytes if bytes.len() > 32 => refuse("it is longer than 32 bytes"),
        bytes if !bytes.iter().all(|&byte| allowed(byte)) => refuse("only `a-z`, `0-9`, `_` and `-` are allowed"),
        [b'a'..=b'z' | b'_', ..] => Ok(()),
        _ => refuse("it must start with a letter or `_`"),
    }
}

/// Where a base image is; whether it is there is found out when the lock is made.
pub(in super::super) fn base_image(text: &str) -> Check<String> {
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.len() > 1024 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse("an image reference is short and contains no spaces");
    }
    if text == "-" {
        return refuse("standard input cannot be pinned");
    }
    if text.contains("://") && !text.starts_with("docker://") {
        return advise(
            "not an image reference",
            "an image of a registry is written `docker://NAME`",
        );
    }
    if !text.contains(['/', ':']) || (!text.contains(':') && !text.starts_with(['.', '/'])) {
        return advise(
            "it does not say where the image is",
            format!("write `docker://{text}` for an image of a registry, or `oci:DIR:TAG`, `docker-archive:FILE`"),
        );
    }
    Ok(text.to_owned())
}

/// A signal: `SIGTERM`, `SIGRTMIN+3`, or its number (OCI image-spec, config.md, `StopSignal`).
pub(in super::super) fn signal(text: &str) -> Check<StopSignal> {
    text.parse().map_err(|error: StopSignalError| {
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let similar = || did_you_mean(bare, StopSignal::names().iter().copied());
        let help = error
            .help()
            .or_else(|| similar().map(|name| format!("write `SIG{name}`")));
        Complaint {
            label: "not a signal".to_owned(),
            help: Some(help.unwrap_or_else(|| "write a name such as `SIGTERM`".to_owned())),
        }
    })
}
