//! Free clusters and records: finding, allocating and freeing them.

pub mod bitmap;
pub mod free_space;
pub mod mft;
