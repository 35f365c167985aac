//! Contents that differ are read *a second time* to say where: the first differing byte, and of small texts the lines.
//!
//! Invariant: contents pass through a temporary file of bounded size, never through memory as a whole, except those of
//! at most [`inside::SIZE_MAX`] bytes, which are looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use super::super::AuditError;
use super::super::opened::Opened;
use super::super::stream::LayerStream;
use super::sequence::TextLimits;
use super::{ContentChange, DiffOptions, inside};
use crate::archive::Kind;
use crate::fsio::IoContext;

/// Largest content that is compared, and all of one image's together, in bytes.
const FILE_MAX: u64 = 256 << 20;
const TOTAL_MAX: u64 = 2 << 30;

/// A file difference whose contents are to be compared: its number, and layer and path on both sides.
pub(super) struct Wanted {
    pub(super) change: usize,
    pub(super) a: (usize, Vec<u8>),
    pub(super) b: (usize, Vec<u8>),
}

/// What differs in each of the wanted, and whether that is hashes of store paths alone; `None` where a content was too
/// large or is not there.
pub(super) fn explain(
    a: &Opened,
    b: &Opened,
    wanted: &[Wanted],
    options: &DiffOptions,
) -> Result<Vec<Option<(ContentChange, bool)>>, AuditError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut spool_a = Spool::extract(a, wanted.iter().map(|wanted| &wanted.a), options)?;
    let mut spool_b = Spool::extract(b, wanted.iter().map(|wanted| &wanted.b), options)?;
    let dir = options.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
    let limits = TextLimits::new(options.lines);
    wanted
        .iter()
        .map(|wanted| {
            let change = compare(&mut spool_a, &wanted.a, &mut spool_b, &wanted.b, &limits);
            Ok(change.context("read a temporary file in", &dir)?)
        })
        .collect()
}

/// A content in a spool, and its size.
type SpoolSection<'s> = (io::Take<BufReader<&'s File>>, u64);

/// Contents of some files of an image, one after the other.
struct Spool {
    file: File,
    sections: BTreeMap<(usize, Vec<u8>), (u64, u64)>,
}

impl Spool {
    fn extract<'a>(
        image: &Opened,
        wanted: impl Iterator<Item = &'a (usize, Vec<u8>)>,
        options: &DiffOptions,
    ) -> Result<Self, AuditError> {
        let dir = options.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
        let file = tempfile::tempfile_in(&dir).context("create a temporary file in", &dir)?;
        let mut spool = Self {
            file,
            sections: BTreeMap::new(),
        };
        let mut by_layer: BTreeMap<usize, BTreeSet<&Vec<u8>>> = BTreeMap::new();
        for (layer, path) in wanted {
            by_layer.entry(*layer).or_default().insert(path);
        }
        let mut total = 0;
        for (layer, paths) in by_layer {
            let mut stream = LayerStream::open(image.source, &image.layers[layer].descriptor)?;
            while let Some(entry) = stream.next_entry()? {
                let path = entry.clean_path();
                let fits = entry.size <= FILE_MAX && total + entry.size <= TOTAL_MAX;
                if entry.kind != Kind::File || !paths.contains(&path) || !fits {
                    continue;
                }
                stream.body(|bytes| spool.file.write_all(bytes))?;
                spool.sections.insert((layer, path), (total, entry.size));
                total += entry.size;
            }
            stream.finish()?;
        }
        Ok(spool)
    }

    fn section(&mut self, key: &(usize, Vec<u8>)) -> io::Result<Option<SpoolSection<'_>>> {
        let Some(&(offset, size)) = self.sections.get(key) else {
            return Ok(None);
        };
        self.file.seek(SeekFrom::Start(offset))?;
        Ok(Some((BufReader::new(&self.file).take(size), size)))
    }

    /// The whole of a content that is small enough to be looked into.
    fn small(&mut self, key: &(usize, Vec<u8>)) -> io::Result<Option<Vec<u8>>> {
        let Some((mut reader, size)) = self.section(key)?.filter(|(_, size)| *size <= inside::SIZE_MAX) else {
            return Ok(None);
        };
        let mut bytes = Vec::with_capacity(size as usize);
        reader.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

fn compare(
    a: &mut Spool,
    key_a: &(usize, Vec<u8>),
    b: &mut Spool,
    key_b: &(usize, Vec<u8>),
    limits: &TextLimits,
) -> io::Result<Option<(ContentChange, bool)>> {
    if let (Some(x), Some(y)) = (a.small(key_a)?, b.small(key_b)?) {
        let name = String::from_utf8_lossy(&key_b.1);
        let change = inside::explain(&name, &x, &y, limits);
        return Ok(Some((change, inside::only_hashes_differ(&x, &y))));
    }
    let (offset, bytes) = match (a.section(key_a)?, b.section(key_b)?) {
        (Some((x, _)), Some((y, _))) => differences(x, y)?,
        _ => return Ok(None),
    };
    let change = ContentChange {
        kind: "binary",
        offset,
        bytes,
        text: None,
        inside: Vec::new(),
    };
    Ok(Some((change, false)))
}

/// The first byte that differs, and how many of those that both have.
fn differences(mut a: impl io::BufRead, mut b: impl io::BufRead) -> io::Result<(u64, u64)> {
    let (mut offset, mut differing, mut first) = (0, 0, None);
    loop {
        let (x, y) = (a.fill_buf()?, b.fill_buf()?);
        let both = x.len().min(y.len());
        if both == 0 {
            return Ok((first.unwrap_or(offset), differing));
        }
        // Whole buffers are compared at the speed of memory; only those that differ are looked at byte by byte.
        if x[..both] != y[..both] {
            let pairs = x.iter().zip(y);
            let same = pairs.clone().take_while(|(x, y)| x == y).count();
            first.get_or_insert(offset + same as u64);
            differing += pairs.filter(|(x, y)| x != y).count() as u64;
        }
        offset += both as u64;
        a.consume(both);
        b.consume(both);
    }
}
