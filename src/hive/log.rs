//! Transaction logs: what a dirty hive misses.
//!
//! Two formats: up to Windows 8 one snapshot of all dirty 512-byte sectors (`DIRT`); since 8.1 a run of entries
//! (`HvLE`), each with its pages, a sequence number and two hashes, in two files that take turns. See "Windows registry
//! file format specification" (M. Suhanov), "Format of transaction log files".

use super::format::base_block::{self, checksum, is_later};
use super::format::log_entry::{self, page};
use super::format::{LENGTH_MAX, PAGE, bin};
use super::marvin::marvin32;
use crate::error::{Error, Layer, Result};
use crate::field::{Field, Le};

/// The unit of both formats, in bytes.
const SECTOR: usize = 512;

/// What [`Hive::open_with_logs`](super::Hive::open_with_logs) applied.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Replay {
    /// Log entries (new format) or logs (old format) that were applied.
    pub entries: usize,
    /// Bytes of pages that were copied.
    pub bytes: u64,
    /// The sequence number of the last one.
    pub sequence: u32,
    /// What was found odd but harmless, in sentences.
    pub notes: Vec<String>,
}

/// A log file, read as far as it is valid.
pub(super) struct Log<'a> {
    bytes: &'a [u8],
    kind: Kind<'a>,
}

enum Kind<'a> {
    /// The log does not count, for this reason.
    Unusable(String),
    New(Vec<LogEntry<'a>>, Option<String>),
    Old,
}

/// One entry of a new-format log.
struct LogEntry<'a> {
    sequence: u32,
    length: u32,
    flags: u32,
    size: usize,
    /// Where each page goes, and its bytes.
    pages: Vec<(u32, &'a [u8])>,
}

/// The end of a run of entries.
enum Stop {
    /// Nothing valid follows: normal, logs are reused.
    End,
    /// The entry's hashes are right, but what it says is impossible.
    Broken(String),
}

/// How far logs are ahead, whether they were needed or not.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Every valid sequence number in them.
    pub(super) sequences: Vec<u32>,
    /// The latest time of those in the old format, which fit a hive by its time.
    pub(super) time: Option<u64>,
}

impl Marks {
    pub(super) fn add(&mut self, log: &Log<'_>) {
        self.sequences.extend(log.sequences());
        if matches!(log.kind, Kind::Old) {
            self.time = self.time.max(Some(log.time()));
        }
    }
}

impl<'a> Log<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Self {
        let kind = match head_fault(bytes) {
            Some(why) => Kind::Unusable(why),
            None if base_block::TYPE.try_get(bytes) == Some(base_block::TYPE_NEW_LOG) => {
                let (entries, broken) = scan(bytes);
                Kind::New(entries, broken)
            }
            None => Kind::Old,
        };
        Self { bytes, kind }
    }

    /// Every valid sequence number in the log.
    pub(super) fn sequences(&self) -> Vec<u32> {
        match &self.kind {
            Kind::Unusable(_) => Vec::new(),
            Kind::Old => vec![self.sequence()],
            Kind::New(entries, _) => entries.iter().map(|e| e.sequence).chain([self.sequence()]).collect(),
        }
    }

    fn sequence(&self) -> u32 {
        base_block::PRIMARY_SEQUENCE.try_get(self.bytes).unwrap_or(0)
    }

    fn time(&self) -> u64 {
        base_block::LAST_WRITTEN.try_get(self.bytes).unwrap_or(0)
    }

    fn describe(&self) -> String {
        match &self.kind {
            Kind::Unusable(why) => why.clone(),
            Kind::Old => "old format".into(),
            Kind::New(entries, _) => format!("{} entries from sequence {}", entries.len(), self.sequence()),
        }
    }
}

