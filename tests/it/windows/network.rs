//! Network settings: what the first-boot job would run is what an independent reader computes from the same hive.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

use winject::internals::error::Kind;
use winject::internals::guid::Guid;
use winject::internals::hive::{Hive, RegistryData, ValueType};
use winject::internals::random::Random;
use winject::internals::windows::{
    Adapter, AdapterKind, KeptNetwork, MacSource, Network, NetworkOptions, NewMac, choose_adapters,
};

use super::guests::NOW;
use crate::hive::support::clean_hive;
use crate::support;

const SET: &str = "ControlSet001";
const NET: &str = "{4D36E972-E325-11CE-BFC1-08002BE10318}";
const NSI: &str = "Control\\Nsi\\{eb004a01-9b1a-11d4-9123-0050047759bc}";
const NSI4: &str = "Control\\Nsi\\{eb004a00-9b1a-11d4-9123-0050047759bc}";
const TIMES: &str = "Properties\\{83da6326-97a6-4088-9453-a1923f573b29}";

fn set(hive: &mut Hive, key: &str, name: &str, data: &RegistryData) {
    let key = hive.create_key(hive.root(), &format!("{SET}\\{key}"), NOW).unwrap();
    hive.set_value(key, name, data, NOW).unwrap();
}

fn texts(items: &[&str]) -> RegistryData {
    RegistryData::multi_sz(items)
}

/// An adapter to put into a hive.
struct Made {
    number: u32,
    instance: String,
    component: &'static str,
    characteristics: u32,
    mac: Option<[u8; 6]>,
    values: Vec<(&'static str, RegistryData)>,
    name: String,
}

impl Made {
    fn hardware(number: u32, name: &str) -> Self {
        let byte = u8::try_from(number).unwrap();
        Self {
            number,
            instance: format!("PCI\\VEN_15AD&DEV_07B0&SUBSYS_07B015AD&REV_01\\4&{number}&0&00A8"),
            component: "pci\\ven_15ad&dev_07b0",
            characteristics: 0x84,
            mac: Some([0, 0x50, 0x56, 0x80, 0, byte]),
            values: Vec::new(),
            name: name.to_owned(),
        }
    }

    fn with(mut self, values: Vec<(&'static str, RegistryData)>) -> Self {
        self.values.extend(values);
        self
    }

    /// Static, with these addresses of /24 and gateways.
    fn fixed(self, addresses: &[&str], gateways: &[&str], metrics: &[&str]) -> Self {
        let masks = vec!["255.255.255.0"; addresses.len()];
        self.with(vec![
            ("EnableDHCP", RegistryData::dword(0)),
            ("IPAddress", texts(addresses)),
            ("SubnetMask", texts(&masks)),
            ("DefaultGateway", texts(gateways)),
            ("DefaultGatewayMetric", texts(metrics)),
        ])
    }

    fn guid(&self) -> String {
        format!("{{AAAAAAAA-0000-0000-0000-{:012X}}}", self.number)
    }

    fn luid(&self) -> String {
        let [a, b, ..] = (0x8000 + self.number).to_le_bytes();
        format!("000000{a:02x}{b:02x}000600")
    }

    fn put(&self, hive: &mut Hive) {
        let guid = self.guid();
        let class = format!("Control\\Class\\{NET}\\{:04}", 100 + self.number);
        for (name, data) in [
            ("NetCfgInstanceId", RegistryData::sz(&guid)),
            ("DriverDesc", RegistryData::sz("an adapter")),
            ("DeviceInstanceID", RegistryData::sz(&self.instance)),
            ("ComponentId", RegistryData::sz(self.component)),
            ("Characteristics", RegistryData::dword(self.characteristics)),
            ("NetLuidIndex", RegistryData::dword(0x8000 + self.number)),
            ("*IfType", RegistryData::dword(6)),
        ] {
            set(hive, &class, name, &data);
        }
        set(hive, &format!("Enum\\{}", self.instance), "ConfigFlags", &RegistryData::dword(0));
        if let Some(mac) = self.mac {
            let key = format!("Control\\NetworkSetup2\\Interfaces\\{guid}\\Kernel");
            set(hive, &key, "PermanentAddress", &RegistryData::binary(mac));
        }
        set(hive, &format!("Control\\Network\\{NET}\\{guid}\\Connection"), "Name", &RegistryData::sz(&self.name));
        for (name, data) in &self.values {
            set(hive, &format!("Services\\Tcpip\\Parameters\\Interfaces\\{guid}"), name, data);
        }
    }

    /// A time of the device: 0066 its arrival, 0067 its removal.
    fn time(&self, hive: &mut Hive, property: &str, time: u64) {
        let data = RegistryData::new(ValueType(0xffff_0010), time.to_le_bytes());
        set(hive, &format!("Enum\\{}\\{TIMES}\\{property}", self.instance), "", &data);
    }

    fn ipv6(&self, hive: &mut Hive, address: &str, prefix: u8, skip: u8) {
        let address: Ipv6Addr = address.parse().unwrap();
        let mut data = vec![0xff; 48];
        data[8..18].copy_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0, prefix, skip]);
        let name = format!("{}{:032x}", self.luid(), address.to_bits());
        set(hive, &format!("{NSI}\\10"), &name, &RegistryData::binary(data));
    }

