//! A *test of an image* as the user wrote it: `[image.NAME.tests.TEST]`.
//!
//! Invariant: nothing of a test decides what the image is. One that comes back without a diagnostic can be run: its patterns
//! are regular expressions that compile, and what is asked over HTTP has a port.

use std::collections::BTreeMap;
use std::fmt;

use regex::Regex;
use toml::de::DeValue;

use super::checks::{self, Complaint};
use super::diagnostics::Diagnostic;
use super::keys::{Key, Shape, key};
use super::package::text_map;
use super::reader::{Field, Reader, Table};
use super::types::Spanned;
use crate::oci::Port;

use Shape::{Any, Count, Many, Map, Text};

/// How long a test may take where it does not say, in seconds.
const TIMEOUT: u64 = 60;

/// What `path` of `http` is where it is not said.
const HTTP_PATH: &str = "/";

/// `[image.NAME.tests.TEST]`.
pub(super) const TEST: &[Key] = &[
    key(
        "run",
        Many(&Text),
        "The command, in place of the image's `entrypoint` and `cmd`.",
    ),
    key(
        "args",
        Many(&Text),
        "Arguments of the image's `entrypoint`, in place of `cmd`.",
    ),
    key("env", Map(&Text), "Further variables."),
    key("user", Text, "The user, in place of the image's."),
    key("stdin", Text, "What the program reads (default: nothing)."),
    key(
        "exec",
        Many(&Any(&[Text, Many(&Text)])),
        "A command, or several, run in the container while the image's program serves; each must succeed.",
    ),
    key(
        "timeout",
        Text,
        "Most time that it may take: `\"30s\"`, `\"5m\"` (default `60s`).",
    ),
    key("expect", Shape::Table(EXPECT), "What must come of it."),
];

/// `expect = { … }`.
pub(super) const EXPECT: &[Key] = &[
    key(
        "status",
        Count(0, 255),
        "Exit status (default 0; 128 and the number of the signal that ended it).",
    ),
    key(
        "stdout",
        Text,
        "Standard output: a text, or `/REGULAR EXPRESSION/` for a part of it.",
    ),
    key("stderr", Text, "Standard error, likewise."),
    key("file", Map(&Text), "What files hold afterwards, by absolute path."),
    key(
        "port",
        Count(1, 65535),
        "TCP port at which the program must answer; it is ended then.",
    ),
    key(
        "http",
        Shape::Table(HTTP),
        "What it must answer over HTTP; it is ended then.",
    ),
];

/// `http = { … }`.
pub(super) const HTTP: &[Key] = &[
    key(
        "port",
        Count(1, 65535),
        "The port (default: that of `expect`, or the first of the image's `ports`).",
    ),
    key("path", Text, "What is asked for (default `/`)."),
    key("status", Count(100, 599), "The answer's status (default 200)."),
    key(
        "body",
        Text,
        "The answer: a text, or `/REGULAR EXPRESSION/` for a part of it.",
    ),
];

/// A test of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTest {
    /// Its name, and where that stands.
    pub name: Spanned<String>,
    /// `run`; `None`: the image's own command.
    pub run: Option<Vec<String>>,
    /// `args`.
    pub args: Vec<String>,
    /// `env`.
    pub env: BTreeMap<String, String>,
    /// `user`.
    pub user: Option<String>,
    /// `stdin`.
    pub stdin: Option<String>,
    /// `exec`.
    pub exec: Vec<Vec<String>>,
    /// `timeout`, in seconds.
    pub timeout: u64,
    /// `expect`.
    pub expect: Expectation,
}

impl ImageTest {
    /// Whether its program serves until it is ended.
    pub fn is_service(&self) -> bool {
        !self.exec.is_empty() || self.expect.port.is_some() || self.expect.http.is_some()
    }
}

/// What must come of a test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expectation {
    /// `status`.
    pub status: Option<i32>,
    /// `stdout`.
    pub stdout: Option<Pattern>,
    /// `stderr`.
    pub stderr: Option<Pattern>,
    /// `file`.
    pub files: BTreeMap<String, Pattern>,
    /// `port`.
    pub port: Option<u16>,
    /// `http`.
    pub http: Option<HttpExpectation>,
}

