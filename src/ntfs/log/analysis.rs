//! The first pass over a log: which pages may lack changes, and which transactions were open at its end.

use std::collections::BTreeMap;

use super::checkpoint::{
    ACTIVE, COMMITTED, Checkpoint, DirtyPage, OpenAttribute, PREPARED, Transaction, open_attribute,
};
use super::operation::Operation;
use super::reader::{End, Log};
use super::record::{LogRecord, RecordKind, Update};
use super::refusal::{not_proven, refuse};
use super::restart::PAGE;
use super::work::ClusterCount;
use crate::error::Result;
use crate::ntfs::field::Field;
use crate::ntfs::name::NtfsName;

/// Dirty pages that are kept: 1 GiB of metadata.
const PAGES_MAX: usize = 1 << 18;
/// Openings of attributes that are kept.
const OPENINGS_MAX: usize = 1 << 16;
/// Comparisons of pages with ranges of freed clusters, at most: some seconds.
const SEARCHED_MAX: u64 = 1 << 28;
/// Transactions that may be open at a time.
const TRANSACTIONS_MAX: usize = 1 << 16;

/// The attributes that the log writes to, by their index; one index may stand for several, one after the other.
#[derive(Debug, Default)]
pub(super) struct OpenAttributes {
    by_index: BTreeMap<u16, Vec<OpenAttribute>>,
    count: usize,
}

impl OpenAttributes {
    fn insert(&mut self, index: u16, attribute: OpenAttribute) -> Result<()> {
        self.count += 1;
        if self.count > OPENINGS_MAX {
            return Err(refuse("it opens too many attributes"));
        }
        self.by_index.entry(index).or_default().push(attribute);
        Ok(())
    }

    /// What the index stood for in the record `lsn`.
    pub fn at(&self, index: u16, lsn: u64) -> Option<&OpenAttribute> {
        let openings = self.by_index.get(&index)?;
        openings.iter().rev().find(|opening| opening.lsn <= lsn).or_else(|| openings.first())
    }
}

/// The pages of attributes that may not have reached the volume.
#[derive(Debug)]
pub(super) struct DirtyPages {
    pages: BTreeMap<(u16, u64), DirtyPage>,
    clusters_per_page: u64,
    /// Comparisons of pages with ranges of freed clusters.
    searched: u64,
}

impl DirtyPages {
    fn of(&self, target: u16, vcn: u64) -> Option<&DirtyPage> {
        let (key, page) = self.pages.range(..=(target, vcn)).next_back()?;
        let inside = vcn.saturating_sub(page.vcn) < page.lcns.len() as u64;
        Some(page).filter(|_| key.0 == target && inside)
    }

    /// The cluster of a page in the table, and the oldest record that the page may lack.
    pub fn cluster(&self, target: u16, vcn: u64) -> Option<(u64, u64)> {
        let page = self.of(target, vcn)?;
        let index = usize::try_from(vcn.saturating_sub(page.vcn)).ok()?;
        page.lcns.get(index).map(|&lcn| (lcn, page.oldest))
    }

    fn insert(&mut self, page: DirtyPage) -> Result<()> {
        let key = (page.target, page.vcn);
        let oldest = page.oldest;
        let there = self.pages.entry(key).or_insert(page);
        there.oldest = there.oldest.min(oldest);
        if self.pages.len() > PAGES_MAX {
            return Err(refuse("it names more than 1 GiB of dirty pages"));
        }
        Ok(())
    }

    /// Takes freed clusters out: what was written to them before must not reach their next owner. `data` are pairs of a
    /// cluster and a count.
    fn free(&mut self, data: &[u8]) -> Result<()> {
        let ranges = (data.len() / 16) as u64;
        self.searched = self.searched.saturating_add(ranges.saturating_mul(self.pages.len() as u64));
        if !data.len().is_multiple_of(16) || self.searched > SEARCHED_MAX {
            return Err(refuse("a list of freed clusters is cut short, or there are too many"));
        }
        let field = |range: &[u8], at| Field::<u64>::at(at).get(range);
        let freed: Vec<_> = data.chunks_exact(16).map(|range| (field(range, 0), field(range, 8))).collect();
        for lcn in self.pages.values_mut().flat_map(|page| &mut page.lcns) {
            if freed.iter().any(|&(first, count)| lcn.checked_sub(first).is_some_and(|inside| inside < count)) {
                *lcn = 0;
            }
        }
        Ok(())
    }

