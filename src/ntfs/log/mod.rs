//! Whether a volume may be edited: its log, its dirty flag, its hibernation image.
//!
//! A volume is edited only when nothing is waiting to be written to it. Three witnesses are heard, because none tells
//! everything: `$LogFile` (the only one after a crash of Windows 8 and later, which leave the dirty flag clear), the
//! flags in `$Volume`, and the header of `hiberfil.sys` (hibernation and Fast Startup).
//!
//! | found | without override | with |
//! |---|---|---|
//! | log closed by Windows (1.1), or emptied (all 0xFF) | edit, log untouched | |
//! | log not closed | replayed, and closed as Windows closes it | `--no-replay`: refused |
//! | log not closed, and not replayed (torn, damaged, `--no-replay`) | refused | `--discard-ntfs-log`: log emptied, dirty flag set |
//! | hibernated, Fast Startup | refused | `--discard-hibernation`: image header cleared, log replayed |
//! | dirty flag, or chkdsk, upgrade, log resize under way | refused | `--allow-dirty` |

mod admission;
mod analysis;
mod apply;
mod blocks;
mod checkpoint;
mod close;
#[cfg(test)]
mod forged;
mod logfile;
mod operation;
mod overlay;
mod page;
mod reader;
mod record;
mod refusal;
mod replay;
mod restart;
mod summarize;
mod summary;
mod targets;
#[cfg(test)]
mod testing;
mod undo;
mod view;
mod work;

pub use admission::{Admission, HIBERNATION_FILE, Hibernation, LogReplay, Overrides, State};
pub use logfile::find_position;
pub use operation::Operation;
pub use overlay::Overlay;
pub use refusal::{LOG_FILE, blame_replay, refuse_unsound};
pub use replay::replay;
pub use restart::RestartPage;
pub use summarize::summarize;
pub use summary::{
    LogSummary, PendingRecord, PendingState, PendingTransaction, ReplayReport, Replayed, Target, TransactionState,
};

use sha2::{Digest, Sha256};

use crate::error::Result;

/// Bits of `$Volume`'s flags (`VOLUME_INFORMATION`).
pub mod volume_flags {
    /// The volume should be checked at the next boot.
    pub const DIRTY: u16 = 0x0001;
    /// The log is to be resized.
    pub const RESIZE_LOG: u16 = 0x0002;
    /// The volume is to be upgraded when it is mounted.
    pub const UPGRADE: u16 = 0x0004;
    /// Object ids are to be repaired.
    pub const REPAIR_OBJECT_IDS: u16 = 0x0020;
    /// chkdsk is at work.
    pub const CHKDSK_UNDERWAY: u16 = 0x4000;
    /// Any of those that forbid an edit.
    pub const BLOCKING: u16 = DIRTY | RESIZE_LOG | UPGRADE | REPAIR_OBJECT_IDS | CHKDSK_UNDERWAY;
}

/// Whether `$LogFile` holds changes that are not in the volume yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogState {
    /// All 0xFF: emptied by a formatter or a driver that keeps no log.
    Empty,
    /// Closed by a clean dismount.
    Clean,
    /// Operations may be waiting.
    Unclean {
        /// Major and minor version of the log.
        version: (u16, u16),
    },
    /// In the format that Windows 8 and later use only while the volume is mounted.
    InUse {
        /// Major and minor version of the log.
        version: (u16, u16),
    },
    /// Neither restart page can be read.
    Damaged {
        /// What is wrong with both restart pages.
        reason: String,
    },
}

/// Bytes of the two restart pages.
const RESTART_PAGES: usize = 2 * restart::PAGE;

/// How far the log has come: it moves on whenever Windows or another driver with a log writes to the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPosition {
    /// The last log sequence number of the newer restart page; `None` for a log without a readable one.
    pub lsn: Option<u64>,
    /// SHA-256 of both restart pages as they lie on the volume.
    pub sha256: [u8; 32],
}

impl LogPosition {
    /// The position in a log of `size` bytes, whose bytes `read_at` fills in.
    ///
    /// # Errors
    /// Only what `read_at` returns.
    pub(crate) fn read(size: u64, mut read_at: impl FnMut(u64, &mut [u8]) -> Result<()>) -> Result<Self> {
        let length = usize::try_from(size).map_or(RESTART_PAGES, |size| size.min(RESTART_PAGES));
        let mut head = vec![0; length];
        read_at(0, &mut head)?;
        let page = RestartPage::current_in(&head);
        Ok(Self { lsn: page.map(|page| page.current_lsn), sha256: Sha256::digest(&head).into() })
    }
}

impl LogState {
    /// The state of a log of `size` bytes, whose bytes `read_at` fills in.
    ///
    /// # Errors
    /// Only what `read_at` returns; a log that makes no sense is a state, not an error.
    pub fn read(size: u64, mut read_at: impl FnMut(u64, &mut [u8]) -> Result<()>) -> Result<Self> {
        if size < RESTART_PAGES as u64 {
            return Ok(Self::Damaged { reason: format!("the log has only {size} bytes") });
        }
        let mut head = vec![0; RESTART_PAGES];
        read_at(0, &mut head)?;
        if head.iter().all(|&byte| byte == 0xFF) {
            return Ok(Self::Empty);
        }
        let (first, second) = head.split_at(restart::PAGE);
        let pages = [RestartPage::parse(first), RestartPage::parse(second)];
        Ok(Self::of_pages(size, pages))
    }

