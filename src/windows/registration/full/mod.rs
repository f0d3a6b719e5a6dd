//! The records that Windows itself writes when it installs a third-party package (`--registration full`): driver store,
//! `oemN.inf`, catalogue, and the whole of `DriverDatabase`.
//!
//! Which keys, values and types there are was read out of real hives; tests compare with them. What such a record says
//! about its origin is only what we know: no signer is claimed that was not found in the catalogue.

pub(crate) mod driver_store;
pub(crate) mod earlier;
pub(crate) mod oem_number;
mod records;
pub(super) mod register;
pub(crate) mod services;

pub use records::{Form, Names, Origin, Records, image_path, records, service_values};
