//! A *real registry* for tests: Debian's `docker-registry` on loopback, with TLS under a private authority and with
//! users, or without; stopped when dropped. `tests/cli` uses this file too.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// The user that registries with users know.
pub const USER: &str = "alice";

/// Her password; it has colons, as passwords may.
pub const PASSWORD: &str = "cor:rect:horse";

/// `USER:bcrypt(PASSWORD)`, the only form that docker-registry reads.
const HTPASSWD: &str = "alice:$2y$05$abcdefghijklmnopqrstuugPxubuhRQyA.JwL1R/s81qRb69GBMqa\n";

/// A private authority that signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM form.
pub struct Certified {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// A new authority that nobody trusts.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a test's authority");
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    /// Its certificate, in PEM form.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate for these names and addresses.
    pub fn certificate(&self, names: &[&str]) -> Certified {
        self.sign(names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate.
    pub fn client(&self) -> Certified {
        self.sign(&["client"], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Certified {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "a test's certificate");
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        Certified {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A certificate that is signed by itself and an authority, as `openssl req -x509` makes them.
pub fn self_signed(names: &[&str]) -> Certified {
    signed_by_itself(names, 4096)
}

/// The same, but its time is over.
pub fn expired(names: &[&str]) -> Certified {
    signed_by_itself(names, 2001)
}

fn signed_by_itself(names: &[&str], last_year: i32) -> Certified {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    Certified {
        certificate: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// A running `docker-registry`.
pub struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`, as in image names.
    pub host: String,
    /// The authority's certificate, where it speaks TLS: for `--ca-file`, or as `ca.crt` in a `--cert-dir`.
    pub ca_file: Option<PathBuf>,
    /// Where its blobs are.
    pub storage: PathBuf,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a registry demands.
#[derive(Clone, Copy, Default)]
pub struct Demands {
    /// TLS, with a certificate for `127.0.0.1` and `localhost` under an authority of its own.
    pub tls: bool,
    /// That the user is [`USER`] with [`PASSWORD`].
    pub user: bool,
    /// That nothing is deleted.
    pub keep: bool,
    /// That each request is written down: see [`Registry::requests`].
    pub log: bool,
}

impl Registry {
    /// Method, path and status of each request so far, as the registry itself wrote them down.
    pub fn requests(&self) -> Vec<(String, String, u16)> {
        let log = fs::read_to_string(self.storage.with_file_name("access.log")).unwrap();
        let request = |line: &str| {
            let (request, rest) = line.split_once('"')?.1.split_once('"')?;
            let mut words = request.split(' ');
            let status = rest.split_whitespace().next()?.parse().ok()?;
            Some((words.next()?.to_owned(), words.next()?.to_owned(), status))
        };
        log.lines().filter_map(request).collect()
    }
}

/// Starts a registry whose files are in `dir`.
pub fn start(dir: &Path, demands: Demands) -> Registry {
    start_with(dir, demands, "")
}

/// The same with `more` in its configuration.
pub fn start_with(dir: &Path, demands: Demands, more: &str) -> Registry {
    fs::create_dir_all(dir).unwrap();
    let storage = dir.join("storage");
    let mut tls = String::new();
    let ca_file = demands.tls.then(|| {
        let authority = Authority::new();
        let certified = authority.certificate(&["127.0.0.1", "localhost"]);
        fs::write(dir.join("server.crt"), certified.certificate).unwrap();
        fs::write(dir.join("server.key"), certified.key).unwrap();
        let file = |name: &str| dir.join(name).display().to_string();
        tls = format!(
            ", tls: {{certificate: {}, key: {}}}",
            file("server.crt"),
            file("server.key")
        );
        let certificates = dir.join("certificates");
        fs::create_dir_all(&certificates).unwrap();
        fs::write(certificates.join("ca.crt"), authority.pem()).unwrap();
        certificates.join("ca.crt")
    });
    let mut auth = String::new();
    if demands.user {
        fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
        auth = format!(
            "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            dir.join("htpasswd").display()
        );
    }
    for _ in 0..5 {
        // Somebody may take the port before the registry does: then another one is tried.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        drop(listener);
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: {}}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: {}}}}}\n\
             http: {{addr: '{host}'{tls}}}\n{auth}{more}",
            !demands.log,
            storage.display(),
            !demands.keep
        );
        fs::write(dir.join("registry.yml"), config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("registry.yml"))
            .stdin(Stdio::null())
            .stdout(fs::File::create(dir.join("access.log")).unwrap())
            .stderr(fs::File::create(dir.join("registry.log")).unwrap())
            .spawn()
            .unwrap();
        for _ in 0..500 {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            if TcpStream::connect(&host).is_ok() {
                return Registry {
                    child,
                    host,
                    ca_file,
                    storage,
                };
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    let log = fs::read_to_string(dir.join("registry.log")).unwrap_or_default();
    panic!("docker-registry did not start:\n{log}");
}
