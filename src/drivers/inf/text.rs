//! From the bytes of an INF to text: Windows takes UTF-16 with a byte-order mark, UTF-8, and the ANSI code page.

use super::error::error_at;
use crate::error::Result;

/// Largest INF that is read, in bytes. The largest known vendor INFs (display drivers, UTF-16) have about 3 MB.
pub const SIZE_MAX: usize = 8 << 20;

/// Decodes an INF. Without a mark: UTF-16 if the zero bytes say so, else UTF-8 if valid, else Windows-1252.
pub(super) fn decode(bytes: &[u8], file: &str) -> Result<String> {
    if bytes.len() > SIZE_MAX {
        return Err(error_at(file, 0, format!("the INF has {} bytes; at most {SIZE_MAX} are read", bytes.len()))
            .hint("this is hardly an INF; take it out of the driver folder"));
    }
    let text = match bytes {
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xEF, 0xBB, 0xBF, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        [first, 0, ..] if *first != 0 => utf16(bytes, u16::from_le_bytes),
        [0, second, ..] if *second != 0 => utf16(bytes, u16::from_be_bytes),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
        },
    };
    if let Some(at) = text.find('\0') {
        // Ctrl-Z and blanks at the end are old habits; a zero byte is not text
        let line = text[..at].lines().count().max(1);
        let tail_only = text[at..].chars().all(|c| c == '\0' || c.is_whitespace());
        if !tail_only {
            return Err(error_at(file, line, "the INF is not text: it holds a zero byte"));
        }
    }
    Ok(text)
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|&pair| unit(pair));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[Version]\r\nProvider=\"Müller\"\r\n";

    #[test]
    fn every_encoding_gives_the_same_text() {
        let mut le = vec![0xFF, 0xFE];
        let mut be = vec![0xFE, 0xFF];
        for unit in TEXT.encode_utf16() {
            le.extend(unit.to_le_bytes());
            be.extend(unit.to_be_bytes());
        }
        let mut utf8 = vec![0xEF, 0xBB, 0xBF];
        utf8.extend(TEXT.as_bytes());
        let ansi: Vec<u8> = TEXT.chars().map(|c| c as u8).collect();
        for bytes in [&le, &be, &utf8, &ansi, &TEXT.as_bytes().to_vec(), &le[2..].to_vec(), &be[2..].to_vec()] {
            assert_eq!(decode(bytes, "x.inf").unwrap(), TEXT);
        }
    }

    #[test]
    fn too_large_or_binary_is_an_error() {
        assert!(decode(&vec![b';'; SIZE_MAX + 1], "x.inf").is_err());
        let error = decode(b"[Version]\nab\0cd", "x.inf").unwrap_err().to_string();
        assert!(error.contains("x.inf:2"), "{error}");
    }
}
