//! Addresses as text and bytes: MAC addresses, subnet masks.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Serialize, Serializer};

use crate::hex;

/// The MAC address of an Ethernet adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// An address of one adapter: six bytes that are neither all zero nor a group address.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 6] = bytes.try_into().ok()?;
        let [first, ..] = bytes;
        (first & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }

    /// Parses six pairs of hexadecimal digits with `:` or `-` between them, or without any, as Windows writes them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split([':', '-']).collect();
        let is_split = parts.len() == 6 && parts.iter().all(|part| part.len() == 2);
        let is_joined = parts.len() == 1 && text.len() == 12;
        if !(is_split || is_joined) || (text.contains(':') && text.contains('-')) {
            return None;
        }
        Self::from_bytes(&hex::decode(&parts.concat())?)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// As text.
impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

crate::schema::json_schema_as!(Mac, String);

/// The length of the prefix that a subnet mask stands for; `None` when its ones are not all in front.
#[must_use]
pub fn prefix_of_mask(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let ones = bits.leading_ones();
    (bits.count_ones() == ones).then_some(ones).and_then(|ones| u8::try_from(ones).ok())
}

/// The subnet mask of a prefix of this length; lengths above 32 count as 32.
#[must_use]
pub fn mask_of_prefix(length: u8) -> Ipv4Addr {
    let ones = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
    Ipv4Addr::from_bits(ones)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_in_the_forms_that_tools_write() {
        let mac = Mac([0x52, 0x54, 0, 0x12, 0xab, 0xcd]);
        for text in ["52:54:00:12:ab:cd", "52-54-00-12-AB-CD", "52540012ABCD"] {
            assert_eq!(Mac::parse(text), Some(mac), "{text}");
        }
        assert_eq!(Mac::parse(&mac.to_string()), Some(mac));
        for text in
            ["", "52:54:00:12:ab", "52:54-00:12:ab:cd", "5254:0012:abcd", "00:00:00:00:00:00", "01:00:5e:00:00:01"]
        {
            assert_eq!(Mac::parse(text), None, "{text}");
        }
    }

    #[test]
    fn masks_and_prefixes_are_each_other() {
        for length in 0..=32 {
            assert_eq!(prefix_of_mask(mask_of_prefix(length)), Some(length));
        }
        assert_eq!(prefix_of_mask(Ipv4Addr::new(255, 0, 255, 0)), None);
        assert_eq!(mask_of_prefix(20), Ipv4Addr::new(255, 255, 240, 0));
    }
}
