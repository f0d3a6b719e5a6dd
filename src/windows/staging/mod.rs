//! The driver packages that lie ready in the guest for its own Windows to install.

pub(super) mod device_path;
pub(super) mod manifest;
pub(super) mod packages;
