//! Lines that tell how far a command is: for logs, and as JSON for programs.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::cli::envelope::ANSWER_VERSION;
use crate::escape::{self, escape};
use crate::units::size_text as size;

/// Commands that take no longer print no plain line.
const PLAIN_AFTER: Duration = Duration::from_secs(2);
/// Least time between two plain lines of one phase.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// Least time between two JSON lines of one phase.
const JSON_EVERY: Duration = Duration::from_secs(1);

/// How far a command is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'a> {
    /// Name of the phase for programs.
    pub(super) name: &'a str,
    /// What people read.
    pub(super) title: &'a str,
    /// Bytes that are done.
    pub(super) done: u64,
    /// Bytes that were done when the phase began.
    pub(super) first: u64,
    /// All bytes of the phase; 0 if not known.
    pub(super) total: u64,
    /// Time since the phase began.
    pub(super) phase_time: Duration,
    /// Time since the command began.
    pub(super) job_time: Duration,
}

/// A JSON line.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct ProgressLine<'a> {
    schema: &'a str,
    version: u32,
    /// Name of the phase: `open`, `plan`, `copy` …
    phase: &'a str,
    /// What people read: "Opening the image".
    title: &'a str,
    /// `begin`, `running` or `end`.
    state: &'a str,
    /// Bytes that are done; 0 for a phase that is not counted.
    done: u64,
    /// All bytes of the phase; 0 if not known.
    total: u64,
    /// Seconds since the command began.
    seconds: f64,
}

/// Prints lines to the error output.
pub(super) struct Lines {
    is_json: bool,
    /// Time of the command at the last line of the phase; `None`: it has none.
    last: Option<Duration>,
    write: Box<dyn FnMut(&str) + Send>,
}

impl Moment<'_> {
    /// Bytes in a second of this phase; `None` as long as it cannot be told.
    fn rate(&self) -> Option<f64> {
        let done = self.done.checked_sub(self.first).filter(|done| *done > 0)?;
        (self.phase_time >= Duration::from_millis(500)).then(|| done as f64 / self.phase_time.as_secs_f64())
    }

    pub(super) fn rate_text(&self) -> Option<String> {
        self.rate().map(|rate| format!("{}/s", size(rate as u64)))
    }

    /// Time that the rest of the phase takes at this rate.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let left = self.total.checked_sub(self.done)?;
        Duration::try_from_secs_f64(left as f64 / self.rate()?).ok()
    }

    /// Bytes of a phase whose number of bytes is not known, with the rate.
    pub(super) fn bytes_text(&self) -> Option<String> {
        let rate = self.rate_text().map(|rate| format!(", {rate}")).unwrap_or_default();
        (self.done > 0).then(|| size(self.done) + &rate)
    }

    /// What a plain line says after the title; empty if nothing is counted.
    fn details(&self) -> String {
        if self.total == 0 {
            return self.bytes_text().map(|bytes| format!(": {bytes}")).unwrap_or_default();
        }
        let percent = u128::from(self.done.min(self.total)) * 100 / u128::from(self.total);
        let rate = self.rate_text().map(|rate| format!(", {rate}")).unwrap_or_default();
        let left = self.remaining().map(|left| format!(", {} left", seconds_text(left))).unwrap_or_default();
        format!(": {percent} %, {} of {}{rate}{left}", size(self.done), size(self.total))
    }
}

impl Lines {
    pub(super) fn plain() -> Self {
        Self { is_json: false, last: None, write: Box::new(write_line) }
    }

    pub(super) fn json() -> Self {
        Self { is_json: true, ..Self::plain() }
    }

    /// JSON lines of a worker, whose phases neither begin nor end: its batch wants to know each second how far it is.
    pub(super) fn brief_json() -> Self {
        Self { last: Some(Duration::ZERO), ..Self::json() }
    }

    /// A phase begins.
    pub(super) fn begin(&mut self, moment: &Moment<'_>) {
        self.last = None;
        if self.is_json {
            self.put_json(moment, "begin");
        } else if moment.job_time >= PLAIN_AFTER {
            self.put_plain(moment);
        }
    }

    /// A phase takes its time.
    pub(super) fn go_on(&mut self, moment: &Moment<'_>) {
        let since = self.last.map(|last| moment.job_time.saturating_sub(last));
        if self.is_json {
            if since.is_none_or(|since| since >= JSON_EVERY) {
                self.put_json(moment, "running");
            }
        } else if moment.job_time >= PLAIN_AFTER && since.is_none_or(|since| since >= PLAIN_EVERY) {
            self.put_plain(moment);
        }
    }

    /// A phase is done.
    pub(super) fn end(&mut self, moment: &Moment<'_>) {
        if self.is_json {
            self.put_json(moment, "end");
        }
    }

    fn put_plain(&mut self, moment: &Moment<'_>) {
        self.last = Some(moment.job_time);
        (self.write)(&format!("{}{}", escape(moment.title), moment.details()));
    }

