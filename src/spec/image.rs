//! An *image* as the user wrote it: `[image.NAME]`.
//!
//! Invariant: an image that comes back without a diagnostic holds something, its names and paths are such as
//! OCI accepts, and every user it names is declared or may come with its Debian packages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::de::DeValue;

use super::checks::{self, Complaint, did_you_mean};
use super::diagnostics::Diagnostic;
use super::image_entries::User;
use super::keys::{self, CREATED_MAX, ID_MAX};
use super::package::{contents, dependencies, dependency, text_map};
use super::reader::{Field, Reader, Table};
use super::trial;
use super::types::{Configure, Dependency, Image, Layers, PackageName, Spanned};
use super::{certificates, health, image_debian, image_debug, image_files};
use crate::oci::{LayerLimit, Platform, Port, StopSignal};

/// An image, and the tools of its debug image where it is to have one.
pub(super) type ReadImage = (Image, Option<Spanned<Vec<String>>>);

/// Reads `[image.NAME]`.
pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>, dir: &Path) -> Option<ReadImage> {
    reader.accept_key(field, "an image's name", checks::image_name(field.key));
    let what = format!("image `{}`", field.key);
    let table = reader.table(field, what, keys::IMAGE.iter().collect())?;
    let users = read_users(reader, &table);
    let known = KnownAccounts {
        names: users.keys().map(String::as_str).collect(),
        open: !is_empty(&table, "root") || !is_empty(&table, "essential") || table.get("base").is_some(),
    };
    let root = read_root(reader, &table);
    let exclude = image_debian::read_exclude(reader, &table, &root);
    let root = image_debian::with_essential(reader, &table, root);
    let certificates = certificates::read(reader, &table);
    let root = certificates::with_package(&table, root, certificates.is_some());
    let mut image = Image {
        name: Spanned {
            value: field.key.to_owned(),
            span: field.key_span.clone(),
        },
        dir: dir.to_owned(),
        tag: (table.checked(reader, "tag", checks::tag)).map_or("latest".to_owned(), |tag| tag.value),
        contents: contents(reader, &table),
        root,
        lay: read_lay(reader, &table),
        exclude,
        configure: read_configure(reader, &table),
        debconf: plain_map(reader, &table, "debconf", image_debian::question),
        locales: image_debian::read_locales(reader, &table),
        certificates,
        base: table.checked(reader, "base", checks::base_image),
        files: image_files::read(reader, &table, &known),
        entrypoint: command(reader, &table, "entrypoint"),
        cmd: command(reader, &table, "cmd"),
        env: plain_map(reader, &table, "env", checks::env_name),
        workdir: (table.checked(reader, "workdir", checks::absolute_path)).map(|path| path.value),
        user: read_user(reader, &table, &known),
        ports: read_ports(reader, &table),
        volumes: read_volumes(reader, &table),
        labels: plain_map(reader, &table, "labels", nonempty_key),
        annotations: plain_map(reader, &table, "annotations", nonempty_key),
        allow_missing: read_allow_missing(reader, &table),
        stop_signal: read_signal(reader, &table),
        healthcheck: health::read(reader, &table),
        layers: read_layers(reader, &table).unwrap_or_default(),
        platforms: read_platforms(reader, &table),
        compression: table.checked(reader, "compression", checks::compression),
        permissions: image_files::read_permissions(reader, &table, &known),
        created: read_created(reader, &table),
        nix_db: table.flag(reader, "nix-db").unwrap_or(false),
        timezone: table.checked(reader, "timezone", checks::time_zone),
        join: table.checked(reader, "join", checks::join).map(|join| join.value),
        utf8: table.flag(reader, "utf-8").unwrap_or(true),
        debug: None,
        users,
        tests: Vec::new(),
    };
    image.tests = trial::read(reader, &table, &image.ports);
    check_whole(reader, &table, &image);
    let debug = image_debug::read(reader, &table);
    Some((image, debug))
}

