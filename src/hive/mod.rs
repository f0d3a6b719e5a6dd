//! Registry hives: reading, editing, checking, replaying their logs.
//!
//! A [`Hive`] is an editor over the bytes of one hive file. It writes what Windows itself would have written: sorted
//! and hashed indexes, counted security cells, merged free space, big data where the version has it. What is not asked
//! for stays byte for byte, and a hive in which nothing changed comes out as it went in.
//!
//! ```
//! use winject::internals::clock::FileTime;
//! use winject::internals::hive::{RegistryData, Hive};
//!
//! # fn main() -> winject::Result<()> {
//! let now = FileTime::from_date(2026, 1, 1).unwrap();
//! // Hive::open takes the bytes of an existing file; here we start with an empty hive.
//! let mut hive = Hive::create("EXAMPLE", now);
//! let service = hive.create_key(hive.root(), r"ControlSet001\Services\viostor", now)?;
//! let start = RegistryData::dword(0);
//! assert!(hive.set_value(service, "Start", &start, now)?);
//!
//! let bytes = hive.finish(&[])?;
//! assert!(winject::internals::hive::check::check(&bytes).is_empty());
//!
//! let hive = Hive::open(bytes)?;
//! let key = hive.find(hive.root(), r"controlset001\SERVICES\viostor")?.unwrap();
//! assert_eq!(hive.value(key, "start")?.unwrap().as_u32(), Some(0));
//! # Ok(())
//! # }
//! ```
//!
//! A hive that was not shut down cleanly is *dirty*: part of its content is only in its log files.
//! [`Hive::open`] refuses it; [`Hive::open_with_logs`] replays the logs in memory first.

mod cells;
pub mod check;
mod create;
mod editor;
mod file;
mod format;
mod index;
mod keys;
mod log;
mod marvin;
mod name;
mod navigate;
pub mod reader;
pub mod reg_file;
mod security;
mod value;
mod value_index;
mod values;

pub(crate) use editor::{Edited, used_bytes};
pub use editor::{Hive, KeyId};
pub(crate) use file::LOG_ENDINGS;
pub use file::{HIVE_BYTES_MAX, HiveFile, LOG_BYTES_MAX};
pub use log::Replay;
pub use name::Name;
pub use value::{RegistryData, RegistryValue, ValueType};
