//! Downloads of `url` sources as users meet them: interrupted, with a login, busy servers.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Place, Ran};

/// A server that hands each connection and the head of its request to `answer`; gives its port.
pub fn serve(answer: impl Fn(TcpStream, &str) + Send + Sync + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
                answer(stream, &head);
            });
        }
    });
    port
}

/// A project with a package whose source is at an address; its downloads are its own.
fn with_source(url: &str) -> Place {
    let place = Place::new();
    place.write(
        "layerize.toml",
        &format!("[package.data]\nsource = {{ url = \"{url}\", unpack = false }}\n"),
    );
    place
}

fn cache(place: &Place) -> std::path::PathBuf {
    place.path().join("cache")
}

/// Runs `layerize lock` until the server has sent something, then interrupts it.
fn interrupted(place: &Place, begun: &Receiver<()>) -> (Ran, Duration) {
    let mut command = place.command(&["lock"]);
    command.env("XDG_CACHE_HOME", cache(place));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    begun.recv_timeout(Duration::from_secs(30)).unwrap();
    thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    (Ran::of(output), started.elapsed())
}

fn left(place: &Place) -> Vec<String> {
    let files = layerize::fsio::sorted_names(&cache(place).join("layerize/fetch/sha256"));
    let files = files.unwrap_or_default();
    files.into_iter().map(|name| name.into_string().unwrap()).collect()
}

/// It says what was interrupted, ends long before the grace period is over, and leaves nothing: whether the server sends
/// slowly, has stopped in the middle, or has not answered at all.
#[test]
fn an_interrupt_ends_a_download_at_once() {
    for kind in ["slow", "stuck", "silent"] {
        let (tell, begun) = channel();
        let port = serve(move |mut stream, _| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
            if kind != "silent" {
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&[b'x'; 100_000]);
            }
            tell.send(()).unwrap();
            while kind == "slow" && stream.write_all(&[b'x'; 10_000]).is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
            thread::sleep(Duration::from_secs(60));
        });
        let url = format!("http://127.0.0.1:{port}/{kind}");
        let place = with_source(&url);
        let (ran, took) = interrupted(&place, &begun);
        ran.exits(130)
            .says(&[&format!("the download of `{url}` was interrupted")]);
        assert!(took < Duration::from_millis(1500), "{kind}: {took:?}");
        assert_eq!(left(&place), [""; 0], "{kind}");
    }
}

