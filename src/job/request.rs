//! What a caller asks a job to do.

use crate::block::convert::Compression;
use crate::block::{Format, PathPolicy};
use crate::cancel::Cancel;
use crate::clock::FileTime;
use crate::drivers::Policy;
use crate::windows::InjectOptions;
use std::path::PathBuf;

/// Where the changed disk goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere: everything up to the verified outcome is computed, nothing is written.
    DryRun,
    /// Into the image itself, with an undo journal beside it while it is written.
    InPlace,
    /// A small new qcow2 file over the untouched original.
    Overlay(PathBuf),
    /// A whole new image.
    Standalone {
        /// The file.
        path: PathBuf,
        /// Raw or qcow2.
        format: Format,
        /// How the qcow2's clusters are compressed, if they are, and how hard.
        compression: Option<(Compression, Option<u32>)>,
        /// Whether the SHA-256 of the new file is computed.
        checksum: bool,
    },
}

impl Destination {
    /// The word for it in reports.
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
    /// Throw away a hibernated session.
    pub discard_hibernation: bool,
}

impl StateOverrides {
    /// Whether the volume may be marked for a check by Windows afterwards.
    #[must_use]
    pub fn any(self) -> bool {
        self.allow_dirty || self.discard_ntfs_log || self.discard_hibernation
    }
}

/// An injection.
#[derive(Debug, Clone)]
pub struct InjectRequest {
    /// The image.
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
    /// Where the changed disk goes.
    pub destination: Destination,
    /// Replace an output file that is there.
    pub overwrite_output: bool,
    /// The partition of Windows, when there are several installations.
    pub partition: Option<u32>,
    /// Worker threads of a new image. When given, the job starts no others; else as many as it finds useful.
    pub threads: Option<usize>,
    /// The one clock of the run.
    pub clock: FileTime,
    /// Overrides of refusals.
    pub state: StateOverrides,
    /// Leave out the pass over the file records that compares them with the volume's bitmaps before the first edit.
    pub skip_volume_check: bool,
    /// What boot drivers must prove.
    pub policy: Policy,
    /// How the guest is changed.
    pub options: InjectOptions,
    /// Stage the packages and register no driver: whether the guest boots from virtio is not the aim.
    pub packages_only: bool,
    /// Asks the run to stop.
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

/// Told what a job is doing, so that somebody may watch. All methods do nothing by default.
pub trait Observer {
    /// A new step begins.
    fn step(&self, _title: &str) {}
    /// So much of the step is done.
    fn progress(&self, _done: u64, _total: u64) {}
}

/// An observer that does not look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
