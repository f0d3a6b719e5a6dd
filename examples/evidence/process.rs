//! The real program, killed before each of its system calls, or with errors in them, or short of file size.

use std::sync::Arc;

use crate::row::{Row, Side, Supply, Worker};
use crate::scene::{Scene, Stage};
use crate::strace::{Point, injecting, points};

/// Of so many states one is also shown to foreign judges before recovery, and to the next run.
const SAMPLE: u64 = 4;

/// What is done to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Kill,
    Io,
    NoSpace,
    Interrupted,
}

impl Fault {
    pub const ALL: [Self; 4] = [Self::Kill, Self::Io, Self::NoSpace, Self::Interrupted];

    /// What strace is told, whether it is done once, and whether it goes on.
    fn injections(self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Kill => &[("signal=KILL", false)],
            Self::Io => &[("error=EIO", false), ("error=EIO", true)],
            Self::NoSpace => &[("error=ENOSPC", false), ("error=ENOSPC", true)],
            // Once: a call that is repeated until it succeeds would never end.
            Self::Interrupted => &[("error=EINTR", false)],
        }
    }

    pub const fn text(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL before each system call",
            Self::Io => "EIO, once or from then on",
            Self::NoSpace => "ENOSPC, once or from then on",
            Self::Interrupted => "EINTR",
        }
    }
}

/// One fault at every system call of a command.
pub struct Process {
    scene: Arc<Scene>,
    fault: Fault,
    points: Vec<Point>,
}

impl Process {
    /// The fault at the system calls that the command made when it was rehearsed.
    pub fn new(scene: &Arc<Scene>, fault: Fault) -> Self {
        Self { scene: Arc::clone(scene), fault, points: points(&scene.calls) }
    }
}

impl Row for Process {
    fn target(&self) -> String {
        self.scene.name.to_owned()
    }

    fn fault(&self) -> &'static str {
        self.fault.text()
    }

    fn supply(&self) -> Supply {
        Supply::Every((self.points.len() * self.fault.injections().len()) as u64)
    }

    fn run(&self, number: u64, worker: &Worker) -> Result<Side, String> {
        let injections = self.fault.injections();
        let kinds = injections.len() as u64;
        let (what, goes_on) = injections[(number % kinds) as usize];
        let point = &self.points[(number / kinds) as usize];
        let stage = Stage::set(&self.scene, worker)?;
        stage.prepare()?;
        let end = stage.run(&injecting(point, what, goes_on), &self.scene.arguments);
        let found = stage.judge(end, number.is_multiple_of(SAMPLE));
        found.map_err(|error| {
            format!("{what} at {} {}{}: {error}", point.call, point.number, if goes_on { "+" } else { "" })
        })
    }
}
