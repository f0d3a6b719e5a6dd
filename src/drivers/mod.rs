//! Driver media: INF, PE and catalogue facts, definitions, and the choice for a guest.
//!
//! ```text
//! Source (directory | ISO)  ─►  Candidate (one INF and its folder)  ─►  select(guest, definitions, policy)  ─►  Selection
//! ```
//!
//! Everything that Windows needs to know of a driver is read from its INF ([`inf`]); a built-in or user-made definition
//! ([`Definitions`]) only fills gaps and never overrules the INF silently. [`select()`] returns the packages that fit,
//! those that do not with the reason, and warnings.

mod choose;
pub mod definitions;
mod find;
pub mod guest;
mod guest_agent;
pub mod inf;
pub mod package;
pub mod pe;
pub mod source;
pub mod trust;

pub(crate) use choose::select_with_or_without_storage;
pub use choose::{list, select};
pub use definitions::{Category, Definition, Definitions};
pub use find::ContentIndex;
pub use guest::{Arch, GuestTarget, ProductType, Release};
pub(crate) use guest_agent::COMPOUND_FILE;
pub use guest_agent::find_guest_agent;
pub use inf::Facts;
pub use package::{BootDriver, Package, PackageFile, Selection, Skipped};
pub use pe::PeFacts;
pub use source::{Layout, Source, Sources};
pub use trust::{Policy, SignatureLevel};
