//! *Each layer* of an image is written by itself, on whichever thread is free.
//!
//! Invariant: what is written where is settled before; threads change how long it takes and nothing else.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Most threads at work: hashing one blob and writing another overlap, more only seek.
const THREADS: usize = 4;

/// Calls `write` for every one of `items`, the largest by `size` (bytes) first, several at a time. After an error no
/// further one is begun; of several errors the one of the earliest item is given.
pub fn for_each_layer<T: Sync, E: Send>(
    items: &[T],
    size: impl Fn(&T) -> u64,
    write: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(size(&items[index])), index));
    let (next, failed, errors) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(Vec::new()));
    let work = || {
        while !failed.load(Relaxed) {
            let Some(&index) = order.get(next.fetch_add(1, Relaxed)) else {
                return;
            };
            if let Err(error) = write(&items[index]) {
                failed.store(true, Relaxed);
                errors
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((index, error));
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..cores.min(THREADS).min(items.len()) {
            scope.spawn(work);
        }
        work();
    });
    let errors = errors.into_inner().unwrap_or_else(PoisonError::into_inner);
    match errors.into_iter().min_by_key(|(index, _)| *index) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_is_written_once() {
        let seen = Mutex::new(Vec::new());
        let sizes: Vec<u64> = (0..50).map(|at| at * 7 % 50).collect();
        let write = |&size: &u64| {
            seen.lock().unwrap().push(size);
            Ok::<(), ()>(())
        };
        for_each_layer(&sizes, |&size| size, write).unwrap();
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        for_each_layer(&[], |&size: &u64| size, |_| Err("never called")).unwrap();
    }

    #[test]
    fn an_error_ends_it() {
        let written = AtomicUsize::new(0);
        let write = |&size: &u64| {
            written.fetch_add(1, Relaxed);
            if size > 1 { Err(size) } else { Ok(()) }
        };
        let sizes: Vec<u64> = [7, 9].into_iter().chain([1; 1000]).collect();
        let error = for_each_layer(&sizes, |&size| size, write).unwrap_err();
        assert!([7, 9].contains(&error));
        assert!(written.load(Relaxed) < 1000, "no layer is begun after an error");
    }
}
