//! Directories: finding a path, listing, and keeping the copies of a file's facts in its directory entries up to date.

use super::stream::Stream;
use super::volume::{Entry, Stat, Volume};
use crate::error::{Error, Layer, Result};
use crate::field::Field;
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::attributes::Attrs;
use crate::ntfs::btree::name_key;
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::file_name::{DIRECTORY, Duplicate, FileName, VIEW_INDEX};
use crate::ntfs::format::index_node::Collation;
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::record::{FLAG_DIRECTORY, FLAG_VIEW_INDEX, Record};
use crate::ntfs::format::standard_information::StandardInformation;
use crate::ntfs::format::standard_information::layout::SIZE_3X;
use crate::ntfs::format::units::{FileId, RecordNumber};

/// The index of names.
pub(super) const I30: &str = "$I30";
/// Tag at the start of a reparse point.
pub(super) const REPARSE_TAG: Field<u32> = Field::at(0);
/// Packed size at the start of `$EA_INFORMATION`.
const EA_PACKED: Field<u16> = Field::at(0);

/// The names of a path.
pub(super) fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split(['/', '\\']).filter(|c| !c.is_empty())
}

/// Splits a path into its directory and its last name.
pub(super) fn split_path(path: &str) -> Result<(Vec<&str>, &str)> {
    let mut names: Vec<&str> = components(path).collect();
    let last = names.pop().ok_or_else(|| {
        Error::refused(Layer::Ntfs, "the root directory itself cannot be named here").hint("name a file below it")
    })?;
    Ok((names, last))
}

impl<D: VolumeRead> Volume<D> {
    /// The file at a path (`/` or `\` between names, case ignored); `None` if there is none.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn find(&self, path: &str) -> Result<Option<FileId>> {
        let root = self.system_file(RecordNumber::ROOT)?;
        self.find_names(root, components(path)).map_err(|e| e.path(path))
    }

    pub(super) fn find_names<'a>(&self, from: FileId, names: impl Iterator<Item = &'a str>) -> Result<Option<FileId>> {
        let mut file = from;
        for name in names {
            if !self.base_record(file)?.is_directory() {
                return Ok(None);
            }
            match self.find_in(file, &name.into())? {
                Some(found) => file = found,
                None => return Ok(None),
            }
        }
        Ok(Some(file))
    }

    /// The file called `name` in a directory.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn find_in(&self, dir: FileId, name: &NtfsName) -> Result<Option<FileId>> {
        Ok(self.entry_in(dir, name)?.map(|(file, _)| file))
    }

    /// The entry for `name` in a directory: the file, and the stored `$FILE_NAME`. A name that agrees in case is
    /// preferred to one that does not.
    pub(super) fn entry_in(&self, dir: FileId, name: &NtfsName) -> Result<Option<(FileId, FileName)>> {
        if name.is_empty() || name.units().len() > crate::ntfs::format::name::NAME_UNITS_MAX {
            return Ok(None);
        }
        let index = self.index(dir, I30)?;
        if index.collation != Collation::FileName {
            return Err(damaged("a directory is not sorted by name"));
        }
        let key = name_key(name);
        let take = |e: &crate::ntfs::format::index_node::EntryView<'_>| (e.file(), FileName::parse(e.key()));
        let mut found = self.look_up(&index, &key, false, take)?;
        if let Some((_, Ok(first))) = &found
            && first.name != *name
            && let Some(better) = self.look_up(&index, &key, true, take)?
        {
            found = Some(better);
        }
        found.map(|(file, name)| name.map(|n| (file, n))).transpose()
    }

    /// All names in a directory, in its order.
    ///
    /// # Errors
    /// Damaged, no directory, or the device cannot be read.
    pub fn entries(&self, dir: FileId) -> Result<Vec<Entry>> {
        let index = self.index(dir, I30)?;
        let mut entries = Vec::new();
        self.walk(&index, &mut |entry| {
            let name = FileName::parse(entry.key())?;
            // the root lists itself
            if entry.file().record != dir.record {
                entries.push(Entry {
                    name: name.name,
                    file: entry.file(),
                    is_dir: name.duplicate.attributes & DIRECTORY != 0,
                    size: name.duplicate.data_size,
                    attributes: name.duplicate.attributes & !(DIRECTORY | VIEW_INDEX),
                    namespace: name.namespace,
                });
            }
            Ok(())
        })?;
        Ok(entries)
    }

    /// `$STANDARD_INFORMATION` of a file.
    pub(super) fn standard_information(&self, file: FileId) -> Result<StandardInformation> {
        let value = self.resident_value(file, AttributeType::STANDARD_INFORMATION)?;
        StandardInformation::parse(&value.ok_or_else(|| damaged(format!("{file} has no $STANDARD_INFORMATION")))?)
    }

    /// Facts about a file.
    ///
    /// # Errors
    /// Damaged, no such file, or the device cannot be read.
    pub fn stat(&self, file: FileId) -> Result<Stat> {
        let record = self.base_record(file)?;
        let attrs = self.load(file)?;
        let information = standard_information_of(&attrs)?;
        let content = attrs.stream(AttributeType::DATA, &NtfsName::default(), self.geometry.cluster_count)?;
        let mut streams: Vec<NtfsName> = attrs
            .list
            .iter()
            .filter(|a| a.kind == AttributeType::DATA && !a.name.is_empty())
            .map(|a| a.name.clone())
            .collect();
        streams.dedup();
        let is_long = |name: &&FileName| name.namespace != crate::ntfs::format::name::Namespace::Dos;
        let is_hard_linked = names_of(&attrs).is_ok_and(|names| names.iter().filter(is_long).count() > 1);
        Ok(Stat {
            is_dir: record.is_directory(),
            size: content.map_or(0, |s| s.len()),
            times: information.times,
            attributes: information.attributes,
            security: information.security.filter(|&id| id != 0),
            links: record.links(),
            is_hard_linked,
            reparse_tag: self.reparse_tag(&attrs)?,
            streams,
        })
    }

    /// The tag of a file's reparse point.
    pub(super) fn reparse_tag(&self, attrs: &Attrs) -> Result<Option<u32>> {
        let point = attrs.stream(AttributeType::REPARSE_POINT, &NtfsName::default(), self.geometry.cluster_count)?;
        let Some(point) = point else { return Ok(None) };
        point.check(&self.geometry)?;
        let mut tag = [0; 4];
        self.read_stream(&point, 0, &mut tag)?;
        Ok(Some(REPARSE_TAG.get(&tag)))
    }

    /// What the directory entries of a file should say about it.
    pub(super) fn duplicate_of(&self, record: &Record, attrs: &Attrs) -> Result<Duplicate> {
        let information = standard_information_of(attrs)?;
        let mut attributes = information.attributes;
        if record.flags() & FLAG_DIRECTORY != 0 {
            attributes |= DIRECTORY;
        }
        if record.flags() & FLAG_VIEW_INDEX != 0 {
            attributes |= VIEW_INDEX;
        }
        let content = match record.flags() & FLAG_DIRECTORY {
            0 => attrs.stream(AttributeType::DATA, &NtfsName::default(), self.geometry.cluster_count)?,
            _ => None,
        };
        let content = content.unwrap_or(Stream::Resident(Vec::new()));
        let packed = attrs.value(AttributeType::EA_INFORMATION).map_or(0, |v| u32::from(EA_PACKED.get(v)));
        Ok(Duplicate {
            times: information.times,
            allocated: content.allocated_for_directory(&self.geometry),
            data_size: content.len(),
            attributes,
            tag: self.reparse_tag(attrs)?.unwrap_or(packed),
        })
    }
}

