//! Keys as they are typed: in full, with a short root key, from the hive on, or from the root of a hive file.

use std::path::Path;

use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape::shell_argument;
use crate::hive::reg_file::KeyPath;
use crate::hive::{Hive, KeyId};
use crate::job::HiveName;

/// Hives that are no part of `System32\config`: names of their files, and where they are in the registry.
const OTHER_HIVES: [(&str, &str); 2] =
    [("NTUSER.DAT", "HKEY_CURRENT_USER"), ("BCD", r"HKEY_LOCAL_MACHINE\BCD00000000")];

/// The place of a hive file in the registry, as far as the name of the file tells it.
struct FileRoot {
    /// A hive of `System32\config`, which can have two paths.
    hive: Option<HiveName>,
    root: KeyPath,
}

impl FileRoot {
    fn of(file: &Path) -> Option<Self> {
        let name = file.file_name()?.to_str()?;
        let other = OTHER_HIVES.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        if let Some((_, root)) = other {
            return Some(Self { hive: None, root: KeyPath::from(*root) });
        }
        let hive = HiveName::of_file(name).or_else(|| HiveName::of_file(file.file_stem()?.to_str()?))?;
        Some(Self { hive: Some(hive), root: hive.root() })
    }

    /// What is left of a full path below this root.
    fn below(&self, path: &KeyPath) -> Option<KeyPath> {
        match (self.hive, HiveName::of(path)) {
            (Some(hive), Ok((name, rest))) => Some(rest).filter(|_| name == hive),
            _ => path.below(&self.root),
        }
    }

    /// What is left of a path that begins with the name of the hive alone, such as `SYSTEM\Select`.
    fn below_name(&self, path: &KeyPath) -> Option<KeyPath> {
        let (hive, typed) = HiveName::of_typed(path).ok()?;
        Some(typed).filter(|_| Some(hive) == self.hive)
    }
}

/// The path from the root of the hive in `file` for a full path, such as one of a `.reg` file.
pub(super) fn in_file(file: &Path, path: &KeyPath) -> Option<KeyPath> {
    FileRoot::of(file)?.below(path)
}

/// The key `text` in a hive file: a path from its root or, if that is where the file belongs to, from the root of the registry
/// or from the name of the hive; with `prefix` a path from its root, or below the prefix.
///
/// # Errors
/// [`Kind::Usage`] for a full path that does not lead into this hive.
pub(super) fn in_hive(hive: &Hive, file: &Path, text: &str, prefix: &KeyPath) -> Result<KeyPath> {
    let path = KeyPath::from(text);
    let root = FileRoot::of(file);
    let path = if !prefix.names().is_empty() {
        path.below(prefix).unwrap_or(path)
    } else if path.is_full() {
        root.as_ref().and_then(|root| root.below(&path)).ok_or_else(|| elsewhere(&path, root.as_ref()))?
    } else {
        // A key that the hive really has comes first.
        let is_there = path.first(1).resolve_control_set(hive)?.find(hive)?.is_some();
        let named = root.filter(|_| !is_there).and_then(|root| root.below_name(&path));
        named.unwrap_or(path)
    };
    path.resolve_control_set(hive)
}

fn elsewhere(path: &KeyPath, root: Option<&FileRoot>) -> Error {
    let first = path.first(path.names().len().min(2));
    let hint = match root {
        Some(root) => format!("in this file a KEY begins with {}, or is a path from its root", root.root),
        None => format!(
            "a KEY is a path from the root of the file; if {first} is this hive, say so: --prefix {}",
            shell_argument(Path::new(&first.to_string()), "KEY")
        ),
    };
    Error::new(Kind::Usage, Layer::Cli, "cannot find the key: it does not belong to this hive")
        .with_code(ErrorCode::KeyElsewhere)
        .path(path.to_string())
        .hint(hint)
}

/// The key at `path`, which must be there; `prefix` stands for the root of the hive in `target` in messages.
///
/// # Errors
/// [`Kind::Usage`] when it is not.
pub(super) fn require(target: &Path, hive: &Hive, path: &KeyPath, prefix: &KeyPath) -> Result<KeyId> {
    let mut key = hive.root();
    for (depth, name) in path.names().iter().enumerate() {
        let Some(next) = hive.subkey(key, name)? else {
            let parent = prefix.concat(&path.first(depth));
            let query = query_command(target, &parent);
            let hint = match depth {
                0 => format!("this shows what the hive holds: {query}"),
                _ => format!("{parent} is there, but holds no {name}; this shows what it holds: {query}"),
            };
            return Err(missing("no such key").path(prefix.concat(path).to_string()).hint(hint));
        };
        key = next;
    }
    Ok(key)
}

/// The error for a value that the key `path` does not have.
pub(super) fn no_value(target: &Path, path: &KeyPath, name: &str) -> Error {
    let shown = if name.is_empty() { "(default)" } else { name };
    missing("no such value")
        .path(format!("{path}: {shown}"))
        .hint(format!("this shows the values of the key: {}", query_command(target, path)))
}

fn missing(what: &str) -> Error {
    Error::new(Kind::Usage, Layer::Hive, what).with_code(ErrorCode::NoSuchKey)
}

fn query_command(target: &Path, key: &KeyPath) -> String {
    let text = key.to_string();
    let key = if text.is_empty() { "\\" } else { &text };
    format!("winject reg query {} {}", shell_argument(target, "TARGET"), shell_argument(Path::new(key), "KEY"))
}
