//! Records of the log in the order of their LSNs, to the end of the log.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::page::{Page, RCRD, newer};
use super::record::LogRecord;
use super::refusal::refuse;
use super::restart::{PAGE, RECORD_HEADER_SIZE, RECORDS_AT, RestartArea, first_ring_page};
use crate::error::Result;
use crate::ntfs::field::align8;

/// Pages that are kept in memory (4 MiB).
const CACHE_MAX: usize = 1024;
/// Bytes of the longest record: a table of all pages that a large cache can hold.
const RECORD_MAX: usize = 16 << 20;

/// Fills a buffer from an offset of `$LogFile`.
type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> Result<()> + 'a;

/// The log of a volume, page by page.
pub(super) struct Log<'a> {
    read_at: Box<ReadAt<'a>>,
    /// The newer restart area.
    pub area: RestartArea,
    /// Pages of the copy area, by the offset of their home.
    copies: BTreeMap<u64, Vec<Page>>,
    cache: RefCell<BTreeMap<u64, Option<Rc<Page>>>>,
}

/// A record, and where it ends.
pub(super) struct Located {
    pub record: LogRecord,
    /// Offset of the page in which it ends.
    pub page: u64,
    /// Where it ends in that page.
    end: usize,
    /// Whether it runs over the end of the ring.
    pub wraps: bool,
}

/// What there is at an LSN.
pub(super) enum Lookup {
    /// A whole record.
    Found(Located),
    /// No valid record: the page at this offset does not hold it.
    Missing { page: u64 },
}

/// Where the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The first LSN at which no record is.
    pub lsn: u64,
    /// The page in which the log breaks off.
    pub page: u64,
}

impl<'a> Log<'a> {
    /// A log of `size` bytes, whose bytes `read_at` fills in.
    ///
    /// # Errors
    /// Those of [`RestartArea::choose`], and of `read_at`.
    pub fn open(size: u64, read_at: impl Fn(u64, &mut [u8]) -> Result<()> + 'a) -> Result<Self> {
        if size < 2 * PAGE as u64 {
            return Err(refuse(format!("it has only {size} bytes")));
        }
        let mut head = vec![0; 2 * PAGE];
        read_at(0, &mut head)?;
        let (first, second) = head.split_at(PAGE);
        let area = RestartArea::choose(size, first, second)?;
        let mut log =
            Self { read_at: Box::new(read_at), area, copies: BTreeMap::new(), cache: RefCell::new(BTreeMap::new()) };
        let version = log.area.page.version;
        for offset in (2 * PAGE as u64..first_ring_page(version)).step_by(PAGE) {
            if let Some(page) = log.page_at(offset)? {
                let (home, page) = page.into_home(version);
                if log.is_ring_page(home) {
                    log.copies.entry(home).or_default().push(page);
                }
            }
        }
        Ok(log)
    }

    /// Bytes of the log.
    pub fn size(&self) -> u64 {
        self.area.page.file_size
    }

    fn first(&self) -> u64 {
        first_ring_page(self.area.page.version)
    }

    fn is_ring_page(&self, offset: u64) -> bool {
        offset.is_multiple_of(PAGE as u64) && offset >= self.first() && offset < self.size()
    }

    /// The page as it lies at an offset; `None` when it is not intact.
    fn page_at(&self, offset: u64) -> Result<Option<Page>> {
        let mut raw = vec![0; PAGE];
        (self.read_at)(offset, &mut raw)?;
        Ok(if raw.starts_with(&RCRD) { Page::parse(raw) } else { None })
    }

    /// The newest intact state of the page whose home is at `offset`.
    fn newest(&self, offset: u64) -> Result<Option<Page>> {
        let mut page = self.page_at(offset)?;
        for copy in self.copies.get(&offset).into_iter().flatten() {
            page = newer(page, copy);
        }
        Ok(page)
    }

    fn cached(&self, offset: u64) -> Result<Option<Rc<Page>>> {
        if let Some(page) = self.cache.borrow().get(&offset) {
            return Ok(page.clone());
        }
        let page = self.newest(offset)?.map(Rc::new);
        let mut cache = self.cache.borrow_mut();
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(offset, page.clone());
        Ok(page)
    }

    /// Pages whose newest state lies in the copy area, by the offset of their home.
    pub fn pages_not_at_home(&self) -> Result<Vec<(u64, Page)>> {
        let mut out = Vec::new();
        for &home in self.copies.keys() {
            let there = self.page_at(home)?;
            if let Some(page) = self.newest(home)?.filter(|page| there.as_ref() != Some(page)) {
                out.push((home, page));
            }
        }
        Ok(out)
    }

    /// The page after one in the ring, and whether that begins a new lap.
    pub fn page_after(&self, offset: u64) -> (u64, bool) {
        let next = offset.saturating_add(PAGE as u64);
        if next < self.size() { (next, false) } else { (self.first(), true) }
    }

    fn offset_bits(&self) -> u32 {
        // the area was checked: 3 + leading zeros of the size
        64u32.saturating_sub(self.area.sequence_bits)
    }

    /// Which lap of the ring an LSN belongs to.
    pub fn lap(&self, lsn: u64) -> u64 {
        lsn.checked_shr(self.offset_bits()).unwrap_or(0)
    }

    /// The LSN of an offset in a lap.
    ///
    /// # Errors
    /// Refused when the laps are used up.
    pub fn lsn_of(&self, offset: u64, lap: u64) -> Result<u64> {
        let high = lap.checked_mul(1u64.checked_shl(self.offset_bits()).unwrap_or(0));
        high.and_then(|high| high.checked_add(offset >> 3)).ok_or_else(|| refuse("its sequence numbers are used up"))
    }

