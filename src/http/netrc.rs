//! A *netrc* file holds logins by host, for downloads: `machine HOST login NAME password SECRET` (the format of ftp(1),
//! as curl reads it).
//!
//! Invariant: a login is given for its own host alone, or from the entry `default`; no secret is in a message.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use super::error::SetupError;

/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// The entries of a file, in order.
#[derive(Debug, Default)]
pub(crate) struct Netrc(Vec<NetrcEntry>);

/// Who the user is at a host.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: String,
}

/// Secrets are not shown.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}, …)", self.username)
    }
}

#[derive(Debug)]
struct NetrcEntry {
    /// `None`: every host that no entry before is for.
    host: Option<String>,
    login: Login,
}

impl Netrc {
    /// Reads a file; one that does not exist has no entries.
    pub(crate) fn read(path: &Path) -> Result<Self, SetupError> {
        let bytes = match crate::fsio::read_limited(path, BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.source.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        Self::parse(&String::from_utf8_lossy(&bytes)).map_err(|(line, reason)| SetupError::Netrc {
            path: path.to_owned(),
            line,
            reason,
        })
    }

    /// The error is a line and what is wrong there.
    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut entries: Vec<NetrcEntry> = Vec::new();
        let mut words = Words { rest: text, line: 1 };
        while let Some(word) = words.next()? {
            match word.as_str() {
                "machine" => entries.push(NetrcEntry {
                    host: Some(words.value("`machine` is without a host")?),
                    login: Login::default(),
                }),
                "default" => entries.push(NetrcEntry {
                    host: None,
                    login: Login::default(),
                }),
                "login" | "password" | "account" => {
                    let value = words.value("a key is without a value")?;
                    let entry = entries
                        .last_mut()
                        .ok_or((words.line, "a key is before any `machine`"))?;
                    match word.as_str() {
                        "login" => entry.login.username = value,
                        "password" => entry.login.password = value,
                        _ => {}
                    }
                }
                "macdef" => words.skip_macro(),
                _ => return Err((words.line, "it has a word that is not a key")),
            }
        }
        Ok(Self(entries))
    }

    /// Who the user is at a host (a name or address without a port).
    pub(crate) fn login(&self, host: &str) -> Option<&Login> {
        let is_for = |entry: &&NetrcEntry| {
            let named = entry.host.as_deref();
            named.is_none_or(|named| named.eq_ignore_ascii_case(host))
        };
        self.0.iter().find(is_for).map(|entry| &entry.login)
    }
}

/// Words are separated by white space, may be quoted, and end where a comment begins.
struct Words<'a> {
    rest: &'a str,
    line: usize,
}

impl Words<'_> {
    fn next(&mut self) -> Result<Option<String>, (usize, &'static str)> {
        loop {
            let trimmed = self.rest.trim_start();
            self.line += lines(&self.rest[..self.rest.len() - trimmed.len()]);
            self.rest = trimmed;
            if !trimmed.starts_with('#') {
                break;
            }
            self.rest = &trimmed[trimmed.find('\n').unwrap_or(trimmed.len())..];
        }
        if let Some(quoted) = self.rest.strip_prefix('"') {
            return self.quoted(quoted).map(Some);
        }
        let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok((!word.is_empty()).then(|| word.to_owned()))
    }

    /// A word in quotation marks, in which a backslash stands before what is meant as it is.
    fn quoted(&mut self, text: &str) -> Result<String, (usize, &'static str)> {
        let mut word = String::new();
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 2..];
                    return Ok(word);
                }
                '\\' => word.extend(chars.next().map(|(_, c)| c)),
                '\n' => break,
                c => word.push(c),
            }
        }
        Err((self.line, "a quotation mark is not closed"))
    }

    fn value(&mut self, missing: &'static str) -> Result<String, (usize, &'static str)> {
        self.next()?.ok_or((self.line, missing))
    }

    /// The definition of a macro ends with an empty line.
    fn skip_macro(&mut self) {
        let end = self.rest.find("\n\n").unwrap_or(self.rest.len());
        self.line += lines(&self.rest[..end]);
        self.rest = &self.rest[end..];
    }
}

fn lines(text: &str) -> usize {
    text.matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str, host: &str) -> Option<(String, String)> {
        let netrc = Netrc::parse(text).unwrap();
        netrc
            .login(host)
            .map(|login| (login.username.clone(), login.password.clone()))
    }

    #[test]
    fn entries_are_found_by_host_as_curl_finds_them() {
        let file = "# a comment\nmachine a.example login me password pw#1\n\
                    machine B.example\n  login\tyou\n  account x\n  password \"with \\\"space\"\n\
                    macdef init\ncd /\nmachine in.a.macro login no password no\n\n\
                    machine c.example login token # its password is elsewhere\n\
                    default login anonymous password guest\nmachine d.example login late password late\n";
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(login(file, "a.example"), pair("me", "pw#1"));
        assert_eq!(login(file, "A.Example"), pair("me", "pw#1"));
        assert_eq!(login(file, "b.example"), pair("you", "with \"space"));
        assert_eq!(login(file, "c.example"), pair("token", ""));
        assert_eq!(login(file, "sub.a.example"), pair("anonymous", "guest"));
        assert_eq!(login(file, "in.a.macro"), pair("anonymous", "guest"));
        // `default` is for all that comes after it, too.
        assert_eq!(login(file, "d.example"), pair("anonymous", "guest"));
        assert_eq!(login("", "a.example"), None);
        assert_eq!(login("machine b.example login x password y", "a.example"), None);
    }

    #[test]
    fn what_breaks_the_format_is_told_with_its_line_and_without_secrets() {
        for (text, line, reason) in [
            ("machine", 1, "`machine` is without a host"),
            ("machine a login", 1, "a key is without a value"),
            ("\nlogin me", 2, "a key is before any `machine`"),
            ("machine a\nlogin me\nSECRET\n", 3, "it has a word that is not a key"),
            ("machine a password \"SECRET", 1, "a quotation mark is not closed"),
            ("machine a password \"SECRET\nx\"", 1, "a quotation mark is not closed"),
        ] {
            assert_eq!(Netrc::parse(text).unwrap_err(), (line, reason), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "[ \\n\"\\\\#a-z]{0,80}") {
            let _ = Netrc::parse(&text);
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_netrc() {
        crate::testing::fuzz("netrc", |bytes| {
            let _ = super::Netrc::parse(&String::from_utf8_lossy(bytes));
        });
    }
}
