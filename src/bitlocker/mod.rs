//! BitLocker volumes: read and written through the volume's key, below the file system.
//!
//! ```text
//! header (first sector) → three copies of the metadata → Metadata ──unlock(secrets)──► Unlocked: the plain view
//! ```
//!
//! [`Metadata`] is what can be said without any secret. [`Metadata::unlock`] opens the volume by its clear key or by one of
//! the [`Secret`]s, and [`Unlocked`] reads and writes the plain view: what the file system sees. Metadata, the areas that
//! are reserved for it, and the physical first 8 KiB are never written.

mod metadata;
mod protector;
mod secret;
mod unlock;

pub use metadata::{Cipher, Metadata, State, Variant};
pub use protector::{Protector, ProtectorKind};
pub use secret::Secret;
pub use unlock::{OpenedBy, Unlocked};
