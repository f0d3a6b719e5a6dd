//! The table of internal snapshots (QEMU docs/interop/qcow2.rst, "Snapshots").

use super::bytes::{be16, be32, be64};
use super::header::{Header, L1_BYTES_MAX};
use crate::block::{Storage, StorageExt};
use crate::error::{Error, Layer, Result};

/// QEMU's limits: a table of 64 MiB, 1 KiB of extra data for each entry.
const TABLE_BYTES_MAX: u64 = 64 << 20;
const EXTRA_BYTES_MAX: u32 = 1024;
/// The fixed part of an entry.
const ENTRY_BYTES: usize = 40;

/// An internal snapshot.
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
    pub(super) l1_table_offset: u64,
    pub(super) l1_size: u32,
}

/// All snapshots, and how many bytes their table has.
pub(super) fn read(storage: &dyn Storage, header: &Header) -> Result<(Vec<Snapshot>, u64)> {
    let mut snapshots = Vec::new();
    let mut at = 0u64;
    for _ in 0..header.nb_snapshots {
        let place = header.snapshots_offset.saturating_add(at);
        let damaged = |what: &str| Error::damaged(Layer::Block, format!("snapshot table: {what}")).at(place);
        let read = |offset: u64, length: usize| {
            let mut bytes = vec![0; length];
            storage
                .read_exact_at(offset, &mut bytes)
                .map_err(|e| Error::io(Layer::Block, "the snapshot table cannot be read", e).at(offset))?;
            Ok::<_, Error>(bytes)
        };
        let fixed = read(place, ENTRY_BYTES)?;
        let extra_length = be32(&fixed, 36);
        if extra_length > EXTRA_BYTES_MAX {
            return Err(damaged("too much extra data"));
        }
        let (id_length, name_length) = (usize::from(be16(&fixed, 12)), usize::from(be16(&fixed, 14)));
        let rest = read(place.saturating_add(ENTRY_BYTES as u64), extra_length as usize + id_length + name_length)?;
        let (extra, names) = rest.split_at_checked(extra_length as usize).ok_or_else(|| damaged("cut off"))?;
        let (id, name) = names.split_at_checked(id_length).ok_or_else(|| damaged("cut off"))?;
        let l1_size = be32(&fixed, 8);
        let l1_table_offset = be64(&fixed, 0);
        if u64::from(l1_size) * 8 > L1_BYTES_MAX || !l1_table_offset.is_multiple_of(header.cluster_size()) {
            return Err(damaged("impossible L1 table"));
        }
        snapshots.push(Snapshot {
            id: String::from_utf8_lossy(id).into_owned(),
            name: String::from_utf8_lossy(name).into_owned(),
            date_seconds: be32(&fixed, 16),
            date_nanoseconds: be32(&fixed, 20),
            run_time_nanoseconds: be64(&fixed, 24),
            vm_state_bytes: if extra.len() >= 8 { be64(extra, 0) } else { u64::from(be32(&fixed, 32)) },
            disk_bytes: (extra.len() >= 16).then(|| be64(extra, 8)),
            l1_table_offset,
            l1_size,
        });
        at = (at + (ENTRY_BYTES + rest.len()) as u64).next_multiple_of(8);
        if at > TABLE_BYTES_MAX {
            return Err(damaged("longer than 64 MiB"));
        }
    }
    Ok((snapshots, at))
}
