//! The recipes for CI: what `layerize help ci` shows is what is run here, against a registry on loopback with users.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::registry::registry;
use crate::served::{Demands, PASSWORD, USER};
use crate::shared_builds::{Builder, summary};
use crate::support::{LAYERIZE, Place, Ran};

/// The files with recipes.
const RECIPES: [&str; 3] = ["push", "github.yml", "gitlab.yml"];

fn recipe(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/ci");
    fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn the_manual_shows_the_recipes_as_they_are() {
    let place = Place::new();
    let shown = place.run(&["help", "ci"]).success().stdout;
    for name in RECIPES {
        let text = recipe(name);
        let lines = text.lines().map(|line| {
            if line.is_empty() {
                "\n".to_owned()
            } else {
                format!("    {line}\n")
            }
        });
        assert!(
            shown.contains(&format!("\n\n{}\n", lines.collect::<String>())),
            "{name}:\n{shown}"
        );
    }
}

/// A job of a recipe.
struct Job {
    shell: Vec<&'static str>,
    script: String,
    variables: Vec<(&'static str, String)>,
}

/// The jobs of all recipes, for an image below `team` on this host.
fn jobs(host: &str, builder: &Builder, dir: &Path) -> Vec<(&'static str, Job)> {
    let (team, secret) = (format!("{host}/team"), builder.secret.display().to_string());
    let text = |text: &str| text.to_owned();
    let here = dir.display().to_string();
    let key = ("CACHE_KEY", builder.public.clone());
    let shell = Job {
        shell: vec!["sh"],
        script: recipe("push"),
        variables: vec![
            ("REGISTRY", format!("{team}/shell")),
            ("REGISTRY_USER", text(USER)),
            ("REGISTRY_TOKEN", text(PASSWORD)),
            ("COMMIT", text("c0ffee")),
            ("CACHE_SECRET", secret.clone()),
            key.clone(),
        ],
    };
    let yaml: Value = serde_yaml_ng::from_str(&recipe("github.yml")).unwrap();
    let steps = yaml["jobs"]["push"]["steps"].as_array().unwrap();
    let run = |name: &str| {
        let step = steps.iter().find(|step| step["name"] == name).unwrap();
        step["run"].as_str().unwrap().to_owned()
    };
    let github = Job {
        shell: vec!["bash", "-eo", "pipefail"],
        script: format!(
            "{}. \"$GITHUB_ENV\"; export REGISTRY_AUTH_FILE\n{}",
            run("log in"),
            run("push")
        ),
        variables: vec![
            ("REGISTRY", format!("{team}/github")),
            ("CACHE", format!("docker://{team}/github/cache")),
            ("ACTOR", text(USER)),
            ("TOKEN", text(PASSWORD)),
            ("COMMIT", text("c0ffee")),
            ("CACHE_SECRET", fs::read_to_string(&secret).unwrap()),
            ("RUNNER_TEMP", here.clone()),
            ("GITHUB_ENV", format!("{here}/github.env")),
            key.clone(),
        ],
    };
    let yaml: Value = serde_yaml_ng::from_str(&recipe("gitlab.yml")).unwrap();
    let lines = yaml["push"]["script"].as_array().unwrap().iter();
    let lines: Vec<&str> = lines.map(|line| line.as_str().unwrap()).collect();
    let gitlab = Job {
        shell: vec!["bash", "-eo", "pipefail"],
        script: lines.join("\n"),
        variables: vec![
            ("CI_REGISTRY", text(host)),
            ("CI_REGISTRY_IMAGE", format!("{team}/gitlab")),
            ("CI_REGISTRY_USER", text(USER)),
            ("CI_REGISTRY_PASSWORD", text(PASSWORD)),
            ("CI_COMMIT_SHA", text("c0ffee")),
            ("CI_PROJECT_DIR", format!("{here}/gitlab")),
            ("CACHE", format!("docker://{team}/gitlab/cache")),
            ("CACHE_SECRET", secret),
            key,
        ],
    };
    vec![("shell", shell), ("github", github), ("gitlab", gitlab)]
}

impl Job {
    fn run(&self, place: &Place) -> Ran {
        let mut command = Command::new(self.shell[0]);
        command.args(&self.shell[1..]).arg("-c").arg(&self.script);
        place.prepare(&mut command);
        let bin = Path::new(LAYERIZE).parent().unwrap().display();
        command.env("PATH", format!("{bin}:/usr/local/bin:/usr/bin:/bin"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Ran::of(command.output().unwrap())
    }
}

#[test]
fn each_recipe_pushes_and_a_machine_that_kept_nothing_builds_nothing() {
    let builder = Builder::new();
    let spec = fs::read_to_string(builder.place.project.join("layerize.toml")).unwrap();
    builder
        .place
        .write("layerize.toml", &spec.replace("[image.app]", "[image.web]"));
    let demands = Demands {
        user: true,
        ..Demands::default()
    };
    let Some(registry) = registry(&builder.place, demands) else {
        return;
    };
    let temporary = builder.place.path().join("runner");
    fs::create_dir(&temporary).unwrap();
    let mut digests = Vec::new();
    let configure = |place: &Place| {
        let dir = place.path().join("config/layerize");
        let text = format!("[registries.\"{}\"]\ncredentials-over-http = true\n", registry.host);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.toml"), text).unwrap();
    };
    configure(&builder.place);
    for (name, job) in jobs(&registry.host, &builder, &temporary) {
        let first = job.run(&builder.place).success();
        assert!(
            first.stdout.contains(&format!("team/{name}/web:c0ffee")),
            "{}",
            first.stdout
        );
        let fresh = builder.place.elsewhere();
        configure(&fresh);
        let second = job.run(&fresh).success().says(&["nothing is built"]);
        assert!(!second.stderr.contains("building"), "{}", second.stderr);
        assert!(!summary(&second).contains(" fetched ("), "{}", second.stderr);
        digests.push(fs::read_to_string(fresh.project.join("web.digest")).unwrap());
        assert!(!fresh.project.join(".layerize-auth.json").exists());
        // A stale lock fails the job before anything is done.
        fresh.write(
            "layerize.toml",
            &spec.replace(
                "[image.app]",
                "[package.more]\ntools = [\"deb:zstd\"]\nscript = \"true\"\n\n[image.web]",
            ),
        );
        job.run(&fresh).exits(1);
    }
    assert_eq!(digests.len(), 3);
    assert!(digests.iter().all(|digest| digest == &digests[0]), "{digests:?}");
}
