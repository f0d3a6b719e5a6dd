//! Finds the recovery image: where `ReAgent.xml` says, else in the places that Windows uses.

use super::configuration::Configuration;
use super::describe::{RecoveryEnvironment, RecoveryImage, RecoveryState};
use super::drivers::{WantedDriver, drivers_in};
use crate::error::{Error, Kind, Layer, Result};
use crate::io::VolumeRead;
use crate::ntfs::{FileId, OpenOptions, Volume};
use crate::partition::{Content, Disk, Partition, PartitionKind, PartitionTable, PartitionView, read_disk_id};
use crate::units::VolumeOffset;

/// Largest `ReAgent.xml` that is read, in bytes; a real one has about 1 KiB.
const CONFIGURATION_BYTES_MAX: u64 = 1 << 20;
/// Most volumes that are searched for an image.
const VOLUMES_MAX: usize = 32;
/// The image's file.
const IMAGE: &str = "Winre.wim";
/// The folder of the image on a partition of its own.
const FOLDER: &str = "/Recovery/WindowsRE";

type GuestVolume<'d> = Volume<PartitionView<&'d dyn Disk>>;

/// Looks for the recovery environment of the Windows in the folder `windows_dir` of a partition, whose volume `system` is, and which of the drivers
/// its image holds. Read errors become faults in the answer.
#[must_use]
pub fn find_recovery_of<V: VolumeRead>(
    system: &Volume<V>,
    disk: &dyn Disk,
    table: &PartitionTable,
    windows: &Partition,
    windows_dir: &str,
    wanted: &[WantedDriver],
) -> RecoveryEnvironment {
    let mut recovery = RecoveryEnvironment::default();
    if let Err(error) = search(system, disk, table, windows, windows_dir, wanted, &mut recovery) {
        recovery.faults.push(error.to_string());
    }
    recovery
}

/// Like [`find_recovery_of`], and opens the volume of the Windows.
#[must_use]
pub fn find_recovery(
    disk: &dyn Disk,
    table: &PartitionTable,
    windows: &Partition,
    windows_dir: &str,
    wanted: &[WantedDriver],
) -> RecoveryEnvironment {
    match open(disk, windows) {
        Ok(system) => find_recovery_of(&system, disk, table, windows, windows_dir, wanted),
        Err(error) => RecoveryEnvironment { faults: vec![error.to_string()], ..RecoveryEnvironment::default() },
    }
}

fn search<V: VolumeRead>(
    system: &Volume<V>,
    disk: &dyn Disk,
    table: &PartitionTable,
    windows: &Partition,
    windows_dir: &str,
    wanted: &[WantedDriver],
    recovery: &mut RecoveryEnvironment,
) -> Result<()> {
    let folder = format!("{windows_dir}/System32/Recovery");
    let path = format!("{folder}/ReAgent.xml");
    let look = |partition: &Partition, path: &str, is_configured: bool, recovery: &mut RecoveryEnvironment| {
        if partition.number == windows.number {
            return is_image(system, partition, path, is_configured, wanted, recovery);
        }
        match open(disk, partition) {
            Ok(volume) => is_image(&volume, partition, path, is_configured, wanted, recovery),
            Err(error) => {
                recovery.faults.push(error.to_string());
                false
            }
        }
    };
    let configuration = match system.find(&path)? {
        Some(file) => Configuration::parse(&system.read(file, CONFIGURATION_BYTES_MAX).map_err(|e| e.path(&path))?),
        None => Configuration::default(),
    };
    recovery.state = configuration.state;
    if let Some(location) = configuration.location.filter(|_| recovery.state == RecoveryState::Enabled) {
        let id = read_disk_id(disk, table)?;
        let place = table.partitions.iter().find(|partition| location.is_on(partition, id));
        let path = format!("{}/{IMAGE}", location.folder);
        match place {
            Some(partition) if look(partition, &path, true, recovery) => return Ok(()),
            Some(partition) => {
                let what = format!("{path} is not on {}, where ReAgent.xml has it", partition.label());
                recovery.faults.push(what);
            }
            None => {
                let what = format!("ReAgent.xml has it on a partition at {} that is not on this disk", location.start);
                recovery.faults.push(what);
            }
        }
    }
    for folder in [folder.as_str(), FOLDER] {
        if look(windows, &format!("{folder}/{IMAGE}"), false, recovery) {
            return Ok(());
        }
    }
    let is_other = |partition: &&Partition| partition.number != windows.number && partition.content == Content::Ntfs;
    let mut others: Vec<&Partition> = table.partitions.iter().filter(is_other).collect();
    others.sort_by_key(|partition| partition.kind != PartitionKind::Recovery);
    for partition in others.into_iter().take(VOLUMES_MAX) {
        if look(partition, &format!("{FOLDER}/{IMAGE}"), false, recovery) {
            return Ok(());
        }
    }
    Ok(())
}

fn open<'d>(disk: &'d dyn Disk, partition: &Partition) -> Result<GuestVolume<'d>> {
    if let Some(refusal) = partition.refusal() {
        return Err(refusal);
    }
    let view = PartitionView::new(disk, partition)?;
    let volume = Volume::open_shared(view, &partition.replay, &OpenOptions::read_only());
    volume.map_err(|error| error.path(partition.label()))
}

/// Looks at the image of this path, if it is there; returns whether it is.
fn is_image<V: VolumeRead>(
    volume: &Volume<V>,
    partition: &Partition,
    path: &str,
    is_configured: bool,
    wanted: &[WantedDriver],
    recovery: &mut RecoveryEnvironment,
) -> bool {
    let found = GuestFile::find(volume, path).map(|file| file.map(|file| (file.size, drivers_in(&file, wanted))));
    let (size, drivers) = match found {
        Ok(Some(found)) => found,
        Ok(None) => return false,
        Err(error) => {
            recovery.faults.push(error.to_string());
            return false;
        }
    };
    let drivers = drivers.unwrap_or_else(|error| {
        recovery.faults.push(error.path(path).to_string());
        Vec::new()
    });
    let path = path.to_owned();
    recovery.image = Some(RecoveryImage { partition: partition.number, path, size, is_configured, drivers });
    true
}

/// A file of a guest as bytes at offsets.
struct GuestFile<'v, V> {
    volume: &'v Volume<V>,
    file: FileId,
    size: u64,
}

impl<'v, V: VolumeRead> GuestFile<'v, V> {
    fn find(volume: &'v Volume<V>, path: &str) -> Result<Option<Self>> {
        let Some(file) = volume.find(path)? else { return Ok(None) };
        let stat = volume.stat(file)?;
        Ok((!stat.is_dir).then_some(Self { volume, file, size: stat.size }))
    }
}

impl<V: VolumeRead> VolumeRead for GuestFile<'_, V> {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        let read = self.volume.read_at(self.file, "", offset.0, buf)?;
        if read == buf.len() {
            return Ok(());
        }
        Err(Error::new(Kind::Damaged, Layer::Windows, "a file is shorter than it was").at(offset))
    }
}
