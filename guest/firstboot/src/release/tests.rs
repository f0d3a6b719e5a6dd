use super::*;
use std::collections::BTreeMap;

/// Keys in lower case, each with its values.
#[derive(Clone, PartialEq, Debug, Default)]
struct Fake(BTreeMap<String, BTreeMap<String, Vec<String>>>);

impl Fake {
    fn set(&mut self, path: &str, value: &str, data: &[&str]) -> &mut Self {
        let mut at = String::new();
        for name in path.split('\\') {
            if !at.is_empty() {
                at.push('\\');
            }
            at.push_str(&name.to_ascii_lowercase());
            self.0.entry(at.clone()).or_default();
        }
        let data = data.iter().map(|&text| text.into()).collect();
        self.0.get_mut(&at).unwrap().insert(value.to_ascii_lowercase(), data);
        self
    }
}

impl Registry for Fake {
    fn keys(&self, path: &str) -> Option<Vec<String>> {
        let start = path.to_ascii_lowercase();
        self.0.get(&start)?;
        let below = |key: &String| key.strip_prefix(&start)?.strip_prefix('\\').map(String::from);
        Some(self.0.keys().filter_map(below).filter(|rest| !rest.contains('\\')).collect())
    }
    fn values(&self, path: &str) -> Option<Vec<String>> {
        Some(self.0.get(&path.to_ascii_lowercase())?.keys().cloned().collect())
    }
    fn strings(&self, path: &str, value: &str) -> Option<Vec<String>> {
        self.0.get(&path.to_ascii_lowercase())?.get(&value.to_ascii_lowercase()).cloned()
    }
    fn number(&self, path: &str, value: &str) -> Option<u32> {
        self.strings(path, value)?.first()?.parse().ok()
    }
    fn remove_value(&mut self, path: &str, value: &str) -> bool {
        self.0.get_mut(&path.to_ascii_lowercase()).is_some_and(|v| v.remove(&value.to_ascii_lowercase()).is_some())
    }
    fn remove_key(&mut self, path: &str) -> bool {
        let start = path.to_ascii_lowercase();
        let below = join(&[&start, "\\"]);
        self.0.retain(|key, _| *key != start && !key.starts_with(&below));
        true
    }
}

const ID: &str = "PCI\\VEN_1AF4&DEV_1001";
const DEVICE: &str = "CurrentControlSet\\Enum\\PCI\\VEN_1AF4&DEV_1001\\3&1";
const CLASS: &str = "CurrentControlSet\\Control\\Class\\{4d36e97b}\\0001";
const SERVICE: &str = "CurrentControlSet\\Services\\viostor";
const PACKAGE: &str = "DriverDatabase\\DriverPackages\\viostor.inf_amd64_1";
const RECORDS: Records<'_> = Records {
    control_set: "CurrentControlSet",
    inf: "h2k-viostor.inf",
    package: "h2k-viostor.inf_amd64_0",
    service: "viostor",
};

fn installed() -> Fake {
    let mut fake = Fake::default();
    fake.set("DriverDatabase\\DriverInfFiles\\h2k-viostor.inf", "Active", &["h2k-viostor.inf_amd64_0"])
        .set("DriverDatabase\\DriverPackages\\h2k-viostor.inf_amd64_0\\Descriptors\\PCI", "x", &["y"])
        .set(&join(&["DriverDatabase\\DeviceIds\\", ID]), "h2k-viostor.inf", &[""])
        .set("DriverDatabase\\DeviceIds\\{4d36e97b}", "h2k-viostor.inf", &[""])
        .set(&join(&["DriverDatabase\\DeviceIds\\", ID]), "oem7.inf", &[""])
        .set("DriverDatabase\\DriverInfFiles\\oem7.inf", "Active", &["viostor.inf_amd64_1"])
        .set(&join(&[PACKAGE, "\\Descriptors\\", ID]), "Configuration", &["rhelscsi_inst"])
        .set(&join(&[PACKAGE, "\\Configurations\\rhelscsi_inst"]), "Service", &["viostor"])
        .set(SERVICE, "Start", &["0"])
        .set(SERVICE, "ImagePath", &["\\SystemRoot\\System32\\drivers\\viostor.sys"])
        .set(DEVICE, "Service", &["viostor"])
        .set(DEVICE, "HardwareID", &["PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4", ID])
        .set(DEVICE, "Driver", &["{4d36e97b}\\0001"])
        .set(CLASS, "InfPath", &["oem7.inf"]);
    fake
}

