//! The smallest volume on which the parts can be tested one by one: `$MFT` and the two bitmaps, nothing else.

use std::ops::Range;
use std::sync::Arc;

use super::allocator::{ClusterAllocator, RecordAllocator};
use super::attributes::{Attributes, store};
use super::core::Core;
use super::format::attribute::{AttributeType, StreamSizes};
use super::format::boot::Geometry;
use super::format::name::NtfsName;
use super::format::record::{FLAG_IN_USE, Record};
use super::format::runlist::Runlist;
use super::format::units::{FileId, Lcn, RecordNumber};
use super::pager::Pager;
use super::short_name_hints::ShortNameHints;
use super::stream::Stream;
use crate::clock::FileTime;
use crate::io::MemoryVolume;

/// Clusters of 1 KiB: 1 is `$Bitmap`, 2 is `$MFT`'s bitmap, `$MFT` comes next.
const CLUSTERS: u64 = 512;
const BITMAP: u64 = 1;
const RECORD_BITMAP: u64 = 2;
const MFT: u64 = 8;
/// Records of `$MFT`; those of system files are in use.
pub(super) const RECORDS: u64 = 32;

fn stream(lcn: u64, clusters: u64, bytes: u64) -> Stream {
    let mut runs = Runlist::default();
    runs.push(Some(Lcn(lcn)), clusters);
    let sizes = StreamSizes { allocated: clusters << 10, data: bytes, initialized: bytes, ..StreamSizes::default() };
    Stream::Runs { runs, sizes }
}

/// A pager over the volume's device.
pub(super) fn pager() -> Pager<MemoryVolume> {
    let mut bytes = vec![0u8; (CLUSTERS << 10) as usize];
    for n in 0..MFT + RECORDS {
        bytes[(BITMAP << 10) as usize + (n / 8) as usize] |= 1 << (n % 8);
    }
    for n in 0..RECORDS {
        let in_use = n < RecordNumber::FIRST_USER.0;
        let mut record = Record::blank(RecordNumber(n), 1, if in_use { FLAG_IN_USE } else { 0 }, 1024);
        bytes[((MFT + n) << 10) as usize..][..1024].copy_from_slice(&record.seal().unwrap());
        bytes[(RECORD_BITMAP << 10) as usize + (n / 8) as usize] |= u8::from(in_use) << (n % 8);
    }
    let geometry = Geometry {
        sector_size: 512,
        cluster_size: 1024,
        total_sectors: CLUSTERS * 2,
        cluster_count: CLUSTERS,
        mft: Lcn(MFT),
        mirror: Lcn(MFT),
        record_size: 1024,
        index_block_size: 4096,
        serial: 0,
    };
    Pager::new(MemoryVolume(bytes), geometry, stream(MFT, RECORDS, RECORDS << 10))
}

/// The allocator of the volume's clusters.
pub(super) fn clusters() -> ClusterAllocator {
    ClusterAllocator::new(Arc::new(stream(BITMAP, 1, CLUSTERS / 8)), vec![Range { start: 0, end: MFT }])
}

/// The allocator of the volume's records.
pub(super) fn records() -> RecordAllocator {
    RecordAllocator::new(Arc::new(stream(RECORD_BITMAP, 1, 8)))
}

/// All parts, with the attributes of `$MFT` in record 0.
pub(super) fn core() -> Core<MemoryVolume> {
    let mut core = Core {
        pager: pager(),
        clusters: clusters(),
        records: records(),
        clock: FileTime(1),
        short_names: false,
        short_name_hints: ShortNameHints::default(),
    };
    let mut mft = Attributes::new(FileId { record: RecordNumber::MFT, sequence: 1 });
    mft.set_value(AttributeType::STANDARD_INFORMATION, "", &[0; 72]);
    let unnamed = NtfsName::default();
    mft.set_stream(AttributeType::DATA, &unnamed, core.pager.mft(), 1024);
    mft.set_stream(AttributeType::BITMAP, &unnamed, core.records.bitmap_stream(), 1024);
    store(&mut core, mft).unwrap();
    core
}
