//! Sources that nobody changed: no file of them is opened, however many there are.

use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

use crate::support::Place;

/// Who opens files of directories, as the kernel tells it.
struct Opened(OwnedFd);

impl Opened {
    fn of(dirs: &[&Path]) -> Self {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        for dir in dirs {
            add_watch(&inotify, *dir, WatchFlags::OPEN).unwrap();
        }
        Self(inotify)
    }

    /// The names of the files that were opened since this was asked last.
    fn names(&self) -> BTreeSet<String> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut events = Reader::new(&self.0, &mut buffer);
        let mut names = BTreeSet::new();
        while let Ok(event) = events.next() {
            assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW));
            if let Some(name) = event.file_name().filter(|_| !event.events().contains(ReadFlags::ISDIR)) {
                names.insert(String::from_utf8(name.to_bytes().to_vec()).unwrap());
            }
        }
        names
    }
}

/// A project with a source of many files, whose openings are told.
struct Watched {
    place: Place,
    data: PathBuf,
    opened: Opened,
}

impl Watched {
    fn new() -> Self {
        let place = Place::new();
        place.write("layerize.toml", "[package.data]\nsource = \"data\"\n");
        for name in all() {
            place.write(&format!("data/{}/{name}", &name[..1]), "text\n");
        }
        let data = place.project.join("data");
        settle();
        Self {
            opened: Opened::of(&[&data.join("a"), &data.join("b")]),
            place,
            data,
        }
    }

    fn build(&self) -> String {
        self.place.run(&["build", "-q", "data"]).success().line().to_owned()
    }

    /// Builds, and gives what was opened for it, too.
    fn built(&self) -> (String, BTreeSet<String>) {
        self.opened.names();
        (self.build(), self.opened.names())
    }
}

/// The names of all files.
fn all() -> BTreeSet<String> {
    let names = |dir: &'static str| (0..40).map(move |number| format!("{dir}{number}"));
    names("a").chain(names("b")).collect()
}

/// What was changed just now may be changed again within the same tick of the clock of files, and is read once more.
fn settle() {
    std::thread::sleep(Duration::from_millis(150));
}

#[test]
fn of_a_source_that_nobody_changed_no_file_is_opened() {
    let watched = Watched::new();
    let (first, opened) = watched.built();
    assert_eq!(opened, all(), "the first build reads all");
    assert_eq!(watched.built(), (first.clone(), BTreeSet::new()));
    // A record that is damaged counts as none.
    let records = watched.place.store().join("cache/sources");
    for record in layerize::fsio::sorted_names(&records).unwrap() {
        fs::write(records.join(record), [b'0'; 130]).unwrap();
    }
    assert_eq!(watched.built(), (first.clone(), all()));
    assert_eq!(watched.built(), (first.clone(), BTreeSet::new()));
    // What the store lost is copied again.
    let run = |arguments: &[&str]| watched.place.run(arguments).success();
    run(&["store", "roots", "remove", "."]);
    run(&["store", "gc", "--all"]);
    let path = watched
        .place
        .store()
        .join("store")
        .join(first.rsplit('/').next().unwrap());
    assert!(!path.exists());
    assert_eq!(watched.build(), first);
    assert!(path.is_dir());
    run(&["store", "verify"]);
}

/// Whatever is changed is seen: of the same size and time, a mode, a name, a link.
#[test]
fn every_change_of_a_source_is_seen() {
    let watched = Watched::new();
    let first = watched.build();
    let file = watched.data.join("a/a7");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    let write = |text: &str| {
        fs::write(&file, text).unwrap();
        let times = fs::FileTimes::new().set_modified(modified);
        let file = fs::File::options().write(true).open(&file).unwrap();
        file.set_times(times).unwrap();
    };
    let set_mode = |mode: u32| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    let mut results = BTreeSet::from([first.clone()]);
    let mut changed = |what: &str| assert!(results.insert(watched.build()), "{what}");
    write("next\n");
    changed("a file of the same size and time");
    // At once, while the first change is too new to be relied on.
    write("last\n");
    changed("the same file again");
    set_mode(0o755);
    changed("its mode");
    fs::rename(watched.data.join("b/b1"), watched.data.join("b/other")).unwrap();
    changed("a name");
    std::os::unix::fs::symlink("one", watched.data.join("link")).unwrap();
    changed("a link");
    fs::remove_file(watched.data.join("link")).unwrap();
    fs::rename(watched.data.join("b/other"), watched.data.join("b/b1")).unwrap();
    set_mode(0o644);
    write("text\n");
    assert_eq!(watched.build(), first, "what is as before is what it was");
}
