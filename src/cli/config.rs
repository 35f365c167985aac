//! The user's *configuration*: `$XDG_CONFIG_HOME/layerize/config.toml`, about this machine and never about a digest.
//!
//! Invariant: nothing in it can change what is built, only where bytes come from and how long they are kept.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

use crate::binary_cache::KeyError;
use crate::build::Bounds;
use crate::http::{HostTls, SetupError};
use crate::project::{BuilderPlace, MachineBuilder, MachineBuilders, MachineCaches};
use crate::remote::{BuilderConfig, RootMaker};
use crate::spec::parse_size;
use crate::transport::registry::config::{self, HostConfig};
use crate::walls::Walls;

use super::error::advised;
use super::text::duration;

/// How many bytes of packed layers are kept unless `[cache] max-size` says otherwise.
const DEFAULT_CACHE_BYTES: u64 = 20_000_000_000;

/// For how many seconds what was used stays unless `[store] keep-builds` says otherwise: 30 days.
const DEFAULT_KEEP_BUILDS: u64 = 30 * 24 * 60 * 60;

/// What `keep-builds` is where nothing goes for its age.
const FOREVER: &str = "forever";

/// Largest configuration file that is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What the user configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserConfig {
    /// `store`, or `[store] dir`: the physical store.
    pub store: Option<PathBuf>,
    /// `[store] keep-builds` in seconds: for how long what a build used stays though no root reaches it.
    pub keep_builds: u64,
    /// `[store] max-size` in bytes: of all that is kept on this machine.
    pub max_size: Option<u64>,
    /// `[store] min-free` in bytes: what is to be free on the store's disk.
    pub min_free: Option<u64>,
    /// `[store] auto-optimise`: whether identical files of the store share their content by themselves.
    pub auto_optimise: bool,
    /// `nix-store`: the directory that `nix/store` is in.
    pub nix_store: Option<PathBuf>,
    /// `[inputs] from`: places that keep inputs, asked before mirrors.
    pub inputs_from: Vec<String>,
    /// Directory of the file, to which such places are relative.
    pub dir: PathBuf,
    /// `[debian] mirrors`: tried before the machine's apt.
    pub debian_mirrors: Vec<String>,
    /// `[debian] snapshots`: asked for versions that the mirrors no longer carry.
    pub debian_snapshots: Vec<String>,
    /// `[nix] caches`: binary caches that store paths are fetched from.
    pub nix_caches: Vec<String>,
    /// `[nix] trusted-keys`: whose signatures of store paths are believed, `NAME:BASE64`.
    pub nix_trusted_keys: Vec<String>,
    /// `[cache] from`, `to`, `trusted-keys`, `sign-key` and `unsigned`: where what was built is shared.
    pub shared: MachineCaches,
    /// `[cache] max-size` in bytes.
    pub cache_max_size: u64,
    /// `[builders.NAME]`, and `[build] builder`.
    pub builders: MachineBuilders,
    /// `[build] max-memory` and `max-processes`.
    pub bounds: Bounds,
    /// `[build] require`: the weakest walls that are enough.
    pub require: Option<Walls>,
    /// `[registries."HOST"]`: how single registries are reached.
    pub registries: BTreeMap<String, HostConfig>,
    /// Those with `private-network`: their answers may lead to addresses of this machine and its network.
    pub private_network: Vec<String>,
    /// The certificates named there, for whatever is asked of these hosts.
    pub tls: BTreeMap<String, HostTls>,
}

