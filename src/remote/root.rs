//! The *root* that a builder gets: what a sandbox of this machine would show, as one tree, and the command that runs in it.
//!
//! Invariant: root, command and variables are a function of the [`Sandbox`]: equal steps are equal actions, whoever asks.
//!
//! A worker that makes the tree the root of what it runs has a root, a kernel and a user of its own. What it does not have of
//! a sandbox, the *opening* sets right as far as a shell can: the file creation mask and limits, standard input, the working
//! directory, a source that can be written to with the times that a sandbox gives it. At the end it notes what was left in
//! the store beside the output.

use std::path::Path;
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::protobuf::Duration as ApiDuration;

use super::blob::Blob;
use super::disk::Trees;
use super::error::RemoteError;
use super::greeting::{GREETING, Network};
use super::tree::{Dir, Leaf, Node};
use crate::sandbox::Sandbox;
use crate::sandbox::copy::SOURCE_DATE_EPOCH;
use crate::store_path::StoreDir;

/// Rules by which actions are made. Another number makes other actions, of which no builder knows a result yet.
const FORMAT: u32 = 2;

/// Where the opening is, relative to the root.
const OPENING: &str = "usr/libexec/layerize/remote";

/// What names the store's content at the end, relative to the root.
pub(super) const LISTED: &str = "build/.layerize-store";

/// What says which command failed, relative to the root (see `build::runner`).
pub(super) const FAILED: &str = "build/.layerize-failed";

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
echo "@GREETING@$seen"
unset seen routes line
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
    /// The root.
    pub root: Arc<Dir>,
    /// The messages of command and action.
    pub messages: [Vec<u8>; 2],
    /// The action's name.
    pub action: Blob,
}

/// What a sandbox is for a builder; `out` is the output's path relative to the root.
pub(super) fn compose(
    trees: &Trees,
    sandbox: &Sandbox,
    out: &str,
    platform: &api::Platform,
) -> Result<Work, RemoteError> {
    let mut root = trees.merged(&sandbox.layers)?;
    for bind in &sandbox.binds {
        let path = relative(&bind.target)?;
        root = root.with(&path, trees.node(&bind.source)?);
    }
    let opening = opening();
    let parts: Vec<&str> = OPENING.split('/').collect();
    root = root.with(&parts, Node::File(Leaf::of_bytes(opening.as_bytes(), false)));
    let command = command(sandbox, out, platform);
    let (command_blob, command) = Blob::of_message(&command);
    let action = api::Action {
        command_digest: Some(command_blob.to_api()),
        input_root_digest: Some(root.blob().to_api()),
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
        root,
        messages: [command, action],
        action: blob,
    })
}

/// The text of the opening.
fn opening() -> String {
    TEXT.replace("@EPOCH@", &SOURCE_DATE_EPOCH.to_string())
        .replace("@GREETING@", GREETING)
        .replace("@UNKNOWN@", Network::Unknown.word())
        .replace("@NONE@", Network::None.word())
        .replace("@SOME@", Network::Some.word())
}

#[expect(deprecated, reason = "builders of before version 2.2 look for the platform here")]
fn command(sandbox: &Sandbox, out: &str, platform: &api::Platform) -> api::Command {
    // The shell of the script runs the opening too, with the same flags.
    let (shell, _) = sandbox.argv.split_at(sandbox.argv.len().saturating_sub(1));
    let opening = format!("/{OPENING}");
    let mut env = sandbox.env.clone();
    env.push(("PWD_OF_SCRIPT".to_owned(), sandbox.cwd.display().to_string()));
    env.sort();
    let mut output_paths = vec![FAILED.to_owned(), LISTED.to_owned(), out.to_owned()];
    output_paths.sort();
    api::Command {
        arguments: shell.iter().chain([&opening]).chain(&sandbox.argv).cloned().collect(),
        environment_variables: env
            .into_iter()
            .map(|(name, value)| api::command::EnvironmentVariable { name, value })
            .collect(),
        output_paths,
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

/// Where an output is, relative to the root.
pub(super) fn output_path(name: &str) -> String {
    format!("{}/{name}", StoreDir::LAYERIZE.trim_start_matches('/'))
}
