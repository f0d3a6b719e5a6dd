//! One connection: requests are sent by the threads that make them, and a thread of the connection receives the replies, in
//! whatever order they come.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::export::Export;
use super::failure::Failure;
use super::handshake::{Denied, handshake};
use super::options::NbdOptions;
use super::reply::{Assembly, Question, read_head};
use super::requests;
use super::stream::{Stream, UntilDeadline, is_tick};
use super::ticket::{Slot, Ticket};
use super::uri::NbdUri;
use crate::sync::lock;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long what is in flight is waited for when the connection is not needed any more: nbdkit 1.32 ends, with all its other
/// clients, when one goes while it is being answered.
const PARTING: Duration = Duration::from_secs(2);
/// Buffers that are kept for other answers.
const SPARE_MAX: usize = 8;
/// Bytes of an answer that count as progress before it is complete: a server that sends less in the time that it is given is
/// given up, even if some bytes come all the time.
const PIECE: u64 = 256 << 10;

/// A connection in transmission.
pub(super) struct Connection {
    pub export: Export,
    shared: Arc<Shared>,
    receiver: Option<JoinHandle<()>>,
}

struct Shared {
    /// For writing; the receiver reads from a clone. Held while a request is sent.
    stream: Mutex<Stream>,
    state: Mutex<State>,
    /// Notified when nothing is owed any more, or the connection is of no more use.
    idle: Condvar,
    /// How long a server may take for a complete answer, or for [`PIECE`] bytes, while requests are in flight.
    patience: Duration,
    /// Complete answers that are not errors.
    answers: AtomicU64,
    /// Buffers of answers that are of no more use: new ones would cost new pages of memory each time.
    spare: Mutex<Vec<Vec<u8>>>,
}

struct State {
    in_flight: HashMap<u64, InFlight>,
    /// Whether a reply is being received, whose request is not in flight any more.
    is_receiving: bool,
    next_cookie: u64,
    /// When the server last completed an answer or sent [`PIECE`] bytes, or got something to do.
    last_progress: Instant,
    /// Bytes that came since then.
    bytes_since: u64,
    /// Why the connection is of no more use.
    broken: Option<Failure>,
}

struct InFlight {
    assembly: Assembly,
    slot: Arc<Slot>,
}

impl State {
    fn note_progress(&mut self) {
        (self.last_progress, self.bytes_since) = (Instant::now(), 0);
    }

    /// Counts bytes that came.
    fn count(&mut self, bytes: usize) {
        self.bytes_since = self.bytes_since.saturating_add(bytes as u64);
        if self.bytes_since >= PIECE {
            self.note_progress();
        }
    }

    /// Whether the server owes an answer.
    fn is_owed(&self) -> bool {
        !self.in_flight.is_empty() || self.is_receiving
    }

    /// Why the server is given up, if it owes an answer for too long.
    fn stall(&self, patience: Duration) -> Option<String> {
        let time = self.last_progress.elapsed();
        (self.is_owed() && time > patience).then(|| match self.bytes_since {
            0 => format!("no answer for {} s", time.as_secs()),
            bytes => format!("no answer for {} s but {bytes} bytes of one", time.as_secs()),
        })
    }
}

