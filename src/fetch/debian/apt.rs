//! *apt* in a state of its own: its lists, cache and preferences in a folder of ours, no status of the host.
//!
//! Invariant: nothing of the machine's package state is read or changed. What is taken from the machine is how to
//! reach archives (sources, keys, proxies, credentials, pins of sources), never its hooks. Signatures are apt's to
//! check, and it is never told to go without. One process at a time uses a state.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::snapshot::SNAPSHOT_ID;
use super::sources::{AptSources, Kind, Text};
use crate::child;
use crate::digest::Digest;
use crate::fetch::FetchError;
use crate::fsio::{self, FileLock, IoContext, LockKind};

/// Largest file of apt sources or preferences that is read, in bytes.
const CONFIG_MAX: u64 = 1 << 20;

/// Largest keyring that is read, in bytes.
const KEYRING_MAX: u64 = 64 << 20;

/// How the names of directories begin in which apt downloads.
const SCRATCH_PREFIX: &str = "download-";

/// Settings of the machine that say how archives are reached, by the start of their names.
const KEPT_SETTINGS: &[&str] = &[
    "Acquire::http",
    "Acquire::https",
    "Acquire::Retries",
    "Acquire::ForceIPv",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::Max-ValidTime",
    "Acquire::Min-ValidTime",
    "Acquire::Queue-Mode",
];

/// apt's own state for one set of sources.
pub(super) struct Apt {
    dir: PathBuf,
    architecture: String,
    machine_preferences: Vec<u8>,
    _lock: FileLock,
}

impl Apt {
    /// Opens the state for `sources` below `states`, waiting until no other process uses it. It is a folder named
    /// after the sources, so that those of two specs do not mix.
    pub(super) fn open(states: &Path, sources: &AptSources, kind: Kind) -> Result<Self, FetchError> {
        let machine = MachineApt::read()?;
        let architecture = sources.architecture.clone().unwrap_or(machine.architecture);
        let texts = match sources.sources.as_slice() {
            [] => machine.sources,
            own => own.iter().map(|text| Text::sniff(text)).collect(),
        };
        let files: Vec<(String, String)> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| (format!("{index:02}.{}", text.extension()), text.of_kind(kind)))
            .filter(|(_, text)| !text.is_empty())
            .collect();
        let keyring = sources
            .keyring
            .as_ref()
            .map(|path| fsio::read_limited(path, KEYRING_MAX));
        let keyring = keyring.transpose()?;
        let keys = keyring.as_ref().map(|keyring| Digest::of(keyring));
        let key = format!("{architecture}\n{}\n{files:?}\n{keys:?}", kind.name());
        let dir = absolute(states)?.join(&Digest::of(key.as_bytes()).hex()[..16]);
        check_quotable(&dir)?;
        fsio::create_dir_all(&dir)?;
        let apt = Self {
            _lock: FileLock::acquire(&dir.join("lock"), LockKind::Exclusive)?,
            machine_preferences: if sources.sources.is_empty() {
                machine.preferences
            } else {
                Vec::new()
            },
            architecture,
            dir,
        };
        apt.write_state(&files, keyring.as_deref(), &machine.settings)?;
        Ok(apt)
    }

    /// Debian's name of the architecture that packages are for.
    pub(super) fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Fetches the lists anew; any source that cannot be read is an error, as the answers would depend on it.
    pub(super) fn update(&self) -> Result<(), FetchError> {
        let output = self.run("apt-get", ["update", "-q"], None)?;
        match output.status.success() {
            true => Ok(()),
            false => Err(FetchError::AptLists {
                message: own_words(&output),
            }),
        }
    }

    /// Says which versions are wanted where they are to be had.
    pub(super) fn pin<'a>(&self, pins: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<(), FetchError> {
        // The first record for a package counts, so ours come before the machine's.
        let mut text = Vec::new();
        for (name, version) in pins {
            let record = format!("Package: {name}\nPin: version {version}\nPin-Priority: 1001\n\n");
            text.extend_from_slice(record.as_bytes());
        }
        text.extend_from_slice(&self.machine_preferences);
        fsio::write_atomic(&self.dir.join("preferences"), &text)?;
        Ok(())
    }

    /// Runs one of apt's programs and gives what it printed; its failure is an error in apt's own words about
    /// `action`, an infinitive.
    pub(super) fn succeed<A: AsRef<std::ffi::OsStr>>(
        &self,
        program: &'static str,
        action: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String, FetchError> {
        let output = self.run(program, arguments, None)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(FetchError::Apt {
            action: action.to_owned(),
            message: own_words(&output),
        })
    }

    /// Runs one of apt's programs in `dir`, whatever its status.
    pub(super) fn run<A: AsRef<std::ffi::OsStr>>(
        &self,
        program: &'static str,
        arguments: impl IntoIterator<Item = A>,
        dir: Option<&Path>,
    ) -> Result<Output, FetchError> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("APT_CONFIG", self.dir.join("apt.conf"))
            .current_dir(dir.unwrap_or(&self.dir));
        run(command, program)
    }

    fn write_state(
        &self,
        sources: &[(String, String)],
        keyring: Option<&[u8]>,
        settings: &str,
    ) -> Result<(), FetchError> {
        for dir in ["lists/partial", "cache/archives/partial", "state", "parts", "keys"] {
            fsio::create_dir_all(&self.dir.join(dir))?;
        }
        if let Some(keyring) = keyring {
            // apt tells the two kinds of keyring apart by name.
            let name = match keyring.starts_with(b"-----BEGIN") {
                true => "keys/keyring.asc",
                false => "keys/keyring.gpg",
            };
            fsio::write_atomic(&self.dir.join(name), keyring)?;
        }
        // Nobody else is here: these are what killed processes left.
        for name in fsio::sorted_names(&self.dir)? {
            if name.to_string_lossy().starts_with(SCRATCH_PREFIX) {
                fsio::remove_tree(&self.dir.join(name))?;
            }
        }
        fsio::write_atomic(&self.dir.join("status"), b"")?;
        for (name, text) in sources {
            fsio::write_atomic(&self.dir.join("parts").join(name), text.as_bytes())?;
        }
        let config = self.config(keyring.is_some(), settings);
        fsio::write_atomic(&self.dir.join("apt.conf"), config.as_bytes())?;
        self.pin([])
    }

    fn config(&self, has_keyring: bool, settings: &str) -> String {
        let mut config = settings.to_owned();
        let mut set = |key: &str, value: &str| {
            writeln!(config, "{key} \"{value}\";").expect("a string takes all text");
        };
        for (key, below) in [
            ("Dir::State", "state"),
            ("Dir::State::lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::sourceparts", "parts"),
            ("Dir::Etc::preferences", "preferences"),
        ] {
            set(key, &self.dir.join(below).to_string_lossy());
        }
        if has_keyring {
            set("Dir::Etc::trusted", "/dev/null");
            set("Dir::Etc::trustedparts", &self.dir.join("keys").to_string_lossy());
        }
        set("APT::Architecture", &self.architecture);
        set("APT::Architectures::", &self.architecture);
        for (key, value) in [
            ("Dir::Cache::pkgcache", "pkgcache.bin"),
            ("Dir::Cache::srcpkgcache", "srcpkgcache.bin"),
            ("Dir::Etc::sourcelist", "/dev/null"),
            ("Dir::Etc::preferencesparts", "/dev/null"),
            ("Dir::Etc::main", "/dev/null"),
            ("Dir::Etc::parts", "/dev/null"),
            ("APT::Install-Recommends", "false"),
            ("APT::Install-Suggests", "false"),
            ("APT::Get::AllowUnauthenticated", "false"),
            ("Acquire::AllowInsecureRepositories", "false"),
            ("Acquire::AllowWeakRepositories", "false"),
            ("Acquire::AllowDowngradeToInsecureRepositories", "false"),
            ("Acquire::Languages", "none"),
            // Our folders belong to the user who runs us; apt's own sandbox user may not enter them.
            ("APT::Sandbox::User", "root"),
            ("APT::Update::Error-Mode", "any"),
            // The lock of the state is ours.
            ("Debug::NoLocking", "true"),
        ] {
            set(key, value);
        }
        config
    }
}

