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

    /// Every hive once, by its first path.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let is_first = |index: &usize| {
            let file = |index: usize| HIVES.get(index).map(|(_, file)| *file);
            (0..*index).all(|earlier| file(earlier) != file(*index))
        };
        (0..HIVES.len()).filter(is_first).map(Self)
    }

    /// Path of the hive's root in the registry, such as `HKEY_LOCAL_MACHINE\SYSTEM`.
    #[must_use]
    pub fn root(self) -> KeyPath {
        HIVES.get(self.0).map(|(root, _)| KeyPath::from(*root)).unwrap_or_default()
    }

    /// Name of the hive's file in `System32\config`.
    pub(super) fn file(self) -> &'static str {
        HIVES.get(self.0).map_or("SYSTEM", |(_, file)| file)
    }
}
