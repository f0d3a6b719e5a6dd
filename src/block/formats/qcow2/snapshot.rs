//! The table of internal snapshots (QEMU docs/interop/qcow2.rst, "Snapshots").

use std::mem::size_of;

use zerocopy::FromBytes;
use zerocopy::big_endian::U64;

use super::header::{Header, L1_BYTES_MAX};
use super::on_disk::StoredSnapshot;
use crate::block::{Storage, StorageExt};
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// QEMU's limits: a table of 64 MiB, 1 KiB of extra data for each entry.
const TABLE_BYTES_MAX: u64 = 64 << 20;
const EXTRA_BYTES_MAX: u32 = 1024;

/// An internal snapshot: a state of the disk that the same file keeps. Names come from the image: escape them before
/// printing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The number that QEMU gave it, as text.
    pub id: String,
    /// The user's name for it.
    pub name: String,
    /// When it was taken, in seconds since 1970.
    pub date_seconds: u32,
    /// Nanoseconds of that time.
    pub date_nanoseconds: u32,
    /// How long the guest had run, in nanoseconds.
    pub run_time_nanoseconds: u64,
    /// Bytes of saved machine state; 0 for a snapshot of the disk alone.
    pub vm_state_bytes: u64,
    /// The disk's size at that time, if recorded.
    pub disk_bytes: Option<u64>,
    pub(super) l1_table: HostOffset,
    pub(super) l1_size: u32,
}

/// Reads all snapshots; returns also how many bytes their table has.
pub(super) fn read(storage: &dyn Storage, header: &Header) -> Result<(Vec<Snapshot>, u64)> {
    let mut snapshots = Vec::new();
    let mut length = 0u64;
    for _ in 0..header.snapshot_count {
        let at = header.snapshot_table.saturating_add(length);
        let damaged = |what: &str| Error::damaged(Layer::Block, format!("snapshot table: {what}")).at(at);
        let mut fixed = [0; size_of::<StoredSnapshot>()];
        read_at(storage, at, &mut fixed)?;
        let stored = StoredSnapshot::ref_from_bytes(&fixed).map_err(|_| damaged("cut off"))?;
        let extra_length = stored.extra_data_size.get();
        if extra_length > EXTRA_BYTES_MAX {
            return Err(damaged("too much extra data"));
        }
        let (id_length, name_length) = (usize::from(stored.id_length.get()), usize::from(stored.name_length.get()));
        let mut rest = vec![0; extra_length as usize + id_length + name_length];
        read_at(storage, at.saturating_add(fixed.len() as u64), &mut rest)?;
        let (extra, names) = rest.split_at_checked(extra_length as usize).ok_or_else(|| damaged("cut off"))?;
        let (id, name) = names.split_at_checked(id_length).ok_or_else(|| damaged("cut off"))?;
        let l1_table = HostOffset(stored.l1_table_offset.get());
        if u64::from(stored.l1_size.get()) * 8 > L1_BYTES_MAX || !header.clusters.is_aligned(l1_table) {
            return Err(damaged("invalid L1 table"));
        }
        // Of the extra data the end may be missing: older writers knew the first field only.
        let vm_state_size = U64::ref_from_prefix(extra).ok();
        let disk_size = vm_state_size.and_then(|(_, rest)| U64::ref_from_prefix(rest).ok());
        snapshots.push(Snapshot {
            id: String::from_utf8_lossy(id).into_owned(),
            name: String::from_utf8_lossy(name).into_owned(),
            date_seconds: stored.date_seconds.get(),
            date_nanoseconds: stored.date_nanoseconds.get(),
            run_time_nanoseconds: stored.vm_clock_nanoseconds.get(),
            vm_state_bytes: vm_state_size.map_or(u64::from(stored.vm_state_size.get()), |(size, _)| size.get()),
            disk_bytes: disk_size.map(|(size, _)| size.get()),
            l1_table,
            l1_size: stored.l1_size.get(),
        });
        length = (length + (fixed.len() + rest.len()) as u64).next_multiple_of(8);
        if length > TABLE_BYTES_MAX {
            return Err(damaged("longer than 64 MiB"));
        }
    }
    Ok((snapshots, length))
}

fn read_at(storage: &dyn Storage, at: HostOffset, buf: &mut [u8]) -> Result<()> {
    storage.read_exact_at(at.0, buf).map_err(|e| Error::io(Layer::Block, "cannot read the snapshot table", e).at(at))
}
