//! Many clients, slow ones, and such as vanish.

use std::thread;
use std::time::Instant;

use super::*;

const MANIFEST: &str = "/v2/app/manifests/latest";

/// Waits until something is so.
#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what} takes too long");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_image_is_made_once_for_all_who_ask_at_once() {
    let running = Running::plain();
    running.shop.close();
    let first = running.send("GET", MANIFEST, &[]);
    until("the first making", || running.shop.begun() == 1);
    let others: Vec<_> = (0..50).map(|_| running.send("GET", MANIFEST, &[])).collect();
    // Another image does not wait for this one.
    let other = running.send("GET", "/v2/team/other/manifests/latest", &[]);
    until("the making of another", || running.shop.begun() == 2);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(running.shop.begun(), 2);
    // Who asked after an edit gets what was edited.
    running.shop.put("app", Ok(sample("newer")));
    running.shop.open();
    let digest = |mut stream: TcpStream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Digest::of(&Reply::parse(&bytes).is(200).body)
    };
    assert_eq!(digest(first), sample("app").digest());
    assert_eq!(digest(other), sample("other").digest());
    for other in others {
        assert_eq!(digest(other), sample("newer").digest());
    }
    assert_eq!(running.shop.begun(), 3, "once for the first, and once for all others");
    assert_eq!(
        running.shop.most.load(Ordering::SeqCst),
        2,
        "two images at a time, and none twice"
    );
}

#[test]
fn a_client_that_goes_away_while_an_image_is_made_breaks_nothing() {
    let running = Running::plain();
    running.shop.close();
    let gone = running.send("GET", MANIFEST, &[]);
    until("the making", || running.shop.begun() == 1);
    drop(gone);
    let also_gone = running.send("GET", MANIFEST, &[]);
    thread::sleep(Duration::from_millis(50));
    drop(also_gone);
    thread::sleep(Duration::from_millis(100));
    running.shop.open();
    running.get(MANIFEST, &[]).is(200);
    assert!(running.shop.begun() <= 2, "nothing is made for those who are gone");
}

/// A registry that has an endless image, and the path of its endless layer.
fn with_endless(change: impl FnOnce(&mut ServeOptions)) -> (Running, String) {
    let running = Running::start(change);
    running.shop.put("app", Ok(endless()));
    running.get(MANIFEST, &[]).is(200);
    (running, format!("/v2/app/blobs/{}", endless().layers[1].digest()))
}

#[test]
fn clients_that_vanish_in_the_middle_of_a_layer_leave_room_for_others() {
    let (running, path) = with_endless(|options| {
        options.connections = 8;
        options.write_patience = Duration::from_millis(500);
    });
    // Some close their end, others say nothing any more; all together they take every connection.
    for _ in 0..8 {
        drop(running.send("GET", &path, &[]));
    }
    let silent: Vec<_> = (0..8).map(|_| running.send("GET", &path, &[])).collect();
    let started = Instant::now();
    running.get(MANIFEST, &[]).is(200);
    assert!(
        started.elapsed() > Duration::from_millis(200),
        "there was room all the time"
    );
    for mut stream in silent {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(bytes.len() < 32 << 20, "a client that took nothing was waited for");
    }
}

#[test]
fn a_client_that_reads_slowly_is_served_as_long_as_it_reads() {
    let (running, path) = with_endless(|options| options.write_patience = Duration::from_millis(700));
    let mut stream = running.send("GET", &path, &[]);
    let (mut count, started) = (0, Instant::now());
    // The last piece does not come: the layer's digest is another.
    while count < (32 << 20) - (64 << 10) {
        let mut piece = vec![0; 2 << 20];
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "cut after {count} bytes");
        count += read;
        thread::sleep(Duration::from_millis(read as u64 / 20_000));
    }
    assert!(started.elapsed() > Duration::from_millis(1400));
}

