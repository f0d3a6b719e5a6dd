//! Large pieces of an export, read ahead while it is read from one end to the other.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::extents::Extents;
use super::failure::Failure;
use super::link::{Link, join};
use super::ticket::Ticket;
use crate::sync::lock;

/// Bytes of a piece.
pub(super) const CHUNK: u64 = 2 << 20;

/// Steps forward after which a reader counts as one that goes to the end.
const STEPS: u32 = 2;

/// The pieces of an export that are held, or on their way.
pub(super) struct ReadAhead {
    link: Arc<Link>,
    extents: Arc<Mutex<Extents>>,
    chunks: Mutex<Chunks>,
    /// Notified when a chunk has arrived.
    arrived: Condvar,
}

/// Large pieces that were read or are being read ahead.
#[derive(Default)]
struct Chunks {
    held: BTreeMap<u64, Chunk>,
    /// The chunk that was asked for furthest to the end, while the disk is read from one end to the other.
    front: Option<u64>,
    /// How often the reader went forward, without a jump.
    steps: u32,
    clock: u64,
}

struct Chunk {
    state: ChunkState,
    used: u64,
}

impl Chunk {
    /// Whether the server owes its bytes.
    fn is_in_flight(&self) -> bool {
        match &self.state {
            ChunkState::Sent(tickets) => !tickets.iter().all(Ticket::is_answered),
            ChunkState::Awaited => true,
            ChunkState::Here(_) => false,
        }
    }
}

enum ChunkState {
    Sent(Vec<Ticket>),
    /// A thread waits for its bytes.
    Awaited,
    Here(Arc<Vec<u8>>),
}

impl ReadAhead {
    /// Nothing is held.
    pub(super) fn new(link: Arc<Link>, extents: Arc<Mutex<Extents>>) -> Self {
        Self { link, extents, chunks: Mutex::default(), arrived: Condvar::new() }
    }

    /// Whether a chunk is held or on its way.
    pub(super) fn holds(&self, number: u64) -> bool {
        lock(&self.chunks).held.contains_key(&number)
    }

