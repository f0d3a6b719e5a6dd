//! The fleet: one job over many images, each in a process of its own.
//!
//! [`record`] says what happened as JSON lines, [`outcome`] is the one table of what can become of an item.

pub mod outcome;
pub mod record;

pub use outcome::Outcome;
pub use record::{Begun, Ended, Event, Finished, ItemResult, Planned, Progressed, Shard, Started};
