//! Names: UTF-16, compared under the volume's own upper-case table.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

use super::upcase::UpcaseTable;
use crate::field::utf16_from_le;

/// Longest file or stream name in UTF-16 units.
pub const NAME_UNITS_MAX: usize = 255;

/// A name as NTFS stores it: up to 255 UTF-16 units, not necessarily valid UTF-16.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NtfsName(Vec<u16>);

impl NtfsName {
    /// A name of these UTF-16 units, valid UTF-16 or not.
    #[must_use]
    pub fn from_units(units: Vec<u16>) -> Self {
        Self(units)
    }

    /// A name from UTF-16LE bytes; an odd last byte is ignored.
    #[must_use]
    pub fn from_le_bytes(bytes: &[u8]) -> Self {
        Self(utf16_from_le(bytes))
    }

    /// The UTF-16 units of the name.
    #[must_use]
    pub fn units(&self) -> &[u16] {
        &self.0
    }

    /// Whether it is empty (the unnamed stream).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for NtfsName {
    fn from(text: &str) -> Self {
        let mut units = Vec::with_capacity(text.len());
        units.extend(text.encode_utf16());
        Self(units)
    }
}

impl PartialEq<str> for NtfsName {
    fn eq(&self, other: &str) -> bool {
        self.0.iter().copied().eq(other.encode_utf16())
    }
}

impl PartialEq<&str> for NtfsName {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Display for NtfsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf16_lossy(&self.0))
    }
}

impl fmt::Debug for NtfsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf16_lossy(&self.0))
    }
}

/// Which rules a name follows, and whether it is half of a long and short pair (`FILE_NAME` flags of the public
/// documentation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// 0: any name; also what Windows writes when short names are off.
    Posix,
    /// 1: a long name that has a partner in [`Dos`](Self::Dos).
    Win32,
    /// 2: the 8.3 partner of a long name.
    Dos,
    /// 3: a name that is both.
    Win32AndDos,
}

impl Namespace {
    /// From the byte on disk.
    #[must_use]
    pub fn from_raw(raw: u8) -> Option<Self> {
        [Self::Posix, Self::Win32, Self::Dos, Self::Win32AndDos].get(usize::from(raw)).copied()
    }

    /// The byte on disk.
    #[must_use]
    pub fn to_raw(self) -> u8 {
        self as u8
    }
}

/// Compares two names (little-endian UTF-16 bytes) as directories sort them: unit by unit in upper case, a prefix
/// first. `Equal` means "the same name, case ignored".
#[must_use]
pub fn compare_ignoring_case(a: &[u8], b: &[u8], upcase: &UpcaseTable) -> Ordering {
    // names of one directory often begin alike
    let (chunks, others) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let same = 8 * chunks.iter().zip(others).take_while(|(x, y)| x == y).count();
    for (x, y) in tail(a, same).iter().zip(tail(b, same)) {
        if x != y {
            match upcase.upper(u16::from_le_bytes(*x)).cmp(&upcase.upper(u16::from_le_bytes(*y))) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
    }
    (a.len() / 2).cmp(&(b.len() / 2))
}

/// The units from an offset on.
fn tail(name: &[u8], from: usize) -> &[[u8; 2]] {
    name.get(from..).unwrap_or_default().as_chunks().0
}

/// [`compare_ignoring_case`], then by raw units: the full order of an index.
#[must_use]
pub fn compare_exactly(a: &[u8], b: &[u8], upcase: &UpcaseTable) -> Ordering {
    compare_ignoring_case(a, b, upcase).then_with(|| {
        let units = |name| tail(name, 0).iter().map(|unit| u16::from_le_bytes(*unit));
        units(a).cmp(units(b))
    })
}

/// Why Windows would not accept `name` for a new file; `None` if it would.
#[must_use]
pub fn problem_with(name: &NtfsName) -> Option<&'static str> {
    let units = name.units();
    if units.is_empty() || units.len() > NAME_UNITS_MAX {
        return Some("a name has 1 to 255 UTF-16 units");
    }
    if units.iter().any(|&u| u < 0x20 || (u < 0x80 && b"\\/:*?\"<>|".contains(&(u as u8)))) {
        return Some("it contains a character that Windows forbids in names");
    }
    if matches!(units.last(), Some(0x20 | 0x2E)) {
        return Some("it ends with a space or a dot");
    }
    is_device(units).then_some("it is the name of a device")
}

