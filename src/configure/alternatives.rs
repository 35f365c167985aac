//! *Alternatives* as the package manager's state has them when the scripts have run, for what an image has.
//!
//! The tools have programs that the image has not (`awk`, `pager`, `which`), and a link to such a one would lead nowhere, or
//! win over one that the image has. So the winners are chosen anew among what is in the image.
//!
//! Invariant: a function of the state and of which paths there are; a link that would lead nowhere is not made, and none
//! stands in the way of a file that a package ships.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::ConfigureError;
use crate::fsio::{self, sorted_names};

/// Where the state is, a file for each name.
const STATE: &str = "var/lib/dpkg/alternatives";

/// Where links lead, which lead on to what won.
const LINKS: &str = "/etc/alternatives";

/// Largest file of state, in bytes.
const STATE_MAX: u64 = 4 << 20;

/// What there is for a name, of whichever links: update-alternatives(1).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    /// Whether somebody chose, and no priority does.
    manual: bool,
    /// Name and link: of what wins first, then of what goes with it.
    links: Vec<(String, String)>,
    choices: Vec<Choice>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Choice {
    priority: i64,
    /// What each of the links leads to; empty where it has nothing for one.
    targets: Vec<String>,
}

/// The links for an image, absolute, with what they lead to. `states` are the trees that have the state, the first that has
/// a name's file counting; `is_there` says whether the image has an absolute path.
pub(super) fn links(
    states: &[&Path],
    is_there: &dyn Fn(&str) -> bool,
) -> Result<BTreeMap<String, String>, ConfigureError> {
    let dirs: Vec<_> = states
        .iter()
        .map(|tree| tree.join(STATE))
        .filter(|dir| dir.is_dir())
        .collect();
    let mut names = BTreeSet::new();
    for dir in &dirs {
        names.extend(
            sorted_names(dir)?
                .into_iter()
                .filter_map(|name| name.into_string().ok()),
        );
    }
    let mut links = BTreeMap::new();
    for name in names {
        let places = dirs.iter().map(|dir| dir.join(&name));
        // Where a script took the last choice away there is a mark, and no file.
        let place = places.into_iter().find(|place| place.symlink_metadata().is_ok());
        let Some(place) = place.filter(|place| place.is_file()) else {
            continue;
        };
        let text = fsio::read_limited(&place, STATE_MAX)?;
        let Some(group) = parse(&name, &String::from_utf8_lossy(&text)) else {
            continue;
        };
        let chosen = group
            .manual
            .then(|| states.iter().find_map(|tree| chosen_in(tree, &name)))
            .flatten();
        links.extend(group.links_of(chosen.as_deref(), is_there));
    }
    Ok(links)
}

/// What somebody chose.
fn chosen_in(tree: &Path, name: &str) -> Option<String> {
    let target = std::fs::read_link(tree.join("etc/alternatives").join(name)).ok()?;
    target.to_str().map(str::to_owned)
}

impl Group {
    /// Its links, for what wins of what is there.
    fn links_of(&self, chosen: Option<&str>, is_there: &dyn Fn(&str) -> bool) -> Vec<(String, String)> {
        let mut best: Option<&Choice> = None;
        for choice in self.choices.iter().filter(|choice| is_there(&choice.targets[0])) {
            if chosen == Some(choice.targets[0].as_str()) {
                best = Some(choice);
                break;
            }
            // Of equal ones the first, as update-alternatives has it.
            if best.is_none_or(|best| choice.priority > best.priority) {
                best = Some(choice);
            }
        }
        let Some(best) = best else { return Vec::new() };
        let pairs = self.links.iter().zip(&best.targets);
        pairs
            .filter(|((_, link), target)| !target.is_empty() && is_there(target) && !is_there(link))
            .flat_map(|((name, link), target)| {
                let middle = format!("{LINKS}/{name}");
                [(link.clone(), middle.clone()), (middle, target.clone())]
            })
            .collect()
    }
}

