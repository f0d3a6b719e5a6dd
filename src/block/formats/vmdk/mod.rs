//! VMDK, VMware's disk: a descriptor, one or more extents, and for snapshots a chain of such disks. Read only.
//!
//! Extents: flat, hosted sparse (plain and stream-optimised), COWD (vmfsSparse) and seSparse. The line in the descriptor
//! decides what an extent is; `createType` only serves reports.

mod compressed;
mod cowd;
mod descriptor;
mod extent;
mod header;
mod image;
mod info;
mod location;
mod sesparse;
mod sparse;

pub(crate) use header::{COWD_MAGIC, SESPARSE_MAGIC, SPARSE_MAGIC};
pub(crate) use image::open;
pub(crate) use info::{Info, info};
