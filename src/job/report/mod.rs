//! What a run did, as one structure: JSON for programs, Markdown for people.
//!
//! The names of the fields under `virtio` are a contract with readers of existing reports
//! (`virtio.injected`, `virtio.drivers_found`, `virtio.packages_staged`, `virtio.registry_changes.success`,
//! `virtio.firstboot.success`, …); fields may be added, none may change its meaning.

mod collect;
mod fields;
mod markdown;
mod planned;
mod recommend;
mod summary;
mod write;

pub use fields::*;
pub(crate) use recommend::recommend;
pub use write::write;
pub(super) use write::{refuse_other_files, targets};
