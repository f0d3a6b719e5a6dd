//! Numbers as INFs write them.

/// A number as `SetupGetIntField` reads it: decimal or, after `0x`, hexadecimal; with a sign. `0x` alone is 0.
pub(super) fn parse_number(text: &str) -> Option<u32> {
    let text = text.trim();
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        if hex.is_empty() { 0 } else { u32::from_str_radix(hex, 16).ok()? }
    } else if digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse::<u32>().ok()?
    } else {
        return None;
    };
    match is_negative {
        false => Some(value),
        // the least number of 32 bits with a sign is the furthest below zero
        true => (value <= 1 << 31).then(|| value.wrapping_neg()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(parse_number("0x0000000A"), Some(10));
        assert_eq!(parse_number("-1"), Some(u32::MAX));
        assert_eq!(parse_number(" 257 "), Some(257));
        for (text, value) in [("+5", 5), ("-0x1", u32::MAX), ("-2147483648", 1 << 31), ("0x", 0), ("0XfF", 255)] {
            assert_eq!(parse_number(text), Some(value), "{text}");
        }
        for bad in ["", "+", "x", "0x1_0", "4294967296", "-4294967295", "1.0", "FF", "10h", "--1"] {
            assert_eq!(parse_number(bad), None, "{bad}");
        }
    }
}
