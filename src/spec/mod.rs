//! A *spec* is what the user wrote: packages and images in `layerize.toml`; a *lock* pins its outside inputs.
//!
//! Invariant: pure (texts in, values or diagnostics out); every value that can be wrong keeps its place in
//! the file, and all errors of a file are reported at once.
//!
//! A text goes through four stages: `file` takes TOML's spanned tree apart by the tables of `keys` and the
//! `checks` of single values; [`load()`] follows imports; `names` looks every name up; then packages get their
//! qualified names and the [`Workspace`] is whole.

mod certificates;
mod checks;
mod cross;
mod current;
mod diagnostics;
mod file;
mod git;
mod health;
mod image;
mod image_debian;
mod image_debug;
mod image_entries;
mod image_files;
mod imported;
mod keys;
mod language;
mod load;
pub mod lock;
mod machine;
mod names;
mod needs;
mod package;
mod platforms;
mod reader;
mod schema;
mod syntax;
mod trial;
mod types;

pub use certificates::{CERTIFICATES_DEB, Certificates, OwnCertificate};
pub use checks::{did_you_mean, parse_size};
pub use cross::{
    cross_debs, cross_sets, cross_shell_debs, is_crossed, is_hidden_by, machine_tools, sets_for, wants_cross,
};
pub use current::{LockScope, lock_is_current};
pub use diagnostics::{Diagnostic, Diagnostics, Note};
pub use git::{GitAddress, GitCommit, GitRef, GitSource, GitTree, GitWanted, LfsPointers, NamedTree};
pub use health::{HealthCheck, HealthProbe};
pub use image_entries::*;
pub use imported::{ImportedSpec, check_imported};
pub use language::{
    GO_DEB, GoOptions, Language, LanguageOptions, NodeOmit, NodeOptions, PYTHON_STEP_DEBS, PythonBuildTool,
    PythonOptions, RustOptions, escaped_go_path, is_npm_name, normal_python_name,
};
pub use load::{FILE_NAME, load, parse, spec_path};
pub use lock::{
    ACCOUNT_NUMBERS, Golden, GoldenKey, Lock, LockedArchive, LockedBase, LockedDeb, LockedDebSource, LockedFile,
    LockedGit, LockedNix, LockedPlatform, LockedPython, LockedTree, LockedUrl,
};
pub(crate) use machine::machine;
pub use machine::{emulator_debs, emulator_name, emulator_programs, gnu_triplet, own_machine, system, wants_emulator};
pub(crate) use needs::package_names;
pub use needs::{
    GLIBC_DEB, UTF8_DEB, ZONE_DEB, base_debs, build_debs, certificate_debs, contents_debs, deb_sets, deb_sources, debs,
    debug_files, debug_sets, git_sources, linked_packages, locale_debs, locked_sets, nix_contents, root_debs,
    shell_debs, tool_debs, unpinned_urls, utf8_debs, wants_authorities, wants_scripts,
};
pub use platforms::{architectures, home_architecture, machine_architecture};
pub use schema::schema;
pub use trial::{Expectation, HttpExpectation, ImageTest, Pattern};
pub use types::*;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_spec() {
        crate::testing::fuzz("spec", |bytes| {
            if let Err(errors) = super::parse(&String::from_utf8_lossy(bytes)) {
                let _ = (errors.render(false), errors.to_json());
            }
        });
    }

    #[test]
    fn fuzz_lock() {
        crate::testing::fuzz("lock", |bytes| {
            match super::lock::parse(&String::from_utf8_lossy(bytes)) {
                Ok(lock) => drop(super::lock::print(&lock)),
                Err(errors) => drop(errors.render(false)),
            }
        });
    }
}
