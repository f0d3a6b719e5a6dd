//! Reading a user's definition file: every spelling of every key.
//!
//! Keys come in two spellings: as the driver guide documents them (`start_type: boot`, `buckets: {w10: […]}`) and as the
//! program that it was written for reads them (`start: 0`, `release_to_bucket`, `bucket_candidates`).

use std::collections::BTreeMap;

use super::category::Category;
use super::definition::{Definition, Origin};
use crate::drivers::guest::{BUCKETS, RELEASES};
use crate::drivers::inf::Guid;
use crate::drivers::source::layout;
use crate::error::{Error, Kind, Layer, Result};
use crate::yaml::{Document, Field, Key, Map, Value};

/// The largest definition file that is read, in bytes.
pub(super) const TEXT_MAX: u64 = 1 << 20;

/// A definition file, read.
#[derive(Debug, Default)]
pub(super) struct UserFile {
    pub drivers: Vec<Definition>,
    /// Order of release folders, by folder or release in lower case.
    pub buckets: BTreeMap<String, Vec<String>>,
    /// Unknown keys and odd values, each with its line.
    pub warnings: Vec<String>,
}

/// The keys of the file.
const KEYS: &[Key<UserFile>] = &[
    Key::new(&["drivers"], |file, field| read_drivers(field, &mut file.drivers)),
    Key::new(&["buckets", "bucket_candidates"], |file, field| {
        // a list says more than the single name of release_to_bucket
        read_buckets(field, |key, names| file.buckets.entry(key).or_default().extend(names))
    }),
    Key::new(&["release_to_bucket"], |file, field| {
        read_buckets(field, |key, names| drop(file.buckets.entry(key).or_default().splice(0..0, names)))
    }),
    Key::new(&["default_release"], |_, field| check_release(field)),
    Key::new(&["default_arch_dir"], |_, field| field.text().map(drop)),
];

/// The keys of a driver.
const DRIVER_KEYS: &[Key<Definition>] = &[
    Key::new(&["name"], |driver, field| field.text().map(|text| driver.name = text)),
    Key::new(&["service"], |driver, field| field.text().map(|text| driver.service = text)),
    Key::new(&["pattern"], |driver, field| field.text().map(|text| driver.pattern = Some(text))),
    Key::new(&["inf_hint"], |driver, field| field.text().map(|text| driver.inf_hint = Some(text))),
    Key::new(&["class_guid"], |driver, field| read_guid(field).map(|guid| driver.class_guid = Some(guid))),
    Key::new(&["start_type", "start"], read_start),
    Key::new(&["type"], |driver, field| field.choice(TYPES).map(|kind| driver.kind = Some(kind))),
    Key::new(&["error_control"], |driver, field| {
        field.choice(ERROR_CONTROLS).map(|control| driver.error_control = Some(control))
    }),
    Key::new(&["pci_ids"], |driver, field| read_ids(field).map(|ids| driver.pci_ids = ids)),
    Key::new(&["critical_device_database"], |driver, field| {
        field.boolean().map(|is_wanted| driver.critical_device_database = Some(is_wanted))
    }),
];

const START_TYPES: &[(&str, u32)] =
    &[("boot", 0), ("system", 1), ("auto", 2), ("demand", 3), ("manual", 3), ("disabled", 4), ("automatic", 2)];
const TYPES: &[(&str, u32)] = &[("kernel", 1), ("filesystem", 2), ("file_system", 2)];
const ERROR_CONTROLS: &[(&str, u32)] = &[("ignore", 0), ("normal", 1), ("severe", 2), ("critical", 3)];
/// Release names of the original program that have no row of their own here.
const OTHER_RELEASES: &[&str] = &["windows_12", "unknown"];

impl UserFile {
    /// Reads the text of a definition file; `name` is for messages.
    ///
    /// # Errors
    /// [`Kind::Usage`] with file and line, when the text is not YAML or a value is impossible.
    pub(super) fn parse(text: &str, name: &str) -> Result<Self> {
        let hint = "give a YAML file with driver definitions";
        if text.len() as u64 > TEXT_MAX {
            let message = format!("the definitions have {} bytes; at most {TEXT_MAX} are read", text.len());
            return Err(Error::new(Kind::Usage, Layer::Drivers, message).path(name).hint(hint));
        }
        let mut document = Document::new(name, Layer::Drivers);
        let map = document.parse(text, "driver definitions in YAML", hint)?;
        let mut out = Self::default();
        document.read(&map, KEYS, &mut out)?;
        out.warnings = document.into_warnings();
        Ok(out)
    }
}

