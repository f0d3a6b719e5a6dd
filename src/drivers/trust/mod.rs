//! Whether a driver is signed: embedded signatures, catalogues, and the policy for boot drivers.
//!
//! "Signed" means here: a signature is present, parses, and its hashes match. The signer is reported; chains are not
//! built, because it is the guest that decides which roots it trusts.

mod authenticode;
mod catalogue;
mod package;
mod pkcs7;
mod policy;
mod publisher;
mod report;

pub use authenticode::{embedded_signature, embedded_signature_alone};
pub use catalogue::Catalogue;
pub(crate) use package::catalogue_report;
pub use policy::{Policy, SignatureLevel};
pub(crate) use policy::{Subject, check_driver, too_new_digest};
pub use publisher::{Publisher, STORE_KEY};
pub use report::SignatureReport;
