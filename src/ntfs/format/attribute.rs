//! Attributes of an MFT record: resident and non-resident headers, for reading and for building.
//!
//! Layout: `ATTRIBUTE_RECORD_HEADER` of the public Windows documentation ("Master File Table").

use std::fmt;

use super::error::damaged;
use super::name::NtfsName;
use super::runlist::Runlist;
use super::units::Vcn;
use crate::error::Result;
use crate::field::{Field, align8, push_utf16};

/// Type code of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeType(pub u32);

/// Declares the known types once, with the names that `$AttrDef` gives them.
macro_rules! types {
    ($($(#[$doc:meta])* $konst:ident = $code:literal, $name:literal;)*) => {
        impl AttributeType {
            $($(#[$doc])* pub const $konst: Self = Self($code);)*

            /// The name in `$AttrDef`, if the type is known.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}
types! {
    /// Times, DOS attributes, security id.
    STANDARD_INFORMATION = 0x10, "$STANDARD_INFORMATION";
    /// Where the attributes are, when one record is too small.
    ATTRIBUTE_LIST = 0x20, "$ATTRIBUTE_LIST";
    /// One name of the file.
    FILE_NAME = 0x30, "$FILE_NAME";
    /// GUID of the file for link tracking.
    OBJECT_ID = 0x40, "$OBJECT_ID";
    /// A descriptor of its own instead of an id in `$Secure`.
    SECURITY_DESCRIPTOR = 0x50, "$SECURITY_DESCRIPTOR";
    /// Label of the volume.
    VOLUME_NAME = 0x60, "$VOLUME_NAME";
    /// Version and flags of the volume.
    VOLUME_INFORMATION = 0x70, "$VOLUME_INFORMATION";
    /// Content of a stream; without a name, that of the file.
    DATA = 0x80, "$DATA";
    /// Root node of an index.
    INDEX_ROOT = 0x90, "$INDEX_ROOT";
    /// Blocks of an index.
    INDEX_ALLOCATION = 0xA0, "$INDEX_ALLOCATION";
    /// Which blocks of an index (or records of `$MFT`) are in use.
    BITMAP = 0xB0, "$BITMAP";
    /// Tag and data of a junction, link, WOF file ….
    REPARSE_POINT = 0xC0, "$REPARSE_POINT";
    /// Size of the extended attributes.
    EA_INFORMATION = 0xD0, "$EA_INFORMATION";
    /// Extended attributes (OS/2, WSL).
    EA = 0xE0, "$EA";
    /// EFS and TxF state.
    LOGGED_UTILITY_STREAM = 0x100, "$LOGGED_UTILITY_STREAM";
    /// Marks the end of the attributes of a record.
    END = 0xFFFF_FFFF, "end marker";
}

impl fmt::Display for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "attribute type {:#x}", self.0),
        }
    }
}

/// Header fields of every attribute.
pub mod header {
    use super::Field;
    /// Type code, see [`AttributeType`](super::AttributeType).
    pub const TYPE: Field<u32> = Field::at(0x00);
    /// Length with header, a multiple of 8.
    pub const LENGTH: Field<u32> = Field::at(0x04);
    /// 0 resident, 1 not.
    pub const NON_RESIDENT: Field<u8> = Field::at(0x08);
    /// Units of the name.
    pub const NAME_LENGTH: Field<u8> = Field::at(0x09);
    /// Offset of the name.
    pub const NAME_OFFSET: Field<u16> = Field::at(0x0A);
    /// [`FLAG_COMPRESSED`](super::FLAG_COMPRESSED) and the other `FLAG_…` of this module.
    pub const FLAGS: Field<u16> = Field::at(0x0C);
    /// Number that is unique in the record.
    pub const INSTANCE: Field<u16> = Field::at(0x0E);
}

/// Header fields of a resident attribute.
pub mod resident {
    use super::Field;
    /// Bytes of the value.
    pub const VALUE_LENGTH: Field<u32> = Field::at(0x10);
    /// Offset of the value.
    pub const VALUE_OFFSET: Field<u16> = Field::at(0x14);
    /// 1 when the value is the key of an index entry, as that of `$FILE_NAME`; else 0.
    pub const INDEXED: Field<u8> = Field::at(0x16);
    /// Bytes of the header.
    pub const HEADER_SIZE: usize = 0x18;
}

/// Header fields of a non-resident attribute.
pub mod non_resident {
    use super::Field;
    /// First VCN of this extent.
    pub const LOWEST_VCN: Field<u64> = Field::at(0x10);
    /// Last VCN of this extent; all ones when there is none.
    pub const HIGHEST_VCN: Field<u64> = Field::at(0x18);
    /// Offset of the mapping pairs.
    pub const PAIRS_OFFSET: Field<u16> = Field::at(0x20);
    /// log2 of the clusters of a compression unit; 0 for none.
    pub const COMPRESSION_UNIT: Field<u8> = Field::at(0x22);
    /// Allocated bytes, holes included. Only in the first extent, as the two (three) following ones.
    pub const ALLOCATED: Field<u64> = Field::at(0x28);
    /// Bytes of content, written or not.
    pub const DATA_SIZE: Field<u64> = Field::at(0x30);
    /// Bytes that have been written; beyond, zeros are read.
    pub const INITIALIZED: Field<u64> = Field::at(0x38);
    /// Bytes in real clusters; there only when sparse or compressed.
    pub const TOTAL_ALLOCATED: Field<u64> = Field::at(0x40);
    /// Bytes of the header without [`TOTAL_ALLOCATED`].
    pub const HEADER_SIZE: usize = 0x40;
    /// Bytes of the header with it.
    pub const HEADER_SIZE_WITH_TOTAL: usize = 0x48;
}

/// The stream is compressed by LZNT1.
pub const FLAG_COMPRESSED: u16 = 0x0001;
/// All bits that name a compression.
pub const FLAG_COMPRESSION_MASK: u16 = 0x00FF;
/// The stream is encrypted by EFS.
pub const FLAG_ENCRYPTED: u16 = 0x4000;
/// The stream is sparse: it may have holes.
pub const FLAG_SPARSE: u16 = 0x8000;

/// One attribute inside a record (or in a buffer of its own), its bounds checked.
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'a> {
    bytes: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attribute at the start of `bytes`, which may go on after it.
    ///
    /// # Errors
    /// Damaged, when a length or an offset in the header leaves the attribute.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let length = header::LENGTH.get(bytes) as usize;
        if length < resident::HEADER_SIZE || !length.is_multiple_of(8) || length > bytes.len() {
            return Err(damaged("attribute with an impossible length")
                .expected_found(format!("24..{} and a multiple of 8", bytes.len()), length));
        }
        let attribute = Self { bytes: &bytes[..length] };
        attribute.check()?;
        Ok(attribute)
    }

    fn check(&self) -> Result<()> {
        let name_end = usize::from(header::NAME_OFFSET.get(self.bytes)) + 2 * self.name_length();
        if self.name_length() > 0 && name_end > self.bytes.len() {
            return Err(damaged("attribute name outside the attribute"));
        }
        match header::NON_RESIDENT.get(self.bytes) {
            0 => {
                let end = (resident::VALUE_LENGTH.get(self.bytes) as usize)
                    .checked_add(usize::from(resident::VALUE_OFFSET.get(self.bytes)));
                if end.is_none_or(|e| e > self.bytes.len()) {
                    return Err(damaged("attribute value outside the attribute"));
                }
            }
            1 => {
                let pairs = usize::from(non_resident::PAIRS_OFFSET.get(self.bytes));
                if pairs < non_resident::HEADER_SIZE || pairs >= self.bytes.len() {
                    return Err(damaged("mapping pairs outside the attribute"));
                }
            }
            other => return Err(damaged("unknown form of an attribute").expected_found("0 or 1", other)),
        }
        Ok(())
    }

    /// The whole attribute, header included.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The type of the attribute.
    #[must_use]
    pub fn kind(&self) -> AttributeType {
        AttributeType(header::TYPE.get(self.bytes))
    }

    fn name_length(&self) -> usize {
        usize::from(header::NAME_LENGTH.get(self.bytes))
    }

    /// The name's bytes (UTF-16LE), empty for the unnamed attribute.
    #[must_use]
    pub fn name_bytes(&self) -> &'a [u8] {
        let start = usize::from(header::NAME_OFFSET.get(self.bytes));
        self.bytes.get(start..start + 2 * self.name_length()).unwrap_or_default()
    }

    /// The name, empty for the unnamed attribute.
    #[must_use]
    pub fn name(&self) -> NtfsName {
        NtfsName::from_le_bytes(self.name_bytes())
    }

    /// Whether it has exactly this ASCII name (`""` for unnamed).
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        let bytes = self.name_bytes();
        bytes.len() == 2 * name.len() && bytes.chunks_exact(2).zip(name.bytes()).all(|(u, c)| u == [c, 0])
    }

    /// `FLAG_…` bits of the header.
    #[must_use]
    pub fn flags(&self) -> u16 {
        header::FLAGS.get(self.bytes)
    }

    /// The number that is unique among the attributes of the record.
    #[must_use]
    pub fn instance(&self) -> u16 {
        header::INSTANCE.get(self.bytes)
    }

    /// Whether the value is inside the record.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        header::NON_RESIDENT.get(self.bytes) == 0
    }

    /// The value of a resident attribute; `None` if it is not resident.
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        if !self.is_resident() {
            return None;
        }
        let start = usize::from(resident::VALUE_OFFSET.get(self.bytes));
        self.bytes.get(start..start + resident::VALUE_LENGTH.get(self.bytes) as usize)
    }

    /// First VCN of this extent; 0 when resident.
    #[must_use]
    pub fn lowest_vcn(&self) -> Vcn {
        if self.is_resident() { Vcn(0) } else { Vcn(non_resident::LOWEST_VCN.get(self.bytes)) }
    }

    /// Bytes of content: of the value, or of the whole stream (first extents only).
    #[must_use]
    pub fn data_size(&self) -> u64 {
        self.value().map_or_else(|| non_resident::DATA_SIZE.get(self.bytes), |v| v.len() as u64)
    }

    /// The runs of this extent, checked against its VCN range.
    ///
    /// # Errors
    /// Damaged, when the mapping pairs are malformed or do not cover exactly lowest..=highest VCN.
    pub fn runlist(&self, cluster_count: u64) -> Result<Runlist> {
        let pairs = self.bytes.get(usize::from(non_resident::PAIRS_OFFSET.get(self.bytes))..).unwrap_or_default();
        let runs = Runlist::decode(pairs, self.lowest_vcn(), cluster_count)?;
        let highest = non_resident::HIGHEST_VCN.get(self.bytes);
        if highest.wrapping_add(1) != runs.end() {
            return Err(damaged("mapping pairs do not cover the attribute's VCN range")
                .expected_found(highest.wrapping_add(1), runs.end()));
        }
        Ok(runs)
    }
}

