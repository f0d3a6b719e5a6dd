//! Reading a definition file: every spelling of every key, and messages that name the line.
//!
//! Keys come in two spellings: as the driver guide documents them (`start_type: boot`, `buckets: {w10: […]}`) and as the
//! program that it was written for reads them (`start: 0`, `release_to_bucket`, `bucket_candidates`).

use super::{Definition, Definitions, Origin};
use crate::drivers::guest::{BUCKETS, RELEASES};
use crate::drivers::inf::Guid;
use crate::drivers::layout;
use crate::drivers::package::Category;
use crate::error::{Error, Kind, Layer, Result};
use crate::yaml::{Entry, Map, Value, nearest};
use std::collections::BTreeMap;

const TOP_KEYS: &[&str] =
    &["drivers", "buckets", "release_to_bucket", "bucket_candidates", "default_release", "default_arch_dir"];
const DRIVER_KEYS: &[&str] = &[
    "name",
    "service",
    "pattern",
    "class_guid",
    "inf_hint",
    "start_type",
    "start",
    "type",
    "error_control",
    "pci_ids",
    "critical_device_database",
];
/// Release names of the original program that have no row of their own here.
const OTHER_RELEASES: &[&str] = &["windows_12", "unknown"];
/// Longest definition file: a thousand times a usual one.
const TEXT_MAX: usize = 4 << 20;

/// Reads a user's file alone.
pub(super) fn read(text: &str, file: &str) -> Result<Definitions> {
    let mut reader = Reader { file, warnings: Vec::new() };
    if text.len() > TEXT_MAX {
        return Err(reader.error(
            1,
            format!("the definitions have {} bytes; at most {TEXT_MAX} are read", text.len()),
            "give the YAML file with the driver definitions",
        ));
    }
    let map: Map = serde_saphyr::from_str(text).map_err(|e| {
        Error::new(Kind::Usage, Layer::Drivers, format!("the driver definitions are no valid YAML: {e}"))
            .path(file)
            .hint("correct the file at the line that the message names")
    })?;
    let mut out = Definitions { drivers: Vec::new(), buckets: BTreeMap::new(), warnings: Vec::new() };
    for entry in &map.0 {
        match entry.key.as_str() {
            "drivers" => reader.drivers(entry, &mut out.drivers)?,
            "buckets" | "bucket_candidates" | "release_to_bucket" => reader.buckets(entry, &mut out.buckets)?,
            "default_release" => reader.release(entry)?,
            "default_arch_dir" => {
                reader.text(entry)?;
            }
            _ => reader.unknown(entry, TOP_KEYS),
        }
    }
    out.warnings = reader.warnings;
    Ok(out)
}

