//! Repairs that a guest of another hypervisor may need: each is asked for by an option, noted with what was there before,
//! and undone by `winject remove`.
//!
//! | repair | where |
//! |---|---|
//! | which services and filter drivers a hypervisor's tools bring | `hypervisor` |
//! | services that Windows would start in vain, and filters, are disabled | `tools` |
//! | lists of filters, of device classes and single devices | `filters` |
//! | the registered uninstaller | `uninstaller` |
//! | what Windows does after a stop error, and with new disks | `settings` |

mod filters;
mod hypervisor;
mod options;
mod settings;
mod tools;
mod uninstaller;

pub use hypervisor::Hypervisor;
pub use options::{DataDisks, RepairOptions};
pub(super) use settings::change_settings;
pub(super) use tools::remove_tools;

#[cfg(test)]
mod tests;
