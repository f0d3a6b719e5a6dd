//! The small files that outlive a start: counters, progress, markers, the result.

use alloc::string::String;

use crate::log::Log;
use crate::places::Places;
use crate::progress::{self, Progress};
use crate::text::{decimal, join};
use crate::windows::file;

/// The marker of a job that is done.
pub const DONE: &str = "firstboot.done";
/// The marker of a job that was given up.
pub const FAILED: &str = "firstboot.failed";
/// Counts attempts that ended with a failed required step.
pub const ATTEMPTS: &str = "firstboot.attempts";
/// Counts attempts that have begun.
pub const BEGUN: &str = "firstboot.begun";
/// Finished steps.
pub const PROGRESS: &str = "firstboot.progress";
/// The result.
pub const RESULT: &str = "firstboot.json";
/// The job file.
pub const JOB: &str = "firstboot.job";
/// Held while the program works.
pub const LOCK: &str = "firstboot.lock";
/// Output of the program that is running.
pub const OUTPUT: &str = "firstboot.out";
const TEMPORARY: &str = "firstboot.tmp";

/// The files, and where to complain.
pub struct StateFiles<'a> {
    pub places: &'a Places,
    pub log: &'a Log,
}

impl StateFiles<'_> {
    /// Whether a marker is there.
    pub fn is_marked(&self, marker: &str) -> bool {
        file::exists(&self.places.base_file(marker))
    }

    /// Writes a file, completely or not at all. A failure is logged.
    pub fn write(&self, name: &str, text: &str) {
        let (path, temporary) = (self.places.base_file(name), self.places.base_file(TEMPORARY));
        if let Err(error) = file::replace(&path, &temporary, text.as_bytes()) {
            self.log.line(&["cannot write ", &path, ": error ", &decimal(error)]);
        }
    }

    /// A counter: 0 when it is not there or not a number.
    pub fn count(&self, name: &str) -> u32 {
        let data = file::read(&self.places.base_file(name), 64).unwrap_or_default();
        let text = core::str::from_utf8(&data).unwrap_or_default().trim();
        if data.is_empty() {
            return 0;
        }
        text.parse().unwrap_or_else(|_| {
            self.log.line(&[name, " is not a number; counted as 0"]);
            0
        })
    }

    /// Sets a counter.
    pub fn set_count(&self, name: &str, value: u32) {
        self.write(name, &join(&[&decimal(value), "\r\n"]));
    }

    /// What earlier attempts of the job with this hash have finished.
    pub fn progress(&self, job_hash: u32) -> Progress {
        let data = file::read(&self.places.base_file(PROGRESS), progress::BYTES_MAX).unwrap_or_default();
        Progress::read(&String::from_utf8_lossy(&data), job_hash)
    }

    /// Removes files of the base folder that are there.
    pub fn remove(&self, names: &[&str]) {
        for name in names {
            let path = self.places.base_file(name);
            if file::exists(&path)
                && let Err(error) = file::delete(&path)
            {
                self.log.line(&["cannot delete ", &path, ": error ", &decimal(error)]);
            }
        }
    }
}
