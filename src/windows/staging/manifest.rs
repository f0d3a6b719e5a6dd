//! `manifest.json` in the guest lists what a run put there.
//!
//! It lists the desired state, not the changes, so that a second run writes the same bytes; with what earlier runs put there
//! and this one leaves alone. `windows/removal` reads it back.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode, Layer, Result};
use crate::hive::RegistryData;
use crate::plan::saved::{STEPS_MAX, UPLOADS_MAX};
use crate::windows::guest_paths::MANIFEST;
use crate::windows::plan_builder::{Desired, PlanBuilder, ReplacedValue};
use crate::windows::record::{BootRecord, Record};

/// Largest manifest that is read, in bytes.
pub const BYTES_MAX: u64 = 16 << 20;
/// Version of the form, the value of [`Manifest::schema`].
pub const SCHEMA: &str = "winject.manifest.v1";

/// The manifest as JSON has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Name of the program that wrote it.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// Files with their contents.
    pub files: Vec<ManifestFile>,
    /// Files of the user that winject put outside of its own places; left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uploads: Vec<ManifestFile>,
    /// Folders that were made for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upload_folders: Vec<String>,
    /// Registry values with their data.
    pub registry: Vec<ManifestValue>,
    /// Keys that must not be there: hive and path.
    pub removed_keys: Vec<String>,
    /// Packages in `DriverDatabase`.
    pub driver_database: Vec<ManifestPackage>,
    /// Values of the guest's own that were replaced, with what they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<ManifestReplaced>,
    /// INFs of others below the staging folder that the first-boot job never installs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_infs: Vec<String>,
    /// Edits of the boot volume; left out if there are none.
    #[serde(default, skip_serializing_if = "ManifestBoot::is_empty")]
    pub boot: ManifestBoot,
}

/// Edits of the boot volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestBoot {
    /// New files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ManifestFile>,
    /// Elements of the boot configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elements: Vec<ManifestElement>,
}

impl Manifest {
    /// Whether it lists more than one that is read.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        let lists = [
            self.files.len(),
            self.registry.len(),
            self.removed_keys.len(),
            self.driver_database.len(),
            self.replaced.len(),
        ];
        lists.into_iter().any(|count| count > STEPS_MAX)
            || self.uploads.len().max(self.upload_folders.len()) > UPLOADS_MAX
    }
}

impl ManifestBoot {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.elements.is_empty()
    }
}

/// An element of the boot configuration that winject changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestElement {
    /// The object, a GUID in braces.
    pub object: String,
    /// The number of the element.
    pub element: String,
    /// Its data in hexadecimal; `null` if winject removed it.
    pub data: Option<String>,
    /// Its data before, in hexadecimal; `null` if it was not there.
    pub before: Option<String>,
}

/// A file of the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Path on the Windows volume.
    pub path: String,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

/// A registry value of the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestValue {
    /// Hive and path of the key: `SYSTEM\ControlSet001\Services\viostor`.
    pub key: String,
    /// Name of the value; empty for the default value.
    pub name: String,
    /// Type and data.
    pub data: RegistryData,
}

/// A package in `DriverDatabase`, with the device ids that are bound to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestPackage {
    /// Name of the INF in the guest.
    pub inf: String,
    /// Name of the package.
    pub package: String,
    /// Device ids.
    pub ids: Vec<String>,
}

fn boot_part(record: &BootRecord) -> ManifestBoot {
    let files = record.files.iter().map(|file| ManifestFile { path: file.path.clone(), sha256: file.sha256.clone() });
    let elements = record.elements.iter().map(|element| ManifestElement {
        object: element.object.clone(),
        element: element.element.clone(),
        data: element.data.clone(),
        before: element.before.clone(),
    });
    ManifestBoot { files: files.collect(), elements: elements.collect() }
}

/// A value of the guest's own that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestReplaced {
    /// Hive and path of the key.
    pub key: String,
    /// Name of the value; empty for the default value.
    pub name: String,
    /// Type and data that were written; left out where the value was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<RegistryData>,
    /// Type and data that the guest had; left out where it had no such value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<RegistryData>,
}

