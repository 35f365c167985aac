//! The *pool* runs layers and blocks on a fixed number of threads.
//!
//! Invariant: which thread does what never shows in a result. A thread first takes a waiting block, else the
//! next layer; a layer hands blocks to others only while threads are free for them, so that many layers run
//! side by side without any exchange and few layers are compressed by all threads. Blocks in memory are bounded by
//! the number of threads.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::layer::codec::{Codec, CodecError, Engine};

/// Tar bytes and their packed form, in buffers that are used again.
pub(super) struct Block {
    /// As long as a block may be; the first `filled` bytes count.
    pub tar: Vec<u8>,
    /// Number of tar bytes.
    pub filled: usize,
    /// Packed bytes; unused where the engine is the identity.
    pub packed: Vec<u8>,
}

/// What is to be done with a block.
#[derive(Clone, Copy)]
pub(super) enum Task {
    Pack,
    Unpack,
}

struct PackJob {
    task: Task,
    block: Option<Block>,
    slot: Arc<Slot>,
}

impl Drop for PackJob {
    /// A job that its thread did not finish (it panicked) must not leave its layer waiting.
    fn drop(&mut self) {
        self.slot.fill(None);
    }
}

/// Where a job's result is waited for.
#[derive(Default)]
pub(super) struct Slot {
    state: Mutex<SlotState>,
    ready: Condvar,
}

#[derive(Default)]
enum SlotState {
    #[default]
    Waiting,
    Done(Result<Block, CodecError>),
    Lost,
}

impl Slot {
    fn fill(&self, result: Option<Result<Block, CodecError>>) {
        let mut state = lock(&self.state);
        if matches!(*state, SlotState::Waiting) {
            *state = result.map_or(SlotState::Lost, SlotState::Done);
        }
        self.ready.notify_all();
    }

    fn is_ready(&self) -> bool {
        !matches!(*lock(&self.state), SlotState::Waiting)
    }

    /// Waits without doing anything else: the job runs on another thread.
    fn take(&self) -> Result<Block, CodecError> {
        let waiting = |state: &mut SlotState| matches!(state, SlotState::Waiting);
        let mut state = self
            .ready
            .wait_while(lock(&self.state), waiting)
            .unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, SlotState::Lost) {
            SlotState::Done(result) => result,
            SlotState::Waiting | SlotState::Lost => Err(CodecError {
                engine: "the thread pool",
                message: "a thread stopped in the middle of a block".to_owned(),
            }),
        }
    }
}

struct PoolState {
    /// Layers that nobody has begun.
    layers: VecDeque<usize>,
    jobs: VecDeque<PackJob>,
    /// Threads that run a layer.
    drivers: usize,
    stopped: bool,
}

/// Shared by all threads of one packing.
pub(super) struct Pool {
    pub engine: Engine,
    threads: usize,
    state: Mutex<PoolState>,
    wake: Condvar,
    free: Mutex<Vec<Block>>,
}

impl Pool {
    /// Runs `drive` for every layer of `order`, begun in this order, on `threads` threads.
    pub fn run(engine: Engine, threads: usize, order: Vec<usize>, drive: &(dyn Fn(usize, &mut Worker<'_>) + Sync)) {
        let threads = threads.max(1);
        let pool = Self {
            engine,
            threads,
            state: Mutex::new(PoolState {
                layers: order.into(),
                jobs: VecDeque::new(),
                drivers: 0,
                stopped: false,
            }),
            wake: Condvar::new(),
            free: Mutex::new(Vec::new()),
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| pool.work(drive));
            }
        });
    }

    fn work(&self, drive: &(dyn Fn(usize, &mut Worker<'_>) + Sync)) {
        let mut worker = Worker {
            pool: self,
            codec: Codec::default(),
        };
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                worker.run(job);
            } else if let Some(layer) = state.layers.pop_front() {
                state.drivers += 1;
                drop(state);
                let _driving = Driving(self);
                drive(layer, &mut worker);
            } else if state.drivers == 0 {
                return;
            } else {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state = lock(&self.state);
        }
    }

    fn next_job(&self) -> Option<PackJob> {
        lock(&self.state).jobs.pop_front()
    }
}

