//! GUIDs as they lie on the disk: the first three fields little endian.

use std::fmt;

/// A GUID, in on-disk order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Guid(pub(crate) [u8; 16]);

impl Guid {
    /// The GUID whose text form is `a-b-c-d[0..2]-d[2..8]`.
    pub(crate) const fn new(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }

    /// Parses the text form, with or without braces.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex: String = text.trim().trim_matches(['{', '}']).chars().filter(|c| *c != '-').collect();
        if hex.len() != 32 || !hex.is_ascii() {
            return None;
        }
        let n = u128::from_str_radix(&hex, 16).ok()?.to_be_bytes();
        let a = u32::from_be_bytes([n[0], n[1], n[2], n[3]]);
        let (b, c) = (u16::from_be_bytes([n[4], n[5]]), u16::from_be_bytes([n[6], n[7]]));
        Some(Self::new(a, b, c, [n[8], n[9], n[10], n[11], n[12], n[13], n[14], n[15]]))
    }

    /// Whether all bytes are zero.
    pub(crate) fn is_nil(self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.0;
        write!(f, "{:08x}-", u32::from_le_bytes([b[0], b[1], b[2], b[3]]))?;
        write!(f, "{:04x}-{:04x}-", u16::from_le_bytes([b[4], b[5]]), u16::from_le_bytes([b[6], b[7]]))?;
        write!(f, "{:02x}{:02x}-", b[8], b[9])?;
        b[10..].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_agree() {
        let guid = Guid::new(0x2DC2_7766, 0xF623, 0x4200, [0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08]);
        assert_eq!(guid.0[..8], [0x66, 0x77, 0xC2, 0x2D, 0x23, 0xF6, 0x00, 0x42]);
        assert_eq!(guid.to_string(), "2dc27766-f623-4200-9d64-115e9bfd4a08");
        assert_eq!(Guid::parse("{2DC27766-F623-4200-9D64-115E9BFD4A08}"), Some(guid));
        assert_eq!(Guid::parse("2DC27766"), None);
    }
}
