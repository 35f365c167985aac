//! *Each layer* of an image is written by itself, on whichever thread is free.
//!
//! Invariant: what is written where is settled before; threads change how long it takes and nothing else.

use std::cmp::Reverse;

use crate::parallel;

/// Most threads at work: hashing one blob and writing another overlap, more only seek.
const THREADS: usize = 4;

/// Calls `write` for every one of `items`, the largest by `size` (bytes) first, several at a time. After an error no
/// further one is begun.
pub fn for_each_layer<T: Sync, E: Send>(
    items: &[T],
    size: impl Fn(&T) -> u64,
    write: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let mut largest_first: Vec<&T> = items.iter().collect();
    largest_first.sort_by_key(|item| Reverse(size(item)));
    let threads = parallel::threads(0).min(THREADS);
    parallel::map(&largest_first, threads, |item| write(item)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn every_layer_is_written_once_and_the_largest_first() {
        let seen = Mutex::new(Vec::new());
        let sizes: Vec<u64> = (0..50).map(|at| at * 7 % 50).collect();
        let write = |&size: &u64| {
            seen.lock().unwrap().push(size);
            Ok::<(), ()>(())
        };
        for_each_layer(&sizes, |&size| size, write).unwrap();
        let mut seen = seen.into_inner().unwrap();
        assert!(seen[0] > 40);
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        let failing = for_each_layer(&sizes, |&size| size, |&size| if size == 3 { Err(size) } else { Ok(()) });
        assert_eq!(failing, Err(3));
    }
}
