//! The *runner*: the small shell program that prepares the source and then runs a package's script.
//!
//! Invariant: the user's script is a file of its own, so that line numbers in messages are the user's. It is run
//! by `bash -euo pipefail` where the root has bash, else by `sh -eu`: in both the first command that fails ends it.

use std::path::Path;

use super::BuildError;
use super::rootfs::Root;
use crate::fsio::{PathError, read_limited};
use crate::sandbox::tree::Tree;
use crate::shell_word::quoted;

/// Where runner and script are, relative to the root.
const DIR: &str = "usr/libexec/layerize";

/// Name of the file, in the build directory, in which the runner says which command failed.
const FAILED: &str = ".layerize-failed";

/// A login's start files are no part of a build.
const NO_START_FILES: [&str; 2] = ["--noprofile", "--norc"];

/// Longest such command that is shown, in bytes.
const FAILED_MAX: u64 = 64 << 10;

/// Tells which command fails: the innermost is the first to get there. Of a pipeline bash knows the last command
/// alone, whichever failed: then the line has to do.
const TRAP: &str = r#"set -E
layerize_failed() {
    [ -e @FAILED@ ] && return
    [ "$1" = 1 ] || set -- "$1" "$2" ""
    printf '%s\n%s\n' "$2" "$3" >@FAILED@
}
trap 'layerize_failed "${#PIPESTATUS[@]}" "$LINENO" "$BASH_COMMAND"' ERR
"#;

/// Applies what `dpkg-source` would have: the difference of format 1.0, then the patches in the order of `series`.
/// Afterwards all files have one time again, so that no patch makes `make` want to generate `configure` anew.
const DEBIAN_PATCHES: &str = r#"layerize_patch() {
    echo "applying $1"
    patch --quiet --force --no-backup-if-mismatch "${2:--p1}" <"$1"
}
if [ -f debian.diff ] || [ -f debian/patches/series ]; then
    command -v patch >/dev/null || {
        echo "layerize: this source has Debian patches, and \`patch\` is missing: add \"deb:patch\" to tools" >&2
        exit 1
    }
    [ ! -f debian.diff ] || layerize_patch debian.diff
    if [ -f debian/patches/series ]; then
        while read -r layerize_name layerize_option layerize_rest; do
            case $layerize_name in '' | '#'*) continue ;; esac
            case $layerize_option in -p*) ;; *) layerize_option= ;; esac
            layerize_patch "debian/patches/$layerize_name" "$layerize_option"
        done <debian/patches/series
    fi
    ! command -v find >/dev/null || find . -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
fi
"#;

/// How a script is run.
pub(super) struct Runner {
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// A command of the user's script that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCommand {
    /// Its text, before expansion; of a pipeline the whole line.
    pub text: String,
    /// Line of the script on which it stands, from 1.
    pub line: Option<u32>,
}

impl Runner {
    /// Writes runner and script into `root`'s fix-ups. `label` is for messages.
    pub(super) fn in_root(
        root: &Root,
        label: &str,
        script: &str,
        has_debian_patches: bool,
    ) -> Result<Self, BuildError> {
        let bash = root.program(&["bash"]);
        let Some(shell) = bash.clone().or_else(|| root.program(&["sh", "dash", "busybox"])) else {
            return Err(BuildError::NoShell {
                label: label.to_owned(),
            });
        };
        let text = text(bash.is_some(), has_debian_patches, &format!("/{DIR}/script"), "/build");
        root.fixups.file(&format!("{DIR}/script"), script, 0o644)?;
        root.fixups.file(&format!("{DIR}/run"), &text, 0o644)?;
        let mut argv = vec![shell.clone()];
        match bash {
            Some(_) => argv.extend(NO_START_FILES.map(str::to_owned)),
            None if shell.ends_with("/busybox") => argv.push("sh".to_owned()),
            None => {}
        }
        argv.push(format!("/{DIR}/run"));
        Ok(Self { argv })
    }

    /// Writes runner and script into `dir`, to be run on the machine itself in the build directory `build`.
    pub(super) fn on_host(dir: &Path, build: &Path, script: &str, has_debian_patches: bool) -> Result<Self, PathError> {
        let tree = Tree::create(dir.to_owned())?;
        let script = tree.file("script", script, 0o644)?;
        let shell = Path::new("/bin/bash");
        let text = text(
            shell.exists(),
            has_debian_patches,
            &quoted(&script),
            &build.display().to_string(),
        );
        let run = tree.file("run", &text, 0o644)?.display().to_string();
        let mut argv = vec!["/bin/sh".to_owned()];
        if shell.exists() {
            argv = vec![shell.display().to_string()];
            argv.extend(NO_START_FILES.map(str::to_owned));
        }
        argv.push(run);
        Ok(Self { argv })
    }
}

/// The runner's text: `script` is the path of the user's, quoted for the shell where needed.
fn text(is_bash: bool, has_debian_patches: bool, script: &str, build: &str) -> String {
    let mut text = "# Made by layerize: prepares the source, then runs the package's script.\n".to_owned();
    text += if is_bash { "set -euo pipefail\n" } else { "set -eu\n" };
    if has_debian_patches {
        text += DEBIAN_PATCHES;
    }
    if is_bash {
        text += &TRAP.replace("@FAILED@", &quoted(Path::new(build).join(FAILED)));
    }
    text + &format!(". {script}\n")
}

