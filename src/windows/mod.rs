//! Windows: what is installed on a volume, and which edits make it start from a virtio disk.
//!
//! [`Guest::inspect`] reads, [`plan_injection`] turns the guest and the chosen driver packages into a
//! [`Plan`](crate::plan::Plan). Nothing here writes.

mod boot_check;
mod device_path;
mod driver_database;
mod files;
pub mod full;
mod guest;
mod ids;
mod inject;
mod inspect;
mod layout;
mod manifest;
mod options;
mod planner;
mod record;
mod registry;
mod script;
mod staging;
mod storage;

pub use boot_check::{
    BootCheck, BootDisk, Bus, CheckOptions, Code, Controller, Finding, Gate, Level, Route, boot_check, boot_checks,
    boot_checks_of,
};
pub use guest::{ControlSet, Guest};
pub use inject::{Injection, plan_injection, plan_inspected};
pub use inspect::{Hives, Inspected, inspect, is_windows_volume, windows_folders};
pub use options::{InjectOptions, Registration};
pub use record::{
    Action, CriticalDeviceRecord, DevicePathRecord, DriverDatabaseRecord, FileRecord, FirstbootRecord, PackageRecord,
    Record, RegistryRecord, ServiceRecord,
};

#[cfg(test)]
mod tests;
