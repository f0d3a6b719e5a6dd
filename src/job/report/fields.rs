//! The fields of the report, as they stand in its JSON form.
//!
//! An `Option` without a note of its own is `null` as long as the run has not come far enough to know the value. Paths of
//! the guest are written as the guest writes them (`C:\Windows`), unless they are said to be paths on the volume
//! (`/Windows`).

use serde::Serialize;

use crate::block::Format;
use crate::error::Error;
use crate::exit::ExitCode;
use crate::job::bitlocker_start::BitLockerStart;
use crate::job::log_replay::LogReplayRecord;
use crate::partition::{Partition, Scheme};
use crate::windows::{
    BootCheck, BootElementRecord, BootFileRecord, DevicePathRecord, ExtrasRecord, FileRecord, FirstbootRecord,
    LeftItem, NetworkRecord, PackageRecord, RegistryRecord, RepairRecord,
};

/// Name of the JSON form, the value of [`Report::schema`].
pub const SCHEMA: &str = "winject/report";

/// Version of the JSON form, the value of [`Report::version`].
pub const VERSION: u32 = 1;

/// What a run did, found and verified; also of a run that failed, as far as it came.
///
/// ```no_run
/// use winject::{Destination, FileTime, InjectRequest, Silent, inject};
///
/// # fn main() -> winject::Result<()> {
/// let drivers = vec!["virtio-win.iso".into()];
/// let request = InjectRequest::new("guest.qcow2", drivers, Destination::DryRun, FileTime::now());
/// let report = inject(&request, &Silent)?;
/// for step in report.changes.iter().flat_map(|plan| &plan.steps) {
///     println!("{} ({})", step.change, step.reason);
/// }
/// println!("{}", report.to_json()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Report {
    /// Always [`SCHEMA`]; by it a report is recognised as one.
    pub schema: &'static str,
    /// Always [`VERSION`].
    pub version: u32,
    /// What was asked for, and where the outcome is.
    pub run: Run,
    /// The disk and the partition of Windows; left out until Windows is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskFacts>,
    /// The encryption of the Windows volume, and what it means for the first start; left out if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitlocker: Option<BitLockerStart>,
    /// The replay of the volume's NTFS log, which precedes the edits; left out if the log was closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_replay: Option<LogReplayRecord>,
    /// The guest, the chosen drivers, and what was done with them.
    pub virtio: Virtio,
    /// The machine that fits the guest now; left out until drivers are chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recommendation: Option<Recommendation>,
    /// How the outcome was verified before anything was written; left out if the run did not get that far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// Whether the guest boots from each kind of virtio disk, with reasons; left out if it was not checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub boot: Vec<BootCheck>,
    /// What a removal took out of the guest, and what it left; left out for other runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removal: Option<RemovalRecord>,
    /// Every edit with its reason, in order; left out until the plan is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<crate::plan::Plan>,
    /// Why the run failed; left out if it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The outcome in one sentence, such as "Done: Windows 10 (GPT) boots with viostor."
    pub summary: String,
    /// What the run did one after the other, and how long it took. Not in the JSON form, whose bytes do not depend on the
    /// speed of a machine.
    #[serde(skip)]
    pub phases: Vec<Phase>,
    /// The disks, that with Windows first, as far as they were opened. Not in the JSON form.
    #[serde(skip)]
    pub disk_files: Vec<DiskFile>,
    /// The files of the image, as far as they are known: a report is open to no more users than they are. Not in the JSON
    /// form.
    #[serde(skip)]
    pub image_files: Vec<std::path::PathBuf>,
}

/// A phase of a run, with its duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// What [`Step::title`](crate::job::Step::title) calls it.
    pub title: String,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// A disk of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFile {
    /// Path of its file on the host, as it was given.
    pub path: std::path::PathBuf,
    /// What findings call it.
    pub name: String,
    /// Container format.
    pub format: Format,
}

