//! Commits to a host in memory, which is stopped at any operation, loses power, or fails.
//!
//! The kinds of image, the host and what a kill or a power cut leaves are those of the crash tests. Each round changes
//! the images elsewhere, so there are as many states as are asked for.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use winject::internals::block::commit::{UndoOptions, journal_path, on};
use winject::internals::block::{Format, Locking, PathPolicy};
use winject::internals::error::Kind;

use crate::crash_case::{Case, IMAGE, content, power_cut, prefix, undo_record};
use crate::made::Random;
use crate::qemu;
use crate::row::{Row, Side, Supply, Worker, seed_of};
use crate::virtual_host::{Fault, Files, Op, VirtualHost};

/// Before recovery, of so many states one is shown to qemu-img.
const SAMPLE: u64 = 16;
/// Random power cuts for each operation of a run.
const CUTS: u64 = 4;

/// What happens to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Stop,
    PowerCut,
    Error,
    LostFlush,
    InRecovery,
}

impl Event {
    pub const ALL: [Self; 5] = [Self::Stop, Self::PowerCut, Self::Error, Self::LostFlush, Self::InRecovery];

    fn text(self) -> &'static str {
        match self {
            Self::Stop => "stop before or inside an operation",
            Self::PowerCut => "power cut, unsynced writes lost or torn",
            Self::Error => "I/O error, once or from then on",
            Self::LostFlush => "failed flush, then power cut",
            Self::InRecovery => "stop, error or power cut inside recovery",
        }
    }
}

/// What is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Commit,
    /// The commit is taken back: the old content is what the commit made.
    Undo,
}

impl Action {
    fn run(self, case: &Case, host: &VirtualHost) -> winject::Result<()> {
        match self {
            Self::Commit => case.commit(host),
            Self::Undo => on::undo(host, Path::new(IMAGE), &UndoOptions::default()).map(drop),
        }
    }
}

/// One state: where the run ends and what else happens.
#[derive(Debug, Clone, Copy)]
struct State {
    /// Number of an operation of the run.
    at: usize,
    /// Tells the variants of the event at this operation apart.
    variant: u64,
}

/// A change of an image, the operations that make it, and the states that they can be left in.
struct Round {
    case: Case,
    log: Vec<Op>,
    states: Vec<State>,
    /// Number of the round's first state.
    first: u64,
}

/// One kind of image.
struct Subject {
    case: Case,
    rounds: Mutex<Vec<Arc<Round>>>,
}

/// A kind of event, on images of one or several kinds.
pub struct Memory {
    target: String,
    action: Action,
    event: Event,
    seed: u64,
    subjects: Vec<Subject>,
    /// What a foreign reader found in files, by their SHA-256.
    judged: Mutex<HashMap<[u8; 32], Result<Side, String>>>,
}

impl Memory {
    /// The event on these kinds of image.
    pub fn new(target: &str, action: Action, event: Event, seed: u64, cases: &[Case]) -> Self {
        let subject = |case: &Case| Subject { case: case.clone(), rounds: Mutex::default() };
        let subjects = cases.iter().map(subject).collect();
        Self { target: target.to_owned(), action, event, seed, subjects, judged: Mutex::default() }
    }

    /// The round in which the state `number` of a kind of image lies.
    fn round(&self, subject: &Subject, number: u64) -> Arc<Round> {
        let mut rounds = subject.rounds.lock().unwrap();
        loop {
            if let Some(last) = rounds.last()
                && number < last.first + last.states.len() as u64
            {
                let index = rounds.partition_point(|round| round.first <= number) - 1;
                return Arc::clone(&rounds[index]);
            }
            let first = rounds.last().map_or(0, |last| last.first + last.states.len() as u64);
            let round = self.make_round(subject, rounds.len() as u64, first);
            rounds.push(Arc::new(round));
        }
    }

    fn make_round(&self, subject: &Subject, number: u64, first: u64) -> Round {
        let case = subject.case.clone();
        let seed = case.seed ^ seed_of(&[self.seed, number]);
        let case = if number == 0 { case } else { case.with_change(seed) };
        let case = if self.action == Action::Undo { case.committed() } else { case };
        let host = VirtualHost::new(case.files.clone(), Fault::Never);
        let done = self.action.run(&case, &host);
        done.unwrap_or_else(|error| panic!("{}: a run without a fault: {error}", case.name));
        let log = host.log();
        let mut states = states(self.event, &log);
        // However few are asked for, they come from all parts of the run.
        let mut random = Random::new(seed);
        for index in (1..states.len()).rev() {
            states.swap(index, random.below(index as u64 + 1) as usize);
        }
        Round { case, log, states, first }
    }

