//! Disk images: container formats, the copy-on-write stage, conversion and commit.
//!
//! An [`Image`] is a read-only view of the disk that the guest sees, whatever the container. [`open`] recognises the
//! format by content. A [`Stage`] lies over an image and takes all writes; [`commit`] makes them permanent: in place, as
//! a small overlay, or as a new image.
//!
//! Host files are reached through [`Storage`] only, so that tests can record every write and inject faults.

mod chain;
pub mod commit;
pub mod convert;
pub mod describe;
mod disk;
mod files_named;
mod format;
pub mod formats;
mod image;
mod journal;
mod name;
mod named;
mod open;
mod source;
mod stage;

pub use crate::host::{
    FileIdentity, FileStorage, Fingerprint, HostFiles, HostRun, LockMode, Locking, MemoryStorage, PathPolicy, RealHost,
    Storage, StorageExt,
};
pub use crate::io::is_zero;
pub use chain::{Chain, OpenOptions};
pub use files_named::files_named;
pub use format::Format;
pub use formats::raw::RawImage;
pub use image::{Extent, ExtentKind, Image, ImageParts, use_notes};
pub(crate) use image::{beyond_end, is_inside};
pub use name::ImageName;
pub(crate) use name::{is_same_image, open_file};
pub use named::NamedFiles;
pub(crate) use open::is_ova;
pub use open::{open, open_storage};
pub use source::DiskSource;
pub(crate) use stage::Original;
pub use stage::{ReadLog, Stage, StageOptions};

use formats::{ova, probe, qcow2, vdi, vhd, vhdx, vmdk};
