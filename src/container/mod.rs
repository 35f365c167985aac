//! A *container* runs a program of an image in the image's own root, without an engine: as its user, with its environment, behind
//! the sandbox's walls.
//!
//! Invariant: what runs is what is shipped: the root comes from the image's layers as they are written, and nothing that runs
//! changes it. What a program is told and may do is what Docker would tell it and let it do; where one user is not enough for
//! that, it is nearer to what the image's user may do than to what its own may.
//!
//! A root is unpacked once ([`Roots`]), with whose each file is in an attribute. Over it lie the places that engines make
//! (`place`), and over these a directory that takes what is written and is thrown away.

mod account;
mod error;
mod flat;
mod machine;
mod place;
mod start;
#[cfg(test)]
mod tests;
mod tree;
mod trial;

use std::path::{Path, PathBuf};

pub use error::ContainerError;
pub use machine::foreign;
pub use tree::Roots;
pub use trial::try_image;

use crate::event::{Event, Reporter};
use crate::image::ImageLayer;
use crate::oci::{Config, Execution};
use crate::sandbox::emulator::Emulator;
use crate::sandbox::session::{Program, Session, SessionReport};
use crate::sandbox::tree::{close_to_others, make_dir};
use crate::sandbox::{Bind, ContainerPlan, Isolation, Network, Outcome, RuntimeSettings, Sandbox};
use account::Account;
use place::Places;
use tree::ImageRoot;

/// An image that can be run.
#[derive(Debug, Clone, Copy)]
pub struct RunnableImage<'a> {
    /// Its layers, the lowest first.
    pub layers: &'a [ImageLayer],
    /// What it says of its containers.
    pub config: &'a Config,
}

/// A file or directory of the machine in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where it is on the machine.
    pub source: PathBuf,
    /// Where it is in the container.
    pub target: String,
    /// Whether it can only be read.
    pub read_only: bool,
}

/// How a program of an image is to be run, where not as the image says.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Arguments in place of the image's `cmd`.
    pub arguments: Vec<String>,
    /// Program in place of the image's `entrypoint`; nothing of `cmd` is left then.
    pub entrypoint: Option<Vec<String>>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Files and directories of the machine.
    pub volumes: Vec<Volume>,
    /// Working directory.
    pub workdir: Option<String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// The root cannot be written to, but in the image's volumes.
    pub read_only: bool,
    /// A network of its own, with nobody else in it.
    pub no_network: bool,
    /// It is connected to a terminal.
    pub terminal: bool,
}

/// Where containers are made.
#[derive(Clone, Copy)]
pub struct Workshop<'a> {
    /// The roots that are kept.
    pub roots: &'a Roots,
    /// The program that becomes the sandbox's helper; `None`: this one.
    pub helper: Option<&'a Path>,
    /// What runs programs for another processor than the machine's.
    pub emulator: Option<&'a Emulator>,
    /// Who is told what an image has that no container gets here.
    pub reporter: &'a dyn Reporter,
}

/// A container that can be started.
pub struct Container {
    sandbox: Sandbox,
    plan: ContainerPlan,
    program: Program,
    /// Held until the container is gone.
    _root: ImageRoot,
}

impl Container {
    /// Makes one in `staging`, an existing directory for it alone, on a file system that holds attributes of users.
    pub fn make(
        image: RunnableImage<'_>,
        options: &RunOptions,
        workshop: Workshop<'_>,
        staging: &Path,
    ) -> Result<Self, ContainerError> {
        close_to_others(staging)?;
        if workshop.emulator.is_none() {
            machine::check(image.config, workshop.helper, staging)?;
        }
        let execution = &image.config.execution;
        let account = find_account(image, options, workshop.roots)?;
        let user = &account.identity;
        let root = workshop.roots.of(image.layers, user)?;
        tell_of_devices(&root, workshop.reporter);
        let host = "localhost".to_owned();
        let program = start::program(execution, options, &host, &account.home)?;
        let mut places = Places::create(&root.path, staging.join("over"), user)?;
        let volumes = volumes(execution, &mut places)?;
        places.directory(&program.cwd.to_string_lossy())?;
        write_etc(&mut places, options, &host)?;
        let binds = binds(options, &mut places)?;
        let over = places.finish()?;
        let [upper, own] = ["upper", "sandbox"].map(|name| staging.join(name));
        for dir in [&upper, &own] {
            make_dir(dir, 0o700)?;
        }
        place::copy_note(&root.path, &upper)?;
        let sandbox = Sandbox {
            helper: workshop.helper.map(Path::to_owned),
            isolation: Isolation::Container,
            staging: own,
            layers: vec![over, root.path.clone()],
            upper: Some(upper),
            veils: Vec::new(),
            binds,
            ids: (user.uid, user.gid),
            argv: program.argv.clone(),
            env: program.env.clone(),
            cwd: program.cwd.clone(),
            timeout: None,
            settings: RuntimeSettings {
                host,
                emulator: workshop.emulator.cloned(),
                ..RuntimeSettings::default()
            },
        };
        let plan = ContainerPlan {
            network: if options.no_network {
                Network::Own
            } else {
                Network::Machine
            },
            read_only: options.read_only,
            volumes,
            user: account.identity,
            session: None,
        };
        Ok(Self {
            sandbox,
            plan,
            program,
            _root: root,
        })
    }

