//! Opening a hive, the guard around every edit, and finishing.

use std::collections::BTreeMap;

use super::cells::{CellOffset, Cells};
use super::check::{self, Fault, Severity, Survey};
use super::format::base_block::{self, checksum, is_dirty};
use super::format::{LENGTH_MAX, PAGE, bin};
use super::log::{self, Log, Marks, Replay};
use super::value_index::ValueIndex;
use crate::error::{Error, Layer, Result};

/// A key of a [`Hive`]. It stays valid until the key is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(super) CellOffset);

/// An editor over the bytes of a hive file.
///
/// Reading works on any hive of version 1.3 to 1.6 that is not dirty. The first edit checks the whole hive and refuses
/// one with faults that Windows would repair by dropping keys, and layered (differencing) hives;
/// [`finish`](Self::finish) checks again and returns nothing that has a fault which was not there before.
///
/// ```no_run
/// use winject::{FileTime, Hive, RegistryData};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut hive = Hive::open(std::fs::read("SYSTEM")?)?;
/// let service = hive.find(hive.root(), r"ControlSet001\Services\viostor")?.ok_or("no such service")?;
/// let start = RegistryData::dword(0);
/// if hive.set_value(service, "Start", &start, FileTime::now())? {
///     std::fs::write("SYSTEM.new", hive.finish(&[])?)?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Hive {
    pub(super) cells: Cells,
    pub(super) minor: u32,
    pub(super) root: CellOffset,
    /// The whole hive has passed the checker, so that its indexes are in order.
    pub(super) verified: bool,
    before: Vec<Fault>,
    /// What the check found: see [`check::Survey`].
    pub(super) stale_lists: BTreeMap<u32, u32>,
    pub(super) surplus: BTreeMap<u32, u32>,
    /// A survey of the unchanged bytes, made in another thread; see [`Hive::adopt`].
    surveyed: Option<Survey>,
    pub(super) value_index: ValueIndex,
    changed: bool,
    replayed: bool,
    half_done: bool,
    /// What the logs that the hive was opened with hold.
    logged: Marks,
}

impl Hive {
    /// Opens a hive from the bytes of its file.
    ///
    /// # Errors
    /// Fails if the data is not a hive, is truncated, is dirty, or has another version than 1.3 to 1.6.
    pub fn open(bytes: Vec<u8>) -> Result<Self> {
        let head = bytes.as_slice();
        check_kind(head)?;
        if is_dirty(head) {
            let error = Error::refused(Layer::Hive, "the hive is dirty: its last changes are only in its log files");
            return Err(error.hint("give its log files too, or shut Windows down cleanly and export again"));
        }
        Self::over(bytes)
    }

    /// Opens a hive and, if it is dirty, replays its logs in memory. A clean hive ignores the logs, but
    /// [`finish`](Self::finish) still stays ahead of them.
    ///
    /// # Errors
    /// See [`open`](Self::open); [`Kind::Refused`](crate::Kind::Refused) for a dirty hive for which no log can be used.
    pub fn open_with_logs(bytes: Vec<u8>, log1: Option<&[u8]>, log2: Option<&[u8]>) -> Result<(Self, Option<Replay>)> {
        check_kind(&bytes)?;
        let logs: Vec<Log<'_>> = [log1, log2].into_iter().flatten().map(Log::read).collect();
        let mut logged = Marks::default();
        logs.iter().for_each(|log| logged.add(log));
        let (bytes, replay) = if is_dirty(&bytes) {
            let (bytes, replay) = log::replay(bytes, &logs)?;
            (bytes, Some(replay))
        } else {
            (bytes, None)
        };
        let mut hive = Self::over(bytes)?;
        hive.replayed = replay.is_some();
        hive.logged = logged;
        Ok((hive, replay))
    }

    /// Over bytes whose base block may still say "dirty".
    fn over(bytes: Vec<u8>) -> Result<Self> {
        let minor = check_version(&bytes)?;
        let length = base_block::LENGTH.try_get(&bytes).unwrap_or(0);
        let bad = length == 0 || !length.is_multiple_of(PAGE) || length > LENGTH_MAX;
        if bad {
            return Err(Error::damaged(Layer::Hive, format!("{length:#x} bytes of bins")).at(40u64));
        }
        if (bytes.len() as u64) < u64::from(length) + u64::from(PAGE) {
            let error = Error::damaged(Layer::Hive, "the hive file is cut off");
            return Err(error.expected_found(u64::from(length) + u64::from(PAGE), bytes.len()));
        }
        let root = CellOffset(base_block::ROOT.try_get(&bytes).unwrap_or(0));
        let hive = Self {
            cells: Cells::new(bytes, length),
            minor,
            root,
            verified: false,
            before: Vec::new(),
            stale_lists: BTreeMap::new(),
            surplus: BTreeMap::new(),
            surveyed: None,
            value_index: ValueIndex::default(),
            changed: false,
            replayed: false,
            half_done: false,
            logged: Marks::default(),
        };
        hive.check_key(root)?;
        Ok(hive)
    }

