//! VHD, the disk of Virtual PC and Hyper-V's first generation: fixed, dynamic and differencing. Read only.
//!
//! Terms are those of Microsoft's "Virtual Hard Disk Image Format Specification" (2006); all numbers are big-endian.

mod footer;
mod header;
mod image;
mod info;

pub(crate) use footer::COOKIE;
pub(crate) use image::open;
pub(crate) use info::info;