/// What was asked for, and where the outcome is.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Run {
    /// Name and version of the program: `winject 0.1.0`.
    pub tool: String,
    /// The run's clock in UTC, ISO 8601 to the second. Everything that the run wrote carries this time.
    pub time: String,
    /// Path of the image on the host, as it was given; of several disks, the one with Windows.
    pub image: String,
    /// Paths of the machine's other disks, which were only read; left out if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_disks: Vec<String>,
    /// Container format of the image, in qemu-img's terms: `qcow2`, `vmdk` …
    pub image_format: Option<String>,
    /// `in_place`, `overlay`, `standalone` or `dry_run`.
    pub mode: &'static str,
    /// The saved plan that was applied; left out for a run without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<AppliedPlan>,
    /// Path of the file on the host that holds the changed disk; `null` for a dry run and for a run that failed.
    pub output: Option<String>,
    /// Container format of that file. Not in the JSON form.
    #[serde(skip)]
    pub output_format: Option<Format>,
    /// SHA-256 of that file in hexadecimal; left out unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_sha256: Option<String>,
    /// The command that takes the edit back; left out without an undo record of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
    /// Notes on the output's place. Not in the JSON form, which has them among the notes of `virtio`.
    #[serde(skip)]
    pub output_notes: Vec<String>,
    /// Whether the run takes out what an earlier one put into the guest. Not in the JSON form, which has `removal`.
    #[serde(skip)]
    pub is_removal: bool,
    /// Whether nothing was to be written.
    pub dry_run: bool,
    /// The comparison of the volume's bitmaps with its file records before the first edit: `passed` or `skipped`; left
    /// out if the run did not get that far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_check: Option<&'static str>,
    /// Whether an earlier, interrupted run was rolled back first.
    pub recovered: bool,
    /// Whether an earlier, interrupted run had written everything and was completed first.
    pub completed: bool,
    /// Bytes of the guest's disk that changed, in whole blocks of the stage; 0 for `plan`, which stages nothing.
    pub bytes_changed: u64,
    /// Bytes read from the image's files.
    pub bytes_read: u64,
}

/// A saved plan.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct AppliedPlan {
    /// Path of its file on the host, as it was given.
    pub path: String,
    /// SHA-256 of its file, in hexadecimal.
    pub sha256: String,
}

/// What a removal took out of the guest, and what it left.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct RemovalRecord {
    /// Whether the guest has a manifest, without which nothing is removed.
    pub has_manifest: bool,
    /// What is removed, in words: `driver viostor`, `folders in DevicePath`.
    pub removed: Vec<String>,
    /// What stays in the guest, each with the reason.
    pub left: Vec<LeftItem>,
    /// The disks from which the guest boots without the removal: `virtio-blk`, `virtio-scsi`, an emulated disk. Empty if
    /// there is nothing to remove.
    pub boots_before: Vec<String>,
    /// The same after the removal, from the boot check of the staged disk.
    pub boots_after: Vec<String>,
}

/// The disk and the partition of Windows.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct DiskFacts {
    /// Size of the disk as the guest sees it, in bytes.
    pub size: u64,
    /// Kind of partition table.
    pub scheme: Scheme,
    /// Bytes of a logical sector: 512 or 4096.
    pub sector: u32,
    /// The partition that Windows is in.
    pub partition: Partition,
}

/// Why a run failed.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Failure {
    /// The error as the command prints it: place, cause, what was expected and what was found.
    pub message: String,
    /// What the user can do next; left out where there is nothing to advise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The exit code of the command for this failure, see the README's table.
    pub exit_code: u8,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            message: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
            // The discriminants are the documented numbers.
            exit_code: ExitCode::from(error.kind()) as u8,
        }
    }
}

/// The guest, the chosen drivers, and what was done with them. The names of the fields are those that readers of such
/// reports know.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Virtio {
    /// True only when everything required was done and verified, or was found done already; packages that are only staged
    /// (`--packages-only`) in a guest that does not boot from virtio are not.
    pub injected: bool,
    /// Whether the run did what was asked (a dry run: could do).
    pub success: bool,
    /// Whether everything was found done already, so that nothing had to be written.
    pub unchanged: bool,
    /// Whether nothing was to be written.
    pub dry_run: bool,
    /// Whether newer driver files of the guest were to be replaced too (`--force`).
    pub force_overwrite: bool,
    /// Why the run failed, as a word for programs (`not_windows`, `no_drivers_found` …); left out if it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Product, version and CPU of the guest; left out until Windows is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowsFacts>,
    /// How drivers were chosen; left out until they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Choice>,
    /// Folders and hives of the guest; left out until Windows is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows_paths: Option<WindowsPaths>,
    /// Paths of the driver media on the host, as they were given, the preferred one first.
    pub virtio_dir: Vec<String>,
    /// The packages that were chosen for the guest. When a saved plan is applied: those that it names, of which it holds
    /// name, INF, version and signature; their other fields are empty.
    pub drivers_found: Vec<DriverFound>,
    /// Driver files for `System32\drivers`, also those that were there already.
    pub files_copied: Vec<FileCopied>,
    /// Packages that lie below `C:\hyper2kvm\drivers\virtio`, for the running guest to install.
    pub packages_staged: Vec<PackageRecord>,
    /// Control sets, services and device ids in the registry.
    pub registry_changes: RegistryChanges,
    /// `DevicePath`, the list of folders in which Windows searches for drivers.
    pub devicepath_changes: DevicePathChanges,
    /// Repairs of a guest that comes from another hypervisor.
    pub repairs: RepairRecord,
    /// The service and the script that install the packages at the first boot.
    pub firstboot: FirstBoot,
    /// What is done about the guest's network.
    pub network: NetworkRecord,
    /// The recovery environment, which is not changed, and whether it will see a virtio disk; left out until the drivers are
    /// chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<crate::windows::RecoveryEnvironment>,
    /// What of the user's is put into the guest.
    #[serde(flatten)]
    pub extras: ExtrasRecord,
    /// The script that installs the packages by hand; left out until the plan is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<SetupScript>,
    /// The boot volume: boot configuration and fallback loader.
    pub bcd_changes: BcdChanges,
    /// Every file that the plan writes to the guest.
    pub artifacts: Vec<Artifact>,
    /// What was found on the media and not used, each with the reason.
    pub skipped: Vec<crate::drivers::Skipped>,
    /// What may keep the guest from working.
    pub warnings: Vec<String>,
    /// Decisions of the run that need no action by the user.
    pub notes: Vec<String>,
}

