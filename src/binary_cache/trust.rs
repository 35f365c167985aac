//! *Trust*: who must have vouched for a path before it is taken.
//!
//! Invariant: a path is taken if its content proves its name, or one of the trusted keys signed what it is and what it
//! refers to; else only where the user said so for this command.

use std::collections::BTreeSet;

use super::key::{NixPublicKey, signer};
use super::narinfo::{NarInfo, fingerprint};
use crate::store::Addressing;
use crate::store_path::{PathInfo, StoreDir};

/// Whom to believe.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The keys, one of which must have signed a path.
    pub keys: Vec<NixPublicKey>,
    /// Take what nobody vouches for.
    pub unsigned: bool,
}

impl Trust {
    /// Whether to believe a narinfo; if not, why.
    pub(super) fn check(&self, narinfo: &NarInfo, dir: &StoreDir) -> Result<(), String> {
        match narinfo.addressing(dir) {
            Addressing::Derivation => self.check_signed(&narinfo.info, &narinfo.attestation.signatures, dir),
            Addressing::Tree(_) | Addressing::File(_) => Ok(()),
        }
    }

    /// Whether to believe what is said of a path that its content does not prove; if not, why.
    pub fn check_signed(&self, info: &PathInfo, signatures: &BTreeSet<String>, dir: &StoreDir) -> Result<(), String> {
        if self.unsigned {
            return Ok(());
        }
        let message = fingerprint(info, dir);
        let mut bad = None;
        for key in &self.keys {
            let by_name = |signature: &&String| signer(signature) == Some(key.name());
            for signature in signatures.iter().filter(by_name) {
                if key.verifies(&message, signature) {
                    return Ok(());
                }
                bad = Some(key.name());
            }
        }
        let names: Vec<&str> = signatures.iter().filter_map(|signature| signer(signature)).collect();
        Err(match (bad, names.as_slice()) {
            (Some(name), _) => format!("its signature by `{name}` is wrong: it or what it signs was changed"),
            (None, []) => "nobody signed it".to_owned(),
            (None, names) => format!("it is signed by {}, which is not a trusted key", names.join(", ")),
        })
    }
}
