//! `layerize help`: the manual's chapters, and the help of commands.

use clap::error::ErrorKind;
use clap::{Args, Command};

use super::complete;
use super::error::advised;
use super::manual::{TOPICS, Topic};
use super::outcome::Outcome;
use super::ui::Ui;

/// Arguments of `layerize help`.
#[derive(Debug, Args)]
pub struct HelpArgs {
    /// A topic, or a command with its subcommand [default: the list of all]
    #[arg(value_name = "TOPIC|COMMAND", add = complete::topics())]
    words: Vec<String>,
}

/// Prints a chapter, a command's help, or what there is.
pub fn run(args: &HelpArgs, program: Command, ui: &Ui) -> anyhow::Result<Outcome> {
    let words = &args.words;
    let topic = TOPICS.iter().find(|topic| [topic.name] == words[..]);
    let text = match topic {
        Some(topic) => chapter(topic, ui),
        None if words.is_empty() => overview(&program),
        None => command_help(program, words)?,
    };
    ui.data(text.trim_end())?;
    Ok(Outcome::Done)
}

/// A chapter's text: headings marked by colour, blocks by indentation.
fn chapter(topic: &Topic, ui: &Ui) -> String {
    let mut in_code = false;
    let mut text = String::new();
    for line in topic.text.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
            continue;
        }
        let heading = line.strip_prefix("## ").or_else(|| line.strip_prefix("# "));
        match heading.filter(|_| !in_code) {
            Some(heading) => text.push_str(&ui.paint_out(heading, "1")),
            None if in_code && !line.is_empty() => text.push_str(&format!("    {line}")),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

fn overview(program: &Command) -> String {
    let width = TOPICS.iter().map(|topic| topic.name.len()).max().unwrap_or(0);
    let topics = TOPICS
        .iter()
        .map(|topic| format!("  {:<width$}  {}\n", topic.name, topic.title()));
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    let commands: Vec<&str> = commands.map(Command::get_name).collect();
    format!(
        "Topics, for `layerize help TOPIC`:\n{}\nCommands, for `layerize help COMMAND`:\n  {}\n",
        topics.collect::<String>(),
        commands.join(", ")
    )
}

/// What `layerize WORDS --help` prints.
fn command_help(program: Command, words: &[String]) -> anyhow::Result<String> {
    let mut command = &program;
    for word in words {
        command = command.find_subcommand(word).ok_or_else(|| {
            let topics: Vec<&str> = TOPICS.iter().map(|topic| topic.name).collect();
            advised(
                format!("there is no topic and no command `{}`", words.join(" ")),
                format!(
                    "the topics are {}; `layerize help` also lists the commands",
                    topics.join(", ")
                ),
            )
        })?;
    }
    let words = words.iter().map(String::as_str);
    let arguments = ["layerize"].into_iter().chain(words).chain(["--help"]);
    match program.try_get_matches_from(arguments) {
        Err(help) if help.kind() == ErrorKind::DisplayHelp => Ok(help.render().to_string()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(anyhow::anyhow!("`--help` shows no help")),
    }
}