/// Product, version and CPU of the guest.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct WindowsFacts {
    /// `ProductName` of the registry, which says "Windows 10" on Windows 11.
    pub product_name: String,
    /// The product by build and kind: "Windows 11", "Windows Server 2025".
    pub product: String,
    /// `EditionID` of the registry: `Professional`; `null` if it has none.
    pub edition: Option<String>,
    /// `InstallationType` of the registry: `Client`, `Server`, `Server Core`; `null` if it has none.
    pub installation_type: Option<String>,
    /// Client, server or domain controller.
    pub product_type: crate::drivers::ProductType,
    /// `DisplayVersion` of the registry, or `ReleaseId` on older ones: `22H2`; `null` if it has neither.
    pub display_version: Option<String>,
    /// Build number of Windows: 19045.
    pub build: u32,
    /// Major version of the kernel: 6 up to Windows 8.1, 10 since.
    pub major: u32,
    /// Minor version of the kernel: 1 is Windows 7, 2 is Windows 8.
    pub minor: u32,
    /// Bits of an address: 32 or 64.
    pub bits: u32,
    /// CPU that the kernel is built for.
    pub arch: crate::drivers::Arch,
    /// Always `windows`: the field exists for readers that know other guests.
    pub distro: &'static str,
    /// The name that libosinfo and virt-install know: `win10`, `win2k22`; `winnt` for a release without one.
    pub osinfo_id: String,
}

/// How drivers were chosen.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Choice {
    /// Key of the guest's release in the driver definitions: `windows_10`, `server_2022`.
    pub release: String,
    /// Name of the guest's CPU in driver stores: `amd64`, `x86`, `arm64`.
    pub arch_dir: String,
    /// The best folder of the media for the release, such as `w10`; `null` if the release has none.
    pub bucket_hint: Option<String>,
    /// All folders of the media that would do, best first.
    pub candidates: Vec<String>,
    /// Services of the drivers that are registered offline: what the guest needs to start.
    pub drivers_needed: Vec<String>,
}

/// Folders and hives of the guest.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct WindowsPaths {
    /// The Windows folder: `C:\Windows`.
    pub windows_dir: String,
    /// Folder of system programs: `C:\Windows\System32`.
    pub system32_dir: String,
    /// Folder of driver files: `C:\Windows\System32\drivers`.
    pub drivers_dir: String,
    /// Folder of the hives: `C:\Windows\System32\config`.
    pub config_dir: String,
    /// Folder of temporary files: `C:\Windows\Temp`.
    pub temp_dir: String,
    /// File of the SYSTEM hive: `C:\Windows\System32\config\SYSTEM`.
    pub system_hive: String,
    /// File of the SOFTWARE hive: `C:\Windows\System32\config\SOFTWARE`.
    pub software_hive: String,
}

/// A driver package that was chosen.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct DriverFound {
    /// Name of the driver's folder on the media: `viostor`, `NetKVM`.
    pub name: String,
    /// What the driver is for: `storage`, `network`, `balloon` …
    #[serde(rename = "type")]
    pub category: String,
    /// Folder of the package, on its medium.
    pub src_path: String,
    /// Name of its file in `System32\drivers`; `null` for a package that is only staged.
    pub dest_name: Option<String>,
    /// `Start` of its service: 0 starts it with the boot loader, 3 on demand; `null` if it has no service.
    pub start_type: Option<u32>,
    /// Name of its service; `null` if it has none.
    pub service_name: Option<String>,
    /// Hardware ids that its INF lists, of PCI and other devices.
    pub pci_ids: Vec<String>,
    /// GUID of its device class, in braces.
    pub class_guid: Option<String>,
    /// Folder of the package, on its medium: the same as `src_path`.
    pub package_dir: String,
    /// Path of the package's INF, on its medium; empty for a driver without one.
    pub inf_path: String,
    /// The folder of the media that stands for the release: `w10`.
    pub bucket_used: String,
    /// Why this package was preferred.
    pub reason: String,
    /// Version in `DriverVer` of the INF: `100.101.104.28500`; `null` if the INF has none.
    pub driver_version: Option<String>,
    /// Date in `DriverVer` of the INF, as it is written there (month first); `null` if the INF has none.
    pub driver_date: Option<String>,
    /// Whether the signatures of the catalogue and of the driver's file are there, can be read, and match.
    pub signed: bool,
    /// Common name of the signer; `null` unless `signed`.
    pub signer: Option<String>,
}

