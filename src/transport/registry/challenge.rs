//! A *challenge* is what a registry asks for before it answers (`WWW-Authenticate`, RFC 9110, 11.6.1).
//!
//! Invariant: whatever the header holds, parsing ends and gives the schemes that are understood; the rest is left out.

use std::collections::BTreeMap;

/// What must be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password.
    Basic,
    /// A token (distribution's token specification).
    Bearer {
        /// Where tokens are got.
        realm: String,
        /// The service the token is for, where it is named.
        service: Option<String>,
        /// What the token must allow, where that is said.
        scope: Option<String>,
        /// Why the token that was shown does not do.
        error: Option<String>,
    },
}

/// The challenge to be met among those of several headers, each of which may hold several: a token before a password.
pub(super) fn choose<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
    let all: Vec<Challenge> = headers.into_iter().flat_map(parse).collect();
    let bearer = all.iter().find(|found| matches!(found, Challenge::Bearer { .. }));
    bearer.or_else(|| all.first()).cloned()
}

/// The known challenges of one header.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut current: Option<(String, BTreeMap<String, String>)> = None;
    let mut scanner = ChallengeScanner(header);
    loop {
        scanner.skip(|c| c.is_whitespace() || c == ',');
        let word = scanner.token();
        if word.is_empty() {
            if scanner.0.is_empty() {
                break;
            }
            // Not a word: left out, one character at a time.
            scanner.advance();
            continue;
        }
        scanner.skip(char::is_whitespace);
        match (scanner.0.strip_prefix('='), &mut current) {
            (Some(rest), Some((_, parameters))) if !rest.starts_with('=') => {
                scanner.0 = rest;
                scanner.skip(char::is_whitespace);
                let value = scanner.value();
                parameters.entry(word.to_ascii_lowercase()).or_insert(value);
            }
            (Some(_), _) => scanner.advance(),
            (None, _) => {
                found.extend(current.take().and_then(known));
                current = Some((word.to_ascii_lowercase(), BTreeMap::new()));
            }
        }
    }
    found.extend(current.and_then(known));
    found
}

fn known((scheme, mut parameters): (String, BTreeMap<String, String>)) -> Option<Challenge> {
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service").filter(|service| !service.is_empty()),
            scope: parameters.remove("scope").filter(|scope| !scope.is_empty()),
            error: parameters.remove("error"),
        }),
        _ => None,
    }
}

struct ChallengeScanner<'a>(&'a str);

impl ChallengeScanner<'_> {
    fn skip(&mut self, skipped: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(skipped);
    }

    fn advance(&mut self) {
        let mut rest = self.0.chars();
        rest.next();
        self.0 = rest.as_str();
    }

    fn token(&mut self) -> String {
        let end = self.0.find(|c: char| c.is_whitespace() || matches!(c, ',' | '=' | '"'));
        let (token, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        token.to_owned()
    }

    fn value(&mut self) -> String {
        let Some(quoted) = self.0.strip_prefix('"') else {
            // Unquoted values may hold `=` (a realm with a query).
            let end = self.0.find(|c: char| c.is_whitespace() || c == ',');
            let (value, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
            self.0 = rest;
            return value.to_owned();
        };
        let mut value = String::new();
        let mut rest = quoted.chars();
        while let Some(c) = rest.next() {
            match c {
                '"' => break,
                '\\' => value.extend(rest.next()),
                c => value.push(c),
            }
        }
        self.0 = rest.as_str();
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
            error: None,
        }
    }

    #[test]
    fn row_03_challenges_of_every_spelling_are_read() {
        let full = r#"Bearer realm="https://auth.example/token?a=b,c",service="registry.example",scope="repository:a/b:pull,push""#;
        let cases: &[(&[&str], Option<Challenge>)] = &[
            (
                &[full],
                Some(bearer(
                    "https://auth.example/token?a=b,c",
                    Some("registry.example"),
                    Some("repository:a/b:pull,push"),
                )),
            ),
            (
                &["bEaReR realm=https://a/t?x=y"],
                Some(bearer("https://a/t?x=y", None, None)),
            ),
            (
                &["Bearer  realm = \"https://a/t\" , service=\"\""],
                Some(bearer("https://a/t", None, None)),
            ),
            (&["Negotiate", "Basic realm=\"x\""], Some(Challenge::Basic)),
            (
                &["Negotiate abc==, Basic realm=\"a, Bearer b\""],
                Some(Challenge::Basic),
            ),
            (
                &["Basic realm=\"x\", Bearer realm=\"https://a/t\""],
                Some(bearer("https://a/t", None, None)),
            ),
            (
                &["Basic", "Bearer realm=\"https://a/t\""],
                Some(bearer("https://a/t", None, None)),
            ),
            (&["Bearer realm=\"a\\\"b\""], Some(bearer("a\"b", None, None))),
            (&["Bearer service=\"x\""], None),
            (&["Digest realm=\"x\""], None),
            (&["", "=", "\"", ",,=\"", "Bearer realm"], None),
            (&["Bearer realm=\"unended"], Some(bearer("unended", None, None))),
        ];
        for (headers, expected) in cases {
            assert_eq!(&choose(headers.iter().copied()), expected, "{headers:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_to_its_end(text in "\\PC{0,60}") {
            let _ = choose([text.as_str()]);
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_challenge() {
        crate::testing::fuzz("challenge", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = super::choose(text.lines());
        });
    }
}
