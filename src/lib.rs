//! layerize turns hashed closures into OCI images.
//!
//! The flow, each arrow one module: [`spec`] (what the user wrote) and its lock → [`derive`] (derivations) →
//! [`build`] (sandboxed, into the [`store`]) → [`closure`] → [`layer`] plan and packed layers → [`image`] →
//! [`transport`]. [`audit`] reads images back, [`attest`] states things of them. [`cli`] alone prints, reads the environment or exits.
//!
//! | module | one responsibility | may import |
//! |---|---|---|
//! | [`digest`] | digests, hashing and verifying readers and writers | – |
//! | [`escape`] | text from outside, made safe to show | – |
//! | [`event`] | what is reported while work is done | – |
//! | [`fsio`] | errors with paths, atomic publish, locks, sorted listing | – |
//! | [`http`] | the one HTTP client: TLS, proxies, patience, logins of downloads, where answers lead | fsio |
//! | [`graph`] | directed graphs: closures, strongly connected components, orders | – |
//! | [`parallel`] | work shared among threads | – |
//! | [`nar`] | canonical archive of a tree, its hash, the ordered walk | digest fsio |
//! | [`store_path`] | store paths: parsed, printed, ordered, computed; pure | digest |
//! | [`oci`] | OCI documents, references, canonical JSON; pure | digest |
//! | [`archive`] | tar, ar and zip read, tar headers written, compression undone | digest oci |
//! | [`store`] | add, look up, verify, collect garbage; a Nix store read-only | digest fsio nar store_path graph |
//! | [`closure`] | closed set, topological order, why-chains | store_path store graph |
//! | [`spec`] | the user's TOML and the lock; pure | digest escape graph |
//! | [`derive`] | spec and lock → derivations in order; pure | digest spec store_path graph |
//! | [`root`] | a root file system composed of packages' trees | fsio |
//! | [`fetch`] | downloads, archives, Debian packages | digest event fsio http nar store store_path spec derive root archive oci parallel |
//! | [`binary_cache`] | store paths as signed archives: taken from Nix's caches, written to one | digest event fsio http nar store_path store closure fetch graph archive oci parallel |
//! | [`build`] | realise derivations: schedule, sandbox, scan, register | digest event fsio store_path store closure derive root fetch graph parallel |
//! | [`layer`] | partition, tar, compression, layer cache | digest escape event fsio store_path graph archive oci parallel nar |
//! | [`image`] | config, manifest and layers as one value | digest escape event fsio store_path root oci layer spec |
//! | [`transport`] | archives, layouts, registries, daemons: sources and sinks | digest event fsio http oci image layer archive parallel |
//! | [`audit`] | inspect, diff, verify, explain | digest escape fsio store_path oci image transport archive |
//! | [`attest`] | bills of materials, provenance, signatures | digest escape fsio store_path oci store derive layer image transport graph |
//! | [`project`] | spec, lock, store and targets → images | digest event fsio nar store_path oci store closure spec derive fetch build layer image transport audit |
//! | [`cli`] | arguments, progress, error display, one file a verb | all |
//!
//! `tests/tidy.rs` checks the third column: each module imports these, no more and no fewer, all of them listed above it.

pub mod archive;
pub mod attest;
pub mod audit;
pub mod binary_cache;
pub mod build;
pub mod cli;
pub mod closure;
pub mod derive;
pub mod digest;
pub mod escape;
pub mod event;
pub mod fetch;
pub mod fsio;
pub mod graph;
pub mod http;
pub mod image;
pub mod layer;
pub mod nar;
pub mod oci;
pub mod parallel;

pub mod project;
pub mod root;
pub mod spec;
pub mod store;
pub mod store_path;
#[cfg(test)]
mod testing;
pub mod transport;
