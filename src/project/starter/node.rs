//! The starter of a Node project with a lock file.

use crate::lang::NodeSurvey;

/// Package and image.
pub(super) fn spec(name: &str, found: &NodeSurvey) -> String {
    let build = match found.builds {
        true => "{ build = \"build\" }",
        false => "{}",
    };
    // What starts it has the package's own name.
    let program = match found.programs.first().filter(|_| !found.starts) {
        Some(first) => first,
        None => name,
    };
    let others: Vec<&str> = found
        .programs
        .iter()
        .map(String::as_str)
        .filter(|other| *other != program)
        .collect();
    let others = match others.as_slice() {
        [] => String::new(),
        others => format!("# Its other programs: {}.\n", others.join(", ")),
    };
    format!(
        "[package.{name}]\n\
         # What is here, without what .gitignore leaves out and what layerize itself writes.\n\
         source = {{ path = \".\" }}\n\
         # The packages that the lock file pins, laid out as npm lays them: `layerize help languages` says more.\n\
         node = {build}\n\n\
         [image.{name}]\n\
         # Node, and nothing of npm.\n\
         root = [\"deb:nodejs\"]\n\
         # Real files in a directory of the image: of the layers only those move whose packages changed.\n\
         lay = {{ \"/app\" = \"{name}\" }}\n\
         {others}entrypoint = [\"{program}\"]\n\
         env = {{ NODE_ENV = \"production\" }}\n\
         # cmd = [\"--help\"]\n# ports = [3000]\n# users = {{ app = 1000 }}\n# user = \"app\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::starter;

    #[test]
    fn a_node_project_is_started_as_npm_starts_it_or_by_its_program() {
        let with_start = r#"{"name":"@own/web","scripts":{"start":"node a.js","build":"b"},"bin":{"admin":"b.js"}}"#;
        for (manifest, parts) in [
            (
                with_start,
                &["build = \"build\"", "entrypoint = [\"thing\"]", "programs: admin."] as &[&str],
            ),
            (
                r#"{"name":"@own/web","bin":"b.js"}"#,
                &["node = {}", "entrypoint = [\"web\"]"],
            ),
            ("{", &["node = {}", "entrypoint = [\"thing\"]"]),
        ] {
            let (_dir, starter) = starter(&[("package.json", manifest), ("package-lock.json", "{}")]);
            let spec = starter.spec();
            for part in parts {
                assert!(spec.contains(part), "{part}: {spec}");
            }
            crate::spec::parse(&spec).unwrap_or_else(|error| panic!("{}", error.render(false)));
        }
    }
}
