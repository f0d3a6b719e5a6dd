//! Metadata of files: `$STANDARD_INFORMATION`, names, reparse tag, and the copies of them in directory entries.

use super::attributes::{Attributes, base_record, load, resident_value};
use super::pager::Pager;
use super::stream::Stream;
use crate::error::Result;
use crate::field::Field;
use crate::io::VolumeRead;
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::file_name::{DIRECTORY, Duplicate, FileName, Times, VIEW_INDEX};
use crate::ntfs::format::name::{Namespace, NtfsName};
use crate::ntfs::format::record::{FLAG_DIRECTORY, FLAG_VIEW_INDEX, Record};
use crate::ntfs::format::standard_information::StandardInformation;
use crate::ntfs::format::standard_information::layout::SIZE_3X;
use crate::ntfs::format::units::FileId;

/// Tag at the start of a reparse point.
pub(crate) const REPARSE_TAG: Field<u32> = Field::at(0);
/// Packed size at the start of `$EA_INFORMATION`.
const EA_PACKED: Field<u16> = Field::at(0);

/// Largest extended attributes of a file, in bytes; the other attributes of this kind are smaller.
const OPAQUE_MAX: u64 = 64 << 10;

/// Metadata of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes of the unnamed stream.
    pub size: u64,
    /// The four times of `$STANDARD_INFORMATION`.
    pub times: Times,
    /// DOS attributes (`FILE_ATTRIBUTE_…`), without the one for directories.
    pub attributes: u32,
    /// Id in `$Secure`; `None` when the file has a descriptor of its own (or none).
    pub security: Option<u32>,
    /// Number of names, DOS names included.
    pub links: u16,
    /// Whether it has several names that are no DOS names: hard links.
    pub is_hard_linked: bool,
    /// Tag of the reparse point.
    pub reparse_tag: Option<u32>,
    /// Names of the alternate data streams.
    pub streams: Vec<NtfsName>,
}

/// `$STANDARD_INFORMATION` of a file.
pub(crate) fn standard_information<D: VolumeRead>(pager: &Pager<D>, file: FileId) -> Result<StandardInformation> {
    let value = resident_value(pager, file, AttributeType::STANDARD_INFORMATION)?;
    StandardInformation::parse(&value.ok_or_else(|| damaged(format!("{file} has no $STANDARD_INFORMATION")))?)
}

/// Metadata of a file.
pub(crate) fn stat<D: VolumeRead>(pager: &Pager<D>, file: FileId) -> Result<Stat> {
    let record = base_record(pager, file)?;
    let attrs = load(pager, file)?;
    let information = standard_information_of(&attrs)?;
    let content = attrs.stream(AttributeType::DATA, &NtfsName::default(), pager.geometry.cluster_count)?;
    let mut streams: Vec<NtfsName> = attrs
        .items
        .iter()
        .filter(|a| a.kind == AttributeType::DATA && !a.name.is_empty())
        .map(|a| a.name.clone())
        .collect();
    streams.dedup();
    let is_long = |name: &&FileName| name.namespace != Namespace::Dos;
    let is_hard_linked = names_of(&attrs).is_ok_and(|names| names.iter().filter(is_long).count() > 1);
    Ok(Stat {
        is_dir: record.is_directory(),
        size: content.map_or(0, |s| s.len()),
        times: information.times,
        attributes: information.attributes,
        security: information.security.filter(|&id| id != 0),
        links: record.links(),
        is_hard_linked,
        reparse_tag: reparse_tag(pager, &attrs)?,
        streams,
    })
}

/// Attributes of a file whose content NTFS itself does not interpret, as they are stored; `None` for one that the file lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpaqueAttributes {
    /// `$REPARSE_POINT`: tag and data.
    pub reparse_point: Option<Vec<u8>>,
    /// `$EA`: the extended attributes, in their order.
    pub extended_attributes: Option<Vec<u8>>,
    /// `$OBJECT_ID`.
    pub object_id: Option<Vec<u8>>,
}

/// Reparse point, extended attributes and object id of a file.
pub(crate) fn opaque_attributes<D: VolumeRead>(pager: &Pager<D>, file: FileId) -> Result<OpaqueAttributes> {
    let attrs = load(pager, file)?;
    let read = |kind, what| {
        let stream = attrs.stream(kind, &NtfsName::default(), pager.geometry.cluster_count)?;
        let Some(stream) = stream else { return Ok(None) };
        stream.check(&pager.geometry)?;
        pager.read_small(&stream, OPAQUE_MAX, what).map(Some)
    };
    Ok(OpaqueAttributes {
        reparse_point: read(AttributeType::REPARSE_POINT, "reparse point")?,
        extended_attributes: read(AttributeType::EA, "extended attributes")?,
        object_id: read(AttributeType::OBJECT_ID, "object id")?,
    })
}

/// The tag of a file's reparse point.
pub(crate) fn reparse_tag<D: VolumeRead>(pager: &Pager<D>, attrs: &Attributes) -> Result<Option<u32>> {
    let point = attrs.stream(AttributeType::REPARSE_POINT, &NtfsName::default(), pager.geometry.cluster_count)?;
    let Some(point) = point else { return Ok(None) };
    point.check(&pager.geometry)?;
    let mut tag = [0; 4];
    pager.read_stream(&point, 0, &mut tag)?;
    Ok(Some(REPARSE_TAG.get(&tag)))
}

/// What the directory entries of a file should say about it.
pub(crate) fn duplicate_of<D: VolumeRead>(pager: &Pager<D>, record: &Record, attrs: &Attributes) -> Result<Duplicate> {
    let information = standard_information_of(attrs)?;
    let mut attributes = information.attributes;
    if record.flags() & FLAG_DIRECTORY != 0 {
        attributes |= DIRECTORY;
    }
    if record.flags() & FLAG_VIEW_INDEX != 0 {
        attributes |= VIEW_INDEX;
    }
    let content = match record.flags() & FLAG_DIRECTORY {
        0 => attrs.stream(AttributeType::DATA, &NtfsName::default(), pager.geometry.cluster_count)?,
        _ => None,
    };
    let content = content.unwrap_or(Stream::Resident(Vec::new()));
    let packed = attrs.value(AttributeType::EA_INFORMATION).map_or(0, |v| u32::from(EA_PACKED.get(v)));
    Ok(Duplicate {
        times: information.times,
        allocated: content.allocated_for_directory(&pager.geometry),
        data_size: content.len(),
        attributes,
        tag: reparse_tag(pager, attrs)?.unwrap_or(packed),
    })
}

/// `$STANDARD_INFORMATION` among the attributes of a file.
pub(crate) fn standard_information_of(attrs: &Attributes) -> Result<StandardInformation> {
    let value = attrs.value(AttributeType::STANDARD_INFORMATION);
    StandardInformation::parse(value.ok_or_else(|| damaged(format!("{} has no $STANDARD_INFORMATION", attrs.file)))?)
}

/// Changes `$STANDARD_INFORMATION` among the attributes of a file; everything unknown in it stays.
pub(crate) fn change_standard_information(
    attrs: &mut Attributes,
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
pub(crate) fn names_of(attrs: &Attributes) -> Result<Vec<FileName>> {
    let names = attrs.items.iter().filter(|a| a.kind == AttributeType::FILE_NAME);
    names.map(|a| FileName::parse(a.value().unwrap_or_default())).collect()
}
