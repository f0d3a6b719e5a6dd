//! Files of a FAT volume: paths, folders, cluster chains.

use super::boot_sector::{BootSector, Geometry, Root};
use super::chain::FOLDER_BYTES_MAX;
use super::entry::{ATTRIBUTE_FOLDER, Found, find_entry};
use super::error::damaged;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// Most components of a path.
const DEPTH_MAX: usize = 32;

/// Most places that a cluster chain may lie in: what their list needs is held in memory.
const EXTENTS_MAX: usize = 1 << 20;

/// The root folder: it has no entry, and 0 stands for its first cluster.
pub(super) const ROOT: Found =
    Found { is_folder: true, first: 0, size: 0, index: 0, attributes: ATTRIBUTE_FOLDER, written: (0, 0) };

/// Bytes of the file allocation table that are read at once.
const TABLE_BYTES_AT_ONCE: u64 = 4096;

/// A part of the file allocation table.
#[derive(Default)]
struct TableWindow {
    /// Offset of the first byte in the table.
    start: u64,
    bytes: Vec<u8>,
}

impl TableWindow {
    /// Fills `entry` from the table's byte `at` on; `false` if this part does not have all of it.
    fn copy(&self, at: u64, entry: &mut [u8]) -> bool {
        let from = at.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        match from.and_then(|from| self.bytes.get(from..)?.get(..entry.len())) {
            Some(found) => {
                entry.copy_from_slice(found);
                true
            }
            None => false,
        }
    }
}

/// A FAT volume, read only.
#[derive(Debug)]
pub struct FatVolume<D> {
    volume: D,
    geometry: Geometry,
}

impl<D: VolumeRead> FatVolume<D> {
    /// Reads the boot sector.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::error::Kind::Unsupported) when the volume is not FAT,
    /// [`Kind::Damaged`](crate::error::Kind::Damaged) when its boot sector contradicts itself.
    pub fn open(volume: D) -> Result<Self> {
        let geometry = BootSector::read_geometry(&volume)?;
        Ok(Self { volume, geometry })
    }

