//! Caches that are damaged or lie: each a clear error, and nothing of the path registered.

use super::*;
use crate::binary_cache::compression::Encoder;

/// An error with all its causes.
fn chain(error: &CacheError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Fetching says each of `words`, leaves out what is named `lost`, and works once the cache is as it was.
#[track_caller]
fn fails(scene: &Scene, words: &[&str], lost: &[&str]) {
    let error = scene.fetch(&scene.url(), &scene.trust()).unwrap_err();
    let text = chain(&error);
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
    assert!(error.help().is_some(), "{text}");
    let fetched = scene.fetched();
    assert!(
        lost.iter().all(|name| !fetched.iter().any(|fetched| fetched == name)),
        "{fetched:?}"
    );
}

/// Fetching fails as [`fails`] says while the file at `path` is `bytes`, and works again after.
#[track_caller]
fn fails_with(scene: &Scene, path: &Path, bytes: &[u8], words: &[&str], lost: &[&str]) {
    let before = fs::read(path).unwrap();
    fs::write(path, bytes).unwrap();
    fails(scene, words, lost);
    fs::write(path, before).unwrap();
    scene.fetch(&scene.url(), &scene.trust()).unwrap();
    assert_eq!(scene.fetched().len(), 3);
    crate::fsio::remove_tree(&scene.dir.path().join("taker")).unwrap();
}

const NONE: &[&str] = &NAMES;

#[test]
fn tampered_narinfos_are_refused() {
    let scene = Scene::new();
    for (from, to, words) in [
        (
            "NarSize: ",
            "NarSize: 1",
            &["lib-1", "its signature by `test-1` is wrong"][..],
        ),
        (
            "References: ",
            "References: 0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-evil ",
            &["is wrong"],
        ),
        (
            "NarHash: sha256:",
            "NarHash: sha256:00",
            &["line 6", "is not a SHA-256"],
        ),
        ("-lib-1\nURL", "-lib-2\nURL", &["is about", "lib-2`, not"]),
        (
            "Sig: test-1",
            "Sig: test-2",
            &["it is signed by test-2, which is not a trusted key"],
        ),
        ("Sig: test-1:", "Sig: test-1:AAAA", &["nobody signed it"]),
        ("Sig:", "Gis:", &["nobody signed it"]),
        ("URL: nar/", "URL: ../nar/", &["is outside the cache"]),
        ("URL: nar/", "URL: /etc/", &["is outside the cache"]),
        ("URL: nar/", "URL: file:///etc/", &["is outside the cache"]),
        ("URL: nar/", "URL: nar/absent", &["nothing was found at"]),
        (
            "Compression: xz",
            "Compression: lzip",
            &["`lzip` is not a known compression"],
        ),
        (
            "Compression: xz",
            "Compression: zstd",
            &["cannot take `", "cannot read the archive at byte 0"],
        ),
        (
            "FileHash: sha256:",
            "FileHash: sha256:1",
            &["line 4", "is not a SHA-256"],
        ),
        (
            "FileSize: ",
            "FileSize: 1",
            &["does not match its narinfo", "expected 1"],
        ),
    ] {
        let file = scene.narinfo_file(1);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from}");
        let lost = ["lib-1", "app-1"];
        fails_with(&scene, &file, text.replacen(from, to, 1).as_bytes(), words, &lost);
    }
}

#[test]
fn nobody_is_trusted_by_name_alone() {
    let scene = Scene::new();
    let same_name = SecretKey::generate("test-1").unwrap();
    let nobody = Trust::default();
    let impostor = Trust {
        keys: vec![same_name.public()],
        unsigned: false,
    };
    for (trust, words) in [
        (nobody, "it is signed by test-1, which is not a trusted key"),
        (impostor, "its signature by `test-1` is wrong"),
    ] {
        let error = scene.fetch(&scene.url(), &trust).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.help().unwrap().contains("--no-check-sigs"));
        assert_eq!(scene.fetched(), [""; 0]);
    }
    let both = Trust {
        keys: vec![same_name.public(), scene.key.public()],
        unsigned: false,
    };
    assert_eq!(scene.fetch(&scene.url(), &both).unwrap().len(), 3);
}

#[test]
fn unsigned_paths_are_taken_only_on_request() {
    let scene = Scene::new();
    for index in 0..3 {
        let text = fs::read_to_string(scene.narinfo_file(index)).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("Sig"))
            .map(|line| format!("{line}\n"));
        fs::write(scene.narinfo_file(index), lines.collect::<String>()).unwrap();
    }
    fails(&scene, &["nobody signed it"], NONE);
    let all = Trust {
        keys: Vec::new(),
        unsigned: true,
    };
    assert_eq!(scene.fetch(&scene.url(), &all).unwrap().len(), 3);
}

