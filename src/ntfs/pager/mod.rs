//! Blocks of the volume in memory.

pub mod blocks;