/// A driver file for `System32\drivers`, with what was read back.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct FileCopied {
    /// What was planned for it.
    #[serde(flatten)]
    pub file: FileRecord,
    /// SHA-256 of the file in the guest, in hexadecimal, as verified; `null` if the run failed, or the guest's own file was
    /// kept.
    pub guest_sha256: Option<String>,
}

/// Control sets, services and device ids in the registry.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct RegistryChanges {
    /// Whether the registry holds everything that is required.
    pub success: bool,
    /// Whether nothing was to be written.
    pub dry_run: bool,
    /// Whether any value or key changes.
    pub registry_modified: bool,
    /// File of the SYSTEM hive in the guest; empty until the plan is made.
    pub hive_path: String,
    /// Always empty: a failure is in [`Report::error`].
    pub errors: Vec<String>,
    /// Control sets, style, services, ids.
    #[serde(flatten)]
    pub record: RegistryRecord,
    /// Services found as planned when the hive was read again.
    pub verified_services: Vec<String>,
    /// What differed from the plan then; the run failed in that case.
    pub verification_errors: Vec<String>,
    /// Hives that were dirty and were repaired in memory from their logs first.
    pub replayed: Vec<String>,
}

/// `DevicePath`, the list of folders in which Windows searches for drivers.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct DevicePathChanges {
    /// Whether the staging folders are in the list.
    pub success: bool,
    /// The value before and after.
    #[serde(flatten)]
    pub record: DevicePathRecord,
}

/// The service and the script that install the packages at the first boot.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct FirstBoot {
    /// Whether both are in place.
    pub success: bool,
    /// Service, script, log, marker.
    #[serde(flatten)]
    pub record: FirstbootRecord,
    /// Always empty: a failure is in [`Report::error`].
    pub errors: Vec<String>,
}

/// The script that installs the packages by hand.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct SetupScript {
    /// Its path in the guest.
    pub path: String,
    /// Its text, a batch file.
    pub content: String,
}

/// The boot configuration, which winject does not touch.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct BcdChanges {
    /// Boot configurations that are changed: their paths on the boot volume.
    pub stores: Vec<String>,
    /// Why others need no change.
    pub notes: Vec<String>,
    /// The elements that winject changed, in this run or before.
    pub elements: Vec<BootElementRecord>,
    /// The fallback loader, if winject put it in place, in this run or before.
    pub files: Vec<BootFileRecord>,
}

/// A file that the plan writes to the guest.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Artifact {
    /// What it is for: `driver_sys`, `staged_payload`, `setup_cmd`, `firstboot_cmd`, `firstboot_job`, `firstboot_program`,
    /// `manifest`, `driver_store`, `catalog`, `firstboot_script`, `guest_agent`, `upload` or `other`.
    pub kind: &'static str,
    /// Its path on the Windows volume: `/Windows/System32/drivers/viostor.sys`.
    pub path: String,
    /// Length of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// The machine that fits the guest.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Recommendation {
    /// Best bus for the system disk: `virtio-blk`, `virtio-scsi`, `sata` or `ide`.
    pub bus: &'static str,
    /// All virtio buses from which the guest boots, as far as the boot check has been made.
    pub buses: Vec<&'static str>,
    /// Model of network cards: `virtio`, `e1000e` or `rtl8139`.
    pub net_model: &'static str,
    /// QEMU machine type: `q35` or `pc`.
    pub machine: &'static str,
    /// Firmware that can start this disk: `bios` or `uefi`.
    pub firmware: &'static str,
    /// What the machine's hardware clock has to show: `utc` or `localtime`.
    pub clock: &'static str,
    /// Further virtual devices with a driver in the guest: `virtio-rng`, `virtio-balloon` …
    pub extra_devices: Vec<&'static str>,
    /// Whether Secure Boot can be on: UEFI, and Microsoft has signed every boot driver.
    pub secure_boot: bool,
    /// Whether the machine needs a TPM: Windows 11 does.
    pub tpm: bool,
    /// MAC addresses of the guest's network cards, which the new ones can have.
    pub mac_addresses: Vec<String>,
    /// Bytes that the disk must show as its logical block; left out for the usual 512.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_block_size: Option<u32>,
    /// Conditions of this advice; left out if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How the outcome was verified before anything was written.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Validation {
    /// Whether the staged disk is what was planned, and sound.
    pub success: bool,
    /// What was read back with independent readers and compared with the plan.
    pub compared: crate::plan::Verified,
}
