//! The keys of `[package.NAME]`, and of what it is made from.
//!
//! Invariant: as in [the module above](super): these tables are all that a package may hold.

use super::Shape::{Any, Choice, Count, Flag, Many, Map, Table, Text};
use super::{Key, TEXTS, also, key, required};

/// `[package.NAME]`.
pub(in crate::spec) const PACKAGE: &[Key] = &[
    key("version", Text, "The output is named `NAME-VERSION`."),
    also(
        key(
            "source",
            Any(&[
                Text,
                Table(SOURCE_PATH),
                Table(SOURCE_URL),
                Table(SOURCE_GIT),
                Table(SOURCE_DEBIAN),
            ]),
            "What is built: unpacked into the build's working directory; a string is a path.",
        ),
        &["src", "url", "path"],
    ),
    also(
        key(
            "rust",
            Table(RUST),
            "Built by Cargo with the crates that its lock file pins; `tools` and `script` may be left out.",
        ),
        &["cargo", "crate"],
    ),
    also(
        key(
            "python",
            Table(PYTHON),
            "An environment of the wheels that its lock file pins, and its own modules; `tools` and `script` may be left out.",
        ),
        &["uv", "pip", "wheels"],
    ),
    also(
        key(
            "go",
            Table(GO),
            "Built by Go with the modules that go.sum pins; `tools` and `script` may be left out.",
        ),
        &["golang", "gomod"],
    ),
    also(
        key(
            "node",
            Table(NODE),
            "Its sources beside the packages that its lock file pins, laid out as npm lays them; `tools` and `script` may be left out.",
        ),
        &["npm", "nodejs", "javascript"],
    ),
    also(
        key("tools", TEXTS, "Needed while building only."),
        &["nativeBuildInputs", "build-tools", "build-depends"],
    ),
    also(
        key(
            "libraries",
            TEXTS,
            "Linked against; what the output really uses stays in its closure.",
        ),
        &["buildInputs", "libs", "dependencies", "depends", "deps"],
    ),
    also(
        key("runtime", TEXTS, "In the closure whether or not the output names them."),
        &["propagatedBuildInputs", "run-depends"],
    ),
    also(
        key("dev", TEXTS, "In `layerize shell` only."),
        &["dev-dependencies", "shell"],
    ),
    also(
        key("env", Map(&Text), "Variables of the build."),
        &["environment", "vars"],
    ),
    also(
        key(
            "script",
            Text,
            "Run by the shell in the sandbox; writes to `$out`. Without it the package is its source.",
        ),
        &["build", "run", "command", "buildPhase"],
    ),
    key("timeout", Text, "Longest time the script may run: `30m`, `1h30m`."),
    also(
        key(
            "cache",
            Table(CACHE),
            "What is kept from one run of the script to the next, to make it faster; no digest depends on it.",
        ),
        &["build-cache", "ccache"],
    ),
    also(
        key(
            "no-references",
            TEXTS,
            "Dependencies of this package that its closure may not hold: that it does is an error.",
        ),
        &["disallowedReferences", "disallowedRequisites", "forbid-references"],
    ),
    also(
        key(
            "strip-references",
            TEXTS,
            "Dependencies of this package whose store paths are taken out of what it made: `e` stands for each character of their hashes.",
        ),
        &["remove-references", "nuke-references", "removeReferencesTo"],
    ),
    key(
        "base",
        Flag,
        "Whether Debian's small shell environment is among the tools (default true).",
    ),
    also(
        key(
            "cross",
            Flag,
            "Whether it is compiled for another platform by tools of the machine that builds (default: as `[build]` says).",
        ),
        &["cross-compile", "crossCompile"],
    ),
];

/// `cache = { … }`.
pub(in crate::spec) const CACHE: &[Key] = &[required(also(
    key(
        "dirs",
        TEXTS,
        "Directories below `/build`, empty for the first run; `layerize check` compares the outputs with and without what is in them.",
    ),
    &["dir", "directories", "paths", "path"],
))];

