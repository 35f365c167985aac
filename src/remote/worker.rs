//! What the helper does *at a worker* that only changed to the directory of what it was sent: it makes the root of the step
//! from what is in there, behind the strongest walls that the worker has, and runs the step in it.
//!
//! Invariant: nothing of what was sent can be written to but what the step may write to, which is a copy: a worker may share
//! files between actions. What is made is where the worker looks for it, below the root that was sent.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::greeting::{behind, is_made_by_helper, refusal};
use super::helper::{PLACE, ROOT, starter};
use crate::fsio::{IoContext, PathError, create_dir_all, read_limited, sorted_names, with_causes};
use crate::sandbox::copy::copy_writable;
use crate::sandbox::tree::make_dir;
use crate::sandbox::{BUILDER, Bind, Isolation, Outcome, RuntimeSettings, Sandbox, SandboxError, Veil, start_with};
use crate::store_path::StoreDir;
use crate::walls::Walls;

/// Name of a step's plan, beside the helper.
pub(super) const PLAN: &str = "plan.json";

/// Largest plan, in bytes: a script stands in it, and its variables.
const PLAN_MAX: u64 = 64 << 20;

/// The variable by which the opening knows the walls.
pub(super) const WALLS_VARIABLE: &str = "WALLS_OF_WORKER";

/// Status of a step that did not run.
const REFUSED: i32 = 125;

/// What is added to the number of the signal that ended a step.
const SIGNALED: i32 = 128;

/// What is to run in the root.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// All variables.
    pub env: Vec<(String, String)>,
}

