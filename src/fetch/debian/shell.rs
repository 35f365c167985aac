//! The *commands* of a maintainer script, as far as its text alone tells them: the script is never run.
//!
//! Invariant: pure and bounded; a word that the text does not settle is `None`, so that whoever looks for a command with
//! literal words does not take another for it. Variables that are set to literal words, loops over such words and functions
//! are followed; both branches of a condition are read, and where one of them makes a variable unknown, the other counts,
//! which leaves it as it was.

use std::collections::BTreeMap;
use std::ops::Range;

/// A word of a command; `None` where something in it is not known.
pub(super) type Word = Option<String>;

/// Most commands that are read, each as often as it would run, and deepest nesting of functions and loops: no real script
/// comes near.
const STEPS_MAX: usize = 50_000;
const DEPTH_MAX: usize = 16;

/// Words before a command that are not part of it.
const KEYWORDS: [&str; 10] = ["if", "then", "elif", "else", "do", "while", "until", "!", "{", "time"];

/// The simple commands of a script, in order.
pub(super) fn commands(script: &str) -> Vec<Vec<Word>> {
    let tokens = tokens(script);
    let mut reader = Reader {
        tokens: &tokens,
        functions: BTreeMap::new(),
        variables: BTreeMap::new(),
        commands: Vec::new(),
        steps: 0,
        conditions: 0,
    };
    reader.read(0..tokens.len(), 0);
    reader.commands
}

/// A part of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A variable or positional parameter, and whether it stands in quotes.
    Variable(String, bool),
    /// The text of `$(…)`.
    Output(String),
    /// What the text does not tell: patterns, arithmetic, other expansions.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Vec<Part>),
    /// One of the characters that end a command.
    End(char),
}

struct Reader<'t> {
    tokens: &'t [Token],
    /// Bodies of functions.
    functions: BTreeMap<String, Range<usize>>,
    variables: BTreeMap<String, Word>,
    commands: Vec<Vec<Word>>,
    steps: usize,
    /// How many conditions the command is in.
    conditions: usize,
}

