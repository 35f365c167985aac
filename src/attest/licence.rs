//! The *licence* of a package as its own metadata declares it: an SPDX expression where it is one, else its words.
//!
//! Invariant: what is called an expression is one, of licences that SPDX lists; words that could mean several licences stay
//! words, and so does what is not in the part of that list which is known here.

use std::path::Path;

use crate::digest::Digest;
use crate::fsio;

/// Largest metadata of a package that is read, in bytes: descriptions are part of it.
const METADATA_MAX: u64 = 4 << 20;

/// Longest licence that is shown, in characters: some put the whole text into the field.
const WORDS_MAX: usize = 200;

/// What is declared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Licence {
    /// An SPDX expression: `MIT OR Apache-2.0`.
    Expression(String),
    /// Words that are none.
    Words(String),
}

/// Licences of SPDX's list that packages in registries have: others are shown as words.
const LICENCES: &[&str] = &[
    "0BSD",
    "AFL-3.0",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSD-4-Clause",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDDL-1.0",
    "CNRI-Python",
    "EPL-1.0",
    "EPL-2.0",
    "EUPL-1.2",
    "FSFAP",
    "GPL-2.0",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "HPND",
    "ISC",
    "LGPL-2.0-or-later",
    "LGPL-2.1",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-1.1",
    "MPL-2.0",
    "MS-PL",
    "MulanPSL-2.0",
    "NCSA",
    "NIST-PD",
    "OFL-1.1",
    "OpenSSL",
    "PSF-2.0",
    "PostgreSQL",
    "Python-2.0",
    "Python-2.0.1",
    "Ruby",
    "UPL-1.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Vim",
    "W3C",
    "WTFPL",
    "X11",
    "ZPL-2.1",
    "Zlib",
    "bzip2-1.0.6",
    "curl",
    "libtiff",
];

/// Exceptions of SPDX's list that they have.
const EXCEPTIONS: &[&str] = &[
    "Bison-exception-2.2",
    "Classpath-exception-2.0",
    "GCC-exception-3.1",
    "LLVM-exception",
    "Linux-syscall-note",
    "OpenSSL-exception",
];

