//! qcow2, versions 2 and 3 (QEMU docs/interop/qcow2.rst): reading, editing in place, checking, new images.
//!
//! - The format: `on_disk` (stored structures), `header` (the checked header), `entry` (table entries), `cluster` (addresses),
//!   `refcount` (stored refcounts), `snapshot`, `bitmap`.
//! - Reading: `image`, with `cache` and `decompress`; `info` for `winject image info`.
//! - Checking: `check`, which counts in `reference_counts`; `repair` for leaks and interrupted edits.
//! - Writing: `edit` in place; `new_layout` places the clusters of a new image, `create` writes an
//!   overlay.

mod bitmap;
mod cache;
mod check;
mod cluster;
mod create;
mod decompress;
mod edit;
mod entry;
mod header;
mod image;
mod info;
mod new_layout;
mod on_disk;
mod refcount;
mod reference_counts;
mod repair;
mod snapshot;

pub use bitmap::Bitmap;
pub use check::{CheckReport, Problem, ProblemKind, check, check_storage};
pub(crate) use cluster::{ClusterSize, GuestCluster};
pub(crate) use create::NewOverlay;
pub(crate) use edit::{Edit, Source, Target, Write, data_file_name, plan_edit, refuse_corrupt};
pub(crate) use entry::L2Entry;
pub use header::Compression;
pub(crate) use header::l1_table_offset;
pub use image::Qcow2Image;
pub use info::{Info, info, info_storage};
pub(crate) use new_layout::{Backing, ImageLayout, NewImageOptions, Survey, TableWrite};
pub(crate) use on_disk::MAGIC;
pub(crate) use repair::{end_in_use, first_lost_reference, refcount_blocks, repair_leaks};
pub use snapshot::Snapshot;
