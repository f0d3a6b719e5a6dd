//! The B+tree of an index.

mod blocks;
mod edit;
mod node;
mod tree;

pub(super) use edit::BtreeEditor;
pub(super) use tree::Btree;
