//! How far a command is, on the error output: a bar, plain lines, or JSON lines.

mod bar;
mod lines;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::ValueEnum;

pub use lines::ProgressLine;

use bar::Bar;
use lines::{Lines, Moment};

use crate::nbd::StatusHook;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ProgressMode {
    /// A bar if standard error is a terminal, else plain lines; nothing with --quiet
    #[default]
    Auto,
    /// A bar with bytes, rate, per cent and remaining time, once a second has passed
    Bar,
    /// A line for each phase, and every few seconds of a long one; nothing for short commands
    Plain,
    /// A JSON line for each phase and each second, and one when a phase ends
    Json,
    /// Nothing
    None,
}

/// What a connection waits for at the moment, shown with the title of the phase. A process runs one command.
static WAITING: Mutex<Option<String>> = Mutex::new(None);

/// Notes for all progress of the process what a connection to an NBD server waits for.
pub(super) fn connection_status() -> StatusHook {
    StatusHook::new(|status| {
        *WAITING.lock().unwrap_or_else(PoisonError::into_inner) = status.map(str::to_owned);
    })
}

/// The title of a phase, with what a connection waits for.
fn with_waiting(title: &str) -> String {
    match &*WAITING.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(waiting) => format!("{title} ({waiting})"),
        None => title.to_owned(),
    }
}

/// A command that takes no longer shows no progress to people.
const APPEARS_AFTER: Duration = Duration::from_secs(1);
/// Time between two drawings of a bar.
const BAR_TICK: Duration = Duration::from_millis(120);
/// Time between two looks at whether a line is due.
const LINE_TICK: Duration = Duration::from_millis(250);

/// The progress of a command until it is dropped; a bar vanishes then.
///
/// What is said of it (a phase, a number of bytes) is only noted. A thread of its own shows it from time to time, so that
/// a job is not slowed down.
#[derive(Debug)]
pub struct Progress {
    /// `None`: nothing is shown.
    shared: Option<Arc<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the thread: a phase has begun or ended, or the command is done. Wakes who waits for a free terminal, too.
    changed: Condvar,
    /// Whether phases are not told when they begin and end, only looked at from time to time.
    is_brief: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Phases that have begun or ended and were not shown yet, each as it was then.
    events: Vec<Event>,
    phase: Option<Phase>,
    is_done: bool,
    /// Whether the thread has nothing on the terminal and nothing to print.
    is_clear: bool,
}

#[derive(Debug, Clone)]
struct Phase {
    name: String,
    title: String,
    begun: Instant,
    /// Bytes that were done when they were first reported: work of an earlier phase, which counts for no rate.
    first: Option<u64>,
    done: u64,
    total: u64,
}

#[derive(Debug)]
enum Event {
    Begun(Phase),
    Ended(Phase, Instant),
}

/// Who shows it.
enum Shown {
    Bar(Bar),
    Lines(Lines),
}

impl Progress {
    /// Progress that is not shown.
    pub(super) fn hidden() -> Self {
        Self { shared: None, thread: None }
    }

    /// Begins to show progress; `Auto` shows nothing. A worker tells less, see [`Lines::brief_json`].
    pub(super) fn start(mode: ProgressMode, is_worker: bool) -> Self {
        let (shown, tick) = match mode {
            ProgressMode::Auto | ProgressMode::None => return Self::hidden(),
            ProgressMode::Bar => (Shown::Bar(Bar::default()), BAR_TICK),
            ProgressMode::Plain => (Shown::Lines(Lines::plain()), LINE_TICK),
            ProgressMode::Json if is_worker => (Shown::Lines(Lines::brief_json()), LINE_TICK),
            ProgressMode::Json => (Shown::Lines(Lines::json()), LINE_TICK),
        };
        let shared = Arc::new(Shared::new(is_worker));
        let begun = Instant::now();
        let of_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("progress".to_owned()).spawn(move || of_thread.show(shown, begun, tick));
        // Without a thread the progress stays hidden; the job is done all the same.
        thread.map_or_else(|_| Self::hidden(), |thread| Self { shared: Some(shared), thread: Some(thread) })
    }

