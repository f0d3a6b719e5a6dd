//! The little of NTFS that shows whether a key fits: boot sector and first file record.

use crate::field::Field;
use crate::ntfs::format::fixup::STRIDE;

const BYTES_PER_SECTOR: Field<u16> = Field::at(11);
const SECTORS_PER_CLUSTER: Field<u8> = Field::at(13);
const SECTORS: Field<u64> = Field::at(40);
const MFT_CLUSTER: Field<u64> = Field::at(48);
const RECORD_SIZE: Field<u8> = Field::at(64);
/// Update sequence array of a record.
const FIXUP_OFFSET: Field<u16> = Field::at(4);
const FIXUP_COUNT: Field<u16> = Field::at(6);
const RECORD_NUMBER: Field<u32> = Field::at(44);

/// Whether a sector ends as boot sectors do.
pub(super) fn has_signature(sector: &[u8]) -> bool {
    sector.get(510..512) == Some(&[0x55, 0xAA])
}

/// Whether it is a boot sector of NTFS.
pub(super) fn is_ntfs(sector: &[u8]) -> bool {
    sector.get(3..11) == Some(b"NTFS    ") && has_signature(sector)
}

/// Length of the file system in bytes, without the copy of the boot sector that follows it.
pub(super) fn length(sector: &[u8]) -> u64 {
    SECTORS.get(sector).saturating_mul(u64::from(BYTES_PER_SECTOR.get(sector)))
}

/// Length in bytes with the copy of the boot sector that follows the file system.
pub(super) fn length_with_copy(sector: &[u8]) -> u64 {
    length(sector).saturating_add(u64::from(BYTES_PER_SECTOR.get(sector)))
}

/// Volume offset and length of the first file record, `$MFT`.
pub(super) fn first_record(sector: &[u8]) -> Option<(u64, usize)> {
    let per_cluster = match SECTORS_PER_CLUSTER.get(sector) {
        count @ 1..=128 => u64::from(count),
        exponent @ 244.. => 1 << (256 - u16::from(exponent)),
        _ => return None,
    };
    let cluster = per_cluster * u64::from(BYTES_PER_SECTOR.get(sector));
    let length = match RECORD_SIZE.get(sector) {
        exponent @ 0xF4..=0xF7 => 1usize << (256 - u16::from(exponent)),
        clusters @ 1..=16 => usize::try_from(u64::from(clusters) * cluster).ok().filter(|length| *length <= 4096)?,
        _ => return None,
    };
    Some((MFT_CLUSTER.get(sector).checked_mul(cluster)?, length))
}

/// Whether it is file record 0, of which every sector arrived.
pub(super) fn is_record(record: &[u8]) -> bool {
    let start = usize::from(FIXUP_OFFSET.get(record));
    let count = usize::from(FIXUP_COUNT.get(record));
    let number = record.get(start..).and_then(<[u8]>::first_chunk::<2>);
    let complete = |end: &[u8; 2]| Some(end) == number;
    let mut ends = record.chunks_exact(STRIDE).filter_map(<[u8]>::last_chunk::<2>);
    record.starts_with(b"FILE")
        && count == record.len() / STRIDE + 1
        && ends.all(complete)
        && RECORD_NUMBER.get(record) == 0
}
