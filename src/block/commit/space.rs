//! Space for a change, reserved before the first write so that no write fails for want of it.

use std::io;
use std::sync::Arc;

use crate::block::Storage;

/// What was reserved in the files of an image: given back if there is not enough, since nothing has been written then.
pub(super) struct Reservation {
    /// Each file with its length before.
    files: Vec<(Arc<dyn Storage>, u64)>,
    /// Holes in which space was reserved: file, offset, length.
    holes: Vec<(usize, u64, u64)>,
}

impl Reservation {
    /// A reservation of nothing.
    ///
    /// # Errors
    /// What the host says.
    pub fn new(files: impl IntoIterator<Item = Arc<dyn Storage>>) -> io::Result<Self> {
        let measured = files.into_iter().map(|file| file.len().map(|length| (file, length)));
        Ok(Self { files: measured.collect::<io::Result<_>>()?, holes: Vec::new() })
    }

    /// Lengthens a file to `length`, if it is shorter.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when there is not enough space.
    pub fn lengthen(&mut self, file: usize, length: u64) -> io::Result<()> {
        match self.files.get(file) {
            Some((storage, old)) if *old < length => tolerate(storage.reserve(*old, length - *old)),
            _ => Ok(()),
        }
    }

    /// Fills the holes of a range, as far as it lies inside the old file.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when there is not enough space.
    pub fn fill_holes(&mut self, file: usize, offset: u64, length: u64) -> io::Result<()> {
        let Some((storage, old)) = self.files.get(file) else { return Ok(()) };
        let end = offset.saturating_add(length).min(*old);
        let mut at = offset;
        while at < end {
            let run = storage.run_at(at)?;
            let length = run.length.min(end - at);
            if length == 0 {
                break;
            }
            if !run.is_data {
                // A reservation that fails may have got a part.
                self.holes.push((file, at, length));
                tolerate(storage.reserve(at, length))?;
            }
            at += length;
        }
        Ok(())
    }

    /// Makes what was reserved in holes survive a power cut.
    ///
    /// # Errors
    /// What the host says.
    pub fn flush(&self) -> io::Result<()> {
        let is_filled = |number: usize| self.holes.iter().any(|(file, ..)| *file == number);
        let filled = self.files.iter().enumerate().filter(|(number, _)| is_filled(*number));
        filled.map(|(_, (storage, _))| storage).try_for_each(|storage| storage.flush())
    }

    /// Makes the files as long as they were, and the holes holes again. Only before anything has been written.
    ///
    /// # Errors
    /// A file is longer than it was, and what the host says.
    pub fn give_back(&self) -> io::Result<()> {
        for (storage, old) in &self.files {
            if storage.len()? != *old {
                storage.set_len(*old)?;
                storage.flush()?;
            }
        }
        for (file, offset, length) in &self.holes {
            let Some((storage, _)) = self.files.get(*file) else { continue };
            if let Err(error) = storage.punch(*offset, *length) {
                // It reads as zeros all the same.
                tracing::debug!(%error, offset, "cannot punch a hole");
            }
        }
        Ok(())
    }
}

/// A file system that cannot reserve is not refused.
fn tolerate(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
        other => other,
    }
}
