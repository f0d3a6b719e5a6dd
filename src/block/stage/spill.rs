//! The spill file: a temporary file for changed blocks that do not fit into memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::frames::{BLOCK, BLOCK_BYTES, INDEX_LIMIT, copy_within, limit_exceeded};
use crate::error::{Error, Layer, Result};

/// Blocks in an unnamed temporary file, found by their index.
///
/// Blocks are written by a thread of their own, a batch at a time, and are held in memory until that has succeeded: a
/// failed write loses nothing, and is reported by the next call that writes.
#[derive(Debug)]
pub(super) struct Spill {
    folder: Option<PathBuf>,
    file: Option<Arc<File>>,
    /// The batch that is being written, or could not be written.
    batch: Option<Arc<Batch>>,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// Length of the file in blocks.
    length: u32,
    /// Indexes of blocks in the file that hold nothing any more.
    free_indexes: Vec<u32>,
}

/// Blocks that are written together.
#[derive(Debug, Default)]
struct Batch {
    /// Their indexes in the file.
    indexes: Vec<u32>,
    /// Their content, one after the other.
    bytes: Vec<u8>,
}

impl Batch {
    fn write(&self, file: &File) -> io::Result<()> {
        let mut rest = &self.bytes[..];
        for neighbours in self.indexes.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let (now, later) = rest.split_at(rest.len().min(neighbours.len() * BLOCK_BYTES));
            file.write_all_at(now, neighbours.first().map_or(0, |index| u64::from(*index) * BLOCK))?;
            rest = later;
        }
        Ok(())
    }
}

impl Spill {
    /// An empty spill file. It is created when it is first needed, in `folder` or the system's folder for temporary files.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, file: None, batch: None, writing: None, length: 0, free_indexes: Vec::new() }
    }

    /// Length of the file in blocks.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Fills `buf` from a block, beginning `within` bytes after its start.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, index: u32, within: u64, buf: &mut [u8]) -> Result<()> {
        if let Some(batch) = &self.batch {
            let mut blocks = batch.indexes.iter().zip(batch.bytes.chunks_exact(BLOCK_BYTES));
            if let Some((_, block)) = blocks.find(|(other, _)| **other == index) {
                return copy_within(block, within, buf);
            }
        }
        let file = self.file.as_ref();
        file.ok_or_else(|| Error::bug(Layer::Block, "a spilled block without a spill file"))?
            .read_exact_at(buf, u64::from(index) * BLOCK + within)
            .map_err(|e| Error::io(Layer::Block, "cannot read the temporary file of staged changes", e))
    }

    /// Frees a block: its index may be used again.
    pub fn free(&mut self, index: u32) {
        self.free_indexes.push(index);
    }

    /// Waits until the batch is in the file.
    ///
    /// # Errors
    /// When the file cannot be written. The blocks stay in memory, and the next call tries again.
    pub fn finish_write(&mut self) -> Result<()> {
        let Some(batch) = self.batch.clone() else { return Ok(()) };
        let file = self.open()?.clone();
        let written = match self.writing.take().map(JoinHandle::join) {
            Some(Ok(written)) => written,
            // It failed before, or no thread could be started for it.
            Some(Err(_)) | None => batch.write(&file),
        };
        written.map_err(write_error)?;
        self.batch = None;
        Ok(())
    }

    /// Writes whole blocks to the file, in the background; returns their indexes.
    ///
    /// # Errors
    /// When the file cannot be created, an earlier batch could not be written, or there are too many blocks. The caller
    /// still has to hold the blocks then.
    pub fn write(&mut self, bytes: Vec<u8>) -> Result<Vec<u32>> {
        self.finish_write()?;
        let file = self.open()?.clone();
        let count = bytes.len() / BLOCK_BYTES;
        let indexes: Vec<u32> = match self.free_indexes.len().checked_sub(count) {
            Some(rest) => self.free_indexes.split_off(rest),
            None => (self.length..INDEX_LIMIT).take(count).collect(),
        };
        if indexes.len() < count {
            return Err(limit_exceeded());
        }
        self.length = indexes.iter().fold(self.length, |length, index| length.max(index + 1));
        let batch = Arc::new(Batch { indexes: indexes.clone(), bytes });
        self.batch = Some(Arc::clone(&batch));
        // If no thread can be started, the next call writes the batch.
        self.writing = std::thread::Builder::new().name("spill".into()).spawn(move || batch.write(&file)).ok();
        Ok(indexes)
    }

    fn open(&mut self) -> Result<&Arc<File>> {
        if self.file.is_none() {
            let file = match &self.folder {
                Some(folder) => tempfile::tempfile_in(folder),
                None => tempfile::tempfile(),
            };
            self.file = Some(Arc::new(file.map_err(write_error)?));
        }
        self.file.as_ref().ok_or_else(|| Error::bug(Layer::Block, "no spill file"))
    }
}

fn write_error(error: io::Error) -> Error {
    Error::io(Layer::Block, "cannot write the temporary file of staged changes", error)
        .hint("free space in the folder for temporary files, or set TMPDIR")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(numbers: std::ops::Range<u8>) -> Vec<u8> {
        numbers.flat_map(|n| [n; BLOCK_BYTES]).collect()
    }

    fn first_byte(spill: &Spill, index: u32) -> u8 {
        let mut byte = [0];
        spill.read(index, 5, &mut byte).unwrap();
        byte[0]
    }

    #[test]
    fn blocks_are_there_while_and_after_they_are_written() {
        let mut spill = Spill::new(None);
        let mut all = Vec::new();
        for n in (0..200).step_by(10) {
            all.extend(spill.write(blocks(n..n + 10)).unwrap());
            assert!(all.iter().enumerate().all(|(n, index)| first_byte(&spill, *index) == n as u8));
        }
        spill.finish_write().unwrap();
        all.drain(50..80).for_each(|index| spill.free(index));
        let again = spill.write(blocks(50..70)).unwrap();
        assert!(again.iter().all(|index| !all.contains(index)));
        assert_eq!(spill.length(), 200);
        all.splice(50..50, again);
        spill.finish_write().unwrap();
        let numbers = (0..70).chain(80..200);
        assert!(numbers.zip(&all).all(|(n, index)| first_byte(&spill, *index) == n));
    }

    #[test]
    fn a_write_that_fails_loses_nothing_and_is_tried_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut spill = Spill::new(None);
        spill.file = Some(Arc::new(File::open(file.path()).unwrap()));
        let indexes = spill.write(blocks(1..4)).unwrap();
        for _ in 0..3 {
            assert!(spill.finish_write().is_err());
            assert!(spill.write(blocks(7..8)).is_err());
            assert_eq!(indexes.iter().map(|index| first_byte(&spill, *index)).collect::<Vec<_>>(), [1, 2, 3]);
        }
        spill.file = Some(Arc::new(file.into_file()));
        spill.finish_write().unwrap();
        assert_eq!(indexes.iter().map(|index| first_byte(&spill, *index)).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(spill.write(blocks(4..5)).unwrap(), [3]);
    }
}
