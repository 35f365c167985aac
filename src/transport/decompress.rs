//! A *packing* is how a layer or a whole archive is compressed, told by its first bytes and never by its name.
//!
//! Invariant: any number of gzip members or zstd frames are read as one stream; memory is bounded (zstd windows over
//! 128 MiB and xz dictionaries over 256 MiB are errors).

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;

const HEAD: usize = 6;
const BUFFER: usize = 128 << 10;
const XZ_MEMORY: u64 = 256 << 20;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packing {
    /// Not compressed.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The .xz format.
    Xz,
    /// bzip2.
    Bzip2,
}

impl Packing {
    /// Tells the format by the first six bytes, or as many as there are.
    pub fn sniff(head: &[u8]) -> Self {
        // A zstd stream may begin with a skippable frame, whose magic's first byte has 16 values.
        let skippable = matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ if skippable => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }

    /// The word for it in media types and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }
}

type Sniffed<R> = BufReader<Counting<Chain<Cursor<Vec<u8>>, R>>>;

/// Counts what is read through it.
struct Counting<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

/// Reads the unpacked bytes of whatever packing the input turns out to have.
pub struct Unpacker<R: Read> {
    packing: Packing,
    begins_with_skippable_frame: bool,
    decoder: Decoder<R>,
}

enum Decoder<R: Read> {
    Plain(Sniffed<R>),
    Gzip(Box<MultiGzDecoder<Sniffed<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Sniffed<R>>),
    Xz(XzDecoder<Sniffed<R>>),
    Bzip2(bzip2::bufread::MultiBzDecoder<Sniffed<R>>),
}

impl<R: Read> Unpacker<R> {
    /// Looks at the first bytes of `input` and picks the decoder.
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut head = Vec::with_capacity(HEAD);
        (&mut input).take(HEAD as u64).read_to_end(&mut head)?;
        let packing = Packing::sniff(&head);
        let begins_with_skippable_frame = packing == Packing::Zstd && head[0] != 0x28;
        let input = Counting {
            inner: Cursor::new(head).chain(input),
            count: 0,
        };
        let input = BufReader::with_capacity(BUFFER, input);
        let decoder = match packing {
            Packing::None => Decoder::Plain(input),
            Packing::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(input))),
            Packing::Zstd => Decoder::Zstd(zstd::stream::read::Decoder::with_buffer(input)?),
            Packing::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
                Decoder::Xz(XzDecoder::new_stream(input, stream))
            }
            Packing::Bzip2 => Decoder::Bzip2(bzip2::bufread::MultiBzDecoder::new(input)),
        };
        Ok(Self {
            packing,
            begins_with_skippable_frame,
            decoder,
        })
    }

    /// Whether it is zstd and the first frame holds no data: some readers do not know it for zstd then.
    pub fn begins_with_skippable_frame(&self) -> bool {
        self.begins_with_skippable_frame
    }

    /// How many bytes of the packed input the decoder has taken: where it stopped if it failed.
    pub fn position(&self) -> u64 {
        let input = match &self.decoder {
            Decoder::Plain(input) => input,
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Zstd(decoder) => decoder.get_ref(),
            Decoder::Xz(decoder) => decoder.get_ref(),
            Decoder::Bzip2(decoder) => decoder.get_ref(),
        };
        input.get_ref().count - input.buffer().len() as u64
    }

    /// What the first bytes said.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Reads what the decoder left of its input, so that a verifying reader under it sees its end: the number of
    /// bytes that were left.
    pub fn drain(self) -> io::Result<u64> {
        let mut input = match self.decoder {
            Decoder::Plain(input) => input,
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::Zstd(decoder) => decoder.finish(),
            Decoder::Xz(decoder) => decoder.into_inner(),
            Decoder::Bzip2(decoder) => decoder.into_inner(),
        };
        io::copy(&mut input, &mut io::sink())
    }
}

impl<R: Read> Read for Unpacker<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.decoder {
            Decoder::Plain(decoder) => decoder.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
            Decoder::Xz(decoder) => decoder.read(buffer),
            Decoder::Bzip2(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> (Packing, Vec<u8>) {
        let mut unpacker = Unpacker::new(bytes).unwrap();
        let mut out = Vec::new();
        unpacker.read_to_end(&mut out).unwrap();
        let packing = unpacker.packing();
        assert_eq!(unpacker.drain().unwrap(), 0);
        (packing, out)
    }

    #[test]
    fn every_packing_is_told_by_its_first_bytes_and_unpacked() {
        let data = b"some data, some data, some data".repeat(1000);
        let mut xz = Vec::new();
        liblzma::write::XzEncoder::new(&mut xz, 1).write_all(&data).unwrap();
        let mut bz = Vec::new();
        bzip2::write::BzEncoder::new(&mut bz, bzip2::Compression::fast())
            .write_all(&data)
            .unwrap();
        let zstd = zstd::encode_all(&data[..], 1).unwrap();
        assert_eq!(unpacked(&data), (Packing::None, data.clone()));
        assert_eq!(unpacked(&gzip(&data)), (Packing::Gzip, data.clone()));
        assert_eq!(unpacked(&zstd), (Packing::Zstd, data.clone()));
        assert_eq!(unpacked(&xz), (Packing::Xz, data.clone()));
        assert_eq!(unpacked(&bz), (Packing::Bzip2, data.clone()));
        assert_eq!(unpacked(b""), (Packing::None, Vec::new()));
    }

    #[test]
    fn members_and_frames_are_one_stream() {
        let members = [gzip(b"one"), gzip(b"two")].concat();
        assert_eq!(unpacked(&members), (Packing::Gzip, b"onetwo".to_vec()));
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..]].concat();
        let frames = [skippable.clone(), zstd::encode_all(&b"one"[..], 1).unwrap(), skippable].concat();
        assert_eq!(unpacked(&frames), (Packing::Zstd, b"one".to_vec()));
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        let data = b"0123456789".repeat(10_000);
        for whole in [gzip(&data), zstd::encode_all(&data[..], 1).unwrap()] {
            let mut unpacker = Unpacker::new(&whole[..whole.len() - 5]).unwrap();
            assert!(unpacker.read_to_end(&mut Vec::new()).is_err());
        }
    }
}
