//! SIGINT, SIGTERM and SIGHUP: the job is cancelled and cleans up, then the process ends by the signal.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::cancel::{Cancel, Stage};
use crate::error::{Error, Kind};

/// Cancels every job of the process.
static CANCEL: OnceLock<Cancel> = OnceLock::new();

/// The last signal that came, or 0.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// The cancellation that a signal requests; every job gets it.
pub(super) fn cancel() -> Cancel {
    CANCEL.get_or_init(Cancel::default).clone()
}

/// Begins to listen. Signals that the process was started to ignore (`nohup`, a background job of a script) stay so.
/// Where that is not possible signals end the process at once, as they do by default.
pub(super) fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    if ONCE.set(()).is_err() {
        return;
    }
    let ignored = ignored();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let Ok(mut signals) = Signals::new(wanted) else { return };
    let handle = signals.handle();
    let serve = move || {
        for signal in signals.forever() {
            // Signals come in pairs from shells and `timeout`: the second one does not cut the cleaning up short.
            RECEIVED.store(signal, Ordering::SeqCst);
            match cancel().request() {
                Stage::Reading => print("Interrupted: nothing was changed."),
                Stage::Written => print("Interrupted: no file was left unfinished."),
                Stage::Writing => continue,
            }
            end(signal);
        }
    };
    if std::thread::Builder::new().name("signals".into()).spawn(serve).is_err() {
        handle.close();
    }
}

/// When a signal came while the command was writing: says what became of it, and ends the process by that signal.
pub(super) fn end_if_received(error: Option<&Error>) {
    let signal = RECEIVED.load(Ordering::SeqCst);
    if signal == 0 {
        return;
    }
    match error.map(Error::kind) {
        None => print("Interrupted after the last write: the command was completed."),
        Some(Kind::Cancelled) => print("Interrupted: nothing was changed, and no file is left."),
        Some(_) => {}
    }
    end(signal);
}

/// Ends the process by the signal, so that a shell sees it.
fn end(signal: i32) {
    // It fails only for numbers that are not signals.
    let _ = emulate_default_handler(signal);
}

fn print(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The signals that this process ignores, a bit for each.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
