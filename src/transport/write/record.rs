//! A *record* is a note of what was last written to a file, kept elsewhere, by which a second write of the same is
//! left out.
//!
//! Invariant: a record is believed only if the file is, by device, inode, size, mtime and ctime, the very one that was
//! written, and the record is younger than the file by the file system's own clock; in any doubt the file is written
//! again. (A file changed within the clock's granularity after the record was made would keep its ctime; git calls
//! such an entry racy. A record that is strictly younger rules it out.)

use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::fsio::{self, PathError};

const RECORD_MAX: u64 = 64 << 10;
/// How often and how long to wait for the file system's clock to move on; its tick is 1 to 10 ms.
const TICKS: usize = 20;
const TICK: Duration = Duration::from_millis(2);

/// What was written, and to which file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WriteRecord {
    path: Vec<u8>,
    key: Digest,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl WriteRecord {
    fn new(path: &Path, key: Digest, metadata: &Metadata) -> Self {
        Self {
            path: path.as_os_str().as_bytes().to_vec(),
            key,
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Whether `path`, absolute and without links, still holds what `key` stands for.
pub(super) fn holds(dir: &Path, path: &Path, key: Digest) -> bool {
    let record = record_path(dir, path);
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return false;
    };
    let Ok(bytes) = fsio::read_limited(&record, RECORD_MAX) else {
        return false;
    };
    let Ok(found) = serde_json::from_slice::<WriteRecord>(&bytes) else {
        return false;
    };
    metadata.is_file() && found == WriteRecord::new(path, key, &metadata) && is_younger(&record, &metadata)
}

/// Notes that `path` holds what `key` stands for; `written` is the open file that was renamed to it.
pub(super) fn note(dir: &Path, path: &Path, key: Digest, written: &File) -> Result<(), PathError> {
    fsio::create_dir_all(dir)?;
    let record = record_path(dir, path);
    let (Ok(open), Ok(named)) = (written.metadata(), fs::symlink_metadata(path)) else {
        return Ok(());
    };
    // The open file keeps its inode from being given to another: equal numbers mean that nobody replaced it.
    if (open.dev(), open.ino()) != (named.dev(), named.ino()) {
        return Ok(());
    }
    let bytes =
        serde_json::to_vec(&WriteRecord::new(path, key, &open)).expect("a record of numbers and bytes is always JSON");
    for _ in 0..TICKS {
        let mut file = fsio::AtomicFile::create(&record)?;
        std::io::Write::write_all(&mut file, &bytes).map_err(|source| PathError {
            action: "write",
            path: record.clone(),
            source,
        })?;
        file.publish_unsynced()?;
        if is_younger(&record, &open) {
            break;
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

fn is_younger(record: &Path, than: &Metadata) -> bool {
    let changed = (than.ctime(), than.ctime_nsec());
    fs::symlink_metadata(record).is_ok_and(|metadata| (metadata.mtime(), metadata.mtime_nsec()) > changed)
}

fn record_path(dir: &Path, path: &Path) -> PathBuf {
    dir.join(format!("{}.json", Digest::of(path.as_os_str().as_bytes()).hex()))
}
