//! The fields of the report.

use serde::Serialize;

use crate::error::Error;
use crate::exit::ExitCode;
use crate::partition::{Partition, Scheme};
use crate::windows::{BootCheck, DevicePathRecord, FileRecord, FirstbootRecord, PackageRecord, RegistryRecord};

/// Version of the JSON form.
pub const SCHEMA: &str = "winject.report.v1";

/// The whole report.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What was asked for.
    pub run: Run,
    /// The disk and the partition of Windows, once known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskFacts>,
    /// Drivers and their registration.
    pub virtio: Virtio,
    /// The machine that fits the guest now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recommendation: Option<Recommendation>,
    /// How the outcome was verified before anything was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// Whether the guest boots from each bus that it got a driver for, with reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub boot: Vec<BootCheck>,
    /// Every edit with its reason, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<crate::plan::Plan>,
    /// Why the run failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// One sentence.
    pub summary: String,
    /// The files of the image, as far as they are known: a report is open to no more users than they are.
    #[serde(skip)]
    pub image_files: Vec<std::path::PathBuf>,
}

/// What was asked for, and where the outcome is.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Run {
    /// Name and version of the program.
    pub tool: String,
    /// The run's clock, ISO 8601.
    pub time: String,
    /// The image.
    pub image: String,
    /// Its container format.
    pub image_format: Option<String>,
    /// `in_place`, `overlay`, `standalone` or `dry_run`.
    pub mode: &'static str,
    /// The file that holds the changed disk.
    pub output: Option<String>,
    /// SHA-256 of that file, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_sha256: Option<String>,
    /// Whether nothing was to be written.
    pub dry_run: bool,
    /// The comparison of the volume's bitmaps with its file records before the first edit: `passed`, or `skipped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_check: Option<&'static str>,
    /// Whether an earlier, interrupted run was rolled back first.
    pub recovered: bool,
    /// Whether an earlier, interrupted run had written everything and was completed first.
    pub completed: bool,
    /// Bytes of the guest's disk that changed, in whole blocks.
    pub bytes_changed: u64,
    /// Bytes read from the image's files.
    pub bytes_read: u64,
}

/// The disk and the partition of Windows.
#[derive(Debug, Clone, Serialize)]
pub struct DiskFacts {
    /// Size in bytes.
    pub size: u64,
    /// Kind of partition table.
    pub scheme: Scheme,
    /// Bytes per sector.
    pub sector: u32,
    /// The partition that Windows is in.
    pub partition: Partition,
}

/// Why a run failed.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// The message.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The exit code of the process.
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

/// Drivers and their registration.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Virtio {
    /// True only when everything required was done and verified, or was found done already; packages that are only staged
    /// (`--packages-only`) in a guest that does not boot from virtio are not.
    pub injected: bool,
    /// Whether the run did what was asked (a dry run: could do).
    pub success: bool,
    /// Whether everything was found done already.
    pub unchanged: bool,
    /// Whether nothing was to be written.
    pub dry_run: bool,
    /// Whether newer driver files of the guest were to be replaced too.
    pub force_overwrite: bool,
    /// Why nothing was injected, as a word for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Which Windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowsFacts>,
    /// How drivers were chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Choice>,
    /// Where things are in the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows_paths: Option<WindowsPaths>,
    /// The driver sources.
    pub virtio_dir: Vec<String>,
    /// The chosen drivers.
    pub drivers_found: Vec<DriverFound>,
    /// Driver files in `System32\drivers`.
    pub files_copied: Vec<FileCopied>,
    /// Packages below `C:\hyper2kvm\drivers\virtio`.
    pub packages_staged: Vec<PackageRecord>,
    /// Edits of the SYSTEM hive.
    pub registry_changes: RegistryChanges,
    /// The edit of `DevicePath`.
    pub devicepath_changes: DevicePathChanges,
    /// The job of the first boot.
    pub firstboot: FirstBoot,
    /// The manual installer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup_script: Option<SetupScript>,
    /// The boot configuration, which is not touched.
    pub bcd_changes: BcdChanges,
    /// Every file written.
    pub artifacts: Vec<Artifact>,
    /// What was found on the media and not used.
    pub skipped: Vec<crate::drivers::Skipped>,
    /// What may keep the guest from working.
    pub warnings: Vec<String>,
    /// What is good to know.
    pub notes: Vec<String>,
}

/// Which Windows.
#[derive(Debug, Clone, Serialize)]
pub struct WindowsFacts {
    /// `ProductName` of the registry (says "Windows 10" on Windows 11).
    pub product_name: String,
    /// The product by build and kind.
    pub product: String,
    /// `EditionID`.
    pub edition: Option<String>,
    /// `InstallationType`.
    pub installation_type: Option<String>,
    /// Client, server or domain controller.
    pub product_type: crate::drivers::ProductType,
    /// `DisplayVersion` or `ReleaseId`.
    pub display_version: Option<String>,
    /// Build number.
    pub build: u32,
    /// Kernel version.
    pub major: u32,
    /// Kernel version.
    pub minor: u32,
    /// Pointer size.
    pub bits: u32,
    /// CPU.
    pub arch: crate::drivers::Arch,
    /// Always `windows`.
    pub distro: &'static str,
    /// The name that libosinfo and virt-install know.
    pub osinfo_id: String,
}