    /// The content of a file; `None` when there is no file of that name. Names are separated by `/` or `\` and compared
    /// without case.
    ///
    /// # Errors
    /// When the file system is damaged there, or the file is longer than `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(found) = self.find(path)?.filter(|found| !found.is_folder) else { return Ok(None) };
        if found.size > limit {
            return Err(Error::unsupported(Layer::Partition, format!("a file of {} bytes is not read", found.size))
                .path(path)
                .expected_found(format_args!("at most {limit} bytes"), found.size));
        }
        let bytes = self.read_chain(found.first, found.size).map_err(|error| error.path(path))?;
        if bytes.len() as u64 != found.size {
            return Err(damaged("a file's clusters end before the file").path(path));
        }
        Ok(Some(bytes))
    }

    /// Whether there is a file or folder of this path.
    ///
    /// # Errors
    /// When the file system is damaged there.
    pub fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.find(path)?.is_some())
    }

    /// Whether the path is that of a file.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn is_file(&self, path: &str) -> Result<bool> {
        Ok(self.find(path)?.is_some_and(|found| !found.is_folder))
    }

    fn find(&self, path: &str) -> Result<Option<Found>> {
        let mut at = ROOT;
        let names: Vec<&str> = path.split(['/', '\\']).filter(|name| !name.is_empty()).collect();
        if names.len() > DEPTH_MAX {
            return Ok(None);
        }
        for name in names {
            if !at.is_folder {
                return Ok(None);
            }
            let Some(found) = find_entry(&self.read_folder(at.first)?, name) else { return Ok(None) };
            at = found;
        }
        Ok(Some(at))
    }

    /// The entries of a folder that begins with this cluster; 0 is the root folder.
    pub(super) fn read_folder(&self, first: u32) -> Result<Vec<u8>> {
        match self.geometry.root {
            Root::Cluster(root) if first == 0 => self.read_chain(root, FOLDER_BYTES_MAX),
            Root::Area { start, length } if first == 0 => {
                // at most 65,535 entries
                let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
                self.volume.read_at(VolumeOffset(start), &mut bytes)?;
                Ok(bytes)
            }
            _ => self.read_chain(first, FOLDER_BYTES_MAX),
        }
    }

    /// The bytes of a cluster chain, at most `limit` of them. Neighbouring clusters are read at once.
    fn read_chain(&self, first: u32, limit: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (place, length) in self.locate_chain(first, limit)? {
            let filled = out.len();
            out.resize(filled + usize::try_from(length).unwrap_or(0), 0);
            self.volume.read_at(place, out.get_mut(filled..).unwrap_or_default())?;
        }
        Ok(out)
    }

    /// Where the first `limit` bytes of a cluster chain lie, each place with its length; neighbouring clusters are one.
    pub(super) fn locate_chain(&self, first: u32, limit: u64) -> Result<Vec<(VolumeOffset, u64)>> {
        let mut out = Vec::new();
        let mut table = TableWindow::default();
        let (mut links, mut found) = (0u32, 0u64);
        let mut at = Some(first);
        while let Some(start) = at.filter(|_| found < limit) {
            let left = limit - found;
            let mut count = 0u32;
            while u64::from(count) * self.geometry.cluster_bytes < left && at == start.checked_add(count) {
                let cluster = start.saturating_add(count);
                if !(2..self.geometry.clusters.saturating_add(2)).contains(&cluster) {
                    return Err(damaged("a chain leaves the volume"));
                }
                links += 1;
                if links > self.geometry.clusters {
                    return Err(damaged("a chain runs in a circle"));
                }
                at = self.next(&mut table, cluster)?;
                count += 1;
            }
            if out.len() == EXTENTS_MAX {
                return Err(Error::unsupported(Layer::Partition, "a file in more than 1,048,576 pieces is not read"));
            }
            let place = self.geometry.data_start + u64::from(start.saturating_sub(2)) * self.geometry.cluster_bytes;
            let length = (u64::from(count) * self.geometry.cluster_bytes).min(left);
            found += length;
            out.push((VolumeOffset(place), length));
        }
        Ok(out)
    }

    /// The device below.
    pub(super) fn device(&self) -> &D {
        &self.volume
    }

    /// The next cluster of a chain; `None` at its end.
    fn next(&self, table: &mut TableWindow, cluster: u32) -> Result<Option<u32>> {
        let (at, width) = self.geometry.width.entry(cluster);
        if at + width as u64 > self.geometry.fat_bytes {
            return Err(damaged("the file allocation table is too short"));
        }
        let mut bytes = [0u8; 4];
        let entry = bytes.get_mut(..width).unwrap_or_default();
        if !table.copy(at, entry) {
            table.start = at - at % TABLE_BYTES_AT_ONCE;
            let length = TABLE_BYTES_AT_ONCE.min(self.geometry.fat_bytes - table.start);
            table.bytes.resize(usize::try_from(length).unwrap_or(0), 0);
            let place = |at: u64| VolumeOffset(self.geometry.fat_start + at);
            // The damage may be in a part that is not wanted; and an entry may lie across two parts.
            if self.volume.read_at(place(table.start), &mut table.bytes).is_err() || !table.copy(at, entry) {
                table.bytes.clear();
                self.volume.read_at(place(at), entry)?;
            }
        }
        let (next, bad) = self.geometry.width.value(cluster, u32::from_le_bytes(bytes));
        Ok((next <= bad).then_some(next))
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::ATTRIBUTE_LONG_NAME;
    use super::*;
    use crate::error::Kind;
    use crate::io::MemoryVolume;

    /// A FAT12 or FAT32 volume of 512-byte clusters with `/EFI/bootmgfw.efi` (a long name) of 700 bytes.
    fn volume(is_fat32: bool) -> Vec<u8> {
        let mut v = vec![0u8; 64 * 512];
        v[11..13].copy_from_slice(&512u16.to_le_bytes());
        v[13] = 1;
        v[14] = 1;
        v[16] = 1;
        v[19..21].copy_from_slice(&64u16.to_le_bytes());
        v[510..512].copy_from_slice(&[0x55, 0xAA]);
        // reserved sector 0, FAT in sectors 1 and 2, root folder in sector 3
        if is_fat32 {
            v[36..40].copy_from_slice(&2u32.to_le_bytes());
            v[44..48].copy_from_slice(&2u32.to_le_bytes());
        } else {
            v[22..24].copy_from_slice(&2u16.to_le_bytes());
            v[17..19].copy_from_slice(&16u16.to_le_bytes());
        }
        // FAT12 numbers the sector after the root folder 2, FAT32 the root folder itself
        let (root, folder, file) = if is_fat32 { (2, 3u16, 4u16) } else { (0, 2, 3) };
        let sector = |cluster: u16| if is_fat32 { 3 + usize::from(cluster) - 2 } else { 4 + usize::from(cluster) - 2 };
        let link = |v: &mut Vec<u8>, from: u16, to: u32| {
            if is_fat32 {
                let at = 512 + 4 * usize::from(from);
                v[at..at + 4].copy_from_slice(&to.to_le_bytes());
            } else {
                let at = 512 + usize::from(from) * 3 / 2;
                let old = u16::from_le_bytes([v[at], v[at + 1]]);
                let new = if from.is_multiple_of(2) {
                    (old & 0xF000) | (to as u16 & 0xFFF)
                } else {
                    (old & 0x000F) | ((to as u16 & 0xFFF) << 4)
                };
                v[at..at + 2].copy_from_slice(&new.to_le_bytes());
            }
        };
        let end = 0x0FFF_FFFF;
        if root != 0 {
            link(&mut v, root, end);
        }
        link(&mut v, folder, end);
        link(&mut v, file, u32::from(file) + 1);
        link(&mut v, file + 1, end);
        let root_at = 3 * 512;
        v[root_at..root_at + 11].copy_from_slice(b"EFI        ");
        v[root_at + 11] = ATTRIBUTE_FOLDER;
        v[root_at + 26..root_at + 28].copy_from_slice(&folder.to_le_bytes());
        let at = sector(folder) * 512;
        let name: Vec<u16> = "bootmgfw.efi\0".encode_utf16().collect();
        v[at] = 0x41;
        v[at + 11] = ATTRIBUTE_LONG_NAME;
        for (unit, place) in name.iter().zip([1usize, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30]) {
            v[at + place..at + place + 2].copy_from_slice(&unit.to_le_bytes());
        }
        let short = b"BOOTMG~1EFI";
        v[at + 13] = short.iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte));
        let at = at + 32;
        v[at..at + 11].copy_from_slice(short);
        v[at + 26..at + 28].copy_from_slice(&file.to_le_bytes());
        v[at + 28..at + 32].copy_from_slice(&700u32.to_le_bytes());
        let at = sector(file) * 512;
        v[at..at + 700].fill(0x5A);
        v
    }

    #[test]
    fn files_by_long_and_short_name() {
        for is_fat32 in [false, true] {
            let fat = FatVolume::open(MemoryVolume(volume(is_fat32))).unwrap();
            for path in ["/efi/BOOTMGFW.EFI", "\\EFI\\bootmg~1.efi"] {
                assert_eq!(fat.read(path, 1000).unwrap().unwrap(), vec![0x5A; 700], "{path}");
            }
            assert_eq!(fat.read("/EFI", 1000).unwrap(), None, "a folder");
            assert_eq!(fat.read("/EFI/other.efi", 1000).unwrap(), None);
            assert_eq!(fat.read("/EFI/bootmgfw.efi/x", 1000).unwrap(), None);
            assert_eq!(fat.read("/EFI/bootmgfw.efi", 699).unwrap_err().kind(), Kind::Unsupported);
        }
    }

    #[test]
    fn damage_is_named_and_ends() {
        assert_eq!(FatVolume::open(MemoryVolume(vec![0; 4096])).unwrap_err().kind(), Kind::Unsupported);
        // the folder's chain runs in a circle: FAT32 cluster 3 points to itself
        let mut circle = volume(true);
        circle[512 + 12..512 + 16].copy_from_slice(&3u32.to_le_bytes());
        let fat = FatVolume::open(MemoryVolume(circle)).unwrap();
        assert_eq!(fat.read("/EFI/x", 1000).unwrap_err().kind(), Kind::Damaged);
        // the file's chain leads out of the volume
        let mut out = volume(true);
        out[512 + 16..512 + 20].copy_from_slice(&0x00FF_0000u32.to_le_bytes());
        let fat = FatVolume::open(MemoryVolume(out)).unwrap();
        assert_eq!(fat.read("/EFI/bootmgfw.efi", 1000).unwrap_err().kind(), Kind::Damaged);
    }

    #[test]
    fn any_byte_of_the_volume_may_be_wrong() {
        let whole = volume(true);
        for at in (0..5 * 512).filter(|at| whole[*at] != 0 || *at < 64) {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut broken = whole.clone();
                broken[at] = value;
                if let Ok(fat) = FatVolume::open(MemoryVolume(broken)) {
                    drop(fat.read("/EFI/bootmgfw.efi", 1000));
                }
            }
        }
    }
}
