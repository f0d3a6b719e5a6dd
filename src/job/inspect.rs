//! Inspects a disk: its partitions, Windows installations and their state.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::bitlocker_start::BitLockerStart;
use super::choose_disk::{check_set, none_has_windows};
use super::disks::options_among;
use super::explain::explain;
use super::locate::{self, edit_refusal, locate, no_windows, search};
use super::ntfs_log::VolumeLog;
use crate::block::{self, Image};
use crate::error::{Kind, Result};
use crate::ntfs::Replay;
use crate::partition::{BitLockerKeys, PartitionTable};
use crate::windows::{Guest, RecoveryEnvironment, WantedDriver, find_recovery_of};

/// What [`inspect`] found on a disk.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Inspection {
    /// Path of the image file.
    pub image: String,
    /// Container format of the image, in qemu-img's terms: `qcow2`, `vmdk` …
    pub format: String,
    /// Size of the guest's disk in bytes.
    pub size: u64,
    /// The partition table and what each partition holds.
    pub disk: PartitionTable,
    /// The Windows installations, in the order of the partition table.
    pub windows: Vec<Found>,
    /// Volumes that could not be read, and those that are refused by their content (BitLocker, Storage Spaces …).
    pub faults: Vec<Fault>,
    /// Bytes read from the image's files.
    pub bytes_read: u64,
    /// Why it has no Windows, in the words of every job; `None` if it has one.
    #[serde(skip)]
    no_windows: Option<crate::Error>,
}

/// A Windows installation of an inspected disk.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Found {
    /// Number of its partition, as Linux counts; 0 for a volume without a partition table.
    pub partition: u32,
    /// Product, build, folders, control sets and state.
    #[serde(flatten)]
    pub guest: Guest,
    /// What BitLocker does at the first start on another machine; `None` if the volume is not encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitlocker: Option<BitLockerStart>,
    /// The recovery environment, and whether it will see a virtio disk.
    pub recovery: RecoveryEnvironment,
    /// The volume's NTFS log; `None` if it cannot be found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ntfs_log: Option<VolumeLog>,
    /// Why an edit would be refused in the volume's state (dirty, hibernated, a log that cannot be replayed); `None` if it
    /// would not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Fault>,
}

/// Why a volume cannot be read or edited.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Fault {
    /// Number of the partition, as Linux counts; 0 for a volume without a partition table, and for the table itself.
    pub partition: u32,
    /// The error as text, with its place.
    pub message: String,
    /// What the user can do next; `None` where there is nothing to advise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Kind of the error, for programs; not in the JSON form.
    #[serde(skip)]
    pub kind: crate::Kind,
}

impl Inspection {
    /// Has `complete` complete the commands in the texts that can hold one: it knows how the image is opened.
    pub(crate) fn complete_commands(&mut self, complete: &dyn Fn(&str) -> String) {
        let of_guests = self.windows.iter_mut().flat_map(|found| {
            let refusal = found.refusal.as_mut().and_then(|refusal| refusal.hint.as_mut());
            refusal.into_iter().chain(&mut found.guest.warnings)
        });
        let of_volumes = self.faults.iter_mut().filter_map(|fault| fault.hint.as_mut());
        let texts = of_guests.chain(of_volumes).chain(&mut self.disk.warnings);
        texts.for_each(|text| *text = complete(text));
    }
}

impl Fault {
    fn new(partition: u32, error: &crate::Error) -> Self {
        Self { partition, message: error.to_string(), hint: error.hint_text().map(str::to_owned), kind: error.kind() }
    }
}

/// Finds the partitions and Windows installations of a disk, and whether they could be edited. Writes nothing. BitLocker
/// volumes are opened that have a clear key.
///
/// ```no_run
/// let found = winject::inspect("guest.vmdk".as_ref(), &winject::ImageOptions::default())?;
/// for windows in &found.windows {
///     println!("partition {}: {}", windows.partition, windows.guest);
/// }
/// # Ok::<(), winject::Error>(())
/// ```
///
/// # Errors
/// When the image cannot be opened, or has no partition table that winject knows. Faults of a single volume are part of
/// the answer.
pub fn inspect(path: &Path, options: &block::OpenOptions) -> Result<Inspection> {
    inspect_image(path, options, &BitLockerKeys::default(), Replay::default(), true).map_err(explain)
}

