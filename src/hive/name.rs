//! Names of keys and values: how they are stored, compared and hashed.

use std::cmp::Ordering;
use std::fmt;

use crate::upcase::upcase;

/// A name: UTF-16 code units, not necessarily valid UTF-16.
///
/// `==` is exact; Windows' own comparison is [`eq_ignore_case`](Self::eq_ignore_case). The empty name is that of a
/// key's default value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Name(Vec<u16>);

impl Name {
    /// A name of these UTF-16 code units.
    #[must_use]
    pub fn from_units(units: Vec<u16>) -> Self {
        Self(units)
    }

    /// The UTF-16 code units, without a terminator.
    #[must_use]
    pub fn units(&self) -> &[u16] {
        &self.0
    }

    /// Whether this is the empty name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Equal to `other` as Windows compares (unit by unit, both upper-cased).
    #[must_use]
    pub fn eq_ignore_case(&self, other: &str) -> bool {
        let units = self.0.iter().map(|&u| upcase(u));
        units.eq(other.encode_utf16().map(upcase))
    }

    /// Equal to `other` as Windows compares.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(&a, &b)| upcase(a) == upcase(b))
    }

    /// The upper-cased units: equal for names that Windows takes for equal, and sorted as Windows sorts.
    #[must_use]
    pub fn folded(&self) -> Vec<u16> {
        self.0.iter().map(|&u| upcase(u)).collect()
    }

    /// The bytes as stored, and whether that is the 8-bit form: used whenever all units fit (not for the empty name).
    pub(super) fn encode(&self) -> (Vec<u8>, bool) {
        let latin: Option<Vec<u8>> = self.0.iter().map(|&u| u8::try_from(u).ok()).collect();
        match latin {
            Some(bytes) if !bytes.is_empty() => (bytes, true),
            _ => (self.0.iter().flat_map(|u| u.to_le_bytes()).collect(), false),
        }
    }

    /// Length in bytes as UTF-16, which is what the cached maxima count.
    pub(super) fn wide_length(&self) -> usize {
        self.0.len() * 2
    }

    pub(super) fn hash(&self) -> u32 {
        hash(self.0.iter().copied())
    }

    pub(super) fn hint(&self) -> [u8; 4] {
        hint(self.0.iter().copied())
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.encode_utf16().collect())
    }
}

/// Readable text; invalid UTF-16 and control characters appear as `\u{…}`.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for unit in char::decode_utf16(self.0.iter().copied()) {
            match unit {
                Ok(c) if !c.is_control() => f.write_char(c)?,
                Ok(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                Err(lone) => write!(f, "\\u{{{:x}}}", lone.unpaired_surrogate())?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A name where it lies in a cell.
#[derive(Clone, Copy)]
pub(super) enum StoredName<'a> {
    /// One byte for each unit.
    Latin(&'a [u8]),
    /// UTF-16LE; an odd last byte is ignored.
    Wide(&'a [u8]),
}

impl<'a> StoredName<'a> {
    pub(super) fn new(bytes: &'a [u8], latin: bool) -> Self {
        if latin { Self::Latin(bytes) } else { Self::Wide(bytes) }
    }

    pub(super) fn units(self) -> impl Iterator<Item = u16> + 'a {
        let (latin, wide): (&[u8], &[u8]) = match self {
            Self::Latin(bytes) => (bytes, &[]),
            Self::Wide(bytes) => (&[], bytes),
        };
        let wide = wide.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        latin.iter().map(|&b| u16::from(b)).chain(wide)
    }

    /// Number of UTF-16 code units.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Latin(bytes) => bytes.len(),
            Self::Wide(bytes) => bytes.len() / 2,
        }
    }

    pub(super) fn to_name(self) -> Name {
        Name(self.units().collect())
    }

    /// The name for a report; of a very long one only the beginning.
    pub(super) fn shown(self) -> String {
        const UNITS: usize = 300; // longer than any name of a key
        let name = Name(self.units().take(UNITS).collect());
        if self.len() > UNITS { format!("{name}… ({} characters)", self.len()) } else { name.to_string() }
    }

    /// Windows' order of subkeys: upper-cased units as unsigned numbers, a prefix first.
    pub(super) fn cmp_upcased(self, other: Self) -> Ordering {
        if let (Self::Latin(a), Self::Latin(b)) = (self, other) {
            return a.iter().map(|&u| upcase(u.into())).cmp(b.iter().map(|&u| upcase(u.into())));
        }
        self.units().map(upcase).cmp(other.units().map(upcase))
    }

    /// This name against `name` in Windows' order.
    pub(super) fn cmp_name(self, name: &Name) -> Ordering {
        self.units().map(upcase).cmp(name.0.iter().map(|&u| upcase(u)))
    }

    /// Whether Windows takes the two names for the same.
    pub(super) fn is(self, name: &Name) -> bool {
        self.len() == name.0.len() && self.cmp_name(name) == Ordering::Equal
    }
}

