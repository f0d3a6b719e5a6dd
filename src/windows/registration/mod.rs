//! The edits that make Windows start a boot driver and bind the new machine's controllers to it.

pub(super) mod boot_driver;
pub(super) mod device_ids;
pub(super) mod driver_database;
pub mod full;
