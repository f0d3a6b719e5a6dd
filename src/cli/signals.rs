//! SIGINT, SIGTERM and SIGHUP: the job is cancelled and cleans up, or is completed if it has passed its commit point; then
//! the process ends by the signal, and a message says which.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::{environment, prompt};
use crate::block::commit::recover_export_hint;
use crate::cancel::{Cancel, Reached, Stage};
use crate::error::{Error, Kind};
use crate::escape::escape;
use crate::exit::ExitCode;
use crate::host::is_nbd_name;
use crate::job::Destination;
use crate::nbd::NbdOptions;

/// A signal that comes so soon after the first one is its twin.
const PAIR: Duration = Duration::from_secs(1);

/// Cancels every job of the process.
static CANCEL: OnceLock<Cancel> = OnceLock::new();

/// The last signal that came, or 0. It is set before the thread that listens knows of it, so that none is lost which comes
/// shortly before the end.
static RECEIVED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// How many signals came.
static COUNT: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Held by the thread that ends the process.
static ENDING: Mutex<()> = Mutex::new(());

/// What the command writes, if anything.
static SUBJECT: OnceLock<Subject> = OnceLock::new();

/// A file that a command writes: what the message about a signal says became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// It is changed where it is.
    InPlace(PathBuf),
    /// It is new, or replaced as a whole.
    Output(PathBuf),
    /// Many, each by a worker of a batch, which has said what became of them.
    Batch,
}

impl Subject {
    /// What a command with this destination writes, if anything.
    pub(super) fn of(destination: &Destination, image: &Path) -> Option<Self> {
        match destination {
            Destination::DryRun => None,
            Destination::InPlace => Some(Self::InPlace(image.to_owned())),
            Destination::Overlay(path) | Destination::Standalone { path, .. } => Some(Self::Output(path.clone())),
        }
    }
}

/// Called by a command that writes, before it begins.
pub(super) fn set_subject(subject: Subject) {
    // A process runs one command.
    let _ = SUBJECT.set(subject);
}

/// The cancellation that a signal requests; every job gets it.
pub(super) fn cancel() -> Cancel {
    CANCEL.get_or_init(Cancel::default).clone()
}

/// How many signals came so far.
pub(super) fn count() -> usize {
    COUNT.get().map_or(0, |count| count.load(Ordering::SeqCst))
}

/// Begins to listen. Signals that the process was started to ignore (`nohup`, a background job of a script) stay so.
/// Where that is not possible signals end the process at once, as they do by default.
pub(super) fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    if ONCE.set(()).is_err() {
        return;
    }
    // At the limit on the size of files (`ulimit -f`) a write fails then, and is an error like that of a full disk; the
    // signal would end the process without a word.
    let _ = flag::register(SIGXFSZ, Arc::default());
    let ignored = ignored();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let received = RECEIVED.get_or_init(Arc::default);
    let Ok(mut signals) = Signals::new(wanted.clone()) else { return };
    let handle = signals.handle();
    let mut flags = Vec::new();
    for signal in wanted {
        let number = usize::try_from(signal).unwrap_or(0);
        flags.extend(flag::register_usize(signal, Arc::clone(received), number));
    }
    let serve = move || {
        let mut first = None;
        for signal in signals.forever() {
            COUNT.get_or_init(Arc::default).fetch_add(1, Ordering::SeqCst);
            let since = first.get_or_insert_with(Instant::now).elapsed();
            // Signals come in pairs from shells and `timeout`: the second one does not cut the cleaning up short.
            match cancel().request() {
                Stage::Reading | Stage::Written => end(signal, true),
                Stage::Writing if since >= PAIR => leave_to_recovery(),
                Stage::Writing => {}
            }
        }
    };
    if std::thread::Builder::new().name("signals".into()).spawn(serve).is_err() {
        handle.close();
        for id in flags {
            signal_hook::low_level::unregister(id);
        }
    }
}

/// When a signal came while the command was writing: says what became of the file, and ends the process by that signal.
pub(super) fn end_if_received(error: Option<&Error>) {
    let signal = RECEIVED.get().map_or(0, |received| received.load(Ordering::SeqCst));
    if signal == 0 {
        return;
    }
    if error.is_some_and(|error| error.kind() == Kind::Pending) {
        // The exit code says that a recovery is needed, which a signal does not.
        return;
    }
    // Another error has said what became of the image.
    let is_silent = error.is_some_and(|error| error.kind() != Kind::Cancelled);
    end(i32::try_from(signal).unwrap_or(SIGTERM), !is_silent);
}

