//! Numbers and quoting as text. `core::fmt` is avoided: it would double the size of the program, and on x86 it needs
//! 64-bit division, which only a C runtime has.

use alloc::string::String;

/// A number in decimal.
#[must_use]
pub fn decimal(mut value: u32) -> String {
    let mut digits = [0u8; 10];
    let mut length = 0;
    for digit in &mut digits {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        length += 1;
        if value == 0 {
            break;
        }
    }
    digits.iter().take(length).rev().map(|&digit| char::from(digit)).collect()
}

/// A number in decimal, with a sign when it is negative.
#[must_use]
pub fn signed(value: i32) -> String {
    let digits = decimal(value.unsigned_abs());
    if value < 0 { join(&["-", &digits]) } else { digits }
}

/// A number in decimal with leading zeros up to `width` digits.
#[must_use]
pub fn padded(value: u32, width: usize) -> String {
    let digits = decimal(value);
    let mut out = String::new();
    for _ in digits.len()..width {
        out.push('0');
    }
    out.push_str(&digits);
    out
}

/// A number in hexadecimal with `0x` and eight digits.
#[must_use]
pub fn hexadecimal(value: u32) -> String {
    let mut out = String::from("0x");
    for shift in (0..8).rev() {
        let digit = (value >> (shift * 4)) & 15;
        out.push(char::from_digit(digit, 16).unwrap_or('?'));
    }
    out
}

/// One string of all parts.
#[must_use]
pub fn join(parts: &[&str]) -> String {
    let mut out = String::new();
    for part in parts {
        out.push_str(part);
    }
    out
}

/// Appends `text` as a JSON string, quotes included.
pub fn push_json(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                out.push_str("\\u00");
                for shift in [4, 0] {
                    out.push(char::from_digit((u32::from(c) >> shift) & 15, 16).unwrap_or('0'));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The 32-bit FNV-1a hash: tells job files apart, protects nothing.
#[must_use]
pub fn hash(data: &[u8]) -> u32 {
    data.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn numbers_are_those_of_the_standard_library() {
        for value in [0, 1, 9, 10, 99, 12345, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            assert_eq!(decimal(value), format!("{value}"));
            assert_eq!(signed(value.cast_signed()), format!("{}", value.cast_signed()));
            assert_eq!(hexadecimal(value), format!("{value:#010x}"));
            assert_eq!(padded(value, 4), format!("{value:04}"));
        }
    }

    #[test]
    fn json_strings_escape_what_json_cannot_hold() {
        let mut out = String::new();
        push_json(&mut out, "a\"b\\c\u{1}\t\u{e4}");
        assert_eq!(out, "\"a\\\"b\\\\c\\u0001\\t\u{e4}\"");
    }
}
