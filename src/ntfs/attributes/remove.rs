//! Removing an attribute from a file.

use super::owned::Attributes;
use crate::error::Result;
use crate::io::VolumeWrite;
use crate::ntfs::core::Core;
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::stream::Stream;

/// Removes an attribute, all its extents, and frees its clusters. The caller stores the attributes.
pub(crate) fn remove_attribute<D: VolumeWrite>(
    core: &mut Core<D>,
    attrs: &mut Attributes,
    kind: AttributeType,
    name: &NtfsName,
) -> Result<()> {
    if let Some(Stream::Runs { runs, .. }) = attrs.stream(kind, name, core.pager.geometry.cluster_count)? {
        core.clusters.free(&mut core.pager, runs.real())?;
    }
    attrs.remove(kind, name);
    Ok(())
}
