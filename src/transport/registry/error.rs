//! A *registry error* says what was being done, at which host, what the registry answered, and what to do about it.
//!
//! Invariant: a registry's own words are shown, bounded and printable; no secret and no query string is.

use std::fmt::Write as _;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::digest::{ContentDigest, Digest};
use crate::http::pace::status_may_pass;
use crate::http::{HttpError, tls};

/// Most characters of one message that are shown.
const MESSAGE_MAX: usize = 300;
/// Most messages that are shown.
const MESSAGES_MAX: usize = 5;

/// Why a registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection could be made.
    #[error("cannot {action}: `{host}` cannot be reached")]
    Unreachable {
        /// What was being done.
        action: String,
        /// The host.
        host: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection ended too early.
    #[error("cannot {action}: the connection to `{host}` broke")]
    Broken {
        /// What was being done.
        action: String,
        /// The host.
        host: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing moved.
    #[error("cannot {action}: nothing moved between here and `{host}` for {} s", .patience.as_secs_f32())]
    Stalled {
        /// What was being done.
        action: String,
        /// The host.
        host: String,
        /// How long that was watched.
        patience: Duration,
    },
    /// The registry says no.
    #[error("cannot {action}: `{host}` answers {status}{}", after(.words))]
    Status {
        /// What was being done.
        action: String,
        /// The host.
        host: String,
        /// The status of the answer.
        status: StatusCode,
        /// The codes of the errors in the answer.
        codes: Vec<String>,
        /// The registry's words.
        words: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The user may not do this.
    #[error("cannot {action}: `{host}` does not allow it to {who}: {status}{}", after(.words))]
    Denied {
        /// What was being done.
        action: String,
        /// The host.
        host: String,
        /// The registry that logins are for, which may have sent us to the host.
        registry: String,
        /// Who asked: `an anonymous user`, or `the user NAME`.
        who: String,
        /// The status of the answer.
        status: StatusCode,
        /// The registry's words.
        words: String,
    },
    /// The registry asks to wait for longer than is waited.
    #[error("cannot {action}: `{host}` asks to wait for {seconds} s, and {limit} s are the most that is waited")]
    Busy {
        /// What was being done.
        action: String,
        /// The host.
        host: String,
        /// What it asks for.
        seconds: u64,
        /// The longest wait.
        limit: u64,
    },
    /// An answer that no registry may give.
    #[error("cannot {action}: the answer of `{host}` is not followed: {reason}")]
    Protocol {
        /// What was being done.
        action: String,
        /// The host.
        host: String,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// The registry has other content than was sent or asked for.
    #[error("cannot {action}: `{host}` has `{actual}` there, not `{expected}`")]
    Differs {
        /// What was being done.
        action: String,
        /// The host.
        host: String,
        /// What it should be.
        expected: Box<ContentDigest>,
        /// What it is, in the registry's words.
        actual: String,
    },
    /// A tag that must not move names another image.
    #[error("the tag `{name}` exists and names `{existing}`, not `{wanted}`")]
    TagTaken {
        /// The tag's whole reference.
        name: String,
        /// What it names.
        existing: String,
        /// What it was to name.
        wanted: Digest,
    },
    /// What is to be sent cannot be read.
    #[error("cannot {action}: its bytes cannot be read")]
    Source {
        /// What was being done.
        action: String,
        /// Why.
        source: std::io::Error,
    },
    /// The request cannot be made, or is given up because the process ends.
    #[error("cannot {action}")]
    Http {
        /// What was being done.
        action: String,
        /// Why.
        source: HttpError,
    },
}

fn after(words: &str) -> String {
    match words {
        "" => String::new(),
        words => format!(": {words}"),
    }
}

impl RegistryError {
    /// Whether it says something of what was asked for, and not of the host: that this may not be done, or is not there.
    pub fn is_of_repository(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Status { status, .. } => status.is_client_error() && *status != StatusCode::TOO_MANY_REQUESTS,
            _ => false,
        }
    }

    /// A request that has no answer, while this was being done.
    pub(super) fn of(error: HttpError, action: &str) -> Self {
        let action = action.to_owned();
        match error {
            HttpError::Unreachable { host, source } => Self::Unreachable { action, host, source },
            HttpError::Broken { host, source } => Self::Broken { action, host, source },
            HttpError::Stalled { host, patience } => Self::Stalled { action, host, patience },
            HttpError::Redirect { host, reason, help } => Self::Protocol {
                action,
                host,
                reason,
                help,
            },
            HttpError::Source(source) => Self::Source { action, source },
            source @ (HttpError::Cancelled | HttpError::Start(_) | HttpError::Setup(_)) => {
                Self::Http { action, source }
            }
        }
    }

    /// Whether the host gave no usable answer for as long as one was waited for.
    pub fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Stalled { .. } | Self::Busy { .. }
        )
    }

    /// What the user can do about it, where anything can be said.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Denied {
                registry: host, who, ..
            } if who.starts_with("an anonymous") => Some(format!(
                "log in with `docker login {host}` or `podman login {host}`; `layerize auth explain` shows where logins are looked for"
            )),
            Self::Denied { .. } => Some(
                "check the name and the user's rights; `layerize auth explain` shows which login is used".to_owned(),
            ),
            Self::Unreachable { host, source, .. } => Some(tls::advice(source.as_ref(), host).unwrap_or_else(|| {
                format!(
                    "check the name `{host}`, the network and the proxy; a registry without TLS must be allowed by name"
                )
            })),
            Self::Broken { .. } | Self::Stalled { .. } => {
                Some("run the command again: what has arrived is not sent twice".to_owned())
            }
            Self::Busy { seconds, .. } => Some(format!(
                "run the command again in {seconds} s: what has arrived is not sent twice"
            )),
            Self::TagTaken { .. } => Some("push under another tag, or allow tags to move".to_owned()),
            Self::Status { status, action, .. } if *status == StatusCode::PAYLOAD_TOO_LARGE => Some(
                if action.contains("manifest") {
                    "the registry limits a manifest's size: use fewer layers or shorter annotations"
                } else {
                    "the registry, or a proxy before it, limits the size of a request: use smaller layers"
                }
                .to_owned(),
            ),
            Self::Status { status, action, .. } if action.starts_with("delete ") && is_no_method(*status) => Some(
                "the registry lets nobody delete manifests: allow it (`storage: {delete: {enabled: true}}` of distribution), or \
                 let its own rules remove what is old"
                    .to_owned(),
            ),
            Self::Status { codes, .. } if codes.iter().any(|code| code == "NAME_UNKNOWN") => {
                Some("create the repository at the registry first, if it does not do so by itself".to_owned())
            }
            Self::Status { .. } if self.has_code("MANIFEST_BLOB_UNKNOWN") => Some(
                "the registry has lost what the manifest names, or takes no manifest whose layers are kept elsewhere \
                 (`validation.manifests.urls.allow` of distribution)"
                    .to_owned(),
            ),
            Self::Status { status, .. } if status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS => {
                Some("run the command again later: what has arrived is not sent twice".to_owned())
            }
            Self::Protocol { help, .. } => help.clone(),
            Self::Http { source, .. } => source.help(),
            _ => None,
        }
    }

    /// Whether the same request may succeed in a while: what broke on the way, and what registries answer when they
    /// are busy (429, 5xx, and error codes that mean the same).
    pub(super) fn may_pass(&self) -> bool {
        const CODES: [&str; 3] = ["TOOMANYREQUESTS", "UNAVAILABLE", "UNKNOWN"];
        // distribution answers 500 to a manifest with `urls` that it is not set to take.
        const FINAL: [&str; 4] = [
            "BLOB_UNKNOWN",
            "MANIFEST_BLOB_UNKNOWN",
            "MANIFEST_INVALID",
            "DIGEST_INVALID",
        ];
        match self {
            // What a certificate is will not change.
            Self::Unreachable { source, .. } => !tls::is_refused(source.as_ref()),
            Self::Broken { .. } | Self::Stalled { .. } => true,
            Self::Status { status, codes, .. } => {
                if FINAL.iter().any(|code| self.has_code(code)) {
                    return false;
                }
                let client = matches!(status.as_u16(), 400 | 401 | 403 | 404 | 405 | 413);
                status_may_pass(*status) || (!client && codes.iter().any(|code| CODES.contains(&code.as_str())))
            }
            _ => false,
        }
    }

    /// The status of an answer that says no.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } | Self::Denied { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// Whether the answer holds this error code.
    pub(super) fn has_code(&self, wanted: &str) -> bool {
        matches!(self, Self::Status { codes, .. } if codes.iter().any(|code| code == wanted))
    }

    /// How long the registry asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Whether an answer says that what was asked for cannot be done there at all.
