//! OVA: a VM as one tar archive, read without unpacking it. The OVF description inside tells which members are disks.

mod header;
mod image;
mod ovf;
mod tar;

pub(crate) use image::{disk_names, is_ova, open};