/// `drivers:` — categories, each with a list of drivers.
fn read_drivers(field: &mut Field<'_>, out: &mut Vec<Definition>) -> Result<()> {
    for entry in &field.map()?.0 {
        let mut category = Field::new(entry, field.document());
        let list = match category.value() {
            Value::List(list) => list.as_slice(),
            Value::Null => &[],
            _ => {
                let hint = "write each driver of the category as an item: a line with \"- name: …\"";
                return Err(category.error("a list of drivers is expected", hint));
            }
        };
        for item in list {
            let Value::Map(map) = item else {
                let hint = "write \"- name: …\" and the other keys below it";
                return Err(category.error("an item is not a driver", hint));
            };
            let definition = read_driver(&mut category, map)?;
            warn_of_twin(&definition, out, category.document());
            out.push(definition);
        }
    }
    Ok(())
}

/// Warns if an earlier definition has the same service.
fn warn_of_twin(definition: &Definition, earlier: &[Definition], document: &mut Document) {
    let twin = earlier.iter().find(|d| d.service.eq_ignore_ascii_case(&definition.service));
    if let (Some(first), Some(origin)) = (twin.and_then(|twin| twin.origin.as_ref()), &definition.origin) {
        let (service, line) = (&definition.service, first.line);
        document.warn(origin.line, format!("{service:?} is described in line {line} already; that is used"));
    }
}

fn read_driver(category: &mut Field<'_>, map: &Map) -> Result<Definition> {
    let line = map.0.first().map_or(category.line(), |entry| entry.line);
    let keys: BTreeMap<String, u64> = map.0.iter().map(|entry| (entry.key.clone(), entry.line)).collect();
    let mut out = Definition::new(Category::from_name(category.key()));
    let document = category.document();
    for entry in &map.0 {
        if DRIVER_KEYS.iter().any(|key| key.names().contains(&entry.key.as_str())) {
            check_placeholder(&Field::new(entry, document))?;
        }
    }
    document.read(map, DRIVER_KEYS, &mut out)?;
    for (key, value) in [("name", &out.name), ("service", &out.service)] {
        if value.trim().is_empty() {
            let hint = format!("add \"{key}: …\" to the driver that begins in this line");
            return Err(document.error(line, format!("a driver has no {key}"), hint));
        }
    }
    if out.category == Category::Storage && out.start.is_some_and(|start| start != 0) {
        let line = keys.get("start_type").or(keys.get("start")).copied().unwrap_or(line);
        let name = &out.name;
        document
            .warn(line, format!("{name} is a storage driver but does not start at boot: Windows cannot start from it"));
    }
    out.origin = Some(Origin { file: document.name().to_owned(), line, keys });
    Ok(out)
}

/// The guide's `{XXXXXXXX-…}` and `ven_XXXX` stand for values that the reader of the guide has to fill in.
fn check_placeholder(field: &Field<'_>) -> Result<()> {
    let texts: Vec<&str> = match field.value() {
        Value::Text(text) => vec![text],
        Value::List(list) => {
            list.iter().filter_map(|v| if let Value::Text(t) = v { Some(t.as_str()) } else { None }).collect()
        }
        _ => Vec::new(),
    };
    let is_placeholder = |text: &&&str| ["XXXX", "YYYY"].iter().any(|p| text.to_ascii_uppercase().contains(p));
    let Some(text) = texts.iter().find(is_placeholder) else { return Ok(()) };
    let hint = match field.key() {
        "class_guid" => "write the ClassGuid of the driver's INF, or leave the line out: it is read from the INF",
        "pci_ids" => "write the device's vendor and device id, or leave the key out: the ids are read from the INF",
        _ => "write the real value in place of the X and Y",
    };
    Err(field.error(format_args!("{text:?} is a placeholder"), hint))
}

fn read_start(driver: &mut Definition, field: &mut Field<'_>) -> Result<()> {
    let start = field.choice(START_TYPES)?;
    if driver.start.is_some_and(|former| former != start) {
        field.warn("start and start_type contradict each other; this one is used");
    }
    driver.start = Some(start);
    Ok(())
}

fn read_guid(field: &Field<'_>) -> Result<Guid> {
    let text = field.text()?;
    Guid::parse(&text).ok_or_else(|| {
        let hint = "write it as \"{4D36E97B-E325-11CE-BFC1-08002BE10318}\", or leave the line out";
        field.error(format_args!("not a GUID: {text:?}"), hint)
    })
}

