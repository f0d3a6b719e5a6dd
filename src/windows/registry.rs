//! The guest's hives: reading them from the volume and looking things up by path.

use crate::error::{Error, Kind, Layer, Result};
use crate::hive::{HIVE_BYTES_MAX, Hive, HiveFile, KeyId, RegistryData};
use crate::plan::GuestHive;
use crate::windows::guest_files::GuestFiles;

/// Reads a hive of the guest and its logs from `config_dir`; `None` when there is no such file.
///
/// # Errors
/// When the hive is damaged, or dirty and its logs cannot repair that.
pub fn load_hive(files: &dyn GuestFiles, config_dir: &str, file: GuestHive) -> Result<Option<HiveFile>> {
    let path = format!("{config_dir}/{}", file.file_name());
    load_hive_file(files, &path).map_err(|e| name_path_and_remedy(e, &path))
}

/// Reads the hive at `path` and its logs; `None` when there is no such file.
///
/// # Errors
/// When the hive is damaged, or dirty and its logs cannot repair that.
pub fn load_hive_file(files: &dyn GuestFiles, path: &str) -> Result<Option<HiveFile>> {
    HiveFile::load(|ending| files.read(&format!("{path}{ending}"), HIVE_BYTES_MAX))
}

/// Puts the path and, for a dirty hive, the remedy to an error.
fn name_path_and_remedy(error: Error, path: &str) -> Error {
    let error = error.path(path);
    if error.kind() == Kind::Refused {
        return error.hint("start the guest, shut it down cleanly (not hibernated) and export the disk again");
    }
    error
}

/// The key of that path below the root.
///
/// # Errors
/// When the hive is damaged there.
pub fn find_key(hive: &Hive, key: &str) -> Result<Option<KeyId>> {
    if key.is_empty() {
        return Ok(Some(hive.root()));
    }
    hive.find(hive.root(), key)
}

/// A value by the path of its key.
///
/// # Errors
/// When the hive is damaged there.
pub fn get_value(hive: &Hive, key: &str, name: &str) -> Result<Option<RegistryData>> {
    let Some(id) = find_key(hive, key)? else { return Ok(None) };
    hive.value(id, name)
}

/// A string value (`REG_SZ` or `REG_EXPAND_SZ`).
///
/// # Errors
/// When the hive is damaged there.
pub fn get_string(hive: &Hive, key: &str, name: &str) -> Result<Option<String>> {
    Ok(get_value(hive, key, name)?.and_then(|data| data.as_text()))
}

/// A DWORD value.
///
/// # Errors
/// When the hive is damaged there.
pub fn get_u32(hive: &Hive, key: &str, name: &str) -> Result<Option<u32>> {
    Ok(get_value(hive, key, name)?.and_then(|data| data.as_u32()))
}

/// The strings of a `REG_MULTI_SZ`, or the one of a `REG_SZ`.
///
/// # Errors
/// When the hive is damaged there.
pub fn get_strings(hive: &Hive, key: &str, name: &str) -> Result<Vec<String>> {
    let data = get_value(hive, key, name)?;
    let single = |d: &RegistryData| d.as_text().filter(|t| !t.is_empty()).map(|t| vec![t]);
    Ok(data.and_then(|d| d.as_texts().or_else(|| single(&d))).unwrap_or_default())
}

/// The names of the subkeys of a key; empty if the key does not exist.
///
/// # Errors
/// When the hive is damaged there.
pub fn subkey_names(hive: &Hive, key: &str) -> Result<Vec<String>> {
    let Some(id) = find_key(hive, key)? else { return Ok(Vec::new()) };
    hive.subkeys(id)?.into_iter().map(|sub| Ok(hive.key_name(sub)?.to_string())).collect()
}

/// All values of a key; empty if the key does not exist.
///
/// # Errors
/// When the hive is damaged there.
pub fn key_values(hive: &Hive, key: &str) -> Result<Vec<(String, RegistryData)>> {
    let Some(id) = find_key(hive, key)? else { return Ok(Vec::new()) };
    let values = hive.values(id)?;
    Ok(values.into_iter().map(|v| (v.name.to_string(), v.data)).collect())
}

/// The error for a hive that must be there.
#[must_use]
pub fn missing_hive(config_dir: &str, file: GuestHive) -> Error {
    Error::new(Kind::NotWindows, Layer::Windows, "no such hive in this Windows")
        .path(format!("{config_dir}/{}", file.file_name()))
        .hint("choose the partition that holds the Windows system")
}