    /// Records that a record wrote to a cluster.
    fn touch(&mut self, target: u16, vcn: u64, lcn: u64, lsn: u64) -> Result<()> {
        if self.of(target, vcn).is_none() {
            let vcn = vcn - vcn % self.clusters_per_page;
            let lcns = vec![0; self.clusters_per_page as usize];
            self.insert(DirtyPage { target, vcn, oldest: lsn, lcns })?;
        }
        let page = self.pages.range_mut(..=(target, vcn)).next_back();
        let page = page.map(|(_, page)| page).filter(|page| page.target == target);
        let place = page.and_then(|page| page.lcns.get_mut(usize::try_from(vcn.checked_sub(page.vcn)?).ok()?));
        *place.ok_or_else(|| refuse("its table of dirty pages has overlapping entries"))? = lcn;
        Ok(())
    }
}

/// What the first pass finds.
pub(super) struct Analysis {
    pub attributes: OpenAttributes,
    pub pages: DirtyPages,
    /// Transactions that were open at the end of the log.
    pub transactions: BTreeMap<u32, Transaction>,
    /// The first record that has to be looked at again; 0 when none has.
    pub redo_lsn: u64,
    /// The last record.
    pub last_lsn: u64,
    /// Bytes of the restart record that go on into the next one.
    pub extra: Vec<u8>,
    clusters: ClusterCount,
}

impl Analysis {
    /// Reads the log from its checkpoint to its end, for a volume with clusters of `cluster_size` bytes.
    ///
    /// # Errors
    /// Refused, when the log is torn, or holds what is not understood.
    pub fn run(log: &Log<'_>, cluster_size: u32) -> Result<Self> {
        let checkpoint = Checkpoint::read(log)?;
        let clusters_per_page = (PAGE as u64 / u64::from(cluster_size.max(1))).max(1);
        let mut analysis = Self {
            attributes: OpenAttributes::default(),
            pages: DirtyPages { pages: BTreeMap::new(), clusters_per_page, searched: 0 },
            transactions: checkpoint.transactions.into_iter().collect(),
            redo_lsn: 0,
            last_lsn: 0,
            extra: checkpoint.extra,
            clusters: ClusterCount::default(),
        };
        for (index, attribute) in checkpoint.attributes {
            analysis.attributes.insert(index, attribute)?;
        }
        for page in checkpoint.pages {
            analysis.pages.insert(page)?;
        }
        let start = checkpoint.start;
        log.require(start, "the start of the checkpoint")?;
        let mut first = None;
        let end = log.walk(start, |record| {
            analysis.last_lsn = record.lsn;
            if record.lsn == start {
                return Ok(());
            }
            first.get_or_insert(record.lsn);
            match record.kind()? {
                RecordKind::Update => analysis.note(record),
                RecordKind::Restart => Ok(()),
            }
        })?;
        analysis.check_end(log, end)?;
        let pages = analysis.pages.pages.values().map(|page| page.oldest);
        let transactions = analysis.transactions.values().map(|transaction| transaction.first);
        analysis.redo_lsn = pages.chain(transactions).chain(first).filter(|&lsn| lsn != 0).min().unwrap_or(0);
        if analysis.redo_lsn != 0 {
            log.require(analysis.redo_lsn, "the oldest record that is needed")?;
        }
        Ok(analysis)
    }

    fn check_end(&self, log: &Log<'_>, end: End) -> Result<()> {
        let current = log.area.page.current_lsn;
        if self.last_lsn < current {
            return Err(refuse(format!("it ends at {:#x}, before its own last record", self.last_lsn))
                .expected_found(format!("{current:#x}"), format!("{:#x}", self.last_lsn)));
        }
        log.require(current, "the last record that the restart area names")?;
        log.check_end(end, self.last_lsn)
    }