fn read_ids(field: &Field<'_>) -> Result<Vec<String>> {
    let mut out: Vec<String> = Vec::new();
    for text in field.texts()? {
        let id = canonical_id(&text).ok_or_else(|| {
            let hint = "write it as \"pci#ven_1af4&dev_1042\" or \"PCI\\VEN_1AF4&DEV_1042\"";
            field.error(format_args!("not a PCI id: {text:?}"), hint)
        })?;
        if !out.contains(&id) {
            out.push(id);
        }
    }
    Ok(out)
}

/// Reads folders of driver media by folder or release; `add` gets the key in lower case.
fn read_buckets(field: &mut Field<'_>, mut add: impl FnMut(String, Vec<String>)) -> Result<()> {
    for entry in &field.map()?.0 {
        let mut row = Field::new(entry, field.document());
        let key = row.key().to_ascii_lowercase();
        if layout::bucket(&key).is_none() && !is_release(&key) {
            let shown = row.key();
            row.warn(format_args!(
                "{shown:?} is neither a folder of driver media ({}) nor a release",
                BUCKETS.join(", ")
            ));
        }
        let names = row.texts()?;
        for name in names.iter().filter(|name| layout::bucket(name).is_none()) {
            row.warn(format_args!("{name:?} is not one of the known folders of driver media ({})", BUCKETS.join(", ")));
        }
        add(layout::bucket(&key).map_or(key, str::to_ascii_lowercase), names);
    }
    Ok(())
}

fn check_release(field: &mut Field<'_>) -> Result<()> {
    let name = field.text()?;
    if !is_release(&name.to_ascii_lowercase()) {
        field.warn(format_args!("{name:?} is not a known release; the guest's own release is used anyway"));
    }
    Ok(())
}

fn is_release(key: &str) -> bool {
    RELEASES.iter().any(|row| row.key == key) || OTHER_RELEASES.contains(&key)
}