impl Reader<'_> {
    fn read(&mut self, range: Range<usize>, depth: usize) {
        let mut at = range.start;
        while at < range.end && self.steps < STEPS_MAX {
            self.steps += 1;
            let end = self.end_of_command(at, range.end);
            at = self.command(at..end, &range, depth).max(end + 1);
        }
    }

    fn end_of_command(&self, from: usize, end: usize) -> usize {
        let ends = |token: &Token| matches!(token, Token::End(_));
        (from..end).find(|&at| ends(&self.tokens[at])).unwrap_or(end)
    }

    /// Reads the command at `at`; gives where to go on, where that is not after it.
    fn command(&mut self, at: Range<usize>, within: &Range<usize>, depth: usize) -> usize {
        let mut words = at.clone();
        while words.start < words.end && KEYWORDS.iter().any(|keyword| self.is(words.start, keyword)) {
            self.conditions += usize::from(self.is(words.start, "if"));
            words.start += 1;
        }
        self.conditions = (self.conditions + usize::from(self.is(words.start, "case")))
            .saturating_sub(usize::from(["fi", "esac"].iter().any(|end| self.is(words.start, end))));
        if let Some(end) = self.function(&words, within) {
            return end;
        }
        if self.is(words.start, "for") && words.len() > 2 && self.is(words.start + 2, "in") {
            return self.repeat(&words, within, depth);
        }
        let mut command: Vec<Word> = Vec::new();
        for index in words {
            match self.assignment(index).filter(|_| command.is_empty()) {
                Some((name, value)) => self.assign(name, value),
                None => command.extend(self.expand(index)),
            }
        }
        let body = match command.first() {
            Some(Some(name)) if depth < DEPTH_MAX => self.functions.get(name).cloned(),
            _ => None,
        };
        match body {
            Some(body) => self.call(body, command, depth),
            None if command.is_empty() => {}
            None => self.commands.push(command),
        }
        0
    }

    fn assign(&mut self, name: String, value: Word) {
        if value.is_some() || self.conditions == 0 {
            self.variables.insert(name, value);
        } else {
            self.variables.entry(name).or_insert(value);
        }
    }

    /// Notes a definition `name() {`; gives where its body ends.
    fn function(&mut self, words: &Range<usize>, within: &Range<usize>) -> Option<usize> {
        let opens = |at: usize, char| self.tokens.get(at) == Some(&Token::End(char));
        if words.len() != 1 || !opens(words.end, '(') || !opens(words.end + 1, ')') {
            return None;
        }
        let mut brace = words.end + 2;
        while brace < within.end && opens(brace, '\n') {
            brace += 1;
        }
        let name = self.text(words.start)?;
        if !self.is(brace, "{") {
            return None;
        }
        let end = self.closing(brace + 1, within.end, &["{"], "}");
        self.functions.insert(name, brace + 1..end);
        Some(end + 1)
    }

    /// Reads the body of `for NAME in WORDS; do …; done` for each word; gives where it ends.
    fn repeat(&mut self, words: &Range<usize>, within: &Range<usize>, depth: usize) -> usize {
        let values: Vec<Word> = (words.start + 3..words.end)
            .flat_map(|index| self.expand(index))
            .collect();
        let Some(name) = self.text(words.start + 1) else {
            return 0;
        };
        let Some(first) = (words.end..within.end).find(|&at| self.is(at, "do")) else {
            return 0;
        };
        let end = self.closing(first + 1, within.end, &["do"], "done");
        for value in values {
            self.steps += 1;
            self.variables.insert(name.clone(), value);
            if depth < DEPTH_MAX && self.steps < STEPS_MAX {
                self.read(first + 1..end, depth + 1);
            }
        }
        end + 1
    }

    fn call(&mut self, body: Range<usize>, command: Vec<Word>, depth: usize) {
        let before = self.variables.clone();
        for (index, word) in command.into_iter().enumerate().skip(1) {
            self.variables.insert(index.to_string(), word);
        }
        self.read(body, depth + 1);
        // Positional parameters are the function's own, everything else is the script's.
        self.variables.retain(|name, _| !is_positional(name));
        let own = before.into_iter().filter(|(name, _)| is_positional(name));
        self.variables.extend(own);
    }

    /// Where the word stands that closes what was opened before `from`.
    fn closing(&self, from: usize, end: usize, opening: &[&str], closing: &str) -> usize {
        let mut open = 1;
        for at in from..end {
            if opening.iter().any(|word| self.is(at, word)) {
                open += 1;
            } else if self.is(at, closing) {
                open -= 1;
            }
            if open == 0 {
                return at;
            }
        }
        end
    }

    /// Whether a token is exactly this word.
    fn is(&self, at: usize, word: &str) -> bool {
        matches!(self.tokens.get(at), Some(Token::Word(parts)) if matches!(parts.as_slice(), [Part::Text(text)] if text == word))
    }

    /// A token's text, where it is settled by itself.
    fn text(&self, at: usize) -> Option<String> {
        match self.tokens.get(at)? {
            Token::Word(parts) => match parts.as_slice() {
                [Part::Text(text)] => Some(text.clone()),
                _ => None,
            },
            Token::End(_) => None,
        }
    }

    /// `NAME=VALUE`.
    fn assignment(&self, at: usize) -> Option<(String, Word)> {
        let Token::Word(parts) = &self.tokens[at] else {
            return None;
        };
        let Some(Part::Text(first)) = parts.first() else {
            return None;
        };
        let (name, rest) = first.split_once('=')?;
        let is_name = !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let value = parts[1..]
            .iter()
            .map(|part| self.value(part))
            .collect::<Option<String>>();
        is_name.then(|| (name.to_owned(), value.map(|value| format!("{rest}{value}"))))
    }

    /// The words that a token becomes: several where it is a variable of several words outside of quotes.
    fn expand(&self, at: usize) -> Vec<Word> {
        let Token::Word(parts) = &self.tokens[at] else {
            return Vec::new();
        };
        if let [part @ Part::Variable(_, false)] = parts.as_slice() {
            return match self.value(part) {
                Some(text) => text.split_whitespace().map(|word| Some(word.to_owned())).collect(),
                None => vec![None],
            };
        }
        vec![parts.iter().map(|part| self.value(part)).collect()]
    }

    fn value(&self, part: &Part) -> Word {
        match part {
            Part::Text(text) => Some(text.clone()),
            Part::Variable(name, _) => self.variables.get(name).cloned().flatten(),
            // Where a file really is: where it would be without diversions, which are applied later.
            Part::Output(text) => match text.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["dpkg-divert", "--truename", path] if path.starts_with('/') => Some((*path).to_owned()),
                _ => None,
            },
            Part::Unknown => None,
        }
    }
}

