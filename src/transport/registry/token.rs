//! A *token* is what a registry lets a user do, got from the token server that the registry names (distribution's
//! token specification, and its OAuth form for identity tokens).
//!
//! Invariant: a token is asked for with the user's login and never with another token; it is renewed before it ends,
//! and once more when the registry says that it ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::Login;
use super::challenge::{self, Challenge};
use super::client::{Access, Call, Payload, RegistryClient};
use super::error::{RegistryError, read_errors};
use crate::http::address;
use crate::http::client::{self, sensitive};
use crate::http::pace::retry_after;
use crate::http::wire::lock;
use crate::transport::TransportError;

/// Most bytes of a token server's answer.
const TOKEN_MAX: usize = 64 << 10;
/// How long a token lives where its server does not say (distribution's token specification).
const LIFE: Duration = Duration::from_secs(60);
/// Most scopes that a registry's refusals add.
const SCOPES_MAX: usize = 16;
/// The name of this client to OAuth servers.
const CLIENT_ID: &str = "layerize";

/// What is known of each registry's ways and the tokens at hand.
#[derive(Default)]
pub(super) struct Auth {
    challenges: Mutex<BTreeMap<String, Challenge>>,
    slots: Mutex<BTreeMap<Purpose, Arc<Mutex<TokenSlot>>>>,
}

/// A host and the scopes that are needed there.
type Purpose = (String, Vec<String>);

/// The token for one purpose.
#[derive(Default)]
struct TokenSlot {
    header: Option<HeaderValue>,
    renew_at: Option<Instant>,
    /// Scopes that the registry asked for beside those of the purpose.
    more: Vec<String>,
}

impl Auth {
    fn slot(&self, access: &Access) -> Arc<Mutex<TokenSlot>> {
        let key = (access.endpoint.host.clone(), access.scopes.clone());
        lock(&self.slots).entry(key).or_default().clone()
    }
}

