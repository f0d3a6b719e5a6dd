//! What all output formats share: encoded windows, and the writes that put them into the file.

use super::window::Window;
use crate::block::Storage;
use crate::error::{Error, Layer, Result};
use crate::units::{HostOffset, ImageOffset};

/// Buffers of one window; they go round from thread to thread.
#[derive(Default)]
pub(super) struct Buffers {
    /// The window's bytes, at their offset in the window.
    pub(super) data: Vec<u8>,
    /// Compressed clusters, one after the other.
    pub(super) compressed: Vec<u8>,
}

/// One allocation unit of a window after encoding. Units of zeros have no piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where the unit is on the disk.
    pub(super) guest: ImageOffset,
    /// Where its bytes are in [`Buffers::data`] or, if `is_compressed`, in [`Buffers::compressed`].
    pub(super) at: usize,
    /// How many there are.
    pub(super) length: usize,
    /// Whether they are compressed.
    pub(super) is_compressed: bool,
}

/// A window after reading and compressing.
pub(super) struct Encoded {
    pub(super) window: Window,
    pub(super) pieces: Vec<Piece>,
    pub(super) buffers: Buffers,
}

/// A write that the layout decided on: bytes of a window's buffers, or bytes of its own, to a place in the file.
#[derive(Debug)]
pub(super) enum Write {
    /// `length` bytes of the data buffer from `at`.
    Data { to: HostOffset, at: usize, length: usize },
    /// `length` bytes of the buffer of compressed clusters from `at`.
    Compressed { to: HostOffset, at: usize, length: usize },
    /// A table all of whose entries are known.
    Table { to: HostOffset, bytes: Vec<u8> },
}

impl Write {
    /// Adds a write to the list, as part of the last one where it continues that.
    pub(super) fn push(list: &mut Vec<Self>, next: Self) {
        match (list.last_mut(), &next) {
            (Some(Self::Data { to, at, length }), Self::Data { to: to2, at: at2, length: length2 })
            | (Some(Self::Compressed { to, at, length }), Self::Compressed { to: to2, at: at2, length: length2 })
                if to.checked_add(*length as u64) == Some(*to2) && *at + *length == *at2 =>
            {
                *length += length2;
            }
            _ => list.push(next),
        }
    }

    /// Writes to `file`; returns where, and how many bytes.
    pub(super) fn run(&self, file: &dyn Storage, buffers: &Buffers) -> Result<(HostOffset, u64)> {
        let (to, bytes) = match self {
            Self::Data { to, at, length } => (to, buffers.data.get(*at..*at + *length)),
            Self::Compressed { to, at, length } => (to, buffers.compressed.get(*at..*at + *length)),
            Self::Table { to, bytes } => (to, Some(bytes.as_slice())),
        };
        let bytes = bytes.ok_or_else(|| Error::bug(Layer::Block, "a write from outside its buffer").at(*to))?;
        write_at(file, bytes, *to)?;
        Ok((*to, bytes.len() as u64))
    }
}

/// Writes all bytes. When the host is full, the hint says so.
pub(super) fn write_at(file: &dyn Storage, bytes: &[u8], to: HostOffset) -> Result<()> {
    file.write_at(to.0, bytes).map_err(|e| {
        let hint = if e.kind() == std::io::ErrorKind::StorageFull {
            "free some space, or write the output elsewhere"
        } else {
            "nothing of the output was kept"
        };
        Error::io(Layer::Host, "cannot write the output", e).at(to).hint(hint)
    })
}

/// The layout of an output format. Windows come in ascending order.
pub(super) trait Layout: Send {
    /// Gives every piece of the window its place in the file.
    fn place(&mut self, encoded: &Encoded) -> Result<Vec<Write>>;

    /// When all windows are written: where the unit at `guest` lies in the file; `None` when it is left out.
    fn locate(&mut self, file: &dyn Storage, guest: ImageOffset) -> Result<Option<HostOffset>>;

    /// When all windows are written: a place for a unit that was left out; `None` when there is no room for one more.
    fn append(&mut self, file: &dyn Storage, guest: ImageOffset) -> Result<Option<HostOffset>>;

    /// Writes what is left when all windows are placed, and gives the file its length.
    fn finish(&mut self, file: &dyn Storage) -> Result<()>;
}
