//! Check of the volume's bitmaps before the first edit: what is written must land in free clusters and records.

use crate::error::Result;
use crate::ntfs::check::{Owners, cluster_owners};
use crate::partition::{Disk, Partition, PartitionView};

/// The warning in the report of a run without this check.
pub(super) const SKIPPED: &str = "the volume was not checked before the edit (--skip-volume-check): where its $Bitmap is \
                                  wrong, files of the guest may have been overwritten";

/// Compares the bitmaps of the volume with its file records. Reads only.
///
/// # Errors
/// [`Kind::Damaged`](crate::Kind::Damaged) when an edit that trusts the bitmaps could overwrite something; and when the
/// disk cannot be read.
pub(super) fn check_volume<D: Disk>(disk: D, partition: &Partition) -> Result<Owners> {
    let owners =
        cluster_owners(&PartitionView::new(disk, partition)?).map_err(|error| error.path(partition.label()))?;
    tracing::debug!("{} records own {} clusters", owners.records, owners.clusters);
    Ok(owners)
}
