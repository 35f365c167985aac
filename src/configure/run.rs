//! *Running* maintainer scripts: a sandbox for each package that has some, one after the other, over one writable root.
//!
//! Invariant: a package's scripts run after those of all that it depends on; where one fails nothing more is run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::harvest::{Change, Upper};
use super::locales::Locale;
use super::package::{Package, copy_files};
use super::{ConfigureError, Request, Tools, seed};
use crate::fsio::IoContext;
use crate::sandbox::tree::{close_to_others, make_dir};
use crate::sandbox::{Bind, Bound, Isolation, Outcome, RuntimeSettings, Sandbox};

/// How long the scripts of one package may take. The longest known, TeX's, take a quarter of a minute.
const TIMEOUT: Duration = Duration::from_secs(600);

/// How many of the last lines an error shows.
const TAIL: usize = 20;

/// How many of the last lines are kept: after those of a script that failed the package manager says what it thinks of it.
const KEPT: usize = 200;

/// Where the package manager unpacks the scripts of a package that it is about to unpack.
const NEW_CONTROL: &str = "/var/lib/dpkg/tmp.ci";

/// Where update-ca-certificates(8) looks for certificates that no package has.
const LOCAL_CERTIFICATES: &str = "/usr/local/share/ca-certificates";

/// The environment of every script. The date is the oldest that says that it was chosen.
pub(super) const ENVIRONMENT: [(&str, &str); 9] = [
    ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("FORCE_SOURCE_DATE", "1"),
    ("HOME", "/root"),
    ("LC_ALL", "C.UTF-8"),
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("SOURCE_DATE_EPOCH", "1"),
    ("SYSTEMD_OFFLINE", "1"),
    ("TZ", "UTC"),
];

/// Accounts come first of all: other packages' scripts name users.
const FIRST: &str = "base-passwd";

/// The root in which scripts run.
pub(super) struct Scripts {
    helper: Option<PathBuf>,
    staging: PathBuf,
    tmp: PathBuf,
    /// The layers below what is written, the topmost first.
    layers: Vec<PathBuf>,
    upper: Upper,
    settings: RuntimeSettings,
    env: Vec<(String, String)>,
    /// Whether packages are missing that others depend on.
    incomplete: bool,
    /// How many sandboxes there were.
    count: usize,
}

