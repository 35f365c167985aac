//! A local *tree* as a blob: its canonical archive (NAR), made when somebody reads it.
//!
//! Invariant: the archive holds what an image takes in: of a file's mode whether anybody may execute it, of a symlink
//! its target, and where the tree itself is named by a symlink, what that leads to.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::InputsError;
use crate::digest::{ContentDigest, Digest, HashingWriter};
use crate::fsio::IoContext;
use crate::layer::{Blob, Origin};
use crate::nar::{self, EntryKind, NarEncoder, NarError};

/// Digest and size of the archive of what is at `path`, and the blob that it is.
pub(super) fn archive(path: &Path) -> Result<(Digest, u64, Blob), InputsError> {
    let path = fs::canonicalize(path).context("read", path)?;
    let mut sink = HashingWriter::new(io::sink());
    write(&path, &mut sink)?;
    let (_, hasher, len) = sink.finish();
    let digest = hasher.digest();
    Ok((digest, len, blob(&path, digest, len)))
}

/// The archive of the tree at `path`, whose digest and size are known.
pub(super) fn blob(path: &Path, digest: Digest, len: u64) -> Blob {
    Blob::Elsewhere {
        origin: Arc::new(TreeArchive(path.to_owned())),
        digest: digest.into(),
        len,
    }
}

fn write(path: &Path, sink: &mut dyn Write) -> Result<(), NarError> {
    let mut encoder = NarEncoder::new(sink)?;
    nar::visit(path, &mut |entry, contents| {
        let place = entry.below(path);
        let mut entry = entry.clone();
        if let EntryKind::File { executable, .. } = &mut entry.kind {
            let metadata = fs::symlink_metadata(&place).context("read", &place)?;
            *executable = metadata.permissions().mode() & 0o111 != 0;
        }
        encoder.entry(&entry, contents)
    })?;
    encoder.finish()?;
    Ok(())
}

/// Makes the archive in a file without a name.
#[derive(Debug)]
struct TreeArchive(PathBuf);

impl Origin for TreeArchive {
    fn open(&self, _: &ContentDigest, _: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file: File = tempfile::tempfile()?;
        let mut writer = BufWriter::new(&file);
        write(&self.0, &mut writer).map_err(io::Error::other)?;
        writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(Box::new(file))
    }
}