/// The keys of a package that name its language; it has one of them.
pub(in crate::spec) const LANGUAGES: &[&str] = &["rust", "python", "go", "node"];

/// `rust = { … }`.
pub(in crate::spec) const RUST: &[Key] = &[
    also(
        key(
            "lock",
            Text,
            "The lock file, relative to the source (default `Cargo.lock`).",
        ),
        &["lockfile", "cargoLock"],
    ),
    key("features", TEXTS, "Features that are switched on."),
    key(
        "default-features",
        Flag,
        "Whether default features are on (default true).",
    ),
    also(
        key(
            "packages",
            TEXTS,
            "Members of the workspace that are built; default: its default members.",
        ),
        &["package", "members"],
    ),
    also(
        key("bins", TEXTS, "Programs that are built and installed; default: all."),
        &["bin"],
    ),
    key("profile", Text, "Cargo's profile (default `release`)."),
    key(
        "incremental",
        Flag,
        "Whether dependencies are compiled in a step of their own, which an edit of the package leaves as it is (default true).",
    ),
];

/// `python = { … }`.
pub(in crate::spec) const PYTHON: &[Key] = &[
    also(
        key(
            "lock",
            Text,
            "The lock file, relative to the source: `uv.lock`, `pylock.toml` or requirements with hashes (default: what is there, in this order).",
        ),
        &["lockfile", "requirements"],
    ),
    also(
        key("groups", TEXTS, "Dependency groups that are installed too."),
        &["group", "dependency-groups"],
    ),
    also(
        key("extras", TEXTS, "Extras of the project that are installed too."),
        &["extra"],
    ),
    also(
        key(
            "project",
            Text,
            "The member of a workspace that is installed; default: the project beside the lock file.",
        ),
        &["package", "member"],
    ),
    also(
        key(
            "paths",
            TEXTS,
            "Directories of the source in which its modules are; default: `src` where the project has it, else the source.",
        ),
        &["path", "src"],
    ),
    also(
        key(
            "build",
            Map(&TEXTS),
            "What projects are built with that are to be taken as source distributions, by their names: `deb:NAME`, and projects that the lock file pins.",
        ),
        &["build-requires", "sdist", "sdists"],
    ),
];

/// `go = { … }`.
pub(in crate::spec) const GO: &[Key] = &[
    also(
        key(
            "lock",
            Text,
            "The module's `go.sum`, or the workspace's `go.work.sum`, relative to the source (default: the one beside `go.mod`, or `go.work`).",
        ),
        &["lockfile", "sum", "go-sum"],
    ),
    also(
        key(
            "packages",
            TEXTS,
            "What is built, as `go build` takes it: `./cmd/serve` (default: all programs of the module).",
        ),
        &["package", "subPackages", "main"],
    ),
    also(key("tags", TEXTS, "Build tags that are on."), &["tag", "build-tags"]),
    also(
        key("ldflags", Text, "Flags of the linker: `-s -w -X main.version=1.2`."),
        &["link-flags"],
    ),
    also(
        key(
            "cgo",
            Flag,
            "Whether C is compiled and linked with (default: where a package outside Go's own library has C).",
        ),
        &["cgo-enabled", "CGO_ENABLED"],
    ),
    also(
        key(
            "toolchain",
            Text,
            "What has Go: a package whose output has `bin/go`, or a Debian package (default `deb:golang-go`).",
        ),
        &["go", "compiler"],
    ),
    key(
        "incremental",
        Flag,
        "Whether Go's own library and what is depended on are compiled in steps of their own, which an edit of the package leaves as they are (default true).",
    ),
];