/// Sorts as Windows does. Of several entries whose names are the same to Windows, which is damage, the last one stays.
pub(super) fn sort_by_name<T>(mut entries: Vec<(StoredName<'_>, T)>) -> Vec<(StoredName<'_>, T)> {
    entries.sort_by(|(a, _), (b, _)| a.cmp_upcased(*b));
    entries.dedup_by(|later, earlier| {
        let is_same = later.0.cmp_upcased(earlier.0) == Ordering::Equal;
        if is_same {
            std::mem::swap(later, earlier);
        }
        is_same
    });
    entries
}

/// The hash of an `lh` entry.
pub(super) fn hash(units: impl Iterator<Item = u16>) -> u32 {
    units.fold(0, |hash, unit| u32::wrapping_add(hash.wrapping_mul(37), upcase(unit).into()))
}

/// The hint of an `lf` entry: the first four characters in their own case, taken from the fourth down to the first
/// until one does not fit into a byte; what is left out is zero.
pub(super) fn hint(units: impl Iterator<Item = u16>) -> [u8; 4] {
    let first: Vec<u16> = units.take(4).collect();
    let mut hint = [0; 4];
    for (slot, &unit) in hint.iter_mut().zip(&first).rev() {
        let Ok(byte) = u8::try_from(unit) else { break };
        *slot = byte;
    }
    hint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_known_names() {
        let of = |name: &str| Name::from(name).hash();
        assert_eq!(of("Zürich"), 0x8CD1_CF20);
        assert_eq!(of("zÜRICH"), 0x8CD1_CF20);
        assert_eq!(of("Café"), 0x0035_2F57);
        assert_eq!(of("Ωmega"), 0x68E8_C913);
        assert_eq!(of("\u{FF21}"), 0xFF21);
    }

    #[test]
    fn hints_stop_at_the_first_unit_that_is_no_byte() {
        let of = |name: &str| Name::from(name).hint();
        assert_eq!(of("Control"), *b"Cont");
        assert_eq!(of("ab"), *b"ab\0\0");
        assert_eq!(of("aΩbc"), *b"\0\0bc");
        assert_eq!(of("abcΩ"), *b"\0\0\0\0");
    }

    #[test]
    fn order_is_that_of_units_not_of_characters() {
        let stored = |name: &str| name.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let (deseret, fullwidth) = (stored("\u{10400}"), stored("\u{FF21}"));
        assert_eq!(StoredName::Wide(&deseret).cmp_upcased(StoredName::Wide(&fullwidth)), Ordering::Less);
        assert_eq!(StoredName::Latin(b"a_").cmp_upcased(StoredName::Latin(b"az")), Ordering::Greater);
        assert_eq!(StoredName::Latin(b"a").cmp_upcased(StoredName::Wide(&stored("AB"))), Ordering::Less);
        assert_eq!(StoredName::Latin(b"\xB5").cmp_upcased(StoredName::Wide(&stored("\u{39C}"))), Ordering::Less);
        assert!(StoredName::Latin(b"\xFF").is(&Name::from("\u{178}")));
    }

    #[test]
    fn storage_is_8_bit_when_it_can_be() {
        assert_eq!(Name::from("Café").encode(), (b"Caf\xE9".to_vec(), true));
        assert_eq!(Name::from("Ω").encode(), (vec![0xA9, 0x03], false));
        assert_eq!(Name::from("").encode(), (vec![], false));
    }

    #[test]
    fn display_shows_what_is_no_text() {
        let name = Name::from_units(vec![0x41, 0, 0xD800, 0x42]);
        assert_eq!(name.to_string(), r"A\u{0}\u{d800}B");
    }
}