    /// Whether an edit has changed anything. (The replay of a log does not count.)
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The minor version of the format: 3 to 6.
    #[must_use]
    pub fn minor_version(&self) -> u32 {
        self.minor
    }

    /// Bytes of the hive's file as it is now.
    #[must_use]
    pub fn file_size(&self) -> usize {
        self.cells.bytes().len()
    }

    /// The bytes of the file that was opened; `None` when they are not as they were: edited, or repaired from a log.
    pub(crate) fn unchanged_bytes(&self) -> Option<&[u8]> {
        (!self.changed && !self.replayed && !self.half_done).then(|| self.cells.bytes())
    }

    /// The full check, which the first edit runs, as a value: for another thread, while the hive is being read.
    pub(crate) fn survey(&self) -> Survey {
        check::survey(self.cells.bytes())
    }

    /// Takes the outcome of [`survey`](Self::survey) of this hive, so that the first edit need not run it.
    pub(crate) fn adopt(&mut self, survey: Survey) {
        if !self.changed {
            self.surveyed = Some(survey);
        }
    }

    /// Runs the full check now instead of at the first edit.
    ///
    /// # Errors
    /// Why the hive cannot be edited.
    pub fn ensure_editable(&mut self) -> Result<()> {
        if self.half_done {
            return Err(Error::bug(Layer::Hive, "an earlier edit of this hive failed half-way"));
        }
        if self.verified {
            return Ok(());
        }
        if self.minor >= 6 && base_block::FLAGS.try_get(self.cells.bytes()).unwrap_or(0) & base_block::FLAG_LAYERED != 0
        {
            let error = Error::unsupported(Layer::Hive, "a layered hive (of a container) is read, but not edited");
            return Err(error.hint("edit the base hive"));
        }
        let survey = self.surveyed.take().unwrap_or_else(|| check::survey(self.cells.bytes()));
        let faults = survey.faults;
        if let Some(first) = faults.iter().find(|f| f.severity() == Severity::Error) {
            let errors = faults.iter().filter(|f| f.severity() == Severity::Error);
            let count: u64 = errors.map(Fault::count).sum();
            let error = Error::damaged(
                Layer::Hive,
                format!("the hive has {count} faults and is not edited; the first is {first}"),
            );
            let hint = if self.replayed {
                "log entries that belong to this hive are missing; export the machine again after a clean shutdown"
            } else {
                "start Windows once so that it repairs its registry, shut it down cleanly and export again"
            };
            return Err(error.hint(hint));
        }
        self.cells.index_free()?;
        self.before = faults;
        (self.stale_lists, self.surplus) = (survey.stale_lists, survey.surplus);
        self.verified = true;
        Ok(())
    }

    /// Runs one edit under the guard.
    pub(super) fn edit<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.ensure_editable()?;
        self.half_done = true;
        let done = change(self)?;
        self.half_done = false;
        self.changed = true;
        Ok(done)
    }

    /// The bytes of the hive's file after all edits; the very bytes that were opened when nothing changed.
    ///
    /// The new sequence number is above those of the hive and of every entry in `logs` (and in the logs that the hive
    /// was opened with), so that no stale log can undo the edit. Logs of the old format fit a hive by its time: if there
    /// are such, an edited hive becomes younger than they are.
    ///
    /// # Errors
    /// Fails when an edit failed half-way, or when the result has a fault that the hive did not have.
    pub fn finish(self, logs: &[&[u8]]) -> Result<Vec<u8>> {
        let edited = self.finish_unchecked(logs)?;
        edited.check()?;
        Ok(edited.bytes)
    }

    /// Like [`finish`](Self::finish), without the check, which the caller runs with [`Edited::check`].
    ///
    /// # Errors
    /// Fails when an edit failed half-way.
    pub(crate) fn finish_unchecked(mut self, logs: &[&[u8]]) -> Result<Edited> {
        if self.half_done {
            return Err(Error::bug(Layer::Hive, "an earlier edit of this hive failed half-way"));
        }
        if !self.changed && !self.replayed {
            return Ok(Edited { bytes: self.cells.into_bytes(), before: Vec::new(), is_changed: false });
        }
        logs.iter().for_each(|bytes| self.logged.add(&Log::read(bytes)));
        if let Some(time) = self.logged.time.filter(|_| self.changed) {
            outdate(self.cells.bytes_mut(), time)?;
        }
        let length = self.cells.length();
        seal(self.cells.bytes_mut(), length, &self.logged.sequences)?;
        Ok(Edited { bytes: self.cells.into_bytes(), before: self.before, is_changed: self.changed })
    }
}