struct Reader<'a> {
    file: &'a str,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn error(&self, line: u64, message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::new(Kind::Usage, Layer::Drivers, message).path(format!("{}:{line}", self.file)).hint(hint)
    }

    fn warn(&mut self, line: u64, message: impl std::fmt::Display) {
        self.warnings.push(format!("{}:{line}: {message}", self.file));
    }

    fn unknown(&mut self, entry: &Entry, known: &[&str]) {
        let meant = nearest(&entry.key, known.iter().copied());
        let meant = meant.map(|m| format!("; did you mean {m:?}?")).unwrap_or_default();
        self.warn(entry.line, format!("unknown key {:?} is ignored{meant}", entry.key));
    }

    /// `drivers:` — categories, each with a list of drivers.
    fn drivers(&mut self, entry: &Entry, out: &mut Vec<Definition>) -> Result<()> {
        for category in &self.map(entry)?.0 {
            let list = match &category.value {
                Value::List(list) => list.as_slice(),
                Value::Null => &[],
                _ => {
                    let hint = "write each driver of the category as an item: a line with \"- name: …\"";
                    return Err(self.error(category.line, format!("{} is no list of drivers", category.key), hint));
                }
            };
            for item in list {
                let Value::Map(map) = item else {
                    let hint = "write \"- name: …\" and the other keys below it";
                    return Err(self.error(category.line, format!("an item of {} is no driver", category.key), hint));
                };
                let definition = self.driver(Category::from_name(&category.key), map, category.line)?;
                let twin = out.iter().find(|d| d.service.eq_ignore_ascii_case(&definition.service));
                if let Some(twin) = twin.and_then(|twin| twin.origin.as_ref()) {
                    let (line, first) = (definition.origin.as_ref().map_or(category.line, |o| o.line), twin.line);
                    self.warn(
                        line,
                        format!("{:?} is described in line {first} already; that is used", definition.service),
                    );
                }
                out.push(definition);
            }
        }
        Ok(())
    }

    fn driver(&mut self, category: Category, map: &Map, line: u64) -> Result<Definition> {
        let line = map.0.first().map_or(line, |entry| entry.line);
        let mut out = Definition::builtin(category, "", "", "");
        out.inf_hint = None;
        let mut keys = BTreeMap::new();
        for entry in &map.0 {
            keys.insert(entry.key.clone(), entry.line);
            if !DRIVER_KEYS.contains(&entry.key.as_str()) {
                self.unknown(entry, DRIVER_KEYS);
                continue;
            }
            self.placeholder(entry)?;
            match entry.key.as_str() {
                "name" => out.name = self.text(entry)?,
                "service" => out.service = self.text(entry)?,
                "pattern" => out.pattern = Some(self.text(entry)?),
                "inf_hint" => out.inf_hint = Some(self.text(entry)?),
                "class_guid" => out.class_guid = Some(self.guid(entry)?),
                "start_type" | "start" => {
                    let value = self.choice(entry, START_TYPES)?;
                    if out.start.is_some_and(|former| former != value) {
                        self.warn(entry.line, "start and start_type contradict each other; this one is used");
                    }
                    out.start = Some(value);
                }
                "type" => out.kind = Some(self.choice(entry, TYPES)?),
                "error_control" => out.error_control = Some(self.choice(entry, ERROR_CONTROLS)?),
                "pci_ids" => out.pci_ids = self.ids(entry)?,
                _ => out.critical_device_database = Some(self.boolean(entry)?),
            }
        }
        for (key, value) in [("name", &out.name), ("service", &out.service)] {
            if value.trim().is_empty() {
                let hint = format!("add \"{key}: …\" to the driver that begins in this line");
                return Err(self.error(line, format!("a driver has no {key}"), hint));
            }
        }
        if out.category == Category::Storage && out.start.is_some_and(|start| start != 0) {
            let line = keys.get("start_type").or(keys.get("start")).copied().unwrap_or(line);
            self.warn(
                line,
                format!("{} is a storage driver but does not start at boot: Windows cannot start from it", out.name),
            );
        }
        out.origin = Some(Origin { file: self.file.to_owned(), line, keys });
        Ok(out)
    }

    /// The guide's `{XXXXXXXX-…}` and `ven_XXXX` stand for something that the reader has to fill in.
    fn placeholder(&self, entry: &Entry) -> Result<()> {
        let texts: Vec<&str> = match &entry.value {
            Value::Text(text) => vec![text],
            Value::List(list) => {
                list.iter().filter_map(|v| if let Value::Text(t) = v { Some(t.as_str()) } else { None }).collect()
            }
            _ => Vec::new(),
        };
        let standing = |text: &&&str| ["XXXX", "YYYY"].iter().any(|p| text.to_ascii_uppercase().contains(p));
        let Some(text) = texts.iter().find(standing) else { return Ok(()) };
        let remedy = match entry.key.as_str() {
            "class_guid" => "write the ClassGuid of the driver's INF, or leave the line out: it is read from the INF",
            "pci_ids" => "write the device's vendor and device id, or leave the key out: the ids are read from the INF",
            _ => "write the real value in place of the X and Y",
        };
        Err(self.error(entry.line, format!("{} still holds a placeholder: {text:?}", entry.key), remedy))
    }

    /// `buckets`, `bucket_candidates` (lists) and `release_to_bucket` (single names), by folder or release.
    fn buckets(&mut self, entry: &Entry, out: &mut BTreeMap<String, Vec<String>>) -> Result<()> {
        for row in &self.map(entry)?.0 {
            let key = row.key.to_ascii_lowercase();
            let is_known = layout::bucket(&key).is_some() || is_release(&key);
            if !is_known {
                self.warn(
                    row.line,
                    format!("{:?} is neither a folder of driver media ({}) nor a release", row.key, BUCKETS.join(", ")),
                );
            }
            let key = layout::bucket(&key).map_or(key, str::to_ascii_lowercase);
            let names = self.texts(row)?;
            for name in &names {
                if layout::bucket(name).is_none() {
                    self.warn(
                        row.line,
                        format!("{name:?} is not one of the known folders of driver media ({})", BUCKETS.join(", ")),
                    );
                }
            }
            // a list says more than the single name of release_to_bucket
            let slot = out.entry(key).or_default();
            if entry.key == "release_to_bucket" {
                slot.splice(0..0, names);
            } else {
                slot.extend(names);
            }
        }
        Ok(())
    }

    fn release(&mut self, entry: &Entry) -> Result<()> {
        let name = self.text(entry)?;
        if !is_release(&name.to_ascii_lowercase()) {
            self.warn(entry.line, format!("{name:?} is not a known release; the guest's own release is used anyway"));
        }
        Ok(())
    }

    fn map<'v>(&self, entry: &'v Entry) -> Result<&'v Map> {
        const EMPTY: &Map = &Map(Vec::new());
        match &entry.value {
            Value::Map(map) => Ok(map),
            Value::Null => Ok(EMPTY),
            _ => Err(self.error(
                entry.line,
                format!("{} is no mapping", entry.key),
                "write \"key: value\" lines, indented, below it",
            )),
        }
    }

    fn text(&self, entry: &Entry) -> Result<String> {
        match &entry.value {
            Value::Text(text) => Ok(text.clone()),
            Value::Bool(value) => Ok(value.to_string()),
            _ => Err(self.error(
                entry.line,
                format!("{} is no text", entry.key),
                "write a single value behind the colon",
            )),
        }
    }

    fn texts(&self, entry: &Entry) -> Result<Vec<String>> {
        match &entry.value {
            Value::List(list) => list
                .iter()
                .map(|value| match value {
                    Value::Text(text) => Ok(text.clone()),
                    _ => Err(self.error(
                        entry.line,
                        format!("an item of {} is no text", entry.key),
                        "write one value in each item",
                    )),
                })
                .collect(),
            Value::Null => Ok(Vec::new()),
            _ => self.text(entry).map(|text| vec![text]),
        }
    }

    fn guid(&self, entry: &Entry) -> Result<Guid> {
        let text = self.text(entry)?;
        Guid::parse(&text).ok_or_else(|| {
            let hint = "write it as \"{4D36E97B-E325-11CE-BFC1-08002BE10318}\", or leave the line out";
            self.error(entry.line, format!("class_guid is no GUID: {text:?}"), hint)
        })
    }

    /// One of several words, or its number.
    fn choice(&self, entry: &Entry, words: &[(&str, u32)]) -> Result<u32> {
        let text = self.text(entry)?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim())).map(|(_, number)| *number);
        let number = || text.trim().parse().ok().filter(|n| words.iter().any(|(_, known)| known == n));
        found.or_else(number).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(
                entry.line,
                format!("{} is unknown: {text:?}", entry.key),
                format!("write one of: {}", known.join(", ")),
            )
        })
    }

    fn boolean(&self, entry: &Entry) -> Result<bool> {
        let text = self.text(entry)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(self.error(
                entry.line,
                format!("{} is neither true nor false: {text:?}", entry.key),
                "write true or false",
            )),
        }
    }

    fn ids(&self, entry: &Entry) -> Result<Vec<String>> {
        let mut out: Vec<String> = Vec::new();
        for text in self.texts(entry)? {
            let id = canonical_id(&text).ok_or_else(|| {
                let hint = "write it as \"pci#ven_1af4&dev_1042\" or \"PCI\\VEN_1AF4&DEV_1042\"";
                self.error(entry.line, format!("{text:?} is no PCI id"), hint)
            })?;
            if !out.contains(&id) {
                out.push(id);
            }
        }
        Ok(out)
    }
}