impl Scripts {
    /// Prepares a root for `packages`.
    pub(super) fn prepare(
        request: &Request,
        staging: &Path,
        packages: &[&Package],
        tools: Option<&Tools>,
        skipped: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigureError> {
        close_to_others(staging)?;
        let (upper, tmp) = (staging.join("upper"), staging.join("tmp"));
        make_dir(&upper, 0o755)?;
        make_dir(&tmp, 0o1777)?;
        let seed = seed::make(staging.join("seed"), packages, tools, skipped)?;
        let mut layers = vec![seed.dir().to_owned()];
        layers.extend(tools.map(|tools| tools.output.join(super::TREE)));
        // Whoever depends on another lies over it.
        layers.extend(packages.iter().rev().map(|package| package.tree.clone()));
        layers.extend(request.locales.iter().map(|(sources, _)| sources.clone()));
        layers.extend(
            tools
                .iter()
                .flat_map(|tools| tools.packages.iter().rev())
                .map(|package| package.tree.clone()),
        );
        Ok(Self {
            helper: request.helper.clone(),
            staging: staging.to_owned(),
            tmp,
            layers,
            upper: Upper::new(upper),
            settings: RuntimeSettings {
                one_processor: true,
                ..request.settings.clone()
            },
            env: request.env.clone(),
            incomplete: request.incomplete,
            count: 0,
        })
    }

    /// Configures the packages, each group after those before it.
    pub(super) fn configure(
        &mut self,
        groups: &[Vec<&Package>],
        skipped: &BTreeMap<String, String>,
        log: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ConfigureError> {
        let mut waiting: Vec<&Package> = Vec::new();
        for group in accounts_first(groups) {
            let group: Vec<&Package> = group
                .iter()
                .copied()
                .filter(|package| !skipped.contains_key(&package.name))
                .collect();
            for package in group.iter().filter(|package| package.has("preinst")) {
                self.run_preinst(package, log)?;
            }
            waiting.extend(&group);
            if group.iter().any(|package| package.has("postinst")) {
                self.run_postinst(&waiting, log)?;
                waiting.clear();
            }
        }
        // Those without scripts that nothing came after, and triggers that are left.
        self.run_postinst(&[], log)
    }

    /// Gives debconf its answers, lines for debconf-set-selections(1).
    pub(super) fn answer(&mut self, selections: &str, log: &mut dyn FnMut(&[u8])) -> Result<(), ConfigureError> {
        if selections.is_empty() {
            return Ok(());
        }
        let answers = self.staging.join("answers");
        make_dir(&answers, 0o755)?;
        let file = answers.join("selections");
        fs::write(&file, selections).context("write", &file)?;
        let bind = Bind {
            source: answers,
            target: NEW_CONTROL.into(),
            writable: false,
        };
        let argv = vec![
            "/usr/bin/debconf-set-selections".to_owned(),
            format!("{NEW_CONTROL}/selections"),
        ];
        let (outcome, tail) = self.run(argv, &[], Some(bind), "debconf", "answers", log)?;
        self.upper.look(&BTreeSet::new())?;
        succeed(outcome, tail, "debconf", "answers")
    }

    /// Puts certificates where Debian's scripts look for further ones, before any of these runs.
    pub(super) fn add_certificates(
        &mut self,
        certificates: &BTreeMap<String, String>,
        log: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ConfigureError> {
        if certificates.is_empty() {
            return Ok(());
        }
        let dir = self.staging.join("certificates");
        make_dir(&dir, 0o755)?;
        let mut argv = ["/usr/bin/install", "-D", "-m", "0644", "-t", LOCAL_CERTIFICATES]
            .map(str::to_owned)
            .to_vec();
        for (name, pem) in certificates {
            let file = dir.join(format!("{name}.crt"));
            fs::write(&file, pem).context("write", &file)?;
            argv.push(format!("{NEW_CONTROL}/{name}.crt"));
        }
        let bind = Bind {
            source: dir,
            target: NEW_CONTROL.into(),
            writable: false,
        };
        let package = crate::spec::CERTIFICATES_DEB;
        let (outcome, tail) = self.run(argv, &[], Some(bind), package, "certificates", log)?;
        self.upper.look(&BTreeSet::from([package.to_owned()]))?;
        succeed(outcome, tail, package, "certificates")
    }

    /// Makes a locale. Its program warns by its status of what every locale of the language has.
    pub(super) fn make_locale(&mut self, locale: &Locale, log: &mut dyn FnMut(&[u8])) -> Result<(), ConfigureError> {
        let (outcome, tail) = self.run(locale.command(), &[], None, "locales", "localedef", log)?;
        self.upper.look(&BTreeSet::from(["locales".to_owned()]))?;
        let is_made = self.upper.dir().join(locale.place()).join("LC_CTYPE").is_file();
        match outcome {
            Outcome::Exited(1) if is_made => Ok(()),
            outcome => succeed(outcome, tail, "locales", "localedef"),
        }
    }

    /// The directory that takes the changes.
    pub(super) fn upper(&self) -> &Path {
        self.upper.dir()
    }

    /// What all scripts made or changed.
    pub(super) fn changes(&self, tools: Option<&Tools>) -> Result<BTreeMap<String, Change>, ConfigureError> {
        let known = tools.map(|tools| tools.record.entries.clone()).unwrap_or_default();
        self.upper.changes(&self.layers[1..], &known)
    }

    fn run_preinst(&mut self, package: &Package, log: &mut dyn FnMut(&[u8])) -> Result<(), ConfigureError> {
        let control = self.staging.join(format!("control-{}", self.count));
        copy_files(&package.control, &control)?;
        let bind = Bind {
            source: control,
            target: NEW_CONTROL.into(),
            writable: false,
        };
        let argv = vec![format!("{NEW_CONTROL}/preinst"), "install".to_owned()];
        let environment = [
            ("DPKG_ADMINDIR", "/var/lib/dpkg"),
            ("DPKG_MAINTSCRIPT_ARCH", package.field("Architecture").unwrap_or("all")),
            ("DPKG_MAINTSCRIPT_NAME", "preinst"),
            ("DPKG_MAINTSCRIPT_PACKAGE", &package.name),
            ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
            ("DPKG_ROOT", ""),
            ("DPKG_RUNNING_VERSION", "1.21.22"),
        ];
        let (outcome, tail) = self.run(argv, &environment, Some(bind), &package.name, "preinst", log)?;
        self.upper.look(&BTreeSet::from([package.name.clone()]))?;
        succeed(outcome, tail, &package.name, "preinst")
    }

    /// Has the package manager configure packages, which all wait for the last of them; none: all that are left.
    fn run_postinst(&mut self, packages: &[&Package], log: &mut dyn FnMut(&[u8])) -> Result<(), ConfigureError> {
        let mut argv: Vec<String> = ["/usr/bin/dpkg", "--force-confold", "--force-unsafe-io", "--configure"]
            .map(str::to_owned)
            .into();
        if self.incomplete {
            argv.insert(1, "--force-depends".to_owned());
        }
        match packages {
            [] => argv.push("-a".to_owned()),
            packages => argv.extend(packages.iter().map(|package| package.name.clone())),
        }
        let by: BTreeSet<String> = (packages.iter().filter(|package| package.has("postinst")))
            .map(|package| package.name.clone())
            .collect();
        let name = by.iter().next().map_or("dpkg", String::as_str);
        let (outcome, tail) = self.run(argv, &[], None, name, "postinst", log)?;
        self.upper.look(&by)?;
        let name = tail
            .iter()
            .find_map(|line| failed_package(line))
            .unwrap_or(name)
            .to_owned();
        succeed(outcome, tail, &name, "postinst")
    }

    fn run(
        &mut self,
        argv: Vec<String>,
        environment: &[(&str, &str)],
        bind: Option<Bind>,
        package: &str,
        script: &str,
        log: &mut dyn FnMut(&[u8]),
    ) -> Result<(Outcome, Vec<String>), ConfigureError> {
        let staging = self.staging.join(format!("sandbox-{}", self.count));
        self.count += 1;
        make_dir(&staging, 0o700)?;
        let tmp = Bind {
            source: self.tmp.clone(),
            target: "/tmp".into(),
            writable: true,
        };
        let sandbox = Sandbox {
            helper: self.helper.clone(),
            isolation: Isolation::Configure,
            staging,
            layers: self.layers.clone(),
            upper: Some(self.upper.dir().to_owned()),
            veils: Vec::new(),
            binds: std::iter::once(tmp).chain(bind).collect(),
            ids: (0, 0),
            argv,
            env: (self.env.iter().cloned())
                .chain(
                    environment
                        .iter()
                        .map(|&(name, value)| (name.to_owned(), value.to_owned())),
                )
                .collect(),
            cwd: "/".into(),
            timeout: Some(TIMEOUT),
            settings: self.settings.clone(),
        };
        let mut tail = Tail::default();
        let outcome = sandbox.run(&mut |bytes| {
            log(bytes);
            tail.take(bytes);
        });
        let outcome = outcome.map_err(|source| ConfigureError::Sandbox {
            package: package.to_owned(),
            script: script.to_owned(),
            source,
        })?;
        // What the kernel kept for itself is in the way of nobody.
        let work = self.upper.dir().with_extension("work");
        crate::fsio::remove_tree(&work)?;
        fs::create_dir_all(&work).context("create", &work)?;
        Ok((outcome, tail.lines()))
    }
}

/// The groups with the accounts' and all that they need first; dependencies keep their order.
fn accounts_first<'a, 'p>(groups: &'a [Vec<&'p Package>]) -> Vec<&'a Vec<&'p Package>> {
    let has = |group: &Vec<&Package>| group.iter().any(|package| package.name == FIRST);
    let Some(position) = groups.iter().position(has) else {
        return groups.iter().collect();
    };
    let mut needed: BTreeSet<usize> = BTreeSet::from([position]);
    for index in (0..position).rev() {
        let names = groups[index].iter().map(|package| package.name.as_str());
        let is_needed = names.into_iter().any(|name| {
            let users = needed.iter().flat_map(|&index| &groups[index]);
            users.into_iter().any(|user| user.may_depend_on(name))
        });
        if is_needed {
            needed.insert(index);
        }
    }
    let rest = (0..groups.len()).filter(|index| !needed.contains(index));
    needed.iter().copied().chain(rest).map(|index| &groups[index]).collect()
}

impl Package {
    /// Whether one of its dependencies names another package.
    fn may_depend_on(&self, name: &str) -> bool {
        let fields = ["Depends", "Pre-Depends"].map(|field| self.field(field).unwrap_or_default());
        let words = fields.iter().flat_map(|field| field.split([',', '|']));
        words
            .map(|word| word.trim().split([' ', '(', ':']).next().unwrap_or_default())
            .any(|word| word == name)
    }
}

/// `dpkg: error processing package NAME (--configure):` → `NAME`.
fn failed_package(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("dpkg: error processing package ")?;
    rest.split([' ', ':']).next()
}

/// The last lines of a script that failed, without what the package manager says after them, and the exit status that it
/// says the script had.
fn of_script(mut lines: Vec<String>) -> (Vec<String>, Option<i32>) {
    let mut status = None;
    if let Some(at) = lines.iter().position(|line| failed_package(line).is_some()) {
        let said = lines
            .get(at + 1)
            .and_then(|line| line.rsplit_once("subprocess returned error exit status "));
        status = said.and_then(|(_, status)| status.trim().parse().ok());
        lines.truncate(at);
    }
    (lines.split_off(lines.len().saturating_sub(TAIL)), status)
}

fn succeed(outcome: Outcome, tail: Vec<String>, package: &str, script: &str) -> Result<(), ConfigureError> {
    let (tail, of_script) = of_script(tail);
    let ended = match outcome {
        Outcome::Exited(0) => return Ok(()),
        Outcome::Cancelled => return Err(ConfigureError::Cancelled),
        Outcome::Exited(status) => format!("failed with exit status {}", of_script.unwrap_or(status)),
        Outcome::Signaled(signal) => format!("was killed by signal {signal}"),
        Outcome::Exceeded(Bound::Memory) => "took more memory than it may and was stopped".to_owned(),
        Outcome::Exceeded(Bound::Processes) => "started more processes than it may and was stopped".to_owned(),
        Outcome::TimedOut => format!("did not end within {} seconds and was killed", TIMEOUT.as_secs()),
    };
    Err(ConfigureError::Script {
        package: package.to_owned(),
        script: script.to_owned(),
        ended,
        tail,
    })
}

/// The last lines of what was printed.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    partial: Vec<u8>,
}

impl Tail {
    fn take(&mut self, bytes: &[u8]) {
        /// Longest line that is kept, in bytes.
        const LINE_MAX: usize = 4096;
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= LINE_MAX {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = crate::escape::shown_bytes(self.partial.trim_ascii_end());
        self.partial.clear();
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn lines(mut self) -> Vec<String> {
        if !self.partial.is_empty() {
            self.end_line();
        }
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_that_failed_is_named_by_the_package_manager() {
        assert_eq!(
            failed_package("dpkg: error processing package libfoo:amd64 (--configure):"),
            Some("libfoo")
        );
        assert_eq!(failed_package("Setting up libfoo (1.0) ..."), None);
    }

    #[test]
    fn the_last_lines_are_kept_whatever_is_printed() {
        let mut tail = Tail::default();
        for number in 0..KEPT {
            tail.take(format!("line {number}\nla").as_bytes());
            tail.take(b"st\n");
        }
        tail.take(b"no line feed");
        let lines = tail.lines();
        assert_eq!(
            (lines.len(), lines.last().map(String::as_str)),
            (KEPT, Some("no line feed"))
        );
    }

    #[test]
    fn what_the_package_manager_says_of_a_script_is_left_out() {
        let mut lines: Vec<String> = (0..30).map(|number| format!("line {number}")).collect();
        let said = [
            "dpkg: error processing package lz (--configure):",
            " installed lz package post-installation script subprocess returned error exit status 3",
            "Errors were encountered while processing:",
            " lz",
        ];
        lines.extend(said.map(str::to_owned));
        let (own, status) = of_script(lines);
        assert_eq!((own.len(), own[0].as_str(), status), (TAIL, "line 10", Some(3)));
        assert_eq!(of_script(vec!["x".to_owned()]), (vec!["x".to_owned()], None));
    }
}
