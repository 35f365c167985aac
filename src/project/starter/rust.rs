//! The starter of a Rust project.

use super::compiled;
use crate::lang::ProjectSurvey;

/// What is built of a lock file, and by what.
const RUST: &str = "# The crates of Cargo.lock, a compiler of Debian's, and `cargo build`: `layerize help languages` says more.\n\
                    rust = {}\n";

/// The package's part of the spec.
pub(super) fn package(name: &str, found: &ProjectSurvey) -> String {
    compiled(name, RUST, found)
}

#[cfg(test)]
mod tests {
    use super::super::tests::starter;

    #[test]
    fn a_rust_project_starts_its_first_program() {
        let lock = "version = 4\n[[package]]\nname = \"openssl-sys\"\nversion = \"0.9.0\"\n\
                    source = \"registry+https://h.invalid/rust-lang/crates.io-index\"\n\
                    checksum = \"3bd1574e617a9a6c1f8f8181bd7e841e1f20e4277607ef28945765188d6284d4\"\n";
        let manifest = "[package]\nname = \"api\"\ndefault-run = \"serve\"\n[[bin]]\nname = \"serve\"\n\
                        path = \"serve.rs\"\n[[bin]]\nname = \"admin\"\npath = \"admin.rs\"\n";
        let (_dir, starter) = starter(&[("Cargo.toml", manifest), ("Cargo.lock", lock)]);
        let spec = starter.spec();
        for part in [
            "rust = {}",
            "\"deb:libc6-dev\", \"deb:libssl-dev\"",
            "# The others: admin.",
            "entrypoint = [\"serve\"]",
        ] {
            assert!(spec.contains(part), "{part}: {spec}");
        }
        crate::spec::parse(&spec).unwrap_or_else(|error| panic!("{}", error.render(false)));
    }
}
