//! *Crates*, found as Cargo finds them: its caches, then the registry that its configuration puts in the place of the one
//! that the lock names.
//!
//! Invariant: the configuration nearest to the project wins, as Cargo has it (The Cargo Book, "Configuration"); a token is
//! for the index that it is configured for, and for downloads of the same origin.

use std::path::{Path, PathBuf};

use reqwest::header::HeaderValue;
use serde::Deserialize;
use toml::{Table, Value};
use url::Url;

use super::{Address, Candidate, FetchError, LanguageTools, Lead, Logins, config_text, sensitive, without_login};

/// Most sources that stand for each other in a row.
const REPLACEMENTS_MAX: usize = 10;

/// What Cargo is configured with.
#[derive(Default)]
pub(super) struct CargoConfig {
    home: Option<PathBuf>,
    /// Merged: of a key the value of the nearest file.
    table: Table,
    /// Tokens by the names of registries; the default registry's has an empty name.
    tokens: Vec<(String, String)>,
}

impl CargoConfig {
    /// Reads `.cargo/config.toml` in the project and above it, and those of the user.
    pub(super) fn read(tools: &LanguageTools) -> Result<Self, FetchError> {
        let home = tools.variable("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(tools.home.as_ref()?.join(".cargo")));
        let above = tools.project.iter().flat_map(|dir| dir.ancestors());
        let dirs = above.map(|dir| dir.join(".cargo")).chain(home.clone());
        let mut config = Self {
            home,
            ..Self::default()
        };
        for dir in dirs {
            // The name without suffix is the older one, and wins where both are.
            for name in ["config", "config.toml"] {
                if let Some(table) = table(&dir.join(name))? {
                    merge(&mut config.table, table);
                    break;
                }
            }
        }
        if let Some(home) = &config.home {
            for name in ["credentials", "credentials.toml"] {
                if let Some(table) = table(&home.join(name))? {
                    merge(&mut config.table, table);
                    break;
                }
            }
        }
        config.read_tokens(tools);
        Ok(config)
    }

    fn read_tokens(&mut self, tools: &LanguageTools) {
        let token = |value: Option<&Value>| value?.get("token")?.as_str().map(str::to_owned);
        let default = tools.variable("CARGO_REGISTRY_TOKEN").map(str::to_owned);
        if let Some(token) = default.or_else(|| token(self.table.get("registry"))) {
            self.tokens.push((String::new(), token));
        }
        for (name, value) in &tools.variables {
            if let Some(name) = name.strip_prefix("CARGO_REGISTRIES_")
                && let Some((name, key)) = name.rsplit_once('_')
            {
                let name = name.to_ascii_lowercase().replace('_', "-");
                match key {
                    "TOKEN" => self.tokens.push((name, value.clone())),
                    "INDEX" => {
                        let table = entry(&mut self.table, "registries");
                        entry(table, &name).insert("index".to_owned(), Value::String(value.clone()));
                    }
                    _ => {}
                }
            }
        }
        let registries = self.table.get("registries").and_then(Value::as_table);
        for (name, value) in registries.into_iter().flatten() {
            if let Some(token) = token(Some(value))
                && !self.tokens.iter().any(|(known, _)| known == name)
            {
                self.tokens.push((name.clone(), token));
            }
        }
    }

    /// The places that may have a crate of the registry that the lock names.
    pub(super) fn candidates(
        &self,
        name: &str,
        version: &str,
        registry: &str,
        tools: &LanguageTools,
    ) -> Vec<Candidate> {
        let file = format!("{name}-{version}.crate");
        let mut candidates: Vec<Candidate> = (self.caches().into_iter())
            .map(|cache| Candidate::file(cache.join(&file)))
            .filter(|candidate| Path::new(&candidate.place).is_file())
            .collect();
        candidates.push(self.of_source(registry, &file, tools));
        candidates
    }

    /// The directories in which Cargo keeps the crates of each registry.
    fn caches(&self) -> Vec<PathBuf> {
        let Some(home) = &self.home else { return Vec::new() };
        let dir = home.join("registry/cache");
        let names = crate::fsio::sorted_names(&dir).unwrap_or_default();
        names.iter().map(|name| dir.join(name)).collect()
    }

    /// The place that stands for the source of a lock.
    fn of_source(&self, source: &str, file: &str, tools: &LanguageTools) -> Candidate {
        let sources = self.table.get("source").and_then(Value::as_table);
        let named = |name: &str| sources.and_then(|sources| sources.get(name));
        let mut name = match default_registry(source) {
            Some(_) => "crates-io".to_owned(),
            None => self.name_of(source).unwrap_or_default(),
        };
        let mut address = source.to_owned();
        for _ in 0..REPLACEMENTS_MAX {
            let Some(next) = named(&name).and_then(|source| source.get("replace-with")?.as_str()) else {
                return index(&address);
            };
            let Some(replacement) = named(next) else {
                // A registry is a source, too.
                let registries = self.table.get("registries");
                let of_registry = registries.and_then(|all| all.get(next)?.get("index")?.as_str());
                return of_registry.map_or_else(
                    || Candidate::at(next, Lead::Unusable("Cargo's configuration does not say where it is")),
                    index,
                );
            };
            let text = |key: &str| replacement.get(key).and_then(Value::as_str);
            let dir = |text: &str| match &tools.project {
                Some(project) => project.join(text),
                None => PathBuf::from(text),
            };
            if let Some(local) = text("local-registry") {
                return Candidate::file(dir(local).join(file));
            }
            if let Some(vendored) = text("directory") {
                let place = dir(vendored).display().to_string();
                return Candidate::at(place, Lead::Unusable("it has crates unpacked, which have no checksum"));
            }
            if let Some(registry) = text("registry") {
                address = registry.to_owned();
            }
            next.clone_into(&mut name);
        }
        Candidate::at(name, Lead::Unusable("its sources replace each other in a circle"))
    }

    /// What the configuration calls the source with this address.
    fn name_of(&self, source: &str) -> Option<String> {
        let address = source.strip_prefix("registry+").unwrap_or(source);
        let tables = [("source", "registry"), ("registries", "index")];
        tables.into_iter().find_map(|(table, key)| {
            let entries = self.table.get(table)?.as_table()?;
            let has = |value: &Value| {
                let text = value.get(key).and_then(Value::as_str);
                text.is_some_and(|text| text.strip_prefix("registry+").unwrap_or(text) == address)
            };
            let mut named = entries.iter().filter(|(_, value)| has(value));
            named.next().map(|(name, _)| name.clone())
        })
    }
}

impl Logins for CargoConfig {
    fn logins(&self) -> Vec<(Url, HeaderValue)> {
        let registries = self.table.get("registries");
        let of_token = |(name, token): &(String, String)| {
            let index = registries.and_then(|all| all.get(name)?.get("index")?.as_str())?;
            let Lead::Crate(Address::Http(url)) = index_lead(index) else {
                return None;
            };
            let (mut url, _) = without_login(*url);
            url.set_path("/");
            Some((url, sensitive(token)?))
        };
        self.tokens.iter().filter_map(of_token).collect()
    }
}

/// The table of a file; `None` where there is none.
fn table(path: &Path) -> Result<Option<Table>, FetchError> {
    let Some(text) = config_text(path)? else {
        return Ok(None);
    };
    text.parse()
        .map(Some)
        .map_err(|source: toml::de::Error| FetchError::ToolConfig {
            path: path.to_owned(),
            reason: source.message().to_owned(),
        })
}

/// Adds what `further` has and `table` has not.
fn merge(table: &mut Table, further: Table) {
    for (key, value) in further {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(known)), Value::Table(more)) => merge(known, more),
            (Some(_), _) => {}
            (None, value) => drop(table.insert(key, value)),
        }
    }
}

