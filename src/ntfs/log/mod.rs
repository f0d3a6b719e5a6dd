//! Whether a volume may be edited: its log, its dirty flag, its hibernation image.
//!
//! A volume is edited only when nothing is waiting to be written to it. Three witnesses are heard, because none tells
//! everything: `$LogFile` (the only one after a crash of Windows 8 and later, which leave the dirty flag clear), the
//! flags in `$Volume`, and the header of `hiberfil.sys` (hibernation and Fast Startup).
//!
//! | found | without override | with |
//! |---|---|---|
//! | log closed by Windows (1.1), or emptied (all 0xFF) | edit, log untouched | |
//! | log with pending work, in format 2.x, or damaged | refused | `--discard-ntfs-log`: log emptied, dirty flag set |
//! | hibernated, Fast Startup | refused | `--discard-hibernation`: image header and log emptied, dirty flag set |
//! | dirty flag, or chkdsk, upgrade, log resize under way | refused | `--allow-dirty` |

mod operation;
mod overlay;
mod refusal;
mod replay;
mod restart;
mod summary;

pub use operation::Operation;
pub use overlay::Overlay;
pub use replay::{replay, summarize};
pub use restart::RestartPage;
pub use summary::{
    ClosingForm, LogSummary, PendingRecord, PendingState, PendingTransaction, ReplayReport, Replayed, Target,
    TransactionState,
};

use sha2::{Digest, Sha256};

use crate::error::{Error, Layer, Result};
use refusal::{SHUT_DOWN, log_hint};

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
        let pages = head.chunks_exact(restart::PAGE).flat_map(RestartPage::parse);
        Ok(Self { lsn: pages.map(|page| page.current_lsn).max(), sha256: Sha256::digest(&head).into() })
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
        let newest = pages.iter().flatten().max_by_key(|page| page.current_lsn);
        let Some(page) = newest else {
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

/// Path of the file that holds a saved session.
pub const HIBERNATION_FILE: &str = "/hiberfil.sys";

/// Whether `\hiberfil.sys` holds a saved session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hibernation {
    /// No such file, or its image was used up.
    #[default]
    None,
    /// It holds a session: hibernated, or shut down with Fast Startup.
    Active,
}

impl Hibernation {
    /// Bytes of the file that [`from_header`](Self::from_header) needs.
    pub const HEADER: usize = 4096;

    /// Judges the first bytes of a file of `size` bytes.
    #[must_use]
    pub fn from_header(header: &[u8], size: u64) -> Self {
        // a file too small for an image stands on volumes that are part of a hibernated system without being its root
        let short = size > 0 && size < Self::HEADER as u64;
        match header.get(..4) {
            Some(b"HIBR" | b"hibr") => Self::Active,
            _ if short => Self::Active,
            _ => Self::None,
        }
    }
}

/// What the user allows although it is normally refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overrides {
    /// `--allow-dirty`: edit a volume that is marked for checking; the mark stays.
    pub allow_dirty: bool,
    /// `--discard-ntfs-log`: drop what is waiting in the log.
    pub discard_log: bool,
    /// `--discard-hibernation`: drop the saved session, and the log with it.
    pub discard_hibernation: bool,
}

/// What decides whether a volume may be edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The state of `$LogFile`.
    pub log: LogState,
    /// Bits of [`volume_flags`] in `$VOLUME_INFORMATION`.
    pub flags: u16,
    /// The state of `\hiberfil.sys`.
    pub hibernation: Hibernation,
}

/// What has to be done to the volume before the first edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Admission {
    /// Fill `$LogFile` with 0xFF.
    pub empty_log: bool,
    /// Zero the first page of `\hiberfil.sys`.
    pub clear_hibernation: bool,
    /// Set the dirty flag, so that Windows checks the volume at its next start.
    pub set_dirty: bool,
}

impl Admission {
    /// Whether the volume can be edited as it is.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl State {
    /// Decides whether the volume may be edited, and what has to be done first.
    ///
    /// # Errors
    /// Refused, with the reason in words, the remedy, and the override that would force it.
    pub fn admit(&self, overrides: &Overrides) -> Result<Admission> {
        let mut admission = Admission::default();
        if self.hibernation == Hibernation::Active {
            if !overrides.discard_hibernation {
                return Err(refused(
                    "Windows is hibernated or was shut down with Fast Startup (hiberfil.sys holds a session)",
                )
                .hint(format!("{SHUT_DOWN}; --discard-hibernation throws the saved session away")));
            }
            admission.clear_hibernation = true;
        }
        if !self.log.is_clean() {
            if !overrides.discard_log && !admission.clear_hibernation {
                return Err(self.refuse_log());
            }
            admission.empty_log = true;
        }
        admission.set_dirty = admission.empty_log || admission.clear_hibernation;
        if self.flags & volume_flags::BLOCKING != 0 && !overrides.allow_dirty {
            return Err(refused(format!("the volume is {}", flags_in_words(self.flags))).hint(
                "start the guest and let it check the disk (chkdsk), shut it down cleanly and export again; the mark also \
                 stays after --discard-ntfs-log or --discard-hibernation until Windows has checked the volume; \
                 --allow-dirty edits it nevertheless",
            ));
        }
        Ok(admission)
    }

