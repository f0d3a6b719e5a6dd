//! Creating files and directories.

use std::collections::HashMap;
use std::ops::Range;

use super::stream::Stream;
use super::volume::{New, Security, Volume};
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};
use crate::field::Field;
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::attributes::{Attr, Attrs};
use crate::ntfs::directory::{I30, components, names_of};
use crate::ntfs::format::attribute::{AttributeType, resident};
use crate::ntfs::format::file_name::{DIRECTORY, Duplicate, FileName, Times};
use crate::ntfs::format::index_node::{Collation, Entry as IndexEntry, empty_root};
use crate::ntfs::format::name::{Namespace, NtfsName, ShortForms, is_short, problem_with};
use crate::ntfs::format::record::{FLAG_DIRECTORY, FLAG_IN_EXTEND, FLAG_IN_USE, Record, header};
use crate::ntfs::format::standard_information::{StandardInformation, attribute};
use crate::ntfs::format::units::{FileId, RecordNumber};

/// Children of a directory that are asked for a security id.
const CHILDREN_ASKED: usize = 256;

/// What a new file inherits from the one in whose place it comes.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub names: Vec<(Namespace, NtfsName)>,
    pub security: Option<u32>,
    pub attributes: u32,
    pub created: FileTime,
}

/// Crowds that are remembered.
const CROWDS_KEPT: usize = 4096;

/// Directories with many names that begin alike, and the first of their short names: the forms up to this number are
/// taken and not tried again for each of them.
pub(super) type Crowds = HashMap<(FileId, NtfsName), usize>;

/// What is created.
pub(super) enum Content<'a> {
    Directory,
    File(FileContent<'a>),
}

