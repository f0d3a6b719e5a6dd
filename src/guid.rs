//! GUIDs as they lie on disks: in GPT, in VHDX, in BitLocker headers.

use std::fmt;

/// A GUID in its on-disk form: the first three fields little-endian, the rest in order (UEFI 2.10, appendix A).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
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

    /// Parses the text form, with or without braces.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex: String = text.trim().trim_matches(['{', '}']).chars().filter(|c| *c != '-').collect();
        if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let [a, b, c, d, e, f, g, h, rest @ ..] = u128::from_str_radix(&hex, 16).ok()?.to_be_bytes();
        let (first, second, third) =
            (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]), u16::from_be_bytes([g, h]));
        Some(Self::new(first, second, third, rest))
    }

    /// Whether all bytes are zero: GPT's unused entry, VHDX's empty log.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i, rest @ ..] = self.0;
        write!(f, "{:08X}", u32::from_le_bytes([a, b, c, d]))?;
        write!(f, "-{:04X}-{:04X}-", u16::from_le_bytes([e, g]), u16::from_le_bytes([h, i]))?;
        for (index, byte) in rest.iter().enumerate() {
            if index == 2 {
                f.write_str("-")?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
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
    fn written_as_everybody_writes_it() {
        let esp = Guid::new(0xC12A_7328, 0xF81F, 0x11D2, [0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B]);
        assert_eq!(esp.to_string(), "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
        assert_eq!(esp.0[..8], [0x28, 0x73, 0x2A, 0xC1, 0x1F, 0xF8, 0xD2, 0x11]);
        assert_eq!(Guid::parse("{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}"), Some(esp));
        for wrong in ["C12A7328", "", "+12A7328-F81F-11D2-BA4B-00A0C93EC93B", "C12A7328-F81F-11D2-BA4B-00A0C93EC93G"] {
            assert_eq!(Guid::parse(wrong), None, "{wrong}");
        }
    }
}