/// What must be answered over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpExpectation {
    /// `port`.
    pub port: u16,
    /// `path`.
    pub path: String,
    /// `status`.
    pub status: u16,
    /// `body`.
    pub body: Option<Pattern>,
}

/// What a text must be.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// The same but for a line feed at the end.
    Text(String),
    /// Something in it matches.
    Matching(Regex),
}

impl Pattern {
    /// `/…/` is a regular expression, anything else a text.
    fn parse(text: &str) -> Result<Self, Complaint> {
        let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let Some(inner) = inner.filter(|inner| !inner.is_empty()) else {
            return Ok(Self::Text(text.to_owned()));
        };
        Regex::new(&format!("(?m){inner}"))
            .map(Self::Matching)
            .map_err(|error| {
                let text = error.to_string();
                let reason = text
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ")
                    .to_owned();
                Complaint {
                    label: format!("not a regular expression: {reason}"),
                    help: Some(
                        "what is between the slashes is in the syntax of Rust's `regex`: `\\\\.` is a point".to_owned(),
                    ),
                }
            })
    }

    /// Whether a text is such.
    pub fn fits(&self, text: &str) -> bool {
        match self {
            Self::Text(expected) => without_end(expected) == without_end(text),
            Self::Matching(expression) => expression.is_match(text),
        }
    }
}

fn without_end(text: &str) -> &str {
    text.strip_suffix('\n').unwrap_or(text)
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Matching(expression) => write!(f, "/{}/", expression.as_str().trim_start_matches("(?m)")),
        }
    }
}

/// Reads `tests` of an image that has these ports.
pub(super) fn read(reader: &mut Reader<'_>, image: &Table<'_>, ports: &[Port]) -> Vec<ImageTest> {
    let entries = image.entries(reader, "tests");
    entries
        .iter()
        .filter_map(|entry| read_test(reader, entry, ports))
        .collect()
}

fn read_test(reader: &mut Reader<'_>, field: &Field<'_>, ports: &[Port]) -> Option<ImageTest> {
    reader.accept_key(field, "a test's name", checks::package_name(field.key));
    let table = reader.table(field, format!("test `{}`", field.key), TEST.iter().collect())?;
    let words = |reader: &mut Reader<'_>, key| {
        let field = table.get(key)?;
        Some(command(reader, &field))
    };
    let test = ImageTest {
        name: Spanned {
            value: field.key.to_owned(),
            span: field.key_span.clone(),
        },
        run: words(reader, "run"),
        args: words(reader, "args").unwrap_or_default(),
        env: (text_map(reader, &table, "env", checks::env_name).into_iter())
            .map(|(name, text)| (name, text.value))
            .collect(),
        user: table.checked(reader, "user", checks::nonempty).map(|user| user.value),
        stdin: table
            .get("stdin")
            .and_then(|field| reader.text(&field))
            .map(|text| text.value),
        exec: read_exec(reader, &table),
        timeout: table
            .checked(reader, "timeout", checks::duration)
            .map_or(TIMEOUT, |time| time.value),
        expect: read_expectation(reader, &table, ports).unwrap_or_default(),
    };
    if test.run.is_some() && !test.args.is_empty() {
        refuse(
            reader,
            &table,
            "args",
            "`run` is the whole command already",
            "add them to `run`",
        );
    }
    if test.is_service() && test.stdin.is_some() {
        refuse(
            reader,
            &table,
            "stdin",
            "a program that serves reads nothing",
            "leave it out",
        );
    }
    Some(test)
}

fn refuse(reader: &mut Reader<'_>, table: &Table<'_>, key: &'static str, label: &str, help: &str) {
    if let Some(field) = table.get(key) {
        let diagnostic = Diagnostic::new(format!("{} has no effect", field.title()));
        reader.error(diagnostic.at(field.key_span, label).help(help));
    }
}

/// A command: not empty, as there would be nothing to run.
fn command(reader: &mut Reader<'_>, field: &Field<'_>) -> Vec<String> {
    let words: Vec<String> = reader.texts(field).into_iter().map(|text| text.value).collect();
    if matches!(field.value, DeValue::Array(elements) if elements.is_empty()) {
        let diagnostic = Diagnostic::new(format!("{} is empty", field.title()));
        reader.error(diagnostic.at(field.span.clone(), "names no program"));
    }
    words
}