impl RegistryClient<'_> {
    /// The `Authorization` for a request, where the registry is known to want one.
    pub(super) fn authorization(&self, access: &Access, action: &str) -> Result<Option<HeaderValue>, TransportError> {
        let host = &access.endpoint.host;
        let login = || self.login(access);
        let challenge = lock(&self.auth.challenges).get(host).cloned();
        match challenge {
            None => match login()? {
                Login::RegistryToken(token) => Ok(bearer(&token)),
                _ => Ok(None),
            },
            Some(Challenge::Basic) => Ok(basic(&login()?)),
            Some(challenge) => {
                if let Login::RegistryToken(token) = login()? {
                    return Ok(bearer(&token));
                }
                let slot = self.auth.slot(access);
                let mut slot = lock(&slot);
                if slot.header.is_none() || slot.renew_at.is_some_and(|at| Instant::now() >= at) {
                    self.renew(&mut slot, &challenge, access, action)?;
                }
                Ok(slot.header.clone())
            }
        }
    }

    /// Does what a refusal asks for; `false` where nothing can be done. `shown` is what was refused.
    pub(super) fn answer_challenge(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        status: StatusCode,
        shown: Option<&HeaderValue>,
    ) -> Result<bool, TransportError> {
        let headers = headers.get_all(WWW_AUTHENTICATE).iter();
        let Some(found) = challenge::choose(headers.filter_map(|value| value.to_str().ok())) else {
            return Ok(false);
        };
        let access = call.access;
        let login = self.login(access)?;
        let (scope, insufficient) = match &found {
            Challenge::Basic => {
                let could = basic(&login).is_some() && shown.is_none() && status == StatusCode::UNAUTHORIZED;
                lock(&self.auth.challenges).insert(access.endpoint.host.clone(), found);
                return Ok(could);
            }
            Challenge::Bearer { scope, error, .. } => (scope.clone(), error.as_deref() == Some("insufficient_scope")),
        };
        if (status == StatusCode::FORBIDDEN && !insufficient) || matches!(login, Login::RegistryToken(_)) {
            return Ok(false);
        }
        lock(&self.auth.challenges).insert(access.endpoint.host.clone(), found.clone());
        let slot = self.auth.slot(access);
        let mut slot = lock(&slot);
        if slot.header.is_some() && slot.header.as_ref() != shown {
            // Another thread has renewed it meanwhile.
            return Ok(true);
        }
        let mut news = shown.is_none();
        for scope in scope.iter().flat_map(|scope| scope.split_whitespace()) {
            let known = access.scopes.iter().chain(&slot.more).any(|known| covers(known, scope));
            if !known && slot.more.len() < SCOPES_MAX {
                slot.more.push(scope.to_owned());
                news = true;
            }
        }
        if insufficient && !news {
            return Ok(false);
        }
        self.renew(&mut slot, &found, access, call.action)?;
        Ok(true)
    }

    /// Gets a token into its slot.
    fn renew(
        &self,
        slot: &mut TokenSlot,
        challenge: &Challenge,
        access: &Access,
        action: &str,
    ) -> Result<(), TransportError> {
        let Challenge::Bearer { realm, service, .. } = challenge else {
            return Ok(());
        };
        slot.header = None;
        let refused = |reason: String| RegistryError::Protocol {
            action: action.to_owned(),
            host: access.endpoint.host.clone(),
            reason,
            help: None,
        };
        let realm =
            Url::parse(realm).map_err(|error| refused(format!("its token server's address is malformed ({error})")))?;
        let realm = address::judge(realm, access.home()).map_err(|stray| RegistryError::Protocol {
            action: action.to_owned(),
            host: access.endpoint.host.clone(),
            reason: format!("it names a token server, but {stray}"),
            help: stray.help(),
        })?;
        let login = self.login(access)?;
        if login != Login::Anonymous && !self.may_have_login(&realm, access)? {
            let reason = format!(
                "it wants the login to be sent to `{}` without TLS",
                address::host_of(&realm)
            );
            return Err(refused(reason).into());
        }
        let scopes: Vec<String> = access.scopes.iter().chain(&slot.more).cloned().collect();
        let began = Instant::now();
        let token = self.fetch_token(&realm, service.as_deref(), &scopes, &login, access, action)?;
        let life = token
            .expires_in
            .map_or(LIFE, Duration::from_secs)
            .max(Duration::from_secs(1));
        // Before it ends: what is on its way when it ends would be refused.
        let early = (life / 4).min(Duration::from_secs(15));
        slot.renew_at = began.checked_add(life - early);
        slot.header = bearer(&token.token);
        if slot.header.is_none() {
            return Err(refused("its token cannot be sent in a header".to_owned()).into());
        }
        Ok(())
    }

    /// Whether a login may be sent there: over TLS, or without where the registry itself is spoken to so.
    fn may_have_login(&self, realm: &Url, access: &Access) -> Result<bool, TransportError> {
        if realm.scheme() == "https" || realm.host() == access.endpoint.base.host() {
            return Ok(true);
        }
        let host = address::host_of(realm);
        let endpoints = self.config.endpoints(&host, false)?;
        Ok(endpoints
            .iter()
            .any(|endpoint| address::same_origin(&endpoint.base, realm)))
    }

    fn fetch_token(
        &self,
        realm: &Url,
        service: Option<&str>,
        scopes: &[String],
        login: &Login,
        access: &Access,
        action: &str,
    ) -> Result<TokenAnswer, TransportError> {
        let get = || {
            let mut url = realm.clone();
            if let Some(service) = service {
                url = address::with_query(&url, "service", service);
            }
            for scope in scopes {
                url = address::with_query(&url, "scope", scope);
            }
            Call::new(Method::GET, url, access, action).header(ACCEPT, "application/json")
        };
        if let Login::IdentityToken(secret) = login {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token");
            form.append_pair("service", service.unwrap_or_default());
            form.append_pair("client_id", CLIENT_ID);
            form.append_pair("scope", &scopes.join(" "));
            form.append_pair("refresh_token", secret);
            let mut post = Call::new(Method::POST, realm.clone(), access, action)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(ACCEPT, "application/json")
                .payload(Payload::Bytes(Bytes::from(form.finish())));
            match self.token_answer(&mut post, None) {
                Err(TransportError::Registry(error)) if matches!(error.status(), Some(404 | 405)) => {}
                answer => return answer,
            }
        }
        self.token_answer(&mut get(), basic(login).as_ref())
    }

    /// The error that a token server's refusal is.
    fn token_refusal(&self, call: &Call<'_>, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> RegistryError {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let (codes, words) = read_errors(body, content_type.unwrap_or_default());
        let (action, host) = (format!("{} (no token)", call.action), address::host_of(&call.url));
        if matches!(status.as_u16(), 401 | 403) {
            return RegistryError::Denied {
                action,
                host,
                registry: call.access.endpoint.host.clone(),
                who: self.who(call.access),
                status,
                words,
            };
        }
        RegistryError::Status {
            retry_after: retry_after(headers),
            action,
            host,
            status,
            codes,
            words,
        }
    }

    /// Asks the token server until it answers with a token, or clearly will not.
    fn token_answer(
        &self,
        call: &mut Call<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<TokenAnswer, TransportError> {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let error = match self.ask_token_server(call, authorization, TOKEN_MAX) {
                Ok((status, _, body)) if status.is_success() => {
                    return read_token(&body)
                        .ok_or_else(|| self.protocol(call, "its token server's answer holds no token"));
                }
                Ok((status, headers, body)) => self.token_refusal(call, status, &headers, &body),
                Err(TransportError::Registry(error)) => *error,
                Err(error) => return Err(error),
            };
            failures += 1;
            self.pause(call.access, error, failures, began)?;
        }
    }
}

