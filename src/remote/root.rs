//! The *root* that a builder gets: what a sandbox of this machine would show, as one tree, and the command that runs in it.
//!
//! Invariant: root, command and variables are a function of the [`Sandbox`]: equal steps are equal actions, whoever asks.
//!
//! A worker that makes the tree the root of what it runs has a root, a kernel and a user of its own. What it does not have of
//! a sandbox, the *opening* sets right as far as a shell can: the file creation mask and limits, standard input, the working
//! directory, a source that can be written to with the times that a sandbox gives it. At the end it notes what was left in
//! the store beside the output.
//!
//! For a worker that only changes its directory the tree is one level down, beside the helper, which makes it the root there
//! and runs the same command in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::protobuf::Duration as ApiDuration;

use super::blob::Blob;
use super::disk::Trees;
use super::error::RemoteError;
use super::greeting::{GREETING, Network};
use super::helper::{Helper, PLACE, ROOT};
use super::tree::{Dir, Leaf, Node};
use super::worker::{PLAN, Plan, WALLS_VARIABLE};
use crate::sandbox::Sandbox;
use crate::sandbox::copy::SOURCE_DATE_EPOCH;
use crate::store_path::StoreDir;

/// Rules by which actions are made. Another number makes other actions, of which no builder knows a result yet.
const FORMAT: u32 = 3;

/// Where the opening is, relative to the root.
const OPENING: &str = "usr/libexec/layerize/remote";

/// What names the store's content at the end, relative to the root.
const LISTED: &str = "build/.layerize-store";

/// What says which command failed, relative to the root (see `build::runner`).
const FAILED: &str = "build/.layerize-failed";

/// What is looked for at the end, relative to what a worker is sent.
pub(super) struct Outputs {
    /// What the step makes.
    pub out: String,
    /// What names the store's content.
    pub listed: String,
    /// What says which command failed.
    pub failed: String,
    /// Where the root is.
    root: &'static str,
}

impl Outputs {
    /// Those of a step whose output has this name, run by a helper or not.
    pub(super) fn new(name: &str, has_helper: bool) -> Self {
        let store = StoreDir::LAYERIZE.trim_start_matches('/');
        let root = if has_helper { ROOT } else { "" };
        let below = |path: &str| match root {
            "" => path.to_owned(),
            root => format!("{root}/{path}"),
        };
        Self {
            out: below(&format!("{store}/{name}")),
            listed: below(LISTED),
            failed: below(FAILED),
            root,
        }
    }

    /// Where one of them is inside.
    pub(super) fn inside(&self, path: &str) -> PathBuf {
        Path::new("/").join(path.strip_prefix(self.root).unwrap_or(path).trim_start_matches('/'))
    }
}

/// `@EPOCH@` is the time of a source's files. The copy is there because a worker may share files between actions. A route that
/// leads elsewhere than to the loopback device is a network; devices say less, as a kernel gives some to every one.
const TEXT: &str = r#"# Made by layerize: what a sandbox sets up, as far as a shell can.
exec </dev/null 2>&1
seen='@UNKNOWN@'
if [ -r /proc/net/route ]; then
  seen='@NONE@'
  for routes in /proc/net/route /proc/net/ipv6_route; do
    if [ -r "$routes" ]; then
      while read -r line; do
        case $line in '' | Iface* | lo[[:space:]]* | *[[:space:]]lo) ;; *) seen='@SOME@' ;; esac
      done <"$routes"
    fi
  done
fi
echo "@GREETING@${@WALLS@-}$seen"
unset seen routes line @WALLS@
umask 022
ulimit -c 0
ulimit -S -n 1024 2>/dev/null
ulimit -S -s 8192 2>/dev/null
for name in cp rm mv find touch chmod; do
  command -v "$name" >/dev/null || has_not=1
done
if [ -z "${has_not-}" ]; then
  cp -R -P /build/source /build/.layerize-copy && rm -rf /build/source && mv /build/.layerize-copy /build/source
  find /build/source ! -type l -exec chmod u+w {} +
  find /build/source -exec touch -h -d @@EPOCH@ {} +
fi
unset name has_not
cd "$PWD_OF_SCRIPT" || exit 126
unset PWD_OF_SCRIPT OLDPWD SHLVL
"$@"
status=$?
cd /layerize/store && for name in * .*; do
  if [ -e "$name" ] || [ -L "$name" ]; then printf '%s\n' "$name"; fi
done >/build/.layerize-store
exit "$status"
"#;