    /// The offset of the page that an LSN lies in, and where in it.
    fn place_of(&self, lsn: u64) -> (u64, usize) {
        let mask = 1u64.checked_shl(self.offset_bits()).unwrap_or(0).wrapping_sub(1);
        let offset = (lsn & mask) << 3;
        (offset & !(PAGE as u64 - 1), (offset % PAGE as u64) as usize)
    }

    /// The record at an LSN.
    ///
    /// # Errors
    /// Refused, when its length is impossible; the volume cannot be read.
    pub fn find(&self, lsn: u64) -> Result<Lookup> {
        let (mut offset, at) = self.place_of(lsn);
        let missing = |page| Ok(Lookup::Missing { page });
        if !self.is_ring_page(offset) || at < RECORDS_AT || at + RECORD_HEADER_SIZE > PAGE {
            return missing(offset);
        }
        let Some(mut page) = self.cached(offset)?.filter(|page| page.last_lsn() >= lsn) else {
            return missing(offset);
        };
        let head = page.bytes().get(at..).unwrap_or_default();
        let Some(mut record) = LogRecord::parse_header(head).filter(|record| record.lsn == lsn) else {
            return missing(offset);
        };
        if record.length > RECORD_MAX || record.length as u64 > self.size() {
            return Err(refuse(format!("the record {lsn:#x} has an impossible length of {} bytes", record.length)));
        }
        let (mut start, mut wraps) = (at + RECORD_HEADER_SIZE, false);
        loop {
            let left = record.length.saturating_sub(record.data.len());
            let part = page.bytes().get(start..).unwrap_or_default();
            let part = part.get(..left).unwrap_or(part);
            record.data.extend_from_slice(part);
            start = start.saturating_add(part.len());
            if part.len() == left {
                break;
            }
            let (next, lap) = self.page_after(offset);
            offset = next;
            wraps |= lap;
            match self.cached(offset)?.filter(|page| page.last_lsn() >= lsn) {
                Some(next) => page = next,
                None => return missing(offset),
            }
            start = RECORDS_AT;
        }
        if !page.has_end() || page.last_end_lsn() < lsn {
            return missing(offset);
        }
        Ok(Lookup::Found(Located { record, page: offset, end: start, wraps }))
    }

    /// The record at an LSN that something names.
    ///
    /// # Errors
    /// Refused when it is not there.
    pub fn require(&self, lsn: u64, what: &str) -> Result<Located> {
        match self.find(lsn)? {
            Lookup::Found(located) => Ok(located),
            Lookup::Missing { .. } => Err(refuse(format!("{what} at {lsn:#x} cannot be read"))),
        }
    }

    /// The LSN of the record that follows.
    pub fn after(&self, located: &Located) -> Result<u64> {
        let lsn = located.record.lsn;
        let lap = self.lap(lsn).saturating_add(located.wraps.into());
        let end = align8(located.end);
        let begins_no_other = self.cached(located.page)?.is_none_or(|page| page.last_lsn() == lsn);
        if begins_no_other || end + RECORD_HEADER_SIZE > PAGE {
            let (next, wraps) = self.page_after(located.page);
            return self.lsn_of(next.saturating_add(RECORDS_AT as u64), lap.saturating_add(wraps.into()));
        }
        self.lsn_of(located.page.saturating_add(end as u64), lap)
    }

    /// Passes each record from `lsn` on to `visit`, and tells where the log ends.
    ///
    /// # Errors
    /// Those of `visit`; refused when the records never end.
    pub fn walk(&self, mut lsn: u64, mut visit: impl FnMut(&LogRecord) -> Result<()>) -> Result<End> {
        for _ in 0..=self.size() / RECORD_HEADER_SIZE as u64 {
            let located = match self.find(lsn)? {
                Lookup::Missing { page } => return Ok(End { lsn, page }),
                Lookup::Found(located) => located,
            };
            visit(&located.record)?;
            lsn = self.after(&located)?;
        }
        Err(refuse("its records never end"))
    }

    /// Checks that nothing in the ring comes after the end of the log, apart from what a transfer of several pages that was
    /// cut short leaves. `last` is the last record that counts.
    ///
    /// # Errors
    /// Refused, when a page shows that the log has a hole.
    pub fn check_end(&self, end: End, last: u64) -> Result<()> {
        let pages = (self.size() - self.first()) / PAGE as u64;
        let index = |offset: u64| offset.saturating_sub(self.first()) / PAGE as u64;
        for number in 0..pages {
            let offset = self.first() + number * PAGE as u64;
            let Some(page) = self.newest(offset)? else { continue };
            if page.highest_lsn() <= last {
                continue;
            }
            // pages after the one in which the log breaks off, along the ring
            let distance = (number + pages).saturating_sub(index(end.page)) % pages;
            let (count, position) = page.transfer();
            let same_transfer = position <= count && u64::from(position) > distance;
            // the page before holds the start of the record that was cut off
            let holds_start = self.place_of(end.lsn).0 == offset && page.last_lsn() == end.lsn;
            let is_cut_short = holds_start || (same_transfer && distance != 0);
            if !is_cut_short {
                return Err(refuse(format!(
                    "it has a hole: no record is at {:#x}, but the page at {offset:#x} of the log speaks of {:#x}",
                    end.lsn,
                    page.highest_lsn()
                )));
            }
        }
        Ok(())
    }
}
