//! What a script is told of its *target*, the machine that it makes programs for: the names of compilers, and where build systems
//! find the target's libraries.
//!
//! Invariant: a function of the root and of both machines. Where the two are one, the same names lead to the machine's own
//! tools, so that one script suits all platforms; and nothing is said there that would change what build systems do.

use crate::derive::Script;
use crate::fsio::PathError;
use crate::spec::gnu_triplet;

use super::link::multiarch;
use super::rootfs::Root;

/// Where files for build systems are, relative to the root.
const FILES: &str = "usr/share/layerize";

/// The newest release of a compiler whose name is looked for, and the oldest.
const RELEASES: [u32; 2] = [30, 8];

/// Variables of tools of GNU's, and the names of these behind the machine's.
const TOOLS: [(&str, &str); 12] = [
    ("AR", "ar"),
    ("AS", "as"),
    ("CC", "gcc"),
    ("CXX", "g++"),
    ("FC", "gfortran"),
    ("LD", "ld"),
    ("NM", "nm"),
    ("OBJCOPY", "objcopy"),
    ("OBJDUMP", "objdump"),
    ("RANLIB", "ranlib"),
    ("READELF", "readelf"),
    ("STRIP", "strip"),
];

/// What a machine is called by those who compile for it.
struct Names {
    gnu: &'static str,
    multiarch: &'static str,
    /// Rust's name, as `rustc --target` takes it.
    rust: &'static str,
    /// Go's `GOARCH`, and what further decides what Go compiles.
    go: (&'static str, Option<(&'static str, &'static str)>),
    /// The kernel's name, as CMake takes it, and the family and order of bytes, as Meson takes them.
    kernel: &'static str,
    meson: (&'static str, &'static str),
}

impl Names {
    fn of(system: &str) -> Option<Self> {
        let machine = system.strip_suffix("-linux")?;
        let (rust, go, further, kernel, family, order) = match machine {
            "x86_64" => ("x86_64-unknown-linux-gnu", "amd64", None, "x86_64", "x86_64", "little"),
            "aarch64" => (
                "aarch64-unknown-linux-gnu",
                "arm64",
                None,
                "aarch64",
                "aarch64",
                "little",
            ),
            "armv5tel" => (
                "armv5te-unknown-linux-gnueabi",
                "arm",
                Some(("GOARM", "5")),
                "armv5tel",
                "arm",
                "little",
            ),
            "armv7l" => (
                "armv7-unknown-linux-gnueabihf",
                "arm",
                Some(("GOARM", "7")),
                "armv7l",
                "arm",
                "little",
            ),
            "i686" => ("i686-unknown-linux-gnu", "386", None, "i686", "x86", "little"),
            "loongarch64" => (
                "loongarch64-unknown-linux-gnu",
                "loong64",
                None,
                "loongarch64",
                "loongarch64",
                "little",
            ),
            "powerpc64le" => (
                "powerpc64le-unknown-linux-gnu",
                "ppc64le",
                None,
                "ppc64le",
                "ppc64",
                "little",
            ),
            "riscv64" => (
                "riscv64gc-unknown-linux-gnu",
                "riscv64",
                None,
                "riscv64",
                "riscv64",
                "little",
            ),
            "s390x" => ("s390x-unknown-linux-gnu", "s390x", None, "s390x", "s390x", "big"),
            _ => return None,
        };
        Some(Self {
            gnu: gnu_triplet(machine)?,
            multiarch: multiarch(system)?,
            rust,
            go: (go, further),
            kernel,
            meson: (family, order),
        })
    }
}

/// The variables of `script`, which says for what it is; none where it does not. What they name is put into the root.
pub(super) fn variables(script: &Script, root: &Root) -> Result<Vec<(String, String)>, PathError> {
    let Some((target, own)) = script
        .target
        .as_deref()
        .and_then(Names::of)
        .zip(Names::of(&script.system))
    else {
        return Ok(Vec::new());
    };
    let mut found = vec![
        ("build_triplet".to_owned(), own.gnu.to_owned()),
        ("host_triplet".to_owned(), target.gnu.to_owned()),
    ];
    let tools = tools(root, target.gnu, own.gnu);
    found.extend(tools.iter().map(|(name, tool)| ((*name).to_owned(), tool.clone())));
    if script.is_cross() {
        found.extend(cross_variables(root, &target, &own, &tools)?);
    } else if root.has("usr/bin/pkg-config") {
        found.push(("PKG_CONFIG".to_owned(), "pkg-config".to_owned()));
    }
    Ok(found)
}

/// A program of the root by its name, else by that of its newest release.
fn program(root: &Root, name: &str) -> Option<String> {
    let releases = (RELEASES[1]..=RELEASES[0]).rev();
    let mut named = std::iter::once(name.to_owned()).chain(releases.map(|release| format!("{name}-{release}")));
    named.find(|name| root.has(&format!("usr/bin/{name}")))
}

/// The tools that there are for a machine. LLVM's compilers compile for every machine: where there are these and no GCC for the
/// machine that compiles, they are meant, and GCC's for the target are there for their libraries.
fn tools(root: &Root, triplet: &str, own: &str) -> Vec<(&'static str, String)> {
    let tools = TOOLS.iter().filter_map(|(variable, tool)| {
        let gnu = program(root, &format!("{triplet}-{tool}"));
        let clang = match *variable {
            "CC" => program(root, "clang"),
            "CXX" => program(root, "clang++"),
            _ => None,
        };
        let has_own = || {
            program(root, tool)
                .or_else(|| program(root, &format!("{own}-{tool}")))
                .is_some()
        };
        let found = match clang {
            Some(clang) if gnu.is_none() || !has_own() => Some(format!("{clang} --target={triplet}")),
            _ => gnu,
        };
        Some((*variable, found?))
    });
    tools.collect()
}

fn cross_variables(
    root: &Root,
    target: &Names,
    own: &Names,
    tools: &[(&'static str, String)],
) -> Result<Vec<(String, String)>, PathError> {
    let tool = |name: &str| {
        let found = tools.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, tool)| tool.as_str())
    };
    let mut found: Vec<(&str, String)> = Vec::new();
    // What compiles for the machine that compiles, by the names that build systems have for it.
    for (names, tools) in [
        (["BUILD_CC", "CC_FOR_BUILD", "HOST_CC"], ["gcc", "clang"]),
        (["BUILD_CXX", "CXX_FOR_BUILD", "HOST_CXX"], ["g++", "clang++"]),
    ] {
        if let Some(tool) = tools.iter().find_map(|tool| program(root, tool)) {
            found.extend(names.map(|name| (name, tool.clone())));
        }
    }
    let searched = format!("/usr/lib/{}/pkgconfig:/usr/share/pkgconfig", target.multiarch);
    if root.has("usr/bin/pkg-config") {
        let name = format!("{}-pkg-config", target.gnu);
        let text = format!("#!/bin/sh\nPKG_CONFIG_LIBDIR=${{PKG_CONFIG_LIBDIR-{searched}}} exec pkg-config \"$@\"\n");
        if !root.has(&format!("usr/bin/{name}")) {
            root.fixups.file(&format!("usr/bin/{name}"), &text, 0o755)?;
        }
        found.push(("PKG_CONFIG", name));
    }
    found.push(("PKG_CONFIG_LIBDIR", searched));
    for (variable, file, text) in [
        ("CMAKE_TOOLCHAIN_FILE", "cross.cmake", cmake(target, &tool)),
        ("CONFIG_SITE", "config.site", config_site(target, own)),
        ("MESON_CROSS_FILE", "cross.meson", meson(target, &tool)),
    ] {
        root.fixups.file(&format!("{FILES}/{file}"), &text, 0o644)?;
        found.push((variable, format!("/{FILES}/{file}")));
    }
    found.push(("CARGO_BUILD_TARGET", target.rust.to_owned()));
    let named = target.rust.to_uppercase().replace('-', "_");
    let linker = format!("CARGO_TARGET_{named}_LINKER");
    // It takes no arguments.
    let links = program(root, &format!("{}-gcc", target.gnu));
    found.extend(links.map(|program| (linker.as_str(), program)));
    found.extend([("GOOS", "linux".to_owned()), ("GOARCH", target.go.0.to_owned())]);
    found.extend(target.go.1.map(|(name, value)| (name, value.to_owned())));
    Ok(found
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

/// A toolchain file of CMake's. Libraries are found where the compiler says that it looks.
fn cmake<'a>(target: &Names, tool: &dyn Fn(&str) -> Option<&'a str>) -> String {
    let mut text = format!(
        "set(CMAKE_SYSTEM_NAME Linux)\nset(CMAKE_SYSTEM_PROCESSOR {})\nset(CMAKE_LIBRARY_ARCHITECTURE {})\n",
        target.kernel, target.multiarch
    );
    for (variable, name) in [("C", "CC"), ("CXX", "CXX"), ("ASM", "CC"), ("Fortran", "FC")] {
        let Some(tool) = tool(name) else { continue };
        let (program, arguments) = tool.split_once(' ').unwrap_or((tool, ""));
        text.push_str(&format!("set(CMAKE_{variable}_COMPILER {program})\n"));
        if !arguments.is_empty() {
            text.push_str(&format!("set(CMAKE_{variable}_COMPILER_TARGET {})\n", target.gnu));
        }
    }
    for name in ["AR", "LINKER", "NM", "OBJCOPY", "OBJDUMP", "RANLIB", "READELF", "STRIP"] {
        let variable = if name == "LINKER" { "LD" } else { name };
        if let Some(tool) = tool(variable) {
            text.push_str(&format!("set(CMAKE_{name} /usr/bin/{tool})\n"));
        }
    }
    text.push_str(&format!(
        "set(PKG_CONFIG_EXECUTABLE /usr/bin/{}-pkg-config)\n",
        target.gnu
    ));
    text
}

/// What Autoconf's scripts read first: for whom they configure, where nobody tells them.
fn config_site(target: &Names, own: &Names) -> String {
    format!(
        "if test -z \"$host_alias\"; then\n  host_alias={}\n  : \"${{build_alias:={}}}\"\n  cross_compiling=yes\n  \
         ac_tool_prefix=$host_alias-\nfi\n",
        target.gnu, own.gnu
    )
}

/// A cross file of Meson's.
fn meson<'a>(target: &Names, tool: &dyn Fn(&str) -> Option<&'a str>) -> String {
    let mut text = "[binaries]\n".to_owned();
    for (name, variable) in [
        ("ar", "AR"),
        ("c", "CC"),
        ("cpp", "CXX"),
        ("fortran", "FC"),
        ("nm", "NM"),
        ("objcopy", "OBJCOPY"),
        ("ranlib", "RANLIB"),
        ("strip", "STRIP"),
    ] {
        let Some(tool) = tool(variable) else { continue };
        let words: Vec<String> = tool.split(' ').map(|word| format!("'{word}'")).collect();
        text.push_str(&format!("{name} = [{}]\n", words.join(", ")));
    }
    let (family, order) = target.meson;
    text.push_str(&format!(
        "pkg-config = '{}-pkg-config'\npkgconfig = '{0}-pkg-config'\n",
        target.gnu
    ));
    text.push_str(&format!(
        "[host_machine]\nsystem = 'linux'\ncpu_family = '{family}'\ncpu = '{}'\nendian = '{order}'\n",
        target.kernel
    ));
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The variables of a script in a root that has these programs, and what is in the fix-ups of that.
    fn told(dir: &Path, target: Option<&str>, programs: &[&str]) -> BTreeMap<String, String> {
        let package = dir.join("package");
        for program in programs {
            let path = package.join("usr/bin").join(program);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let root = Root::compose(dir.join("fixups"), &[package]).unwrap();
        let script = Script {
            system: "x86_64-linux".to_owned(),
            target: target.map(str::to_owned),
            ..Script::default()
        };
        variables(&script, &root).unwrap().into_iter().collect()
    }

    #[test]
    fn a_script_is_told_what_compiles_for_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let programs = [
            "gcc",
            "g++",
            "pkg-config",
            "aarch64-linux-gnu-gcc",
            "aarch64-linux-gnu-gcc-12",
            "aarch64-linux-gnu-g++-12",
            "aarch64-linux-gnu-ar",
            "x86_64-linux-gnu-ar",
        ];
        let told = told(dir.path(), Some("aarch64-linux"), &programs);
        for (name, value) in [
            ("build_triplet", "x86_64-linux-gnu"),
            ("host_triplet", "aarch64-linux-gnu"),
            ("CC", "aarch64-linux-gnu-gcc"),
            ("CXX", "aarch64-linux-gnu-g++-12"),
            ("AR", "aarch64-linux-gnu-ar"),
            ("CC_FOR_BUILD", "gcc"),
            ("PKG_CONFIG", "aarch64-linux-gnu-pkg-config"),
            (
                "PKG_CONFIG_LIBDIR",
                "/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig",
            ),
            ("CARGO_BUILD_TARGET", "aarch64-unknown-linux-gnu"),
            ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc"),
            ("GOARCH", "arm64"),
            ("CMAKE_TOOLCHAIN_FILE", "/usr/share/layerize/cross.cmake"),
        ] {
            assert_eq!(told.get(name).map(String::as_str), Some(value), "{name}: {told:?}");
        }
        assert!(
            ["FC", "GOARM", "CGO_ENABLED"]
                .iter()
                .all(|name| !told.contains_key(*name)),
            "{told:?}"
        );
        let read = |file: &str| fs::read_to_string(dir.path().join("fixups").join(file)).unwrap();
        let cmake = read("usr/share/layerize/cross.cmake");
        assert!(
            cmake.contains("set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++-12)\n"),
            "{cmake}"
        );
        assert!(cmake.contains("set(CMAKE_SYSTEM_PROCESSOR aarch64)\n"), "{cmake}");
        assert!(read("usr/share/layerize/cross.meson").contains("cpu_family = 'aarch64'"));
        assert!(read("usr/share/layerize/config.site").contains("host_alias=aarch64-linux-gnu\n"));
        assert!(read("usr/bin/aarch64-linux-gnu-pkg-config").contains("/usr/lib/aarch64-linux-gnu/pkgconfig"));
    }

    /// Where nothing is crossed a script is told names and nothing that build systems would heed; without a target, nothing.
    #[test]
    fn a_script_for_its_own_machine_is_told_its_tools() {
        let dir = tempfile::tempdir().unwrap();
        let programs = ["gcc", "x86_64-linux-gnu-gcc", "pkg-config"];
        let own = told(dir.path(), Some("x86_64-linux"), &programs);
        let expected = [
            ("CC", "x86_64-linux-gnu-gcc"),
            ("PKG_CONFIG", "pkg-config"),
            ("build_triplet", "x86_64-linux-gnu"),
            ("host_triplet", "x86_64-linux-gnu"),
        ];
        assert_eq!(
            own,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
        );
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(told(dir.path(), None, &programs), BTreeMap::new());
    }

    #[test]
    fn llvm_compiles_where_gcc_is_not_there() {
        // What it links with comes with a compiler that nobody asked for.
        let dir = tempfile::tempdir().unwrap();
        let programs = [
            "clang-16",
            "clang++",
            "aarch64-linux-gnu-gcc-12",
            "aarch64-linux-gnu-ar",
        ];
        let beside = told(dir.path(), Some("aarch64-linux"), &programs);
        for (name, value) in [
            ("CC", "clang-16 --target=aarch64-linux-gnu"),
            ("CXX", "clang++ --target=aarch64-linux-gnu"),
            ("AR", "aarch64-linux-gnu-ar"),
            ("CC_FOR_BUILD", "clang-16"),
            (
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
                "aarch64-linux-gnu-gcc-12",
            ),
        ] {
            assert_eq!(beside[name], value, "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        let told = told(dir.path(), Some("armv7l-linux"), &["clang"]);
        assert_eq!(told["CC"], "clang --target=arm-linux-gnueabihf");
        assert_eq!((told["GOARCH"].as_str(), told["GOARM"].as_str()), ("arm", "7"));
        let cmake = fs::read_to_string(dir.path().join("fixups/usr/share/layerize/cross.cmake")).unwrap();
        assert!(
            cmake.contains("set(CMAKE_C_COMPILER clang)\nset(CMAKE_C_COMPILER_TARGET arm-linux-gnueabihf)\n"),
            "{cmake}"
        );
    }

    /// Each machine that Debian has packages for can be compiled for.
    #[test]
    fn every_machine_has_its_names() {
        for architecture in [
            "amd64", "arm64", "armel", "armhf", "i386", "loong64", "ppc64el", "riscv64", "s390x",
        ] {
            let system = format!("{}-linux", crate::spec::machine(architecture));
            assert!(Names::of(&system).is_some(), "{architecture}");
        }
    }
}
