//! A small driver file, for tests.

use zerocopy::{FromZeros, IntoBytes};

use super::format::{
    CERTIFICATE_PKCS_SIGNED_DATA, CertificateHeader, CoffHeader, DIRECTORIES_MAX, DIRECTORY_RESOURCE,
    DIRECTORY_SECURITY, DOS_MAGIC, DataDirectory, DosHeader, FIXED_FILE_INFO_SIGNATURE, OptionalHeader32,
    OptionalHeader64, PE_SIGNATURE, PE32, PE32_PLUS, RESOURCE_IS_DIRECTORY, RESOURCE_VERSION, ResourceDataEntry,
    ResourceDirectory, ResourceEntry, SUBSYSTEM_NATIVE, SectionHeader, VersionInfo,
};
use crate::drivers::Arch;

const PE_OFFSET: u32 = 0x80;
/// File offset and size of the one section, after the headers.
const SECTION_OFFSET: u32 = 0x400;
const SECTION_SIZE: u32 = 0x200;
const SECTION_ADDRESS: u32 = 0x1000;

/// A driver with one section and, if asked for, some bytes in place of a signature.
pub(crate) fn sample(arch: Arch, signature: &[u8]) -> Vec<u8> {
    let section: Vec<u8> = (0..SECTION_SIZE).map(|i| i as u8).collect();
    build(arch, &section, false, signature)
}

/// An unsigned driver with a version resource.
pub(crate) fn sample_of_version(arch: Arch, version: [u16; 4]) -> Vec<u8> {
    build(arch, &version_resource(version), true, b"")
}

fn build(arch: Arch, section: &[u8], has_resources: bool, signature: &[u8]) -> Vec<u8> {
    let mut dos = DosHeader::new_zeroed();
    dos.magic = DOS_MAGIC;
    dos.pe_offset = PE_OFFSET.into();
    let mut directories = [DataDirectory::new_zeroed(); DIRECTORIES_MAX];
    if has_resources {
        directories[DIRECTORY_RESOURCE].virtual_address = SECTION_ADDRESS.into();
        directories[DIRECTORY_RESOURCE].size = SECTION_SIZE.into();
    }
    let certificate_size = u32::try_from(size_of::<CertificateHeader>() + signature.len()).unwrap();
    if !signature.is_empty() {
        directories[DIRECTORY_SECURITY].virtual_address = (SECTION_OFFSET + SECTION_SIZE).into();
        directories[DIRECTORY_SECURITY].size = certificate_size.into();
    }
    let optional = [optional_header(arch), directories.as_bytes().to_vec()].concat();
    let mut coff = CoffHeader::new_zeroed();
    coff.machine = arch.pe_machine().into();
    coff.number_of_sections = 1.into();
    coff.size_of_optional_header = u16::try_from(optional.len()).unwrap().into();
    let mut header = SectionHeader::new_zeroed();
    header.virtual_address = SECTION_ADDRESS.into();
    header.size_of_raw_data = SECTION_SIZE.into();
    header.pointer_to_raw_data = SECTION_OFFSET.into();

    let mut out = dos.as_bytes().to_vec();
    out.resize(PE_OFFSET as usize, 0);
    for part in [&PE_SIGNATURE, coff.as_bytes(), &optional, header.as_bytes()] {
        out.extend(part);
    }
    out.resize(SECTION_OFFSET as usize, 0);
    out.extend(section);
    out.resize((SECTION_OFFSET + SECTION_SIZE) as usize, 0);
    if !signature.is_empty() {
        let mut certificate = CertificateHeader::new_zeroed();
        certificate.length = certificate_size.into();
        certificate.revision = 0x0200.into();
        certificate.certificate_type = CERTIFICATE_PKCS_SIGNED_DATA.into();
        out.extend(certificate.as_bytes());
        out.extend(signature);
    }
    out
}

fn optional_header(arch: Arch) -> Vec<u8> {
    if arch == Arch::X86 {
        let mut header = OptionalHeader32::new_zeroed();
        header.magic = PE32.into();
        header.windows.size_of_headers = SECTION_OFFSET.into();
        header.windows.subsystem = SUBSYSTEM_NATIVE.into();
        header.number_of_rva_and_sizes = (DIRECTORIES_MAX as u32).into();
        header.as_bytes().to_vec()
    } else {
        let mut header = OptionalHeader64::new_zeroed();
        header.magic = PE32_PLUS.into();
        header.windows.size_of_headers = SECTION_OFFSET.into();
        header.windows.subsystem = SUBSYSTEM_NATIVE.into();
        header.number_of_rva_and_sizes = (DIRECTORIES_MAX as u32).into();
        header.as_bytes().to_vec()
    }
}

/// A resource table with a version resource: one directory each for type, name and language.
fn version_resource(version: [u16; 4]) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, is_directory) in [(RESOURCE_VERSION, true), (1, true), (0x0409, false)] {
        let mut directory = ResourceDirectory::new_zeroed();
        directory.number_of_id_entries = 1.into();
        out.extend(directory.as_bytes());
        let mut entry = ResourceEntry::new_zeroed();
        let next = u32::try_from(out.len() + size_of::<ResourceEntry>()).unwrap();
        entry.name_or_id = id.into();
        entry.offset = if is_directory { next | RESOURCE_IS_DIRECTORY } else { next }.into();
        out.extend(entry.as_bytes());
    }
    let mut data = ResourceDataEntry::new_zeroed();
    let offset = u32::try_from(out.len() + size_of::<ResourceDataEntry>()).unwrap();
    data.data_rva = (SECTION_ADDRESS + offset).into();
    data.size = u32::try_from(size_of::<VersionInfo>()).unwrap().into();
    out.extend(data.as_bytes());
    let mut info = VersionInfo::new_zeroed();
    info.value.signature = FIXED_FILE_INFO_SIGNATURE.into();
    let [a, b, c, d] = version.map(u32::from);
    info.value.file_version_ms = (a << 16 | b).into();
    info.value.file_version_ls = (c << 16 | d).into();
    out.extend(info.as_bytes());
    out
}
