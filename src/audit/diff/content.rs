//! Contents that differ are read *a second time* to say where: the first differing byte, and of small texts the lines.
//!
//! Invariant: contents pass through a temporary file of bounded size, never through memory as a whole, except texts
//! of at most 64 KiB.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use super::super::AuditError;
use super::super::opened::Opened;
use super::super::stream::LayerStream;
use super::{ContentChange, DiffOptions, sequence};
use crate::fsio::IoContext;
use crate::transport::tar_read::Kind;

/// Largest content that is compared, and all of one image's together, in bytes.
const FILE_MAX: u64 = 256 << 20;
const TOTAL_MAX: u64 = 2 << 30;
/// Largest text of which lines are shown.
const TEXT_MAX: u64 = 64 << 10;

/// A file difference whose contents are to be compared: its number, and layer and path on both sides.
pub(super) struct Wanted {
    pub(super) change: usize,
    pub(super) a: (usize, Vec<u8>),
    pub(super) b: (usize, Vec<u8>),
}

/// What differs in each of the wanted; `None` where a content was too large or is not there.
pub(super) fn explain(
    a: &Opened,
    b: &Opened,
    wanted: &[Wanted],
    options: &DiffOptions,
) -> Result<Vec<Option<ContentChange>>, AuditError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut spool_a = Spool::extract(a, wanted.iter().map(|wanted| &wanted.a), options)?;
    let mut spool_b = Spool::extract(b, wanted.iter().map(|wanted| &wanted.b), options)?;
    let dir = options.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
    wanted
        .iter()
        .map(|wanted| {
            let change = compare(&mut spool_a, &wanted.a, &mut spool_b, &wanted.b, options.lines);
            Ok(change.context("read a temporary file in", &dir)?)
        })
        .collect()
}

/// A content in a spool, and its size.
type Section<'s> = (io::Take<BufReader<&'s File>>, u64);

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

    fn section(&mut self, key: &(usize, Vec<u8>)) -> io::Result<Option<Section<'_>>> {
        let Some(&(offset, size)) = self.sections.get(key) else {
            return Ok(None);
        };
        self.file.seek(SeekFrom::Start(offset))?;
        Ok(Some((BufReader::new(&self.file).take(size), size)))
    }

    fn text(&mut self, key: &(usize, Vec<u8>)) -> io::Result<Option<String>> {
        let Some((mut reader, size)) = self.section(key)?.filter(|(_, size)| *size <= TEXT_MAX) else {
            return Ok(None);
        };
        let mut bytes = Vec::with_capacity(size as usize);
        reader.read_to_end(&mut bytes)?;
        Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
    }
}

fn compare(
    a: &mut Spool,
    key_a: &(usize, Vec<u8>),
    b: &mut Spool,
    key_b: &(usize, Vec<u8>),
    lines: usize,
) -> io::Result<Option<ContentChange>> {
    let offset = match (a.section(key_a)?, b.section(key_b)?) {
        (Some((x, _)), Some((y, _))) => first_difference(x, y)?,
        _ => return Ok(None),
    };
    let text = match (a.text(key_a)?, b.text(key_b)?) {
        (Some(x), Some(y)) => Some(sequence::unified(&x, &y, lines)),
        _ => None,
    };
    Ok(Some(ContentChange { offset, text }))
}

fn first_difference(mut a: impl io::BufRead, mut b: impl io::BufRead) -> io::Result<u64> {
    let mut offset = 0;
    loop {
        let (x, y) = (a.fill_buf()?, b.fill_buf()?);
        let both = x.len().min(y.len());
        // Whole buffers are compared at the speed of memory; only the one that differs is looked at byte by byte.
        let same = if x[..both] == y[..both] {
            both
        } else {
            x.iter().zip(y).take_while(|(x, y)| x == y).count()
        };
        offset += same as u64;
        if same < both || both == 0 {
            return Ok(offset);
        }
        a.consume(same);
        b.consume(same);
    }
}
