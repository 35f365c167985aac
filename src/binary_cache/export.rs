//! *Exporting* writes paths to a directory that any web server turns into a binary cache, and that Nix accepts.
//!
//! Invariant: a narinfo appears after its archive and after the narinfos of all it refers to, each by rename, so that
//! a reader sees closed sets only, whenever the export stops. What is there already is left as it is; a signature
//! that is missing is added. The bytes depend on the paths, the compression and the keys alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::compression::Encoder;
use super::error::CacheError;
use super::key::SecretKey;
use super::narinfo::{NarInfo, fingerprint, print_address};
use super::remote::store_dir_of;
use crate::digest::{HashingWriter, VerifyingReader};
use crate::event::{Event, Reporter};
use crate::fsio::{self, AtomicFile, IoContext, write_atomic};
use crate::nar;
use crate::oci::CompressionFormat;
use crate::parallel;
use crate::store::{Attestation, PathDetails, Store, StoreError};
use crate::store_path::{PathInfo, StoreDir, StorePath, base32_encode};

/// Largest text file of a cache that is read.
const TEXT_MAX: u64 = 4 << 20;

/// What Nix asks first among caches of equal worth has the lower number; its own default is 50.
const PRIORITY: u32 = 50;

/// A path to be exported.
#[derive(Debug, Clone)]
pub struct ExportMember {
    /// The path and its archive.
    pub info: PathInfo,
    /// Where it is on disk.
    pub physical: PathBuf,
    /// Who made and signed it.
    pub attestation: Attestation,
}

impl ExportMember {
    /// A path of layerize's store, at `physical`, with what proves it without a signature.
    pub fn of(details: &PathDetails, physical: PathBuf) -> Self {
        Self {
            info: details.info.clone(),
            physical,
            attestation: Attestation {
                content_address: print_address(&details.addressing),
                ..Attestation::default()
            },
        }
    }
}

/// How paths are exported.
#[derive(Debug)]
pub struct ExportOptions<'k> {
    /// How archives are compressed: xz, zstd or not at all.
    pub compression: CompressionFormat,
    /// Who signs the paths.
    pub keys: &'k [SecretKey],
}

impl Default for ExportOptions<'_> {
    fn default() -> Self {
        Self {
            compression: CompressionFormat::Xz,
            keys: &[],
        }
    }
}

/// The closure of `roots` in `store`, referenced paths first.
pub fn members(store: &Store, roots: &BTreeSet<StorePath>) -> Result<Vec<ExportMember>, CacheError> {
    let closure = crate::closure::compute(store, roots)?;
    let member = |info: &PathInfo| {
        let mut attestation = store.attestation(&info.path)?;
        if attestation.content_address.is_none() {
            let details = store.info_full(&info.path)?;
            attestation.content_address = details.and_then(|details| print_address(&details.addressing));
        }
        Ok(ExportMember {
            info: info.clone(),
            physical: store.physical(&info.path),
            attestation,
        })
    };
    closure.topological().into_iter().map(member).collect()
}

/// Writes `members`, a closure with referenced paths first, to the cache in `dir`; gives what was not there before.
pub fn export(
    dir: &Path,
    store_dir: &StoreDir,
    members: &[ExportMember],
    options: &ExportOptions<'_>,
    reporter: &dyn Reporter,
) -> Result<Vec<StorePath>, CacheError> {
    fsio::create_dir_all(&dir.join("nar"))?;
    prepare_info(dir, store_dir)?;
    let places: BTreeMap<&StorePath, usize> = members
        .iter()
        .enumerate()
        .map(|(index, member)| (&member.info.path, index))
        .collect();
    let needs: Vec<Vec<usize>> = members
        .iter()
        .enumerate()
        .map(|(index, member)| {
            let references = member
                .info
                .references
                .iter()
                .filter_map(|reference| places.get(reference).copied());
            // Those in a circle with it come when they come.
            references.filter(|&need| need < index).collect()
        })
        .collect();
    let written = std::sync::Mutex::new(BTreeSet::new());
    let exporter = Exporter {
        dir,
        store_dir,
        options,
    };
    parallel::in_order(
        members,
        &needs,
        parallel::threads(0),
        |member| exporter.prepare(member),
        |member, prepared| {
            if exporter.publish(member, prepared)? {
                reporter.report(Event::Note {
                    text: format!("{} to {}", store_dir.join(&member.info.path), dir.display()),
                });
                let mut written = written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                written.insert(member.info.path.clone());
            }
            Ok::<(), CacheError>(())
        },
    )?;
    let written = written.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(written.into_iter().collect())
}

/// Removes what the cache in `dir` says of those of these paths whose archives are not what it says: they are written anew then.
/// The archives stay: what a narinfo names may be any file.
pub fn forget_damaged(dir: &Path, store_dir: &StoreDir, paths: &[StorePath]) -> Result<(), CacheError> {
    for path in paths {
        let narinfo = dir.join(format!("{}.narinfo", path.hash()));
        let Ok(bytes) = fsio::read_limited(&narinfo, TEXT_MAX) else {
            continue;
        };
        let parsed = NarInfo::parse(&String::from_utf8_lossy(&bytes), store_dir);
        if !parsed.is_ok_and(|parsed| has_archive(dir, &parsed)) {
            fs::remove_file(&narinfo).context("remove", &narinfo)?;
        }
    }
    Ok(())
}

