//! Windows' own upper-casing of single UTF-16 code units.
//!
//! Registry key order and NTFS directory order both compare names after mapping every code unit by itself through the
//! table of `RtlUpcaseUnicodeChar`. It is frozen at an old version of Unicode and differs from today's rules (`µ`, `ß`,
//! `ı`, `ς` and Georgian letters map to themselves), so a language's own upper-casing would put names where Windows
//! does not look for them. The table equals the `$UpCase` file of NTFS volumes formatted by Windows 10 and 11.

/// Ranges of code units that change: first, last, step between members, distance to the upper-case letter.
#[rustfmt::skip]
const RUNS: [(u16, u16, u16, i32); 134] = [
    (97, 122, 1, -32), (224, 246, 1, -32), (248, 254, 1, -32), (255, 255, 1, 121), (257, 303, 2, -1),
    (307, 311, 2, -1), (314, 328, 2, -1), (331, 375, 2, -1), (378, 382, 2, -1), (384, 384, 1, 195),
    (387, 389, 2, -1), (392, 392, 1, -1), (396, 396, 1, -1), (402, 402, 1, -1), (405, 405, 1, 97),
    (409, 409, 1, -1), (410, 410, 1, 163), (414, 414, 1, 130), (417, 421, 2, -1), (424, 424, 1, -1),
    (429, 429, 1, -1), (432, 432, 1, -1), (436, 438, 2, -1), (441, 441, 1, -1), (445, 445, 1, -1),
    (447, 447, 1, 56), (454, 454, 1, -2), (457, 457, 1, -2), (460, 460, 1, -2), (462, 476, 2, -1),
    (477, 477, 1, -79), (479, 495, 2, -1), (499, 499, 1, -2), (501, 501, 1, -1), (505, 543, 2, -1),
    (547, 563, 2, -1), (572, 572, 1, -1), (578, 578, 1, -1), (583, 591, 2, -1), (592, 592, 1, 10783),
    (593, 593, 1, 10780), (595, 595, 1, -210), (596, 596, 1, -206), (598, 599, 1, -205), (601, 601, 1, -202),
    (603, 603, 1, -203), (608, 608, 1, -205), (611, 611, 1, -207), (616, 616, 1, -209), (617, 617, 1, -211),
    (619, 619, 1, 10743), (623, 623, 1, -211), (625, 625, 1, 10749), (626, 626, 1, -213), (629, 629, 1, -214),
    (637, 637, 1, 10727), (640, 640, 1, -218), (643, 643, 1, -218), (648, 648, 1, -218), (649, 649, 1, -69),
    (650, 651, 1, -217), (652, 652, 1, -71), (658, 658, 1, -219), (881, 883, 2, -1), (887, 887, 1, -1),
    (891, 893, 1, 130), (940, 940, 1, -38), (941, 943, 1, -37), (945, 961, 1, -32), (963, 971, 1, -32),
    (972, 972, 1, -64), (973, 974, 1, -63), (983, 983, 1, -8), (985, 1007, 2, -1), (1010, 1010, 1, 7),
    (1016, 1016, 1, -1), (1019, 1019, 1, -1), (1072, 1103, 1, -32), (1104, 1119, 1, -80), (1121, 1153, 2, -1),
    (1163, 1215, 2, -1), (1218, 1230, 2, -1), (1231, 1231, 1, -15), (1233, 1315, 2, -1), (1377, 1414, 1, -48),
    (7545, 7545, 1, 35332), (7549, 7549, 1, 3814), (7681, 7829, 2, -1), (7841, 7935, 2, -1), (7936, 7943, 1, 8),
    (7952, 7957, 1, 8), (7968, 7975, 1, 8), (7984, 7991, 1, 8), (8000, 8005, 1, 8), (8017, 8023, 2, 8),
    (8032, 8039, 1, 8), (8048, 8049, 1, 74), (8050, 8053, 1, 86), (8054, 8055, 1, 100), (8056, 8057, 1, 128),
    (8058, 8059, 1, 112), (8060, 8061, 1, 126), (8064, 8071, 1, 8), (8080, 8087, 1, 8), (8096, 8103, 1, 8),
    (8112, 8113, 1, 8), (8115, 8115, 1, 9), (8131, 8131, 1, 9), (8144, 8145, 1, 8), (8160, 8161, 1, 8),
    (8165, 8165, 1, 7), (8179, 8179, 1, 9), (8526, 8526, 1, -28), (8560, 8575, 1, -16), (8580, 8580, 1, -1),
    (9424, 9449, 1, -26), (11312, 11358, 1, -48), (11361, 11361, 1, -1), (11365, 11365, 1, -10795),
    (11366, 11366, 1, -10792), (11368, 11372, 2, -1), (11379, 11379, 1, -1), (11382, 11382, 1, -1),
    (11393, 11491, 2, -1), (11520, 11557, 1, -7264), (42561, 42591, 2, -1), (42595, 42605, 2, -1),
    (42625, 42647, 2, -1), (42787, 42799, 2, -1), (42803, 42863, 2, -1), (42874, 42876, 2, -1),
    (42879, 42887, 2, -1), (42892, 42892, 1, -1), (65345, 65370, 1, -32),
];

