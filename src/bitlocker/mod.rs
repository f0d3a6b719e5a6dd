//! BitLocker volumes: read and written through the volume's key, below the file system.
//!
//! ```text
//! header (first sector) → three copies of the metadata → Metadata ──unlock(secrets)──► Unlocked: the plain view
//! ```
//!
//! [`Metadata`] is what can be said without any secret. [`Metadata::unlock`] opens the volume by its clear key or by one of
//! the [`Secret`]s, and [`Unlocked`] reads and writes the plain view: what the file system sees. Metadata, the areas that
//! are reserved for it, and the physical first 8 KiB are never written.
//!
//! The facts come from libyal's "BitLocker Drive Encryption (BDE) format" and from measurements on published volumes.

mod block;
mod cipher;
mod entry;
mod header;
mod key;
mod layout;
mod metadata;
mod offer;
mod protector;
mod refusal;
#[cfg(test)]
pub(crate) mod sample;
mod secret;
mod state;
mod stretch;
mod unlock;
mod view;

pub use cipher::{Cipher, Sector, SectorCipher};
pub use header::is_header;
pub use metadata::Metadata;
pub(crate) use offer::{Offer, Offered};
pub use protector::{Protector, ProtectorKind};
pub use secret::Secret;
pub use state::{State, Variant};
pub use unlock::OpenedBy;
pub use view::Unlocked;
