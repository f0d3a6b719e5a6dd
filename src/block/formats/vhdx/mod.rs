//! VHDX, Hyper-V's disk: fixed, dynamic and differencing, with sectors of 512 and 4096 bytes. Read only.
//!
//! Terms and section numbers are those of the specification MS-VHDX; all numbers are little-endian. A log that is not
//! empty is replayed in memory before anything else is read.

mod header;
mod image;
mod info;
mod log;
mod metadata;
mod region;
mod replayed;

pub(crate) use header::FILE_SIGNATURE;
pub(crate) use image::open;
pub(crate) use info::info;
