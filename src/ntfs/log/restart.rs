//! The two restart pages at the head of `$LogFile`.
//!
//! Layout: `LFS_RESTART_PAGE_HEADER` and `LFS_RESTART_AREA` of the public descriptions of the log file service. Versions
//! up to 1.1 are what every clean dismount leaves; 2.0 is the form that Windows 8 and later use while a volume is
//! mounted and convert back on dismount (Microsoft: "Windows 8 volume compatibility considerations").

use super::refusal::refuse;
use crate::error::{Error, Layer, Result};
use crate::ntfs::field::{Field, align8};
use crate::ntfs::fixup;

/// Magic of a restart page.
pub const RSTR: [u8; 4] = *b"RSTR";
/// Magic of a restart page that chkdsk wrote.
pub const CHKD: [u8; 4] = *b"CHKD";
/// Size of a restart page on every Windows platform of today.
pub const PAGE: usize = 4096;
/// Offset of the update sequence array in a restart page.
const ARRAY_AT: u16 = 0x1E;

/// Size of a page of restart information.
pub const SYSTEM_PAGE_SIZE: Field<u32> = Field::at(0x10);
/// Size of a page of records.
pub const LOG_PAGE_SIZE: Field<u32> = Field::at(0x14);
/// Where the restart area begins in the page.
pub const AREA_OFFSET: Field<u16> = Field::at(0x18);
/// Minor version of the log format: 0 in 2.0, 1 in 1.1.
pub const MINOR: Field<u16> = Field::at(0x1A);
/// Major version of the log format: 1, or 2 since Windows 8.
pub const MAJOR: Field<u16> = Field::at(0x1C);

/// In the restart area: the last log sequence number.
pub const CURRENT_LSN: Field<u64> = Field::at(0x00);
/// In the restart area: number of clients.
pub const CLIENTS: Field<u16> = Field::at(0x08);
/// In the restart area: first free client; `0xFFFF` if all are in use.
pub const FREE: Field<u16> = Field::at(0x0A);
/// In the restart area: first client in use; `0xFFFF` if none are in use.
pub const IN_USE: Field<u16> = Field::at(0x0C);
/// In the restart area: flags.
pub const FLAGS: Field<u16> = Field::at(0x0E);
/// In the restart area: bits of an LSN that count the laps of the ring.
pub const SEQUENCE_BITS: Field<u32> = Field::at(0x10);
/// In the restart area: its length with the clients.
pub const AREA_SIZE: Field<u16> = Field::at(0x14);
/// In the restart area: where the clients begin in it.
pub const CLIENT_OFFSET: Field<u16> = Field::at(0x16);
/// In the restart area: size of the log file.
pub const FILE_SIZE: Field<u64> = Field::at(0x18);
/// In the restart area: client bytes of the record at the last log sequence number.
pub const LAST_LENGTH: Field<u32> = Field::at(0x20);
/// In the restart area: length of a record's header.
pub const RECORD_HEADER: Field<u16> = Field::at(0x24);
/// In the restart area: where records begin in a page.
pub const DATA_OFFSET: Field<u16> = Field::at(0x26);
/// In the restart area: how often the log was opened.
pub const OPEN_COUNT: Field<u32> = Field::at(0x28);

/// In a client: the oldest LSN that it needs.
const OLDEST_LSN: Field<u64> = Field::at(0x00);
/// In a client: LSN of its last checkpoint.
const RESTART_LSN: Field<u64> = Field::at(0x08);
/// In a client: the client before it in its list.
const PREVIOUS_CLIENT: Field<u16> = Field::at(0x10);
/// In a client: the client after it in its list.
const NEXT_CLIENT: Field<u16> = Field::at(0x12);
/// In a client: bytes of its name.
const NAME_LENGTH: Field<u32> = Field::at(0x1C);
/// In a client: where its name begins.
const NAME_AT: usize = 0x20;
/// Bytes of a client.
const CLIENT_SIZE: usize = 0xA0;
/// The name of the only client, in UTF-16.
const CLIENT_NAME: &[u8] = b"N\0T\0F\0S\0";
/// Where the clients begin in the restart area, as Windows XP and later write it.
const CLIENTS_AT: u16 = 0x40;

/// Value of [`IN_USE`] for "no client".
pub const NO_CLIENT: u16 = 0xFFFF;
/// Bit of [`FLAGS`]: the volume was dismounted cleanly.
pub const CLEAN: u16 = 0x0002;
/// Bytes of the restart area that are read.
const AREA_LENGTH: usize = 0x20;
/// Length of a record's header.
pub const RECORD_HEADER_SIZE: usize = 0x30;
/// Where records begin in a page.
pub const RECORDS_AT: usize = 0x40;
/// Bytes of the largest log that is replayed.
const LOG_MAX: u64 = 256 << 20;
/// Pages of records that a log has at least.
const RING_MIN: u64 = 48;

