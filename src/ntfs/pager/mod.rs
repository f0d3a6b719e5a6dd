//! The ground of the open volume: its device, and the blocks of it in memory with their undo.

mod blocks;
mod cache;
mod index;
mod index_block;
mod streams;
mod write_back;

pub(super) use cache::Pager;
pub(super) use index::{BLOCKS_MAX, Index};
pub(super) use index_block::CachedBlock;