    /// The effect of a record on the tables.
    fn note(&mut self, record: &LogRecord) -> Result<()> {
        let (update, lsn) = (record.update()?, record.lsn);
        let new = Transaction { state: ACTIVE, first: lsn, undo_next: lsn };
        let transaction = self.transactions.entry(record.transaction).or_insert(new);
        let redo = update.redo.operation;
        let goes_on = match redo {
            Operation::PrepareTransaction | Operation::EndTopLevelAction => true,
            Operation::CommitTransaction => transaction.state != PREPARED,
            _ => update.is_update(),
        };
        if transaction.state != ACTIVE && goes_on {
            return Err(refuse(format!(
                "the transaction {:#x} goes on in the record {lsn:#x}, although it was decided before",
                record.transaction
            )));
        }
        transaction.undo_next = lsn;
        if update.undo.operation == Operation::CompensationLogRecord {
            transaction.undo_next = record.undo_next;
        }
        match redo {
            Operation::EndTopLevelAction => transaction.undo_next = record.undo_next,
            Operation::PrepareTransaction => transaction.state = PREPARED,
            Operation::CommitTransaction => transaction.state = COMMITTED,
            Operation::ForgetTransaction => {
                self.transactions.remove(&record.transaction);
            }
            _ => {}
        }
        if self.transactions.len() > TRANSACTIONS_MAX {
            return Err(refuse("too many transactions are open at a time"));
        }
        if update.is_update() {
            return self.note_clusters(&update);
        }
        match update.redo.operation {
            Operation::OpenNonresidentAttribute => self.open(&update),
            Operation::DeleteDirtyClusters => self.pages.free(&update.redo.data),
            operation @ Operation::HotFix => Err(not_proven(lsn, operation)),
            _ => Ok(()),
        }
    }

    fn note_clusters(&mut self, update: &Update<'_>) -> Result<()> {
        self.clusters.add(update)?;
        for (vcn, &lcn) in update.clusters()? {
            self.pages.touch(update.target, vcn, lcn, update.lsn)?;
        }
        Ok(())
    }

    fn open(&mut self, update: &Update<'_>) -> Result<()> {
        let mut attribute = open_attribute(&update.redo.data, NtfsName::from_le_bytes(&update.undo.data))?;
        attribute.lsn = update.lsn;
        let before = self.attributes.at(update.target, update.lsn);
        if before.is_some_and(|before| before.target == attribute.target) {
            return Ok(());
        }
        let pages = self.pages.pages.range((update.target, 0)..=(update.target, u64::MAX));
        if pages.into_iter().next().is_some() {
            return Err(refuse(format!(
                "the record {:#x} opens an attribute in the place of one that has dirty pages",
                update.lsn
            )));
        }
        self.attributes.insert(update.target, attribute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::log::testing::LogWriter;

    #[test]
    fn a_decided_transaction_goes_on_to_its_end_only() {
        let outcome = |operations: &[(u16, u16, &[u64])]| {
            let mut log = LogWriter::new();
            let mut before = 0;
            for &(redo, undo, lcns) in operations {
                before = log.operation(0x18, before, redo, undo, lcns);
            }
            Analysis::run(&log.open(), 4096).map(|analysis| analysis.transactions.len())
        };
        let (update, prepare, commit, forget) =
            ((7, 7, &[9][..]), (0x19, 1, &[][..]), (0x1A, 1, &[][..]), (0x1B, 1, &[][..]));
        for sound in
            [&[update, commit, forget][..], &[update, prepare, commit, forget], &[prepare, forget, update, forget]]
        {
            assert_eq!(outcome(sound).unwrap(), 0);
        }
        for bad in [&[commit, update, forget][..], &[prepare, update, forget], &[commit, commit], &[commit, prepare]] {
            assert!(outcome(bad).unwrap_err().to_string().contains("decided before"));
        }
    }
}
