//! The structures of UDF as they lie on the disk, field by field in the order of ECMA-167 3rd edition, whose sections
//! are named (part/section), and of OSTA UDF 2.60.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::iso::bytes::view;

/// Tag identifiers (ECMA-167 3/7.2.1, 4/7.2.1).
pub(super) const ANCHOR: u16 = 2;
pub(super) const POINTER: u16 = 3;
pub(super) const PARTITION: u16 = 5;
pub(super) const LOGICAL_VOLUME: u16 = 6;
pub(super) const TERMINATOR: u16 = 8;
pub(super) const FILE_SET: u16 = 256;
pub(super) const FILE_IDENTIFIER: u16 = 257;
pub(super) const ALLOCATION_EXTENT: u16 = 258;
pub(super) const FILE_ENTRY: u16 = 261;
pub(super) const EXTENDED_FILE_ENTRY: u16 = 266;

/// What every descriptor begins with (3/7.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Tag {
    pub identifier: U16,
    pub version: U16,
    /// Sum of the other 15 bytes of the tag.
    pub checksum: u8,
    pub reserved: u8,
    pub serial: U16,
    pub crc: U16,
    pub crc_length: U16,
    /// Block of the descriptor.
    pub location: U32,
}

impl Tag {
    /// The identifier of a descriptor; `None` when the tag's checksum is wrong.
    pub fn identify(descriptor: &[u8]) -> Option<u16> {
        let tag: &Self = view(descriptor)?;
        let sum = tag.as_bytes().iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
        (sum.wrapping_sub(tag.checksum) == tag.checksum).then(|| tag.identifier.get())
    }
}

/// `extent_ad`: consecutive sectors (3/7.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ExtentAddress {
    /// Bytes of the extent.
    pub length: U32,
    /// Number of its first sector.
    pub location: U32,
}

/// Anchor volume descriptor pointer (3/10.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Anchor {
    pub tag: Tag,
    pub main: ExtentAddress,
    pub reserve: ExtentAddress,
}

/// What the descriptors of a volume descriptor sequence begin with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct SequenceHeader {
    pub tag: Tag,
    /// Of several descriptors of one kind, the one with the highest number counts.
    pub number: U32,
}

/// Volume descriptor pointer: the sequence continues elsewhere (3/10.3).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct SequencePointer {
    pub header: SequenceHeader,
    pub next: ExtentAddress,
}

/// Partition descriptor (3/10.5), without its last fields.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct PartitionDescriptor {
    pub header: SequenceHeader,
    pub flags: U16,
    pub partition_number: U16,
    pub contents: [u8; 32],
    pub contents_use: [u8; 128],
    pub access_type: U32,
    /// Number of the first sector.
    pub start: U32,
    /// Length in sectors.
    pub length: U32,
}

/// Logical volume descriptor (3/10.6); its partition maps follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct LogicalVolumeDescriptor {
    pub header: SequenceHeader,
    pub character_set: [u8; 64],
    pub identifier: [u8; 128],
    /// Bytes of a logical block.
    pub block_size: U32,
    pub domain: [u8; 32],
    /// In UDF, where the file set descriptor is (UDF 2.2.4.4).
    pub file_set: LongAddress,
    /// Bytes of the partition maps.
    pub map_table_length: U32,
    pub map_count: U32,
    pub implementation: [u8; 32],
    pub implementation_use: [u8; 128],
    pub integrity_sequence: ExtentAddress,
}

/// What a partition map begins with (3/10.7.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct MapHeader {
    /// 1 for a partition at a fixed place, 2 for the kinds of UDF.
    pub kind: u8,
    /// Bytes of the map.
    pub length: u8,
}

/// Type 1 partition map (3/10.7.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct PlainMap {
    pub header: MapHeader,
    pub volume_sequence_number: U16,
    pub partition_number: U16,
}

/// What the type 2 partition maps of UDF begin with (UDF 2.2.8 to 2.2.10).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct TypedMap {
    pub header: MapHeader,
    pub reserved: [u8; 2],
    pub identifier_flags: u8,
    /// The kind in words.
    pub identifier: [u8; 23],
    pub identifier_suffix: [u8; 8],
    pub volume_sequence_number: U16,
    pub partition_number: U16,
}

/// Metadata partition map (UDF 2.2.10).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct MetadataMap {
    pub map: TypedMap,
    /// Block of the metadata file's entry, in the partition that the map names.
    pub metadata_file: U32,
    pub mirror_file: U32,
    pub bitmap_file: U32,
    pub allocation_unit: U32,
    pub alignment_unit: U16,
    pub flags: u8,
    pub reserved: [u8; 5],
}

/// `short_ad` (4/14.14.1): an address in the partition of the file entry.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ShortAddress {
    /// Bytes in the lower 30 bits; what the address is for in the upper two.
    pub length: U32,
    pub block: U32,
}

