//! Groups of options that several commands share.
//!
//! The groups are plain values: a document (see [`document`](super::document)) fills the same ones.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValue;

use super::bitlocker_args::BitLockerArgs;
use super::boot_args::BootArgs;
use super::environment;
use super::extras::ExtrasArgs;
use super::first_boot::FirstBootArgs;
use super::machine_args::MachineArgs;
use super::network_args::NetworkArgs;
use super::numbers::{parse_partition, parse_requests, parse_threads};
use super::progress;
use super::repair_args::RepairArgs;
use super::signals;
use super::words::{named, words};
use crate::block::{Format, OpenOptions, PathPolicy};
use crate::drivers::SignatureLevel;
use crate::error::{Error, Kind, Layer};
use crate::host::is_nbd_name;
use crate::job::StateOverrides;
use crate::nbd::NbdOptions;
use crate::ntfs::Replay;
use crate::windows::Registration;

// How the image is read; the same for every command that takes one
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct ImageArgs {
    /// Read the image as this format (raw, qcow2, vmdk, vhd, vhdx or vdi) instead of detecting it by content
    #[arg(short = 'f', long, value_name = "FORMAT", value_parser = words(parse_format, formats),
        hide_possible_values = true)]
    pub format: Option<Format>,

    /// Let the image refer to this file, or to the files below this folder (backing files, extents); by default only
    /// to files in its own folder; repeatable. With --in-place the data file of a qcow2 has to be named itself. An NBD
    /// URI: let it have this export as its backing file
    #[arg(long, value_name = "PATH")]
    pub allow_path: Vec<PathBuf>,

    /// Use this disk of an OVA that holds several; NAME is its file name in the OVA
    #[arg(long, value_name = "NAME")]
    pub disk: Option<String>,

    /// Keep this many reads of 2 MiB in flight when an NBD export is read from one end to the other [default: 8]
    #[arg(long, value_name = "N", value_parser = parse_requests)]
    pub nbd_requests: Option<usize>,
}

impl ImageArgs {
    /// The files that the image may refer to, for every job that opens it.
    #[must_use]
    pub fn path_policy(&self) -> PathPolicy {
        self.allow_path.iter().fold(PathPolicy::default(), |policy, folder| policy.allow(folder))
    }

    /// How NBD exports are read, and where journals of their edits are.
    #[must_use]
    pub fn nbd_options(&self) -> NbdOptions {
        let default = NbdOptions::default();
        NbdOptions {
            requests: self.nbd_requests.unwrap_or(default.requests),
            cancel: signals::cancel(),
            journals: environment::journal_folder(),
            status: progress::connection_status(),
            ..default
        }
    }

    /// How the image is opened, for every job that reads it.
    #[must_use]
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            format: self.format,
            path_policy: self.path_policy(),
            disk: self.disk.clone(),
            nbd: self.nbd_options(),
            ..OpenOptions::default()
        }
    }
}

// An image that is only read
#[derive(Debug, clap::Args)]
pub struct QuestionArgs {
    /// Disk image: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI; a file, a block device or an NBD URI
    pub image: PathBuf,

    #[command(flatten)]
    pub source: ImageArgs,
}

// The disk to work on, for commands that take several
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct ChosenDiskArgs {
    /// Use the Windows on this disk, when several of the disks hold one
    #[arg(long, value_name = "IMAGE")]
    pub windows_disk: Option<PathBuf>,
}

/// The first disk that is named, and the others.
pub fn split_disks(disks: impl IntoIterator<Item = PathBuf>) -> (PathBuf, Vec<PathBuf>) {
    let mut disks = disks.into_iter();
    (disks.next().unwrap_or_default(), disks.collect())
}

// The Windows to work on
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct PartitionArgs {
    /// Use the Windows in the partition of this number, counted as Linux does (0: the image is a volume without a
    /// partition table)
    #[arg(long, value_name = "NUMBER", value_parser = parse_partition)]
    pub partition: Option<u32>,
}

// Driver definitions
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct DefinitionArgs {
    /// Merge the driver definitions in this YAML file over the built-in ones
    #[arg(long, value_name = "FILE", visible_alias = "virtio-config")]
    pub definitions: Option<PathBuf>,
}

// How the guest is changed: the same for `inject`, `convert --drivers` and a document
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct GuestArgs {
    #[command(flatten)]
    pub definitions: DefinitionArgs,

    #[command(flatten)]
    pub windows: PartitionArgs,

    #[command(flatten)]
    pub bitlocker: BitLockerArgs,

    /// Write a report: FILE.html is a page, FILE.json is JSON, FILE.md is Markdown and writes FILE.json, too; repeatable
    #[arg(long, value_name = "FILE")]
    pub report: Vec<PathBuf>,

    /// Choose how much is written to register a boot driver
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    pub registration: RegistrationArg,

    /// Choose what the signature of a boot driver has to prove
    #[arg(long, value_name = "POLICY", value_enum, default_value_t)]
    pub signature_policy: SignatureArg,

    /// Make the guest trust the publisher of this certificate file (or of the catalogue that it signed, a .cat file), so
    /// that its drivers install without a question; repeatable
    #[arg(long, value_name = "CERT")]
    pub trust_publisher: Vec<PathBuf>,

    #[command(flatten)]
    pub first_boot: FirstBootArgs,

    /// Replace drivers in the guest even if they are newer than the given ones
    #[arg(long)]
    pub force: bool,

    /// Only stage the packages and register no driver, even if the guest then does not boot from virtio
    #[arg(long)]
    pub packages_only: bool,

    #[command(flatten)]
    pub state: StateArgs,

    #[command(flatten)]
    pub network: NetworkArgs,

    #[command(flatten)]
    pub extras: ExtrasArgs,

    #[command(flatten)]
    pub repairs: RepairArgs,

    #[command(flatten)]
    pub check: VolumeCheckArgs,

    #[command(flatten)]
    pub boot: BootArgs,

    #[command(flatten)]
    pub machine: MachineArgs,
}