    fn put_json(&mut self, moment: &Moment<'_>, state: &str) {
        self.last = Some(moment.job_time);
        let line = ProgressLine {
            schema: "winject/progress",
            version: ANSWER_VERSION,
            phase: moment.name,
            title: moment.title,
            state,
            done: moment.done,
            total: moment.total,
            // To the millisecond.
            seconds: (moment.job_time.as_secs_f64() * 1000.0).round() / 1000.0,
        };
        // Strings and numbers have a JSON form.
        if let Ok(text) = serde_json::to_string(&line) {
            (self.write)(&escape::json(text));
        }
    }
}

/// A line at once, so that no other thread's line is torn. A closed error output does not disturb the job.
fn write_line(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// A time for people: `9 s`, `3 min 20 s`, `2 h 5 min`.
pub(super) fn seconds_text(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn moment(title: &str, job: u64, phase: u64, done: u64, total: u64) -> Moment<'_> {
        let (phase_time, job_time) = (Duration::from_millis(phase), Duration::from_millis(job));
        Moment { name: "copy", title, done, first: 0, total, phase_time, job_time }
    }

    /// The lines that are printed for a phase with these times of the command, in milliseconds.
    fn printed(lines: Lines, title: &str, begin: u64, times: &[u64], end: u64) -> Vec<String> {
        let (sender, receiver) = channel();
        let write = move |text: &str| sender.send(text.to_owned()).unwrap();
        let mut lines = Lines { write: Box::new(write), ..lines };
        lines.begin(&moment(title, begin, 0, 0, 0));
        for &time in times {
            lines.go_on(&moment(title, time, time - begin, (time - begin) << 20, 100_000 << 20));
        }
        lines.end(&moment(title, end, end - begin, 100_000 << 20, 100_000 << 20));
        drop(lines);
        receiver.iter().collect()
    }

    #[test]
    fn a_short_command_prints_no_plain_line_and_a_long_one_few() {
        assert_eq!(printed(Lines::plain(), "Copying", 0, &[250, 500, 1900], 1990), [""; 0]);
        let ticks: Vec<u64> = (1..64).map(|tick| tick * 250).collect();
        let lines = printed(Lines::plain(), "Copying\n\u{1b}", 0, &ticks, 16_000);
        assert_eq!(lines.len(), 3, "{lines:?}");
        let first = r"Copying\u{a}\u{1b}: 2 %, 2.0 GiB of 97.7 GiB, 1000.0 MiB/s, 1 min 38 s left";
        assert_eq!(lines.first().map(String::as_str), Some(first));
        assert_eq!(printed(Lines::plain(), "Verifying", 3000, &[3100], 3200), ["Verifying"]);
    }

    #[test]
    fn json_lines_are_json_whatever_the_title() {
        let ticks: Vec<u64> = (1..16).map(|tick| tick * 250).collect();
        let lines = printed(Lines::json(), "Checking \u{1b}\u{202e}\"\n", 0, &ticks, 4000);
        assert_eq!(lines.len(), 5, "{lines:?}");
        let told = lines.iter().map(|line| {
            assert!(line.is_ascii() && !line.contains(|c: char| c.is_control()), "{line:?}");
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["schema"], &line["version"]), (&"winject/progress".into(), &1.into()));
            (line["state"].as_str().unwrap().to_owned(), line["seconds"].as_f64().unwrap())
        });
        let expected = [("begin", 0.0), ("running", 1.0), ("running", 2.0), ("running", 3.0), ("end", 4.0)];
        assert_eq!(told.collect::<Vec<_>>(), expected.map(|(state, time)| (state.to_owned(), time)));
    }

    #[test]
    fn a_worker_prints_nothing_in_its_first_second() {
        let (sender, receiver) = channel();
        let write = move |text: &str| sender.send(text.to_owned()).unwrap();
        let mut lines = Lines { write: Box::new(write), ..Lines::brief_json() };
        for (job, phase) in [(250, 250), (750, 10), (1100, 360), (1350, 20), (2000, 670), (2200, 870)] {
            lines.go_on(&moment("Copying", job, phase, 0, 0));
        }
        drop(lines);
        let times: Vec<_> = receiver.iter().map(|line| line.split("\"seconds\":").nth(1).unwrap().to_owned()).collect();
        assert_eq!(times, ["1.1}", "2.2}"]);
    }

    #[test]
    fn what_was_done_before_the_phase_counts_for_no_rate() {
        let late = Moment { first: 90 << 20, ..moment("Copying", 9000, 2000, 100 << 20, 110 << 20) };
        assert_eq!(late.details(), ": 90 %, 100.0 MiB of 110.0 MiB, 5.0 MiB/s, 2 s left");
        assert_eq!(Moment { first: 100 << 20, ..late }.details(), ": 90 %, 100.0 MiB of 110.0 MiB");
    }

    #[test]
    fn times_are_short() {
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")] {
            assert_eq!(seconds_text(Duration::from_secs(seconds)), text);
        }
    }
}
