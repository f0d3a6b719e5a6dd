//! Pages of records (`RCRD`), and which of several copies of a page counts.

use super::restart::PAGE;
use crate::error::Result;
use crate::ntfs::field::Field;
use crate::ntfs::fixup;

/// Magic of a page of records.
pub const RCRD: [u8; 4] = *b"RCRD";
/// Offset of the update sequence array.
pub const ARRAY_AT: u16 = 0x28;
/// LSN of the last record that begins, or goes on, in the page; in copies of 1.x the file offset of the page itself.
pub const LAST_LSN: Field<u64> = Field::at(0x08);
/// [`RECORD_ENDS`] and others.
pub const FLAGS: Field<u32> = Field::at(0x10);
/// Pages that were written together with this one.
pub const TRANSFER_PAGES: Field<u16> = Field::at(0x14);
/// Which of them this one is, from 1.
pub const TRANSFER_POSITION: Field<u16> = Field::at(0x16);
/// Where free space begins.
pub const FREE_AT: Field<u16> = Field::at(0x18);
/// LSN of the last record that ends in the page.
pub const LAST_END_LSN: Field<u64> = Field::at(0x20);
/// In copies of 2.x, the file offset of the page itself; at home 0.
pub const HOME: Field<u32> = Field::at(0x3C);
/// Bit of [`FLAGS`]: a record ends in the page.
pub const RECORD_ENDS: u32 = 1;

/// An intact page of records, without its fix-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    bytes: Vec<u8>,
}

impl Page {
    /// From a page as it lies on disk; `None` when it is torn, or not a page of records.
    pub fn parse(mut raw: Vec<u8>) -> Option<Self> {
        fixup::unseal(&mut raw, RCRD).ok()?;
        Some(Self { bytes: raw })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// LSN of the last record that begins, or goes on, here.
    pub fn last_lsn(&self) -> u64 {
        LAST_LSN.get(&self.bytes)
    }

    /// LSN of the last record that ends here.
    pub fn last_end_lsn(&self) -> u64 {
        LAST_END_LSN.get(&self.bytes)
    }

    /// The highest LSN that the page speaks of.
    pub fn highest_lsn(&self) -> u64 {
        self.last_lsn().max(self.last_end_lsn())
    }

    /// Whether a record ends here.
    pub fn has_end(&self) -> bool {
        FLAGS.get(&self.bytes) & RECORD_ENDS != 0
    }

    /// Pages of the transfer that wrote it, and its position among them, from 1.
    pub fn transfer(&self) -> (u16, u16) {
        (TRANSFER_PAGES.get(&self.bytes), TRANSFER_POSITION.get(&self.bytes))
    }

    /// For a page of the copy area: where its home is, and the page as it belongs there.
    pub fn into_home(mut self, version: (u16, u16)) -> (u64, Self) {
        if version.0 < 2 {
            let home = self.last_lsn();
            // the home's offset stands where the LSN would be
            let last_end = LAST_END_LSN.get(&self.bytes);
            LAST_LSN.set(&mut self.bytes, last_end);
            return (home, self);
        }
        let home = HOME.get(&self.bytes);
        HOME.set(&mut self.bytes, 0);
        (u64::from(home), self)
    }

    /// The page as it goes to disk.
    pub fn seal(&self) -> Result<Vec<u8>> {
        let mut raw = self.bytes.clone();
        fixup::seal(&mut raw)?;
        Ok(raw)
    }

    /// An empty page.
    pub fn blank() -> Self {
        let mut bytes = vec![0; PAGE];
        fixup::format(&mut bytes, RCRD, ARRAY_AT);
        Self { bytes }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// The one of two states of a page that is newer; the home's, where neither is.
pub(super) fn newer(home: Option<Page>, copy: &Page) -> Option<Page> {
    match home {
        Some(home) if home.highest_lsn() >= copy.highest_lsn() => Some(home),
        _ => Some(copy.clone()),
    }
}