/// `node = { … }`.
pub(in crate::spec) const NODE: &[Key] = &[
    also(
        key(
            "lock",
            Text,
            "The lock file, relative to the source (default: `npm-shrinkwrap.json` or `package-lock.json`, the first that is there).",
        ),
        &["lockfile", "package-lock"],
    ),
    key(
        "omit",
        Many(&Choice(NODE_OMIT)),
        "Kinds of dependencies that are not part of the package (default `[\"dev\"]`).",
    ),
    also(
        key(
            "build",
            Text,
            "The script of `package.json` that is run to build it; default: none.",
        ),
        &["run"],
    ),
    also(
        key(
            "scripts",
            TEXTS,
            "Packages whose install scripts are run; default: those of none.",
        ),
        &[
            "install-scripts",
            "allow-scripts",
            "onlyBuiltDependencies",
            "trustedDependencies",
        ],
    ),
];

/// What `omit` of a Node project may name.
pub(in crate::spec) const NODE_OMIT: &[&str] = &["dev", "optional", "peer"];

/// `source = { path = … }`.
pub(in crate::spec) const SOURCE_PATH: &[Key] = &[
    required(also(
        key("path", Text, "A file or directory, relative to this file."),
        &["dir", "directory", "file"],
    )),
    key(
        "include",
        TEXTS,
        "Gitignore-style patterns; only what matches one is taken.",
    ),
    also(
        key("exclude", TEXTS, "Gitignore-style patterns of what is left out."),
        &["ignore"],
    ),
    key(
        "gitignore",
        Flag,
        "Whether `.gitignore` files are honoured (default true).",
    ),
];

/// `source = { url = … }`.
pub(in crate::spec) const SOURCE_URL: &[Key] = &[
    required(also(
        key("url", Text, "`https:`, `http:` or `file:` address of a file."),
        &["uri", "href"],
    )),
    also(
        key(
            "sha256",
            Text,
            "SHA-256 of the file: 64 hexadecimal digits, or `sha256-` and base 64; without it the lock pins it.",
        ),
        &["hash", "digest", "checksum", "sha"],
    ),
    also(
        key("unpack", Flag, "Whether to unpack the file; default: by its name."),
        &["extract"],
    ),
    key(
        "redistribute",
        Flag,
        "Whether the file may be copied to a registry with the other inputs (default true).",
    ),
    also(
        key(
            "strip",
            Count(0, 64),
            "Leading directories to drop; default 1 if all entries share one, else 0.",
        ),
        &["strip-components"],
    ),
];

/// `source = { git = … }`.
pub(in crate::spec) const SOURCE_GIT: &[Key] = &[
    required(also(
        key(
            "git",
            Text,
            "Where the repository is: `https:`, `http:`, `ssh:`, `git:` or `file:`, `USER@HOST:PATH`, or a path relative to this file.",
        ),
        &["repository", "repo", "remote"],
    )),
    also(
        key(
            "rev",
            Text,
            "A commit, all its digits, or the name of a tag or branch; default: the repository's `HEAD`. The lock pins the commit and the hash of its tree.",
        ),
        &["commit", "revision", "ref", "version"],
    ),
    key("tag", Text, "A tag; one that was moved is told."),
    key(
        "branch",
        Text,
        "A branch; `layerize lock --update NAME` takes its newest commit.",
    ),
    also(
        key(
            "submodules",
            Flag,
            "Whether submodules are part of the tree, or empty directories (default true).",
        ),
        &["fetchSubmodules", "recursive", "recurse-submodules"],
    ),
    also(
        key(
            "lfs",
            Flag,
            "Whether the files of Git LFS stand in place of their pointers, or the pointers stay; where it is not said, a pointer is an error.",
        ),
        &["fetchLFS"],
    ),
    key(
        "redistribute",
        Flag,
        "Whether the tree may be copied to a registry with the other inputs (default true).",
    ),
];

/// `source = { deb-source = … }`.
pub(in crate::spec) const SOURCE_DEBIAN: &[Key] = &[required(also(
    key("deb-source", Text, "Name of a Debian source package."),
    &["debian-source", "deb-src", "deb"],
))];
