//! The network settings of a guest: read offline, shown by inspection, and given to its new adapters at the first boot.
//!
//! | job | where |
//! |---|---|
//! | what there is to know of an adapter | `adapter` |
//! | reads the registry | `read`, `nsi` (binary records), `presence` (ghost adapters), `values` (as it was before winject) |
//! | which adapters get their settings back, and how | `options`, `choose`, `commands` |
//! | the steps of the first-boot job, and the report | `plan`, `release`, `record` |
//! | MAC addresses and subnet masks | `address` |

mod adapter;
mod address;
mod choose;
mod commands;
mod nsi;
pub mod options;
pub mod plan;
mod presence;
mod read;
pub mod record;
mod release;
mod values;

#[cfg(test)]
mod tests;

pub use adapter::{
    Adapter, AdapterKind, DnsRegistration, Ipv4Address, Ipv4Gateway, Ipv4Route, Ipv4Settings, Ipv6Address, Ipv6Route,
    Ipv6Settings, MacSource, Network, RecordedMac,
};
pub use address::Mac;
pub use choose::{KeptAdapter, KeptNetwork, choose_adapters};
pub use options::{FormerAdapter, NetworkOptions, NewMac};
pub(super) use release::{is_connection, is_name_taken};
pub use values::EarlierValues;
