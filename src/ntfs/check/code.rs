//! What a fault is called, and how bad it is.

use std::fmt;

use serde::{Serialize, Serializer};

/// How bad a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A stale copy or a leftover that Windows puts right silently. Does not make a volume faulty.
    Minor,
    /// chkdsk would repair it, or a driver may refuse the volume.
    Error,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $severity:ident;)*) => {
        /// An invariant of NTFS that can be decided on a volume at rest.
        ///
        /// A: the volume's frame. B: file records. C: names and indexes. D: security, bitmaps, journal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The short stable name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The invariant in words.
            #[must_use]
            pub fn invariant(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// How bad a breach is.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)*
                }
            }
        }
    };
}

codes! {
    /// Boot sector.
    A1 = "the boot sector is sane and its backup equal", Error;
    /// Master file table.
    A2 = "the master file table can be found and its mirror is in place", Error;
    /// `$AttrDef`, `$UpCase`.
    A3 = "$AttrDef and $UpCase are present and valid", Error;
    /// `$LogFile`.
    A4 = "the log's size is the one that its restart area names, and the log is closed", Error;
    /// Version.
    A5 = "the volume's version is 3.1", Error;

    /// Record fix-up.
    B1 = "a record's signature and update sequence are whole", Error;
    /// Record header.
    B2 = "a record's sizes and first attribute offset are right", Error;
    /// Record number.
    B3 = "a record knows its own number", Error;
    /// Sequence number.
    B4 = "a record in use has a sequence number", Error;
    /// Record flags.
    B5 = "a record's flags agree with its content", Error;
    /// Attribute form.
    B6 = "an attribute has a known type and a legal form and size", Error;
    /// Attribute order.
    B7 = "attributes are in order", Error;
    /// Instances.
    B8 = "attribute instances are unique and below the next one", Error;
    /// Resident values.
    B9 = "a resident value lies in its attribute; only names are indexed", Error;
    /// Mapping pairs.
    B10 = "mapping pairs decode, fit the VCN range and stay on the volume", Error;
    /// Sizes.
    B11 = "allocated, data, initialized and total sizes agree with the runs", Error;
    /// Cross links.
    B12 = "no cluster has two owners", Error;
    /// Attribute lists.
    B13 = "the attribute list names exactly the file's attributes", Error;
    /// Extension records.
    B14 = "an extension record belongs to a live file that lists it", Error;
    /// Obligatory attributes.
    B15 = "a file has its obligatory attributes", Error;
    /// Link count.
    B16 = "the link count is the number of names", Error;
    /// System files.
    B17 = "system files have their fixed names and sequence numbers", Error;

    /// Index root.
    C1 = "an index root names its type, order and block size", Error;
    /// Index nodes.
    C2 = "an index node's header and entries fill it exactly", Error;
    /// Index blocks.
    C3 = "an index block has its signature, fix-up and own number", Error;
    /// Index child pointers.
    C4 = "child pointers are uniform, unique and inside the allocation", Error;
    /// Index order.
    C5 = "index entries ascend across the whole tree", Error;
    /// Duplicate keys.
    C6 = "no key is in an index twice", Error;
    /// Index bitmap.
    C7 = "an index's bitmap has exactly the blocks in use", Error;
    /// Dangling entries.
    C8 = "a directory entry points to a live file", Error;
    /// Entry's copy of the name.
    C9 = "a directory entry repeats a name of its file", Error;
    /// Orphans.
    C10 = "each name is in its directory exactly once", Error;
    /// Name spaces.
    C11 = "names are legal and long and short names come in pairs", Error;
    /// Reachability.
    C12 = "every file can be reached from the root", Error;
    /// Stale copies.
    C13 = "times, sizes and attributes in directory entries are up to date", Minor;
    /// Reparse points and object ids.
    C14 = "the indexes of reparse points and object ids are complete", Error;

    /// Descriptors.
    D1 = "security descriptors have their hash, id, offset and length", Error;
    /// Descriptor mirror.
    D2 = "security descriptors are mirrored", Error;
    /// Security indexes.
    D3 = "$SII and $SDH name exactly the descriptors", Error;
    /// Security ids.
    D4 = "each security id in use has a descriptor", Error;
    /// Unused descriptors.
    D5 = "unused security descriptors", Minor;
    /// Change journal.
    D6 = "the change journal is well-formed", Error;
    /// Record bitmap.
    D7 = "$MFT's bitmap has exactly the records in use", Error;
    /// Cluster bitmap.
    D8 = "$Bitmap has exactly the clusters in use", Error;
    /// Bad clusters, mirror.
    D9 = "$BadClus spans the volume and $MFTMirr repeats the first records", Error;
    /// Quotas.
    D10 = "quota indexes are well-formed", Error;
    /// Dirty flag.
    D11 = "the volume is not marked dirty", Error;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
