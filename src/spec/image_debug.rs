//! A *debug image* is a second image of a spec's image: all of its layers, and above them tools, debug files and sources.
//!
//! Invariant: it is the first one in all that the spec says but its names, and that the first one's tests are not run again;
//! the first one does not know of it, and so cannot depend on it.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::checks;
use super::diagnostics::Diagnostic;
use super::keys;
use super::package::dependencies;
use super::reader::{Reader, Table};
use super::types::{DEBIAN_DEBUG, DebugImage, Dependency, Image, Spanned};

/// What is added to an image's name, and to its tag unless that is `latest`.
const SUFFIX: &str = "debug";

/// The tag of images that name none.
const LATEST: &str = "latest";

/// `debug = true`, or `{ tools = ["deb:NAME"] }`: the Debian packages of the tools, sorted; `None` where there is to be no
/// debug image.
pub(super) fn read(reader: &mut Reader<'_>, image: &Table<'_>) -> Option<Spanned<Vec<String>>> {
    let field = image.get("debug")?;
    let with = |tools| Spanned {
        value: tools,
        span: field.key_span.clone(),
    };
    let default = || DEBIAN_DEBUG.iter().map(|name| (*name).to_owned()).collect();
    if matches!(field.value, DeValue::Boolean(_)) {
        return reader.flag(&field)?.then(default).map(with);
    }
    let table = reader.table(&field, field.title(), keys::DEBUG.iter().collect())?;
    let Some(list) = table.get("tools") else {
        return Some(with(default()));
    };
    if matches!(list.value, DeValue::Array(elements) if elements.is_empty()) {
        let diagnostic = Diagnostic::new(format!("{} is empty", list.title()))
            .at(list.span, "names no tool")
            .help("leave `tools` out for a shell, gdb, strace and a few more, or name Debian packages");
        reader.error(diagnostic);
        return None;
    }
    let mut tools = Vec::new();
    for dependency in dependencies(reader, &table, "tools") {
        match dependency.value {
            Dependency::Debian(name) => tools.push(name),
            other => reader.error(
                Diagnostic::new(format!("`{other}` cannot be a tool of a debug image"))
                    .at(dependency.span, "not a Debian package")
                    .help("write `deb:NAME`"),
            ),
        }
    }
    tools.sort();
    Some(with(tools))
}

/// Refuses debug images whose names others have, or that would be too long.
pub(super) fn check(
    reader: &mut Reader<'_>,
    images: &BTreeMap<String, Image>,
    debug: &BTreeMap<String, Spanned<Vec<String>>>,
) {
    for (name, tools) in debug {
        let Some(image) = images.get(name) else { continue };
        let own = debug_name(name);
        if let Some(other) = images.get(&own) {
            let diagnostic = Diagnostic::new(format!(
                "the debug image of `{name}` is called as another image: `{own}`"
            ))
            .at(other.name.span.clone(), "called so already")
            .note_at(tools.span.clone(), "the debug image is asked for here")
            .help("rename one of the two images");
            reader.error(diagnostic);
        }
        for (what, checked) in [
            ("name", checks::image_name(&own)),
            ("tag", checks::tag(&debug_tag(&image.tag)).map(drop)),
        ] {
            if let Err(complaint) = checked {
                let message = format!(
                    "the debug image of `{name}` cannot have its {what}: {}",
                    complaint.label
                );
                let diagnostic = Diagnostic::new(message).at(tools.span.clone(), "asked for here");
                reader.error(diagnostic.help(format!("shorten the image's {what}")));
            }
        }
    }
}

/// The images, and those of them that are debug images of others.
pub(super) fn with_debug_images(
    mut images: BTreeMap<String, Image>,
    debug: BTreeMap<String, Spanned<Vec<String>>>,
) -> BTreeMap<String, Image> {
    for (name, tools) in debug {
        let Some(image) = images.get(&name) else { continue };
        let second = Image {
            name: Spanned {
                value: debug_name(&name),
                span: image.name.span.clone(),
            },
            tag: debug_tag(&image.tag),
            debug: Some(DebugImage {
                of: name,
                tools: tools.value,
            }),
            tests: Vec::new(),
            ..image.clone()
        };
        images.insert(second.name.value.clone(), second);
    }
    images
}

