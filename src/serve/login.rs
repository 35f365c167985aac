//! A *token* is what clients show to be let in, where others than this machine can reach the registry.
//!
//! Invariant: comparing takes as long whatever differs; a token is in no message and no log.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::digest::Digest;

/// Fewest characters of a token that somebody chose: shorter ones are guessed.
const LENGTH_MIN: usize = 16;

/// Bytes of a token that was made here, before they are text.
const RANDOM_BYTES: usize = 24;

/// What clients must show.
#[derive(Clone)]
pub struct Token(String);

/// Why a text is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is too short, or has characters that a header cannot have.
    #[error("a token has at least {LENGTH_MIN} letters, digits or signs of ASCII, and no space")]
    Malformed,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

impl Token {
    /// The token in a text, as a file has it.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        match text.len() >= LENGTH_MIN && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(text.to_owned())),
            false => Err(TokenError::Malformed),
        }
    }

    /// A token that nobody can guess.
    pub fn generate() -> Result<Self, TokenError> {
        let mut bytes = [0; RANDOM_BYTES];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_| TokenError::NoRandomness)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Its text, for whoever is to be let in.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// Whether a request shows it: as a bearer, or as the password of any user.
    pub(super) fn is_shown(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, rest)) = given.and_then(|value| value.split_once(' ')) else {
            return false;
        };
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" => self.is(rest.trim().as_bytes()),
            "basic" => {
                let pair = STANDARD.decode(rest.trim()).unwrap_or_default();
                let colon = pair.iter().position(|&byte| byte == b':');
                colon.is_some_and(|colon| self.is(&pair[colon + 1..]))
            }
            _ => false,
        }
    }

    /// The hashes are compared, all of their bytes: how long it takes tells nothing of the token.
    fn is(&self, given: &[u8]) -> bool {
        let (own, given) = (Digest::of(self.0.as_bytes()), Digest::of(given));
        let pairs = own.as_bytes().iter().zip(given.as_bytes());
        pairs.fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn a_token_is_a_bearer_s_or_a_password() {
        let token = Token::parse("0123456789abcdef\n").unwrap();
        let with = |value: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())]);
            token.is_shown(&headers)
        };
        let basic = |pair: &str| with(&format!("Basic {}", STANDARD.encode(pair)));
        assert!(with("Bearer 0123456789abcdef") && with("bearer  0123456789abcdef"));
        assert!(basic("anybody:0123456789abcdef") && basic(":0123456789abcdef"));
        for wrong in [
            "Bearer 0123456789abcdeF",
            "Bearer",
            "Bearer ",
            "Basic !!",
            "Digest 0123456789abcdef",
            "",
        ] {
            assert!(!with(wrong), "{wrong}");
        }
        for wrong in [
            "0123456789abcdef",
            "0123456789abcdef:",
            "a:0123456789abcdef0",
            "a:b:0123456789abcdef",
            "",
        ] {
            assert!(!basic(wrong), "{wrong}");
        }
        assert!(!token.is_shown(&HeaderMap::new()));
        assert!(!format!("{token:?}").contains("0123"));
    }

    #[test]
    fn tokens_are_long_and_random() {
        for short in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdeä"] {
            assert!(Token::parse(short).is_err(), "{short}");
        }
        let (one, two) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_ne!(one.secret(), two.secret());
        assert_eq!(Token::parse(one.secret()).unwrap().secret(), one.secret());
    }
}