/// `pci#ven_1af4&dev_1042`, `PCI\VEN_…` or `VEN_…` as `PCI\VEN_1AF4&DEV_1042`.
fn canonical_id(text: &str) -> Option<String> {
    let upper = text.trim().to_ascii_uppercase();
    let id = upper.strip_prefix("PCI#").or_else(|| upper.strip_prefix("PCI\\")).unwrap_or(&upper);
    let mut parts = id.split('&');
    let hex = |part: &str, prefix: &str, digits: usize| {
        part.strip_prefix(prefix).is_some_and(|n| n.len() == digits && n.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let is_device = hex(parts.next()?, "VEN_", 4) && hex(parts.next()?, "DEV_", 4);
    let is_rest = parts.all(|p| hex(p, "SUBSYS_", 8) || hex(p, "REV_", 2) || hex(p, "CC_", 4) || hex(p, "CC_", 6));
    (is_device && is_rest).then(|| format!("PCI\\{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::Definitions;

    fn parse(text: &str) -> Result<Definitions> {
        Definitions::parse(text, "my.yaml")
    }

    #[track_caller]
    fn fails(text: &str, place: &str, part: &str) {
        let error = parse(text).unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(place) && shown.contains(part), "{shown}");
        assert!(error.hint_text().is_some());
        assert_eq!(error.kind(), Kind::Usage);
    }

    const DRIVER: &str = "drivers:\n  storage:\n    - name: A\n      service: mystor\n";

    #[test]
    fn both_spellings_of_every_key() {
        let documented =
            parse(&format!("{DRIVER}      start_type: demand\n      pci_ids: [pci#ven_1234&dev_abcd]\n")).unwrap();
        let original =
            parse(&format!("{DRIVER}      start: MANUAL\n      pci_ids: ['PCI\\VEN_1234&DEV_ABCD']\n")).unwrap();
        let number = parse(&format!("{DRIVER}      start: 3\n      pci_ids: VEN_1234&DEV_ABCD\n")).unwrap();
        for definitions in [documented, original, number] {
            let first = &definitions.drivers[0];
            assert_eq!(
                (first.start, first.pci_ids.as_slice()),
                (Some(3), ["PCI\\VEN_1234&DEV_ABCD".to_owned()].as_slice())
            );
            assert_eq!(definitions.drivers.len(), Definitions::builtin().drivers.len() + 1);
        }
        for (word, number) in START_TYPES.iter().chain(&[("BOOT", 0), ("4", 4)]) {
            let definitions = parse(&format!("{DRIVER}      start_type: {word}\n")).unwrap();
            assert_eq!(definitions.drivers[0].start, Some(*number), "{word}");
        }
        let other = parse(&format!(
            "{DRIVER}      type: filesystem\n      error_control: critical\n      critical_device_database: no\n"
        ))
        .unwrap();
        let first = &other.drivers[0];
        assert_eq!((first.kind, first.error_control, first.critical_device_database), (Some(2), Some(3), Some(false)));
    }

    #[test]
    fn a_definition_of_a_known_service_replaces_the_built_in_one() {
        let definitions = parse("drivers:\n  storage:\n    - {name: V, service: VIOSTOR, start_type: boot}\n").unwrap();
        assert_eq!(definitions.drivers.len(), Definitions::builtin().drivers.len());
        assert_eq!(definitions.drivers[0].origin.as_ref().unwrap().at("start_type"), "my.yaml:3");
    }

    #[test]
    fn orders_of_folders() {
        use crate::drivers::{Arch, GuestTarget};
        let w10 = GuestTarget::of_build(Arch::Amd64, 19045, false);
        let of = |text: &str| parse(text).unwrap().buckets_for(&w10);
        assert_eq!(of("buckets:\n  w10:\n    - w10\n    - w11  # Fallback\n"), ["w10", "w11"]);
        assert_eq!(of("bucket_candidates:\n  windows_10: [w11, w8]\n"), ["w11", "w8", "w10"]);
        assert_eq!(of("release_to_bucket:\n  windows_10: w11\n"), ["w11", "w10"]);
        assert_eq!(of("{}"), ["w10"]);
        let r2 = GuestTarget::of_build(Arch::Amd64, 9600, true);
        assert_eq!(parse("bucket_candidates: {server_2012: [w8]}").unwrap().buckets_for(&r2)[0], "w8");
    }

    #[test]
    fn unknown_keys_are_warnings_with_line_and_suggestion() {
        let definitions =
            parse(&format!("{DRIVER}      clas_guid: x\nbucket:\n  w10: [w10]\nbuckets:\n  w99: [w10, dos]\n"))
                .unwrap();
        let all = definitions.warnings.join("\n");
        for part in
            ["my.yaml:5: unknown key `clas_guid`", "`class_guid`", "my.yaml:6", "`buckets`", "my.yaml:9", "\"dos\""]
        {
            assert!(all.contains(part), "{part} is not in {all}");
        }
    }

    #[test]
    fn impossible_things_are_errors_with_line_and_remedy() {
        fails(&format!("{DRIVER}      start_type: sometimes\n"), "my.yaml:5", "`start_type`: \"sometimes\" is unknown");
        fails(&format!("{DRIVER}      start: 7\n"), "my.yaml:5", "unknown");
        fails(&format!("{DRIVER}      type: user\n"), "my.yaml:5", "type");
        fails(&format!("{DRIVER}      error_control: loud\n"), "my.yaml:5", "error_control");
        fails(
            &format!("{DRIVER}      class_guid: \"{{XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX}}\"\n"),
            "my.yaml:5",
            "placeholder",
        );
        fails(&format!("{DRIVER}      class_guid: hello\n"), "my.yaml:5", "not a GUID");
        fails(&format!("{DRIVER}      pci_ids:\n        - pci#ven_XXXX&dev_YYYY\n"), "my.yaml:5", "placeholder");
        fails(&format!("{DRIVER}      pci_ids: [usb]\n"), "my.yaml:5", "not a PCI id");
        fails(
            &format!("{DRIVER}      critical_device_database: perhaps\n"),
            "my.yaml:5",
            "`critical_device_database`: yes or no is expected",
        );
        fails("drivers:\n  storage:\n    - service: x\n", "my.yaml:3", "no name");
        fails("drivers:\n  storage:\n    - name: x\n", "my.yaml:3", "no service");
        fails("drivers:\n  storage: yes\n", "my.yaml:2", "a list of drivers is expected");
        fails("drivers: [a]\n", "my.yaml:1", "a mapping is expected");
        fails("a: [\n", "my.yaml", "not driver definitions in YAML");
    }

    #[test]
    fn ids() {
        for (text, id) in [
            ("pci#ven_1af4&dev_1042", Some("PCI\\VEN_1AF4&DEV_1042")),
            ("PCI\\VEN_1AF4&DEV_1042&SUBSYS_11001AF4&REV_01", Some("PCI\\VEN_1AF4&DEV_1042&SUBSYS_11001AF4&REV_01")),
            ("VEN_1AF4&DEV_1042&CC_0100", Some("PCI\\VEN_1AF4&DEV_1042&CC_0100")),
            ("VEN_1AF4", None),
            ("pci#ven_1af4&dev_104", None),
            ("pci#ven_1af4&dev_1042&x", None),
            ("", None),
        ] {
            assert_eq!(canonical_id(text).as_deref(), id, "{text}");
        }
    }
}
