//! Filing descriptors in `$Secure`: `$SDS` with its copy, `$SII` and `$SDH`.

use std::ops::ControlFlow;

use super::descriptor;
use super::sds::{BLOCK, FIRST_ID, HEADER, SDH, SII, SdsEntry, place};
use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::attribute::AttributeType;
use crate::ntfs::attributes::{load, store, stream_of, system_file};
use crate::ntfs::btree::{Btree, BtreeEditor};
use crate::ntfs::core::Core;
use crate::ntfs::damaged;
use crate::ntfs::index::IndexEntry;
use crate::ntfs::metadata::standard_information;
use crate::ntfs::name::NtfsName;
use crate::ntfs::pager::Pager;
use crate::ntfs::stream::Stream;
use crate::ntfs::units::{FileId, RecordNumber};

/// What Windows writes after the data of an entry of `$SDH`.
const SDH_TAIL: &[u8] = b"I\0I\0";
/// `$SDS` is never longer: ids are 32 bits, but no system has more than some thousands of descriptors.
const SDS_MAX: u64 = 1 << 30;

/// What `$Secure` holds, as far as a new descriptor needs to know.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// Hash of the new descriptor.
    hash: u32,
    /// The highest id in use.
    last_id: u32,
    /// Where the last entry ends.
    end: u64,
    /// Entries with the wanted hash.
    candidates: Vec<SdsEntry>,
}

/// Whether `$Secure` has a descriptor.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// Under this id.
    Found(u32),
    /// It has to be added; with what [`add_descriptor`] needs to know.
    Missing(Inventory),
}

fn sds_name() -> NtfsName {
    NtfsName::from("$SDS")
}

fn secure_file<D: VolumeRead>(pager: &Pager<D>) -> Result<FileId> {
    system_file(pager, RecordNumber::SECURE)
}

fn sds_stream<D: VolumeRead>(pager: &Pager<D>) -> Result<Stream> {
    let stream = stream_of(pager, secure_file(pager)?, AttributeType::DATA, &sds_name())?;
    let stream = stream.filter(|s| s.runs().is_some()).ok_or_else(|| damaged("$Secure has no plain $SDS"))?;
    stream.check_metadata("$SDS")?;
    if stream.len() > 2 * SDS_MAX {
        return Err(damaged("$SDS is impossibly long").expected_found(format!("up to {}", 2 * SDS_MAX), stream.len()));
    }
    Ok(stream)
}

