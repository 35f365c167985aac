//! Work in two steps: the first *in parallel*, the second *in order*.
//!
//! Invariant: the second step of an item runs after those of all items that it needs, and not at all once anything
//! failed; at most as many items as there are threads are between the two.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

struct State<E> {
    /// The next item that nobody has taken.
    next: usize,
    done: Vec<bool>,
    failure: Option<E>,
}

/// Does `prepare` and then `commit` for each item; item `i` needs the items `needs[i]`, all of them before it.
pub(super) fn in_order<T: Sync, P, E: Send>(
    items: &[T],
    needs: &[Vec<usize>],
    threads: usize,
    prepare: impl Fn(&T) -> Result<P, E> + Sync,
    commit: impl Fn(&T, P) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let state = Mutex::new(State {
        next: 0,
        done: vec![false; items.len()],
        failure: None,
    });
    let changed = Condvar::new();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    // Items are taken in order, so whoever waits waits for an item that somebody else has.
    let take = || {
        let mut state = lock();
        let index = state.next;
        state.next += 1;
        (state.failure.is_none() && index < items.len()).then_some(index)
    };
    let wait = |index: usize| -> bool {
        let waits =
            |state: &mut State<E>| state.failure.is_none() && !needs[index].iter().all(|&need| state.done[need]);
        let state: MutexGuard<'_, State<E>> = changed
            .wait_while(lock(), waits)
            .unwrap_or_else(PoisonError::into_inner);
        state.failure.is_none()
    };
    let work = |index: usize| -> Result<(), E> {
        let prepared = prepare(&items[index])?;
        if wait(index) {
            commit(&items[index], prepared)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                while let Some(index) = take() {
                    let result = work(index);
                    let mut state = lock();
                    match result {
                        Ok(()) => state.done[index] = true,
                        Err(error) => drop(state.failure.get_or_insert(error)),
                    }
                    changed.notify_all();
                }
            });
        }
    });
    match state.into_inner().unwrap_or_else(PoisonError::into_inner).failure {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_done_before() {
        let items: Vec<usize> = (0..200).collect();
        let needs: Vec<Vec<usize>> = items
            .iter()
            .map(|&n| (n / 2..n).filter(|m| (n + m) % 3 == 0).collect())
            .collect();
        let order = Mutex::new(Vec::new());
        let slow_first = |&n: &usize| {
            thread::sleep(std::time::Duration::from_micros(200 - n as u64));
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
}