/// Classifiers of Python projects that mean one licence (PEP 639, "Mapping license classifiers to SPDX identifiers").
const CLASSIFIERS: &[(&str, &str)] = &[
    ("Boost Software License 1.0 (BSL-1.0)", "BSL-1.0"),
    ("CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "CC0-1.0"),
    ("European Union Public Licence 1.2 (EUPL 1.2)", "EUPL-1.2"),
    (
        "GNU Affero General Public License v3 or later (AGPLv3+)",
        "AGPL-3.0-or-later",
    ),
    ("GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
    ("GNU General Public License v3 or later (GPLv3+)", "GPL-3.0-or-later"),
    (
        "GNU Lesser General Public License v2 or later (LGPLv2+)",
        "LGPL-2.0-or-later",
    ),
    (
        "GNU Lesser General Public License v3 or later (LGPLv3+)",
        "LGPL-3.0-or-later",
    ),
    ("ISC License (ISCL)", "ISC"),
    ("MIT License", "MIT"),
    ("MIT No Attribution License (MIT-0)", "MIT-0"),
    ("Mozilla Public License 1.1 (MPL 1.1)", "MPL-1.1"),
    ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
    ("The Unlicense (Unlicense)", "Unlicense"),
    ("Zero-Clause BSD (0BSD)", "0BSD"),
    ("zlib/libpng License", "Zlib"),
];

impl Licence {
    /// A declaration: the expression that it is, else its words; `None` where it says nothing.
    pub fn declared(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() || text.eq_ignore_ascii_case("unknown") {
            return None;
        }
        if is_expression(text) {
            return Some(Self::Expression(text.to_owned()));
        }
        let line = text.lines().next().unwrap_or_default();
        let words: String = line.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
        Some(Self::Words(words))
    }

    /// Of a Python distribution that is installed below `tree`; `None` where it says nothing.
    pub(super) fn of_python(tree: &Path) -> Option<Self> {
        let names = |dir: &Path| fsio::sorted_names(dir).unwrap_or_default();
        let pythons = names(&tree.join("lib"))
            .into_iter()
            .map(|name| tree.join("lib").join(name));
        let sites = pythons.map(|python| python.join("site-packages"));
        let infos = sites.flat_map(|site| names(&site).into_iter().map(move |name| site.join(name)));
        let mut infos = infos.filter(|path| path.extension().is_some_and(|extension| extension == "dist-info"));
        let text = fsio::read_limited(&infos.next()?.join("METADATA"), METADATA_MAX).ok()?;
        Self::of_metadata(&String::from_utf8_lossy(&text))
    }

    /// By the core metadata of a Python distribution: the expression, else the field of before, else what classifiers say.
    fn of_metadata(text: &str) -> Option<Self> {
        let headers = || text.lines().take_while(|line| !line.trim().is_empty());
        let field = |name: &str| headers().find_map(|line| line.strip_prefix(name));
        let said = field("License-Expression:").and_then(Self::declared);
        let said = said.or_else(|| field("License:").and_then(Self::declared));
        if let Some(Self::Expression(_)) = said {
            return said;
        }
        let classifiers = headers().filter_map(|line| line.strip_prefix("Classifier: License :: "));
        let classifiers: Vec<&str> = classifiers
            .filter_map(|line| line.rsplit(" :: ").next())
            .map(str::trim)
            .collect();
        let ids = classifiers
            .iter()
            .map(|name| CLASSIFIERS.iter().find(|(known, _)| known == name));
        match ids.collect::<Option<Vec<_>>>().as_deref() {
            // Of several it is not said whether one may choose.
            Some([(_, id)]) => Some(Self::Expression((*id).to_owned())),
            _ => said.or_else(|| Self::declared(&classifiers.join(", "))),
        }
    }

    /// What SPDX calls words that are none of its licences.
    pub(super) fn spdx_reference(words: &str) -> String {
        format!("LicenseRef-{}", &Digest::of(words.as_bytes()).hex()[..16])
    }
}

/// Whether a text is a licence expression (SPDX 2.3, annex D) of what is listed here.
fn is_expression(text: &str) -> bool {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let (mut open, mut wants_licence, mut may_except) = (0_usize, true, false);
    let mut words = spaced.split_whitespace();
    while let Some(word) = words.next() {
        match (word, wants_licence) {
            ("(", true) => open += 1,
            (")", false) if open > 0 => (open, may_except) = (open - 1, false),
            ("AND" | "OR", false) => wants_licence = true,
            ("WITH", false) if may_except && words.next().is_some_and(|name| is_listed(name, EXCEPTIONS)) => {
                may_except = false;
            }
            (word, true) if is_licence(word) => (wants_licence, may_except) = (false, true),
            _ => return false,
        }
    }
    open == 0 && !wants_licence
}

fn is_licence(word: &str) -> bool {
    match word.strip_prefix("LicenseRef-") {
        // It would lead to words that the document does not have.
        Some(_) => false,
        None => is_listed(word.strip_suffix('+').unwrap_or(word), LICENCES),
    }
}

/// Names of the list do not differ by case alone (SPDX 2.3, annex D.2).
fn is_listed(name: &str, list: &[&str]) -> bool {
    list.iter().any(|listed| listed.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_of_a_distribution_declares_its_licence() {
        let expression = |text: &str| Some(Licence::Expression(text.to_owned()));
        let words = |text: &str| Some(Licence::Words(text.to_owned()));
        for (text, expected) in [
            (
                "Name: a\nLicense-Expression: MIT OR Apache-2.0\nLicense: x\n",
                expression("MIT OR Apache-2.0"),
            ),
            ("License: BSD-3-Clause\n", expression("BSD-3-Clause")),
            ("License: BSD\n", words("BSD")),
            ("License: Our own\u{1b}[31m\n", words("Our own[31m")),
            (
                "License: BSD\nClassifier: License :: OSI Approved :: MIT License\n",
                expression("MIT"),
            ),
            (
                "Classifier: License :: OSI Approved :: BSD License\n",
                words("BSD License"),
            ),
            (
                "Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: OSI Approved :: ISC License (ISCL)\n",
                words("MIT License, ISC License (ISCL)"),
            ),
            ("License: UNKNOWN\n", None),
            ("License-Expression: No Such\n", words("No Such")),
            ("Name: a\n\nLicense: MIT\n", None),
            ("", None),
        ] {
            assert_eq!(Licence::of_metadata(text), expected, "{text}");
        }
        let long = Licence::declared(&"x ".repeat(WORDS_MAX)).unwrap();
        assert!(matches!(long, Licence::Words(words) if words.chars().count() == WORDS_MAX));
        assert!(CLASSIFIERS.iter().all(|(_, id)| is_expression(id)));
    }

    #[test]
    fn an_expression_is_told_from_words() {
        for text in [
            "MIT",
            "mit",
            "MIT OR Apache-2.0",
            "BSD-3-Clause AND (MIT OR 0BSD)",
            "Apache-2.0 WITH LLVM-exception",
            "GPL-2.0+",
            "(MIT)",
        ] {
            assert!(is_expression(text), "{text}");
        }
        for text in [
            "",
            "BSD",
            "MIT License",
            "MIT OR",
            "OR MIT",
            "(MIT",
            "MIT)",
            "()",
            "MIT Apache-2.0",
            "MIT WITH",
            "MIT WITH MIT",
            "LLVM-exception",
            "MIT/Apache-2.0",
            "MIT++",
            "LicenseRef-Own",
            "(MIT OR 0BSD) WITH LLVM-exception",
        ] {
            assert!(!is_expression(text), "{text}");
        }
        assert!(LICENCES.is_sorted(), "for whoever adds one");
    }
}