#[test]
fn heads_that_never_end_are_given_up() {
    let running = Running::start(|options| {
        options.connections = 4;
        options.head_patience = Duration::from_millis(300);
    });
    let mut slow: Vec<TcpStream> = (0..4).map(|_| running.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nX-Slow: ").unwrap();
    }
    // Each would send a byte from time to time for ever.
    let started = Instant::now();
    let other = thread::scope(|scope| {
        let other = scope.spawn(|| running.get("/v2/", &[]));
        while !other.is_finished() {
            for stream in &mut slow {
                let _ = stream.write_all(b"x");
            }
            thread::sleep(Duration::from_millis(50));
        }
        other.join().unwrap()
    });
    other.is(200);
    assert!(started.elapsed() < Duration::from_secs(5));
    // One that says nothing at all, and one that was served and stays, too.
    let mut silent = running.connect();
    let mut served = running.connect();
    served
        .write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    for stream in [&mut silent, &mut served] {
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
}

#[test]
fn heads_are_not_taken_whatever_their_size() {
    let running = Running::plain();
    let long = format!("X-Long: {}", "x".repeat(200_000));
    let mut stream = running.connect();
    let head = format!("GET /v2/ HTTP/1.1\r\nHost: localhost\r\n{long}\r\n\r\n");
    // The registry may close before all of it was sent.
    let _ = stream.write_all(head.as_bytes());
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(
        !bytes.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&bytes)
    );
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01"[..],
        b"GET\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n",
    ] {
        let mut stream = running.connect();
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    running.get("/v2/", &[]).is(200);
}

/// A body that nobody wants is not read: the answer comes at once, and the connection is closed.
#[test]
fn an_upload_is_refused_before_it_is_sent() {
    let running = Running::plain();
    let mut stream = running.connect();
    let head = "PATCH /v2/app/blobs/uploads/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert_eq!(Reply::parse(&bytes).is(405).code(), "UNSUPPORTED");
}

#[test]
fn connections_are_used_again() {
    let running = Running::plain();
    let mut stream = running.connect();
    for _ in 0..3 {
        stream
            .write_all(b"HEAD /v2/app/manifests/latest HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        Reply::parse(&head).is(200);
    }
}

#[test]
fn fifty_pull_at_once() {
    let running = Running::plain();
    let image = sample("app");
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let manifest = running.get(MANIFEST, &[]).is(200);
                assert_eq!(manifest.body, image.manifest.bytes());
                for layer in &image.layers {
                    let blob = running.get(&format!("/v2/app/blobs/{}", layer.digest()), &[]).is(200);
                    assert_eq!(layer.digest(), Digest::of(&blob.body));
                }
            });
        }
    });
    assert!(running.shop.begun() <= 50);
    assert_eq!(running.shop.most.load(Ordering::SeqCst), 1);
    until("telling of answers", || {
        running.shop.answered.lock().unwrap().len() == 150
    });
    let answered = running.shop.answered.lock().unwrap();
    assert!(
        answered
            .iter()
            .all(|answered| answered.status == 200 && answered.client.starts_with("127.0.0.1:"))
    );
}

#[test]
fn an_end_closes_every_connection_within_its_grace() {
    let (running, path) = with_endless(|_| {});
    let idle = running.connect();
    // These take nothing of what they asked for.
    let stuck: Vec<_> = (0..5).map(|_| running.send("GET", &path, &[])).collect();
    thread::sleep(Duration::from_millis(100));
    let (address, started) = (running.address, Instant::now());
    running.stop().unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(TcpStream::connect(address).is_err(), "it still listens");
    drop((idle, stuck));
}

#[test]
fn what_nobody_asks_for_is_forgotten() {
    use super::shelf::Shelf;
    let shelf = Shelf::default();
    for mark in ["one", "two"] {
        shelf.put("app", Listed::Image(sample(mark)), ["app", "debug"].into_iter());
    }
    assert!(!shelf.forget_rested(Duration::from_secs(60)));
    thread::sleep(Duration::from_millis(30));
    assert!(shelf.manifest("app", &sample("two").digest().into()).is_some());
    assert!(!shelf.forget_rested(Duration::from_millis(20)), "one was asked for");
    assert!(shelf.manifest("debug", &sample("two").digest().into()).is_some());
    assert!(shelf.manifest("app", &sample("one").digest().into()).is_none());
    thread::sleep(Duration::from_millis(30));
    assert!(shelf.forget_rested(Duration::from_millis(20)));
    assert!(!shelf.has("app"));
    assert!(!shelf.forget_rested(Duration::ZERO), "nothing was there");
    // The newest are held, however many there are.
    for mark in 0..40 {
        shelf.put("app", Listed::Image(sample(&mark.to_string())), ["app"].into_iter());
    }
    assert!(shelf.manifest("app", &sample("39").digest().into()).is_some());
    assert!(shelf.manifest("app", &sample("0").digest().into()).is_none());
}