/// What a restart page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPage {
    /// Major and minor version.
    pub version: (u16, u16),
    /// Last log sequence number.
    pub current_lsn: u64,
    /// First client in use.
    pub in_use: u16,
    /// Flags of the restart area.
    pub flags: u16,
    /// Size of the log file.
    pub file_size: u64,
}

impl RestartPage {
    /// Reads a page as it lies on disk.
    ///
    /// # Errors
    /// Damaged: no restart page, torn, or its area lies outside.
    pub fn parse(raw: &[u8]) -> Result<Self> {
        let page = unseal(raw)?;
        Self::of(&page)
    }

    fn of(page: &[u8]) -> Result<Self> {
        let area = area_of(page)?;
        Ok(Self {
            version: (MAJOR.get(page), MINOR.get(page)),
            current_lsn: CURRENT_LSN.get(area),
            in_use: IN_USE.get(area),
            flags: FLAGS.get(area),
            file_size: FILE_SIZE.get(area),
        })
    }

    /// Whether the page says that nothing is pending.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.flags & CLEAN != 0 || self.in_use == NO_CLIENT
    }

    /// Whether a log with this page is closed. One of version 2 never is: Windows converts it when it closes it.
    fn is_closed(&self) -> bool {
        self.version.0 < 2 && self.is_clean()
    }

    /// Whether this page counts, and not the one before it: it is newer; or it is as new, and only this one is open.
    pub(super) fn outranks(&self, before: &Self) -> bool {
        let rank = |page: &Self| (page.current_lsn, !page.is_closed());
        rank(self) > rank(before)
    }

    /// The page that counts of those that can be read at the start of a log.
    pub(super) fn current_in(head: &[u8]) -> Option<Self> {
        Self::current(head.chunks_exact(PAGE).flat_map(Self::parse))
    }

    /// The page that counts.
    pub(super) fn current(pages: impl IntoIterator<Item = Self>) -> Option<Self> {
        pages.into_iter().reduce(|before, page| if page.outranks(&before) { page } else { before })
    }
}

fn unseal(raw: &[u8]) -> Result<Vec<u8>> {
    let mut page = raw.to_vec();
    let magic = if page.starts_with(&CHKD) { CHKD } else { RSTR };
    fixup::unseal(&mut page, magic)?;
    Ok(page)
}

fn area_of(page: &[u8]) -> Result<&[u8]> {
    let at = usize::from(AREA_OFFSET.get(page));
    page.get(at..).filter(|area| at >= 0x1E && area.len() >= AREA_LENGTH).ok_or_else(|| {
        Error::damaged(Layer::Ntfs, "the log's restart area lies outside its page")
            .expected_found(format!("0x1e..{:#x}", page.len().saturating_sub(AREA_LENGTH)), format!("{at:#x}"))
    })
}

/// A restart area from which a log can be read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RestartArea {
    /// What the page says in short.
    pub page: RestartPage,
    /// LSN of the last checkpoint.
    pub restart_lsn: u64,
    /// Bits of an LSN that count the laps of the ring.
    pub sequence_bits: u32,
    /// How often the log was opened.
    pub open_count: u32,
}

impl RestartArea {
    /// The one of two restart pages that counts, in a log of `size` bytes.
    ///
    /// # Errors
    /// Refused, when a page is of an interrupted chkdsk, or the newer one has a form that Windows 7 to 11 do not write;
    /// damaged, when neither can be read.
    pub fn choose(size: u64, first: &[u8], second: &[u8]) -> Result<Self> {
        if first.starts_with(&CHKD) || second.starts_with(&CHKD) {
            return Err(refuse("chkdsk was interrupted (a restart page has the signature CHKD)"));
        }
        let pages = [first, second].map(|raw| unseal(raw).and_then(|page| Ok((RestartPage::of(&page)?, page))));
        let [a, b] = pages;
        let (page, raw) = match (a, b) {
            (Ok(a), Ok(b)) if b.0.outranks(&a.0) => b,
            (Ok(a), Ok(_)) => a,
            (Ok(page), Err(_)) | (Err(_), Ok(page)) => page,
            (Err(e), Err(_)) => return Err(refuse(format!("neither restart page can be read: {e}"))),
        };
        Self::check(size, page, &raw)
    }