/// What is taken from the machine's own apt.
struct MachineApt {
    architecture: String,
    sources: Vec<Text>,
    preferences: Vec<u8>,
    /// Lines of configuration.
    settings: String,
}

impl MachineApt {
    fn read() -> Result<Self, FetchError> {
        let mut command = Command::new("apt-config");
        command.args(["dump", "--format", "%F \"%v\";%n"]);
        let dump = config_output(command)?;
        let mut command = Command::new("apt-config");
        command.args([
            "shell",
            "LIST",
            "Dir::Etc::sourcelist/f",
            "PARTS",
            "Dir::Etc::sourceparts/d",
        ]);
        command.args(["PIN", "Dir::Etc::preferences/f", "PINS", "Dir::Etc::preferencesparts/d"]);
        let places = config_output(command)?;
        let place = |name: &str| {
            let line = places
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix("='"));
            line.and_then(|line| line.strip_suffix('\'')).map(PathBuf::from)
        };
        let setting = |name: &str| {
            let line = dump
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(" \""));
            line.and_then(|line| line.strip_suffix("\";")).map(str::to_owned)
        };
        let architecture = setting("APT::Architecture").ok_or_else(|| FetchError::AptAnswer {
            subject: "APT::Architecture".to_owned(),
            reason: "it has no value".to_owned(),
        })?;
        let kept = |line: &&str| KEPT_SETTINGS.iter().any(|start| line.starts_with(start));
        let settings = dump.lines().filter(kept).map(|line| format!("{line}\n")).collect();
        let mut sources = Vec::new();
        for (path, text) in read_parts(place("LIST"), place("PARTS"), &["list", "sources"])? {
            let text = String::from_utf8_lossy(&text).into_owned();
            sources.push(match path.extension().is_some_and(|extension| extension == "sources") {
                true => Text::Deb822(text),
                false => Text::OneLine(text),
            });
        }
        let mut preferences = Vec::new();
        for (_, text) in read_parts(place("PIN"), place("PINS"), &["", "pref"])? {
            preferences.extend_from_slice(&text);
            preferences.extend_from_slice(b"\n\n");
        }
        Ok(Self {
            architecture,
            sources,
            preferences,
            settings,
        })
    }
}

