//! Which adapters get their settings back, and by which MAC address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::adapter::{Adapter, AdapterKind, MacSource, Network};
use super::address::Mac;
use super::commands::{rename_command, settings_commands};
use super::options::{FormerAdapter, NetworkOptions, NewMac};
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::shell_word;
use crate::guid::Guid;
use crate::upcase::Fold;

/// What is done with the network of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptNetwork {
    /// The adapters that get their settings back.
    pub adapters: Vec<KeptAdapter>,
    /// Ghost adapters that hold an IPv4 address of these: it is taken from them.
    pub released: Vec<(Guid, String)>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// What may leave the guest without its network.
    pub warnings: Vec<String>,
}

/// An adapter that gets its settings back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAdapter {
    /// The former adapter.
    pub guid: Guid,
    /// The name of its connection; its GUID if it has none.
    pub name: String,
    /// The MAC address by which the new adapter is found.
    pub mac: Mac,
    /// Arguments of `netsh`, one call each.
    pub commands: Vec<String>,
    /// The command that restores the connection's name, if it can be restored.
    pub rename: Option<String>,
    /// The DNS suffix of the connection, which `netsh` cannot set.
    pub dns_suffix: Option<String>,
}

/// Decides for each adapter.
///
/// # Errors
/// [`Kind::Usage`] when `--mac` names an adapter that the guest does not have, or one twice.
pub fn choose_adapters(network: &Network, options: &NetworkOptions) -> Result<KeptNetwork> {
    let mut out = KeptNetwork::default();
    if !options.keep {
        return Ok(out);
    }
    let superseded = find_superseded(network);
    let named = find_named(network, &options.new_macs, &superseded)?;
    let mut macs = BTreeSet::new();
    for adapter in &network.adapters {
        let new = named.iter().find(|(guid, _)| *guid == adapter.guid).map(|(_, mac)| *mac);
        if let (None, Some(later)) = (new, superseded.get(&adapter.guid)) {
            out.notes.push(format!(
                "the settings of {:?} ({}) are not kept: {:?} ({}) has the same MAC address and was installed later",
                adapter.label(),
                adapter.guid.braced(),
                later.label(),
                later.guid.braced()
            ));
            continue;
        }
        let Some(mac) = out.mac_of(adapter, new) else { continue };
        if !macs.insert(mac) {
            let what = format!("cannot give two adapters' settings to the one with MAC address {mac}");
            return Err(usage(what, network));
        }
        let rename = adapter.name.as_deref().and_then(rename_command);
        if let (Some(name), None) = (&adapter.name, &rename) {
            out.notes.push(format!("the connection name {name:?} is not restored: it holds characters with a meaning"));
        }
        out.adapters.push(KeptAdapter {
            guid: adapter.guid,
            name: adapter.label(),
            mac,
            commands: settings_commands(adapter),
            rename,
            dns_suffix: adapter.ipv4.dns_suffix.clone(),
        });
    }
    out.release_ghosts(network);
    out.say_what_stays(network);
    Ok(out)
}

impl KeptNetwork {
    /// The MAC address by which the new adapter is found; `None` for an adapter that is left out.
    fn mac_of(&mut self, adapter: &Adapter, new: Option<Mac>) -> Option<Mac> {
        if new.is_some() {
            return new;
        }
        if !adapter.has_settings() {
            return None;
        }
        let label = adapter.label();
        // The name is the guest's: as a word of a shell it runs nothing.
        let word = shell_word(&format!("{label}=MAC")).unwrap_or_else(|| format!("'{}=MAC'", adapter.guid.braced()));
        let advice = format!("--mac {word} gives its settings to the adapter with that address");
        if let Some(reason) = &adapter.ghost {
            self.notes.push(format!("the settings of {label:?} are not kept: {reason}; {advice}"));
            return None;
        }
        match adapter.kind {
            AdapterKind::Hardware => {}
            AdapterKind::Team => {
                self.warnings.push(format!(
                    "the settings of the team {label:?} are not kept: its members do not exist on the new machine; {advice}"
                ));
                return None;
            }
            AdapterKind::Software | AdapterKind::Unknown => {
                self.notes.push(format!("the settings of {label:?} stay with it: software makes this adapter"));
                return None;
            }
        }
        let Some(mac) = adapter.mac else {
            self.warnings.push(format!(
                "the settings of {label:?} are not kept: the guest does not record its MAC address; {advice}"
            ));
            return None;
        };
        if mac.source == MacSource::DriverSetting {
            self.warnings.push(format!(
                "the MAC address of {label:?} was set in the guest; if the new machine has another one, {advice}"
            ));
        }
        Some(mac.address)
    }

