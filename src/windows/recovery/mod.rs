//! The recovery environment (WinRE) of a Windows: where it is, whether Windows starts it, and whether it will see a virtio
//! disk. It is looked at, and never edited.

mod configuration;
mod describe;
mod drivers;
mod find;

pub use describe::{Presence, RecoveryDriver, RecoveryEnvironment, RecoveryImage, RecoveryState};
pub use drivers::WantedDriver;
pub use find::{find_recovery, find_recovery_of};
