//! Chains of clusters, and the bytes of folders.

use super::boot_sector::{Geometry, Root};
use super::error::damaged;
use super::table::{Link, Table};
use crate::error::Result;
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// Largest folder, in bytes: 65,536 entries, FAT's own limit.
pub(super) const FOLDER_BYTES_MAX: u64 = 65_536 * 32;

/// Where a folder's entries lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Folder {
    /// The root folder of FAT12 and FAT16.
    Area {
        /// Offset on the volume.
        start: u64,
        /// Length in bytes.
        length: u64,
    },
    /// Clusters, the first one first.
    Chain(Vec<u32>),
}

impl Folder {
    /// The root folder.
    pub(super) fn root(table: &Table, geometry: &Geometry) -> Result<Self> {
        match geometry.root {
            Root::Area { start, length } => Ok(Self::Area { start, length }),
            Root::Cluster(first) => Self::at(table, first, geometry),
        }
    }

    /// The folder that begins at this cluster.
    pub(super) fn at(table: &Table, first: u32, geometry: &Geometry) -> Result<Self> {
        let chain = read_chain(table, first)?;
        if chain.len() as u64 * geometry.cluster_bytes > FOLDER_BYTES_MAX.max(geometry.cluster_bytes) {
            return Err(damaged("a folder is larger than folders can be"));
        }
        Ok(Self::Chain(chain))
    }

    /// Its entries.
    pub(super) fn read<D: VolumeRead>(&self, volume: &D, geometry: &Geometry) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (start, length) in self.places(geometry) {
            let filled = out.len();
            out.resize(filled + usize::try_from(length).unwrap_or(0), 0);
            volume.read_at(VolumeOffset(start), out.get_mut(filled..).unwrap_or_default())?;
        }
        Ok(out)
    }

    fn places(&self, geometry: &Geometry) -> Vec<(u64, u64)> {
        match self {
            Self::Area { start, length } => vec![(*start, *length)],
            Self::Chain(chain) => {
                chain.iter().map(|cluster| (cluster_offset(geometry, *cluster), geometry.cluster_bytes)).collect()
            }
        }
    }

    /// Where on the volume the byte `at` of the folder lies.
    pub(super) fn place(&self, at: u64, geometry: &Geometry) -> Option<u64> {
        let mut left = at;
        for (start, length) in self.places(geometry) {
            if left < length {
                return Some(start + left);
            }
            left -= length;
        }
        None
    }
}

/// Offset of a cluster on the volume.
pub(super) fn cluster_offset(geometry: &Geometry, cluster: u32) -> u64 {
    geometry.data_start + u64::from(cluster.saturating_sub(2)) * geometry.cluster_bytes
}

/// The clusters of a chain.
pub(super) fn read_chain(table: &Table, first: u32) -> Result<Vec<u32>> {
    let mut chain = Vec::new();
    let mut at = first;
    loop {
        chain.push(at);
        if chain.len() > table.clusters().len() {
            return Err(damaged("a chain runs in a circle"));
        }
        match table.link(at)? {
            Link::Next(next) => at = next,
            Link::End => return Ok(chain),
            Link::Free | Link::Bad => return Err(damaged("a chain leads to a cluster that is not in use")),
        }
    }
}