/// `$STANDARD_INFORMATION` among attributes that were taken out.
pub(super) fn standard_information_of(attrs: &Attrs) -> Result<StandardInformation> {
    let value = attrs.value(AttributeType::STANDARD_INFORMATION);
    StandardInformation::parse(value.ok_or_else(|| damaged(format!("{} has no $STANDARD_INFORMATION", attrs.file)))?)
}

/// Changes `$STANDARD_INFORMATION` among attributes that were taken out; everything unknown in it stays.
pub(super) fn change_standard_information(
    attrs: &mut Attrs,
    change: impl FnOnce(&mut StandardInformation),
) -> Result<()> {
    let mut information = standard_information_of(attrs)?;
    change(&mut information);
    let mut value = attrs.value(AttributeType::STANDARD_INFORMATION).unwrap_or_default().to_vec();
    if information.security.is_some() && value.len() < SIZE_3X {
        value.resize(SIZE_3X, 0);
    }
    information.store(&mut value);
    attrs.set_value(AttributeType::STANDARD_INFORMATION, "", &value);
    Ok(())
}

/// The names of a file.
pub(super) fn names_of(attrs: &Attrs) -> Result<Vec<FileName>> {
    let names = attrs.list.iter().filter(|a| a.kind == AttributeType::FILE_NAME);
    names.map(|a| FileName::parse(a.value().unwrap_or_default())).collect()
}

impl<D: VolumeWrite> Volume<D> {
    /// Puts a file's attributes back and brings all its directory entries up to date.
    pub(super) fn store_and_publish(&mut self, attrs: Attrs) -> Result<()> {
        let file = attrs.file;
        let names = names_of(&attrs)?;
        let duplicate = self.store_with_duplicate(attrs)?;
        self.publish(file, &duplicate, &names)
    }

    /// Puts a file's attributes back; what its directory entries should say then, for data may have left the record.
    pub(super) fn store_with_duplicate(&mut self, attrs: Attrs) -> Result<Duplicate> {
        let file = attrs.file;
        let record = self.base_record(file)?;
        let before = self.duplicate_of(&record, &attrs)?;
        let is_resident = matches!(
            attrs.stream(AttributeType::DATA, &NtfsName::default(), self.geometry.cluster_count)?,
            Some(Stream::Resident(_))
        );
        self.store(attrs)?;
        if !is_resident {
            return Ok(before);
        }
        let data = self.stream(file, AttributeType::DATA, &NtfsName::default())?;
        let allocated = data.map_or(before.allocated, |data| data.allocated_for_directory(&self.geometry));
        Ok(Duplicate { allocated, ..before })
    }

    /// Writes a file's facts into its directory entries.
    pub(super) fn publish(&mut self, file: FileId, duplicate: &Duplicate, names: &[FileName]) -> Result<()> {
        if file.record < RecordNumber::FIRST_USER {
            // the entries of system files keep what the formatter wrote
            return Ok(());
        }
        for name in names {
            let index = self.index(name.parent, I30)?;
            if !self.patch_key(&index, &name_key(&name.name), |key| duplicate.store(key))? {
                return Err(damaged(format!("{file} is missing in its directory")).path(name.name.to_string()));
            }
        }
        Ok(())
    }

    /// Notes that the entries of a directory changed.
    pub(super) fn touch_directory(&mut self, dir: FileId) -> Result<()> {
        let now = self.options.clock;
        let times = self.standard_information(dir)?.times;
        if times.modified == now && times.changed == now {
            return Ok(());
        }
        let mut attrs = self.load(dir)?;
        change_standard_information(&mut attrs, |i| {
            i.times.modified = now;
            i.times.changed = now;
        })?;
        self.store_and_publish(attrs)
    }
}
