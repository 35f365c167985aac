//! The *manual* is the chapters that `layerize help TOPIC` prints and that man pages are made from.
//!
//! Invariant: a chapter is one text under `src/cli/help/`, in a small part of Markdown: headings, paragraphs, lists of one
//! level, and fenced blocks.

/// A chapter.
pub struct Topic {
    /// What it is asked for by.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! topics {
    ($($name:literal),* $(,)?) => {
        &[$(Topic { name: $name, text: include_str!(concat!("help/", $name, ".md")) }),*]
    };
}

/// All chapters, in the order of a reader.
pub const TOPICS: &[Topic] = topics![
    "spec",
    "layers",
    "registries",
    "serve",
    "inputs",
    "audit",
    "nix",
    "languages",
    "sandbox",
    "shell",
    "containers",
    "ci",
    "builders",
    "emulation",
    "profiles",
    "machines",
    "caches",
    "exit-status",
];

/// A part of a chapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManualBlock {
    /// A heading below the title.
    Heading(String),
    /// A paragraph, on one line.
    Paragraph(String),
    /// An item of a list, on one line.
    Item(String),
    /// Lines that stay as they are.
    Code(Vec<String>),
}

impl Topic {
    /// The text of its first heading.
    pub fn title(&self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.trim_start_matches(['#', ' '])
    }

    /// What follows the title.
    pub fn blocks(&self) -> Vec<ManualBlock> {
        let mut blocks = Vec::new();
        let mut open = false;
        let mut lines = self.text.lines().skip(1);
        while let Some(line) = lines.next() {
            if line.starts_with("```") {
                let code = lines.by_ref().take_while(|line| !line.starts_with("```"));
                blocks.push(ManualBlock::Code(code.map(str::to_owned).collect()));
                open = false;
            } else if let Some(heading) = line.strip_prefix("## ") {
                blocks.push(ManualBlock::Heading(heading.to_owned()));
                open = false;
            } else if line.trim().is_empty() {
                open = false;
            } else if let Some(item) = line.strip_prefix("- ") {
                blocks.push(ManualBlock::Item(item.to_owned()));
                open = true;
            } else {
                match blocks.last_mut().filter(|_| open) {
                    Some(ManualBlock::Paragraph(text) | ManualBlock::Item(text)) => {
                        text.push(' ');
                        text.push_str(line.trim());
                    }
                    _ => blocks.push(ManualBlock::Paragraph(line.to_owned())),
                }
                open = true;
            }
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chapters_are_read_into_their_parts() {
        let topic = Topic {
            name: "x",
            text: "# Title\n\nOne\ntwo.\n\n- a\n  b\n- c\n\n## More\n```\n- code\n\n```\nend\n",
        };
        assert_eq!(topic.title(), "Title");
        let text = |text: &str| text.to_owned();
        assert_eq!(
            topic.blocks(),
            [
                ManualBlock::Paragraph(text("One two.")),
                ManualBlock::Item(text("a b")),
                ManualBlock::Item(text("c")),
                ManualBlock::Heading(text("More")),
                ManualBlock::Code(vec![text("- code"), String::new()]),
                ManualBlock::Paragraph(text("end")),
            ]
        );
    }

    #[test]
    fn every_text_is_a_chapter_that_fits_a_terminal() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/help");
        let mut texts: Vec<String> = TOPICS.iter().map(|topic| format!("{}.md", topic.name)).collect();
        texts.sort();
        let found = crate::fsio::sorted_names(&dir).unwrap();
        let found: Vec<String> = found.into_iter().map(|name| name.into_string().unwrap()).collect();
        assert_eq!(found, texts);
        for topic in TOPICS {
            assert!(topic.text.starts_with("# "), "{}", topic.name);
            for line in topic.text.lines() {
                assert!(line.chars().count() <= 130, "{}: {line}", topic.name);
                assert!(
                    !line.starts_with("### ") && !line.starts_with("| "),
                    "{}: {line}",
                    topic.name
                );
            }
            assert_eq!(
                topic.text.matches('`').count() % 2,
                0,
                "{}: a back quote without its pair",
                topic.name
            );
        }
    }
}
