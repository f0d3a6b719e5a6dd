//! The worker threads of a conversion and the state that they share.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::compress::Compressor;
use super::flush::Flusher;
use super::interrupt::Interrupt;
use super::layout::{Buffers, Encoded, Layout, Piece, Write};
use super::options::{ConvertOptions, ConvertProgress};
use super::qcow2::Qcow2Layout;
use super::raw::{RawLayout, UNIT};
use super::window::{Window, Windows};
use crate::block::formats::qcow2::{ClusterSize, Compression, ImageLayout, NewImageOptions, Survey};
use crate::block::{DiskSource, Format, Storage, is_zero};
use crate::error::{Error, Layer, Result};
use crate::sync::lock;
use crate::units::ImageOffset;

/// Bytes that one thread works on at a time.
const WINDOW: u64 = 2 << 20;

/// The same with many threads, to keep memory within bounds.
const WINDOW_SMALL: u64 = 1 << 20;

/// Most worker threads: with more, the disk is the limit.
const THREADS_MAX: usize = 16;

/// How often progress is reported at least.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Format of the output, and number of worker threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputSpec {
    format: Format,
    /// Algorithm, and the level in its own scale if not the default.
    compression: Option<(Compression, Option<u32>)>,
    cluster_bits: u32,
    threads: usize,
}

impl OutputSpec {
    pub(super) fn new(options: &ConvertOptions<'_>) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, NonZero::get);
        Self {
            format: options.format,
            compression: options.compression.map(|kind| (kind, options.level)),
            cluster_bits: options.cluster_bits,
            threads: options.threads.unwrap_or(processors.max(2)).clamp(1, THREADS_MAX),
        }
    }

    fn is_raw(&self) -> bool {
        self.format == Format::Raw
    }

    /// The size of a qcow2's clusters; `None` for a raw output.
    fn clusters(&self) -> Result<Option<ClusterSize>> {
        if self.is_raw() {
            return Ok(None);
        }
        let clusters = ClusterSize::new(self.cluster_bits);
        clusters.map(Some).ok_or_else(|| Error::bug(Layer::Block, "a cluster size that was not checked"))
    }

    /// Bytes that are stored or left out together.
    pub(super) fn unit(&self) -> u64 {
        if self.is_raw() { UNIT } else { 1 << self.cluster_bits }
    }

    /// Bytes of a window.
    fn window(&self) -> u64 {
        if self.threads > 4 { WINDOW_SMALL } else { WINDOW }.max(self.unit())
    }
}

/// A copy in progress: its layout, and bytes to do and done.
pub(super) struct CopyState {
    pub(super) layout: Box<dyn Layout>,
    /// Bytes that there are to read.
    total: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
}

impl CopyState {
    /// Bytes that there are to read.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

/// Callbacks and cancellation for the worker threads.
#[derive(Clone, Copy, Default)]
pub(super) struct Hooks<'a> {
    pub(super) progress: Option<&'a dyn Fn(ConvertProgress)>,
    pub(super) verify: Option<&'a (dyn Fn() -> Result<()> + Sync)>,
    pub(super) interrupt: Interrupt<'a>,
}

/// Walks the source's extents once: how much there is to read, and what the layout needs, with room for
/// `appended_max` bytes that come later. Ends early when it is interrupted: then nothing is to be copied.
pub(super) fn prepare<S: DiskSource + ?Sized>(
    source: &S,
    spec: &OutputSpec,
    appended_max: u64,
    interrupt: Interrupt<'_>,
) -> Result<CopyState> {
    let clusters = spec.clusters()?;
    let mut survey = clusters.map(|clusters| Survey::new(source.len(), clusters)).transpose()?;
    let mut total = 0;
    let mut windows = Windows::new(source, spec.unit(), spec.window(), interrupt);
    while let Some(window) = windows.next()? {
        total += window.bytes();
        if let Some(survey) = &mut survey {
            window.ranges.iter().for_each(|(offset, length)| survey.add(*offset, *length));
        }
    }
    let layout: Box<dyn Layout> = match clusters.zip(survey) {
        Some((clusters, mut survey)) => {
            survey.expect_more(appended_max);
            let compression = spec.compression.map_or(Compression::Zlib, |(kind, _)| kind);
            let options = NewImageOptions { size: source.len(), clusters, compression, backing: None };
            Box::new(Qcow2Layout { image: ImageLayout::with_tables_before_data(options, &survey)? })
        }
        None => Box::new(RawLayout { size: source.len() }),
    };
    Ok(CopyState { layout, total, bytes_read: 0, bytes_written: 0 })
}

