//! Creating files and directories.

use super::allocator::Fill;
use super::attributes::{Attributes, OwnedAttribute, allocate_record, base_record, store, system_file};
use super::btree::BtreeEditor;
use super::content::new_content;
use super::core::Core;
use super::directory::{I30, components, find_in};
use super::guard::check_parent;
use super::metadata::names_of;
use super::names::choose_names;
use super::options::CreateOptions;
use super::publish::touch_directory;
use super::security::choose_security;
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeWrite;
use crate::ntfs::format::attribute::AttributeType;
use crate::ntfs::format::file_name::{DIRECTORY, Duplicate, FileName, Times};
use crate::ntfs::format::index_node::{Collation, IndexEntry, empty_root};
use crate::ntfs::format::name::{Namespace, NtfsName};
use crate::ntfs::format::record::{FLAG_DIRECTORY, FLAG_IN_USE, Record, header};
use crate::ntfs::format::standard_information::{StandardInformation, attribute};
use crate::ntfs::format::units::{FileId, RecordNumber};

/// What a new file inherits from the one that it replaces.
#[derive(Debug, Clone)]
pub(crate) struct Inherited {
    pub names: Vec<(Namespace, NtfsName)>,
    pub security: Option<u32>,
    pub attributes: u32,
    pub created: FileTime,
}

/// Whether a directory or a file is created.
pub(crate) enum Content<'a> {
    Directory,
    File(FileContent<'a>),
}

/// What a new file holds.
pub(crate) enum FileContent<'a> {
    Bytes(&'a [u8]),
    /// Bytes that a callback fills in: so many, too many for the file's record.
    Filled(u64, Fill<'a>),
}

/// Creates a directory and its missing parents; returns the existing one if it is there.
pub(crate) fn create_dir_all<D: VolumeWrite>(
    core: &mut Core<D>,
    path: &str,
    options: &CreateOptions,
) -> Result<FileId> {
    let mut dir = system_file(&core.pager, RecordNumber::ROOT)?;
    for name in components(path) {
        dir = match find_in(&core.pager, dir, &name.into())? {
            Some(found) => found,
            None => create(core, dir, &name.into(), Content::Directory, options, None)?,
        };
    }
    if !base_record(&core.pager, dir)?.is_directory() {
        return Err(Error::refused(Layer::Ntfs, "there is a file of this name").hint("choose another name"));
    }
    Ok(dir)
}

/// Creates a file or directory.
pub(crate) fn create<D: VolumeWrite>(
    core: &mut Core<D>,
    parent: FileId,
    name: &NtfsName,
    content: Content<'_>,
    options: &CreateOptions,
    inherited: Option<Inherited>,
) -> Result<FileId> {
    check_parent(&core.pager, parent)?;
    let directory = matches!(content, Content::Directory);
    let names = match &inherited {
        Some(inherited) => inherited.names.clone(),
        None => choose_names(&core.pager, &mut core.short_name_hints, parent, name, core.short_names)?,
    };
    let security = match inherited.as_ref().and_then(|k| k.security) {
        Some(id) => id,
        None => choose_security(&core.pager, parent, options.security, directory)?,
    };
    let (number, sequence) = allocate_record(core)?;
    let file = FileId { record: number, sequence };
    let flags = FLAG_IN_USE | if directory { FLAG_DIRECTORY } else { 0 };
    let mut record = Record::blank(number, sequence, flags, core.pager.geometry.record_size as usize);
    header::LINKS.set(record.bytes_mut(), names.len() as u16);

    let mut times = Times::all(options.time.unwrap_or(core.clock));
    times.created = inherited.as_ref().map_or(times.created, |k| k.created);
    let default = if directory { 0 } else { attribute::ARCHIVE };
    let attributes =
        inherited.as_ref().map_or(options.attributes.unwrap_or(default), |k| k.attributes) & attribute::SETTABLE;
    let information = StandardInformation { times, attributes, version: 0, security: Some(security) };

    let mut attrs = Attributes::new(file);
    attrs.set_value(AttributeType::STANDARD_INFORMATION, "", &information.encode());
    let mut duplicate = Duplicate { times, allocated: 0, data_size: 0, attributes, tag: 0 };
    let names: Vec<FileName> =
        names.into_iter().map(|(namespace, name)| FileName { parent, duplicate, namespace, name }).collect();
    for name in &names {
        attrs.items.push(OwnedAttribute::resident(AttributeType::FILE_NAME, &NtfsName::default(), &name.encode()));
    }
    match content {
        Content::Directory => {
            duplicate.attributes |= DIRECTORY;
            let block_size = core.pager.geometry.index_block_size;
            let unit = core.pager.geometry.index_unit(block_size);
            let root = empty_root(AttributeType::FILE_NAME.0, Collation::FileName, block_size, unit);
            attrs.set_value(AttributeType::INDEX_ROOT, I30, &root);
        }
        Content::File(data) => {
            let stream = match data {
                FileContent::Bytes(data) => new_content(core, &attrs, record.capacity(), &NtfsName::default(), data)?,
                FileContent::Filled(length, fill) => core.clusters.new_filled_stream(&mut core.pager, length, fill)?,
            };
            duplicate.data_size = stream.len();
            duplicate.allocated = stream.allocated_for_directory(&core.pager.geometry);
            attrs.set_stream(AttributeType::DATA, &NtfsName::default(), &stream, core.pager.geometry.cluster_size);
        }
    }
    core.pager.put_record(number, record);
    set_duplicate(&mut attrs, &duplicate)?;
    store(core, attrs)?;
    for name in names {
        let key = FileName { duplicate, ..name }.encode();
        BtreeEditor::new(core, parent, I30).insert(IndexEntry::for_name(file, &key))?;
    }
    touch_directory(core, parent)?;
    Ok(file)
}

/// Writes size and attributes of a new file into its own names.
fn set_duplicate(attrs: &mut Attributes, duplicate: &Duplicate) -> Result<()> {
    let names = names_of(attrs)?;
    attrs.remove(AttributeType::FILE_NAME, &NtfsName::default());
    for name in names {
        let value = FileName { duplicate: *duplicate, ..name }.encode();
        attrs.items.push(OwnedAttribute::resident(AttributeType::FILE_NAME, &NtfsName::default(), &value));
    }
    Ok(())
}
