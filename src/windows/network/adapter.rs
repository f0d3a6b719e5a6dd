//! The network settings of a guest, as its SYSTEM hive holds them.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::address::Mac;
use crate::guid::Guid;

/// The network settings of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Network {
    /// The adapters: those of hardware, and any other with settings of its own.
    pub adapters: Vec<Adapter>,
    /// Suffixes that are tried for names without a dot, for all adapters (`SearchList`). They stay in the guest.
    pub search_list: Vec<String>,
    /// IPv4 routes that are not bound to an adapter (`PersistentRoutes`): `10.1.0.0/16 via 10.0.0.254`. They stay in the
    /// guest.
    pub persistent_routes: Vec<String>,
    /// What could not be read, in words.
    pub unreadable: Vec<String>,
}

/// One adapter with its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Adapter {
    /// Its GUID, by which Windows files its settings.
    pub guid: Guid,
    /// Name of the connection: `Ethernet0`.
    pub name: Option<String>,
    /// Name of the device: `Intel(R) 82574L Gigabit Network Connection`.
    pub device: Option<String>,
    /// What kind of adapter it is.
    pub kind: AdapterKind,
    /// Which of two adapters with one MAC address is the later one, the greater: the new machine's are virtio devices, and
    /// the numbers of driver keys rise.
    #[serde(skip)]
    pub(super) recency: (bool, u32),
    /// Why its device counts as removed, if it does: a ghost adapter.
    pub ghost: Option<String>,
    /// Its MAC address, if the hive holds it.
    pub mac: Option<RecordedMac>,
    /// IPv4 settings.
    pub ipv4: Ipv4Settings,
    /// IPv6 settings.
    pub ipv6: Ipv6Settings,
}

/// A MAC address, and which record of the hive it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct RecordedMac {
    /// The address.
    pub address: Mac,
    /// Where it stands.
    pub source: MacSource,
}

/// Where the hive holds a MAC address, the surest record first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MacSource {
    /// `PermanentAddress` in `Control\NetworkSetup2` (Windows 10 and later).
    NetworkSetup,
    /// The interface's record of NDIS in `Control\Nsi` (Windows 7 to 8.1).
    InterfaceRecord,
    /// The PCI serial number in the device's instance id, which e1000e and vmxnet3 derive from the MAC address.
    PciSerialNumber,
    /// `NetworkAddress` of the driver: an address that was set in the guest.
    DriverSetting,
}

/// What an adapter is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AdapterKind {
    /// A device of the machine.
    Hardware,
    /// A team of other adapters (LBFO).
    Team,
    /// Made by software: a virtual switch, a tunnel, a loopback adapter.
    Software,
    /// Nothing describes it any more: only its settings are left.
    Unknown,
}

/// IPv4 settings of an adapter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Ipv4Settings {
    /// Whether the addresses come from DHCP.
    pub dhcp: bool,
    /// The address of the last lease, if they do.
    pub lease: Option<Ipv4Addr>,
    /// Static addresses, in order.
    pub addresses: Vec<Ipv4Address>,
    /// Default gateways, in order.
    pub gateways: Vec<Ipv4Gateway>,
    /// Metric of the interface; `None` if Windows chooses it.
    pub metric: Option<u32>,
    /// Static DNS servers, in order.
    pub dns: Vec<Ipv4Addr>,
    /// DNS suffix of the connection.
    pub dns_suffix: Option<String>,
    /// Which names the adapter registers at its DNS server.
    pub dns_registration: DnsRegistration,
    /// Routes that are bound to this adapter, without its default gateways.
    pub routes: Vec<Ipv4Route>,
}

/// A static IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Ipv4Address {
    /// The address.
    pub address: Ipv4Addr,
    /// Length of its prefix in bits.
    pub prefix: u8,
    /// Whether Windows avoids it as source of what it sends.
    pub skip_as_source: bool,
}

/// An IPv4 default gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Ipv4Gateway {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its metric; `None` if Windows chooses it.
    pub metric: Option<u32>,
}

/// An IPv4 route of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Ipv4Route {
    /// The network that it leads to.
    pub destination: Ipv4Addr,
    /// Length of its prefix in bits.
    pub prefix: u8,
    /// The next router; `0.0.0.0` if the network is reached directly.
    pub next_hop: Ipv4Addr,
}

/// Which names an adapter registers at its DNS server (`RegistrationEnabled`, `RegisterAdapterName`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DnsRegistration {
    /// None.
    None,
    /// The computer's name with its primary suffix.
    #[default]
    Primary,
    /// That, and the name with the connection's suffix.
    Both,
}

/// IPv6 settings of an adapter. Whether it uses router advertisements and DHCPv6 is not read: the records of that are not
/// known well enough.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Ipv6Settings {
    /// Static addresses.
    pub addresses: Vec<Ipv6Address>,
    /// Routes that are bound to this adapter; that to `::/0` is the default gateway.
    pub routes: Vec<Ipv6Route>,
    /// Static DNS servers, in order.
    pub dns: Vec<Ipv6Addr>,
}

/// A static IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Ipv6Address {
    /// The address.
    pub address: Ipv6Addr,
    /// Length of its prefix in bits.
    pub prefix: u8,
    /// Whether Windows avoids it as source of what it sends.
    pub skip_as_source: bool,
}

/// An IPv6 route of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Ipv6Route {
    /// The network that it leads to.
    pub destination: Ipv6Addr,
    /// Length of its prefix in bits.
    pub prefix: u8,
    /// The next router; `::` if the network is reached directly.
    pub next_hop: Ipv6Addr,
}

impl Adapter {
    /// The name for people: that of the connection, else its GUID.
    #[must_use]
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.guid.braced())
    }

    /// Whether anything was set by hand, so that a new adapter would not have it by itself.
    #[must_use]
    pub fn has_settings(&self) -> bool {
        let Ipv4Settings { addresses, metric, dns, dns_suffix, dns_registration, routes, .. } = &self.ipv4;
        let has_ipv4 = !addresses.is_empty() || metric.is_some() || !dns.is_empty() || dns_suffix.is_some();
        let Ipv6Settings { addresses, routes: routes6, dns } = &self.ipv6;
        let has_ipv6 = !addresses.is_empty() || !routes6.is_empty() || !dns.is_empty();
        has_ipv4 || has_ipv6 || !routes.is_empty() || *dns_registration != DnsRegistration::Primary
    }
}
