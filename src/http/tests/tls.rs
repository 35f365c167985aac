//! Whom TLS trusts, shown with servers in this process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::super::{HostTls, HttpConfig, HttpError, SetupError, tls};
use super::{Home, get, write_pem};
use crate::transport::registry::config::tests::served::{Authority, Certified, expired, self_signed};

/// Starts a server that says `hello` and gives its address; with an authority it wants certificates of clients.
pub(super) fn serve(certified: &Certified, clients: Option<&Authority>) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
                .unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = CertificateDer::pem_slice_iter(certified.certificate.as_bytes())
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).unwrap();
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
            let mut head = String::new();
            let mut reader = BufReader::new(&mut stream);
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|count| count > 0) {}
            // A client that did not like the certificate is gone.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    address
}

/// What the server says, or the advice on why it cannot be spoken to.
fn ask(config: &HttpConfig, host: &str) -> Result<String, String> {
    get(config, &format!("https://{host}/")).map_err(|error| {
        assert!(!error.may_pass(), "{error:?}");
        error.help().unwrap_or_else(|| panic!("no advice for {error:?}"))
    })
}

/// A configuration that trusts nobody but those that a test names, whatever this machine trusts.
fn nobody(home: &Home) -> HttpConfig {
    std::fs::create_dir_all(home.at("no-roots")).unwrap();
    HttpConfig {
        ssl_cert_dirs: vec![home.at("no-roots"), home.at("absent")],
        certs_dirs: vec![home.at("user/certs.d"), home.at("etc/certs.d")],
        ..HttpConfig::default()
    }
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named() {
    let home = Home::new();
    let authority = Authority::new();
    let host = serve(&authority.certificate(&["127.0.0.1"]), None);
    let ca = home.at("ca.crt");
    write_pem(&ca, &authority.pem());

    let unknown = ask(&nobody(&home), &host).unwrap_err();
    assert!(
        unknown.contains("--ca-file") && unknown.contains(&format!("certs.d/{host}/ca.crt")),
        "{unknown}"
    );

    let mut config = nobody(&home);
    config.ca_files = vec![ca.clone()];
    assert_eq!(ask(&config, &host).unwrap(), "hello", "--ca-file");

    let mut config = nobody(&home);
    let of_host = HostTls {
        ca_file: Some(ca.clone()),
        ..HostTls::default()
    };
    config.hosts.insert(host.clone(), of_host);
    assert_eq!(ask(&config, &host).unwrap(), "hello", "ca-file");

    let mut config = nobody(&home);
    config.ssl_cert_file = Some(ca.clone());
    assert_eq!(ask(&config, &host).unwrap(), "hello", "SSL_CERT_FILE");

    let mut config = nobody(&home);
    write_pem(&home.at("roots/x.pem"), &authority.pem());
    config.ssl_cert_dirs.push(home.at("roots"));
    assert_eq!(ask(&config, &host).unwrap(), "hello", "SSL_CERT_DIR");

    let config = nobody(&home);
    write_pem(&home.at(&format!("etc/certs.d/{host}/any.crt")), &authority.pem());
    assert_eq!(ask(&config, &host).unwrap(), "hello", "certs.d");

    // The user's directory is used instead of the machine's, not beside it.
    let config = nobody(&home);
    write_pem(
        &home.at(&format!("user/certs.d/{host}/other.crt")),
        &Authority::new().pem(),
    );
    assert!(ask(&config, &host).is_err());
    let sources = tls::sources(&config, &host).unwrap();
    assert_eq!(sources.certs_d, Some(home.at(&format!("user/certs.d/{host}"))));
    assert_eq!(sources.authorities.len(), 1);
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let home = Home::new();
    let authority = Authority::new();
    let host = serve(&authority.certificate(&["other.example"]), None);
    let mut config = nobody(&home);
    config.ca_files = vec![home.at("ca.crt")];
    write_pem(&home.at("ca.crt"), &authority.pem());
    let error = ask(&config, &host).unwrap_err();
    assert!(error.contains("is not for"), "{error}");
}

#[test]
fn a_self_signed_certificate_is_trusted_where_it_is_named() {
    let home = Home::new();
    let certified = self_signed(&["127.0.0.1"]);
    let host = serve(&certified, None);
    let mut config = nobody(&home);
    config.ca_files = vec![home.at("ca.crt")];
    write_pem(&home.at("ca.crt"), &Authority::new().pem());
    ask(&config, &host).unwrap_err();
    let mut config = nobody(&home);
    config.ca_files = vec![home.at("server.crt")];
    write_pem(&home.at("server.crt"), &certified.certificate);
    assert_eq!(ask(&config, &host).unwrap(), "hello");

    // The very certificate, but not the very name.
    let certified = self_signed(&["other.example"]);
    let host = serve(&certified, None);
    let mut config = nobody(&home);
    config.ca_files = vec![home.at("other.crt")];
    write_pem(&home.at("other.crt"), &certified.certificate);
    assert!(ask(&config, &host).unwrap_err().contains("is not for"));
}

#[test]
fn a_named_certificate_that_has_expired_is_refused() {
    let home = Home::new();
    let certified = expired(&["127.0.0.1"]);
    let host = serve(&certified, None);
    let mut config = nobody(&home);
    config.ca_files = vec![home.at("server.crt")];
    write_pem(&home.at("server.crt"), &certified.certificate);
    let error = ask(&config, &host).unwrap_err();
    assert!(error.contains("has expired"), "{error}");
}

#[test]
fn a_client_certificate_is_shown_where_there_is_one() {
    let home = Home::new();
    let authority = Authority::new();
    let host = serve(&authority.certificate(&["127.0.0.1"]), Some(&authority));
    let dir = home.at(&format!("etc/certs.d/{host}"));
    write_pem(&dir.join("ca.crt"), &authority.pem());
    let refused = ask(&nobody(&home), &host).unwrap_err();
    assert!(
        refused.contains("client certificate") && refused.contains("client.cert"),
        "{refused}"
    );

    let client = authority.client();
    write_pem(&home.at("c.pem"), &client.certificate);
    write_pem(&home.at("k.pem"), &client.key);
    let mut config = nobody(&home);
    let of_host = HostTls {
        client_cert: Some(home.at("c.pem")),
        client_key: Some(home.at("k.pem")),
        ..HostTls::default()
    };
    config.hosts.insert(host.clone(), of_host);
    assert_eq!(ask(&config, &host).unwrap(), "hello", "client-cert and client-key");

    write_pem(&dir.join("me.cert"), &client.certificate);
    write_pem(&dir.join("me.key"), &client.key);
    assert_eq!(ask(&nobody(&home), &host).unwrap(), "hello", "certs.d");

    let stranger = Authority::new().client();
    write_pem(&dir.join("me.cert"), &stranger.certificate);
    write_pem(&dir.join("me.key"), &stranger.key);
    assert!(ask(&nobody(&home), &host).unwrap_err().contains("client certificate"));
}

#[test]
fn a_server_without_tls_is_told_apart() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let error = ask(&nobody(&home), &host).unwrap_err();
    assert!(error.contains(&format!("--plain-http {host}")), "{error}");
}

