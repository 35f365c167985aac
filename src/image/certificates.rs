//! *Certificates* that the spec adds to those that Debian trusts, in an image whose maintainer scripts did not.
//!
//! Invariant: whoever made the bundle, each certificate of the spec's is in it. Where scripts ran and made it, it stays as it
//! is.

use memchr::memmem;

use super::error::ImageError;
use super::filesystem::{Content, FileSystem, Found, Node};
use super::recipe::Recipe;
use crate::fsio;

/// The bundle that programs read, as Debian names it.
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// Largest bundle that is added to, in bytes. Debian's has 0.2 MB.
const BUNDLE_MAX: u64 = 64 << 20;

/// Where certificates of the user's are, for whoever makes the bundle anew.
pub(super) const LOCAL: &str = "usr/local/share/ca-certificates";

/// What OpenSSL reads beside its directory of certificates, whose names are hashes that scripts make.
const OPENSSL_FILE: &str = "usr/lib/ssl/cert.pem";

/// Adds a spec's certificates to the bundle, and itself for OpenSSL, where no scripts did.
pub(super) fn add(recipe: &Recipe, files: &mut FileSystem) -> Result<(), ImageError> {
    let Some(certificates) = &recipe.spec.certificates else {
        return Ok(());
    };
    let known = match files.resolve(BUNDLE.as_bytes())? {
        Some((_, Found::File { content, .. })) => read(&content)?,
        _ => Vec::new(),
    };
    let mut bundle = known.clone();
    for (name, own) in &certificates.own {
        let pem = own.certificate.pem();
        if memmem::find(&known, pem.as_bytes()).is_none() {
            if bundle.last().is_some_and(|&last| last != b'\n') {
                bundle.push(b'\n');
            }
            bundle.extend_from_slice(pem.as_bytes());
        }
        put(&format!("{LOCAL}/{name}.crt"), Node::text(pem), files)?;
    }
    let is_made = bundle != known;
    if is_made {
        let path = files.make_parent(BUNDLE.as_bytes())?;
        files.insert(path, Node::text(bundle))?;
    }
    match recipe.configured.is_none() || is_made {
        true => put(OPENSSL_FILE, Node::symlink(format!("/{BUNDLE}")), files),
        false => Ok(()),
    }
}

/// Puts a node where the image has nothing.
fn put(path: &str, node: Node, files: &mut FileSystem) -> Result<(), ImageError> {
    let path = files.make_parent(path.as_bytes())?;
    match files.lookup(&path)? {
        Some(_) => Ok(()),
        None => files.insert(path, node),
    }
}

fn read(content: &Content) -> Result<Vec<u8>, ImageError> {
    Ok(match content {
        Content::Bytes(bytes) => bytes.to_vec(),
        Content::Disk { physical, .. } => fsio::read_limited(physical, BUNDLE_MAX)?,
    })
}