/// Ends a layer's run, also when it panics.
struct Driving<'p>(&'p Pool);

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).drivers -= 1;
        self.0.wake.notify_all();
    }
}

/// One thread of the pool.
pub(super) struct Worker<'p> {
    pool: &'p Pool,
    codec: Codec,
}

impl Worker<'_> {
    /// How tars are compressed.
    pub fn engine(&self) -> Engine {
        self.pool.engine
    }

    /// Most blocks (and ends of pieces) that a layer may have waiting: enough to keep all threads busy.
    pub fn most_waiting(&self) -> usize {
        2 * self.pool.threads + 2
    }

    /// Begins no further layer; running ones see [`is_stopped`](Self::is_stopped).
    pub fn stop(&self) {
        let mut state = lock(&self.pool.state);
        state.stopped = true;
        state.layers.clear();
    }

    /// Whether some layer failed.
    pub fn is_stopped(&self) -> bool {
        lock(&self.pool.state).stopped
    }

    /// An empty block.
    pub fn take_block(&self) -> Block {
        let used = lock(&self.pool.free).pop();
        used.unwrap_or_else(|| Block {
            tar: vec![0; self.pool.engine.block_size()],
            filled: 0,
            packed: Vec::new(),
        })
    }

    /// Gives a block back to be used again.
    pub fn give_block(&self, mut block: Block) {
        block.filled = 0;
        block.packed.clear();
        lock(&self.pool.free).push(block);
    }

    /// Does the task here, or leaves it to a free thread: then the slot tells when it is done.
    pub fn submit(&mut self, task: Task, mut block: Block) -> Result<Submitted, CodecError> {
        if self.pool.engine.is_identity() {
            if let Task::Unpack = task {
                self.codec
                    .unpack(self.pool.engine, &block.packed, &mut block.tar[..block.filled])?;
            }
            return Ok(Submitted::Done(block));
        }
        let mut state = lock(&self.pool.state);
        let helpers = self.pool.threads - state.drivers;
        if state.jobs.len() >= helpers {
            drop(state);
            do_task(&mut self.codec, self.pool.engine, task, &mut block)?;
            return Ok(Submitted::Done(block));
        }
        let slot = Arc::new(Slot::default());
        state.jobs.push_back(PackJob {
            task,
            block: Some(block),
            slot: slot.clone(),
        });
        drop(state);
        self.pool.wake.notify_one();
        Ok(Submitted::Waiting(slot))
    }

    /// The block of a slot; while it is not done, this thread does other waiting blocks.
    pub fn wait(&mut self, slot: &Slot) -> Result<Block, CodecError> {
        while !slot.is_ready() {
            match self.pool.next_job() {
                Some(job) => self.run(job),
                None => break,
            }
        }
        slot.take()
    }

    /// Whether [`wait`](Self::wait) would return at once.
    pub fn is_ready(slot: &Slot) -> bool {
        slot.is_ready()
    }

    fn run(&mut self, mut job: PackJob) {
        if let Some(mut block) = job.block.take() {
            let result = do_task(&mut self.codec, self.pool.engine, job.task, &mut block);
            job.slot.fill(Some(result.map(|()| block)));
        }
    }
}

/// A block that is done or being done.
pub(super) enum Submitted {
    Done(Block),
    Waiting(Arc<Slot>),
}

fn do_task(codec: &mut Codec, engine: Engine, task: Task, block: &mut Block) -> Result<(), CodecError> {
    let tar = &mut block.tar[..block.filled];
    match task {
        Task::Pack => codec.pack(engine, tar, &mut block.packed),
        Task::Unpack => codec.unpack(engine, &block.packed, tar),
    }
}

/// A poisoned lock only says that another thread panicked; that panic ends the packing by itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
