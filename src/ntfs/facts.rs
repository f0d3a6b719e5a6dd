//! Setting times, attributes and security of files.

use super::volume::Volume;
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeWrite;
use crate::ntfs::directory::change_standard_information;
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::file_name::Times;
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::standard_information::attribute;
use crate::ntfs::format::units::FileId;

impl<D: VolumeWrite> Volume<D> {
    /// Sets the four times.
    ///
    /// # Errors
    /// Refused for system files and for times that NTFS cannot hold; damaged.
    pub fn set_times(&mut self, file: FileId, times: &Times) -> Result<()> {
        let all = [times.created, times.modified, times.changed, times.accessed];
        if all.iter().any(|&FileTime(t)| t == 0 || t >= 1 << 63) {
            return Err(Error::refused(Layer::Ntfs, "a time is out of range").hint("use a time between 1601 and 30828"));
        }
        self.transaction(|v| v.change_facts(file, |i| i.times = *times))
    }

    /// Sets the DOS attributes that a user may set (read-only, hidden, system, archive …).
    ///
    /// # Errors
    /// Refused for system files; damaged.
    pub fn set_attributes(&mut self, file: FileId, attributes: u32) -> Result<()> {
        let now = self.options.clock;
        self.transaction(|v| {
            v.change_facts(file, |i| {
                i.attributes = i.attributes & !attribute::SETTABLE | attributes & attribute::SETTABLE;
                i.times.changed = now;
            })
        })
    }

    /// Sets the security id, which must be in `$Secure`. A descriptor of the file's own (old volumes, other drivers) goes.
    ///
    /// # Errors
    /// Refused for system files, or when the id does not exist; damaged.
    pub fn set_security(&mut self, file: FileId, id: u32) -> Result<()> {
        let now = self.options.clock;
        self.transaction(|v| {
            if !v.security_id_exists(id)? {
                return Err(Error::refused(Layer::Ntfs, format!("security id {id:#x} is not in $Secure"))
                    .hint("use the id of an existing file"));
            }
            v.check_ordinary(file)?;
            let mut attrs = v.load(file)?;
            v.drop_attribute(&mut attrs, AttributeType::SECURITY_DESCRIPTOR, &NtfsName::default())?;
            change_standard_information(&mut attrs, |i| {
                i.security = Some(id);
                i.times.changed = now;
            })?;
            v.store_and_publish(attrs)
        })
    }

    fn change_facts(
        &mut self,
        file: FileId,
        change: impl FnOnce(&mut crate::ntfs::format::standard_information::StandardInformation),
    ) -> Result<()> {
        self.check_ordinary(file)?;
        let mut attrs = self.load(file)?;
        change_standard_information(&mut attrs, change)?;
        self.store_and_publish(attrs)
    }
}
