//! qcow2, versions 2 and 3.

mod bitmap;
mod cache;
mod check;
mod compress;
mod counts;
mod create;
mod edit;
mod entry;
mod format;
mod header;
mod image;
mod info;
mod new_layout;
mod refcount;
mod repair;
mod snapshot;
mod units;

pub use bitmap::Bitmap;
pub use check::{CheckReport, Problem, ProblemKind, check, check_storage};
pub(crate) use create::NewImage;
pub(crate) use edit::{Edit, Source, Target, Write, data_file_name, plan, refuse_corrupt};
pub(crate) use entry::L2Entry;
pub(crate) use format::MAGIC;
pub use header::Compression;
pub use image::Qcow2Image;
pub use info::{Info, info, info_storage};
pub(crate) use new_layout::{Backing, ImageLayout, NewImageOptions, Survey, TableWrite};
pub(crate) use repair::{end_in_use, first_lost_reference, refcount_blocks, repair_leaks};
pub use snapshot::Snapshot;
pub(crate) use units::{ClusterSize, GuestCluster};