    /// Takes the addresses of kept adapters from adapters that are gone: an address belongs to one of them only, and
    /// Windows warns of the other.
    fn release_ghosts(&mut self, network: &Network) {
        let is_kept = |guid: Guid| self.adapters.iter().any(|kept| kept.guid == guid);
        let of = |adapter: &Adapter| -> BTreeSet<Ipv4Addr> {
            adapter.ipv4.addresses.iter().map(|address| address.address).collect()
        };
        let (kept, others): (Vec<&Adapter>, Vec<&Adapter>) =
            network.adapters.iter().partition(|adapter| is_kept(adapter.guid));
        let wanted: BTreeSet<Ipv4Addr> = kept.into_iter().flat_map(of).collect();
        for ghost in others.into_iter().filter(|adapter| adapter.ghost.is_some()) {
            let held: Vec<String> = of(ghost).intersection(&wanted).map(ToString::to_string).collect();
            if !held.is_empty() {
                let label = ghost.label();
                self.notes.push(format!("the ghost adapter {label:?} loses its address {}", held.join(", ")));
                self.released.push((ghost.guid, label));
            }
        }
    }

    fn say_what_stays(&mut self, network: &Network) {
        if self.adapters.is_empty() {
            self.notes.push("no adapter has settings to keep".to_owned());
        }
        if !network.persistent_routes.is_empty() {
            let routes = network.persistent_routes.join(", ");
            self.notes.push(format!("persistent routes stay in the guest and need nothing: {routes}"));
        }
        for item in &network.unreadable {
            self.warnings.push(format!("a network setting cannot be read and is not kept: {item}"));
        }
    }
}

/// Adapters that are not known as ghosts, but have the MAC address of one that was installed later: after a migration the
/// guest has both, and before Windows 8 it notes nowhere that the device of the former is gone. With the later ones.
fn find_superseded(network: &Network) -> BTreeMap<Guid, &Adapter> {
    let may_be_kept =
        |adapter: &&Adapter| adapter.kind == AdapterKind::Hardware && adapter.ghost.is_none() && adapter.has_settings();
    let candidates: Vec<&Adapter> = network.adapters.iter().filter(may_be_kept).collect();
    let mut latest: BTreeMap<Mac, &Adapter> = BTreeMap::new();
    for adapter in &candidates {
        let Some(mac) = adapter.mac else { continue };
        let known = latest.entry(mac.address).or_insert(adapter);
        if adapter.recency > known.recency {
            *known = adapter;
        }
    }
    let later = |adapter: &&Adapter| {
        let latest = *latest.get(&adapter.mac?.address)?;
        (latest.guid != adapter.guid).then_some((adapter.guid, latest))
    };
    candidates.iter().filter_map(later).collect()
}

/// The adapters that `--mac` names, with their new addresses.
fn find_named(
    network: &Network,
    new_macs: &[NewMac],
    superseded: &BTreeMap<Guid, &Adapter>,
) -> Result<Vec<(Guid, Mac)>> {
    let mut out: Vec<(Guid, Mac)> = Vec::new();
    for named in new_macs {
        let fits = |adapter: &&Adapter| match &named.former {
            FormerAdapter::Mac(mac) => adapter.mac.is_some_and(|recorded| recorded.address == *mac),
            FormerAdapter::Connection(name) => {
                [adapter.label(), adapter.guid.braced()].iter().any(|own| own.folded() == name.folded())
            }
        };
        // A MAC address or a name may stand with a ghost, too, or with the former one of two.
        let mut fitting: Vec<&Adapter> = network.adapters.iter().filter(fits).collect();
        if fitting.len() > 1 {
            fitting.retain(|adapter| adapter.ghost.is_none() && !superseded.contains_key(&adapter.guid));
        }
        let &[adapter] = fitting.as_slice() else {
            let why = if fitting.is_empty() { "the guest has no such adapter" } else { "several adapters have it" };
            return Err(usage(format!("cannot use --mac \"{named}\": {why}"), network));
        };
        if out.iter().any(|(guid, _)| *guid == adapter.guid) {
            return Err(usage(format!("cannot use --mac \"{named}\": the adapter is named twice"), network));
        }
        out.push((adapter.guid, named.new));
    }
    Ok(out)
}

fn usage(what: String, network: &Network) -> Error {
    let shown = network.adapters.iter().map(|adapter| {
        let mac = adapter.mac.map_or_else(|| "no MAC address recorded".to_owned(), |mac| mac.address.to_string());
        format!("{} ({mac})", adapter.label())
    });
    let shown: Vec<String> = shown.take(32).collect();
    let hint = if shown.is_empty() {
        "the guest has no network adapter with settings; leave --mac out".to_owned()
    } else {
        format!("the guest has {}; winject inspect IMAGE shows their settings", shown.join(", "))
    };
    Error::new(Kind::Usage, Layer::Windows, what).hint(hint)
}