    fn route6(&self, hive: &mut Hive, prefix: &str, length: u8, hop: &str) {
        let (prefix, hop): (Ipv6Addr, Ipv6Addr) = (prefix.parse().unwrap(), hop.parse().unwrap());
        let zeros = "0".repeat(38);
        let luid = self.luid();
        let name = format!("00000000{:032x}{length:02x}{zeros}{luid}{luid}{:032x}", prefix.to_bits(), hop.to_bits());
        set(hive, &format!("{NSI}\\16"), &name, &RegistryData::binary([0xff; 56]));
    }

    fn route4(&self, hive: &mut Hive, prefix: Ipv4Addr, length: u8, hop: Ipv4Addr) {
        let zeros = "0".repeat(30);
        let luid = self.luid();
        let (prefix, hop) = (prefix.to_bits(), hop.to_bits());
        let name = format!("00000000{prefix:08x}{length:02x}{zeros}{luid}{luid}{hop:08x}00000000");
        set(hive, &format!("{NSI4}\\16"), &name, &RegistryData::binary([0xff; 56]));
    }
}

type Steps = BTreeMap<String, (String, Vec<String>)>;

fn ours(kept: &KeptNetwork) -> (Steps, BTreeSet<String>) {
    let steps = kept.adapters.iter().map(|adapter| {
        let netsh = adapter.commands.iter().chain(&adapter.rename).cloned().collect();
        (adapter.guid.braced(), (adapter.mac.to_string(), netsh))
    });
    (steps.collect(), kept.released.iter().map(|(guid, _)| guid.braced()).collect())
}

fn keep(macs: &[&str]) -> NetworkOptions {
    NetworkOptions { keep: true, new_macs: macs.iter().map(|text| NewMac::parse(text).unwrap()).collect() }
}

