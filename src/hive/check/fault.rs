//! What can be wrong with a hive, with a short name for each rule.

use std::fmt;

/// How bad a [`Fault`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Windows tolerates it, but never writes it.
    Warning,
    /// Windows refuses the hive, repairs it by removing something, or misbehaves later.
    Error,
}

macro_rules! codes {
    ($($variant:ident $name:literal $severity:ident $doc:literal),* $(,)?) => {
        /// The rule that a hive breaks. The names are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $doc] $variant),*
        }

        impl Code {
            /// Every rule, in the order of the report's documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The rule's name, such as `SL-ORDER`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What the rule demands.
            #[must_use]
            pub fn rule(self) -> &'static str {
                match self { $(Self::$variant => $doc),* }
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
    BbSignature "BB-SIGNATURE" Error "The file begins with `regf` and has a base block.",
    BbChecksum "BB-CHECKSUM" Error "The base block's checksum is right; else the hive is dirty.",
    BbSequence "BB-SEQUENCE" Error "Both sequence numbers are equal; else the hive is dirty.",
    BbMajor "BB-MAJOR" Error "The major version is 1.",
    BbMinor "BB-MINOR" Error "The minor version is 3 to 6.",
    BbType "BB-TYPE" Error "The file type is 0 (primary).",
    BbFormat "BB-FORMAT" Error "The file format is 1.",
    BbCluster "BB-CLUSTER" Error "The clustering factor is 1.",
    BbLength "BB-LENGTH" Error "The length of the bins is a multiple of 4096, above 0 and below 2 GiB.",
    BbTruncated "BB-TRUNCATED" Error "The file holds all of its bins.",
    BbFilesize "BB-FILESIZE" Warning "The file's size is a multiple of 4096.",
    BbFlags "BB-FLAGS" Warning "Only known flags are set in the base block.",
    HbSignature "HB-SIGNATURE" Error "A bin begins with `hbin`.",
    HbOffset "HB-OFFSET" Error "A bin says where it is.",
    HbSize "HB-SIZE" Error "A bin's size is a multiple of 4096 and inside the hive.",
    CeSize "CE-SIZE" Error "A cell has at least 8 bytes and ends inside its bin.",
    CeAlign "CE-ALIGN" Error "A cell's size is a multiple of 8.",
    CeHuge "CE-HUGE" Warning "No allocated cell is larger than 1 MiB.",
    CeCoalesce "CE-COALESCE" Warning "No two free cells touch inside a bin.",
    CeOrphan "CE-ORPHAN" Warning "Every allocated cell is referenced.",
    RfNil "RF-NIL" Error "A needed reference is there.",
    RfVolatile "RF-VOLATILE" Error "No reference points into volatile storage.",
    RfRange "RF-RANGE" Error "No reference points outside the hive.",
    RfNocell "RF-NOCELL" Error "A reference points to the start of a cell.",
    RfFree "RF-FREE" Error "A reference points to an allocated cell.",
    RfShared "RF-SHARED" Error "No cell but a security cell is referenced twice.",
    NmOdd "NM-ODD" Error "A UTF-16 name has an even number of bytes.",
    NkSignature "NK-SIGNATURE" Error "A key's cell begins with `nk` and is long enough.",
    NkCellsize "NK-CELLSIZE" Error "A key's cell holds at most 1116 bytes.",
    NkNoname "NK-NONAME" Error "A key has a name.",
    NkNamelen "NK-NAMELEN" Error "A key's name is inside its cell.",
    NkNamelong "NK-NAMELONG" Error "A key's name has at most 256 characters.",
    NkName256 "NK-NAME256" Warning "A key's name has at most 255 characters.",
    NkBackslash "NK-BACKSLASH" Error "A key's name holds no backslash.",
    NkUncompressed "NK-UNCOMPRESSED" Warning "A key's name that fits 8 bits is stored so.",
    NkParent "NK-PARENT" Error "A key names its real parent.",
    NkFlags "NK-FLAGS" Error "No key on disk is volatile, a mount point or a predefined handle.",
    NkFlags2 "NK-FLAGS2" Warning "Only known flags are set in a key.",
    NkEntryflag "NK-ENTRYFLAG" Error "Only the root has the hive-entry flag.",
    NkRootflag "NK-ROOTFLAG" Warning "The root has the hive-entry flag.",
    NkRootnodel "NK-ROOTNODEL" Warning "The root has the no-delete flag.",
    NkClass "NK-CLASS" Error "A class name is inside its cell.",
    NkClassodd "NK-CLASSODD" Warning "A class name has an even number of bytes.",
    NkClass0 "NK-CLASS0" Warning "A key without class name has no cell for it.",
    NkDepth "NK-DEPTH" Error "Keys nest at most 512 levels deep.",
    NkLayer "NK-LAYER" Warning "Layer bits appear only in layered hives.",
    NkLinkkids "NK-LINKKIDS" Warning "A symbolic link has no subkeys.",
    NkMaxname "NK-MAXNAME" Warning "The cached largest subkey name is large enough.",
    NkMaxclass "NK-MAXCLASS" Warning "The cached largest subkey class is large enough.",
    NkMaxvname "NK-MAXVNAME" Warning "The cached largest value name is large enough.",
    NkMaxvdata "NK-MAXVDATA" Warning "The cached largest value data is large enough.",
    SlSignature "SL-SIGNATURE" Error "A subkey list is `li`, `lf` or `lh`; only the top may be `ri`.",
    SlRiempty "SL-RIEMPTY" Error "An index root has a leaf.",
    SlRisize "SL-RISIZE" Error "An index root's entries are inside its cell.",
    SlLeafempty "SL-LEAFEMPTY" Error "A leaf has an entry.",
    SlLeafsize "SL-LEAFSIZE" Error "A leaf's entries are inside its cell.",
    SlLeafbig "SL-LEAFBIG" Warning "A leaf has at most 507 (lf) or 1013 entries.",
    SlKind "SL-KIND" Warning "`lh` appears only from version 1.5 on.",
    SlMixed "SL-MIXED" Warning "All leaves of a key are of one kind.",
    SlCount "SL-COUNT" Error "A key's subkey count is the sum of its leaves.",
    SlOrder "SL-ORDER" Error "Subkeys are sorted by upper-cased name.",
    SlDuplicate "SL-DUPLICATE" Error "No two subkeys have equal names.",
    SlHash "SL-HASH" Error "An `lh` entry has the hash of its key.",
    SlHint "SL-HINT" Error "An `lf` entry has the hint of its key.",
    SlEmpty "SL-EMPTY" Warning "A key without subkeys has no list.",
    VlEmpty "VL-EMPTY" Warning "A key without values has no list.",
    VlSize "VL-SIZE" Error "A value list's entries are inside its cell.",
    VlDuplicate "VL-DUPLICATE" Error "No two values of a key have equal names.",
    VkSignature "VK-SIGNATURE" Error "A value's cell begins with `vk` and is long enough.",
    VkNamelen "VK-NAMELEN" Error "A value's name is inside its cell.",
    VkNamelong "VK-NAMELONG" Error "A value's name has at most 16383 characters.",
    VkUncompressed "VK-UNCOMPRESSED" Warning "A value's name that fits 8 bits is stored so.",
    VkFlags "VK-FLAGS" Warning "Only known flags are set in a value.",
    VkResident "VK-RESIDENT" Error "Resident data have at most 4 bytes.",
    VkZerodata "VK-ZERODATA" Error "Empty data that are not resident have no cell.",
    VkTombstone "VK-TOMBSTONE" Error "A tombstone has no data.",
    VkDatasize "VK-DATASIZE" Error "Data are inside their cell.",
    VkToobig "VK-TOOBIG" Error "Data in one cell have at most 1 MiB.",
    DbSignature "DB-SIGNATURE" Error "Data above 16344 bytes are big data from version 1.4 on.",
    DbCount "DB-COUNT" Error "Big data have as many segments as their length needs.",
    DbShort "DB-SHORT" Error "Big data have at least two segments.",
    DbList "DB-LIST" Error "A segment list's entries are inside its cell.",
    DbSegment "DB-SEGMENT" Error "A segment holds its part of the data.",
    SkSignature "SK-SIGNATURE" Error "A security cell begins with `sk` and is long enough.",
    SkRing "SK-RING" Error "The security cells form one ring through the root's.",
    SkBlink "SK-BLINK" Error "Next and previous of the security ring agree.",
    SkRefcount "SK-REFCOUNT" Error "A security cell counts the keys that use it.",
    SkUnused "SK-UNUSED" Warning "A security cell is used.",
    SkSize "SK-SIZE" Error "A descriptor is inside its cell.",
    SkDescriptor "SK-DESCRIPTOR" Error "A descriptor is valid and self-relative.",
    SkDuplicate "SK-DUPLICATE" Warning "No two security cells hold equal descriptors.",
    SkDangling "SK-DANGLING" Error "A key's security cell is in the ring.",
}

crate::schema::written_by_name!(Code);

/// One broken rule: which, how badly, where, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Fault {
    code: Code,
    severity: Severity,
    place: String,
    text: String,
    /// Stands for this many faults beyond those that a report names; 0 for a fault that is named.
    #[serde(skip)]
    more: u32,
}

impl Fault {
    pub(super) fn new(code: Code, severity: Severity, place: String, text: String) -> Self {
        Self { code, severity, place, text, more: 0 }
    }

    /// For `more` faults of one code that are not named.
    pub(super) fn unnamed(code: Code, severity: Severity, more: u32) -> Self {
        Self { code, severity, place: "elsewhere".into(), text: format!("{more} more"), more }
    }

    /// How many faults this is.
    pub(in super::super) fn count(&self) -> u64 {
        u64::from(self.more.max(1))
    }

    pub(super) fn is_named(&self) -> bool {
        self.more == 0
    }

    /// The rule, how badly it is broken, and where.
    pub(super) fn identity(&self) -> (Code, Severity, &str) {
        (self.code, self.severity, &self.place)
    }

    /// The rule that is broken.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The key (and value), or the cell, that breaks it.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What was found, as a part of a sentence.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same fault with the hive in its place, for a list of the faults of several hives.
    #[must_use]
    pub fn within(mut self, hive: &str) -> Self {
        self.place = format!("{hive}: {}", self.place);
        self
    }

    /// Whether `other` is the same rule broken at the same place (what was found may differ).
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.code == other.code && self.place == other.place
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.place, self.text)
    }
}
