//! Names: every directory entry against its file, and every file's names against the directories (C8 to C13).

use std::collections::BTreeMap;

use super::code::Code;
use super::file::{Duplicated, File, name_hash};
use super::index::{self, Expected, IndexEntry};
use super::record::FileAttribute;
use super::report::Fault;
use super::scan::Scan;
use super::table::{Row, flag};
use crate::error::Result;
use crate::ntfs::file_name::{self, DIRECTORY, layout};
use crate::ntfs::index::entry;
use crate::ntfs::name::{Namespace, NtfsName};
use crate::ntfs::units::{FileId, RecordNumber};

/// Files whose names do not match the directories and are looked at one by one.
const SUSPECTS_MAX: usize = 256;
/// Steps up to the root; more is a cycle in any case.
const DEPTH_MAX: usize = 1 << 16;

/// A name of a file that does not match, and how often it was met in directories.
struct Name {
    hash: u64,
    value: Vec<u8>,
    offset: Option<u64>,
    met: u64,
}

type Suspects = BTreeMap<u64, Vec<Name>>;

/// The id that a record has now.
fn id_of(record: u64, row: Row) -> FileId {
    FileId { record: RecordNumber(record), sequence: row.sequence }
}

impl Scan<'_> {
    /// Walks the index `$I30` of every directory that was read.
    pub(super) fn check_directories(&mut self, on_progress: &dyn Fn(u64, u64)) -> Result<()> {
        let folders = self.table.with(flag::SCANNED | flag::IN_USE | flag::INDEX);
        let size = self.context.record_size();
        let total = (folders.len() as u64).saturating_mul(size);
        let mut done: u64 = 0;
        for number in folders {
            self.check_directory(number)?;
            done = done.saturating_add(size);
            on_progress(done, total);
        }
        let suspects: Vec<u64> =
            self.table.rows().filter(|(_, row)| row.is_file() && row.names != 0).map(|(n, _)| n).collect();
        self.check_suspects(&suspects)
    }

    /// The directories that name the files that were read.
    pub(super) fn parents(&self) -> Result<Vec<u64>> {
        let mut parents = Vec::new();
        for number in self.table.with(flag::SCANNED | flag::IN_USE) {
            let found = self.load(number, |file| {
                let of = |(_, value): (_, &[u8])| FileId::from_raw(layout::PARENT.get(value)).record.0;
                Ok(file.names().map(of).collect::<Vec<_>>())
            })?;
            parents.extend(found.unwrap_or_default());
        }
        Ok(parents)
    }

    fn check_directory(&mut self, number: u64) -> Result<()> {
        let context = self.context;
        let id = id_of(number, self.table.get(number));
        // entries are kept until the walk is over: it borrows the file, checking them changes the table
        let mut entries = Entries::default();
        self.load(number, |file| {
            index::walk(context, file, "$I30", Expected::of("$I30", None), &mut |met| {
                entries.push(met);
                Ok(())
            })
        })?;
        context.report().stats.entries += entries.list.len() as u64;
        for item in &entries.list {
            self.check_entry(id, &entries.bytes[item.start..item.end], item.offset)?;
        }
        Ok(())
    }

    /// One directory entry against the file that it points to.
    fn check_entry(&mut self, directory: FileId, bytes: &[u8], offset: Option<u64>) -> Result<()> {
        let context = self.context;
        let target = FileId::from_raw(entry::REFERENCE.get(bytes));
        let key = key_of(bytes);
        let name = file_name::name_bytes(key).map(NtfsName::from_le_bytes).unwrap_or_default();
        let fault = |code, message: String| Fault::new(code, message).record(directory.record.0).at(offset);
        if name.is_empty() || key.len() != layout::NAME + 2 * name.units().len() {
            context.fault(fault(
                Code::IndexNode,
                format!("the key of the entry \"{name}\" has a wrong length {}", key.len()),
            ));
            return Ok(());
        }
        if FileId::from_raw(layout::PARENT.get(key)) != directory {
            let fault = fault(Code::EntryName, format!("the entry \"{name}\" names another directory as its parent"));
            context.fault(fault.values(directory, FileId::from_raw(layout::PARENT.get(key))));
        }
        let row = self.table.get(target.record.0);
        if !row.has(flag::SCANNED) && self.context.options.is_partial {
            return Ok(());
        }
        if !row.is_file() || row.sequence != target.sequence {
            let found = match row {
                row if !row.has(flag::IN_USE) => "a record that is not in use".to_owned(),
                row if row.has(flag::EXTENSION) => "an extension record".to_owned(),
                row => format!("{}", id_of(target.record.0, row)),
            };
            context.fault(
                fault(Code::DanglingEntry, format!("the entry \"{name}\" points nowhere")).values(target, found),
            );
            return Ok(());
        }
        let namespace = layout::NAMESPACE.get(key);
        self.table.update(target.record.0, |row| {
            row.names = row.names.wrapping_sub(name_hash(key));
            if namespace == Namespace::Dos.to_raw() {
                return;
            }
            let parent = u32::try_from(directory.record.0).unwrap_or(u32::MAX);
            if row.has(flag::HAS_PARENT) && row.has(flag::DIRECTORY) && row.link != parent {
                row.flags |= flag::SECOND_PARENT;
            }
            row.link = parent;
            row.flags |= flag::HAS_PARENT;
        });
        self.compare_copies(directory, target, key, row, &fault)
    }

    /// The copies of times, sizes and attributes in an entry (C13).
    fn compare_copies(
        &self,
        directory: FileId,
        target: FileId,
        key: &[u8],
        row: Row,
        fault: &dyn Fn(Code, String) -> Fault,
    ) -> Result<()> {
        let name = || file_name::name_bytes(key).map(NtfsName::from_le_bytes).unwrap_or_default();
        let is_directory = layout::ATTRIBUTES.get(key) & DIRECTORY != 0;
        // formatters leave the copies for the system files as they are, for ever
        if target.record.0 < 16 {
            return Ok(());
        }
        if is_directory != row.has(flag::DIRECTORY) {
            let fault = fault(Code::EntryName, format!("the entry \"{}\" has a wrong directory bit", name()));
            self.context.fault(fault.values(row.has(flag::DIRECTORY), is_directory));
        }
        let is_system = target.record < RecordNumber::FIRST_USER || directory.record == RecordNumber::EXTEND;
        let mut copy = Duplicated::of_key(key);
        if row.has(flag::DIRECTORY) {
            (copy.allocated, copy.size) = (0, 0);
        }
        if is_system || copy.hash() == row.facts || row.has(flag::BROKEN) {
            return Ok(());
        }
        if !self.context.is_shown(Code::DuplicatedInformation) {
            self.context.fault(fault(Code::DuplicatedInformation, "stale copies".into()));
            return Ok(());
        }
        let real = self.load(target.record.0, |file| Ok(Duplicated::of(file)))?;
        if let Some(real) = real.filter(|real| *real != copy) {
            let fault = fault(Code::DuplicatedInformation, format!("the entry \"{}\" has stale copies", name()));
            let (expected, found) = real.differences(&copy);
            self.context.fault(fault.values(expected, found));
        }
        Ok(())
    }

    /// Says exactly what is wrong with files whose names and entries do not match (C9, C10).
    fn check_suspects(&mut self, numbers: &[u64]) -> Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let context = self.context;
        let mut suspects = Suspects::new();
        for &number in numbers.iter().take(SUSPECTS_MAX) {
            let names = self.load(number, |file| Ok(names_of(file)))?;
            suspects.insert(number, names.unwrap_or_default());
        }
        let directories = self.table.with(flag::SCANNED | flag::IN_USE | flag::INDEX);
        for directory in directories {
            self.load(directory, |file| {
                context.muted(|| {
                    index::walk(context, file, "$I30", Expected::of("$I30", None), &mut |met| {
                        match_suspect(&mut suspects, met);
                        Ok(())
                    })
                })
            })?;
        }
        // entries without a name are told by the second walk, names without an entry by what is left
        self.report_unmatched_entries(&suspects)?;
        for (&number, names) in &suspects {
            for name in names {
                self.report_unmatched_name(number, name);
            }
        }
        let more = numbers.len().saturating_sub(SUSPECTS_MAX);
        if more > 0 {
            context.fault(Fault::new(
                Code::OrphanName,
                format!("names and directory entries of {more} more files do not match"),
            ));
        }
        Ok(())
    }

    fn report_unmatched_name(&self, number: u64, name: &Name) {
        let text = file_name::name_bytes(&name.value).map(NtfsName::from_le_bytes).unwrap_or_default();
        let parent = FileId::from_raw(layout::PARENT.get(&name.value));
        let row = self.table.get(parent.record.0);
        if self.context.options.is_partial && !row.has(flag::SCANNED) {
            return;
        }
        if name.met != 1 {
            let fault =
                Fault::new(Code::OrphanName, format!("the name \"{text}\" is not in directory {parent} exactly once"));
            self.context.fault(fault.record(number).at(name.offset).values("1 entry", format!("{} entries", name.met)));
        }
    }

    fn report_unmatched_entries(&self, suspects: &Suspects) -> Result<()> {
        let context = self.context;
        for directory in self.table.with(flag::SCANNED | flag::IN_USE | flag::INDEX) {
            let mut bad = Vec::new();
            self.load(directory, |file| {
                context.muted(|| {
                    index::walk(context, file, "$I30", Expected::of("$I30", None), &mut |met| {
                        let target = FileId::from_raw(entry::REFERENCE.get(met.bytes));
                        let row = self.table.get(target.record.0);
                        let hash = name_hash(met.key);
                        if row.is_file()
                            && row.sequence == target.sequence
                            && suspects
                                .get(&target.record.0)
                                .is_some_and(|names| names.binary_search_by_key(&hash, |n| n.hash).is_err())
                        {
                            let name = file_name::name_bytes(met.key).map(NtfsName::from_le_bytes).unwrap_or_default();
                            bad.push((name, target, met.offset));
                        }
                        Ok(())
                    })
                })
            })?;
            for (name, target, offset) in bad {
                let message = format!("the entry \"{name}\" repeats no name of its file {target}");
                context.fault(Fault::new(Code::EntryName, message).record(directory).at(offset));
            }
        }
        Ok(())
    }

    /// Follows every file up to the root (C12).
    pub(super) fn check_reachability(&mut self) {
        let root = RecordNumber::ROOT.0;
        self.table.update(root, |row| row.flags |= flag::REACHED);
        let files: Vec<u64> = self.table.rows().filter(|(_, row)| row.is_file()).map(|(n, _)| n).collect();
        for number in files {
            let mut path = Vec::new();
            let mut at = number;
            let reached = loop {
                let row = self.table.get(at);
                if row.has(flag::REACHED) {
                    break true;
                }
                let is_stuck = row.flags & (flag::VISITING | flag::UNREACHED) != 0 || !row.has(flag::HAS_PARENT);
                if is_stuck || !row.is_file() || path.len() >= DEPTH_MAX {
                    break false;
                }
                self.table.update(at, |row| row.flags |= flag::VISITING);
                path.push(at);
                at = u64::from(row.link);
            };
            for &step in &path {
                self.table.update(step, |row| {
                    row.flags &= !flag::VISITING;
                    row.flags |= if reached { flag::REACHED } else { flag::UNREACHED };
                });
            }
            if !reached {
                self.report_unreachable(number);
            }
        }
        for number in self.table.with(flag::SECOND_PARENT) {
            let fault = Fault::new(Code::Reachability, "two directories list this directory").record(number);
            self.context.fault(fault.at(self.context.record_offset(number)));
        }
    }

    fn report_unreachable(&self, number: u64) {
        if number < RecordNumber::FIRST_USER.0 {
            return;
        }
        let fault = Fault::new(Code::Reachability, "the file cannot be reached from the root directory").record(number);
        self.context.fault(fault.at(self.context.record_offset(number)));
    }
}

