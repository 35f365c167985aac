//! What maintainer scripts would have asked `update-alternatives`, `dpkg-divert` and `setcap` for, read from their text: they
//! are never run.
//!
//! Invariant: only commands count whose words the text settles (see [`shell`](super::shell)); any other is left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::shell::commands;
use super::usrmerge::merged_absolute;
use crate::capability::FileCapabilities;

/// The lines for `root::ALTERNATIVES_DIR` that `script` asks for; empty where there are none.
pub(super) fn alternatives(script: &str) -> String {
    let installs = calls(script, "update-alternatives").filter_map(|arguments| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        install_lines(&arguments)
    });
    installs.collect()
}

/// `--install LINK NAME PATH PRIORITY [--slave LINK NAME PATH]…` as lines; `None` for another action.
fn install_lines(arguments: &[&str]) -> Option<String> {
    let mut lines = None;
    let mut rest = arguments;
    while let [option, tail @ ..] = rest {
        rest = match (*option, tail) {
            ("--install", [link, name, target, priority, tail @ ..]) => {
                let priority: i32 = priority.parse().ok()?;
                check(&[link, name, target])?;
                lines = Some(format!(
                    "install {} {name} {} {priority}\n",
                    merged_absolute(link),
                    merged_absolute(target)
                ));
                tail
            }
            ("--slave" | "--follower", [link, name, target, tail @ ..]) => {
                check(&[link, name, target])?;
                let (link, target) = (merged_absolute(link), merged_absolute(target));
                writeln!(lines.as_mut()?, "slave {link} {name} {target}").ok()?;
                tail
            }
            ("--quiet" | "--force" | "--verbose" | "--debug" | "--skip-auto", tail) => tail,
            // Redirections and the like end the arguments.
            (option, _) if !option.starts_with("--") => break,
            _ => return None,
        };
    }
    lines
}

fn check(words: &[&str; 3]) -> Option<()> {
    let [link, name, target] = words;
    let plain = |word: &str| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c.is_control());
    (link.starts_with('/') && target.starts_with('/') && words.iter().all(|word| plain(word)) && !name.contains('/'))
        .then_some(())
}

/// What scripts ask `dpkg-divert` for: where files of other packages go that stand at a path of this one's, by that path,
/// both relative to the root and merged below `usr`. Only diversions for `package` itself count.
pub(super) fn diversions(script: &str, package: &str) -> BTreeMap<String, String> {
    let calls = calls(script, "dpkg-divert");
    calls.filter_map(|arguments| diversion(&arguments, package)).collect()
}

fn diversion(arguments: &[String], package: &str) -> Option<(String, String)> {
    let (mut of, mut to, mut from) = (package, None, None);
    let mut rest = arguments;
    while let [option, tail @ ..] = rest {
        let (value, after) = match (option.split_once('='), tail) {
            (Some((_, value)), _) => (Some(value), tail),
            (None, [value, after @ ..]) => (Some(value.as_str()), after),
            (None, []) => (None, tail),
        };
        rest = tail;
        let name = option.split_once('=').filter(|_| option.starts_with('-'));
        match name.map_or(option.as_str(), |(name, _)| name) {
            "--package" => (of, rest) = (value?, after),
            "--divert" => (to, rest) = (value, after),
            "--add" | "--rename" | "--no-rename" | "--quiet" => {}
            option if option.starts_with('-') => return None,
            // Redirections and the like end the arguments.
            path if path.starts_with('/') && from.is_none() => from = Some(path),
            _ => break,
        }
    }
    let from = from?;
    let to = to.map_or_else(|| format!("{from}.distrib"), str::to_owned);
    let plain = |path: &str| !path.split('/').any(|part| matches!(part, "." | ".."));
    let relative = |path: &str| merged_absolute(path).trim_start_matches('/').to_owned();
    (of == package && to.starts_with('/') && plain(from) && plain(&to)).then(|| (relative(from), relative(&to)))
}

