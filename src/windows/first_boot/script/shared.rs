//! What the parts of the script share.

/// Seconds of one poll.
const POLL_SECONDS: u32 = 2;

/// How many polls or pauses a time takes.
pub(super) const fn polls(seconds: u32) -> u32 {
    seconds.div_ceil(POLL_SECONDS)
}

/// Why a step cannot be part of a batch file.
pub(super) fn unspellable(name: &str) -> String {
    format!("the step {name:?} holds a character that cannot stand in a batch file")
}
