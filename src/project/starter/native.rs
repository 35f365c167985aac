//! The starters of what is written in C or C++, or is built by a script of its own.

use super::Detected;
use crate::shell_word;

/// The program that an empty directory gets.
pub(super) const HELLO: &str =
    "#include <stdio.h>\n\nint main(void) {\n    puts(\"Hello from layerize.\");\n    return 0;\n}\n";

/// The package's part of the spec.
pub(super) fn package(name: &str, found: &Detected) -> String {
    let (tools, script) = recipe(name, found);
    let tools: Vec<String> = tools.iter().map(|tool| format!("\"deb:{tool}\"")).collect();
    let unknown = match found {
        Detected::Other => "# Nothing here says how it is built: write the script, and name its tools.\n",
        _ => "",
    };
    format!(
        "{unknown}[package.{name}]\n\
         # What is here, without what .gitignore leaves out and what layerize itself writes.\n\
         source = {{ path = \".\" }}\n\
         # Needed by the build only: Debian packages.\n\
         tools = [{tools}]\n\
         # Linked against: what the program really uses becomes part of the image.\n\
         libraries = [\"deb:libc6-dev\"]\n\
         # Run in a sandbox without network, in a copy of the source. What is below $out is kept.\n\
         script = \"\"\"\n{script}\"\"\"\n",
        tools = tools.join(", "),
    )
}

/// The Debian packages that are needed, and the script.
fn recipe(name: &str, found: &Detected) -> (Vec<&'static str>, String) {
    let of_c = |compiler: &str, files: &str| format!("mkdir -p $out/bin\n{compiler} -O2 -o $out/bin/{name} {files}\n");
    let make = "make -j$LAYERIZE_CORES\nmake install\n";
    match found {
        Detected::Nothing => (vec!["gcc"], of_c("gcc", "hello.c")),
        Detected::C { files, cpp: false } => (vec!["gcc"], of_c("gcc", &quoted(files))),
        Detected::C { files, cpp: true } => (vec!["g++"], of_c("g++", &quoted(files))),
        Detected::Configure => (vec!["gcc", "make"], format!("./configure --prefix=$out\n{make}")),
        Detected::Autotools => (
            vec!["autoconf", "automake", "libtool", "pkgconf", "gcc", "make"],
            format!("autoreconf --install\n./configure --prefix=$out\n{make}"),
        ),
        Detected::CMake => (
            vec!["cmake", "g++", "make"],
            "cmake -B build -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=$out\n\
             cmake --build build -j$LAYERIZE_CORES\ncmake --install build\n"
                .to_owned(),
        ),
        Detected::Meson => (
            vec!["meson", "ninja-build", "g++", "pkgconf"],
            "meson setup build --prefix=$out --buildtype=release\nninja -C build -j$LAYERIZE_CORES\n\
             ninja -C build install\n"
                .to_owned(),
        ),
        Detected::Make { installs: true } => (
            vec!["gcc", "make"],
            "make -j$LAYERIZE_CORES\nmake install PREFIX=$out prefix=$out\n".to_owned(),
        ),
        Detected::Make { installs: false } => (
            vec!["gcc", "make"],
            format!(
                "make -j$LAYERIZE_CORES\n# The Makefile has no target `install`: the program is put where it \
                 belongs here.\nmkdir -p $out/bin\ncp {name} $out/bin/\n"
            ),
        ),
        Detected::Python { .. }
        | Detected::PythonLocked { .. }
        | Detected::Rust(_)
        | Detected::Go(_)
        | Detected::Node(_)
        | Detected::Other => (
            vec![],
            format!("mkdir -p $out/bin\necho 'write how {name} is built' >&2\nexit 1\n"),
        ),
    }
}

/// Names as words of a shell.
fn quoted(names: &[String]) -> String {
    let plain = |name: &String| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._+-/".contains(&byte))
    };
    let word = |name: &String| match plain(name) && !name.starts_with('-') {
        true => name.clone(),
        false => format!("./{}", shell_word::quoted(name)),
    };
    names.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_of_the_shell() {
        let names = ["a.c", "b c.c", "it's.c", "-x.c"].map(str::to_owned);
        assert_eq!(quoted(&names), r"a.c ./'b c.c' ./'it'\''s.c' ./'-x.c'");
    }
}
