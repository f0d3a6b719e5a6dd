//! The two headers: which one is current, and where the log is (MS-VHDX 2.2.2).

use super::{MIB, le16, le32, le64};
use crate::block::Storage;
use crate::block::formats::extent_map::read_exact;
use crate::error::{Error, Layer, Result};
use crate::guid::Guid;

/// Where the headers are.
pub(crate) const OFFSETS: [u64; 2] = [64 << 10, 128 << 10];

/// Bytes that the checksum covers.
pub(crate) const HEADER: usize = 4096;

/// Largest log that is replayed. Hyper-V makes 1 MiB.
const LOG_MAX: u64 = 64 * MIB;

/// One header; only what a reader needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// `SequenceNumber`.
    pub(crate) sequence: u64,
    /// `DataWriteGuid`, which a child names.
    pub(crate) data_write: Guid,
    /// `LogGuid`; nil when the log is empty.
    pub(crate) log_guid: Guid,
    /// Length of the log in bytes.
    pub(crate) log_length: u64,
    /// Byte offset of the log.
    pub(crate) log_offset: u64,
}

impl Header {
    /// The current header.
    pub(crate) fn read(storage: &dyn Storage, file_length: u64) -> Result<Self> {
        let mut raw = [[0; HEADER]; 2];
        let mut valid: [Option<Self>; 2] = [None, None];
        for ((raw, valid), offset) in raw.iter_mut().zip(&mut valid).zip(OFFSETS) {
            read_exact(storage, offset, raw)?;
            *valid = Self::parse(raw, offset)?;
        }
        let same = raw[0] == raw[1];
        let header = match valid {
            [Some(a), Some(b)] if a.sequence == b.sequence && !same => {
                return Err(Error::damaged(Layer::Block, "the VHDX's two headers contradict each other")
                    .at(OFFSETS[1])
                    .hint("let Hyper-V check the file, or copy it again"));
            }
            [Some(a), Some(b)] => {
                if a.sequence >= b.sequence {
                    a
                } else {
                    b
                }
            }
            [Some(one), None] | [None, Some(one)] => one,
            [None, None] => {
                return Err(Error::damaged(Layer::Block, "the VHDX has no valid header")
                    .at(OFFSETS[0])
                    .hint("let Hyper-V repair the file, or copy it again"));
            }
        };
        header.check_log(file_length)?;
        Ok(header)
    }

    /// `None` when signature or checksum are wrong.
    fn parse(raw: &[u8; HEADER], at: u64) -> Result<Option<Self>> {
        if !raw.starts_with(b"head") || le32(raw, 4) != checksum(raw) {
            return Ok(None);
        }
        let (log_version, version) = (le16(raw, 64), le16(raw, 66));
        if version != 1 || log_version != 0 {
            return Err(Error::unsupported(
                Layer::Block,
                format!("VHDX version {version} with a log of version {log_version}"),
            )
            .at(at + 64));
        }
        let guid = |o: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&raw[o..o + 16]);
            Guid(bytes)
        };
        Ok(Some(Self {
            sequence: le64(raw, 8),
            data_write: guid(32),
            log_guid: guid(48),
            log_length: le32(raw, 68).into(),
            log_offset: le64(raw, 72),
        }))
    }

    fn check_log(&self, file_length: u64) -> Result<()> {
        if self.log_guid.is_zero() {
            return Ok(());
        }
        let end = self.log_offset.checked_add(self.log_length);
        let aligned = self.log_offset.is_multiple_of(MIB) && self.log_length.is_multiple_of(MIB);
        if !aligned || self.log_offset < MIB || self.log_length == 0 || end.is_none_or(|end| end > file_length) {
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

/// CRC-32C of a structure whose checksum, at byte 4, counts as zero.
pub(crate) fn checksum(raw: &[u8]) -> u32 {
    let (head, rest) = raw.split_at(raw.len().min(4));
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(head), &[0; 4]), rest.get(4..).unwrap_or_default())
}
