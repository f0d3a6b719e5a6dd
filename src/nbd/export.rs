//! What a server says of an export.

use std::ops::RangeInclusive;
use std::path::Path;

use super::failure::Failure;
use crate::error::{Error, ErrorCode, Layer};

/// Smallest unit of a request that any server takes, in bytes: used where the server does not say its own.
const MINIMUM_DEFAULT: u32 = 512;
/// Most bytes of a request where the server does not say its limit.
const MAXIMUM_DEFAULT: u32 = 32 << 20;
/// What a server may state as its smallest unit.
const MINIMUM_RANGE: RangeInclusive<u32> = 1..=65536;
/// Least limit of a request that is accepted: with less, a piece of a disk would be a flood of requests.
const MAXIMUM_LEAST: u32 = 4096;
/// Transmission flag: nothing is written.
const FLAG_READ_ONLY: u16 = 1 << 1;
/// Transmission flag: `FLUSH` is answered when all writes before it are durable.
const FLAG_FLUSH: u16 = 1 << 2;
/// Transmission flag: `WRITE_ZEROES` is answered.
const FLAG_WRITE_ZEROES: u16 = 1 << 6;
/// Largest size of an export, in bytes.
const SIZE_MAX: u64 = i64::MAX as u64;

/// What is said of an export that must not be written to.
pub(super) struct NotWritable<'a> {
    /// What cannot be done; empty, or with a colon and a space.
    pub prefix: &'a str,
    /// The way to go where it is read-only.
    pub read_only_hint: &'a str,
    /// Why it has to offer flush.
    pub no_flush_why: &'a str,
    /// The way to go without flush.
    pub no_flush_hint: &'a str,
}

/// An export as the handshake found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Export {
    /// Size in bytes; need not be a multiple of anything.
    pub size: u64,
    /// Transmission flags.
    pub flags: u16,
    /// Offsets and lengths of requests are multiples of this power of two.
    pub minimum: u32,
    /// Most bytes of one request.
    pub maximum: u32,
    /// Whether the server answers reads with structured replies.
    pub is_structured: bool,
    /// The number of the meta context `base:allocation`, if the server has it.
    pub context: Option<u32>,
}

impl Export {
    /// An export of which only the size and the flags are known.
    pub(super) fn new(size: u64, flags: u16) -> Result<Self, Failure> {
        if size > SIZE_MAX {
            return Err(Failure::protocol(format!("the export has {size} bytes")));
        }
        let (minimum, maximum) = (MINIMUM_DEFAULT, MAXIMUM_DEFAULT);
        Ok(Self { size, flags, minimum, maximum, is_structured: false, context: None })
    }

    /// Takes the block sizes that the server states.
    pub(super) fn set_block_size(&mut self, minimum: u32, maximum: u32) -> Result<(), Failure> {
        if !minimum.is_power_of_two() || !MINIMUM_RANGE.contains(&minimum) || maximum < minimum.max(MAXIMUM_LEAST) {
            return Err(Failure::protocol(format!("block sizes of {minimum} and {maximum} bytes")));
        }
        self.minimum = minimum;
        self.maximum = (maximum / minimum * minimum).min(MAXIMUM_DEFAULT);
        Ok(())
    }

    /// Whether the server takes no writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.flags & FLAG_READ_ONLY != 0
    }

    /// Whether the server makes writes durable when it is asked to.
    #[must_use]
    pub fn can_flush(&self) -> bool {
        self.flags & FLAG_FLUSH != 0
    }

    /// Refuses an export that must not be written to: one that is read-only, or whose server never says when writes are durable.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused), in these words.
    pub(super) fn refuse_not_writable(&self, name: &Path, words: &NotWritable<'_>) -> Result<(), Error> {
        let (code, what, hint) = if self.is_read_only() {
            let what = "the NBD server exports this disk read-only".to_owned();
            (ErrorCode::NbdReadOnly, what, words.read_only_hint)
        } else if !self.can_flush() {
            let what = format!("the NBD server does not offer flush: {}", words.no_flush_why);
            (ErrorCode::NbdNoFlush, what, words.no_flush_hint)
        } else {
            return Ok(());
        };
        let message = format!("{}{what}", words.prefix);
        Err(Error::refused(Layer::Nbd, message).with_code(code).path(name.display().to_string()).hint(hint))
    }

    /// Whether the server writes zeros that it is not sent.
    #[must_use]
    pub fn can_write_zeroes(&self) -> bool {
        self.flags & FLAG_WRITE_ZEROES != 0
    }

    /// The longest request for data that is made of whole units: of so many bytes at most, or else of one unit.
    pub(super) fn piece(&self, most: u64) -> u64 {
        let (unit, maximum) = (u64::from(self.minimum), u64::from(self.maximum));
        (most.min(maximum) / unit * unit).max(unit)
    }

    /// The smallest range of whole units around `offset..end`, as far as it is inside the export.
    pub(super) fn whole_units(&self, offset: u64, end: u64) -> (u64, u64) {
        let unit = u64::from(self.minimum);
        let end = end.checked_next_multiple_of(unit).unwrap_or(end);
        (offset / unit * unit, end.min(self.size))
    }

    /// How the export of another connection differs in what was relied on; `None` if it does not.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let has_holes = |export: &Self| u64::from(export.context.is_some());
        [
            ("its size", self.size, other.size),
            ("its flags", self.flags.into(), other.flags.into()),
            ("its smallest request", self.minimum.into(), other.minimum.into()),
            ("its largest request", self.maximum.into(), other.maximum.into()),
            ("its offer to tell holes", has_holes(self), has_holes(other)),
        ]
        .into_iter()
        .find(|(_, before, after)| before != after)
        .map(|(what, before, after)| format!("{what}: {before} before, {after} now"))
    }
}
