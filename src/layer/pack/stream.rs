//! A layer's *stream*: tar bytes are cut into blocks, packed by whichever thread is free, and collected in order.
//!
//! Invariant: at most a few blocks per thread are in memory, whatever the size of a file or a layer; files are
//! read straight into the block that is packed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::PackError;
use super::ahead::{self, Ahead};
use super::collect::{Collected, Collector, Output, Piece};
use super::pool::{Block, Slot, Submitted, Task, Worker};
use super::source::TarSink;
use crate::digest::Hasher;
use crate::fsio::PathError;
use crate::layer::LayerError;
use crate::layer::cache::PieceIndex;
use crate::layer::codec::{SINGLE_FINAL, SINGLE_HEADER};

pub(super) struct Stream<'w, 'p, 'c> {
    worker: &'w mut Worker<'p>,
    block: Block,
    /// Hash of the tar. Fresh bytes are taken in as they are read, together with the archive's hash; those from the
    /// cache when they are collected.
    diff: Hasher,
    /// Whether the piece begun last is from the cache.
    from_cache: bool,
    /// Tar bytes so far.
    position: u64,
    waiting: VecDeque<Waiting>,
    collector: Collector<'c>,
    ahead: &'c Ahead,
    /// Trees to be read, while they are not yet asked for.
    coming: VecDeque<PathBuf>,
}

/// What is to be collected, in order.
enum Waiting {
    Begin(Piece),
    Block(Block),
    Slot(Arc<Slot>),
    End,
}

impl<'w, 'p, 'c> Stream<'w, 'p, 'c> {
    /// Begins a layer, for which the trees `coming` will be read in this order.
    pub fn new(
        worker: &'w mut Worker<'p>,
        output: Output<'c>,
        ahead: &'c Ahead,
        coming: VecDeque<PathBuf>,
    ) -> Result<Self, PackError> {
        let engine = worker.engine();
        let mut collector = Collector::new(output, engine.is_identity());
        if engine.single_member {
            collector.begin(Piece::Inline)?;
            collector.packed(&SINGLE_HEADER)?;
            collector.end()?;
        }
        Ok(Self {
            block: worker.take_block(),
            position: 0,
            worker,
            diff: Hasher::new(),
            from_cache: false,
            waiting: VecDeque::new(),
            collector,
            ahead,
            coming,
        })
    }

    /// Begins a piece: what follows is packed by itself.
    pub fn begin(&mut self, piece: Piece) -> Result<(), PackError> {
        let from_cache = matches!(piece, Piece::Cached(..));
        // The tar's hash takes in bytes in order: what is from the cache comes before what is read now.
        if self.from_cache && !from_cache {
            self.collect_all()?;
        }
        self.from_cache = from_cache;
        self.waiting.push_back(Waiting::Begin(piece));
        Ok(())
    }

    /// Ends the piece.
    pub fn end(&mut self) -> Result<(), PackError> {
        self.flush()?;
        self.waiting.push_back(Waiting::End);
        self.collect()
    }

    /// A whole piece from the cache, the file at its beginning.
    pub fn cached(&mut self, key: crate::digest::Digest, mut file: File, index: PieceIndex) -> Result<(), PackError> {
        let mut left = index.tar_size;
        self.position += left;
        let lengths = index.blocks.clone();
        self.begin(Piece::Cached(key, index))?;
        for length in lengths {
            let mut block = self.worker.take_block();
            block.filled = usize::try_from(left).unwrap_or(usize::MAX).min(block.tar.len());
            left -= block.filled as u64;
            block.packed.resize(length as usize, 0);
            file.read_exact(&mut block.packed)
                .map_err(|_| PackError::Corrupt(key))?;
            let submitted = self
                .worker
                .submit(Task::Unpack, block)
                .map_err(|_| PackError::Corrupt(key))?;
            self.push(submitted)?;
        }
        self.waiting.push_back(Waiting::End);
        self.collect()
    }

    /// Ends the layer.
    pub fn finish(mut self) -> Result<Collected, PackError> {
        self.collect_all()?;
        if self.worker.engine().single_member {
            let (crc, size) = (self.collector.crc(), self.collector.tar_size() as u32);
            self.collector.begin(Piece::Inline)?;
            let end = [&SINGLE_FINAL[..], &crc.to_le_bytes(), &size.to_le_bytes()].concat();
            self.collector.packed(&end)?;
            self.collector.end()?;
        }
        self.worker.give_block(self.block);
        Ok(self.collector.finish(self.diff))
    }

