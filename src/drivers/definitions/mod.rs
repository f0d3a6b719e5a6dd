//! Driver definitions: which drivers are registered offline, and what a user adds about drivers and releases (YAML).
//!
//! The INF decides what a driver is. A definition names the drivers whose service is to be written offline (built in:
//! the virtio disk controllers), adds ids, and changes the order in which the media's release folders are tried. A user's
//! definition replaces the built-in one of the same service; the others stay.

mod category;
mod definition;
mod merged;
mod user_file;

pub use category::Category;
pub use definition::{Definition, Origin};
pub use merged::Definitions;