/// What a person's shell in the script's place reads first: what the runner does before the script, and functions that do the
/// rest. `(label, note)`: what the user calls the package, and what is to be said besides.
pub(super) fn start_file(
    is_bash: bool,
    has_debian_patches: bool,
    preamble: &str,
    (label, note): (&str, Option<&str>),
) -> String {
    const ENTER: &str = include_str!("enter.sh");
    let mut text = String::new();
    if has_debian_patches {
        text += &format!("(set -eu\n{DEBIAN_PATCHES})\n");
    }
    text += preamble;
    let run = match is_bash {
        true => format!("bash {} /{DIR}/run", NO_START_FILES.join(" ")),
        false => format!("sh /{DIR}/run"),
    };
    text += &ENTER
        .replace("@RUN@", &run)
        .replace("@SCRIPT@", &format!("/{DIR}/script"))
        .replace(
            "@NOTE@",
            &quoted(Path::new(note.unwrap_or("its script has not run yet"))),
        )
        .replace("@LABEL@", &quoted(Path::new(label)));
    text
}

/// Which command of `script` failed, as the runner tells in the build directory; `None` where it does not.
pub(super) fn failed_command(build: &Path, script: &str) -> Option<FailedCommand> {
    let bytes = read_limited(&build.join(FAILED), FAILED_MAX).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (line, command) = text.split_once('\n')?;
    let line: Option<u32> = line.parse().ok();
    let text = match command.trim_end() {
        "" => script.lines().nth(line?.checked_sub(1)? as usize)?.trim(),
        command => command,
    };
    Some(FailedCommand {
        text: text.to_owned(),
        line,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    use super::*;

    const DIFF: &str = "--- a/greeting\n+++ b/greeting\n@@ -1 +1 @@\n-hello\n+hello, settings\n";
    const PATCH: &str = "--- x/greeting\n+++ x/greeting\n@@ -1 +1 @@\n-hello, settings\n+hello, patched settings\n";
    const ZERO: &str = "--- added\n+++ added\n@@ -0,0 +1 @@\n+new\n";

    /// Runs a script on a source with these files in the given shell; gives the directory and whether it ended well.
    fn run(shell: &str, files: &[(&str, &str)], has_debian_patches: bool, script: &str) -> (tempfile::TempDir, bool) {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        for (path, text) in files {
            fs::create_dir_all(source.join(path).parent().unwrap()).unwrap();
            fs::write(source.join(path), text).unwrap();
        }
        fs::create_dir_all(&source).unwrap();
        fs::write(dir.path().join("script"), script).unwrap();
        let script = quoted(dir.path().join("script"));
        let runner = dir.path().join("run");
        let build = dir.path().display().to_string();
        fs::write(&runner, text(shell == "bash", has_debian_patches, &script, &build)).unwrap();
        let mut command = Command::new(shell);
        let status = command
            .arg(runner)
            .current_dir(&source)
            .env("SOURCE_DATE_EPOCH", "315532800")
            .output()
            .unwrap();
        (dir, status.status.success())
    }

    #[test]
    fn debian_patches_are_applied_in_order_and_leave_no_new_times() {
        let series = "# comment\n\nfirst.patch # why\nsub/second.patch -p0\n";
        let files = [
            ("greeting", "hello\n"),
            ("debian.diff", DIFF),
            ("debian/patches/series", series),
            ("debian/patches/first.patch", PATCH),
            ("debian/patches/sub/second.patch", ZERO),
        ];
        for shell in ["bash", "sh"] {
            let (dir, ended_well) = run(shell, &files, true, "test -f added");
            assert!(ended_well, "{shell}");
            let greeting = dir.path().join("source/greeting");
            assert_eq!(fs::read_to_string(&greeting).unwrap(), "hello, patched settings\n");
            assert_eq!(fs::metadata(&greeting).unwrap().mtime(), 315_532_800);
            assert!(!dir.path().join("source/greeting.orig").exists());
            let (dir, ended_well) = run(shell, &files, false, "true");
            assert!(ended_well);
            assert_eq!(
                fs::read_to_string(dir.path().join("source/greeting")).unwrap(),
                "hello\n"
            );
        }
    }

    #[test]
    fn a_patch_that_does_not_fit_is_a_failure() {
        for shell in ["bash", "sh"] {
            let (_, ended_well) = run(shell, &[("greeting", "bye\n"), ("debian.diff", DIFF)], true, "true");
            assert!(!ended_well, "{shell}");
        }
    }

    #[test]
    fn the_innermost_failing_command_is_told() {
        for (script, command) in [
            ("true\nfalse\n", Some(("false", 2))),
            (
                "f() {\n  ls /missing >$X\n}\nX=/dev/null\nf\n",
                Some(("ls /missing > $X", 2)),
            ),
            (
                "if true; then\n  (cd /; test -e missing)\nfi\n",
                Some(("test -e missing", 2)),
            ),
            ("true\n  false | true\n", Some(("false | true", 2))),
            ("exit 3", None),
            ("if false; then true; fi; false || true", None),
        ] {
            let (dir, _) = run("bash", &[], false, script);
            let expected = command.map(|(text, line)| FailedCommand {
                text: text.to_owned(),
                line: Some(line),
            });
            assert_eq!(failed_command(dir.path(), script), expected, "{script}");
        }
    }

    #[test]
    fn paths_are_one_word_for_a_shell() {
        assert_eq!(quoted(Path::new("/a b/c'd$")), r"'/a b/c'\''d$'");
    }
}