/// Compares with the judge, and answers with what we do.
fn judged(hive: Hive, macs: &[&str]) -> Option<(Network, KeptNetwork)> {
    let (python, script) = (support::judge_python()?, support::judge("netsettings.py")?);
    let network = Network::read(&hive, SET);
    let kept = choose_adapters(&network, &keep(macs)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("SYSTEM");
    std::fs::write(&file, hive.finish(&[]).unwrap()).unwrap();
    let out = support::run(Command::new(python).arg(script).arg(&file).args(macs));
    let seen: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let steps = seen["kept"].as_array().unwrap().iter().map(|step| {
        let netsh = step["netsh"].as_array().unwrap().iter().map(text).collect();
        (text(&step["guid"]), (text(&step["mac"]), netsh))
    });
    let released: BTreeSet<String> = seen["released"].as_array().unwrap().iter().map(text).collect();
    assert_eq!(ours(&kept), (steps.collect(), released));
    let adapters = seen["adapters"].as_array().unwrap().iter().map(|adapter| {
        let (guid, name) = (text(&adapter["guid"]), text(&adapter["name"]));
        (guid, (name, text(&adapter["mac"]), adapter["ghost"].as_bool().unwrap()))
    });
    let own = network.adapters.iter().map(|adapter: &Adapter| {
        let mac = adapter.mac.map(|mac| mac.address.to_string()).unwrap_or_default();
        (adapter.guid.braced(), (adapter.name.clone().unwrap_or_default(), mac, adapter.ghost.is_some()))
    });
    let (own, adapters): (BTreeMap<_, _>, BTreeMap<_, _>) = (own.collect(), adapters.collect());
    assert_eq!(own, adapters);
    Some((network, kept))
}

fn real(name: &str) -> Option<Hive> {
    Some(Hive::open(clean_hive(name)?).unwrap())
}

fn adapters_of_real_hives_are_read() {
    for (hive, name, mac, source) in [
        ("hives/win7", "Local Area Connection 2", "00:50:56:a5:12:69", MacSource::InterfaceRecord),
        ("hives/win8.1", "Ethernet", "08:00:27:49:97:16", MacSource::InterfaceRecord),
        ("hives/win10-1909", "Ethernet0", "00:0c:29:f3:ff:de", MacSource::NetworkSetup),
    ] {
        let Some(hive) = real(&format!("{hive}/SYSTEM.xz")) else { return };
        let Some((network, kept)) = judged(hive, &[]) else { return };
        let adapter = network.adapters.iter().find(|adapter| adapter.name.as_deref() == Some(name)).unwrap();
        assert_eq!(adapter.mac.map(|mac| (mac.address.to_string(), mac.source)), Some((mac.to_owned(), source)));
        assert!(adapter.ghost.is_none() && network.unreadable.is_empty(), "{:?}", network.unreadable);
        assert_eq!(kept.adapters.len(), usize::from(name.ends_with('2')), "the others have DHCP");
    }
    // The Windows 7 of the corpus has an adapter of an earlier machine, with an address of its own.
    let Some(hive) = real("hives/win7/SYSTEM.xz") else { return };
    let network = Network::read(&hive, SET);
    let ghost = network.adapters.iter().find(|adapter| adapter.ghost.is_some()).unwrap();
    assert_eq!(ghost.ipv4.addresses[0].address, Ipv4Addr::new(192, 168, 1, 123));
    let kept = choose_adapters(&network, &keep(&["Local Area Connection=52:54:00:00:00:09"])).unwrap();
    assert_eq!(kept.adapters.len(), 2, "a ghost that is named gets its settings back, too");
}

fn every_kind_of_setting_becomes_a_command() {
    for base in ["hives/win10-1909/SYSTEM.xz", "hives/win8.1/SYSTEM.xz", "hives/win7/SYSTEM.xz"] {
        let Some(mut hive) = real(base) else { return };
        let one = Made::hardware(1, "LAN").fixed(&["10.0.0.5"], &["10.0.0.1"], &["0"]);
        let two = Made::hardware(2, "DMZ & Büro")
            .fixed(&["10.1.0.5", "10.1.0.6", "10.1.0.7"], &["10.1.0.1", "10.1.0.2"], &["5", "20"])
            .with(vec![
                ("InterfaceMetric", RegistryData::dword(15)),
                ("NameServer", RegistryData::sz("10.1.0.53,10.1.0.54 10.1.0.55")),
                ("Domain", RegistryData::sz("dmz.example.com")),
                ("RegisterAdapterName", RegistryData::dword(1)),
            ]);
        let dhcp = Made::hardware(3, "DHCP").with(vec![("EnableDHCP", RegistryData::dword(1))]);
        let with_dns = Made::hardware(4, "DHCP with DNS").with(vec![
            ("EnableDHCP", RegistryData::dword(1)),
            ("NameServer", RegistryData::sz("1.1.1.1")),
            ("IPAddress", texts(&["10.9.9.9"])),
        ]);
        let silent = Made::hardware(5, "silent").with(vec![("RegistrationEnabled", RegistryData::dword(0))]);
        let six = Made::hardware(6, "IPv6");
        let mut team = Made::hardware(7, "Team 1").fixed(&["10.7.0.5"], &["10.7.0.1"], &["0"]);
        (team.component, team.characteristics) = ("COMPOSITEBUS\\MS_IMPLAT_MP", 0x81);
        let mut unknown_mac = Made::hardware(8, "no MAC").fixed(&["10.8.0.5"], &[], &[]);
        unknown_mac.mac = None;
        let ghost = Made::hardware(9, "old").fixed(&["10.0.0.5"], &["10.0.0.1"], &["0"]);
        let gone = Made::hardware(10, "older").fixed(&["10.1.0.6"], &[], &[]);
        for made in [&one, &two, &dhcp, &with_dns, &silent, &six, &team, &unknown_mac, &ghost, &gone] {
            made.put(&mut hive);
        }
        six.ipv6(&mut hive, "2001:db8::5", 64, 0);
        six.ipv6(&mut hive, "2001:db8::6", 64, 1);
        six.route6(&mut hive, "::", 0, "2001:db8::1");
        six.route6(&mut hive, "2001:db8:1::", 48, "2001:db8::2");
        let key = format!("Services\\Tcpip6\\Parameters\\Interfaces\\{}", six.guid());
        set(&mut hive, &key, "NameServer", &RegistryData::sz("2001:db8::53,2001:db8::54"));
        two.route4(&mut hive, Ipv4Addr::new(172, 16, 0, 0), 12, Ipv4Addr::new(10, 1, 0, 9));
        two.route4(&mut hive, Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 1, 0, 1));
        two.route4(&mut hive, Ipv4Addr::new(172, 20, 0, 0), 16, Ipv4Addr::new(10, 1, 0, 9));
        set(
            &mut hive,
            "Services\\Tcpip\\Parameters\\PersistentRoutes",
            "172.20.0.0,255.255.0.0,10.1.0.9,1",
            &RegistryData::sz(""),
        );
        ghost.time(&mut hive, "0066", NOW.0);
        ghost.time(&mut hive, "0067", NOW.0 + 1);
        let root = hive.find(hive.root(), &format!("{SET}\\Enum\\{}", gone.instance)).unwrap().unwrap();
        hive.delete_key(root, NOW).unwrap();
        let Some((network, kept)) = judged(hive, &["Team 1=52:54:00:00:00:07"]) else { return };

        let of = |number: u32| {
            let guid = Guid::parse(&Made::hardware(number, "").guid()).unwrap();
            kept.adapters.iter().find(|adapter| adapter.guid == guid)
        };
        for number in [1, 2, 4, 5, 6, 7] {
            assert!(of(number).is_some(), "{number} in {base}");
        }
        for number in [3, 8, 9, 10] {
            assert!(of(number).is_none(), "{number} in {base}");
        }
        assert_eq!(of(4).unwrap().commands.len(), 1, "the address that DHCP replaced is not set");
        assert_eq!(of(7).unwrap().mac.to_string(), "52:54:00:00:00:07");
        assert_eq!(of(2).unwrap().dns_suffix.as_deref(), Some("dmz.example.com"));
        let routes: Vec<&String> = of(2).unwrap().commands.iter().filter(|command| command.contains("route")).collect();
        assert_eq!(routes.len(), 1, "default gateways and persistent routes are not applied twice: {routes:?}");
        assert_eq!(kept.released.len(), 2, "{:?}", kept.released);
        assert!(
            kept.warnings.iter().any(|warning| warning.contains("no MAC") && warning.contains("--mac 'no MAC=MAC'"))
        );
        assert!(network.persistent_routes.contains(&"172.20.0.0/16 via 10.1.0.9".to_owned()));
        let team = network.adapters.iter().find(|adapter| adapter.name.as_deref() == Some("Team 1")).unwrap();
        assert_eq!(team.kind, AdapterKind::Team);
    }
}

