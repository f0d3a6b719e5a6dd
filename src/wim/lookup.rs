//! The lookup table: every content of the file once, by its SHA-1.

use zerocopy::{FromZeros, IntoBytes};

use super::error::damaged;
use super::format::{RESOURCE_FREE, RESOURCE_METADATA, StoredResource, StoredStream};
use super::header::Wim;
use super::resource::ResourceReader;
use crate::error::Result;
use crate::io::VolumeRead;

/// Most entries that are read. An installation of Windows has about 100,000, its recovery environment 10,000.
const ENTRIES_MAX: u64 = 2_000_000;

/// Result of one pass through the lookup table.
#[derive(Debug, Clone, Default)]
pub struct Lookup {
    /// Which of the contents that were asked for are in the file.
    pub found: Vec<bool>,
    /// Metadata of the images, the first image first.
    metadata: Vec<StoredResource>,
}

impl Lookup {
    /// The metadata of an image, counted from 1.
    pub(super) fn metadata(&self, image: u32) -> Option<&StoredResource> {
        self.metadata.get(usize::try_from(image.checked_sub(1)?).ok()?)
    }
}

impl<R: VolumeRead> Wim<R> {
    /// Reads the lookup table, and says which contents with these SHA-1 are in the file.
    ///
    /// # Errors
    /// Damaged or unsupported, and what reading gives.
    pub fn look_up(&self, wanted: &[[u8; 20]]) -> Result<Lookup> {
        let mut table = ResourceReader::new(self, &self.header.lookup_table)?;
        let entry = size_of::<StoredStream>();
        let count = table.size() / entry as u64;
        if count > ENTRIES_MAX {
            return Err(damaged(format_args!("its lookup table has {count} entries")));
        }
        let mut lookup = Lookup { found: vec![false; wanted.len()], metadata: Vec::new() };
        let mut stream = StoredStream::new_zeroed();
        for index in 0..count {
            table.read(index * entry as u64, stream.as_mut_bytes())?;
            if stream.resource.has(RESOURCE_FREE) {
                continue;
            }
            if stream.resource.has(RESOURCE_METADATA) {
                if lookup.metadata.len() as u64 >= u64::from(self.images()) {
                    return Err(damaged("it has the metadata of more images than its header says"));
                }
                lookup.metadata.push(stream.resource);
                continue;
            }
            for (found, wanted) in lookup.found.iter_mut().zip(wanted) {
                *found |= *wanted == stream.sha1;
            }
        }
        Ok(lookup)
    }
}
