//! *TLS* to a host: whom is trusted, and how this machine shows who it is.
//!
//! Invariant: certificates add to the system's and never replace them; a private key is read only for its own host.
//!
//! A directory `certs.d/HOST[:PORT]` holds authorities in `*.crt` and client certificates as `NAME.cert` with
//! `NAME.key` (containers-certs.d(5), docker's the same). Of several such directories the first that exists is used, as
//! podman does; of several client certificates the first by name.

use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage, RootCertStore,
    ServerConfig, SignatureScheme,
};
use serde::Serialize;

use super::config::HttpConfig;
use super::error::SetupError;

/// Largest file of certificates that is read, in bytes.
const PEM_BYTES_MAX: u64 = 16 << 20;

/// What is used for TLS to a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TlsSources {
    /// Where the system's authorities come from: "the system", or files and directories of `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR`.
    pub system: Vec<String>,
    /// The directory `certs.d/HOST` that is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certs_d: Option<PathBuf>,
    /// Files with further authorities.
    pub authorities: Vec<PathBuf>,
    /// The client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// The file of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
}

/// For people, each line indented as part of a list.
impl fmt::Display for TlsSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  TLS: authorities of {}", self.system.join(", "))?;
        if let Some(dir) = &self.certs_d {
            writeln!(f, "    certs.d: {}", dir.display())?;
        }
        for path in &self.authorities {
            writeln!(f, "    authority: {}", path.display())?;
        }
        if let Some(path) = &self.client_certificate {
            writeln!(f, "    client certificate: {}", path.display())?;
        }
        Ok(())
    }
}

/// The directory `certs.d/HOST` that is used for a host; none for what could leave it.
pub(crate) fn certs_d(config: &HttpConfig, host: &str) -> Option<PathBuf> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if host.is_empty() || host.starts_with('.') || !host.chars().all(fits) {
        return None;
    }
    let dirs = config.certs_dirs.iter().map(|dir| dir.join(host));
    dirs.into_iter().find(|dir| dir.is_dir())
}

/// Whether anything is configured about TLS to a host, beyond whom the system trusts.
pub(crate) fn is_configured(config: &HttpConfig, host: &str) -> bool {
    let of_host = config.hosts.get(host);
    of_host.is_some_and(|of_host| of_host.ca_file.is_some() || of_host.client_cert.is_some())
        || !config.ca_files.is_empty()
        || certs_d(config, host).is_some()
}

/// What is used for a host; no certificate is read yet.
pub(crate) fn sources(config: &HttpConfig, host: &str) -> Result<TlsSources, SetupError> {
    let mut sources = TlsSources {
        system: system_sources(config),
        certs_d: certs_d(config, host),
        ..TlsSources::default()
    };
    if let Some(dir) = &sources.certs_d {
        let names = crate::fsio::sorted_names(dir)?;
        let paths = |extension: &str| -> Vec<PathBuf> {
            let has = |name: &&std::ffi::OsString| Path::new(name).extension() == Some(OsStr::new(extension));
            names.iter().filter(has).map(|name| dir.join(name)).collect()
        };
        let pair = |present: &Path, extension: &str| {
            let missing = present.with_extension(extension);
            match missing.exists() {
                true => Ok(()),
                false => Err(SetupError::ClientPair {
                    present: present.to_owned(),
                    missing,
                }),
            }
        };
        for key in paths("key") {
            pair(&key, "cert")?;
        }
        for certificate in paths("cert") {
            pair(&certificate, "key")?;
            if sources.client_certificate.is_none() {
                sources.client_key = Some(certificate.with_extension("key"));
                sources.client_certificate = Some(certificate);
            }
        }
        sources.authorities = paths("crt");
    }
    if let Some(of_host) = config.hosts.get(host) {
        sources.authorities.extend(of_host.ca_file.clone());
        of_host.check(host)?;
        if let (Some(certificate), Some(key)) = (&of_host.client_cert, &of_host.client_key) {
            sources.client_certificate = Some(certificate.clone());
            sources.client_key = Some(key.clone());
        }
    }
    sources.authorities.extend(config.ca_files.iter().cloned());
    Ok(sources)
}

fn system_sources(config: &HttpConfig) -> Vec<String> {
    let file = config.ssl_cert_file.iter().map(|path| ("SSL_CERT_FILE", path));
    let dirs = config.ssl_cert_dirs.iter().map(|path| ("SSL_CERT_DIR", path));
    let named: Vec<String> = file
        .chain(dirs)
        .map(|(variable, path)| format!("{variable}={}", path.display()))
        .collect();
    match named.is_empty() {
        true => vec!["the system".to_owned()],
        false => named,
    }
}

/// The TLS library's configuration for a host. Without `is_needed` nobody is trusted and no file is read, as plain HTTP
/// works on a machine without any certificates, too.
pub(crate) fn client_config(config: &HttpConfig, host: &str, is_needed: bool) -> Result<ClientConfig, SetupError> {
    match is_needed {
        true => from_sources(config, &sources(config, host)?, host),
        false => trusting(Vec::new(), &TlsSources::default(), host),
    }
}

/// The same from these sources.
pub(crate) fn from_sources(config: &HttpConfig, sources: &TlsSources, host: &str) -> Result<ClientConfig, SetupError> {
    trusting(system_roots(config)?, sources, host)
}

