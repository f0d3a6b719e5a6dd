//! Two programs want the same image: the second is refused, and nothing is changed by it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use winject::internals::block::commit::journal_path;

use crate::row::{Row, Side, Supply, Worker};
use crate::rows::HELD;
use crate::scene::{End, Scene, Stage, words};

/// How long a program may take to open an image.
const WAIT: Duration = Duration::from_secs(20);
/// How long winject is held in the middle of its commit, in microseconds.
const PAUSE: &str = "1500000";
/// System calls by which a commit ends.
const ENDS: &str = "unlink,rename,renameat2";

/// The byte of a file that QEMU locks when it writes to it.
const WRITER_BYTE: u64 = 101;

/// A program of QEMU that opens images for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Io,
    Nbd,
    System,
}

impl Holder {
    pub const ALL: [Self; 3] = [Self::Io, Self::Nbd, Self::System];

    pub const fn program(self) -> &'static str {
        match self {
            Self::Io => "qemu-io",
            Self::Nbd => "qemu-nbd",
            Self::System => "qemu-system-x86_64",
        }
    }

    pub const fn text(self, is_first: bool) -> &'static str {
        match (self, is_first) {
            (Self::Io, true) => "qemu-io has it open: winject refuses",
            (Self::Nbd, true) => "qemu-nbd has it open: winject refuses",
            (Self::System, true) => "qemu-system has it open: winject refuses",
            (Self::Io, false) => "winject writes: qemu-io is refused",
            (Self::Nbd, false) => "winject writes: qemu-nbd is refused",
            (Self::System, false) => "winject writes: qemu-system is refused",
        }
    }

    fn start(self, image: &Path, format: &str, scratch: &Path) -> Child {
        let mut command = Command::new(self.program());
        match self {
            // It waits for commands on its standard input.
            Self::Io => command.args(["-f", format]).arg(image),
            Self::Nbd => command.args(["-f", format, "-t", "-k"]).arg(scratch.join("socket")).arg(image),
            Self::System => {
                let drive = format!("file={},format={format},if=none,id=disk", image.display());
                command.args(["-S", "-display", "none", "-nodefaults", "-machine", "q35", "-accel", "tcg", "-drive"]);
                command.args([drive.as_str(), "-device", "virtio-blk-pci,drive=disk"])
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

/// One order of two programs at one image.
pub struct Hold {
    pub holder: Holder,
    /// Whether QEMU has the image first.
    pub is_first: bool,
    pub scenes: Vec<Arc<Scene>>,
}

impl Hold {
    fn qemu_first(&self, stage: Stage<'_>, image: &Path, format: &str) -> Result<Side, String> {
        let mut qemu = self.holder.start(image, format, &stage.worker.scratch);
        let held = wait_for_lock(image, &mut qemu);
        let end = stage.run(&[], &stage.scene.arguments);
        qemu.kill().and_then(|()| qemu.wait()).map_err(|error| error.to_string())?;
        held?;
        match end {
            End::Exit(3) => stage.judge(end, false),
            end => Err(format!("winject ends with {end:?} instead of 3")),
        }
    }

    fn winject_first(&self, stage: Stage<'_>, image: &Path, format: &str) -> Result<Side, String> {
        let log = stage.worker.scratch.join("held");
        // It waits before it removes its journal, or makes it the undo record.
        let (trace, delay) = (format!("trace={ENDS}"), format!("inject={ENDS}:delay_enter={PAUSE}:when=1"));
        let around = ["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", &trace, "-e", &delay];
        let (end, refused) = std::thread::scope(|scope| {
            let run = scope.spawn(|| stage.run(&words(&around), &stage.scene.arguments));
            let journal = journal_path(image);
            let begin = Instant::now();
            while !journal.exists() && begin.elapsed() < WAIT && !run.is_finished() {
                std::thread::sleep(Duration::from_millis(2));
            }
            let refused = self.is_refused(image, format, &stage.worker.scratch, || run.is_finished());
            (run.join().unwrap(), refused)
        });
        refused?;
        match end {
            End::Exit(0) => stage.judge(end, false),
            end => Err(format!("winject ends with {end:?}")),
        }
    }

    /// Whether QEMU gives up by itself while winject is at work.
    fn is_refused(&self, image: &Path, format: &str, scratch: &Path, is_over: impl Fn() -> bool) -> Result<(), String> {
        let mut qemu = self.holder.start(image, format, scratch);
        loop {
            if let Some(status) = qemu.try_wait().unwrap() {
                return match status.success() || is_over() {
                    true => Err(format!("{} was not refused", self.holder.program())),
                    false => Ok(()),
                };
            }
            if is_over() {
                let _ = qemu.kill().and_then(|()| qemu.wait());
                return Err(format!("{} was not refused", self.holder.program()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Waits until a process holds the lock on the file by which QEMU says that it writes.
fn wait_for_lock(image: &Path, holder: &mut Child) -> Result<(), String> {
    let inode = format!(":{}", std::fs::metadata(image).unwrap().ino());
    let begin = Instant::now();
    while begin.elapsed() < WAIT {
        if std::fs::read_to_string("/proc/locks").unwrap().lines().any(|line| says_writer(line, &inode)) {
            return Ok(());
        }
        if let Some(status) = holder.try_wait().unwrap() {
            return Err(format!("QEMU does not open the image: {status}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err("QEMU takes no lock".into())
}

/// Whether a line of /proc/locks (`1: OFDLCK ADVISORY READ -1 fd:00:1234 100 101`) covers the byte of that lock.
fn says_writer(line: &str, inode: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| !word.ends_with(inode)).skip(1);
    let (first, last) = (words.next().and_then(|w| w.parse().ok()), words.next().and_then(|w| w.parse().ok()));
    first.zip(last).is_some_and(|(first, last): (u64, u64)| (first..=last).contains(&WRITER_BYTE))
}

impl Row for Hold {
    fn target(&self) -> String {
        HELD.into()
    }

    fn fault(&self) -> &'static str {
        self.holder.text(self.is_first)
    }

    fn supply(&self) -> Supply {
        Supply::Every(self.scenes.len() as u64)
    }

    fn run(&self, number: u64, worker: &Worker) -> Result<Side, String> {
        let scene = &self.scenes[number as usize];
        let stage = Stage::set(scene, worker)?;
        stage.prepare()?;
        let image = worker.folder.join(scene.image);
        let format = if scene.image.ends_with(".qcow2") { "qcow2" } else { "raw" };
        if self.is_first { self.qemu_first(stage, &image, format) } else { self.winject_first(stage, &image, format) }
    }
}
