//! The *context* of a command: what the arguments, the environment and the user's configuration say together.
//!
//! Invariant: the environment is read here and nowhere else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::event::{Event, Reporter};
use crate::fetch::LanguageTools;
use crate::fsio::keep_owner;
use crate::http::{HttpConfig, ProxyVariable, ProxyVariables};
use crate::inputs;
use crate::oci::Platform;
use crate::profile::Profile;
use crate::project::{DEFAULT_EPOCH, Environment, Project};
use crate::shared_cache::PlaceNotes;
use crate::spec::lock::LockChange;
use crate::transport::registry::RegistryConfig;
use crate::transport::registry::config::{AuthSource, FileKind, Helpers};
use crate::transport::{self, Content, Location, ReadOptions, Source};

use super::config::UserConfig;
use super::error::advised;
use super::flags::Global;
use super::flags::RegistryFlags;
use super::ui::Ui;

/// What every command needs.
#[derive(Clone)]
pub struct Context<'a> {
    /// Shows events.
    pub ui: &'a Ui,
    /// The user's configuration file.
    pub config: UserConfig,
    /// What the machine, the user and the working directory bring.
    pub environment: Environment<'a>,
    /// Where the user's profile is: `$XDG_STATE_HOME/layerize`; `None`: there is no home.
    pub state_dir: Option<PathBuf>,
    /// Specs beside the first, for those who take several.
    pub further_files: Vec<PathBuf>,
}

impl<'a> Context<'a> {
    /// The same for who stays with the spec that is found now: where that is gone for a moment, one in a directory above is not
    /// taken for it.
    pub fn with_spec_found(&self) -> anyhow::Result<Self> {
        let mut context = self.clone();
        if context.environment.elsewhere.is_some() {
            return Ok(context);
        }
        context.environment.file = Some(Project::spec_path(&self.environment)?);
        Ok(context)
    }

    /// Reads the environment and the user's configuration.
    pub fn new(global: &Global, ui: &'a Ui) -> anyhow::Result<Self> {
        let config =
            UserConfig::load(xdg_dir("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("layerize/config.toml")))?;
        let store_dir = match (&global.store, &config.store) {
            (Some(dir), _) | (None, Some(dir)) => dir.clone(),
            (None, None) => xdg_dir("XDG_DATA_HOME", ".local/share")
                .map(|dir| dir.join("layerize"))
                .ok_or_else(|| advised("no place for the store: HOME is not set", "give one with `--store DIR`"))?,
        };
        let store_dir = std::path::absolute(&store_dir)
            .with_context(|| format!("cannot make `{}` absolute", store_dir.display()))?;
        let nix_root = global.nix_store.as_ref().or(config.nix_store.as_ref());
        let nix_root = nix_root.cloned().unwrap_or_else(|| PathBuf::from("/"));
        let cache_dir =
            xdg_dir("XDG_CACHE_HOME", ".cache").map_or_else(|| store_dir.join("cache"), |dir| dir.join("layerize"));
        let registries = registries(&global.registries, &config, &cache_dir);
        let places = config.inputs_from.iter();
        let places = places.map(|text| inputs::Place::parse(text, &config.dir, &registries));
        // Where root runs in what is a user's, that stays the user's.
        [&store_dir, &cache_dir].into_iter().for_each(|dir| keep_owner(dir));
        let environment = Environment {
            reporter: ui,
            inputs_from: places
                .collect::<Result<_, _>>()
                .context("`[inputs] from` of the configuration cannot be used")?,
            base_layers: None,
            registries,
            languages: LanguageTools {
                home: path_variable("HOME"),
                project: None,
                variables: all_variables(),
                ask_programs: true,
            },
            store_dir,
            nix_root,
            closure_graph: global.closure_graph.clone(),
            cache_dir,
            here: std::env::current_dir().context("cannot tell the current directory")?,
            file: global.file.first().cloned(),
            elsewhere: None,
            epoch: epoch()?,
            cache: config.shared.clone(),
            builders: config.builders.clone(),
            now: now(epoch()?).ok(),
            cache_notes: PlaceNotes::default(),
            bounds: config.bounds,
            require: config.require,
            debian_mirrors: config.debian_mirrors.clone(),
            ssh_is_chosen: is_set("GIT_SSH_COMMAND") || is_set("GIT_SSH"),
            debian_snapshots: config.debian_snapshots.clone(),
        };
        Ok(Self {
            ui,
            config,
            environment,
            state_dir: state_dir(),
            further_files: global.file.iter().skip(1).cloned().collect(),
        })
    }

    /// Opens what an argument names, an image or with `whole` an index too; its layers are read when they are wanted.
    pub fn content(
        &self,
        location: &Location,
        platform: Option<&Platform>,
        whole: bool,
    ) -> anyhow::Result<OpenedContent> {
        let source: Arc<dyn Source> = Arc::from(location.source(&ReadOptions {
            platform: platform.cloned(),
            whole,
            registries: self.environment.registries.clone(),
            ..ReadOptions::default()
        })?);
        for text in source.contradictions() {
            self.ui.report(Event::Warning { text });
        }
        Ok(OpenedContent {
            content: transport::open(&source)?,
            names: source.names().to_vec(),
            synthesized: source.synthesized(),
        })
    }

    /// The user's profile.
    pub fn profile(&self) -> anyhow::Result<Profile> {
        let dir = self.state_dir.as_ref();
        let dir =
            dir.ok_or_else(|| advised("no place for a profile: HOME is not set", "set HOME or XDG_STATE_HOME"))?;
        Ok(Profile::new(dir))
    }

    /// The environment with each of the specs that were named.
    pub fn environments(&self) -> Vec<Environment<'_>> {
        let further = self.further_files.iter().map(|file| Environment {
            file: Some(file.clone()),
            ..self.environment.clone()
        });
        std::iter::once(self.environment.clone()).chain(further).collect()
    }

    /// Seconds since 1970 of an act that must be dated: SOURCE_DATE_EPOCH where it is set, else what the clock shows.
    pub fn now(&self) -> anyhow::Result<i64> {
        now(self.environment.epoch)
    }

    /// Deletes the packed layers used longest ago where there are more bytes than may be, if any was added.
    pub fn trim_layer_cache(&self) -> anyhow::Result<()> {
        if self.ui.layers_packed() > 0 {
            self.environment.layer_cache()?.trim(self.config.cache_max_size)?;
        }
        Ok(())
    }
}

/// `epoch` where SOURCE_DATE_EPOCH is set, else what the clock shows.
#[expect(
    clippy::disallowed_methods,
    reason = "a statement about an act names its time; no image does"
)]
fn now(epoch: i64) -> anyhow::Result<i64> {
    if is_set("SOURCE_DATE_EPOCH") {
        return Ok(epoch);
    }
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(i64::try_from(
        since.context("the clock shows a time before 1970")?.as_secs(),
    )?)
}

