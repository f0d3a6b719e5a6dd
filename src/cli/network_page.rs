//! The network settings of a guest, as `winject inspect` prints them.

use std::fmt::{Result, Write};

use crate::escape::EscapedLines;
use crate::windows::{Adapter, AdapterKind, DnsRegistration, MacSource, Network};

/// Prints the adapters with their settings, and what all of them share.
///
/// # Errors
/// When `out` fails.
pub fn write_network(out: &mut EscapedLines<String>, network: &Network) -> Result {
    for adapter in &network.adapters {
        write_adapter(out, adapter)?;
    }
    for (what, list) in [
        ("DNS search list", &network.search_list),
        ("persistent route", &network.persistent_routes),
        ("cannot be read", &network.unreadable),
    ] {
        for item in list {
            writeln!(out, "           network: {what}: {item}")?;
        }
    }
    Ok(())
}

fn write_adapter(out: &mut EscapedLines<String>, adapter: &Adapter) -> Result {
    let device = adapter.device.as_deref().map(|device| format!(" ({device})")).unwrap_or_default();
    let mac = adapter.mac.map_or_else(
        || "MAC address not recorded".to_owned(),
        |mac| {
            let note = if mac.source == MacSource::DriverSetting { " (set in the guest)" } else { "" };
            format!("MAC {}{note}", mac.address)
        },
    );
    let kind = match adapter.kind {
        AdapterKind::Team => ", a team of adapters",
        AdapterKind::Software => ", made by software",
        AdapterKind::Hardware | AdapterKind::Unknown => "",
    };
    writeln!(out, "Network:   {}{device}, {mac}{kind}", adapter.label())?;
    if let Some(reason) = &adapter.ghost {
        writeln!(out, "           ghost adapter: {reason}")?;
    }
    for line in lines(adapter) {
        writeln!(out, "           {line}")?;
    }
    Ok(())
}

/// The settings in words, those of one kind on a line.
fn lines(adapter: &Adapter) -> Vec<String> {
    let ipv4 = &adapter.ipv4;
    let mut lines = Vec::new();
    if ipv4.dhcp {
        let lease = ipv4.lease.map(|address| format!(", last {address}")).unwrap_or_default();
        lines.push(format!("IPv4: DHCP{lease}"));
    } else {
        let addresses = ipv4.addresses.iter().map(|a| format!("{}/{}", a.address, a.prefix));
        push(&mut lines, "IPv4", addresses);
    }
    let gateways = ipv4.gateways.iter().map(|gateway| match gateway.metric {
        Some(metric) => format!("{} (metric {metric})", gateway.address),
        None => gateway.address.to_string(),
    });
    push(&mut lines, "gateway", gateways);
    push(&mut lines, "metric", ipv4.metric.iter().map(u32::to_string));
    push(&mut lines, "DNS", ipv4.dns.iter().map(ToString::to_string));
    push(&mut lines, "DNS suffix", ipv4.dns_suffix.iter().cloned());
    let registration = match ipv4.dns_registration {
        DnsRegistration::None => Some("no name"),
        DnsRegistration::Primary => None,
        DnsRegistration::Both => Some("also the name with the connection's suffix"),
    };
    push(&mut lines, "DNS registration", registration.into_iter().map(str::to_owned));
    let routes = ipv4.routes.iter().map(|r| format!("{}/{} via {}", r.destination, r.prefix, r.next_hop));
    push(&mut lines, "route", routes);
    let addresses = adapter.ipv6.addresses.iter().map(|a| format!("{}/{}", a.address, a.prefix));
    push(&mut lines, "IPv6", addresses);
    let routes = adapter.ipv6.routes.iter().map(|r| format!("{}/{} via {}", r.destination, r.prefix, r.next_hop));
    push(&mut lines, "IPv6 route", routes);
    push(&mut lines, "IPv6 DNS", adapter.ipv6.dns.iter().map(ToString::to_string));
    lines
}

fn push(lines: &mut Vec<String>, what: &str, items: impl Iterator<Item = String>) {
    let items: Vec<String> = items.collect();
    if !items.is_empty() {
        lines.push(format!("{what}: {}", items.join(", ")));
    }
}
