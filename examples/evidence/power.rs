//! Power cuts, and faults inside recovery: the system calls that the real program made, as strace recorded them with
//! their data, are replayed in part. What was not synced is lost, or torn.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::files::{apply, restore};
use crate::interruption::{stopped, survivors};
use crate::made::Random;
use crate::row::{Row, Side, Supply, Worker, seed_of};
use crate::scene::{Change, End, Scene, Stage};
use crate::strace::{self, Point};
use crate::virtual_host::Op;

/// States for each recorded operation.
const CUTS: u64 = 6;
/// More threads than this do not work on one row.
const WORKERS_MAX: usize = 64;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    PowerCut,
    /// The run is killed; then recovery is killed, or gets errors.
    InRecovery,
}

/// What a run did in a worker's own folder. Its journal names the files that are there, by their inodes.
struct Recorded {
    /// The files before the run.
    base: PathBuf,
    ops: Vec<Op>,
    /// Where a recovery can be interrupted.
    recovery: Vec<Point>,
}

/// An event at every operation of a command.
pub struct Power {
    scene: Arc<Scene>,
    event: Event,
    seed: u64,
    /// Operations of the run that was rehearsed, and of a recovery.
    counts: (usize, usize),
    recorded: [OnceLock<Result<Recorded, String>>; WORKERS_MAX],
}

impl Power {
    /// The event at the operations of the command.
    ///
    /// # Errors
    /// When the run's system calls cannot be replayed.
    pub fn new(scene: &Arc<Scene>, event: Event, seed: u64, worker: &Worker) -> Result<Self, String> {
        let recorded = record(scene, worker, event)?;
        let counts = (recorded.ops.len(), recorded.recovery.len());
        let recorded = std::array::from_fn(|_| OnceLock::new());
        Ok(Self { scene: Arc::clone(scene), event, seed, counts, recorded })
    }

    pub const fn text(event: Event) -> &'static str {
        match event {
            Event::PowerCut => "power cut, unsynced writes lost or torn",
            Event::InRecovery => "SIGKILL or EIO inside recovery",
        }
    }
}

/// Records the command, and a recovery of it when it was stopped half-way.
fn record(scene: &Scene, worker: &Worker, event: Event) -> Result<Recorded, String> {
    let log = worker.scratch.join("calls");
    let read = || strace::parse(&std::fs::read_to_string(&log).unwrap());
    let stage = Stage::set(scene, worker)?;
    stage.prepare()?;
    let base = base_of(scene, worker)?;
    if stage.run(&strace::recording(&log), &scene.arguments) != End::Exit(0) {
        return Err("the recorded run fails".into());
    }
    let folder = worker.folder.canonicalize().unwrap();
    let ops = strace::ops(&read()?, &folder)?;
    let mut recovery = Vec::new();
    if event == Event::InRecovery {
        let last = ops.iter().rposition(|op| matches!(op, Op::Write(..))).unwrap_or(0);
        replay(&base, worker, &stopped(&ops, last, false));
        if stage.run(&strace::recording(&log), &scene.recovery) != End::Exit(0) {
            return Err("the recorded recovery fails".into());
        }
        recovery = strace::points(&read()?);
    }
    Ok(Recorded { base, ops, recovery })
}

/// A folder with the files as they are before the command; what was prepared differs from worker to worker.
fn base_of(scene: &Scene, worker: &Worker) -> Result<PathBuf, String> {
    if scene.before.is_none() {
        return Ok(scene.store.clone());
    }
    let base = worker.scratch.join("base");
    std::fs::create_dir_all(&base).map_err(|error| error.to_string())?;
    restore(&worker.folder, &base);
    Ok(base)
}

fn replay(base: &Path, worker: &Worker, ops: &[Op]) {
    restore(base, &worker.folder);
    ops.iter().for_each(|op| apply(&worker.folder, op));
}

impl Row for Power {
    fn target(&self) -> String {
        self.scene.name.to_owned()
    }

    fn fault(&self) -> &'static str {
        Self::text(self.event)
    }

    fn supply(&self) -> Supply {
        let (ops, recovery) = (self.counts.0 as u64, self.counts.1 as u64);
        Supply::UpTo(match self.event {
            Event::PowerCut => ops * CUTS,
            Event::InRecovery => ops * recovery * 2,
        })
    }

    fn run(&self, number: u64, worker: &Worker) -> Result<Side, String> {
        let scene = &*self.scene;
        let recorded = self.recorded[worker.index % WORKERS_MAX].get_or_init(|| record(scene, worker, self.event));
        let Recorded { base, ops, recovery } = recorded.as_ref().map_err(Clone::clone)?;
        let mut random = Random::new(seed_of(&[self.seed, number]));
        let stage = Stage::set(scene, worker)?;
        match self.event {
            Event::PowerCut => {
                let end = ((number / CUTS) as usize + 1).min(ops.len());
                // Of the states at one place one is a kill inside a write, which loses nothing else.
                let ops = match number % CUTS {
                    0 => stopped(ops, end, true),
                    1 => survivors(ops, end, &mut random, 0),
                    _ => survivors(ops, end, &mut random, 1),
                };
                replay(base, worker, &ops);
                let found = stage.judge(End::PowerCut, number.is_multiple_of(4));
                found.map_err(|error| format!("power cut after {end} of the operations: {error}"))
            }
            Event::InRecovery => {
                let rest = number as usize / 2;
                let end = (rest / recovery.len() + 1).min(ops.len());
                let point = &recovery[rest % recovery.len()];
                replay(base, worker, &stopped(ops, end, false));
                let what = if number.is_multiple_of(2) { "signal=KILL" } else { "error=EIO" };
                stage.run(&strace::injecting(point, what, false), &scene.recovery);
                let found = stage.judge(End::PowerCut, false);
                found.map_err(|error| format!("stopped after {end}, then {what} at {point:?} of recovery: {error}"))
            }
        }
    }
}

impl Power {
    /// Whether a scene can lose power here: the journal of a device does not survive it, as a warning says.
    pub const fn applies(scene: &Scene) -> bool {
        !matches!(scene.change, Change::Device)
    }
}
