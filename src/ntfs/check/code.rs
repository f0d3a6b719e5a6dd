//! What a fault is called, and how bad it is.

use serde::Serialize;

/// How bad a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A stale copy or a leftover that Windows puts right silently. Does not make a volume faulty.
    Minor,
    /// chkdsk would repair it, or a driver may refuse the volume.
    Error,
}

macro_rules! codes {
    ($($variant:ident $name:literal $severity:ident $invariant:literal),* $(,)?) => {
        /// An invariant of NTFS that can be decided on a volume at rest.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $invariant] $variant),*
        }

        impl Code {
            /// Every code, in the order of their short names.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The short stable name, such as `B12`. A: the volume's frame. B: file records. C: names and indexes. D:
            /// security, bitmaps, journal.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What must hold, in words.
            #[must_use]
            pub fn invariant(self) -> &'static str {
                match self { $(Self::$variant => $invariant),* }
            }

            /// How bad a breach is.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity),* }
            }
        }
    };
}

codes! {
    BootSector "A1" Error "the boot sector is sane and its backup equal",
    MftLocation "A2" Error "the master file table can be found and its mirror is in place",
    SystemTables "A3" Error "$AttrDef and $UpCase are present and valid",
    Log "A4" Error "the log's size is the one that its restart area names, and the log is closed",
    VolumeVersion "A5" Error "the volume's version is 3.1",

    RecordFixup "B1" Error "a record's signature and update sequence are whole",
    RecordHeader "B2" Error "a record's sizes and first attribute offset are right",
    RecordNumber "B3" Error "a record knows its own number",
    SequenceNumber "B4" Error "a record in use has a sequence number",
    RecordFlags "B5" Error "a record's flags agree with its content",
    AttributeForm "B6" Error "an attribute has a known type and a legal form and size",
    AttributeOrder "B7" Error "attributes are in order",
    AttributeInstance "B8" Error "attribute instances are unique and below the next one",
    ResidentValue "B9" Error "a resident value lies in its attribute; only names are indexed",
    MappingPairs "B10" Error "mapping pairs decode, fit the VCN range and stay on the volume",
    StreamSizes "B11" Error "allocated, data, initialized and total sizes agree with the runs",
    CrossLinkedClusters "B12" Error "no cluster has two owners",
    AttributeList "B13" Error "the attribute list names exactly the file's attributes",
    ExtensionRecord "B14" Error "an extension record belongs to a live file that lists it",
    RequiredAttributes "B15" Error "a file has its obligatory attributes",
    LinkCount "B16" Error "the link count is the number of names",
    SystemFile "B17" Error "system files have their fixed names and sequence numbers",

    IndexRoot "C1" Error "an index root names its type, order and block size",
    IndexNode "C2" Error "an index node's header and entries fill it exactly",
    IndexBlock "C3" Error "an index block has its signature, fix-up and own number",
    IndexChildPointer "C4" Error "child pointers are uniform, unique and inside the allocation",
    IndexOrder "C5" Error "index entries ascend across the whole tree",
    DuplicateKey "C6" Error "no key is in an index twice",
    IndexBitmap "C7" Error "an index's bitmap has exactly the blocks in use",
    DanglingEntry "C8" Error "a directory entry points to a live file",
    EntryName "C9" Error "a directory entry repeats a name of its file",
    OrphanName "C10" Error "each name is in its directory exactly once",
    FileNameForm "C11" Error "names are legal and long and short names come in pairs",
    Reachability "C12" Error "every file can be reached from the root",
    DuplicatedInformation "C13" Minor "times, sizes and attributes in directory entries are up to date",
    ExtendIndexes "C14" Error "the indexes of reparse points and object ids are complete",

    SecurityDescriptor "D1" Error "security descriptors have their hash, id, offset and length",
    SecurityMirror "D2" Error "security descriptors are mirrored",
    SecurityIndexes "D3" Error "$SII and $SDH name exactly the descriptors",
    SecurityId "D4" Error "each security id in use has a descriptor",
    UnusedDescriptor "D5" Minor "unused security descriptors",
    ChangeJournal "D6" Error "the change journal is well-formed",
    MftBitmap "D7" Error "$MFT's bitmap has exactly the records in use",
    ClusterBitmap "D8" Error "$Bitmap has exactly the clusters in use",
    BadClustersAndMirror "D9" Error "$BadClus spans the volume and $MFTMirr repeats the first records",
    QuotaIndexes "D10" Error "quota indexes are well-formed",
    DirtyFlag "D11" Error "the volume is not marked dirty",
}

crate::schema::written_by_name!(Code);
