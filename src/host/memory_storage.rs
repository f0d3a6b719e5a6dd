//! Files held in memory.

use std::io;
use std::sync::Mutex;

use super::storage::{HostRun, Storage};

/// A file held in memory: for tests, fuzzing, and small containers that were unpacked.
#[derive(Debug, Default)]
pub struct MemoryStorage(Mutex<Vec<u8>>);

impl MemoryStorage {
    /// A file with this content.
    #[must_use]
    pub fn new(content: Vec<u8>) -> Self {
        Self(Mutex::new(content))
    }

    /// A copy of the content.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        self.bytes().clone()
    }

    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The largest file that a [`MemoryStorage`] takes, so that a hostile image cannot exhaust memory through it.
const MEMORY_STORAGE_MAX: u64 = 4 << 30;

impl Storage for MemoryStorage {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let source = bytes.get(start..).unwrap_or_default();
        let count = source.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), source.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= MEMORY_STORAGE_MAX)
            .ok_or(io::ErrorKind::StorageFull)?;
        let mut bytes = self.bytes();
        if end > bytes.len() as u64 {
            bytes.resize(usize::try_from(end).map_err(|_| io::ErrorKind::StorageFull)?, 0);
        }
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::StorageFull)?;
        if let Some(target) = bytes.get_mut(start..start + data.len()) {
            target.copy_from_slice(data);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if length > MEMORY_STORAGE_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes().resize(usize::try_from(length).map_err(|_| io::ErrorKind::StorageFull)?, 0);
        Ok(())
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        if end > self.len()? { self.set_len(end) } else { Ok(()) }
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        let size = bytes.len();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(size);
        let end = usize::try_from(offset.saturating_add(length)).unwrap_or(usize::MAX).min(size);
        if let Some(range) = bytes.get_mut(start..end) {
            range.fill(0);
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> io::Result<HostRun> {
        Ok(HostRun { length: self.len()?.saturating_sub(offset), is_data: true })
    }
}