/// Why a step does not run at a worker.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error(transparent)]
    Io(#[from] PathError),
    #[error("the plan of the step cannot be read")]
    Plan(#[from] serde_json::Error),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("{0}")]
    Walls(String),
}

/// Runs the step that was sent to `dir`, an absolute path; gives what it prints to `output`, and its status.
pub fn work(dir: &Path, output: &mut dyn FnMut(&[u8])) -> i32 {
    match run(dir, output) {
        Ok(Outcome::Exited(status)) => status,
        Ok(Outcome::Signaled(signal)) => SIGNALED + signal,
        Ok(Outcome::TimedOut | Outcome::Cancelled | Outcome::Exceeded(_)) => REFUSED,
        Err(error) => {
            output(refusal(&with_causes(&error)).as_bytes());
            REFUSED
        }
    }
}

fn run(dir: &Path, output: &mut dyn FnMut(&[u8])) -> Result<Outcome, WorkerError> {
    let plan = read_limited(&dir.join(PLACE).join(PLAN), PLAN_MAX)?;
    let plan: Plan = serde_json::from_slice(&plan)?;
    if let Some(starter) = starter(dir) {
        start_with(starter);
    }
    // Beside the root, on the same file system.
    let staging = tempfile::Builder::new().prefix(".layerize-").tempdir_in(dir);
    let staging = staging.context("make a directory in", dir)?;
    let walls = choose(staging.path())?;
    let root = dir.join(ROOT);
    let places = Places::lay_out(&root, staging.path())?;
    let own = staging.path().join("sandbox");
    make_dir(&own, 0o700)?;
    let mut env = plan.env;
    env.push((WALLS_VARIABLE.to_owned(), behind(walls)));
    let sandbox = Sandbox {
        helper: None,
        isolation: match walls {
            Walls::Namespaces => Isolation::Build,
            _ => Isolation::Chroot,
        },
        staging: own,
        layers: vec![root.clone()],
        upper: None,
        veils: places.veils(),
        binds: places.binds.clone(),
        ids: BUILDER,
        argv: plan.argv,
        env,
        cwd: "/".into(),
        // Whoever sent the step limits its time.
        timeout: None,
        settings: RuntimeSettings::default(),
    };
    let outcome = sandbox.run(output)?;
    places.give_back(&root)?;
    Ok(outcome)
}

/// The strongest walls that can be had here.
fn choose(staging: &Path) -> Result<Walls, WorkerError> {
    let mut reasons = Vec::new();
    for walls in Walls::LADDER.into_iter().filter(|walls| is_made_by_helper(*walls)) {
        let trial = staging.join(walls.name());
        make_dir(&trial, 0o700)?;
        match Sandbox::try_walls(walls, None, &trial) {
            Ok(()) => return Ok(walls),
            Err(error) => reasons.push(format!("`{walls}`: {}", with_causes(&error))),
        }
    }
    Err(WorkerError::Walls(reasons.join("; ")))
}

/// The directories of a step.
struct Places {
    /// What was sent for them, which nobody writes to.
    given: PathBuf,
    /// Those that the step may write to.
    work: PathBuf,
    binds: Vec<Bind>,
}

/// Directories that a step may write to: name, place inside, mode, and whether what is there at the end is looked for.
const WRITABLE: [(&str, &str, u32, bool); 3] = [
    ("build", "/build", 0o755, true),
    ("tmp", "/tmp", 0o1777, false),
    ("store", StoreDir::LAYERIZE, 0o755, true),
];

impl Places {
    /// Takes the directories out of `root`, where empty ones stay: inputs stand aside and are shown at their places, what can
    /// be written to is a copy.
    fn lay_out(root: &Path, staging: &Path) -> Result<Self, WorkerError> {
        for name in ["dev", "proc"] {
            create_dir_all(&root.join(name))?;
        }
        let (given, work) = (staging.join("given"), staging.join("work"));
        make_dir(&given, 0o755)?;
        make_dir(&work, 0o755)?;
        let mut binds = Vec::new();
        for (name, inside, mode, _) in WRITABLE {
            let (place, aside, source) = (below(root, inside), given.join(name), work.join(name));
            match place.symlink_metadata() {
                Ok(_) => fs::rename(&place, &aside).context("move", &place)?,
                Err(_) => make_dir(&aside, 0o755)?,
            }
            create_dir_all(&place)?;
            match name {
                "build" => copy_writable(&aside, name, &source)?,
                _ => make_dir(&source, mode)?,
            }
            binds.push(Bind {
                source,
                target: inside.into(),
                writable: true,
            });
        }
        let mut places = Self { given, work, binds };
        places.show_inputs()?;
        Ok(places)
    }

    /// Makes a place for each input in the directory that becomes the store.
    fn show_inputs(&mut self) -> Result<(), WorkerError> {
        let (inputs, store) = (self.given.join("store"), self.work.join("store"));
        for name in sorted_names(&inputs)? {
            let (source, place) = (inputs.join(&name), store.join(&name));
            let kind = source.symlink_metadata().context("read", &source)?.file_type();
            if kind.is_symlink() {
                let target = fs::read_link(&source).context("read the link", &source)?;
                symlink(target, &place).context("create the link", &place)?;
                continue;
            }
            match kind.is_dir() {
                true => make_dir(&place, 0o755)?,
                false => fs::write(&place, "").context("write", &place)?,
            }
            self.binds.push(Bind {
                source,
                target: PathBuf::from(StoreDir::LAYERIZE).join(&name),
                writable: false,
            });
        }
        Ok(())
    }

    /// Where this worker keeps what it is sent is not for a step to know.
    fn veils(&self) -> Vec<Veil> {
        [(&self.work, true), (&self.given, false)]
            .map(|(dir, writable)| Veil {
                dir: dir.clone(),
                writable,
            })
            .into()
    }

    /// Puts what was made where the worker looks for it.
    fn give_back(&self, root: &Path) -> Result<(), WorkerError> {
        for (name, inside, ..) in WRITABLE.into_iter().filter(|(.., is_wanted)| *is_wanted) {
            let (source, place) = (self.work.join(name), below(root, inside));
            fs::rename(&source, &place).context("move", &source)?;
        }
        Ok(())
    }
}

/// A place inside, below a root.
fn below(root: &Path, inside: &str) -> PathBuf {
    root.join(inside.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_can_be_written_to_is_a_copy_and_inputs_stand_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, staging) = (dir.path().join("root"), dir.path().join("staging"));
        for path in ["build/source", "layerize/store/x-dir", "usr/bin"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::create_dir(&staging).unwrap();
        fs::write(root.join("build/source/a"), "a").unwrap();
        fs::hard_link(root.join("build/source/a"), dir.path().join("shared")).unwrap();
        fs::write(root.join("layerize/store/y-file"), "y").unwrap();
        symlink("x-dir", root.join("layerize/store/z-link")).unwrap();

        let places = Places::lay_out(&root, &staging).unwrap();
        let binds = &places.binds;
        let targets: Vec<_> = binds
            .iter()
            .map(|bind| (bind.target.to_str().unwrap(), bind.writable))
            .collect();
        assert_eq!(
            targets,
            [
                ("/build", true),
                ("/tmp", true),
                ("/layerize/store", true),
                ("/layerize/store/x-dir", false),
                ("/layerize/store/y-file", false)
            ]
        );
        assert_eq!(sorted_names(&root.join("build")).unwrap().len(), 0);
        let copy = binds[0].source.join("source/a");
        assert_eq!(fs::metadata(&copy).unwrap().nlink(), 1);
        assert_eq!(fs::read_to_string(&binds[4].source).unwrap(), "y");
        // What is written in the store is not what was sent.
        let store = &binds[2].source;
        assert_eq!(fs::read_to_string(store.join("y-file")).unwrap(), "");
        assert_eq!(fs::read_link(store.join("z-link")).unwrap(), Path::new("x-dir"));
        assert!(root.join("proc").is_dir() && root.join("dev").is_dir());

        fs::write(copy, "changed").unwrap();
        fs::write(store.join("made"), "made").unwrap();
        places.give_back(&root).unwrap();
        let shared = fs::read_to_string(dir.path().join("shared")).unwrap();
        assert_eq!(shared, "a");
        assert_eq!(fs::read_to_string(root.join("build/source/a")).unwrap(), "changed");
        assert_eq!(fs::read_to_string(root.join("layerize/store/made")).unwrap(), "made");
    }

    #[test]
    fn a_step_without_a_plan_is_told_as_one_that_cannot_run() {
        let dir = tempfile::tempdir().unwrap();
        let mut told = Vec::new();
        let status = work(dir.path(), &mut |bytes| told.extend_from_slice(bytes));
        assert_eq!(status, REFUSED);
        let told = String::from_utf8(told).unwrap();
        assert!(told.starts_with("layerize: no walls at the worker: "), "{told}");
        assert!(told.contains("plan.json") && told.ends_with('\n'), "{told}");
    }
}