#[test]
fn damaged_archives_are_refused() {
    let scene = Scene::new();
    let file = scene.cache().join(scene.narinfo(1).url);
    let mut bytes = fs::read(&file).unwrap();
    let half = bytes.len() / 2;
    let text = ["does not match its narinfo"];
    fails_with(&scene, &file, &bytes[..half], &text, &["lib-1", "app-1"]);
    bytes[half] ^= 1;
    fails_with(&scene, &file, &bytes, &text, &["lib-1", "app-1"]);
}

/// The bytes of an archive: texts and numbers.
fn archive(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in words {
        bytes.extend_from_slice(&(word.len() as u64).to_le_bytes());
        bytes.extend_from_slice(word);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

/// A directory of empty files with these names, signed by the trusted key.
fn directory(names: &[&[u8]]) -> Vec<u8> {
    let mut words: Vec<&[u8]> = vec![b"nix-archive-1", b"(", b"type", b"directory"];
    for &name in names {
        words.extend_from_slice(&[
            b"entry",
            b"(",
            b"name",
            name,
            b"node",
            b"(",
            b"type",
            b"regular",
            b"contents",
            b"",
            b")",
            b")",
        ]);
    }
    words.push(b")");
    archive(&words)
}

#[test]
fn hostile_archives_are_refused_even_where_they_are_signed() {
    let long = [b'x'; 256];
    for (names, words) in [
        (&[&b".."[..]][..], "`..` cannot be a name"),
        (&[b"."], "`.` cannot be a name"),
        (&[b""], "`` cannot be a name"),
        (&[b"a/b"], "holds a slash or a zero byte"),
        (&[b"/etc"], "holds a slash or a zero byte"),
        (&[b"a\0b"], "holds a slash or a zero byte"),
        (&[b"b", b"a"], "`a` does not come after the name before it"),
        (&[b"a", b"a"], "`a` does not come after the name before it"),
        (&[&long], "is longer than 255"),
    ] {
        let scene = Scene::new();
        scene.replace_archive(1, &directory(names));
        fails(&scene, &["lib-1` from", words], &["lib-1", "app-1"]);
    }
    // Names that differ in case only are two names.
    let scene = Scene::new();
    scene.replace_archive(1, &directory(&[b"A", b"a"]));
    scene.fetch(&scene.url(), &scene.trust()).unwrap();
}

#[test]
fn an_archive_that_ends_early_or_goes_on_is_refused() {
    let whole = directory(&[b"a"]);
    for (bytes, words) in [
        (whole[..whole.len() - 16].to_vec(), "the archive ends early"),
        ([&whole[..], b"more"].concat(), "bytes follow the end of the archive"),
        (Vec::new(), "the archive ends early"),
        (b"no archive".to_vec(), "the archive"),
    ] {
        let scene = Scene::new();
        scene.replace_archive(1, &bytes);
        fails(&scene, &["lib-1` from", words], &["lib-1", "app-1"]);
    }
}

#[test]
fn an_archive_with_another_hash_or_size_is_refused() {
    let scene = Scene::new();
    scene.change(1, |narinfo| narinfo.info.nar_hash = Digest::of(b"other"));
    fails(
        &scene,
        &["the archive of `", "lib-1` does not match what was declared"],
        &["lib-1", "app-1"],
    );
    let scene = Scene::new();
    scene.change(1, |narinfo| narinfo.info.nar_size += 8);
    fails(
        &scene,
        &["lib-1` does not match what was declared"],
        &["lib-1", "app-1"],
    );
    let scene = Scene::new();
    scene.change(1, |narinfo| narinfo.info.nar_size -= 8);
    fails(&scene, &["lib-1` from", "it is larger than the"], &["lib-1", "app-1"]);
}

#[test]
fn a_bomb_is_read_no_further_than_announced() {
    for compression in [CompressionFormat::Xz, CompressionFormat::Zstd] {
        let scene = Scene::new();
        let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
        let words: [&[u8]; 5] = [b"nix-archive-1", b"(", b"type", b"regular", b"contents"];
        encoder.write_all(&archive(&words)).unwrap();
        encoder.write_all(&(1u64 << 40).to_le_bytes()).unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..64 {
            encoder.write_all(&zeros).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 50_000, "{}", bomb.len());
        scene.replace_archive(1, &bomb);
        scene.change(1, |narinfo| {
            narinfo.compression = compression;
            narinfo.info.nar_size = 1 << 20;
        });
        fails(
            &scene,
            &["it is larger than the 1048576 bytes announced"],
            &["lib-1", "app-1"],
        );
    }
}

#[test]
fn circles_and_other_stores_are_refused() {
    let scene = Scene::new();
    let app = scene.paths[2].clone();
    scene.change(0, |narinfo| narinfo.info.references.extend([app]));
    fails(&scene, &["depends on itself through other paths"], NONE);

    let scene = Scene::new();
    let info = scene.cache().join("nix-cache-info");
    fails_with(
        &scene,
        &info,
        b"StoreDir: /gnu/store\n",
        &["has paths of /gnu/store, not of /nix/store"],
        NONE,
    );

    let scene = Scene::new();
    fs::remove_file(scene.cache().join("nix-cache-info")).unwrap();
    fails(&scene, &["is not a binary cache"], NONE);

    let scene = Scene::new();
    fs::remove_file(scene.narinfo_file(0)).unwrap();
    fails(&scene, &["no cache has", "data-1", "needed by", "lib-1"], NONE);
}

#[test]
fn a_content_address_that_lies_is_no_address() {
    // It claims to be addressed by its content, unsigned, and is not: then it needs a signature.
    let scene = Scene::new();
    let mut narinfo = scene.narinfo(1);
    narinfo.attestation.signatures.clear();
    narinfo.attestation.content_address = Some(format!("fixed:r:{}", print_hash(&narinfo.info.nar_hash)));
    fs::write(scene.narinfo_file(1), narinfo.print(&StoreDir::nix())).unwrap();
    fails(&scene, &["nobody signed it"], &["lib-1", "app-1"]);
}

#[test]
fn a_content_addressed_path_needs_no_signature_and_must_have_that_content() {
    let scene = Scene::new();
    let tree = scene.dir.path().join("tree");
    make_tree(&tree, 7);
    let store = Store::open_nix(&scene.dir.path().join("maker")).unwrap();
    let info = store.add_tree("tree", &tree).unwrap();
    let roots = BTreeSet::from([info.path.clone()]);
    let members = members(&store, &roots).unwrap();
    export(
        &scene.cache(),
        &StoreDir::nix(),
        &members,
        &ExportOptions::default(),
        &Silent,
    )
    .unwrap();
    let taker = scene.store();
    let fetch = || {
        let cache = BinaryCache::open(&scene.url(), &StoreDir::nix(), &HttpConfig::default()).unwrap();
        fetch_closure(&taker, &roots, &[cache], &Trust::default(), &Silent)
    };
    let file = scene.cache().join(format!("{}.narinfo", info.path.hash()));
    let right = fs::read_to_string(&file).unwrap();
    assert!(
        right.contains("CA: fixed:r:sha256:") && !right.contains("Sig:"),
        "{right}"
    );
    // Another archive under the same name: the address still proves the name, but not this content.
    let other = directory(&[b"a"]);
    fs::write(scene.cache().join("nar/other"), &other).unwrap();
    let mut wrong = NarInfo::parse(&right, &StoreDir::nix()).unwrap();
    wrong.url = "nar/other".to_owned();
    wrong.compression = CompressionFormat::None;
    (wrong.file_hash, wrong.file_size) = (None, None);
    (wrong.info.nar_hash, wrong.info.nar_size) = (Digest::of(&other), other.len() as u64);
    fs::write(&file, wrong.print(&StoreDir::nix())).unwrap();
    let error = chain(&fetch().unwrap_err());
    assert!(
        error.contains("does not have the content that its path promises"),
        "{error}"
    );
    assert_eq!(scene.fetched(), [""; 0]);
    fs::write(&file, right).unwrap();
    assert_eq!(fetch().unwrap(), [info.path]);
}

/// What is damaged is forgotten, in whatever way it is; what a narinfo names instead of an archive stays, whatever that is.
#[test]
fn damage_is_forgotten_and_nothing_else_is_removed() {
    let scene = Scene::new();
    let victim = scene.dir.path().join("victim");
    fs::write(&victim, "another's").unwrap();
    let forget = || forget_damaged(&scene.cache(), &StoreDir::nix(), &scene.paths).unwrap();
    forget();
    let right = fs::read_to_string(scene.narinfo_file(0)).unwrap();
    for index in 1..3 {
        assert!(scene.narinfo_file(index).exists(), "what is right stays");
    }
    let narinfo = scene.narinfo(0);
    let archive = scene.cache().join(&narinfo.url);
    let bytes = fs::read(&archive).unwrap();
    let flipped: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    let url = |place: &str| right.replace(&format!("URL: {}", narinfo.url), &format!("URL: {place}"));
    for (text, content) in [
        (right.clone(), &flipped[..]),
        (right.clone(), &bytes[1..]),
        (url("../victim"), &bytes),
        (url(victim.to_str().unwrap()), &bytes),
        (url("/dev/zero"), &bytes),
        (url("nar"), &bytes),
        ("nothing".to_owned(), &bytes),
    ] {
        fs::write(scene.narinfo_file(0), &text).unwrap();
        fs::write(&archive, content).unwrap();
        forget();
        assert!(!scene.narinfo_file(0).exists(), "{text}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "another's", "{text}");
    }
}
