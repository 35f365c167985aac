//! Tests of transfers against servers on loopback that misbehave.

use super::*;
use crate::fetch::testing::{Reply, Server};

fn fetch(address: &str) -> Result<Vec<u8>, FetchError> {
    let transfer = Transfer::impatient();
    let address = Address::parse(address)?;
    transfer.with(&address, |content| {
        let mut bytes = Vec::new();
        content
            .read_to_end(&mut bytes)
            .map_err(|error| FetchError::Interrupted {
                url: "test".to_owned(),
                source: Box::new(error),
            })?;
        Ok(bytes)
    })
}

#[test]
fn files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a b");
    std::fs::write(&path, "abc").unwrap();
    let address = Url::from_file_path(&path).unwrap().to_string();
    assert!(address.contains("a%20b"), "{address}");
    assert_eq!(fetch(&address).unwrap(), b"abc");
    let error = fetch(&format!("{address}x")).unwrap_err();
    assert!(matches!(error, FetchError::NotFound { .. }), "{error}");
    let error = fetch(&format!("file://{}", dir.path().display())).unwrap_err();
    assert!(
        error.to_string().ends_with("cannot be fetched: it is not a file"),
        "{error}"
    );
}

#[test]
fn other_addresses_are_refused() {
    for (address, reason) in [
        ("ftp://host/x", "only `file:`, `http:` and `https:` are supported"),
        ("x.tar.gz", "it is not an address; write `file:///…` or `https://…`"),
        ("file://elsewhere/x", "it names another host than this machine"),
    ] {
        let error = Address::parse(address).unwrap_err();
        assert_eq!(error.to_string(), format!("`{address}` cannot be fetched: {reason}"));
    }
}

#[test]
fn mirrors_are_directories_or_addresses() {
    for (mirror, expected) in [
        ("/srv/mirror", "file:///srv/mirror/pool/h/x_1%2b2.deb"),
        ("file:/srv/mirror/", "file:///srv/mirror/pool/h/x_1%2b2.deb"),
        ("http://m/debian", "http://m/debian/pool/h/x_1%252b2.deb"),
        ("http://m/debian/", "http://m/debian/pool/h/x_1%252b2.deb"),
    ] {
        let address = Address::below(mirror, "pool/h/x_1%2b2.deb").unwrap();
        assert_eq!(address.display(), expected);
    }
    for path in ["../x", "a//b", "/x", "a/../../b", ""] {
        assert!(Address::below("/srv", path).is_err(), "{path}");
    }
}

#[test]
fn a_password_is_not_shown() {
    let address = Address::parse("http://me:secret@host/x").unwrap();
    assert_eq!(address.display(), "http://me@host/x");
}

#[test]
fn a_plain_answer_and_redirects_are_read() {
    let server = Server::start(|path| match path {
        "/file" => Reply::ok("abc"),
        "/moved" => Reply::redirect("/file"),
        "/loop" => Reply::redirect("/loop"),
        _ => Reply::status(404),
    });
    assert_eq!(fetch(&server.url("/file")).unwrap(), b"abc");
    assert_eq!(fetch(&server.url("/moved")).unwrap(), b"abc");
    let error = fetch(&server.url("/gone")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("nothing was found at `{}`", server.url("/gone"))
    );
    let error = fetch(&server.url("/loop")).unwrap_err();
    let FetchError::Http { source, .. } = error else {
        panic!("{error}")
    };
    assert!(source.to_string().contains("more than 10 times"), "{source}");
    // The first request and ten redirects, once: a loop does not pass.
    assert_eq!(server.requests("/loop"), 11);
}

#[test]
fn what_may_pass_is_tried_again() {
    let server = Server::start_counting(|path, count| match (path, count) {
        ("/busy", 0) => Reply::status(503),
        ("/busy", 1) => Reply::status(429),
        ("/busy", 2) => Reply::cut("abc", 100),
        ("/busy", _) => Reply::ok("abc"),
        ("/broken", _) => Reply::status(500),
        ("/forbidden", _) => Reply::status(403),
        _ => Reply::status(404),
    });
    assert_eq!(fetch(&server.url("/busy")).unwrap(), b"abc");
    let error = fetch(&server.url("/broken")).unwrap_err();
    assert!(
        error.to_string().ends_with("answers 500 Internal Server Error"),
        "{error}"
    );
    let error = fetch(&server.url("/forbidden")).unwrap_err();
    assert!(error.to_string().ends_with("answers 403 Forbidden"), "{error}");
    assert_eq!(
        ["/busy", "/broken", "/forbidden"].map(|path| server.requests(path)),
        [4, 4, 1]
    );
}

#[test]
fn a_cut_answer_is_an_error() {
    let server = Server::start(|_| Reply::cut("abc", 100));
    let error = fetch(&server.url("/x")).unwrap_err();
    assert!(matches!(error, FetchError::Interrupted { .. }), "{error}");
}

#[test]
fn an_unreachable_host_is_an_error() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = fetch(&format!("http://127.0.0.1:{port}/x")).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot reach `http://127.0.0.1:{port}/x`"));
    assert!(error.help().unwrap().contains("proxy"));
}

#[test]
fn a_transfer_that_broke_off_goes_on_where_it_ended() {
    let body: &'static [u8] = b"0123456789";
    let server = Server::start_ranged(move |path, count, start| match (path, count) {
        ("/ranges" | "/none" | "/shorter", 0) => Reply::cut(&body[..4], 10),
        ("/ranges", 1) => Reply::partial(body, start, 3),
        ("/ranges", 2) => Reply::status(503),
        ("/ranges", _) => Reply::partial(body, start, 10),
        ("/shorter", 1) => Reply::status(416),
        _ => Reply::ok(body),
    });
    for (path, starts) in [
        ("/ranges", &[0, 4, 7][..]),
        ("/none", &[0, 0][..]),
        ("/shorter", &[0, 0][..]),
    ] {
        let transfer = Transfer::impatient();
        let address = Address::parse(&server.url(path)).unwrap();
        let bytes = std::cell::RefCell::new(Vec::new());
        let mut began = Vec::new();
        transfer
            .resume(
                &address,
                || bytes.borrow().len() as u64,
                |start, content| {
                    began.push(start);
                    let mut bytes = bytes.borrow_mut();
                    bytes.truncate(start as usize);
                    let mut block = [0; 1];
                    loop {
                        match content.read(&mut block) {
                            Ok(0) => return Ok(()),
                            Ok(_) => bytes.push(block[0]),
                            Err(error) => {
                                return Err(FetchError::Interrupted {
                                    url: "test".to_owned(),
                                    source: Box::new(error),
                                });
                            }
                        }
                    }
                },
            )
            .unwrap();
        assert_eq!(
            (bytes.into_inner().as_slice(), began.as_slice()),
            (body, starts),
            "{path}"
        );
    }
}
