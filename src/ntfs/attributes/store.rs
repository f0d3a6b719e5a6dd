//! The one way to put the attributes of a file back.

use super::mft::{allocate_record, store_mft};
use super::owned::Attributes;
use super::write::store_with;
use crate::error::Result;
use crate::io::VolumeWrite;
use crate::ntfs::core::Core;
use crate::ntfs::format::units::RecordNumber;

/// Puts all attributes of a file back into its records; see the description of the folder's module `write`.
///
/// # Errors
/// Refused when there is no space, or the file has more than its records can hold.
pub(crate) fn store<D: VolumeWrite>(core: &mut Core<D>, attributes: Attributes) -> Result<()> {
    if attributes.file.record == RecordNumber::MFT {
        return store_mft(core, attributes);
    }
    store_with(core, attributes, |core, _, _| allocate_record(core))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::attributes::{load, stream_of};
    use crate::ntfs::format::attribute::AttributeType;
    use crate::ntfs::format::name::NtfsName;
    use crate::ntfs::format::record::{FLAG_IN_USE, Record};
    use crate::ntfs::format::units::FileId;
    use crate::ntfs::testing::{RECORDS, core};

    fn new_file(core: &mut Core<crate::io::MemoryVolume>) -> Attributes {
        let (record, sequence) = allocate_record(core).unwrap();
        core.pager.put_record(record, Record::blank(record, sequence, FLAG_IN_USE, 1024));
        let mut attributes = Attributes::new(FileId { record, sequence });
        attributes.set_value(AttributeType::STANDARD_INFORMATION, "", &[0; 72]);
        attributes
    }

    #[test]
    fn attributes_that_do_not_fit_are_distributed_and_found_again() {
        let mut core = core();
        let mut attributes = new_file(&mut core);
        let file = attributes.file;
        attributes.set_value(AttributeType::DATA, "", &[1; 600]);
        for n in 0..40 {
            attributes.set_value(AttributeType::DATA, &format!("stream {n}"), &[n; 50]);
        }
        store(&mut core, attributes).unwrap();
        let loaded = load(&core.pager, file).unwrap();
        assert!(loaded.has_list() && loaded.items.len() == 42);
        for n in 0..40 {
            let name = NtfsName::from(format!("STREAM {n}").as_str());
            let stream = stream_of(&core.pager, file, AttributeType::DATA, &name).unwrap().unwrap();
            assert_eq!(core.pager.read_small(&stream, 100, "stream").unwrap(), [n; 50]);
        }
        let content = stream_of(&core.pager, file, AttributeType::DATA, &NtfsName::default()).unwrap().unwrap();
        assert_eq!(core.pager.read_small(&content, 600, "content").unwrap(), [1; 600]);
    }

    #[test]
    fn mft_grows_when_its_records_are_used_up() {
        let mut core = core();
        for expected in RecordNumber::FIRST_USER.0..RECORDS + 20 {
            let attributes = new_file(&mut core);
            assert_eq!(attributes.file.record.0, expected);
            store(&mut core, attributes).unwrap();
        }
        core.pager.flush().unwrap();
        let mft = FileId { record: RecordNumber::MFT, sequence: 1 };
        let stored = stream_of(&core.pager, mft, AttributeType::DATA, &NtfsName::default()).unwrap();
        assert_eq!(stored.as_ref(), Some(&**core.pager.mft()));
        assert_eq!(core.pager.record_count(), stored.unwrap().len() >> 10);
    }
}
