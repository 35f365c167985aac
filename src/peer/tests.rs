//! A server in this process, and clients that are honest and that are not.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::copy::described;
use super::message::{Answer, Choice, MAGIC, Member, PATHS_MAX, Request, VERSION};
use super::wire::{Incoming, Outgoing};
use super::*;
use crate::digest::Digest;
use crate::execution::Execution;
use crate::store::{ANY_REFERENCE, NewOutput, Rewritten, Store};
use crate::store_path::{PathInfo, StoreDir, StorePath};
use crate::walls::Walls;

/// A store in a temporary directory.
struct Scene {
    _dir: tempfile::TempDir,
    store: Store,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        Self { _dir: dir, store }
    }

    /// An output that holds `text`, and may refer to `candidates` and to itself as `scratch`.
    fn output(&self, name: &str, text: &[u8], candidates: &[&StorePath], scratch: Option<&StorePath>) -> PathInfo {
        let staging = self.store.stage().unwrap();
        let tree = staging.path().join("out");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("text"), text).unwrap();
        let output = NewOutput {
            name,
            tree: &tree,
            candidates: &candidates.iter().map(|&path| path.clone()).collect(),
            declare: &|_| Vec::new(),
            derivation: None,
            policy: &ANY_REFERENCE,
            walls: Walls::Chroot,
            execution: Execution::Emulated,
        };
        let Some(scratch) = scratch else {
            return self.store.add_output(&output).unwrap();
        };
        match self.store.add_rewritten(&output, scratch).unwrap() {
            Rewritten::Registered(info) => info,
            Rewritten::NamesItself { path, .. } => {
                // As it would have come out at its own path.
                crate::fsio::remove_tree(&tree).unwrap();
                fs::create_dir(&tree).unwrap();
                fs::write(tree.join("text"), utf16(&path)).unwrap();
                self.store.add_in_place(&output, &path).unwrap()
            }
        }
    }

    /// A path, and one that refers to it and to itself.
    fn two(&self) -> [PathInfo; 2] {
        let base = self.output("base", b"base", &[], None);
        let scratch = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-user".parse().unwrap();
        let dir = StoreDir::layerize();
        let text = format!("{} {}", dir.join(&base.path), dir.join(&scratch));
        let user = self.output("user", text.as_bytes(), &[&base.path], Some(&scratch));
        assert!(user.self_reference && user.references.contains(&base.path));
        [base, user]
    }

    fn member(&self, info: &PathInfo) -> Member {
        Member::of(&described(&self.store, info).unwrap())
    }

    fn archive(&self, info: &PathInfo) -> Vec<u8> {
        let mut bytes = Vec::new();
        crate::nar::write(&self.store.physical(&info.path), &mut bytes).unwrap();
        bytes
    }
}

