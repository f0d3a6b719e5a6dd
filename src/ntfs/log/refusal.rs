//! How a log that cannot be replayed is refused.

use super::operation::Operation;
use crate::error::{Error, ErrorCode, Kind, Layer};

/// Hint of every refusal that a clean shutdown cures.
pub(super) const SHUT_DOWN: &str = "start the guest, shut it down cleanly (with Fast Startup: `shutdown /s /t 0` after switching it \
                         off with `powercfg /h off`, or hold Shift while choosing Shut down), and export the disk again";

/// Hint of every refusal that concerns the log.
pub(super) fn log_hint() -> String {
    format!(
        "{SHUT_DOWN}; --discard-ntfs-log (of inject, plan, convert, remove and reg) drops what is waiting and has \
             Windows check the volume"
    )
}

/// Name of the log.
pub const LOG_FILE: &str = "$LogFile";
/// How each refusal of a replay begins.
pub(super) const REFUSAL: &str = "cannot replay the log: ";

/// The error for a log that cannot be replayed.
pub(super) fn refuse(reason: impl std::fmt::Display) -> Error {
    Error::refused(Layer::Ntfs, format!("{REFUSAL}{reason}"))
        .with_code(ErrorCode::LogNotReplayable)
        .path(LOG_FILE)
        .hint(log_hint())
}

/// The error for a volume that is not sound after the replay of its log, for this reason.
pub fn refuse_unsound(reason: impl std::fmt::Display) -> Error {
    Error::refused(Layer::Ntfs, format!("the volume is not sound after the replay of its NTFS log: {reason}")).with_code(ErrorCode::LogNotReplayable).hint(
        "nothing was written; start the guest and let it check the disk (chkdsk /f), shut it down cleanly and export again; \
         --no-replay --discard-ntfs-log drops what is waiting and has Windows check the volume",
    )
}

/// What is wrong with the structures of a volume after the replay of its log, as the refusal of that replay.
pub fn blame_replay(error: Error) -> Error {
    match error.kind() {
        Kind::Damaged | Kind::Unsupported => refuse_unsound(error.text_within(Layer::Ntfs, "")),
        _ => error,
    }
}

/// The error for an operation whose effect was never seen in a log of Windows.
pub(super) fn not_proven(lsn: u64, operation: Operation) -> Error {
    refuse(format!("the record {lsn:#x} holds the operation {}, whose effect is not proven", operation.name()))
}

/// A structure that contradicts its format, met during a replay, refuses the replay.
pub(super) fn refuse_damage(error: Error) -> Error {
    match error.kind() {
        Kind::Damaged | Kind::Unsupported => refuse(error),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_replayed_volume_refuses_the_replay() {
        for error in [Error::damaged(Layer::Ntfs, "no $MFT"), Error::unsupported(Layer::Ntfs, "no $MFT")] {
            let error = blame_replay(error);
            assert_eq!(error.kind(), Kind::Refused);
            let text = "ntfs: the volume is not sound after the replay of its NTFS log: no $MFT";
            assert_eq!(error.to_string(), text);
            assert!(error.hint_text().is_some_and(|hint| hint.contains("--no-replay")));
        }
        let own = Error::refused(Layer::Ntfs, "hibernated");
        assert_eq!(blame_replay(own.clone()).to_string(), own.to_string());
    }
}
