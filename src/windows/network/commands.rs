//! The `netsh` commands that give an adapter its former settings.
//!
//! `{index}` and `{index6}` stand for the interface indexes of the new adapter; the job puts them in. So no text of the
//! guest gets into a command but addresses, which were parsed, and the name of the connection.

use super::adapter::{Adapter, DnsRegistration, Ipv4Address, Ipv4Settings, Ipv6Settings};
use super::address::mask_of_prefix;

/// Longest connection name that is restored, in characters.
const NAME_MAX: usize = 255;

/// The commands for all settings but the name, in the order in which they run; empty for an adapter that has none.
pub(super) fn settings_commands(adapter: &Adapter) -> Vec<String> {
    let mut out = Vec::new();
    add_ipv4(&adapter.ipv4, &mut out);
    add_ipv6(&adapter.ipv6, &mut out);
    out
}

/// The command that gives the connection this name; `None` if the name has characters that Windows refuses in one, or that
/// mean something to the job or a command line.
pub(super) fn rename_command(name: &str) -> Option<String> {
    let is_unsafe = |c: char| c.is_control() || "\\/:*?\"<>|{}%!".contains(c);
    let is_plain = !name.is_empty() && name.chars().count() <= NAME_MAX && !name.chars().any(is_unsafe);
    is_plain.then(|| format!("interface set interface name={{name}} newname=\"{name}\""))
}

fn add_ipv4(ipv4: &Ipv4Settings, out: &mut Vec<String>) {
    // The first address is set without `skipassource`, which only `add` knows.
    let first = ipv4.addresses.iter().position(|address| !address.skip_as_source).unwrap_or(0);
    if let Some(Ipv4Address { address, prefix, .. }) = ipv4.addresses.get(first) {
        let gateway = match ipv4.gateways.first() {
            Some(gateway) => format!("gateway={}{}", gateway.address, gateway_metric(gateway.metric)),
            None => "gateway=none".to_owned(),
        };
        let mask = mask_of_prefix(*prefix);
        out.push(format!(
            "interface ipv4 set address name={{index}} source=static address={address} mask={mask} {gateway}"
        ));
        for (_, other) in ipv4.addresses.iter().enumerate().filter(|(at, _)| *at != first) {
            let Ipv4Address { address, prefix, skip_as_source } = other;
            let (mask, skip) = (mask_of_prefix(*prefix), skip_text(*skip_as_source));
            out.push(format!("interface ipv4 add address name={{index}} address={address} mask={mask}{skip}"));
        }
        for gateway in ipv4.gateways.iter().skip(1) {
            let metric = gateway_metric(gateway.metric);
            out.push(format!("interface ipv4 add address name={{index}} gateway={}{metric}", gateway.address));
        }
    }
    if let Some(metric) = ipv4.metric {
        out.push(format!("interface ipv4 set interface interface={{index}} metric={metric}"));
    }
    for route in &ipv4.routes {
        out.push(format!(
            "interface ipv4 add route prefix={}/{} interface={{index}} nexthop={}",
            route.destination, route.prefix, route.next_hop
        ));
    }
    let register = match ipv4.dns_registration {
        DnsRegistration::None => "none",
        DnsRegistration::Primary => "primary",
        DnsRegistration::Both => "both",
    };
    if ipv4.dns.is_empty() && ipv4.dns_registration != DnsRegistration::Primary {
        let source = if ipv4.dhcp { "source=dhcp" } else { "source=static address=none" };
        out.push(format!("interface ipv4 set dnsservers name={{index}} {source} register={register}"));
    }
    add_servers("ipv4", "{index}", ipv4.dns.iter().map(ToString::to_string), register, out);
}

fn add_ipv6(ipv6: &Ipv6Settings, out: &mut Vec<String>) {
    for address in &ipv6.addresses {
        let skip = skip_text(address.skip_as_source);
        out.push(format!(
            "interface ipv6 add address interface={{index6}} address={}/{}{skip}",
            address.address, address.prefix
        ));
    }
    for route in &ipv6.routes {
        out.push(format!(
            "interface ipv6 add route prefix={}/{} interface={{index6}} nexthop={}",
            route.destination, route.prefix, route.next_hop
        ));
    }
    add_servers("ipv6", "{index6}", ipv6.dns.iter().map(ToString::to_string), "primary", out);
}

/// DNS servers in their order. Windows is not to ask whether they answer: the network need not be complete yet.
fn add_servers(
    family: &str,
    index: &str,
    servers: impl Iterator<Item = String>,
    register: &str,
    out: &mut Vec<String>,
) {
    for (at, server) in (1_usize..).zip(servers) {
        out.push(if at == 1 {
            format!(
                "interface {family} set dnsservers name={index} source=static address={server} register={register} \
                 validate=no"
            )
        } else {
            format!("interface {family} add dnsservers name={index} address={server} index={at} validate=no")
        });
    }
}

fn gateway_metric(metric: Option<u32>) -> String {
    metric.map(|metric| format!(" gwmetric={metric}")).unwrap_or_default()
}

const fn skip_text(skip_as_source: bool) -> &'static str {
    if skip_as_source { " skipassource=true" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_quotes_are_not_restored() {
        let expected = "interface set interface name={name} newname=\"LAN & Büro ^ 2\"";
        assert_eq!(rename_command("LAN & Büro ^ 2").as_deref(), Some(expected));
        for name in ["", "a\"b", "a\nb", "a\tb", "{name}", "100%", "a!b", "a|b", "a<b", &"x".repeat(256)] {
            assert_eq!(rename_command(name), None, "{name:?}");
        }
    }
}