/// Walks `$SII`, which alone says what in `$SDS` is valid: there are gaps and leftovers in the stream.
fn collect_inventory<D: VolumeRead>(pager: &Pager<D>, hash: u32) -> Result<Inventory> {
    let size = sds_stream(pager)?.len();
    let index = Btree::open(pager, secure_file(pager)?, SII)?;
    let mut found = Inventory { hash, ..Inventory::default() };
    index.walk(&mut |entry| {
        let entry = SdsEntry::parse(entry.data()).filter(|e| e.is_in_place(size)).ok_or_else(|| {
            damaged("an entry of $SII points outside $SDS").hint("run chkdsk in the guest and export the disk again")
        })?;
        found.last_id = found.last_id.max(entry.id);
        found.end = found.end.max(entry.offset + u64::from(entry.length));
        if entry.hash == hash {
            found.candidates.push(entry);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// The descriptor that an entry points to, with its header.
fn read_descriptor<D: VolumeRead>(pager: &Pager<D>, entry: &SdsEntry) -> Result<Vec<u8>> {
    let mut bytes = vec![0; entry.length as usize];
    let got = pager.read_stream(&sds_stream(pager)?, entry.offset, &mut bytes)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// The descriptor of a file or folder: from `$Secure`, or its own (`$SECURITY_DESCRIPTOR`, as old versions of Windows and
/// other drivers write it).
pub(crate) fn descriptor_of<D: VolumeRead>(pager: &Pager<D>, file: FileId) -> Result<Option<Vec<u8>>> {
    if let Some(id) = standard_information(pager, file)?.security.filter(|&id| id != 0) {
        return security_descriptor(pager, id);
    }
    let own = stream_of(pager, file, AttributeType::SECURITY_DESCRIPTOR, &NtfsName::default())?;
    own.map(|own| pager.read_small(&own, descriptor::MAX as u64, "$SECURITY_DESCRIPTOR")).transpose()
}

/// The security descriptor that an id in `$Secure` stands for; `None` if there is no such id.
pub(crate) fn security_descriptor<D: VolumeRead>(pager: &Pager<D>, id: u32) -> Result<Option<Vec<u8>>> {
    let index = Btree::open(pager, secure_file(pager)?, SII)?;
    let entry = index.find(&id.to_le_bytes(), true, |entry| SdsEntry::parse(entry.data()))?;
    let size = sds_stream(pager)?.len();
    let Some(entry) = entry.flatten().filter(|e| e.is_in_place(size)) else { return Ok(None) };
    Ok(read_descriptor(pager, &entry)?.get(HEADER..).map(<[u8]>::to_vec))
}

/// Finds a descriptor in `$Secure` that equals a self-relative one.
pub(crate) fn find_descriptor<D: VolumeRead>(pager: &Pager<D>, descriptor: &[u8]) -> Result<Lookup> {
    descriptor::validate(descriptor)?;
    let inventory = collect_inventory(pager, descriptor::hash(descriptor))?;
    for entry in &inventory.candidates {
        if read_descriptor(pager, entry)?.get(HEADER..) == Some(descriptor) {
            return Ok(Lookup::Found(entry.id));
        }
    }
    Ok(Lookup::Missing(inventory))
}

/// Adds a descriptor to `$Secure`; returns its id.
pub(crate) fn add_descriptor<D: VolumeWrite>(
    core: &mut Core<D>,
    descriptor: &[u8],
    inventory: &Inventory,
) -> Result<u32> {
    let length = (HEADER + descriptor.len()) as u64;
    let full = || {
        Error::refused(Layer::Ntfs, "$Secure has no room for another security descriptor")
            .hint("run chkdsk in the guest: it drops the descriptors that nothing uses")
    };
    let offset = place(inventory.end, length).filter(|&at| at < SDS_MAX).ok_or_else(full)?;
    let id = inventory.last_id.max(FIRST_ID - 1).checked_add(1).ok_or_else(full)?;
    let entry = SdsEntry { hash: inventory.hash, id, offset, length: u32::try_from(length).map_err(|_| full())? };
    let header = entry.to_bytes();
    grow_sds(core, offset + BLOCK + length)?;
    let bytes = [&header[..], descriptor].concat();
    if let Stream::Runs { runs, .. } = sds_stream(&core.pager)? {
        core.pager.write_metadata(&runs, offset, &bytes)?;
        core.pager.write_metadata(&runs, offset + BLOCK, &bytes)?;
    }
    let secure = secure_file(&core.pager)?;
    BtreeEditor::new(core, secure, SII).insert(IndexEntry::for_view(&id.to_le_bytes(), &header, &[]))?;
    let key = [inventory.hash.to_le_bytes(), id.to_le_bytes()].concat();
    BtreeEditor::new(core, secure, SDH).insert(IndexEntry::for_view(&key, &header, SDH_TAIL))?;
    Ok(id)
}

/// Makes `$SDS` at least `wanted` bytes long; what is new reads as zeros.
fn grow_sds<D: VolumeWrite>(core: &mut Core<D>, wanted: u64) -> Result<()> {
    let mut attrs = load(&core.pager, secure_file(&core.pager)?)?;
    let stream = attrs.stream(AttributeType::DATA, &sds_name(), core.pager.geometry.cluster_count)?;
    let Some(Stream::Runs { mut runs, mut sizes }) = stream else {
        return Err(damaged("$Secure has no plain $SDS"));
    };
    if wanted <= sizes.initialized {
        return Ok(());
    }
    let clusters = core.pager.geometry.clusters_for(wanted);
    core.clusters.extend_runs(&mut core.pager, &mut runs, clusters)?;
    let old = sizes.initialized;
    sizes.allocated = core.pager.geometry.bytes_in(runs.end());
    sizes.data = sizes.data.max(wanted);
    sizes.initialized = sizes.data;
    let zeros = vec![0; usize::try_from(sizes.data - old).unwrap_or(0)];
    core.pager.write_metadata(&runs, old, &zeros)?;
    let cluster_size = core.pager.geometry.cluster_size;
    attrs.set_stream(AttributeType::DATA, &sds_name(), &Stream::Runs { runs, sizes }, cluster_size);
    store(core, attrs)
}
