//! The hard disk footer: the last sector of every VHD, and a copy of it in the first sector of all but fixed ones.

use crate::block::Storage;
use crate::block::formats::extent_map::{length, read_exact};
use crate::error::{Error, Layer, Result};

/// Bytes of a footer.
pub(crate) const FOOTER: usize = 512;

/// First bytes of a footer.
pub(crate) const COOKIE: &[u8; 8] = b"conectix";

/// The geometry that means "larger than a geometry can say".
const GEOMETRY_MAX: (u16, u8, u8) = (65535, 16, 255);

/// VHD's limit for dynamic disks, 2040 GiB; fixed disks are held to it too.
const SIZE_MAX: u64 = 2040 << 30;

/// Field "disk type".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskType {
    /// All sectors stored, the footer behind them.
    Fixed,
    /// Blocks stored as they are written.
    Dynamic,
    /// Dynamic over a parent.
    Differencing,
}

/// "Hard Disk Footer Format" of the specification; only what a reader needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Where the dynamic header is; all ones for fixed disks.
    pub(crate) data_offset: u64,
    /// Program that made the disk.
    pub(crate) creator: [u8; 4],
    /// Guest size as Hyper-V sees it.
    pub(crate) current_size: u64,
    /// Cylinders, heads, sectors per track.
    pub(crate) geometry: (u16, u8, u8),
    /// Kind of disk.
    pub(crate) disk_type: DiskType,
    /// Identity, which children name.
    pub(crate) unique_id: [u8; 16],
    /// How many bytes at the end of the file the footer takes; 0 when it was read from the first sector.
    trailing: u64,
}

impl Footer {
    /// The footer of the file, from its end or from its start; `None` when neither has one.
    pub(crate) fn read(storage: &dyn Storage) -> Result<Option<Self>> {
        let length = length(storage)?;
        if length < FOOTER as u64 {
            return Ok(None);
        }
        let mut raw = [0; FOOTER];
        // Old versions of Virtual PC wrote 511 bytes: the last one, reserved and zero, is missing.
        let trailing = if length % 512 == 511 { 511 } else { 512 };
        read_exact(storage, length - trailing, &mut raw[..trailing as usize])?;
        let at_end = if raw.starts_with(COOKIE) { Some(Self::parse(&raw, length - trailing, trailing)) } else { None };
        if let Some(Ok(footer)) = at_end {
            return Ok(Some(footer));
        }
        read_exact(storage, 0, &mut raw)?;
        if raw.starts_with(COOKIE) {
            // The copy belongs to dynamic and differencing disks; a fixed disk's first sector is the guest's.
            let copy = Self::parse(&raw, 0, 0)?;
            if copy.disk_type != DiskType::Fixed {
                return Ok(Some(copy));
            }
        }
        match at_end {
            Some(Err(error)) => Err(error),
            _ => Ok(None),
        }
    }

    fn parse(raw: &[u8; FOOTER], at: u64, trailing: u64) -> Result<Self> {
        let stored = be32(raw, 64);
        let computed = checksum(raw, 64);
        if stored != computed {
            return Err(Error::damaged(Layer::Block, "the VHD footer's checksum is wrong")
                .at(at)
                .expected_found(format_args!("{computed:#010x}"), format_args!("{stored:#010x}")));
        }
        let disk_type = match be32(raw, 60) {
            2 => DiskType::Fixed,
            3 => DiskType::Dynamic,
            4 => DiskType::Differencing,
            other => {
                return Err(Error::unsupported(Layer::Block, format!("VHD disk type {other}")).at(at + 60));
            }
        };
        let mut unique_id = [0; 16];
        unique_id.copy_from_slice(&raw[68..84]);
        let footer = Self {
            data_offset: be64(raw, 16),
            creator: [raw[28], raw[29], raw[30], raw[31]],
            current_size: be64(raw, 48),
            geometry: (u16::from_be_bytes([raw[56], raw[57]]), raw[58], raw[59]),
            disk_type,
            unique_id,
            trailing,
        };
        if footer.current_size > SIZE_MAX {
            return Err(Error::damaged(Layer::Block, "the VHD is larger than a VHD can be")
                .at(at + 48)
                .expected_found(format_args!("at most {SIZE_MAX} bytes"), footer.current_size));
        }
        Ok(footer)
    }

    /// Where the bytes before the footer end.
    pub(crate) fn end_of_data(&self, file_length: u64) -> u64 {
        file_length - self.trailing
    }

    /// The guest size as Virtual PC sees it.
    pub(crate) fn geometry_size(&self) -> u64 {
        let (cylinders, heads, sectors) = self.geometry;
        u64::from(cylinders) * u64::from(heads) * u64::from(sectors) * 512
    }

    /// Whether the creator is known to mean the current size, or the geometry cannot say.
    pub(crate) fn trusts_current_size(&self) -> bool {
        self.geometry == GEOMETRY_MAX || matches!(&self.creator, b"win " | b"qem2" | b"d2v " | b"tap\0" | b"CTXS")
    }
}

/// Ones' complement of the sum of all bytes, those of the checksum field itself (at `field`) left out.
pub(crate) fn checksum(raw: &[u8], field: usize) -> u32 {
    let sum = |part: &[u8]| part.iter().fold(0u32, |sum, b| sum.wrapping_add(u32::from(*b)));
    !sum(raw).wrapping_sub(sum(&raw[field..field + 4]))
}

pub(crate) fn be32(raw: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&raw[at..at + 4]);
    u32::from_be_bytes(bytes)
}

pub(crate) fn be64(raw: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&raw[at..at + 8]);
    u64::from_be_bytes(bytes)
}
