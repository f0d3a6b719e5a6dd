//! Values of the guest's own that winject replaces when it is asked to: where they are, and what may become of them.

use crate::hive::RegistryData;
use crate::plan::change::GuestHive;

/// Filter drivers of former hypervisors that are taken out of the lists of filters. No plan takes out another one, such
/// as `partmgr`, without which no disk comes up.
pub(crate) const REMOVABLE_FILTERS: [&str; 6] =
    ["prl_mouf", "prl_strg", "vboxmouse", "vmmouse", "vmusbmouse", "xenfilt"];

/// What is put after the name of a connection whose name a new one gets.
const FORMER_CONNECTION: &str = " (former)";
/// Largest number in the name of a former connection.
pub(crate) const FORMER_MAX: u32 = 99;

/// The class of network adapters, in lower case.
const NET_CLASS: &str = "{4d36e972-e325-11ce-bfc1-08002be10318}";
/// The values of static IPv4 settings, in lower case.
const STATIC_IPV4: [&str; 4] = ["ipaddress", "subnetmask", "defaultgateway", "defaultgatewaymetric"];

/// The values that list filters.
const FILTER_LISTS: [&str; 2] = ["upperfilters", "lowerfilters"];

/// The names of a key in lower case below `ControlSetNNN`.
pub(super) fn below_control_set(key: &str) -> Option<Vec<&str>> {
    let (set, rest) = key.split_once('\\')?;
    let number = set.strip_prefix("controlset")?;
    let is_set = number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_set.then(|| rest.split('\\').collect())
}

/// Whether winject makes this of a value of the guest's own: `key` in lower case, `data` is `None` where it removes the
/// value.
pub(super) fn is_replaceable(
    hive: GuestHive,
    key: &str,
    name: &str,
    data: Option<&RegistryData>,
    before: Option<&RegistryData>,
) -> bool {
    if is_replacement(hive, key, name, data, before) {
        return true;
    }
    let name = name.to_ascii_lowercase();
    hive == GuestHive::System
        && match below_control_set(key).as_deref() {
            Some(["services", _]) => name == "start" && data.is_some_and(|data| data.as_u32().is_some()),
            // an adapter that is gone loses its static addresses
            Some(["services", "tcpip", "parameters", "interfaces", _]) => match data {
                None => STATIC_IPV4.contains(&name.as_str()),
                Some(data) => name == "enabledhcp" && *data == RegistryData::dword(1),
            },
            Some(["services", "partmgr", "parameters"]) => name == "sanpolicy",
            Some(_) => false,
            // an id that leads to a driver that cannot start
            None => key.starts_with("driverdatabase\\deviceids\\") && data.is_none(),
        }
}

/// Like [`is_replaceable`], for places outside those that winject writes to in any case.
pub(super) fn is_replacement(
    hive: GuestHive,
    key: &str,
    name: &str,
    data: Option<&RegistryData>,
    before: Option<&RegistryData>,
) -> bool {
    let name = name.to_ascii_lowercase();
    hive == GuestHive::System
        && match below_control_set(key).as_deref() {
            Some(["control", "crashcontrol"]) => name == "autoreboot" && data == Some(&RegistryData::dword(0)),
            Some(["control", "network", NET_CLASS, _, "connection"]) => name == "name" && is_former_name(data, before),
            Some(["control", "class", _] | ["enum", _, _, _]) => {
                FILTER_LISTS.contains(&name.as_str()) && only_removable_filters_go(data, before)
            }
            _ => false,
        }
}

/// The name of a former connection: `NAME (former)`, or `NAME (former 2)` where that is taken.
pub(crate) fn former_connection(name: &str, number: u32) -> String {
    match number {
        0 | 1 => format!("{name}{FORMER_CONNECTION}"),
        _ => format!("{name} (former {number})"),
    }
}

/// Whether this is the name of a former connection.
pub(crate) fn is_former_connection(name: &str) -> bool {
    name.ends_with(FORMER_CONNECTION) || (2..=FORMER_MAX).any(|number| name.ends_with(&former_connection("", number)))
}

/// Whether a connection keeps its name, with what marks a former one after it.
fn is_former_name(data: Option<&RegistryData>, before: Option<&RegistryData>) -> bool {
    let Some(name) = before.and_then(RegistryData::as_text) else { return false };
    (1..=FORMER_MAX).any(|number| data == Some(&RegistryData::sz(&former_connection(&name, number))))
}