/// curl, cargo and Nix read the same file.
#[test]
fn a_login_is_taken_from_netrc() {
    let port = serve(|mut stream, head| {
        let known = head.to_lowercase().contains("authorization: basic bwu6chc=\r\n");
        let answer = match known {
            true => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            false => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        };
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let place = with_source(&format!("http://127.0.0.1:{port}/private"));
    place.run(&["lock"]).exits(2).says(&[
        "answers 401",
        "help:",
        "machine 127.0.0.1 login NAME password SECRET",
        "~/.netrc",
    ]);
    fs::write(place.path().join(".netrc"), "machine 127.0.0.1 login me password pw\n").unwrap();
    place.run(&["lock"]).success();
    let elsewhere = place.path().join("elsewhere");
    fs::rename(place.path().join(".netrc"), &elsewhere).unwrap();
    fs::remove_file(place.project.join("layerize.lock")).unwrap();
    let mut command = place.command(&["lock"]);
    Ran::of(command.env("NETRC", &elsewhere).output().unwrap()).success();
}

/// As npm's locks, Nix and browsers write them (Subresource Integrity).
#[test]
fn a_source_s_hash_may_be_written_in_base_64() {
    let port = serve(|mut stream, _| {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let place = Place::new();
    let spec = |sha256: &str| {
        let url = format!("http://127.0.0.1:{port}/hello");
        let source = format!("{{ url = \"{url}\", sha256 = \"{sha256}\", unpack = false }}");
        place.write("layerize.toml", &format!("[package.data]\nsource = {source}\n"));
        place.run(&["build", "data"])
    };
    // `printf hello | openssl dgst -sha256 -binary | base64`
    let built = spec("sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=").success();
    let path = built.line().to_owned();
    let as_hex = spec("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824").success();
    assert_eq!(as_hex.line(), path, "the spelling moves nothing");
    spec("sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        .exits(2)
        .says(&["served different content"]);
    spec("sha512-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=")
        .exits(2)
        .says(&["another kind of hash", "leave `sha256` out"]);
}

/// A server that says when it may be asked again is asked then; one that wants to be left alone for an hour is not waited
/// for.
#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let times = asked.clone();
    let port = serve(move |mut stream, head| {
        let mut times = times.lock().unwrap();
        times.push(Instant::now());
        let answer = match (times.len(), head.contains("/hour")) {
            (_, true) => "HTTP/1.1 429 Busy\r\nRetry-After: 3600\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            (1, _) => "HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        };
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let place = with_source(&format!("http://127.0.0.1:{port}/soon"));
    place.run(&["lock"]).success();
    {
        let mut times = asked.lock().unwrap();
        assert_eq!(times.len(), 2);
        assert!(times[1] - times[0] >= Duration::from_secs(2));
        times.clear();
    }
    let place = with_source(&format!("http://127.0.0.1:{port}/hour"));
    place.run(&["lock"]).exits(2).says(&["answers 429", "wait for 3600 s"]);
    assert_eq!(asked.lock().unwrap().len(), 1);
}

/// The environment's proxies are read in one place, for downloads as for registries.
#[test]
fn downloads_go_through_the_environment_s_proxy() {
    let port = serve(|mut stream, head| {
        assert!(head.starts_with("GET http://files.example/data HTTP/1.1\r\n"), "{head}");
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let place = with_source("http://files.example/data");
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let mut command = place.command(&["lock", "--update"]);
        command.env(variable, format!("http://127.0.0.1:{port}"));
        Ran::of(command.output().unwrap()).success();
    }
    let mut command = place.command(&["lock", "--update"]);
    command.env("ALL_PROXY", "gopher://127.0.0.1");
    Ran::of(command.output().unwrap())
        .exits(2)
        .says(&["ALL_PROXY is `gopher://127.0.0.1`", "socks5h://"]);
}

/// A killed download cannot clean up after itself: the next one does, and so does a collection, which tells of it first.
/// What is on its way at that moment stays.
#[test]
fn a_killed_download_is_swept_by_a_collection() {
    let (tell, begun) = channel();
    let port = serve(move |mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let _ = stream.write_all(&[b'x'; 100_000]);
        tell.send(()).unwrap();
        thread::sleep(Duration::from_secs(60));
    });
    let place = with_source(&format!("http://127.0.0.1:{port}/slow"));
    let run = |args: &[&str]| {
        Ran::of(
            place
                .command(args)
                .env("XDG_CACHE_HOME", cache(&place))
                .output()
                .unwrap(),
        )
    };
    run(&["store", "ls"]).success();
    let mut command = place.command(&["lock"]);
    command.env("XDG_CACHE_HOME", cache(&place));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    begun.recv_timeout(Duration::from_secs(30)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while left(&place).is_empty() {
        assert!(Instant::now() < deadline, "nothing arrived");
        thread::sleep(Duration::from_millis(20));
    }
    let collected = run(&["store", "gc"]).success();
    assert!(
        !collected.stderr.contains("Downloads"),
        "it is on its way: {}",
        collected.stderr
    );
    assert_eq!(left(&place).len(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(left(&place).len(), 1, "nobody could clean up");
    for _ in 0..2 {
        run(&["store", "gc", "--dry-run"])
            .success()
            .says(&["Downloads would be deleted: 1 interrupted ("]);
    }
    run(&["store", "gc"])
        .success()
        .says(&["Downloads deleted: 1 interrupted ("]);
    assert_eq!(left(&place), [""; 0]);
    let collected = run(&["store", "gc"]).success();
    assert!(!collected.stderr.contains("Downloads"), "{}", collected.stderr);
}

/// A download is needed as long as a path is there that was made from it; others go when they were not used for as long as
/// the user says, 30 days if nothing is said.
#[test]
fn a_collection_keeps_downloads_that_something_was_made_from() {
    let place = Place::new();
    place.write("data", "some data");
    place.write(
        "layerize.toml",
        "[package.data]\nversion = \"1\"\nsource = { url = \"file:data\", unpack = false }\n",
    );
    let run = |args: &[&str]| {
        Ran::of(
            place
                .command(args)
                .env("XDG_CACHE_HOME", cache(&place))
                .output()
                .unwrap(),
        )
    };
    run(&["build", "data"]).success();
    assert_eq!(left(&place).len(), 1);
    let now = ["store", "gc", "--older-than", "0s"];
    let quiet = |args: &[&str]| {
        let ran = run(args).success();
        assert!(!ran.stderr.contains("downloads"), "{args:?}: {}", ran.stderr);
    };
    quiet(&["store", "gc"]);
    quiet(&now);
    assert_eq!(left(&place).len(), 1, "the package is there");
    for root in layerize::fsio::sorted_names(&place.store().join("roots")).unwrap() {
        fs::remove_file(place.store().join("roots").join(root)).unwrap();
    }
    // A dry run takes into account what would go.
    run(&[&now[..], &["--dry-run"]].concat())
        .success()
        .says(&["Used longest ago and would be deleted: 1 downloads (9 B)"]);
    quiet(&["store", "gc"]);
    assert_eq!(left(&place).len(), 1, "it was used just now");
    run(&now).success().says(&["Used longest ago and deleted: 1 downloads"]);
    assert_eq!(left(&place), [""; 0]);
    run(&["build", "data"]).success();
}
