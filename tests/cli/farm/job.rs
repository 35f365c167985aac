//! An action that a farm was asked to run, and what may come of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::protobuf::Any;
use bazel_remote_apis::google::rpc;
use layerize::fsio::sorted_names;
use layerize::sandbox::{BUILDER, Bind, Isolation, Outcome, RuntimeSettings, Sandbox};
use prost::Message;
use tonic::{Code, Status};

use super::State;
use crate::support::LAYERIZE;

/// What the opening says where there is no network.
pub const GREETING: &str = "layerize: in the root, no network\n";

/// What comes of an action.
pub enum Answer {
    /// This.
    Result(Box<api::ActionResult>),
    /// This, whatever it is.
    Response(Box<api::ExecuteResponse>),
    /// The stream of the operation ends so.
    Broken(Status),
    /// Nothing, for ever.
    Never,
}

impl Answer {
    /// The action did not run.
    pub fn status(code: Code, message: &str) -> Self {
        Self::with_details(code, message, Vec::new())
    }

    /// The worker did not find these blobs.
    pub fn missing(digest: &api::Digest) -> Self {
        let violation = Violation {
            kind: "MISSING".to_owned(),
            subject: format!("blobs/{}/{}", digest.hash, digest.size_bytes),
        };
        let failure = PreconditionFailure {
            violations: vec![violation],
        };
        let details = Any {
            type_url: "type.googleapis.com/google.rpc.PreconditionFailure".to_owned(),
            value: failure.encode_to_vec(),
        };
        Self::with_details(Code::FailedPrecondition, "blobs are missing", vec![details])
    }

    fn with_details(code: Code, message: &str, details: Vec<Any>) -> Self {
        Self::Response(Box::new(api::ExecuteResponse {
            status: Some(rpc::Status {
                code: code.into(),
                message: message.to_owned(),
                details,
            }),
            ..api::ExecuteResponse::default()
        }))
    }
}

#[derive(Clone, PartialEq, Message)]
struct PreconditionFailure {
    #[prost(message, repeated, tag = "1")]
    violations: Vec<Violation>,
}

#[derive(Clone, PartialEq, Message)]
struct Violation {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    subject: String,
}

/// What a worker is like that only changes its directory.
#[derive(Debug, Clone, Copy)]
pub enum Worker {
    /// As this machine is.
    Plain,
    /// Root without namespaces, as in a container.
    WithoutNamespaces,
    /// Nobody in particular, without namespaces.
    WithoutWalls,
}

impl Worker {
    /// What runs a command in `root`.
    fn command(self, dir: &Path, root: &Path) -> Command {
        let chdir = "cd \"$1\" && shift && exec \"$@\"";
        let nobody: &[&str] = match self {
            Self::Plain => {
                let mut command = Command::new("sh");
                command.args(["-c", chdir, "sh"]).arg(root);
                return command;
            }
            Self::WithoutNamespaces => &[],
            Self::WithoutWalls => &["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups"],
        };
        // Below a changed root there are none.
        let world = dir.join("world");
        fs::create_dir(&world).unwrap();
        let script = "mount --rbind / \"$1\" && shift && exec chroot \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
            .args([&world, &world])
            .args(nobody)
            .args(["sh", "-c", chdir, "sh"])
            .arg(root);
        if matches!(self, Self::WithoutWalls) {
            std::os::unix::fs::chown(root, Some(1234), Some(1234)).unwrap();
        }
        command
    }
}

/// An action to be run.
pub struct Job {
    pub state: Arc<State>,
    pub digest: api::Digest,
    /// How often it was asked for before.
    pub number: usize,
}

impl Job {
    pub(super) fn new(state: &Arc<State>, digest: api::Digest, number: usize) -> Self {
        Self {
            state: state.clone(),
            digest,
            number,
        }
    }

    pub fn action(&self) -> api::Action {
        self.state.message(Some(&self.digest))
    }

    pub fn command(&self) -> api::Command {
        self.state.message(self.action().command_digest.as_ref())
    }

    /// The path of what the script is to make.
    pub fn out(&self) -> String {
        let mut paths = self.command().output_paths;
        paths.retain(|path| path.contains("layerize/store/"));
        paths.remove(0)
    }

    /// A result with the greeting and nothing else.
    pub fn nothing() -> api::ActionResult {
        api::ActionResult {
            stdout_raw: GREETING.as_bytes().to_vec(),
            ..api::ActionResult::default()
        }
    }

    /// A result whose output is a file with these bytes.
    pub fn file(&self, bytes: &[u8]) -> api::ActionResult {
        api::ActionResult {
            output_files: vec![api::OutputFile {
                path: self.out(),
                digest: Some(self.state.put(bytes)),
                ..api::OutputFile::default()
            }],
            ..Self::nothing()
        }
    }

    /// A result whose output is what the script of `builders::small` makes.
    pub fn made(&self) -> Answer {
        let file = api::FileNode {
            name: "made".to_owned(),
            digest: Some(self.state.put(b"made\n")),
            ..api::FileNode::default()
        };
        let root = api::Directory {
            files: vec![file],
            ..api::Directory::default()
        };
        Answer::Result(Box::new(self.tree(root, Vec::new())))
    }

    /// A result whose output is this tree.
    pub fn tree(&self, root: api::Directory, children: Vec<api::Directory>) -> api::ActionResult {
        let tree = api::Tree {
            root: Some(root),
            children,
        };
        self.raw_tree(&tree.encode_to_vec())
    }

