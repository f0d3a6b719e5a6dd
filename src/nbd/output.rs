//! An export that a whole disk is written to.
//!
//! While the copy is under way, the first block says that it is incomplete, and the last one, which a partition table has its
//! backup in, is zeros; they are written when all others were read back: what an interrupted run leaves is not taken for a disk.
//! A connection that is lost is not made again: what it did not answer may be done or not.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::connection::Connection;
use super::edit_host::ExportHost;
use super::export::{Export, NotWritable};
use super::failure::Failure;
use super::incomplete::beginning;
use super::link::{denied_error, join};
use super::options::NbdOptions;
use super::sender::{IN_FLIGHT, Pending, Sender};
use super::sequence::{BLOCK, Ended, NoSink, Sequence, last_block};
use super::uri::NbdUri;
use super::writer::{ExportWriter, done};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::hex;
use crate::host::{HostRun, NameLock, Storage};
use crate::sync::lock;

/// An export that is going to hold a disk. As a [`Storage`] it takes writes in ascending order; what is left out becomes zeros.
pub(crate) struct ExportOutput {
    uri: NbdUri,
    connection: Arc<Connection>,
    /// Writes what is not made of whole units.
    writer: ExportWriter,
    state: Mutex<State>,
    is_begun: AtomicBool,
    /// Whether the first block of the disk was sent.
    is_headed: AtomicBool,
    /// Keeps other processes of this machine from editing the export.
    _alone: Option<NameLock>,
}

struct State {
    sequence: Sequence,
    pending: Pending,
    /// The first block as this copy has written it.
    beginning: Vec<u8>,
}

