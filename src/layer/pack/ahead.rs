//! *Reading ahead*: where files are not in the page cache, threads ask the kernel for those that come next.
//!
//! Invariant: it changes nothing but the time; what cannot be opened here is left to the reader, who will say so.
//!
//! Many small files that are read one after the other from a cold disk wait for it once or twice each; with eight
//! requests under way that is five times as fast. In a warm cache it would only cost time, so that it
//! begins when a first read finds nothing there ([`read_first`] asks without waiting).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::Advice;
use rustix::io::ReadWriteFlags;

use crate::fsio;

/// Requests under way.
const THREADS: usize = 8;
/// Most bytes that are asked for and not yet read: what a small machine's page cache holds easily.
const MOST_AHEAD: u64 = 128 << 20;

/// Most bytes that are asked for of one file: what follows the kernel reads ahead by itself.
const MOST_OF_FILE: u64 = 8 << 20;

/// Reads from the beginning of a file; tells whether it had to wait for the disk.
pub(super) fn read_first(file: &File, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
    match rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], 0, ReadWriteFlags::NOWAIT) {
        Ok(count) => Ok((count, false)),
        Err(rustix::io::Errno::AGAIN) => Ok((file.read_at(buffer, 0)?, true)),
        // A kernel or file system that cannot say.
        Err(_) => Ok((file.read_at(buffer, 0)?, false)),
    }
}

/// The threads, begun when first needed, and ended with this.
#[derive(Default)]
pub(super) struct Ahead {
    shared: Arc<SharedAhead>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct SharedAhead {
    state: Mutex<AheadState>,
    changed: Condvar,
}

#[derive(Default)]
struct AheadState {
    /// Trees that wait to be walked.
    trees: VecDeque<PathBuf>,
    /// Files and directories of the trees being walked, the next one last.
    next: Vec<PathBuf>,
    asked: u64,
    read: u64,
    stopped: bool,
}

impl Ahead {
    /// Asks for trees, in the order in which they will be read.
    pub fn add(&self, trees: impl Iterator<Item = PathBuf>) {
        let mut state = lock(&self.shared.state);
        state.trees.extend(trees);
        drop(state);
        self.shared.changed.notify_all();
        let mut threads = lock(&self.threads);
        while threads.len() < THREADS {
            let shared = self.shared.clone();
            threads.push(std::thread::spawn(move || shared.work()));
        }
    }

    /// Tells that a file of this size was read, so that more are asked for.
    pub fn was_read(&self, size: u64) {
        let mut state = lock(&self.shared.state);
        state.read += size.min(MOST_OF_FILE);
        let waiting = !state.next.is_empty() || !state.trees.is_empty();
        drop(state);
        if waiting {
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        lock(&self.shared.state).stopped = true;
        self.shared.changed.notify_all();
        for thread in lock(&self.threads).drain(..) {
            // A thread that panicked has done no harm.
            let _ = thread.join();
        }
    }
}

impl SharedAhead {
    fn work(&self) {
        while let Some(path) = self.take() {
            let Ok(metadata) = std::fs::symlink_metadata(&path) else {
                continue;
            };
            if metadata.is_dir() {
                let Ok(names) = fsio::sorted_names(&path) else { continue };
                let below = names.into_iter().rev().map(|name| path.join(name));
                lock(&self.state).next.extend(below);
                self.changed.notify_all();
            } else if metadata.is_file() {
                let asked = metadata.len().min(MOST_OF_FILE);
                lock(&self.state).asked += asked;
                // Both are hints; the reader meets the file itself.
                if let Ok(file) = File::open(&path) {
                    let _ = rustix::fs::fadvise(&file, 0, NonZeroU64::new(asked), Advice::WillNeed);
                }
            }
        }
    }

    /// The next path to ask for, once there is one and not too much is asked for.
    fn take(&self) -> Option<PathBuf> {
        let mut state = lock(&self.state);
        loop {
            if state.stopped {
                return None;
            }
            if state.asked < state.read + MOST_AHEAD {
                let path = state.next.pop().or_else(|| state.trees.pop_front());
                if path.is_some() {
                    return path;
                }
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_walks_everything_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        for at in 0..50 {
            let sub = dir.path().join(format!("d{}/e", at % 7));
            std::fs::create_dir_all(&sub).unwrap();
            std::fs::write(sub.join(format!("f{at}")), [0; 100]).unwrap();
        }
        let ahead = Ahead::default();
        ahead.add([dir.path().to_owned(), dir.path().join("missing")].into_iter());
        while lock(&ahead.shared.state).asked < 5000 {
            std::thread::yield_now();
        }
        let threads = Arc::downgrade(&ahead.shared);
        drop(ahead);
        assert!(threads.upgrade().is_none(), "all threads have ended");
    }

    #[test]
    fn the_first_read_is_a_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "content").unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        for _ in 0..2 {
            let mut buffer = [0; 20];
            let (count, _) = read_first(&file, &mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"content");
        }
    }
}
