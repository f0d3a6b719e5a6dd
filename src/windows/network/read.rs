//! Reads the settings of all adapters from the SYSTEM hive.
//!
//! The hive is the guest's: every text is parsed, and what does not parse is named in [`Network::unreadable`] in place of
//! being passed on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::adapter::{
    Adapter, AdapterKind, DnsRegistration, Ipv4Address, Ipv4Gateway, Ipv4Settings, Ipv6Settings, MacSource, Network,
    RecordedMac,
};
use super::address::{Mac, prefix_of_mask};
use super::nsi::{Luid, Records};
use super::presence::{Clock, ghost_reason};
use super::values::{EarlierValues, Values};
use crate::error::Result;
use crate::guid::Guid;
use crate::hive::{Hive, RegistryData};
use crate::upcase::Fold;
use crate::windows::registry;

/// The class of network adapters.
pub(super) const NET_CLASS: &str = "{4d36e972-e325-11ce-bfc1-08002be10318}";
/// How the instance id of a virtio device begins.
const VIRTIO: &str = "PCI\\VEN_1AF4&";
/// `Characteristics` of an adapter that is a device of the machine (`NCF_PHYSICAL`).
const PHYSICAL: u32 = 4;
/// The component of a team (LBFO).
const TEAM: &str = "COMPOSITEBUS\\MS_IMPLAT_MP";
/// Most adapters that are read.
const ADAPTERS_MAX: usize = 1024;
/// Most addresses, servers or routes of one adapter.
const LIST_MAX: usize = 256;
/// Most things that could not be read which are named.
const UNREADABLE_MAX: usize = 64;
/// Longest name that is taken, in characters.
const NAME_MAX: usize = 256;
/// The range of metrics that Windows takes.
const METRICS: std::ops::RangeInclusive<u32> = 1..=9999;

impl Network {
    /// Reads the settings of a control set. Damage is part of the answer: the settings are not needed to describe or edit
    /// a guest.
    #[must_use]
    pub fn read(system: &Hive, control_set: &str) -> Self {
        Self::read_before(system, control_set, &EarlierValues::default())
    }

    /// Like [`Self::read`], as the settings were before winject replaced the values of `earlier`.
    #[must_use]
    pub fn read_before(system: &Hive, control_set: &str, earlier: &EarlierValues) -> Self {
        let mut network = Self::default();
        if let Err(error) = network.read_from(&Values::new(system, earlier), control_set) {
            network.unreadable.push(format!("the hive is damaged there: {error}"));
        }
        network
    }

    fn read_from(&mut self, values: &Values<'_>, set: &str) -> Result<()> {
        let hive = values.hive;
        let parameters = format!("{set}\\Services\\Tcpip\\Parameters");
        self.search_list = self.parse_list(
            "SearchList",
            &registry::get_string(hive, &parameters, "SearchList")?.unwrap_or_default(),
            dns_name,
        );
        let records = Records::read(hive, set)?;
        if records.unknown > 0 {
            self.unreadable.push(format!("{} records of the network stack have an unknown form", records.unknown));
        }
        let mut found = devices(hive, set, &Clock::read(hive, set)?)?;
        // Settings of adapters that no device describes any more.
        for guid in registry::subkey_names(hive, &format!("{parameters}\\Interfaces"))? {
            if let Some(guid) = Guid::parse(&guid).filter(|guid| !found.contains_key(guid)) {
                found.insert(guid, Found { adapter: Adapter::unknown(guid), luid: None });
            }
        }
        let mut routes = Vec::new();
        for (name, _) in registry::key_values(hive, &format!("{parameters}\\PersistentRoutes"))? {
            match PersistentRoute::parse(&name) {
                Some(route) if routes.len() < LIST_MAX => routes.push(route),
                _ => self.unreadable(format!("persistent route {name:?}")),
            }
        }
        for (guid, found) in found.into_iter().take(ADAPTERS_MAX) {
            let Found { mut adapter, luid } = found;
            self.read_connection(values, set, &mut adapter)?;
            let key = guid.braced();
            adapter.ipv4 = self.read_ipv4(values, &ipv4_key(set, guid), &adapter.label())?;
            let ipv6 = format!("{set}\\Services\\Tcpip6\\Parameters\\Interfaces\\{key}");
            let text = registry::get_string(hive, &ipv6, "NameServer")?.unwrap_or_default();
            adapter.ipv6.dns = self.parse_list(&format!("IPv6 DNS server of {}", adapter.label()), &text, parse);
            take_records(&mut adapter, luid, &records, &routes);
            let is_shown = matches!(adapter.kind, AdapterKind::Hardware | AdapterKind::Team) || adapter.has_settings();
            self.adapters.extend(is_shown.then_some(adapter));
        }
        // By name: an order that people find again.
        self.adapters.sort_by_cached_key(|adapter| (adapter.label().folded(), adapter.guid));
        let shown = routes.iter().filter(|route| route.prefix > 0);
        self.persistent_routes = shown.map(PersistentRoute::to_string).collect();
        Ok(())
    }