/// Like [`inspect`], for the disks of one machine and with keys for their BitLocker volumes. That one of several has no
/// partitions, or a damaged partition table, is a fault in the answer, with partition 0.
///
/// # Errors
/// When a disk cannot be opened or read; [`Kind::Usage`](crate::Kind::Usage) when one is named twice.
pub fn inspect_disks(
    paths: &[PathBuf],
    options: &block::OpenOptions,
    keys: &BitLockerKeys,
    replay: Replay,
) -> Result<Vec<Inspection>> {
    let disks: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let inspect = || -> Result<Vec<Inspection>> {
        check_set(&disks, options.disk.as_deref())?;
        let inspect =
            |path: &&Path| inspect_image(path, &options_among(options, path, &disks), keys, replay, disks.len() <= 1);
        disks.iter().map(inspect).collect()
    };
    inspect().map_err(explain)
}

/// Inspects a disk; of one of several, a partition table that cannot be read is a fault in the answer.
fn inspect_image(
    path: &Path,
    options: &block::OpenOptions,
    keys: &BitLockerKeys,
    replay: Replay,
    is_only: bool,
) -> Result<Inspection> {
    let image = block::open(path, options)?;
    match keys.read_partitions(&*image) {
        Err(error) if !is_only && matches!(error.kind(), Kind::Unsupported | Kind::Damaged) => {
            let fault = Fault::new(0, &error);
            let table = PartitionTable::empty();
            let no_windows = Some(error);
            Ok(Inspection { faults: vec![fault], no_windows, ..inspect_table(path, &*image, table) })
        }
        table => {
            let table = table.map_err(|error| error.path(path.display().to_string()))?;
            Ok(inspect_table(path, &*image, table.with_replay(replay)))
        }
    }
}

fn inspect_table(path: &Path, disk: &dyn Image, mut table: PartitionTable) -> Inspection {
    table.warnings.extend(block::use_notes(disk));
    let wanted = WantedDriver::known();
    // Everything that is asked of the open volume.
    let mut installations = search(&disk, &table, |partition, volume| {
        let Some((installation, _)) = locate::inspect(partition, volume)? else { return Ok(None) };
        let folder = &installation.guest.windows_dir;
        let recovery = find_recovery_of(volume, &disk, &table, partition, folder, &wanted);
        Ok(Some((installation, recovery)))
    });
    let faults = installations.faults.iter().map(|(partition, error)| Fault::new(partition.number, error)).collect();
    let windows = installations.found.drain(..).map(|(installation, recovery)| Found {
        recovery,
        partition: installation.partition.number,
        refusal: edit_refusal(disk, &installation.partition)
            .map(|error| Fault::new(installation.partition.number, &error)),
        bitlocker: installation.partition.bitlocker.as_ref().and_then(BitLockerStart::of),
        ntfs_log: VolumeLog::read(&disk, &installation.partition, false).ok(),
        guest: installation.guest,
    });
    let windows: Vec<Found> = windows.collect();
    Inspection {
        image: path.display().to_string(),
        format: disk.format().to_string(),
        size: Image::len(disk),
        no_windows: windows.is_empty().then(|| no_windows(installations)),
        windows,
        faults,
        disk: table,
        bytes_read: disk.bytes_read(),
    }
}

/// Why none of these disks has a Windows, as every other job says it; `None` if one has.
#[must_use]
pub fn no_windows_in(inspections: Vec<Inspection>) -> Option<crate::Error> {
    let mut reasons = Vec::with_capacity(inspections.len());
    let is_one = inspections.len() == 1;
    for Inspection { image, no_windows, .. } in inspections {
        let reason = no_windows?;
        reasons.push(if is_one { reason.path(image) } else { reason.within(image) });
    }
    let error = if is_one { reasons.pop()? } else { none_has_windows(reasons) };
    Some(explain(error))
}

/// Inspects the only Windows in an image, or the one in the partition of this number. Writes nothing.
///
/// # Errors
/// When the image cannot be opened or read, or holds no Windows or several and none was chosen.
pub fn find_guest(
    path: &Path,
    options: &block::OpenOptions,
    number: Option<u32>,
    keys: &BitLockerKeys,
    replay: Replay,
) -> Result<Guest> {
    let find = || {
        let image = block::open(path, options)?;
        let disk: &dyn Image = &*image;
        let table = keys.read_partitions(disk)?.with_replay(replay);
        Ok(locate(&disk, &table, number)?.0.guest)
    };
    find().map_err(|error: crate::Error| explain(error.path(path.display().to_string())))
}