/// Whether a list of filters only loses such as may be taken out, and keeps the others in their order.
fn only_removable_filters_go(data: Option<&RegistryData>, before: Option<&RegistryData>) -> bool {
    let (Some(before), Some(left)) = (before, data.map_or(Some(Vec::new()), RegistryData::as_texts)) else {
        return false;
    };
    let is_removable = |name: &str| REMOVABLE_FILTERS.iter().any(|filter| filter.eq_ignore_ascii_case(name));
    let kept: Vec<String> = before.to_texts().into_iter().filter(|name| !is_removable(name)).collect();
    let mut left = left.into_iter().filter(|name| !is_removable(name));
    // what stays of the removable ones was there, too: nothing is added
    let added = data.map(RegistryData::to_texts).unwrap_or_default();
    let was_there = |name: &String| before.to_texts().contains(name);
    kept.into_iter().eq(&mut left) && added.iter().all(was_there)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: &str = "controlset001\\control\\class\\{4d36e97d-e325-11ce-bfc1-08002be10318}";

    fn list(names: &[&str]) -> RegistryData {
        RegistryData::multi_sz(names)
    }

    #[test]
    fn a_list_of_filters_only_loses_those_of_former_hypervisors() {
        let before = list(&["partmgr", "XENFILT", "other"]);
        let judge = |data: Option<&RegistryData>, before: &RegistryData| {
            is_replacement(GuestHive::System, CLASS, "UpperFilters", data, Some(before))
        };
        assert!(judge(Some(&list(&["partmgr", "other"])), &before));
        assert!(judge(None, &list(&["xenfilt"])));
        for data in [
            list(&["other", "partmgr"]),
            list(&["partmgr"]),
            list(&["partmgr", "other", "more"]),
            list(&["partmgr", "other", "vmmouse"]),
            list(&[]),
            RegistryData::sz("partmgr"),
        ] {
            assert!(!judge(Some(&data), &before), "{data}");
        }
        assert!(!judge(None, &before));
        assert!(!is_replacement(GuestHive::System, CLASS, "UpperFilters", Some(&list(&["xenfilt"])), None));
        assert!(!is_replacement(GuestHive::System, CLASS, "Class", None, Some(&list(&["xenfilt"]))));
        assert!(!is_replacement(GuestHive::Software, CLASS, "UpperFilters", None, Some(&list(&["xenfilt"]))));
        let device = "controlset001\\enum\\acpi\\pnp0f13\\4&1";
        let lower = |key: &str| is_replacement(GuestHive::System, key, "LowerFilters", None, Some(&list(&["vmmouse"])));
        assert!(lower(device));
        assert!(!lower(&format!("{device}\\device parameters")) && !lower("controlset001\\enum\\acpi"));
    }

    #[test]
    fn a_connection_only_becomes_a_former_one_and_a_ghost_only_loses_addresses() {
        let key = format!("controlset001\\control\\network\\{NET_CLASS}\\{{guid}}\\connection");
        let judge = |name: &str, data: &str, before: &str| {
            let (data, before) = (RegistryData::sz(data), RegistryData::sz(before));
            is_replacement(GuestHive::System, &key, name, Some(&data), Some(&before))
        };
        assert!(judge("Name", "LAN (former)", "LAN") && judge("Name", "LAN (former 2)", "LAN"));
        for name in ["LAN (former 1)", "LAN (former 100)", "LAN (former 02)", "LAN (former) 2", "LAN (former x)"] {
            assert!(!judge("Name", name, "LAN"), "{name}");
        }
        assert!(!judge("Name", "LAN", "LAN (former)") && !judge("Name", "WAN (former)", "LAN"));
        assert!(!judge("PnpInstanceID", "LAN (former)", "LAN"));
        assert!(!is_replacement(GuestHive::System, &key, "Name", None, Some(&RegistryData::sz("LAN"))));
        let key = "controlset001\\services\\tcpip\\parameters\\interfaces\\{guid}";
        let replaced = |name, data: Option<&RegistryData>| is_replaceable(GuestHive::System, key, name, data, None);
        assert!(replaced("IPAddress", None) && replaced("EnableDHCP", Some(&RegistryData::dword(1))));
        assert!(!replaced("NameServer", None) && !replaced("EnableDHCP", Some(&RegistryData::dword(0))));
        assert!(!replaced("IPAddress", Some(&RegistryData::multi_sz(&["10.0.0.9"]))));
    }

    #[test]
    fn settings_only_become_what_the_options_say() {
        let key = "controlset001\\control\\crashcontrol";
        let (none, zero, one) = (None, Some(RegistryData::dword(0)), Some(RegistryData::dword(1)));
        let judge =
            |name, data: &Option<RegistryData>| is_replacement(GuestHive::System, key, name, data.as_ref(), None);
        assert!(judge("AutoReboot", &zero));
        assert!(!judge("AutoReboot", &one) && !judge("AutoReboot", &none) && !judge("CrashDumpEnabled", &zero));
        let replaced = |name, data: &Option<RegistryData>| {
            is_replaceable(GuestHive::System, "controlset001\\services\\vmtools", name, data.as_ref(), None)
        };
        assert!(replaced("Start", &one));
        assert!(!replaced("ImagePath", &one) && !replaced("Start", &none));
    }
}
