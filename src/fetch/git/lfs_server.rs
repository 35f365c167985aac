//! The *server of Git LFS* beside a repository: it is asked where files are (batch API), and they are fetched from there.
//!
//! Invariant: an address that it gives is judged as any that an answer gives; a login goes to the origin that it is for and
//! follows no redirect.

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::command::Git;
use super::lfs::Pointer;
use super::objects::Output;
use crate::escape::shown_line;
use crate::fetch::FetchError;
use crate::fetch::transfer::unanswered;
use crate::http::address::{Home, host_of, resolve, same_origin};
use crate::http::client::{Client, Reply, Request, Tuning, Whole, basic, sensitive};
use crate::spec::GitAddress;

/// What the batch API speaks.
const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";

/// Largest answer of the batch API in bytes.
const ANSWER_MAX: usize = 16 << 20;

/// How many files are asked for at once.
pub(super) const BATCH: usize = 100;

/// What the server says of a file.
#[derive(Debug, Deserialize)]
pub(super) struct Object {
    pub oid: String,
    actions: Option<Actions>,
    error: Option<ObjectError>,
}

#[derive(Debug, Deserialize)]
struct Actions {
    download: Option<Action>,
}

#[derive(Debug, Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct ObjectError {
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

/// A server, asked as whoever git says.
pub(super) struct LfsServer<'a> {
    git: &'a Git<'a>,
    client: Client,
    endpoint: Url,
    login: Option<HeaderValue>,
}

impl<'a> LfsServer<'a> {
    /// The server of a repository; `named` is the address that the repository itself gives it (`lfs.url` of `.lfsconfig`).
    pub(super) fn of(git: &'a Git<'a>, named: Option<&str>) -> Result<Self, String> {
        let url = match (named, &git.address) {
            (Some(named), _) => named.to_owned(),
            (None, GitAddress::Remote(address)) => beside(address),
            (None, GitAddress::Local(_)) => return Err("there is no such file".to_owned()),
        };
        let endpoint = Url::parse(&url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"));
        let client = Client::new(&git.config.http, Tuning::default());
        let endpoint = endpoint.ok_or_else(|| format!("`{}` is no address of a server", shown_line(&url)))?;
        let login = client.login(&endpoint).map_err(|error| error.to_string())?;
        Ok(Self {
            git,
            client,
            endpoint,
            login,
        })
    }

    /// Asks where files are.
    pub(super) fn ask(&mut self, pointers: &[Pointer]) -> Result<Vec<Object>, FetchError> {
        let objects: Vec<_> = (pointers.iter())
            .map(|pointer| json!({ "oid": pointer.digest.hex(), "size": pointer.size }))
            .collect();
        let body =
            json!({ "operation": "download", "transfers": ["basic"], "hash_algo": "sha256", "objects": objects });
        let body = Bytes::from(body.to_string());
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}/objects/batch", self.endpoint.path().trim_end_matches('/')));
        // A login is a header, and no part of an address.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        let mut reply = self.post(&url, body.clone())?;
        if reply.status() == 401 && self.take_login()? {
            reply = self.post(&url, body)?;
        }
        if reply.status() != 200 {
            return Err(FetchError::Status {
                url: url.to_string(),
                status: reply.answer.status(),
                retry_after: None,
            });
        }
        let read = reply.answer.read_limited(ANSWER_MAX);
        let batch = read.and_then(|(bytes, _)| Ok(serde_json::from_slice::<Batch>(&bytes)?));
        batch
            .map(|batch| batch.objects)
            .map_err(|error| FetchError::Interrupted {
                url: url.to_string(),
                source: Box::new(error),
            })
    }

