//! The starters of Python: of a project with a lock file, and of a single program.

use std::collections::BTreeSet;
use std::path::Path;

use super::{FILE_BYTES_MAX, LOCK_BYTES_MAX};
use crate::fsio::{self, PathError};

/// The image of a program.
pub(super) fn program(name: &str, file: &str) -> String {
    format!(
        "[image.{name}]\n\
         # Debian packages laid out at /, with what they depend on, what their maintainer scripts make, and nothing\n\
         # else.\n\
         root = [\"deb:python3\"]\n\
         entrypoint = [\"/usr/bin/python3\", \"/app/{file}\"]\n\
         # cmd = [\"--help\"]\n# ports = [8080]\n# users = {{ app = 1000 }}\n# user = \"app\"\n\n\
         [image.{name}.files]\n\
         \"/app/{file}\" = \"{file}\"\n"
    )
}

/// Package and image of a project with a lock file.
pub(super) fn locked(name: &str, lock: &str, command: &[String]) -> String {
    // The servers that are recognised listen there by themselves.
    let ports = match command.first().map(String::as_str) {
        Some("uvicorn" | "gunicorn") => "ports = [8000]\n",
        _ => "# ports = [8000]\n",
    };
    let command: Vec<String> = command.iter().map(|word| format!("\"{word}\"")).collect();
    let command = command.join(", ");
    format!(
        "[package.{name}]\n\
         # What is here, without what .gitignore leaves out and what layerize itself writes.\n\
         source = {{ path = \".\" }}\n\
         # The wheels that the lock file pins, each a store path of its own, and the modules of the source.\n\
         python = {{ lock = \"{lock}\" }}\n\n\
         [image.{name}]\n\
         # The interpreter, and the library of C++ that many wheels need.\n\
         root = [\"deb:python3\", \"deb:libstdc++6\"]\n\
         contents = [\"{name}\"]\n\
         entrypoint = [{command}]\n\
         {ports}# cmd = [\"--help\"]\n# users = {{ app = 1000 }}\n# user = \"app\"\n"
    )
}

/// What a Python project runs: its own command, a server of the application that a module has, or a module.
pub(super) fn command(dir: &Path, lock: &str) -> Result<Vec<String>, PathError> {
    let text = |path: &str| -> Result<String, PathError> {
        let path = dir.join(path);
        match path.is_file() {
            true => Ok(String::from_utf8_lossy(&fsio::read_limited(&path, FILE_BYTES_MAX)?).into_owned()),
            false => Ok(String::new()),
        }
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let plain = |word: &str| {
        let ends = |c: char| c.is_ascii_alphanumeric() || c == '_';
        word.starts_with(ends) && word.chars().all(|c| ends(c) || "-.".contains(c))
    };
    let manifest: toml::Table = toml::from_str(&text("pyproject.toml")?).unwrap_or_default();
    let project = manifest.get("project").and_then(toml::Value::as_table);
    let name = project.and_then(|project| project.get("name")?.as_str());
    let scripts = project.and_then(|project| project.get("scripts")?.as_table());
    let scripts: Vec<&str> = scripts
        .into_iter()
        .flat_map(|scripts| scripts.keys())
        .map(String::as_str)
        .collect();
    let own = scripts.iter().find(|script| Some(**script) == name).or(scripts.first());
    if let Some(own) = own.filter(|own| plain(own)) {
        return Ok(words(&[own]));
    }
    let locked = fsio::read_limited(&dir.join(lock), LOCK_BYTES_MAX)?;
    let locked = String::from_utf8_lossy(&locked);
    let required = |line: &str, name: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with("=="));
    let has =
        |name: &str| locked.contains(&format!("name = \"{name}\"")) || locked.lines().any(|line| required(line, name));
    let modules = [
        "main", "app", "app/main", "src/main", "src/app", "server", "wsgi", "asgi",
    ];
    for module in modules {
        let text = text(&format!("{module}.py"))?;
        let dotted = module.strip_prefix("src/").unwrap_or(module).replace('/', ".");
        let object = |class: &str| {
            let call = format!("= {class}(");
            text.lines()
                .find_map(|line| line.split_once(&call))
                .map(|(object, _)| object.trim().to_owned())
        };
        let is_asgi = object("FastAPI").or_else(|| object("Starlette"));
        if let Some(object) = is_asgi.filter(|object| has("uvicorn") && plain(object)) {
            return Ok(words(&["uvicorn", "--host", "0.0.0.0", &format!("{dotted}:{object}")]));
        }
        if let Some(object) = object("Flask").filter(|object| has("gunicorn") && plain(object)) {
            return Ok(words(&[
                "gunicorn",
                "--bind",
                "0.0.0.0:8000",
                &format!("{dotted}:{object}"),
            ]));
        }
        if !text.is_empty() {
            return Ok(words(&["python", "-m", &dotted]));
        }
    }
    let module = name
        .filter(|name| plain(name))
        .unwrap_or("app")
        .replace(['-', '.'], "_");
    Ok(words(&["python", "-m", &module]))
}

/// The lock file of a Python project; requirements without hashes are none.
pub(super) fn lock_file(dir: &Path, names: &BTreeSet<String>) -> Result<Option<&'static str>, PathError> {
    let has = |name: &str| names.contains(name);
    if let Some(lock) = ["uv.lock", "pylock.toml"].into_iter().find(|name| has(name)) {
        return Ok(Some(lock));
    }
    let requirements = "requirements.txt";
    if !has(requirements) {
        return Ok(None);
    }
    let text = fsio::read_limited(&dir.join(requirements), LOCK_BYTES_MAX)?;
    Ok(String::from_utf8_lossy(&text)
        .contains("--hash")
        .then_some(requirements))
}

#[cfg(test)]
mod tests {
    use super::super::tests::starter;

    #[test]
    fn a_locked_python_project_runs_its_command_or_what_its_modules_are() {
        let manifest = "[project]\nname = \"web\"\nscripts = { admin = \"web:admin\", web = \"web:main\" }\n";
        let (fastapi, flask) = ("name = \"uvicorn\"\n", "name = \"gunicorn\"\n");
        for (files, command) in [
            (vec![("uv.lock", ""), ("pyproject.toml", manifest)], "\"web\""),
            (
                vec![("uv.lock", fastapi), ("main.py", "api = FastAPI(title=1)\n")],
                "\"uvicorn\", \"--host\", \"0.0.0.0\", \"main:api\"",
            ),
            (
                vec![("pylock.toml", flask), ("app.py", "app = Flask(__name__)\n")],
                "\"gunicorn\", \"--bind\", \"0.0.0.0:8000\", \"app:app\"",
            ),
            (
                vec![("uv.lock", ""), ("main.py", "print()\n")],
                "\"python\", \"-m\", \"main\"",
            ),
            (vec![("uv.lock", "")], "\"python\", \"-m\", \"app\""),
            (
                vec![
                    ("requirements.txt", "gunicorn==1 --hash=sha256:00\n"),
                    ("wsgi.py", "app = Flask(__name__)\n"),
                ],
                "\"gunicorn\", \"--bind\", \"0.0.0.0:8000\", \"wsgi:app\"",
            ),
        ] {
            let (_dir, starter) = starter(&files);
            let text = starter.spec();
            assert!(text.contains(&format!("entrypoint = [{command}]")), "{text}");
            let workspace = crate::spec::parse(&text).unwrap_or_else(|error| panic!("{}", error.render(false)));
            assert!(workspace.packages.values().all(|package| package.language.is_some()));
        }
    }
}
