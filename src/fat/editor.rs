//! Edits of a FAT volume: a new file, new content of a file.

use zerocopy::{FromBytes, IntoBytes};

use super::boot_sector::Geometry;
use super::chain::{FOLDER_BYTES_MAX, Folder, cluster_offset, read_chain};
use super::entry::{
    ATTRIBUTE_ARCHIVE, ATTRIBUTE_FOLDER, ENTRY, Found, NAME_END, ShortEntry, find_entry, find_free_entry,
};
use super::error::damaged;
use super::new_entry::{date_and_time, new_entry};
use super::survey::{Survey, survey};
use super::table::{Link, Table};
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeWrite;
use crate::units::VolumeOffset;

/// The sector with the number of free clusters, from its start.
mod fs_info {
    use crate::field::Field;

    pub(super) const LEAD: Field<u32> = Field::at(0);
    pub(super) const STRUCTURE: Field<u32> = Field::at(484);
    pub(super) const FREE: Field<u32> = Field::at(488);
    pub(super) const LEAD_SIGNATURE: u32 = 0x4161_5252;
    pub(super) const STRUCTURE_SIGNATURE: u32 = 0x6141_7272;
    /// The number is not known.
    pub(super) const UNKNOWN: u32 = u32::MAX;
    pub(super) const BYTES: usize = 512;
}

/// A FAT volume that is edited. Files are written as they are asked for; the table is written by
/// [`finish`](Self::finish). Every byte that no edit concerns stays as it is.
#[derive(Debug)]
pub struct FatEditor<D> {
    volume: D,
    geometry: Geometry,
    table: Table,
    /// Whether a cluster may not be allocated, by its number.
    taken: Vec<bool>,
}

impl<D: VolumeWrite> FatEditor<D> {
    /// Surveys the volume.
    ///
    /// # Errors
    /// Those of [`survey_fat`](super::survey_fat).
    pub fn open(volume: D, allow_dirty: bool) -> Result<Self> {
        let Survey { geometry, table, owned: taken } = survey(&volume, allow_dirty)?;
        Ok(Self { volume, geometry, table, taken })
    }

