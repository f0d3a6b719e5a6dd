//! What a process does in addition when it is the worker of a batch (`--worker`): it ends with the batch, and its last line on
//! the error output says what only it knows.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};

use super::signals;
use crate::error::{Error, Kind, Layer, Result};
use crate::escape;
use crate::fleet::worker::{REPORT_SCHEMA, WorkerError, WorkerReport};

/// Has the kernel give this process no more than so many bytes of writable memory: heap, stacks of threads, anonymous mappings.
/// The code of the program, and address space that is only reserved, do not count. An allocation beyond it ends the process, and
/// no core file is left in the folder of the images.
fn limit_memory(bytes: u64) {
    let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // A limit that is lower already stays.
    let limits = setrlimit(Resource::Data, limit(bytes)).and_then(|()| setrlimit(Resource::Core, limit(0)));
    if let Err(error) = limits {
        tracing::warn!(%error, "cannot limit the memory of the worker");
    }
}

/// Bytes of memory that this process may have, if its batch limits it.
pub(super) fn memory() -> Option<u64> {
    MEMORY.get().copied()
}

/// Whether this process is a worker.
static IS_WORKER: AtomicBool = AtomicBool::new(false);

/// Whether the job had been done before this run.
static IS_DONE_BEFORE: AtomicBool = AtomicBool::new(false);

/// Bytes of memory that this worker may have.
static MEMORY: OnceLock<u64> = OnceLock::new();

/// Has this process be told to stop, as by a user, when its batch dies; `batch` is the batch's process id. Its memory is
/// limited to so many bytes.
///
/// # Errors
/// [`Kind::Cancelled`] when the batch is gone already.
pub(super) fn begin(batch: u32, memory: Option<u64>) -> Result<()> {
    IS_WORKER.store(true, Ordering::Relaxed);
    if let Some(bytes) = memory {
        let _ = MEMORY.set(bytes);
        limit_memory(bytes);
    }
    // Where the kernel cannot do it, the worker finishes its item.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    let parent = i32::try_from(batch).ok().and_then(Pid::from_raw);
    // It may have died before the line above.
    if parent.is_some() && getppid() != parent {
        return Err(Error::new(Kind::Cancelled, Layer::Cli, "the batch of this worker is gone; nothing was changed"));
    }
    Ok(())
}

/// Whether this process is a worker: a run of its item may come after an earlier one.
pub(super) fn is_worker() -> bool {
    IS_WORKER.load(Ordering::Relaxed)
}

/// Notes that the job had been done before.
pub(super) fn note_done_before() {
    IS_DONE_BEFORE.store(true, Ordering::Relaxed);
}

/// Writes the last line, with the error that the command ends with.
pub(super) fn report(error: Option<&Error>) {
    if !is_worker() {
        return;
    }
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    let cpu = usage.map(|usage| usage.user_time().num_microseconds() + usage.system_time().num_microseconds());
    // Linux gives it in KiB.
    let memory = usage.and_then(|usage| u64::try_from(usage.max_rss()).ok()).map_or(0, |kib| kib.saturating_mul(1024));
    let report = WorkerReport {
        schema: REPORT_SCHEMA.to_owned(),
        cpu_seconds: cpu.unwrap_or(0) as f64 / 1e6,
        memory,
        is_stopped: signals::count() > 0,
        is_done_before: IS_DONE_BEFORE.load(Ordering::Relaxed),
        error: error.map(|error| WorkerError {
            code: error.code().name().to_owned(),
            message: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
        }),
    };
    // Strings and numbers have a JSON form.
    let line = escape::json(serde_json::to_string(&report).unwrap_or_default());
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