fn a_team_is_not_taken_apart_unasked() {
    let mut hive = Hive::create("SYSTEM", NOW);
    let mut team = Made::hardware(1, "Team 1").fixed(&["10.7.0.5"], &["10.7.0.1"], &["0"]);
    team.component = "COMPOSITEBUS\\MS_IMPLAT_MP";
    team.put(&mut hive);
    let kept = choose_adapters(&Network::read(&hive, SET), &keep(&[])).unwrap();
    assert!(kept.adapters.is_empty());
    assert!(kept.warnings.iter().any(|warning| warning.contains("the team \"Team 1\"")), "{:?}", kept.warnings);
}

fn an_address_that_no_adapter_has_is_an_error_that_names_the_adapters() {
    let mut hive = Hive::create("SYSTEM", NOW);
    for (number, name) in [(1, "LAN"), (2, "DMZ")] {
        Made::hardware(number, name).fixed(&["10.0.0.5"], &[], &[]).put(&mut hive);
    }
    let network = Network::read(&hive, SET);
    for macs in [
        &["00:50:56:80:00:09=52:54:00:00:00:01"][..],
        &["WAN=52:54:00:00:00:01"],
        &["LAN=52:54:00:00:00:01", "00:50:56:80:00:01=52:54:00:00:00:02"],
        &["LAN=52:54:00:00:00:01", "DMZ=52:54:00:00:00:01"],
    ] {
        let error = choose_adapters(&network, &keep(macs)).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        let hint = error.hint_text().unwrap();
        assert!(hint.contains("LAN (00:50:56:80:00:01)") && hint.contains("winject inspect"), "{hint}");
    }
    let kept = choose_adapters(&network, &keep(&["lan=52:54:00:00:00:01"])).unwrap();
    assert_eq!(kept.adapters.len(), 2, "names are compared as Windows compares them");
    let off = NetworkOptions { keep: false, ..keep(&[]) };
    assert_eq!(choose_adapters(&network, &off).unwrap(), KeptNetwork::default());
}