static TABLE: [u16; 65536] = build();

const fn build() -> [u16; 65536] {
    let mut table = [0u16; 65536];
    let mut unit = 0usize;
    while unit < table.len() {
        table[unit] = unit as u16;
        unit += 1;
    }
    let mut run = 0;
    while run < RUNS.len() {
        let (first, last, step, delta) = RUNS[run];
        let mut unit = first as usize;
        while unit <= last as usize {
            table[unit] = (unit as i32 + delta) as u16;
            unit += step as usize;
        }
        run += 1;
    }
    table
}

/// The whole table, one entry for each code unit; written as little-endian bytes it is NTFS' `$UpCase` file.
#[must_use]
pub fn table() -> &'static [u16; 65536] {
    &TABLE
}

/// Names folded for comparison.
pub trait Fold {
    /// The text in a form in which two texts are equal exactly if Windows takes them for the same name. Letters of ASCII are
    /// lower case in it, so that it can be compared with what sources spell so.
    fn folded(&self) -> String;
}

impl Fold for str {
    fn folded(&self) -> String {
        let mut text = String::from_utf16_lossy(&self.encode_utf16().map(upcase).collect::<Vec<_>>());
        text.make_ascii_lowercase();
        text
    }
}

/// The upper-case form of one code unit; surrogates map to themselves.
#[must_use]
pub fn upcase(unit: u16) -> u16 {
    match unit {
        0x61..=0x7A => unit - 32,
        0..=0x7F => unit,
        _ => TABLE[usize::from(unit)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn table_is_that_of_windows() {
        let bytes: Vec<u8> = table().iter().flat_map(|u| u.to_le_bytes()).collect();
        let sum = crate::hex::encode(&Sha256::digest(&bytes));
        assert_eq!(sum, "41c26bc7a12bdaeb26025c93118697c7e3ef81ee048b00fe5cce2a472e0e0742");
        assert_eq!(table().iter().enumerate().filter(|&(i, &u)| i != usize::from(u)).count(), 973);
    }

    #[test]
    fn the_short_way_agrees_with_the_table() {
        for unit in 0..=u16::MAX {
            assert_eq!(upcase(unit), table()[usize::from(unit)]);
        }
    }

    #[test]
    fn names_are_folded_as_windows_compares_them() {
        assert_eq!("\\Hyper2KVM\\\u{e4}".folded(), "\\hyper2kvm\\\u{c4}");
        assert_eq!("\u{e4}".folded(), "\u{c4}".folded());
        // To Unicode the Kelvin sign is a k, and the two small sigmas are one letter.
        assert_ne!("\u{212a}".folded(), "k".folded());
        assert_ne!("\u{3c2}".folded(), "\u{3c3}".folded());
    }
}
