//! *Settings* are what a container runs with: the spec's values, checked and in the form that the config has them.
//!
//! Invariant: everything in it is well formed and sorted; a function of the spec and the documents of its base.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::error::ImageError;
use super::filesystem::absolute;
use super::sources::normal_path;
use crate::oci::Port;
use crate::spec;

/// `PATH` of an image that sets none: that of every common base image.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Nanoseconds of a second.
const NANOSECONDS: u64 = 1_000_000_000;

/// Docker's field of a config for the command that says whether a container works.
pub(super) const HEALTHCHECK: &str = "Healthcheck";

/// Keys of labels and annotations that begin so are layerize's own.
pub(super) const RESERVED: &str = "dev.layerize.";

/// Checked values for the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// Always holds `PATH`.
    pub env: BTreeMap<String, String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub ports: BTreeSet<Port>,
    pub volumes: BTreeSet<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub stop_signal: Option<String>,
    /// What OCI's config has no field for: a health check, and what a base's config has and a spec cannot say.
    pub rest: BTreeMap<String, Value>,
}

impl Settings {
    /// Checks the spec's values.
    pub fn new(image: &spec::Image) -> Result<Self, ImageError> {
        let mut env = image.env.clone();
        env.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
        for (name, value) in &env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(value_error(
                    "env",
                    name,
                    "a variable's name is not empty and holds no `=`",
                ));
            }
        }
        for (field, keys) in [("labels", &image.labels), ("annotations", &image.annotations)] {
            check_keys(field, keys)?;
        }
        for (field, words) in [("entrypoint", &image.entrypoint), ("cmd", &image.cmd)] {
            check_command(field, words)?;
        }
        let paths = |field, paths: &[String]| -> Result<BTreeSet<String>, ImageError> {
            paths.iter().map(|path| clean(field, path)).collect()
        };
        Ok(Self {
            entrypoint: image.entrypoint.clone(),
            cmd: image.cmd.clone(),
            env,
            workdir: image
                .workdir
                .as_deref()
                .map(|path| clean("workdir", path))
                .transpose()?,
            user: image.user.clone(),
            ports: image.ports.iter().copied().collect(),
            volumes: paths("volumes", &image.volumes)?,
            labels: image.labels.clone(),
            annotations: image.annotations.clone(),
            stop_signal: image.stop_signal.as_ref().map(ToString::to_string),
            rest: health(image)?
                .map(|check| (HEALTHCHECK.to_owned(), check))
                .into_iter()
                .collect(),
        })
    }

    /// The directories in which commands are looked for, relative to `/`; entries that are not absolute are left out.
    pub fn path_dirs(&self) -> Vec<Vec<u8>> {
        let path = self.env.get("PATH").map_or("", String::as_str);
        path.split(':').filter_map(|dir| normal_path("env", dir).ok()).collect()
    }

    /// The command that a container runs: the first word of entrypoint and cmd, and the field it stands in.
    pub fn command(&self) -> Option<(&'static str, &str)> {
        let entrypoint = self.entrypoint.first().map(|word| ("entrypoint", word.as_str()));
        entrypoint.or_else(|| self.cmd.first().map(|word| ("cmd", word.as_str())))
    }
}

/// A health check in Docker's form: what the spec does not say is not there, and left to the engine; times are in
/// nanoseconds.
fn health(image: &spec::Image) -> Result<Option<Value>, ImageError> {
    let Some(spec::HealthCheck::Run(probe)) = &image.healthcheck else {
        return Ok(None);
    };
    let spec::HealthProbe {
        run,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    } = probe;
    check_command("healthcheck", run)?;
    let test: Vec<&str> = ["CMD"].into_iter().chain(run.iter().map(String::as_str)).collect();
    let mut check = Map::from_iter([("Test".to_owned(), json!(test))]);
    let times = [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", start_period),
        ("StartInterval", start_interval),
    ];
    let times = times.into_iter().filter_map(|(key, seconds)| Some((key, (*seconds)?)));
    check.extend(times.map(|(key, seconds)| (key.to_owned(), json!(seconds * NANOSECONDS))));
    check.extend(retries.map(|retries| ("Retries".to_owned(), json!(retries))));
    Ok(Some(Value::Object(check)))
}

fn check_command(field: &'static str, words: &[String]) -> Result<(), ImageError> {
    match words.first().is_some_and(String::is_empty) || words.iter().any(|word| word.contains('\0')) {
        true => Err(value_error(
            field,
            "",
            "its first word is not empty, and none holds a NUL",
        )),
        false => Ok(()),
    }
}

fn value_error(field: &'static str, value: &str, reason: &'static str) -> ImageError {
    ImageError::Value {
        field,
        value: value.to_owned(),
        reason,
    }
}

fn clean(field: &'static str, path: &str) -> Result<String, ImageError> {
    let bytes = absolute(&normal_path(field, path)?);
    Ok(String::from_utf8(bytes).expect("it came from a string and was cut at slashes"))
}

fn check_keys(field: &'static str, keys: &BTreeMap<String, String>) -> Result<(), ImageError> {
    for key in keys.keys() {
        if key.is_empty() {
            return Err(value_error(field, key, "a key is not empty"));
        }
        if key.starts_with(RESERVED) {
            return Err(value_error(
                field,
                key,
                "keys that begin with `dev.layerize.` are layerize's own",
            ));
        }
    }
    Ok(())
}
