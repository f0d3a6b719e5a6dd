//! The volume header: the first sector of the partition.

use super::state::Variant;
use crate::error::{Error, Layer, Place, Result};
use crate::field::Field;
use crate::guid::Guid;
use crate::ntfs::format::boot::END_MARK;

/// Bytes that are read of it.
pub(super) const HEADER_SIZE: usize = 512;
/// First bytes of a metadata block, and OEM id of a header.
pub(super) const SIGNATURE: &[u8; 8] = b"-FVE-FS-";
/// OEM id of the header of a removable disk, which looks like FAT32.
const TO_GO: &[u8; 8] = b"MSWIN4.1";
/// Mark of an encrypted volume of Windows 7 and later.
pub(super) const NORMAL: Guid =
    Guid::new(0x4967_D63B, 0x2E29, 0x4AD8, [0x83, 0x99, 0xF6, 0xA3, 0x39, 0xE3, 0xD0, 0x01]);
/// Mark of a volume whose encryption is still running ("encrypt on write").
const ENCRYPT_ON_WRITE: Guid = Guid::new(0x92A8_4D3B, 0xDD80, 0x4D0E, [0x9E, 0x4E, 0xB1, 0xE3, 0x28, 0x4E, 0xAE, 0xD8]);

/// Offset of the mark; the offsets of the metadata follow it.
const MARK_FIXED: usize = 160;
const MARK_TO_GO: usize = 424;
const BYTES_PER_SECTOR: Field<u16> = Field::at(11);
const SECTORS_PER_CLUSTER: Field<u8> = Field::at(13);
/// In headers of Windows Vista, where an NTFS boot sector has the cluster of `$MFTMirr`.
const METADATA_CLUSTER: Field<u64> = Field::at(56);
/// Second byte of the jump at the start: distinguishes Vista.
const JUMP_VISTA: u8 = 0x52;

/// Whether a sector ends as boot sectors do.
pub(super) fn has_signature(sector: &[u8]) -> bool {
    END_MARK.get(sector) == 0xAA55
}

/// Whether a boot sector is that of a BitLocker volume.
#[must_use]
pub fn is_header(sector: &[u8]) -> bool {
    let has_mark = |at| mark_at(sector, at).is_some_and(is_mark);
    oem_id(sector) == Some(SIGNATURE) || (has_signature(sector) && (has_mark(MARK_FIXED) || has_mark(MARK_TO_GO)))
}

/// Whether an identifier is that of BitLocker.
fn is_mark(mark: Guid) -> bool {
    matches!(mark, NORMAL | ENCRYPT_ON_WRITE)
}

/// What the header says.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub variant: Variant,
    /// Whether encryption on write is running.
    pub encrypt_on_write: bool,
    /// Bytes per sector.
    pub sector: u32,
    /// Bytes per cluster; 0 where the header does not say it.
    pub cluster: u64,
    /// Volume offsets of the copies of the metadata; of Vista the first only.
    pub offsets: Vec<u64>,
}

impl Header {
    /// Reads a header of 512 bytes.
    pub fn parse(sector: &[u8]) -> Result<Self> {
        let oem = oem_id(sector);
        let at_fixed = mark_at(sector, MARK_FIXED).unwrap_or_default();
        let to_go = mark_at(sector, MARK_TO_GO).unwrap_or_default();
        let (variant, mark, at) = match oem {
            Some(SIGNATURE) if is_mark(at_fixed) => (Variant::Fixed, at_fixed, MARK_FIXED),
            Some(TO_GO) if is_mark(to_go) => (Variant::ToGo, to_go, MARK_TO_GO),
            Some(SIGNATURE) if sector.get(1) == Some(&JUMP_VISTA) && METADATA_CLUSTER.get(sector) != 0 => {
                (Variant::Vista, Guid::default(), 0)
            }
            Some(SIGNATURE) => {
                let text = format!("cannot read the volume: BitLocker's header has the unknown identifier {at_fixed}");
                return Err(Error::unsupported(Layer::BitLocker, text)
                    .at(Place::Inner(MARK_FIXED as u64))
                    .hint("turn BitLocker off in the guest (manage-bde -off), wait for decryption, and export again"));
            }
            _ => return Err(Error::unsupported(Layer::BitLocker, "not a BitLocker volume").at(Place::Inner(3))),
        };
        let sector_size = match BYTES_PER_SECTOR.get(sector) {
            0 => 512,
            size @ (512 | 4096) => u32::from(size),
            size => {
                let text = format!("cannot read the volume: BitLocker with sectors of {size} bytes is not supported");
                return Err(Error::unsupported(Layer::BitLocker, text).at(Place::Inner(BYTES_PER_SECTOR.offset as u64)));
            }
        };
        let cluster = u64::from(sector_size) * u64::from(SECTORS_PER_CLUSTER.get(sector));
        let offsets = match variant {
            // an overflow gives an offset that no volume has
            Variant::Vista => vec![METADATA_CLUSTER.get(sector).saturating_mul(cluster)],
            _ => (0..3).map(|n| Field::<u64>::at(at + 16 + 8 * n).get(sector)).collect(),
        };
        Ok(Self { variant, encrypt_on_write: mark == ENCRYPT_ON_WRITE, sector: sector_size, cluster, offsets })
    }
}

fn oem_id(sector: &[u8]) -> Option<&[u8; 8]> {
    sector.get(3..)?.first_chunk()
}

fn mark_at(sector: &[u8], at: usize) -> Option<Guid> {
    sector.get(at..)?.first_chunk().map(|bytes| Guid(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_may_have_another_oem_id() {
        for (offset, mark) in [(MARK_FIXED, NORMAL), (MARK_TO_GO, NORMAL), (MARK_FIXED, ENCRYPT_ON_WRITE)] {
            let mut sector = vec![0u8; HEADER_SIZE];
            sector[3..11].copy_from_slice(TO_GO);
            sector[510..].copy_from_slice(&[0x55, 0xAA]);
            assert!(!is_header(&sector));
            sector[offset..offset + 16].copy_from_slice(&mark.0);
            assert!(is_header(&sector));
        }
    }
}
