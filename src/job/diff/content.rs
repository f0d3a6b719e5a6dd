//! Compares the contents of two files.

use crate::cancel::Cancel;
use crate::error::{Error, Layer, Result};
use crate::job::look::Opened;

/// Bytes that are compared at once.
const CHUNK: usize = 1 << 20;

/// Compares contents, with memory of its own.
pub(super) struct ContentComparison<'c> {
    cancel: &'c Cancel,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl<'c> ContentComparison<'c> {
    pub(super) fn new(cancel: &'c Cancel) -> Self {
        Self { cancel, old: vec![0; CHUNK], new: vec![0; CHUNK] }
    }

    /// Whether both have the same bytes. What is a hole in both is not read.
    ///
    /// # Errors
    /// Damaged, or an image cannot be read.
    pub(super) fn is_equal(&mut self, old: &Opened<'_>, new: &Opened<'_>) -> Result<bool> {
        if old.length() != new.length() {
            return Ok(false);
        }
        let mut offset = 0;
        loop {
            offset = old.next_data(offset).min(new.next_data(offset));
            if offset >= old.length() {
                return Ok(true);
            }
            self.cancel.check()?;
            let (before, after) = (read(old, offset, &mut self.old)?, read(new, offset, &mut self.new)?);
            if before != after {
                return Ok(false);
            }
            offset = offset.saturating_add(before.len() as u64);
        }
    }
}

fn read<'b>(content: &Opened<'_>, offset: u64, buf: &'b mut [u8]) -> Result<&'b [u8]> {
    match content.read_at(offset, buf)? {
        0 => Err(Error::bug(Layer::Job, "a content ends before its length")),
        count => Ok(buf.get(..count).unwrap_or_default()),
    }
}
