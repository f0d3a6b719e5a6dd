//! The way to a server: a connection that is made again where it is lost.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::connection::Connection;
use super::export::Export;
use super::failure::Failure;
use super::handshake::Denied;
use super::options::NbdOptions;
use super::reply::Answer;
use super::stream::TICK;
use super::ticket::Ticket;
use super::uri::{NbdUri, refuse_tls};
use crate::cancel::cancelled;
use crate::error::{Error, ErrorCode, Kind, Layer};
use crate::escape::{escape, shell_argument};

/// Bytes at the beginning of a disk by which it is recognised: its partition table, and what programs write before the first
/// partition. The first read of a disk takes at least so many.
pub(crate) const IDENTITY: u64 = 64 << 10;

/// A server and one of its exports.
pub(super) struct Link {
    pub(super) uri: NbdUri,
    pub(super) options: NbdOptions,
    pub(super) export: Export,
    state: Mutex<State>,
    bytes_read: AtomicU64,
    /// Hash of the first [`IDENTITY`] bytes, once they were read.
    identity: OnceLock<[u8; 32]>,
}

struct State {
    connection: Arc<Connection>,
    /// Counts connections.
    generation: u64,
    /// Answers of the connection when it was made: those by which the disk was recognised.
    first_answers: u64,
    /// Attempts to connect since the last answer.
    attempts: usize,
    /// Why no other connection is made.
    given_up: Option<Failure>,
}

impl Link {
    /// Connects to the export that `name` names.
    pub(super) fn open(name: &Path, options: NbdOptions) -> crate::error::Result<Self> {
        let uri = NbdUri::parse(name)?;
        let connection = Connection::open(&uri, &options).map_err(|denied| denied_error(denied, &uri))?;
        let export = connection.export;
        let state =
            State { connection: Arc::new(connection), generation: 0, first_answers: 0, attempts: 0, given_up: None };
        let (bytes_read, identity) = (AtomicU64::new(0), OnceLock::new());
        Ok(Self { uri, options, export, state: Mutex::new(state), bytes_read, identity })
    }

