//! The *keys* that a spec may hold: their names, shapes and meaning, table by table.
//!
//! Invariant: the parser and the published JSON Schema both read these tables, so neither knows a key that
//! the other does not.

mod layers;
mod package;

use crate::oci::Platform;

use super::types::{Emulate, Join};
use crate::walls::Walls;
use Shape::{Any, Choice, Count, Flag, Many, Map, Table, Text};

pub(super) use layers::LAYERS;
pub(super) use package::{
    CACHE, GO, LANGUAGES, NODE, NODE_OMIT, PACKAGE, PYTHON, RUST, SOURCE_DEBIAN, SOURCE_GIT, SOURCE_PATH, SOURCE_URL,
};

/// A key of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    /// One sentence for editors.
    pub(super) doc: &'static str,
    /// Names by which other tools call it, for advice.
    pub(super) also: &'static [&'static str],
    pub(super) required: bool,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Text,
    Flag,
    /// An integer from the first to the second.
    Count(i64, i64),
    /// A number from 0 to 1.
    Probability,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// An array.
    Many(&'static Shape),
    /// A table with keys of the user's choice.
    Map(&'static Shape),
    Table(&'static [Key]),
    Any(&'static [Shape]),
}

pub(super) const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key {
        name,
        shape,
        doc,
        also: &[],
        required: false,
    }
}

pub(super) const fn also(key: Key, also: &'static [&'static str]) -> Key {
    Key { also, ..key }
}

pub(super) const fn required(key: Key) -> Key {
    Key { required: true, ..key }
}

/// The largest user or group ID: Docker starts no container with one above 2³¹−1.
pub(super) const ID_MAX: i64 = i32::MAX as i64;

/// The last second that RFC 3339 can write: 9999-12-31T23:59:59Z.
pub(super) const CREATED_MAX: i64 = 253_402_300_799;

/// Most processes that Linux can number.
pub(super) const PROCESSES_MAX: i64 = 1 << 22;

pub(super) const TEXTS: Shape = Many(&Text);

/// The whole file.
pub(super) const ROOT: &[Key] = &[
    also(
        key(
            "imports",
            Map(&Any(&[Text, Table(IMPORT), Table(IMPORT_GIT), Table(IMPORT_URL)])),
            "Other spec files, or projects elsewhere, whose packages are used as `alias:package`.",
        ),
        &["import", "include"],
    ),
    key(
        "debian",
        Table(DEBIAN),
        "Where Debian packages come from, and which of them every build has.",
    ),
    key(
        "build",
        Table(BUILD),
        "What builds may use at most, and what must stand between them and the machine.",
    ),
    key(
        "inputs",
        Table(INPUTS),
        "Where the files that a build takes from outside are kept, and which of them may not be copied.",
    ),
    key(
        "cache",
        Table(SHARED_CACHE),
        "Where what was built is kept for others who build the same, and whose entries there are believed.",
    ),
    also(
        key("package", Map(&Table(PACKAGE)), "What is built, by name."),
        &["packages", "pkg"],
    ),
    also(
        key(
            "image",
            Map(&Table(IMAGE)),
            "Container images made of packages, by name.",
        ),
        &["images", "container"],
    ),
];

/// `[imports] ALIAS = { … }`.
pub(super) const IMPORT: &[Key] = &[required(key(
    "path",
    Text,
    "A folder with a `layerize.toml`, or a `.toml` file, relative to this file.",
))];

/// The directory of a spec in the tree of an import.
const IMPORT_DIR: Key = key(
    "dir",
    Text,
    "The directory in the tree that has the `layerize.toml`; default: the tree itself.",
);

/// `[imports] ALIAS = { git = … }`.
pub(super) const IMPORT_GIT: &[Key] = &[
    SOURCE_GIT[0],
    SOURCE_GIT[1],
    SOURCE_GIT[2],
    SOURCE_GIT[3],
    SOURCE_GIT[4],
    SOURCE_GIT[5],
    SOURCE_GIT[6],
    IMPORT_DIR,
];

/// `[imports] ALIAS = { url = … }`: as a source, and always unpacked.
pub(super) const IMPORT_URL: &[Key] = &[SOURCE_URL[0], SOURCE_URL[1], SOURCE_URL[3], SOURCE_URL[4], IMPORT_DIR];

/// `[build]`.
pub(super) const BUILD: &[Key] = &[
    also(
        key(
            "max-memory",
            Text,
            "Most memory that a script may use: `\"512MiB\"`, `\"8GB\"`; nothing built depends on it.",
        ),
        &["memory", "memory-limit", "mem"],
    ),
    also(
        key(
            "max-processes",
            Count(1, PROCESSES_MAX),
            "Most processes and threads that a script may have at one time; nothing built depends on it.",
        ),
        &["processes", "max-tasks", "pids", "nproc"],
    ),
    also(
        key(
            "require",
            Choice(&Walls::NAMES),
            "The weakest walls that scripts may run behind: `\"namespaces\"`, `\"chroot\"`, `\"traced\"`, `\"builder\"` or `\"none\"`; nothing built depends on it.",
        ),
        &["walls", "sandbox", "isolation"],
    ),
    also(
        key(
            "emulate",
            Choice(&Emulate::NAMES),
            "What may run scripts for another processor: `\"auto\"` (an emulator of the lock, else the machine's), `\"machine\"`, \
             `\"never\"`; nothing built depends on it.",
        ),
        &["emulation", "qemu", "binfmt", "emulator"],
    ),
    also(
        key(
            "cross",
            Flag,
            "Whether packages for another platform are compiled by tools of the machine that builds, unless they say otherwise (default false).",
        ),
        &["cross-compile", "crossCompile"],
    ),
];

/// `[inputs]`.
pub(super) const INPUTS: &[Key] = &[
    also(
        key(
            "from",
            TEXTS,
            "Places asked before mirrors: `docker://NAME`, `oci:DIR`, or a directory, relative to this file.",
        ),
        &["places", "registries", "mirrors"],
    ),
    also(
        key(
            "withhold",
            TEXTS,
            "Debian packages whose files may not be copied to a registry: `deb:NAME`, `deb-source:NAME`.",
        ),
        &["exclude", "no-redistribute", "redistribute"],
    ),
];

/// `[cache]`.
pub(super) const SHARED_CACHE: &[Key] = &[
    also(
        key(
            "from",
            TEXTS,
            "Places asked before anything is built: `docker://HOST/NAME`, `oci:DIR`, `file:DIR` or `https://…`, relative to this file.",
        ),
        &["read", "pull"],
    ),
    also(
        key(
            "to",
            TEXTS,
            "Places that what was built goes to: `docker://HOST/NAME`, `oci:DIR` or `file:DIR`, relative to this file.",
        ),
        &["write", "push"],
    ),
    also(
        key(
            "trusted-keys",
            TEXTS,
            "Whose entries are believed: public keys `NAME:BASE64`, as `layerize store key generate` prints them.",
        ),
        &["keys", "trusted-public-keys", "trust"],
    ),
];

/// `[debian]`.
pub(super) const DEBIAN: &[Key] = &[
    key(
        "sources",
        TEXTS,
        "Apt sources, one-line or deb822; default: those of the machine.",
    ),
    key(
        "keyring",
        Text,
        "Keyring that signs `sources`, a path relative to this file; default: the machine's.",
    ),
    also(
        key(
            "architecture",
            Choice(&Platform::DEBIAN_ARCHITECTURES),
            "Debian's name of the architecture; default: the machine's when the lock is made.",
        ),
        &["arch"],
    ),
    key(
        "snapshots",
        TEXTS,
        "Servers asked for versions that no archive carries any more, with `@SNAPSHOTID@` for the time; beside those that the machine knows.",
    ),
    key(
        "base",
        TEXTS,
        "Replaces the Debian packages that every build has, names without `deb:`.",
    ),
];

/// `[image.NAME]`.
pub(super) const IMAGE: &[Key] = &[
    key("tag", Text, "Tag of the image's name (default `latest`)."),
    also(
        key(
            "contents",
            Many(&Any(&[Text, Table(NIX)])),
            "Packages at their own store paths, joined under `/` by symlinks; `{ nix = \"…\" }` for a path of a Nix store.",
        ),
        &["packages", "content", "from"],
    ),
    also(key("root", TEXTS, "Debian packages laid out at `/`."), &["debs"]),
    key(
        "lay",
        Map(&Text),
        "Node projects by the directory of the image in which they stand as real files, so that layers are split by the packages that they need.",
    ),
    also(
        key(
            "essential",
            Flag,
            "Whether Debian's Essential packages and those of priority `required` are among `root` (default false).",
        ),
        &["essentials", "required", "minbase"],
    ),
    also(
        key(
            "exclude",
            TEXTS,
            "Debian packages that others depend on and that the image does not get, nor what they alone need: `deb:NAME`.",
        ),
        &["without", "excludes"],
    ),
    also(
        key(
            "base",
            Text,
            "The image that this one is laid over: `docker://NAME`, or a place such as `oci:DIR:TAG` relative to this file; pinned in the lock.",
        ),
        &["base-image", "from-image", "parent"],
    ),
    also(
        key(
            "files",
            Map(&Any(&[Text, Table(FILE)])),
            "Further files, by absolute path in the image; a string is a path relative to this file.",
        ),
        &["copy", "add"],
    ),
    also(
        key(
            "users",
            Map(&Any(&[Count(0, ID_MAX), Table(USER)])),
            "Users and their groups, by name; an integer is the ID of both.",
        ),
        &["accounts"],
    ),
    key("entrypoint", TEXTS, "The program and its fixed arguments."),
    also(
        key("cmd", TEXTS, "Arguments that whoever runs the image may replace."),
        &["command", "args"],
    ),
    also(
        key("env", Map(&Text), "Variables of the program."),
        &["environment", "vars"],
    ),
    also(
        key("workdir", Text, "Working directory, absolute."),
        &["working-dir", "working-directory", "cwd"],
    ),
    key(
        "user",
        Text,
        "`user[:group]`, names or numbers, that the program runs as.",
    ),
    also(
        key(
            "ports",
            Many(&Any(&[Count(1, 65535), Text])),
            "Ports it listens on: `80`, `\"53/udp\"`.",
        ),
        &["expose", "exposed-ports"],
    ),
    key("volumes", TEXTS, "Directories, absolute, for data that outlives it."),
    key("labels", Map(&Text), "Labels of the image's config."),
    key("annotations", Map(&Text), "Annotations of the image's manifest."),
    also(
        key("stop-signal", Text, "Signal that asks it to end: `SIGQUIT`."),
        &["stopsignal", "signal"],
    ),
    super::health::HEALTHCHECK,
    also(
        key(
            "tests",
            Map(&Table(super::trial::TEST)),
            "Tests that `layerize test` runs in containers of the image, by name; nothing of the image depends on them.",
        ),
        &["test", "trials"],
    ),
    also(
        key(
            "allow-missing",
            TEXTS,
            "Libraries (`libcuda.so.1`) and interpreters that programs need and that come from elsewhere at run time.",
        ),
        &["ignore-missing", "allow-missing-libraries"],
    ),
    key("layers", Table(LAYERS), "How store paths are put into layers."),
    also(
        key(
            "platform",
            Any(&[Text, TEXTS]),
            "`linux/ARCHITECTURE[/VARIANT]`, or several in an array; default: what the lock's architecture says.",
        ),
        &["arch", "architecture"],
    ),
    also(
        key(
            "compression",
            Text,
            "`gzip[:LEVEL]`, `zstd[:LEVEL]` or `none` (default `gzip`).",
        ),
        &["compress"],
    ),
    also(
        key(
            "permissions",
            Many(&Table(PERMISSION)),
            "Modes, owners and capabilities of what is in the image, store paths included; a later rule wins.",
        ),
        &["perms", "chmod", "chown", "capabilities", "setcap"],
    ),
    also(
        key(
            "created",
            Any(&[Count(0, CREATED_MAX), Text]),
            "Time of the image: seconds since 1970, or `\"2024-12-31T23:59:59Z\"`; default: `SOURCE_DATE_EPOCH`, else 1.",
        ),
        &["timestamp", "date"],
    ),
    also(
        key(
            "debconf",
            Map(&Text),
            "Answers to what the maintainer scripts of `root` ask, by the question's name: `\"package/question\" = \"value\"`.",
        ),
        &["preseed", "answers", "debconf-selections"],
    ),
    also(
        key(
            "locales",
            TEXTS,
            "Locales that are generated, as Debian names them: `en_US.UTF-8`, `de_DE@euro`.",
        ),
        &["locale", "locale-gen"],
    ),
    also(
        key(
            "certificates",
            Any(&[Flag, TEXTS]),
            "Authorities that it trusts: `true` for Debian's, or files in PEM form, relative to this one, for these and your own.",
        ),
        &["certificate", "ca-certificates", "cacerts", "ca"],
    ),
    key(
        "configure",
        Any(&[Flag, Table(CONFIGURE)]),
        "Whether the maintainer scripts of the packages in `root` are run, and how (default true).",
    ),
    also(
        key(
            "debug",
            Any(&[Flag, Table(DEBUG)]),
            "Whether there is a second image `NAME-debug`: the layers of this one, with tools, debug files and sources above them (default false).",
        ),
        &["debugger", "debug-image"],
    ),
    also(
        key(
            "join",
            Choice(&Join::NAMES),
            "What stands at `/`: `contents` alone, or data of their `closure` that libraries look for, too; default: that of libraries that are there.",
        ),
        &["link", "links"],
    ),
    also(
        key(
            "timezone",
            Text,
            "The time zone that programs run in: `Europe/Berlin`; default: UTC.",
        ),
        &["time-zone", "tz", "zone"],
    ),
    also(
        key(
            "utf-8",
            Flag,
            "Whether the locale `C.UTF-8` is there wherever Debian's C library is, and `LANG` says so (default true).",
        ),
        &["utf8", "locale"],
    ),
    also(
        key(
            "nix-db",
            Flag,
            "Whether the image has a Nix database that knows its `/nix/store` paths (default false).",
        ),
        &["nix-database", "initializeNixDatabase", "includeNixDB"],
    ),
];

/// `debug = { … }`.
pub(super) const DEBUG: &[Key] = &[also(
    key(
        "tools",
        TEXTS,
        "Debian packages that the debug image has for whoever looks into it: `deb:NAME` (default: a shell, gdb, strace and more).",
    ),
    &["packages", "contents"],
)];

/// `configure = { … }`.
pub(super) const CONFIGURE: &[Key] = &[key("skip", TEXTS, "Packages whose scripts are not run.")];

/// `permissions = [{ … }]`.
pub(super) const PERMISSION: &[Key] = &[
    key("path", Text, "An absolute path in the image."),
    also(
        key(
            "pattern",
            Text,
            "Absolute paths: `*` is any part of a name, `**` of a path, `?` one character.",
        ),
        &["regex", "glob"],
    ),
    also(
        key(
            "mode",
            Any(&[Text, Count(0, 0o7777)]),
            "Permission bits, octal: `\"0644\"` or `0o644`; by pattern, directories can be entered by who may read them.",
        ),
        &["permissions", "chmod"],
    ),
    also(
        key("owner", Any(&[Text, Count(0, ID_MAX)]), "Name or ID of the owner."),
        &["user", "uid", "uname", "chown"],
    ),
    also(
        key("group", Any(&[Text, Count(0, ID_MAX)]), "Name or ID of the group."),
        &["gid", "gname"],
    ),
    also(
        key(
            "capabilities",
            TEXTS,
            "Capabilities of regular files, as for `setcap`: `[\"cap_net_bind_service=ep\"]`; `[]`: none.",
        ),
        &["caps", "setcap", "xattrs"],
    ),
];

/// `contents = [{ nix = … }]`.
pub(super) const NIX: &[Key] = &[required(also(
    key(
        "nix",
        Text,
        "`/nix/store/HASH-NAME`, or a link that leads there, such as `result`, relative to this file.",
    ),
    &["path", "nix-store", "drv"],
))];

/// `files = { "/…" = { … } }`.
pub(super) const FILE: &[Key] = &[
    also(
        key("source", Text, "A file or tree, relative to this file."),
        &["src", "path", "file"],
    ),
    also(key("text", Text, "The file's content."), &["content", "contents"]),
    also(
        key("symlink", Text, "Target of a symlink."),
        &["link", "target", "symlink-to"],
    ),
    also(
        key("directory", Flag, "`true` for an empty directory."),
        &["dir", "mkdir"],
    ),
    also(
        key(
            "mode",
            Any(&[Text, Count(0, 0o7777)]),
            "Permission bits, octal: `\"0644\"` or `0o644`.",
        ),
        &["permissions", "chmod"],
    ),
    also(
        key("owner", Any(&[Text, Count(0, ID_MAX)]), "Name or ID of the owner."),
        &["user", "uid", "chown"],
    ),
    also(
        key("group", Any(&[Text, Count(0, ID_MAX)]), "Name or ID of the group."),
        &["gid"],
    ),
];

/// `users = { NAME = { … } }`.
pub(super) const USER: &[Key] = &[
    required(also(key("uid", Count(0, ID_MAX), "Numeric user ID."), &["id"])),
    key(
        "gid",
        Count(0, ID_MAX),
        "Numeric group ID (default: the same as `uid`).",
    ),
    also(
        key("home", Text, "Home directory, absolute (default `/`)."),
        &["home-dir"],
    ),
    key("shell", Text, "Login shell, absolute (default `/sbin/nologin`)."),
];

#[cfg(test)]
mod tests;