/// How drivers were chosen.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Choice {
    /// Key of the release (`windows_10`).
    pub release: String,
    /// The CPU's folder on the media.
    pub arch_dir: String,
    /// The best folder of the media for the release.
    pub bucket_hint: Option<String>,
    /// All folders that would do, best first.
    pub candidates: Vec<String>,
    /// What the guest needs to start.
    pub drivers_needed: Vec<String>,
}

/// Where things are in the guest.
#[derive(Debug, Clone, Serialize)]
pub struct WindowsPaths {
    /// `C:\Windows`.
    pub windows_dir: String,
    /// `C:\Windows\System32`.
    pub system32_dir: String,
    /// `C:\Windows\System32\drivers`.
    pub drivers_dir: String,
    /// `C:\Windows\System32\config`.
    pub config_dir: String,
    /// `C:\Windows\Temp`.
    pub temp_dir: String,
    /// The SYSTEM hive.
    pub system_hive: String,
    /// The SOFTWARE hive.
    pub software_hive: String,
}

/// A chosen driver.
#[derive(Debug, Clone, Serialize)]
pub struct DriverFound {
    /// Its folder on the media.
    pub name: String,
    /// Category.
    #[serde(rename = "type")]
    pub category: String,
    /// Where the package is.
    pub src_path: String,
    /// The file in `System32\drivers`, for drivers that are registered offline.
    pub dest_name: Option<String>,
    /// `Start` of its service.
    pub start_type: Option<u32>,
    /// Its service.
    pub service_name: Option<String>,
    /// Its hardware ids.
    pub pci_ids: Vec<String>,
    /// Device class.
    pub class_guid: Option<String>,
    /// The package's folder.
    pub package_dir: String,
    /// The package's INF.
    pub inf_path: String,
    /// The folder of the media that stands for the release.
    pub bucket_used: String,
    /// Why this one.
    pub reason: String,
    /// `DriverVer`, the version.
    pub driver_version: Option<String>,
    /// `DriverVer`, the date.
    pub driver_date: Option<String>,
    /// Whether the signature is there, parses and matches.
    pub signed: bool,
    /// Who signed.
    pub signer: Option<String>,
}

/// A file put into `System32\drivers`, with what was read back.
#[derive(Debug, Clone, Serialize)]
pub struct FileCopied {
    /// What was planned for it.
    #[serde(flatten)]
    pub file: FileRecord,
    /// SHA-256 of the file in the guest as verified.
    pub guest_sha256: Option<String>,
}

/// Edits of the registry.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RegistryChanges {
    /// Whether the registry holds everything that is required.
    pub success: bool,
    /// Whether nothing was to be written.
    pub dry_run: bool,
    /// Whether any value or key changed.
    pub registry_modified: bool,
    /// The SYSTEM hive.
    pub hive_path: String,
    /// What went wrong.
    pub errors: Vec<String>,
    /// Control sets, style, services, ids.
    #[serde(flatten)]
    pub record: RegistryRecord,
    /// Services found as planned when the hive was read again.
    pub verified_services: Vec<String>,
    /// What did not match then.
    pub verification_errors: Vec<String>,
    /// Hives that were dirty and were repaired in memory from their logs first.
    pub replayed: Vec<String>,
}

/// The edit of `DevicePath`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DevicePathChanges {
    /// Whether the staging folder is named there.
    pub success: bool,
    /// The value before and after.
    #[serde(flatten)]
    pub record: DevicePathRecord,
}

/// The job of the first boot.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FirstBoot {
    /// Whether it is in place.
    pub success: bool,
    /// Service, script, log, marker.
    #[serde(flatten)]
    pub record: FirstbootRecord,
    /// What went wrong.
    pub errors: Vec<String>,
}

/// The manual installer.
#[derive(Debug, Clone, Serialize)]
pub struct SetupScript {
    /// Where it is in the guest.
    pub path: String,
    /// Its text.
    pub content: String,
}

/// The boot configuration.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BcdChanges {
    /// Stores that were changed: none.
    pub stores: Vec<String>,
    /// Why.
    pub notes: Vec<String>,
}

/// A file written to the guest.
#[derive(Debug, Clone, Serialize)]
pub struct Artifact {
    /// `driver_sys`, `staged_payload`, `setup_cmd`, …
    pub kind: &'static str,
    /// Where it is in the guest.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: String,
}

/// The machine that fits the guest.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Recommendation {
    /// Bus of the system disk.
    pub bus: &'static str,
    /// All buses that it can start from.
    pub buses: Vec<&'static str>,
    /// Model of network cards.
    pub net_model: &'static str,
    /// QEMU machine type.
    pub machine: &'static str,
    /// `bios` or `uefi`.
    pub firmware: &'static str,
    /// `utc` or `localtime`.
    pub clock: &'static str,
    /// Further devices with a driver in the guest.
    pub extra_devices: Vec<&'static str>,
    /// Bytes that the disk must show as its logical block; none for the usual 512.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_block_size: Option<u32>,
    /// Conditions of this advice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How the outcome was verified before anything was written.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Validation {
    /// Whether the staged disk is what was planned, and sound.
    pub success: bool,
    /// What was read back with independent readers and compared with the plan.
    pub compared: crate::plan::Verified,
}
