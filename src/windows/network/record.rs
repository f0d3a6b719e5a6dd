//! What an injection does about the network, as the report lists it.

use serde::Serialize;

use super::choose::KeptAdapter;

/// What is done about the network.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct NetworkRecord {
    /// Adapters whose settings the first-boot job gives to the new ones.
    pub kept: Vec<KeptAdapterRecord>,
    /// Ghost adapters from which an address is taken.
    pub released: Vec<String>,
}

/// An adapter whose settings are kept.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct KeptAdapterRecord {
    /// Name of the former connection.
    pub connection: String,
    /// GUID of the former adapter.
    pub guid: String,
    /// MAC address by which the job finds the new adapter.
    pub mac: String,
    /// What the job runs: arguments of `netsh`, with placeholders for the adapter.
    pub netsh: Vec<String>,
    /// DNS suffix of the connection; left out if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_suffix: Option<String>,
}

impl KeptAdapterRecord {
    pub(super) fn of(adapter: &KeptAdapter) -> Self {
        Self {
            connection: adapter.name.clone(),
            guid: adapter.guid.braced(),
            mac: adapter.mac.to_string(),
            netsh: adapter.commands.iter().chain(&adapter.rename).cloned().collect(),
            dns_suffix: adapter.dns_suffix.clone(),
        }
    }
}
