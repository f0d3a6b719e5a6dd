//! A reader of NTFS that shares no code with the writer: the crate `ntfs`, and a short walk of our own for the one
//! thing that the crate cannot read, folders whose index blocks are smaller than a cluster.

mod small_blocks;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};

use ntfs::attribute_value::NtfsAttributeValue;
use ntfs::indexes::NtfsFileNameIndex;
use ntfs::structured_values::NtfsIndexRoot;
use ntfs::{KnownNtfsFileRecordNumber, Ntfs, NtfsAttributeType, NtfsFile, NtfsReadSeek};

use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Layer, Result};
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// How many bytes are read at once: the crate asks for a few at a time.
const WINDOW: usize = 16 << 10;
/// How many bytes of a file are compared at once.
const PIECE: usize = 256 << 10;

/// A volume as the file that the crate expects, with a small read-ahead.
struct Device<'a, D: ?Sized> {
    volume: &'a D,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a, D: VolumeRead + ?Sized> Device<'a, D> {
    fn new(volume: &'a D) -> Self {
        Self { volume, at: 0, window: Vec::new(), window_at: 0 }
    }

    fn fill(&mut self, at: u64, length: usize) -> io::Result<()> {
        self.window.resize(length, 0);
        self.window_at = at;
        self.volume.read_at(VolumeOffset(at), &mut self.window).map_err(|e| {
            self.window.clear();
            io::Error::other(e)
        })
    }
}

impl<D: VolumeRead + ?Sized> Read for Device<'_, D> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.volume.len().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = buf.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        if wanted >= WINDOW {
            let part = buf.get_mut(..wanted).unwrap_or_default();
            self.volume.read_at(VolumeOffset(self.at), part).map_err(io::Error::other)?;
            self.at = self.at.saturating_add(wanted as u64);
            return Ok(wanted);
        }
        let inside = |window: &[u8], window_at: u64, at: u64| {
            let skip = usize::try_from(at.checked_sub(window_at)?).ok()?;
            let rest = window.len().checked_sub(skip)?;
            (rest > 0).then_some((skip, rest))
        };
        if inside(&self.window, self.window_at, self.at).is_none() {
            let start = self.at / WINDOW as u64 * WINDOW as u64;
            let length = usize::try_from(self.volume.len().saturating_sub(start)).unwrap_or(WINDOW).min(WINDOW);
            self.fill(start, length)?;
        }
        let Some((skip, rest)) = inside(&self.window, self.window_at, self.at) else { return Ok(0) };
        let take = wanted.min(rest);
        let (Some(to), Some(from)) = (buf.get_mut(..take), self.window.get(skip..skip + take)) else { return Ok(0) };
        to.copy_from_slice(from);
        self.at = self.at.saturating_add(take as u64);
        Ok(take)
    }
}

impl<D: VolumeRead + ?Sized> Seek for Device<'_, D> {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let to = match pos {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.volume.len().checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek beyond the volume"))?;
        Ok(self.at)
    }
}

/// A volume opened by the foreign reader.
pub struct IndependentVolume<'a, D: ?Sized> {
    volume: &'a D,
    ntfs: Ntfs,
    /// In bytes; folders of a volume have blocks of one size.
    index_block_size: u32,
    /// Records of the paths that were found: what a plan touches lies in few folders.
    found: RefCell<HashMap<String, u64>>,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A folder.
    Folder,
    /// A file.
    File,
}

fn foreign(error: ntfs::NtfsError) -> Error {
    Error::new(Kind::Verify, Layer::Plan, "the staged volume cannot be read back").source_error(error)
}

/// What the index root of the root directory says.
fn index_block_size<D: VolumeRead + ?Sized>(ntfs: &Ntfs, device: &mut Device<'_, D>) -> ntfs::Result<u32> {
    let root = ntfs.root_directory(device)?;
    let mut attributes = root.attributes();
    while let Some(item) = attributes.next(device) {
        let item = item?;
        let attribute = item.to_attribute()?;
        if attribute.ty()? == NtfsAttributeType::IndexRoot && attribute.name()? == "$I30" {
            return Ok(attribute.resident_structured_value::<NtfsIndexRoot>()?.index_record_size());
        }
    }
    Err(ntfs::NtfsError::NotADirectory { position: root.position() })
}

impl<'a, D: VolumeRead + ?Sized> IndependentVolume<'a, D> {
    /// Opens from the first sector.
    ///
    /// # Errors
    /// When the reader does not understand the volume.
    pub fn open(volume: &'a D) -> Result<Self> {
        let mut device = Device::new(volume);
        let mut ntfs = Ntfs::new(&mut device).map_err(foreign)?;
        ntfs.read_upcase_table(&mut device).map_err(foreign)?;
        let index_block_size = index_block_size(&ntfs, &mut device).map_err(foreign)?;
        Ok(Self { volume, ntfs, index_block_size, found: RefCell::default() })
    }

