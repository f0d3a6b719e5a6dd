//! Entries of new files and folders: short names and times.

use zerocopy::FromZeros;

use super::entry::{LOWER_EXTENSION, LOWER_NAME, ShortEntry};
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};

/// Characters of short names other than letters and digits.
const SIGNS: &[u8] = b"$%'-_@~`!(){}^#&";

/// The entry of a new file or folder without clusters. Only names that fit a short entry are made; the case of a name that
/// mixes both is not kept.
///
/// # Errors
/// When the name does not fit.
pub(super) fn new_entry(name: &str, attributes: u8, now: FileTime) -> Result<ShortEntry> {
    let fits = || -> Option<ShortEntry> {
        let (base, extension) = name.split_once('.').unwrap_or((name, ""));
        let mut entry = ShortEntry::new_zeroed();
        entry.name = padded(base)?;
        entry.extension = padded(extension)?;
        entry.attributes = attributes;
        let is_lower =
            |text: &str| text.bytes().any(|b| b.is_ascii_lowercase()) && !text.bytes().any(|b| b.is_ascii_uppercase());
        entry.reserved =
            if is_lower(base) { LOWER_NAME } else { 0 } | if is_lower(extension) { LOWER_EXTENSION } else { 0 };
        (!base.is_empty()).then_some(entry)
    };
    let mut entry = fits()
        .ok_or_else(|| Error::bug(Layer::Partition, "a new file of a FAT volume needs a long name").path(name))?;
    let (date, time) = date_and_time(now);
    entry.create_date = date.into();
    entry.create_time = time.into();
    entry.access_date = date.into();
    entry.write_date = date.into();
    entry.write_time = time.into();
    Ok(entry)
}

/// The text in upper case, padded with spaces.
fn padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [b' '; N];
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || SIGNS.contains(&byte)) {
        return None;
    }
    out.get_mut(..text.len())?.copy_from_slice(text.to_ascii_uppercase().as_bytes());
    Some(out)
}

/// Date and time as FAT has them, in UTC: FAT knows no time zone. What FAT cannot show is its first or last day.
pub(super) fn date_and_time(now: FileTime) -> (u16, u16) {
    let (year, month, day, second) = now.date();
    let Some(year) = year.checked_sub(1980) else { return (0x21, 0) };
    if year > 127 {
        return (0xFF9F, 0xBF7D);
    }
    let word = |value: u64| u16::try_from(value).unwrap_or(0);
    let time = ((second / 3600) << 11) | ((second / 60 % 60) << 5) | (second / 2 % 30);
    (word((year << 9) | (month << 5) | day), word(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (year, month, day) in
            [(1980, 1, 1), (1999, 12, 31), (2000, 2, 29), (2024, 3, 1), (2100, 3, 1), (2107, 12, 31)]
        {
            let time = FileTime::from_date(year, month, day).unwrap();
            let expected = (year - 1980) << 9 | u16::from(month) << 5 | u16::from(day);
            assert_eq!(date_and_time(time), (expected, 0), "{year}-{month}-{day}");
        }
        let noon = FileTime(FileTime::from_date(2024, 3, 1).unwrap().0 + (12 * 3600 + 34 * 60 + 56) * 10_000_000);
        assert_eq!(date_and_time(noon).1, 12 << 11 | 34 << 5 | 28);
        assert_eq!(date_and_time(FileTime(0)), (0x21, 0));
        assert_eq!(date_and_time(FileTime(u64::MAX)).0, 0xFF9F);
    }

    #[test]
    fn names_are_short_ones() {
        let entry = new_entry("bootx64.efi", 0, FileTime(0)).unwrap();
        assert_eq!((&entry.name, &entry.extension, entry.reserved), (b"BOOTX64 ", b"EFI", 0x18));
        assert_eq!(new_entry("BOOT", 0, FileTime(0)).unwrap().reserved, 0);
        for name in ["", ".efi", "bootmgfw2.efi", "a.b.c", "a b", "ä.efi", "a.long"] {
            assert!(new_entry(name, 0, FileTime(0)).is_err(), "{name}");
        }
    }
}
