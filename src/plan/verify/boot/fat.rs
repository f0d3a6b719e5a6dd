//! A FAT volume as a whole: every folder, every chain. It shares no code with the reader and the writer in `src/fat`.

use std::collections::BTreeMap;

use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// Largest area before the clusters that is read, in bytes.
const SYSTEM_BYTES_MAX: u64 = 160 << 20;
/// Most files and folders.
const ITEMS_MAX: usize = 1 << 20;
/// Bytes of an entry of a folder.
pub(super) const SLOT: usize = 32;

/// A file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub is_folder: bool,
    pub size: u64,
    /// Its clusters in order.
    pub chain: Vec<u32>,
    /// Its folder by its path, and the number of its entry there.
    pub place: (String, usize),
}

/// A volume that was read.
pub(super) struct FatImage<'d, D> {
    device: &'d D,
    /// All before the first FAT.
    pub reserved: Vec<u8>,
    /// The values of the table by cluster, from cluster 0 on, of each copy.
    pub tables: Vec<Vec<u32>>,
    cluster_bytes: u64,
    data_start: u64,
    /// The entries of every folder by its path in lower case; that of the root is empty.
    pub folders: BTreeMap<String, Vec<u8>>,
    /// Files and folders by their paths in lower case.
    pub items: BTreeMap<String, Item>,
}

fn broken(what: &str) -> Error {
    Error::damaged(Layer::Plan, format!("the FAT volume is damaged: {what}"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u64> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>());
    found.map(|two| u64::from(u16::from_le_bytes(*two))).ok_or_else(|| broken("cut off"))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u16_at(bytes, at)? | u16_at(bytes, at + 2)? << 16)
}

fn read<D: VolumeRead>(device: &D, start: u64, length: u64) -> Result<Vec<u8>> {
    if length > SYSTEM_BYTES_MAX || start.checked_add(length).is_none_or(|end| end > device.len()) {
        return Err(broken("a part of it lies outside of it, or is too large"));
    }
    let mut out = vec![0; usize::try_from(length).unwrap_or(0)];
    device.read_at(VolumeOffset(start), &mut out)?;
    Ok(out)
}

impl<'d, D: VolumeRead> FatImage<'d, D> {
    /// Reads all folders and chains.
    ///
    /// # Errors
    /// [`Kind::Damaged`](crate::Kind::Damaged) for any contradiction: two owners of a cluster, a chain that leads nowhere.
    pub(super) fn read(device: &'d D) -> Result<Self> {
        let boot = read(device, 0, 512)?;
        let byte = |at: usize| boot.get(at).copied().map(u64::from).ok_or_else(|| broken("cut off"));
        let sector = u16_at(&boot, 11)?;
        let cluster_bytes = byte(13)? * sector;
        let (reserved, copies) = (u16_at(&boot, 14)? * sector, byte(16)?);
        let root_bytes = u16_at(&boot, 17)? * SLOT as u64;
        let or = |short: u64, long: u64| if short == 0 { long } else { short };
        let sectors = or(u16_at(&boot, 19)?, u32_at(&boot, 32)?);
        let table_bytes = or(u16_at(&boot, 22)?, u32_at(&boot, 36)?) * sector;
        if cluster_bytes == 0 || reserved == 0 || copies == 0 || table_bytes == 0 {
            return Err(broken("its boot sector"));
        }
        let root_start = reserved + copies * table_bytes;
        let data_start = root_start + root_bytes.div_ceil(sector) * sector;
        let data_end = (sectors * sector).min(device.len());
        let count = data_end.checked_sub(data_start).ok_or_else(|| broken("no room for data"))? / cluster_bytes;
        let bits = match (u16_at(&boot, 22)?, count) {
            (0, _) => 32,
            (_, 0..4085) => 12,
            _ => 16,
        };
        let mut tables = Vec::new();
        for copy in 0..copies {
            let bytes = read(device, reserved + copy * table_bytes, table_bytes)?;
            tables.push((0..count + 2).map(|cluster| value(&bytes, cluster, bits)).collect::<Result<Vec<u32>>>()?);
        }
        let reserved = read(device, 0, reserved)?;
        let mut out = Self {
            device,
            reserved,
            tables,
            cluster_bytes,
            data_start,
            folders: BTreeMap::new(),
            items: BTreeMap::new(),
        };
        let end = match bits {
            12 => 0xFF8,
            16 => 0xFFF8,
            _ => 0x0FFF_FFF8,
        };
        let mut owned = vec![false; out.tables.first().map_or(0, Vec::len)];
        let root = match bits {
            32 => {
                let chain = out.chain(u32_at(&boot, 44)?, end, &mut owned)?;
                out.read_chain(&chain, u64::MAX)?
            }
            _ => read(device, root_start, root_bytes)?,
        };
        let mut pending = vec![(String::new(), root)];
        while let Some((path, bytes)) = pending.pop() {
            for (index, name, raw) in names(&bytes) {
                let first = u16_at(raw, 20)? << 16 | u16_at(raw, 26)?;
                let is_folder = raw.get(11).is_some_and(|attributes| attributes & 0x10 != 0);
                let size = if is_folder { 0 } else { u32_at(raw, 28)? };
                let chain = if first == 0 { Vec::new() } else { out.chain(first, end, &mut owned)? };
                if (chain.len() as u64).saturating_mul(cluster_bytes) < size {
                    return Err(broken("a file is longer than its chain"));
                }
                let own = format!("{path}/{name}");
                if is_folder {
                    pending.push((own.clone(), out.read_chain(&chain, u64::MAX)?));
                }
                let item = Item { is_folder, size, chain, place: (path.clone(), index) };
                if out.items.insert(own, item).is_some() || out.items.len() > ITEMS_MAX {
                    return Err(broken("two files of one name, or far too many"));
                }
            }
            out.folders.insert(path, bytes);
        }
        Ok(out)
    }