/// `["PROGRAM", …]`, or a list of such.
fn read_exec(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<Vec<String>> {
    let Some(field) = table.get("exec") else {
        return Vec::new();
    };
    let is_list = |value: &DeValue<'_>| {
        matches!(value, DeValue::Array(elements)
        if elements.iter().any(|element| matches!(element.get_ref(), DeValue::Array(_))))
    };
    match is_list(field.value) {
        true => reader
            .array(&field)
            .iter()
            .map(|element| command(reader, element))
            .collect(),
        false => vec![command(reader, &field)],
    }
}

fn pattern(reader: &mut Reader<'_>, table: &Table<'_>, key: &'static str) -> Option<Pattern> {
    table.checked(reader, key, Pattern::parse).map(|pattern| pattern.value)
}

fn number<T: TryFrom<i64>>(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    key: &'static str,
    min: i64,
    max: i64,
) -> Option<T> {
    let field = table.get(key)?;
    T::try_from(reader.integer(&field, min, max)?).ok()
}

fn read_expectation(reader: &mut Reader<'_>, test: &Table<'_>, ports: &[Port]) -> Option<Expectation> {
    let field = test.get("expect")?;
    let table = reader.table(&field, format!("`expect` of {}", test.what), EXPECT.iter().collect())?;
    let port = number(reader, &table, "port", 1, 65535);
    let mut files = BTreeMap::new();
    for entry in table.entries(reader, "file") {
        reader.accept_key(&entry, "a path in an image", checks::absolute_path(entry.key));
        if let Some(pattern) = reader.checked(&entry, Pattern::parse) {
            files.insert(entry.key.to_owned(), pattern.value);
        }
    }
    Some(Expectation {
        status: number(reader, &table, "status", 0, 255),
        stdout: pattern(reader, &table, "stdout"),
        stderr: pattern(reader, &table, "stderr"),
        files,
        http: read_http(reader, &table, port.or_else(|| ports.iter().find_map(Port::tcp_number))),
        port,
    })
}

fn read_http(reader: &mut Reader<'_>, expect: &Table<'_>, port: Option<u16>) -> Option<HttpExpectation> {
    let field = expect.get("http")?;
    let table = reader.table(&field, format!("`http` of {}", expect.what), HTTP.iter().collect())?;
    let own = number(reader, &table, "port", 1, 65535);
    let path = table.checked(reader, "path", http_path);
    let status = number(reader, &table, "status", 100, 599).unwrap_or(200);
    let body = pattern(reader, &table, "body");
    let port = own.or(port);
    if port.is_none() && table.get("port").is_none() {
        let diagnostic = Diagnostic::new(format!("{} has no `port`", table.what));
        reader.error(
            diagnostic
                .at(table.span.clone(), "`port` is missing")
                .help("add `port = 8080`"),
        );
    }
    Some(HttpExpectation {
        port: port?,
        path: path.map_or(HTTP_PATH.to_owned(), |path| path.value),
        status,
        body,
    })
}

/// What stands in the first line of a request: it begins with a slash and holds no space.
fn http_path(text: &str) -> Result<String, Complaint> {
    let fits = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned()).ok_or_else(|| Complaint {
        label: "not a path".to_owned(),
        help: Some("begin with `/`, and write others than ASCII's visible characters as `%20`".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_texts_or_regular_expressions() {
        for (pattern, text, fits) in [
            ("hello", "hello\n", true),
            ("hello\n", "hello", true),
            ("hello", "hello you", false),
            ("", "", true),
            ("/", "/", true),
            ("/^b.d$/", "a\nbad\n", true),
            ("/^b.d$/", "abad", false),
            ("/usr/bin", "/usr/bin", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().fits(text), fits, "{pattern} {text:?}");
        }
        assert!(Pattern::parse("/(/").unwrap_err().label.contains("unclosed group"));
        assert_eq!(Pattern::parse("/a+/").unwrap().to_string(), "/a+/");
    }
}
