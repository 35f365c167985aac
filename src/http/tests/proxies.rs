//! Which proxy is used for what, and that it is.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use url::Url;

use super::super::proxy::Proxies;
use super::super::{HttpConfig, ProxyVariable, ProxyVariables, SetupError};
use super::{Home, get, write_pem};
use crate::transport::registry::config::tests::served::Authority;

fn variable(name: &'static str, value: &str) -> Option<ProxyVariable> {
    Some(ProxyVariable {
        name,
        value: value.to_owned(),
    })
}

#[test]
fn each_scheme_has_its_variable() {
    let all = variable("ALL_PROXY", "all.example:1");
    let https = variable("HTTPS_PROXY", "https.example:2");
    let http = variable("HTTP_PROXY", "http://http.example:3");
    for (variables, url, proxy) in [
        ((&None, &None, &None), "https://r.example/", None),
        (
            (&https, &http, &all),
            "https://r.example/",
            Some("http://https.example:2/"),
        ),
        (
            (&https, &http, &all),
            "http://r.example/",
            Some("http://http.example:3/"),
        ),
        ((&None, &http, &None), "https://r.example/", None),
        (
            (&None, &http, &all),
            "https://r.example/",
            Some("http://all.example:1/"),
        ),
        ((&https, &None, &None), "http://r.example/", None),
        ((&https, &http, &all), "https://localhost:5000/", None),
        ((&https, &http, &all), "http://127.0.0.1:5000/", None),
        ((&https, &http, &all), "http://127.8.8.8/", None),
        ((&https, &http, &all), "https://[::1]:5000/", None),
    ] {
        let (https, http, all) = variables;
        let proxies = Proxies::new(&ProxyVariables {
            https: https.clone(),
            http: http.clone(),
            all: all.clone(),
            no_proxy: String::new(),
        })
        .unwrap();
        let chosen = proxies.choose(&Url::parse(url).unwrap());
        assert_eq!(chosen.map(Url::as_str), proxy, "{url}");
    }
}

#[test]
fn no_proxy_lists_names_ports_addresses_and_networks() {
    for (list, url, direct) in [
        ("", "https://r.example/", false),
        ("*", "https://r.example/", true),
        ("r.example", "https://r.example/", true),
        ("R.Example", "https://r.example/", true),
        ("r.example", "https://sub.r.example/", true),
        ("r.example", "https://other.example/", false),
        ("r.example", "https://xr.example/", false),
        ("example", "https://r.example/", true),
        (".r.example", "https://r.example/", false),
        (".r.example", "https://sub.r.example/", true),
        ("*.r.example", "https://sub.r.example/", true),
        ("*.r.example", "https://r.example/", false),
        ("r.example:5000", "https://r.example:5000/", true),
        ("r.example:5000", "https://r.example/", false),
        ("r.example:443", "https://r.example/", true),
        ("a.example, r.example ,b.example", "https://r.example/", true),
        ("a.example r.example", "https://r.example/", true),
        ("10.0.0.1", "https://10.0.0.1/", true),
        ("10.0.0.1", "https://10.0.0.2/", false),
        ("10.0.0.1:80", "https://10.0.0.1/", false),
        ("10.0.0.1:443", "https://10.0.0.1/", true),
        ("10.0.0.0/8", "https://10.200.0.1/", true),
        ("10.0.0.0/8", "https://11.0.0.1/", false),
        ("10.0.0.0/33", "https://10.0.0.1/", false),
        ("192.168.4.0/22", "https://192.168.7.255/", true),
        ("192.168.4.0/22", "https://192.168.8.0/", false),
        ("0.0.0.0/0", "https://8.8.8.8/", true),
        ("0.0.0.0/0", "https://r.example/", false),
        ("fd00::/8", "https://[fd12::1]/", true),
        ("fd00::/8", "https://[fe80::1]/", false),
        ("::/0", "https://[fe80::1]/", true),
        ("[fd12::1]:5000", "https://[fd12::1]:5000/", true),
        ("[fd12::1]:5000", "https://[fd12::1]/", false),
        ("[fd12::1]", "https://[fd12::1]/", true),
        ("fd12::1", "https://[fd12::1]:5000/", true),
        (",,:,/,.,[,r.example:x", "https://r.example/", false),
    ] {
        let proxies = Proxies::new(&ProxyVariables {
            all: variable("ALL_PROXY", "p.example:1"),
            no_proxy: list.to_owned(),
            ..ProxyVariables::default()
        })
        .unwrap();
        let chosen = proxies.choose(&Url::parse(url).unwrap());
        assert_eq!(chosen.is_none(), direct, "NO_PROXY={list} {url}");
    }
}

#[test]
fn a_proxy_that_is_none_is_named_without_its_password() {
    for value in [
        "ftp://me:SECRET@p.example",
        "socks5://me:SECRET@",
        "http://me:SECRET@",
        "http://me:SECRET@p.example:x",
        "::",
        "http://p .example/SECRET",
    ] {
        let variables = ProxyVariables {
            https: variable("HTTPS_PROXY", value),
            ..ProxyVariables::default()
        };
        let error = Proxies::new(&variables).err().unwrap_or_else(|| panic!("{value}"));
        assert!(matches!(error, SetupError::Proxy { .. }));
        let shown = format!("{error} {error:?} {variables:?} {:?}", error.help());
        assert!(shown.contains("HTTPS_PROXY") && !shown.contains("SECRET"), "{shown}");
    }
}