/// What no key is wrong about alone: that an image holds something, and that each of its keys has an effect.
fn check_whole(reader: &mut Reader<'_>, table: &Table<'_>, image: &Image) {
    let sources = ["contents", "root", "essential", "lay", "files", "certificates"];
    if image.base.is_none() && sources.iter().all(|key| is_empty(table, key)) {
        let diagnostic = Diagnostic::new(format!("{} is empty", table.what))
            .at(table.span.clone(), "an empty image")
            .help("add `contents = [\"PACKAGE\"]`, `root = [\"deb:NAME\"]` or `files = { \"/PATH\" = \"FILE\" }`");
        reader.error(diagnostic);
    }
    if let Some(field) = table
        .get("configure")
        .filter(|_| image.configure.is_some() && image.root.is_empty())
    {
        let diagnostic = Diagnostic::new(format!("{} has no effect without `root`", field.title()))
            .at(field.key_span, "there are no packages whose scripts could run")
            .help("name the packages in `root = [\"deb:NAME\"]`; those in `contents` are not configured");
        reader.error(diagnostic);
    }
    image_debian::check_scripts(reader, table, image);
    image_debian::check_certificates(reader, table, image);
}

/// One platform or several, each once.
fn read_platforms(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<Spanned<Platform>> {
    let Some(field) = table.get("platform") else {
        return Vec::new();
    };
    let DeValue::Array(elements) = field.value else {
        return reader.checked(&field, checks::platform).into_iter().collect();
    };
    if elements.is_empty() {
        let diagnostic = Diagnostic::new(format!("{} names no platform", field.title()))
            .at(field.span.clone(), "for nothing at all")
            .help("name one, such as `\"linux/amd64\"`, or leave the key out");
        reader.error(diagnostic);
    }
    let mut platforms: Vec<Spanned<Platform>> = Vec::new();
    for element in reader.array(&field) {
        let Some(platform) = reader.checked(&element, checks::platform) else {
            continue;
        };
        if platforms.iter().any(|known| known.value == platform.value) {
            let diagnostic = Diagnostic::new(format!("{} names `{}` twice", field.title(), platform.value))
                .at(platform.span.clone(), "named again")
                .help("leave it out here");
            reader.error(diagnostic);
            continue;
        }
        platforms.push(platform);
    }
    platforms
}

/// The accounts that names in an image may mean.
pub(super) struct KnownAccounts<'a> {
    names: Vec<&'a str>,
    /// Whether Debian packages at `/` may bring further ones.
    open: bool,
}

impl KnownAccounts<'_> {
    /// Whether `name` is a number, `root`, a declared user or possibly a Debian package's.
    pub(super) fn check(&self, name: &str) -> Result<(), Complaint> {
        if name.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() {
            let fits = name.parse::<u32>().is_ok_and(|id| i64::from(id) <= ID_MAX);
            return fits.then_some(()).ok_or_else(|| Complaint {
                label: "not an ID".to_owned(),
                help: Some(format!(
                    "IDs go from 0 to {ID_MAX}: Docker starts no container with a larger one"
                )),
            });
        }
        checks::user_name(name)?;
        if self.open || name == "root" || self.names.contains(&name) {
            return Ok(());
        }
        let help = match did_you_mean(name, self.names.iter().copied()) {
            Some(similar) => format!("did you mean `{similar}`?"),
            None => format!("add `users = {{ {name} = 1000 }}`, or write a number"),
        };
        Err(Complaint {
            label: format!("`{name}` is not among the image's `users`"),
            help: Some(help),
        })
    }
}

fn is_empty(table: &Table<'_>, key: &'static str) -> bool {
    table.get(key).is_none_or(|field| match field.value {
        DeValue::Array(elements) => elements.is_empty(),
        DeValue::Table(entries) => entries.is_empty(),
        DeValue::Boolean(flag) => !flag,
        _ => false,
    })
}