    fn happen(&self, round: &Round, state: State, worker: &Worker, is_sample: bool) -> Result<Side, String> {
        let (case, log) = (&round.case, &round.log);
        let mut random = Random::new(seed_of(&[case.seed, state.at as u64, state.variant]));
        let sampled = |files: Files, may_leak| self.judge(case, files, worker, is_sample, may_leak);
        match self.event {
            Event::Stop => sampled(prefix(case, log, state.at, state.variant == 1), false),
            Event::PowerCut => sampled(power_cut(case, log, state.at, &mut random, 1), false),
            Event::Error => {
                let fault = if state.variant == 0 { Fault::Once(state.at) } else { Fault::From(state.at) };
                let host = VirtualHost::new(case.files.clone(), fault);
                let result = self.action.run(case, &host);
                judge_report(case, &host, &result)?;
                let side = sampled(host.files(), false)?;
                match (&result, side) {
                    (Ok(()), Side::Old) => Err("the run reports success, but the image is old".into()),
                    (Err(error), Side::New) if error.kind() != Kind::Pending => {
                        Err(format!("the run reports {error}, but the image is new"))
                    }
                    _ => Ok(side),
                }
            }
            Event::LostFlush => {
                let host = VirtualHost::new(case.files.clone(), Fault::Once(state.at));
                let _ = self.action.run(case, &host);
                let log = host.log();
                let end = state.at + random.below((log.len() - state.at) as u64 + 1) as usize;
                let (end, chance) = if state.variant == 0 { (log.len(), 0) } else { (end, 1) };
                sampled(power_cut(case, &log, end, &mut random, chance), true)
            }
            Event::InRecovery => {
                let files = interrupted_recovery(case, log, state, &mut random);
                sampled(files, true)
            }
        }
    }

    /// What the files hold, before and after recovery.
    fn judge(
        &self,
        case: &Case,
        files: Files,
        worker: &Worker,
        is_sample: bool,
        may_leak: bool,
    ) -> Result<Side, String> {
        let is_qcow2 = case.format == Format::Qcow2;
        keep(&files, worker);
        let host = VirtualHost::new(files, Fault::Never);
        let mut before = None;
        if is_qcow2 {
            // A qcow2 can be used at every moment, also without a recovery; clusters may be unused.
            before = Some(seen_by_winject(case, &host).map_err(|e| format!("before recovery: {e}"))?);
            if is_sample {
                let foreign = self.foreign(case, &host.files()[Path::new(IMAGE)], worker, true);
                let side = foreign.map_err(|e| format!("before recovery: {e}"))?;
                if Some(side) != before {
                    return Err("before recovery: winject and qemu-img see different disks".into());
                }
            }
        }
        on::recover(&host, Path::new(IMAGE), Locking::Ignore, &PathPolicy::default())
            .map_err(|error| format!("recovery fails: {error}"))?;
        let after = host.files();
        keep(&after, worker);
        let bytes = &after[Path::new(IMAGE)];
        let side = match is_qcow2 {
            true => self.foreign(case, bytes, worker, may_leak)?,
            false => side_of(bytes, case).ok_or_else(|| "neither old nor new".to_owned())?,
        };
        // An undo that has begun is finished.
        if is_qcow2 && before != Some(side) && (self.action, side) != (Action::Undo, Side::New) {
            return Err("recovery changed sides".into());
        }
        let is_old_file = *bytes == case.files[Path::new(IMAGE)];
        if side == Side::Old && case.name != "dirty" && !may_leak && !is_old_file {
            return Err("the old content, but not byte for byte the old file".into());
        }
        self.judge_names(case, &after, side, is_sample).map(|()| side)
    }

    /// No files are left over, and an undo record is there only if it takes the change back.
    fn judge_names(&self, case: &Case, files: &Files, side: Side, is_sample: bool) -> Result<(), String> {
        let (image, record) = (Path::new(IMAGE), undo_record());
        if let Some(extra) = files.keys().find(|path| **path != image && **path != record) {
            return Err(format!("{} is left over", extra.display()));
        }
        let has_record = files.contains_key(&record);
        match (side, self.action) {
            (Side::Old, _) if has_record != case.files.contains_key(&record) => Err("the undo record has gone".into()),
            (Side::New, Action::Undo) if has_record => Err("the undo record is still there".into()),
            (Side::New, Action::Commit) if has_record && !case.keep_undo => {
                Err("an undo record of another edit".into())
            }
            (Side::New, Action::Commit) if has_record && is_sample => {
                let host = VirtualHost::new(files.clone(), Fault::Never);
                Action::Undo.run(case, &host).map_err(|error| format!("the change cannot be undone: {error}"))?;
                match host.files()[image] == case.files[image] {
                    true => Ok(()),
                    false => Err("undo does not give the old file back".into()),
                }
            }
            _ => Ok(()),
        }
    }