/// A finished hive that is still to be checked.
pub(crate) struct Edited {
    /// The bytes of the whole file, sealed.
    pub(crate) bytes: Vec<u8>,
    /// What was odd about it before the first edit.
    before: Vec<Fault>,
    /// Whether an edit changed anything.
    pub(crate) is_changed: bool,
}

impl Edited {
    /// The full check.
    ///
    /// # Errors
    /// When an edit brought a fault that the hive did not have.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        let after = check::check(&self.bytes);
        match check::new_fault(&self.before, &after) {
            Some(new) => Err(Error::bug(Layer::Hive, format!("the edited hive has a new fault: {new}"))),
            None => Ok(()),
        }
    }
}

/// Writes sequence numbers, length and checksum into a base block.
pub(super) fn seal(bytes: &mut [u8], length: u32, logged: &[u32]) -> Result<()> {
    let short = || Error::bug(Layer::Hive, "base block is cut off");
    let own = [base_block::PRIMARY_SEQUENCE.try_get(bytes), base_block::SECONDARY_SEQUENCE.try_get(bytes)];
    let latest =
        own.into_iter().flatten().chain(logged.iter().copied()).reduce(base_block::later_sequence).ok_or_else(short)?;
    let next = latest.wrapping_add(1);
    base_block::PRIMARY_SEQUENCE.try_set(bytes, next).ok_or_else(short)?;
    base_block::SECONDARY_SEQUENCE.try_set(bytes, next).ok_or_else(short)?;
    base_block::LENGTH.try_set(bytes, length).ok_or_else(short)?;
    let sum = checksum(bytes).ok_or_else(short)?;
    base_block::CHECKSUM.try_set(bytes, sum).ok_or_else(short)
}

/// Makes a hive younger than a log of the old format that was written at `time`.
fn outdate(bytes: &mut [u8], time: u64) -> Result<()> {
    let set = |bytes: &mut [u8]| {
        if base_block::LAST_WRITTEN.try_get(bytes)? <= time {
            let later = time.checked_add(1)?;
            base_block::LAST_WRITTEN.try_set(bytes, later)?;
            bin::LAST_WRITTEN.try_set(bytes.get_mut(PAGE as usize..)?, later)?;
        }
        Some(())
    };
    set(bytes).ok_or_else(|| {
        let error = Error::refused(Layer::Hive, "the hive's log has an impossible time");
        error.hint("start Windows once, shut it down cleanly and export the machine again")
    })
}

/// Bytes of a hive's file up to the end of its bins, by its first 4096 bytes; what follows in the file is never read.
/// `None` when the hive is dirty or none, so that more may be needed.
pub(crate) fn used_bytes(head: &[u8]) -> Option<u64> {
    let length = base_block::LENGTH.try_get(head).filter(|length| (PAGE..=LENGTH_MAX).contains(length))?;
    (head.starts_with(base_block::SIGNATURE) && !is_dirty(head)).then(|| u64::from(length) + u64::from(PAGE))
}

fn check_kind(bytes: &[u8]) -> Result<()> {
    if !bytes.starts_with(base_block::SIGNATURE) {
        let found: String = bytes.iter().take(4).map(|b| b.escape_ascii().to_string()).collect();
        return Err(Error::damaged(Layer::Hive, "not a registry hive").expected_found("regf", found).at(0u64));
    }
    if bytes.len() < 2 * PAGE as usize {
        return Err(Error::damaged(Layer::Hive, "the hive file is cut off").expected_found("8192 or more", bytes.len()));
    }
    Ok(())
}

fn check_version(bytes: &[u8]) -> Result<u32> {
    let (major, minor) = (base_block::MAJOR.try_get(bytes).unwrap_or(0), base_block::MINOR.try_get(bytes).unwrap_or(0));
    let (kind, format) = (base_block::TYPE.try_get(bytes).unwrap_or(0), base_block::FORMAT.try_get(bytes).unwrap_or(0));
    if kind != base_block::TYPE_PRIMARY || format != 1 || base_block::CLUSTER.try_get(bytes) != Some(1) {
        let error = Error::unsupported(Layer::Hive, format!("file type {kind}, format {format}: no primary hive file"));
        return Err(error.hint("name the hive itself, not one of its logs"));
    }
    if major != 1 || !(3..=6).contains(&minor) {
        let error = Error::unsupported(Layer::Hive, format!("hive version {major}.{minor}"));
        return Err(error.expected_found("1.3 to 1.6", format!("{major}.{minor}")).hint("only Windows NT 4 and later"));
    }
    Ok(minor)
}