/// Whether the archive is there with the bytes that a narinfo says.
fn has_archive(dir: &Path, narinfo: &NarInfo) -> bool {
    let archive = dir.join(&narinfo.url);
    let (Some(hash), Some(size)) = (narinfo.file_hash, narinfo.file_size) else {
        return false;
    };
    let is_file = fs::metadata(&archive).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size);
    let file = is_file.then(|| fs::File::open(&archive).ok()).flatten();
    file.is_some_and(|file| io::copy(&mut VerifyingReader::new(file, hash, Some(size)), &mut io::sink()).is_ok())
}

/// Writes `nix-cache-info`, or checks the one that is there.
fn prepare_info(dir: &Path, store_dir: &StoreDir) -> Result<(), CacheError> {
    let path = dir.join("nix-cache-info");
    if !path.exists() {
        let text = format!(
            "StoreDir: {}\nWantMassQuery: 1\nPriority: {PRIORITY}\n",
            store_dir.as_str()
        );
        return Ok(write_atomic(&path, text.as_bytes())?);
    }
    let text = String::from_utf8_lossy(&fsio::read_limited(&path, TEXT_MAX)?).into_owned();
    let found = store_dir_of(&text).unwrap_or(StoreDir::NIX);
    if found != store_dir.as_str() {
        return Err(CacheError::StoreDir {
            cache: format!("file://{}", dir.display()),
            found: found.to_owned(),
            wanted: store_dir.as_str().to_owned(),
        });
    }
    Ok(())
}

struct Exporter<'a> {
    dir: &'a Path,
    store_dir: &'a StoreDir,
    options: &'a ExportOptions<'a>,
}

/// What the cache will say of a path.
struct PreparedExport {
    narinfo: NarInfo,
    /// Whether it said so before.
    there: bool,
}

impl Exporter<'_> {
    /// Writes a path's archive, if it is not there.
    fn prepare(&self, member: &ExportMember) -> Result<PreparedExport, CacheError> {
        let mut signatures = member.attestation.signatures.clone();
        let message = fingerprint(&member.info, self.store_dir);
        signatures.extend(self.options.keys.iter().map(|key| key.sign(&message)));
        if let Some(mut narinfo) = self.present(member) {
            let there = signatures.is_subset(&narinfo.attestation.signatures);
            narinfo.attestation.signatures.extend(signatures);
            return Ok(PreparedExport { narinfo, there });
        }
        let mut narinfo = self.write_archive(member)?;
        narinfo.attestation.signatures = signatures;
        Ok(PreparedExport { narinfo, there: false })
    }

    /// What the cache says of a path, if that is right and its archive there.
    fn present(&self, member: &ExportMember) -> Option<NarInfo> {
        let bytes = fsio::read_limited(&self.narinfo_path(member), TEXT_MAX).ok()?;
        let narinfo = NarInfo::parse(std::str::from_utf8(&bytes).ok()?, self.store_dir).ok()?;
        let size = fs::metadata(self.dir.join(&narinfo.url)).ok()?.len();
        (narinfo.info == member.info && narinfo.file_size == Some(size)).then_some(narinfo)
    }

    fn write_archive(&self, member: &ExportMember) -> Result<NarInfo, CacheError> {
        let nars = self.dir.join("nar");
        let compression = self.options.compression;
        let temporary = nars.join("archive");
        let file = HashingWriter::new(AtomicFile::create(&temporary)?);
        let encoder = Encoder::new(compression, file).context("compress to", &temporary)?;
        let mut sink = HashingWriter::new(encoder);
        nar::write(&member.physical, &mut sink)?;
        let (encoder, hasher, size) = sink.finish();
        if (hasher.digest(), size) != (member.info.nar_hash, member.info.nar_size) {
            let path = member.info.path.clone();
            return Err(CacheError::Changed { path });
        }
        let (mut file, hasher, file_size) = encoder.finish().context("compress to", &temporary)?.finish();
        file.flush().context("write", &temporary)?;
        let file_hash = hasher.digest();
        let name = format!("{}.nar{}", base32_encode(file_hash.as_bytes()), compression.extension());
        file.publish_as(&nars.join(&name))?;
        Ok(NarInfo {
            info: member.info.clone(),
            url: format!("nar/{name}"),
            compression,
            file_hash: Some(file_hash),
            file_size: Some(file_size),
            attestation: member.attestation.clone(),
        })
    }

    /// Writes a path's narinfo; true where it was not there.
    fn publish(&self, member: &ExportMember, prepared: PreparedExport) -> Result<bool, CacheError> {
        if prepared.there {
            return Ok(false);
        }
        write_atomic(
            &self.narinfo_path(member),
            prepared.narinfo.print(self.store_dir).as_bytes(),
        )?;
        Ok(true)
    }

    fn narinfo_path(&self, member: &ExportMember) -> PathBuf {
        self.dir.join(format!("{}.narinfo", member.info.path.hash()))
    }
}

/// Signs valid paths of `store` with `key`, and keeps the signatures there.
pub fn sign(store: &Store, paths: &BTreeSet<StorePath>, key: &SecretKey) -> Result<(), CacheError> {
    for path in paths {
        let info = store.info(path)?.ok_or_else(|| StoreError::NotValid {
            path: path.clone(),
            needed_by: None,
        })?;
        store.add_signature(path, &key.sign(&fingerprint(&info, store.store_dir())))?;
    }
    Ok(())
}
