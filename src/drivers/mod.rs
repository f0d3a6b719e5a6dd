//! Driver media: INF, PE and catalogue facts, definitions, and the choice for a guest.
//!
//! ```text
//! Source (directory | ISO)  ─►  Candidate (one INF and its folder)  ─►  select(guest, definitions, policy)  ─►  Selection
//! ```
//!
//! Everything that Windows needs to know of a driver is read from its INF ([`inf`]); a built-in or user-made definition
//! ([`Definitions`]) only fills gaps and never overrules the INF silently. [`select()`] answers with packages that fit,
//! the ones that do not and why, and warnings.

mod assemble;
mod bare;
mod candidates;
pub mod definitions;
pub mod guest;
pub mod inf;
pub mod layout;
pub mod list;
pub mod package;
pub mod pe;
pub mod select;
pub mod source;
pub mod trust;

pub use definitions::{Definition, Definitions};
pub use guest::{Arch, GuestTarget, ProductType, Release};
pub use inf::Facts;
pub use layout::Layout;
pub use package::{BootDriver, Category, Package, PackageFile, Selection, Skipped};
pub use pe::PeFacts;
pub use select::select;
pub(crate) use select::select_with_or_without_storage;
pub use source::{Source, Sources};
pub use trust::{Policy, SignatureLevel};