/// Sizes and flags of a non-resident attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamSizes {
    /// Allocated bytes, holes included.
    pub allocated: u64,
    /// Bytes of content, written or not.
    pub data: u64,
    /// Bytes that have been written.
    pub initialized: u64,
    /// [`FLAG_SPARSE`] and the other `FLAG_…` of the header.
    pub flags: u16,
    /// log2 of the clusters of a compression unit.
    pub compression_unit: u8,
}

impl StreamSizes {
    /// Reads them from a first extent.
    #[must_use]
    pub fn of(attribute: &Attribute<'_>) -> Self {
        let bytes = attribute.bytes();
        Self {
            allocated: non_resident::ALLOCATED.get(bytes),
            data: non_resident::DATA_SIZE.get(bytes),
            initialized: non_resident::INITIALIZED.get(bytes),
            flags: attribute.flags(),
            compression_unit: non_resident::COMPRESSION_UNIT.get(bytes),
        }
    }

    /// Whether the header has the total-allocated field.
    #[must_use]
    pub fn has_total(&self) -> bool {
        self.flags & (FLAG_SPARSE | FLAG_COMPRESSED) != 0
    }
}

/// Builds a resident attribute. The instance is left 0: the record gives it.
#[must_use]
pub fn build_resident(kind: AttributeType, name: &NtfsName, value: &[u8]) -> Vec<u8> {
    let value_offset = align8(resident::HEADER_SIZE + 2 * name.units().len());
    let length = align8(value_offset + value.len());
    let mut bytes = Vec::with_capacity(length);
    bytes.resize(resident::HEADER_SIZE, 0);
    header::TYPE.set(&mut bytes, kind.0);
    header::LENGTH.set(&mut bytes, length as u32);
    header::NAME_LENGTH.set(&mut bytes, name.units().len() as u8);
    header::NAME_OFFSET.set(&mut bytes, resident::HEADER_SIZE as u16);
    resident::VALUE_LENGTH.set(&mut bytes, value.len() as u32);
    resident::VALUE_OFFSET.set(&mut bytes, value_offset as u16);
    resident::INDEXED.set(&mut bytes, u8::from(kind == AttributeType::FILE_NAME));
    push_utf16(&mut bytes, name.units());
    bytes.resize(value_offset, 0);
    bytes.extend_from_slice(value);
    bytes.resize(length, 0);
    bytes
}

