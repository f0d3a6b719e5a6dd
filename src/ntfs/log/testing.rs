//! A small log of version 1.1 in memory, for tests of what reads one.

use super::checkpoint::empty_checkpoint;
use super::page::{FLAGS, FREE_AT, LAST_END_LSN, LAST_LSN, Page, RECORD_ENDS, TRANSFER_PAGES, TRANSFER_POSITION};
use super::reader::Log;
use super::record::write_record;
use super::restart::{
    AREA_OFFSET, FLAGS as AREA_FLAGS, PAGE, RECORD_HEADER_SIZE, RECORDS_AT, RSTR, RestartArea, RestartPage,
};
use crate::ntfs::field::{Field, align8};
use crate::ntfs::fixup;

/// Bytes of the log.
const SIZE: usize = 1 << 20;

/// A log that begins with a checkpoint without tables.
pub(super) struct LogWriter {
    bytes: Vec<u8>,
    page: Page,
    /// Where the page lies, and where the next record begins in it.
    place: (usize, usize),
    checkpoint: u64,
}

impl LogWriter {
    pub fn new() -> Self {
        Self::of_size(SIZE)
    }

    pub fn of_size(size: usize) -> Self {
        let mut log =
            Self { bytes: vec![0xFF; size], page: Page::blank(), place: (4 * PAGE, RECORDS_AT), checkpoint: 0 };
        log.checkpoint = log.add(0, 0, &empty_checkpoint(0, &[]));
        log
    }

    /// Bits of an LSN that count the laps of the log.
    fn sequence_bits(&self) -> u32 {
        3 + (self.bytes.len() as u64).leading_zeros()
    }

    /// Adds a record; its LSN. A transaction of 0 is that of checkpoints.
    pub fn add(&mut self, transaction: u32, undo_next: u64, data: &[u8]) -> u64 {
        let end = |at: usize| align8(at + RECORD_HEADER_SIZE + data.len());
        if end(self.place.1) > PAGE {
            (self.page, self.place) = (Page::blank(), (self.place.0 + PAGE, RECORDS_AT));
        }
        let (offset, at) = self.place;
        let lsn = (1 << (64 - self.sequence_bits())) + (offset + at) as u64 / 8;
        let page = self.page.bytes_mut();
        write_record(&mut page[at..], lsn, transaction, data);
        Field::<u64>::at(0x10).set(&mut page[at..], undo_next);
        self.place.1 = end(at);
        LAST_LSN.set(page, lsn);
        LAST_END_LSN.set(page, lsn);
        FLAGS.set(page, RECORD_ENDS);
        TRANSFER_PAGES.set(page, 1);
        TRANSFER_POSITION.set(page, 1);
        FREE_AT.set(page, self.place.1 as u16);
        self.bytes[offset..offset + PAGE].copy_from_slice(&self.page.seal().unwrap());
        lsn
    }

    /// Adds an operation without data.
    pub fn operation(&mut self, transaction: u32, undo_next: u64, redo: u16, undo: u16, lcns: &[u64]) -> u64 {
        self.add(transaction, undo_next, &operation(redo, undo, lcns))
    }

    /// The log, not closed.
    pub fn into_bytes(mut self) -> Vec<u8> {
        let (lsn, file_size) = (self.checkpoint, self.bytes.len() as u64);
        let page = RestartPage { version: (1, 1), current_lsn: lsn, in_use: 0, flags: 0, file_size };
        let sequence_bits = self.sequence_bits();
        let mut page =
            RestartArea { page, restart_lsn: lsn, sequence_bits, open_count: 1 }.closed(lsn, lsn, 0x70).unwrap();
        fixup::unseal(&mut page, RSTR).unwrap();
        let area = usize::from(AREA_OFFSET.get(&page));
        AREA_FLAGS.set(&mut page[area..], 0);
        fixup::seal(&mut page).unwrap();
        self.bytes[..PAGE].copy_from_slice(&page);
        self.bytes[PAGE..2 * PAGE].copy_from_slice(&page);
        self.bytes
    }

    pub fn open(self) -> Log<'static> {
        let bytes = self.into_bytes();
        Log::open(bytes.len() as u64, move |at, out| {
            let at = usize::try_from(at).unwrap();
            out.copy_from_slice(&bytes[at..at + out.len()]);
            Ok(())
        })
        .unwrap()
    }
}

/// The client's part of a record.
pub(super) fn operation(redo: u16, undo: u16, lcns: &[u64]) -> Vec<u8> {
    let fields = [redo, undo, 0x28, 0, 0x28, 0, 0x18, lcns.len() as u16, 0, 0, 0, 0];
    let mut data: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
    data.extend([0; 8]);
    data.extend(lcns.iter().flat_map(|lcn| lcn.to_le_bytes()));
    data.resize(data.len().max(0x28), 0);
    data
}
