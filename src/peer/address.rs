//! The *address* of a peer: `ssh://[USER@]HOST[:PORT][?program=PATH&store=DIR]`.
//!
//! Invariant: nothing in it is taken by ssh for an option, and what is run there is quoted for any shell.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::shell_word;

/// The program that is run there unless the address says otherwise: found on the `PATH` of that login.
const PROGRAM: &str = "layerize";

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// The login there; `None`: as ssh's configuration has it.
    pub user: Option<String>,
    /// What ssh calls the machine: a host, or a name of its configuration. An address of IPv6 without brackets.
    pub host: String,
    /// The port; `None`: as ssh's configuration has it.
    pub port: Option<u16>,
    /// The program there.
    pub program: String,
    /// The store there; `None`: that of the login.
    pub store: Option<String>,
}

/// Why a text is no address of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no machine: {reason}")]
pub struct SshAddressError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl SshAddressError {
    /// What to write instead.
    pub fn help(&self) -> Option<String> {
        Some(
            "write `ssh://HOST` or `ssh://USER@HOST:PORT`; `?program=/PATH/layerize` where it is not on the PATH there, \
             `?store=/DIR` for another store there"
                .to_owned(),
        )
    }
}

impl SshAddress {
    /// Whether a text is meant to be such an address.
    pub fn is_meant_by(text: &str) -> bool {
        text.starts_with("ssh://")
    }

    /// The arguments of ssh.
    pub(super) fn arguments(&self, words: &str) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        // No terminal, nothing forwarded; a machine that vanished is noticed, and one that accepts and says nothing. (The time
        // that a person takes for a password is not counted.)
        let alive = [
            "-oServerAliveInterval=30",
            "-oServerAliveCountMax=4",
            "-oConnectTimeout=60",
        ];
        for option in ["-T", "-x"].into_iter().chain(alive) {
            arguments.push(option.to_owned());
        }
        if let Some(port) = self.port {
            arguments.push(format!("-p{port}"));
        }
        if let Some(user) = &self.user {
            arguments.push(format!("-l{user}"));
        }
        arguments.extend(["--".to_owned(), self.host.clone(), self.command(words)]);
        arguments
    }

    /// What a shell there runs to have layerize do `words`.
    pub fn command(&self, words: &str) -> String {
        let store = self.store.as_ref().map(|dir| format!(" --store {}", quoted(dir)));
        format!("{}{} {words}", quoted(&self.program), store.unwrap_or_default())
    }

    /// What to type here to have layerize do `words` there.
    pub fn command_here(&self, words: &str) -> String {
        let port = self.port.map(|port| format!("-p {port} ")).unwrap_or_default();
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let command = self.command(words);
        match command.contains('\'') {
            true => format!("ssh {port}{user}{} {}", self.host, quoted(&command)),
            false => format!("ssh {port}{user}{} {command}", self.host),
        }
    }
}

/// A word as every shell reads it back, as it is where that is safe.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:=,".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => shell_word::quoted(word),
    }
}

impl FromStr for SshAddress {
    type Err = SshAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason: &str| SshAddressError {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        if !Self::is_meant_by(text) {
            return Err(error("it does not begin with `ssh://`"));
        }
        let url = Url::parse(text).map_err(|parsed| error(&parsed.to_string()))?;
        if url.password().is_some() {
            return Err(error(
                "it holds a password; ssh asks for one, or has an agent or a key for it",
            ));
        }
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(error("it goes on behind the host"));
        }
        let host = url.host_str().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let user = Some(url.username()).filter(|user| !user.is_empty());
        let user = user.map(|user| {
            percent_encoding::percent_decode_str(user)
                .decode_utf8_lossy()
                .into_owned()
        });
        check_word(host, "host").map_err(|reason| error(&reason))?;
        user.as_deref()
            .map_or(Ok(()), |user| check_word(user, "user"))
            .map_err(|reason| error(&reason))?;
        let mut address = Self {
            user,
            host: host.to_owned(),
            port: url.port(),
            program: PROGRAM.to_owned(),
            store: None,
        };
        if address.port == Some(0) {
            return Err(error("no machine listens at port 0"));
        }
        for (key, value) in url.query_pairs() {
            if value.is_empty() || value.starts_with('-') || value.contains(char::is_control) {
                return Err(error(&format!("`{key}` has no value that can be used")));
            }
            match key.as_ref() {
                "store" if !value.starts_with('/') => {
                    return Err(error(&format!(
                        "its store `{value}` is not absolute: no shell there makes it so"
                    )));
                }
                "program" => address.program = value.into_owned(),
                "store" => address.store = Some(value.into_owned()),
                _ => return Err(error(&format!("`{key}` is not known: there are `program` and `store`"))),
            }
        }
        Ok(address)
    }
}

/// That ssh takes a word for what it is.
fn check_word(word: &str, what: &str) -> Result<(), String> {
    match word {
        "" => Err(format!("it names no {what}")),
        word if word.starts_with('-') => Err(format!("the {what} begins with `-`")),
        word if word.contains(|c: char| c.is_control() || c.is_whitespace() || "'\"`$\\;&|<>(){}*?".contains(c)) => {
            Err(format!("the {what} holds a character that none has"))
        }
        _ => Ok(()),
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown, end) in [
            ("ssh://box", "ssh://box", "-- box layerize serve-store --stdio"),
            (
                "ssh://me@box.example:2222",
                "ssh://me@box.example:2222",
                "-p2222 -lme -- box.example layerize serve-store --stdio",
            ),
            (
                "ssh://[::1]:22/",
                "ssh://[::1]:22",
                "-p22 -- ::1 layerize serve-store --stdio",
            ),
            ("ssh://my_box", "ssh://my_box", "-- my_box layerize serve-store --stdio"),
            (
                "ssh://box?program=/opt/a%20b/layerize&store=/it's",
                "ssh://box",
                r"-- box '/opt/a b/layerize' --store '/it'\''s' serve-store --stdio",
            ),
        ] {
            let address: SshAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            let arguments = address.arguments("serve-store --stdio").join(" ");
            assert!(arguments.ends_with(end), "{text}: {arguments}");
        }
        let address: SshAddress = "ssh://me@box:2222".parse().unwrap();
        assert_eq!(address.command_here("rollback"), "ssh -p 2222 me@box layerize rollback");
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, reason) in [
            ("box", "begin"),
            ("grpc://box:1", "begin"),
            ("ssh://", "host"),
            ("ssh://-oProxyCommand=x", "`-`"),
            ("ssh://-l@box", "`-`"),
            ("ssh://a%20b@box", "character"),
            ("ssh://me:secret@box", "password"),
            ("ssh://box/dir", "behind"),
            ("ssh://box:0", "port 0"),
            ("ssh://box?programme=x", "not known"),
            ("ssh://box?program=-x", "value"),
            ("ssh://box?store=st", "not absolute"),
            ("ssh://box?store=~/st", "not absolute"),
            ("ssh://box:99999", "port"),
        ] {
            let error = text.parse::<SshAddress>().unwrap_err();
            assert!(error.reason.contains(reason), "{text}: {}", error.reason);
        }
    }
}