/// What the debug image of an image is called where images are named.
fn debug_name(image: &str) -> String {
    format!("{image}-{SUFFIX}")
}

/// The tag that tells it from the first one in a registry, where both have one name: `app:debug`, `app:1.2-debug`.
fn debug_tag(tag: &str) -> String {
    match tag {
        LATEST => SUFFIX.to_owned(),
        _ => format!("{tag}-{SUFFIX}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn errors(text: &str) -> String {
        parse(text).unwrap_err().render(false)
    }

    #[test]
    fn a_debug_image_is_a_second_one_with_names_of_its_own() {
        for (tag, expected) in [
            ("", "debug"),
            ("tag = \"latest\"\n", "debug"),
            ("tag = \"1.2\"\n", "1.2-debug"),
        ] {
            let text = format!("[image.\"x/app\"]\n{tag}root = [\"deb:nginx\"]\nuser = \"www\"\ndebug = true\n");
            let workspace = parse(&text).unwrap();
            let (first, second) = (&workspace.images["x/app"], &workspace.images["x/app-debug"]);
            assert_eq!(second.tag, expected);
            assert_eq!(
                (first.reference(), second.reference().starts_with("x/app:")),
                (format!("x/app:{}", first.tag), true)
            );
            let debug = second.debug.as_ref().unwrap();
            assert_eq!((debug.of.as_str(), debug.tools.len()), ("x/app", DEBIAN_DEBUG.len()));
            let as_first = Image {
                name: first.name.clone(),
                tag: first.tag.clone(),
                debug: None,
                ..second.clone()
            };
            assert_eq!(as_first, *first);
            let plain = parse(&text.replace("debug = true\n", "")).unwrap();
            assert_eq!(plain.images["x/app"], *first);
            assert_eq!(plain.images.len(), 1);
        }
        let none = parse("[image.app]\nroot = [\"deb:nginx\"]\ndebug = false\n").unwrap();
        assert_eq!(none.images.len(), 1);
    }

    #[test]
    fn tools_are_debian_packages_of_the_user_s_choice() {
        let image = "[image.app]\nroot = [\"deb:nginx\"]\n";
        let parsed = parse(&format!(
            "{image}debug = {{ tools = [\"deb:strace\", \"deb:bash\"] }}\n"
        ))
        .unwrap();
        assert_eq!(
            parsed.images["app-debug"].debug.as_ref().unwrap().tools,
            ["bash", "strace"]
        );
        let parsed = parse(&format!("{image}debug = {{}}\n")).unwrap();
        assert_eq!(parsed.images["app-debug"].debug.as_ref().unwrap().tools, DEBIAN_DEBUG);
        for (debug, expected) in [
            ("debug = { tools = [] }", "names no tool"),
            ("debug = { tools = [\"hello\"] }", "write `deb:NAME`"),
            ("debug = { tool = [\"deb:gdb\"] }", "`tools`"),
            ("debug = \"yes\"", "`debug`"),
        ] {
            let text = errors(&format!("{image}{debug}\n"));
            assert!(text.contains(expected), "{debug}: {text}");
        }
    }

    #[test]
    fn names_that_are_taken_or_too_long_are_refused() {
        let text = errors("[image.app]\nroot = [\"deb:a\"]\ndebug = true\n[image.app-debug]\nroot = [\"deb:b\"]\n");
        assert!(text.contains("called as another image: `app-debug`"), "{text}");
        let text = errors(&format!(
            "[image.{}]\nroot = [\"deb:a\"]\ndebug = true\n",
            "x".repeat(125)
        ));
        assert!(text.contains("longer than 128"), "{text}");
        let text = errors(&format!(
            "[image.a]\ntag = \"{}\"\nroot = [\"deb:a\"]\ndebug = true\n",
            "x".repeat(125)
        ));
        assert!(text.contains("cannot have its tag"), "{text}");
    }
}
