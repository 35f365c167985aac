//! A *binary cache* holds store paths as compressed archives, for others to take: Nix's format, read and written.
//!
//! Invariant: nothing that a cache says is believed before a trusted key or the path's own name proves it, nothing is
//! registered before its archive was read to the end and found right, and what is written is what real Nix takes.
//!
//! ```text
//! nix-cache-info      StoreDir: /nix/store
//! HASH.narinfo        what is known of the path whose hash part is HASH, signed
//! nar/FILEHASH.nar.xz its archive
//! ```

mod compression;
mod error;
mod export;
mod fetch;
mod key;
mod narinfo;
mod remote;
#[cfg(test)]
mod tests;
mod trust;

pub use error::CacheError;
pub use export::{ExportMember, ExportOptions, export, forget_damaged, members, sign};
pub use fetch::fetch_closure;
pub use key::{KeyError, NixPublicKey, SecretKey};
pub use narinfo::{NarInfo, NarInfoError, fingerprint, parse_hash, print_hash};
pub use remote::BinaryCache;
pub use trust::Trust;
