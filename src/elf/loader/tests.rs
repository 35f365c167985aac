//! Each way by which a loader finds a library, and each that it does not take. The right values are those of ld.so(8)
//! ("Dynamic linking libraries", "Dynamic string tokens"), of glibc's `elf/dl-load.c` and of musl's `ldso/dynlink.c`.

use std::collections::BTreeMap;

use super::*;
use crate::elf::read_bytes;
use crate::elf::testing::{AARCH64, LOADER, Sample, library, program};

const MUSL: &str = "/lib/ld-musl-x86_64.so.1";

/// Files by absolute path; no links.
#[derive(Default)]
struct Tree(BTreeMap<String, Vec<u8>>);

impl Files for Tree {
    fn elf(&self, path: &str) -> Result<Option<Rc<Elf>>, PathError> {
        Ok(self.0.get(path).and_then(|bytes| read_bytes(bytes)).map(Rc::new))
    }

    fn bytes(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, PathError> {
        Ok(self.0.get(path).filter(|bytes| bytes.len() as u64 <= max).cloned())
    }
}

impl Tree {
    /// A tree with Debian's loader, which has its directories built in.
    fn debian() -> Self {
        let mut tree = Self::default();
        tree.add(
            "/lib64/ld-linux-x86-64.so.2",
            &Sample {
                soname: Some("ld-linux-x86-64.so.2"),
                ..library(&[])
            },
        );
        let dirs = b"/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0";
        self_mut(&mut tree, LOADER).extend(b"\0".iter().chain(dirs));
        tree.add("/lib/x86_64-linux-gnu/libc.so.6", &library(&["ld-linux-x86-64.so.2"]));
        tree
    }

    fn add(&mut self, path: &str, sample: &Sample<'_>) -> &mut Self {
        self.0.insert(path.to_owned(), sample.bytes());
        self
    }

    fn missing(&self, loader: &str, sample: &Sample<'_>, surroundings: &Surroundings) -> Vec<String> {
        let elf = Rc::new(read_bytes(&sample.bytes()).unwrap());
        let loader = Loader::new(loader, self).unwrap();
        let graph = loader.load("/app/bin/prog", elf, surroundings, self).unwrap();
        graph.missing.into_iter().map(|missing| missing.name).collect()
    }

    /// Names that glibc does not find for a program.
    fn glibc(&self, sample: &Sample<'_>) -> Vec<String> {
        self.missing(LOADER, sample, &Surroundings::default())
    }

    fn musl(&self, sample: &Sample<'_>) -> Vec<String> {
        self.missing(MUSL, sample, &Surroundings::default())
    }
}

fn self_mut<'a>(tree: &'a mut Tree, path: &str) -> &'a mut Vec<u8> {
    tree.0.get_mut(path).unwrap()
}

const NONE: [String; 0] = [];

fn rpath<'a>(rpath: &'a str, needed: &'a [&'a str]) -> Sample<'a> {
    Sample {
        rpath: Some(rpath),
        ..program(needed)
    }
}

fn runpath<'a>(runpath: &'a str, needed: &'a [&'a str]) -> Sample<'a> {
    Sample {
        runpath: Some(runpath),
        ..program(needed)
    }
}

#[test]
fn default_directories_are_those_in_the_loader() {
    let mut tree = Tree::debian();
    tree.add("/usr/lib/liba.so", &library(&[]))
        .add("/usr/local/lib/libb.so", &library(&[]));
    let needed = ["libc.so.6", "liba.so", "libb.so"];
    assert_eq!(tree.glibc(&program(&needed)), ["libb.so"]);
    // A loader of Nix knows its own directory alone.
    tree.0.insert(
        LOADER.to_owned(),
        [&library(&[]).bytes()[..], b"\0/nix/store/x-glibc/lib/\0"].concat(),
    );
    assert_eq!(tree.glibc(&program(&["liba.so"])), ["liba.so"]);
    // Of one that is not there, what is usual for its name.
    tree.0.remove(LOADER);
    assert_eq!(tree.glibc(&program(&["libc.so.6", "liba.so", "libb.so"])), ["libb.so"]);
    let no_default = Sample {
        no_default_dirs: true,
        ..program(&["liba.so"])
    };
    assert_eq!(tree.glibc(&no_default), ["liba.so"]);
}