/// An adapter with settings by chance.
fn random_adapter(random: &mut Random, number: u32) -> Made {
    let mut any = |limit: u64| random.below(limit);
    let address = |number: u64| format!("10.{}.{}.{}", number % 7, number % 251, 1 + number % 250);
    let count = usize::try_from(any(4)).unwrap();
    let addresses: Vec<String> = (0..count).map(|_| address(any(9999))).collect();
    let masks = ["255.255.255.0", "255.255.0.0", "255.0.255.0", "0.0.0.0", "x", "255.255.255.255"];
    let masks: Vec<&str> = (0..count).map(|_| masks[usize::try_from(any(6)).unwrap()]).collect();
    let gateways: Vec<String> = (0..any(3)).map(|_| address(any(9999))).collect();
    let metrics: Vec<String> = (0..any(3)).map(|_| any(12_000).to_string()).collect();
    let refs = |items: &[String]| texts(&items.iter().map(String::as_str).collect::<Vec<_>>());
    let mut made = Made::hardware(
        number,
        ["LAN", "a\"b", "Büro 1", "x{index}", "  ", "net,two"][usize::try_from(any(6)).unwrap()],
    );
    made.values = vec![
        ("IPAddress", refs(&addresses)),
        ("SubnetMask", texts(&masks)),
        ("DefaultGateway", refs(&gateways)),
        ("DefaultGatewayMetric", refs(&metrics)),
        ("InterfaceMetric", RegistryData::dword(u32::try_from(any(3) * 5000).unwrap())),
        (
            "NameServer",
            RegistryData::sz(
                ["", "1.1.1.1", "1.1.1.1, 8.8.8.8;9.9.9.9", "x,1.2.3.4"][usize::try_from(any(4)).unwrap()],
            ),
        ),
        ("RegistrationEnabled", RegistryData::dword(u32::try_from(any(2)).unwrap())),
    ];
    if any(4) > 0 {
        made.values.push(("EnableDHCP", RegistryData::dword(u32::try_from(any(2)).unwrap())));
    }
    if any(4) == 0 {
        made.characteristics = 0x29;
    }
    if any(5) == 0 {
        made.mac = None;
        made.instance = format!("PCI\\VEN_15AD&DEV_07B0\\FF5650000{number}7984FE00");
    }
    made
}

