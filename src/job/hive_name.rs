//! The hives of an installed Windows: where they are in the registry, and their files.

use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::hive::reg_file::KeyPath;

/// Paths of the hives in the registry, each with its file in `System32\config`.
const HIVES: [(&str, &str); 9] = [
    (r"HKEY_LOCAL_MACHINE\SYSTEM", "SYSTEM"),
    (r"HKEY_LOCAL_MACHINE\SOFTWARE", "SOFTWARE"),
    (r"HKEY_LOCAL_MACHINE\SAM", "SAM"),
    (r"HKEY_LOCAL_MACHINE\SECURITY", "SECURITY"),
    (r"HKEY_LOCAL_MACHINE\COMPONENTS", "COMPONENTS"),
    (r"HKEY_LOCAL_MACHINE\DRIVERS", "DRIVERS"),
    (r"HKEY_LOCAL_MACHINE\ELAM", "ELAM"),
    (r"HKEY_USERS\.DEFAULT", "DEFAULT"),
    (r"HKEY_USERS\S-1-5-18", "DEFAULT"), // the local system account: the same hive
];

/// A hive that every installed Windows has as a file in `System32\config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HiveName(usize);

impl HiveName {
    /// Splits a full path such as `HKLM\SYSTEM\Select` into its hive and the path in that hive.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the path does not begin with a hive that an image holds as a file of its own.
    pub fn of(path: &KeyPath) -> Result<(Self, KeyPath)> {
        let found = HIVES.iter().find_map(|(root, file)| {
            let path = path.below(&KeyPath::from(*root))?;
            // DEFAULT is mounted twice: the first path stands for both.
            Some((Self(HIVES.iter().position(|(_, other)| other == file)?), path))
        });
        found.ok_or_else(|| {
            let error =
                Error::new(Kind::Usage, Layer::Job, "not a key of a hive that an image holds").with_code(ErrorCode::KeyElsewhere).path(path.to_string());
            error.hint(
                r"in an image a key begins with its hive: HKLM\SYSTEM, SOFTWARE, SAM, SECURITY, COMPONENTS, DRIVERS or ELAM, or HKU\.DEFAULT; other hives (NTUSER.DAT, BCD) are read and edited as files",
            )
        })
    }

    /// Like [`of`](Self::of) for a path that a person types: `SYSTEM\Select` stands for `HKLM\SYSTEM\Select`.
    ///
    /// # Errors
    /// Those of [`of`](Self::of).
    pub fn of_typed(path: &KeyPath) -> Result<(Self, KeyPath)> {
        Self::of(path).or_else(|error| {
            let below = |root: &str| Self::of(&KeyPath::from(root).concat(path)).ok();
            let found = || below("HKEY_LOCAL_MACHINE").or_else(|| below("HKEY_USERS"));
            Some(path).filter(|path| !path.is_full()).and_then(|_| found()).ok_or(error)
        })
    }

    /// The hive whose file in `System32\config` has this name, in any case.
    #[must_use]
    pub fn of_file(name: &str) -> Option<Self> {
        HIVES.iter().position(|(_, file)| file.eq_ignore_ascii_case(name)).map(Self)
    }

    /// All hives, each once.
    pub fn all() -> impl Iterator<Item = Self> {
        let is_first = |(index, (_, file)): &(usize, &(&str, &str))| Self::of_file(file) == Some(Self(*index));
        HIVES.iter().enumerate().filter(is_first).map(|(index, _)| Self(index))
    }

    /// Path of the hive's root in the registry, such as `HKEY_LOCAL_MACHINE\SYSTEM`.
    #[must_use]
    pub fn root(self) -> KeyPath {
        HIVES.get(self.0).map(|(root, _)| KeyPath::from(*root)).unwrap_or_default()
    }

    /// Name of the hive's file in `System32\config`.
    #[must_use]
    pub fn file(self) -> &'static str {
        HIVES.get(self.0).map_or("SYSTEM", |(_, file)| file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_each_of_its_spellings() {
        let of = |text: &str| {
            HiveName::of_typed(&KeyPath::from(text)).ok().map(|(name, rest)| (name.file(), rest.to_string()))
        };
        for text in
            [r"HKLM\SYSTEM\Select", r"HKEY_LOCAL_MACHINE\SYSTEM\Select", r"SYSTEM\Select", r"hklm\system\Select"]
        {
            assert_eq!(of(text), Some(("SYSTEM", "Select".to_owned())), "{text}");
        }
        assert_eq!(of(r".DEFAULT\x"), Some(("DEFAULT", "x".to_owned())));
        assert_eq!(of(r"HKU\S-1-5-18"), Some(("DEFAULT", r"\".to_owned())));
        for text in [r"HKCU\SYSTEM", r"Select", "", r"HKLM\NONE"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn every_file_is_one_hive() {
        let files: Vec<_> = HiveName::all().map(HiveName::file).collect();
        assert_eq!(files.len(), 8, "{files:?}");
        assert!(
            files.iter().all(|file| HiveName::of_file(&file.to_lowercase()).is_some_and(|name| name.file() == *file))
        );
    }
}
