//! The request for an injection, and the observer of a job.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use super::step::Step;
use crate::block::convert::{Compression, ConvertOptions};
use crate::block::{Format, PathPolicy};
use crate::cancel::Cancel;
use crate::clock::FileTime;
use crate::drivers::Policy;
use crate::nbd::NbdOptions;
use crate::ntfs::{OpenOptions, Replay};
use crate::partition::BitLockerKeys;
use crate::windows::InjectOptions;

/// Where the changed disk is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere: everything is computed and verified, and nothing is written. [`Report::changes`](super::Report::changes)
    /// lists what would be done.
    DryRun,
    /// Into the image itself, with an undo journal in its folder while it is written, which stays as the undo record. If
    /// the run is interrupted (power failure), [`recover`](super::recover()) restores or completes the image, as does the
    /// next run into it. Only for raw and qcow2 images.
    InPlace,
    /// A small new qcow2 file at this path, backed by the image, which stays as it is.
    Overlay(PathBuf),
    /// A whole new image that does not need the original.
    Standalone {
        /// The file to write; it gets this name when it is complete.
        path: PathBuf,
        /// [`Format::Raw`] or [`Format::Qcow2`]; others cannot be written.
        format: Format,
        /// Compression of a qcow2's clusters, and its level on the algorithm's own scale (`None`: its default).
        compression: Option<(Compression, Option<u32>)>,
        /// Whether to compute the SHA-256 of the new file, for [`Run::output_sha256`](super::report::Run::output_sha256).
        checksum: bool,
    },
}

impl Destination {
    /// The file of a new image and how it is written, apart from what the request says.
    pub(super) fn new_image(&self) -> Option<(&Path, ConvertOptions<'static>)> {
        let Self::Standalone { path, format, compression, checksum } = self else { return None };
        let options = ConvertOptions {
            format: *format,
            compression: compression.map(|(kind, _)| kind),
            level: compression.and_then(|(_, level)| level),
            checksum: *checksum,
            ..ConvertOptions::default()
        };
        Some((path, options))
    }

    /// The file that a run writes in addition to the image, changed or not.
    pub(super) fn new_file(&self) -> Option<&Path> {
        match self {
            Self::Overlay(path) | Self::Standalone { path, .. } => Some(path),
            Self::DryRun | Self::InPlace => None,
        }
    }

    /// The destination that is judged before the work begins: itself, or the one that a dry run rehearses.
    pub(super) fn judged<'a>(&'a self, rehearsed: Option<&'a Self>) -> &'a Self {
        rehearsed.filter(|_| *self == Self::DryRun).unwrap_or(self)
    }

    /// Its name in reports: `dry_run`, `in_place`, `overlay` or `standalone`.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        match self {
            Self::DryRun => "dry_run",
            Self::InPlace => "in_place",
            Self::Overlay(_) => "overlay",
            Self::Standalone { .. } => "standalone",
        }
    }
}

/// Overrides of refusals because of the volume's state; all off by default. Each is a decision that only the user can
/// take, because it may lose changes that the guest made last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateOverrides {
    /// Edit a volume whose dirty flag is set; Windows will check it.
    pub allow_dirty: bool,
    /// Discard an NTFS log that is not closed and was not replayed: what it would have repaired stays as it is, and Windows
    /// will check the volume.
    pub discard_ntfs_log: bool,
    /// Discard a hibernated session with what it had not saved.
    pub discard_hibernation: bool,
    /// Refuse a volume whose NTFS log is not closed, where the log is replayed otherwise.
    pub no_replay: bool,
}

impl StateOverrides {
    /// Whether the volume may be marked for a check by Windows afterwards.
    #[must_use]
    pub fn any(self) -> bool {
        self.allow_dirty || self.discard_ntfs_log || self.discard_hibernation
    }

    /// Whether the log of a volume that was not dismounted cleanly is replayed.
    #[must_use]
    pub fn replay(self) -> Replay {
        if self.no_replay { Replay::Never } else { Replay::WhereOpen }
    }

    /// How a volume that is edited is opened.
    pub(super) fn open_options(self, clock: FileTime) -> OpenOptions {
        OpenOptions {
            replay: self.replay(),
            allow_dirty: self.allow_dirty,
            discard_log: self.discard_ntfs_log,
            discard_hibernation: self.discard_hibernation,
            ..OpenOptions::new(clock)
        }
    }
}

