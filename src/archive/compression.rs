//! *Decompression* while streaming, by whatever the first bytes say.
//!
//! Invariant: any number of gzip members, zstd frames, xz and bzip2 streams are read as one content; memory is bounded
//! (zstd windows over 128 MiB and xz dictionaries over 256 MiB are errors); a stream that ends early is an error.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use crate::oci::CompressionFormat;

const BUFFER: usize = 128 << 10;

/// Most memory that a decoder of xz may use, in bytes: `xz -9` asks for 65 MiB, a hostile file for anything.
const XZ_MEMORY_MAX: u64 = 256 << 20;

type Input<R> = BufReader<Counting<Chain<Cursor<Vec<u8>>, R>>>;

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

/// Reads the content of whatever compressed bytes it is given.
pub struct Decompressor<R: Read> {
    format: CompressionFormat,
    begins_with_skippable_frame: bool,
    allow_padding: bool,
    /// `None` only after [`start_member`](Self::start_member) failed.
    decoder: Option<Decoder<R>>,
}

enum Decoder<R: Read> {
    Plain(Input<R>),
    Gzip(Box<GzDecoder<Input<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
    Xz(XzDecoder<Input<R>>),
    Bzip2(BzDecoder<Input<R>>),
}

impl<R: Read> Decompressor<R> {
    /// Looks at the first bytes of `input` and picks the decoder.
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut head = Vec::with_capacity(CompressionFormat::MAGIC_MAX);
        let most = CompressionFormat::MAGIC_MAX as u64;
        (&mut input).take(most).read_to_end(&mut head)?;
        Self::start(CompressionFormat::sniff(&head), head, input)
    }

    /// Knows from elsewhere what `input` is.
    pub fn with_format(format: CompressionFormat, input: R) -> io::Result<Self> {
        Self::start(format, Vec::new(), input)
    }

    fn start(format: CompressionFormat, head: Vec<u8>, input: R) -> io::Result<Self> {
        let begins_with_skippable_frame = format == CompressionFormat::Zstd && head.first().is_some_and(|&b| b != 0x28);
        let input = Counting {
            inner: Cursor::new(head).chain(input),
            count: 0,
        };
        Ok(Self {
            format,
            begins_with_skippable_frame,
            allow_padding: false,
            decoder: Some(Decoder::new(format, BufReader::with_capacity(BUFFER, input))?),
        })
    }

    /// Lets zeros follow the last gzip member or bzip2 stream, as tapes and some mirrors leave them and `gzip -d`
    /// passes over them. (Container engines refuse them in a layer.)
    pub fn allow_padding(self) -> Self {
        Self {
            allow_padding: true,
            ..self
        }
    }

    /// Whether it is zstd and the first frame holds no data: some readers do not know it for zstd then.
    pub fn begins_with_skippable_frame(&self) -> bool {
        self.begins_with_skippable_frame
    }

    /// How many bytes of the compressed input the decoder has taken: where it stopped if it failed.
    pub fn position(&self) -> u64 {
        let input = self.decoder.as_ref().map(Decoder::input);
        input.map_or(0, |input| input.get_ref().count - input.buffer().len() as u64)
    }

    /// What it is.
    pub fn format(&self) -> CompressionFormat {
        self.format
    }

    /// Reads what the decoder left of its input, so that a verifying reader under it sees its end: the number of
    /// bytes that were left.
    pub fn drain(self) -> io::Result<u64> {
        match self.decoder {
            Some(decoder) => io::copy(&mut decoder.into_input(), &mut io::sink()),
            None => Ok(0),
        }
    }

    /// Goes on to the next gzip member or bzip2 stream, if there is one; the other decoders go on by themselves.
    fn start_member(&mut self) -> io::Result<bool> {
        let input = match &mut self.decoder {
            Some(Decoder::Gzip(decoder)) => decoder.get_mut(),
            Some(Decoder::Bzip2(decoder)) => decoder.get_mut(),
            _ => return Ok(false),
        };
        match input.fill_buf()?.first() {
            None => return Ok(false),
            Some(0) if self.allow_padding => return pass_zeros(input).map(|()| false),
            Some(_) => {}
        }
        if let Some(decoder) = self.decoder.take() {
            self.decoder = Some(Decoder::new(self.format, decoder.into_input())?);
        }
        Ok(true)
    }
}

impl<R: Read> Decoder<R> {
    fn new(format: CompressionFormat, input: Input<R>) -> io::Result<Self> {
        Ok(match format {
            CompressionFormat::None => Self::Plain(input),
            CompressionFormat::Gzip => Self::Gzip(Box::new(GzDecoder::new(input))),
            CompressionFormat::Zstd => Self::Zstd(zstd::stream::read::Decoder::with_buffer(input)?),
            CompressionFormat::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY_MAX, CONCATENATED)?;
                Self::Xz(XzDecoder::new_stream(input, stream))
            }
            CompressionFormat::Bzip2 => Self::Bzip2(BzDecoder::new(input)),
        })
    }

    fn input(&self) -> &Input<R> {
        match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zstd(decoder) => decoder.get_ref(),
            Self::Xz(decoder) => decoder.get_ref(),
            Self::Bzip2(decoder) => decoder.get_ref(),
        }
    }

    fn into_input(self) -> Input<R> {
        match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
            Self::Xz(decoder) => decoder.into_inner(),
            Self::Bzip2(decoder) => decoder.into_inner(),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Xz(decoder) => decoder.read(buffer),
            Self::Bzip2(decoder) => decoder.read(buffer),
        }
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(decoder) = &mut self.decoder else {
                return Ok(0);
            };
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() || !self.start_member()? {
                return Ok(count);
            }
        }
    }
}

