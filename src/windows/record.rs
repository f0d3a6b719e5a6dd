//! What an injection does to a guest, as the report lists it: drivers, files, services, ids.
//!
//! The names of the fields are part of the report's JSON form (`virtio.registry_changes.services`, …).

use serde::Serialize;

use super::network::record::NetworkRecord;
use crate::plan::GuestHive;

/// What happens to a file, service, entry or package of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new in the guest.
    Created,
    /// It replaces one with another content.
    Updated,
    /// The guest has exactly this one already.
    Unchanged,
    /// The guest's own is newer, or serves the devices already: it is left alone.
    Kept,
    /// It is removed from the guest.
    Removed,
}

impl Action {
    /// One action for several: all created, all unchanged, or something in between.
    #[must_use]
    pub fn overall(actions: &[Self]) -> Self {
        if actions.iter().all(|action| *action == Self::Unchanged) {
            Self::Unchanged
        } else if actions.iter().all(|action| *action == Self::Created) {
            Self::Created
        } else {
            Self::Updated
        }
    }
}

/// A file that is put into the guest.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct FileRecord {
    /// Name of the file, with the sub-folders of its package.
    pub name: String,
    /// What happens to it.
    pub action: Action,
    /// Why, where the action does not tell; left out otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Path on the driver media that it comes from.
    pub source: String,
    /// Path that it gets on the Windows volume.
    pub destination: String,
    /// Length of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Name of the service that it is for; left out for a file without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// A package that is staged in the guest, for the running Windows to install.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct PackageRecord {
    /// The service, or the name of the staging folder for a package without one.
    pub service: String,
    /// Category: `storage`, `network` …
    #[serde(rename = "type")]
    pub category: String,
    /// Folder of the package on the driver media.
    pub package_dir: String,
    /// File name of its INF.
    pub inf: String,
    /// Version of `DriverVer` in the INF: `100.101.104.28500`.
    pub driver_version: String,
    /// Folder of the package on the Windows volume.
    pub guest_dir: String,
    /// What happens to it.
    pub action: Action,
    /// Its files, with what happens to each.
    pub files: Vec<FileRecord>,
}

/// A service registered offline, in one control set.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct ServiceRecord {
    /// Name of the service: its key below `Services`.
    pub service: String,
    /// The control set that holds it: `ControlSet001`.
    pub control_set: String,
    /// `Type` of the service; 1 is a kernel driver.
    #[serde(rename = "type")]
    pub kind: u32,
    /// `Start` of the service; 0 starts it with the boot loader.
    pub start: u32,
    /// `Group`: its load order group; empty for none.
    pub group: String,
    /// `ImagePath`: its file, as the registry spells it.
    pub image: String,
    /// What happens to it.
    pub action: Action,
}

/// An entry of `CriticalDeviceDatabase`, by which Windows up to 7 binds a device at boot.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct CriticalDeviceRecord {
    /// The key's name: `PCI#VEN_…`.
    pub pci_id: String,
    /// The service that it binds to.
    pub service: String,
    /// The control set that holds it: `ControlSet001`.
    pub control_set: String,
    /// What happens to it.
    pub action: Action,
}

/// A package in `DriverDatabase`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct DriverDatabaseRecord {
    /// The hive that holds it.
    pub hive: GuestHive,
    /// Name in `DriverInfFiles`: invented (`h2k-viostor.inf`), or an `oemN.inf`.
    pub inf: String,
    /// Its key below `DriverPackages`, named like a folder of the driver store.
    pub package: String,
    /// Device ids bound to it.
    pub ids: Vec<String>,
    /// Device ids left alone because another active package serves them.
    pub ids_kept: Vec<String>,
    /// What happens to it.
    pub action: Action,
}

/// What is written to the hives.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct RegistryRecord {
    /// Control sets that are edited.
    pub control_sets: Vec<String>,
    /// `driver_database` or `cdd`: what decides the binding in this Windows.
    pub style: String,
    /// Services that are registered, one record for each control set.
    pub services: Vec<ServiceRecord>,
    /// Entries of `CriticalDeviceDatabase`, one record for each id and control set.
    pub cdd: Vec<CriticalDeviceRecord>,
    /// Packages that are registered in `DriverDatabase`.
    pub driver_database: Vec<DriverDatabaseRecord>,
    /// `StartOverride` keys that are removed, with their control set.
    pub startoverride_removed: Vec<String>,
    /// In-box controllers set to start at boot, so that the guest still starts from SATA, IDE or NVMe.
    #[serde(rename = "way_back")]
    pub inbox_controllers: Vec<String>,
}

/// `DevicePath`, the list of folders in which Windows searches for drivers.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct DevicePathRecord {
    /// Whether the run changes the value.
    pub modified: bool,
    /// The value before the run; `None` if the guest had none.
    pub original: Option<String>,
    /// The value after the run.
    pub new: String,
}

/// A step of the first-boot job.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct FirstbootStep {
    /// `package`, `network`, `run` or `release`.
    pub kind: &'static str,
    /// The package's INF, the adapter's MAC address, the command's name, or the invented INF.
    pub name: String,
    /// Whether the job is only done when it succeeds.
    pub required: bool,
}