impl Connection {
    /// Connects and opens the export.
    pub(super) fn open(uri: &NbdUri, options: &NbdOptions) -> Result<Self, Denied> {
        let stream = Stream::connect(&uri.address, &options.cancel)?;
        let deadline = Instant::now() + HANDSHAKE;
        let export = handshake(&mut UntilDeadline { stream: &stream, deadline }, &uri.export)?;
        tracing::debug!(%uri, ?export, "connected to an NBD server");
        let incoming = stream.try_clone()?;
        let shared = Arc::new(Shared {
            stream: Mutex::new(stream),
            state: Mutex::new(State {
                in_flight: HashMap::new(),
                is_receiving: false,
                next_cookie: 1,
                last_progress: Instant::now(),
                bytes_since: 0,
                broken: None,
            }),
            idle: Condvar::new(),
            patience: options.patience,
            answers: AtomicU64::new(0),
            spare: Mutex::default(),
        });
        let receiver = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().spawn(move || shared.receive_all(&incoming, export.is_structured))?
        };
        Ok(Self { export, shared, receiver: Some(receiver) })
    }

    /// How many requests were answered so far, errors not counted.
    pub(super) fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Takes the buffer of an answer back, for another answer of the same length.
    pub(super) fn recycle(&self, buffer: Vec<u8>) {
        let mut spare = lock(&self.shared.spare);
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    }

    /// Asks for the bytes of a range, at most [`Export::maximum`] of them.
    pub(super) fn read(&self, offset: u64, length: u32) -> Result<Ticket, Failure> {
        let question = Question::Read { offset, length };
        self.send(question, |cookie| requests::read(cookie, offset, length))
    }

    /// Asks for the extents of a range, in this connection's context of holes.
    pub(super) fn block_status(&self, offset: u64, length: u32) -> Result<Ticket, Failure> {
        let context = self.export.context.ok_or_else(|| Failure::protocol("no context of holes"))?;
        let question = Question::Status { length, context };
        self.send(question, |cookie| requests::block_status(cookie, offset, length))
    }

    /// From now on the connection does not obey the cancellation of the job: what was begun is finished or taken back.
    ///
    /// # Errors
    /// When the connection is of no more use.
    pub(super) fn hold(&self) -> Result<(), Failure> {
        lock(&self.shared.stream).hold();
        lock(&self.shared.state).broken.clone().map_or(Ok(()), Err)
    }

    /// Asks for bytes to be written, at most [`Export::maximum`] of them.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Result<Ticket, Failure> {
        let length = u32::try_from(data.len()).map_err(|_| Failure::protocol("a write that is too long"))?;
        self.send_with(Question::Effect, |cookie| requests::write(cookie, offset, length), data)
    }

    /// Asks for zeros to be written; the server must offer it.
    pub(super) fn write_zeroes(&self, offset: u64, length: u32) -> Result<Ticket, Failure> {
        self.send(Question::Effect, |cookie| requests::write_zeroes(cookie, offset, length))
    }

    /// Asks for all writes that were answered to be made durable.
    pub(super) fn flush(&self) -> Result<Ticket, Failure> {
        self.send(Question::Effect, requests::flush)
    }

    fn send(&self, question: Question, encode: impl FnOnce(u64) -> [u8; requests::BYTES]) -> Result<Ticket, Failure> {
        self.send_with(question, encode, &[])
    }

    /// Sends a request and the data that follow it.
    fn send_with(
        &self,
        question: Question,
        encode: impl FnOnce(u64) -> [u8; requests::BYTES],
        data: &[u8],
    ) -> Result<Ticket, Failure> {
        let slot = Arc::new(Slot::default());
        let stream = lock(&self.shared.stream);
        let cookie = {
            let mut state = lock(&self.shared.state);
            if let Some(broken) = &state.broken {
                return Err(broken.clone());
            }
            let cookie = state.next_cookie;
            state.next_cookie += 1;
            if state.in_flight.is_empty() {
                state.note_progress();
            }
            let assembly = Assembly::with_buffer(question, self.shared.buffer_for(question));
            let in_flight = InFlight { assembly, slot: Arc::clone(&slot) };
            state.in_flight.insert(cookie, in_flight);
            cookie
        };
        let head = encode(cookie);
        let sent = (&*stream).write_all(&head).and_then(|()| (&*stream).write_all(data));
        if let Err(error) = sent {
            // A request that was sent in part leaves the stream without a meaning.
            self.shared.fail(&Failure::lost(&error));
            stream.shut_down();
            // Why the connection was of no more use before, the receiver knows: the job is asked to stop, say.
            let broken = lock(&self.shared.state).broken.clone();
            return Err(broken.unwrap_or_else(|| Failure::lost(&error)));
        }
        Ok(Ticket::new(slot))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let stream = lock(&self.shared.stream);
        if self.shared.wait_until_idle(PARTING) {
            // The server sees the end of the connection in any case.
            let _ = (&*stream).write_all(&requests::disconnect());
        }
        stream.shut_down();
        drop(stream);
        if let Some(receiver) = self.receiver.take() {
            // Its panic has failed the requests already.
            let _ = receiver.join();
        }
    }
}

