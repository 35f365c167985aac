//! Who the user is for a download, and where its redirects lead.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use super::super::{HttpConfig, HttpError, ProxyVariable};
use super::{Home, get};

/// A server that notes the heads of requests and answers each with what `answer` makes of its path.
fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            notes.lock().unwrap().push(head);
            stream.write_all(answer(&path).as_bytes()).unwrap();
        }
    });
    (port, seen)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

fn moved(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// The `Authorization` of each request.
fn logins(seen: &Mutex<Vec<String>>) -> Vec<Option<String>> {
    let seen = seen.lock().unwrap();
    let of = |head: &String| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        found.map(|(_, value)| value.to_owned())
    };
    seen.iter().map(of).collect()
}

/// `me:pw`, `you:two words`
const ME: &str = "Basic bWU6cHc=";
const YOU: &str = "Basic eW91OnR3byB3b3Jkcw==";

fn with_netrc(home: &Home, text: &str) -> HttpConfig {
    std::fs::write(home.at("netrc"), text).unwrap();
    HttpConfig {
        netrc: Some(home.at("netrc")),
        ..HttpConfig::default()
    }
}

#[test]
fn a_login_goes_to_its_own_origin_and_follows_no_redirect() {
    let home = Home::new();
    let (other, seen_there) = serve(|_| OK.to_owned());
    let (port, seen) = serve(move |path| match path {
        "/away" => moved(&format!("http://127.0.0.1:{other}/x")),
        "/near" => moved("/file"),
        _ => OK.to_owned(),
    });
    let config = with_netrc(&home, "machine 127.0.0.1 login me password pw\n");
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    assert_eq!(get(&config, &url("/file")).unwrap(), "ok");
    assert_eq!(get(&config, &url("/near")).unwrap(), "ok");
    assert_eq!(get(&config, &url("/away")).unwrap(), "ok");
    assert_eq!(logins(&seen), vec![Some(ME.to_owned()); 4]);
    // The same machine on another port is another host's business, though the file has an entry for it.
    assert_eq!(logins(&seen_there), [None]);

    // What the address says comes before the file, and goes no further either.
    let with_user = |path: &str| format!("http://you:two%20words@127.0.0.1:{port}{path}");
    assert_eq!(get(&config, &with_user("/near")).unwrap(), "ok");
    assert_eq!(get(&config, &with_user("/away")).unwrap(), "ok");
    assert_eq!(logins(&seen)[4..], vec![Some(YOU.to_owned()); 3]);
    assert_eq!(logins(&seen_there), [None, None]);
}

#[test]
fn a_login_of_the_file_goes_over_tls_or_to_this_machine_only() {
    let home = Home::new();
    let (proxy, seen) = serve(|_| OK.to_owned());
    let mut config = with_netrc(&home, "machine files.example login me password pw\n");
    config.proxies.http = Some(ProxyVariable {
        name: "HTTP_PROXY",
        value: format!("127.0.0.1:{proxy}"),
    });
    assert_eq!(get(&config, "http://files.example/x").unwrap(), "ok");
    assert_eq!(logins(&seen), [None]);
}

#[test]
fn a_file_that_is_not_there_is_none_and_a_broken_one_is_told() {
    let home = Home::new();
    let (port, seen) = serve(|_| OK.to_owned());
    let url = format!("http://127.0.0.1:{port}/");
    let mut config = with_netrc(&home, "machine 127.0.0.1 login me password pw S3CR3T");
    let error = get(&config, &url).unwrap_err();
    let shown = format!("{error} {error:?} {:?}", error.help());
    assert!(
        shown.contains("netrc`, line 1") && shown.contains("machine HOST login"),
        "{shown}"
    );
    assert!(!shown.contains("S3CR3T"), "{shown}");
    config.netrc = Some(home.at("absent"));
    assert_eq!(get(&config, &url).unwrap(), "ok");
    assert_eq!(logins(&seen), [None]);
}

#[test]
fn redirects_that_lead_inside_or_round_in_circles_are_not_followed() {
    let (port, seen) = serve(|path| match path {
        "/inside" => moved("http://169.254.169.254/latest/meta-data"),
        "/file" => moved("file:///etc/passwd"),
        "/login" => moved("http://me:pw@127.0.0.1/"),
        _ => moved("/loop"),
    });
    for (path, reason) in [
        (
            "/inside",
            "it leads to `169.254.169.254`, into this machine or its network",
        ),
        ("/file", "it leads to an address of the kind `file:`"),
        ("/login", "it leads to an address with a login in it"),
        ("/loop", "it redirects more than 10 times"),
    ] {
        let error = get(&HttpConfig::default(), &format!("http://127.0.0.1:{port}{path}")).unwrap_err();
        assert!(
            matches!(error, HttpError::Redirect { .. }) && !error.may_pass(),
            "{error:?}"
        );
        assert!(error.to_string().ends_with(reason), "{error}");
    }
    assert_eq!(seen.lock().unwrap().len(), 3 + 11);
}
