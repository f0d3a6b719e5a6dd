//! The way to a server: a connection that is made again where it is lost.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::connection::{Connection, Ticket};
use super::export::Export;
use super::failure::Failure;
use super::handshake::Denied;
use super::reply::Answer;
use super::uri::{NbdUri, refuse_tls};
use crate::error::{Error, ErrorCode, Kind, Layer};
use crate::escape::escape;

/// The error number of a server that shuts down.
const SHUTDOWN: u32 = 108;

/// How an export is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NbdOptions {
    /// Reads of 2 MiB that are in flight at once, when a disk is read from one end to the other.
    pub requests: usize,
    /// How long the server may be silent while it owes an answer.
    pub patience: Duration,
    /// Waits before the attempts to connect again, when a connection was lost.
    pub retries: Vec<Duration>,
}

impl Default for NbdOptions {
    fn default() -> Self {
        let retries = [0, 1, 2, 4, 8].map(Duration::from_secs).to_vec();
        Self { requests: 8, patience: Duration::from_secs(60), retries }
    }
}

/// A server and one of its exports.
pub(super) struct Link {
    pub(super) uri: NbdUri,
    pub(super) options: NbdOptions,
    pub(super) export: Export,
    state: Mutex<State>,
    bytes_read: AtomicU64,
}

struct State {
    connection: Arc<Connection>,
    /// Counts connections.
    generation: u64,
    /// Why no other connection is made.
    given_up: Option<Failure>,
}

impl Link {
    /// Connects to the export that `name` names.
    pub(super) fn open(name: &Path, options: NbdOptions) -> crate::error::Result<Self> {
        let uri = NbdUri::parse(name)?;
        let connection = Connection::open(&uri, options.patience).map_err(|denied| denied_error(denied, name))?;
        let export = connection.export;
        let state = Mutex::new(State { connection: Arc::new(connection), generation: 0, given_up: None });
        Ok(Self { uri, options, export, state, bytes_read: AtomicU64::new(0) })
    }

    /// Bytes that were received for those who asked.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// The connection, and its number.
    pub(super) fn current(&self) -> Result<(Arc<Connection>, u64), Failure> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.given_up {
            Some(failure) => Err(failure.clone()),
            None => Ok((Arc::clone(&state.connection), state.generation)),
        }
    }

    /// Runs `ask`, on another connection if the first one is lost.
    pub(super) fn ask<T>(&self, ask: impl Fn(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut losses = 0;
        loop {
            let (connection, generation) = self.current()?;
            match ask(&connection) {
                Err(failure @ (Failure::Lost(_) | Failure::Refused(SHUTDOWN, _))) => {
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
    fn reconnect(&self, generation: u64, lost: Failure) -> Result<(), Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = &state.given_up {
            return Err(failure.clone());
        }
        if state.generation != generation {
            return Ok(());
        }
        for (attempt, wait) in self.options.retries.iter().enumerate() {
            tracing::warn!(uri = %self.uri, %lost, attempt, "connecting to the NBD server again");
            std::thread::sleep(*wait);
            let Ok(connection) = Connection::open(&self.uri, self.options.patience) else { continue };
            if !connection.export.is_same(&self.export) {
                let failure = Failure::protocol("after a lost connection it exports another disk under this name");
                state.given_up = Some(failure.clone());
                return Err(failure);
            }
            *state = State { connection: Arc::new(connection), generation: generation + 1, given_up: None };
            return Ok(());
        }
        state.given_up = Some(lost.clone());
        Err(lost)
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
        self.count(&bytes);
        Ok(bytes)
    }

    pub(super) fn count(&self, bytes: &[u8]) {
        self.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

/// Waits for the answers, and joins their bytes.
pub(super) fn join(tickets: Vec<Ticket>) -> Result<Vec<u8>, Failure> {
    let mut joined = Vec::new();
    for ticket in tickets {
        match ticket.wait()? {
            Answer::Bytes(bytes) if joined.is_empty() => joined = bytes,
            Answer::Bytes(bytes) => joined.extend(bytes),
            Answer::Extents(_) => return Err(Failure::protocol("extents in place of bytes")),
        }
    }
    Ok(joined)
}

fn denied_error(denied: Denied, name: &Path) -> Error {
    let reason = match denied {
        Denied::Tls => return refuse_tls(name),
        Denied::Refused(reason) => reason,
        Denied::Failed(Failure::Lost(reason)) => reason,
        Denied::Failed(failure) => failure.to_string(),
    };
    Error::new(Kind::Io, Layer::Nbd, format!("cannot open the export: {}", escape(&reason)))
        .with_code(ErrorCode::NbdServer)
        .path(name.display().to_string())
        .hint(
            "this shows the exports of the server: nbdinfo --list URI; qemu-nbd needs -t to serve more than one client",
        )
}