/// A proxy that notes the heads of requests; `CONNECT` is answered by a tunnel to `upstream`, anything else by 200.
fn proxy(upstream: Option<String>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            notes.lock().unwrap().push(head.clone());
            let mut stream = stream;
            match &upstream {
                Some(upstream) if head.starts_with("CONNECT") => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                    tunnel(stream, TcpStream::connect(upstream).unwrap());
                }
                _ => stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                    .unwrap(),
            }
        }
    });
    (address, seen)
}

fn tunnel(a: TcpStream, b: TcpStream) {
    let (mut from, mut to) = (a.try_clone().unwrap(), b.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    let (mut from, mut to) = (b, a);
    thread::spawn(move || std::io::copy(&mut from, &mut to));
}

#[test]
fn plain_requests_go_through_the_proxy_with_its_password() {
    let (address, seen) = proxy(None);
    let mut config = HttpConfig::default();
    config.proxies.http = variable("HTTP_PROXY", &format!("http://me:pw@{address}"));
    assert_eq!(get(&config, "http://r.example/").unwrap(), "ok");
    let seen = seen.lock().unwrap().join("");
    assert!(seen.starts_with("GET http://r.example/ HTTP/1.1\r\n"), "{seen}");
    assert!(
        seen.to_lowercase().contains("proxy-authorization: basic bwu6chc=\r\n"),
        "{seen}"
    );
}

#[test]
fn tls_goes_through_a_tunnel_and_is_verified_at_its_end() {
    let home = Home::new();
    let authority = Authority::new();
    let server = super::tls::serve(&authority.certificate(&["r.example"]), None);
    let (address, seen) = proxy(Some(server));
    let ca = home.at("ca.crt");
    write_pem(&ca, &authority.pem());
    let mut config = HttpConfig {
        ca_files: vec![ca],
        ..HttpConfig::default()
    };
    config.proxies.all = variable("ALL_PROXY", &format!("me:pw@{address}"));
    assert_eq!(get(&config, "https://r.example:5000/").unwrap(), "hello");
    let seen = seen.lock().unwrap().join("");
    assert!(seen.starts_with("CONNECT r.example:5000 HTTP/1.1\r\n"), "{seen}");
    assert!(
        seen.to_lowercase().contains("proxy-authorization: basic bwu6chc=\r\n"),
        "{seen}"
    );
}

#[test]
fn what_is_excepted_does_not_meet_the_proxy() {
    let (address, seen) = proxy(None);
    let (here, _) = proxy(None);
    let mut config = HttpConfig::default();
    config.proxies.all = variable("ALL_PROXY", &address);
    assert_eq!(
        get(&config, &format!("http://{here}/")).unwrap(),
        "ok",
        "loopback is asked directly"
    );
    assert!(seen.lock().unwrap().is_empty());
}

/// A proxy of SOCKS version 5 (RFC 1928) with a user name and a password (RFC 1929), which hands everything to
/// `upstream`; gives its address, and what it was asked for: `NAME:PORT`.
fn socks(upstream: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut read = |count: usize| {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).map(|()| bytes)
            };
            let methods = read(2).unwrap();
            assert_eq!(methods[0], 5);
            assert!(read(methods[1].into()).unwrap().contains(&2));
            stream.write_all(&[5, 2]).unwrap();
            let mut read = |count: usize| {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).map(|()| bytes)
            };
            let (name, password);
            let head = read(2).unwrap();
            name = read(head[1].into()).unwrap();
            let length = read(1).unwrap()[0];
            password = read(length.into()).unwrap();
            assert_eq!((name.as_slice(), password.as_slice()), (&b"me"[..], &b"pw"[..]));
            stream.write_all(&[1, 0]).unwrap();
            let mut head = [0; 4];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(head, [5, 1, 0, 3], "connect to a name");
            let mut length = [0];
            stream.read_exact(&mut length).unwrap();
            let mut target = vec![0; usize::from(length[0]) + 2];
            stream.read_exact(&mut target).unwrap();
            let (host, port) = target.split_at(length[0].into());
            let port = u16::from_be_bytes(port.try_into().unwrap());
            let host = String::from_utf8(host.to_vec()).unwrap();
            notes.lock().unwrap().push(format!("{host}:{port}"));
            stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).unwrap();
            tunnel(stream, TcpStream::connect(&upstream).unwrap());
        }
    });
    (address, seen)
}

/// With `socks5h` the proxy looks names up, which may exist only on its side.
#[test]
fn socks_proxies_are_asked_by_name_and_with_their_password() {
    let (upstream, _) = proxy(None);
    let (address, seen) = socks(upstream);
    let mut config = HttpConfig::default();
    config.proxies.all = variable("ALL_PROXY", &format!("socks5h://me:pw@{address}"));
    assert_eq!(get(&config, "http://r.example/").unwrap(), "ok");
    assert_eq!(*seen.lock().unwrap(), ["r.example:80"]);

    let home = Home::new();
    let authority = Authority::new();
    let (address, seen) = socks(super::tls::serve(&authority.certificate(&["r.example"]), None));
    write_pem(&home.at("ca.crt"), &authority.pem());
    config.ca_files = vec![home.at("ca.crt")];
    config.proxies.all = variable("ALL_PROXY", &format!("socks5h://me:pw@{address}"));
    assert_eq!(get(&config, "https://r.example:5000/").unwrap(), "hello");
    assert_eq!(*seen.lock().unwrap(), ["r.example:5000"]);
}
