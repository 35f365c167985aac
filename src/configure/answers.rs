//! *Answers* to what maintainer scripts ask (debconf), as an image's spec gives them.
//!
//! Invariant: an answer is to a question that one of the packages asks, and one that may be given to it; all that are not
//! are told at once. The type of a question is its package's to say.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::ConfigureError;
use super::package::{CONTROL_MAX, Package};
use crate::fsio;
use crate::spec::did_you_mean;

/// The types of templates that ask nothing (debconf-devel(7)).
const NO_QUESTIONS: [&str; 4] = ["error", "note", "text", "title"];

/// A question as a package's templates have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Question {
    package: String,
    kind: String,
    choices: Vec<String>,
}

/// The lines for debconf-set-selections(1); empty where nothing is answered.
pub(super) fn selections(answers: &BTreeMap<String, String>, packages: &[&Package]) -> Result<String, ConfigureError> {
    let mut questions = BTreeMap::new();
    if !answers.is_empty() {
        for package in packages.iter().filter(|package| package.has("templates")) {
            let text = fsio::read_limited(&package.control.join("templates"), CONTROL_MAX)?;
            questions.extend(templates(&package.name, &String::from_utf8_lossy(&text)));
        }
    }
    let (mut lines, mut wrong) = (String::new(), Vec::new());
    for (name, answer) in answers {
        match check(name, answer, &questions) {
            Ok(question) => {
                let _ = writeln!(lines, "{} {name} {} {answer}", question.package, question.kind);
            }
            Err(reason) => wrong.push(reason),
        }
    }
    match wrong.is_empty() {
        true => Ok(lines),
        false => Err(ConfigureError::Answers { wrong }),
    }
}

/// The question that an answer is to; else what is wrong with it, in a line.
fn check<'a>(name: &str, answer: &str, questions: &'a BTreeMap<String, Question>) -> Result<&'a Question, String> {
    let Some(question) = questions.get(name) else {
        let is_question = |question: &&Question| !NO_QUESTIONS.contains(&question.kind.as_str());
        let known = questions.iter().filter(|(_, question)| is_question(question));
        let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
        let prefix = name.split_once('/').map_or(name, |(package, _)| package);
        let of_package: Vec<&str> = (known.iter().copied())
            .filter(|known| known.split('/').next() == Some(prefix))
            .collect();
        return Err(
            match (did_you_mean(name, known.iter().copied()), of_package.as_slice()) {
                (Some(known), _) => format!("no package of the image asks `{name}`: did you mean `{known}`?"),
                (None, []) => format!("no package of the image asks `{name}`, or anything of `{prefix}`"),
                (None, own) => format!("`{prefix}` does not ask `{name}`, but `{}`", own.join("`, `")),
            },
        );
    };
    let kind = question.kind.as_str();
    if NO_QUESTIONS.contains(&kind) {
        return Err(format!("`{name}` is no question: it tells something and has no answer"));
    }
    if answer.chars().any(char::is_control) {
        return Err(format!("the answer to `{name}` is more than a line"));
    }
    let booleans = ["true", "false"].map(str::to_owned);
    let choices = if kind == "boolean" {
        &booleans[..]
    } else {
        &question.choices
    };
    let given: Vec<&str> = match kind {
        "multiselect" => answer.split(", ").filter(|choice| !choice.is_empty()).collect(),
        _ => vec![answer],
    };
    // Choices that a script fills in (`${locales}`) are known to it alone.
    let is_open = choices.is_empty() || choices.iter().any(|choice| choice.contains("${"));
    match given
        .iter()
        .find(|given| !choices.iter().any(|choice| choice == *given))
    {
        Some(given) if !is_open => Err(format!(
            "`{given}` is no answer to `{name}`: write one of `{}`",
            choices.join("`, `")
        )),
        _ => Ok(question),
    }
}

/// The questions in a package's `templates` (debconf-devel(7)), by their names.
fn templates(package: &str, text: &str) -> BTreeMap<String, Question> {
    let mut found = BTreeMap::new();
    let (mut name, mut question) = (String::new(), Question::default());
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            if !name.is_empty() {
                found.insert(std::mem::take(&mut name), std::mem::take(&mut question));
            }
            continue;
        }
        let Some((field, value)) = line.split_once(':').filter(|_| !line.starts_with(' ')) else {
            continue;
        };
        let value = value.trim();
        match field.to_ascii_lowercase().as_str() {
            "template" => (name, question.package) = (value.to_owned(), package.to_owned()),
            "type" => question.kind = value.to_owned(),
            // What is said in other languages is shown, and this is what is answered.
            "choices" | "choices-c" | "__choices" | "_choices" => question.choices = choices(value),
            _ => {}
        }
    }
    found
}

/// `a, b\, c` → `a` and `b, c`.
fn choices(text: &str) -> Vec<String> {
    let (mut found, mut current, mut escaped) = (Vec::new(), String::new(), false);
    for character in text.chars() {
        match character {
            ',' if !escaped => found.push(std::mem::take(&mut current).trim().to_owned()),
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            other => current.push(other),
        }
        escaped = false;
    }
    found.push(current.trim().to_owned());
    found.retain(|choice| !choice.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATES: &str = "Template: tzdata/Areas\nType: select\nChoices: Africa, Europe, Etc\nDescription: Area\n Long: text\n\n\
                             Template: tzdata/note\nType: note\n\nTemplate: locales/to_make\nType: multiselect\nChoices: ${locales}\n\n\
                             Template: app/on\nType: boolean\nDefault: true\n\nTemplate: app/words\nType: multiselect\nChoices: a\\, b, c\n\n\
                             Template: app/name\nType: string\n";

    fn reason(name: &str, answer: &str) -> Option<String> {
        check(name, answer, &templates("pkg", TEMPLATES)).err()
    }

    #[test]
    fn answers_that_may_be_given_are_taken() {
        for (name, answer) in [
            ("tzdata/Areas", "Europe"),
            ("locales/to_make", "en_US.UTF-8 UTF-8"),
            ("app/on", "false"),
            ("app/words", "c"),
            ("app/name", "any, thing"),
            ("app/name", ""),
        ] {
            assert_eq!(reason(name, answer), None, "{name} {answer}");
        }
        assert_eq!(choices("a\\, b, c"), ["a, b", "c"]);
    }

    #[test]
    fn others_are_told_with_what_may_be_said() {
        for (name, answer, expected) in [
            ("tzdata/Area", "Europe", "did you mean `tzdata/Areas`?"),
            (
                "tzdata/zones-of-land",
                "x",
                "`tzdata` does not ask `tzdata/zones-of-land`, but `tzdata/Areas`",
            ),
            ("nothing/at-all", "x", "or anything of `nothing`"),
            ("tzdata/note", "x", "is no question"),
            ("tzdata/Areas", "Europa", "write one of `Africa`, `Europe`, `Etc`"),
            ("app/on", "yes", "write one of `true`, `false`"),
            ("app/words", "c, d", "`d` is no answer to `app/words`"),
            ("app/name", "a\nb x/y string z", "more than a line"),
        ] {
            let reason = reason(name, answer).unwrap_or_default();
            assert!(reason.contains(expected), "{name} {answer}: {reason}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_answers() {
        crate::testing::fuzz("answers", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let questions = super::templates("package", &text);
            for name in questions.keys() {
                let _ = super::check(name, &text, &questions);
            }
        });
    }
}
