//! A *body* is the bytes of an answer: a few in memory, or those of a layer while they are read.
//!
//! Invariant: of a layer no more than two pieces are in memory, and no thread waits for a client that does not read. The last
//! piece of a whole layer is given only when the layer's digest is right: a damaged one ends before its length.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use super::shelf::{Shelf, Version};

/// Bytes that are read at once.
const PIECE: u64 = 64 << 10;

/// The bytes of an answer.
pub(super) enum AnswerBody {
    /// All of them; `None` when they were given.
    Whole(Option<Bytes>),
    /// Those of a layer.
    Streamed(Streamed),
}

impl AnswerBody {
    pub(super) fn empty() -> Self {
        Self::Whole(None)
    }
}

impl From<Bytes> for AnswerBody {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

/// Reads a layer, or a part of one, piece by piece.
pub(super) struct Pieces {
    reader: Box<dyn Read + Send>,
    /// Bytes that are to come.
    left: u64,
    /// Whether `reader` ends with them, and says there whether they were right.
    verifies: bool,
}

impl Pieces {
    /// The next `len` bytes of `reader`; with `verifies` they are all that it has, and it fails at its end where they are not
    /// what they should be.
    pub(super) fn new(reader: Box<dyn Read + Send>, len: u64, verifies: bool) -> Self {
        Self {
            reader,
            left: len,
            verifies,
        }
    }

    /// The next piece. Waits for a disk, or for another host.
    pub(super) fn next(&mut self) -> io::Result<Bytes> {
        let wanted = self.left.min(PIECE);
        let mut piece = Vec::with_capacity(wanted as usize);
        self.reader.by_ref().take(wanted).read_to_end(&mut piece)?;
        if piece.len() as u64 != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= wanted;
        if self.left == 0 && self.verifies {
            io::copy(&mut self.reader, &mut io::sink())?;
        }
        Ok(piece.into())
    }
}

/// A layer on its way to a client.
pub(super) struct Streamed {
    /// The piece that is given next.
    ready: Option<Bytes>,
    rest: Rest,
    /// Bytes that are to be given.
    left: u64,
    /// What the layer is of, which is forgotten where the layer is damaged: who asks again gets it made anew.
    source: (Arc<Shelf>, Arc<Version>, usize),
}

enum Rest {
    /// Waits for the client.
    Idle(Pieces),
    /// A piece is read.
    Reading(JoinHandle<(Pieces, io::Result<Bytes>)>),
    /// Nothing is to come.
    Ended,
}

impl Streamed {
    /// `first` is the piece that was read already, to see whether there is anything to be read.
    pub(super) fn new(first: Bytes, pieces: Pieces, source: (Arc<Shelf>, Arc<Version>, usize)) -> Self {
        Self {
            left: first.len() as u64 + pieces.left,
            ready: Some(first),
            rest: Rest::Idle(pieces),
            source,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(piece) = self.ready.take() {
            self.left -= piece.len() as u64;
            return Poll::Ready(Some(Ok(piece)));
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        loop {
            match std::mem::replace(&mut self.rest, Rest::Ended) {
                Rest::Ended => return Poll::Ready(None),
                Rest::Idle(mut pieces) => {
                    self.rest = Rest::Reading(spawn_blocking(move || {
                        let piece = pieces.next();
                        (pieces, piece)
                    }));
                }
                Rest::Reading(mut reading) => match Pin::new(&mut reading).poll(context) {
                    Poll::Pending => {
                        self.rest = Rest::Reading(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready(read) => {
                        let (pieces, piece) = read.map_err(io::Error::other)?;
                        let piece = piece.map_err(|error| self.damaged(error))?;
                        self.rest = Rest::Idle(pieces);
                        self.left -= piece.len() as u64;
                        return Poll::Ready(Some(Ok(piece)));
                    }
                },
            }
        }
    }

    fn damaged(&self, error: io::Error) -> io::Error {
        let (shelf, version, layer) = &self.source;
        shelf.forget(version);
        io::Error::other(version.layer(*layer).read_error(error))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match self.get_mut() {
            Self::Whole(bytes) => bytes.take().map(Ok),
            Self::Streamed(streamed) => ready!(streamed.poll(context)),
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed(streamed) => streamed.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Streamed(streamed) => streamed.left,
        })
    }
}
