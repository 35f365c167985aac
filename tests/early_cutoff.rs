//! Early cutoff: what a change that leaves a result alone moves, which is nothing, whatever was computed over the
//! result while it was built.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod machine;

use std::collections::BTreeSet;
use std::fs;

use layerize::build::{Variation, make_again};
use layerize::derive::{Input, Script};
use layerize::event::Event;
use layerize::store::Addressing;
use layerize::store_path::StorePath;
use machine::{Fixture, logical};

/// Stands for a build ID, a checksum, a signature: something computed over the file that holds `$out`, in which the
/// path cannot be rewritten afterwards, for its characters do not stand together.
const COMPUTED: &str = "mkdir $out; echo prefix=$out >$out/config; echo $out | sed 's/./&-/g' >$out/checksum";

/// Like a manual page that is compressed: a name is as good a place where nothing can be rewritten.
const FIXED: &str = "mkdir -p $out/by-path; echo prefix=$out >$out/config; touch $out/by-path/${out##*/}";

impl Fixture {
    /// The script with a tool of this content, which does nothing to the result.
    fn with_tool(&self, content: &str, script: &str) -> Script {
        Script {
            tools: vec![self.tree("tool", &[("bin/tool", content)])],
            ..self.script(script)
        }
    }

    fn notes(&self) -> Vec<String> {
        let events = self.recorder.events().into_iter();
        let notes = events.filter_map(|event| match event {
            Event::Note { text } => Some(text),
            _ => None,
        });
        notes.collect()
    }
}

#[test]
fn what_is_computed_over_an_output_does_not_depend_on_its_derivation() {
    let fixture = Fixture::new();
    let one = fixture.build(fixture.with_tool("one", COMPUTED)).unwrap();
    let two = fixture.build(fixture.with_tool("two", COMPUTED)).unwrap();
    assert_eq!(one, two);
    assert_eq!(fixture.recorder.started(), ["pkg", "pkg"], "both were built");
    assert_eq!(
        fixture.read(&one, "config"),
        format!("prefix={}\n", logical(&one)),
        "what refers to the output itself refers to its final path"
    );
}

#[test]
fn nothing_downstream_is_built_when_a_tool_changes_that_leaves_the_result_alone() {
    let fixture = Fixture::new();
    let plan = |tool: &str| {
        let user = Script {
            libraries: vec![Input::Step(0)],
            ..fixture.script("cat /layerize/store/*-library-1/checksum >$out")
        };
        fixture.plan(vec![("library", fixture.with_tool(tool, COMPUTED)), ("user", user)])
    };
    let [first, second] = ["one", "two"].map(|tool| {
        let paths = fixture.realise(&plan(tool)).unwrap();
        [0, 1].map(|step| paths[&Input::Step(step)].clone())
    });
    assert_eq!(first, second);
    assert_eq!(fixture.recorder.started(), ["library", "user", "library"]);
}

#[test]
fn an_output_that_cannot_be_rewritten_is_built_twice_and_then_never_again() {
    let fixture = Fixture::new();
    let one = fixture.build(fixture.with_tool("one", FIXED)).unwrap();
    assert_eq!(fixture.recorder.started(), ["pkg", "pkg"]);
    assert_eq!(
        fixture.notes(),
        [format!(
            "`pkg` contains its own path where it cannot be rewritten (by-path/{}-pkg-1: its name): its script runs a \
             second time, at that path",
            layerize::store_path::placeholder(&layerize::store_path::StoreDir::layerize(), "pkg-1")
                .unwrap()
                .hash()
        )]
    );
    assert_eq!(fixture.read(&one, "config"), format!("prefix={}\n", logical(&one)));
    assert_eq!(fixture.read(&one, &format!("by-path/{one}")), "");
    let details = fixture.store.info_full(&one).unwrap().unwrap();
    assert_eq!(
        (details.addressing, details.info.self_reference),
        (Addressing::Derivation, true)
    );
    let two = fixture.build(fixture.with_tool("two", FIXED)).unwrap();
    assert_eq!(one, two);
    assert_eq!(fixture.recorder.started().len(), 3, "it is seen after the first run");
    assert_eq!(fixture.store.verify(true).unwrap(), []);
}

