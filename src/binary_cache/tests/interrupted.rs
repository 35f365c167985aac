//! Caches over HTTP that break off, are busy, or have no ranges.

use super::*;

/// Serves the scene's cache; `answer` may say something else than the file: it gets the path, how often it was asked
/// for before, the start of the range, and the file.
fn serve(
    scene: &Scene,
    answer: impl Fn(&str, usize, usize, &[u8]) -> Option<Reply> + Send + 'static,
) -> (Server, Arc<Mutex<Vec<usize>>>) {
    let dir = scene.cache();
    let starts = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&starts);
    let server = Server::start_ranged(move |path, count, start| {
        let Ok(bytes) = fs::read(dir.join(path.trim_start_matches('/').trim_start_matches("cache/"))) else {
            return Reply::status(404);
        };
        if path.contains("/nar/") {
            seen.lock().unwrap().push(start);
        }
        answer(path, count, start, &bytes).unwrap_or_else(|| Reply::ok(&bytes))
    });
    (server, starts)
}

#[test]
fn a_cache_is_fetched_over_http() {
    let scene = Scene::new();
    let (server, _) = serve(&scene, |_, _, _, _| None);
    for url in [server.url("/cache"), server.url("/cache/?priority=10")] {
        assert!(scene.fetch(&url, &scene.trust()).is_ok());
    }
    assert_eq!(scene.fetched().len(), 3);
    let left = crate::fsio::sorted_names(&scene.store().dir().join("cache/nar")).unwrap();
    assert!(
        left.iter().all(|name| name.to_string_lossy().ends_with(".lock")),
        "{left:?}"
    );
}

#[test]
fn a_busy_cache_and_one_that_breaks_off_are_asked_again() {
    let scene = Scene::new();
    let (server, starts) = serve(&scene, |path, count, start, bytes| {
        match (path.contains("/nar/"), count) {
            (false, 0) => Some(Reply::status(503)),
            (false, 1) => Some(Reply::status(429)),
            (true, 0) => Some(Reply::cut(&bytes[..1000], bytes.len())),
            (true, 1) => Some(Reply::status(500)),
            (true, 2) => Some(Reply::partial(bytes, start, 500)),
            (true, _) => Some(Reply::partial(bytes, start, bytes.len())),
            _ => None,
        }
    });
    assert_eq!(scene.fetch(&server.url("/cache"), &scene.trust()).unwrap().len(), 3);
    let starts: BTreeSet<usize> = starts.lock().unwrap().iter().copied().collect();
    assert_eq!(starts, BTreeSet::from([0, 1000, 1500]));
}

#[test]
fn what_stopped_half_way_goes_on_next_time() {
    let scene = Scene::new();
    let broken = format!("/cache/{}", scene.narinfo(1).url);
    let (server, _) = serve(&scene, move |path, count, start, bytes| match count {
        0 if path == broken => Some(Reply::cut(&bytes[..2000], bytes.len())),
        _ if path == broken => Some(Reply::partial(bytes, start, 10)),
        _ => None,
    });
    let error = scene.fetch(&server.url("/cache"), &scene.trust()).unwrap_err();
    assert!(error.to_string().contains("broke off"), "{error}");
    assert!(error.help().unwrap().contains("run the same command again"));
    // What is registered is whole and closed.
    assert!(scene.fetched().iter().all(|name| name == "data-1"));
    // 2000 bytes came at first, and 10 with each of three more attempts.
    let (server, starts) = serve(&scene, |_, _, start, bytes| {
        (start > 0).then(|| Reply::partial(bytes, start, bytes.len()))
    });
    scene.fetch(&server.url("/cache"), &scene.trust()).unwrap();
    assert!(starts.lock().unwrap().contains(&2030), "{starts:?}");
    assert_eq!(scene.fetched().len(), 3);
}

#[test]
fn what_was_left_of_something_else_is_fetched_anew() {
    let scene = Scene::new();
    let downloads = scene.store().dir().join("cache/nar");
    fs::create_dir_all(&downloads).unwrap();
    for index in 0..3 {
        let part = downloads.join(format!("{}.part", scene.narinfo(index).file_hash.unwrap().hex()));
        fs::write(part, vec![b'x'; 1000]).unwrap();
    }
    let (server, _) = serve(&scene, |_, _, start, bytes| {
        (start > 0).then(|| Reply::partial(bytes, start, bytes.len()))
    });
    scene.fetch(&server.url("/cache"), &scene.trust()).unwrap();
    assert_eq!(scene.fetched().len(), 3);
}

#[test]
fn a_cache_that_is_down_is_not_the_last_word() {
    let scene = Scene::new();
    let (server, _) = serve(&scene, |path, _, _, _| {
        path.ends_with(".narinfo").then(|| Reply::status(500))
    });
    let error = scene.fetch(&server.url("/cache"), &scene.trust()).unwrap_err();
    assert!(error.to_string().contains("answers 500"), "{error}");
    let store = scene.store();
    let open = |url: &str| {
        let mut cache = BinaryCache::open(url, store.store_dir(), &HttpConfig::default()).unwrap();
        cache.make_impatient();
        cache
    };
    let caches = [open(&server.url("/cache")), open(&scene.url())];
    let fetched = fetch_closure(&store, &scene.roots(), &caches, &scene.trust(), &Silent).unwrap();
    assert_eq!(fetched.len(), 3);
}

#[test]
fn an_archive_that_never_ends_is_cut_off() {
    let scene = Scene::new();
    scene.change(1, |narinfo| (narinfo.file_hash, narinfo.file_size) = (None, None));
    let endless = format!("/cache/{}", scene.narinfo(1).url);
    let most = scene.narinfo(1).info.nar_size * 17 / 16 + (1 << 20);
    let (server, _) = serve(&scene, move |path, _, _, _| {
        (path == endless).then(|| Reply::ok(vec![0; most as usize + 1000]))
    });
    let error = scene.fetch(&server.url("/cache"), &scene.trust()).unwrap_err();
    assert!(error.to_string().contains("sent more than"), "{error}");
    assert!(!scene.fetched().contains(&"lib-1".to_owned()));
}
