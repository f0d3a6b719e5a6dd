//! Runs the workers of a batch: one process an item, several at the same time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::answer::{Answer, read_answer};
use super::conclusion::Conclusion;
use super::item::Item;
use super::outcome::{Outcome, Verdict};
use super::record::{Event, Finished, Progressed, Shard, Started};
use super::results::Results;
use super::schedule::{Next, Schedule};
use super::worker::{self, End, Told};
use crate::clock::FileTime;
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::sync::lock;

/// Time between two looks at whether the batch is to stop.
const TICK: Duration = Duration::from_millis(100);
/// Least time between two progress records of an item.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What a batch does.
#[derive(Debug)]
pub struct Batch {
    /// The program of the workers.
    pub program: PathBuf,
    /// The folder that they run in; `None`: that of this process.
    pub folder: Option<PathBuf>,
    /// Arguments that all workers share, before those of the item.
    pub arguments: Vec<OsString>,
    /// The items of this shard.
    pub items: Vec<Item>,
    /// `inspect`, `check`, `inject` or `convert`.
    pub job: String,
    /// The shard.
    pub shard: Shard,
    /// Number of this run.
    pub attempt: u32,
    /// Whether each item gets a file of its own in the results.
    pub has_results: bool,
    /// How many workers run at the same time at most.
    pub jobs: usize,
    /// Bytes of memory that each worker may have; `None`: no limit.
    pub memory: Option<u64>,
    /// How many items of one device run at the same time at most.
    pub per_device: Option<usize>,
    /// So many failures are allowed; one more stops the batch.
    pub max_failures: Option<u64>,
    /// How long workers have to finish or roll back when the batch is asked to stop.
    pub grace: Duration,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub struct Summary {
    /// What the items say together.
    pub verdict: Verdict,
    /// Number of items by outcome.
    pub counts: BTreeMap<Outcome, u64>,
    /// Why it stopped before all items had their turn.
    pub stopped: Option<String>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What the threads share.
struct Shared<'a> {
    batch: &'a Batch,
    /// How often the batch was asked to stop so far.
    stop_requests: &'a (dyn Fn() -> usize + Sync),
    schedule: Mutex<Schedule>,
    /// An item has ended, or the batch stops.
    changed: Condvar,
    /// No further item begins.
    is_stopped: AtomicBool,
    /// Workers were asked to stop.
    is_stopping: AtomicBool,
    /// The processes that run. One is taken out before it is waited for, so that no other process of its number is meant.
    running: Mutex<BTreeMap<u32, Pid>>,
}

/// An event, and the answer of a worker that has ended.
type Message = (Event, Option<Answer>);

/// Runs all items. `stop_requests` says how often the batch was asked to stop so far: the first time running items are told to
/// stop, and have the time of grace; the second time they are killed. `on_event` gets everything that happens, in this thread.
///
/// # Errors
/// The first of `on_event`; then no further item begins, and those that run are finished.
pub fn run(
    batch: &Batch,
    stop_requests: &(dyn Fn() -> usize + Sync),
    on_event: &mut dyn FnMut(Event, Option<Answer>) -> Result<()>,
) -> Result<Summary> {
    let begun = Instant::now();
    let folder = batch.folder.as_deref().unwrap_or(Path::new(""));
    let weights: Vec<(u64, u64)> = batch.items.iter().map(|item| item.weight(folder)).collect();
    let shared = Shared {
        batch,
        stop_requests,
        schedule: Mutex::new(Schedule::new(weights, batch.per_device)),
        changed: Condvar::new(),
        is_stopped: AtomicBool::new(false),
        is_stopping: AtomicBool::new(false),
        running: Mutex::default(),
    };
    let mut summary = Summary::default();
    let mut failed = None;
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        for number in 0..batch.jobs.min(batch.items.len()) {
            let (sender, shared) = (sender.clone(), &shared);
            let work = move || shared.work(&sender);
            // Fewer threads do the same.
            if let Err(error) = std::thread::Builder::new().name(format!("worker {number}")).spawn_scoped(scope, work)
                && number == 0
            {
                failed = Some(
                    Error::io(Layer::Host, "cannot start a thread", error)
                        .hint("free memory, or raise the limit of processes"),
                );
            }
        }
        drop(sender);
        failed = failed.take().or_else(|| shared.watch(&receiver, &mut summary, on_event).err());
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let is_asked = shared.is_stopping.load(Ordering::SeqCst);
    for number in lock(&shared.schedule).drain() {
        let Some(item) = batch.items.get(number) else { continue };
        let conclusion = Conclusion {
            outcome: Some(Outcome::NotStarted),
            message: summary.stopped.clone().unwrap_or_else(|| "the batch stopped before".to_owned()),
            ..Conclusion::default()
        };
        let finished = Finished { retryable: is_asked, ..shared.finished(item, conclusion) };
        summary.add(&finished);
        on_event(Event::Finished(finished), None)?;
    }
    summary.seconds = seconds(begun);
    Ok(summary)
}

impl Summary {
    fn add(&mut self, finished: &Finished) {
        self.verdict.add(finished.outcome, finished.retryable);
        *self.counts.entry(finished.outcome).or_default() += 1;
    }

