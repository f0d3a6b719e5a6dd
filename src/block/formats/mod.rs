//! Container formats, one folder or file each: recognising a file's format, and reading the guest's disk inside it.
//!
//! The folders have the same inner names: `header` has the on-disk structures, `image` opens and reads a file, `info` has
//! what `winject image info` tells about it. qcow2, which is written too, has more.

pub mod extent_map;
pub mod ova;
pub mod probe;
pub mod qcow2;
pub mod raw;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