// Overrides of refusals because of the volume's state
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct OverrideArgs {
    /// Edit a volume although it is marked dirty (Windows wants to check it)
    #[arg(long)]
    pub allow_dirty: bool,

    /// Discard an open NTFS log that cannot be replayed (with --no-replay: any open log), and mark the volume so that
    /// Windows checks it at the next boot; the last changes of the guest are lost, and files may be damaged
    #[arg(long)]
    pub discard_ntfs_log: bool,

    /// Discard a hibernated session and what it had not saved; the NTFS log is replayed
    #[arg(long)]
    pub discard_hibernation: bool,
}

// Overrides, and what is done with an open log
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct StateArgs {
    #[command(flatten)]
    pub overrides: OverrideArgs,

    #[command(flatten)]
    pub replay: ReplayArgs,
}

// What is done with the log of a volume that was not dismounted cleanly
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct ReplayArgs {
    /// Do not replay an NTFS log that is open (the guest crashed, or the image is a snapshot): refuse an edit, and read the
    /// volume as it lies on the disk
    #[arg(long)]
    pub no_replay: bool,
}

impl From<ReplayArgs> for Replay {
    fn from(args: ReplayArgs) -> Self {
        if args.no_replay { Self::Never } else { Self::WhereOpen }
    }
}

impl StateArgs {
    /// The same for the job.
    #[must_use]
    pub fn overrides(self) -> StateOverrides {
        let Self { overrides, replay: ReplayArgs { no_replay } } = self;
        let OverrideArgs { allow_dirty, discard_ntfs_log, discard_hibernation } = overrides;
        StateOverrides { allow_dirty, discard_ntfs_log, discard_hibernation, no_replay }
    }
}

// The check that precedes the first edit
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct VolumeCheckArgs {
    /// Skip the comparison of the volume's bitmaps with its file records before the first edit
    #[arg(long)]
    pub skip_volume_check: bool,
}

// Driver media
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct DriverArgs {
    /// Take drivers from this folder or ISO image; repeatable, the first one is preferred
    #[arg(long, visible_alias = "inject", value_name = "PATH")]
    pub drivers: Vec<PathBuf>,
}

// Worker threads
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct ThreadArgs {
    /// Use this many worker threads [default: as many as are useful]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    pub threads: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RegistrationArg {
    /// The minimum that is needed to boot
    #[default]
    Minimal,
    /// Everything that Windows itself would write
    Full,
}

impl From<RegistrationArg> for Registration {
    fn from(form: RegistrationArg) -> Self {
        match form {
            RegistrationArg::Minimal => Self::Minimal,
            RegistrationArg::Full => Self::Full,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SignatureArg {
    /// It exists, can be read, and matches the file
    #[default]
    Require,
    /// It exists; whether it matches the file is not checked
    Present,
    /// Nothing: a missing or wrong one is only a warning
    Warn,
}

impl From<SignatureArg> for SignatureLevel {
    fn from(policy: SignatureArg) -> Self {
        match policy {
            SignatureArg::Require => Self::Require,
            SignatureArg::Present => Self::Present,
            SignatureArg::Warn => Self::Warn,
        }
    }
}

/// Refuses `--nbd-requests` where none of the names that were given is an NBD export.
///
/// # Errors
/// [`Kind::Usage`].
pub fn refuse_needless_requests<'a>(
    requests: Option<usize>,
    mut names: impl Iterator<Item = &'a Path>,
) -> crate::Result<()> {
    if requests.is_none() || names.any(is_nbd_name) {
        return Ok(());
    }
    let message = "--nbd-requests (`nbd_requests`) has no effect: no NBD export is named";
    Err(Error::new(Kind::Usage, Layer::Cli, message).hint("leave it out: it is for images such as nbd://HOST/EXPORT"))
}

/// The names of the container formats that are read.
const FORMATS: [&str; 6] = ["raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi"];

fn formats() -> Vec<PossibleValue> {
    // qemu-img calls it vpc.
    let with_alias = |value: PossibleValue| if value.matches("vhd", false) { value.alias("vpc") } else { value };
    named(&FORMATS).into_iter().map(with_alias).collect()
}

/// Parses the name of a container format, in upper or lower case.
///
/// # Errors
/// The names that are known, when it is another one.
pub fn parse_format(name: &str) -> Result<Format, String> {
    let format = Format::from_name(&name.to_ascii_lowercase());
    format.ok_or_else(|| format!("use one of {}", FORMATS.join(", ")))
}
