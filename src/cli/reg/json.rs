//! What the `reg` commands answer in JSON.

use std::path::Path;

use serde::Serialize;

use super::target::OpenedKey;
use crate::cli::Ui;
use crate::cli::output::JsonList;
use crate::error::{Error, Kind, Layer, Result};
use crate::hive::reg_file::{self, KeyPath};
use crate::hive::{Hive, KeyId, RegistryData};

/// What stands above the keys of `reg query`.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct QueryAnswer {
    /// Path of the hive file or the image, as it was given.
    target: String,
}

/// A key of `reg query`.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct QueriedKey {
    /// Its whole path.
    path: String,
    /// Its values, in the order of the hive; with `--value` or `--default` the one that was asked for.
    values: Vec<QueriedValue>,
    /// Names of its subkeys; left out with `--recursive`, where they are listed themselves, and for a single value.
    #[serde(skip_serializing_if = "Option::is_none")]
    subkeys: Option<Vec<String>>,
}

/// A value of a key.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct QueriedValue {
    /// Its name; empty for the default value.
    name: String,
    /// Its type and content.
    data: RegistryData,
}

/// The answer of `reg set`, `reg delete` and `reg import`.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct EditAnswer<'a> {
    /// Path of the hive file or the image, as it was given.
    pub(super) target: String,
    /// Whether anything was changed (for a dry run: would be).
    pub(super) changed: bool,
    /// Whether it was a dry run, which writes nothing.
    pub(super) dry_run: bool,
    /// What was done, in words; for an edit that changed nothing what was to be done.
    pub(super) what: &'a str,
    /// The keys and values that were changed, each with what was there before, in words.
    pub(super) changes: &'a [String],
}

/// Refuses `--json` for a command whose answer is a `.reg` file.
///
/// # Errors
/// [`Kind::Usage`].
pub(super) fn refuse_for_reg_file(ui: &Ui) -> Result<()> {
    if !ui.is_json() {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, Layer::Cli, "cannot write a .reg file as JSON")
        .hint("leave --json out; winject reg query --json --recursive lists keys and values"))
}

/// Prints a key with all that was asked for.
///
/// # Errors
/// [`Kind::Usage`] when the value that was asked for is not there.
pub(super) fn query(
    target: &Path,
    opened: &OpenedKey,
    key: KeyId,
    value: Option<&str>,
    recursive: bool,
    ui: &Ui,
) -> Result<()> {
    let value = value.map(|name| opened.value(key, name)).transpose()?;
    let mut list = JsonList::begin(ui, "reg-query", &QueryAnswer { target: target.display().to_string() }, "keys")?;
    let hive = &opened.hive;
    let path = opened.full_path();
    if let Some(found) = value {
        let values = vec![QueriedValue { name: found.name.to_string(), data: found.data }];
        list.push(&QueriedKey { path: path.to_string(), values, subkeys: None })?;
    } else if recursive {
        reg_file::walk(hive, key, &path, &mut |key, path| list.push(&queried(hive, key, path, None)?))?;
    } else {
        let names = hive.subkeys(key)?.into_iter().map(|child| Ok(hive.key_name(child)?.to_string()));
        list.push(&queried(hive, key, &path, Some(names.collect::<Result<_>>()?))?)?;
    }
    list.end();
    Ok(())
}

fn queried(hive: &Hive, key: KeyId, path: &KeyPath, subkeys: Option<Vec<String>>) -> Result<QueriedKey> {
    let mut values = Vec::new();
    hive.each_value(key, &mut |value| {
        values.push(QueriedValue { name: value.name.to_string(), data: value.data });
        Ok(())
    })?;
    Ok(QueriedKey { path: path.to_string(), values, subkeys })
}
