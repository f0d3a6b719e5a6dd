//! A part of a file as a file of its own: a member of an archive.

use std::io;
use std::sync::Arc;

use crate::block::{HostRun, Storage};
use crate::units::HostOffset;

/// `length` bytes of another storage from `start` on. Read only.
#[derive(Debug)]
pub(crate) struct Window {
    storage: Arc<dyn Storage>,
    start: HostOffset,
    length: u64,
}

impl Window {
    /// The range must be inside the file.
    pub(crate) fn new(storage: Arc<dyn Storage>, start: HostOffset, length: u64) -> Self {
        Self { storage, start, length }
    }
}

impl Storage for Window {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let count = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        match (buf.get_mut(..count), self.start.checked_add(offset)) {
            (Some(buf), Some(at)) if count > 0 => self.storage.read_at(at.0, buf),
            _ => Ok(0),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn run_at(&self, offset: u64) -> io::Result<HostRun> {
        let rest = self.length.saturating_sub(offset);
        if rest == 0 {
            return Ok(HostRun { length: 0, is_data: false });
        }
        let run = self.storage.run_at(self.start.saturating_add(offset).0)?;
        Ok(HostRun { length: run.length.clamp(1, rest), is_data: run.is_data })
    }

    fn is_part(&self) -> bool {
        true
    }

    fn bytes_read(&self) -> u64 {
        self.storage.bytes_read()
    }
}
