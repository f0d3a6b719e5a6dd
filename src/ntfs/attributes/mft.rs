//! Growing `$MFT`, whose own attributes say where it is.

use std::sync::Arc;

use super::owned::{Attributes, OwnedAttribute};
use super::read::{load, system_file};
use super::write::store_with;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeWrite;
use crate::ntfs::allocator::full;
use crate::ntfs::core::Core;
use crate::ntfs::format::attribute::{AttributeType, StreamSizes};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::record::Record;
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{RecordNumber, Vcn};
use crate::ntfs::pager::Pager;
use crate::ntfs::stream::Stream;

/// `$MFT` grows by at least this many bytes, then by as much as it has grown already: a job with few files formats few
/// records …
const MFT_STEP_MIN: u64 = 64 << 10;
/// … and by at most an eighth of it, and this: few long runs keep its run list short.
const MFT_STEP_MAX: u64 = 4 << 20;

/// Records that are formatted at once.
const FORMAT_RECORDS: u64 = 64;

/// Allocates a free record, growing `$MFT` if there is none: its number, and the sequence number for its next use.
pub(crate) fn allocate_record<D: VolumeWrite>(core: &mut Core<D>) -> Result<(RecordNumber, u16)> {
    if let Some(allocated) = core.records.allocate(&mut core.pager)? {
        return Ok(allocated);
    }
    grow_mft(core)?;
    let allocated = core.records.allocate(&mut core.pager)?;
    allocated.ok_or_else(|| Error::bug(Layer::Ntfs, "no free record after $MFT has grown"))
}

/// Puts the attributes of `$MFT` back.
pub(super) fn store_mft<D: VolumeWrite>(core: &mut Core<D>, attributes: Attributes) -> Result<()> {
    store_with(core, attributes, allocate_extension_of_mft)
}

/// A record for an attribute of `$MFT` that leaves record 0.
fn allocate_extension_of_mft<D: VolumeWrite>(
    core: &mut Core<D>,
    attributes: &Attributes,
    attribute: &OwnedAttribute,
) -> Result<(RecordNumber, u16)> {
    // only extents of the data may lie beyond the part that record 0 itself maps
    let data = attributes.items.iter().filter(|a| a.is_unnamed_data());
    let second = data.map(|a| a.lowest).filter(|&vcn| vcn > Vcn(0)).min();
    let before = if attribute.is_unnamed_data() { attribute.lowest } else { second.unwrap_or(Vcn(u64::MAX)) };
    core.records.allocate_for_mft(&mut core.pager, before)
}

/// Makes `$MFT` longer by a piece of free records.
fn grow_mft<D: VolumeWrite>(core: &mut Core<D>) -> Result<()> {
    let Stream::Runs { runs, sizes } = (**core.pager.mft()).clone() else {
        return Err(damaged("$MFT is resident"));
    };
    let record = u64::from(core.pager.geometry.record_size);
    let cluster = u64::from(core.pager.geometry.cluster_size);
    if sizes.initialized != sizes.data || sizes.data % record != 0 {
        return Err(Error::unsupported(Layer::Ntfs, "$MFT is not written to its end"));
    }
    let unit = record.max(cluster);
    let most = (sizes.data / 8).clamp(MFT_STEP_MIN, MFT_STEP_MAX);
    let mut step = core.records.mft_growth().clamp(MFT_STEP_MIN, most).next_multiple_of(unit);
    // room inside the allocation comes first: Windows allocates more than it uses
    let spare = (sizes.allocated.saturating_sub(sizes.data) / record * record).min(step);
    let (runs, new_data) = if spare > 0 {
        (runs, sizes.data + spare)
    } else {
        loop {
            let mut longer = runs.clone();
            if core.clusters.extend_mft(&mut core.pager, &mut longer, step / cluster)? {
                break (longer, core.pager.geometry.bytes_in(runs.end() + step / cluster) / record * record);
            }
            if step <= unit {
                return Err(full());
            }
            step = (step / 2).next_multiple_of(unit);
        }
    };
    format_records(&mut core.pager, &runs, sizes.data / record, new_data / record)?;
    core.records.add_fresh(sizes.data / record..new_data / record, new_data - sizes.data);
    let allocated = core.pager.geometry.bytes_in(runs.end());
    let sizes = StreamSizes { allocated, data: new_data, initialized: new_data, ..sizes };
    let stream = Stream::Runs { runs, sizes };
    grow_record_bitmap(core, new_data / record)?;
    let mut attributes = load(&core.pager, system_file(&core.pager, RecordNumber::MFT)?)?;
    attributes.set_stream(AttributeType::DATA, &NtfsName::default(), &stream, core.pager.geometry.cluster_size);
    core.pager.set_mft(Arc::new(stream));
    store_mft(core, attributes)
}

/// Writes free records to a new part of `$MFT`. Nothing refers to it yet, so it goes straight to the device.
fn format_records<D: VolumeWrite>(pager: &mut Pager<D>, runs: &Runlist, from: u64, to: u64) -> Result<()> {
    let size = pager.geometry.record_size as usize;
    let mut bytes = Vec::with_capacity(FORMAT_RECORDS as usize * size);
    let mut next = from;
    while next < to {
        let end = to.min(next + FORMAT_RECORDS);
        bytes.clear();
        for number in next..end {
            Record::blank(RecordNumber(number), 1, 0, size).seal_into(&mut bytes)?;
        }
        pager.write_runs(runs, next * size as u64, &bytes)?;
        next = end;
    }
    Ok(())
}

/// Makes `$MFT:$BITMAP` long enough for `records`.
fn grow_record_bitmap<D: VolumeWrite>(core: &mut Core<D>, records: u64) -> Result<()> {
    let needed = records.div_ceil(8).next_multiple_of(8);
    let old = Arc::clone(core.records.bitmap_stream());
    if needed <= old.len() {
        return Ok(());
    }
    let stream = match &*old {
        Stream::Resident(value) => {
            let mut value = value.clone();
            value.resize(needed as usize, 0);
            if value.len() <= 64 {
                Stream::Resident(value)
            } else {
                core.clusters.new_plain_stream(&mut core.pager, &value)?
            }
        }
        Stream::Runs { runs, sizes } => {
            let mut runs = runs.clone();
            let clusters = core.pager.geometry.clusters_for(needed);
            core.clusters.extend_runs(&mut core.pager, &mut runs, clusters)?;
            let from = sizes.initialized.min(sizes.data);
            let allocated = core.pager.geometry.bytes_in(runs.end());
            let to = needed.next_multiple_of(core.pager.page_size() as u64).min(allocated);
            core.pager.write_metadata(&runs, from, &vec![0; to.saturating_sub(from) as usize])?;
            Stream::Runs { runs, sizes: StreamSizes { allocated, data: needed, initialized: needed, ..*sizes } }
        }
    };
    let mut attributes = load(&core.pager, system_file(&core.pager, RecordNumber::MFT)?)?;
    attributes.set_stream(AttributeType::BITMAP, &NtfsName::default(), &stream, core.pager.geometry.cluster_size);
    core.records.set_bitmap_stream(Arc::new(stream));
    store_mft(core, attributes)
}
