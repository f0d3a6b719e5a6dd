//! The crate `ntfs` as a third opinion. It cannot read everything: `$MFT` or folders with an attribute list, folders
//! with index blocks smaller than a cluster, streams in too many pieces, sectors of 4 KiB. There it has no opinion.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};

use ntfs::attribute_value::NtfsAttributeValue;
use ntfs::indexes::NtfsFileNameIndex;
use ntfs::{Ntfs, NtfsReadSeek};

use super::block_cache::BlockCache;
use super::bytes::{u8_at, utf16_at};
use super::file::{File, number_of};
use super::index;
use super::record::{DATA, Value};
use super::stream::Stream;
use super::volume::{IndependentVolume, ROOT};
use crate::error::{DEFECT_HINT, Error, Kind, Layer, Result};

/// Type of the attribute `$FILE_NAME`.
const FILE_NAME: u32 = 0x30;

/// The volume as the file that the crate expects. The crate asks for a few bytes at a time.
struct CachedFile<'c, 'a> {
    cache: &'c BlockCache<'a>,
    at: u64,
}

impl Read for CachedFile<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.cache.len().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = buf.len().min(left);
        if count == 0 {
            return Ok(0);
        }
        let to = buf.get_mut(..count).unwrap_or_default();
        self.cache.read(self.at, to).map_err(io::Error::other)?;
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}

impl Seek for CachedFile<'_, '_> {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let to = match pos {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.cache.len().checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek beyond the volume"))?;
        Ok(self.at)
    }
}

fn disagreement(what: &'static str) -> Error {
    Error::new(Kind::Verify, Layer::Plan, format!("two readers of the staged volume disagree: {what}"))
        .hint(DEFECT_HINT)
}

impl IndependentVolume<'_> {
    /// Looks the paths up with the crate `ntfs`, too, as far as it can read this volume. Returns on how many it had an
    /// opinion. To be called for volumes that are known to be sound: the crate is not made for others.
    ///
    /// # Errors
    /// [`Kind::Verify`](crate::Kind::Verify) when the crate finds another file, or content in another place.
    pub fn compare_with_third_opinion(&self, paths: &[String]) -> Result<usize> {
        let mut device = CachedFile { cache: &self.files.device, at: 0 };
        if self.files.has_listed_mft()? {
            return Ok(0);
        }
        let Ok(mut ntfs) = Ntfs::new(&mut device) else { return Ok(0) };
        if ntfs.read_upcase_table(&mut device).is_err() {
            return Ok(0);
        }
        let mut opinion = Opinion { own: self, ntfs: &ntfs, device, agreed: HashSet::new() };
        let mut count = 0;
        for path in paths {
            count += usize::from(opinion.compare(path).map_err(|e| e.path(path))?);
        }
        Ok(count)
    }
}

struct Opinion<'o, 'a> {
    own: &'o IndependentVolume<'a>,
    ntfs: &'o Ntfs,
    device: CachedFile<'o, 'a>,
    /// Paths of folders that both found.
    agreed: HashSet<String>,
}

impl Opinion<'_, '_> {
    /// Returns whether the crate had an opinion on all of the path.
    fn compare(&mut self, path: &str) -> Result<bool> {
        let (mut reference, mut reached) = (ROOT, String::with_capacity(path.len()));
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let folder = self.own.files.referenced(reference)?;
            reached.push('/');
            reached.push_str(name);
            let found = self.own.entry(&folder, name)?;
            if !self.agreed.contains(&reached) {
                match self.entry(&folder, name)? {
                    Some(theirs) if theirs == found.map(number_of) => {}
                    Some(Some(twin)) if found.is_some() && self.is_named(twin, name)? => return Ok(false),
                    Some(_) => return Err(disagreement("what a name refers to")),
                    None => return Ok(false),
                }
                self.agreed.insert(reached.clone());
            }
            match found {
                Some(found) => reference = found,
                None => return Ok(true),
            }
        }
        let file = self.own.files.referenced(reference)?;
        if file.is_directory() { Ok(true) } else { self.content(&file) }
    }

    /// What the crate finds in a folder: `None` when it cannot read it, `Some(None)` when there is no such name.
    fn entry(&mut self, folder: &File, name: &str) -> Result<Option<Option<u64>>> {
        let key: Vec<u16> = "$I30".encode_utf16().collect();
        if folder.has_list || !folder.is_directory() {
            return Ok(None);
        }
        let Some(root) = index::root(&self.own.files, folder, &key)? else { return Ok(None) };
        if index::block_size(&root)? < self.own.files.geometry.cluster {
            return Ok(None);
        }
        Ok(self.entry_by_crate(folder.number, name).ok())
    }

    fn entry_by_crate(&mut self, folder: u64, name: &str) -> ntfs::Result<Option<u64>> {
        let folder = self.ntfs.file(&mut self.device, folder)?;
        let index = folder.directory_index(&mut self.device)?;
        let mut finder = index.finder();
        let entry = NtfsFileNameIndex::find(&mut finder, self.ntfs, &mut self.device, name).transpose()?;
        Ok(entry.map(|entry| entry.file_reference().file_record_number()))
    }

    /// Whether a file has this name in another case: of two such names each reader may take its own.
    fn is_named(&self, number: u64, name: &str) -> Result<bool> {
        let wanted: Vec<u16> = name.encode_utf16().collect();
        for attribute in self.own.files.file(number)?.attributes.iter().filter(|one| one.kind == FILE_NAME) {
            let Value::Resident(value) = &attribute.value else { continue };
            let found = utf16_at(value, 0x42, usize::from(u8_at(value, 0x40)?))?;
            if found != wanted && self.own.files.compare(&found, &wanted).is_eq() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Compares where the content of a file is; what is in the record, byte for byte.
    fn content(&mut self, file: &File) -> Result<bool> {
        let Some(stream) = self.own.files.stream(file, DATA, &[])? else { return Ok(false) };
        if file.has_list || !(stream.is_plain() || stream.is_resident()) {
            return Ok(false);
        }
        match self.is_same_by_crate(file.number, &stream) {
            Ok(true) => Ok(true),
            Ok(false) => Err(disagreement("where the content of a file is")),
            Err(_) => Ok(false),
        }
    }

    fn is_same_by_crate(&mut self, number: u64, stream: &Stream) -> ntfs::Result<bool> {
        let file = self.ntfs.file(&mut self.device, number)?;
        let Some(item) = file.data(&mut self.device, "").transpose()? else { return Ok(false) };
        let attribute = item.to_attribute()?;
        if attribute.value_length() != stream.len {
            return Ok(false);
        }
        match attribute.value(&mut self.device)? {
            NtfsAttributeValue::NonResident(value) => {
                let mut ours = stream.runs.iter();
                for run in value.data_runs() {
                    let run = run?;
                    let start = run.data_position().value().map(std::num::NonZero::get);
                    let cluster = self.own.files.geometry.cluster;
                    let same = ours.next().is_some_and(|ours| {
                        ours.lcn.and_then(|lcn| lcn.checked_mul(cluster)) == start
                            && ours.length.checked_mul(cluster) == Some(run.allocated_size())
                    });
                    if !same {
                        return Ok(false);
                    }
                }
                Ok(ours.next().is_none())
            }
            mut value => {
                let mut bytes = vec![0; usize::try_from(stream.len).unwrap_or_default()];
                value.read_exact(&mut self.device, &mut bytes)?;
                Ok(self.own.files.read_all(stream, stream.len).is_ok_and(|ours| ours == bytes))
            }
        }
    }
}