/// Reads all of `source` and writes it to `file`, but for what [`Layout::finish`] does.
pub(super) fn copy<S: DiskSource + ?Sized>(
    source: &S,
    (file, flusher): (&dyn Storage, &Flusher),
    spec: &OutputSpec,
    state: CopyState,
    hooks: Hooks<'_>,
) -> Result<CopyState> {
    let total = state.total;
    let shared = Shared {
        source,
        file,
        flusher,
        compression: spec.compression,
        is_raw: spec.is_raw(),
        unit: spec.unit(),
        ahead: spec.threads * 2,
        windows: Mutex::new(Windows::new(source, spec.unit(), spec.window(), hooks.interrupt)),
        state: Mutex::new(State {
            layout: state.layout,
            waiting: BTreeMap::new(),
            next: 0,
            placed: VecDeque::new(),
            is_writing: false,
            failed: None,
            is_stopped: false,
            running: spec.threads,
        }),
        changed: Condvar::new(),
        idle: Mutex::default(),
        bytes_read: AtomicU64::new(0),
        bytes_written: AtomicU64::new(0),
        interrupt: hooks.interrupt,
    };
    std::thread::scope(|scope| {
        for _ in 0..spec.threads {
            scope.spawn(|| shared.work());
        }
        if let Some(verify) = hooks.verify {
            scope.spawn(|| shared.verify(verify));
        }
        if let Some(progress) = hooks.progress {
            shared.report_progress(|done| progress(ConvertProgress { done, total }));
        }
    });
    let Shared { state, bytes_read, bytes_written, .. } = shared;
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = state.failed {
        return Err(error);
    }
    hooks.interrupt.check()?;
    if !state.waiting.is_empty() || !state.placed.is_empty() {
        return Err(Error::bug(Layer::Block, "a window was never written"));
    }
    Ok(CopyState {
        layout: state.layout,
        total,
        bytes_read: bytes_read.into_inner(),
        bytes_written: bytes_written.into_inner(),
    })
}

struct Shared<'a, S: DiskSource + ?Sized> {
    source: &'a S,
    file: &'a dyn Storage,
    flusher: &'a Flusher,
    /// See [`OutputSpec`].
    compression: Option<(Compression, Option<u32>)>,
    is_raw: bool,
    unit: u64,
    /// How many finished windows may wait for an earlier one.
    ahead: usize,
    windows: Mutex<Windows<'a, S>>,
    state: Mutex<State>,
    /// Notified whenever `state` changes.
    changed: Condvar,
    /// Buffers that no window uses at the moment.
    idle: Mutex<Vec<Buffers>>,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    interrupt: Interrupt<'a>,
}

struct State {
    layout: Box<dyn Layout>,
    /// Windows that are encoded while an earlier one is not.
    waiting: BTreeMap<u64, Encoded>,
    /// Number of the window that is placed next.
    next: u64,
    /// Windows that have their places in the file and are still to be written.
    placed: VecDeque<(Vec<Write>, Encoded)>,
    /// Whether a thread is writing. The kernel lets one at a time write to a file and the others spin; here they go on
    /// reading.
    is_writing: bool,
    failed: Option<Error>,
    is_stopped: bool,
    /// Worker threads that have not ended.
    running: usize,
}