impl Shared {
    /// A buffer that was taken back and has the length of the answer, or a new one.
    fn buffer_for(&self, question: Question) -> Vec<u8> {
        let Question::Read { length, .. } = question else { return Vec::new() };
        lock(&self.spare).pop_if(|buffer| buffer.len() == length as usize).unwrap_or_default()
    }

    fn receive_all(&self, incoming: &Stream, is_structured: bool) {
        let _guard = FailOnDrop(self);
        let mut incoming = Patient { stream: incoming, shared: self };
        loop {
            if let Err(failure) = self.receive_one(&mut incoming, is_structured) {
                self.fail(&failure);
                incoming.stream.shut_down();
                return;
            }
        }
    }

    fn receive_one(&self, incoming: &mut Patient<'_>, is_structured: bool) -> Result<(), Failure> {
        let head = read_head(incoming, is_structured)?;
        // Taken out while its bytes are received: the threads that send must not wait for that.
        let taken = {
            let mut state = lock(&self.state);
            state.is_receiving = true;
            state.in_flight.remove(&head.cookie)
        };
        let mut taken = taken.ok_or_else(|| Failure::protocol("a reply to a request that was not sent"))?;
        let received = taken.assembly.receive(head, is_structured, incoming);
        let mut state = lock(&self.state);
        state.is_receiving = false;
        match received {
            Ok(true) => {
                state.note_progress();
                if !state.is_owed() {
                    self.idle.notify_all();
                }
                drop(state);
                let outcome = taken.assembly.finish();
                self.answers.fetch_add(u64::from(outcome.is_ok()), Ordering::Relaxed);
                let failure = match &outcome {
                    Err(failure @ Failure::Protocol(_)) => Some(failure.clone()),
                    _ => None,
                };
                taken.slot.fill(outcome);
                failure.map_or(Ok(()), Err)
            }
            Ok(false) => {
                match &state.broken {
                    Some(failure) => taken.slot.fill(Err(failure.clone())),
                    None => drop(state.in_flight.insert(head.cookie, taken)),
                }
                Ok(())
            }
            Err(failure) => {
                drop(state);
                taken.slot.fill(Err(failure.clone()));
                Err(failure)
            }
        }
    }

    /// Waits until nothing is owed; whether that came about in time.
    fn wait_until_idle(&self, time: Duration) -> bool {
        let state = lock(&self.state);
        let wait = self.idle.wait_timeout_while(state, time, |state| state.is_owed() && state.broken.is_none());
        let (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
        !state.is_owed() && state.broken.is_none()
    }

    /// Fails all requests, those in flight and those to come.
    fn fail(&self, failure: &Failure) {
        let in_flight = {
            let mut state = lock(&self.state);
            state.broken.get_or_insert(failure.clone());
            std::mem::take(&mut state.in_flight)
        };
        self.idle.notify_all();
        in_flight.into_values().for_each(|request| request.slot.fill(Err(failure.clone())));
    }
}

/// Fails what is left when the receiver ends, by whatever way.
struct FailOnDrop<'a>(&'a Shared);

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fail(&Failure::Lost("the connection is closed".to_owned()));
    }
}

/// The incoming half. Waits for as long as nothing is owed, and no longer than the limit where something is.
struct Patient<'a> {
    stream: &'a Stream,
    shared: &'a Shared,
}

impl Read for Patient<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = self.stream.read(buf);
            let mut state = lock(&self.shared.state);
            if let Some(broken) = &state.broken {
                return Err(broken.clone().into());
            }
            let is_tick = result.as_ref().is_err_and(is_tick);
            if let Ok(bytes) = &result {
                state.count(*bytes);
            }
            // Bytes that come one by one are no answer.
            if let Some(stall) = state.stall(self.shared.patience) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, stall));
            }
            if !is_tick {
                return result;
            }
        }
    }
}