fn settings_by_chance_become_what_the_judge_computes() {
    for seed in 0..support::rounds(4, 12) {
        let mut random = Random::new(seed);
        let mut hive = Hive::create("SYSTEM", NOW);
        let select = hive.create_key(hive.root(), "Select", NOW).unwrap();
        hive.set_value(select, "Current", &RegistryData::dword(1), NOW).unwrap();
        for number in 1..9 {
            let made = random_adapter(&mut random, number);
            made.put(&mut hive);
            if random.below(2) == 0 {
                made.ipv6(
                    &mut hive,
                    &format!("2001:db8::{number}"),
                    u8::try_from(random.below(130)).unwrap(),
                    random.byte(),
                );
                made.route6(&mut hive, "2001:db8::", u8::try_from(random.below(129)).unwrap(), "fe80::1");
            }
            if random.below(4) == 0 {
                made.time(&mut hive, "0066", random.below(9) + 1);
                made.time(&mut hive, "0067", random.below(9) + 1);
            }
        }
        if judged(hive, &[]).is_none() {
            return;
        }
    }
}

/// Types and bytes by chance in all places that are read: no failure, and no command with a text of the guest that could
/// mean something to the job.
fn hostile_values_neither_fail_nor_reach_a_command() {
    let names = [
        "EnableDHCP",
        "IPAddress",
        "SubnetMask",
        "DefaultGateway",
        "DefaultGatewayMetric",
        "InterfaceMetric",
        "NameServer",
        "Domain",
        "RegistrationEnabled",
        "RegisterAdapterName",
        "DhcpIPAddress",
    ];
    let hostile =
        ["10.0.0.5\t10", "1.1.1.1 & calc", "{index}", "%COMSPEC%", "\"", "\r\nrun\t", "255.255.255.0", "10.0.0.5", ""];
    for seed in 0..support::rounds(300, 1500) {
        let mut random = Random::new(seed);
        let mut hive = Hive::create("SYSTEM", NOW);
        let mut data = || {
            let kinds = [0, 1, 2, 3, 4, 7, 11, 0xffff_0010];
            let kind = ValueType(kinds[random.index(kinds.len())]);
            let text = hostile[random.index(hostile.len())];
            match random.below(3) {
                0 => RegistryData::new(kind, random.bytes(usize::try_from(random.clone().below(80)).unwrap())),
                1 => RegistryData::text(kind, text),
                _ => RegistryData::multi_sz(&[text, "10.0.0.6"]),
            }
        };
        let made = Made::hardware(1, hostile[usize::try_from(seed).unwrap() % hostile.len()]);
        made.put(&mut hive);
        for name in names {
            set(&mut hive, &format!("Services\\Tcpip\\Parameters\\Interfaces\\{}", made.guid()), name, &data());
        }
        for key in [format!("{NSI}\\10"), format!("{NSI}\\16"), format!("{NSI4}\\10"), format!("{NSI4}\\16")] {
            set(&mut hive, &key, &format!("{}{:032x}", made.luid(), seed), &data());
        }
        set(&mut hive, "Services\\Tcpip\\Parameters\\PersistentRoutes", hostile[0], &data());
        set(&mut hive, "Services\\Tcpip\\Parameters", "SearchList", &data());
        let network = Network::read(&hive, SET);
        let kept = choose_adapters(&network, &keep(&["00:50:56:80:00:01=52:54:00:00:00:01"])).unwrap();
        for command in kept.adapters.iter().flat_map(|adapter| &adapter.commands) {
            let rest = command.replace("{index}", "").replace("{index6}", "");
            let is_plain = |c: char| c.is_ascii_alphanumeric() || " =./:-".contains(c);
            assert!(rest.chars().all(is_plain), "{command:?}");
        }
        for adapter in &kept.adapters {
            let quotes = adapter.rename.as_deref().unwrap_or_default().matches('"').count();
            assert!(quotes == 0 || quotes == 2, "{:?}", adapter.rename);
            assert!(adapter.dns_suffix.iter().all(|text| !text.contains(['&', '"', '%', ' ', '\t'])));
        }
    }
}

tests![
    adapters_of_real_hives_are_read,
    every_kind_of_setting_becomes_a_command,
    a_team_is_not_taken_apart_unasked,
    an_address_that_no_adapter_has_is_an_error_that_names_the_adapters,
    settings_by_chance_become_what_the_judge_computes,
    hostile_values_neither_fail_nor_reach_a_command,
];
