//! GUIDs as they lie on disks (GPT, VHDX, BitLocker) and in Windows' structures and INFs.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::hex;

/// A GUID in its on-disk form: the first three fields little-endian, the rest in order (UEFI 2.10, appendix A).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// From the fields as they are written.
    #[must_use]
    pub const fn new(first: u32, second: u16, third: u16, rest: [u8; 8]) -> Self {
        let [a, b, c, d] = first.to_le_bytes();
        let [e, f] = second.to_le_bytes();
        let [g, h] = third.to_le_bytes();
        let [i, j, k, l, m, n, o, p] = rest;
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// Parses `8-4-4-4-12` hexadecimal digits, in either case, with or without braces.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let inner = match text.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}')?,
            None => text,
        };
        if !inner.split('-').map(str::len).eq([8, 4, 4, 4, 12]) {
            return None;
        }
        let digits = hex::decode(&inner.replace('-', ""))?;
        let [a, b, c, d, e, f, g, h, rest @ ..] = <[u8; 16]>::try_from(digits).ok()?;
        Some(Self([d, c, b, a, f, e, h, g, rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], rest[6], rest[7]]))
    }

    /// The text form in braces, as the registry and INFs have it.
    #[must_use]
    pub fn braced(&self) -> String {
        format!("{{{self}}}")
    }

    /// Whether all bytes are zero: GPT's unused entry, VHDX's empty log.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i, j, k, rest @ ..] = self.0;
        let parts: [&[u8]; 5] = [&[d, c, b, a], &[g, e], &[i, h], &[j, k], &rest];
        f.write_str(&parts.map(hex::encode_upper).join("-"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// In braces.
impl Serialize for Guid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.braced())
    }
}

crate::schema::json_schema_as!(Guid, String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_everybody_writes_it() {
        let esp = Guid::new(0xC12A_7328, 0xF81F, 0x11D2, [0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B]);
        assert_eq!(esp.to_string(), "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
        assert_eq!(esp.0[..8], [0x28, 0x73, 0x2A, 0xC1, 0x1F, 0xF8, 0xD2, 0x11]);
        assert_eq!(Guid::parse("{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}"), Some(esp));
        for wrong in [
            "C12A7328",
            "",
            "{C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
            "+12A7328-F81F-11D2-BA4B-00A0C93EC93B",
            "C12A7328-F81F-11D2-BA4B-00A0C93EC93G",
        ] {
            assert_eq!(Guid::parse(wrong), None, "{wrong}");
        }
    }
}