/// The moment so many seconds ago.
#[expect(
    clippy::disallowed_methods,
    reason = "how long something was not used is told by the clock; nothing is made of it"
)]
pub fn ago(seconds: u64) -> SystemTime {
    let moment = SystemTime::now().checked_sub(Duration::from_secs(seconds));
    moment.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// How registries are reached and who the user is there: the environment, the configuration file and the flags.
fn registries(flags: &RegistryFlags, config: &UserConfig, cache_dir: &Path) -> RegistryConfig {
    RegistryConfig {
        http: http(flags, config),
        plain_http: flags.plain_http.iter().cloned().collect(),
        state_dir: Some(cache_dir.join("registries")),
        auth_files: auth_files(),
        helpers: Helpers::new(path_list("PATH")),
        hosts: config.registries.clone(),
    }
}

/// How hosts are reached: the environment, the configuration file and the flags.
fn http(flags: &RegistryFlags, config: &UserConfig) -> HttpConfig {
    HttpConfig {
        proxies: proxies(),
        ca_files: flags.ca_file.clone(),
        certs_dirs: certs_dirs(),
        ssl_cert_file: path_variable("SSL_CERT_FILE"),
        ssl_cert_dirs: path_list("SSL_CERT_DIR"),
        hosts: config.tls.clone(),
        private_network: flags
            .private_network
            .iter()
            .chain(&config.private_network)
            .cloned()
            .collect(),
        netrc: path_variable("NETRC").or_else(|| Some(path_variable("HOME")?.join(".netrc"))),
        is_optional: false,
    }
}

impl Context<'_> {
    /// `path` relative to the working directory where it is below it: how people would type it.
    pub fn shown<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.environment.here).unwrap_or(path)
    }

    /// Says what changed in a lock file; `unchanged` is what to say of it where nothing did.
    pub fn tell_changes(&self, changes: &[LockChange], file: &Path, unchanged: &str) {
        for change in changes {
            self.ui.line(&change.to_string());
        }
        self.ui.clear();
        let file = self.shown(file);
        self.ui.line(&match changes.len() {
            0 => format!("{} {unchanged}", file.display()),
            count => format!("{} written, {count} changed.", file.display()),
        });
    }
}

/// What [`Context::content`] found.
pub struct OpenedContent {
    /// An image or an index.
    pub content: Content,
    /// Its names there.
    pub names: Vec<String>,
    /// Whether the place has no manifest, so that one was made up.
    pub synthesized: bool,
}

/// Whether an environment variable is set and not empty.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Whether this is a job of a CI system, where nobody reads what is said: all of them set `CI`.
pub fn in_ci() -> bool {
    text_variable("CI").is_some_and(|value| !matches!(value.as_str(), "0" | "false"))
}