/// Request for an injection: which image, which drivers, where the result goes, and every choice.
#[derive(Debug, Clone)]
pub struct InjectRequest {
    /// Path of the disk image.
    pub image: PathBuf,
    /// The other disks of the same virtual machine, in any order. Windows may be on any of them; those without it are only
    /// read, because boot files may lie on them. A job works on the disk with Windows, whichever of the fields names it.
    pub other_disks: Vec<PathBuf>,
    /// The disk with the Windows to work on, one of those above; `None`: the only one that holds a Windows.
    pub windows_disk: Option<PathBuf>,
    /// Container format of all disks; `None` detects it by content.
    pub format: Option<Format>,
    /// Files that the disks may refer to (backing files, extents).
    pub path_policy: PathPolicy,
    /// Which disk of an OVA that holds several, by its file name in the OVA.
    pub disk: Option<String>,
    /// How disks that are NBD exports are read.
    pub nbd: NbdOptions,
    /// Folders and ISO images with drivers, the first one preferred.
    pub drivers: Vec<PathBuf>,
    /// File of driver definitions (YAML) that are merged over the built-in ones.
    pub definitions: Option<PathBuf>,
    /// Files that the caller read to make this request (a document, certificates): an output that is one of them is
    /// refused.
    pub other_inputs: Vec<PathBuf>,
    /// Where the changed disk is written.
    pub destination: Destination,
    /// Of a dry run: where the run would write. What a run refuses about it is refused, too.
    pub rehearsed: Option<Destination>,
    /// Whether an existing output file is replaced; if not, it is an error.
    pub overwrite_output: bool,
    /// Whether an edit in place keeps what it overwrites, so that [`undo`](super::undo()) can take it back.
    pub keep_undo: bool,
    /// Number of the partition with Windows, as Linux counts; needed when there are several installations. 0: the image
    /// is a volume without a partition table.
    pub partition: Option<u32>,
    /// Number of worker threads that write a new image. If given, the job starts no others; `None`: as many as are useful.
    pub threads: Option<usize>,
    /// Bytes of memory that the process may have: stage and caches take their part of it. `None`: what they take by default.
    pub memory: Option<u64>,
    /// Time for everything that is written, so that equal runs write equal bytes.
    pub clock: FileTime,
    /// What opens BitLocker volumes, apart from their clear keys.
    pub bitlocker: BitLockerKeys,
    /// Refusals because of the volume's state that the user has overridden.
    pub state: StateOverrides,
    /// Skip the comparison of the volume's bitmaps with its file records before the first edit. Where a bitmap is wrong,
    /// the edit may then overwrite files of the guest.
    pub skip_volume_check: bool,
    /// Whether that comparison is left out, too, where nothing has to be changed: for a run that comes again over images that
    /// are done, and takes its number of [`threads`](Self::threads).
    pub trusts_unchanged: bool,
    /// What the signature of a boot driver must prove.
    pub policy: Policy,
    /// How drivers are registered and staged in the guest.
    pub options: InjectOptions,
    /// Only stage the packages and register no driver: no error if the guest then does not boot from virtio.
    pub packages_only: bool,
    /// Stops the job when another thread requests it.
    pub cancel: Cancel,
}

impl InjectRequest {
    /// A request with every choice at its default. `clock` dates everything that is written: [`FileTime::now`], or a
    /// fixed time for equal bytes.
    #[must_use]
    pub fn new(image: impl Into<PathBuf>, drivers: Vec<PathBuf>, destination: Destination, clock: FileTime) -> Self {
        Self {
            image: image.into(),
            other_disks: Vec::new(),
            windows_disk: None,
            format: None,
            path_policy: PathPolicy::default(),
            disk: None,
            nbd: NbdOptions::default(),
            drivers,
            definitions: None,
            other_inputs: Vec::new(),
            destination,
            rehearsed: None,
            overwrite_output: false,
            keep_undo: true,
            partition: None,
            threads: None,
            memory: None,
            clock,
            packages_only: false,
            bitlocker: BitLockerKeys::default(),
            state: StateOverrides::default(),
            skip_volume_check: false,
            trusts_unchanged: false,
            policy: Policy::default(),
            options: InjectOptions::default(),
            cancel: Cancel::default(),
        }
    }

    /// The destination that is judged before the work begins: that of the run, or the one that a dry run rehearses.
    pub(super) fn judged_destination(&self) -> &Destination {
        self.destination.judged(self.rehearsed.as_ref())
    }

    /// All disks, in the order of the request.
    pub fn all_disks(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.image).chain(&self.other_disks)
    }
}

/// Callbacks that show the progress of a job, see the example of [`inject`](super::inject()). They are called on the
/// thread that runs the job, and do nothing by default.
pub trait Observer {
    /// A new step begins.
    fn step(&self, _step: Step) {}
    /// Windows was found on one of several disks: this is the image that the job works on.
    fn image(&self, _path: &Path) {}
    /// `done` of `total` bytes of the current step are done; a `total` of 0 is not known. Steps that write an image report
    /// bytes (a new one, an overlay, or the image itself with the journal), those of an undo or a recovery, and the check of a
    /// volume where nothing else runs meanwhile.
    fn progress(&self, _done: u64, _total: u64) {}
}

/// Makes each pass of a work that comes in passes a step of `observer`, with its bytes.
pub(super) fn observe_passes<P: Copy + PartialEq>(
    observer: &dyn Observer,
    step_of: impl Fn(P) -> Step,
) -> impl Fn(P, u64, u64) {
    let current = Cell::new(None);
    move |pass, done, total| {
        if current.replace(Some(pass)) != Some(pass) {
            observer.step(step_of(pass));
        }
        observer.progress(done, total);
    }
}

/// An observer that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
