//! On-disk structures of Windows programs, their fields in the order of the specification. All numbers are little-endian.
//!
//! Source: "PE Format" of Microsoft's documentation, for the version resource "VS_VERSIONINFO" and "VS_FIXEDFILEINFO"; the
//! DOS header is `IMAGE_DOS_HEADER` of winnt.h.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of a [`DosHeader`].
pub(super) const DOS_MAGIC: [u8; 2] = *b"MZ";
/// The bytes before a [`CoffHeader`].
pub(super) const PE_SIGNATURE: [u8; 4] = *b"PE\0\0";
/// `Magic` of an optional header for 32 bits.
pub(super) const PE32: u16 = 0x010B;
/// `Magic` of an optional header for 64 bits.
pub(super) const PE32_PLUS: u16 = 0x020B;
/// `IMAGE_SUBSYSTEM_NATIVE`: `Subsystem` of drivers and of the kernel.
pub const SUBSYSTEM_NATIVE: u16 = 1;

/// Position of the resource table among the data directories.
pub(super) const DIRECTORY_RESOURCE: usize = 2;
/// Position of the certificate table among the data directories. Its address is a file offset, unlike that of the others.
pub(super) const DIRECTORY_SECURITY: usize = 4;
/// Data directories that have a meaning; more of them are ignored.
pub(super) const DIRECTORIES_MAX: usize = 16;

/// `RT_VERSION`: the resource type of version resources.
pub(super) const RESOURCE_VERSION: u32 = 16;
/// Bit of [`ResourceEntry::offset`]: it leads to another directory, not to data.
pub(super) const RESOURCE_IS_DIRECTORY: u32 = 1 << 31;
/// First field of a [`FixedFileInfo`].
pub(super) const FIXED_FILE_INFO_SIGNATURE: u32 = 0xFEEF_04BD;

/// `WIN_CERT_TYPE_PKCS_SIGNED_DATA`: the certificate is PKCS #7 signed data.
pub(super) const CERTIFICATE_PKCS_SIGNED_DATA: u16 = 2;
/// Certificates of the table begin at multiples of this, in bytes.
pub(super) const CERTIFICATE_ALIGNMENT: usize = 8;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct DosHeader {
    pub magic: [u8; 2],
    /// `e_cblp` to `e_res2`: of no meaning to Windows.
    pub dos_fields: [U16; 29],
    /// `e_lfanew`: file offset of [`PE_SIGNATURE`], which a [`CoffHeader`] follows.
    pub pe_offset: U32,
}

const _: () = assert!(size_of::<DosHeader>() == 64);

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct CoffHeader {
    /// The CPU, as `IMAGE_FILE_MACHINE_*`.
    pub machine: U16,
    pub number_of_sections: U16,
    /// Seconds since 1970, or a hash of the content.
    pub time_date_stamp: U32,
    pub pointer_to_symbol_table: U32,
    pub number_of_symbols: U32,
    /// In bytes, with the data directories. The section table follows the optional header.
    pub size_of_optional_header: U16,
    pub characteristics: U16,
}

const _: () = assert!(size_of::<CoffHeader>() == 20);

/// The fields of the optional header that Windows reads, as far as they are alike for 32 and 64 bits.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct WindowsFields {
    pub section_alignment: U32,
    pub file_alignment: U32,
    pub major_operating_system_version: U16,
    pub minor_operating_system_version: U16,
    pub major_image_version: U16,
    pub minor_image_version: U16,
    pub major_subsystem_version: U16,
    pub minor_subsystem_version: U16,
    pub win32_version_value: U32,
    pub size_of_image: U32,
    /// Bytes of all headers and of the section table, rounded up.
    pub size_of_headers: U32,
    /// Checksum of the file; the Authenticode digest leaves it out.
    pub checksum: U32,
    /// `IMAGE_SUBSYSTEM_*`; [`SUBSYSTEM_NATIVE`] for drivers.
    pub subsystem: U16,
    pub dll_characteristics: U16,
}

const _: () = assert!(size_of::<WindowsFields>() == 40);

/// The optional header of 32-bit programs up to the data directories.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct OptionalHeader32 {
    pub magic: U16,
    pub major_linker_version: u8,
    pub minor_linker_version: u8,
    pub size_of_code: U32,
    pub size_of_initialized_data: U32,
    pub size_of_uninitialized_data: U32,
    pub address_of_entry_point: U32,
    pub base_of_code: U32,
    pub base_of_data: U32,
    pub image_base: U32,
    pub windows: WindowsFields,
    pub size_of_stack_reserve: U32,
    pub size_of_stack_commit: U32,
    pub size_of_heap_reserve: U32,
    pub size_of_heap_commit: U32,
    pub loader_flags: U32,
    /// How many [`DataDirectory`]s follow.
    pub number_of_rva_and_sizes: U32,
}