fn is_release(key: &str) -> bool {
    RELEASES.iter().any(|row| row.key == key) || OTHER_RELEASES.contains(&key)
}

const START_TYPES: &[(&str, u32)] =
    &[("boot", 0), ("system", 1), ("auto", 2), ("demand", 3), ("manual", 3), ("disabled", 4), ("automatic", 2)];
const TYPES: &[(&str, u32)] = &[("kernel", 1), ("filesystem", 2), ("file_system", 2)];
const ERROR_CONTROLS: &[(&str, u32)] = &[("ignore", 0), ("normal", 1), ("severe", 2), ("critical", 3)];

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
        for part in [
            "my.yaml:5: unknown key \"clas_guid\"",
            "\"class_guid\"",
            "my.yaml:6",
            "\"buckets\"",
            "my.yaml:9",
            "\"dos\"",
        ] {
            assert!(all.contains(part), "{part} is not in {all}");
        }
    }

    #[test]
    fn impossible_things_are_errors_with_line_and_remedy() {
        fails(&format!("{DRIVER}      start_type: sometimes\n"), "my.yaml:5", "start_type is unknown");
        fails(&format!("{DRIVER}      start: 7\n"), "my.yaml:5", "unknown");
        fails(&format!("{DRIVER}      type: user\n"), "my.yaml:5", "type");
        fails(&format!("{DRIVER}      error_control: loud\n"), "my.yaml:5", "error_control");
        fails(
            &format!("{DRIVER}      class_guid: \"{{XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX}}\"\n"),
            "my.yaml:5",
            "placeholder",
        );
        fails(&format!("{DRIVER}      class_guid: hello\n"), "my.yaml:5", "no GUID");
        fails(&format!("{DRIVER}      pci_ids:\n        - pci#ven_XXXX&dev_YYYY\n"), "my.yaml:5", "placeholder");
        fails(&format!("{DRIVER}      pci_ids: [usb]\n"), "my.yaml:5", "no PCI id");
        fails(&format!("{DRIVER}      critical_device_database: perhaps\n"), "my.yaml:5", "neither true nor false");
        fails("drivers:\n  storage:\n    - service: x\n", "my.yaml:3", "no name");
        fails("drivers:\n  storage:\n    - name: x\n", "my.yaml:3", "no service");
        fails("drivers:\n  storage: yes\n", "my.yaml:2", "no list");
        fails("drivers: [a]\n", "my.yaml:1", "no mapping");
        fails("a: [\n", "my.yaml", "no valid YAML");
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