fn trusting(
    system: Vec<CertificateDer<'static>>,
    sources: &TlsSources,
    host: &str,
) -> Result<ClientConfig, SetupError> {
    let tls_error = |source| SetupError::Tls {
        host: host.to_owned(),
        source,
    };
    let mut roots = RootCertStore::empty();
    // What the system trusts and the library cannot read is passed over: it would refuse a server, not accept one.
    roots.add_parsable_certificates(system);
    let mut named = Vec::new();
    for path in &sources.authorities {
        for certificate in certificates(path)? {
            roots
                .add(certificate.clone())
                .map_err(|error| SetupError::Certificates {
                    path: path.clone(),
                    reason: format!("holds a certificate that cannot be used: {error}"),
                })?;
            named.push(certificate);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(tls_error)?;
    let builder = match named.is_empty() {
        true => builder.with_root_certificates(roots),
        false => {
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let inner = inner.map_err(|error| tls_error(rustls::Error::General(error.to_string())))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Named { inner, named }))
        }
    };
    match (&sources.client_certificate, &sources.client_key) {
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(tls_error),
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// The TLS library's configuration of a server with these files: its certificate and those of authorities between, and its key.
pub(crate) fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig, SetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |error: rustls::Error| SetupError::Certificates {
        path: certificate.to_owned(),
        reason: format!("cannot be used with the key `{}`: {error}", key.display()),
    };
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
    let own = (certificates(certificate)?, private_key(key)?);
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(own.0, own.1)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn system_roots(config: &HttpConfig) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    if config.ssl_cert_file.is_none() && config.ssl_cert_dirs.is_empty() {
        return Ok(rustls_native_certs::load_native_certs().certs);
    }
    let mut roots = match &config.ssl_cert_file {
        Some(file) => certificates(file)?,
        None => Vec::new(),
    };
    for dir in &config.ssl_cert_dirs {
        // A directory of the list need not exist.
        roots.extend(rustls_native_certs::load_certs_from_paths(None, Some(dir)).certs);
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let error = |reason: String| SetupError::Certificates {
        path: path.to_owned(),
        reason,
    };
    let bytes = crate::fsio::read_limited(path, PEM_BYTES_MAX)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(error("holds no certificate".to_owned())),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(error("holds a certificate that is not in PEM form".to_owned())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, SetupError> {
    let bytes = crate::fsio::read_limited(path, PEM_BYTES_MAX)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let encrypted = String::from_utf8_lossy(&bytes).contains("ENCRYPTED");
        SetupError::Certificates {
            path: path.to_owned(),
            reason: match encrypted {
                true => "is encrypted; only keys without a passphrase can be used".to_owned(),
                false => "holds no private key".to_owned(),
            },
        }
    })
}

/// The usual verifier, which also accepts a server whose own certificate was named as trusted.
///
/// Self-signed certificates of registries are authorities and servers' certificates at once, which docker and podman
/// accept and the TLS library does not.
#[derive(Debug)]
struct Named {
    inner: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self
            .inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // The library gives this answer after it looked at the dates; that the server holds the key is shown by the
            // handshake's signature, and the name is compared here.
            Err(rustls::Error::InvalidCertificate(reason))
                if is_authority(&reason) && self.named.iter().any(|named| named == end_entity) =>
            {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The library's `CaUsedAsEndEntity`, which has no variant of its own.
fn is_authority(reason: &CertificateError) -> bool {
    matches!(reason, CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity"))
}

/// What to do about a failed connection to `host`, if TLS is why it failed.
pub(crate) fn advice(error: &(dyn Error + 'static), host: &str) -> Option<String> {
    let advice = match tls_error(error)? {
        rustls::Error::InvalidCertificate(reason) => match reason {
            // A bad signature is one by another authority of the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "the certificate of `{host}` is signed by nobody whom this machine trusts: give its authority with \
                 `--ca-file FILE`, or put it into `/etc/containers/certs.d/{host}/ca.crt`"
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the certificate is not for `{host}`: use the name that it is for")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the certificate of `{host}` has expired: renew it, or set this machine's clock right")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("the certificate of `{host}` is not valid yet: set this machine's clock right")
            }
            reason if is_authority(reason) => format!(
                "the certificate of `{host}` is an authority's own: trust that very certificate with `--ca-file FILE`"
            ),
            _ => return None,
        },
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateUnknown,
        ) => format!(
            "`{host}` wants a client certificate that it trusts: put `client.cert` and `client.key` into \
             `/etc/containers/certs.d/{host}/`, or name them by `client-cert` and `client-key` in layerize's config.toml"
        ),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => format!(
            "`{host}` does not speak TLS: if the network is trusted, allow plain HTTP with `--plain-http {host}`"
        ),
        _ => return None,
    };
    Some(advice)
}

/// Whether one side does not accept the other, which will not change by itself: its certificate, or that it speaks TLS.
pub(crate) fn is_refused(error: &(dyn Error + 'static)) -> bool {
    matches!(
        tls_error(error),
        Some(
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::AlertReceived(_)
                | rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)
        )
    )
}

/// The TLS library's error in a chain, which is inside I/O errors.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
