//! winject makes a switched-off Windows disk image bootable from a virtio disk.
//!
//! Data flows one way: image → stage (copy-on-write in memory) → inspect → plan → apply on the stage → verify →
//! commit. Nothing writes to the user's file before verification has passed.
//!
//! ```no_run
//! use winject::internals::clock::FileTime;
//! use winject::{Destination, InjectRequest, inject};
//!
//! # fn main() -> winject::Result<()> {
//! let now = FileTime::from_date(2026, 1, 1).unwrap();
//! let overlay = Destination::Overlay("guest-virtio.qcow2".into());
//! let request = InjectRequest::new("guest.vmdk", vec!["virtio-win.iso".into()], overlay, now);
//! let report = inject(&request, &winject::internals::job::Silent)?;
//! println!("{}", report.summary);
//! # Ok(())
//! # }
//! ```
//!
//! The modules, from the top; each imports only from those below it:
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | arguments, documents, progress, printing, exit codes |
//! | [`job`] | inject, inspect, registry edits as library calls; reports |
//! | [`windows`] | inspection of a guest, what is registered and staged, whether it boots |
//! | [`plan`] | changes as values, applied to the stage and verified |
//! | [`drivers`] | driver media, INF, signatures, the choice for a guest |
//! | [`ntfs`], [`iso`], [`hive`] | file systems and the registry; usable on their own |
//! | `fat` | a read-only FAT reader for the EFI system partition |
//! | [`partition`] | MBR and GPT |
//! | [`block`] | containers, the stage, commit, conversion |
//! | `host_file` | inputs opened without waiting, outputs written all or nothing, what must not be replaced |
//! | [`error`], [`units`], [`io`], [`clock`] | what all of them share |

#[doc(hidden)]
pub mod internals;

#[cfg(feature = "cli")]
use internals::cli;
use internals::{
    block, cancel, clock, drivers, error, escape, exit, fat, field, guid, hive, host, io, iso, job, ntfs, partition,
    plan, units, upcase, windows, yaml,
};

pub use block::{Image, Stage};
pub use error::{Error, Kind, Layer, Place, Result};
pub use job::{Destination, InjectRequest, Report, inject};
pub use plan::Plan;
pub use windows::Guest;
