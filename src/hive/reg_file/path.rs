//! Paths of keys.

use std::fmt;

use crate::error::{Error, Layer, Result};
use crate::hive::{Hive, KeyId, Name};

/// The root keys that a path may begin with, and their short forms.
const ROOTS: [(&str, &str); 5] = [
    ("HKLM", "HKEY_LOCAL_MACHINE"),
    ("HKU", "HKEY_USERS"),
    ("HKCU", "HKEY_CURRENT_USER"),
    ("HKCR", "HKEY_CLASSES_ROOT"),
    ("HKCC", "HKEY_CURRENT_CONFIG"),
];

/// A path of keys: names, separated by `\` in its text. The empty path is the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPath(Vec<Name>);

impl KeyPath {
    /// From code units. Empty components are left out; a short root key such as `HKLM` is written in full.
    #[must_use]
    pub fn from_units(units: &[u16]) -> Self {
        let parts = units.split(|&u| u == u16::from(b'\\')).filter(|part| !part.is_empty());
        let mut names: Vec<Name> = parts.map(|part| Name::from_units(part.to_vec())).collect();
        if let Some(first) = names.first_mut()
            && let Some((_, long)) = ROOTS.iter().find(|(short, _)| first.eq_ignore_case(short))
        {
            *first = Name::from(*long);
        }
        Self(names)
    }

    /// The names, the outermost first.
    #[must_use]
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// The first `count` names of this path.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        Self(self.0.iter().take(count).cloned().collect())
    }

    /// Whether this path begins with a root key of the registry, such as `HKEY_LOCAL_MACHINE`.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.first().is_some_and(|first| ROOTS.iter().any(|(_, long)| first.eq_ignore_case(long)))
    }

    /// This path with one more name.
    #[must_use]
    pub fn join(&self, name: Name) -> Self {
        let mut names = self.0.clone();
        names.push(name);
        Self(names)
    }

    /// Adds a name; [`pop`](Self::pop) takes it off again.
    pub(super) fn push(&mut self, name: Name) {
        self.0.push(name);
    }

    /// Takes the last name off.
    pub(super) fn pop(&mut self) {
        self.0.pop();
    }

    /// This path followed by another.
    #[must_use]
    pub fn concat(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// What is left of this path below `prefix`; `None` when it is not below it.
    #[must_use]
    pub fn below(&self, prefix: &Self) -> Option<Self> {
        let (start, rest) = self.0.split_at_checked(prefix.0.len())?;
        start.iter().zip(&prefix.0).all(|(a, b)| a.is_same(b)).then(|| Self(rest.to_vec()))
    }

    /// This path with a leading `CurrentControlSet` replaced by the control set that `Select` names, as Windows does at
    /// boot. A hive that really has such a key, or has no `Select`, is left alone.
    ///
    /// # Errors
    /// `Select` names no control set of the hive.
    pub fn resolve_control_set(&self, hive: &Hive) -> Result<Self> {
        const LINK: &str = "CurrentControlSet";
        let is_link = self.0.first().is_some_and(|first| first.eq_ignore_case(LINK));
        if !is_link || hive.find(hive.root(), LINK)?.is_some() {
            return Ok(self.clone());
        }
        let Some(select) = hive.find(hive.root(), "Select")? else { return Ok(self.clone()) };
        let current = hive.value(select, "Current")?.and_then(|v| v.as_u32()).filter(|&n| (1..=999).contains(&n));
        let name = current.map(|n| format!("ControlSet{n:03}"));
        let exists = name.as_ref().map(|n| hive.find(hive.root(), n)).transpose()?.flatten().is_some();
        let Some(name) = name.filter(|_| exists) else {
            let error = Error::damaged(Layer::Hive, "Select\\Current names no control set of this hive");
            return Err(error.hint("name the control set yourself, such as ControlSet001"));
        };
        let mut names = self.0.clone();
        if let Some(first) = names.first_mut() {
            *first = Name::from(name.as_str());
        }
        Ok(Self(names))
    }

    /// The key at this path from the root of a hive.
    ///
    /// # Errors
    /// Damage on the way.
    pub fn find(&self, hive: &Hive) -> Result<Option<KeyId>> {
        let mut key = hive.root();
        for name in &self.0 {
            match hive.subkey(key, name)? {
                Some(next) => key = next,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }
}

impl From<&str> for KeyPath {
    fn from(text: &str) -> Self {
        Self::from_units(&text.encode_utf16().collect::<Vec<_>>())
    }
}

/// `\` alone is the root.
impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("\\");
        }
        for (i, name) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\\")?;
            }
            fmt::Display::fmt(name, f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FileTime;
    use crate::hive::RegistryData;

    #[test]
    fn prefixes_are_taken_off_in_any_case() {
        let path = KeyPath::from(r"HKLM\system\Select");
        assert_eq!(path.to_string(), r"HKEY_LOCAL_MACHINE\system\Select");
        let rest = path.below(&KeyPath::from(r"HKEY_LOCAL_MACHINE\SYSTEM")).unwrap();
        assert_eq!(rest.to_string(), "Select");
        assert_eq!(path.below(&KeyPath::from(r"HKLM\SYSTEM\Setup")), None);
        assert_eq!(KeyPath::from("\\").to_string(), "\\");
    }

    #[test]
    fn the_current_control_set_is_the_one_that_select_names() {
        let now = FileTime(1);
        let mut hive = Hive::create("SYSTEM", now);
        let path = KeyPath::from(r"currentcontrolset\Services");
        assert_eq!(path.resolve_control_set(&hive).unwrap(), path, "no Select, no link");
        let select = hive.create_key(hive.root(), "Select", now).unwrap();
        assert!(path.resolve_control_set(&hive).is_err());
        let two = RegistryData::dword(2);
        hive.set_value(select, "Current", &two, now).unwrap();
        assert!(path.resolve_control_set(&hive).is_err(), "there is no such set");
        hive.create_key(hive.root(), "ControlSet002", now).unwrap();
        assert_eq!(path.resolve_control_set(&hive).unwrap().to_string(), r"ControlSet002\Services");
    }
}
