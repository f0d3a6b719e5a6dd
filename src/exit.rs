//! Exit codes of the command, as one documented public type.

use crate::error::{Error, ErrorCode, Kind};

/// The exit code of the process. The numbers are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum ExitCode {
    /// Done, or nothing to do, also with warnings. For commands that answer a question: yes, clean.
    Done = 0,
    /// Only for commands that answer a question (`check`, `fsck`, `reg check`): no, faults found; `plan --check`: something
    /// is to be changed; `diff` and `reg diff`: different.
    No = 1,
    /// The command line or a document makes no sense, names no destination, or an output that exists or cannot be one.
    Usage = 2,
    /// Refused: hibernated, unclean or dirty, encrypted, dynamic disk, in use, several Windows and none chosen.
    Refused = 3,
    /// Not a disk image, unsupported, or no Windows in it.
    Unsupported = 4,
    /// The image is damaged, or the boot chain of its guest was broken before.
    Damaged = 5,
    /// Drivers: folder missing, none for this Windows, wrong CPU, unsigned.
    Drivers = 6,
    /// I/O failed: a file that is missing or cannot be read, read-only, no space, standard output that cannot be written.
    Io = 7,
    /// Verification failed and nothing was written.
    Verify = 8,
    /// An interrupted run is pending, or a saved plan is stale.
    Pending = 9,
    /// A defect of winject.
    Bug = 70,
    /// Only for `batch`: a further attempt without any change can succeed (`EX_TEMPFAIL` of sysexits.h): an image was in use, a
    /// worker was killed, the host had no space, the batch was stopped, another run writes into the same results.
    TryAgain = 75,
}

impl From<&Error> for ExitCode {
    fn from(error: &Error) -> Self {
        match error.code() {
            ErrorCode::ResultsInUse | ErrorCode::ResultsFull => Self::TryAgain,
            _ => error.kind().into(),
        }
    }
}

impl From<Kind> for ExitCode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Usage => Self::Usage,
            Kind::Refused => Self::Refused,
            Kind::Unsupported | Kind::NotWindows => Self::Unsupported,
            Kind::Damaged => Self::Damaged,
            Kind::Drivers => Self::Drivers,
            Kind::Io => Self::Io,
            Kind::Verify => Self::Verify,
            Kind::Pending | Kind::Stale => Self::Pending,
            // The command ends by the signal that cancelled it; the code is for callers without one.
            Kind::Cancelled => Self::Refused,
            Kind::Bug => Self::Bug,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        // The discriminants are the numbers of the promise above.
        Self::from(code as u8)
    }
}
