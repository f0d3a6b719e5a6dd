//! Which lines of the job are finished for good, so that a second attempt does not do them again.
//!
//! Packages may be installed again and again; a user's script, an installer or an address may not. The file belongs to
//! one job file, told by its hash: another job begins anew.

use alloc::string::String;
use alloc::vec::Vec;

use crate::text::{decimal, hexadecimal, join};

/// Largest progress file that is read, in bytes.
pub const BYTES_MAX: usize = 1 << 16;

/// The finished steps of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    job: String,
    finished: Vec<u32>,
    /// Whether the job has restarted Windows already.
    pub restarted: bool,
}

impl Progress {
    /// Reads the file's text; one of another job, or a damaged one, says that nothing is finished.
    #[must_use]
    pub fn read(text: &str, job_hash: u32) -> Self {
        let job = hexadecimal(job_hash);
        let empty = Self { job: job.clone(), finished: Vec::new(), restarted: false };
        let mut lines = text.lines();
        if lines.next() != Some(&job) {
            return empty;
        }
        let mut progress = empty;
        for line in lines {
            match line.parse() {
                Ok(step) => progress.finish(step),
                Err(_) => progress.restarted |= line == "restarted",
            }
        }
        progress
    }

    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = join(&[&self.job, "\r\n"]);
        for &step in &self.finished {
            out.push_str(&join(&[&decimal(step), "\r\n"]));
        }
        if self.restarted {
            out.push_str("restarted\r\n");
        }
        out
    }

    /// Whether a step, by its number, is finished.
    #[must_use]
    pub fn is_finished(&self, step: u32) -> bool {
        self.finished.contains(&step)
    }

    /// Notes that a step is finished.
    pub fn finish(&mut self, step: u32) {
        if !self.is_finished(step) {
            self.finished.push(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_another_job_begins_anew() {
        let mut progress = Progress::read("", 7);
        progress.finish(3);
        progress.finish(12);
        progress.restarted = true;
        assert_eq!(Progress::read(&progress.to_text(), 7), progress);
        assert_eq!(Progress::read(&progress.to_text(), 8), Progress::read("", 8));
        assert!(!Progress::read("0x00000007\r\nx\r\n-1\r\n", 7).is_finished(1));
    }
}
