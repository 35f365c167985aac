//! layerize turns hashed closures into OCI images.
//!
//! # The house
//!
//! Each floor imports only from those below it, and on a floor each room only from those before it. `tests/tidy.rs` reads
//! this table: it compares the last column with the code, in which a permission that nothing uses is an error as well.
//!
//! | floor | room | one responsibility | imports |
//! |---|---|---|---|
//! | 1 | [`digest`] | digests, hashing and verifying readers and writers | – |
//! | 1 | [`parallel`] | work shared among threads | – |
//! | 1 | [`child`] | programs that are run for what they say; none outlives an interrupt | – |
//! | 1 | [`escape`] | text from outside, made safe to show | – |
//! | 1 | [`shell_word`] | texts as words of a shell; pure | – |
//! | 1 | [`certificate`] | certificates of authorities in PEM form; pure | digest escape |
//! | 1 | [`capability`] | file capabilities: libcap's text, the kernel's bytes | – |
//! | 1 | [`event`] | what is reported while work is done | – |
//! | 1 | [`fsio`] | errors with paths, atomic publish, locks, sorted listing | – |
//! | 1 | [`graph`] | directed graphs: closures, strongly connected components, orders | – |
//! | 1 | [`store_path`] | store paths: parsed, printed, ordered, computed; pure | digest |
//! | 1 | [`walls`] | what stands between a build and the machine: names and order; pure | – |
//! | 1 | [`execution`] | how scripts' programs ran: on the processor or emulated; pure | – |
//! | 1 | [`oci`] | OCI documents, references, canonical JSON; pure | digest |
//! | 2 | [`nar`] | canonical archive of a tree, its hash, the ordered walk | digest fsio |
//! | 2 | [`spec`] | the user's TOML and the lock; pure | capability certificate digest escape fsio store_path graph oci walls |
//! | 2 | [`http`] | the one HTTP client: TLS, proxies, patience, logins of downloads, where answers lead | fsio |
//! | 2 | [`elf`] | what programs and libraries ask of the loader, and how it answers | fsio |
//! | 2 | [`root`] | a root file system composed of packages' trees | escape fsio |
//! | 2 | [`archive`] | tar, ar and zip read, tar headers written, compression undone | capability digest oci |
//! | 3 | [`store`] | add, look up, verify, collect garbage; a Nix store read-only | digest child execution fsio nar store_path graph walls |
//! | 3 | [`closure`] | closed set, topological order, why-chains | store_path store graph |
//! | 3 | [`lang`] | lock files of languages → what they pin, and how it is built | digest fsio spec shell_word |
//! | 3 | [`derive`] | spec and lock → derivations in order; pure | digest spec store_path graph oci lang |
//! | 3 | [`sandbox`] | the walled-off place in which scripts run, and its mounts | fsio store_path walls |
//! | 3 | [`layer`] | partition, tar, compression, layer cache | capability digest escape event fsio store_path graph archive oci parallel nar |
//! | 4 | [`fetch`] | downloads, archives, Debian packages | capability digest child escape event fsio http nar store store_path spec derive root archive oci parallel |
//! | 4 | [`configure`] | Debian's maintainer scripts run over packages' trees, and what they made | escape fsio spec oci root sandbox fetch |
//! | 4 | [`remote`] | steps run at builders that speak the Remote Execution API | digest elf escape fsio http nar parallel sandbox store_path walls |
//! | 4 | [`peer`] | closures copied to layerize on another machine and from it, over ssh | child closure digest escape event execution fsio nar store store_path walls shell_word |
//! | 4 | [`profile`] | a user's installed programs: one directory of links, in generations | fsio nar store store_path shell_word |
//! | 4 | [`build`] | realise derivations: schedule, run, scan, register | digest elf escape event execution fsio nar store_path store closure spec derive root sandbox fetch configure remote peer graph parallel walls shell_word |
//! | 4 | [`image`] | recipe → config, manifest and layers as one value | capability digest elf escape event fsio store_path root oci layer spec configure |
//! | 5 | [`binary_cache`] | store paths as signed archives: taken from Nix's caches, written to one | digest event fsio http nar store_path store closure fetch graph archive oci parallel |
//! | 5 | [`transport`] | archives, layouts, registries, daemons: sources and sinks | digest child event fsio http oci image layer archive parallel |
//! | 5 | [`shared_cache`] | what was built, kept in registries and binary caches for others who build the same | digest event execution fsio store_path oci parallel store fetch layer build image binary_cache transport walls |
//! | 5 | [`serve`] | a registry whose images are made when they are pulled | digest escape fsio http store_path oci layer image |
//! | 5 | [`container`] | programs of images run in the images' own roots, without an engine | digest escape event fsio spec archive sandbox layer image oci transport walls |
//! | 6 | [`audit`] | read images back: inspect, diff, verify, explain | capability digest escape fsio store_path oci image transport archive |
//! | 6 | [`attest`] | state things of images: bills of materials, provenance, signatures | digest escape execution fsio store_path oci store derive layer configure image transport graph walls |
//! | 6 | [`inputs`] | keep files from outside beside images, and find them again | digest fsio nar oci store store_path spec derive fetch layer image transport |
//! | 7 | [`project`] | spec, lock, store and targets → recipe → image | digest child escape event execution fsio nar store_path oci parallel graph store closure spec sandbox lang derive fetch configure remote peer build layer image binary_cache transport shared_cache container audit attest inputs walls shell_word |
//! | 8 | [`cli`] | arguments, printing, exit status: one file a verb | all |
//!
//! Only `cli` prints, reads the process's environment or exits; only there is an error an `anyhow::Error`.
//!
//! # A walk: `layerize build hello` in `specs/hello`, from `layerize.toml` to `hello.tar`
//!
//! The functions that are passed, in their order; no step goes back.
//!
//! 1. `cli::main` parses the arguments, `cli::context` reads the environment into a [`project::Environment`], and
//!    `cli::build::run` turns its flags into [`project::WorkOptions`] and [`project::ImageOptions`].
//! 2. [`project::work::prepare`] begins with the project: [`project::Project::load`] reads `layerize.toml` through
//!    [`spec::load`](fn@spec::load) (every mistake of the file at once) and `layerize.lock` through [`spec::lock::parse`].
//! 3. `hello` is a name: [`project::target::name`] finds `[image.hello]`, a [`project::Target::Image`].
//! 4. [`project::Project::make_lock_current`] asks [`spec::lock_is_current`]; only a stale lock is resolved anew, by
//!    [`fetch::resolve`](fn@fetch::resolve).
//! 5. [`derive::make`] turns spec and lock into a [`derive::BuildPlan`]: unpack some eighty Debian packages and the source
//!    of hello, then run its script.
//! 6. [`build::realise`] does the steps that the image needs and the store lacks, several at a time: [`fetch::fetch`] downloads
//!    and checks digests, [`fetch::unpack_deb`] makes a tree of a package, and the script runs in [`sandbox`].
//!    What a step made is canonicalised, hashed, searched for references and registered by [`store::Store`]: it is
//!    `/layerize/store/HASH-hello-2.10` from here on.
//! 7. [`project::drafts`] collects what the image is made of: [`closure::compute`] follows the references from hello to the
//!    C library, and [`image::Recipe::new`] reads the image's own files. The [`image::Recipe`] is all that decides the digest.
//! 8. [`image::assemble`] looks for the recipe's key in the image cache. Where it is not there, [`image::plan`](fn@image::plan)
//!    shares the closure out among layers ([`layer::partition::partition`]), `image::layout` lays out the file system,
//!    `image::program` makes sure that the programs can start, and `image::cut` says which layer holds what.
//! 9. [`layer::pack`] reads each file once: verified, as tar, compressed, both digests. Pieces that are in the layer cache
//!    are not read at all. `image::document` writes config and manifest as canonical JSON: an [`image::Image`].
//! 10. `cli::sinks` gives it to [`transport::put_all`]: [`transport::Archive`] writes `hello.tar`, and standard output gets
//!     the line `sha256:… docker-archive:hello.tar`.
//!
//! [`derive`]: mod@crate::derive

pub mod archive;
pub mod attest;
pub mod audit;
pub mod binary_cache;
pub mod build;
pub mod capability;
pub mod certificate;
pub mod child;
pub mod cli;
pub mod closure;
pub mod configure;
pub mod container;
pub mod derive;
pub mod digest;
pub mod elf;
pub mod escape;
pub mod event;
pub mod execution;
pub mod fetch;
pub mod fsio;
pub mod graph;
pub mod http;
pub mod image;
pub mod inputs;
pub mod lang;
pub mod layer;
pub mod nar;
pub mod oci;
pub mod parallel;
pub mod peer;
pub mod profile;
pub mod project;
pub mod remote;
pub mod root;
pub mod sandbox;
pub mod serve;
pub mod shared_cache;
pub mod shell_word;
pub mod spec;
pub mod store;
pub mod store_path;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod walls;