/// An environment variable as a path, if it is set and not empty.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn path_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// An environment variable as text, if it is set, not empty and UTF-8.
pub fn text_variable(name: &str) -> Option<String> {
    path_variable(name)?.into_os_string().into_string().ok()
}

/// The whole environment, for a program that the user runs as their own; what is not UTF-8 is left out.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn all_variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Where what belongs to the user and to this machine is kept.
pub fn state_dir() -> Option<PathBuf> {
    xdg_dir("XDG_STATE_HOME", ".local/state").map(|dir| dir.join("layerize"))
}

/// A directory of the XDG base directory specification: the variable if it is absolute, else below the home directory.
fn xdg_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    path_variable(variable)
        .filter(|dir| dir.is_absolute())
        .or_else(|| Some(path_variable("HOME")?.join(below_home)))
}

/// The files that podman and docker keep credentials in, in podman's order (`transport::registry::config` has it).
fn auth_files() -> Vec<AuthSource> {
    let source = |path: PathBuf, kind, origin| AuthSource { path, kind, origin };
    let docker = path_variable("DOCKER_CONFIG").map(|dir| dir.join("config.json"));
    let home = path_variable("HOME");
    let first = match (path_variable("REGISTRY_AUTH_FILE"), &docker) {
        (Some(path), _) => source(path, FileKind::Containers, "REGISTRY_AUTH_FILE"),
        (None, Some(path)) => source(path.clone(), FileKind::Docker, "DOCKER_CONFIG"),
        (None, None) => match path_variable("XDG_RUNTIME_DIR") {
            Some(dir) => source(
                dir.join("containers/auth.json"),
                FileKind::Containers,
                "XDG_RUNTIME_DIR",
            ),
            None => {
                let path = format!("/run/containers/{}/auth.json", rustix::process::getuid().as_raw());
                source(path.into(), FileKind::Containers, "the user's run directory")
            }
        },
    };
    let mut sources = vec![first];
    if let Some(dir) = xdg_dir("XDG_CONFIG_HOME", ".config") {
        sources.push(source(
            dir.join("containers/auth.json"),
            FileKind::Containers,
            "XDG_CONFIG_HOME",
        ));
    }
    match (docker, &home) {
        (Some(path), _) => sources.push(source(path, FileKind::Docker, "DOCKER_CONFIG")),
        (None, Some(home)) => sources.push(source(home.join(".docker/config.json"), FileKind::Docker, "HOME")),
        (None, None) => {}
    }
    if let Some(home) = home {
        sources.push(source(home.join(".dockercfg"), FileKind::Legacy, "HOME"));
    }
    // `DOCKER_CONFIG` is asked for twice by these rules.
    let mut seen = Vec::new();
    sources.retain(|source| {
        let is_new = !seen.contains(&source.path);
        seen.push(source.path.clone());
        is_new
    });
    sources
}

/// Directories of certificates by host: the user's before the machine's, podman's before docker's.
fn certs_dirs() -> Vec<PathBuf> {
    let config = xdg_dir("XDG_CONFIG_HOME", ".config");
    let below = |dir: &str| config.iter().map(|config| config.join(dir)).collect::<Vec<_>>();
    [
        below("containers/certs.d"),
        below("docker/certs.d"),
        vec!["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()],
    ]
    .concat()
}

/// The proxies that the environment names, in upper case before lower case.
fn proxies() -> ProxyVariables {
    let first = |names: [&'static str; 2]| {
        let found = names.into_iter().find_map(|name| Some((name, text_variable(name)?)));
        found.map(|(name, value)| ProxyVariable { name, value })
    };
    let no_proxy = first(["NO_PROXY", "no_proxy"]).map(|variable| variable.value);
    ProxyVariables {
        https: first(["HTTPS_PROXY", "https_proxy"]),
        http: first(["HTTP_PROXY", "http_proxy"]),
        all: first(["ALL_PROXY", "all_proxy"]),
        no_proxy: no_proxy.unwrap_or_default(),
    }
}

/// The directories in an environment variable that lists them.
fn path_list(name: &str) -> Vec<PathBuf> {
    let list = path_variable(name).unwrap_or_default();
    let dirs = std::env::split_paths(list.as_os_str());
    dirs.filter(|dir| !dir.as_os_str().is_empty()).collect()
}

fn epoch() -> anyhow::Result<i64> {
    match text_variable("SOURCE_DATE_EPOCH") {
        None => Ok(DEFAULT_EPOCH),
        Some(text) => text.parse().ok().filter(|&seconds: &i64| seconds >= 0).ok_or_else(|| {
            advised(
                format!("SOURCE_DATE_EPOCH is `{text}`, which is not a number of seconds"),
                "unset it, or set it to seconds since 1970, as `git log -1 --format=%ct` prints them",
            )
        }),
    }
}
