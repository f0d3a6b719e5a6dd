//! Finds Windows installations on a volume and describes them as a [`Guest`].

pub(super) mod guest;
pub(super) mod installation;

pub use guest::{ControlSet, Guest};
pub use installation::{Hives, Inspected, inspect, is_windows_volume, windows_folders};
