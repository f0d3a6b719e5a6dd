//! Byte addresses as types, so that an offset on the disk cannot be taken for one in a partition.

use std::fmt;

use crate::error::Place;

/// Byte offset in the guest-visible disk, independent of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ImageOffset(pub u64);

/// Byte offset from the start of a partition (of a volume).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VolumeOffset(pub u64);

/// Byte offset in a file of the host that stores a disk, for instance in a qcow2 file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HostOffset(pub u64);

/// Formats a number of bytes for people: `1.5 GiB`.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") }
}

macro_rules! offset {
    ($name:ident, $place:ident) => {
        impl $name {
            /// This offset plus `bytes`; `None` on overflow.
            #[must_use]
            pub fn checked_add(self, bytes: u64) -> Option<Self> {
                self.0.checked_add(bytes).map(Self)
            }

            /// This offset moved by `bytes`; the largest one on overflow, which no file and no disk has.
            #[must_use]
            pub fn saturating_add(self, bytes: u64) -> Self {
                Self(self.0.saturating_add(bytes))
            }
        }
        impl From<$name> for u64 {
            fn from(offset: $name) -> u64 {
                offset.0
            }
        }
        impl From<$name> for Place {
            fn from(offset: $name) -> Self {
                Self::$place(offset.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}
offset!(ImageOffset, DiskOffset);
offset!(VolumeOffset, VolumeOffset);
offset!(HostOffset, Offset);