/// The manifest that an earlier run left; `None` if it is missing, not protected as winject protects it, too large, or not
/// one. `windows/removal` says which of these it is.
///
/// # Errors
/// When the volume is damaged there.
pub fn read_trusted(builder: &PlanBuilder<'_>) -> Result<Option<Manifest>> {
    let fits = builder.file_size(MANIFEST)?.is_some_and(|size| size <= BYTES_MAX);
    if !fits || builder.is_folder(MANIFEST)? || !builder.is_protected_file(MANIFEST)? {
        return Ok(None);
    }
    let bytes = builder.read_small_file(MANIFEST, BYTES_MAX)?.unwrap_or_default();
    Ok(serde_json::from_slice(&bytes).ok())
}

/// The file's bytes: UTF-8 without a byte-order mark, with CR LF. `packages` are those in `DriverDatabase` of earlier runs.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) when it would be larger than one that is read.
pub fn to_bytes(
    desired_state: &[Desired],
    replaced: &[ReplacedValue],
    packages: Vec<ManifestPackage>,
    record: &Record,
) -> Result<Vec<u8>> {
    let mut manifest = Manifest {
        schema: SCHEMA.to_owned(),
        tool: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        files: Vec::new(),
        uploads: Vec::new(),
        upload_folders: Vec::new(),
        registry: Vec::new(),
        removed_keys: Vec::new(),
        driver_database: Vec::new(),
        boot: boot_part(&record.boot),
        replaced: Vec::new(),
        refused_infs: record.firstboot.refused.clone(),
    };
    for desired in desired_state {
        match desired {
            Desired::File { path, sha256 } => {
                manifest.files.push(ManifestFile { path: path.clone(), sha256: sha256.clone() });
            }
            Desired::Upload { path, sha256 } => {
                manifest.uploads.push(ManifestFile { path: path.clone(), sha256: sha256.clone() });
            }
            Desired::UploadFolder { path } => manifest.upload_folders.push(path.clone()),
            Desired::Value { hive, key, name, data } => {
                let key = format!("{hive}\\{key}");
                manifest.registry.push(ManifestValue { key, name: name.clone(), data: data.clone() });
            }
            Desired::AbsentKey { hive, key } => manifest.removed_keys.push(format!("{hive}\\{key}")),
        }
    }
    for done in record.registry_changes.driver_database.iter().filter(|d| !d.ids.is_empty()) {
        manifest.driver_database.push(ManifestPackage {
            inf: done.inf.clone(),
            package: done.package.clone(),
            ids: done.ids.clone(),
        });
    }
    for package in packages {
        if !manifest.driver_database.iter().any(|own| own.inf.eq_ignore_ascii_case(&package.inf)) {
            manifest.driver_database.push(package);
        }
    }
    for ReplacedValue { hive, key, name, data, before } in replaced {
        let (key, name, data, before) = (format!("{hive}\\{key}"), name.clone(), data.clone(), before.clone());
        manifest.replaced.push(ManifestReplaced { key, name, data, before });
    }
    let text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
    let bytes = format!("{text}\n").replace('\n', "\r\n").into_bytes();
    if manifest.is_too_long() || bytes.len() as u64 > BYTES_MAX {
        let what = "cannot list what this run and earlier ones put into the guest: it is more than a manifest holds";
        return Err(Error::refused(Layer::Windows, what)
            .with_code(ErrorCode::ManifestUnusable)
            .path(MANIFEST)
            .hint("winject remove IMAGE --in-place takes out what earlier runs put there; then inject again"));
    }
    Ok(bytes)
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
        let bytes = to_bytes(&desired_state, &[], Vec::new(), &Record::default()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["files"][0]["path"], "/a");
        assert_eq!(json["registry"][0]["key"], "SYSTEM\\K");
        assert_eq!(json["removed_keys"][0], "SYSTEM\\K\\StartOverride");
        assert!(bytes.ends_with(b"}\r\n"));
        let read: Manifest = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read.registry[0].data, RegistryData::dword(0));
    }
}
