//! An export that is written to: one connection, one writer.
//!
//! A connection that is lost is not made again here: a write that was not answered may be done, undone or torn, and only a
//! recovery from the journal tells. A flush is done when the server has answered it and what was written since the last one
//! was read back.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::connection::Connection;
use super::export::Export;
use super::failure::Failure;
use super::link::join;
use super::reply::Answer;
use super::ticket::Ticket;
use crate::host::{HostRun, Storage};
use crate::sync::lock;

/// Most bytes of one request for data.
const PIECE: u64 = 1 << 20;

/// An export, open for reading and writing.
pub(super) struct ExportWriter {
    connection: Arc<Connection>,
    /// Locked while something is written: units of the server may be written by halves.
    written: Mutex<Written>,
    bytes_read: AtomicU64,
}

/// Writes since the last flush: start; length and checksum.
type Written = BTreeMap<u64, (u64, u32)>;

impl std::fmt::Debug for ExportWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExportWriter").field("export", &self.connection.export).finish_non_exhaustive()
    }
}

impl ExportWriter {
    /// Writes through a connection, which nothing else writes through.
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, written: Mutex::default(), bytes_read: AtomicU64::new(0) }
    }

    fn export(&self) -> &Export {
        &self.connection.export
    }

    /// The longest piece of a request that is made of whole units.
    pub(super) fn piece(&self) -> u64 {
        self.export().piece(PIECE)
    }

    /// The bytes of whole units.
    fn fetch(&self, start: u64, end: u64) -> Result<Vec<u8>, Failure> {
        let length =
            u32::try_from(end.saturating_sub(start)).map_err(|_| Failure::protocol("a read that is too long"))?;
        let bytes = join(vec![self.connection.read(start, length)?])?;
        self.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Writes a piece of data, and around it what its first and last unit hold.
    fn write_piece(&self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let end = offset + data.len() as u64;
        let (start, whole_end) = self.export().whole_units(offset, end);
        if (start, whole_end) == (offset, end) {
            return done(self.connection.write(offset, data)?);
        }
        let mut units = self.fetch(start, whole_end)?;
        let from = (offset - start) as usize;
        let place = units.get_mut(from..from + data.len());
        place.ok_or_else(|| Failure::protocol("no bytes in an answer"))?.copy_from_slice(data);
        done(self.connection.write(start, &units)?)
    }

    /// Reads back what was written, and compares it.
    fn compare(&self, written: &Written) -> io::Result<()> {
        for (start, (length, sum)) in written {
            let (from, to) = self.export().whole_units(*start, start + length);
            let bytes = self.fetch(from, to)?;
            let within = (start - from) as usize;
            let found = bytes.get(within..within.saturating_add(*length as usize));
            if found.map(crc32fast::hash) != Some(*sum) {
                let what = format!("the NBD server does not hold what was written at {start:#x}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        Ok(())
    }
}

/// Waits for the end of a write or a flush.
pub(super) fn done(ticket: Ticket) -> Result<(), Failure> {
    match ticket.wait()? {
        Answer::Done => Ok(()),
        Answer::Bytes(_) | Answer::Extents(_) => Err(Failure::protocol("data in a reply that has none")),
    }
}

/// Forgets the writes that a new one overwrites, if only in part.
fn forget(written: &mut Written, offset: u64, end: u64) {
    // None is longer than a piece.
    let near = written.range(offset.saturating_sub(PIECE)..end);
    let older: Vec<u64> =
        near.filter(|(start, (length, _))| *start + length > offset).map(|(start, _)| *start).collect();
    for start in older {
        written.remove(&start);
    }
}

fn cannot_grow() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "an NBD export has one size")
}

impl Storage for ExportWriter {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let inside = usize::try_from(self.export().size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let mut at = offset;
        for piece in Pieces::of(offset, inside, self.piece()) {
            let (start, end) = self.export().whole_units(at, at + piece as u64);
            let bytes = self.fetch(start, end)?;
            let within = (at - start) as usize;
            let to = (at - offset) as usize;
            match (buf.get_mut(to..to + piece), bytes.get(within..within + piece)) {
                (Some(to), Some(from)) => to.copy_from_slice(from),
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            at += piece as u64;
        }
        Ok(inside)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        offset.checked_add(data.len() as u64).filter(|end| *end <= self.export().size).ok_or_else(cannot_grow)?;
        let mut written = lock(&self.written);
        let (mut at, mut rest) = (offset, data);
        for piece in Pieces::of(offset, data.len(), self.piece()) {
            let (now, later) = rest.split_at_checked(piece).ok_or(io::ErrorKind::InvalidInput)?;
            forget(&mut written, at, at + piece as u64);
            self.write_piece(at, now)?;
            written.insert(at, (piece as u64, crc32fast::hash(now)));
            (at, rest) = (at + piece as u64, later);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        done(self.connection.flush()?)?;
        // Taken out in any case: what failed is written anew by a recovery.
        let written = std::mem::take(&mut *lock(&self.written));
        self.compare(&written)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.export().size)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if length == self.export().size { Ok(()) } else { Err(cannot_grow()) }
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        if end <= self.export().size { Ok(()) } else { Err(cannot_grow()) }
    }

    fn punch(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn run_at(&self, offset: u64) -> io::Result<HostRun> {
        // The journal records what holes read as: a server may fill them.
        Ok(HostRun { length: self.export().size.saturating_sub(offset), is_data: true })
    }

    fn is_locked(&self) -> bool {
        // NBD has no locks.
        false
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

/// Cuts a range at multiples of a length.
struct Pieces {
    at: u64,
    rest: usize,
    length: u64,
}

impl Pieces {
    fn of(offset: u64, rest: usize, length: u64) -> Self {
        Self { at: offset, rest, length }
    }
}

impl Iterator for Pieces {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let to_cut = usize::try_from(self.length - self.at % self.length).unwrap_or(usize::MAX);
        let piece = self.rest.min(to_cut);
        self.at += piece as u64;
        self.rest -= piece;
        (piece > 0).then_some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_multiples_of_their_length() {
        let pieces = |offset, length| Pieces::of(offset, length, 4096).collect::<Vec<_>>();
        assert_eq!(pieces(0, 0), Vec::<usize>::new());
        assert_eq!(pieces(0, 4096), [4096]);
        assert_eq!(pieces(4000, 5000), [96, 4096, 808]);
        assert_eq!(pieces(1, 10), [10]);
    }

    #[test]
    fn what_is_overwritten_is_not_compared() {
        let mut written: Written = [0, 512, 1024, 1536].map(|start| (start, (512, 7))).into();
        forget(&mut written, 500, 1025);
        assert_eq!(written.keys().copied().collect::<Vec<_>>(), [1536]);
        forget(&mut written, 2048, 4096);
        assert_eq!(written.len(), 1);
    }
}