/// Why the base block of a log does not count.
fn head_fault(bytes: &[u8]) -> Option<String> {
    if bytes.len() < base_block::HEAD {
        return Some(if bytes.is_empty() { "empty".into() } else { "cut off".into() });
    }
    if !bytes.starts_with(base_block::SIGNATURE) {
        return Some("no base block".into());
    }
    if checksum(bytes) != base_block::CHECKSUM.try_get(bytes) {
        return Some("wrong checksum".into());
    }
    if base_block::PRIMARY_SEQUENCE.try_get(bytes) != base_block::SECONDARY_SEQUENCE.try_get(bytes) {
        return Some("sequence numbers differ".into());
    }
    let version = (base_block::MAJOR.try_get(bytes), base_block::MINOR.try_get(bytes).unwrap_or(0));
    if version.0 != Some(1) || !(1..=6).contains(&version.1) || base_block::FORMAT.try_get(bytes) != Some(1) {
        return Some("unknown version".into());
    }
    let kind = base_block::TYPE.try_get(bytes).unwrap_or(0);
    (kind != base_block::TYPE_NEW_LOG && !base_block::TYPE_OLD_LOG.contains(&kind)).then(|| format!("file type {kind}"))
}

fn scan(bytes: &[u8]) -> (Vec<LogEntry<'_>>, Option<String>) {
    let mut entries: Vec<LogEntry<'_>> = Vec::new();
    let mut at = base_block::HEAD;
    let mut wanted = base_block::PRIMARY_SEQUENCE.try_get(bytes).unwrap_or(0);
    loop {
        match read_entry(bytes, at, wanted) {
            Ok(entry) => {
                at += entry.size;
                wanted = wanted.wrapping_add(1);
                entries.push(entry);
            }
            Err(Stop::End) => return (entries, None),
            Err(Stop::Broken(why)) => return (entries, Some(format!("{why} at {at:#x}"))),
        }
    }
}

fn read_entry(log: &[u8], at: usize, wanted: u32) -> Result<LogEntry<'_>, Stop> {
    let rest = log.get(at..).ok_or(Stop::End)?;
    let size = entry_field(rest, log_entry::SIZE)? as usize;
    let entry = rest.get(..size).ok_or(Stop::End)?;
    if !entry.starts_with(log_entry::SIGNATURE) || size < SECTOR || !size.is_multiple_of(SECTOR) {
        return Err(Stop::End);
    }
    let (flags, sequence) = (entry_field(entry, log_entry::FLAGS)?, entry_field(entry, log_entry::SEQUENCE)?);
    let (length, count) = (entry_field(entry, log_entry::BINS_LENGTH)?, entry_field(entry, log_entry::PAGES)? as usize);
    let hashes = (entry_field(entry, log_entry::HEADER_HASH)?, entry_field(entry, log_entry::DATA_HASH)?);
    let header = entry.get(..log_entry::HASHED_HEADER).unwrap_or_default();
    let data = entry.get(log_entry::HEADER..).unwrap_or_default();
    if sequence != wanted || (marvin32(header), marvin32(data)) != hashes {
        return Err(Stop::End);
    }
    let broken = |why: &str| Err(Stop::Broken(why.into()));
    if length == 0 || length % PAGE != 0 || length > LENGTH_MAX {
        return broken("a log entry with an impossible hive length");
    }
    if count == 0 || count > data.len() / page::SIZE {
        return broken("a log entry with an impossible page count");
    }
    let (references, mut content) = data.split_at_checked(page::SIZE * count).ok_or(Stop::End)?;
    let mut pages = Vec::with_capacity(count);
    for reference in references.chunks_exact(page::SIZE) {
        let (to, bytes) = (entry_field(reference, page::OFFSET)?, entry_field(reference, page::LENGTH)?);
        let is_inside = bytes > 0 && to.checked_add(bytes).is_some_and(|end| end <= length);
        let (Some((page, rest)), true) = (content.split_at_checked(bytes as usize), is_inside) else {
            return broken("a log entry with a page outside the hive");
        };
        content = rest;
        pages.push((to, page));
    }
    Ok(LogEntry { sequence, length, flags, size, pages })
}

/// A field of a log entry; the run of entries ends where the log does.
fn entry_field<T: Le>(entry: &[u8], field: Field<T>) -> Result<T, Stop> {
    field.try_get(entry).ok_or(Stop::End)
}

fn refused(why: impl Into<String>) -> Error {
    Error::refused(Layer::Hive, format!("the hive is dirty and its logs cannot be replayed: {}", why.into()))
        .hint("start Windows once, shut it down cleanly and export the machine again")
}

