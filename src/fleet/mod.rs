//! The fleet: one job over many images, each in a process of its own.
//!
//! ```text
//! list → items → shard → schedule → supervisor ──► worker (one process an item)
//!                                       └──► records: JSON lines, one result an item
//! records ──► merge ──► tally ──► summary, page, junit, metrics (files)
//! ```
//!
//! A worker is the command of one image, so that a crash, a lack of memory or a hostile image costs its item only, and the
//! sandbox holds for each image alone. Nothing here opens an image, prints or reads the environment.

mod answer;
mod conclusion;
pub mod files;
pub mod item;
mod junit;
pub mod list;
pub mod merge;
mod metrics;
pub mod outcome;
mod page;
pub mod record;
pub mod results;
pub mod schedule;
pub mod shard;
pub mod summary;
pub mod supervisor;
pub mod tally;
#[cfg(test)]
mod testing;
pub mod worker;

pub use item::Item;
pub use outcome::{Outcome, Verdict};
pub use record::{Begun, Ended, Event, Finished, ItemResult, Planned, Progressed, Shard, Skipped, Started};
