//! Security descriptors and `$Secure`.
//!
//! [`descriptor`] builds and checks descriptors, [`inherited`] computes that of a new file, [`sds`] knows how `$Secure:$SDS` is laid out, and
//! [`Volume::security_id`](crate::ntfs::Volume::security_id) finds or files a descriptor.

mod choose;
pub mod descriptor;
mod inherit;
pub mod sds;
mod store;

pub use descriptor::{Protected, is_owned_by_system};
pub use inherit::inherited;

pub(super) use choose::{choose_security, security_id_exists};
pub(super) use store::{Lookup, add_descriptor, descriptor_of, find_descriptor, security_descriptor};
