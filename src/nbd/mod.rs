//! A client for NBD (Network Block Device): images that `nbdkit`, `qemu-nbd` or another server exports, read and edited in place.
//!
//! Fixed newstyle handshake, structured replies, `base:allocation`, several requests in flight on one connection. The server is
//! not trusted: what it sends is bounded by what was asked for. Integers on the wire are big endian. Source: the protocol and
//! URI documents of the NBD project.

mod cache;
mod connection;
mod edit_host;
mod export;
mod extents;
mod failure;
mod handshake;
mod incomplete;
mod link;
mod named;
mod options;
mod output;
mod read_ahead;
pub mod reply;
mod requests;
mod seen;
mod sender;
mod sequence;
mod storage;
mod stream;
mod ticket;
mod uri;
mod writer;

pub use edit_host::ExportHost;
pub use export::Export;
pub(crate) use incomplete::is_incomplete;
pub(crate) use link::IDENTITY;
pub(crate) use named::named_export;
pub use options::{NbdOptions, StatusHook};
pub(crate) use output::ExportOutput;
pub use storage::NbdStorage;
pub(crate) use stream::resolve_now;
pub use uri::{Address, NbdUri};
pub(crate) use uri::{export_key, is_same_export, network_notes};
