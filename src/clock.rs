//! The one clock of a run.
//!
//! Every time that is written to an image comes from a single [`FileTime`], which the caller gives. So the same input
//! gives the same bytes.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Windows' FILETIME: units of 100 ns since 1601-01-01 00:00 UTC (MS-DTYP 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTime(pub u64);

/// 100 ns units between 1601-01-01 and 1970-01-01.
const UNIX_EPOCH_AS_FILETIME: u64 = 116_444_736_000_000_000;

impl FileTime {
    /// Converts whole seconds since 1970-01-01 UTC (the unit of `SOURCE_DATE_EPOCH`); `None` if out of range.
    #[must_use]
    pub fn from_unix_seconds(seconds: u64) -> Option<Self> {
        let ticks = seconds.checked_mul(10_000_000)?.checked_add(UNIX_EPOCH_AS_FILETIME)?;
        (ticks < 1 << 63).then_some(Self(ticks))
    }

    /// Whole seconds since 1970-01-01 UTC; `None` for an earlier time.
    #[must_use]
    pub fn unix_seconds(self) -> Option<u64> {
        Some(self.0.checked_sub(UNIX_EPOCH_AS_FILETIME)? / 10_000_000)
    }

    /// The time of the host's clock. A fixed time makes equal runs write equal bytes.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let ticks = since.as_secs().saturating_mul(10_000_000).saturating_add(u64::from(since.subsec_nanos() / 100));
        Self(ticks.saturating_add(UNIX_EPOCH_AS_FILETIME))
    }

    /// Midnight UTC of a calendar day (proleptic Gregorian), as an INF's `DriverVer` gives it; `None` if there is no
    /// such day or it is before 1601.
    #[must_use]
    pub fn from_date(year: u16, month: u8, day: u8) -> Option<Self> {
        let lengths = month_lengths(u64::from(year));
        let month_index = usize::from(month).checked_sub(1)?;
        let length = *lengths.get(month_index)?;
        if day == 0 || day > length || year < 1601 {
            return None;
        }
        let years = u64::from(year) - 1601;
        let mut days = years * 365 + years / 4 - years / 100 + years / 400;
        days += lengths.iter().take(month_index).map(|&l| u64::from(l)).sum::<u64>();
        days += u64::from(day) - 1;
        Some(Self(days * 864_000_000_000))
    }

    /// The calendar day in UTC (proleptic Gregorian) as year, month from 1 and day from 1, and the second of that day.
    #[must_use]
    pub(crate) fn date(self) -> (u64, u64, u64, u64) {
        let seconds = self.0 / 10_000_000;
        let (mut days, second) = (seconds / 86_400, seconds % 86_400);
        let mut year = 1601;
        loop {
            let length = month_lengths(year).iter().map(|&days| u64::from(days)).sum();
            if days < length {
                break;
            }
            days -= length;
            year += 1;
        }
        let mut month = 1;
        for length in month_lengths(year).map(u64::from) {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        (year, month, days + 1, second)
    }
}

/// ISO 8601 in UTC, to the second.
impl fmt::Display for FileTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day, second) = self.date();
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
    }
}

/// Days of the months of a year.
fn month_lengths(year: u64) -> [u8; 12] {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_date_of_the_published_test_vector() {
        // vioscsi, 08/30/2021: a published test vector
        let expected = u64::from_le_bytes([0x00, 0x40, 0xc3, 0xf9, 0x31, 0x9d, 0xd7, 0x01]);
        assert_eq!(FileTime::from_date(2021, 8, 30), Some(FileTime(expected)));
        assert_eq!(FileTime::from_date(2021, 2, 29), None);
    }

    #[test]
    fn times_as_iso_8601() {
        let unix = |seconds| FileTime::from_unix_seconds(seconds).unwrap().to_string();
        assert_eq!(unix(0), "1970-01-01T00:00:00Z");
        assert_eq!(unix(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(unix(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(unix(1_700_000_000), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn unix_epoch() {
        assert_eq!(FileTime::from_unix_seconds(0), FileTime::from_date(1970, 1, 1));
    }
}