/// An action and all that must be at a builder before it can run.
pub(super) struct Work {
    /// What is sent.
    pub sent: Arc<Dir>,
    /// The root: that, or in there.
    pub root: Arc<Dir>,
    /// The messages of command and action.
    pub messages: [Vec<u8>; 2],
    /// The action's name.
    pub action: Blob,
}

/// What a sandbox is for a builder; `helper`: what makes its root there.
pub(super) fn compose(
    trees: &Trees,
    sandbox: &Sandbox,
    outputs: &Outputs,
    platform: &api::Platform,
    helper: Option<&Helper>,
) -> Result<Work, RemoteError> {
    let mut root = trees.merged(&sandbox.layers)?;
    for bind in &sandbox.binds {
        let path = relative(&bind.target)?;
        root = root.with(&path, trees.node(&bind.source)?);
    }
    let opening = opening();
    let parts: Vec<&str> = OPENING.split('/').collect();
    root = root.with(&parts, Node::File(Leaf::of_bytes(opening.as_bytes(), false)));
    let mut step = Plan {
        argv: in_opening(sandbox),
        env: variables(sandbox),
    };
    let mut sent = root.clone();
    if let Some(helper) = helper {
        let plan = serde_json::to_vec(&step).map_err(|error| RemoteError::Start(error.into()))?;
        let beside = helper.dir.with(&[PLAN], Node::File(Leaf::of_bytes(&plan, false)));
        let entries = [(PLACE, Node::Dir(beside)), (ROOT, Node::Dir(root.clone()))];
        sent = Dir::new(entries.map(|(name, node)| (name.to_owned(), node)).into());
        // What the step is to have must not be what the helper has: a variable could change it.
        step = Plan {
            argv: helper.command.clone(),
            env: Vec::new(),
        };
    }
    let (command_blob, command) = Blob::of_message(&command(step, outputs, platform));
    let action = api::Action {
        command_digest: Some(command_blob.to_api()),
        input_root_digest: Some(sent.blob().to_api()),
        timeout: sandbox.timeout.map(|timeout| ApiDuration {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanos: 0,
        }),
        salt: format!("layerize {FORMAT}").into_bytes(),
        platform: Some(platform.clone()),
        ..api::Action::default()
    };
    let (blob, action) = Blob::of_message(&action);
    Ok(Work {
        sent,
        root,
        messages: [command, action],
        action: blob,
    })
}

/// The text of the opening.
fn opening() -> String {
    TEXT.replace("@EPOCH@", &SOURCE_DATE_EPOCH.to_string())
        .replace("@GREETING@", GREETING)
        .replace("@WALLS@", WALLS_VARIABLE)
        .replace("@UNKNOWN@", Network::Unknown.word())
        .replace("@NONE@", Network::None.word())
        .replace("@SOME@", Network::Some.word())
}

/// The command that runs in the root: the shell of the script runs the opening, too, with the same flags.
fn in_opening(sandbox: &Sandbox) -> Vec<String> {
    let (shell, _) = sandbox.argv.split_at(sandbox.argv.len().saturating_sub(1));
    let opening = format!("/{OPENING}");
    shell.iter().chain([&opening]).chain(&sandbox.argv).cloned().collect()
}

fn variables(sandbox: &Sandbox) -> Vec<(String, String)> {
    let mut env = sandbox.env.clone();
    env.push(("PWD_OF_SCRIPT".to_owned(), sandbox.cwd.display().to_string()));
    env.sort();
    env
}

#[expect(deprecated, reason = "builders of before version 2.2 look for the platform here")]
fn command(step: Plan, outputs: &Outputs, platform: &api::Platform) -> api::Command {
    let Outputs {
        out, listed, failed, ..
    } = outputs;
    let mut output_paths = [failed, listed, out].map(String::clone);
    output_paths.sort();
    api::Command {
        arguments: step.argv,
        environment_variables: step
            .env
            .into_iter()
            .map(|(name, value)| api::command::EnvironmentVariable { name, value })
            .collect(),
        output_paths: output_paths.into(),
        platform: Some(platform.clone()),
        ..api::Command::default()
    }
}

/// The parts of an absolute path inside.
fn relative(inside: &Path) -> Result<Vec<&str>, RemoteError> {
    let text = inside.to_str().ok_or_else(|| RemoteError::Name {
        path: inside.to_owned(),
    })?;
    Ok(text.split('/').filter(|part| !part.is_empty()).collect())
}
