//! What a run did, as one structure with several printers: JSON for programs, a page (HTML) for people, Markdown for
//! tickets. What the page shows of it in tables and lists is in `sections`.
//!
//! The names of the fields under `virtio` are a contract with readers of existing reports
//! (`virtio.injected`, `virtio.drivers_found`, `virtio.packages_staged`, `virtio.registry_changes.success`,
//! `virtio.firstboot.success`, …); fields may be added, none may change its meaning.

mod collect;
mod fields;
pub(crate) mod html;
mod markdown;
mod planned;
mod recommend;
mod sections;
mod summary;
mod write;

pub use fields::*;
pub(crate) use recommend::{recommend, recommend_for};
pub use write::{check_junit, write, write_junit};
pub(super) use write::{refuse_other_files, targets};