impl std::fmt::Debug for ExportOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExportOutput").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl ExportOutput {
    /// Connects to the export `name`; nothing is written.
    ///
    /// # Errors
    /// Those of [`NbdUri::parse`]; [`Kind::Io`] when the server cannot be reached or does not have the export;
    /// [`Kind::Refused`] when it is read-only or without flush, or another process of this machine edits it.
    pub(crate) fn open(name: &Path, options: &NbdOptions) -> Result<Self> {
        let uri = NbdUri::parse(name)?;
        let alone = lock_export(name, options)?;
        let connection = Arc::new(Connection::open(&uri, options).map_err(|denied| denied_error(denied, &uri))?);
        connection.export.refuse_not_writable(name, &NOT_AN_OUTPUT)?;
        Ok(Self {
            uri,
            writer: ExportWriter::new(Arc::clone(&connection)),
            connection,
            state: Mutex::new(State {
                sequence: Sequence::starting_at(0, 0),
                pending: Pending::default(),
                beginning: Vec::new(),
            }),
            is_begun: AtomicBool::new(false),
            is_headed: AtomicBool::new(false),
            _alone: alone,
        })
    }

    pub(crate) fn export(&self) -> &Export {
        &self.connection.export
    }

    /// Whether something was written, so that the export does not hold any more what it did.
    pub(crate) fn is_begun(&self) -> bool {
        self.is_begun.load(Ordering::Relaxed)
    }

    /// Whether the first block of the disk was sent: the export may hold a disk, though no flush has confirmed it.
    pub(crate) fn is_headed(&self) -> bool {
        self.is_headed.load(Ordering::Relaxed)
    }

    /// The first block of what the export holds.
    ///
    /// # Errors
    /// When the server does not give it.
    pub(crate) fn head(&self) -> Result<Vec<u8>> {
        self.bytes_at(0, self.export().size.min(BLOCK) as usize)
    }

    /// Bytes that the export holds.
    ///
    /// # Errors
    /// When the server does not give them.
    pub(crate) fn bytes_at(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.writer.read_at(offset, &mut bytes).map_err(|e| self.error("cannot read the export", e))?;
        Ok(bytes)
    }

    /// Writes the beginning of the export as it is, durably: a file in which the export lies has another time then.
    ///
    /// # Errors
    /// When the server does not do it.
    pub(crate) fn touch(&self) -> Result<()> {
        let head = self.head()?;
        self.writer.write_at(0, &head).and_then(|()| self.writer.flush()).map_err(|e| self.cannot(e))
    }

    /// Makes the export an incomplete copy of a disk of this size, durably.
    ///
    /// # Errors
    /// When the server does not do it.
    pub(crate) fn begin(&self, size: u64) -> Result<()> {
        self.is_begun.store(true, Ordering::Relaxed);
        let mut state = lock(&self.state);
        state.sequence = Sequence::starting_at(0, size);
        state.beginning = beginning(size.min(BLOCK) as usize);
        let begun = self.writer.write_at(0, &state.beginning).and_then(|()| match last_block(size) {
            0 => Ok(()),
            last => self.writer.write_at(last, &vec![0; (size - last) as usize]),
        });
        begun.and_then(|()| self.writer.flush()).map_err(|e| self.cannot(e))
    }

    /// Ends a disk of this size: writes what is left, reads all of it back, and then writes the last block and the first one.
    /// Returns the SHA-256 of the disk if it `has_checksum`. `progress` is told the bytes that were read back.
    ///
    /// # Errors
    /// When the server does not do it, or does not hold what was written.
    pub(crate) fn finish(&self, size: u64, has_checksum: bool, progress: &dyn Fn(u64)) -> Result<Option<String>> {
        self.finish_disk(size, has_checksum, progress).map_err(|e| self.cannot(e))
    }

    fn finish_disk(&self, size: u64, has_checksum: bool, progress: &dyn Fn(u64)) -> io::Result<Option<String>> {
        let not_held = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let Ended { first, last, hash } = self.write_rest(size)?;
        self.writer.flush()?;
        let mut checksum = has_checksum.then(|| Sha256::new_with_prefix(&first));
        let end = if last.is_empty() { size } else { last_block(size) };
        if self.read_back((end, size), checksum.as_mut(), progress)? != hash {
            return Err(not_held(NOT_HELD));
        }
        // What is left is done whether or not the job is asked to stop.
        self.connection.hold()?;
        if !last.is_empty() {
            self.writer.write_at(end, &last)?;
            self.writer.flush()?;
        }
        if !self.holds_beginning()? {
            // What the other one takes for its copy has blocks of this one.
            self.take_head_back();
            return Err(not_held(ANOTHER_WRITER));
        }
        self.is_headed.store(true, Ordering::Relaxed);
        // What is flushed is read back, too.
        if let Err(error) = self.writer.write_at(0, &first).and_then(|()| self.writer.flush()) {
            self.take_head_back();
            return Err(error);
        }
        progress(size);
        Ok(checksum.map(|mut sum| {
            sum.update(&last);
            hex::encode(&sum.finalize())
        }))
    }

    /// Whether the first block is still the one of this copy.
    fn holds_beginning(&self) -> io::Result<bool> {
        let state = lock(&self.state);
        let mut head = vec![0; state.beginning.len()];
        self.writer.read_at(0, &mut head)?;
        Ok(head == state.beginning)
    }

    /// Makes the copy an incomplete one again, if the server still does it.
    fn take_head_back(&self) {
        let state = lock(&self.state);
        let taken = self.writer.write_at(0, &state.beginning).and_then(|()| self.writer.flush());
        self.is_headed.store(taken.is_err(), Ordering::Relaxed);
    }

    /// Writes what is left of a disk of this size, but for its first block and its last one.
    fn write_rest(&self, size: u64) -> std::result::Result<Ended, Failure> {
        let mut state = lock(&self.state);
        let State { sequence, pending, .. } = &mut *state;
        let mut sink = Sender { writer: &self.writer, connection: &self.connection, pending };
        let mut sequence = std::mem::replace(sequence, Sequence::starting_at(0, size));
        sequence.push_zeros_to(size, &mut sink)?;
        let ended = sequence.finish(&mut sink)?;
        sink.send_pending()?;
        sink.wait_until(0)?;
        Ok(ended)
    }

    /// Reads a disk of `size` bytes from the end of its first block to `end`; returns the hash.
    fn read_back(
        &self,
        (end, size): (u64, u64),
        mut checksum: Option<&mut Sha256>,
        progress: &dyn Fn(u64),
    ) -> std::result::Result<[u8; 32], Failure> {
        let mut sequence = Sequence::starting_at(BLOCK, size);
        let (mut asked, mut tickets) = (BLOCK, VecDeque::new());
        loop {
            while tickets.len() < IN_FLIGHT && asked < end {
                let next = end.min(asked + self.writer.piece());
                let (start, whole_end) = self.export().whole_units(asked, next);
                let length = u32::try_from(whole_end - start).map_err(|_| Failure::protocol("a read too long"))?;
                tickets.push_back(((next - asked) as usize, self.connection.read(start, length)?));
                asked = next;
            }
            let Some((length, ticket)) = tickets.pop_front() else { break };
            let bytes = join(vec![ticket])?;
            let bytes = bytes.get(..length).ok_or_else(|| Failure::protocol("no bytes in an answer"))?;
            sequence.push(bytes, &mut NoSink)?;
            if let Some(sum) = &mut checksum {
                sum.update(bytes);
            }
            progress(sequence.at());
        }
        Ok(sequence.finish(&mut NoSink)?.hash)
    }

    /// The error of writing the export.
    fn cannot(&self, error: io::Error) -> Error {
        self.error("cannot write the export", error)
    }

    fn error(&self, what: &str, error: io::Error) -> Error {
        let failure = error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>());
        let refused = |why: String| {
            let error = Error::new(Kind::Io, Layer::Nbd, format!("{what}: {why}")).path(self.uri.to_string());
            error.hint("see what the server says in its messages")
        };
        match failure {
            Some(failure @ Failure::Refused(..)) => refused(failure.to_string()),
            Some(failure) => failure.clone().into_error(what, &self.uri),
            None => refused(error.to_string()).with_code(ErrorCode::NbdServer),
        }
    }
}