    fn file<'n>(&'n self, device: &mut Device<'_, D>, path: &str) -> Result<Option<NtfsFile<'n>>> {
        let mut number = KnownNtfsFileRecordNumber::RootDirectory as u64;
        let mut reached = String::with_capacity(path.len());
        for name in path.split('/').filter(|name| !name.is_empty()) {
            reached.push('/');
            reached.push_str(name);
            let known = self.found.borrow().get(&reached).copied();
            number = match known {
                Some(known) => known,
                None => {
                    let folder = self.ntfs.file(device, number).map_err(foreign)?;
                    let Some(found) = self.entry(device, &folder, name)? else { return Ok(None) };
                    self.found.borrow_mut().insert(reached.clone(), found);
                    found
                }
            };
        }
        self.ntfs.file(device, number).map(Some).map_err(foreign)
    }

    /// The record of an entry of a folder; `None` when there is none of this name.
    fn entry(&self, device: &mut Device<'_, D>, folder: &NtfsFile<'_>, name: &str) -> Result<Option<u64>> {
        if !folder.is_directory() {
            return Ok(None);
        }
        if self.ntfs.cluster_size() > self.index_block_size {
            return small_blocks::find(folder, &self.ntfs, device, name);
        }
        let index = folder.directory_index(device).map_err(foreign)?;
        let mut finder = index.finder();
        let entry = NtfsFileNameIndex::find(&mut finder, &self.ntfs, device, name).transpose().map_err(foreign)?;
        Ok(entry.map(|entry| entry.file_reference().file_record_number()))
    }

    /// The number of the file record at a path.
    ///
    /// # Errors
    /// When the reader fails.
    pub fn record(&self, path: &str) -> Result<Option<u64>> {
        let mut device = Device::new(self.volume);
        let file = self.file(&mut device, path).map_err(|e| e.path(path))?;
        Ok(file.map(|file| file.file_record_number()))
    }

    /// What is at a path.
    ///
    /// # Errors
    /// When the reader fails.
    pub fn find(&self, path: &str) -> Result<Option<Found>> {
        let mut device = Device::new(self.volume);
        let file = self.file(&mut device, path).map_err(|e| e.path(path))?;
        Ok(file.map(|file| if file.is_directory() { Found::Folder } else { Found::File }))
    }

    /// Whether the file at a path holds exactly `expected`; `None` when there is no file. Nothing of it is kept.
    ///
    /// # Errors
    /// When the reader fails.
    pub fn holds(&self, path: &str, expected: &[u8]) -> Result<Option<bool>> {
        let mut piece = vec![0; PIECE];
        self.with_value(path, |device, length, value| {
            let Some(value) = value else { return Ok(expected.is_empty()) };
            if length != expected.len() as u64 {
                return Ok(false);
            }
            for wanted in expected.chunks(PIECE) {
                let found = piece.get_mut(..wanted.len()).unwrap_or_default();
                value.read_exact(device, found).map_err(foreign)?;
                if found != wanted {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// The length and the SHA-256 of the file at a path; `None` when there is no file. Nothing of it is kept.
    ///
    /// # Errors
    /// When the reader fails.
    pub fn hash(&self, path: &str) -> Result<Option<(u64, [u8; 32])>> {
        let mut piece = vec![0; PIECE];
        self.with_value(path, |device, length, value| {
            let mut hash = Sha256::new();
            let Some(value) = value else { return Ok((0, hash.finalize().into())) };
            let mut left = length;
            while left > 0 {
                let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                let found = piece.get_mut(..size).unwrap_or_default();
                value.read_exact(device, found).map_err(foreign)?;
                hash.update(found);
                left -= size as u64;
            }
            Ok((length, hash.finalize().into()))
        })
    }

    /// The content of a file, `None` when there is none; one longer than `limit` is an error.
    ///
    /// # Errors
    /// When the reader fails.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.with_value(path, |device, length, value| {
            let Some(value) = value else { return Ok(Vec::new()) };
            if length > limit {
                return Err(Error::new(Kind::Verify, Layer::Plan, "a staged file is longer than planned")
                    .expected_found(format_args!("at most {limit} bytes"), format_args!("{length} bytes")));
            }
            let length = usize::try_from(length).map_err(|_| Error::bug(Layer::Plan, "file larger than memory"))?;
            let mut bytes = vec![0; length];
            value.read_exact(device, &mut bytes).map_err(foreign)?;
            Ok(bytes)
        })
    }

    /// Gives the unnamed stream of the file at a path to `take`, if there is such a file; `None` for one that has none.
    fn with_value<T>(
        &self,
        path: &str,
        take: impl FnOnce(&mut Device<'_, D>, u64, Option<&mut NtfsAttributeValue<'_, '_>>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut device = Device::new(self.volume);
        let Some(file) = self.file(&mut device, path).map_err(|e| e.path(path))? else { return Ok(None) };
        if file.is_directory() {
            return Ok(None);
        }
        let item = file.data(&mut device, "").transpose().map_err(|e| foreign(e).path(path))?;
        let Some(item) = item else { return take(&mut device, 0, None).map(Some) };
        let attribute = item.to_attribute().map_err(|e| foreign(e).path(path))?;
        let mut value = attribute.value(&mut device).map_err(|e| foreign(e).path(path))?;
        take(&mut device, attribute.value_length(), Some(&mut value)).map(Some).map_err(|e| e.path(path))
    }
}