impl<S: DiskSource + ?Sized> Shared<'_, S> {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Body of a worker thread. A panic in it (a defect) must not leave the others waiting.
    fn work(&self) {
        let mut guard = StopOnDrop { shared: self, is_done: false };
        match self.work_until_done() {
            Ok(()) => guard.is_done = true,
            Err(error) => {
                self.lock().failed.get_or_insert(error);
            }
        }
    }

    /// Stops all threads when the source does not pass.
    fn verify(&self, verify: &(dyn Fn() -> Result<()> + Sync)) {
        if let Err(error) = verify() {
            let mut state = self.lock();
            state.failed.get_or_insert(error);
            state.is_stopped = true;
            self.changed.notify_all();
        }
    }

    /// Reports the bytes that were read, again and again, until all threads have ended.
    fn report_progress(&self, report: impl Fn(u64)) {
        let mut state = self.lock();
        while state.running > 0 {
            state = self.changed.wait_timeout(state, PROGRESS_EVERY).unwrap_or_else(PoisonError::into_inner).0;
            report(self.bytes_read.load(Ordering::Relaxed));
        }
        drop(state);
        // The last report is the total, however fast the workers were.
        report(self.bytes_read.load(Ordering::Relaxed));
    }

    fn work_until_done(&self) -> Result<()> {
        let mut compressor = self.compression.map(|(kind, level)| Compressor::new(kind, level)).transpose()?;
        loop {
            if self.lock().is_stopped || self.interrupt.is_set() {
                return Ok(());
            }
            let Some(window) = lock(&self.windows).next()? else { return Ok(()) };
            let encoded = self.encode(window, compressor.as_mut())?;
            self.write_in_order(encoded)?;
        }
    }

    /// Reads a window, drops its zeros, compresses the rest.
    fn encode(&self, window: Window, compressor: Option<&mut Compressor>) -> Result<Encoded> {
        let mut buffers = lock(&self.idle).pop().unwrap_or_default();
        let start = window.start.0;
        let end = window.ranges.last().map_or(start, |(offset, length)| offset.0 + length);
        // The last cluster is written whole, with zeros beyond the end of the disk.
        let span = (end - start).next_multiple_of(self.unit) as usize;
        buffers.data.resize(span, 0);
        let mut pieces = Vec::new();
        for (offset, length) in &window.ranges {
            let from = (offset.0 - start) as usize;
            let length = *length as usize;
            let padded = length.next_multiple_of(self.unit as usize);
            let range = buffers.data.get_mut(from..from + padded);
            let range = range.ok_or_else(|| Error::bug(Layer::Block, "a range outside its window").at(*offset))?;
            let (read, beyond) = range.split_at_mut(length);
            self.source.read_at(*offset, read)?;
            beyond.fill(0);
            for (i, unit) in range.chunks(self.unit as usize).enumerate() {
                if !is_zero(unit) {
                    let skip = i * self.unit as usize;
                    // A raw file must not become longer than the disk.
                    let length = if self.is_raw { unit.len().min(length - skip) } else { unit.len() };
                    let guest = ImageOffset(offset.0 + skip as u64);
                    pieces.push(Piece { guest, at: from + skip, length, is_compressed: false });
                }
            }
        }
        self.bytes_read.fetch_add(window.bytes(), Ordering::Relaxed);
        if let Some(compressor) = compressor {
            compress(&mut pieces, &mut buffers, compressor)?;
        }
        Ok(Encoded { window, pieces, buffers })
    }

    /// Waits until few windows are ahead of the order, and few are still to be written; then writes all that are next
    /// in order, unless another thread is writing.
    fn write_in_order(&self, encoded: Encoded) -> Result<()> {
        let number = encoded.window.number;
        let mut state = self.lock();
        while !state.is_stopped && state.is_far_ahead(number, self.ahead) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.insert(number, encoded);
        while let Some(encoded) = {
            let next = state.next;
            state.waiting.remove(&next)
        } {
            let writes = state.layout.place(&encoded)?;
            state.placed.push_back((writes, encoded));
            state.next += 1;
        }
        self.changed.notify_all();
        if state.is_writing {
            return Ok(());
        }
        state.is_writing = true;
        while let Some((writes, encoded)) = state.placed.pop_front() {
            drop(state);
            self.changed.notify_all();
            let mut written = 0;
            for write in writes {
                let (to, bytes) = write.run(self.file, &encoded.buffers)?;
                self.flusher.wrote(to, bytes)?;
                written += bytes;
            }
            self.bytes_written.fetch_add(written, Ordering::Relaxed);
            lock(&self.idle).push(encoded.buffers);
            state = self.lock();
            if state.is_stopped {
                break;
            }
        }
        state.is_writing = false;
        Ok(())
    }
}

impl State {
    /// Whether a window has to wait: for earlier ones, or for the disk.
    fn is_far_ahead(&self, number: u64, ahead: usize) -> bool {
        if number == self.next {
            // The writing thread takes windows from `placed` and then wakes this one.
            self.is_writing && self.placed.len() >= ahead
        } else {
            self.waiting.len() + self.placed.len() >= ahead
        }
    }
}

/// Replaces pieces by their compressed form where that is smaller than the cluster.
fn compress(pieces: &mut [Piece], buffers: &mut Buffers, compressor: &mut Compressor) -> Result<()> {
    let mut used = 0;
    for piece in pieces {
        let room = used + Compressor::bound(piece.length);
        if buffers.compressed.len() < room {
            buffers.compressed.resize(room, 0);
        }
        let (Some(from), Some(to)) =
            (buffers.data.get(piece.at..piece.at + piece.length), buffers.compressed.get_mut(used..))
        else {
            return Err(Error::bug(Layer::Block, "a piece outside its buffer").at(piece.guest));
        };
        if let Some(length) = compressor.compress(from, to)? {
            *piece = Piece { guest: piece.guest, at: used, length, is_compressed: true };
            used += length;
        }
    }
    Ok(())
}

/// Counts a worker thread out; tells the others to stop unless it is done.
struct StopOnDrop<'a, 'b, S: DiskSource + ?Sized> {
    shared: &'a Shared<'b, S>,
    is_done: bool,
}

impl<S: DiskSource + ?Sized> Drop for StopOnDrop<'_, '_, S> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_stopped |= !self.is_done;
        state.running -= 1;
        drop(state);
        self.shared.changed.notify_all();
    }
}
