//! *Victims*: what goes first where not everything can stay.
//!
//! Invariant: a pure function of sizes, times of use, what needs what, and what is kept. What is kept, and what that needs,
//! never goes; nothing goes before all that needs it; what was used longer ago goes earlier, where to use a thing is to use
//! all that it needs.

use std::time::SystemTime;

use crate::graph;

/// A thing that may go.
#[derive(Debug, Clone)]
pub struct Thing {
    /// What it takes up.
    pub bytes: u64,
    /// When somebody last had use for it itself.
    pub used: SystemTime,
    /// What it needs, as indices.
    pub needs: Vec<usize>,
    /// Whether it stays whatever happens.
    pub is_kept: bool,
    /// Whether room for builds comes of it: it is on the disk that has to have some.
    pub makes_room: bool,
}

/// Things that go together: one, or several that need each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    /// Their indices.
    pub things: Vec<usize>,
    /// What they take up.
    pub bytes: u64,
    /// When somebody last had use for them, or for what needs them.
    pub used: SystemTime,
    /// Whether room for builds comes of it.
    pub makes_room: bool,
}

/// Everything that may go, in the order in which it goes.
pub fn order(things: &[Thing]) -> Vec<Victim> {
    let needs: Vec<Vec<usize>> = things.iter().map(|thing| thing.needs.clone()).collect();
    // Each after all that it needs: from the other end, each before.
    let groups = graph::components(&needs);
    let mut used: Vec<SystemTime> = things.iter().map(|thing| thing.used).collect();
    let mut is_kept: Vec<bool> = things.iter().map(|thing| thing.is_kept).collect();
    let mut victims = Vec::new();
    for group in groups.into_iter().rev() {
        let group_used = group.iter().map(|&thing| used[thing]).max();
        let group_used = group_used.unwrap_or(SystemTime::UNIX_EPOCH);
        let group_kept = group.iter().any(|&thing| is_kept[thing]);
        for &needed in group.iter().flat_map(|&thing| &things[thing].needs) {
            used[needed] = used[needed].max(group_used);
            is_kept[needed] |= group_kept;
        }
        if !group_kept {
            victims.push(Victim {
                bytes: group.iter().map(|&thing| things[thing].bytes).sum(),
                makes_room: group.iter().any(|&thing| things[thing].makes_room),
                things: group,
                used: group_used,
            });
        }
    }
    // What needs another was used no later than that: where both were used at one moment, they stay in this order.
    victims.sort_by_key(|victim| victim.used);
    victims
}

/// How much there may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// What was used before this moment goes, whatever room there is.
    pub unused_since: Option<SystemTime>,
    /// Bytes that have to go.
    pub surplus: u64,
    /// Bytes by which there has to be more room for builds.
    pub room: u64,
}