    fn check(size: u64, page: RestartPage, raw: &[u8]) -> Result<Self> {
        let expect = |what: &str, expected: u64, found: u64| {
            if expected == found {
                return Ok(());
            }
            Err(refuse(format!("its restart area has an unknown form: {what}"))
                .expected_found(format!("{expected:#x}"), format!("{found:#x}")))
        };
        let (major, minor) = page.version;
        if !matches!(page.version, (1, 1) | (2, 0)) {
            return Err(refuse(format!("it has version {major}.{minor}, and only 1.1 and 2.0 are known")));
        }
        let area = area_of(raw)?;
        expect("system page size", PAGE as u64, SYSTEM_PAGE_SIZE.get(raw).into())?;
        expect("log page size", PAGE as u64, LOG_PAGE_SIZE.get(raw).into())?;
        expect("size of the log", size, page.file_size)?;
        let least = first_ring_page(page.version) + RING_MIN * PAGE as u64;
        if !size.is_multiple_of(PAGE as u64) || size > LOG_MAX || size < least {
            return Err(refuse("its size is not that of a log")
                .expected_found(format!("whole pages, {least} to {LOG_MAX} bytes"), size));
        }
        expect("record header", RECORD_HEADER_SIZE as u64, RECORD_HEADER.get(area).into())?;
        expect("start of records in a page", RECORDS_AT as u64, DATA_OFFSET.get(area).into())?;
        let sequence_bits = SEQUENCE_BITS.get(area);
        expect("sequence bits", 3 + u64::from(size.leading_zeros()), sequence_bits.into())?;
        expect("number of clients", 1, CLIENTS.get(area).into())?;
        expect("client in use", 0, page.in_use.into())?;
        let client = usize::from(CLIENT_OFFSET.get(area));
        let client = area.get(client..).and_then(|rest| rest.get(..CLIENT_SIZE));
        let client = client.ok_or_else(|| refuse("the client of its restart area lies outside the page"))?;
        if NAME_LENGTH.get(client) != CLIENT_NAME.len() as u32
            || client.get(NAME_AT..NAME_AT + CLIENT_NAME.len()) != Some(CLIENT_NAME)
        {
            return Err(refuse("the client of its restart area is not NTFS"));
        }
        let restart_lsn = RESTART_LSN.get(client);
        if restart_lsn == 0 || restart_lsn > page.current_lsn {
            return Err(refuse("its restart area names no checkpoint")
                .expected_found(format!("1..{:#x}", page.current_lsn), format!("{restart_lsn:#x}")));
        }
        Ok(Self { page, restart_lsn, sequence_bits, open_count: OPEN_COUNT.get(area) })
    }

    /// The restart page of a clean dismount, sealed: the last record, of `length` bytes, has `lsn`, and the client needs
    /// nothing before `oldest`.
    pub fn closed(&self, lsn: u64, oldest: u64, length: u32) -> Result<Vec<u8>> {
        let mut page = vec![0; PAGE];
        fixup::format(&mut page, RSTR, ARRAY_AT);
        SYSTEM_PAGE_SIZE.set(&mut page, PAGE as u32);
        LOG_PAGE_SIZE.set(&mut page, PAGE as u32);
        let at = align8(usize::from(ARRAY_AT) + 2 * (PAGE / fixup::STRIDE + 1));
        AREA_OFFSET.set(&mut page, at as u16);
        MAJOR.set(&mut page, 1);
        MINOR.set(&mut page, 1);
        let area = page.get_mut(at..).unwrap_or_default();
        CURRENT_LSN.set(area, lsn);
        CLIENTS.set(area, 1);
        FREE.set(area, NO_CLIENT);
        IN_USE.set(area, 0);
        FLAGS.set(area, CLEAN);
        SEQUENCE_BITS.set(area, self.sequence_bits);
        AREA_SIZE.set(area, CLIENTS_AT + CLIENT_SIZE as u16);
        CLIENT_OFFSET.set(area, CLIENTS_AT);
        FILE_SIZE.set(area, self.page.file_size);
        LAST_LENGTH.set(area, length);
        RECORD_HEADER.set(area, RECORD_HEADER_SIZE as u16);
        DATA_OFFSET.set(area, RECORDS_AT as u16);
        OPEN_COUNT.set(area, self.open_count.wrapping_add(1));
        let client = area.get_mut(usize::from(CLIENTS_AT)..).unwrap_or_default();
        OLDEST_LSN.set(client, oldest);
        RESTART_LSN.set(client, lsn);
        PREVIOUS_CLIENT.set(client, NO_CLIENT);
        NEXT_CLIENT.set(client, NO_CLIENT);
        NAME_LENGTH.set(client, CLIENT_NAME.len() as u32);
        if let Some(name) = client.get_mut(NAME_AT..NAME_AT + CLIENT_NAME.len()) {
            name.copy_from_slice(CLIENT_NAME);
        }
        fixup::seal(&mut page)?;
        Ok(page)
    }
}

/// Offset of the first page of the ring in a log of this version.
pub(super) fn first_ring_page(version: (u16, u16)) -> u64 {
    let pages = if version.0 < 2 { 4 } else { 0x22 };
    pages * PAGE as u64
}
