//! Commands of the real program on a folder of files, and the judgement of what is left of the files.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use winject::internals::block::commit::{journal_path, undo_path};

use crate::files::{Content, RECORD, content, is_bundle, restore, without_record};
use crate::qemu;
use crate::row::{Side, Worker};
use crate::strace::{self, Call};

/// Stands for the path of the image in a command.
pub const IMAGE: &str = "{image}";
/// The file that holds the guest's data of a qcow2 with a data file.
pub const DATA: &str = "data.bin";
/// The folder of files that a plan needs.
pub const BUNDLE: &str = "plan.files";

/// The words of a command.
pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// How a command changes its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// In place, with a journal next to the image.
    InPlace,
    /// The same on a block device over the image.
    Device,
    /// A new file gets the name of an old one.
    Replace,
}

/// A command on a folder of files.
pub struct Scene {
    pub name: &'static str,
    pub change: Change,
    pub winject: PathBuf,
    /// The file that is changed.
    pub image: &'static str,
    /// A command that is run before the one that is interrupted.
    pub before: Option<Vec<String>>,
    pub arguments: Vec<String>,
    /// Whether the command fails where it has succeeded before: it applies a plan, or takes an edit back.
    pub is_once: bool,
    /// How an interrupted run is recovered.
    pub recovery: Vec<String>,
    /// The files as they are at first.
    pub store: PathBuf,
    old: Content,
    new: Content,
    /// SHA-256 of the disks, as QEMU reads them.
    disks: [String; 2],
    /// The system calls of a run.
    pub calls: Vec<Call>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Killed,
    PowerCut,
    Exit(i32),
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        status.code().map_or(Self::Killed, Self::Exit)
    }
}

/// The files of a scene in a worker's folder, with a loop device over the image if the scene needs one.
pub struct Stage<'a> {
    pub scene: &'a Scene,
    pub worker: &'a Worker,
    device: Option<String>,
}

impl Scene {
    /// Runs the command once, to learn what it does.
    ///
    /// # Errors
    /// When it does not succeed, or what it does is not deterministic.
    pub fn rehearse(mut self, worker: &Worker) -> Result<Self, String> {
        let log = worker.scratch.join("calls");
        let disk = || match self.is_qcow2() {
            true => qemu::disk_sha256(&worker.folder.join(self.image), &worker.scratch),
            false => Ok(String::new()),
        };
        let content_after = |around: Option<&[String]>| {
            let mut stage = Stage::set(&self, worker)?;
            stage.prepare()?;
            around.map_or(Ok(()), |around| stage.succeed(around, &self.arguments))?;
            Ok::<_, String>(stage.content(false))
        };
        let (old, old_disk) = (content_after(None)?, disk()?);
        let (new, new_disk) = (content_after(Some(&strace::recording(&log)))?, disk()?);
        let calls = strace::parse(&std::fs::read_to_string(&log).unwrap())?;
        let disks = [old_disk, new_disk];
        if content_after(Some(&[]))? != new || new == old {
            return Err(format!("{}: two runs of {:?} leave different files, or none", self.name, self.arguments));
        }
        (self.old, self.new, self.disks, self.calls) = (old, new, disks, calls);
        Ok(self)
    }

    /// A scene whose outcome is not known yet.
    pub fn new(name: &'static str, change: Change, image: &'static str, root: &Path, winject: &Path) -> Self {
        let store = root.join(name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-"));
        std::fs::create_dir_all(&store).unwrap();
        Self {
            name,
            change,
            winject: winject.to_owned(),
            image,
            before: None,
            arguments: Vec::new(),
            is_once: false,
            recovery: words(&["recover", "-q", IMAGE]),
            store,
            old: Content::new(),
            new: Content::new(),
            disks: Default::default(),
            calls: Vec::new(),
        }
    }

    fn is_qcow2(&self) -> bool {
        self.change == Change::InPlace && self.image.ends_with(".qcow2")
    }

    /// A qcow2 without a data file is whole at every instant.
    fn is_always_whole(&self) -> bool {
        self.is_qcow2() && !self.old.contains_key(DATA)
    }
}

impl<'a> Stage<'a> {
    /// The files as they are before the command.
    ///
    /// # Errors
    /// When no loop device can be set up.
    pub fn set(scene: &'a Scene, worker: &'a Worker) -> Result<Self, String> {
        restore(&scene.store, &worker.folder);
        let mut stage = Self { scene, worker, device: None };
        if scene.change == Change::Device {
            let image = worker.folder.join(scene.image);
            let output = Command::new("losetup").args(["--show", "-f"]).arg(image).output();
            let output = output.map_err(|error| format!("losetup: {error}"))?;
            if !output.status.success() {
                return Err(format!("losetup: {}", String::from_utf8_lossy(&output.stderr).trim()));
            }
            let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            // Those that an earlier run left are not this one's.
            remove_files_of(&device);
            stage.device = Some(device);
        }
        Ok(stage)
    }

    /// Runs what comes before the command.
    ///
    /// # Errors
    /// What it says.
    pub fn prepare(&self) -> Result<(), String> {
        self.scene.before.as_ref().map_or(Ok(()), |before| self.succeed(&[], before))
    }

    /// Runs the program with these arguments, inside another command.
    pub fn run(&self, around: &[String], arguments: &[String]) -> End {
        let image = self.device.as_deref().unwrap_or(self.scene.image);
        let arguments = arguments.iter().map(|text| if text == IMAGE { image } else { text });
        let mut command = match around.split_first() {
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(&self.scene.winject);
                command
            }
            None => Command::new(&self.scene.winject),
        };
        let said = std::fs::File::create(self.worker.scratch.join("stderr")).unwrap();
        command.args(arguments).current_dir(&self.worker.folder).env("SOURCE_DATE_EPOCH", "1700000000");
        command.env_remove("WINJECT_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let status = command.status().unwrap();
        // A shell or prlimit reports a signal as 128 and its number.
        match (status.signal(), status.code()) {
            (None, Some(code)) if code > 128 => End::Killed,
            _ => status.into(),
        }
    }

