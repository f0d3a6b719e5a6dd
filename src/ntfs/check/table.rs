//! What the check remembers of each record: a few bytes, in pages, so that empty stretches of `$MFT` cost nothing.

/// What each bit of [`Row::flags`] says of a record.
pub(super) mod flag {
    /// The record was read by this check.
    pub const SCANNED: u16 = 0x0001;
    /// The record is in use.
    pub const IN_USE: u16 = 0x0002;
    /// Directory flag of the header.
    pub const DIRECTORY: u16 = 0x0004;
    /// View-index flag of the header.
    pub const VIEW_INDEX: u16 = 0x0008;
    /// An extension record; [`Row::link`](super::Row::link) is the base.
    pub const EXTENSION: u16 = 0x0010;
    /// Has an attribute list.
    pub const LIST: u16 = 0x0020;
    /// An extension record that its base lists.
    pub const CLAIMED: u16 = 0x0040;
    /// Has at least one index root.
    pub const INDEX: u16 = 0x0080;
    /// Its attributes could not be read to the end; what is missing is not reported again.
    pub const BROKEN: u16 = 0x0100;
    /// Reachable from the root directory.
    pub const REACHED: u16 = 0x0200;
    /// On the way up from a file whose reachability is being found out.
    pub const VISITING: u16 = 0x0400;
    /// Has a parent in [`Row::link`](super::Row::link).
    pub const HAS_PARENT: u16 = 0x0800;
    /// A directory that two directories list.
    pub const SECOND_PARENT: u16 = 0x1000;
    /// Known not to be reachable.
    pub const UNREACHED: u16 = 0x2000;
}

/// What is remembered of one record.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Row {
    pub flags: u16,
    pub sequence: u16,
    /// The base record of an extension record; the directory of any other.
    pub link: u32,
    /// Sum of the hashes of the file's names, less those of the directory entries that point to it: 0 when they match.
    pub names: u64,
    /// Hash of what directory entries repeat.
    pub facts: u64,
}

impl Row {
    pub(super) fn has(self, bits: u16) -> bool {
        self.flags & bits == bits
    }

    /// Whether a file (not an extension record) is in use here.
    pub(super) fn is_file(self) -> bool {
        self.flags & (flag::IN_USE | flag::EXTENSION) == flag::IN_USE
    }
}

const PAGE: usize = 4096;

/// The rows of all records, by number.
pub(super) struct Table {
    pages: Vec<Option<Box<[Row]>>>,
    count: u64,
}

impl Table {
    pub(super) fn new(count: u64) -> Self {
        let pages = usize::try_from(count.div_ceil(PAGE as u64)).unwrap_or(0);
        Self { pages: vec![None; pages], count }
    }

    fn place(record: u64) -> Option<(usize, usize)> {
        let record = usize::try_from(record).ok()?;
        Some((record / PAGE, record % PAGE))
    }

    /// The row of a record; an empty one when the record was not read or does not exist.
    pub(super) fn get(&self, record: u64) -> Row {
        Self::place(record).and_then(|(page, at)| self.pages.get(page)?.as_ref()?.get(at).copied()).unwrap_or_default()
    }

    /// Changes the row of an existing record.
    pub(super) fn update(&mut self, record: u64, change: impl FnOnce(&mut Row)) {
        let Some((page, at)) = Self::place(record).filter(|_| record < self.count) else { return };
        let Some(page) = self.pages.get_mut(page) else { return };
        let rows = page.get_or_insert_with(|| vec![Row::default(); PAGE].into_boxed_slice());
        if let Some(row) = rows.get_mut(at) {
            change(row);
        }
    }

    /// All rows of records that were read, with their numbers.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u64, Row)> + '_ {
        self.pages
            .iter()
            .enumerate()
            .filter_map(|(page, rows)| rows.as_ref().map(|rows| (page, rows)))
            .flat_map(|(page, rows)| rows.iter().enumerate().map(move |(at, &row)| ((page * PAGE + at) as u64, row)))
    }

    /// The records whose rows have all of `bits`.
    pub(super) fn with(&self, bits: u16) -> Vec<u64> {
        self.rows().filter(|(_, row)| row.has(bits)).map(|(record, _)| record).collect()
    }
}
