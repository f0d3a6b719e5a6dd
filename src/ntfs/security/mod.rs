//! Security descriptors and `$Secure`.

pub mod descriptor;
pub mod sds;

pub use descriptor::Protected;
