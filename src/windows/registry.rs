//! The guest's hives: reading them from the volume and looking things up by path.

use crate::error::{Error, Kind, Layer, Result};
use crate::hive::reg_file::{KeyPath, Writer, export_to};
use crate::hive::{HIVE_BYTES_MAX, Hive, HiveFile, KeyId, LOG_BYTES_MAX, RegistryData};
use crate::plan::GuestHive;
use crate::plan::saved::REMOVED_KEY_BYTES_MAX;
use crate::windows::guest_files::GuestFiles;

/// Reads the hive at `path` and its logs; `None` when there is no such file.
///
/// # Errors
/// When the hive is damaged, or dirty and its logs cannot repair that.
pub fn load_hive_file(files: &dyn GuestFiles, path: &str) -> Result<Option<HiveFile>> {
    let open = |bytes: Vec<u8>| {
        tracing::debug!(path, bytes = bytes.len(), "read a hive");
        HiveFile::open(bytes, |ending| files.read(&format!("{path}{ending}"), LOG_BYTES_MAX))
    };
    let file = files.read(path, HIVE_BYTES_MAX).and_then(|bytes| bytes.map(open).transpose());
    file.map_err(|e| e.path(path))
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
    Ok(get_value(hive, key, name)?.map(|data| data.to_texts()).unwrap_or_default())
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

/// A key with everything below it as text of a `.reg` file, without its first line; `None` if the key does not exist.
///
/// # Errors
/// When the hive is damaged there, or a key's name cannot be written.
pub fn subtree_text(hive: &Hive, file: GuestHive, key: &str) -> Result<Option<String>> {
    let Some(id) = find_key(hive, key)? else { return Ok(None) };
    let root = KeyPath::from(format!("HKEY_LOCAL_MACHINE\\{file}").as_str());
    let mut units = Vec::new();
    let mut put = |part: &[u16]| {
        let fits = units.len() + part.len() <= REMOVED_KEY_BYTES_MAX / 3;
        units.extend_from_slice(part);
        if fits { Ok(()) } else { Err(too_large(file, key)) }
    };
    let mut writer = Writer::new(&root, false, &mut put);
    export_to(hive, id, &KeyPath::from(key), &mut writer)?;
    writer.finish()?;
    let text = String::from_utf16_lossy(&units);
    Ok(Some(text.split_once("\r\n\r\n").map_or(String::new(), |(_, sections)| sections.to_owned())))
}

/// What we remove is small: an override of a service, the records of one package.
fn too_large(file: GuestHive, key: &str) -> Error {
    Error::refused(Layer::Windows, "a key that is to be removed holds far more than winject's drivers write")
        .path(format!("{file}\\{key}"))
        .hint("find out what is in it: winject reg export IMAGE KEY")
}

/// The error for a hive that must be there.
#[must_use]
pub fn missing_hive(path: &str) -> Error {
    Error::new(Kind::NotWindows, Layer::Windows, "no such hive in this Windows")
        .path(path)
        .hint("choose the partition that holds the Windows system: winject inspect IMAGE shows what the image holds")
}
