//! A line on the error output that says how far a job is.

use super::convert::size;
use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two drawings.
const TICK: Duration = Duration::from_millis(120);

/// The pictures of a spinner.
const SPINNER: &str = "⠁⠁⠉⠙⠚⠒⠂⠂⠒⠲⠴⠤⠄⠄⠤⠠⠠⠤⠦⠖⠒⠐⠐⠒⠓⠋⠉⠈⠈";

/// Characters of a bar.
const BAR: u64 = 30;

/// A running progress bar; it vanishes when dropped.
#[derive(Debug)]
pub struct Progress(Option<Running>);

#[derive(Debug)]
struct Running {
    line: Arc<Mutex<Line>>,
    /// Its end tells the thread to stop.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// One that nobody sees.
    pub(super) fn hidden() -> Self {
        Self(None)
    }

    /// A bar, or (with a total of 0) a spinner, that a thread draws until it is dropped, for the first time after 120 ms:
    /// short steps show nothing.
    pub(super) fn start(title: String, total: u64) -> Self {
        let line = Arc::new(Mutex::new(Line { title, total, ..Line::default() }));
        let (stop, stopped) = channel::<()>();
        let shared = Arc::clone(&line);
        let draw = move || {
            let (start, mut tick) = (Instant::now(), 0);
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                tick += 1;
                let text = shared.lock().unwrap_or_else(PoisonError::into_inner).text(tick, start.elapsed(), columns());
                show(&text);
            }
            // What others wrote before the first drawing stays.
            if tick > 0 {
                show("");
            }
        };
        // Without a thread nothing is drawn, and the job goes on.
        let thread = std::thread::Builder::new().name("progress".into()).spawn(draw).ok();
        Self(Some(Running { line, stop: Some(stop), thread }))
    }

    fn change(&self, change: impl FnOnce(&mut Line)) {
        if let Some(running) = &self.0 {
            change(&mut running.line.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// How much of the total is done.
    pub fn set(&self, done: u64) {
        self.change(|line| line.done = done);
    }

    /// What is being done now.
    pub fn message(&self, text: &str) {
        self.change(|line| line.title = crate::escape::escape(text).into_owned());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left on the screen to take away.
            let _ = thread.join();
        }
    }
}

/// The width of the terminal; serial ones do not know it, and say 0.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.ok().map(|size| size.ws_col.into()).filter(|columns| *columns > 0).unwrap_or(80)
}

/// Draws over what stands in the line.
fn show(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "\r\u{1b}[2K{text}").and_then(|()| out.flush());
}

#[derive(Debug, Default)]
struct Line {
    title: String,
    total: u64,
    done: u64,
    /// Bytes in a second, of late.
    rate: u64,
    /// What was done at the last drawing, and when that was.
    last: (u64, Duration),
}

impl Line {
    /// The line, cut to the columns of the terminal. (Titles have no wide characters: they name steps and partitions.)
    fn text(&mut self, tick: usize, now: Duration, columns: usize) -> String {
        let text = if self.total == 0 {
            format!("{} {}", SPINNER.chars().nth(tick % SPINNER.chars().count()).unwrap_or(' '), self.title)
        } else {
            self.measure(now);
            let done = self.done.min(self.total);
            let full = done.saturating_mul(BAR) / self.total;
            let bar: String = (0..BAR).map(|i| if i < full { '█' } else { '░' }).collect();
            let left = (self.total - done).checked_div(self.rate).map_or(String::new(), remaining);
            format!("{} {bar} {}/{} {left}", self.title, size(done), size(self.total))
        };
        // In the last column some terminals break the line.
        text.chars().take(columns.saturating_sub(1)).collect()
    }

    /// The rate follows the present one slowly, so that the time left does not jump. Reports come more seldom than
    /// drawings: only after a second is nothing new taken for a halt.
    fn measure(&mut self, now: Duration) {
        let passed = u64::try_from(now.saturating_sub(self.last.1).as_millis()).unwrap_or(u64::MAX);
        let news = self.done.saturating_sub(self.last.0).saturating_mul(1000);
        if news == 0 && passed < 1000 {
            return;
        }
        let Some(present) = news.checked_div(passed) else { return };
        self.rate = if self.rate == 0 { present } else { self.rate - self.rate / 64 + present / 64 };
        self.last = (self.done, now);
    }
}

/// A number of seconds in one unit; the change to the next smaller one is at one and a half.
fn remaining(seconds: u64) -> String {
    match seconds {
        0..90 => format!("{seconds}s"),
        90..5400 => format!("{}m", (seconds + 30) / 60),
        _ => format!("{}h", (seconds + 1800) / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_bar_says_how_much_and_how_long() {
        let mut line = Line { title: "Converting".into(), total: 4 << 30, ..Line::default() };
        assert_eq!(line.text(1, seconds(1), 80), format!("Converting {} 0 bytes/4.0 GiB ", "░".repeat(30)));
        line.done = 1 << 30;
        let bar = "█".repeat(7) + &"░".repeat(23);
        assert_eq!(line.text(2, seconds(11), 80), format!("Converting {bar} 1.0 GiB/4.0 GiB 30s"));
        assert_eq!(line.text(3, seconds(11), 21).chars().count(), 20, "cut to the terminal");
        line.done = 5 << 30; // the total was a guess
        assert!(line.text(4, seconds(12), 80).ends_with("4.0 GiB/4.0 GiB 0s"));
    }

    #[test]
    fn the_rate_follows_slowly() {
        let mut line = Line { total: 1 << 40, ..Line::default() };
        for second in 1..=10 {
            line.done += 64 << 20;
            line.measure(seconds(second));
        }
        assert_eq!(line.rate, 64 << 20);
        line.measure(seconds(11));
        assert_eq!(line.rate, 63 << 20, "a halt of a second");
    }

    #[test]
    fn a_spinner_turns() {
        let mut line = Line { title: "Reading".into(), ..Line::default() };
        assert_eq!(line.text(0, seconds(0), 80), "⠁ Reading");
        assert_eq!(line.text(3, seconds(0), 80), "⠙ Reading");
    }

    #[test]
    fn times_are_round() {
        let texts = [0, 59, 89, 90, 5399, 5400, 90_000].map(remaining);
        assert_eq!(texts, ["0s", "59s", "89s", "2m", "90m", "2h", "25h"]);
    }

    #[test]
    fn it_can_be_dropped_at_any_time() {
        drop(Progress::hidden());
        let bar = Progress::start("Test".into(), 10);
        bar.set(3);
        bar.message("other");
        drop(bar);
    }
}