    fn filled(&mut self, count: usize) -> Result<(), PackError> {
        self.block.filled += count;
        self.position += count as u64;
        if self.block.filled == self.block.tar.len() {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), PackError> {
        if self.block.filled == 0 {
            return Ok(());
        }
        if self.worker.is_stopped() {
            return Err(PackError::Cancelled);
        }
        let fresh = self.worker.take_block();
        let block = std::mem::replace(&mut self.block, fresh);
        let submitted = self.worker.submit(Task::Pack, block).map_err(LayerError::from)?;
        self.push(submitted)
    }

    fn push(&mut self, submitted: Submitted) -> Result<(), PackError> {
        self.waiting.push_back(match submitted {
            Submitted::Done(block) => Waiting::Block(block),
            Submitted::Waiting(slot) => Waiting::Slot(slot),
        });
        self.collect()
    }

    /// Collects what is ready, and waits where too much waits behind a block that is not.
    fn collect(&mut self) -> Result<(), PackError> {
        let most = self.worker.most_waiting();
        loop {
            match self.waiting.front() {
                None => return Ok(()),
                Some(Waiting::Slot(slot)) if !Worker::is_ready(slot) && self.waiting.len() <= most => return Ok(()),
                Some(_) => self.collect_one()?,
            }
        }
    }

    fn collect_all(&mut self) -> Result<(), PackError> {
        while !self.waiting.is_empty() {
            self.collect_one()?;
        }
        Ok(())
    }

    fn collect_one(&mut self) -> Result<(), PackError> {
        let single = self.worker.engine().single_member;
        let block = match self.waiting.pop_front() {
            None => return Ok(()),
            Some(Waiting::Begin(piece)) => return self.collector.begin(piece),
            Some(Waiting::End) => return self.collector.end(),
            Some(Waiting::Block(block)) => block,
            Some(Waiting::Slot(slot)) => self.worker.wait(&slot).map_err(|error| self.collector.blame(error))?,
        };
        if self.collector.is_cached() {
            self.diff.update(&block.tar[..block.filled]);
        }
        self.collector.block(&block, single)?;
        self.worker.give_block(block);
        Ok(())
    }
}

impl TarSink for Stream<'_, '_, '_> {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), PackError> {
        while !bytes.is_empty() {
            let free = &mut self.block.tar[self.block.filled..];
            let count = free.len().min(bytes.len());
            free[..count].copy_from_slice(&bytes[..count]);
            self.diff.update(&bytes[..count]);
            bytes = &bytes[count..];
            self.filled(count)?;
        }
        Ok(())
    }

    fn copy(&mut self, file: &File, path: &Path, size: u64, mut archive: Option<&mut Hasher>) -> Result<(), PackError> {
        let mut at = 0;
        while at < size {
            let free = &mut self.block.tar[self.block.filled..];
            let want = free.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
            let read = match at {
                0 => ahead::read_first(file, &mut free[..want]),
                _ => file.read_at(&mut free[..want], at).map(|count| (count, false)),
            };
            let (count, waited) = match read {
                Ok((0, _)) => return Err(LayerError::Shrunk { path: path.to_owned() }.into()),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(cannot_read(path, source)),
            };
            match &mut archive {
                Some(archive) => self.diff.update_with(archive, &free[..count]),
                None => self.diff.update(&free[..count]),
            }
            at += count as u64;
            if waited && !self.coming.is_empty() {
                self.ahead.add(std::mem::take(&mut self.coming).into_iter());
            }
            self.filled(count)?;
        }
        self.ahead.was_read(size);
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }

    /// It still counts as to come: much of it may be.
    fn reached(&mut self, tree: &Path) {
        while self.coming.front().is_some_and(|passed| passed != tree) {
            self.coming.pop_front();
        }
    }
}

pub(super) fn cannot_read(path: &Path, source: std::io::Error) -> PackError {
    let error = PathError {
        action: "read",
        path: path.to_owned(),
        source,
    };
    LayerError::from(error).into()
}