    /// Bytes that were received for those who asked.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// The connection, and its number.
    pub(super) fn current(&self) -> Result<(Arc<Connection>, u64), Failure> {
        if self.options.cancel.is_requested() {
            return Err(Failure::Cancelled);
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.given_up {
            Some(failure) => Err(failure.clone()),
            None => Ok((Arc::clone(&state.connection), state.generation)),
        }
    }

    /// Takes the buffer of an answer back, see [`Connection::recycle`].
    pub(super) fn recycle(&self, buffer: Vec<u8>) {
        if let Ok((connection, _)) = self.current() {
            connection.recycle(buffer);
        }
    }

    /// Runs `ask`, on another connection if the first one is lost.
    pub(super) fn ask<T>(&self, ask: impl Fn(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut losses = 0;
        loop {
            let (connection, generation) = self.current()?;
            match ask(&connection) {
                Err(failure) if failure.is_loss() => {
                    drop(connection);
                    losses += 1;
                    if losses > self.options.retries.len() {
                        return Err(failure);
                    }
                    self.reconnect(generation, failure)?;
                }
                result => return result,
            }
        }
    }

    /// Connects again, unless another thread has done so since `generation`.
    fn reconnect(&self, generation: u64, mut lost: Failure) -> Result<(), Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = &state.given_up {
            return Err(failure.clone());
        }
        if state.generation != generation {
            return Ok(());
        }
        if state.connection.answers() > state.first_answers {
            state.attempts = 0;
        }
        let retries = &self.options.retries;
        while let Some(wait) = retries.get(state.attempts) {
            state.attempts += 1;
            let attempt = format!("attempt {} of {}", state.attempts, retries.len());
            tracing::warn!(uri = %self.uri, attempt, wait = ?wait, "{lost}; connecting again");
            self.options.status.tell(Some(&format!("connecting to the NBD server again, {attempt}")));
            self.sleep(*wait)?;
            match self.connect_again() {
                Ok(connection) => {
                    state.first_answers = connection.answers();
                    state.connection = Arc::new(connection);
                    state.generation += 1;
                    tracing::info!(uri = %self.uri, "connected to the NBD server again");
                    self.options.status.tell(None);
                    return Ok(());
                }
                Err(failure) if failure.is_loss() => lost = failure,
                Err(failure) => {
                    lost = failure;
                    break;
                }
            }
        }
        self.options.status.tell(None);
        state.given_up = Some(lost.clone());
        Err(lost)
    }

    /// Another connection to the same disk.
    fn connect_again(&self) -> Result<Connection, Failure> {
        let connection = Connection::open(&self.uri, &self.options).map_err(|denied| match denied {
            Denied::Failed(failure @ (Failure::Cancelled | Failure::Lost(_))) => failure,
            // A server that is being started may not have the export yet.
            denied => Failure::Lost(denied.to_string()),
        })?;
        if let Some(difference) = self.export.difference(&connection.export) {
            return Err(Failure::Changed(difference));
        }
        if let Some(identity) = self.identity.get() {
            let bytes = join(self.send(&connection, 0, self.export.size.min(IDENTITY))?)?;
            if *identity != hash_beginning(&bytes) {
                return Err(Failure::Changed("its first 64 KiB differ".to_owned()));
            }
        }
        Ok(connection)
    }

    /// Waits, unless the job is asked to stop.
    fn sleep(&self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        loop {
            if self.options.cancel.is_requested() {
                return Err(Failure::Cancelled);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    /// Sends the requests for a range inside the export, cut at the server's maximum.
    pub(super) fn send(&self, connection: &Connection, offset: u64, length: u64) -> Result<Vec<Ticket>, Failure> {
        let maximum = u64::from(self.export.maximum);
        let mut tickets = Vec::new();
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(maximum);
            tickets.push(connection.read(offset + done, piece as u32)?);
            done += piece;
        }
        Ok(tickets)
    }

    /// The bytes of a range inside the export, whose ends are multiples of the server's minimum.
    pub(super) fn fetch(&self, offset: u64, length: u64) -> Result<Vec<u8>, Failure> {
        let bytes = self.ask(|connection| join(self.send(connection, offset, length)?))?;
        self.note_read(offset, &bytes);
        Ok(bytes)
    }

    /// Whether the disk would be recognised after a lost connection.
    pub(super) fn is_identified(&self) -> bool {
        self.identity.get().is_some()
    }

    /// Counts bytes that were read, and remembers the beginning of the disk.
    pub(super) fn note_read(&self, offset: u64, bytes: &[u8]) {
        self.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if offset == 0 && bytes.len() as u64 >= self.export.size.min(IDENTITY) {
            self.identity.get_or_init(|| hash_beginning(bytes));
        }
    }
}

/// Hash of the first bytes of a disk, by which it is recognised.
fn hash_beginning(bytes: &[u8]) -> [u8; 32] {
    let beginning = bytes.get(..IDENTITY as usize).unwrap_or(bytes);
    Sha256::digest(beginning).into()
}

/// Waits for the answers, and joins their bytes.
pub(super) fn join(tickets: Vec<Ticket>) -> Result<Vec<u8>, Failure> {
    let mut joined = Vec::new();
    for ticket in tickets {
        match ticket.wait()? {
            Answer::Bytes(bytes) if joined.is_empty() => joined = bytes,
            Answer::Bytes(bytes) => joined.extend(bytes),
            Answer::Extents(_) | Answer::Done => return Err(Failure::protocol("an answer without bytes")),
        }
    }
    Ok(joined)
}

pub(super) fn denied_error(denied: Denied, uri: &NbdUri) -> Error {
    let name = shell_argument(Path::new(&uri.to_string()), "URI");
    let (code, hint) = match &denied {
        Denied::Tls => return refuse_tls(Path::new(&uri.to_string())),
        Denied::Failed(Failure::Cancelled) => return cancelled(),
        Denied::Failed(Failure::Lost(_)) => (
            ErrorCode::NbdUnreachable,
            format!("see whether the server runs: nbdinfo {name}; qemu-nbd needs -t to serve more than one client"),
        ),
        Denied::PartialBlock { minimum, .. } => (
            ErrorCode::NbdServer,
            format!("let nbdkit fill the last block up: add --filter=truncate and round-up={minimum} to its arguments"),
        ),
        Denied::Refused(_) | Denied::Failed(_) => {
            (ErrorCode::NbdServer, format!("this shows the exports of the server: nbdinfo --list {name}"))
        }
    };
    Error::new(Kind::Io, Layer::Nbd, format!("cannot open the export: {}", escape(&denied.to_string())))
        .with_code(code)
        .path(uri.to_string())
        .hint(hint)
}
