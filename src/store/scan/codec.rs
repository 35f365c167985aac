//! A *codec* unpacks a compressed stream that is pushed into it piece by piece.
//!
//! Invariant: its memory is bounded (xz: [`XZ_MEMORY`]; zstd: the library's own window limit of 128 MiB), and it
//! stops as soon as the file's budget is spent.

use flate2::{Decompress, FlushDecompress};
use liblzma::stream::{Action, CONCATENATED};
use zstd::stream::raw::{Decoder as ZstdDecoder, Operation};

use super::{ReferenceSearch, ScanStream};

/// Most memory for one xz stream, in bytes; `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;

/// Bytes unpacked at once.
const BLOCK: usize = 64 * 1024;

/// A decoder and its output buffer.
pub(super) struct PackingCodec {
    decoder: StreamDecoder,
    block: Vec<u8>,
}

enum StreamDecoder {
    Gzip(Decompress),
    Deflate(Decompress),
    Xz(liblzma::stream::Stream),
    Zstd(ZstdDecoder<'static>),
    Bzip2(bzip2::Decompress),
}

/// What became of a piece.
pub(super) enum Pumped {
    /// All of it was read.
    NeedsMore,
    /// The stream ended after so many bytes of it.
    Ended { consumed: usize },
    /// The stream is corrupt, or too much for the budget.
    Failed,
}

/// What one call of a decoder did.
struct DecodeStep {
    consumed: usize,
    produced: usize,
    ended: bool,
}

impl PackingCodec {
    fn new(decoder: StreamDecoder) -> Self {
        Self {
            decoder,
            block: vec![0; BLOCK],
        }
    }

    /// Of gzip members.
    pub(super) fn gzip() -> Option<Self> {
        Some(Self::new(StreamDecoder::Gzip(Decompress::new_gzip(15))))
    }

    /// Of bare deflate data, as in zip archives.
    pub(super) fn deflate() -> Option<Self> {
        Some(Self::new(StreamDecoder::Deflate(Decompress::new(false))))
    }

    /// Of xz streams.
    pub(super) fn xz() -> Option<Self> {
        let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED).ok()?;
        Some(Self::new(StreamDecoder::Xz(stream)))
    }

    /// Of zstd frames.
    pub(super) fn zstd() -> Option<Self> {
        Some(Self::new(StreamDecoder::Zstd(ZstdDecoder::new().ok()?)))
    }

    /// Of bzip2 streams.
    pub(super) fn bzip2() -> Option<Self> {
        Some(Self::new(StreamDecoder::Bzip2(bzip2::Decompress::new(false))))
    }

    /// Prepares for another stream after one that ended; false where none can follow.
    pub(super) fn restart(&mut self) -> bool {
        match &mut self.decoder {
            StreamDecoder::Gzip(decoder) => *decoder = Decompress::new_gzip(15),
            StreamDecoder::Bzip2(decoder) => *decoder = bzip2::Decompress::new(false),
            // zstd goes on to the next frame by itself, and so does xz when told that streams are concatenated.
            StreamDecoder::Zstd(_) => {}
            StreamDecoder::Deflate(_) | StreamDecoder::Xz(_) => return false,
        }
        true
    }

    /// Unpacks a piece into `stream`.
    pub(super) fn pump(
        &mut self,
        piece: &[u8],
        stream: &mut ScanStream,
        search: &mut ReferenceSearch<'_, '_>,
    ) -> Pumped {
        let mut consumed = 0;
        loop {
            let Some(step) = self.decoder.step(&piece[consumed..], &mut self.block, search) else {
                return Pumped::Failed;
            };
            consumed += step.consumed;
            if !search.budget.spend(step.produced as u64) {
                return Pumped::Failed;
            }
            if step.produced > 0 {
                stream.feed(&self.block[..step.produced], search);
            }
            if step.ended {
                return Pumped::Ended { consumed };
            }
            // A full block may leave more inside the decoder; so may a step that read nothing but wrote.
            let stuck = step.consumed == 0 && step.produced == 0;
            if stuck || (consumed == piece.len() && step.produced < self.block.len()) {
                return if consumed == piece.len() {
                    Pumped::NeedsMore
                } else {
                    Pumped::Failed
                };
            }
        }
    }
}

impl StreamDecoder {
    /// One call of the decoder; `None` where the data is corrupt or would take too much memory.
    fn step(&mut self, input: &[u8], output: &mut [u8], search: &mut ReferenceSearch<'_, '_>) -> Option<DecodeStep> {
        match self {
            Self::Gzip(decoder) | Self::Deflate(decoder) => {
                let before = (decoder.total_in(), decoder.total_out());
                let status = match decoder.decompress(input, output, FlushDecompress::None) {
                    Ok(status) => status,
                    // With nothing to read and nothing to write this is no corruption.
                    Err(_) if input.is_empty() => flate2::Status::BufError,
                    Err(_) => return None,
                };
                let ended = status == flate2::Status::StreamEnd;
                step(before, (decoder.total_in(), decoder.total_out()), ended)
            }
            Self::Xz(decoder) => {
                let before = (decoder.total_in(), decoder.total_out());
                match decoder.process(input, output, Action::Run) {
                    Ok(status) => {
                        let ended = status == liblzma::stream::Status::StreamEnd;
                        step(before, (decoder.total_in(), decoder.total_out()), ended)
                    }
                    Err(error) => {
                        search.budget.exceeded |= error == liblzma::stream::Error::MemLimit;
                        None
                    }
                }
            }
            Self::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, output).ok()?;
                Some(DecodeStep {
                    consumed: status.bytes_read,
                    produced: status.bytes_written,
                    ended: false,
                })
            }
            Self::Bzip2(decoder) => {
                let before = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(input, output).ok()?;
                let ended = status == bzip2::Status::StreamEnd;
                step(before, (decoder.total_in(), decoder.total_out()), ended)
            }
        }
    }
}

fn step(before: (u64, u64), after: (u64, u64), ended: bool) -> Option<DecodeStep> {
    Some(DecodeStep {
        consumed: usize::try_from(after.0 - before.0).ok()?,
        produced: usize::try_from(after.1 - before.1).ok()?,
        ended,
    })
}