fn is_positional(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_digit())
}

/// Enough of the shell's grammar for what packages write: quotes, escapes, continued lines, comments, parameters, and the
/// operators that end a command. Here-documents are read as commands, which does no harm.
fn tokens(script: &str) -> Vec<Token> {
    let mut scanner = Scanner {
        chars: script.chars().peekable(),
        tokens: Vec::new(),
        word: None,
    };
    while let Some(char) = scanner.chars.next() {
        match char {
            '\\' => match scanner.chars.next() {
                Some('\n') | None => {}
                Some(escaped) => scanner.push(escaped),
            },
            '\'' => {
                scanner.word.get_or_insert_default();
                while let Some(char) = scanner.chars.next().filter(|&char| char != '\'') {
                    scanner.push(char);
                }
            }
            '"' => scanner.quoted(),
            '#' if scanner.word.is_none() => while scanner.chars.next_if(|&char| char != '\n').is_some() {},
            ' ' | '\t' => scanner.end_word(),
            '\n' | ';' | '&' | '|' | '(' | ')' => {
                scanner.end_word();
                scanner.tokens.push(Token::End(if char == ';' { '\n' } else { char }));
            }
            '$' => scanner.expansion(false),
            '`' => {
                while scanner.chars.next().is_some_and(|char| char != '`') {}
                scanner.part(Part::Unknown);
            }
            '*' | '?' | '[' | '~' => {
                // `[` alone is a command.
                scanner.push(char);
                let alone = scanner.chars.peek().is_none_or(|next| next.is_whitespace());
                if !(char == '[' && alone) {
                    scanner.part(Part::Unknown);
                }
            }
            char => scanner.push(char),
        }
    }
    scanner.end_word();
    scanner.tokens
}

struct Scanner<'s> {
    chars: std::iter::Peekable<std::str::Chars<'s>>,
    tokens: Vec<Token>,
    word: Option<Vec<Part>>,
}