/// `long_ad` (4/14.14.2): an address in any partition.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct LongAddress {
    pub address: ShortAddress,
    /// Number of a partition map.
    pub partition: U16,
    pub implementation_use: [u8; 6],
}

/// File set descriptor (4/14.1), without its last fields.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct FileSetDescriptor {
    pub tag: Tag,
    pub recorded: [u8; 12],
    pub interchange_level: U16,
    pub interchange_level_max: U16,
    pub character_sets: U32,
    pub character_sets_max: U32,
    pub number: U32,
    pub descriptor_number: U32,
    pub volume_character_set: [u8; 64],
    pub volume_identifier: [u8; 128],
    pub character_set: [u8; 64],
    pub identifier: [u8; 32],
    pub copyright_file: [u8; 32],
    pub abstract_file: [u8; 32],
    pub root: LongAddress,
}

/// `icbtag` (4/14.6): kind of a file, and form of its allocation descriptors.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct IcbTag {
    pub prior_entries: U32,
    pub strategy: U16,
    pub strategy_parameter: [u8; 2],
    pub entries_max: U16,
    pub reserved: u8,
    pub file_type: u8,
    pub parent: [u8; 6],
    /// The lower three bits tell the form of the allocation descriptors.
    pub flags: U16,
}

/// What file entries and extended file entries begin with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct FileEntryHeader {
    pub tag: Tag,
    pub icb: IcbTag,
    pub uid: U32,
    pub gid: U32,
    pub permissions: U32,
    pub links: U16,
    pub record_format: u8,
    pub record_attributes: u8,
    pub record_length: U32,
    /// Bytes of the file.
    pub size: U64,
}

/// File entry (4/14.9); extended attributes and allocation descriptors follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct FileEntry {
    pub header: FileEntryHeader,
    pub blocks: U64,
    /// Of last access, modification, change of attributes.
    pub times: [[u8; 12]; 3],
    pub checkpoint: U32,
    pub attributes_icb: LongAddress,
    pub implementation: [u8; 32],
    pub unique_id: U64,
    pub areas: FileEntryAreas,
}

/// Extended file entry (4/14.17); extended attributes and allocation descriptors follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ExtendedFileEntry {
    pub header: FileEntryHeader,
    pub object_size: U64,
    pub blocks: U64,
    /// Access, modification, creation, attributes.
    pub times: [[u8; 12]; 4],
    pub checkpoint: U32,
    pub reserved: U32,
    pub attributes_icb: LongAddress,
    pub streams_icb: LongAddress,
    pub implementation: [u8; 32],
    pub unique_id: U64,
    pub areas: FileEntryAreas,
}

/// What both kinds of file entries end with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct FileEntryAreas {
    /// Bytes of extended attributes.
    pub attributes_length: U32,
    /// Bytes of allocation descriptors.
    pub descriptors_length: U32,
}

/// File identifier descriptor: an entry of a directory (4/14.4); implementation use and name follow, and padding to a
/// multiple of four bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct FileIdentifier {
    pub tag: Tag,
    pub version: U16,
    pub characteristics: u8,
    pub name_length: u8,
    pub icb: LongAddress,
    pub implementation_use_length: U16,
}

/// Allocation extent descriptor (4/14.5); allocation descriptors follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct AllocationExtent {
    pub tag: Tag,
    pub previous: U32,
    /// Bytes of allocation descriptors.
    pub length: U32,
}

const _: () = {
    assert!(size_of::<Tag>() == 16);
    assert!(size_of::<ExtentAddress>() == 8);
    assert!(size_of::<Anchor>() == 32);
    assert!(size_of::<SequenceHeader>() == 20);
    assert!(size_of::<SequencePointer>() == 28);
    assert!(size_of::<PartitionDescriptor>() == 196);
    assert!(size_of::<LogicalVolumeDescriptor>() == 440);
    assert!(size_of::<MapHeader>() == 2);
    assert!(size_of::<PlainMap>() == 6);
    assert!(size_of::<TypedMap>() == 40);
    assert!(size_of::<MetadataMap>() == 64);
    assert!(size_of::<ShortAddress>() == 8);
    assert!(size_of::<LongAddress>() == 16);
    assert!(size_of::<FileSetDescriptor>() == 416);
    assert!(size_of::<IcbTag>() == 20);
    assert!(size_of::<FileEntryHeader>() == 64);
    assert!(size_of::<FileEntry>() == 176);
    assert!(size_of::<ExtendedFileEntry>() == 216);
    assert!(size_of::<FileEntryAreas>() == 8);
    assert!(size_of::<FileIdentifier>() == 38);
    assert!(size_of::<AllocationExtent>() == 24);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_need_their_checksum() {
        let mut data = [0u8; 16];
        data[0] = 2;
        data[4] = 2;
        assert_eq!(Tag::identify(&data), Some(ANCHOR));
        data[5] = 1;
        assert_eq!(Tag::identify(&data), None);
        assert_eq!(Tag::identify(&data[..15]), None);
    }
}
