//! Bytes as pairs of hexadecimal digits.

/// Lower-case digits, two for each byte.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Like [`encode`], in upper case.
#[must_use]
pub fn encode_upper(bytes: &[u8]) -> String {
    encode(bytes).to_ascii_uppercase()
}

/// The bytes of a text that consists of pairs of digits, in either case; `None` for any other text.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

/// Like [`decode`], for a text of exactly `N` bytes.
#[must_use]
pub fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_and_decodes() {
        assert_eq!(encode(&[0x00, 0x1f, 0xa0]), "001fa0");
        assert_eq!(encode_upper(&[0xfe]), "FE");
        assert_eq!(decode("001fA0"), Some(vec![0x00, 0x1f, 0xa0]));
        assert_eq!(decode(""), Some(vec![]));
        assert_eq!((decode_array("0aff"), decode_array::<2>("0aff00")), (Some([0x0a, 0xff]), None));
        for wrong in ["0", "0g", "+1", "0x12", "ä"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
