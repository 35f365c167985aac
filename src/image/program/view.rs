//! An image's file system as loaders see it.
//!
//! Invariant: each file is read once, whatever looks at it.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::rc::Rc;

use super::super::filesystem::{Content, FileSystem, Found, shown};
use crate::elf::loader::Files;
use crate::elf::{self, Elf};
use crate::fsio::{IoContext, PathError};

/// Paths of files by their names.
type Names = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

/// The file system and what was read of it.
pub(super) struct View<'a> {
    pub files: &'a FileSystem,
    elfs: RefCell<BTreeMap<String, Option<Rc<Elf>>>>,
    names: OnceCell<Names>,
}

impl<'a> View<'a> {
    pub fn new(files: &'a FileSystem) -> Self {
        Self {
            files,
            elfs: RefCell::default(),
            names: OnceCell::new(),
        }
    }

    /// The path without symlinks of the file at `path`; `None` where there is none.
    pub fn real(&self, path: &str) -> Result<Option<String>, PathError> {
        Ok(match self.files.resolve(path.as_bytes())? {
            Some((real, Found::File { .. })) => Some(text(&real)),
            _ => None,
        })
    }

    /// The ELF file that is at `path` and has this content: of a path that was found on the way down, no directory is looked at
    /// again.
    pub fn elf_in(&self, path: &str, content: &Content) -> Result<Option<Rc<Elf>>, PathError> {
        if let Some(known) = self.elfs.borrow().get(path) {
            return Ok(known.clone());
        }
        let elf = match content {
            Content::Bytes(bytes) => elf::read_bytes(bytes),
            Content::Disk { physical, .. } => elf::read(physical)?,
        };
        let elf = elf.map(Rc::new);
        self.elfs.borrow_mut().insert(path.to_owned(), elf.clone());
        Ok(elf)
    }

    /// Where the image has a file of this name, whatever directory it is in.
    pub fn anywhere(&self, name: &str) -> Result<Option<String>, PathError> {
        let names = match self.names.get() {
            Some(names) => names,
            None => {
                let names = self.all_names()?;
                self.names.get_or_init(|| names)
            }
        };
        for path in names.get(name.as_bytes()).into_iter().flatten() {
            if let Some(real) = self.real(&text(path))? {
                return Ok(Some(real));
            }
        }
        Ok(None)
    }

    fn all_names(&self) -> Result<Names, PathError> {
        let mut names = Names::new();
        let mut add = |path: &[u8]| {
            let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
            names.entry(name.to_vec()).or_default().push(path.to_vec());
        };
        self.files.nodes().for_each(|(path, _)| add(path));
        for path in self.files.store_paths() {
            self.files.for_each_below(path.to_vec(), |path, _| {
                add(path);
                Ok::<(), PathError>(())
            })?;
        }
        Ok(names)
    }
}

impl Files for View<'_> {
    fn elf(&self, path: &str) -> Result<Option<Rc<Elf>>, PathError> {
        if let Some(known) = self.elfs.borrow().get(path) {
            return Ok(known.clone());
        }
        match self.files.resolve(path.as_bytes())? {
            Some((_, Found::File { content, .. })) => self.elf_in(path, &content),
            _ => {
                self.elfs.borrow_mut().insert(path.to_owned(), None);
                Ok(None)
            }
        }
    }

    fn bytes(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, PathError> {
        Ok(match self.files.resolve(path.as_bytes())? {
            Some((_, Found::File { content, .. })) => Some(head(&content, max)?),
            _ => None,
        })
    }
}

/// The first bytes of a file.
pub(super) fn head(content: &Content, max: u64) -> Result<Vec<u8>, PathError> {
    match content {
        Content::Bytes(bytes) => Ok(bytes.to_vec()),
        Content::Disk { physical, .. } => {
            let mut head = Vec::new();
            let file = File::open(physical).context("open", physical)?;
            file.take(max).read_to_end(&mut head).context("read", physical)?;
            Ok(head)
        }
    }
}

/// A path of the file system as text, absolute.
fn text(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(path) => format!("/{path}"),
        Err(_) => shown(path),
    }
}