    fn succeed(&self, around: &[String], arguments: &[String]) -> Result<(), String> {
        match self.run(around, arguments) {
            End::Exit(0) => Ok(()),
            end => Err(format!("{arguments:?} ends with {end:?}: {}", self.said())),
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.worker.scratch.join("stderr")).unwrap_or_default().replace('\n', " ")
    }

    /// Recovers what an interrupted run left, and tells which side the files are on.
    ///
    /// # Errors
    /// When it is neither, or the run's exit code says something else. `is_sample`: also shown to foreign judges as
    /// it is before recovery, and to the next run.
    pub fn judge(self, end: End, is_sample: bool) -> Result<Side, String> {
        let (scene, worker) = (self.scene, self.worker);
        let said = self.said();
        if is_sample && end != End::Exit(0) && scene.is_always_whole() {
            self.foreign(true).map_err(|error| format!("before recovery: {error}"))?;
        }
        if scene.change != Change::Replace && end != End::Exit(0) {
            self.succeed(&[], &scene.recovery)?;
        }
        let may_leak = end == End::PowerCut;
        let mut rest = self;
        let side = rest.side(matches!(end, End::Killed | End::PowerCut), may_leak)?;
        match (end, side) {
            (End::Exit(0), Side::Old) => Err("the run reports success, but the files are old".into()),
            (End::Exit(code), Side::New) if code > 0 && !scene.may_be_new(code) => {
                Err(format!("the run reports {code}, but the files are new: {said}"))
            }
            _ if is_sample && end != End::Exit(0) && !(scene.is_once && side == Side::New) => {
                rest.run_again().map(|()| side)
            }
            _ => Ok(side),
        }
        .map_err(|error| format!("{error} ({}, {end:?})", worker.folder.display()))
    }

    /// What the files are, by their bytes; where these are neither, by QEMU.
    fn side(&mut self, ignore_partial: bool, may_leak: bool) -> Result<Side, String> {
        let scene = self.scene;
        let found = self.content(ignore_partial);
        // The files of a bundle come first; those that no plan needs yet do no harm.
        if found == scene.old || (without_bundle(&found) == scene.old && is_bundle(&self.worker.folder.join(BUNDLE))) {
            return Ok(Side::Old);
        }
        // A record that cannot be kept is left out, with a warning.
        if found == scene.new || found == without_record(&scene.new) {
            return Ok(Side::New);
        }
        let others = |content: &Content| {
            let mut others = content.clone();
            others.retain(|name, _| name != DATA);
            others.insert(scene.image.to_owned(), String::new());
            others
        };
        let known = [&scene.old, &scene.new, &without_record(&scene.new)];
        if scene.is_qcow2() && known.into_iter().any(|known| others(known) == others(&found)) {
            return self.foreign(may_leak);
        }
        Err(format!("neither old nor new: {found:?}"))
    }

    fn foreign(&self, may_leak: bool) -> Result<Side, String> {
        let image = self.worker.folder.join(self.scene.image);
        qemu::check(&image, may_leak)?;
        let disk = qemu::disk_sha256(&image, &self.worker.scratch)?;
        match self.scene.disks.iter().position(|known| *known == disk) {
            Some(0) => Ok(Side::Old),
            Some(_) => Ok(Side::New),
            None => Err("QEMU reads neither the old nor the new disk".into()),
        }
    }

    /// The same command again brings the files to the new side, and leaves nothing else.
    fn run_again(mut self) -> Result<(), String> {
        if self.scene.change == Change::Device {
            return Ok(());
        }
        self.succeed(&[], &self.scene.arguments).map_err(|error| format!("the next run: {error}"))?;
        self.side(false, true).and_then(|side| match side {
            Side::New => Ok(()),
            Side::Old => Err("after the next run the files are still old".into()),
        })
    }

    fn detach(&mut self) {
        if let Some(device) = self.device.take() {
            let status = Command::new("losetup").args(["-d", &device]).status();
            assert!(status.is_ok_and(|status| status.success()), "cannot detach {device}");
            remove_files_of(&device);
        }
    }

    /// What the folder holds, with the journal and the undo record of a device, which is detached.
    fn content(&mut self, ignore_partial: bool) -> Content {
        let of_device = self.device.as_deref().map(Path::new).map(|device| {
            let files = [(journal_path(device), "a journal"), (undo_path(device), RECORD)];
            files.map(|(path, what)| path.exists().then_some(what))
        });
        self.detach();
        let mut found = content(&self.worker.folder, ignore_partial);
        let of_device = of_device.into_iter().flatten().flatten();
        found.extend(of_device.map(|what| (format!("{what} of the device"), what.to_owned())));
        found
    }
}

fn remove_files_of(device: &str) {
    for path in [journal_path(Path::new(device)), undo_path(Path::new(device))] {
        let _ = std::fs::remove_file(path);
    }
}

fn without_bundle(content: &Content) -> Content {
    let is_outside = |name: &str| Path::new(name).parent() != Some(Path::new(BUNDLE));
    content.iter().filter(|(name, _)| is_outside(name)).map(|(name, hash)| (name.clone(), hash.clone())).collect()
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Scene {
    /// Whether a run that fails with this code may have changed the files all the same: a replaced file whose name could
    /// not be made durable, or a pending run that recovery completed.
    fn may_be_new(&self, code: i32) -> bool {
        match self.change {
            Change::Replace => code == 7,
            _ => code == 9,
        }
    }
}
