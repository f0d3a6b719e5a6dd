//! Windows: what is installed on a volume, and which edits make it start from a virtio disk.
//!
//! [`Guest::inspect`] reads, [`plan_injection`] turns the guest and the chosen driver packages into a
//! [`Plan`](crate::plan::Plan). Nothing here writes.
//!
//! | job | where |
//! |---|---|
//! | finds the installation and describes it | `inspect` |
//! | edits that bind the boot driver: file, service, `CriticalDeviceDatabase`, `DriverDatabase` | `registration` |
//! | packages for the running guest to install, `DevicePath`, the manifest | `staging` |
//! | the job that installs them at the first boot, its program or script, its service, its outcome | `first_boot` |
//! | repairs of a guest that comes from another hypervisor | `repairs` |
//! | files and scripts of the user, the guest agent | `extras` |
//! | collects the edits, each only where the guest differs | `plan_builder` |
//! | network settings: read, and given to the new adapters | `network` |
//! | takes all of it out again | `removal` |
//! | the boot volume: what it is, and what is edited on it | `boot_volume`, `boot_edits` |
//! | the recovery environment, which is looked at and never edited | `recovery` |
//! | will the guest boot? | `boot_check` |

mod boot_check;
mod boot_edits;
mod boot_options;
mod boot_volume;
mod devices;
mod earlier_boot;
mod extras;
pub mod first_boot;
mod guest_files;
mod guest_paths;
mod injection;
mod inspect;
mod network;
mod options;
mod plan_builder;
mod planned_files;
mod record;
mod recovery;
pub mod registration;
mod registry;
mod removal;
mod repairs;
mod replaced;
mod saved_plan;
mod saved_steps;
mod staging;

pub use boot_check::{
    BootCheck, BootDisks, Bus, CheckOptions, Code, Controller, Finding, Firmware, Gate, KnownGuest, Level, Route,
    VmDisk, boot_check, boot_checks, boot_checks_of, boot_checks_of_plan,
};
pub use boot_options::{BootGraphics, BootOptions, FallbackLoader, TestSigning};
pub use boot_volume::{BootVolume, Fallback, find_boot_volume};
pub use devices::driven_devices;
pub use extras::{ExtrasOptions, SCRIPT_SECONDS, Upload};
pub use first_boot::{
    FirstBootMethod, FirstBootOptions, FirstBootOutcome, FirstBootState, JobResult, Reboot, StepResult,
    is_foreign_program,
};
pub(crate) use guest_paths::MANIFEST;
pub use injection::{Injection, plan_injection, plan_inspected};
pub use inspect::{ControlSet, Guest, Hives, Inspected, inspect, load_other_hives, windows_folders};
pub use network::record::{KeptAdapterRecord, NetworkRecord};
pub use network::{
    Adapter, AdapterKind, DnsRegistration, EarlierValues, FormerAdapter, Ipv4Address, Ipv4Gateway, Ipv4Route,
    Ipv4Settings, Ipv6Address, Ipv6Route, Ipv6Settings, KeptAdapter, KeptNetwork, Mac, MacSource, Network,
    NetworkOptions, NewMac, RecordedMac, choose_adapters,
};
pub use options::{InjectOptions, Registration};
pub use record::{
    Action, BootElementRecord, BootFileRecord, BootRecord, CriticalDeviceRecord, DevicePathRecord, DisabledService,
    DriverDatabaseRecord, ExtrasRecord, FileRecord, FirstbootRecord, FirstbootStep, PackageRecord, Record,
    RegistryRecord, RemovedFilter, RepairRecord, ScriptRecord, ServiceRecord, Uninstaller,
};
pub use recovery::{
    Presence, RecoveryDriver, RecoveryEnvironment, RecoveryImage, RecoveryState, WantedDriver, find_recovery,
    find_recovery_of,
};
pub(crate) use registry::{load_hive_file, missing_hive};
pub use removal::{LeftItem, Removal, plan_removal};
pub use repairs::{DataDisks, Hypervisor, RepairOptions};
pub use saved_plan::{compare_replaced, holds_result, known_hives};
pub use saved_steps::saved_steps;

#[cfg(test)]
mod tests;
