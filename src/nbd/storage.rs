//! An export as a file that is read.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::cache::{BLOCK, BlockCache};
use super::edit_host::ExportHost;
use super::export::Export;
use super::extents::{Extents, StatusYield};
use super::failure::Failure;
use super::link::Link;
use super::options::NbdOptions;
use super::read_ahead::{CHUNK, ReadAhead};
use super::reply::Answer;
use super::seen::SeenBlocks;
use crate::error::{Error, Layer, Result};
use crate::host::{HostRun, Storage};
use crate::sync::lock;

/// Reads of so many bytes go past the cache of blocks.
const LARGE: usize = (CHUNK / 8) as usize;
/// Bytes whose extents are asked for at once.
const STATUS: u64 = 1 << 30;

/// An export of an NBD server, open for reading. A lost connection is made again, and what was not answered is asked again.
pub struct NbdStorage {
    link: Arc<Link>,
    blocks: Mutex<BlockCache>,
    seen: Mutex<SeenBlocks>,
    extents: Arc<Mutex<Extents>>,
    status_yield: Mutex<StatusYield>,
    /// Held while extents are asked for: some servers become slow when they are asked in parallel.
    asking: Mutex<()>,
    read_ahead: ReadAhead,
}

impl std::fmt::Debug for NbdStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NbdStorage")
            .field("uri", &self.link.uri)
            .field("export", &self.link.export)
            .finish_non_exhaustive()
    }
}