/// Reads a name's file; `None` where it is not of the form that it has.
fn parse(name: &str, text: &str) -> Option<Group> {
    let mut lines = text.lines();
    let manual = match lines.next()? {
        "auto" => false,
        "manual" => true,
        _ => return None,
    };
    let mut links = vec![(name.to_owned(), lines.next()?.to_owned())];
    loop {
        match lines.next()? {
            "" => break,
            follower => links.push((follower.to_owned(), lines.next()?.to_owned())),
        }
    }
    let mut choices = Vec::new();
    while let Some(target) = lines.next().filter(|line| !line.is_empty()) {
        let priority = lines.next()?.parse().ok()?;
        let mut targets = vec![target.to_owned()];
        for _ in 1..links.len() {
            targets.push(lines.next()?.to_owned());
        }
        choices.push(Choice { priority, targets });
    }
    let is_normal = |path: &str| path.starts_with('/') && !path.split('/').any(|part| matches!(part, "." | ".."));
    let names_are = links
        .iter()
        .all(|(name, link)| is_normal(link) && !name.is_empty() && !name.contains('/'));
    let targets = choices.iter().flat_map(|choice| &choice.targets);
    let targets_are = targets.into_iter().all(|target| target.is_empty() || is_normal(target));
    (names_are && targets_are).then_some(Group { manual, links, choices })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGER: &str = "auto\n/usr/bin/pager\npager.1.gz\n/usr/share/man/man1/pager.1.gz\n\n\
                         /bin/more\n50\n/usr/share/man/man1/more.1.gz\n/usr/bin/less\n77\n/usr/share/man/man1/less.1.gz\n\
                         /usr/bin/pg\n50\n\n\n";

    fn made(text: &str, chosen: Option<&str>, there: &[&str]) -> Vec<String> {
        let group = parse("pager", text).unwrap();
        let links = group.links_of(chosen, &|path| there.contains(&path));
        links
            .into_iter()
            .map(|(link, target)| format!("{link} {target}"))
            .collect()
    }

    /// The highest priority is that of a program which only the tools have.
    #[test]
    fn the_winner_is_the_best_that_the_image_has() {
        let man = "/usr/share/man/man1/more.1.gz";
        let of = |target: &str| {
            [
                "/usr/bin/pager /etc/alternatives/pager".to_owned(),
                format!("/etc/alternatives/pager {target}"),
            ]
        };
        assert_eq!(made(PAGER, None, &["/bin/more", "/usr/bin/less"]), of("/usr/bin/less"));
        assert_eq!(made(PAGER, None, &["/bin/more", "/usr/bin/pg"]), of("/bin/more"));
        assert_eq!(made(PAGER, None, &["/usr/bin/pg"]), of("/usr/bin/pg"));
        assert_eq!(
            made(PAGER, None, &["/bin/more", man])[2..],
            [
                "/usr/share/man/man1/pager.1.gz /etc/alternatives/pager.1.gz".to_owned(),
                format!("/etc/alternatives/pager.1.gz {man}"),
            ]
        );
    }

    #[test]
    fn nothing_leads_nowhere_or_stands_in_the_way() {
        assert!(made(PAGER, None, &[]).is_empty());
        assert!(made(PAGER, None, &["/usr/share/man/man1/less.1.gz"]).is_empty());
        assert!(made(PAGER, None, &["/bin/more", "/usr/bin/pager"]).is_empty());
    }

    #[test]
    fn what_was_chosen_by_hand_stays_where_it_is_there() {
        let both = ["/bin/more", "/usr/bin/less"];
        assert!(made(PAGER, Some("/bin/more"), &both)[1].ends_with(" /bin/more"));
        assert!(made(PAGER, Some("/usr/bin/pg"), &both)[1].ends_with(" /usr/bin/less"));
    }

    #[test]
    fn the_state_of_the_image_goes_before_that_of_the_tools() {
        let dir = tempfile::tempdir().unwrap();
        let (image, tools) = (dir.path().join("image"), dir.path().join("tools"));
        for tree in [&image, &tools] {
            std::fs::create_dir_all(tree.join(STATE)).unwrap();
        }
        std::fs::write(
            tools.join(STATE).join("awk"),
            "auto\n/usr/bin/awk\n\n/usr/bin/mawk\n5\n\n",
        )
        .unwrap();
        std::fs::write(tools.join(STATE).join("pager"), PAGER).unwrap();
        std::fs::write(
            image.join(STATE).join("awk"),
            "auto\n/usr/bin/awk\n\n/usr/bin/gawk\n10\n\n",
        )
        .unwrap();
        let found = links(&[&image, &tools], &|path| {
            ["/usr/bin/gawk", "/usr/bin/mawk"].contains(&path)
        })
        .unwrap();
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [
                ("/etc/alternatives/awk", "/usr/bin/gawk"),
                ("/usr/bin/awk", "/etc/alternatives/awk")
            ]
            .map(|(link, target)| (link.to_owned(), target.to_owned()))
        );
    }

    #[test]
    fn what_is_not_of_this_form_is_left_out() {
        for text in [
            "",
            "auto",
            "auto\n/usr/bin/x",
            "odd\n/usr/bin/x\n\n",
            "auto\n/usr/bin/x\n\n/a\nmany\n",
            "auto\n/a/../b\n\n\n",
        ] {
            assert_eq!(parse("x", text), None, "{text:?}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_alternatives_state() {
        crate::testing::fuzz("alternatives-state", |bytes| {
            if let Some(group) = super::parse("name", &String::from_utf8_lossy(bytes)) {
                let _ = group.links_of(None, &|_| true);
            }
        });
    }
}