impl Scanner<'_> {
    fn push(&mut self, char: char) {
        let parts = self.word.get_or_insert_default();
        match parts.last_mut() {
            Some(Part::Text(text)) => text.push(char),
            _ => parts.push(Part::Text(char.to_string())),
        }
    }

    fn part(&mut self, part: Part) {
        self.word.get_or_insert_default().push(part);
    }

    fn end_word(&mut self) {
        if let Some(parts) = self.word.take() {
            self.tokens.push(Token::Word(parts));
        }
    }

    /// The inside of double quotes.
    fn quoted(&mut self) {
        self.word.get_or_insert_default();
        while let Some(char) = self.chars.next() {
            match char {
                '"' => return,
                '\\' => match self.chars.next() {
                    Some('\n') | None => {}
                    Some(escaped) => self.push(escaped),
                },
                '$' => self.expansion(true),
                '`' => {
                    while self.chars.next().is_some_and(|char| char != '`') {}
                    self.part(Part::Unknown);
                }
                char => self.push(char),
            }
        }
    }

    /// What follows a `$`.
    fn expansion(&mut self, quoted: bool) {
        let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
        let mut name = String::new();
        match self.chars.peek().copied() {
            Some('(') => {
                self.chars.next();
                let part = match self.enclosed('(', ')') {
                    text if text.starts_with('(') => Part::Unknown,
                    text => Part::Output(text),
                };
                self.part(part);
            }
            Some('{') => {
                self.chars.next();
                let name = self.enclosed('{', '}');
                self.part(match !name.is_empty() && name.chars().all(is_name) {
                    true => Part::Variable(name, quoted),
                    false => Part::Unknown,
                });
            }
            Some(first) if first.is_ascii_digit() => {
                self.chars.next();
                self.part(Part::Variable(first.to_string(), quoted));
            }
            Some(first) if is_name(first) => {
                while let Some(char) = self.chars.next_if(|&char| is_name(char)) {
                    name.push(char);
                }
                self.part(Part::Variable(name, quoted));
            }
            Some('@' | '*' | '#' | '?' | '$' | '!' | '-') => {
                self.chars.next();
                self.part(Part::Unknown);
            }
            _ => self.push('$'),
        }
    }

    /// The text up to the closing character that belongs to the opening one before it.
    fn enclosed(&mut self, opening: char, closing: char) -> String {
        let (mut text, mut open) = (String::new(), 1);
        for char in self.chars.by_ref() {
            if char == opening {
                open += 1;
            } else if char == closing {
                open -= 1;
            }
            if open == 0 {
                break;
            }
            text.push(char);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(script: &str) -> Vec<String> {
        let word = |word: Word| word.unwrap_or_else(|| "?".to_owned());
        let commands = commands(script).into_iter();
        commands
            .map(|command| command.into_iter().map(word).collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[test]
    fn variables_loops_and_functions_are_followed() {
        for (script, expected) in [
            ("a=x; b=$a/y; c \"$b\" ${a} $z", &["c x/y x ?"][..]),
            (
                "for i in vi ex 'two words'; do use $i \"$i\"; done; end",
                &["use vi vi", "use ex ex", "use two words two words", "end"],
            ),
            ("l='a b'\nfor i in $l c\ndo\n u $i\ndone", &["u a", "u b", "u c"]),
            (
                "for i in a b; do for j in 1 2; do u $i$j; done; done",
                &["u a1", "u a2", "u b1", "u b2"],
            ),
            (
                "f() {\n g \"$1.x\" $2\n}\nif [ $1 = y ]; then f a b; fi; f $u",
                &["[ ? = y ]", "g a.x b", "fi", "g ? ?"],
            ),
            (
                "P=$(dpkg-divert --truename /bin/ping); setcap cap_net_raw+ep $P",
                &["setcap cap_net_raw+ep /bin/ping"],
            ),
            (
                "x=$(uname -m); use $x `date` *.c ~/y ${x:-3} $((1+2))",
                &["use ? ? ? ? ? ?"],
            ),
            ("# comment $x\nuse a\\\n  b 'c #d' \"e\\\"f\"", &["use a b c #d e\"f"]),
            ("f() { f; }\nf", &["f"]),
            (
                "p=7; if a; then p=$(expr $p - 1); fi; use $p; p=$(b); use $p",
                &["a", "fi", "use 7", "use ?"],
            ),
            (
                "p=7; case $1 in x) p=$(b);; esac; use $p; if a; then q=$(b); fi; use $q",
                &["case ? in x", "esac", "use 7", "a", "fi", "use ?"],
            ),
            ("for i in *; do use $i; done", &["use ?"]),
            ("", &[]),
            ("'open", &["open"]),
            ("for i in a", &[]),
        ] {
            let expected: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(read(script), expected, "{script}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(script in "(for|do|done|in|if|f|[(][)]|[{]|[}]|x=|[$]x|[$][(]|[a-c \\\\\"'\n;#`$)(&|]){0,60}|.{0,80}") {
            let _ = commands(&script);
        }
    }
}