/// `root` takes Debian packages only: nothing else has a place at `/`.
fn read_root(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<Spanned<Dependency>> {
    let root = dependencies(reader, table, "root");
    for dependency in &root {
        let name = &dependency.value;
        let help = match name {
            Dependency::Debian(_) => continue,
            Dependency::Package(package) if checks::debian_name(&package.0).is_ok() => {
                format!("write `deb:{name}` for the Debian package, or move `{name}` to `contents`")
            }
            _ => format!("move `{name}` to `contents`"),
        };
        let diagnostic = Diagnostic::new(format!("`{name}` cannot be laid out at `/`"))
            .at(dependency.span.clone(), "not a Debian package")
            .help(help);
        reader.error(diagnostic);
    }
    root
}

/// `lay`: a package by the directory that it stands in. Whether it is one that has parts is known when it is planned.
fn read_lay(reader: &mut Reader<'_>, table: &Table<'_>) -> BTreeMap<String, Spanned<PackageName>> {
    let mut laid = BTreeMap::new();
    for entry in table.entries(reader, "lay") {
        let place = checks::absolute_path(entry.key).and_then(|path| match path.trim_end_matches('/') {
            "" => Err(Complaint {
                label: "this is the whole image".to_owned(),
                help: Some("name a directory of its own: `/app`".to_owned()),
            }),
            path => Ok(path.to_owned()),
        });
        let place = reader.accept_key(&entry, &format!("a key of {}", entry.owner), place);
        let package = reader.checked(&entry, |text| match dependency(text)? {
            Dependency::Package(name) => Ok(name),
            _ => Err(Complaint {
                label: "not a package of the spec".to_owned(),
                help: Some("name a package with `node`".to_owned()),
            }),
        });
        if let (Some(place), Some(package)) = (place, package) {
            laid.insert(place, package);
        }
    }
    laid
}

/// `configure = false`, or `{ skip = ["deb:NAME"] }`; scripts run wherever there are packages that may have some.
fn read_configure(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Configure> {
    let Some(field) = table.get("configure") else {
        let has_root = ["root", "essential"].iter().any(|key| !is_empty(table, key));
        return has_root.then(Configure::default);
    };
    if matches!(field.value, DeValue::Boolean(_)) {
        return reader.flag(&field)?.then(Configure::default);
    }
    let table = reader.table(&field, "`configure`".to_owned(), keys::CONFIGURE.iter().collect())?;
    let mut skip = Vec::new();
    for dependency in dependencies(reader, &table, "skip") {
        match dependency.value {
            Dependency::Debian(value) => skip.push(Spanned {
                value,
                span: dependency.span,
            }),
            other => reader.error(
                Diagnostic::new(format!("`{other}` has no maintainer scripts"))
                    .at(dependency.span, "not a Debian package")
                    .help("write `deb:NAME`"),
            ),
        }
    }
    skip.sort_by(|a: &Spanned<String>, b| a.value.cmp(&b.value));
    skip.dedup_by(|a, b| a.value == b.value);
    Some(Configure { skip })
}

/// Reads `entrypoint`, `cmd` or another command: a list, as no shell is there to split a string.
pub(super) fn command(reader: &mut Reader<'_>, table: &Table<'_>, key: &'static str) -> Vec<String> {
    let Some(field) = table.get(key) else {
        return Vec::new();
    };
    if let DeValue::String(text) = field.value {
        let words: Vec<String> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
        let help = format!("write `{key} = [{}]`: no shell splits it", words.join(", "));
        reader.wrong_type(&field, "an array of strings", Some(help));
        return Vec::new();
    }
    let texts = reader.texts(&field);
    texts.into_iter().map(|text| text.value).collect()
}

fn plain_map(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    key: &'static str,
    check_key: fn(&str) -> Result<(), Complaint>,
) -> BTreeMap<String, String> {
    let entries = text_map(reader, table, key, check_key);
    entries.into_iter().map(|(key, text)| (key, text.value)).collect()
}

fn nonempty_key(key: &str) -> Result<(), Complaint> {
    checks::nonempty(key).map(|_| ())
}

fn read_users(reader: &mut Reader<'_>, table: &Table<'_>) -> BTreeMap<String, Spanned<User>> {
    let mut users = BTreeMap::new();
    for entry in table.entries(reader, "users") {
        reader.accept_key(&entry, "a user's name", checks::user_name(entry.key));
        if let Some(user) = read_account(reader, &entry) {
            let span = entry.key_span.clone();
            users.insert(entry.key.to_owned(), Spanned { value: user, span });
        }
    }
    users
}

/// `1000`, or `{ uid = 1000, gid = 1000, home = "/", shell = "…" }`.
fn read_account(reader: &mut Reader<'_>, entry: &Field<'_>) -> Option<User> {
    let id = |reader: &mut Reader<'_>, field: &Field<'_>| {
        let id = reader.integer(field, 0, ID_MAX)?;
        u32::try_from(id).ok()
    };
    let user = |uid, gid| User {
        uid,
        gid,
        home: "/".to_owned(),
        shell: "/sbin/nologin".to_owned(),
    };
    if !matches!(entry.value, DeValue::Table(_)) {
        if !matches!(entry.value, DeValue::Integer(_)) {
            let help = format!("write `{} = 1000` or `{{ uid = 1000, home = \"/\" }}`", entry.key);
            reader.wrong_type(entry, "an integer or a table", Some(help));
            return None;
        }
        return id(reader, entry).map(|uid| user(uid, uid));
    }
    let table = reader.table(entry, format!("user `{}`", entry.key), keys::USER.iter().collect())?;
    let gid = table.get("gid").and_then(|field| id(reader, &field));
    let mut path = |key| table.checked(reader, key, checks::absolute_path);
    let (home, shell) = (path("home"), path("shell"));
    let Some(uid) = table.get("uid") else {
        let diagnostic = Diagnostic::new(format!("{} has no `uid`", table.what))
            .at(table.span.clone(), "`uid` is missing")
            .help("add `uid = 1000`");
        reader.error(diagnostic);
        return None;
    };
    let uid = id(reader, &uid)?;
    let default = user(uid, gid.unwrap_or(uid));
    Some(User {
        home: home.map_or(default.home, |home| home.value),
        shell: shell.map_or(default.shell, |shell| shell.value),
        ..default
    })
}

/// `user[:group]`, names or numbers.
fn read_user(reader: &mut Reader<'_>, table: &Table<'_>, known: &KnownAccounts<'_>) -> Option<String> {
    let field = table.get("user")?;
    if matches!(field.value, DeValue::Integer(_)) {
        return reader.integer(&field, 0, ID_MAX).map(|id| id.to_string());
    }
    let text = reader.text(&field)?;
    let (user, group) = text.value.split_once(':').unwrap_or((&text.value, "0"));
    let checked = known.check(user).and_then(|()| known.check(group));
    reader.accept(&field, checked).map(|()| text.value.clone())
}

/// `80`, `"53/udp"`, `"8000-8010/tcp"`.
fn read_ports(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<Port> {
    let mut ports = Vec::new();
    for element in table.elements(reader, "ports") {
        let range = match element.value {
            DeValue::Integer(_) => {
                let number = reader.integer(&element, 1, 65535);
                let port = number.and_then(|number| Port::tcp(u16::try_from(number).ok()?));
                port.into_iter().collect()
            }
            _ => reader
                .checked(&element, checks::ports)
                .map_or_else(Vec::new, |range| range.value),
        };
        ports.extend(range.into_iter().map(|value| Spanned {
            value,
            span: element.span.clone(),
        }));
    }
    unique(reader, "port", ports)
}

fn read_volumes(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<String> {
    let elements = table.elements(reader, "volumes");
    let paths = (elements.iter())
        .filter_map(|element| reader.checked(element, checks::absolute_path))
        .collect();
    unique(reader, "volume", paths)
}

/// Names of libraries, and paths of interpreters.
fn read_allow_missing(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<String> {
    let elements = table.elements(reader, "allow-missing");
    let names = (elements.iter())
        .filter_map(|element| reader.checked(element, checks::loadable_name))
        .collect();
    unique(reader, "missing library", names)
}

/// The values without their spans; one that comes twice is noted.
fn unique<T: Clone + Ord + std::fmt::Display>(reader: &mut Reader<'_>, what: &str, values: Vec<Spanned<T>>) -> Vec<T> {
    let (mut seen, mut unique) = (BTreeSet::new(), Vec::new());
    for Spanned { value, span } in values {
        if seen.insert(value.clone()) {
            unique.push(value);
        } else {
            reader.error(Diagnostic::new(format!("{what} `{value}` is named twice")).at(span, "named again"));
        }
    }
    unique
}

/// Seconds, or a text in RFC 3339. No date of TOML's own: JSON Schema knows none.
fn read_created(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<i64> {
    let field = table.get("created")?;
    match field.value {
        DeValue::Integer(_) => reader.integer(&field, 0, CREATED_MAX),
        DeValue::Datetime(time) => {
            let help = format!("write `created = \"{time}\"`");
            reader.wrong_type(&field, "an integer or a string", Some(help));
            None
        }
        _ => reader.checked(&field, checks::timestamp).map(|time| time.value),
    }
}

fn read_signal(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<StopSignal> {
    let field = table.get("stop-signal")?;
    if matches!(field.value, DeValue::Integer(_)) {
        let number = reader.integer(&field, 1, 64)?;
        return StopSignal::from_number(u8::try_from(number).ok()?);
    }
    reader.checked(&field, checks::signal).map(|signal| signal.value)
}

fn read_layers(reader: &mut Reader<'_>, image: &Table<'_>) -> Option<Layers> {
    let field = image.get("layers")?;
    let table = reader.table(&field, field.title(), keys::LAYERS.iter().collect())?;
    let beyond_docker = table.flag(reader, "beyond-docker").unwrap_or(false);
    let most = LayerLimit::most(beyond_docker);
    let max = table.get("max").and_then(|field| {
        let max = reader.integer(&field, 1, i64::try_from(most.get()).ok()?)?;
        Some(Spanned {
            value: LayerLimit::new(usize::try_from(max).ok()?, beyond_docker).ok()?,
            span: field.span,
        })
    });
    Some(Layers {
        strategy: table.checked(reader, "strategy", checks::strategy),
        tar_profile: table.checked(reader, "tar-profile", checks::tar_profile),
        max,
        beyond_docker,
        groups: read_groups(reader, &table),
        weights: read_weights(reader, &table),
        plan: table.checked(reader, "plan", checks::local_path),
    })
}

/// Groups of names; a name in two groups would have to be in two layers.
fn read_groups(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<Vec<String>> {
    let mut groups: Vec<Vec<String>> = Vec::new();
    for element in table.elements(reader, "groups") {
        let mut group: Vec<String> = Vec::new();
        let names = reader.array(&element);
        if names.is_empty() && matches!(element.value, DeValue::Array(_)) {
            let diagnostic = Diagnostic::new("an empty group of layers");
            reader.error(diagnostic.at(element.span.clone(), "names no package"));
        }
        for name in names {
            let Some(name) = reader.checked(&name, checks::nonempty) else {
                continue;
            };
            if groups
                .iter()
                .flatten()
                .chain(&group)
                .any(|earlier| *earlier == name.value)
            {
                let message = format!("`{}` is in two groups of layers", name.value);
                let diagnostic = Diagnostic::new(message).at(name.span, "named again");
                reader.error(diagnostic.help("a package is in one layer: leave it out here or there"));
            } else {
                group.push(name.value);
            }
        }
        groups.push(group);
    }
    groups
}

/// Probabilities in parts per million: digests may not depend on floating point.
fn read_weights(reader: &mut Reader<'_>, table: &Table<'_>) -> BTreeMap<String, u32> {
    let mut weights = BTreeMap::new();
    for entry in table.entries(reader, "weights") {
        let number = match entry.value {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::Integer(integer) => i32::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .map(f64::from),
            _ => {
                let help = format!(
                    "write `{} = 0.5` for a package that every other update changes",
                    entry.key
                );
                reader.wrong_type(&entry, "a number", Some(help));
                continue;
            }
        };
        match number.filter(|number| (0.0..=1.0).contains(number)) {
            Some(number) => {
                let millionths = (number * 1e6).round() as u32;
                weights.insert(entry.key.to_owned(), millionths);
            }
            None => {
                let diagnostic = Diagnostic::new(format!("{} is not a probability", entry.title()))
                    .at(entry.span.clone(), "it must be from 0 to 1");
                reader.error(diagnostic);
            }
        }
    }
    weights
}