/// What a new file holds.
pub(super) enum FileContent<'a> {
    Bytes(&'a [u8]),
    /// So many bytes, too many for the file's record.
    Filled(u64, Fill<'a>),
}

/// Fills a part of a file, which begins at an offset in bytes.
pub(super) type Fill<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> Result<()>;

fn refused_name(name: &NtfsName, why: &str) -> Error {
    Error::refused(Layer::Ntfs, format!("the name cannot be used: {why}"))
        .path(name.to_string())
        .hint("choose another name")
}

impl<D: VolumeRead> Volume<D> {
    /// Checks that files may be added to or removed from a directory.
    pub(super) fn check_parent(&self, parent: FileId) -> Result<()> {
        let record = self.base_record(parent)?;
        if !record.is_directory() {
            return Err(Error::refused(Layer::Ntfs, format!("{parent} is not a directory")).hint("name a directory"));
        }
        let own = parent.record < RecordNumber::FIRST_USER && parent.record != RecordNumber::ROOT;
        if own || record.flags() & FLAG_IN_EXTEND != 0 {
            return Err(system_file(parent));
        }
        Ok(())
    }

    /// Checks that a file is an ordinary one.
    pub(super) fn check_ordinary(&self, file: FileId) -> Result<()> {
        let record = self.base_record(file)?;
        if file.record < RecordNumber::FIRST_USER || record.flags() & FLAG_IN_EXTEND != 0 {
            return Err(system_file(file));
        }
        Ok(())
    }

    /// The names under which `name` is entered into a directory; none of them may exist there.
    pub(super) fn choose_names(
        &self,
        parent: FileId,
        name: &NtfsName,
        with_short: bool,
    ) -> Result<Vec<(Namespace, NtfsName)>> {
        if let Some(problem) = problem_with(name) {
            return Err(refused_name(name, problem));
        }
        if self.entry_in(parent, name)?.is_some() {
            return Err(refused_name(name, "it exists"));
        }
        if self.standard_information(parent)?.attributes & attribute::REPARSE != 0 {
            // Windows goes to the directory that it points to and never sees what is in this one
            return Err(refused_name(name, "its directory is a junction or a link to another one"));
        }
        if !with_short {
            return Ok(vec![(Namespace::Posix, name.clone())]);
        }
        if is_short(name) {
            return Ok(vec![(Namespace::Win32AndDos, name.clone())]);
        }
        let forms = ShortForms::of(name);
        let crowd = (parent, forms.get(0));
        let known = self.crowds.borrow().get(&crowd).copied().unwrap_or(0);
        let mut taken = known;
        let mut free = None;
        for range in [ShortForms::NUMBERED, ShortForms::HASHED, ShortForms::SPREAD] {
            if free.is_some() || taken >= range.end {
                continue;
            }
            let (number, short) = self.first_free_form(parent, &forms, &range)?;
            free = short;
            if number >= ShortForms::HASHED_CROWDED {
                taken = ShortForms::HASHED.end;
            } else if free.is_none() {
                taken = range.end;
            }
        }
        if taken != known {
            let mut crowds = self.crowds.borrow_mut();
            if crowds.len() >= CROWDS_KEPT {
                crowds.clear();
            }
            crowds.insert(crowd, taken);
        }
        Ok(match free {
            Some(short) => vec![(Namespace::Win32, name.clone()), (Namespace::Dos, short)],
            // a long name alone is legal everywhere
            None => vec![(Namespace::Posix, name.clone())],
        })
    }

    /// A short name of these forms that is free, and its number: the first one, if those before it are taken.
    fn first_free_form(
        &self,
        parent: FileId,
        forms: &ShortForms,
        range: &Range<usize>,
    ) -> Result<(usize, Option<NtfsName>)> {
        let free = |number: usize| -> Result<Option<NtfsName>> {
            let short = forms.get(number);
            Ok(self.entry_in(parent, &short)?.is_none().then_some(short))
        };
        if *range != ShortForms::HASHED {
            for number in range.clone() {
                if let Some(short) = free(number)? {
                    return Ok((number, Some(short)));
                }
            }
            return Ok((range.start, None));
        }
        // they are given out in order: halve
        let (mut low, mut high) = (range.start, range.end - 1);
        if let Some(short) = free(low)? {
            return Ok((low, Some(short)));
        }
        let mut last = free(high)?;
        while last.is_some() && high - low > 1 {
            let middle = low + (high - low) / 2;
            match free(middle)? {
                Some(short) => (high, last) = (middle, Some(short)),
                None => low = middle,
            }
        }
        Ok((high, last))
    }

    /// The security id for a new file.
    fn choose_security(&self, parent: FileId, wanted: Security, directory: bool) -> Result<u32> {
        let id = |file: FileId| -> Result<Option<u32>> {
            Ok(self.standard_information(file)?.security.filter(|&id| id != 0))
        };
        let found = match wanted {
            Security::Id(wanted) => {
                if !self.security_id_exists(wanted)? {
                    return Err(Error::refused(Layer::Ntfs, format!("security id {wanted:#x} is not in $Secure"))
                        .hint("use the id of an existing file"));
                }
                Some(wanted)
            }
            Security::Like(file) => id(file)?,
            Security::LikeParent => None,
        };
        if let Some(found) = found.or(id(parent)?) {
            return Ok(found);
        }
        let children = self.some_children(parent)?;
        let (same, other): (Vec<_>, Vec<_>) = children.into_iter().partition(|c| c.1 == directory);
        for (child, _) in same.into_iter().chain(other) {
            if let Some(found) = id(child)? {
                return Ok(found);
            }
        }
        self.any_security_id()
    }

    /// The first ordinary files in a directory, and whether they are directories.
    fn some_children(&self, parent: FileId) -> Result<Vec<(FileId, bool)>> {
        let index = self.index(parent, I30)?;
        let mut children = Vec::new();
        let walked = self.walk(&index, &mut |entry| {
            let name = FileName::parse(entry.key())?;
            if entry.file().record >= RecordNumber::FIRST_USER {
                children.push((entry.file(), name.duplicate.attributes & DIRECTORY != 0));
            }
            // an error is the way to end a walk early
            if children.len() < CHILDREN_ASKED { Ok(()) } else { Err(Error::bug(Layer::Ntfs, "enough")) }
        });
        if children.len() < CHILDREN_ASKED {
            walked?;
        }
        Ok(children)
    }

    /// Whether `$Secure` has a descriptor with this id.
    pub(super) fn security_id_exists(&self, id: u32) -> Result<bool> {
        let index = self.index(self.system_file(RecordNumber::SECURE)?, "$SII")?;
        Ok(self.look_up(&index, &id.to_le_bytes(), true, |_| ())?.is_some())
    }

    /// The last id in `$Secure`: on volumes without any file to learn from, what its formatter meant for users.
    fn any_security_id(&self) -> Result<u32> {
        let index = self.index(self.system_file(RecordNumber::SECURE)?, "$SII")?;
        let mut last = None;
        self.walk(&index, &mut |entry| {
            last = Some(Field::<u32>::at(0).get(entry.key()));
            Ok(())
        })?;
        last.filter(|&id| id != 0).ok_or_else(|| {
            Error::refused(Layer::Ntfs, "the volume has no security descriptor that a new file could share")
                .hint("create any file in the guest first")
        })
    }
}

fn system_file(file: FileId) -> Error {
    Error::refused(Layer::Ntfs, format!("{file} belongs to the file system itself")).hint("name an ordinary file")
}

impl<D: VolumeWrite> Volume<D> {
    /// Creates a directory.
    ///
    /// # Errors
    /// Refused when the name exists or is not allowed, or there is no space; then nothing has changed.
    pub fn create_dir(&mut self, parent: FileId, name: &str, how: &New) -> Result<FileId> {
        self.transaction(|v| v.create(parent, &name.into(), Content::Directory, how, None)).map_err(|e| e.path(name))
    }

    /// Creates a directory and its missing parents; returns the existing one if it is there.
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir).
    pub fn create_dir_all(&mut self, path: &str, how: &New) -> Result<FileId> {
        self.transaction(|v| {
            let mut dir = v.system_file(RecordNumber::ROOT)?;
            for name in components(path) {
                dir = match v.find_in(dir, &name.into())? {
                    Some(found) => found,
                    None => v.create(dir, &name.into(), Content::Directory, how, None)?,
                };
            }
            if !v.base_record(dir)?.is_directory() {
                return Err(Error::refused(Layer::Ntfs, "there is a file of this name").hint("choose another name"));
            }
            Ok(dir)
        })
        .map_err(|e| e.path(path))
    }

    /// Creates a file with this content.
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir).
    pub fn create_file(&mut self, parent: FileId, name: &str, data: &[u8], how: &New) -> Result<FileId> {
        self.create_file_named(parent, &name.into(), data, how).map_err(|e| e.path(name))
    }

    /// [`create_file`](Self::create_file) with a name that need not be valid Unicode.
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir).
    pub fn create_file_named(&mut self, parent: FileId, name: &NtfsName, data: &[u8], how: &New) -> Result<FileId> {
        self.transaction(|v| v.create(parent, name, Content::File(FileContent::Bytes(data)), how, None))
    }

    /// Creates a file or directory.
    pub(super) fn create(
        &mut self,
        parent: FileId,
        name: &NtfsName,
        content: Content<'_>,
        how: &New,
        kept: Option<Kept>,
    ) -> Result<FileId> {
        self.check_parent(parent)?;
        let directory = matches!(content, Content::Directory);
        let names = match &kept {
            Some(kept) => kept.names.clone(),
            None => self.choose_names(parent, name, self.short_names)?,
        };
        let security = match kept.as_ref().and_then(|k| k.security) {
            Some(id) => id,
            None => self.choose_security(parent, how.security, directory)?,
        };
        let (number, sequence) = self.take_record()?;
        let file = FileId { record: number, sequence };
        let flags = FLAG_IN_USE | if directory { FLAG_DIRECTORY } else { 0 };
        let mut record = Record::blank(number, sequence, flags, self.geometry.record_size as usize);
        header::LINKS.set(record.bytes_mut(), names.len() as u16);

        let mut times = Times::all(how.time.unwrap_or(self.options.clock));
        times.created = kept.as_ref().map_or(times.created, |k| k.created);
        let default = if directory { 0 } else { attribute::ARCHIVE };
        let attributes =
            kept.as_ref().map_or(how.attributes.unwrap_or(default), |k| k.attributes) & attribute::SETTABLE;
        let information = StandardInformation { times, attributes, version: 0, security: Some(security) };

        let mut attrs = Attrs::new(file);
        attrs.set_value(AttributeType::STANDARD_INFORMATION, "", &information.encode());
        let mut duplicate = Duplicate { times, allocated: 0, data_size: 0, attributes, tag: 0 };
        let names: Vec<FileName> =
            names.into_iter().map(|(namespace, name)| FileName { parent, duplicate, namespace, name }).collect();
        for name in &names {
            attrs.list.push(Attr::resident(AttributeType::FILE_NAME, &NtfsName::default(), &name.encode()));
        }
        match content {
            Content::Directory => {
                duplicate.attributes |= DIRECTORY;
                let block_size = self.geometry.index_block_size;
                let unit = self.geometry.index_unit(block_size);
                let root = empty_root(AttributeType::FILE_NAME.0, Collation::FileName, block_size, unit);
                attrs.set_value(AttributeType::INDEX_ROOT, I30, &root);
            }
            Content::File(data) => {
                let stream = match data {
                    FileContent::Bytes(data) => {
                        self.content_for(&attrs, record.capacity(), &NtfsName::default(), data)?
                    }
                    FileContent::Filled(length, fill) => self.new_filled_stream(length, fill)?,
                };
                duplicate.data_size = stream.len();
                duplicate.allocated = stream.allocated_for_directory(&self.geometry);
                attrs.set_stream(AttributeType::DATA, &NtfsName::default(), &stream, self.geometry.cluster_size);
            }
        }
        self.put_record(number, record);
        set_duplicate(&mut attrs, &duplicate)?;
        self.store(attrs)?;
        for name in names {
            let key = FileName { duplicate, ..name }.encode();
            self.insert_entry(parent, I30, IndexEntry::for_name(file, &key))?;
        }
        self.touch_directory(parent)?;
        Ok(file)
    }

    /// Content for a file with these other attributes: in the record if it fits, else in clusters.
    pub(super) fn content_for(
        &mut self,
        attrs: &Attrs,
        capacity: usize,
        name: &NtfsName,
        data: &[u8],
    ) -> Result<Stream> {
        let others: usize =
            attrs.list.iter().filter(|a| a.kind != AttributeType::DATA || a.name != *name).map(|a| a.bytes.len()).sum();
        let needed = crate::field::align8(resident::HEADER_SIZE + 2 * name.units().len())
            .saturating_add(data.len().next_multiple_of(8));
        let fits = if attrs.has_list() { data.len() <= 64 } else { others.saturating_add(needed) <= capacity };
        if data.is_empty() || fits {
            return Ok(Stream::Resident(data.to_vec()));
        }
        self.new_plain_stream(data, None)
    }
}

/// Writes the facts of a new file into its own names.
fn set_duplicate(attrs: &mut Attrs, duplicate: &Duplicate) -> Result<()> {
    let names = names_of(attrs)?;
    attrs.remove(AttributeType::FILE_NAME, &NtfsName::default());
    for name in names {
        let value = FileName { duplicate: *duplicate, ..name }.encode();
        attrs.list.push(Attr::resident(AttributeType::FILE_NAME, &NtfsName::default(), &value));
    }
    Ok(())
}