/// Ends the process by the signal, so that a shell sees it, after a message of what became of the file.
fn end(signal: i32, has_message: bool) {
    // One thread of the two says it; the other one waits here until the process is gone.
    let _ending = ENDING.lock();
    prompt::restore();
    if has_message {
        let text = what_became(cancel().reached(), SUBJECT.get());
        let _ = writeln!(std::io::stderr().lock(), "{}", escape(&text));
    }
    // It fails only for numbers that are not signals.
    let _ = emulate_default_handler(signal);
}

/// Ends the process in the middle of an edit over NBD, whose journal stays: a server that does not answer can hold it for a
/// minute. An edit of a file goes on.
fn leave_to_recovery() {
    let Some(Subject::InPlace(image)) = SUBJECT.get() else { return };
    if !is_nbd_name(image) {
        return;
    }
    let _ending = ENDING.lock();
    prompt::restore();
    let nbd = NbdOptions { journals: environment::journal_folder(), ..NbdOptions::default() };
    let hint = recover_export_hint(image, &nbd).unwrap_or_default();
    let text = format!(
        "Interrupted for the second time: the server was not waited for, and {} may be half written; {hint}",
        image.display()
    );
    let _ = writeln!(std::io::stderr().lock(), "{}", escape(&text));
    std::process::exit(i32::from(ExitCode::Pending as u8));
}

/// Whether the signal came before or after the commit point, and what that means for the file.
fn what_became(reached: Reached, subject: Option<&Subject>) -> String {
    let (path, is_in_place) = match subject {
        None => {
            return match reached {
                Reached::Start => "Interrupted: nothing was changed.".to_owned(),
                _ => "Interrupted: no file was left unfinished.".to_owned(),
            };
        }
        Some(Subject::Batch) => {
            return "Interrupted: items that had begun were finished or rolled back; the same command goes on from here.".to_owned();
        }
        Some(Subject::InPlace(path)) => (path, true),
        Some(Subject::Output(path)) => (path, false),
    };
    let path = path.display();
    match (reached, is_in_place) {
        (Reached::CommitPoint, true) => {
            format!("Interrupted after the commit point: the change of {path} was completed.")
        }
        (Reached::RolledBack, _) => {
            format!("Interrupted after the commit point: the interrupted run on {path} was rolled back.")
        }
        (Reached::Undone, _) => format!("Interrupted after the commit point: the edit of {path} was undone."),
        (Reached::CommitPoint, false) => format!("Interrupted after the commit point: {path} is complete."),
        (Reached::Recovery, _) => format!(
            "Interrupted before the commit point: an earlier, interrupted run on {path} was completed or rolled back; \
             nothing else was changed."
        ),
        (Reached::Pending, _) => format!("Interrupted: the change of {path} is pending, see winject recover --help."),
        (Reached::Incomplete, _) => format!("Interrupted: {path} holds an incomplete copy; run the command again."),
        (Reached::Start, true) => format!("Interrupted before the commit point: {path} is as it was."),
        (Reached::Start, false) => format!("Interrupted before the commit point: {path} was not written."),
    }
}

/// The signals that this process ignores, a bit for each.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_which_side_of_the_commit_point_it_was() {
        let (image, output) = (Subject::InPlace("i.raw".into()), Subject::Output("o.qcow2".into()));
        for (reached, subject, text) in [
            (Reached::Start, None, "Interrupted: nothing was changed."),
            (Reached::Start, Some(&image), "Interrupted before the commit point: i.raw is as it was."),
            (
                Reached::CommitPoint,
                Some(&image),
                "Interrupted after the commit point: the change of i.raw was completed.",
            ),
            (
                Reached::RolledBack,
                Some(&image),
                "Interrupted after the commit point: the interrupted run on i.raw was rolled back.",
            ),
            (Reached::Undone, Some(&image), "Interrupted after the commit point: the edit of i.raw was undone."),
            (Reached::Start, Some(&output), "Interrupted before the commit point: o.qcow2 was not written."),
            (
                Reached::Incomplete,
                Some(&output),
                "Interrupted: o.qcow2 holds an incomplete copy; run the command again.",
            ),
            (Reached::CommitPoint, Some(&output), "Interrupted after the commit point: o.qcow2 is complete."),
        ] {
            assert_eq!(what_became(reached, subject), text);
        }
        assert!(what_became(Reached::Pending, Some(&image)).contains("winject recover"));
        assert!(what_became(Reached::Recovery, Some(&image)).contains("rolled back"));
    }
}
