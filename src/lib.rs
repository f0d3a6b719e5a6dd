//! winject makes a switched-off Windows disk image bootable from a virtio disk.
//!
//! Data flows one way: image → stage (copy-on-write in memory) → inspect → plan → apply on the stage → verify →
//! commit. Nothing writes to the user's file before verification has passed.

pub mod clock;
pub mod error;
pub mod exit;
pub mod io;
pub mod units;
pub mod upcase;
mod yaml;

pub mod block;
pub mod cli;
pub mod drivers;
pub mod hive;
pub mod iso;
pub mod job;
pub mod ntfs;
pub mod partition;
pub mod plan;
pub mod windows;

pub use error::{Error, Kind, Layer, Result};
