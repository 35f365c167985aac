//! *Rust*: the crates that a `Cargo.lock` pins, laid out as a directory source, and Cargo run over it without a network.
//!
//! Invariant: Cargo decides what is compiled; it sees the crates of the lock and no others, at places that do not vary, so
//! that no store path of a crate can get into what it makes.

mod cargo_lock;

use std::fmt::Write as _;

use super::{Form, LangError, LanguageBuild, LockedDependency, Mount, Part, Planner, Recipe, Registry, Request};
use crate::spec::{Language, RustOptions};
use cargo_lock::{CargoLock, CrateSource};

/// Where the crates are in the sandbox.
const VENDOR: &str = "/build/vendor";

/// What Cargo is told beside the project's own configuration, which this overrules.
const CONFIG: &str = "/build/layerize-cargo.toml";

/// Builds and installs what the package makes.
const BUILD: &str = include_str!("build.sh");

impl Planner for RustOptions {
    fn plan(&self, request: &Request<'_>) -> Result<LanguageBuild, LangError> {
        let file = lock_file(request.language);
        let text = request.source.text(file)?.ok_or_else(|| {
            let help =
                "run `cargo generate-lockfile`, and see that `include`, `exclude` and `.gitignore` let it through";
            LangError::at(format!("`{file}`"), "the source has no lock file", help)
        })?;
        let lock = CargoLock::parse(&text, file)?;
        let dependencies: Vec<LockedDependency> = lock.crates.iter().map(dependency).collect();
        let mounts = dependencies.iter().enumerate().map(|(index, dependency)| Mount {
            part: Part::Dependency(index),
            at: format!("{VENDOR}/{}-{}", dependency.name, dependency.version),
        });
        let own = Recipe {
            preamble: preamble(self, &lock),
            script: BUILD.to_owned(),
            mounts: mounts.collect(),
            ..Recipe::default()
        };
        Ok(LanguageBuild {
            dependencies,
            own,
            ..LanguageBuild::default()
        })
    }
}

fn lock_file(language: &Language) -> &str {
    language.lock.as_ref().map_or("Cargo.lock", |lock| &lock.value)
}

fn dependency(of: &cargo_lock::LockedCrate) -> LockedDependency {
    LockedDependency {
        name: of.name.clone(),
        version: of.version.clone(),
        file: format!("{}-{}.crate", of.name, of.version),
        hash: of.checksum.into(),
        registry: Registry::Crates {
            source: of.source.0.clone(),
        },
        form: Form::Crate,
    }
}

/// What makes Cargo find the crates, and nothing else. A function stands for the program, so that scripts of the user's own
/// get the same.
fn preamble(options: &RustOptions, lock: &CargoLock) -> String {
    let mut text = format!("cat > {CONFIG} <<'LAYERIZE'\n");
    for source in lock.sources() {
        let _ = write!(text, "{}", replaced(source));
    }
    let _ = write!(
        text,
        "[source.layerize]\ndirectory = \"{VENDOR}\"\n[net]\noffline = true\n[build]\ntarget-dir = \"/build/target\"\nLAYERIZE\n"
    );
    text.push_str("mkdir -p /build/vendor /build/cargo-home\n");
    text.push_str("export CARGO_HOME=/build/cargo-home CARGO_INCREMENTAL=0 CARGO_BUILD_RUSTC_WRAPPER=\n");
    let _ = writeln!(text, "cargo() {{ command cargo --config {CONFIG} \"$@\"; }}");
    let profile = options.profile.as_deref().unwrap_or("release");
    let _ = writeln!(text, "LAYERIZE_CARGO_PROFILE='{profile}'");
    let _ = writeln!(text, "LAYERIZE_CARGO_FLAGS='{}'", flags(options));
    text
}

/// A source of the lock replaced by the directory of crates.
fn replaced(CrateSource(source): &CrateSource) -> String {
    let name = match source.strip_prefix("registry+") {
        Some(url) if url.ends_with(cargo_lock::DEFAULT_REGISTRY) => "crates-io".to_owned(),
        Some(url) => format!("\"layerize {url}\""),
        None => format!("\"layerize {source}\""),
    };
    let registry = source.strip_prefix("registry+").unwrap_or(source);
    let address = match name.as_str() {
        "crates-io" => String::new(),
        _ => format!("registry = \"{registry}\"\n"),
    };
    format!("[source.{name}]\n{address}replace-with = \"layerize\"\n")
}

fn flags(options: &RustOptions) -> String {
    let mut flags = Vec::new();
    if !options.default_features {
        flags.push("--no-default-features".to_owned());
    }
    if !options.features.is_empty() {
        flags.push(format!("--features={}", options.features.join(",")));
    }
    flags.extend(options.packages.iter().map(|package| format!("--package={package}")));
    flags.extend(options.bins.iter().map(|bin| format!("--bin={bin}")));
    flags.join(" ")
}