/// What the machine's apt knows of snapshot servers (apt 2.7 and newer carry a table): the end of each setting's name
/// (`Origin::Debian`, `Override::Label::X`, `Host::NAME`) and the server's address, with `@SNAPSHOTID@` in it.
pub(super) fn snapshot_table() -> Result<Vec<(String, String)>, FetchError> {
    let mut command = Command::new("apt-config");
    command.args(["dump", "--format", "%f\t%v%n"]);
    Ok(table(&config_output(command)?))
}

/// The entries of the table in a dump of apt's configuration, a name and a value a line with a tab between them.
pub(super) fn table(dump: &str) -> Vec<(String, String)> {
    let entries = dump.lines().filter_map(|line| {
        let (name, address) = line.split_once('\t')?;
        let name = name.strip_prefix("Acquire::Snapshots::URI::")?;
        address
            .contains(SNAPSHOT_ID)
            .then(|| (name.to_owned(), address.to_owned()))
    });
    entries.collect()
}

/// The files that apt would read: `main`, then those of `dir` with one of `extensions`, in the order of their names.
fn read_parts(
    main: Option<PathBuf>,
    dir: Option<PathBuf>,
    extensions: &[&str],
) -> Result<Vec<(PathBuf, Vec<u8>)>, FetchError> {
    let mut paths: Vec<PathBuf> = main.filter(|path| path.is_file()).into_iter().collect();
    if let Some(dir) = dir.filter(|dir| dir.is_dir()) {
        // apt skips names with other characters: editors' backups and the like.
        let plain = |name: &str| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        for name in fsio::sorted_names(&dir)? {
            let path = dir.join(&name);
            let extension = path
                .extension()
                .map_or_else(String::new, |text| text.to_string_lossy().into_owned());
            if plain(&name.to_string_lossy()) && extensions.contains(&extension.as_str()) && path.is_file() {
                paths.push(path);
            }
        }
    }
    let read = |path: PathBuf| Ok((path.clone(), fsio::read_limited(&path, CONFIG_MAX)?));
    paths.into_iter().map(read).collect()
}

fn config_output(command: Command) -> Result<String, FetchError> {
    let output = run(command, "apt-config")?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(FetchError::Apt {
        action: "read its configuration".to_owned(),
        message: own_words(&output),
    })
}

fn run(mut command: Command, program: &'static str) -> Result<Output, FetchError> {
    command.env("LC_ALL", "C").env("LANGUAGE", "C");
    match child::output(&mut command) {
        _ if child::is_ended() => Err(FetchError::Stopped { program }),
        Ok(output) => Ok(output),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FetchError::AptMissing { program }),
        Err(error) => Err(error).context("run", program)?,
    }
}

/// What apt says about its failure: the unmet dependencies that it explains, and its errors.
pub(super) fn own_words(output: &Output) -> String {
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let explained = stdout
        .lines()
        .skip_while(|line| !line.starts_with("The following packages have unmet"));
    // Which key is missing stands in a warning.
    let is_error = |line: &&str| line.starts_with("E:") || line.starts_with("W: GPG error");
    let errors = stderr.lines().filter(is_error);
    let mut words: Vec<&str> = explained.chain(errors).map(str::trim_end).collect();
    if words.is_empty() {
        words = stderr.lines().collect();
    }
    let lines: Vec<String> = words
        .iter()
        .filter(|line| !line.is_empty())
        .map(|line| format!("  {line}"))
        .collect();
    lines.join("\n")
}

fn absolute(path: impl AsRef<Path>) -> Result<PathBuf, FetchError> {
    let path = path.as_ref();
    Ok(std::path::absolute(path).context("find", path)?)
}

/// apt's configuration has no escape for a quote in a value.
fn check_quotable(path: &Path) -> Result<(), FetchError> {
    match path.to_str() {
        Some(text) if !text.contains(['"', '\n']) => Ok(()),
        _ => Err(FetchError::Apt {
            action: format!("use `{}`", path.display()),
            message: "  its configuration cannot name a path with a quote, a newline or other than UTF-8".to_owned(),
        }),
    }
}

/// An empty directory below the state's, for a program that writes where it is run.
pub(super) fn scratch(apt: &Apt) -> Result<tempfile::TempDir, FetchError> {
    let dir = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir_in(&apt.dir);
    let dir = dir.context("create a temporary directory in", &apt.dir)?;
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .context("set the mode of", dir.path())?;
    Ok(dir)
}
