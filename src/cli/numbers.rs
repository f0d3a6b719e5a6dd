//! Numbers on the command line and in documents, with errors that say what is allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The numbers of worker threads that can be asked for.
pub const THREADS: RangeInclusive<usize> = 1..=1024;

/// The numbers of requests that an NBD server can be given at once.
pub const REQUESTS: RangeInclusive<usize> = 1..=64;

/// Compression levels of zlib.
pub const ZLIB_LEVELS: RangeInclusive<u32> = 2..=9;

/// Compression levels of zstd.
pub const ZSTD_LEVELS: RangeInclusive<u32> = 1..=4;

/// Parses a number of worker threads.
///
/// # Errors
/// The numbers that are allowed, for any other text.
pub fn parse_threads(text: &str) -> Result<usize, String> {
    parse_number(text, THREADS)
}

/// Parses a number of requests in flight.
///
/// # Errors
/// The numbers that are allowed, for any other text.
pub fn parse_requests(text: &str) -> Result<usize, String> {
    parse_number(text, REQUESTS)
}

/// Parses a compression level of any algorithm.
///
/// # Errors
/// The numbers that are allowed, for any other text.
pub fn parse_level(text: &str) -> Result<u32, String> {
    parse_number(text, *ZSTD_LEVELS.start()..=*ZLIB_LEVELS.end())
}

/// Parses the number of a partition, as Linux counts; 0 is a volume without a partition table.
///
/// # Errors
/// What is expected, for any other text.
pub fn parse_partition(text: &str) -> Result<u32, String> {
    parse_number(text, 0..=u32::MAX)
        .map_err(|_| "use the number of a partition, as winject inspect shows it".to_owned())
}

/// Parses how many of something are shown.
///
/// # Errors
/// What is expected, for any other text.
pub fn parse_count(text: &str) -> Result<u64, String> {
    parse_number(text, 0..=u64::MAX).map_err(|_| "use a number, 0 or more".to_owned())
}

/// Parses digits as a number of this range.
///
/// # Errors
/// The range, for any other text.
pub fn parse_number<N: FromStr + PartialOrd + Display>(text: &str, range: RangeInclusive<N>) -> Result<N, String> {
    // A sign is not a digit, and `+1` no number that a person means.
    let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("use a number from {} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of the standard library's errors ("number too large to fit in target type") help no user.
    #[test]
    fn an_error_tells_the_numbers_that_are_allowed() {
        for text in ["", "0", "-1", "+1", "1.5", "x", "1025", "99999999999999999999999", "１"] {
            assert_eq!(parse_threads(text).unwrap_err(), "use a number from 1 to 1024", "{text}");
        }
        assert_eq!((parse_threads("1"), parse_threads("1024")), (Ok(1), Ok(1024)));
        assert_eq!((parse_level("1"), parse_level("9")), (Ok(1), Ok(9)));
        assert!(parse_level("0").is_err() && parse_level("10").is_err());
        assert_eq!((parse_partition("0"), parse_partition("4294967295")), (Ok(0), Ok(u32::MAX)));
        assert!(parse_partition("4294967296").unwrap_err().contains("winject inspect"));
        assert_eq!(parse_count("7"), Ok(7));
        assert!(parse_count("99999999999999999999999").unwrap_err().contains("0 or more"));
    }
}
