//! Security descriptors and `$Secure`.
//!
//! [`descriptor`] builds and checks descriptors, [`sds`] knows how `$Secure:$SDS` is laid out, and
//! [`Volume::security_id`](crate::ntfs::Volume::security_id) finds or files a descriptor.

pub mod descriptor;
pub mod sds;
mod store;

pub use descriptor::{Protected, is_owned_by_system};