    fn post(&self, url: &Url, body: Bytes) -> Result<Reply, FetchError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(login) = &self.login {
            headers.insert(AUTHORIZATION, login.clone());
        }
        self.send(Method::POST, url, headers, Some(body))
    }

    fn send(&self, method: Method, url: &Url, headers: HeaderMap, body: Option<Bytes>) -> Result<Reply, FetchError> {
        let host = host_of(url);
        let mut body = body.map(|body| Whole(Some(body)));
        let answer = self.client.send(Request {
            method,
            url,
            headers,
            body: body.as_mut().map(|body| body as _),
            host: &host,
            pace: &host,
        });
        let url = url.clone();
        match answer {
            Ok(answer) => Ok(Reply { answer, url }),
            Err(error) => Err(unanswered(url.as_str(), error)),
        }
    }

    /// Asks git's credential helpers who the user is there; whether they know.
    fn take_login(&mut self) -> Result<bool, FetchError> {
        let question = || -> std::io::Result<std::fs::File> {
            let mut file = tempfile::tempfile()?;
            write!(file, "url={}\n\n", self.endpoint)?;
            file.rewind()?;
            Ok(file)
        };
        let mut command = self.git.command(None);
        let answer = question().and_then(|question| {
            command.args(["credential", "fill"]).stdin(question);
            let mut output = Output::start(&mut command)?;
            let mut text = String::new();
            output.stdout.by_ref().take(1 << 16).read_to_string(&mut text)?;
            output.finish().map(|(succeeded, _)| succeeded.then_some(text))
        });
        let answer = answer
            .map_err(|error| self.git.not_started(&error))?
            .unwrap_or_default();
        let value = |key: &str| {
            answer
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        self.login = value("username")
            .zip(value("password"))
            .and_then(|(name, word)| basic(name, word));
        Ok(self.login.is_some())
    }

    /// Opens a file where the server says that it is; or why it is not there.
    pub(super) fn open(&self, object: &Object) -> Result<Result<Reply, String>, FetchError> {
        if let Some(error) = &object.error {
            return Ok(Err(shown_line(&error.message).into_owned()));
        }
        let Some(action) = object.actions.as_ref().and_then(|actions| actions.download.as_ref()) else {
            return Ok(Err("the server does not say where it is".to_owned()));
        };
        let host = host_of(&self.endpoint);
        let home = Home {
            url: &self.endpoint,
            host: &host,
            may_lead_inside: self.git.config.http.private_network.contains(&host),
        };
        let url = match resolve(&action.href, &self.endpoint, home) {
            Ok(url) => url,
            Err(stray) => return Ok(Err(stray.to_string())),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &action.header {
            if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name.as_bytes()), sensitive(value)) {
                headers.insert(name, value);
            }
        }
        if let Some(login) = self.login.as_ref().filter(|_| same_origin(&url, &self.endpoint)) {
            headers.entry(AUTHORIZATION).or_insert_with(|| login.clone());
        }
        let mut reply = self.send(Method::GET, &url, headers, None)?;
        if reply.has_moved(&Method::GET) {
            let next = match reply.location(home) {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(Err("it redirects nowhere".to_owned())),
                Err(stray) => return Ok(Err(stray.to_string())),
            };
            let fetched = self.client.fetch(Method::GET, &next, &HeaderMap::new(), None);
            reply = fetched.map_err(|error| unanswered(next.as_str(), error))?;
        }
        match reply.status() {
            200 => Ok(Ok(reply)),
            status => Ok(Err(format!(
                "`{}` answers {status}",
                reply.url.host_str().unwrap_or_default()
            ))),
        }
    }
}

/// Where the server of a repository is unless something else is said: beside it, by HTTPS (git-lfs, "Server Discovery").
fn beside(address: &str) -> String {
    let path = |text: &str| text.trim_end_matches('/').trim_end_matches(".git").to_owned();
    let address = match (Url::parse(address), address.split_once(':')) {
        _ if !address.contains("://") => {
            let (host, below) = address.split_once(':').unwrap_or((address, ""));
            let host = host.rsplit('@').next().unwrap_or_default();
            format!("https://{host}/{}", below.trim_start_matches('/'))
        }
        (Ok(url), _) if matches!(url.scheme(), "ssh" | "git") => {
            format!("https://{}{}", url.host_str().unwrap_or_default(), url.path())
        }
        _ => address.to_owned(),
    };
    format!("{}.git/info/lfs", path(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_beside_repositories() {
        for (address, expected) in [
            ("https://h/a/b", "https://h/a/b.git/info/lfs"),
            ("https://h:8443/a/b.git/", "https://h:8443/a/b.git/info/lfs"),
            ("http://127.0.0.1:1/a.git", "http://127.0.0.1:1/a.git/info/lfs"),
            ("ssh://git@h:22/a/b.git", "https://h/a/b.git/info/lfs"),
            ("git@h:a/b.git", "https://h/a/b.git/info/lfs"),
            ("git://h/a", "https://h/a.git/info/lfs"),
        ] {
            assert_eq!(beside(address), expected);
        }
    }
}
