//! The CPU that a program of the guest is for.

use crate::drivers::pe;
use crate::error::Result;
use crate::windows::guest_files::GuestFiles;

/// Bytes at the start of a program that hold its headers.
const HEAD_BYTES: usize = 4096;
/// The largest program that is read whole (when it is stored compressed), in bytes.
const PROGRAM_BYTES_MAX: u64 = 64 << 20;

/// What a file of the guest is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgramFile {
    Missing,
    NotAProgram,
    /// A program for a CPU: `IMAGE_FILE_HEADER.Machine`.
    ForMachine(u16),
}

impl ProgramFile {
    /// Reads the first bytes of a file; the whole file only if it is stored compressed.
    ///
    /// # Errors
    /// When the volume cannot be read.
    pub(crate) fn read(files: &dyn GuestFiles, path: &str) -> Result<Self> {
        let Some(mut head) = files.head(path, HEAD_BYTES)? else { return Ok(Self::Missing) };
        if !head.starts_with(b"MZ") {
            // stored compressed (CompactOS): the plain stream is empty
            head = files.read(path, PROGRAM_BYTES_MAX)?.unwrap_or_default();
        }
        Ok(pe::machine(&head).map_or(Self::NotAProgram, Self::ForMachine))
    }
}
