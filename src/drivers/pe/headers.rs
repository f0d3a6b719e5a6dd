//! The headers of a program, its data directories and its section table.

use std::mem::offset_of;

use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32};

use super::format::{
    CoffHeader, DIRECTORIES_MAX, DOS_MAGIC, DataDirectory, DosHeader, OptionalHeader32, OptionalHeader64, PE_SIGNATURE,
    PE32, PE32_PLUS, SectionHeader, WindowsFields,
};

/// Most sections that Windows loads.
const SECTIONS_MAX: u16 = 96;

/// Reads a structure at an offset; `None` when it is not wholly inside the data.
pub(super) fn read<T: FromBytes>(data: &[u8], offset: usize) -> Option<T> {
    T::read_from_prefix(data.get(offset..)?).ok().map(|(value, _)| value)
}

/// The CPU that a program is for (`IMAGE_FILE_HEADER.Machine`), from its first bytes; `None` if it is not a program.
///
/// The first 4 KiB are enough for every program that Windows starts.
#[must_use]
pub fn machine(head: &[u8]) -> Option<u16> {
    coff_header(head).map(|(_, coff)| coff.machine.get())
}

/// The COFF header and its offset.
fn coff_header(data: &[u8]) -> Option<(usize, CoffHeader)> {
    let dos: DosHeader = read(data, 0)?;
    let signature_offset = usize::try_from(dos.pe_offset.get()).ok()?;
    let signature: [u8; 4] = read(data, signature_offset)?;
    if dos.magic != DOS_MAGIC || signature != PE_SIGNATURE {
        return None;
    }
    let offset = signature_offset.checked_add(PE_SIGNATURE.len())?;
    Some((offset, read(data, offset)?))
}

/// What the headers say, and where the tables after them are.
pub(super) struct Headers {
    pub machine: u16,
    pub subsystem: u16,
    /// Bytes that headers and section table take in the file.
    pub size_of_headers: u32,
    /// Offset of the checksum field.
    pub checksum_offset: usize,
    directories_offset: usize,
    directory_count: usize,
    sections_offset: usize,
    pub section_count: usize,
}

impl Headers {
    /// Reads the headers; `None` if the data is not a program, or its headers are cut off.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let (coff_offset, coff) = coff_header(data)?;
        let offset = coff_offset.checked_add(size_of::<CoffHeader>())?;
        let optional = OptionalHeader::read(data, offset)?;
        let size = usize::from(coff.size_of_optional_header.get());
        let directories_max = size.checked_sub(optional.length)? / size_of::<DataDirectory>();
        let declared = usize::try_from(optional.directory_count).ok()?;
        Some(Self {
            machine: coff.machine.get(),
            subsystem: optional.subsystem,
            size_of_headers: optional.size_of_headers,
            checksum_offset: offset.checked_add(optional.checksum_offset)?,
            directories_offset: offset.checked_add(optional.length)?,
            directory_count: declared.min(DIRECTORIES_MAX).min(directories_max),
            sections_offset: offset.checked_add(size)?,
            section_count: usize::from(coff.number_of_sections.get().min(SECTIONS_MAX)),
        })
    }

    /// Offset of a row of the data directory, if the directory has that many.
    pub(super) fn directory_offset(&self, index: usize) -> Option<usize> {
        let offset = self.directories_offset.checked_add(index.checked_mul(size_of::<DataDirectory>())?)?;
        (index < self.directory_count).then_some(offset)
    }

    /// A row of the section table.
    pub(super) fn section(&self, data: &[u8], index: usize) -> Option<SectionHeader> {
        read(data, self.sections_offset.checked_add(index.checked_mul(size_of::<SectionHeader>())?)?)
    }

    /// The file offset of a relative virtual address.
    pub(super) fn file_offset(&self, data: &[u8], address: u32) -> Option<usize> {
        (0..self.section_count).find_map(|index| {
            let section = self.section(data, index)?;
            let inside = address.checked_sub(section.virtual_address.get())?;
            let offset = section.pointer_to_raw_data.get().checked_add(inside)?;
            (inside < section.size_of_raw_data.get()).then(|| usize::try_from(offset).ok())?
        })
    }
}

/// The fields that matter of either optional header.
struct OptionalHeader {
    /// Bytes up to the data directories.
    length: usize,
    size_of_headers: u32,
    checksum_offset: usize,
    subsystem: u16,
    directory_count: u32,
}

impl OptionalHeader {
    fn read(data: &[u8], offset: usize) -> Option<Self> {
        match read::<U16>(data, offset)?.get() {
            PE32 => {
                let header: OptionalHeader32 = read(data, offset)?;
                let windows_offset = offset_of!(OptionalHeader32, windows);
                Some(Self::new(size_of_val(&header), windows_offset, &header.windows, header.number_of_rva_and_sizes))
            }
            PE32_PLUS => {
                let header: OptionalHeader64 = read(data, offset)?;
                let windows_offset = offset_of!(OptionalHeader64, windows);
                Some(Self::new(size_of_val(&header), windows_offset, &header.windows, header.number_of_rva_and_sizes))
            }
            _ => None,
        }
    }

    fn new(length: usize, windows_offset: usize, windows: &WindowsFields, directory_count: U32) -> Self {
        Self {
            length,
            size_of_headers: windows.size_of_headers.get(),
            checksum_offset: windows_offset + offset_of!(WindowsFields, checksum),
            subsystem: windows.subsystem.get(),
            directory_count: directory_count.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_of_broken_programs() {
        assert_eq!(machine(b"MZ"), None);
        let mut image = vec![0; 0x100];
        image[..2].copy_from_slice(b"MZ");
        image[0x3c] = 0x80;
        image[0x80..0x84].copy_from_slice(b"PE\0\0");
        image[0x84..0x86].copy_from_slice(&0x8664u16.to_le_bytes());
        assert_eq!(machine(&image), Some(0x8664));
        image[0x3c..0x40].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(machine(&image), None);
    }
}