    fn read_connection(&mut self, values: &Values<'_>, set: &str, adapter: &mut Adapter) -> Result<()> {
        let name = values.text(&connection_key(set, adapter.guid), "Name")?.filter(|name| !name.is_empty());
        let is_named = name.is_some();
        adapter.name = name.and_then(plain);
        if is_named && adapter.name.is_none() {
            self.unreadable(format!("name of the connection {}", adapter.guid.braced()));
        }
        Ok(())
    }

    fn read_ipv4(&mut self, values: &Values<'_>, key: &str, label: &str) -> Result<Ipv4Settings> {
        let mut ipv4 = Ipv4Settings::default();
        let texts = |name: &str| values.texts(key, name);
        let text = |name: &str| Ok::<_, crate::Error>(values.text(key, name)?.unwrap_or_default());
        let number = |name: &str| values.number(key, name);
        // Windows takes an interface without the value for one of DHCP.
        ipv4.dhcp = number("EnableDHCP")?.is_none_or(|enabled| enabled != 0);
        if ipv4.dhcp {
            ipv4.lease = parse::<Ipv4Addr>(&text("DhcpIPAddress")?).filter(|address| !address.is_unspecified());
        } else {
            let masks = texts("SubnetMask")?;
            for (at, address) in texts("IPAddress")?.iter().enumerate().take(LIST_MAX) {
                let mask = masks.get(at).and_then(|mask| prefix_of_mask(parse(mask)?)).filter(|prefix| *prefix > 0);
                match parse::<Ipv4Addr>(address).zip(mask).filter(|(address, _)| is_host(*address)) {
                    Some((address, prefix)) => {
                        ipv4.addresses.push(Ipv4Address { address, prefix, skip_as_source: false });
                    }
                    None if address == "0.0.0.0" => {}
                    None => self.unreadable(format!("IPv4 address {address:?} of {label}")),
                }
            }
            let metrics = texts("DefaultGatewayMetric")?;
            for (at, gateway) in texts("DefaultGateway")?.iter().enumerate().take(LIST_MAX) {
                let metric = metrics.get(at).and_then(|metric| metric.parse().ok()).filter(|m| METRICS.contains(m));
                match parse::<Ipv4Addr>(gateway).filter(|gateway| is_host(*gateway)) {
                    Some(address) => ipv4.gateways.push(Ipv4Gateway { address, metric }),
                    None if gateway == "0.0.0.0" => {}
                    None => self.unreadable(format!("gateway {gateway:?} of {label}")),
                }
            }
        }
        ipv4.metric = number("InterfaceMetric")?.filter(|metric| METRICS.contains(metric));
        ipv4.dns = self.parse_list(&format!("DNS server of {label}"), &text("NameServer")?, parse);
        let suffix = text("Domain")?;
        ipv4.dns_suffix = dns_name(&suffix);
        if ipv4.dns_suffix.is_none() && !suffix.is_empty() {
            self.unreadable(format!("DNS suffix {suffix:?} of {label}"));
        }
        ipv4.dns_registration = match (number("RegistrationEnabled")?, number("RegisterAdapterName")?) {
            (Some(0), _) => DnsRegistration::None,
            (_, Some(1)) => DnsRegistration::Both,
            _ => DnsRegistration::Primary,
        };
        Ok(ipv4)
    }

    /// The items of a text with blanks, commas or semicolons between them.
    fn parse_list<T>(&mut self, what: &str, text: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let mut out = Vec::new();
        for item in text.split([' ', ',', ';']).filter(|item| !item.is_empty()) {
            match parse(item) {
                Some(item) if out.len() < LIST_MAX => out.push(item),
                _ => self.unreadable(format!("{what} {item:?}")),
            }
        }
        out
    }

    fn unreadable(&mut self, what: String) {
        if self.unreadable.len() < UNREADABLE_MAX {
            self.unreadable.push(what.chars().take(NAME_MAX).collect());
        }
    }
}

