//! The header section: which of the two headers is current, and where the log is (MS-VHDX 2.2).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::Storage;
use crate::block::formats::extent_map::read_struct;
use crate::error::{Error, Layer, Result};
use crate::guid::Guid;
use crate::units::HostOffset;

/// Alignment of everything after the header section.
pub(super) const MIB: u64 = 1 << 20;

/// First bytes of the file type identifier, and so of the file (MS-VHDX 2.2.1).
pub(crate) const FILE_SIGNATURE: &[u8; 8] = b"vhdxfile";

/// Where the two headers lie.
const OFFSETS: [HostOffset; 2] = [HostOffset(64 << 10), HostOffset(128 << 10)];

/// Largest log that is replayed. Hyper-V makes 1 MiB.
const LOG_MAX: u64 = 64 * MIB;

const SIGNATURE: [u8; 4] = *b"head";

/// A header as it is stored ("VHDX Header", MS-VHDX 2.2.2).
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredHeader {
    signature: [u8; 4],
    /// CRC-32C of the header, this field taken as zero.
    checksum: U32,
    /// Of two valid headers the one with the greater number is current.
    sequence_number: U64,
    /// Changes before the first write to the file.
    file_write_guid: [u8; 16],
    /// Changes before the first write of guest data; a child names it.
    data_write_guid: [u8; 16],
    /// The log entries that are valid have it; zero for an empty log.
    log_guid: [u8; 16],
    log_version: U16,
    version: U16,
    /// Bytes of the log.
    log_length: U32,
    /// Where the log begins in the file.
    log_offset: U64,
    reserved: [u8; 4016],
}

const _: () = assert!(size_of::<StoredHeader>() == 4096);

/// A valid header: what a reader needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    sequence: u64,
    /// The state of the guest's data, which a child names.
    pub(super) data_write: Guid,
    /// Identity of the valid log entries; nil when the log is empty.
    pub(super) log_guid: Guid,
    /// Bytes of the log.
    pub(super) log_length: u64,
    pub(super) log_offset: HostOffset,
}

impl Header {
    /// Reads the current header.
    pub(super) fn read(storage: &dyn Storage, file_length: u64) -> Result<Self> {
        let [first, second] = OFFSETS;
        let stored: [StoredHeader; 2] = [read_struct(storage, first)?, read_struct(storage, second)?];
        let [a, b] = &stored;
        let header = match (Self::parse(a, first)?, Self::parse(b, second)?) {
            (Some(a), Some(b)) if a.sequence == b.sequence && stored[0] != stored[1] => {
                return Err(Error::damaged(Layer::Block, "the VHDX's two headers contradict each other")
                    .at(second)
                    .hint("let Hyper-V check the file, or copy it again"));
            }
            (Some(a), Some(b)) => {
                if a.sequence >= b.sequence {
                    a
                } else {
                    b
                }
            }
            (Some(valid), None) | (None, Some(valid)) => valid,
            (None, None) => {
                return Err(Error::damaged(Layer::Block, "the VHDX has no valid header")
                    .at(first)
                    .hint("let Hyper-V repair the file, or copy it again"));
            }
        };
        header.check_log(file_length)?;
        Ok(header)
    }

    /// The header stored at `at`; `None` when its signature or checksum is wrong.
    fn parse(stored: &StoredHeader, at: HostOffset) -> Result<Option<Self>> {
        if stored.signature != SIGNATURE || stored.checksum != checksum(stored.as_bytes()) {
            return Ok(None);
        }
        let (log_version, version) = (stored.log_version.get(), stored.version.get());
        if version != 1 || log_version != 0 {
            return Err(Error::unsupported(
                Layer::Block,
                format!("VHDX version {version} with a log of version {log_version}"),
            )
            .at(at.saturating_add(std::mem::offset_of!(StoredHeader, log_version) as u64)));
        }
        Ok(Some(Self {
            sequence: stored.sequence_number.get(),
            data_write: Guid(stored.data_write_guid),
            log_guid: Guid(stored.log_guid),
            log_length: stored.log_length.get().into(),
            log_offset: HostOffset(stored.log_offset.get()),
        }))
    }

    fn check_log(&self, file_length: u64) -> Result<()> {
        if self.log_guid.is_zero() {
            return Ok(());
        }
        let end = self.log_offset.checked_add(self.log_length);
        let is_aligned = self.log_offset.0.is_multiple_of(MIB) && self.log_length.is_multiple_of(MIB);
        let is_inside = self.log_offset.0 >= MIB && end.is_some_and(|end| end.0 <= file_length);
        if !is_aligned || !is_inside || self.log_length == 0 {
            return Err(Error::damaged(Layer::Block, "the VHDX's log does not fit into the file")
                .at(self.log_offset)
                .expected_found(
                    format_args!("whole MiB inside {file_length} bytes"),
                    format_args!("{} bytes", self.log_length),
                ));
        }
        if self.log_length > LOG_MAX {
            return Err(Error::unsupported(Layer::Block, "a VHDX with a log of more than 64 MiB to replay")
                .at(self.log_offset)
                .hint("attach the disk once in Hyper-V, which empties the log"));
        }
        Ok(())
    }
}

/// CRC-32C of a header, region table or log entry, whose own checksum (4 bytes at offset 4 in all of them) is taken as
/// zero.
pub(super) fn checksum(raw: &[u8]) -> u32 {
    let (signature, rest) = raw.split_at(raw.len().min(4));
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(signature), &[0; 4]), rest.get(4..).unwrap_or_default())
}