    /// Number of items that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.counts.iter().filter(|(outcome, _)| outcome.is_failure()).map(|(_, count)| count).sum()
    }
}

impl Shared<'_> {
    /// Passes on what happens until all workers have ended, and stops them when that is asked for.
    fn watch(
        &self,
        receiver: &Receiver<Message>,
        summary: &mut Summary,
        on_event: &mut dyn FnMut(Event, Option<Answer>) -> Result<()>,
    ) -> Result<()> {
        let mut failed = None;
        let mut deadline = None;
        loop {
            let mut is_over = false;
            match receiver.recv_timeout(TICK) {
                Ok((event, answer)) => {
                    if let Event::Finished(finished) = &event {
                        summary.add(finished);
                    }
                    if failed.is_none()
                        && let Err(error) = on_event(event, answer)
                    {
                        failed = Some(error);
                        self.stop();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => is_over = true,
            }
            if let Some(limit) = self.batch.max_failures
                && summary.failures() > limit
                && summary.stopped.is_none()
            {
                summary.stopped = Some(format!("stopped: more than {limit} failures (--max-failures)"));
                self.stop();
            }
            // After the last item, too: the others may have been left for this reason.
            let requests = (self.stop_requests)();
            if requests > 0 && deadline.is_none() {
                deadline = Instant::now().checked_add(self.batch.grace);
                summary.stopped.get_or_insert_with(|| "stopped: the batch was asked to stop".to_owned());
                self.is_stopping.store(true, Ordering::SeqCst);
                self.stop();
                self.signal_all(Signal::TERM);
            }
            if requests > 1 || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.signal_all(Signal::KILL);
            }
            if is_over {
                return failed.map_or(Ok(()), Err);
            }
        }
    }

    /// No further item begins.
    fn stop(&self) {
        let _schedule = lock(&self.schedule);
        self.is_stopped.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    fn signal_all(&self, signal: Signal) {
        for pid in lock(&self.running).values() {
            // One that has just ended is gone: nothing to tell it.
            let _ = kill_process(*pid, signal);
        }
    }

    /// Works on items until none is left.
    fn work(&self, sender: &Sender<Message>) {
        while let Some((number, device)) = self.next() {
            if let Some(item) = self.batch.items.get(number) {
                // The receiver lives as long as the threads.
                let _ = sender.send(self.run_item(item, sender));
            }
            lock(&self.schedule).finish(device);
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<(usize, u64)> {
        let mut schedule = lock(&self.schedule);
        loop {
            if self.is_stopped.load(Ordering::SeqCst) || (self.stop_requests)() > 0 {
                return None;
            }
            match schedule.take() {
                Next::Item { number, device } => return Some((number, device)),
                Next::Empty => return None,
                Next::Wait => schedule = self.changed.wait(schedule).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Runs the worker of an item to its end.
    fn run_item(&self, item: &Item, sender: &Sender<Message>) -> Message {
        let begun = Instant::now();
        let ran = self.start(item).and_then(|child| {
            let started = Started {
                id: item.id.clone(),
                image: item.image().display().to_string(),
                time: FileTime::now().to_string(),
                attempt: self.batch.attempt,
                pid: child.id(),
            };
            let _ = sender.send((Event::Started(started), None));
            self.follow(child, item, begun, sender)
        });
        let (end, told, answer) = match ran {
            Ok(ended) => ended,
            Err(error) => {
                return (Event::Finished(self.finished(item, not_begun(&error, &self.batch.program))), None);
            }
        };
        let report = told.report.clone();
        let is_stopping = self.is_stopping.load(Ordering::SeqCst);
        let conclusion = worker::conclude(end, told, answer.as_ref(), is_stopping, self.batch.memory);
        let (code, signal) = match end {
            End::Code(code) => (Some(code), None),
            End::Signal(signal) => (None, Some(signal)),
        };
        let path = self.batch.has_results.then(|| Results::item_path(&item.id));
        let finished = Finished {
            code,
            signal,
            seconds: seconds(begun),
            cpu_seconds: report.as_ref().map(|report| report.cpu_seconds),
            memory: report.as_ref().map(|report| report.memory),
            report: path,
            ..self.finished(item, conclusion)
        };
        (Event::Finished(finished), answer)
    }

    /// The record of an item with this conclusion.
    fn finished(&self, item: &Item, conclusion: Conclusion) -> Finished {
        let Conclusion { outcome, reason, message, hint, warnings, bytes_read, bytes_written, output } = conclusion;
        let outcome = outcome.unwrap_or(Outcome::Done);
        Finished {
            id: item.id.clone(),
            image: item.image().display().to_string(),
            job: self.batch.job.clone(),
            time: FileTime::now().to_string(),
            attempt: self.batch.attempt,
            shard: self.batch.shard,
            outcome,
            code: None,
            signal: None,
            retryable: outcome.is_retryable(reason.as_deref()),
            reason,
            message,
            hint,
            seconds: 0.0,
            cpu_seconds: None,
            memory: None,
            bytes_read,
            bytes_written,
            warnings,
            output,
            report: None,
        }
    }

    fn start(&self, item: &Item) -> std::io::Result<Child> {
        let mut command = Command::new(&self.batch.program);
        command.args(&self.batch.arguments).args(&item.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A terminal's signals go to the batch alone, which passes them on.
        command.process_group(0);
        if self.batch.memory.is_some() {
            // A backtrace needs memory, too: without it the message about an allocation that failed waits for itself.
            command.env("RUST_BACKTRACE", "0");
        }
        if let Some(folder) = &self.batch.folder {
            command.current_dir(folder);
        }
        command.spawn()
    }

    /// Takes all that the worker says, until its end.
    fn follow(
        &self,
        mut child: Child,
        item: &Item,
        begun: Instant,
        sender: &Sender<Message>,
    ) -> std::io::Result<(End, Told, Option<Answer>)> {
        let id = child.id();
        if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
            lock(&self.running).insert(id, pid);
            // It may have been started while the others were told.
            if self.is_stopping.load(Ordering::SeqCst) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (told, answer) = std::thread::scope(|scope| {
            let stderr = scope.spawn(|| {
                let mut last = begun;
                let tell = |facts: worker::ProgressFacts| {
                    let now = Instant::now();
                    if now.saturating_duration_since(last) >= PROGRESS_EVERY {
                        last = now;
                        let worker::ProgressFacts { phase, done, total, .. } = facts;
                        let progress = Progressed { id: item.id.clone(), phase, done, total, seconds: seconds(begun) };
                        let _ = sender.send((Event::Progress(progress), None));
                    }
                };
                stderr.map(|stderr| worker::listen(stderr, tell)).unwrap_or_default()
            });
            let answer = stdout.and_then(read_answer);
            (stderr.join().unwrap_or_default(), answer)
        });
        lock(&self.running).remove(&id);
        child.wait().map(|status| (end_of(status), told, answer))
    }
}

/// What became of an item whose worker could not be started.
fn not_begun(error: &std::io::Error, program: &Path) -> Conclusion {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => format!(
            "the program was removed or replaced while the batch ran: install {} again, and run the same command again",
            program.display()
        ),
        _ => "free memory, or raise the limit of processes".to_owned(),
    };
    Conclusion {
        outcome: Some(Outcome::Failed),
        reason: Some(ErrorCode::Io.name().to_owned()),
        message: format!("cannot start the worker: {error}"),
        hint: Some(hint),
        ..Conclusion::default()
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Code(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, signal) => End::Signal(signal.unwrap_or(0)),
    }
}

/// To the millisecond.
fn seconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_item_begins_after_a_request_to_stop() {
        let item = Item { id: "a".into(), disks: vec!["a".into()], arguments: Vec::new() };
        let batch = Batch {
            program: "/bin/true".into(),
            folder: None,
            arguments: Vec::new(),
            items: vec![item],
            job: "inspect".into(),
            shard: Shard::default(),
            attempt: 1,
            has_results: false,
            jobs: 1,
            memory: None,
            per_device: None,
            max_failures: None,
            grace: Duration::from_secs(1),
        };
        let mut events = Vec::new();
        let summary = run(&batch, &|| 1, &mut |event, _| {
            events.push(event);
            Ok(())
        });
        let [Event::Finished(finished)] = events.as_slice() else { panic!("{events:?}") };
        assert!(finished.outcome == Outcome::NotStarted && finished.retryable, "{finished:?}");
        assert!(summary.unwrap().stopped.is_some());
    }
}