/// What a script asks `setcap` for, by the file's path, relative to the root and merged below `usr`.
pub(super) fn capabilities(script: &str) -> BTreeMap<String, String> {
    let calls = calls(script, "setcap").filter_map(|arguments| {
        let mut words = arguments.iter().skip_while(|word| word.starts_with('-'));
        let (text, path) = (words.next()?, words.next()?);
        let capabilities: FileCapabilities = text.parse().ok()?;
        let path = path.starts_with('/').then(|| merged_absolute(path))?;
        Some((path.trim_start_matches('/').to_owned(), capabilities.to_string()))
    });
    calls.collect()
}

/// The arguments of each call of a program whose words are all known.
fn calls<'a>(script: &str, program: &'a str) -> impl Iterator<Item = Vec<String>> + 'a {
    commands(script).into_iter().filter_map(move |command| {
        let mut words = command.into_iter();
        let is_call = |word: Option<String>| word.is_some_and(|word| word.rsplit('/').next() == Some(program));
        words.by_ref().any(is_call).then_some(())?;
        words.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_installs_are_found() {
        let script = r#"#!/bin/sh
set -e
if [ "$1" = "configure" ]; then
    update-alternatives --quiet \
        --install /usr/bin/awk awk /usr/bin/mawk 5 \
        --slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz \
        --slave "/usr/bin/nawk" 'nawk' /usr/bin/mawk
    /usr/bin/update-alternatives --install /bin/nc nc /bin/nc.openbsd 50 >/dev/null || true
fi # update-alternatives --install /a b /c 1
"#;
        assert_eq!(
            alternatives(script),
            "install /usr/bin/awk awk /usr/bin/mawk 5\n\
             slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz\n\
             slave /usr/bin/nawk nawk /usr/bin/mawk\n\
             install /usr/bin/nc nc /usr/bin/nc.openbsd 50\n"
        );
    }

    #[test]
    fn what_is_not_literal_or_not_an_install_is_left_out() {
        for script in [
            "update-alternatives --install /usr/bin/$i $i /usr/bin/vim 30",
            "update-alternatives --install \"$LINK\" x /y 1",
            "update-alternatives --install `x` x /y 1",
            "update-alternatives --remove awk /usr/bin/mawk",
            "update-alternatives --install /usr/bin/x x /usr/bin/y",
            "update-alternatives --install /usr/bin/x x /usr/bin/y many",
            "update-alternatives --install relative x /usr/bin/y 1",
            "update-alternatives --install /usr/bin/x a/b /usr/bin/y 1",
            "update-alternatives --slave /usr/bin/x a /usr/bin/y",
            "update-alternatives --install '/usr/bin/a b' a /usr/bin/y 1",
            "echo update-alternatives",
            "# update-alternatives --install /a b /c 1",
            "",
            "'unclosed",
            "\"unclosed \\",
        ] {
            assert_eq!(alternatives(script), "", "{script}");
        }
    }

    /// As postinst scripts of Debian write them: a loop over names, over a variable's, in a function.
    #[test]
    fn installs_in_loops_and_functions_are_found() {
        let script = r#"
for i in vi ex; do
    update-alternatives --install /usr/bin/$i $i /usr/bin/vim.$VARIANT 30 || true
done
VARIANT=tiny
names="view rview"
for i in $names; do update-alternatives --install "/usr/bin/$i" "$i" /usr/bin/vim.$VARIANT 15; done
add() { update-alternatives --install "/usr/bin/$1" "$1" "$2" 7; }
add pager /bin/more
"#;
        assert_eq!(
            alternatives(script),
            "install /usr/bin/view view /usr/bin/vim.tiny 15\n\
             install /usr/bin/rview rview /usr/bin/vim.tiny 15\n\
             install /usr/bin/pager pager /usr/bin/more 7\n"
        );
    }

    /// dpkg-divert(1): without `--divert` it is `.distrib`; the preinst of vim-runtime and postgresql-common.
    #[test]
    fn diversions_are_found() {
        let vim = r#"
vimcur="vim90"
basedir=/usr/share/vim/$vimcur/doc
add_diversion() {
  dpkg-divert --package vim-runtime --add --rename \
    --divert "$1.vim-tiny" "$1"
}
if [ "$1" != "upgrade" ] || major_upgrade $2; then
  add_diversion $basedir/help.txt
  add_diversion $basedir/tags
fi
"#;
        let show = |script: &str, package: &str| -> Vec<String> {
            let found = diversions(script, package).into_iter();
            found.map(|(from, to)| format!("{from} {to}")).collect()
        };
        let doc = "usr/share/vim/vim90/doc";
        assert_eq!(
            show(vim, "vim-runtime"),
            ["help.txt", "tags"].map(|name| format!("{doc}/{name} {doc}/{name}.vim-tiny"))
        );
        for (script, expected) in [
            (
                "dpkg-divert --package p --rename --divert /usr/bin/a.x --add /usr/bin/a",
                Some("usr/bin/a usr/bin/a.x"),
            ),
            (
                "dpkg-divert --add /bin/sh >/dev/null",
                Some("usr/bin/sh usr/bin/sh.distrib"),
            ),
            (
                "dpkg-divert --quiet --no-rename --divert=/bin/sh.real --package=p /bin/sh",
                Some("usr/bin/sh usr/bin/sh.real"),
            ),
            ("dpkg-divert --package other --add /a", None),
            ("dpkg-divert --package p --remove /a", None),
            ("dpkg-divert --package p --add $f", None),
            ("dpkg-divert --package p --divert /x/../a --add /a", None),
            ("dpkg-divert --package p --add relative", None),
            ("dpkg-divert --truename /a", None),
            ("dpkg-divert --divert", None),
            ("dpkg-divert --local --add /a", None),
        ] {
            assert_eq!(show(script, "p"), expected.into_iter().collect::<Vec<_>>(), "{script}");
        }
    }

    #[test]
    fn what_setcap_is_asked_for_is_found() {
        let found: Vec<_> = capabilities(
            "PROGRAM=$(dpkg-divert --truename /bin/ping)\nif setcap cap_net_raw+ep $PROGRAM; then chmod u-s $PROGRAM; fi\n\
             if ! setcap cap_net_raw,cap_net_admin=eip /usr/bin/dumpcap; then :; fi\nsetcap -r /a; setcap nonsense /b\n\
             command -v setcap > /dev/null; setcap -q cap_kill=p /sbin/c",
        )
        .into_iter()
        .collect();
        let expected = [
            ("usr/bin/dumpcap", "cap_net_admin,cap_net_raw=eip"),
            ("usr/bin/ping", "cap_net_raw=ep"),
            ("usr/sbin/c", "cap_kill=p"),
        ];
        assert_eq!(found, expected.map(|(path, text)| (path.to_owned(), text.to_owned())));
    }

    #[test]
    fn a_negative_priority_and_one_line_conditions_are_read() {
        assert_eq!(
            alternatives("[ -x /usr/bin/y ] && update-alternatives --install /usr/bin/x x /usr/bin/y -10;"),
            "install /usr/bin/x x /usr/bin/y -10\n"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_script_gives_well_formed_lines(script in "(update-alternatives|--install|--slave|/a|b|5|[ \\\\\"'\n$;#]){0,40}") {
            for line in alternatives(&script).lines() {
                let words = line.split(' ').count();
                proptest::prop_assert!(matches!((line.split(' ').next(), words), (Some("install"), 5) | (Some("slave"), 4)));
            }
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_postinst() {
        crate::testing::fuzz("postinst", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            for line in super::alternatives(&text).lines() {
                let words: Vec<&str> = line.split(' ').collect();
                assert!(
                    matches!(words[..], ["install", _, _, _, _] | ["slave", _, _, _]),
                    "{line}"
                );
            }
        });
    }
}
