//! Tests of how hosts are reached, with servers in this process.

mod fetching;
mod proxies;
mod tls;

use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Method;
use reqwest::header::HeaderMap;
use url::Url;

use super::client::{Client, Tuning};
use super::{HttpConfig, HttpError};

/// A directory of the test.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }
}

/// What is at an address.
fn get(config: &HttpConfig, url: &str) -> Result<String, HttpError> {
    let client = Client::new(config, Tuning::default());
    let mut reply = client.fetch(Method::GET, &Url::parse(url).unwrap(), &HeaderMap::new(), None)?;
    let (bytes, _) = reply.answer.read_limited(1 << 20).unwrap();
    Ok(String::from_utf8(bytes).unwrap())
}

fn write_pem(path: &Path, pem: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, pem).unwrap();
}

#[test]
fn a_host_that_can_be_done_without_is_given_up_sooner() {
    let usual = Client::new(&HttpConfig::default(), Tuning::default()).tuning;
    let config = HttpConfig {
        is_optional: true,
        ..HttpConfig::default()
    };
    let optional = Client::new(&config, Tuning::default()).tuning;
    let least = |tuning: &Tuning| tuning.patience.idle * tuning.persistence.attempts_at_first;
    assert!(least(&usual).as_secs() >= 60 && least(&optional).as_secs() <= 20);
    // One that has answered is as good as any.
    assert_eq!(optional.persistence.attempts, usual.persistence.attempts);
}