/// The job of the first boot.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct FirstbootRecord {
    /// Name of the service that starts the job.
    pub service: String,
    /// How the job is started: `service`, `script` or `none`.
    pub method: String,
    /// Path of the service program or the script on the Windows volume.
    pub payload: String,
    /// SHA-256 of the service program, in hexadecimal, for rules that have to name it; left out for a script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_sha256: Option<String>,
    /// Whether the job restarts the guest at its end, if a step asks for a restart.
    pub reboot: bool,
    /// What the job does, in this order.
    pub steps: Vec<FirstbootStep>,
    /// INFs of others below the staging folder that the job does not install, because any user can have written them.
    pub refused: Vec<String>,
    /// Path of the job's log on the Windows volume.
    pub log_path: String,
    /// Path of the marker that the job leaves when it has finished, on the Windows volume.
    pub marker_path: String,
    /// Why the job is not installed; left out if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// A file of the boot volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct BootFileRecord {
    /// Its path there.
    pub path: String,
    /// The file that it is a copy of.
    pub source: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// What happens to it.
    pub action: Action,
}

/// An element of the boot configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct BootElementRecord {
    /// The object that it belongs to, a GUID in braces.
    pub object: String,
    /// Number of the element: `16000049`.
    pub element: String,
    /// Its data, in hexadecimal; `null` if it is not there any more.
    pub data: Option<String>,
    /// Its data before winject changed it first, in hexadecimal; `null` if it was not there.
    pub before: Option<String>,
    /// What happens to it.
    pub action: Action,
}

/// The boot volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct BootRecord {
    /// Path of the boot configuration on the boot volume; left out if the disk has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The fallback loader that winject put in place.
    pub files: Vec<BootFileRecord>,
    /// Elements that winject changed.
    pub elements: Vec<BootElementRecord>,
}

/// A service of a former hypervisor's tools that is disabled, in one control set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct DisabledService {
    /// The hypervisor: `VMware`.
    pub hypervisor: String,
    /// Name of the service.
    pub service: String,
    /// The control set that holds it: `ControlSet001`.
    pub control_set: String,
    /// What happens to its `Start`.
    pub action: Action,
}

/// A filter driver that is taken out of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct RemovedFilter {
    /// The hypervisor: `VMware`.
    pub hypervisor: String,
    /// Name of the filter's service.
    pub filter: String,
    /// Key and value that listed it.
    pub list: String,
}

/// An uninstaller that runs at the first boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Uninstaller {
    /// The hypervisor: `VMware`.
    pub hypervisor: String,
    /// The product's `DisplayName`.
    pub name: String,
    /// The command, with `%VARIABLES%` of Windows.
    pub command: String,
}

/// All repairs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct RepairRecord {
    /// Services of former hypervisors that are disabled.
    pub services: Vec<DisabledService>,
    /// Filter drivers that are taken out of lists.
    pub filters: Vec<RemovedFilter>,
    /// Uninstallers that run at the first boot.
    pub uninstallers: Vec<Uninstaller>,
    /// What of a former hypervisor's tools stays, with the reason.
    pub left: Vec<String>,
    /// What happens to `AutoReboot`, which restarts Windows after a stop error; left out if nothing is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_reboot: Option<Action>,
    /// What happens to the policy for data disks; left out if nothing is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_disks: Option<Action>,
}

impl RepairRecord {
    /// Says what stays, once.
    pub(crate) fn leave(&mut self, what: String) {
        if !self.left.contains(&what) {
            self.left.push(what);
        }
    }

    /// Whether no repair was asked for, or none found anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What of the user's is put into the guest.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct ExtrasRecord {
    /// Files that are put where the user wants them; left out if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uploads: Vec<FileRecord>,
    /// Scripts and programs that the first-boot job runs; left out if there are none.
    #[serde(rename = "firstboot_scripts", skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<ScriptRecord>,
    /// The installer of the QEMU guest agent; left out if it is not wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_agent: Option<ScriptRecord>,
}

/// A script or program of the user that the first-boot job runs.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct ScriptRecord {
    /// Its file; the reason says what was changed in it so that Windows reads it.
    #[serde(flatten)]
    pub file: FileRecord,
    /// The command that runs it.
    pub command: String,
    /// Its time limit, in seconds.
    pub seconds: u32,
    /// Its log on the Windows volume.
    pub log: String,
}

/// All that an injection does to a guest.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Record {
    /// Drivers put into `System32\drivers`.
    pub files_copied: Vec<FileRecord>,
    /// Packages that are staged for the running guest.
    pub packages_staged: Vec<PackageRecord>,
    /// Edits of the hives.
    pub registry_changes: RegistryRecord,
    /// The edit of `DevicePath`.
    pub devicepath_changes: DevicePathRecord,
    /// The job that installs the staged packages at the first boot.
    pub firstboot: FirstbootRecord,
    /// The boot volume.
    pub boot: BootRecord,
    /// What is done about the network.
    pub network: NetworkRecord,
    /// Text of the script that installs the packages by hand.
    pub setup_script: String,
    /// Repairs of a guest that comes from another hypervisor.
    pub repairs: RepairRecord,
    /// What of the user's is put into the guest.
    pub extras: ExtrasRecord,
}
