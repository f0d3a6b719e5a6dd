//! Which names of the files are read.

use std::fmt;

/// The trees of names that an image can hold, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// ISO 9660 with the names of Rock Ridge (IEEE P1282).
    RockRidge,
    /// The supplementary tree with Unicode names.
    Joliet,
    /// Universal Disk Format (ECMA-167).
    Udf,
    /// The enhanced tree of ISO 9660:1999 ("level 4").
    Enhanced,
    /// ISO 9660 as it was in 1988.
    Plain,
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RockRidge => "Rock Ridge",
            Self::Joliet => "Joliet",
            Self::Udf => "UDF",
            Self::Enhanced => "ISO 9660:1999",
            Self::Plain => "ISO 9660",
        })
    }
}
