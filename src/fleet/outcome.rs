//! What became of an item, and whether it can be tried again: one table for the batch and for the engines that start it.

use serde::{Deserialize, Serialize};

use crate::error_code::ErrorCode;
use crate::exit::ExitCode;

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The job was done.
    Done,
    /// The job had been done before, and nothing was written.
    AlreadyDone,
    /// The job answers a question, and the answer is no: the guest does not boot.
    Findings,
    /// The job refuses the image by policy, and nothing was written.
    Refused,
    /// The job failed, and nothing was written.
    Failed,
    /// Another process works on the image or on its output.
    Busy,
    /// The worker died by a signal: out of memory, or killed.
    Killed,
    /// The batch was asked to stop while the item ran, and it was finished or rolled back.
    Cancelled,
    /// The batch stopped before the item's turn.
    NotStarted,
}

impl Outcome {
    /// Every outcome, the good ones first.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::AlreadyDone,
        Self::Findings,
        Self::Refused,
        Self::Failed,
        Self::Busy,
        Self::Killed,
        Self::Cancelled,
        Self::NotStarted,
    ];

    /// Its stable name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::AlreadyDone => "already-done",
            Self::Findings => "findings",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Busy => "busy",
            Self::Killed => "killed",
            Self::Cancelled => "cancelled",
            Self::NotStarted => "not-started",
        }
    }

    /// Whether the item is done.
    #[must_use]
    pub fn is_done(self) -> bool {
        matches!(self, Self::Done | Self::AlreadyDone)
    }

    /// Whether it counts for the limit of failures.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Refused | Self::Failed | Self::Killed)
    }

    /// What became of an item whose worker ended with this exit code, and with an error of this code if it failed.
    #[must_use]
    pub fn of_exit(code: u8, reason: Option<&str>) -> Self {
        let is = |wanted: ErrorCode| reason == Some(wanted.name());
        match code {
            0 => Self::Done,
            1 => Self::Findings,
            _ if BUSY.iter().any(|code| is(*code)) => Self::Busy,
            _ if is(ErrorCode::Cancelled) => Self::Cancelled,
            code if code == ExitCode::Refused as u8 => Self::Refused,
            _ => Self::Failed,
        }
    }

    /// Whether a further attempt without any change can succeed.
    #[must_use]
    pub fn is_retryable(self, reason: Option<&str>) -> bool {
        match self {
            Self::Done | Self::AlreadyDone | Self::Findings => false,
            Self::Busy | Self::Killed | Self::Cancelled | Self::NotStarted => true,
            Self::Refused | Self::Failed => RETRYABLE.iter().any(|code| reason == Some(code.name())),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Errors that say that another process works on the image.
const BUSY: &[ErrorCode] = &[ErrorCode::ImageInUse];

/// Errors that can be gone at the next attempt: the host's, an NBD server that does not answer, and a file that something else
/// replaced meanwhile. A full disk
/// belongs to them: other jobs end, and space is added, without a change of the command. A pending journal does not: a job in
/// place recovers the image at once, and every other one fails until the image is recovered.
const RETRYABLE: &[ErrorCode] = &[ErrorCode::Io, ErrorCode::NoSpace, ErrorCode::FileChanged, ErrorCode::NbdUnreachable];

/// The exit code of a batch: what its items say together. A retryable item wins over a failed one, because engines retry by
/// the code, and the next attempt only costs an inspection of each item that is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    has_failed: bool,
    has_retryable: bool,
}

impl Verdict {
    /// Adds an item.
    pub fn add(&mut self, outcome: Outcome, is_retryable: bool) {
        self.has_retryable |= is_retryable;
        self.has_failed |= !outcome.is_done() && !is_retryable;
    }

    /// The exit code.
    #[must_use]
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self { has_retryable: true, .. } => ExitCode::TryAgain,
            Self { has_failed: true, .. } => ExitCode::No,
            _ => ExitCode::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_image_is_not_a_refused_one() {
        assert_eq!(Outcome::of_exit(3, Some("image-in-use")), Outcome::Busy);
        assert_eq!(Outcome::of_exit(3, Some("hibernated")), Outcome::Refused);
        assert_eq!(Outcome::of_exit(7, Some("no-space")), Outcome::Failed);
        assert!(Outcome::Failed.is_retryable(Some("no-space")));
        assert!(Outcome::Failed.is_retryable(Some("nbd-unreachable")));
        assert!(!Outcome::Failed.is_retryable(Some("nbd-server")));
        assert!(!Outcome::Failed.is_retryable(Some("file-not-found")));
        assert!(!Outcome::Failed.is_retryable(Some("journal-pending")));
        assert!(!Outcome::Refused.is_retryable(Some("hibernated")));
    }

    #[test]
    fn a_retryable_item_wins() {
        let mut verdict = Verdict::default();
        assert_eq!(verdict.exit_code(), ExitCode::Done);
        verdict.add(Outcome::AlreadyDone, false);
        assert_eq!(verdict.exit_code(), ExitCode::Done);
        verdict.add(Outcome::Findings, false);
        assert_eq!(verdict.exit_code(), ExitCode::No);
        verdict.add(Outcome::Busy, true);
        assert_eq!(verdict.exit_code(), ExitCode::TryAgain);
    }

    #[test]
    fn names_are_those_of_the_json_form() {
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_string(&outcome).unwrap(), format!("{:?}", outcome.name()));
        }
    }
}
