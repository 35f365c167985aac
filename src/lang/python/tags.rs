//! *Tags* say which interpreters and platforms a wheel is for (PEP 425, 600); they are in its file's name (PEP 427).
//!
//! Invariant: the order of a target's tags is that of Python's own installers, the best first.

use crate::spec::normal_python_name;

/// What wheels are chosen for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Version of the interpreter: `(3, 11)`.
    pub(super) python: (u32, u32),
    /// Its version with all numbers.
    pub(super) full: String,
    /// Version of the C library.
    pub(super) glibc: (u32, u32),
    /// The kernel's name of the machine.
    pub(super) machine: String,
}

/// Older names of platforms, by the version of the C library that they stand for.
const LEGACY: &[(u32, &str)] = &[(17, "manylinux2014"), (12, "manylinux2010"), (5, "manylinux1")];

impl Target {
    /// The platforms, the best first.
    fn platforms(&self) -> Vec<String> {
        let oldest = match self.machine.as_str() {
            "x86_64" | "i686" => 5,
            _ => 17,
        };
        let mut platforms = Vec::new();
        for minor in (oldest..=self.glibc.1).rev() {
            platforms.push(format!("manylinux_2_{minor}_{}", self.machine));
            let legacy = LEGACY.iter().find(|(version, _)| *version == minor);
            platforms.extend(legacy.map(|(_, name)| format!("{name}_{}", self.machine)));
        }
        platforms.push(format!("linux_{}", self.machine));
        platforms
    }

    /// All tags, the best first.
    pub(super) fn tags(&self) -> Vec<String> {
        let (major, minor) = self.python;
        let own = format!("cp{major}{minor}");
        let platforms = self.platforms();
        let mut tags = Vec::new();
        let mut add = |python: &str, abi: &str| {
            tags.extend(platforms.iter().map(|platform| format!("{python}-{abi}-{platform}")));
        };
        add(&own, &own);
        add(&own, "abi3");
        add(&own, "none");
        for older in (2..minor).rev() {
            add(&format!("cp{major}{older}"), "abi3");
        }
        let pure = |minor: u32| format!("py{major}{minor}");
        let generic: Vec<String> = [pure(minor), format!("py{major}")]
            .into_iter()
            .chain((0..minor).rev().map(pure))
            .collect();
        for python in &generic {
            add(python, "none");
        }
        tags.push(format!("{own}-none-any"));
        tags.extend(generic.iter().map(|python| format!("{python}-none-any")));
        tags
    }

    /// The tags as a message shows them.
    pub(super) fn shown(&self) -> String {
        let ((major, minor), (libc, machine)) = (self.python, (self.glibc.1, &self.machine));
        format!(
            "cp{major}{minor}, abi3 of cp{major}2 to cp{major}{minor}, and py{major}-none, for manylinux up to 2_{libc} \
             on {machine}, or for any platform"
        )
    }
}

/// What the name of a wheel's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WheelName {
    /// The project, as names are compared.
    pub(super) project: String,
    /// Number of the build; higher is better.
    pub(super) build: (u64, String),
    /// All tags.
    tags: Vec<String>,
}

impl WheelName {
    /// Reads `NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl`.
    pub(super) fn parse(file: &str) -> Option<Self> {
        let stem = file.strip_suffix(".whl")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+!".contains(c);
        if !stem.chars().all(plain) || stem.starts_with('.') {
            return None;
        }
        let parts: Vec<&str> = stem.split('-').collect();
        let (project, build, [pythons, abis, platforms]) = match *parts.as_slice() {
            [project, _, a, b, c] => (project, "", [a, b, c]),
            [project, _, build, a, b, c] => (project, build, [a, b, c]),
            _ => return None,
        };
        let mut tags = Vec::new();
        for python in pythons.split('.') {
            for abi in abis.split('.') {
                tags.extend(
                    platforms
                        .split('.')
                        .map(|platform| format!("{python}-{abi}-{platform}")),
                );
            }
        }
        let digits = build.len() - build.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        Some(Self {
            project: normal_python_name(project),
            build: (build[..digits].parse().unwrap_or(0), build[digits..].to_owned()),
            tags,
        })
    }

    /// How far down it is among `tags`.
    pub(super) fn rank(&self, tags: &[String]) -> Option<usize> {
        tags.iter().position(|tag| self.tags.contains(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best<'a>(target: &Target, files: &[&'a str]) -> Option<&'a str> {
        let tags = target.tags();
        let ranked = files
            .iter()
            .filter_map(|file| Some((WheelName::parse(file)?.rank(&tags)?, *file)));
        ranked.min().map(|(_, file)| file)
    }

    #[test]
    fn the_best_wheel_is_the_one_that_pip_takes() {
        let target = Target {
            python: (3, 11),
            full: "3.11.2".to_owned(),
            glibc: (2, 36),
            machine: "x86_64".to_owned(),
        };
        let newer = "x-1-cp311-cp311-manylinux_2_39_x86_64.whl";
        let modern = "x-1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl";
        let old = "x-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl";
        let stable = "x-1-cp39-abi3-manylinux_2_17_x86_64.whl";
        let future = "x-1-cp312-abi3-manylinux_2_17_x86_64.whl";
        let program = "x-1-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl";
        let pure = "x-1-py2.py3-none-any.whl";
        let others = [
            newer,
            future,
            "x-1-cp311-cp311-musllinux_1_2_x86_64.whl",
            "x-1-cp311-cp311-manylinux_2_17_aarch64.whl",
            "x-1-cp312-cp312-manylinux_2_17_x86_64.whl",
            "x-1-cp311-cp311-win_amd64.whl",
            "x-1-pp310-pypy310_pp73-manylinux_2_17_x86_64.whl",
            "x-1-py2-none-any.whl",
        ];
        let mut files: Vec<&str> = others.to_vec();
        assert_eq!(best(&target, &files), None);
        for file in [pure, program, stable, old, modern] {
            files.insert(0, file);
            assert_eq!(best(&target, &files), Some(file));
        }
        let arm = Target {
            machine: "aarch64".to_owned(),
            ..target
        };
        assert_eq!(
            best(&arm, &[old, "x-1-cp311-cp311-manylinux_2_17_aarch64.whl"]),
            Some("x-1-cp311-cp311-manylinux_2_17_aarch64.whl")
        );
    }

    #[test]
    fn names_of_files_are_read_or_refused() {
        let read = WheelName::parse("My_Thing-1.0-12ab-py3-none-any.whl").unwrap();
        assert_eq!((read.project.as_str(), read.build), ("my-thing", (12, "ab".to_owned())));
        for file in [
            "x-1.tar.gz",
            "x-1-py3-none.whl",
            "../x-1-py3-none-any.whl",
            "x-1-py3-none-any.whl.zip",
            ".whl",
        ] {
            assert_eq!(WheelName::parse(file), None, "{file}");
        }
    }
}
