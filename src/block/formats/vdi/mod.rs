//! VDI, VirtualBox's disk: dynamic and fixed. Read only. All numbers are little-endian.
//!
//! A differencing VDI names its parent by UUID alone, and only VirtualBox's registry says which file that is. It is
//! refused, with that explanation.

mod header;
mod image;
mod info;

pub(crate) use header::{SIGNATURE, SIGNATURE_OFFSET};
pub(crate) use image::open;
pub(crate) use info::info;