#[test]
fn rpath_is_inherited_and_runpath_is_not() {
    let mut tree = Tree::debian();
    tree.add("/a/liba.so", &library(&["libb.so"]))
        .add("/a/libb.so", &library(&[]));
    assert_eq!(tree.glibc(&rpath("/a", &["liba.so"])), NONE);
    assert_eq!(tree.glibc(&runpath("/a", &["liba.so"])), ["libb.so"]);
    // What the program itself needs is in memory when the library asks for it.
    assert_eq!(tree.glibc(&runpath("/a", &["liba.so", "libb.so"])), NONE);
    // With both, DT_RPATH is ignored.
    let both = Sample {
        runpath: Some("/nowhere"),
        ..rpath("/a", &["liba.so"])
    };
    assert_eq!(tree.glibc(&both), ["liba.so"]);
    // A library with a DT_RUNPATH of its own is not searched for by its parents' DT_RPATH.
    tree.add(
        "/a/liba.so",
        &Sample {
            runpath: Some("/nowhere"),
            ..library(&["libb.so"])
        },
    );
    assert_eq!(tree.glibc(&rpath("/a", &["liba.so"])), ["libb.so"]);
    tree.add(
        "/a/liba.so",
        &Sample {
            rpath: Some("/b"),
            ..library(&["libd.so"])
        },
    )
    .add("/b/libd.so", &library(&[]));
    assert_eq!(tree.glibc(&rpath("/a", &["liba.so"])), NONE);
}

#[test]
fn tokens_are_replaced() {
    let mut tree = Tree::debian();
    for path in [
        "/app/lib/liba.so",
        "/opt/lib/x86_64-linux-gnu/libl.so",
        "/opt/x86_64/libp.so",
        "/deep/x/libx.so",
    ] {
        tree.add(path, &library(&[]));
    }
    for entry in ["$ORIGIN/../lib", "${ORIGIN}/../lib"] {
        // `..` is the file system's to follow, which this tree cannot: it is told what was looked for.
        let elf = Rc::new(read_bytes(&runpath(entry, &["liba.so"]).bytes()).unwrap());
        let graph = Loader::new(LOADER, &tree).unwrap();
        let graph = graph
            .load("/app/bin/prog", elf, &Surroundings::default(), &tree)
            .unwrap();
        assert_eq!(graph.missing[0].searched[0], "/app/bin/../lib");
    }
    assert_eq!(
        tree.glibc(&runpath("/opt/$LIB:/opt/${PLATFORM}", &["libl.so", "libp.so"])),
        NONE
    );
    // The origin of a library is its own directory.
    tree.add(
        "/deep/libd.so",
        &Sample {
            runpath: Some("$ORIGIN/x"),
            ..library(&["libx.so"])
        },
    );
    assert_eq!(tree.glibc(&runpath("/deep", &["libd.so"])), NONE);
    // A path is not a name to search for; a relative one is relative to where the container starts.
    assert_eq!(
        tree.glibc(&program(&["/deep/x/libx.so", "/deep/libz.so"])),
        ["/deep/libz.so"]
    );
    let started = Surroundings {
        workdir: "/deep".to_owned(),
        ..Surroundings::default()
    };
    assert_eq!(tree.missing(LOADER, &program(&["x/libx.so"]), &started), NONE);
    assert_eq!(tree.missing(LOADER, &runpath("x", &["libx.so"]), &started), NONE);
}

#[test]
fn the_environment_comes_after_rpath_and_before_runpath() {
    let mut tree = Tree::debian();
    tree.add("/a/liba.so", &library(&["libonly-in-a.so"]))
        .add("/b/liba.so", &library(&["libonly-in-b.so"]));
    let surroundings = Surroundings {
        library_path: vec!["/b".to_owned()],
        ..Surroundings::default()
    };
    let missing = |sample: &Sample<'_>| tree.missing(LOADER, sample, &surroundings);
    assert_eq!(missing(&rpath("/a", &["liba.so"])), ["libonly-in-a.so"]);
    assert_eq!(missing(&runpath("/a", &["liba.so"])), ["libonly-in-b.so"]);
    assert_eq!(missing(&program(&["liba.so"])), ["libonly-in-b.so"]);
}

#[test]
fn libraries_for_other_processors_are_passed_by() {
    let mut tree = Tree::debian();
    tree.add(
        "/a/liba.so",
        &Sample {
            machine: AARCH64,
            ..library(&[])
        },
    );
    assert_eq!(tree.glibc(&rpath("/a:/b", &["liba.so"])), ["liba.so"]);
    tree.add("/b/liba.so", &library(&[]));
    assert_eq!(tree.glibc(&rpath("/a:/b", &["liba.so"])), NONE);
    tree.0.insert("/c/libt.so".to_owned(), b"INPUT(libt.so.1)".to_vec());
    assert_eq!(
        tree.glibc(&rpath("/c", &["libt.so"])),
        ["libt.so"],
        "a linker's script is not a library"
    );
    tree.add("/d/glibc-hwcaps/x86-64-v3/libh.so", &library(&[]));
    assert_eq!(tree.glibc(&rpath("/d", &["libh.so"])), NONE);
}

