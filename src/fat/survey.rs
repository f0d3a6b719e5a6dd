//! Who owns which cluster: read of the whole volume before anything on it is changed.

use super::boot_sector::{BootSector, Geometry};
use super::chain::{Folder, read_chain};
use super::entry::visit_entries;
use super::error::damaged;
use super::table::Table;
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::io::VolumeRead;

/// Most files and folders of a volume that is edited. A system partition has some hundred.
const ENTRIES_MAX: usize = 1 << 20;

/// The space of a FAT volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FatSpace {
    /// Bytes of a cluster.
    pub cluster_bytes: u64,
    /// Clusters that belong to no file.
    pub free_clusters: u32,
}

impl FatSpace {
    /// Whether a new file of this length, with one new folder, finds its place.
    #[must_use]
    pub fn has_room_for(&self, bytes: u64) -> bool {
        // One for a folder, one for the entry in a folder that is full.
        bytes.div_ceil(self.cluster_bytes.max(1)).saturating_add(2) <= u64::from(self.free_clusters)
    }
}

/// A volume on which every cluster belongs to one file at most.
#[derive(Debug)]
pub(super) struct Survey {
    pub geometry: Geometry,
    pub table: Table,
    /// Whether a file or folder owns the cluster, by its number.
    pub owned: Vec<bool>,
}

/// Checks that a FAT volume can be edited: it was unmounted (unless `allow_dirty`), the copies of its table are equal, and
/// every cluster belongs to one file at most.
///
/// # Errors
/// [`Kind::Unsupported`](crate::error::Kind::Unsupported) when the volume is not FAT,
/// [`Kind::Damaged`](crate::error::Kind::Damaged) or [`Kind::Refused`](crate::error::Kind::Refused) when it is not edited.
pub fn survey_fat<D: VolumeRead>(volume: &D, allow_dirty: bool) -> Result<FatSpace> {
    let survey = survey(volume, allow_dirty)?;
    Ok(FatSpace { cluster_bytes: survey.geometry.cluster_bytes, free_clusters: survey.table.count_free()? })
}

/// See [`survey_fat`].
pub(super) fn survey<D: VolumeRead>(volume: &D, allow_dirty: bool) -> Result<Survey> {
    let geometry = BootSector::read_geometry(volume)?;
    if !geometry.is_mirrored {
        return Err(Error::unsupported(
            Layer::Partition,
            "cannot edit the FAT volume: only one copy of its table is in use",
        ));
    }
    let table = Table::read(volume, &geometry)?;
    if !allow_dirty && (geometry.is_marked_dirty || !table.is_marked_clean()) {
        return Err(Error::refused(Layer::Partition, "cannot edit the FAT volume: it is marked dirty")
            .with_code(ErrorCode::VolumeDirty)
            .hint("let Windows check it (chkdsk /f) and shut down cleanly, or add --allow-dirty"));
    }
    let owned = find_owners(volume, &geometry, &table)?;
    Ok(Survey { geometry, table, owned })
}

fn find_owners<D: VolumeRead>(volume: &D, geometry: &Geometry, table: &Table) -> Result<Vec<bool>> {
    let mut owned = vec![false; usize::try_from(table.clusters().end).unwrap_or(0)];
    let mut claim = |chain: &[u32]| {
        for cluster in chain {
            match usize::try_from(*cluster).ok().and_then(|at| owned.get_mut(at)) {
                Some(is_owned) if !*is_owned => *is_owned = true,
                Some(_) => return Err(damaged("two files share a cluster")),
                None => return Err(damaged("a chain leaves the volume")),
            }
        }
        Ok(())
    };
    let root = Folder::root(table, geometry)?;
    let mut pending = vec![root];
    let mut entries = 0usize;
    while let Some(folder) = pending.pop() {
        if let Folder::Chain(chain) = &folder {
            claim(chain)?;
        }
        let bytes = folder.read(volume, geometry)?;
        let mut found = Vec::new();
        visit_entries(&bytes, |_, short, entry| {
            if short != "." && short != ".." {
                found.push(entry);
            }
            true
        });
        entries += found.len();
        if entries > ENTRIES_MAX {
            return Err(damaged("it has more files than a system partition can have"));
        }
        for entry in found {
            if entry.is_folder {
                pending.push(Folder::at(table, entry.first, geometry)?);
                continue;
            }
            let chain = if entry.first == 0 { Vec::new() } else { read_chain(table, entry.first)? };
            if (chain.len() as u64).saturating_mul(geometry.cluster_bytes) < entry.size {
                return Err(damaged("a file's clusters end before the file"));
            }
            claim(&chain)?;
        }
    }
    Ok(owned)
}
