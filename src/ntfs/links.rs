//! Names of files: removing, renaming, linking and replacing; and what must go when the last name goes.

use super::create::{Content, FileContent, Kept};
use super::volume::{New, Volume};
use crate::error::{Error, Layer, Result};
use crate::field::Field;
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::attributes::{Attr, Attrs};
use crate::ntfs::btree::name_key;
use crate::ntfs::directory::{I30, change_standard_information, components, names_of, split_path};
use crate::ntfs::format::attribute::{Attribute, AttributeType};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::file_name::FileName;
use crate::ntfs::format::index_node::Entry as IndexEntry;
use crate::ntfs::format::name::{Namespace, NtfsName};
use crate::ntfs::format::record::header;
use crate::ntfs::format::units::{FileId, RecordNumber};

/// The smallest file, in bytes, that is written in parts: no file record is as large.
const LARGE: u64 = 1 << 16;

/// Most names that Windows allows for one file.
const LINKS_MAX: usize = 1024;
/// Deeper directories cannot be reached by a path (32767 units).
const DEPTH_MAX: usize = 20_000;

fn not_found(path: &str) -> Error {
    Error::refused(Layer::Ntfs, "there is no such file").path(path).hint("check the path")
}

impl<D: VolumeRead> Volume<D> {
    /// The directory of a path, and its last name.
    fn parent_of<'a>(&self, path: &'a str) -> Result<(FileId, &'a str)> {
        let (dirs, name) = split_path(path)?;
        let parent = self.find_names(self.system_file(RecordNumber::ROOT)?, dirs.into_iter())?;
        let parent = parent.filter(|&p| self.base_record(p).is_ok_and(|r| r.is_directory()));
        Ok((parent.ok_or_else(|| not_found(path).hint("its directory does not exist"))?, name))
    }

    /// The entry for a path: directory, file, name.
    fn entry_at(&self, path: &str) -> Result<Option<(FileId, FileId, FileName)>> {
        let (parent, name) = self.parent_of(path)?;
        Ok(self.entry_in(parent, &name.into())?.map(|(file, stored)| (parent, file, stored)))
    }

    /// Whether `dir` is `ancestor` or lies below it.
    fn is_below(&self, dir: FileId, ancestor: FileId) -> Result<bool> {
        let mut at = dir;
        for _ in 0..DEPTH_MAX {
            if at == ancestor {
                return Ok(true);
            }
            if at.record == RecordNumber::ROOT {
                return Ok(false);
            }
            let names = names_of(&self.load(at)?)?;
            at = names.first().ok_or_else(|| damaged(format!("{at} has no name")))?.parent;
        }
        Err(damaged("directories form a loop"))
    }
}

/// The names that make one link: the name itself, and its long or short partner.
fn link_names(names: &[FileName], name: &FileName) -> Vec<FileName> {
    let paired = matches!(name.namespace, Namespace::Win32 | Namespace::Dos);
    names
        .iter()
        .filter(|n| {
            n.parent == name.parent
                && (n.name == name.name || (paired && matches!(n.namespace, Namespace::Win32 | Namespace::Dos)))
        })
        .cloned()
        .collect()
}

/// Removes names from attributes that were taken out.
fn take_names(attrs: &mut Attrs, gone: &[FileName]) {
    attrs.list.retain(|a| {
        a.kind != AttributeType::FILE_NAME
            || a.value().and_then(|v| FileName::parse(v).ok()).is_none_or(|n| {
                !gone.iter().any(|g| g.parent == n.parent && g.name == n.name && g.namespace == n.namespace)
            })
    });
}

impl<D: VolumeWrite> Volume<D> {
    /// Removes a name, and the file with its last name. Directories must be empty.
    ///
    /// # Errors
    /// Refused for system files and directories with entries.
    pub fn delete(&mut self, path: &str) -> Result<()> {
        self.transaction(|v| {
            let (parent, file, name) = v.entry_at(path)?.ok_or_else(|| not_found(path))?;
            v.unlink(parent, file, &name)?;
            v.touch_directory(parent)
        })
        .map_err(|e| e.path(path))
    }

    /// Removes one link of a file (with its DOS partner), and the file with its last link.
    fn unlink(&mut self, parent: FileId, file: FileId, name: &FileName) -> Result<()> {
        self.check_parent(parent)?;
        self.check_ordinary(file)?;
        let mut attrs = self.load(file)?;
        let names = names_of(&attrs)?;
        let gone = link_names(&names, &FileName { parent, ..name.clone() });
        if gone.is_empty() {
            return Err(damaged(format!("{file} does not know its name")).path(name.name.to_string()));
        }
        if self.base_record(file)?.is_directory() {
            self.check_empty(file)?;
        }
        for name in &gone {
            if !self.remove_entry(parent, I30, &name_key(&name.name))? {
                return Err(damaged(format!("{file} is missing in its directory")).path(name.name.to_string()));
            }
        }
        if gone.len() == names.len() {
            return self.destroy(attrs);
        }
        take_names(&mut attrs, &gone);
        let now = self.options.clock;
        change_standard_information(&mut attrs, |i| i.times.changed = now)?;
        self.store_and_publish(attrs)?;
        self.set_links(file, names.len() - gone.len());
        Ok(())
    }