/// Bytes of a non-resident attribute before its mapping pairs.
#[must_use]
pub fn non_resident_overhead(name_units: usize, sizes: &StreamSizes) -> usize {
    let fixed = if sizes.has_total() { non_resident::HEADER_SIZE_WITH_TOTAL } else { non_resident::HEADER_SIZE };
    align8(fixed + 2 * name_units)
}

/// Builds one extent of a non-resident attribute. Sizes are written only when it begins at VCN 0; `real_clusters` is
/// the number of clusters of the whole stream that are no holes, in bytes.
#[must_use]
pub fn build_non_resident(
    kind: AttributeType,
    name: &NtfsName,
    runs: &Runlist,
    sizes: &StreamSizes,
    total_allocated: u64,
) -> Vec<u8> {
    let first = runs.first() == Vcn(0);
    // the header of later extents keeps the longer form: Windows writes the same header into all of them
    let pairs_offset = non_resident_overhead(name.units().len(), sizes);
    let name_offset = if sizes.has_total() { non_resident::HEADER_SIZE_WITH_TOTAL } else { non_resident::HEADER_SIZE };
    let pairs = runs.encode();
    let length = align8(pairs_offset + pairs.len());
    let mut bytes = Vec::with_capacity(length);
    bytes.resize(name_offset, 0);
    header::TYPE.set(&mut bytes, kind.0);
    header::LENGTH.set(&mut bytes, length as u32);
    header::NON_RESIDENT.set(&mut bytes, 1);
    header::NAME_LENGTH.set(&mut bytes, name.units().len() as u8);
    header::NAME_OFFSET.set(&mut bytes, name_offset as u16);
    header::FLAGS.set(&mut bytes, sizes.flags);
    non_resident::LOWEST_VCN.set(&mut bytes, runs.first().0);
    non_resident::HIGHEST_VCN.set(&mut bytes, runs.end().wrapping_sub(1));
    non_resident::PAIRS_OFFSET.set(&mut bytes, pairs_offset as u16);
    non_resident::COMPRESSION_UNIT.set(&mut bytes, sizes.compression_unit);
    if first {
        non_resident::ALLOCATED.set(&mut bytes, sizes.allocated);
        non_resident::DATA_SIZE.set(&mut bytes, sizes.data);
        non_resident::INITIALIZED.set(&mut bytes, sizes.initialized);
        if sizes.has_total() {
            non_resident::TOTAL_ALLOCATED.set(&mut bytes, total_allocated);
        }
    }
    push_utf16(&mut bytes, name.units());
    bytes.resize(pairs_offset, 0);
    bytes.extend_from_slice(&pairs);
    bytes.resize(length, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::format::units::Lcn;

    #[test]
    fn built_attributes_read_back() {
        let bytes = build_resident(AttributeType::FILE_NAME, &NtfsName::default(), b"hello");
        let attribute = Attribute::parse(&bytes).unwrap();
        assert_eq!((attribute.value(), resident::INDEXED.get(&bytes)), (Some(&b"hello"[..]), 1));
        let mut runs = Runlist::default();
        runs.push(Some(Lcn(7)), 3);
        let sizes =
            StreamSizes { allocated: 12288, data: 9000, initialized: 9000, flags: FLAG_SPARSE, compression_unit: 4 };
        let bytes = build_non_resident(AttributeType::DATA, &"s".into(), &runs, &sizes, 12288);
        let attribute = Attribute::parse(&bytes).unwrap();
        assert!(attribute.is_named("s") && !attribute.is_named("") && !attribute.is_resident());
        assert_eq!(StreamSizes::of(&attribute), sizes);
        assert_eq!(attribute.runlist(100).unwrap(), runs);
        assert_eq!(non_resident::PAIRS_OFFSET.get(&bytes), 0x50);
        assert!(attribute.runlist(9).is_err());
    }

    #[test]
    fn mutated_headers_never_panic() {
        let good = build_resident(AttributeType::DATA, &"name".into(), b"some value");
        for at in 0..good.len() {
            for value in 0..=255u8 {
                let mut bad = good.clone();
                bad[at] = value;
                if let Ok(a) = Attribute::parse(&bad) {
                    let _ = (a.name(), a.value(), a.runlist(10), a.data_size());
                }
            }
        }
    }
}
