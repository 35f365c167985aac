//! *Work shared among threads*: the same for every item, in whatever order the threads come to it.
//!
//! Invariant: threads change how long it takes and nothing else: results come in the items' order. After an error no
//! further item is begun.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// The number of threads that was asked for; 0 stands for as many as the machine runs at once.
pub fn threads(wanted: usize) -> usize {
    match wanted {
        0 => thread::available_parallelism().map_or(1, usize::from),
        wanted => wanted,
    }
}

/// Does `work` for every item, on at most `threads` threads of which the caller's is one; items are begun in their order.
/// The results in the items' order, or the error of the earliest item that has one.
pub fn map<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results = Mutex::new(BTreeMap::new());
    let run = || {
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            let result = work(item);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            results
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(index, result);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_values().collect()
}

/// Does `prepare` for each item in parallel, and then `commit`, which waits for those that the item needs: item `i`
/// needs the items `needs[i]`, all of them before it. At most `threads` items are between the two.
pub fn in_order<T: Sync, P, E: Send>(
    items: &[T],
    needs: &[Vec<usize>],
    threads: usize,
    prepare: impl Fn(&T) -> Result<P, E> + Sync,
    commit: impl Fn(&T, P) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let state = WorkState {
        items: Mutex::new((vec![false; items.len()], false)),
        changed: Condvar::new(),
    };
    let indices: Vec<usize> = (0..items.len()).collect();
    let work = |&index: &usize| {
        let mut end = End {
            state: &state,
            index,
            succeeded: false,
        };
        let prepared = prepare(&items[index])?;
        // Items are begun in order, so whoever waits waits for an item that somebody else has.
        if state.wait_for(&needs[index]) {
            commit(&items[index], prepared)?;
        }
        end.succeeded = true;
        Ok(())
    };
    map(&indices, threads, work).map(drop)
}

/// *Seats* for what not all threads may do at once.
pub struct Seats {
    free: Mutex<usize>,
    left: Condvar,
}

/// A seat that is taken; whoever drops it leaves it to the next.
pub struct Seat<'a>(&'a Seats);

impl Seats {
    /// So many seats, at least one.
    pub fn new(count: usize) -> Self {
        Self {
            free: Mutex::new(count.max(1)),
            left: Condvar::new(),
        }
    }

    /// Takes a seat; waits until one is free.
    pub fn sit(&self) -> Seat<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.left.wait_while(free, |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Seat(self)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.left.notify_one();
    }
}

/// Which items are done, and whether one has failed.
struct WorkState {
    items: Mutex<(Vec<bool>, bool)>,
    changed: Condvar,
}

impl WorkState {
    /// Waits until these items are done; false where one of all failed.
    fn wait_for(&self, needed: &[usize]) -> bool {
        let items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(items, |(done, failed)| {
            !*failed && !needed.iter().all(|&need| done[need])
        });
        !waited.unwrap_or_else(PoisonError::into_inner).1
    }
}

/// Notes how an item ended, also where its work panics: nobody may wait for it then.
struct End<'a> {
    state: &'a WorkState,
    index: usize,
    succeeded: bool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut items = self.state.items.lock().unwrap_or_else(PoisonError::into_inner);
        items.0[self.index] = self.succeeded;
        items.1 |= !self.succeeded;
        self.state.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..100).collect();
        let slow_first = |&n: &u64| {
            thread::sleep(Duration::from_micros(200 - n));
            Ok::<_, ()>(n * 2)
        };
        for threads in [0, 1, 8, 1000] {
            let doubled = map(&items, threads, slow_first).unwrap();
            assert_eq!(doubled, items.iter().map(|n| n * 2).collect::<Vec<_>>());
        }
        assert_eq!(map(&[], 4, |_: &u64| Err::<(), _>("never called")), Ok(vec![]));
    }

    #[test]
    fn an_error_ends_it() {
        let begun = AtomicUsize::new(0);
        let items: Vec<usize> = (0..10_000).collect();
        let fails = |&n: &usize| {
            begun.fetch_add(1, Ordering::Relaxed);
            if n == 7 || n == 9 { Err(n) } else { Ok(()) }
        };
        let error = map(&items, 4, fails).unwrap_err();
        assert!([7, 9].contains(&error));
        assert!(begun.into_inner() < 10_000, "no item is begun after an error");
    }

    #[test]
    fn what_is_needed_is_done_before() {
        let items: Vec<usize> = (0..200).collect();
        let needs: Vec<Vec<usize>> = items
            .iter()
            .map(|&n| (n / 2..n).filter(|m| (n + m) % 3 == 0).collect())
            .collect();
        let order = Mutex::new(Vec::new());
        let slow_first = |&n: &usize| {
            thread::sleep(Duration::from_micros(200 - n as u64));
            Ok::<_, ()>(n)
        };
        in_order(&items, &needs, 8, slow_first, |_, n| {
            let mut order = order.lock().unwrap();
            assert!(needs[n].iter().all(|need| order.contains(need)), "{n}");
            order.push(n);
            Ok(())
        })
        .unwrap();
        assert_eq!(order.into_inner().unwrap().len(), 200);
    }

    #[test]
    fn after_a_failure_nothing_that_needs_it_is_done() {
        let items: Vec<usize> = (0..50).collect();
        let needs: Vec<Vec<usize>> = items.iter().map(|&n| (0..n).collect()).collect();
        let done = Mutex::new(Vec::new());
        let result = in_order(
            &items,
            &needs,
            4,
            |&n| if n == 20 { Err(n) } else { Ok(()) },
            |&n, ()| {
                done.lock().unwrap().push(n);
                Ok(())
            },
        );
        assert_eq!(result, Err(20));
        assert!(done.into_inner().unwrap().iter().all(|&n| n < 20));
    }

    #[test]
    fn no_more_sit_than_there_are_seats() {
        let seats = Seats::new(3);
        let (sitting, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let items: Vec<usize> = (0..50).collect();
        map(&items, 20, |_| {
            let _seat = seats.sit();
            most.fetch_max(sitting.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(Duration::from_micros(200));
            sitting.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, ()>(())
        })
        .unwrap();
        assert!((1..=3).contains(&most.into_inner()));
        drop(Seats::new(0).sit());
    }

    #[test]
    fn a_panic_lets_nobody_wait() {
        let panicking = std::panic::catch_unwind(|| {
            let (needs, commit) = ([vec![], vec![0], vec![1]], |_: &usize, ()| Ok(()));
            let prepare = |&n: &usize| if n == 0 { panic!("a bug") } else { Ok::<_, ()>(()) };
            in_order(&[0, 1, 2], &needs, 3, prepare, commit)
        });
        assert!(panicking.is_err());
    }
}