    fn set_links(&mut self, file: FileId, links: usize) {
        if let Ok(record) = self.record(file.record) {
            let mut record = (*record).clone();
            header::LINKS.set(record.bytes_mut(), links as u16);
            self.patch_record(file.record, record);
        }
    }

    fn check_empty(&self, dir: FileId) -> Result<()> {
        let index = self.index(dir, I30)?;
        let mut found = false;
        let full = || Error::refused(Layer::Ntfs, "the directory is not empty").hint("delete what is in it first");
        let walked = self.walk(&index, &mut |_| {
            found = true;
            Err(full())
        });
        if found { Err(full()) } else { walked }
    }

    /// Frees everything that a file has. Its names are gone already.
    fn destroy(&mut self, attrs: Attrs) -> Result<()> {
        let file = attrs.file;
        if let Some(tag) = self.reparse_tag(&attrs)? {
            self.forget_reparse_point(&attrs, tag)?;
        }
        if let Some(id) = attrs.value(AttributeType::OBJECT_ID).and_then(|v| v.get(..16)) {
            self.remove_view_entry("$ObjId", "$O", id)?;
        }
        let base = self.base_record(file)?;
        let mut records = vec![file.record];
        for entry in self.attribute_list(&base)?.unwrap_or_default() {
            if !records.contains(&entry.record.record) {
                records.push(entry.record.record);
            }
        }
        for &number in &records {
            let record = self.record(number)?;
            for (_, attribute) in record.attributes().filter(|(_, a)| !a.is_resident()) {
                self.free_runs_of(&attribute)?;
            }
        }
        for &number in records.iter().rev() {
            self.free_record(number)?;
        }
        Ok(())
    }

    fn free_runs_of(&mut self, attribute: &Attribute<'_>) -> Result<()> {
        let runs: Vec<_> = attribute.runlist(self.geometry.cluster_count)?.real().collect();
        if attribute.kind() == AttributeType::INDEX_ALLOCATION {
            self.forget_blocks(&runs);
        }
        self.free_clusters(runs)
    }

    /// Drops index blocks in clusters that are being freed: they need not be written any more.
    fn forget_blocks(&mut self, runs: &[(crate::ntfs::format::units::Lcn, u64)]) {
        let cluster = u64::from(self.geometry.cluster_size);
        let blocks = &mut self.cache.get_mut().blocks;
        for (lcn, length) in runs {
            let range = lcn.0 * cluster..(lcn.0 + length) * cluster;
            let keys: Vec<u64> = blocks.dirty_in(range).map(|(key, _)| key).collect();
            for key in keys {
                blocks.remove(key);
            }
        }
    }

    /// Removes a file's entry from `$Extend\$Reparse:$R`.
    pub(super) fn forget_reparse_point(&mut self, attrs: &Attrs, tag: u32) -> Result<()> {
        let mut key = [0; 12];
        Field::<u32>::at(0).set(&mut key, tag);
        Field::<u64>::at(4).set(&mut key, attrs.file.to_raw());
        self.remove_view_entry("$Reparse", "$R", &key)
    }

    /// Removes an entry from an index of a file in `$Extend`; it may be absent.
    fn remove_view_entry(&mut self, file: &str, index: &'static str, key: &[u8]) -> Result<()> {
        let extend = self.system_file(RecordNumber::EXTEND)?;
        if let Some(file) = self.find_in(extend, &file.into())? {
            self.remove_entry(file, index, key)?;
        }
        Ok(())
    }