impl NbdStorage {
    /// Connects to the export that `name` names.
    ///
    /// # Errors
    /// Those of [`NbdUri::parse`](super::NbdUri::parse); [`Kind::Io`](crate::Kind::Io) when the server cannot be reached or does not have the export;
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) when it demands TLS.
    pub fn open(name: &Path, options: NbdOptions) -> Result<Self> {
        let link = Arc::new(Link::open(name, options)?);
        let extents = Arc::<Mutex<Extents>>::default();
        let read_ahead = ReadAhead::new(Arc::clone(&link), Arc::clone(&extents));
        Ok(Self {
            link,
            blocks: Mutex::default(),
            seen: Mutex::default(),
            extents,
            status_yield: Mutex::default(),
            asking: Mutex::default(),
            read_ahead,
        })
    }

    /// What the server said of the export.
    #[must_use]
    pub fn export(&self) -> &Export {
        &self.link.export
    }

    /// The host on which the export is edited in place, through the connection that it is read through: a server may serve one
    /// client at a time.
    ///
    /// # Errors
    /// Those of [`ExportHost::new`] and [`ExportHost::open`](crate::host::HostFiles::open); [`Kind::Bug`](crate::Kind::Bug) when
    /// it was not opened to be edited.
    pub fn edit_host(&self) -> Result<ExportHost> {
        if !self.link.options.is_edited {
            return Err(Error::bug(Layer::Nbd, "an edit of an export that was opened to be read"));
        }
        let host = ExportHost::new(Path::new(&self.link.uri.to_string()), &self.link.options)?;
        // A connection that was lost meanwhile is made again for a read.
        let alive = self.link.fetch(0, self.link.export.size.min(BLOCK)).and_then(|_| self.link.current());
        let (connection, _) = alive.map_err(|lost| host.lost(lost))?;
        host.use_connection(connection)?;
        Ok(host)
    }

    /// Whether a range may still be what it was when it was first read, as far as that is remembered. What is not cached any
    /// more is read again.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn is_as_first_read(&self, offset: u64, length: u64) -> io::Result<bool> {
        let end = offset.saturating_add(length).min(self.link.export.size);
        for number in offset / BLOCK..end.div_ceil(BLOCK) {
            let start = number * BLOCK;
            let mut block = vec![0; usize::try_from(BLOCK.min(self.link.export.size - start)).unwrap_or(0)];
            self.read_block(start, &mut block).map_err(|failure| failure.into_read_error(&self.link.uri))?;
            if lock(&self.seen).was_other(number, &block) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Remembers what was read, for [`is_as_first_read`](Self::is_as_first_read).
    fn remember(&self, number: u64, bytes: &[u8]) {
        if self.link.options.is_edited {
            lock(&self.seen).add(number, bytes);
        }
    }

    /// Fills a part of `buf` from the cache of blocks; returns how much.
    fn read_block(&self, offset: u64, buf: &mut [u8]) -> std::result::Result<usize, Failure> {
        let number = offset / BLOCK;
        let within = (offset % BLOCK) as usize;
        let found = lock(&self.blocks).get(number);
        let block = match found {
            Some(block) => block,
            None => {
                let count = self.link.export.size.div_ceil(BLOCK);
                let wanted = lock(&self.blocks).plan_fetch(number, count);
                let start = number * BLOCK;
                let length = (wanted * BLOCK).min(self.link.export.size - start);
                let bytes = match lock(&self.extents).at(start) {
                    Some((end, true)) if end >= start + length => vec![0; length as usize],
                    _ => Vec::new(),
                };
                let bytes = if bytes.is_empty() { self.link.fetch(start, length)? } else { bytes };
                self.remember(number, &bytes);
                let mut blocks = lock(&self.blocks);
                blocks.add(number, &bytes);
                blocks.get(number).ok_or_else(|| Failure::protocol("no bytes in an answer"))?
            }
        };
        Ok(copy(&block, within, buf))
    }

    /// Fills a part of `buf` from a chunk, and reads ahead; returns how much.
    fn read_chunk(&self, offset: u64, buf: &mut [u8]) -> std::result::Result<usize, Failure> {
        let number = offset / CHUNK;
        let chunk = self.read_ahead.take(number)?;
        if offset.is_multiple_of(CHUNK) || buf.len() >= LARGE {
            self.remember(number * (CHUNK / BLOCK), &chunk);
        }
        Ok(copy(&chunk, (offset % CHUNK) as usize, buf))
    }

    /// The end of the extent that holds `offset`, and whether it may hold data.
    fn find_extent(&self, offset: u64) -> std::result::Result<(u64, bool), Failure> {
        let _asking = lock(&self.asking);
        let to_end = (self.link.export.size, true);
        if lock(&self.extents).at(offset).is_none() {
            if lock(&self.status_yield).is_poor() {
                return Ok(to_end);
            }
            self.ask_for_extents(offset)?;
        }
        let (end, is_zero) = lock(&self.extents)
            .at(offset)
            .ok_or_else(|| Failure::protocol("extents that do not begin where they were asked for"))?;
        Ok((end, !is_zero))
    }

    /// Asks for the extents from `offset` on, which are not known.
    fn ask_for_extents(&self, offset: u64) -> std::result::Result<(), Failure> {
        if !self.link.is_identified() {
            // Holes of this disk and data of another one that comes in its place must not be mixed.
            match self.read_block(0, &mut [0]) {
                Ok(_) | Err(Failure::Refused(..)) => {}
                Err(failure) => return Err(failure),
            }
        }
        let minimum = u64::from(self.link.export.minimum);
        let start = offset / minimum * minimum;
        let length = (self.link.export.size - start).min(STATUS);
        let answer = self.link.ask(|connection| connection.block_status(start, length as u32)?.wait());
        let extents = match answer {
            Ok(Answer::Extents(extents)) => extents,
            Ok(Answer::Bytes(_) | Answer::Done) => return Err(Failure::protocol("an answer without extents")),
            // The map of holes is an offer; without it, all is read.
            Err(Failure::Refused(..)) => vec![(length, false)],
            Err(failure) => return Err(failure),
        };
        lock(&self.extents).add(start, &extents);
        let mut status_yield = lock(&self.status_yield);
        status_yield.add(&extents);
        if status_yield.is_poor() {
            tracing::info!(uri = %self.link.uri, "the server tells holes in small pieces: all else is read");
        }
        Ok(())
    }
}

/// Copies from `from` on, as much as there is; returns how much.
fn copy(bytes: &[u8], from: usize, buf: &mut [u8]) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let count = rest.len().min(buf.len());
    if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
        to.copy_from_slice(from);
    }
    count
}

impl Storage for NbdStorage {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let inside = usize::try_from(self.link.export.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..inside).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            // While the disk is read from one end to the other, small reads find what was read ahead.
            let is_chunk = inside >= LARGE || self.read_ahead.holds(at / CHUNK);
            let read = if is_chunk { self.read_chunk(at, rest) } else { self.read_block(at, rest) };
            let count = read.map_err(|failure| failure.into_read_error(&self.link.uri))?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += count;
        }
        Ok(done)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.link.export.size)
    }

    fn run_at(&self, offset: u64) -> io::Result<HostRun> {
        let rest = self.link.export.size.saturating_sub(offset);
        if self.link.export.context.is_none() || rest == 0 {
            return Ok(HostRun { length: rest, is_data: true });
        }
        let found = self.find_extent(offset);
        let (end, is_data) = found.map_err(|failure| failure.into_read_error(&self.link.uri))?;
        Ok(HostRun { length: (end - offset).min(rest), is_data })
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn bytes_read(&self) -> u64 {
        self.link.bytes_read()
    }
}