#[test]
fn outputs_of_one_name_are_told_apart_by_their_content() {
    let fixture = Fixture::new();
    let mut paths = BTreeSet::new();
    for script in [COMPUTED, FIXED] {
        for more in ["one", "two"] {
            let script = fixture.script(&format!("{script}; echo {more} >$out/more"));
            paths.insert(fixture.build(script).unwrap());
        }
    }
    assert_eq!(paths.len(), 4);
    assert_eq!(fixture.store.verify(true).unwrap(), []);
}

#[test]
fn steps_of_one_name_are_built_at_once() {
    let mut fixture = Fixture::new();
    fixture.options.jobs = 3;
    // Each waits until all have written to what is their own `$out`.
    let script = |content: &str| {
        fixture.script(&format!(
            "mkdir $out; echo {content} $out >$out/f; sleep 1; cat $out/f; ls $out | sed q; touch $out/${{out##*/}}"
        ))
    };
    let user = Script {
        libraries: vec![Input::Step(0), Input::Step(1), Input::Step(2)],
        ..fixture.script("cat /layerize/store/*-pkg-1/f | sed 's/ .*//' >$out")
    };
    let scripts = ["one", "two", "three"].map(|content| ("pkg", script(content)));
    let plan = fixture.plan(scripts.into_iter().chain([("user", user)]).collect());
    let paths = fixture.realise(&plan).unwrap();
    for (step, content) in ["one", "two", "three"].into_iter().enumerate() {
        let path = &paths[&Input::Step(step)];
        assert_eq!(fixture.read(path, "f"), format!("{content} {}\n", logical(path)));
    }
    let all = fs::read_to_string(fixture.store.physical(&paths[&Input::Step(3)])).unwrap();
    assert_eq!(
        all.lines().collect::<BTreeSet<_>>(),
        BTreeSet::from(["one", "two", "three"])
    );
}

#[test]
fn an_input_of_the_same_name_is_not_mistaken_for_the_output() {
    let fixture = Fixture::new();
    let path = |paths: &std::collections::BTreeMap<Input, StorePath>, step| paths[&Input::Step(step)].clone();
    for script in [COMPUTED, FIXED] {
        let outer = Script {
            libraries: vec![Input::Step(0)],
            ..fixture.script("mkdir $out; cp /layerize/store/*-pkg-1/config $out/inner; echo $out >$out/own")
        };
        let plan = fixture.plan(vec![("pkg", fixture.script(script)), ("pkg", outer)]);
        let paths = fixture.realise(&plan).unwrap();
        let (inner, outer) = (path(&paths, 0), path(&paths, 1));
        assert_ne!(inner, outer);
        assert_eq!(fixture.read(&outer, "inner"), format!("prefix={}\n", logical(&inner)));
        assert_eq!(fixture.read(&outer, "own"), format!("{}\n", logical(&outer)));
        let info = fixture.store.info(&outer).unwrap().unwrap();
        assert_eq!((info.references, info.self_reference), (BTreeSet::from([inner]), true));
    }
}

#[test]
fn a_check_builds_each_output_where_it_was_built() {
    let fixture = Fixture::new();
    let all = BTreeSet::from(Variation::ALL);
    for (script, same) in [
        (COMPUTED.to_owned(), true),
        (FIXED.to_owned(), true),
        (
            format!("{COMPUTED}; hostname=$(cat /proc/sys/kernel/hostname); echo $hostname >>$out/config"),
            false,
        ),
        (format!("{FIXED}; cat /proc/sys/kernel/hostname >>$out/config"), false),
    ] {
        let plan = fixture.plan(vec![("pkg", fixture.script(&script))]);
        fixture.realise(&plan).unwrap();
        let again = make_again(&fixture.store, &plan, 0, &all, &fixture.options, &fixture.recorder).unwrap();
        assert_eq!(again.is_same(), same, "{script}");
    }
}