/// A token server's answer.
struct TokenAnswer {
    token: String,
    expires_in: Option<u64>,
}

fn read_token(body: &[u8]) -> Option<TokenAnswer> {
    #[derive(Deserialize)]
    struct Read {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<f64>,
    }
    let read: Read = serde_json::from_slice(body).ok()?;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "casts of floats saturate"
    )]
    Some(TokenAnswer {
        token: filled(read.token).or(filled(read.access_token))?,
        expires_in: read
            .expires_in
            .map(|seconds| seconds as u64)
            .filter(|&seconds| seconds > 0),
    })
}

/// Whether a scope allows what another one asks for: the same resource, and all its actions.
fn covers(known: &str, asked: &str) -> bool {
    let split = |scope: &str| -> Option<(String, Vec<String>)> {
        let (resource, actions) = scope.rsplit_once(':')?;
        Some((resource.to_owned(), actions.split(',').map(str::to_owned).collect()))
    };
    match (split(known), split(asked)) {
        (Some((known, allowed)), Some((asked, wanted))) => {
            known == asked && wanted.iter().all(|action| allowed.contains(action))
        }
        _ => known == asked,
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

fn basic(login: &Login) -> Option<HeaderValue> {
    let (username, password) = match login {
        Login::Basic { username, password } => (username.as_str(), password.as_str()),
        // The form that servers without the OAuth form take identity tokens in.
        Login::IdentityToken(token) => ("<token>", token.as_str()),
        Login::Anonymous | Login::RegistryToken(_) => return None,
    };
    client::basic(username, password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_05_tokens_of_both_names_are_read() {
        let read = |text: &str| read_token(text.as_bytes()).map(|token| (token.token, token.expires_in));
        assert_eq!(read(r#"{"token":"a","expires_in":300}"#), Some(("a".into(), Some(300))));
        assert_eq!(read(r#"{"access_token":"b"}"#), Some(("b".into(), None)));
        assert_eq!(
            read(r#"{"token":"","access_token":"b","expires_in":-5}"#),
            Some(("b".into(), None))
        );
        for text in ["", "{}", "[]", r#"{"token":""}"#, r#"{"token":1}"#] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn scopes_cover_others_of_their_resource() {
        assert!(covers("repository:a:pull,push", "repository:a:push"));
        assert!(!covers("repository:a:pull", "repository:a:pull,push"));
        assert!(!covers("repository:a:pull", "repository:b:pull"));
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_token() {
        crate::testing::fuzz("token", |bytes| {
            let _ = super::read_token(bytes);
            let text = String::from_utf8_lossy(bytes);
            let (known, asked) = text.split_once(' ').unwrap_or((&text, ""));
            let _ = super::covers(known, asked);
        });
    }
}
