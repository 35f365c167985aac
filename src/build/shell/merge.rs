//! Several builds' surroundings made *one*, for a shell that has them all.
//!
//! Invariant: what two parts want otherwise is told and never decided: a variable, a place below `/build`, a Debian package.

use std::collections::BTreeMap;

use super::{Activation, BuildError, ShellPart};
use crate::build::emulation::{Foreigner, emulator_of};
use crate::derive::{Input, Script};
use crate::execution::Execution;
use crate::sandbox::emulator::Emulator;
use crate::store::Store;
use crate::store_path::StorePath;

/// Parts of a shell that cannot be had together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is `{first_value}` for `{first}` and `{second_value}` for `{second}`")]
pub struct ShellConflict {
    /// What both have: "the variable `CC`".
    pub what: String,
    /// The part that comes first.
    pub first: String,
    /// What it is there.
    pub first_value: String,
    /// The part that comes later.
    pub second: String,
    /// What it is there.
    pub second_value: String,
}

/// All parts in one.
pub(super) struct Merged {
    /// What the user calls them together.
    pub name: String,
    /// A script with all their inputs, each by its store path.
    pub script: Script,
    /// The store path of each input.
    pub paths: BTreeMap<Input, StorePath>,
    /// What is there because one of them asked for it.
    pub own: Vec<StorePath>,
    /// What is run first.
    pub activations: Vec<Activation>,
}

impl Merged {
    /// What runs the programs where they are for another processor.
    pub(super) fn emulator(&self, store: &Store) -> Option<Emulator> {
        let script = Foreigner {
            label: &self.name,
            system: &self.script.system,
            emulator: self.script.emulator.as_ref(),
            is_build: true,
        };
        emulator_of(Execution::Emulated, script, store, &self.paths)
    }
}

/// Puts the parts together; `parts` must not be empty.
pub(super) fn merge(parts: &[ShellPart]) -> Result<Merged, BuildError> {
    let mut merged = Merged {
        name: parts
            .iter()
            .map(|part| part.name.as_str())
            .collect::<Vec<_>>()
            .join("+"),
        script: Script::default(),
        paths: BTreeMap::new(),
        own: Vec::new(),
        activations: parts.iter().filter_map(|part| part.activate.clone()).collect(),
    };
    let mut said = Said::default();
    for part in parts {
        let path = |input: &Input| part.paths.get(input).cloned();
        let resolved = |inputs: &[Input]| inputs.iter().filter_map(path).map(Input::Path).collect::<Vec<_>>();
        let (script, from) = (&mut merged.script, &part.script);
        if script.system.is_empty() {
            script.system.clone_from(&from.system);
            script.target.clone_from(&from.target);
        }
        // What is for two machines has no compiler in common.
        let machines = format!("{} on {}", from.target(), from.system);
        said.say("the machine that programs are made for", &machines, &part.name)?;
        if script.emulator.is_none() {
            script.emulator = from.emulator.as_ref().and_then(path).map(Input::Path);
        }
        for (name, value) in &from.env {
            said.say(&format!("the variable `{name}`"), value, &part.name)?;
            script.env.insert(name.clone(), value.clone());
        }
        for (name, input) in &part.debs {
            let found = path(input).map(|path| path.to_string()).unwrap_or_default();
            said.say(&format!("`deb:{name}`"), &found, &part.name)?;
        }
        for (kind, own, all) in [
            ("the variable", &from.variables, &mut script.variables),
            ("what is at", &from.mounts, &mut script.mounts),
        ] {
            for (name, input) in own {
                let Some(path) = path(input) else { continue };
                said.say(&format!("{kind} `{name}`"), &path.to_string(), &part.name)?;
                all.insert(name.clone(), Input::Path(path));
            }
        }
        for (own, all) in [
            (&from.root, &mut script.root),
            (&from.tools, &mut script.tools),
            (&from.libraries, &mut script.libraries),
            (&from.runtime, &mut script.runtime),
        ] {
            let new: Vec<Input> = resolved(own).into_iter().filter(|input| !all.contains(input)).collect();
            all.extend(new);
        }
        for (input, declared) in &from.declared {
            let Some(path) = path(input) else { continue };
            let declared = declared.iter().filter_map(path_of(part)).map(Input::Path);
            script.declared.entry(Input::Path(path)).or_default().extend(declared);
        }
        merged.own.extend(part.own.iter().chain(&from.tools).filter_map(path));
    }
    let all = merged.script.inputs().into_iter().cloned();
    let paths = all.filter_map(|input| match &input {
        Input::Path(path) => Some((input.clone(), path.clone())),
        Input::Step(_) => None,
    });
    merged.paths = paths.collect();
    Ok(merged)
}

fn path_of(part: &ShellPart) -> impl Fn(&Input) -> Option<StorePath> + '_ {
    |input| part.paths.get(input).cloned()
}

/// What parts have said, and who did so first.
#[derive(Default)]
struct Said(BTreeMap<String, (String, String)>);

impl Said {
    fn say(&mut self, what: &str, value: &str, part: &str) -> Result<(), BuildError> {
        let first = self
            .0
            .entry(what.to_owned())
            .or_insert_with(|| (value.to_owned(), part.to_owned()));
        match first.0 == value {
            true => Ok(()),
            false => Err(BuildError::ShellConflict(Box::new(ShellConflict {
                what: what.to_owned(),
                first: first.1.clone(),
                first_value: first.0.clone(),
                second: part.to_owned(),
                second_value: value.to_owned(),
            }))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, env: &[(&str, &str)], root: &[StorePath]) -> ShellPart {
        let inputs: Vec<Input> = (0..root.len()).map(Input::Step).collect();
        ShellPart {
            name: name.to_owned(),
            script: Script {
                env: env
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
                root: inputs.clone(),
                ..Script::default()
            },
            own: Vec::new(),
            debs: root
                .iter()
                .zip(&inputs)
                .map(|(path, input)| (path.name().to_owned(), input.clone()))
                .collect(),
            paths: inputs.into_iter().zip(root.iter().cloned()).collect(),
            activate: None,
        }
    }

    fn path(digit: char, name: &str) -> StorePath {
        format!("{}-{name}", digit.to_string().repeat(32)).parse().unwrap()
    }

    #[test]
    fn what_parts_share_is_there_once_and_what_they_differ_in_is_an_error() {
        let (libc, zlib, other) = (path('0', "libc"), path('1', "zlib"), path('2', "zlib"));
        let a = part("a", &[("CC", "gcc"), ("A", "1")], &[libc.clone(), zlib.clone()]);
        // The same input number stands for another path in another plan.
        let b = part("b", &[("CC", "gcc"), ("B", "2")], std::slice::from_ref(&zlib));
        let merged = merge(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(merged.name, "a+b");
        assert_eq!(merged.script.root, [Input::Path(libc), Input::Path(zlib)]);
        assert_eq!(merged.script.env.len(), 3);
        let text = |parts: &[ShellPart]| merge(parts).err().unwrap().to_string();
        let clang = part("c", &[("CC", "clang")], &[]);
        assert_eq!(
            text(&[a.clone(), b.clone(), clang]),
            "the variable `CC` is `gcc` for `a` and `clang` for `c`"
        );
        let error = text(&[b, part("d", &[], &[other])]);
        assert!(
            error.starts_with("`deb:zlib` is `1111") && error.ends_with("-zlib` for `d`"),
            "{error}"
        );
    }
}
