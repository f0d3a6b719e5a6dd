//! Requests for jobs, and their observers.

use std::path::PathBuf;

use crate::block::convert::Compression;
use crate::block::{Format, PathPolicy};
use crate::cancel::Cancel;
use crate::clock::FileTime;
use crate::drivers::Policy;
use crate::windows::InjectOptions;

/// Where the changed disk is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere: everything is computed and verified, and nothing is written.
    DryRun,
    /// Into the image itself, with an undo journal in its folder while it is written.
    InPlace,
    /// A small new qcow2 file over the untouched original.
    Overlay(PathBuf),
    /// A whole new image, independent of the original.
    Standalone {
        /// The file to write.
        path: PathBuf,
        /// [`Format::Raw`] or [`Format::Qcow2`]; others cannot be written.
        format: Format,
        /// Compression of the qcow2's clusters, and its level in the algorithm's own scale (default if `None`).
        compression: Option<(Compression, Option<u32>)>,
        /// Whether the SHA-256 of the new file is computed, for [`Run::output_sha256`](super::report::Run::output_sha256).
        checksum: bool,
    },
}

impl Destination {
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

/// Overrides of refusals that concern the volume's state. Each is a decision that only the user can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateOverrides {
    /// Edit a volume whose dirty flag is set.
    pub allow_dirty: bool,
    /// Throw away an unclean NTFS log: what it would have repaired stays as it is, and Windows will check the volume.
    pub discard_ntfs_log: bool,
    /// Throw away a hibernated session; Windows will check the volume.
    pub discard_hibernation: bool,
}

impl StateOverrides {
    /// Whether the volume may be marked for a check by Windows afterwards.
    #[must_use]
    pub fn any(self) -> bool {
        self.allow_dirty || self.discard_ntfs_log || self.discard_hibernation
    }
}

/// Request for an injection: which image, which drivers, where the result goes, and every choice.
#[derive(Debug, Clone)]
pub struct InjectRequest {
    /// Path of the disk image.
    pub image: PathBuf,
    /// The image's container format, if the caller knows better than its content says.
    pub format: Option<Format>,
    /// Which files the image may name (backing files, extents).
    pub path_policy: PathPolicy,
    /// Which disk of an OVA, by its file name in the OVA.
    pub disk: Option<String>,
    /// Folders and ISO images with drivers, the first one preferred.
    pub drivers: Vec<PathBuf>,
    /// Driver definitions (YAML) over the built-in ones.
    pub definitions: Option<PathBuf>,
    /// Files that the caller read for this request (a document, certificates): none of them becomes an output.
    pub other_inputs: Vec<PathBuf>,
    /// Where the changed disk is written.
    pub destination: Destination,
    /// Whether an existing output file is replaced.
    pub overwrite_output: bool,
    /// Number of the partition with Windows, as Linux counts; needed when there are several installations. 0: the image is one
    /// volume.
    pub partition: Option<u32>,
    /// Number of worker threads that write a new image. If given, the job starts no others.
    pub threads: Option<usize>,
    /// Time for everything that is written, so that equal runs write equal bytes.
    pub clock: FileTime,
    /// Overrides of refusals.
    pub state: StateOverrides,
    /// Leave out the pass over the file records that compares them with the volume's bitmaps before the first edit.
    pub skip_volume_check: bool,
    /// What the signature of a boot driver must prove.
    pub policy: Policy,
    /// How drivers are registered and staged in the guest.
    pub options: InjectOptions,
    /// Stage the packages and register no driver; the guest need not boot from virtio afterwards.
    pub packages_only: bool,
    /// Cancels the run from outside.
    pub cancel: Cancel,
}

impl InjectRequest {
    /// A request with every choice at its default.
    #[must_use]
    pub fn new(image: impl Into<PathBuf>, drivers: Vec<PathBuf>, destination: Destination, clock: FileTime) -> Self {
        Self {
            image: image.into(),
            format: None,
            path_policy: PathPolicy::default(),
            disk: None,
            drivers,
            definitions: None,
            other_inputs: Vec::new(),
            destination,
            overwrite_output: false,
            partition: None,
            threads: None,
            clock,
            packages_only: false,
            state: StateOverrides::default(),
            skip_volume_check: false,
            policy: Policy::default(),
            options: InjectOptions::default(),
            cancel: Cancel::default(),
        }
    }
}

/// Callbacks that show the progress of a job. All methods do nothing by default.
pub trait Observer {
    /// A new step begins; `title` is a phrase such as "Looking for Windows".
    fn step(&self, _title: &str) {}
    /// `done` of `total` bytes of the current step are written.
    fn progress(&self, _done: u64, _total: u64) {}
}

/// An observer that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