/// The adapters that a driver key describes.
fn devices(hive: &Hive, set: &str, clock: &Clock) -> Result<BTreeMap<Guid, Found>> {
    let class = format!("{set}\\Control\\Class\\{NET_CLASS}");
    let mut found = BTreeMap::new();
    for number in registry::subkey_names(hive, &class)?.into_iter().take(ADAPTERS_MAX) {
        let key = format!("{class}\\{number}");
        let text = |name: &str| registry::get_string(hive, &key, name);
        let Some(guid) = text("NetCfgInstanceId")?.and_then(|text| Guid::parse(&text)) else { continue };
        let instance = text("DeviceInstanceID")?;
        let component = text("ComponentId")?.unwrap_or_default();
        let flags = registry::get_u32(hive, &key, "Characteristics")?.unwrap_or(0);
        let kind = match flags & PHYSICAL {
            _ if component.eq_ignore_ascii_case(TEAM) => AdapterKind::Team,
            0 => AdapterKind::Software,
            _ => AdapterKind::Hardware,
        };
        let override_mac = text("NetworkAddress")?.and_then(|text| Mac::parse(&text));
        let serial = instance.as_deref().and_then(mac_of_serial);
        let setup = format!("{set}\\Control\\NetworkSetup2\\Interfaces\\{}\\Kernel", guid.braced());
        let permanent = registry::get_value(hive, &setup, "PermanentAddress")?;
        let permanent = permanent.as_ref().and_then(|data: &RegistryData| Mac::from_bytes(&data.bytes));
        let macs = [
            (permanent, MacSource::NetworkSetup),
            (serial, MacSource::PciSerialNumber),
            (override_mac, MacSource::DriverSetting),
        ];
        let mut adapter = Adapter::unknown(guid);
        adapter.device = text("DriverDesc")?.and_then(plain);
        adapter.kind = kind;
        let is_virtio = instance.as_ref().and_then(|device| device.get(..VIRTIO.len()));
        let is_virtio = is_virtio.is_some_and(|device| device.eq_ignore_ascii_case(VIRTIO));
        adapter.recency = (is_virtio, number.parse().unwrap_or(0));
        adapter.mac = macs.into_iter().find_map(|(mac, source)| Some(RecordedMac { address: mac?, source }));
        adapter.ghost = ghost_reason(hive, set, guid, instance.as_deref(), clock)?;
        let number = |name: &str| registry::get_u32(hive, &key, name);
        let luid = number("NetLuidIndex")?.zip(number("*IfType")?).and_then(|(index, kind)| Luid::new(index, kind));
        // A second driver key of the same adapter would be a leftover: the first that is not a ghost counts.
        match found.get(&guid) {
            Some(Found { adapter: earlier, .. }) if earlier.ghost.is_none() => {}
            _ => drop(found.insert(guid, Found { adapter, luid })),
        }
    }
    Ok(found)
}

/// The key with the name of an adapter's connection.
pub(super) fn connection_key(set: &str, guid: Guid) -> String {
    format!("{set}\\Control\\Network\\{NET_CLASS}\\{}\\Connection", guid.braced())
}

/// The key with an adapter's IPv4 settings.
pub(super) fn ipv4_key(set: &str, guid: Guid) -> String {
    format!("{set}\\Services\\Tcpip\\Parameters\\Interfaces\\{}", guid.braced())
}

/// An adapter while it is read.
struct Found {
    adapter: Adapter,
    luid: Option<Luid>,
}

impl Adapter {
    fn unknown(guid: Guid) -> Self {
        Self {
            guid,
            name: None,
            device: None,
            recency: (false, 0),
            kind: AdapterKind::Unknown,
            ghost: Some("no driver is installed for it any more".to_owned()),
            mac: None,
            ipv4: Ipv4Settings::default(),
            ipv6: Ipv6Settings::default(),
        }
    }
}

/// Adds what the records of the network stack say of an adapter.
fn take_records(adapter: &mut Adapter, luid: Option<Luid>, records: &Records, persistent: &[PersistentRoute]) {
    let recorded = records.macs.iter().find(|(guid, _)| *guid == adapter.guid);
    let is_surer = adapter.mac.is_none_or(|mac| mac.source != MacSource::NetworkSetup);
    if let Some((_, address)) = recorded.filter(|_| is_surer && adapter.kind != AdapterKind::Unknown) {
        adapter.mac = Some(RecordedMac { address: *address, source: MacSource::InterfaceRecord });
    }
    let Some(luid) = luid else { return };
    for address in &mut adapter.ipv4.addresses {
        address.skip_as_source = records.skipped_ipv4.contains(&(luid, address.address));
    }
    let is_persistent = |destination, prefix, next_hop| {
        persistent.iter().any(|r| (r.destination, r.prefix, r.gateway) == (destination, prefix, next_hop))
    };
    let own4 = records.ipv4_routes.iter().filter(|(of, _)| *of == luid).map(|(_, route)| *route);
    let bound = own4.filter(|route| !is_persistent(route.destination, route.prefix, route.next_hop));
    adapter.ipv4.routes = bound.take(LIST_MAX).collect();
    let own6 = records.ipv6_addresses.iter().filter(|(of, _)| *of == luid).map(|(_, address)| *address);
    adapter.ipv6.addresses = own6.take(LIST_MAX).collect();
    let routes6 = records.ipv6_routes.iter().filter(|(of, _)| *of == luid).map(|(_, route)| *route);
    adapter.ipv6.routes = routes6.take(LIST_MAX).collect();
}