    /// The clusters from `first` on, each of which nothing else owns.
    fn chain(&self, first: u64, end: u32, owned: &mut [bool]) -> Result<Vec<u32>> {
        let mut out = Vec::new();
        let mut at = u32::try_from(first).unwrap_or(u32::MAX);
        while at < end {
            let index = usize::try_from(at).unwrap_or(usize::MAX);
            let is_owned = owned.get_mut(index).filter(|_| at >= 2);
            let is_owned = is_owned.ok_or_else(|| broken("a chain leads out of the volume"))?;
            if std::mem::replace(is_owned, true) {
                return Err(broken("a cluster has two owners"));
            }
            out.push(at);
            at = self.tables.first().and_then(|table| table.get(index)).copied().unwrap_or(0);
        }
        Ok(out)
    }

    fn read_chain(&self, chain: &[u32], limit: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for cluster in chain {
            let start = self.data_start + u64::from(cluster.saturating_sub(2)) * self.cluster_bytes;
            out.extend(read(self.device, start, self.cluster_bytes)?);
            if out.len() as u64 >= limit {
                break;
            }
        }
        out.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(out)
    }

    /// The content of a file.
    pub(super) fn content(&self, item: &Item) -> Result<Vec<u8>> {
        self.read_chain(&item.chain, item.size)
    }

    /// The content of one cluster.
    pub(super) fn cluster(&self, cluster: u32) -> Result<Vec<u8>> {
        self.read_chain(&[cluster], u64::MAX)
    }
}

/// The value of a cluster in a table.
fn value(bytes: &[u8], cluster: u64, bits: u32) -> Result<u32> {
    let at = |at: u64| usize::try_from(at).unwrap_or(usize::MAX - 4);
    let value = match bits {
        12 => u16_at(bytes, at(cluster * 3 / 2))? >> (4 * (cluster & 1)) & 0xFFF,
        16 => u16_at(bytes, at(cluster * 2))?,
        _ => u32_at(bytes, at(cluster * 4))? & 0x0FFF_FFFF,
    };
    u32::try_from(value).map_err(|_| broken("a number of its table"))
}

/// The files and folders of a folder: number of the entry, name in lower case, the entry.
fn names(bytes: &[u8]) -> Vec<(usize, String, &[u8])> {
    let mut out = Vec::new();
    let mut long: BTreeMap<u8, Vec<u16>> = BTreeMap::new();
    let mut checksum = None;
    for (index, raw) in bytes.chunks_exact(SLOT).enumerate() {
        let (first, attributes) = (raw.first().copied().unwrap_or(0), raw.get(11).copied().unwrap_or(0));
        match first {
            0 => break,
            0xE5 => {}
            _ if attributes & 0x3F == 0x0F => {
                let units = [1..11, 14..26, 28..32].into_iter().filter_map(|range| raw.get(range)).flatten();
                let bytes: Vec<u8> = units.copied().collect();
                let units = bytes.as_chunks::<2>().0.iter().map(|two| u16::from_le_bytes(*two));
                if first & 0x40 != 0 || checksum != raw.get(13) {
                    long.clear();
                }
                checksum = raw.get(13);
                long.insert(first & 0x3F, units.collect());
                continue;
            }
            b'.' => {}
            _ if attributes & 0x08 != 0 => {}
            _ => {
                let own = raw.iter().take(11).fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte));
                if checksum != Some(&own) {
                    // the long name of another entry, which is gone
                    long.clear();
                }
                let units: Vec<u16> = std::mem::take(&mut long).into_values().flatten().collect();
                let units = units.split(|unit| *unit == 0).next().unwrap_or_default();
                let text = |range| -> String {
                    let part: &[u8] = raw.get::<std::ops::Range<usize>>(range).unwrap_or_default();
                    part.iter().map(|byte| char::from(*byte)).collect::<String>().trim_end().to_owned()
                };
                // Letters of a short name outside of ASCII belong to a code page that is not known here.
                let name = match (units.is_empty(), text(0..8), text(8..11)) {
                    (false, ..) => String::from_utf16_lossy(units).to_lowercase(),
                    (true, base, extension) if extension.is_empty() => base.to_ascii_lowercase(),
                    (true, base, extension) => format!("{base}.{extension}").to_ascii_lowercase(),
                };
                out.push((index, name, raw));
            }
        }
        long.clear();
    }
    out
}
