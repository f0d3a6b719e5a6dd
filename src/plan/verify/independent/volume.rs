//! Opens a volume and answers by path.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use sha2::{Digest, Sha256};

use super::bytes::{u8_at, u64_at, utf16_at};
use super::file::{File, Files};
use super::index;
use super::record::DATA;
use super::security;
use super::stream::Stream;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;

/// How many bytes of a file are compared at once.
const PIECE: usize = 256 << 10;
/// Reference of the root directory.
pub(super) const ROOT: u64 = 5 | 5 << 48;

/// A volume opened by the independent reader.
pub struct IndependentVolume<'a> {
    pub(super) files: Files<'a>,
    /// References of the paths that were found: what a plan touches lies in few folders.
    found: RefCell<HashMap<String, u64>>,
}

impl fmt::Debug for IndependentVolume<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndependentVolume").field("geometry", &self.files.geometry).finish_non_exhaustive()
    }
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A directory, empty or not.
    Folder,
    /// A file with a `$DATA` attribute or without one.
    File,
}

impl<'a> IndependentVolume<'a> {
    /// Opens from the first sector.
    ///
    /// # Errors
    /// [`Kind::Damaged`](crate::Kind::Damaged) when the boot sector, `$MFT` or `$UpCase` cannot be read.
    pub fn open(volume: &'a dyn VolumeRead) -> Result<Self> {
        Ok(Self { files: Files::open(volume)?, found: RefCell::default() })
    }

    fn file(&self, path: &str) -> Result<Option<Rc<File>>> {
        let mut reference = ROOT;
        let mut reached = String::with_capacity(path.len());
        for name in path.split('/').filter(|name| !name.is_empty()) {
            reached.push('/');
            reached.push_str(name);
            let known = self.found.borrow().get(&reached).copied();
            reference = match known {
                Some(known) => known,
                None => {
                    let folder = self.files.referenced(reference)?;
                    let Some(found) = self.entry(&folder, name)? else { return Ok(None) };
                    self.found.borrow_mut().insert(reached.clone(), found);
                    found
                }
            };
        }
        self.files.referenced(reference).map(Some)
    }

    /// The reference of a name in a folder. An exact match is preferred, else one that differs in case is taken.
    pub(super) fn entry(&self, folder: &File, name: &str) -> Result<Option<u64>> {
        if !folder.is_directory() {
            return Ok(None);
        }
        let index: Vec<u16> = "$I30".encode_utf16().collect();
        let wanted: Vec<u16> = name.encode_utf16().collect();
        let compare = |key: &[u8], is_exact: bool| {
            let found = utf16_at(key, 0x42, usize::from(u8_at(key, 0x40)?))?;
            let order = self.files.compare(&wanted, &found);
            Ok(if is_exact { order.then_with(|| wanted.cmp(&found)) } else { order })
        };
        let exact = index::find(&self.files, folder, &index, &|key| compare(key, true))?;
        let entry = match exact {
            Some(entry) => Some(entry),
            None => index::find(&self.files, folder, &index, &|key| compare(key, false))?,
        };
        entry.map(|entry| u64_at(&entry, 0)).transpose()
    }

    /// The number of the file record at a path.
    ///
    /// # Errors
    /// When what leads to the path is damaged.
    pub fn record(&self, path: &str) -> Result<Option<u64>> {
        Ok(self.file(path).map_err(|e| e.path(path))?.map(|file| file.number))
    }

    /// What is at a path.
    ///
    /// # Errors
    /// When what leads to the path is damaged.
    pub fn find(&self, path: &str) -> Result<Option<Found>> {
        let file = self.file(path).map_err(|e| e.path(path))?;
        Ok(file.map(|file| if file.is_directory() { Found::Folder } else { Found::File }))
    }

    /// Whether the file at a path holds exactly `expected`; `None` when there is no file. Reads piece by piece: memory
    /// does not grow with the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn holds(&self, path: &str, expected: &[u8]) -> Result<Option<bool>> {
        self.with_stream(path, "", |stream| {
            let Some(stream) = stream else { return Ok(expected.is_empty()) };
            if stream.len != expected.len() as u64 {
                return Ok(false);
            }
            let mut piece = vec![0; PIECE.min(expected.len())];
            let mut at = 0;
            for wanted in expected.chunks(PIECE) {
                let found = piece.get_mut(..wanted.len()).unwrap_or_default();
                self.files.read(stream, at, found)?;
                if found != wanted {
                    return Ok(false);
                }
                at += wanted.len() as u64;
            }
            Ok(true)
        })
    }

    /// The length and the SHA-256 of the file at a path; `None` when there is no file. Reads piece by piece: memory
    /// does not grow with the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn hash(&self, path: &str) -> Result<Option<(u64, [u8; 32])>> {
        self.with_stream(path, "", |stream| {
            let mut hash = Sha256::new();
            let Some(stream) = stream else { return Ok((0, hash.finalize().into())) };
            let mut piece = vec![0; PIECE];
            let mut at = 0;
            while at < stream.len {
                let size = (stream.len - at).min(PIECE as u64);
                let found = piece.get_mut(..usize::try_from(size).unwrap_or(PIECE)).unwrap_or_default();
                self.files.read(stream, at, found)?;
                hash.update(found);
                at += size;
            }
            Ok((stream.len, hash.finalize().into()))
        })
    }

    /// The content of a file, `None` when there is none; one longer than `limit` bytes is an error.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.read_stream(path, "", limit)
    }

    /// The content of a stream of the file at a path; empty when the file has no such stream.
    ///
    /// # Errors
    /// See [`read`](Self::read).
    pub fn read_stream(&self, path: &str, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.with_stream(path, name, |stream| {
            let Some(stream) = stream else { return Ok(Vec::new()) };
            if stream.len > limit {
                return Err(Error::damaged(Layer::Plan, "a file is longer than expected")
                    .expected_found(format_args!("at most {limit} bytes"), format_args!("{} bytes", stream.len)));
            }
            self.files.read_all(stream, limit)
        })
    }

    /// Gives a stream of the file at a path to `work`, if there is such a file.
    fn with_stream<T>(
        &self,
        path: &str,
        name: &str,
        work: impl FnOnce(Option<&Stream>) -> Result<T>,
    ) -> Result<Option<T>> {
        let read = || {
            let Some(file) = self.file(path)? else { return Ok(None) };
            if file.is_directory() && name.is_empty() {
                return Ok(None);
            }
            let name: Vec<u16> = name.encode_utf16().collect();
            work(self.files.stream(&file, DATA, &name)?.as_ref()).map(Some)
        };
        read().map_err(|e| e.path(path))
    }

    /// The security descriptor of the file or folder at a path, self-relative; `None` when there is no file, or it has
    /// no descriptor.
    ///
    /// # Errors
    /// When the path or `$Secure` is damaged.
    pub fn security(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let read = || match self.file(path)? {
            Some(file) => security::descriptor(&self.files, &file),
            None => Ok(None),
        };
        read().map_err(|e| e.path(path))
    }
}