/// Why a copy is not good that was written without an error.
const NOT_HELD: &str = "the NBD server does not hold what was written";
const ANOTHER_WRITER: &str = "another program has written to the export";

/// Locks the export against other processes of this machine, where there is a folder for locks.
fn lock_export(name: &Path, options: &NbdOptions) -> Result<Option<NameLock>> {
    if options.journals.is_none() {
        return Ok(None);
    }
    match ExportHost::new(name, options)?.lock_export() {
        Err(error) if error.code() == ErrorCode::ImageInUse => Err(error),
        // A copy needs no journal.
        locked => Ok(locked.ok()),
    }
}

/// What is said of an export that cannot become an output.
const NOT_AN_OUTPUT: NotWritable<'_> = NotWritable {
    prefix: "cannot write the output: ",
    read_only_hint: "serve it writable, or name a file as the output",
    no_flush_why: "it never says when a copy is durable",
    no_flush_hint: "name a file as the output, and copy it to the server",
};

impl Storage for ExportOutput {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.writer.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        let State { sequence, pending, .. } = &mut *state;
        if offset < sequence.at() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a write to an export that goes back"));
        }
        let mut sink = Sender { writer: &self.writer, connection: &self.connection, pending };
        let pushed = sequence.push_zeros_to(offset, &mut sink).and_then(|()| sequence.push(data, &mut sink));
        pushed.map_err(|failure| io::Error::other(self.cannot(failure.into())))
    }

    fn flush(&self) -> io::Result<()> {
        let flushed = self.connection.flush().and_then(done);
        flushed.map_err(|failure| io::Error::other(self.cannot(failure.into())))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.export().size)
    }

    fn run_at(&self, offset: u64) -> io::Result<HostRun> {
        Ok(HostRun { length: self.export().size.saturating_sub(offset), is_data: true })
    }

    fn is_remote(&self) -> bool {
        true
    }
}