/// What is said about a host's directory with these files.
fn unfit(files: &[(&str, &str)]) -> String {
    let home = Home::new();
    for (name, text) in files {
        write_pem(&home.at(&format!("etc/certs.d/r.example/{name}")), text);
    }
    let error = get(&nobody(&home), "https://r.example/").unwrap_err();
    assert!(matches!(error, HttpError::Setup(_)), "{error:?}");
    error.to_string()
}

#[test]
fn authorities_that_are_none_are_named() {
    let block = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    for (text, expected) in [
        (String::new(), "ca.crt` holds no certificate"),
        (block("!!!"), "ca.crt` holds a certificate that is not in PEM form"),
        (block("AAAA"), "ca.crt` holds a certificate that cannot be used"),
    ] {
        let said = unfit(&[("ca.crt", &text)]);
        assert!(said.contains(expected), "{said}");
    }
    let home = Home::new();
    let mut config = nobody(&home);
    config.ca_files = vec![PathBuf::from("/absent/ca.crt")];
    let error = get(&config, "https://r.example/").unwrap_err();
    assert!(matches!(&error, HttpError::Setup(SetupError::Io(_))), "{error:?}");
    assert!(error.to_string().contains("/absent/ca.crt"));
}

#[test]
fn client_certificates_that_do_not_fit_their_keys_are_named() {
    let authority = Authority::new();
    let client = authority.client();
    let other = authority.client();
    let certificate = ("c.cert", client.certificate.as_str());
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (said, expected) in [
        (unfit(&[certificate]), "c.key` beside it"),
        (unfit(&[("c.key", &client.key)]), "c.cert` beside it"),
        (
            unfit(&[certificate, ("c.key", &client.certificate)]),
            "c.key` holds no private key",
        ),
        (unfit(&[certificate, ("c.key", encrypted)]), "c.key` is encrypted"),
        (
            unfit(&[certificate, ("c.key", &other.key)]),
            "TLS cannot be set up for `r.example`",
        ),
    ] {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_directory_of_certificates_cannot_be_left_by_a_host_s_name() {
    let home = Home::new();
    write_pem(&home.at("etc/outside/ca.crt"), "");
    for host in ["..", "../outside", ".", "", "a/b", "a\\b"] {
        assert_eq!(tls::certs_d(&nobody(&home), host), None, "{host}");
    }
}

#[test]
fn plain_http_needs_no_certificates() {
    let home = Home::new();
    let mut config = nobody(&home);
    config.ssl_cert_file = Some(home.at("absent.pem"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nplain");
        }
    });
    assert_eq!(get(&config, &format!("http://{host}/")).unwrap(), "plain");
    let error = get(&config, &format!("https://{host}/")).unwrap_err();
    assert!(error.to_string().contains("absent.pem"), "{error}");
}