    /// Whether anything is shown: what is only counted for it can be left out else.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.shared.is_some()
    }

    /// A phase begins, and the one before ends: its name for programs, and what people read, which may hold strings of an
    /// image.
    pub fn phase(&self, name: &str, title: &str) {
        let Some(shared) = &self.shared else { return };
        let now = Instant::now();
        let phase =
            Phase { name: name.to_owned(), title: title.to_owned(), begun: now, first: None, done: 0, total: 0 };
        let mut state = shared.lock();
        if shared.is_brief {
            state.phase = Some(phase);
            return;
        }
        state.end_phase(now);
        state.events.push(Event::Begun(phase.clone()));
        state.phase = Some(phase);
        state.is_clear = false;
        shared.changed.notify_all();
    }

    /// Ends the phase, and waits until nothing of it is on the terminal; the next phase shows progress again.
    pub fn pause(&self) {
        let Some(shared) = &self.shared else { return };
        let mut state = shared.lock();
        state.end_phase(Instant::now());
        shared.changed.notify_all();
        while !state.is_clear && self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            state = shared.changed.wait_timeout(state, BAR_TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// So many bytes of the phase are done; a `total` of 0 is not known.
    pub fn set(&self, done: u64, total: u64) {
        let Some(shared) = &self.shared else { return };
        if let Some(phase) = &mut shared.lock().phase {
            phase.first.get_or_insert(done);
            (phase.done, phase.total) = (done, total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            let mut state = shared.lock();
            if shared.is_brief {
                state.phase = None;
            }
            state.end_phase(Instant::now());
            state.is_done = true;
            shared.changed.notify_all();
        }
        // The bar is gone, and the last line is written, before anything else is printed.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn end_phase(&mut self, now: Instant) {
        if let Some(phase) = self.phase.take() {
            self.is_clear = false;
            self.events.push(Event::Ended(phase, now));
        }
    }
}

impl Phase {
    fn moment(&self, job_begun: Instant, now: Instant) -> Moment<'_> {
        Moment {
            name: &self.name,
            title: &self.title,
            done: self.done,
            first: self.first.unwrap_or(0),
            total: self.total,
            phase_time: now.saturating_duration_since(self.begun),
            job_time: now.saturating_duration_since(job_begun),
        }
    }
}

impl Shared {
    fn new(is_brief: bool) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), is_brief }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows all that is noted, until the command is done.
    fn show(&self, mut shown: Shown, begun: Instant, tick: Duration) {
        loop {
            let (events, phase, is_done) = {
                let state = self.lock();
                let is_idle = state.events.is_empty() && !state.is_done;
                let mut state = match is_idle {
                    true => self.changed.wait_timeout(state, tick).unwrap_or_else(PoisonError::into_inner).0,
                    false => state,
                };
                let mut phase = state.phase.clone();
                if let Some(phase) = &mut phase {
                    phase.title = with_waiting(&phase.title);
                }
                (std::mem::take(&mut state.events), phase, state.is_done)
            };
            let now = Instant::now();
            let is_due = now.saturating_duration_since(begun) >= APPEARS_AFTER;
            match &mut shown {
                Shown::Bar(bar) => match phase {
                    Some(phase) if is_due => bar.draw(&phase.moment(begun, now)),
                    Some(_) => {}
                    None => bar.clear(),
                },
                Shown::Lines(lines) => {
                    for event in &events {
                        match event {
                            Event::Begun(phase) => lines.begin(&phase.moment(begun, phase.begun)),
                            Event::Ended(phase, at) => lines.end(&phase.moment(begun, *at)),
                        }
                    }
                    if let Some(phase) = phase {
                        lines.go_on(&phase.moment(begun, now));
                    }
                }
            }
            if is_done {
                return;
            }
            let mut state = self.lock();
            if state.phase.is_none() && state.events.is_empty() {
                state.is_clear = true;
                self.changed.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_that_is_not_shown_takes_everything() {
        for progress in
            [Progress::hidden(), Progress::start(ProgressMode::None, false), Progress::start(ProgressMode::Auto, true)]
        {
            progress.phase("open", "Opening the image");
            progress.set(1, 2);
            assert!(progress.thread.is_none());
        }
    }

    #[test]
    fn the_title_says_what_a_connection_waits_for() {
        // The hook changes the titles of the whole process: this test alone uses it.
        let tell = |text: Option<&str>| *WAITING.lock().unwrap() = text.map(str::to_owned);
        tell(Some("connecting again"));
        assert_eq!(with_waiting("Copying"), "Copying (connecting again)");
        tell(None);
        assert_eq!(with_waiting("Copying"), "Copying");
    }

    #[test]
    fn a_phase_ends_when_the_next_begins() {
        let shared = Arc::new(Shared::new(false));
        let progress = Progress { shared: Some(Arc::clone(&shared)), thread: None };
        progress.phase("open", "Opening the image");
        progress.phase("copy", "Copying");
        progress.set(7, 10);
        progress.set(9, 10);
        drop(progress);
        let state = shared.lock();
        let told: Vec<(&str, bool, u64, Option<u64>)> = state
            .events
            .iter()
            .map(|event| match event {
                Event::Begun(phase) => (phase.name.as_str(), true, phase.done, phase.first),
                Event::Ended(phase, _) => (phase.name.as_str(), false, phase.done, phase.first),
            })
            .collect();
        let expected =
            [("open", true, 0, None), ("open", false, 0, None), ("copy", true, 0, None), ("copy", false, 9, Some(7))];
        assert_eq!(told, expected);
        assert!(state.is_done && state.phase.is_none());
    }
}