    /// A result whose output is a tree of these bytes.
    pub fn raw_tree(&self, bytes: &[u8]) -> api::ActionResult {
        api::ActionResult {
            output_directories: vec![api::OutputDirectory {
                path: self.out(),
                tree_digest: Some(self.state.put(bytes)),
                ..api::OutputDirectory::default()
            }],
            ..Self::nothing()
        }
    }

    /// Runs it in a sandbox whose root is the input root.
    pub fn run(&self) -> Answer {
        let dir = tempfile::tempdir_in(self.state.dir.path().join("jobs")).unwrap();
        let place = |name: &str| dir.path().join(name);
        let root = place("root");
        let (action, command) = (self.action(), self.command());
        self.state.write_directory(action.input_root_digest.as_ref(), &root);
        fs::create_dir(place("sandbox")).unwrap();
        for name in ["build", "layerize/store", "tmp"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let binds = ["build", "layerize/store", "tmp"].map(|name| Bind {
            source: root.join(name),
            target: Path::new("/").join(name),
            writable: true,
        });
        let variables = command.environment_variables.iter();
        let sandbox = Sandbox {
            helper: Some(LAYERIZE.into()),
            isolation: Isolation::Build,
            staging: place("sandbox"),
            layers: vec![root.clone()],
            upper: None,
            veils: Vec::new(),
            binds: binds.into(),
            ids: BUILDER,
            argv: command.arguments.clone(),
            env: variables
                .map(|variable| (variable.name.clone(), variable.value.clone()))
                .collect(),
            cwd: Path::new("/").join(&command.working_directory),
            timeout: action
                .timeout
                .map(|timeout| Duration::from_secs(timeout.seconds as u64)),
            settings: RuntimeSettings::default(),
        };
        let mut stdout = Vec::new();
        let outcome = sandbox.run(&mut |bytes| stdout.extend_from_slice(bytes));
        let exit_code = match outcome.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stdout))) {
            Outcome::Exited(status) => status,
            Outcome::TimedOut => return Answer::status(Code::DeadlineExceeded, "it took too long"),
            other => panic!("{other:?}"),
        };
        self.ended(&root, &command, exit_code, &stdout)
    }

    /// Runs it as workers do that only change to the directory of what they are sent.
    pub fn run_in_directory(&self, worker: Worker) -> Answer {
        let dir = tempfile::tempdir_in(self.state.dir.path().join("jobs")).unwrap();
        // A worker may be somebody else.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = dir.path().join("sent");
        let command = self.command();
        self.state
            .write_directory(self.action().input_root_digest.as_ref(), &root);
        let mut program = worker.command(dir.path(), &root);
        let (name, arguments) = command.arguments.split_first().unwrap();
        // Relative to that directory.
        program.arg(match name.contains('/') {
            true => root.join(name),
            false => name.into(),
        });
        let variables = command.environment_variables.iter();
        let ran = program
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(variables.map(|variable| (&variable.name, &variable.value)))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stdout = [ran.stdout, ran.stderr].concat();
        self.ended(&root, &command, ran.status.code().unwrap_or(-1), &stdout)
    }

    /// What is at the end in what was sent.
    fn ended(&self, root: &Path, command: &api::Command, exit_code: i32, stdout: &[u8]) -> Answer {
        let mut result = api::ActionResult {
            exit_code,
            stdout_digest: Some(self.state.put(stdout)),
            ..api::ActionResult::default()
        };
        for path in &command.output_paths {
            self.collect(root, path, &mut result);
        }
        Answer::Result(Box::new(result))
    }

    /// What was made at a path.
    fn collect(&self, root: &Path, path: &str, result: &mut api::ActionResult) {
        let place = root.join(path);
        let Ok(metadata) = place.symlink_metadata() else { return };
        let path = path.to_owned();
        if metadata.is_symlink() {
            result.output_symlinks.push(api::OutputSymlink {
                path,
                target: fs::read_link(&place).unwrap().to_str().unwrap().to_owned(),
                ..api::OutputSymlink::default()
            });
        } else if metadata.is_dir() {
            let mut children = Vec::new();
            let tree = api::Tree {
                root: Some(self.directory(&place, &mut children)),
                children,
            };
            result.output_directories.push(api::OutputDirectory {
                path,
                tree_digest: Some(self.state.put_message(&tree)),
                ..api::OutputDirectory::default()
            });
        } else {
            result.output_files.push(api::OutputFile {
                path,
                digest: Some(self.state.put(&fs::read(&place).unwrap())),
                is_executable: metadata.permissions().mode() & 0o100 != 0,
                ..api::OutputFile::default()
            });
        }
    }

    fn directory(&self, dir: &Path, children: &mut Vec<api::Directory>) -> api::Directory {
        let mut directory = api::Directory::default();
        for name in sorted_names(dir).unwrap() {
            let place = dir.join(&name);
            let name = name.to_str().unwrap().to_owned();
            let metadata = place.symlink_metadata().unwrap();
            if metadata.is_symlink() {
                directory.symlinks.push(api::SymlinkNode {
                    name,
                    target: fs::read_link(&place).unwrap().to_str().unwrap().to_owned(),
                    ..api::SymlinkNode::default()
                });
            } else if metadata.is_dir() {
                let below = self.directory(&place, children);
                directory.directories.push(api::DirectoryNode {
                    name,
                    digest: Some(self.state.put_message(&below)),
                });
                children.push(below);
            } else {
                directory.files.push(api::FileNode {
                    name,
                    digest: Some(self.state.put(&fs::read(&place).unwrap())),
                    is_executable: metadata.permissions().mode() & 0o100 != 0,
                    ..api::FileNode::default()
                });
            }
        }
        directory
    }
}
