//! The *locale* that an image's environment asks for, by default `C.UTF-8`, and whether its C library can find it.
//!
//! Invariant: what the spec or a base says of it stands; glibc's own rules: `LC_ALL`, `LC_CTYPE` and `LANG` in this order; `C` and `POSIX` are built in, every other
//! locale, `C.UTF-8` too, is a directory or an archive of `/usr/lib/locale` (locale(7), setlocale(3)). musl's are always
//! there. What a locale of its own (`LOCPATH`) or a base brings is not judged.

use super::error::ImageError;
use super::filesystem::FileSystem;
use super::program;
use super::recipe::Recipe;
use super::settings::Settings;
use crate::spec::UTF8_DEB;

/// The variables that decide how text is encoded, the first that is set before the others.
const VARIABLES: [&str; 3] = ["LC_ALL", "LC_CTYPE", "LANG"];

const DIR: &str = "usr/lib/locale";

/// Where glibc's own library is, whatever directory it is in.
const GLIBC: &str = "libc.so.6";

/// Has programs take their texts for UTF-8 where the image has the locale for it and nobody says otherwise, as images of
/// Java, Python and Ruby do: without it these take other names of files and other texts than ASCII for garbage.
pub(super) fn set_default(recipe: &Recipe, settings: &mut Settings) {
    let has_locale = recipe.base.is_none() && recipe.root.iter().any(|package| package.name == UTF8_DEB);
    let is_set = VARIABLES.iter().any(|name| settings.env.contains_key(*name));
    if recipe.spec.utf8 && has_locale && !is_set {
        settings.env.insert("LANG".to_owned(), "C.UTF-8".to_owned());
    }
}

/// What is to be said of the locale, if the image does not have it.
pub(super) fn missing(settings: &Settings, files: &FileSystem) -> Result<Option<String>, ImageError> {
    let Some((variable, locale)) = wanted(settings) else {
        return Ok(None);
    };
    if settings.env.contains_key("LOCPATH") || !program::is_anywhere(GLIBC, files)? {
        return Ok(None);
    }
    for name in names(locale).iter().map(String::as_str).chain(["locale-archive"]) {
        let path = format!("{DIR}/{name}");
        if files.resolve(path.as_bytes())?.is_some() {
            return Ok(None);
        }
    }
    let package = match locale.starts_with("C.") {
        true => UTF8_DEB,
        false => "locales-all",
    };
    Ok(Some(format!(
        "`{variable}` is `{locale}`, and the image has no such locale in `/{DIR}`, so that programs take its texts for plain \
         ASCII: add `deb:{package}` to `root`"
    )))
}

/// The variable that decides how text is encoded, and its value; `None` where that is built into every C library.
fn wanted(settings: &Settings) -> Option<(&'static str, &str)> {
    let mut variables = VARIABLES.into_iter();
    let (variable, value) = variables.find_map(|name| {
        let value = settings.env.get(name)?.as_str();
        (!value.is_empty()).then_some((name, value))
    })?;
    (!matches!(value, "C" | "POSIX")).then_some((variable, value))
}

/// The names under which glibc looks for a locale: as it is written, and with its codeset in lower case without
/// punctuation (`C.UTF-8`, `C.utf8`).
fn names(locale: &str) -> Vec<String> {
    let mut names = vec![locale.to_owned()];
    if let Some((language, rest)) = locale.split_once('.') {
        let (codeset, modifier) = rest.split_at(rest.find('@').unwrap_or(rest.len()));
        let normal: String = codeset.chars().filter(char::is_ascii_alphanumeric).collect();
        names.push(format!("{language}.{}{modifier}", normal.to_ascii_lowercase()));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codesets_are_looked_for_in_both_spellings() {
        assert_eq!(names("C.UTF-8"), ["C.UTF-8", "C.utf8"]);
        assert_eq!(
            names("de_AT.ISO-8859-15@euro"),
            ["de_AT.ISO-8859-15@euro", "de_AT.iso885915@euro"]
        );
        assert_eq!(names("en_US"), ["en_US"]);
    }
}
