//! An environment *marker* (PEP 508) says where a requirement holds.
//!
//! Invariant: what it comes to is a function of the [`Environment`] alone; what that does not know is an error, not false.

use std::collections::{BTreeMap, BTreeSet};

use super::version::{self, Version};
use crate::spec::normal_python_name;

/// Deepest nesting of parentheses.
const DEPTH_MAX: usize = 64;

/// What markers ask of.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment {
    /// The variables of the standard.
    pub(super) variables: BTreeMap<&'static str, String>,
    /// What `extra == …` holds for, and `… in extras`.
    pub(super) extras: BTreeSet<String>,
    /// What `… in dependency_groups` holds for.
    pub(super) groups: BTreeSet<String>,
}

/// Whether a marker holds, or what is wrong with it.
pub(super) fn holds(text: &str, environment: &Environment) -> Result<bool, String> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        environment,
    };
    let value = parser.any(0)?;
    match parser.tokens.get(parser.at) {
        None => Ok(value),
        Some(token) => Err(format!("`{}` is not expected there", token.text())),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    /// A comparison or a parenthesis.
    Sign(String),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(text) | Self::Quoted(text) | Self::Sign(text) => text,
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' => {
                let end = rest[1..].find(first).ok_or("a string does not end")?;
                tokens.push(Token::Quoted(rest[1..=end].to_owned()));
                end + 2
            }
            '(' | ')' => {
                tokens.push(Token::Sign(first.to_string()));
                1
            }
            _ => {
                let is_sign = |c: char| "<>=!~".contains(c);
                let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
                let is_sign_first = is_sign(first);
                let end = match is_sign_first {
                    true => rest.find(|c| !is_sign(c)),
                    false => rest.find(|c| !is_word(c)),
                };
                let end = end.unwrap_or(rest.len());
                if end == 0 {
                    return Err(format!("`{first}` has no place in it"));
                }
                let token = rest[..end].to_owned();
                tokens.push(if is_sign_first {
                    Token::Sign(token)
                } else {
                    Token::Word(token)
                });
                end
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    environment: &'a Environment,
}

impl Parser<'_> {
    fn take(&mut self, wanted: &Token) -> bool {
        let found = self.tokens.get(self.at) == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn any(&mut self, depth: usize) -> Result<bool, String> {
        let mut value = self.all(depth)?;
        while self.take(&Token::Word("or".to_owned())) {
            value |= self.all(depth)?;
        }
        Ok(value)
    }

    fn all(&mut self, depth: usize) -> Result<bool, String> {
        let mut value = self.one(depth)?;
        while self.take(&Token::Word("and".to_owned())) {
            value &= self.one(depth)?;
        }
        Ok(value)
    }

    fn one(&mut self, depth: usize) -> Result<bool, String> {
        if self.take(&Token::Sign("(".to_owned())) {
            if depth == DEPTH_MAX {
                return Err("its parentheses are nested too deeply".to_owned());
            }
            let value = self.any(depth + 1)?;
            return match self.take(&Token::Sign(")".to_owned())) {
                true => Ok(value),
                false => Err("a parenthesis is not closed".to_owned()),
            };
        }
        let left = self.next()?;
        let operator = match self.next()? {
            Token::Word(word) if word == "not" => match self.next()? {
                Token::Word(word) if word == "in" => "not in".to_owned(),
                other => return Err(format!("`not {}` is no comparison", other.text())),
            },
            Token::Word(word) if word == "in" => word,
            Token::Sign(sign) => sign,
            other => return Err(format!("`{}` is no comparison", other.text())),
        };
        let right = self.next()?;
        self.compare(&left, &operator, &right)
    }

    fn next(&mut self) -> Result<Token, String> {
        let token = self.tokens.get(self.at).cloned().ok_or("it ends too early")?;
        self.at += 1;
        Ok(token)
    }

    fn compare(&self, left: &Token, operator: &str, right: &Token) -> Result<bool, String> {
        for (variable, value) in [(left, right), (right, left)] {
            let Token::Word(name) = variable else { continue };
            let set = match name.as_str() {
                "extra" | "extras" => &self.environment.extras,
                "dependency_groups" => &self.environment.groups,
                _ => continue,
            };
            let has = set.contains(&normal_python_name(value.text()));
            return match operator {
                "==" | "in" => Ok(has),
                "!=" | "not in" => Ok(!has),
                _ => Err(format!("`{name} {operator}` has no meaning")),
            };
        }
        let is_version = [left, right]
            .into_iter()
            .any(|token| matches!(token, Token::Word(name) if name.contains("version") && name != "platform_version"));
        let (left, right) = (self.value(left)?, self.value(right)?);
        match operator {
            "in" => return Ok(right.contains(&left)),
            "not in" => return Ok(!right.contains(&left)),
            _ => {}
        }
        if is_version
            && let Some(version) = Version::parse(&left)
            && let Some(value) = version::compare(&version, operator, &right)
        {
            return Ok(value);
        }
        Ok(match operator {
            "==" | "===" => left == right,
            "!=" => left != right,
            "<" => left < right,
            "<=" => left <= right,
            ">" => left > right,
            ">=" => left >= right,
            _ => return Err(format!("`{operator}` is no comparison of `{left}` and `{right}`")),
        })
    }

    fn value(&self, token: &Token) -> Result<String, String> {
        match token {
            Token::Quoted(text) => Ok(text.clone()),
            Token::Word(name) => {
                let found = self.environment.variables.get(name.as_str());
                found
                    .cloned()
                    .ok_or_else(|| format!("`{name}` is not known before the image runs"))
            }
            Token::Sign(sign) => Err(format!("`{sign}` is not expected there")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_hold_or_say_why_not() {
        let environment = Environment {
            variables: BTreeMap::from([
                ("python_version", "3.11".to_owned()),
                ("python_full_version", "3.11.2".to_owned()),
                ("sys_platform", "linux".to_owned()),
                ("platform_machine", "x86_64".to_owned()),
            ]),
            extras: BTreeSet::from(["fast-json".to_owned()]),
            groups: BTreeSet::from(["dev".to_owned()]),
        };
        for (text, expected) in [
            ("python_full_version < '3.12'", Ok(true)),
            ("python_version >= \"3.9\" and sys_platform != 'win32'", Ok(true)),
            (
                "python_version<'3.9'or(sys_platform=='linux'and extra=='Fast_JSON')",
                Ok(true),
            ),
            (
                "sys_platform == 'win32' or python_version == '3.8' and extra == 'x'",
                Ok(false),
            ),
            ("'3.10' <= python_version", Ok(true)),
            ("python_version in '3.10 3.11'", Ok(true)),
            ("platform_machine not in 'arm64 aarch64'", Ok(true)),
            ("'dev' in dependency_groups and 'x' not in extras", Ok(true)),
            ("python_version == '3.*'", Ok(true)),
            ("platform_release >= '5'", Err("not known")),
            ("python_version", Err("too early")),
            ("python_version = '3'", Err("no comparison")),
            ("(python_version > '3'", Err("not closed")),
            ("python_version > '3' 'x'", Err("not expected")),
            ("python_version > '3", Err("does not end")),
            ("python_version > '3' ; x", Err("no place")),
            ("", Err("too early")),
        ] {
            let found = holds(text, &environment);
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(*found, expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
                _ => panic!("{text}: {found:?}"),
            }
        }
        let deep = format!("{}python_version > '3'", "(".repeat(10_000));
        assert!(holds(&deep, &environment).unwrap_err().contains("too deeply"));
    }
}