/// Directory entries, copied out of an index walk.
#[derive(Default)]
struct Entries {
    bytes: Vec<u8>,
    list: Vec<Item>,
}

struct Item {
    start: usize,
    end: usize,
    offset: Option<u64>,
}

impl Entries {
    fn push(&mut self, met: &IndexEntry<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(met.bytes);
        self.list.push(Item { start, end: self.bytes.len(), offset: met.offset });
    }
}

fn key_of(bytes: &[u8]) -> &[u8] {
    let length = usize::from(entry::KEY_LENGTH.get(bytes));
    bytes.get(entry::KEY..entry::KEY + length).unwrap_or_default()
}

fn names_of(file: &File<'_, '_>) -> Vec<Name> {
    let name = |(part, value): (&FileAttribute<'_>, &[u8])| Name {
        hash: name_hash(value),
        value: value.to_vec(),
        offset: part.offset,
        met: 0,
    };
    let mut names: Vec<Name> = file.names().map(name).collect();
    names.sort_by_key(|name| name.hash);
    names
}

fn match_suspect(suspects: &mut Suspects, met: &IndexEntry<'_>) {
    let target = FileId::from_raw(entry::REFERENCE.get(met.bytes));
    let hash = name_hash(met.key);
    if let Some(name) = suspects.get_mut(&target.record.0).and_then(|names| {
        let at = names.binary_search_by_key(&hash, |name| name.hash).ok()?;
        names.get_mut(at)
    }) {
        name.met += 1;
    }
}
