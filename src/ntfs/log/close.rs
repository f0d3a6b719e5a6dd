//! Closing the log as a clean dismount does: pages of the copy area go home, a last checkpoint without tables follows,
//! and both restart pages say version 1.1 and "clean".
//!
//! LSNs go on from where they were: a block of the volume must never have a higher one than the log.

use super::checkpoint::empty_checkpoint;
use super::page::{FLAGS, FREE_AT, LAST_END_LSN, LAST_LSN, Page, RECORD_ENDS, TRANSFER_PAGES, TRANSFER_POSITION};
use super::reader::Log;
use super::record::{forget_transaction, write_record};
use super::restart::{PAGE, RECORD_HEADER_SIZE, RECORDS_AT};
use crate::error::Result;

/// Id of the transaction that the last record ends: the first one of a table.
const TRANSACTION: u32 = 0x18;

/// What has to be written to the log, by its offset there; `last_lsn` is its last record, and `extra` the end of its last
/// checkpoint.
///
/// # Errors
/// Refused, when sequence numbers are used up; the volume cannot be read.
pub(super) fn close(log: &Log<'_>, last_lsn: u64, extra: &[u8]) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut writes = Vec::new();
    for (home, page) in log.pages_not_at_home()? {
        writes.push((home, page.seal()?));
    }
    let last = log.require(last_lsn, "the last record")?;
    let (home, wraps) = log.page_after(last.page);
    let lap = log.lap(last_lsn).saturating_add(last.wraps.into()).saturating_add(wraps.into());
    let mut page = Page::blank();
    let forget = forget_transaction();
    let first = log.lsn_of(home + RECORDS_AT as u64, lap)?;
    write_record(page.bytes_mut().get_mut(RECORDS_AT..).unwrap_or_default(), first, TRANSACTION, &forget);
    let second_at = RECORDS_AT + RECORD_HEADER_SIZE + forget.len();
    let checkpoint = empty_checkpoint(first, extra);
    let second = log.lsn_of(home + second_at as u64, lap)?;
    write_record(page.bytes_mut().get_mut(second_at..).unwrap_or_default(), second, 0, &checkpoint);
    let end = second_at + RECORD_HEADER_SIZE + checkpoint.len();
    let bytes = page.bytes_mut();
    LAST_LSN.set(bytes, second);
    FLAGS.set(bytes, RECORD_ENDS);
    TRANSFER_PAGES.set(bytes, 1);
    TRANSFER_POSITION.set(bytes, 1);
    FREE_AT.set(bytes, end as u16);
    LAST_END_LSN.set(bytes, second);
    writes.push((home, page.seal()?));
    // two copies, as version 1.1 has them: the home's offset stands where the LSN would be
    LAST_LSN.set(page.bytes_mut(), home);
    let copy = page.seal()?;
    writes.push((2 * PAGE as u64, copy.clone()));
    writes.push((3 * PAGE as u64, copy));
    let restart = log.area.closed(second, first, checkpoint.len() as u32)?;
    writes.push((PAGE as u64, restart.clone()));
    writes.push((0, restart));
    Ok(writes)
}