    /// The bytes of a chunk; sends requests for the next ones where the reader goes forward.
    pub(super) fn take(&self, number: u64) -> Result<Arc<Vec<u8>>, Failure> {
        let mut chunks = lock(&self.chunks);
        let is_forward = self.advance(&mut chunks, number);
        if !is_forward {
            // What was read ahead for another place would take the place of what is read ahead here.
            chunks.held.retain(|_, chunk| !matches!(chunk.state, ChunkState::Sent(_)));
        }
        // The request that is waited for goes first.
        let mut tickets = None;
        loop {
            chunks.clock += 1;
            let clock = chunks.clock;
            let Some(chunk) = chunks.held.get_mut(&number) else { break };
            chunk.used = clock;
            match std::mem::replace(&mut chunk.state, ChunkState::Awaited) {
                ChunkState::Here(bytes) => {
                    chunk.state = ChunkState::Here(Arc::clone(&bytes));
                    if is_forward {
                        self.read_ahead(&mut chunks, number);
                    }
                    return Ok(bytes);
                }
                ChunkState::Sent(sent) => {
                    tickets = Some(sent);
                    break;
                }
                ChunkState::Awaited => {
                    chunks = self.arrived.wait(chunks).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        let (start, length) = self.chunk_range(number);
        if tickets.is_none() {
            let used = chunks.clock;
            chunks.held.insert(number, Chunk { state: ChunkState::Awaited, used });
            let sent = self.link.current().and_then(|(connection, _)| self.link.send(&connection, start, length));
            tickets = sent.ok();
        }
        if is_forward {
            self.read_ahead(&mut chunks, number);
        }
        drop(chunks);
        // What was lost with a connection is asked again.
        let bytes = match tickets.map(join) {
            Some(Ok(bytes)) => {
                self.link.note_read(start, &bytes);
                Ok(bytes)
            }
            Some(Err(failure)) if !failure.is_loss() => Err(failure),
            Some(Err(_)) | None => self.link.fetch(start, length),
        };
        let mut chunks = lock(&self.chunks);
        let result = bytes.map(Arc::new);
        match &result {
            Ok(bytes) => {
                chunks.clock += 1;
                let used = chunks.clock;
                chunks.held.insert(number, Chunk { state: ChunkState::Here(Arc::clone(bytes)), used });
                self.evict(&mut chunks);
            }
            Err(_) => drop(chunks.held.remove(&number)),
        }
        self.arrived.notify_all();
        result
    }

    /// Notes that a chunk is asked for; whether the disk is being read from one end to the other.
    fn advance(&self, chunks: &mut Chunks, number: u64) -> bool {
        let Some(front) = chunks.front else {
            chunks.front = Some(number);
            // Who begins at the beginning means to go to the end.
            chunks.steps = if number == 0 { STEPS } else { 0 };
            return true;
        };
        // Several threads ask in turn, so that one may be a little behind.
        let is_near = number <= front && front - number <= self.link.options.requests as u64;
        let next = lock(&self.extents).next_data((front + 1).saturating_mul(CHUNK)) / CHUNK;
        let is_forward = is_near || (number > front && number <= next.max(front + self.link.options.requests as u64));
        chunks.steps = match (is_forward, number.cmp(&front)) {
            (false, _) => 0,
            (true, Ordering::Greater) => chunks.steps.saturating_add(1),
            (true, _) => chunks.steps,
        };
        chunks.front = Some(if is_forward { front.max(number) } else { number });
        is_forward
    }

    /// Sends requests for the chunks after `number`, as many as may be in flight; those without data are left out.
    fn read_ahead(&self, chunks: &mut Chunks, number: u64) {
        if chunks.steps < STEPS {
            return;
        }
        let Ok((connection, _)) = self.link.current() else { return };
        let in_flight = chunks.held.values().filter(|chunk| chunk.is_in_flight()).count();
        let mut free = self.link.options.requests.saturating_sub(in_flight);
        // What has been answered waits for its reader, while as much again is in flight.
        let mut ahead = self.link.options.requests.saturating_mul(2);
        let mut next = number + 1;
        while free > 0 && ahead > 0 {
            let data = lock(&self.extents).next_data(next.saturating_mul(CHUNK).min(self.link.export.size));
            if data >= self.link.export.size {
                return;
            }
            next = next.max(data / CHUNK);
            if !chunks.held.contains_key(&next) {
                let (start, length) = self.chunk_range(next);
                let Ok(sent) = self.link.send(&connection, start, length) else { return };
                let used = chunks.clock;
                chunks.held.insert(next, Chunk { state: ChunkState::Sent(sent), used });
                free -= 1;
            }
            ahead -= 1;
            next += 1;
        }
    }

    /// Drops the chunks that were used longest ago, beyond as many as may be in flight.
    fn evict(&self, chunks: &mut Chunks) {
        let limit = self.link.options.requests.max(1);
        let here = chunks.held.iter().filter(|(_, chunk)| matches!(chunk.state, ChunkState::Here(_)));
        let mut here: Vec<(u64, u64)> = here.map(|(number, chunk)| (chunk.used, *number)).collect();
        here.sort_unstable();
        let surplus = here.len().saturating_sub(limit);
        for (_, number) in here.into_iter().take(surplus) {
            if let Some(Chunk { state: ChunkState::Here(bytes), .. }) = chunks.held.remove(&number)
                && let Some(bytes) = Arc::into_inner(bytes)
            {
                self.link.recycle(bytes);
            }
        }
    }

    /// Offset and length of a chunk.
    fn chunk_range(&self, number: u64) -> (u64, u64) {
        let start = number.saturating_mul(CHUNK).min(self.link.export.size);
        (start, (self.link.export.size - start).min(CHUNK))
    }
}