fn is_no_method(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED | StatusCode::BAD_REQUEST
    )
}

/// The errors in a body (distribution-spec, "Error Codes"): codes and words.
pub(super) fn read_errors(body: &[u8], content_type: &str) -> (Vec<String>, String) {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<One>,
        // What token servers and proxies write.
        #[serde(default)]
        error: Option<serde_json::Value>,
        #[serde(default)]
        error_description: Option<String>,
        #[serde(default)]
        details: Option<String>,
        #[serde(default)]
        message: Option<String>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: Option<serde_json::Value>,
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        detail: Option<serde_json::Value>,
    }
    let Ok(read) = serde_json::from_slice::<Errors>(body) else {
        return (Vec::new(), plain_words(body, content_type));
    };
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut codes = Vec::new();
    let mut words = String::new();
    for one in read.errors.iter().take(MESSAGES_MAX) {
        let code = one.code.as_ref().map(text).unwrap_or_default();
        let code = printable(&code, 64);
        if !words.is_empty() {
            words.push_str("; ");
        }
        words.push_str(&code);
        for part in [
            one.message.clone(),
            one.detail.as_ref().filter(|detail| !empty(detail)).map(text),
        ] {
            if let Some(part) = part.filter(|part| !part.is_empty()) {
                let _ = write!(words, " ({})", printable(&part, MESSAGE_MAX));
            }
        }
        codes.push(code);
    }
    if read.errors.is_empty() {
        let parts = [
            read.error.as_ref().map(text),
            read.error_description,
            read.details,
            read.message,
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .flatten()
            .map(|part| printable(&part, MESSAGE_MAX))
            .collect();
        words = parts.join(": ");
    }
    (codes, words)
}

fn empty(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::Object(map) => map.is_empty(),
        serde_json::Value::Array(items) => items.is_empty(),
        serde_json::Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn plain_words(body: &[u8], content_type: &str) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if text.is_empty() {
        String::new()
    } else if content_type.contains("html") || text.starts_with('<') {
        "a web page, not a registry's answer".to_owned()
    } else {
        printable(text, MESSAGE_MAX)
    }
}

/// A text from outside that can be shown: no control characters, not long.
pub(super) fn printable(text: &str, max: usize) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(max).map(shown).collect();
    if text.chars().nth(max).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_registry_errors() {
        crate::testing::fuzz("registry-errors", |bytes| {
            for kind in ["application/json", "text/html", ""] {
                let (codes, words) = super::read_errors(bytes, kind);
                for text in codes.iter().chain([&words]) {
                    assert!(!text.contains(char::is_control), "{text:?}");
                }
            }
        });
    }
}
