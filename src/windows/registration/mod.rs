//! The edits that make Windows start a boot driver and bind the new machine's controllers to it.

mod boot_driver;
mod critical_devices;
mod device_ids;
pub(crate) mod driver_database;
mod driver_file;
mod foreign_records;
pub mod full;
mod inbox_drivers;
pub(crate) mod minimal;
mod service;

pub(super) use boot_driver::register as register_boot_driver;
pub(super) use device_ids::without_subsystem;
pub(super) use driver_database::architecture_problem;
pub(super) use full::register::register as register_fully;
pub(super) use inbox_drivers::{is_in_boot_chain, keep_inbox_controllers, repair_boot_chain};