/// `CON`, `PRN`, `AUX`, `NUL`, `CONIN$`, `CONOUT$`, `COM1`…`COM9`, `LPT1`…`LPT9` (the last two also with the digits
/// ¹, ² and ³), also with an extension, and with spaces before it.
fn is_device(units: &[u16]) -> bool {
    let stem: Vec<u8> = units
        .iter()
        .take_while(|&&u| u != u16::from(b'.'))
        .map(|&u| u8::try_from(u).unwrap_or(0xFF).to_ascii_uppercase())
        .collect();
    matches!(
        stem.trim_ascii_end(),
        b"CON"
            | b"PRN"
            | b"AUX"
            | b"NUL"
            | b"CONIN$"
            | b"CONOUT$"
            | [b'C', b'O', b'M', b'1'..=b'9' | 0xB9 | 0xB2 | 0xB3]
            | [b'L', b'P', b'T', b'1'..=b'9' | 0xB9 | 0xB2 | 0xB3]
    )
}

/// Whether a unit may stand in an 8.3 name as it is (upper case not required).
fn is_short_unit(unit: u16) -> bool {
    u8::try_from(unit).is_ok_and(|c| c.is_ascii_alphanumeric() || b"!#$%&'()-@^_`{}~".contains(&c))
}

/// Whether `name` is a legal 8.3 name, case ignored: stem of 1..=8, extension of 0..=3.
#[must_use]
pub fn is_short(name: &NtfsName) -> bool {
    let mut parts = name.units().split(|&u| u == u16::from(b'.'));
    let stem = parts.next().unwrap_or_default();
    let extension = parts.next();
    (1..=8).contains(&stem.len())
        && extension.is_none_or(|e| (1..=3).contains(&e.len()))
        && parts.next().is_none()
        && stem.iter().chain(extension.unwrap_or_default()).all(|&u| is_short_unit(u))
}

/// The 8.3 partners that a long name can have.
#[derive(Debug)]
pub(in super::super) struct ShortForms {
    stem: String,
    extension: String,
    hash: u16,
    spread: u64,
}

impl ShortForms {
    /// Forms that only differ in their number come first: `~1` … `~4`.
    pub const NUMBERED: Range<usize> = 0..4;
    /// Then those with Windows' kind of hash, `~1` … `~9`. Its values are used up by some hundred thousand names.
    pub const HASHED: Range<usize> = 4..13;
    /// From this one on, a directory has so many names that the wider hash is better tried at once.
    pub const HASHED_CROWDED: usize = 6;
    /// Then those with letters and digits from a wider hash, another one each time.
    pub const SPREAD: Range<usize> = 13..525;

    pub fn of(name: &NtfsName) -> Self {
        let dot = name.units().iter().rposition(|&u| u == u16::from(b'.')).filter(|&d| d > 0);
        let (stem, extension) = name.units().split_at(dot.unwrap_or(name.units().len()));
        let clean = |units: &[u16], limit: usize| -> String {
            let kept = units.iter().filter(|&&u| u != 0x20 && u != u16::from(b'.'));
            let short = |u: u16| if is_short_unit(u) { (u as u8).to_ascii_uppercase() as char } else { '_' };
            kept.take(limit).map(|&u| short(u)).collect()
        };
        let hash = name.units().iter().fold(0u16, |h, &u| h.wrapping_mul(37).wrapping_add(u));
        let spread = name.units().iter().fold(0u64, |h, &u| mixed(h ^ u64::from(u)));
        Self { stem: clean(stem, 6), extension: clean(extension, 3), hash, spread }
    }