fn entry<'t>(table: &'t mut Table, key: &str) -> &'t mut Table {
    let value = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
    if !value.is_table() {
        *value = Value::Table(Table::new());
    }
    value.as_table_mut().expect("it was made a table")
}

/// The name of the registry that Cargo uses where no other is named, from the address by which locks name it: that of a
/// repository of an index, which is called after it.
fn default_registry(source: &str) -> Option<&str> {
    let last = source
        .strip_prefix("registry+")?
        .trim_end_matches('/')
        .rsplit('/')
        .next()?;
    let name = last.strip_suffix("-index")?;
    (name.contains('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')).then_some(name)
}

fn index(source: &str) -> Candidate {
    let lead = index_lead(source);
    let place = match &lead {
        Lead::Crate(address) => address.display(),
        _ => source.to_owned(),
    };
    Candidate::at(place, lead)
}

/// Where the index of a source is. That of the default registry, which locks name by a repository, is served beside the
/// registry under the name `index`.
fn index_lead(source: &str) -> Lead {
    let text = match default_registry(source) {
        Some(name) => format!("https://index.{name}/"),
        None => match source.strip_prefix("sparse+") {
            Some(url) => url.to_owned(),
            None => return Lead::Unusable("its index is a git repository; name a sparse one in Cargo's configuration"),
        },
    };
    match Address::parse(&text) {
        Ok(address) => Lead::Crate(address),
        Err(_) => Lead::Unusable("Cargo's configuration names no address there"),
    }
}

/// What an index says of downloads.
#[derive(Deserialize)]
struct IndexConfig {
    dl: String,
}

/// The address of a crate's file, from an index's `config.json` (The Cargo Book, "Index Format").
pub(super) fn download_address(config: &[u8], name: &str, version: &str, sha256: &str) -> Option<String> {
    let IndexConfig { dl } = serde_json::from_slice(config).ok()?;
    let lower = name.to_ascii_lowercase();
    let markers = [
        ("{crate}", name.to_owned()),
        ("{version}", version.to_owned()),
        ("{prefix}", prefix(name)?),
        ("{lowerprefix}", prefix(&lower)?),
        ("{sha256-checksum}", sha256.to_owned()),
    ];
    if !markers.iter().any(|(marker, _)| dl.contains(marker)) {
        return Some(format!("{}/{name}/{version}/download", dl.trim_end_matches('/')));
    }
    Some(
        markers
            .iter()
            .fold(dl, |text, (marker, value)| text.replace(marker, value)),
    )
}

/// The directory of a crate in an index.
fn prefix(name: &str) -> Option<String> {
    if !name.is_ascii() {
        return None;
    }
    Some(match name.len() {
        0 => return None,
        1 => "1".to_owned(),
        2 => "2".to_owned(),
        3 => format!("3/{}", &name[..1]),
        _ => format!("{}/{}", &name[..2], &name[2..4]),
    })
}
