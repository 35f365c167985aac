//! *Locales* that an image asks for, made of Debian's sources of them by glibc's own program.
//!
//! Invariant: what is made is in `usr/lib/locale`, a directory for each locale, whatever others are made; the sources stay
//! outside. A name that Debian does not have is an error.

use std::path::Path;

use super::ConfigureError;
use crate::fsio;
use crate::spec::did_you_mean;

/// Debian's list of locales, a line each: `en_US.UTF-8 UTF-8`.
const SUPPORTED: &str = "usr/share/i18n/SUPPORTED";

/// Largest list of locales, in bytes.
const SUPPORTED_MAX: u64 = 1 << 20;

/// A locale to make.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Locale {
    /// Its name: `de_DE.UTF-8@euro`.
    pub name: String,
    charset: String,
}

impl Locale {
    /// Those of these names, as the package's tree in `sources` has them.
    pub(super) fn find_all(names: &[String], sources: &Path) -> Result<Vec<Self>, ConfigureError> {
        let text = fsio::read_limited(&sources.join(SUPPORTED), SUPPORTED_MAX)?;
        let text = String::from_utf8_lossy(&text);
        let known: Vec<(&str, &str)> = text.lines().filter_map(|line| line.trim().split_once(' ')).collect();
        let find = |name: &String| match known.iter().find(|(known, _)| known == name) {
            Some((name, charset)) => Ok(Self {
                name: (*name).to_owned(),
                charset: charset.trim().to_owned(),
            }),
            None => Err(ConfigureError::Locale {
                name: name.clone(),
                similar: did_you_mean(name, known.iter().map(|(known, _)| *known)).map(str::to_owned),
            }),
        };
        names.iter().map(find).collect()
    }

    /// The command that makes it: what locale-gen(8) runs, but for the archive.
    pub(super) fn command(&self) -> Vec<String> {
        let words = [
            "/usr/bin/localedef",
            "--no-archive",
            "-c",
            "-i",
            &self.input(),
            "-f",
            &self.charset,
            "-A",
            "/usr/share/locale/locale.alias",
            &self.name,
        ];
        words.map(str::to_owned).into()
    }

    /// The name of its source: `de_DE@euro` of `de_DE.UTF-8@euro`.
    fn input(&self) -> String {
        let (name, modifier) = match self.name.split_once('@') {
            Some((name, modifier)) => (name, Some(modifier)),
            None => (self.name.as_str(), None),
        };
        let name = name.split('.').next().unwrap_or_default();
        modifier.map_or_else(|| name.to_owned(), |modifier| format!("{name}@{modifier}"))
    }

    /// Where it is made, relative to `/`: glibc spells the character set its own way.
    pub(super) fn place(&self) -> String {
        let (name, modifier) = match self.name.split_once('@') {
            Some((name, modifier)) => (name, format!("@{modifier}")),
            None => (self.name.as_str(), String::new()),
        };
        let spelt = match name.split_once('.') {
            Some((name, charset)) => {
                let charset = charset.chars().filter(char::is_ascii_alphanumeric);
                format!("{name}.{}", charset.collect::<String>().to_ascii_lowercase())
            }
            None => name.to_owned(),
        };
        format!("usr/lib/locale/{spelt}{modifier}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Result<Vec<Locale>, ConfigureError> {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join(SUPPORTED);
        std::fs::create_dir_all(list.parent().unwrap()).unwrap();
        std::fs::write(
            list,
            "C.UTF-8 UTF-8\nde_DE@euro ISO-8859-15\nen_US.UTF-8 UTF-8\nen_US ISO-8859-1\nsr_RS.UTF-8@latin UTF-8\n",
        )
        .unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Locale::find_all(&names, dir.path())
    }

    #[test]
    fn a_locale_is_made_of_its_source_and_character_set() {
        let made = |name: &str| {
            let locale = found(&[name]).unwrap().pop().unwrap();
            (locale.command()[4..7].join(" "), locale.place())
        };
        for (name, command, place) in [
            ("en_US.UTF-8", "en_US -f UTF-8", "usr/lib/locale/en_US.utf8"),
            ("en_US", "en_US -f ISO-8859-1", "usr/lib/locale/en_US"),
            ("de_DE@euro", "de_DE@euro -f ISO-8859-15", "usr/lib/locale/de_DE@euro"),
            (
                "sr_RS.UTF-8@latin",
                "sr_RS@latin -f UTF-8",
                "usr/lib/locale/sr_RS.utf8@latin",
            ),
        ] {
            assert_eq!(made(name), (command.to_owned(), place.to_owned()), "{name}");
        }
    }

    #[test]
    fn one_that_debian_does_not_have_is_an_error() {
        let error = found(&["en_US.UTF-8", "en_UK.UTF-8"]).unwrap_err();
        assert_eq!(error.to_string(), "Debian has no locale `en_UK.UTF-8`");
        assert_eq!(error.help().unwrap(), "did you mean `en_US.UTF-8`?");
        assert!(found(&["xx"]).unwrap_err().help().unwrap().contains("SUPPORTED"));
    }
}
