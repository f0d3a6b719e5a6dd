//! `manifest.json` in the guest lists what a run put there.
//!
//! It lists the desired state, not the changes, so that a second run writes the same bytes.

use serde::Serialize;

use crate::hive::RegistryData;
use crate::windows::plan_builder::Desired;
use crate::windows::record::Record;

#[derive(Serialize)]
struct Manifest<'a> {
    schema: &'static str,
    tool: &'static str,
    version: &'static str,
    files: Vec<File<'a>>,
    registry: Vec<Value<'a>>,
    removed_keys: Vec<String>,
    driver_database: Vec<Invented<'a>>,
}

#[derive(Serialize)]
struct File<'a> {
    path: &'a str,
    sha256: &'a str,
}

#[derive(Serialize)]
struct Value<'a> {
    key: String,
    name: &'a str,
    data: &'a RegistryData,
}

#[derive(Serialize)]
struct Invented<'a> {
    inf: &'a str,
    package: &'a str,
    ids: &'a [String],
}

/// The file's bytes: UTF-8 without a byte-order mark, with CR LF.
#[must_use]
pub fn to_bytes(desired_state: &[Desired], record: &Record) -> Vec<u8> {
    let mut manifest = Manifest {
        schema: "winject.manifest.v1",
        tool: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        files: Vec::new(),
        registry: Vec::new(),
        removed_keys: Vec::new(),
        driver_database: Vec::new(),
    };
    for desired in desired_state {
        match desired {
            Desired::File { path, sha256 } => manifest.files.push(File { path, sha256 }),
            Desired::Value { hive, key, name, data } => {
                manifest.registry.push(Value { key: format!("{hive}\\{key}"), name, data });
            }
            Desired::AbsentKey { hive, key } => manifest.removed_keys.push(format!("{hive}\\{key}")),
        }
    }
    for done in record.registry_changes.driver_database.iter().filter(|d| !d.ids.is_empty()) {
        manifest.driver_database.push(Invented { inf: &done.inf, package: &done.package, ids: &done.ids });
    }
    let text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
    format!("{text}\n").replace('\n', "\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::GuestHive;

    #[test]
    fn is_json_that_names_everything() {
        let desired_state = [
            Desired::File { path: "/a".to_owned(), sha256: "00".to_owned() },
            Desired::Value {
                hive: GuestHive::System,
                key: "K".to_owned(),
                name: "Start".to_owned(),
                data: RegistryData::dword(0),
            },
            Desired::AbsentKey { hive: GuestHive::System, key: "K\\StartOverride".to_owned() },
        ];
        let bytes = to_bytes(&desired_state, &Record::default());
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["files"][0]["path"], "/a");
        assert_eq!(json["registry"][0]["key"], "SYSTEM\\K");
        assert_eq!(json["removed_keys"][0], "SYSTEM\\K\\StartOverride");
        assert!(bytes.ends_with(b"}\r\n"));
    }
}
