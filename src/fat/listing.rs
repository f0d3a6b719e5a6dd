//! Folders as lists, and files of any size.

use super::entry::{Found, visit_entries};
use super::error::damaged;
use super::volume::{FatVolume, ROOT};
use crate::clock::FileTime;
use crate::error::Result;
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// A file or folder of a FAT volume.
#[derive(Debug, Clone)]
pub struct FatEntry {
    /// The long name, or the short one where there is no other; empty for the root folder.
    pub name: String,
    /// Time of the last write, by the guest's clock: FAT knows no time zone. `None` if the entry has no valid time.
    pub modified: Option<FileTime>,
    found: Found,
}

impl FatEntry {
    fn new(name: String, found: Found) -> Self {
        Self { name, modified: time(found.written), found }
    }

    /// Whether it is a folder.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.found.is_folder
    }

    /// Bytes of a file; 0 for a folder.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.found.size
    }

    /// DOS attributes: read-only 1, hidden 2, system 4, folder 16, archive 32.
    #[must_use]
    pub fn attributes(&self) -> u32 {
        self.found.attributes.into()
    }

    /// A number that no other folder of the volume has, nor any file with content.
    #[must_use]
    pub fn first_cluster(&self) -> u32 {
        self.found.first
    }
}

/// An open file of a FAT volume.
#[derive(Debug)]
pub struct FatFile {
    size: u64,
    /// Where the content lies: offset in the file, on the volume, and length, in the order of the content.
    pieces: Vec<(u64, VolumeOffset, u64)>,
}

impl FatFile {
    /// Bytes of the content.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl<D: VolumeRead> FatVolume<D> {
    /// The root folder.
    #[must_use]
    pub fn root(&self) -> FatEntry {
        FatEntry::new(String::new(), ROOT)
    }

    /// The files and folders in a folder, in its order.
    ///
    /// # Errors
    /// When the file system is damaged there, or the image cannot be read.
    pub fn entries(&self, folder: &FatEntry) -> Result<Vec<FatEntry>> {
        let bytes = self.read_folder(folder.found.first)?;
        let mut out = Vec::new();
        visit_entries(&bytes, |long, short, found| {
            if !matches!(short, "." | "..") {
                out.push(FatEntry::new(if long.is_empty() { short } else { long }.to_owned(), found));
            }
            true
        });
        Ok(out)
    }

    /// The file or folder of this long or short name in a folder, case ignored.
    ///
    /// # Errors
    /// When the file system is damaged there, or the image cannot be read.
    pub fn find_in(&self, folder: &FatEntry, name: &str) -> Result<Option<FatEntry>> {
        let bytes = self.read_folder(folder.found.first)?;
        let wanted = name.to_lowercase();
        let mut out = None;
        visit_entries(&bytes, |long, short, found| {
            let is_wanted = long.to_lowercase() == wanted || short.to_lowercase() == wanted;
            if is_wanted && !matches!(short, "." | "..") {
                out = Some(FatEntry::new(if long.is_empty() { short } else { long }.to_owned(), found));
            }
            out.is_none()
        });
        Ok(out)
    }

    /// Opens a file, so that any part of it can be read.
    ///
    /// # Errors
    /// When the file system is damaged there, or the image cannot be read.
    pub fn open_file(&self, file: &FatEntry) -> Result<FatFile> {
        let size = file.size();
        let mut pieces = Vec::new();
        let mut start = 0;
        for (place, length) in self.locate_chain(file.found.first, size)? {
            pieces.push((start, place, length));
            start += length;
        }
        if start != size {
            return Err(damaged("a file's clusters end before the file").path(&file.name));
        }
        Ok(FatFile { size, pieces })
    }

    /// Reads from `offset` of a file; returns how many bytes there were.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn read_file(&self, file: &FatFile, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let available = usize::try_from(file.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let mut rest = buf.get_mut(..available).unwrap_or_default();
        let mut at = offset;
        let first = file.pieces.partition_point(|(start, _, length)| start + length <= offset);
        for (start, place, length) in file.pieces.iter().skip(first) {
            let inside = at.saturating_sub(*start);
            let count = rest.len().min(usize::try_from(length.saturating_sub(inside)).unwrap_or(usize::MAX));
            if count == 0 {
                break;
            }
            let (part, others) = rest.split_at_mut(count);
            self.device().read_at(VolumeOffset(place.0.saturating_add(inside)), part)?;
            (rest, at) = (others, at + count as u64);
        }
        Ok(available)
    }
}

/// A FAT date and time, of 2 seconds; `None` for a day that is not in the calendar.
fn time((date, time): (u16, u16)) -> Option<FileTime> {
    let byte = |value: u16| u8::try_from(value).ok();
    let day = FileTime::from_date(1980 + (date >> 9), byte(date >> 5 & 0xF)?, byte(date & 0x1F)?)?;
    let (hour, minute, second) = (time >> 11, time >> 5 & 0x3F, 2 * (time & 0x1F));
    let seconds = u64::from(hour) * 3600 + u64::from(minute) * 60 + u64::from(second);
    (seconds < 86_400).then_some(FileTime(day.0 + seconds * 10_000_000))
}

#[cfg(test)]
mod tests {
    use super::super::new_entry::date_and_time;
    use super::*;

    #[test]
    fn a_time_is_read_as_it_was_written() {
        for (year, month, day) in [(1980, 1, 1), (2000, 2, 29), (2107, 12, 31)] {
            let written = FileTime(FileTime::from_date(year, month, day).unwrap().0 + (23 * 3600 + 58) * 10_000_000);
            assert_eq!(time(date_and_time(written)), Some(written));
        }
        assert_eq!(time((0, 0)), None);
        assert_eq!(time((0x21, 0xFFFF)), None);
    }
}
