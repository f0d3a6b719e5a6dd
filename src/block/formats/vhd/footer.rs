//! The hard disk footer: the last sector of every VHD, and a copy of it in the first sector of all but fixed ones.

use std::fmt;
use std::mem::offset_of;

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::Storage;
use crate::block::formats::extent_map::{length, read_exact, read_struct};
use crate::error::{Error, Layer, Result};
use crate::hex;
use crate::units::HostOffset;

/// First bytes of a footer.
pub(crate) const COOKIE: &[u8; 8] = b"conectix";

/// A footer as it is stored ("Hard Disk Footer Format").
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredFooter {
    cookie: [u8; 8],
    features: U32,
    file_format_version: U32,
    /// Where the dynamic disk header is in the file; all ones for a fixed disk.
    data_offset: U64,
    /// In seconds since 2000, UTC.
    time_stamp: U32,
    /// The program that made the file.
    creator_application: [u8; 4],
    creator_version: U32,
    creator_host_os: U32,
    /// The disk's size in bytes when it was made.
    original_size: U64,
    /// The disk's size in bytes.
    current_size: U64,
    disk_geometry: Geometry,
    /// 2 fixed, 3 dynamic, 4 differencing.
    disk_type: U32,
    /// Of this footer; see [`checksum`].
    checksum: U32,
    unique_id: [u8; 16],
    saved_state: u8,
    reserved: [u8; 427],
}

const FOOTER: usize = size_of::<StoredFooter>();
const _: () = assert!(FOOTER == 512);

/// Cylinders, heads and sectors per track ("Disk Geometry").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Geometry {
    cylinders: U16,
    heads: u8,
    sectors: u8,
}

impl Geometry {
    /// The geometry of every disk that is larger than a geometry can express.
    const MAX: Self = Self { cylinders: U16::new(65535), heads: 16, sectors: 255 };

    /// The disk's size in bytes.
    fn bytes(self) -> u64 {
        u64::from(self.cylinders.get()) * u64::from(self.heads) * u64::from(self.sectors) * 512
    }
}

/// VHD's limit for dynamic disks, 2040 GiB; fixed disks are held to it too.
const SIZE_MAX: u64 = 2040 << 30;

/// How the file stores the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskType {
    /// All sectors, then the footer.
    Fixed,
    /// Blocks, from the first write to them on.
    Dynamic,
    /// Dynamic over a parent.
    Differencing,
}

impl DiskType {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Dynamic => "dynamic",
            Self::Differencing => "differencing",
        }
    }
}

/// A disk's identity, which children name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UniqueId(pub [u8; 16]);

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// A checked footer: what a reader needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footer {
    /// Where the dynamic disk header is; all ones for fixed disks.
    pub(super) data_offset: HostOffset,
    /// The program that made the file.
    pub(super) creator: [u8; 4],
    /// The disk's size in bytes as Hyper-V sees it.
    pub(super) current_size: u64,
    geometry: Geometry,
    pub(super) disk_type: DiskType,
    pub(super) unique_id: UniqueId,
    /// How many bytes at the end of the file the footer takes; 0 when it was read from the first sector.
    trailing: u64,
}

impl Footer {
    /// The footer of the file, from its end or from its start.
    pub(super) fn read(storage: &dyn Storage) -> Result<Self> {
        let none = || Error::damaged(Layer::Block, "this VHD has no valid footer");
        let length = length(storage)?;
        if length < FOOTER as u64 {
            return Err(none());
        }
        // Old versions of Virtual PC wrote 511 bytes: the last one, reserved and zero, is missing.
        let trailing = if length % 512 == 511 { 511 } else { 512 };
        let at = HostOffset(length - trailing);
        let mut stored = StoredFooter::new_zeroed();
        read_exact(storage, at, stored.as_mut_bytes().get_mut(..trailing as usize).unwrap_or_default())?;
        let at_end = (stored.cookie == *COOKIE).then(|| Self::parse(&stored, at, trailing));
        if let Some(Ok(footer)) = at_end {
            return Ok(footer);
        }
        let copy: StoredFooter = read_struct(storage, HostOffset(0))?;
        if copy.cookie == *COOKIE {
            // The copy belongs to dynamic and differencing disks; a fixed disk's first sector is the guest's.
            let copy = Self::parse(&copy, HostOffset(0), 0)?;
            if copy.disk_type != DiskType::Fixed {
                return Ok(copy);
            }
        }
        at_end.unwrap_or_else(|| Err(none()))
    }

    /// Checks the footer stored at `at`, which takes the last `trailing` bytes of the file.
    fn parse(stored: &StoredFooter, at: HostOffset, trailing: u64) -> Result<Self> {
        let field = |offset: usize| at.saturating_add(offset as u64);
        let found = stored.checksum.get();
        let computed = checksum(stored.as_bytes(), offset_of!(StoredFooter, checksum));
        if found != computed {
            return Err(Error::damaged(Layer::Block, "the VHD footer's checksum is wrong")
                .at(at)
                .expected_found(format_args!("{computed:#010x}"), format_args!("{found:#010x}")));
        }
        let disk_type = match stored.disk_type.get() {
            2 => DiskType::Fixed,
            3 => DiskType::Dynamic,
            4 => DiskType::Differencing,
            other => {
                return Err(Error::unsupported(Layer::Block, format!("VHD disk type {other}"))
                    .at(field(offset_of!(StoredFooter, disk_type))));
            }
        };
        let current_size = stored.current_size.get();
        if current_size > SIZE_MAX {
            return Err(Error::damaged(Layer::Block, "the VHD is larger than a VHD can be")
                .at(field(offset_of!(StoredFooter, current_size)))
                .expected_found(format_args!("at most {SIZE_MAX} bytes"), current_size));
        }
        Ok(Self {
            data_offset: HostOffset(stored.data_offset.get()),
            creator: stored.creator_application,
            current_size,
            geometry: stored.disk_geometry,
            disk_type,
            unique_id: UniqueId(stored.unique_id),
            trailing,
        })
    }

    /// How many bytes of the file come before the footer.
    pub(super) fn bytes_before(&self, file_length: u64) -> u64 {
        file_length.saturating_sub(self.trailing)
    }

    /// The disk's size in bytes as Virtual PC sees it.
    pub(super) fn geometry_size(&self) -> u64 {
        self.geometry.bytes()
    }

    /// Whether the creator is one that means the current size, or the disk is too large for a geometry.
    pub(super) fn trusts_current_size(&self) -> bool {
        self.geometry == Geometry::MAX || matches!(&self.creator, b"win " | b"qem2" | b"d2v " | b"tap\0" | b"CTXS")
    }
}

/// The checksum of a footer or header: ones' complement of the sum of all bytes, without the four of the checksum itself,
/// which begins at `field`.
pub(super) fn checksum(raw: &[u8], field: usize) -> u32 {
    let sum = |part: &[u8]| part.iter().fold(0u32, |sum, b| sum.wrapping_add(u32::from(*b)));
    !sum(raw).wrapping_sub(sum(raw.get(field..field + size_of::<U32>()).unwrap_or_default()))
}
