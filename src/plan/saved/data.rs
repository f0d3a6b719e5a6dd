//! Hashes, 64-bit numbers and ranges, each with one spelling only.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::hex;

/// A SHA-256: 64 lower-case digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Sum(pub [u8; 32]);

impl Sha256Sum {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A number that needs all of 64 bits, which JSON readers round: `0x` and sixteen digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex64(pub u64);

impl fmt::Display for Hex64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

impl fmt::Debug for Hex64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes of the guest's disk: `0x100000+0x3000` are 0x3000 bytes from offset 0x100000 on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadRange {
    /// Offset of the first byte on the guest's disk.
    pub start: u64,
    /// Number of bytes; not 0.
    pub length: u64,
}

impl fmt::Display for ReadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}", self.start, self.length)
    }
}

impl fmt::Debug for ReadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number that `0x` and lower-case digits stand for.
fn parse_hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digits.bytes().all(is_digit).then(|| u64::from_str_radix(digits, 16).ok())?
}

fn parse_sum(text: &str) -> Option<Sha256Sum> {
    hex::decode_array(text).map(Sha256Sum)
}

fn parse_range(text: &str) -> Option<ReadRange> {
    let (start, length) = text.split_once('+')?;
    Some(ReadRange { start: parse_hex(start)?, length: parse_hex(length)? })
}

/// Written by `Display`; read by a function that accepts at least what `Display` writes. (Other spellings do not
/// survive the comparison with the canonical form.)
macro_rules! as_text {
    ($type:ty, $parse:expr, $expected:literal) => {
        crate::schema::json_schema_as!($type, String);
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(&text).ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&text), &$expected))
            }
        }
    };
}

as_text!(Sha256Sum, parse_sum, "a SHA-256 as 64 lower-case digits");
as_text!(Hex64, |text: &str| parse_hex(text).map(Hex64), "a number such as 0x00000000000000ff");
as_text!(ReadRange, parse_range, "a range such as 0x100000+0x1000");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_spelling() {
        let sum = Sha256Sum::of(b"abc");
        assert!(sum.to_string().starts_with("ba7816bf"));
        assert_eq!(parse_sum(&sum.to_string()), Some(sum));
        assert_eq!(Hex64(255).to_string(), "0x00000000000000ff");
        let range = ReadRange { start: 1 << 20, length: 4096 };
        assert_eq!((range.to_string().as_str(), parse_range("0x100000+0x1000")), ("0x100000+0x1000", Some(range)));
        for wrong in ["", "0x", "0x+1", "0xG", "1", "0x1FF", "0x10000000000000000", "+0x1", "0x 1"] {
            assert_eq!(parse_hex(wrong), None, "{wrong}");
        }
        for wrong in ["", "0x1", "0x1+", "0x1+0x1+0x1", "0x1-0x1"] {
            assert_eq!(parse_range(wrong), None, "{wrong}");
        }
        assert_eq!(parse_sum("ba78"), None);
    }
}
