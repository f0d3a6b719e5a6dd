//! All attributes of one file, copied out of its records for an edit.

use crate::error::Result;
use crate::ntfs::format::attribute::{
    Attribute, AttributeType, StreamSizes, build_non_resident, build_resident, header as attribute_header,
};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{FileId, RecordNumber, Vcn};
use crate::ntfs::stream::Stream;

/// Where an attribute is stored: record and instance.
pub(crate) type Location = (RecordNumber, u16);

/// One attribute (or one extent of it), copied out of its record.
#[derive(Debug, Clone)]
pub(crate) struct OwnedAttribute {
    pub kind: AttributeType,
    pub name: NtfsName,
    pub lowest: Vcn,
    /// The whole attribute with its header.
    pub bytes: Vec<u8>,
    /// Where it is stored (the first extent, when extents were joined). Empty for a new one.
    pub(super) locations: Vec<Location>,
    /// The other extents that were joined: their first VCN, and where they are stored.
    pub(super) split_points: Vec<(Vcn, Vec<Location>)>,
}

impl OwnedAttribute {
    /// A new resident attribute.
    pub fn resident(kind: AttributeType, name: &NtfsName, value: &[u8]) -> Self {
        let bytes = build_resident(kind, name, value);
        Self { kind, name: name.clone(), lowest: Vcn(0), bytes, locations: Vec::new(), split_points: Vec::new() }
    }

    pub(super) fn view(&self) -> Result<Attribute<'_>> {
        Attribute::parse(&self.bytes)
    }

    /// The value, if resident.
    pub fn value(&self) -> Option<&[u8]> {
        self.view().ok()?.value()
    }

    /// Whether it is (an extent of) what a file holds without a name.
    pub(super) fn is_unnamed_data(&self) -> bool {
        self.kind == AttributeType::DATA && self.name.is_empty()
    }

    pub(super) fn is_resident(&self) -> bool {
        attribute_header::NON_RESIDENT.get(&self.bytes) == 0
    }
}

/// All attributes of a file.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    pub file: FileId,
    /// Attributes, and extents of long ones, in the order in which they were found; `$ATTRIBUTE_LIST` left out.
    pub items: Vec<OwnedAttribute>,
    /// `$ATTRIBUTE_LIST`, if there is one.
    pub(super) attribute_list: Option<OwnedAttribute>,
    /// The extension records of the file, each checked to be the file's own.
    pub extensions: Vec<FileId>,
}

impl Attributes {
    /// Of a file that has none yet.
    pub fn new(file: FileId) -> Self {
        Self { file, items: Vec::new(), attribute_list: None, extensions: Vec::new() }
    }

    /// First attribute (extent) of a type and name.
    pub fn find(&self, kind: AttributeType, name: &str) -> Option<&OwnedAttribute> {
        self.items.iter().find(|a| a.kind == kind && a.name == name)
    }

    /// The resident value of an unnamed attribute.
    pub fn value(&self, kind: AttributeType) -> Option<&[u8]> {
        self.find(kind, "")?.value()
    }

    /// Whether there is an attribute list.
    pub fn has_list(&self) -> bool {
        self.attribute_list.is_some()
    }

    /// Replaces a resident value (or adds the attribute).
    pub fn set_value(&mut self, kind: AttributeType, name: &str, value: &[u8]) {
        let name = NtfsName::from(name);
        let mut new = OwnedAttribute::resident(kind, &name, value);
        match self.items.iter_mut().find(|a| a.kind == kind && a.name == name) {
            Some(old) => {
                new.locations = std::mem::take(&mut old.locations);
                new.name = old.name.clone();
                attribute_header::FLAGS.set(&mut new.bytes, attribute_header::FLAGS.get(&old.bytes));
                *old = new;
            }
            None => self.items.push(new),
        }
    }

    /// Removes all extents of an attribute.
    pub fn remove(&mut self, kind: AttributeType, name: &NtfsName) {
        self.items.retain(|a| a.kind != kind || a.name != *name);
    }

    /// The content of an attribute, its extents joined.
    pub fn stream(&self, kind: AttributeType, name: &NtfsName, clusters: u64) -> Result<Option<Stream>> {
        let mut extents: Vec<&OwnedAttribute> =
            self.items.iter().filter(|a| a.kind == kind && a.name == *name).collect();
        extents.sort_by_key(|a| a.lowest);
        join(extents.iter().map(|a| a.view()), clusters)
    }

    /// Replaces the content of an attribute (or adds it). Long run lists are split when the attributes are stored.
    pub fn set_stream(&mut self, kind: AttributeType, name: &NtfsName, stream: &Stream, cluster_size: u32) {
        let mut old: Vec<OwnedAttribute> = Vec::new();
        self.items.retain(|a| {
            let matches = a.kind == kind && a.name == *name;
            if matches {
                old.push(a.clone());
            }
            !matches
        });
        old.sort_by_key(|a| a.lowest);
        let bytes = match stream {
            Stream::Resident(value) => build_resident(kind, name, value),
            Stream::Runs { runs, sizes } => {
                build_non_resident(kind, name, runs, sizes, runs.real_clusters() * u64::from(cluster_size))
            }
        };
        let mut old = old.into_iter();
        let locations = old.next().map(|a| a.locations).unwrap_or_default();
        let split_points = old.map(|a| (a.lowest, a.locations)).collect();
        self.items.push(OwnedAttribute { kind, name: name.clone(), lowest: Vcn(0), bytes, locations, split_points });
    }
}

/// Joins the extents of one attribute, given in ascending order.
pub(super) fn join<'a>(extents: impl Iterator<Item = Result<Attribute<'a>>>, clusters: u64) -> Result<Option<Stream>> {
    let mut joined: Option<(Runlist, StreamSizes)> = None;
    let mut extents = extents.peekable();
    while let Some(extent) = extents.next() {
        let extent = extent?;
        if let Some(value) = extent.value() {
            // which of two counts depends on the reader
            if joined.is_some() || extents.peek().is_some() {
                return Err(damaged("two attributes of one type and name"));
            }
            return Ok(Some(Stream::Resident(value.to_vec())));
        }
        let runs = extent.runlist(clusters)?;
        match &mut joined {
            None if extent.lowest_vcn() != Vcn(0) => {
                return Err(damaged("the first extent of an attribute is missing"));
            }
            None => joined = Some((runs, StreamSizes::of(&extent))),
            Some((all, _)) => all.append(&runs)?,
        }
    }
    Ok(joined.map(|(runs, sizes)| Stream::Runs { runs, sizes }))
}