/// Replays the logs of a dirty hive; the result's base block is clean and carries the last applied sequence number.
pub(super) fn replay(bytes: Vec<u8>, logs: &[Log<'_>]) -> Result<(Vec<u8>, Replay)> {
    let valid = checksum(&bytes) == base_block::CHECKSUM.try_get(&bytes);
    let new: Vec<&Log<'_>> = logs.iter().filter(|l| matches!(l.kind, Kind::New(..))).collect();
    let old: Vec<&Log<'_>> = logs.iter().filter(|l| matches!(l.kind, Kind::Old)).collect();
    let (bytes, replay) = if !new.is_empty() {
        replay_new(bytes, valid, new)?
    } else if !old.is_empty() {
        replay_old(bytes, valid, &old)?
    } else {
        let why: Vec<String> = logs.iter().map(Log::describe).collect();
        return Err(refused(if why.is_empty() { "there are none".into() } else { why.join("; ") }));
    };
    bins_tile(&bytes)?;
    Ok((bytes, replay))
}

fn replay_new(mut bytes: Vec<u8>, valid: bool, mut logs: Vec<&Log<'_>>) -> Result<(Vec<u8>, Replay)> {
    logs.retain(|log| matches!(&log.kind, Kind::New(entries, broken) if !entries.is_empty() || broken.is_some()));
    if let [first, second] = logs[..]
        && is_later(first.sequence(), second.sequence())
    {
        logs.reverse();
    }
    let mut notes = Vec::new();
    let mut head = bytes.get(..base_block::HEAD).unwrap_or_default().to_vec();
    if valid {
        let flushed = base_block::SECONDARY_SEQUENCE.try_get(&bytes).unwrap_or(0);
        logs.retain(|log| !is_later(flushed, log.sequence()));
    } else {
        logs = logs.split_off(logs.len().saturating_sub(1));
        if let Some(log) = logs.first() {
            head = log.bytes.get(..base_block::HEAD).unwrap_or_default().to_vec();
            notes.push("the hive's base block was invalid and comes from its log".into());
        }
    }
    let room = bytes.len() + logs.iter().map(|l| l.bytes.len()).sum::<usize>();
    let mut last: Option<u32> = None;
    let mut replay = Replay { entries: 0, bytes: 0, sequence: 0, notes };
    for log in logs {
        let Kind::New(entries, broken) = &log.kind else { continue };
        if let Some(last) = last.filter(|last| log.sequence() != last.wrapping_add(1)) {
            let (found, wanted) = (log.sequence(), last.wrapping_add(1));
            replay.notes.push(format!("a log starts at {found} instead of {wanted} and was not applied"));
            continue;
        }
        if let Some(why) = broken {
            return Err(refused(why));
        }
        for entry in entries {
            apply_entry(&mut bytes, &mut head, entry, room)?;
            replay.entries += 1;
            replay.bytes += entry.pages.iter().map(|(_, page)| page.len() as u64).sum::<u64>();
            last = Some(entry.sequence);
        }
    }
    replay.sequence = last.ok_or_else(|| refused("no log entry is newer than the hive"))?;
    base_block::PRIMARY_SEQUENCE.try_set(&mut head, replay.sequence);
    base_block::SECONDARY_SEQUENCE.try_set(&mut head, replay.sequence);
    put_head(&mut bytes, head)?;
    Ok((bytes, replay))
}

fn apply_entry(bytes: &mut Vec<u8>, head: &mut [u8], entry: &LogEntry<'_>, room: usize) -> Result<()> {
    extend(bytes, entry.length, room)?;
    for (to, page) in &entry.pages {
        let start = *to as usize + PAGE as usize;
        let target = bytes.get_mut(start..start + page.len());
        target.ok_or_else(|| refused("a page outside the hive"))?.copy_from_slice(page);
    }
    base_block::LENGTH.try_set(head, entry.length);
    let flags = base_block::FLAGS.try_get(head).unwrap_or(0);
    base_block::FLAGS.try_set(head, flags & !1 | entry.flags & 1);
    Ok(())
}

/// Makes room for `length` bytes of bins. New bins are always logged, so a hive can grow by what is in the logs only.
fn extend(bytes: &mut Vec<u8>, length: u32, room: usize) -> Result<()> {
    let needed = length as usize + PAGE as usize;
    if needed > room {
        return Err(refused(format!("the logs say {length:#x} bytes of bins, but do not hold them")));
    }
    if bytes.len() < needed {
        bytes.resize(needed, 0);
    }
    Ok(())
}

fn put_head(bytes: &mut [u8], mut head: Vec<u8>) -> Result<()> {
    base_block::TYPE.try_set(&mut head, base_block::TYPE_PRIMARY);
    let sum = checksum(&head).ok_or_else(|| refused("base block cut off"))?;
    base_block::CHECKSUM.try_set(&mut head, sum);
    bytes.get_mut(..base_block::HEAD).ok_or_else(|| refused("base block cut off"))?.copy_from_slice(&head);
    Ok(())
}

fn replay_old(mut bytes: Vec<u8>, valid: bool, logs: &[&Log<'_>]) -> Result<(Vec<u8>, Replay)> {
    let first_bin = bytes.get(PAGE as usize..).unwrap_or_default();
    let time = if valid { base_block::LAST_WRITTEN.try_get(&bytes) } else { bin::LAST_WRITTEN.try_get(first_bin) };
    if !valid && !first_bin.starts_with(bin::SIGNATURE) {
        return Err(refused("neither the base block nor the first bin is valid"));
    }
    let time = time.unwrap_or(0);
    let mut notes = Vec::new();
    let mut usable: Vec<&&Log<'_>> = logs.iter().filter(|l| l.time() == time).collect();
    if usable.is_empty() {
        usable = logs.iter().filter(|l| l.time() > time).collect();
        notes.push("the log is newer than the hive".to_owned());
    }
    let log = usable.into_iter().reduce(|best, log| if log.time() > best.time() { log } else { best });
    let log = log.ok_or_else(|| refused("every log is older than the hive"))?;
    let length = base_block::LENGTH.try_get(log.bytes).unwrap_or(0);
    if length == 0 || !length.is_multiple_of(PAGE) || length > LENGTH_MAX {
        return Err(refused(format!("the log says {length:#x} bytes of bins")));
    }
    let room = bytes.len() + log.bytes.len() * 8;
    extend(&mut bytes, length, room)?;
    let copied = copy_dirty_sectors(&mut bytes, log.bytes, length)?;
    put_head(&mut bytes, log.bytes.get(..base_block::HEAD).unwrap_or_default().to_vec())?;
    Ok((bytes, Replay { entries: 1, bytes: copied, sequence: log.sequence(), notes }))
}

/// One bit for each sector of the bins, then the dirty sectors in order.
fn copy_dirty_sectors(bytes: &mut [u8], log: &[u8], length: u32) -> Result<u64> {
    let vector = log.get(SECTOR..).unwrap_or_default();
    if !vector.starts_with(b"DIRT") {
        return Err(refused("the log has no list of dirty sectors"));
    }
    let bits = (length / PAGE) as usize; // bytes of eight sectors each
    let vector = vector.get(4..4 + bits).ok_or_else(|| refused("the log's list of dirty sectors is cut off"))?;
    let mut from = (SECTOR + 4 + bits).next_multiple_of(SECTOR);
    let first = from;
    for sector in (0..bits * 8).filter(|i| vector.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 != 0)) {
        let page = log.get(from..from + SECTOR).ok_or_else(|| refused("the log is cut off"))?;
        let to = PAGE as usize + sector * SECTOR;
        bytes.get_mut(to..to + SECTOR).ok_or_else(|| refused("a sector outside the hive"))?.copy_from_slice(page);
        from += SECTOR;
    }
    Ok((from - first) as u64)
}

fn bins_tile(bytes: &[u8]) -> Result<()> {
    let length = base_block::LENGTH.try_get(bytes).unwrap_or(0);
    let mut at = 0;
    while at < length {
        let header = bytes.get((at + PAGE) as usize..).unwrap_or_default();
        let size = bin::SIZE.try_get(header).unwrap_or(0);
        let good = header.starts_with(bin::SIGNATURE) && bin::OFFSET.try_get(header) == Some(at);
        if !good || size == 0 || !size.is_multiple_of(PAGE) || size > length - at {
            return Err(refused(format!("afterwards there is no bin at {at:#x}")));
        }
        at += size;
    }
    Ok(())
}