    /// What qemu-img says of an image file: it has no faults, and holds the old or the new disk. Equal files are
    /// shown to it once.
    fn foreign(&self, case: &Case, bytes: &[u8], worker: &Worker, may_leak: bool) -> Result<Side, String> {
        let hash = Sha256::new().chain_update(case.seed.to_le_bytes()).chain_update([u8::from(may_leak)]);
        let hash: [u8; 32] = hash.chain_update(bytes).finalize().into();
        if let Some(known) = self.judged.lock().unwrap().get(&hash) {
            return known.clone();
        }
        let path = worker.scratch.join("judged.qcow2");
        std::fs::write(&path, bytes).unwrap();
        // The old state of an image that was not closed cleanly: qemu-img would want to repair it.
        let is_dirty = bytes.get(79).is_some_and(|byte| byte & 1 == 1);
        let checked = if case.name == "dirty" && is_dirty { Ok(()) } else { qemu::check(&path, may_leak) };
        let found = checked.and_then(|()| {
            let disk = qemu::disk(&path, &worker.scratch)?;
            side_of(&disk, case).ok_or_else(|| "qemu-img reads neither the old nor the new disk".to_owned())
        });
        self.judged.lock().unwrap().insert(hash, found.clone());
        found
    }
}

/// All states of one run.
fn states(event: Event, log: &[Op]) -> Vec<State> {
    let all = |variants: u64, ends: std::ops::RangeInclusive<usize>| {
        ends.flat_map(move |at| (0..variants).map(move |variant| State { at, variant }))
    };
    let is_write = |at: usize| at > 0 && matches!(log[at - 1], Op::Write(..));
    let is_flush = |at: usize| matches!(log[at], Op::Flush(_));
    let last = log.len() - 1;
    match event {
        Event::Stop => all(2, 0..=log.len()).filter(|s| s.variant == 0 || is_write(s.at)).collect(),
        Event::PowerCut => all(CUTS, 1..=log.len()).collect(),
        Event::Error => all(2, 0..=last).collect(),
        Event::LostFlush => all(CUTS, 0..=last).filter(|s| is_flush(s.at)).collect(),
        Event::InRecovery => all(8, 1..=last).collect(),
    }
}

/// The process is killed, which loses nothing; the next run recovers, and is interrupted itself.
fn interrupted_recovery(case: &Case, log: &[Op], state: State, random: &mut Random) -> Files {
    let recover = |host: &VirtualHost| {
        let _ = on::recover(host, Path::new(IMAGE), Locking::Ignore, &PathPolicy::default());
    };
    let host = VirtualHost::after(case.files.clone(), &log[..state.at]);
    recover(&host);
    let whole = host.log();
    let at = state.at + random.below((whole.len() - state.at).max(1) as u64) as usize;
    match state.variant {
        0 | 1 => prefix(case, &whole, at, state.variant == 1),
        2..=4 => {
            let at = at - state.at;
            let fault = if state.variant == 2 { Fault::Once(at) } else { Fault::From(at) };
            let host = VirtualHost::new(prefix(case, log, state.at, false), fault);
            recover(&host);
            host.files()
        }
        5 => power_cut(case, &whole, whole.len(), random, 0),
        _ => power_cut(case, &whole, (at + 1).min(whole.len()), random, 1),
    }
}

/// Whether the run's own report of what it left fits.
fn judge_report(case: &Case, host: &VirtualHost, result: &winject::Result<()>) -> Result<(), String> {
    match result {
        Ok(()) if seen_by_winject(case, host)? == Side::Old => Err("the run reports success, but is old".into()),
        Err(error) if error.kind() == Kind::Pending => match host.files().contains_key(&journal_path(Path::new(IMAGE)))
        {
            true => Ok(()),
            false => Err(format!("the run reports {error}, but left no journal")),
        },
        Err(error) if error.kind() != Kind::Io => Err(format!("the wrong kind of error: {error}")),
        _ => Ok(()),
    }
}

fn seen_by_winject(case: &Case, host: &VirtualHost) -> Result<Side, String> {
    let disk = content(host, case.format).map_err(|error| error.to_string())?;
    side_of(&disk, case).ok_or_else(|| "neither old nor new".to_owned())
}

fn side_of(disk: &[u8], case: &Case) -> Option<Side> {
    // A byte compare; a raw file may be longer than its disk.
    if disk == case.old { Some(Side::Old) } else { (disk == case.new).then_some(Side::New) }
}

/// Remembers the files, so that a mixed state can be kept.
fn keep(files: &Files, worker: &Worker) {
    *worker.files.lock().unwrap() = files.clone();
}

impl Row for Memory {
    fn target(&self) -> String {
        self.target.clone()
    }

    fn fault(&self) -> &'static str {
        self.event.text()
    }

    fn supply(&self) -> Supply {
        Supply::Endless
    }

    fn run(&self, number: u64, worker: &Worker) -> Result<Side, String> {
        let kinds = self.subjects.len() as u64;
        let subject = &self.subjects[(number % kinds) as usize];
        let number = number / kinds;
        let round = self.round(subject, number);
        let state = round.states[(number - round.first) as usize];
        let found = self.happen(&round, state, worker, number.is_multiple_of(SAMPLE));
        found.map_err(|why| format!("{}, operation {} of {}: {why}", round.case.name, state.at, round.log.len()))
    }
}