    /// The form with a number, in the order in which they are tried.
    pub fn get(&self, number: usize) -> NtfsName {
        use std::fmt::Write;
        let mut form = String::with_capacity(12);
        let two = self.stem.get(..2).unwrap_or(&self.stem);
        // all of it is ASCII; writing to a string does not fail
        let _ = if number < Self::NUMBERED.end {
            write!(form, "{}~{}", self.stem, number + 1)
        } else if number < Self::HASHED.end {
            write!(form, "{two}{:04X}~{}", self.hash, number - Self::HASHED.start + 1)
        } else {
            let mut rest = mixed(self.spread.wrapping_add(number as u64));
            let mut next = |base: u64| {
                let digit = rest % base;
                rest /= base;
                digit
            };
            form.push_str(two);
            form.extend((0..4).filter_map(|_| char::from_digit(next(36) as u32, 36)).map(|c| c.to_ascii_uppercase()));
            write!(form, "~{}", next(9) + 1)
        };
        if !self.extension.is_empty() {
            form.push('.');
            form.push_str(&self.extension);
        }
        NtfsName::from(form.as_str())
    }
}

/// A number from which no pattern of `n` can be seen (the last step of SplitMix64).
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// Candidates for the 8.3 partner of a long name, in the order in which they are tried.
pub fn short_candidates(name: &NtfsName) -> impl Iterator<Item = NtfsName> {
    let forms = ShortForms::of(name);
    (0..ShortForms::SPREAD.end).map(move |number| forms.get(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_windows_refuses() {
        for bad in
            ["", "a:b", "a/b", "tail.", "tail ", "nul", "Con.txt", "aux .x", "lpt3", "COM¹.dll", "conin$", "\u{1}"]
        {
            assert!(problem_with(&bad.into()).is_some(), "{bad:?}");
        }
        for good in ["a", ".foo", "com0", "console", "com¹1", "conin", "ä ö", "a.b.c"] {
            assert!(problem_with(&good.into()).is_none(), "{good:?}");
        }
        assert!(problem_with(&NtfsName::from_units(vec![0xD800; 255])).is_none());
        assert!(problem_with(&NtfsName::from_units(vec![0x61; 256])).is_some());
    }

    #[test]
    fn short_names() {
        for yes in ["a", "viostor.sys", "12345678.123", "A~1"] {
            assert_eq!(is_short(&yes.into()), yes != "viostor.sys" || "viostor".len() <= 8, "{yes}");
        }
        for no in [".foo", "123456789", "a.b.c", "a.html", "a b", "ä", "a."] {
            assert!(!is_short(&no.into()), "{no}");
        }
        let all: Vec<String> =
            short_candidates(&"Program Files.tar.gz".into()).take(60).map(|n| n.to_string()).collect();
        assert_eq!(all[0], "PROGRA~1.GZ");
        assert_eq!(all[3], "PROGRA~4.GZ");
        assert!(all[4].starts_with("PR") && all[4].ends_with("~1.GZ") && is_short(&all[4].as_str().into()));
        let different: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert!(short_candidates(&".profile".into()).all(|n| is_short(&n)));
        assert!(short_candidates(&"a.html".into()).all(|n| is_short(&n)));
        assert!(short_candidates(&"   .x".into()).all(|n| is_short(&n)));
    }

    #[test]
    fn a_prefix_sorts_first() {
        let upcase = UpcaseTable::ascii();
        let le = |s: &str| s.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        assert_eq!(compare_ignoring_case(&le("ab"), &le("ABC"), &upcase), Ordering::Less);
        assert_eq!(compare_ignoring_case(&le("abc"), &le("ABC"), &upcase), Ordering::Equal);
        assert_eq!(compare_exactly(&le("abc"), &le("ABC"), &upcase), Ordering::Greater);
        assert_eq!(compare_ignoring_case(&le("_"), &le("a"), &upcase), Ordering::Greater);
    }
}
