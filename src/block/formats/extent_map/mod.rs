//! What the read-only containers share: a map from guest ranges to ranges of files, over an optional parent.
//!
//! VMDK, VHD, VHDX and VDI differ in how a guest offset is looked up, and in nothing else. A container implements
//! `ExtentMap` (one look-up for one allocation unit); `MappedImage` turns that into an
//! [`Image`](crate::block::Image): it merges neighbouring units into large reads, asks the parent where the map has
//! nothing, and bounds everything by the guest size.
//!
//! The folder also has what such a container needs to find its bytes: `TableCache` for allocation tables,
//! `SectorBitmap` for differencing disks, `References` for the files that it names, `Window` for a container inside
//! an archive, and reads whose errors carry the offset.

mod image;
mod map;
mod read;
mod references;
mod sector_bitmap;
mod table_cache;
mod window;

pub(crate) use image::MappedImage;
pub(crate) use map::{ExtentMap, Location, Run};
pub(crate) use read::{data_run, length, read_exact, read_struct};
pub(crate) use references::{ChainReferences, NoReferences, References, base_name, candidate_names, open_first};
pub(crate) use sector_bitmap::{BitOrder, SectorBitmap};
pub(crate) use table_cache::TableCache;
pub(crate) use window::Window;