impl Default for UserConfig {
    fn default() -> Self {
        File::default().into_config(Path::new(""), BTreeMap::new(), BTreeMap::new())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct File {
    #[serde(deserialize_with = "store")]
    store: StoreSection,
    nix_store: Option<PathBuf>,
    inputs: InputsSection,
    debian: DebianSection,
    nix: NixSection,
    cache: CacheSection,
    build: BuildSection,
    builders: BTreeMap<String, BuilderSection>,
    registries: BTreeMap<String, Registry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct StoreSection {
    dir: Option<PathBuf>,
    #[serde(deserialize_with = "size")]
    max_size: Option<u64>,
    #[serde(deserialize_with = "size")]
    min_free: Option<u64>,
    #[serde(deserialize_with = "keep_builds")]
    keep_builds: Option<u64>,
    auto_optimise: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Registry {
    plain_http: Option<bool>,
    credentials_over_http: bool,
    private_network: bool,
    mirrors: Vec<String>,
    ca_file: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct NixSection {
    caches: Vec<String>,
    trusted_keys: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct InputsSection {
    from: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DebianSection {
    mirrors: Vec<String>,
    snapshots: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct CacheSection {
    #[serde(deserialize_with = "size")]
    max_size: Option<u64>,
    from: Vec<String>,
    to: Vec<String>,
    trusted_keys: Vec<String>,
    sign_key: Option<PathBuf>,
    unsigned: bool,
}

impl CacheSection {
    /// The shared caches, with paths relative to the configuration's own directory.
    fn shared(&self, dir: &Path) -> Result<MachineCaches, KeyError> {
        Ok(MachineCaches {
            dir: dir.to_owned(),
            from: self.from.clone(),
            to: self.to.clone(),
            trusted_keys: self
                .trusted_keys
                .iter()
                .map(|key| key.parse())
                .collect::<Result<_, _>>()?,
            sign_key: self.sign_key.as_ref().map(|file| dir.join(file)),
            unsigned: self.unsigned,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct BuildSection {
    #[serde(deserialize_with = "size")]
    max_memory: Option<u64>,
    max_processes: Option<u64>,
    builder: Option<String>,
    #[serde(deserialize_with = "walls")]
    require: Option<Walls>,
}

/// The name of walls.
fn walls<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Walls>, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map(Some).map_err(serde::de::Error::custom)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct BuilderSection {
    address: String,
    #[serde(default)]
    properties: BTreeMap<String, String>,
    token_file: Option<PathBuf>,
    root: Option<RootMaker>,
    jobs: Option<NonZeroUsize>,
    #[serde(default)]
    fallback: bool,
}

impl BuilderSection {
    /// The builder, with paths relative to the configuration's own directory.
    fn builder(&self, dir: &Path) -> anyhow::Result<MachineBuilder> {
        let place = match BuilderPlace::at(&self.address)? {
            BuilderPlace::Farm(config) => BuilderPlace::Farm(BuilderConfig {
                properties: self.properties.clone(),
                token_file: self.token_file.as_ref().map(|file| dir.join(file)),
                root: self.root,
                ..config
            }),
            BuilderPlace::Peer { .. }
                if !self.properties.is_empty() || self.token_file.is_some() || self.root.is_some() =>
            {
                return Err(advised(
                    "`properties`, `token-file` and `root` are for servers of the Remote Execution API, and not for `ssh://`",
                    "leave them out; who logs in is said in ssh's own configuration",
                ));
            }
            peer => peer,
        };
        Ok(MachineBuilder {
            falls_back: self.fallback,
            place: match self.jobs {
                Some(jobs) => place.with_jobs(jobs.get()),
                None => place,
            },
        })
    }
}

impl UserConfig {
    /// Reads the file; a missing one is an empty one.
    pub fn load(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = path.filter(|path| path.exists()) else {
            return Ok(Self::default());
        };
        let bytes = crate::fsio::read_limited(&path, CONFIG_BYTES_MAX)?;
        let text = String::from_utf8(bytes).with_context(|| format!("`{}` is not UTF-8", path.display()))?;
        Self::parse(&text, &path)
    }

    fn parse(text: &str, path: &Path) -> anyhow::Result<Self> {
        let file: File = toml::from_str(text).map_err(|error| {
            advised(
                format!(
                    "`{}` is not a valid configuration:\n{}",
                    path.display(),
                    error.to_string().trim_end()
                ),
                "known are: store, nix-store, [store] dir, max-size, min-free, keep-builds and auto-optimise, [inputs] from, [debian] mirrors and snapshots, [nix] caches and trusted-keys, [cache] max-size, from, to, trusted-keys, sign-key and unsigned, [build] max-memory, max-processes, builder and require, \
                 [builders.NAME] address, properties, token-file, root, jobs and fallback, \
                 [registries.\"HOST\"] mirrors, plain-http, credentials-over-http, private-network, ca-file, client-cert and client-key",
            )
        })?;
        let dir = path.parent().unwrap_or(Path::new("."));
        let (mut registries, mut tls) = (BTreeMap::new(), BTreeMap::new());
        for (host, registry) in &file.registries {
            let checked = registry.of_host(host).and_then(|of_host| {
                let of_tls = registry.tls(host, dir)?;
                Ok((of_host, of_tls))
            });
            let (of_host, of_tls) =
                checked.with_context(|| format!("`{}`: [registries.\"{host}\"] cannot be used", path.display()))?;
            registries.insert(host.clone(), of_host);
            tls.insert(host.clone(), of_tls);
        }
        let shared = (file.cache.shared(dir))
            .with_context(|| format!("`{}`: `[cache] trusted-keys` cannot be used", path.display()))?;
        let mut builders = MachineBuilders {
            default: file.build.builder.clone(),
            ..MachineBuilders::default()
        };
        for (name, section) in &file.builders {
            let builder = section.builder(dir);
            let builder = builder.with_context(|| format!("`{}`: [builders.{name}] cannot be used", path.display()))?;
            builders.named.insert(name.clone(), builder);
        }
        Ok(UserConfig {
            shared,
            builders,
            ..file.into_config(dir, registries, tls)
        })
    }
}

impl Registry {
    fn of_host(&self, host: &str) -> Result<HostConfig, config::ConfigError> {
        config::check_host(host)?;
        Ok(HostConfig {
            plain_http: self.plain_http,
            credentials_over_http: self.credentials_over_http,
            mirrors: self.mirrors.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        })
    }

    /// Checked, with paths relative to the configuration's own directory.
    fn tls(&self, host: &str, dir: &Path) -> Result<HostTls, SetupError> {
        let file = |path: &Option<PathBuf>| path.as_ref().map(|path| dir.join(path));
        let tls = HostTls {
            ca_file: file(&self.ca_file),
            client_cert: file(&self.client_cert),
            client_key: file(&self.client_key),
        };
        tls.check(host)?;
        Ok(tls)
    }
}

impl File {
    fn into_config(
        self,
        dir: &Path,
        registries: BTreeMap<String, HostConfig>,
        tls: BTreeMap<String, HostTls>,
    ) -> UserConfig {
        let private = self.registries.iter().filter(|(_, registry)| registry.private_network);
        UserConfig {
            private_network: private.map(|(host, _)| host.clone()).collect(),
            inputs_from: self.inputs.from,
            dir: dir.to_owned(),
            registries,
            tls,
            store: self.store.dir,
            max_size: self.store.max_size,
            min_free: self.store.min_free,
            auto_optimise: self.store.auto_optimise,
            keep_builds: self.store.keep_builds.unwrap_or(DEFAULT_KEEP_BUILDS),
            nix_store: self.nix_store,
            debian_mirrors: self.debian.mirrors,
            debian_snapshots: self.debian.snapshots,
            nix_caches: self.nix.caches,
            nix_trusted_keys: self.nix.trusted_keys,
            shared: MachineCaches::default(),
            builders: MachineBuilders::default(),
            bounds: Bounds {
                memory: self.build.max_memory,
                processes: self.build.max_processes,
            },
            require: self.build.require,
            cache_max_size: self.cache.max_size.unwrap_or(DEFAULT_CACHE_BYTES),
        }
    }
}

/// A directory, or a table that may name one.
fn store<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<StoreSection, D::Error> {
    struct Either;
    impl<'de> serde::de::Visitor<'de> for Either {
        type Value = StoreSection;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a directory, or a table `[store]`")
        }

        fn visit_str<E>(self, dir: &str) -> Result<StoreSection, E> {
            Ok(StoreSection {
                dir: Some(dir.into()),
                ..StoreSection::default()
            })
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, table: A) -> Result<StoreSection, A::Error> {
            StoreSection::deserialize(serde::de::value::MapAccessDeserializer::new(table))
        }
    }
    deserializer.deserialize_any(Either)
}

/// A span of time with its unit, or [`FOREVER`].
fn keep_builds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == FOREVER {
        return Ok(Some(u64::MAX));
    }
    let error = |advice| serde::de::Error::custom(format!("`{text}` is not a duration: {advice}, or \"{FOREVER}\""));
    duration(&text).map(Some).map_err(error)
}

/// Bytes as a number, or as text with a unit: `"20GB"`, `"500MiB"`.
fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => Ok(Some(bytes)),
        Size::Text(text) => parse_size(&text)
            .map(Some)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a size: write for example \"20GB\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse() {
        let cases = [
            ("20GB", Some(20_000_000_000)),
            ("500 MiB", Some(500 << 20)),
            ("7", Some(7)),
            ("GB", None),
            ("1 XB", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
        assert_eq!(parse_size("99999999999 TB"), None, "overflow");
    }

    #[test]
    fn a_configuration_is_read_and_errors_say_where() {
        let path = Path::new("config.toml");
        let config = UserConfig::parse("[debian]\nmirrors = [\"/m\"]\n[cache]\nmax-size = \"1GB\"\n", path).unwrap();
        assert_eq!(
            (config.debian_mirrors.as_slice(), config.cache_max_size),
            (&["/m".to_owned()][..], 1_000_000_000)
        );
        for (text, store, days) in [
            ("", None, 30),
            ("store = \"/s\"\n", Some("/s"), 30),
            ("[store]\ndir = \"/s\"\nkeep-builds = \"2w\"\n", Some("/s"), 14),
            ("store = { keep-builds = \"48h\" }\n", None, 2),
        ] {
            let config = UserConfig::parse(text, path).unwrap();
            assert_eq!(config.store.as_deref(), store.map(Path::new), "{text}");
            assert_eq!(config.keep_builds, days * 24 * 60 * 60, "{text}");
        }
        let bounds = UserConfig::parse("[store]\nmax-size = \"50GB\"\nmin-free = \"1 GiB\"\n", path).unwrap();
        assert_eq!(
            (bounds.max_size, bounds.min_free),
            (Some(50_000_000_000), Some(1 << 30))
        );
        let forever = UserConfig::parse("[store]\nkeep-builds = \"forever\"\n", path).unwrap();
        assert_eq!(forever.keep_builds, u64::MAX);
        for (text, expected) in [
            ("[store]\nkeep-builds = \"long\"\n", "`long` is not a duration"),
            ("[store]\nmax-size = \"big\"\n", "`big` is not a size"),
            ("[store]\nmin-free = \"-1GB\"\n", "`-1GB` is not a size"),
            ("[store]\nkeep-build = \"30d\"\n", "unknown field `keep-build`"),
            ("store = 7\n", "a directory, or a table"),
        ] {
            let error = UserConfig::parse(text, path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("config.toml"), "{error}");
        }
        let error = UserConfig::parse("[cache]\nmax-size = \"much\"\n", path)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("config.toml") && error.contains("line 2") && error.contains("`much` is not a size"),
            "{error}"
        );
        assert!(
            UserConfig::parse("[registries.\"r.example\"]\nmirors = []\n", path)
                .unwrap_err()
                .to_string()
                .contains("mirors")
        );
        assert!(
            UserConfig::parse("stroe = \"x\"\n", path)
                .unwrap_err()
                .to_string()
                .contains("stroe")
        );
    }

    #[test]
    fn builders_are_read_and_errors_name_them() {
        let path = Path::new("/home/me/.config/layerize/config.toml");
        let text = "[build]\nbuilder = \"farm\"\n[builders.farm]\naddress = \"grpc://farm:1/main\"\n\
                    properties = { ISA = \"x86-64\" }\ntoken-file = \"token\"\nroot = \"helper\"\njobs = 7\nfallback = true\n";
        let config = UserConfig::parse(text, path).unwrap();
        assert_eq!(config.builders.default.as_deref(), Some("farm"));
        let farm = &config.builders.named["farm"];
        let BuilderPlace::Farm(server) = &farm.place else {
            panic!("{farm:?}");
        };
        assert_eq!((server.jobs, farm.falls_back), (7, true));
        assert_eq!(server.root, Some(RootMaker::Helper));
        assert_eq!(server.address.to_string(), "grpc://farm:1/main");
        let token = Path::new("/home/me/.config/layerize/token");
        assert_eq!(server.token_file.as_deref(), Some(token));
        let config = UserConfig::parse("[builders.box]\naddress = \"ssh://me@box\"\njobs = 2\n", path).unwrap();
        let place = &config.builders.named["box"].place;
        assert!(matches!(place, BuilderPlace::Peer { jobs: 2, .. }), "{place:?}");
        for (text, words) in [
            ("[builders.farm]\naddress = \"http://farm:1\"\n", "neither"),
            ("[builders.farm]\naddress = \"grpc://farm:1\"\njobs = 0\n", "nonzero"),
            ("[builders.farm]\njobs = 1\n", "address"),
            ("[builders.box]\naddress = \"ssh://-x\"\n", "begins with"),
            (
                "[builders.box]\naddress = \"ssh://box\"\nproperties = { a = \"b\" }\n",
                "not for `ssh://`",
            ),
            (
                "[builders.box]\naddress = \"ssh://box\"\nroot = \"worker\"\n",
                "not for `ssh://`",
            ),
            (
                "[builders.farm]\naddress = \"grpc://farm:1\"\nroot = \"chroot\"\n",
                "expected `worker` or `helper`",
            ),
            (
                "[builders.farm]\naddress = \"grpc://farm:1\"\nproperty = 1\n",
                "property",
            ),
        ] {
            let error = format!("{:#}", UserConfig::parse(text, path).unwrap_err());
            assert!(error.contains(words) && error.contains("config.toml"), "{error}");
        }
    }

    #[test]
    fn registries_are_read_and_errors_name_the_host() {
        let path = Path::new("/home/me/.config/layerize/config.toml");
        let text = "[registries.\"docker.io\"]\nmirrors = [\"m.example:5000/hub\"]\n\
                    [registries.\"r.example\"]\nplain-http = true\nca-file = \"ca.crt\"\n";
        let config = UserConfig::parse(text, path).unwrap();
        assert_eq!(
            config.registries["docker.io"].mirrors,
            ["m.example:5000/hub".parse().unwrap()]
        );
        let registry = &config.registries["r.example"];
        assert_eq!(registry.plain_http, Some(true));
        assert_eq!(
            config.tls["r.example"].ca_file.as_deref(),
            Some(Path::new("/home/me/.config/layerize/ca.crt"))
        );
        for (key, value, expected) in [
            ("r.example", "mirrors = [\"https://m.example\"]", "without `https://`"),
            ("r.example", "client-cert = \"c\"", "without `client-key`"),
            ("https://r.example", "", "is not a registry's host"),
        ] {
            let error = UserConfig::parse(&format!("[registries.\"{key}\"]\n{value}\n"), path).unwrap_err();
            let text = format!("{error:#}");
            assert!(
                text.contains(expected) && text.contains(key) && text.contains("config.toml"),
                "{text}"
            );
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_configuration() {
        crate::testing::fuzz("configuration", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = super::UserConfig::parse(&text, std::path::Path::new("/config.toml"));
        });
    }
}