    fn refuse_log(&self) -> Error {
        let error = match &self.log {
            LogState::InUse { version: (major, minor) } => refused(format!(
                "the log is in format {major}.{minor}, which Windows uses only while the volume is mounted: it was not \
                 shut down cleanly, is hibernated, or used Fast Startup"
            )),
            LogState::Damaged { reason } => refused(format!("the log is damaged: {reason}")),
            LogState::Unclean { .. } | LogState::Empty | LogState::Clean => {
                refused("the log is unclean: operations are waiting in it")
            }
        };
        error.path("$LogFile").hint(log_hint())
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::refused(Layer::Ntfs, message)
}

fn flags_in_words(flags: u16) -> String {
    let words: Vec<&str> = [
        (volume_flags::DIRTY, "marked dirty"),
        (volume_flags::RESIZE_LOG, "waiting for its log to be resized"),
        (volume_flags::UPGRADE, "waiting to be upgraded"),
        (volume_flags::REPAIR_OBJECT_IDS, "waiting for a repair of its object ids"),
        (volume_flags::CHKDSK_UNDERWAY, "being checked by chkdsk"),
    ]
    .into_iter()
    .filter(|&(bit, _)| flags & bit != 0)
    .map(|(_, word)| word)
    .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
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

    #[test]
    fn hibernation() {
        assert_eq!(Hibernation::from_header(b"HIBR....", 1 << 20), Hibernation::Active);
        assert_eq!(Hibernation::from_header(b"hibr....", 1 << 20), Hibernation::Active);
        assert_eq!(Hibernation::from_header(b"wake....", 1 << 20), Hibernation::None);
        assert_eq!(Hibernation::from_header(&[0; 4096], 1 << 20), Hibernation::None);
        assert_eq!(Hibernation::from_header(&[0; 100], 100), Hibernation::Active);
        assert_eq!(Hibernation::from_header(&[], 0), Hibernation::None);
    }

    fn state(log: LogState, flags: u16, hibernation: Hibernation) -> State {
        State { log, flags, hibernation }
    }

    #[test]
    fn refusals_say_why_and_what_to_do() {
        let unclean = LogState::Unclean { version: (1, 1) };
        for (state, word) in [
            (state(unclean.clone(), 0, Hibernation::None), "unclean"),
            (state(LogState::InUse { version: (2, 0) }, 0, Hibernation::None), "2.0"),
            (state(LogState::Clean, 1, Hibernation::None), "dirty"),
            (state(LogState::Clean, 0x4000, Hibernation::None), "chkdsk"),
            (state(LogState::Clean, 0, Hibernation::Active), "Fast Startup"),
            (state(unclean, 0, Hibernation::Active), "hibernated"),
        ] {
            let error = state.admit(&Overrides::default()).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused);
            assert!(error.to_string().contains(word), "{error}");
            assert!(error.hint_text().unwrap().contains("guest"), "{error}");
        }
        // bits that mean no harm
        assert!(state(LogState::Empty, 0x8090, Hibernation::None).admit(&Overrides::default()).unwrap().is_nothing());
    }

    #[test]
    fn overrides() {
        let unclean = || LogState::Unclean { version: (1, 1) };
        let discard_log = Overrides { discard_log: true, ..Overrides::default() };
        let done = state(unclean(), 0, Hibernation::None).admit(&discard_log).unwrap();
        assert_eq!(done, Admission { empty_log: true, clear_hibernation: false, set_dirty: true });
        assert!(state(unclean(), 0, Hibernation::Active).admit(&discard_log).is_err());
        assert!(state(LogState::Clean, 1, Hibernation::None).admit(&discard_log).is_err());

        let discard_all = Overrides { discard_hibernation: true, ..Overrides::default() };
        let done = state(unclean(), 0, Hibernation::Active).admit(&discard_all).unwrap();
        assert_eq!(done, Admission { empty_log: true, clear_hibernation: true, set_dirty: true });
        // without a session the option does not reach the log
        assert!(state(unclean(), 0, Hibernation::None).admit(&discard_all).is_err());

        let dirty = Overrides { allow_dirty: true, ..Overrides::default() };
        assert!(state(LogState::Clean, 1, Hibernation::None).admit(&dirty).unwrap().is_nothing());
    }
}