    /// Moves or renames a file or directory; `to` must not exist (a change of case only is allowed).
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir).
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.transaction(|v| {
            let (old_parent, file, old) = v.entry_at(from)?.ok_or_else(|| not_found(from))?;
            let (new_parent, name) = v.parent_of(to)?;
            v.check_parent(old_parent)?;
            v.check_parent(new_parent)?;
            v.check_ordinary(file)?;
            let record = v.base_record(file)?;
            if record.is_directory() && new_parent != old_parent && v.is_below(new_parent, file)? {
                return Err(Error::refused(Layer::Ntfs, "a directory cannot be moved below itself")
                    .hint("choose another place"));
            }
            let mut attrs = v.load(file)?;
            let names = names_of(&attrs)?;
            let gone = link_names(&names, &FileName { parent: old_parent, ..old });
            if gone.is_empty() {
                return Err(damaged(format!("{file} does not know its name")));
            }
            for name in &gone {
                if !v.remove_entry(old_parent, I30, &name_key(&name.name))? {
                    return Err(damaged(format!("{file} is missing in its directory")));
                }
            }
            take_names(&mut attrs, &gone);
            let left: Vec<&FileName> = names.iter().filter(|n| !gone.contains(n)).collect();
            // a file has at most one pair of long and short name
            let with_short = v.short_names && left.iter().all(|n| n.namespace == Namespace::Posix);
            let chosen = v.choose_names(new_parent, &NtfsName::from(name), with_short)?;
            let links = left.len() + chosen.len();
            let now = v.options.clock;
            change_standard_information(&mut attrs, |i| i.times.changed = now)?;
            v.add_names(attrs, new_parent, chosen)?;
            v.set_links(file, links);
            v.touch_directory(old_parent)?;
            v.touch_directory(new_parent)
        })
        .map_err(|e| e.path(from))
    }

    /// Adds names to attributes that were taken out, puts them back, and enters the names into the directory.
    fn add_names(&mut self, mut attrs: Attrs, parent: FileId, names: Vec<(Namespace, NtfsName)>) -> Result<()> {
        let file = attrs.file;
        let record = self.base_record(file)?;
        let duplicate = self.duplicate_of(&record, &attrs)?;
        let before = names_of(&attrs)?;
        let names: Vec<FileName> =
            names.into_iter().map(|(namespace, name)| FileName { parent, duplicate, namespace, name }).collect();
        for name in &names {
            attrs.list.push(Attr::resident(AttributeType::FILE_NAME, &NtfsName::default(), &name.encode()));
        }
        let duplicate = self.store_with_duplicate(attrs)?;
        for name in names {
            let name = FileName { duplicate, ..name };
            self.insert_entry(parent, I30, IndexEntry::for_name(file, &name.encode()))?;
        }
        self.publish(file, &duplicate, &before)
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir); refused for directories.
    pub fn link(&mut self, file: FileId, parent: FileId, name: &str) -> Result<()> {
        self.transaction(|v| {
            v.check_ordinary(file)?;
            v.check_parent(parent)?;
            if v.base_record(file)?.is_directory() {
                return Err(Error::refused(Layer::Ntfs, "a directory cannot have two names").hint("link files only"));
            }
            let mut attrs = v.load(file)?;
            let links = names_of(&attrs)?.len() + 1;
            if links > LINKS_MAX {
                return Err(Error::refused(Layer::Ntfs, "the file has 1024 names already").hint("delete one first"));
            }
            let chosen = v.choose_names(parent, &name.into(), false)?;
            let now = v.options.clock;
            change_standard_information(&mut attrs, |i| i.times.changed = now)?;
            v.add_names(attrs, parent, chosen)?;
            v.set_links(file, links);
            v.touch_directory(parent)
        })
        .map_err(|e| e.path(name))
    }

    /// Puts a new file in the place of the one at `path`: other hard links keep the old content; security id,
    /// attributes, creation time and DOS name are taken over. Creates the file if it is absent (its directory must be
    /// there).
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir); refused for directories.
    pub fn replace_file(&mut self, path: &str, data: &[u8], how: &New) -> Result<FileId> {
        self.replace(path, FileContent::Bytes(data), how)
    }

    /// Like [`replace_file`](Self::replace_file), for a large file of `length` bytes that `fill` gives in parts, each by
    /// its offset, in order.
    ///
    /// # Errors
    /// As `replace_file`, and those of `fill`. A file that is too small to need parts is refused as a defect.
    pub fn replace_file_from(
        &mut self,
        path: &str,
        length: u64,
        fill: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
        how: &New,
    ) -> Result<FileId> {
        if length < LARGE {
            return Err(Error::bug(Layer::Ntfs, "a small file is written in parts").path(path));
        }
        self.replace(path, FileContent::Filled(length, fill), how)
    }

    fn replace(&mut self, path: &str, data: FileContent<'_>, how: &New) -> Result<FileId> {
        self.transaction(|v| {
            let (parent, name) = v.parent_of(path)?;
            let Some((file, stored)) = v.entry_in(parent, &name.into())? else {
                return v.create(parent, &name.into(), Content::File(data), how, None);
            };
            if v.base_record(file)?.is_directory() {
                return Err(
                    Error::refused(Layer::Ntfs, "there is a directory of this name").hint("choose another name")
                );
            }
            let information = v.standard_information(file)?;
            let names = names_of(&v.load(file)?)?;
            let mut names = link_names(&names, &FileName { parent, ..stored.clone() });
            // the long name first, as in every new file
            names.sort_by_key(|n| n.namespace == Namespace::Dos);
            let kept = Kept {
                names: names.into_iter().map(|n| (n.namespace, n.name)).collect(),
                security: information.security.filter(|&id| id != 0),
                attributes: information.attributes,
                created: information.times.created,
            };
            v.unlink(parent, file, &stored)?;
            v.create(parent, &stored.name, Content::File(data), how, Some(kept))
        })
        .map_err(|e| e.path(path))
    }

    /// Whether a path leads to something.
    ///
    /// # Errors
    /// Damaged, or the device cannot be read.
    pub fn exists(&self, path: &str) -> Result<bool> {
        Ok(components(path).next().is_none() || self.find(path)?.is_some())
    }
}