/// Reads to the end of the input; anything but zeros is an error.
fn pass_zeros(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = input.fill_buf()?;
        let count = bytes.len();
        if count == 0 {
            return Ok(());
        }
        if bytes.iter().any(|&byte| byte != 0) {
            let message = "bytes other than zeros follow the compressed content";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        input.consume(count);
    }
}

/// Whether a file that begins with these bytes may be in the format that .xz replaced (`.lzma`), which has no magic: the
/// properties that every preset has, and the low bytes of a dictionary's size.
pub fn may_be_lzma(head: &[u8]) -> bool {
    head.starts_with(&[0x5d, 0, 0])
}

/// Reads the content of a `.lzma` file.
pub fn lzma_decoder<R: BufRead>(input: R) -> io::Result<impl Read> {
    let stream = Stream::new_lzma_decoder(XZ_MEMORY_MAX)?;
    Ok(XzDecoder::new_stream(input, stream))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bzip2, gzip, xz, zstd};
    use super::*;

    fn decompressed(bytes: &[u8]) -> (CompressionFormat, Vec<u8>) {
        let mut decompressor = Decompressor::new(bytes).unwrap();
        let mut out = Vec::new();
        decompressor.read_to_end(&mut out).unwrap();
        let format = decompressor.format();
        assert_eq!(decompressor.position(), bytes.len() as u64);
        assert_eq!(decompressor.drain().unwrap(), 0);
        (format, out)
    }

    #[test]
    fn every_format_is_told_by_its_first_bytes() {
        let data = b"some data, some data, some data".repeat(1000);
        for (bytes, format) in [
            (data.clone(), CompressionFormat::None),
            (gzip(&data), CompressionFormat::Gzip),
            (zstd(&data), CompressionFormat::Zstd),
            (xz(&data), CompressionFormat::Xz),
            (bzip2(&data), CompressionFormat::Bzip2),
        ] {
            assert_eq!(decompressed(&bytes), (format, data.clone()));
            let mut out = Vec::new();
            let known = Decompressor::with_format(format, bytes.as_slice());
            known.unwrap().read_to_end(&mut out).unwrap();
            assert_eq!(out, data, "{format}");
        }
        assert_eq!(decompressed(b""), (CompressionFormat::None, Vec::new()));
    }

    #[test]
    fn members_and_frames_are_one_content() {
        for pack in [gzip, zstd, xz, bzip2] {
            let both = [pack(b"one"), pack(b""), pack(b"two")].concat();
            assert_eq!(decompressed(&both).1, b"onetwo");
        }
        let skippable = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frames = [skippable.clone(), zstd(b"one"), skippable].concat();
        assert_eq!(decompressed(&frames), (CompressionFormat::Zstd, b"one".to_vec()));
        assert!(Decompressor::new(&frames[..]).unwrap().begins_with_skippable_frame());
        assert!(
            !Decompressor::new(&zstd(b"x")[..])
                .unwrap()
                .begins_with_skippable_frame()
        );
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let data = b"0123456789".repeat(10_000);
        for whole in [gzip(&data), zstd(&data), xz(&data), bzip2(&data)] {
            let mut decompressor = Decompressor::new(&whole[..whole.len() - 5]).unwrap();
            assert!(decompressor.read_to_end(&mut Vec::new()).is_err());
        }
    }

    /// As `gzip -d` has it; Go's reader, and so container engines, refuse it.
    #[test]
    fn padding_is_passed_over_where_it_is_allowed() {
        for packed in [gzip(b"data"), bzip2(b"data")] {
            for (tail, accepted) in [(&[0; 700][..], true), (b"\0\0x", false), (b"garbage", false)] {
                let bytes = [&packed, tail].concat();
                let read = |lenient: bool| {
                    let strict = Decompressor::new(&bytes[..])?;
                    let mut decompressor = if lenient { strict.allow_padding() } else { strict };
                    let mut out = Vec::new();
                    decompressor.read_to_end(&mut out).map(|_| out)
                };
                assert_eq!(read(true).ok(), accepted.then(|| b"data".to_vec()), "{tail:?}");
                assert!(read(false).is_err(), "{tail:?}");
            }
        }
    }
}

#[cfg(test)]
mod fuzz {
    use std::io::{self, Read};

    #[test]
    fn fuzz_compressed() {
        crate::testing::fuzz("compressed", |bytes| {
            if let Ok(content) = super::Decompressor::new(bytes) {
                let _ = io::copy(&mut content.take(16 << 20), &mut io::sink());
            }
        });
    }
}
