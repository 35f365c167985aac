//! One bound on memory for every verb that reads images, whatever an image holds: small blobs that unpack to much used to
//! take gigabytes. What does not fit is refused with a reason.

use serde_json::{Value, json};

use crate::crafted::{Crafted, Entry, entry_of, memory_is_bounded};
use crate::support::Place;

/// Every verb that reads an image, `@` for it and `+` for another of its kind.
const VERBS: &[&[&str]] = &[
    &["inspect", "@"],
    &["inspect", "--layers", "@"],
    &["verify", "@"],
    &["verify", "--profile", "strict", "@"],
    &["explain", "@", "/f"],
    &["diff", "@", "+"],
    &["sbom", "@"],
    &["copy", "@", "oci-archive:copied.tar"],
    &["verify-signature", "@", "--key", "own.pub"],
];

/// Makes two images by `make`, told apart by its argument, and reads them with every verb.
fn bounded(what: &str, make: impl Fn(&Crafted, u8)) {
    let place = Place::new();
    place.run(&["key", "generate", "own"]).success();
    for side in [1, 2] {
        make(&Crafted::at(&place.project.join(side.to_string())), side);
    }
    for verb in VERBS {
        let args: Vec<&str> = verb
            .iter()
            .map(|arg| match *arg {
                "@" => "oci:1:v1",
                "+" => "oci:2:v1",
                arg => arg,
            })
            .collect();
        let ran = place.run(&args);
        assert!((0..=2).contains(&ran.status), "{what}: {args:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("panic"), "{what}: {args:?}: {}", ran.stderr);
        memory_is_bounded(&format!("{what}: {args:?}"));
    }
}

/// A layer of `count` entries.
fn layer(layout: &Crafted, count: usize, entry: impl Fn(usize) -> Entry) -> (layerize::digest::Digest, Value) {
    layout.stream(|out| {
        for number in 0..count {
            out.write_all(&entry_of(entry(number))).unwrap();
        }
        out.write_all(&[0; 1024]).unwrap();
    })
}

#[test]
fn of_many_entries() {
    bounded("many entries", |layout, side| {
        let entry = |number: usize| Entry::file(format!("dir/{side}-{number}").as_bytes(), b"");
        let layer = layer(layout, 250_000, entry);
        layout.image(&[layer], &json!({}), &json!({}));
    });
}

#[test]
fn of_long_names() {
    bounded("long names", |layout, side| {
        let long = "n".repeat(1_000_000);
        let entry = |number: usize| Entry::file(b"f", b"").pax(b"path", format!("{side}/{number}/{long}").as_bytes());
        let layer = layer(layout, 500, entry);
        layout.image(&[layer], &json!({}), &json!({}));
    });
}

/// Attributes that hard links share: what 150 kB of image hold was copied for each of them.
#[test]
fn of_attributes_and_hard_links_to_them() {
    bounded("attributes", |layout, side| {
        let value = vec![b'v'; 1_000_000];
        let entry = |number: usize| match number {
            0 => Entry::file(b"f", &[side]).pax(b"SCHILY.xattr.user.x", &value),
            number => Entry::of(format!("l{number}").as_bytes(), b'1', b"f"),
        };
        let (first, second) = (
            layer(layout, 20_000, entry),
            layer(layout, 1, |_| Entry::file(b"g", &[side])),
        );
        // Another number of layers on each side, so that the images are compared as a whole.
        let layers = if side == 1 { vec![first, second] } else { vec![first] };
        layout.image(&layers, &json!({}), &json!({}));
    });
}

#[test]
fn of_documents_of_many_values() {
    bounded("documents", |layout, side| {
        let layer = layer(layout, 1, |_| Entry::file(b"f", &[side]));
        let map = |count: usize| -> Value { (0..count).map(|n| (format!("{side}{n:x}"), json!(""))).collect() };
        let zeros = vec![0; 900_000];
        let config = json!({ "Labels": map(150_000), "Env": vec!["A=b"; 100_000], "x": zeros });
        layout.image(
            &[layer],
            &config,
            &json!({ "annotations": map(200_000), "x": vec![0; 200_000] }),
        );
    });
}

/// Archives in archives, each of whose members differs.
#[test]
fn of_archives_in_archives() {
    fn nested(depth: usize, side: u8) -> Vec<u8> {
        let members = (0..50).map(|number: usize| {
            let data = match depth {
                0 => format!("{side}\n").repeat(40_000).into_bytes(),
                depth => nested(depth - 1, side),
            };
            Entry::file(format!("m{number}").as_bytes(), &data[..data.len().min(4 << 20)])
        });
        let mut bytes: Vec<u8> = members
            .take(if depth == 0 { 50 } else { 6 })
            .flat_map(entry_of)
            .collect();
        bytes.extend([0; 1024]);
        bytes
    }
    bounded("archives", |layout, side| {
        let data = nested(2, side);
        let layer = layer(layout, 3, |number| {
            Entry::file(format!("a{number}.tar").as_bytes(), &data)
        });
        layout.image(&[layer], &json!({}), &json!({}));
    });
}

/// Twice as much takes about twice as long: what was quadratic took four times.
#[test]
fn the_time_of_a_comparison_grows_with_what_is_compared() {
    let time = |count: usize| {
        let place = Place::new();
        for side in [1u8, 2] {
            let layout = Crafted::at(&place.project.join(side.to_string()));
            // Store paths of many parts, members of one name, and entries of an index of one platform.
            let name = format!("layerize/store/{}-n{}", "0".repeat(32), "-1".repeat(count / 4));
            let one = entry_of(Entry::file(b"m", &[side]));
            let members: Vec<u8> = one
                .iter()
                .copied()
                .cycle()
                .take(one.len() * count / 8)
                .chain([0; 1024])
                .collect();
            let layer = layout.stream(|out| {
                out.write_all(&entry_of(
                    Entry::file(b"f", b"").pax(b"path", format!("{name}x/{side}").as_bytes()),
                ))
                .unwrap();
                out.write_all(&entry_of(Entry::file(b"a.tar", &members))).unwrap();
                out.write_all(&[0; 1024]).unwrap();
            });
            layout.image(&[layer], &json!({}), &json!({}));
        }
        let started = std::time::Instant::now();
        place.run(&["diff", "--indexes", "oci:1:v1", "oci:2:v1"]).exits(1);
        started.elapsed().as_secs_f64()
    };
    let (once, twice) = (time(40_000), time(80_000));
    assert!(
        twice < 3.2 * once + 0.5,
        "{once:.2} s, and {twice:.2} s for twice as much"
    );
}
