//! Whether a volume may be edited, by its log, its flags and its hibernation image.

use super::refusal::{LOG_FILE, SHUT_DOWN, log_hint};
use super::{LogState, volume_flags};
use crate::error::{Error, ErrorCode, Layer, Result};

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
    /// `--discard-ntfs-log`: drop what is waiting in a log that was not replayed.
    pub discard_log: bool,
    /// `--discard-hibernation`: drop the saved session, and with it a log that was not to be replayed.
    pub discard_hibernation: bool,
}

/// What became of the log before the volume's state was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogReplay {
    /// Nothing: it was closed, or was not to be replayed.
    None,
    /// It was replayed in memory, and is closed there.
    Done,
    /// It cannot be replayed, for this reason.
    Failed(String),
}

/// What decides whether a volume may be edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The state of `$LogFile`, after its replay.
    pub log: LogState,
    /// Whether it was replayed.
    pub replay: LogReplay,
    /// Bits of [`volume_flags`] in `$VOLUME_INFORMATION`.
    pub flags: u16,
    /// The state of `\hiberfil.sys`.
    pub hibernation: Hibernation,
}

/// What has to be done to the volume before the first edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Admission {
    /// Write the replayed blocks.
    pub write_replay: bool,
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
        let is_replayed = self.replay == LogReplay::Done;
        let mut admission = Admission { write_replay: is_replayed, ..Admission::default() };
        if self.hibernation == Hibernation::Active {
            if !overrides.discard_hibernation {
                return Err(refused(
                    "Windows is hibernated or was shut down with Fast Startup (hiberfil.sys holds a session)",
                )
                .with_code(ErrorCode::Hibernated)
                .hint(format!("{SHUT_DOWN}; --discard-hibernation throws the saved session away")));
            }
            admission.clear_hibernation = true;
        }
        if !self.log.is_clean() {
            // without the session that it belongs to, a log that was not to be replayed goes with it
            let goes_with_session = admission.clear_hibernation && self.replay == LogReplay::None;
            if !overrides.discard_log && !goes_with_session {
                return Err(self.refuse_log());
            }
            admission.empty_log = true;
        }
        admission.set_dirty = admission.empty_log || (admission.clear_hibernation && !is_replayed);
        if self.flags & volume_flags::BLOCKING != 0 && !overrides.allow_dirty {
            return Err(refused(format!("the volume is {}", flags_in_words(self.flags))).with_code(ErrorCode::VolumeDirty).hint(
                "start the guest and let it check the disk (chkdsk), shut it down cleanly and export again; the mark also \
                 stays after --discard-ntfs-log or --discard-hibernation until Windows has checked the volume; \
                 --allow-dirty edits it nevertheless",
            ));
        }
        Ok(admission)
    }

    fn refuse_log(&self) -> Error {
        let what = match &self.log {
            LogState::InUse { version: (major, minor) } => format!(
                "the log is in format {major}.{minor}, which Windows uses only while the volume is mounted: it was not \
                 shut down cleanly, is hibernated, or used Fast Startup"
            ),
            LogState::Damaged { reason } => format!("the log is damaged: {reason}"),
            LogState::Unclean { .. } | LogState::Empty | LogState::Clean => {
                "the log is unclean: operations are waiting in it".to_owned()
            }
        };
        match &self.replay {
            LogReplay::Failed(reason) => {
                refused(format!("{what}; {reason}")).with_code(ErrorCode::LogNotReplayable).hint(log_hint())
            }
            LogReplay::None | LogReplay::Done => refused(what)
                .with_code(ErrorCode::LogUnclean)
                .hint(format!("without --no-replay the log is replayed, as Windows would do it; {}", log_hint())),
        }
        .path(LOG_FILE)
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
        State { log, replay: LogReplay::None, flags, hibernation }
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
    fn a_replayed_log_is_written_and_marks_nothing() {
        let replayed =
            |flags, hibernation| State { replay: LogReplay::Done, ..state(LogState::Clean, flags, hibernation) };
        let written = Admission { write_replay: true, ..Admission::default() };
        assert_eq!(replayed(0, Hibernation::None).admit(&Overrides::default()).unwrap(), written);
        assert!(replayed(0, Hibernation::Active).admit(&Overrides::default()).is_err());
        assert!(replayed(1, Hibernation::None).admit(&Overrides::default()).is_err());
        let discard_all = Overrides { discard_log: true, discard_hibernation: true, ..Overrides::default() };
        let without_session = Admission { clear_hibernation: true, ..written };
        assert_eq!(replayed(0, Hibernation::Active).admit(&discard_all).unwrap(), without_session);
    }

    #[test]
    fn a_log_that_cannot_be_replayed_is_refused_with_the_reason_even_without_its_session() {
        let failed = |hibernation| State {
            replay: LogReplay::Failed("cannot replay the log: a page is torn".to_owned()),
            ..state(LogState::InUse { version: (2, 0) }, 0, hibernation)
        };
        let discard_session = Overrides { discard_hibernation: true, ..Overrides::default() };
        for error in [
            failed(Hibernation::None).admit(&Overrides::default()).unwrap_err(),
            failed(Hibernation::Active).admit(&discard_session).unwrap_err(),
        ] {
            assert!(error.to_string().contains("a page is torn"), "{error}");
            assert!(error.hint_text().unwrap().contains("--discard-ntfs-log"), "{error}");
        }
        let discard_all = Overrides { discard_log: true, ..discard_session };
        let done = failed(Hibernation::Active).admit(&discard_all).unwrap();
        assert!(done.empty_log && done.clear_hibernation && done.set_dirty && !done.write_replay);
    }

    #[test]
    fn overrides() {
        let unclean = || LogState::Unclean { version: (1, 1) };
        let discard_log = Overrides { discard_log: true, ..Overrides::default() };
        let done = state(unclean(), 0, Hibernation::None).admit(&discard_log).unwrap();
        assert_eq!(done, Admission { empty_log: true, set_dirty: true, ..Admission::default() });
        assert!(state(unclean(), 0, Hibernation::Active).admit(&discard_log).is_err());
        assert!(state(LogState::Clean, 1, Hibernation::None).admit(&discard_log).is_err());

        let discard_all = Overrides { discard_hibernation: true, ..Overrides::default() };
        let done = state(unclean(), 0, Hibernation::Active).admit(&discard_all).unwrap();
        assert_eq!(
            done,
            Admission { empty_log: true, clear_hibernation: true, set_dirty: true, ..Admission::default() }
        );
        // without a session the option does not reach the log
        assert!(state(unclean(), 0, Hibernation::None).admit(&discard_all).is_err());

        let dirty = Overrides { allow_dirty: true, ..Overrides::default() };
        assert!(state(LogState::Clean, 1, Hibernation::None).admit(&dirty).unwrap().is_nothing());
    }
}