/// A path where it cannot be rewritten.
fn utf16(path: &StorePath) -> Vec<u8> {
    StoreDir::layerize()
        .join(path)
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// What a client sends.
struct Client(Outgoing<Vec<u8>>);

impl Client {
    fn new() -> Self {
        let mut client = Self(Outgoing(Vec::new()));
        client.0.frame(&Choice { version: VERSION }).unwrap();
        client
    }

    fn ask(mut self, request: &Request) -> Self {
        self.0.frame(request).unwrap();
        self
    }

    /// A request that is written by hand.
    fn say(mut self, request: &Value) -> Self {
        self.0.frame(request).unwrap();
        self
    }

    fn add(mut self, member: &Value, archive: &[u8]) -> Self {
        self.0.frame(&json!({"ask": "add", "member": member})).unwrap();
        let sent = self.0.archive(|to| to.write_all(archive));
        sent.unwrap().unwrap();
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.0.extend_from_slice(bytes);
        self
    }

    /// Has a server answer; what it said, and why it ended.
    fn at(&self, store: &Store, judge: &Judge<'_>) -> (Vec<u8>, Result<(), Failure>) {
        let nothing = || Failure {
            message: "nothing is done here".to_owned(),
            help: None,
            of_script: false,
            end: None,
        };
        let services = Services {
            store,
            program: "test",
            judge,
            find: &|_| Err(nothing()),
            activate: &|_| Err(nothing()),
            build: &|_, _| Err(nothing()),
        };
        let mut said = Vec::new();
        let ended = serve(&services, self.0.0.as_slice(), &mut said);
        (said, ended)
    }
}

fn nobody(_: &PathInfo, _: &std::collections::BTreeSet<String>) -> Result<(), String> {
    Err("nobody signed it".to_owned())
}

/// The answers behind the greeting.
fn answers(said: &[u8]) -> Vec<Answer> {
    let rest = said.strip_prefix(MAGIC).expect("it greets");
    let mut from = Incoming(rest);
    let hello: message::Hello = from.frame().unwrap();
    assert_eq!(
        (hello.oldest, hello.newest, hello.store_dir.as_str()),
        (1, 1, "/layerize/store")
    );
    std::iter::from_fn(|| from.next().unwrap()).collect()
}

#[test]
fn a_closure_arrives_as_it_was() {
    let (here, there) = (Scene::new(), Scene::new());
    let [base, user] = here.two();
    let paths = vec![base.path.clone(), user.path.clone()];
    let value = |info| serde_json::to_value(here.member(info)).unwrap();
    let client = Client::new()
        .ask(&Request::Missing { paths: paths.clone() })
        .add(&value(&base), &here.archive(&base))
        .add(&value(&user), &here.archive(&user))
        .ask(&Request::Missing { paths: paths.clone() });
    let (said, ended) = client.at(&there.store, &nobody);
    ended.unwrap();
    let answers = answers(&said);
    let [
        Answer::Missing { paths: before },
        Answer::Added,
        Answer::Added,
        Answer::Missing { paths: after },
    ] = &answers[..]
    else {
        panic!("{answers:?}");
    };
    assert_eq!((before, after), (&paths, &Vec::new()));
    for info in [&base, &user] {
        let (mine, theirs) = (
            here.store.info_full(&info.path).unwrap(),
            there.store.info_full(&info.path).unwrap(),
        );
        let (mine, theirs) = (mine.unwrap(), theirs.unwrap());
        assert_eq!((&theirs.info, theirs.addressing), (&mine.info, mine.addressing));
        // Found there as here, and not believed.
        assert_eq!(theirs.evidence, mine.evidence);
        assert_eq!(theirs.provenance.walls, Walls::Chroot);
        assert_eq!(theirs.provenance.execution, Execution::Emulated);
    }
    assert!(there.store.verify(true).unwrap().is_empty());
}

/// An archive in which an entry is called `name`.
fn archive_with(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let words = [
        "nix-archive-1",
        "(",
        "type",
        "directory",
        "entry",
        "(",
        "name",
        name,
        "node",
        "(",
        "type",
        "regular",
        "contents",
        "x",
        ")",
        ")",
        ")",
    ];
    for word in words {
        bytes.extend_from_slice(&(word.len() as u64).to_le_bytes());
        bytes.extend_from_slice(word.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

/// A name, what a client sends, and why it is refused.
type Lie = (&'static str, Client, &'static str);

/// What is said of a path is changed.
fn lies_of_members(here: &Scene, base: &PathInfo) -> Vec<Lie> {
    let archive = here.archive(base);
    let other = "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-base";
    let changes = [
        ("nar-hash", json!(Digest::of(b"other")), "does not match"),
        ("nar-size", json!(8), "larger than the 8 bytes"),
        ("nar-size", json!(1_u64 << 62), "has room for"),
        ("nar-size", json!(-1), "makes no sense"),
        ("path", json!(other), "is not the path"),
        ("path", json!("../../etc/passwd"), "not a store path"),
        ("references", json!([base.path]), "itself"),
        ("references", json!([other]), "needed by"),
        ("declared", json!({ other: other }), "declare"),
        ("deriver", json!("../x"), "made by"),
        ("walls", json!("glass"), "makes no sense"),
    ];
    let lie = |(key, new, expected): (&'static str, Value, &'static str)| {
        let mut member = serde_json::to_value(here.member(base)).unwrap();
        member[key] = new;
        (key, Client::new().add(&member, &archive), expected)
    };
    changes.map(lie).into()
}

/// What is sent is not what is said.
fn lies_of_archives(here: &Scene, base: &PathInfo, user: &PathInfo) -> Vec<Lie> {
    let value = |info| serde_json::to_value(here.member(info)).unwrap();
    let archive = here.archive(base);
    let longer = [&archive[..], &[0; 8]].concat();
    let escaping = |name: &str| {
        let bytes = archive_with(name);
        let mut member = value(base);
        member["nar-hash"] = json!(Digest::of(&bytes));
        member["nar-size"] = json!(bytes.len());
        Client::new().add(&member, &bytes)
    };
    let scratch: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-fixed".parse().unwrap();
    let fixed = here.output("fixed", &utf16(&scratch), &[], Some(&scratch));
    let mut lying = value(&fixed);
    lying["address"] = json!({"by": "tree", "hash": Digest::of(b"other")});
    let add = |member: &Value, archive: &[u8]| Client::new().add(member, archive);
    vec![
        ("too short", add(&value(base), &archive[..64]), "archive"),
        ("too long", add(&value(base), &longer), "archive"),
        ("too early", add(&value(user), &here.archive(user)), "needed by"),
        (
            "unsigned",
            add(&value(&fixed), &here.archive(&fixed)),
            "nobody signed it",
        ),
        ("unproved", add(&lying, &here.archive(&fixed)), "names itself"),
        ("escapes", escaping(".."), "name"),
        ("escapes by a slash", escaping("a/../../b"), "name"),
    ]
}

/// What is sent is no message, or asks for what there is not.
fn lies_of_messages() -> Vec<Lie> {
    let other: StorePath = "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-base".parse().unwrap();
    let many = std::iter::repeat_n(other.clone(), PATHS_MAX + 1).collect();
    let say = |value: Value| Client::new().say(&value);
    let bare = |bytes: &[u8]| Client(Outgoing(bytes.to_vec()));
    let below = json!({"ask": "closure", "names": ["/layerize/store/x/../.."]});
    let many = Client::new().ask(&Request::Missing { paths: many });
    let lost = Client::new().ask(&Request::Send { path: other });
    vec![
        ("unknown", say(json!({"ask": "everything"})), "makes no sense"),
        (
            "no JSON",
            Client::new().raw(&[2, 0, 0, 0, b'{', b'x']),
            "makes no sense",
        ),
        (
            "huge",
            Client::new().raw(&[0xff, 0xff, 0xff, 0x7f]),
            "where there may be",
        ),
        ("HTTP", bare(b"GET / HTTP/1.1\r\n\r\n"), "where there may be"),
        ("the future", bare(b"").say(&json!({"version": 2})), "version 2"),
        ("too many", many, "at once"),
        ("not there", lost, "is not valid"),
        ("a path below", say(below), "nothing"),
    ]
}

#[test]
fn what_a_hostile_client_sends_is_refused_and_nothing_of_it_stays() {
    let here = Scene::new();
    let [base, user] = here.two();
    let lies = [
        lies_of_members(&here, &base),
        lies_of_archives(&here, &base, &user),
        lies_of_messages(),
    ];
    for (name, client, expected) in lies.into_iter().flatten() {
        let there = Scene::new();
        let (said, ended) = client.at(&there.store, &nobody);
        let message = ended.expect_err(name).message;
        assert!(message.contains(expected), "{name}: {message}");
        assert!(matches!(answers(&said).last(), Some(Answer::Failed { .. })), "{name}");
        assert!(there.store.list().unwrap().is_empty(), "{name}");
        assert_eq!(left(there.store.dir()), Vec::<String>::new(), "{name}");
    }
    // What stops in the middle is nobody's fault.
    let member = serde_json::to_value(here.member(&base)).unwrap();
    let whole = Client::new().add(&member, &here.archive(&base));
    let bytes = &whole.0.0;
    for end in (0..bytes.len()).step_by(37) {
        let there = Scene::new();
        let cut = Client(Outgoing(bytes[..end].to_vec()));
        let (_, ended) = cut.at(&there.store, &nobody);
        ended.unwrap_or_else(|failure| panic!("{end}: {failure}"));
        assert!(there.store.list().unwrap().is_empty(), "{end}");
    }
}

#[test]
fn what_a_key_signed_is_taken() {
    let (here, there) = (Scene::new(), Scene::new());
    let scratch: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-fixed".parse().unwrap();
    let fixed = here.output("fixed", &utf16(&scratch), &[], Some(&scratch));
    here.store.add_signature(&fixed.path, "me:c2lnbmVk").unwrap();
    let signed =
        |_: &PathInfo, signatures: &std::collections::BTreeSet<String>| match signatures.contains("me:c2lnbmVk") {
            true => Ok(()),
            false => Err("nobody signed it".to_owned()),
        };
    let member = serde_json::to_value(here.member(&fixed)).unwrap();
    let (_, ended) = Client::new()
        .add(&member, &here.archive(&fixed))
        .at(&there.store, &signed);
    ended.unwrap();
    assert_eq!(there.store.list().unwrap(), std::slice::from_ref(&fixed));
    assert!(
        there
            .store
            .attestation(&fixed.path)
            .unwrap()
            .signatures
            .contains("me:c2lnbmVk")
    );
}

/// What a store has of trees and of what is on its way.
fn left(store: &Path) -> Vec<String> {
    let names = |dir: &str| crate::fsio::sorted_names(&store.join(dir)).unwrap();
    let names = names("store")
        .into_iter()
        .chain(names("tmp"))
        .map(|name| name.into_string().unwrap());
    names.filter(|name| !name.ends_with(".lock")).collect()
}
