//! The file version in the version resource.

use super::format::{
    DIRECTORY_RESOURCE, DataDirectory, FIXED_FILE_INFO_SIGNATURE, RESOURCE_IS_DIRECTORY, RESOURCE_VERSION,
    ResourceDataEntry, ResourceDirectory, ResourceEntry, VersionInfo,
};
use super::headers::{Headers, read};

/// Most entries of a resource directory that are searched.
const ENTRIES_MAX: usize = 4096;

/// Levels of the resource tree: type, name, language.
const LEVELS: usize = 3;

/// The file version of a program (`VS_FIXEDFILEINFO.dwFileVersion`), if it has a version resource.
#[must_use]
pub fn file_version(data: &[u8]) -> Option<[u16; 4]> {
    Headers::read(data).and_then(|headers| read_file_version(data, &headers))
}

/// The version of the first version resource: its first name in its first language.
pub(super) fn read_file_version(data: &[u8], headers: &Headers) -> Option<[u16; 4]> {
    let directory: DataDirectory = read(data, headers.directory_offset(DIRECTORY_RESOURCE)?)?;
    let table = headers.file_offset(data, directory.virtual_address.get())?;
    let mut offset = table;
    for level in 0..LEVELS {
        let wanted = (level == 0).then_some(RESOURCE_VERSION);
        let target = find_entry(data, offset, wanted)?.offset.get();
        let is_directory = target & RESOURCE_IS_DIRECTORY != 0;
        if is_directory != (level + 1 < LEVELS) {
            return None;
        }
        offset = table.checked_add(usize::try_from(target & !RESOURCE_IS_DIRECTORY).ok()?)?;
    }
    let entry: ResourceDataEntry = read(data, offset)?;
    let info: VersionInfo = read(data, headers.file_offset(data, entry.data_rva.get())?)?;
    if info.value.signature.get() != FIXED_FILE_INFO_SIGNATURE {
        return None;
    }
    let (high, low) = (info.value.file_version_ms.get(), info.value.file_version_ls.get());
    let word = |n: u32| (n & 0xFFFF) as u16;
    Some([word(high >> 16), word(high), word(low >> 16), word(low)])
}

/// The entry of a resource directory with a number; without one the first entry.
fn find_entry(data: &[u8], offset: usize, id: Option<u32>) -> Option<ResourceEntry> {
    let directory: ResourceDirectory = read(data, offset)?;
    let named = usize::from(directory.number_of_name_entries.get());
    let count = named.checked_add(usize::from(directory.number_of_id_entries.get()))?.min(ENTRIES_MAX);
    let mut at = offset.checked_add(size_of::<ResourceDirectory>())?;
    for _ in 0..count {
        let entry: ResourceEntry = read(data, at)?;
        if id.is_none_or(|id| entry.name_or_id.get() == id) {
            return Some(entry);
        }
        at = at.checked_add(size_of::<ResourceEntry>())?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::Arch;
    use crate::drivers::pe::PeFacts;
    use crate::drivers::pe::sample::{sample, sample_of_version};

    #[test]
    fn the_version_resource_is_found() {
        for arch in Arch::ALL {
            let data = sample_of_version(arch, [100, 101, 104, 28500]);
            assert_eq!(file_version(&data), Some([100, 101, 104, 28500]));
            assert_eq!(PeFacts::parse(&data).unwrap().file_version, file_version(&data));
            assert_eq!(file_version(&sample(arch, b"")), None);
            for length in 0..0x4B4 {
                assert_eq!(file_version(&data[..length]), None, "{length}");
            }
        }
        assert_eq!(file_version(b"MZ"), None);
    }
}
