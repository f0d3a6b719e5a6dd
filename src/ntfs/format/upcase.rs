//! `$UpCase`: the volume's own table of upper-case forms, by which names are sorted and found.

use super::error::damaged;
use crate::error::Result;
use crate::field::utf16_from_le;

/// Bytes of the table on disk: one UTF-16 unit for each UTF-16 unit.
pub const UPCASE_SIZE: usize = 131_072;

/// The upper-case form of every UTF-16 unit.
#[derive(Clone, PartialEq, Eq)]
pub struct UpcaseTable(Box<[u16]>);

impl UpcaseTable {
    /// From the content of `$UpCase`.
    ///
    /// # Errors
    /// Damaged, when it has another size.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() != UPCASE_SIZE {
            return Err(damaged("$UpCase has the wrong size").expected_found(UPCASE_SIZE, bytes.len()));
        }
        Ok(Self(utf16_from_le(bytes).into()))
    }

    /// A table that knows ASCII only, for tests and for comparing before a volume's own table is read.
    #[must_use]
    pub fn ascii() -> Self {
        Self((0..=u16::MAX).map(|u| if (0x61..=0x7A).contains(&u) { u - 0x20 } else { u }).collect())
    }

    /// Whether it agrees with all tables that Windows ever used, as far as they agree: ASCII, a letter that is not, and
    /// nothing that changes twice in ASCII.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let ascii = (0..0x80).all(|c| self.upper(self.upper(c)) == self.upper(c));
        ascii && (0x61..=0x7A).all(|c| self.upper(c) == c - 0x20) && self.upper(0xE9) == 0xC9
    }

    /// The upper-case form of one unit.
    #[must_use]
    pub fn upper(&self, unit: u16) -> u16 {
        self.0.get(usize::from(unit)).copied().unwrap_or(unit)
    }
}

impl std::fmt::Debug for UpcaseTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UpcaseTable")
    }
}