const _: () = assert!(size_of::<OptionalHeader32>() == 96);

/// The optional header of 64-bit programs up to the data directories.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct OptionalHeader64 {
    pub magic: U16,
    pub major_linker_version: u8,
    pub minor_linker_version: u8,
    pub size_of_code: U32,
    pub size_of_initialized_data: U32,
    pub size_of_uninitialized_data: U32,
    pub address_of_entry_point: U32,
    pub base_of_code: U32,
    pub image_base: U64,
    pub windows: WindowsFields,
    pub size_of_stack_reserve: U64,
    pub size_of_stack_commit: U64,
    pub size_of_heap_reserve: U64,
    pub size_of_heap_commit: U64,
    pub loader_flags: U32,
    /// How many [`DataDirectory`]s follow.
    pub number_of_rva_and_sizes: U32,
}

const _: () = assert!(size_of::<OptionalHeader64>() == 112);

/// A row of the data directory: where one of the program's tables is.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct DataDirectory {
    /// Relative virtual address; a file offset in [`DIRECTORY_SECURITY`].
    pub virtual_address: U32,
    pub size: U32,
}

const _: () = assert!(size_of::<DataDirectory>() == 8);

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct SectionHeader {
    pub name: [u8; 8],
    pub virtual_size: U32,
    pub virtual_address: U32,
    /// Bytes of the section in the file.
    pub size_of_raw_data: U32,
    /// File offset of the section.
    pub pointer_to_raw_data: U32,
    pub pointer_to_relocations: U32,
    pub pointer_to_line_numbers: U32,
    pub number_of_relocations: U16,
    pub number_of_line_numbers: U16,
    pub characteristics: U32,
}

const _: () = assert!(size_of::<SectionHeader>() == 40);

/// A resource directory table; its entries follow, first those with names, then those with numbers.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ResourceDirectory {
    pub characteristics: U32,
    pub time_date_stamp: U32,
    pub major_version: U16,
    pub minor_version: U16,
    pub number_of_name_entries: U16,
    pub number_of_id_entries: U16,
}

const _: () = assert!(size_of::<ResourceDirectory>() == 16);

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ResourceEntry {
    /// Number (type, name or language, by level), or the offset of a name.
    pub name_or_id: U32,
    /// From the start of the resource table, with [`RESOURCE_IS_DIRECTORY`].
    pub offset: U32,
}

const _: () = assert!(size_of::<ResourceEntry>() == 8);

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ResourceDataEntry {
    /// Relative virtual address of the resource.
    pub data_rva: U32,
    pub size: U32,
    pub codepage: U32,
    pub reserved: U32,
}

const _: () = assert!(size_of::<ResourceDataEntry>() == 16);

/// `VS_VERSIONINFO` and the `VS_FIXEDFILEINFO` in it.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct VersionInfo {
    pub length: U16,
    pub value_length: U16,
    pub kind: U16,
    /// `VS_VERSION_INFO` with its terminator.
    pub key: [U16; 16],
    /// Aligns `value` to four bytes.
    pub padding: U16,
    pub value: FixedFileInfo,
}

const _: () = assert!(size_of::<VersionInfo>() == 92);

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct FixedFileInfo {
    pub signature: U32,
    pub struct_version: U32,
    /// First two numbers of the file version, the first one in the high word.
    pub file_version_ms: U32,
    /// Last two numbers of the file version.
    pub file_version_ls: U32,
    pub product_version_ms: U32,
    pub product_version_ls: U32,
    pub file_flags_mask: U32,
    pub file_flags: U32,
    pub file_os: U32,
    pub file_type: U32,
    pub file_subtype: U32,
    pub file_date_ms: U32,
    pub file_date_ls: U32,
}

const _: () = assert!(size_of::<FixedFileInfo>() == 52);

/// `WIN_CERTIFICATE`: head of an entry of the certificate table; the certificate follows.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct CertificateHeader {
    /// Bytes of the entry with this header, without the padding before the next one.
    pub length: U32,
    pub revision: U16,
    pub certificate_type: U16,
}

const _: () = assert!(size_of::<CertificateHeader>() == 8);
