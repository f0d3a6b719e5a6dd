//! Filing descriptors in `$Secure`: `$SDS` with its copy, `$SII` and `$SDH`.

use super::descriptor::{self, Protected};
use super::sds::{BLOCK, FIRST_ID, HEADER, SdsEntry, place};
use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::attribute::AttributeType;
use crate::ntfs::damaged;
use crate::ntfs::index::Entry;
use crate::ntfs::name::NtfsName;
use crate::ntfs::stream::Stream;
use crate::ntfs::units::{FileId, RecordNumber};
use crate::ntfs::volume::Volume;

/// Index by id.
const SII: &str = "$SII";
/// Index by hash.
const SDH: &str = "$SDH";
/// What Windows writes behind the data of an entry of `$SDH`.
const SDH_TAIL: &[u8] = b"I\0I\0";
/// `$SDS` is never longer: ids are 32 bits, but no system has more than some thousands of descriptors.
const SDS_MAX: u64 = 1 << 30;

/// What `$Secure` holds, as far as a new descriptor needs to know.
#[derive(Debug, Default)]
struct Inventory {
    /// The highest id.
    last_id: u32,
    /// Where the last entry ends.
    end: u64,
    /// Entries with the wanted hash.
    candidates: Vec<SdsEntry>,
}

fn sds_name() -> NtfsName {
    NtfsName::from("$SDS")
}

impl<D: VolumeRead> Volume<D> {
    fn secure(&self) -> Result<FileId> {
        self.system_file(RecordNumber::SECURE)
    }

    fn sds(&self) -> Result<Stream> {
        let stream = self.stream(self.secure()?, AttributeType::DATA, &sds_name())?;
        let stream = stream.filter(|s| s.runs().is_some()).ok_or_else(|| damaged("$Secure has no plain $SDS"))?;
        stream.check_metadata("$SDS")?;
        if stream.len() > 2 * SDS_MAX {
            return Err(
                damaged("$SDS is impossibly long").expected_found(format!("up to {}", 2 * SDS_MAX), stream.len())
            );
        }
        Ok(stream)
    }

    /// Walks `$SII`, which alone says what in `$SDS` is valid: there are gaps and leftovers in the stream.
    fn inventory(&self, hash: u32) -> Result<Inventory> {
        let size = self.sds()?.len();
        let index = self.index(self.secure()?, SII)?;
        let mut found = Inventory::default();
        self.walk(&index, &mut |entry| {
            let entry = SdsEntry::parse(entry.data()).filter(|e| e.is_in_place(size)).ok_or_else(|| {
                damaged("an entry of $SII points outside $SDS")
                    .hint("run chkdsk in the guest and export the disk again")
            })?;
            found.last_id = found.last_id.max(entry.id);
            found.end = found.end.max(entry.offset + u64::from(entry.length));
            if entry.hash == hash {
                found.candidates.push(entry);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The descriptor behind an entry, with its header.
    fn stored(&self, entry: &SdsEntry) -> Result<Vec<u8>> {
        let mut bytes = vec![0; entry.length as usize];
        let got = self.read_stream(&self.sds()?, entry.offset, &mut bytes)?;
        bytes.truncate(got);
        Ok(bytes)
    }

    /// The security descriptor that an id in `$Secure` stands for; `None` if there is no such id.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn security_descriptor(&self, id: u32) -> Result<Option<Vec<u8>>> {
        let index = self.index(self.secure()?, SII)?;
        let entry = self.look_up(&index, &id.to_le_bytes(), true, |entry| SdsEntry::parse(entry.data()))?;
        let size = self.sds()?.len();
        let Some(entry) = entry.flatten().filter(|e| e.is_in_place(size)) else { return Ok(None) };
        Ok(self.stored(&entry)?.get(HEADER..).map(<[u8]>::to_vec))
    }
}

impl<D: VolumeWrite> Volume<D> {
    /// The security id for a protected file or directory, see [`Protected`].
    ///
    /// # Errors
    /// As [`security_id`](Self::security_id).
    pub fn protected_security(&mut self, what: Protected) -> Result<u32> {
        self.security_id(&what.descriptor())
    }

    /// The security id of a self-relative descriptor: that of an equal one, or a new one.
    ///
    /// # Errors
    /// Damaged, when the descriptor or `$Secure` is malformed; refused, when there is no space. Then nothing has
    /// changed.
    pub fn security_id(&mut self, descriptor: &[u8]) -> Result<u32> {
        descriptor::validate(descriptor)?;
        let hash = descriptor::hash(descriptor);
        let inventory = self.inventory(hash)?;
        for entry in &inventory.candidates {
            if self.stored(entry)?.get(HEADER..) == Some(descriptor) {
                return Ok(entry.id);
            }
        }
        self.transaction(|volume| volume.add_descriptor(descriptor, hash, &inventory))
    }

    fn add_descriptor(&mut self, descriptor: &[u8], hash: u32, inventory: &Inventory) -> Result<u32> {
        let length = (HEADER + descriptor.len()) as u64;
        let full = || {
            Error::refused(Layer::Ntfs, "$Secure has no room for another security descriptor")
                .hint("run chkdsk in the guest: it drops the descriptors that nothing uses")
        };
        let offset = place(inventory.end, length).filter(|&at| at < SDS_MAX).ok_or_else(full)?;
        let id = inventory.last_id.max(FIRST_ID - 1).checked_add(1).ok_or_else(full)?;
        let entry = SdsEntry { hash, id, offset, length: u32::try_from(length).map_err(|_| full())? };
        let header = entry.to_bytes();
        self.grow_sds(offset + BLOCK + length)?;
        let bytes = [&header[..], descriptor].concat();
        if let Stream::Runs { runs, .. } = self.sds()? {
            self.write_metadata(&runs, offset, &bytes)?;
            self.write_metadata(&runs, offset + BLOCK, &bytes)?;
        }
        let secure = self.secure()?;
        self.insert_entry(secure, SII, Entry::for_view(&id.to_le_bytes(), &header, &[]))?;
        let key = [hash.to_le_bytes(), id.to_le_bytes()].concat();
        self.insert_entry(secure, SDH, Entry::for_view(&key, &header, SDH_TAIL))?;
        Ok(id)
    }

    /// Makes `$SDS` at least `wanted` bytes long; what is new reads as zeros.
    fn grow_sds(&mut self, wanted: u64) -> Result<()> {
        let mut attrs = self.load(self.secure()?)?;
        let stream = attrs.stream(AttributeType::DATA, &sds_name(), self.geometry.cluster_count)?;
        let Some(Stream::Runs { mut runs, mut sizes }) = stream else {
            return Err(damaged("$Secure has no plain $SDS"));
        };
        if wanted <= sizes.initialized {
            return Ok(());
        }
        self.extend_runs(&mut runs, self.geometry.clusters_for(wanted))?;
        let old = sizes.initialized;
        sizes.allocated = self.geometry.bytes_in(runs.end());
        sizes.data = sizes.data.max(wanted);
        sizes.initialized = sizes.data;
        let zeros = vec![0; usize::try_from(sizes.data - old).unwrap_or(0)];
        self.write_metadata(&runs, old, &zeros)?;
        let cluster_size = self.geometry.cluster_size;
        attrs.set_stream(AttributeType::DATA, &sds_name(), &Stream::Runs { runs, sizes }, cluster_size);
        self.store(attrs)
    }
}
