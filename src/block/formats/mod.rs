//! Container formats, one folder or file each: what a file is, and the guest's disk inside it.

pub mod extent_map;
pub mod ova;
pub mod probe;
pub mod qcow2;
pub mod raw;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