fn has_file(path: &str) -> bool {
    ["system32\\drivers\\viostor.sys", "inf\\oem7.inf"].contains(&path.to_ascii_lowercase().as_str())
}

#[test]
fn the_records_go_when_the_real_package_has_taken_over_and_nothing_else_does() {
    let mut fake = installed();
    assert_eq!(release(&mut fake, &RECORDS, &has_file), Ok(()));
    assert!(!fake.0.iter().any(|(key, values)| key.contains("h2k-") || values.keys().any(|v| v.contains("h2k-"))));
    let mut rest = installed();
    rest.0.retain(|key, _| !key.contains("h2k-"));
    rest.0.values_mut().for_each(|values| values.retain(|name, _| !name.contains("h2k-")));
    assert_eq!(fake, rest);
    assert_eq!(release(&mut fake, &RECORDS, &has_file), Err(Kept::Absent), "a second time");
}

#[test]
fn the_records_stay_untouched_when_any_link_of_the_next_start_is_missing() {
    let another = "CurrentControlSet\\Enum\\PCI\\VEN_1AF4&DEV_1042\\3&2";
    let breaks: [(&str, &dyn Fn(&mut Fake)); 14] = [
        ("bound to the invented INF", &|f| {
            let _ = f.set(CLASS, "InfPath", &["h2k-viostor.inf"]);
        }),
        ("no INF", &|f| {
            let _ = f.remove_value(CLASS, "InfPath");
        }),
        ("no driver key", &|f| {
            let _ = f.remove_value(DEVICE, "Driver");
        }),
        ("no device", &|f| {
            let _ = f.remove_key(DEVICE);
        }),
        ("a second device is not bound", &|f| {
            let _ = f.set(another, "Service", &["VIOSTOR"]);
        }),
        ("another start type", &|f| {
            let _ = f.set(SERVICE, "Start", &["3"]);
        }),
        ("an override", &|f| {
            let _ = f.set(&join(&[SERVICE, "\\StartOverride"]), "0", &["3"]);
        }),
        ("another file", &|f| {
            let _ = f.set(SERVICE, "ImagePath", &["System32\\drivers\\other.sys"]);
        }),
        ("a file elsewhere", &|f| {
            let _ = f.set(SERVICE, "ImagePath", &["\\??\\D:\\viostor.sys"]);
        }),
        ("INF not in its folder", &|f| {
            let _ = f.set(CLASS, "InfPath", &["oem8.inf"]);
        }),
        ("no active package", &|f| {
            let _ = f.remove_key("DriverDatabase\\DriverInfFiles\\oem7.inf");
        }),
        ("no pointer", &|f| {
            let _ = f.remove_value(&join(&["DriverDatabase\\DeviceIds\\", ID]), "oem7.inf");
        }),
        ("another service", &|f| {
            f.set(&join(&[PACKAGE, "\\Configurations\\rhelscsi_inst"]), "Service", &["x"]);
        }),
        ("to be installed again", &|f| {
            let _ = f.set(DEVICE, "ConfigFlags", &["32"]);
        }),
    ];
    for (what, damage) in breaks {
        let mut fake = installed();
        damage(&mut fake);
        let before = fake.clone();
        assert!(matches!(release(&mut fake, &RECORDS, &has_file), Err(Kept::Needed(_))), "{what}");
        assert_eq!(fake, before, "{what}");
    }
}

#[test]
fn only_names_that_windows_gives_are_real_packages() {
    for (name, is_real) in
        [("oem1.inf", true), ("OEM12.INF", true), ("oem.inf", false), ("h2k-x.inf", false), ("oemx.inf", false)]
    {
        assert_eq!(is_oem_inf(name), is_real, "{name}");
    }
}
