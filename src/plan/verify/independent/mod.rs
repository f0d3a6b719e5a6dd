//! A reader of NTFS for verification. It shares no code with the writer ([`crate::ntfs`]): it was written from the
//! format's description alone, reads every layout that NTFS allows, and writes nothing.
//!
//! | what | where |
//! |---|---|
//! | attribute lists, resident or not, on every file and on `$MFT` | `file` |
//! | mapping pairs in any number of records, holes, uninitialised ends, LZNT1 | `record`, `stream`, `lznt1` |
//! | clusters of 512 bytes to 2 MiB, records and index blocks of 512 bytes to 64 KiB in any combination | `geometry`, `index` |
//! | names under the volume's own `$UpCase` | `file` |
//! | security descriptors of `$Secure` | `security` |
//!
//! The crate `ntfs` is a third opinion where it can read, see [`IndependentVolume::compare_with_third_opinion`].

mod block_cache;
mod bytes;
mod file;
mod geometry;
mod index;
mod lznt1;
mod record;
mod security;
mod stream;
mod third_opinion;
mod volume;

pub use volume::{Found, IndependentVolume};