/// Those of the victims, which are in their order, that go.
pub fn choose(victims: Vec<Victim>, limits: Limits) -> Vec<Victim> {
    let (mut gone, mut freed) = (0, 0);
    let goes = |victim: &Victim| {
        let is_old = limits.unused_since.is_some_and(|moment| victim.used < moment);
        let makes_room = freed < limits.room && victim.makes_room;
        let goes = is_old || gone < limits.surplus || makes_room;
        if goes {
            gone += victim.bytes;
            freed += if victim.makes_room { victim.bytes } else { 0 };
        }
        goes
    };
    victims.into_iter().filter(goes).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Some things with edges among them, also in circles; few moments, so that there are ties.
    fn some_things() -> impl Strategy<Value = Vec<Thing>> {
        (1..20_usize).prop_flat_map(|count| {
            let thing = (
                0..100_u64,
                0..6_u64,
                prop::collection::vec(0..count, 0..4),
                prop::bool::weighted(0.15),
                any::<bool>(),
            );
            let thing = thing.prop_map(|(bytes, used, needs, is_kept, makes_room)| Thing {
                bytes,
                used: at(used),
                needs,
                is_kept,
                makes_room,
            });
            prop::collection::vec(thing, count)
        })
    }

    /// What needs a thing, directly or not, and the thing itself: by looking at every pair until nothing is new.
    fn users(things: &[Thing], of: usize) -> BTreeSet<usize> {
        let mut users = BTreeSet::from([of]);
        loop {
            let more = (0..things.len()).filter(|&at| things[at].needs.iter().any(|need| users.contains(need)));
            let all: BTreeSet<usize> = users.iter().copied().chain(more).collect();
            if all.len() == users.len() {
                return users;
            }
            users = all;
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_stays_and_all_else_goes_once(things in some_things()) {
            let kept = |thing| users(&things, thing).into_iter().any(|user| things[user].is_kept);
            let mut gone: Vec<usize> = order(&things).into_iter().flat_map(|victim| victim.things).collect();
            gone.sort_unstable();
            let expected: Vec<usize> = (0..things.len()).filter(|&thing| !kept(thing)).collect();
            prop_assert_eq!(gone, expected);
        }

        #[test]
        fn nothing_goes_before_what_needs_it_and_the_longest_unused_goes_first(things in some_things()) {
            let victims = order(&things);
            let mut gone = BTreeSet::new();
            for victim in &victims {
                gone.extend(&victim.things);
                for &thing in &victim.things {
                    let users = users(&things, thing);
                    prop_assert!(users.is_subset(&gone), "{thing} goes before one of {users:?}");
                    let used = users.into_iter().map(|user| things[user].used).max();
                    prop_assert_eq!(used, Some(victim.used));
                }
                prop_assert_eq!(victim.bytes, victim.things.iter().map(|&thing| things[thing].bytes).sum::<u64>());
            }
            prop_assert!(victims.is_sorted_by_key(|victim| victim.used));
        }

        #[test]
        fn as_much_goes_as_must_and_no_more(
            things in some_things(), surplus in 0..500_u64, room in 0..500_u64, moment in 0..6_u64,
        ) {
            let victims = order(&things);
            let limits = Limits { unused_since: Some(at(moment)), surplus, room };
            let chosen = choose(victims.clone(), limits);
            let bytes = |of: &[Victim]| of.iter().map(|victim| victim.bytes).sum::<u64>();
            let freed = |of: &[Victim]| of.iter().filter(|victim| victim.makes_room).map(|victim| victim.bytes).sum::<u64>();
            prop_assert!(bytes(&chosen) >= surplus.min(bytes(&victims)));
            prop_assert!(freed(&chosen) >= room.min(freed(&victims)));
            prop_assert!(victims.iter().filter(|victim| victim.used < at(moment)).all(|old| chosen.contains(old)));
            // The last that went was not too much: without it something was wanting still.
            if let Some((last, others)) = chosen.split_last() {
                let is_needed = bytes(others) < surplus || (freed(others) < room && last.makes_room);
                prop_assert!(is_needed || last.used < at(moment));
            }
            prop_assert!(choose(victims.clone(), Limits::default()).is_empty());
            // What goes for its age or for the sum of all goes from the front.
            let front = choose(victims.clone(), Limits { room: 0, ..limits });
            prop_assert_eq!(&front[..], &victims[..front.len()]);
        }
    }

    /// A tool that every edit is built with outlives what the edits before made.
    #[test]
    fn tools_outlive_what_was_made_with_them() {
        let thing = |used, needs: &[usize]| Thing {
            bytes: 1,
            used: at(used),
            needs: needs.to_vec(),
            is_kept: false,
            makes_room: true,
        };
        // The library of the tool; the tool; results of three edits, the last built a moment after the tool was used.
        let things = [
            thing(1, &[]),
            thing(30, &[0]),
            thing(11, &[]),
            thing(21, &[]),
            thing(31, &[]),
        ];
        let order: Vec<usize> = order(&things).into_iter().flat_map(|victim| victim.things).collect();
        assert_eq!(order, [2, 3, 1, 0, 4]);
    }
}
