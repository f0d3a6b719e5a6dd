//! Names of files of the guest on the host.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::ntfs::format::name::NtfsName;

/// Most bytes of a name that file systems of the host allow.
const NAME_BYTES_MAX: usize = 255;
/// Bytes that are left of a name that is too long.
const SHORTENED: usize = 200;

/// The name of a file of the guest on the host: the same, unless the host cannot hold it. Then `%XX` stands for a character
/// that it cannot hold (`/`, control characters), `%uXXXX` for half of a surrogate pair, `%25` for a `%` that would be read
/// as one of them; and a name of more than 255 bytes ends in `%~` and the first half of its SHA-256. The names of two files
/// never become one.
#[must_use]
pub fn host_name(name: &NtfsName) -> String {
    let mut out = String::new();
    let characters: Vec<Result<char, u16>> =
        char::decode_utf16(name.units().iter().copied()).map(|c| c.map_err(|e| e.unpaired_surrogate())).collect();
    let is_hex = |c: Option<&Result<char, u16>>| matches!(c, Some(Ok(c)) if c.is_ascii_hexdigit());
    for (i, character) in characters.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = match *character {
            Ok('%') => {
                let next = characters.get(i + 1);
                let is_escape = is_hex(next) && is_hex(characters.get(i + 2));
                if is_escape || matches!(next, Some(Ok('u' | '~'))) { write!(out, "%25") } else { write!(out, "%") }
            }
            Ok(c) if c == '/' || c.is_control() => {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes).bytes().try_for_each(|byte| write!(out, "%{byte:02X}"))
            }
            Ok(c) => write!(out, "{c}"),
            Err(unit) => write!(out, "%u{unit:04X}"),
        };
    }
    if matches!(out.as_str(), "." | "..") {
        out = out.replace('.', "%2E");
    }
    if out.is_empty() {
        out.push_str("%00");
    }
    if out.len() > NAME_BYTES_MAX {
        let hash = Sha256::digest(out.as_bytes());
        let end = (0..=SHORTENED).rev().find(|&end| out.is_char_boundary(end)).unwrap_or(0);
        out.truncate(end);
        out.push_str("%~");
        for byte in hash.iter().take(16) {
            let _ = write!(out, "{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_the_host_holds_stay() {
        for name in ["notepad.exe", "größe 100%.txt", "%TEMP%", "a:b", "..."] {
            assert_eq!(host_name(&name.into()), name);
        }
        for (name, expected) in [
            ("..", "%2E%2E"),
            (".", "%2E"),
            ("../../etc/passwd", "..%2F..%2Fetc%2Fpasswd"),
            ("a\0\n", "a%00%0A"),
            ("%2F", "%252F"),
            ("%u1234", "%25u1234"),
        ] {
            assert_eq!(host_name(&name.into()), expected);
        }
        assert_eq!(host_name(&NtfsName::from_units(vec![0xD800, 0x61])), "%uD800a");
    }

    proptest! {
        #[test]
        fn every_name_is_one_name_of_the_host(units in proptest::collection::vec(
            prop_oneof![any::<u16>(), 0u16..0x80, Just(0x25), Just(0x2F), Just(0x2E)], 0..255)) {
            let name = host_name(&NtfsName::from_units(units));
            prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX && name != "." && name != "..");
            prop_assert!(!name.contains(['/', '\0']), "{name}");
        }

        #[test]
        fn two_names_never_become_one(
            a in proptest::collection::vec(prop_oneof![Just(0x25u16), Just(0x32), Just(0x46), Just(0x2F), Just(0x75), Just(0xD800), Just(0x44)], 0..7),
            b in proptest::collection::vec(prop_oneof![Just(0x25u16), Just(0x32), Just(0x46), Just(0x2F), Just(0x75), Just(0xD800), Just(0x44)], 0..7),
        ) {
            prop_assume!(a != b);
            prop_assert_ne!(host_name(&NtfsName::from_units(a)), host_name(&NtfsName::from_units(b)));
        }
    }
}