/// dl-cache.h: the loader reads the list that ldconfig made, never `ld.so.conf`.
#[test]
fn the_cache_is_read_and_the_configuration_is_not() {
    let mut tree = Tree::debian();
    tree.add("/opt/x/libx.so.1", &library(&[]));
    tree.0.insert("/etc/ld.so.conf".to_owned(), b"/opt/x\n".to_vec());
    assert_eq!(tree.glibc(&program(&["libx.so.1"])), ["libx.so.1"]);
    let strings = b"libx.so.1\0/opt/x/libx.so.1\0";
    let mut list = b"glibc-ld.so.cache1.1".to_vec();
    list.extend(1_u32.to_le_bytes());
    list.extend((strings.len() as u32).to_le_bytes());
    list.resize(48, 0);
    for number in [0x303_u32, 72, 82, 0, 0, 0] {
        list.extend(number.to_le_bytes());
    }
    list.extend(strings);
    let place = "/etc/ld.so.cache".to_owned();
    tree.0.insert(place.clone(), list.clone());
    assert_eq!(tree.glibc(&program(&["libx.so.1"])), NONE);
    tree.0
        .insert(place.clone(), [&b"ld.so-1.7.0\0\0\0\0\0"[..], &list].concat());
    assert_eq!(
        tree.glibc(&program(&["libx.so.1"])),
        NONE,
        "after a list in the old format"
    );
    for length in 0..list.len() {
        tree.0.insert(place.clone(), list[..length].to_vec());
        tree.glibc(&program(&["libx.so.1"]));
    }
}

#[test]
fn musl_searches_by_its_own_rules() {
    let mut tree = Tree::default();
    tree.add(MUSL, &library(&[]))
        .add("/usr/local/lib/liba.so", &library(&[]));
    tree.add("/r/libr.so", &library(&["libs.so"]))
        .add("/r/libs.so", &library(&[]));
    let own = [
        "libc.musl-x86_64.so.1",
        "libc.so",
        "libpthread.so.0",
        "libm.so.6",
        "liba.so",
    ];
    assert_eq!(tree.musl(&program(&own)), NONE);
    // Run paths of either kind are inherited.
    assert_eq!(tree.musl(&runpath("/r", &["libr.so"])), NONE);
    assert_eq!(tree.musl(&program(&["libr.so"])), ["libr.so"]);
    // The list takes the place of the default directories; lines and colons divide it.
    tree.0
        .insert("/etc/ld-musl-x86_64.path".to_owned(), b"/lib\n/r:/s\n".to_vec());
    assert_eq!(tree.musl(&program(&["libr.so"])), NONE);
    assert_eq!(tree.musl(&program(&["liba.so"])), ["liba.so"]);
}

#[test]
fn loaders_fit_files_of_their_c_library() {
    let mut tree = Tree::debian();
    tree.add(MUSL, &library(&[]));
    let fits = |loader: &str, sample: &Sample<'_>| {
        let elf = read_bytes(&sample.bytes()).unwrap();
        Loader::new(loader, &tree).unwrap().fits(&elf)
    };
    assert!(fits(LOADER, &library(&["libc.so.6"])) && !fits(MUSL, &library(&["libc.so.6"])));
    assert!(fits(MUSL, &library(&["libc.musl-x86_64.so.1"])) && !fits(LOADER, &library(&["libc.musl-x86_64.so.1"])));
    assert!(fits(LOADER, &library(&["libz.so.1"])) && fits(MUSL, &library(&["libz.so.1"])));
    assert!(!fits(
        LOADER,
        &Sample {
            machine: AARCH64,
            ..library(&[])
        }
    ));
}

#[test]
fn who_needs_what_and_where_it_was_looked_for_is_told() {
    let mut tree = Tree::debian();
    tree.add("/a/liba.so", &library(&["libmissing.so.1"]));
    let elf = Rc::new(read_bytes(&rpath("/a", &["liba.so"]).bytes()).unwrap());
    let loader = Loader::new(LOADER, &tree).unwrap();
    let graph = loader
        .load("/app/bin/prog", elf, &Surroundings::default(), &tree)
        .unwrap();
    let dirs = [
        "/a",
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib",
        "/usr/lib",
    ];
    assert_eq!(
        graph.missing,
        [Missing {
            name: "libmissing.so.1".to_owned(),
            needed_by: "/a/liba.so".to_owned(),
            searched: dirs.map(str::to_owned).to_vec(),
        }]
    );
    assert_eq!(graph.objects[1].found_by, Some((0, "/a".to_owned())));
}
