//! Finds Windows installations on a volume and describes them as a [`Guest`].

mod describe;
pub(super) mod guest;
pub(super) mod installation;
pub(super) mod program;
mod state;
mod version;

pub use guest::{ControlSet, Guest};
pub use installation::{Hives, Inspected, inspect, load_other_hives, windows_folders};