    /// Runs the program on our own standard input, output and error.
    pub fn run(&self) -> Result<Outcome, ContainerError> {
        let outcome = self.sandbox.run_interactively(Some(&self.plan));
        outcome.map_err(|source| self.failed(source))
    }

    /// The program, with the environment that others beside it have, too.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Does with the program what a session says; what programs print goes to `log`.
    pub fn conduct(&self, session: Session, log: &mut dyn FnMut(&[u8])) -> Result<SessionReport, ContainerError> {
        let plan = ContainerPlan {
            session: Some(session),
            ..self.plan.clone()
        };
        let report = self
            .sandbox
            .run_session(&plan, log)
            .map_err(|source| self.failed(source))?;
        report.ok_or(ContainerError::Cancelled)
    }

    fn failed(&self, source: crate::sandbox::SandboxError) -> ContainerError {
        let what = self.program.argv.first().cloned().unwrap_or_default();
        ContainerError::Sandbox { what, source }
    }
}

/// Who the container is, by the accounts in the image.
fn find_account(image: RunnableImage<'_>, options: &RunOptions, roots: &Roots) -> Result<Account, ContainerError> {
    let text = options.user.as_deref().or(image.config.execution.user.as_deref());
    let (passwd, group) = roots.accounts(image.layers)?;
    Account::find(text.unwrap_or_default(), &passwd, &group)
}

fn tell_of_devices(root: &ImageRoot, reporter: &dyn Reporter) {
    if let Some(first) = root.devices.first() {
        let more = match root.devices.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let text = format!("the device `/{first}`{more} of the image is left out: only root may make devices");
        reporter.report(Event::Warning { text });
    }
}

fn volumes(execution: &Execution, places: &mut Places<'_>) -> Result<Vec<PathBuf>, ContainerError> {
    let volumes = execution.volumes.iter();
    volumes
        .map(|path| Ok(Path::new("/").join(places.directory(path)?)))
        .collect()
}

/// The files of `/etc` that are the container's and not the image's.
fn write_etc(places: &mut Places<'_>, options: &RunOptions, host: &str) -> Result<(), ContainerError> {
    const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    let (hosts, resolver) = match options.no_network {
        true => (HOSTS.to_owned(), String::new()),
        false => {
            let text = |path| std::fs::read_to_string(path).ok();
            let hosts = text("/etc/hosts").unwrap_or_else(|| HOSTS.to_owned());
            (hosts, text("/etc/resolv.conf").unwrap_or_default())
        }
    };
    if places.has_own_etc() {
        for (path, text) in [
            ("etc/hostname", format!("{host}\n")),
            ("etc/hosts", hosts),
            ("etc/resolv.conf", resolver),
        ] {
            places.file(path, &text)?;
        }
        places.link_if_missing("etc/mtab", "/proc/mounts")?;
    }
    Ok(())
}

fn binds(options: &RunOptions, places: &mut Places<'_>) -> Result<Vec<Bind>, ContainerError> {
    let mut binds: Vec<Bind> = Vec::new();
    for volume in &options.volumes {
        let failed = |reason: String| ContainerError::Volume {
            path: volume.source.display().to_string(),
            reason,
        };
        // What is bound must not be a link; the user's own are followed.
        let source = std::fs::canonicalize(&volume.source).map_err(|error| failed(error.to_string()))?;
        if !volume.target.starts_with('/') {
            return Err(failed(format!("`{}` does not begin with `/`", volume.target)));
        }
        let target = match source.is_dir() {
            true => places.directory(&volume.target)?,
            false => places.file_mount_point(&volume.target)?,
        };
        if target.as_os_str().is_empty() {
            return Err(failed("it cannot take the place of the image's whole root".to_owned()));
        }
        binds.push(Bind {
            source,
            target: Path::new("/").join(target),
            writable: !volume.read_only,
        });
    }
    // One that is in another comes after it.
    binds.sort_by(|a, b| a.target.cmp(&b.target));
    for (number, bind) in binds.iter().enumerate() {
        let outer = binds[..number]
            .iter()
            .rev()
            .find(|outer| bind.target.starts_with(&outer.target));
        if let Some(outer) = outer {
            make_within(outer, bind).map_err(|reason| ContainerError::Volume {
                path: bind.source.display().to_string(),
                reason,
            })?;
        }
    }
    Ok(binds)
}

/// Makes the place of a volume in another one, as engines do: on the machine, since what is at that place is there.
fn make_within(outer: &Bind, bind: &Bind) -> Result<(), String> {
    let below = bind.target.strip_prefix(&outer.target).unwrap_or(&bind.target);
    if below.as_os_str().is_empty() {
        return Err(format!("there is another volume at `{}`", bind.target.display()));
    }
    let mut place = outer.source.clone();
    let count = below.components().count();
    for (number, part) in below.components().enumerate() {
        place.push(part);
        let shown = place.display();
        let made = match place.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => {
                return Err(format!("its place is in another volume, and `{shown}` is a link"));
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Err(_) if !outer.writable => {
                return Err(format!(
                    "its place is in a volume that cannot be written to, and `{shown}` is missing"
                ));
            }
            Err(_) if number + 1 == count && bind.source.is_file() => std::fs::File::create(&place).map(drop),
            Err(_) => std::fs::create_dir(&place),
        };
        made.map_err(|error| format!("its place `{shown}` cannot be made: {error}"))?;
    }
    Ok(())
}