/// A route of `PersistentRoutes`: `destination,mask,gateway,metric` (-1: Windows chooses the metric).
struct PersistentRoute {
    destination: Ipv4Addr,
    prefix: u8,
    gateway: Ipv4Addr,
}

impl PersistentRoute {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split(',');
        let (destination, mask, gateway) = (parse(parts.next()?)?, parse(parts.next()?)?, parse(parts.next()?)?);
        parts.next().filter(|metric| metric.parse::<i64>().is_ok())?;
        parts.next().is_none().then_some(())?;
        Some(Self { destination, prefix: prefix_of_mask(mask)?, gateway })
    }
}

impl std::fmt::Display for PersistentRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} via {}", self.destination, self.prefix, self.gateway)
    }
}

fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

/// Whether an adapter or a router can have this address.
const fn is_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast() && !address.is_loopback()
}

/// A name that can be shown and logged: without control characters, and not longer than Windows allows.
fn plain(name: String) -> Option<String> {
    (name.chars().count() <= NAME_MAX && !name.chars().any(char::is_control)).then_some(name)
}

/// A DNS name: labels of letters, digits, `-` and `_`.
fn dns_name(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        let is_sign = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(is_sign) && !label.starts_with('-')
    };
    (text.len() <= 253 && text.split('.').all(is_label)).then(|| text.to_owned())
}

/// The MAC address in the serial number of a PCI device, the last part of its instance id: 16 digits and `00`. e1000e
/// writes its address with `FFFF` in the middle; vmxnet3 writes it with `FFFE` there and both halves byte-swapped.
fn mac_of_serial(instance: &str) -> Option<Mac> {
    let (device, serial) = instance.rsplit_once('\\')?;
    let [a, b, c, d, e, f, g, h, 0] = <[u8; 9]>::try_from(crate::hex::decode(serial)?).ok()? else { return None };
    if !device.get(..4)?.eq_ignore_ascii_case("PCI\\") {
        return None;
    }
    match (a, d, e, h) {
        (_, 0xff, 0xff, _) => Mac::from_bytes(&[a, b, c, f, g, h]),
        (0xff, _, _, 0xfe) => Mac::from_bytes(&[d, c, b, g, f, e]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_stand_in_serial_numbers_in_two_forms() {
        let read = |text: &str| mac_of_serial(text).map(|mac| mac.to_string());
        let e1000e = "PCI\\VEN_8086&DEV_10D3&SUBSYS_07D015AD&REV_00\\000C29FFFFF3FFDE00";
        assert_eq!(read(e1000e).as_deref(), Some("00:0c:29:f3:ff:de"));
        let vmxnet3 = "PCI\\VEN_15AD&DEV_07B0&SUBSYS_07B015AD&REV_01\\FF565000B37984FE00";
        assert_eq!(read(vmxnet3).as_deref(), Some("00:50:56:84:79:b3"));
        for none in ["PCI\\VEN_8086\\3&11583659&0&C8", "", "PCI\\VEN_8086\\", "ROOT\\X\\000C29FFFFF3FFDE00"] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn routes_and_names_are_read_strictly() {
        let shown = |text: &str| PersistentRoute::parse(text).map(|route| route.to_string());
        assert_eq!(shown("10.1.0.0,255.255.0.0,10.0.0.254,-1").as_deref(), Some("10.1.0.0/16 via 10.0.0.254"));
        for wrong in ["", "10.1.0.0", "10.1.0.0,255.0.255.0,10.0.0.1,1", "1.1.1.1,255.0.0.0,1.1.1.1,1,2", "a,b,c,d"] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
        for wrong in ["", "a..b", "a b", "a\"b", "-a", "a&b", "a\n"] {
            assert_eq!(dns_name(wrong), None, "{wrong:?}");
        }
        assert_eq!(parse::<std::net::Ipv6Addr>("fe80::1%3"), None);
    }
}