    fn of_pages(size: u64, pages: [Result<RestartPage>; 2]) -> Self {
        let Some(page) = RestartPage::current(pages.iter().flatten().copied()) else {
            let reason = pages.into_iter().find_map(Result::err).map(|e| e.to_string()).unwrap_or_default();
            return Self::Damaged { reason };
        };
        let version = page.version;
        if version.0 >= 2 {
            return Self::InUse { version };
        }
        if !page.is_clean() {
            return Self::Unclean { version };
        }
        if page.file_size != size {
            return Self::Damaged {
                reason: format!("its restart area speaks of {} bytes, not {size}", page.file_size),
            };
        }
        Self::Clean
    }

    /// Whether nothing is waiting.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Empty | Self::Clean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::fixup;

    const SIZE: u64 = 1 << 20;

    fn page(version: (u16, u16), lsn: u64, in_use: u16, flags: u16) -> Vec<u8> {
        let mut page = vec![0u8; restart::PAGE];
        fixup::format(&mut page, restart::RSTR, 0x1E);
        restart::SYSTEM_PAGE_SIZE.set(&mut page, 4096);
        restart::AREA_OFFSET.set(&mut page, 0x30);
        restart::MAJOR.set(&mut page, version.0);
        restart::MINOR.set(&mut page, version.1);
        let area = &mut page[0x30..];
        restart::CURRENT_LSN.set(area, lsn);
        restart::IN_USE.set(area, in_use);
        restart::FLAGS.set(area, flags);
        restart::FILE_SIZE.set(area, SIZE);
        fixup::seal(&mut page).unwrap();
        page
    }

    fn state_of(first: Vec<u8>, second: Vec<u8>) -> LogState {
        let log = [first, second].concat();
        LogState::read(SIZE, |at, out| {
            let at = usize::try_from(at).unwrap();
            out.copy_from_slice(&log[at..at + out.len()]);
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn logs() {
        let clean = || page((1, 1), 10, 0, 2);
        let open = || page((1, 1), 11, 0, 0);
        assert_eq!(state_of(clean(), clean()), LogState::Clean);
        assert_eq!(state_of(page((1, 1), 10, 0xFFFF, 0), clean()), LogState::Clean);
        assert_eq!(state_of(vec![0xFF; 4096], vec![0xFF; 4096]), LogState::Empty);
        // the page with the higher number decides, whichever it is
        assert_eq!(state_of(clean(), open()), LogState::Unclean { version: (1, 1) });
        assert_eq!(state_of(open(), clean()), LogState::Unclean { version: (1, 1) });
        assert_eq!(state_of(vec![0; 4096], clean()), LogState::Clean);
        // of two pages with the same number, the open one decides
        for version in [(1, 1), (2, 0)] {
            let expected = match version {
                (1, 1) => LogState::Unclean { version },
                _ => LogState::InUse { version },
            };
            for flags in [0, version.0 - 1] {
                let open = || page(version, 10, 0, 2 * flags);
                assert_eq!(state_of(open(), clean()), expected);
                assert_eq!(state_of(clean(), open()), expected);
                let first = RestartPage::parse(&clean()).unwrap();
                let second = RestartPage::parse(&open()).unwrap();
                assert!(second.outranks(&first) && !first.outranks(&second));
            }
        }
        // 2.0 is refused even when it calls itself clean: it is only updated at checkpoints
        assert_eq!(state_of(page((2, 0), 12, 0, 2), clean()), LogState::InUse { version: (2, 0) });
        assert!(matches!(state_of(vec![0; 4096], vec![0; 4096]), LogState::Damaged { .. }));
        let mut half = vec![0xFF; 4096];
        half[100] = 0;
        assert!(matches!(state_of(half, vec![0xFF; 4096]), LogState::Damaged { .. }));
    }

    #[test]
    fn the_position_moves_with_every_byte_of_the_restart_pages() {
        let position_of = |log: Vec<u8>| {
            let read = LogPosition::read(log.len() as u64, |at, out| {
                let at = usize::try_from(at).unwrap();
                out.copy_from_slice(&log[at..at + out.len()]);
                Ok(())
            });
            read.unwrap()
        };
        let log = [page((1, 1), 10, 0, 2), page((1, 1), 12, 0, 2)].concat();
        let position = position_of(log.clone());
        assert_eq!(position.lsn, Some(12));
        let mut flipped = log.clone();
        flipped[3000] ^= 1;
        assert_eq!(position_of(flipped.clone()).lsn, Some(12));
        assert_ne!(position_of(flipped).sha256, position.sha256);
        let longer = [log.as_slice(), &[1; 4096]].concat();
        assert_eq!(position_of(longer), position, "records beyond the restart pages do not count");
        assert_eq!(position_of(vec![0xFF; 8192]).lsn, None);
        assert_eq!(position_of(log[..4096].to_vec()).lsn, Some(10), "a log of one page");
        assert_eq!(position_of(Vec::new()).lsn, None);
    }
}