    /// Writes a new file, with the folders of its path that are missing. Names of new files and folders are short ones
    /// (8.3).
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) when the volume is full, or something of this name exists.
    pub fn create_file(&mut self, path: &str, bytes: &[u8], now: FileTime) -> Result<()> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.ensure_folder(folder, now)?;
        if self.find(&folder, name)?.is_some() {
            return Err(Error::refused(Layer::Partition, "cannot write the file: its name is taken").path(path));
        }
        let mut entry = new_entry(name, ATTRIBUTE_ARCHIVE, now)?;
        let chain = self.allocate(self.clusters_of(bytes.len() as u64))?;
        self.write_chain(&chain, bytes)?;
        set_first(&mut entry, chain.first().copied().unwrap_or(0));
        entry.size = length_of(bytes)?.into();
        self.add_entry(folder, &entry)
    }

    /// Replaces the content of a file. Clusters that it does not need any more become free.
    ///
    /// # Errors
    /// When the file does not exist, or the volume is full.
    pub fn replace_content(&mut self, path: &str, bytes: &[u8], now: FileTime) -> Result<()> {
        let gone = || Error::refused(Layer::Partition, "cannot replace the file: it does not exist").path(path);
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = Folder::root(&self.table, &self.geometry)?;
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            let found = self.find(&at, part)?.filter(|found| found.is_folder).ok_or_else(gone)?;
            at = Folder::at(&self.table, found.first, &self.geometry)?;
        }
        let found = self.find(&at, name)?.filter(|found| !found.is_folder).ok_or_else(gone)?;
        let mut chain = if found.first == 0 { Vec::new() } else { read_chain(&self.table, found.first)? };
        let count = self.clusters_of(bytes.len() as u64);
        let missing = count.saturating_sub(chain.len());
        chain.extend(self.allocate(missing)?);
        for surplus in chain.drain(count..) {
            self.table.set(surplus, Link::Free)?;
        }
        self.write_chain(&chain, bytes)?;
        let place = self.entry_place(&at, found.index)?;
        let mut entry = [0; ENTRY];
        self.volume.read_at(place, &mut entry)?;
        let mut entry = ShortEntry::read_from_bytes(&entry).map_err(|_| damaged("an entry is cut off"))?;
        set_first(&mut entry, chain.first().copied().unwrap_or(0));
        entry.size = length_of(bytes)?.into();
        entry.attributes |= ATTRIBUTE_ARCHIVE;
        let (date, time) = date_and_time(now);
        entry.write_date = date.into();
        entry.write_time = time.into();
        self.volume.write_at(place, entry.as_bytes())
    }

    /// Writes the table and the number of free clusters.
    ///
    /// # Errors
    /// When the volume cannot be written.
    pub fn finish(mut self) -> Result<()> {
        self.table.write(&mut self.volume, &self.geometry)?;
        let Some(at) = self.geometry.fs_info.map(VolumeOffset) else { return Ok(()) };
        let mut sector = vec![0; fs_info::BYTES];
        self.volume.read_at(at, &mut sector)?;
        let has = |field: crate::field::Field<u32>, value| field.try_get(&sector) == Some(value);
        let is_known = has(fs_info::LEAD, fs_info::LEAD_SIGNATURE)
            && has(fs_info::STRUCTURE, fs_info::STRUCTURE_SIGNATURE)
            && !has(fs_info::FREE, fs_info::UNKNOWN);
        if is_known {
            fs_info::FREE.set(&mut sector, self.table.count_free()?);
            self.volume.write_at(at, &sector)?;
        }
        Ok(())
    }

    fn clusters_of(&self, bytes: u64) -> usize {
        usize::try_from(bytes.div_ceil(self.geometry.cluster_bytes)).unwrap_or(usize::MAX)
    }

    fn find(&self, folder: &Folder, name: &str) -> Result<Option<Found>> {
        Ok(find_entry(&folder.read(&self.volume, &self.geometry)?, name))
    }

    fn ensure_folder(&mut self, path: &str, now: FileTime) -> Result<Folder> {
        let mut at = Folder::root(&self.table, &self.geometry)?;
        let mut first = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            first = match self.find(&at, name)? {
                Some(found) if found.is_folder => found.first,
                Some(_) => {
                    let what = "cannot write the file: a file has the name of its folder";
                    return Err(Error::refused(Layer::Partition, what).path(path));
                }
                None => self.create_folder(at, first, name, now)?,
            };
            at = Folder::at(&self.table, first, &self.geometry)?;
        }
        Ok(at)
    }

    /// Makes a folder in another one that begins at the cluster `above`, 0 for the root. Returns its first cluster.
    fn create_folder(&mut self, folder: Folder, above: u32, name: &str, now: FileTime) -> Result<u32> {
        let mut entry = new_entry(name, ATTRIBUTE_FOLDER, now)?;
        let chain = self.allocate(1)?;
        let first = chain.first().copied().unwrap_or(0);
        let mut content = Vec::with_capacity(2 * ENTRY);
        for (dots, cluster) in [(b".       ", first), (b"..      ", above)] {
            let mut own = entry;
            own.name = *dots;
            own.reserved = 0;
            set_first(&mut own, cluster);
            content.extend_from_slice(own.as_bytes());
        }
        self.write_chain(&chain, &content)?;
        set_first(&mut entry, first);
        self.add_entry(folder, &entry)?;
        Ok(first)
    }

    /// Puts an entry into a folder, which becomes longer if it is full.
    fn add_entry(&mut self, folder: Folder, entry: &ShortEntry) -> Result<()> {
        let bytes = folder.read(&self.volume, &self.geometry)?;
        if let Some(index) = find_free_entry(&bytes) {
            let next = (index + 1) * ENTRY;
            // What follows the last entry need not be zero; what follows the new last one has to end the folder.
            let was_end = bytes.get(index * ENTRY) == Some(&NAME_END);
            if was_end && bytes.get(next).is_some_and(|first| *first != NAME_END) {
                let place = self.entry_place(&folder, index + 1)?;
                self.volume.write_at(place, &[NAME_END])?;
            }
            let place = self.entry_place(&folder, index)?;
            return self.volume.write_at(place, entry.as_bytes());
        }
        let Folder::Chain(chain) = folder else {
            return Err(Error::refused(Layer::Partition, "cannot write the file: the root folder is full"));
        };
        if bytes.len() as u64 + self.geometry.cluster_bytes > FOLDER_BYTES_MAX {
            return Err(Error::refused(Layer::Partition, "cannot write the file: its folder is full"));
        }
        let added = self.allocate(1)?;
        self.write_chain(&added, entry.as_bytes())?;
        if let (Some(last), Some(new)) = (chain.last(), added.first()) {
            self.table.set(*last, Link::Next(*new))?;
        }
        Ok(())
    }

    fn entry_place(&self, folder: &Folder, index: usize) -> Result<VolumeOffset> {
        let place = folder.place(index as u64 * ENTRY as u64, &self.geometry);
        place.map(VolumeOffset).ok_or_else(|| damaged("an entry lies outside of its folder"))
    }

    /// Takes free clusters, one after the other where there is such a run. They are linked by [`write_chain`].
    fn allocate(&mut self, count: usize) -> Result<Vec<u32>> {
        let mut free = Vec::new();
        let mut run: Vec<u32> = Vec::new();
        for cluster in self.table.clusters() {
            if run.len() == count {
                break;
            }
            let is_taken = usize::try_from(cluster).ok().and_then(|at| self.taken.get(at)).copied().unwrap_or(true);
            if is_taken || self.table.link(cluster)? != Link::Free {
                run.clear();
                continue;
            }
            run.push(cluster);
            if free.len() < count {
                free.push(cluster);
            }
        }
        let chosen = if run.len() == count { run } else { free };
        if chosen.len() < count {
            let bytes = |clusters: usize| format!("{} bytes", clusters as u64 * self.geometry.cluster_bytes);
            let what = "cannot write the file: the system partition has too little free space";
            return Err(Error::refused(Layer::Partition, what).expected_found(bytes(count), bytes(chosen.len())));
        }
        for cluster in &chosen {
            if let Some(is_taken) = usize::try_from(*cluster).ok().and_then(|at| self.taken.get_mut(at)) {
                *is_taken = true;
            }
        }
        Ok(chosen)
    }

    /// Links the clusters, and fills them with the bytes and zeros.
    fn write_chain(&mut self, chain: &[u32], bytes: &[u8]) -> Result<()> {
        let size = usize::try_from(self.geometry.cluster_bytes).unwrap_or(usize::MAX);
        let mut parts = bytes.chunks(size);
        for (index, cluster) in chain.iter().enumerate() {
            let link = chain.get(index + 1).map_or(Link::End, |next| Link::Next(*next));
            self.table.set(*cluster, link)?;
            let mut content = parts.next().unwrap_or_default().to_vec();
            content.resize(size, 0);
            self.volume.write_at(VolumeOffset(cluster_offset(&self.geometry, *cluster)), &content)?;
        }
        Ok(())
    }
}

fn set_first(entry: &mut ShortEntry, cluster: u32) {
    let [a, b, c, d] = cluster.to_le_bytes();
    entry.first_cluster_low = u16::from_le_bytes([a, b]).into();
    entry.first_cluster_high = u16::from_le_bytes([c, d]).into();
}

fn length_of(bytes: &[u8]) -> Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| Error::unsupported(Layer::Partition, "a file of FAT has less than 4 GiB"))
}
