//! Names of files: removing, renaming, linking and replacing; and freeing a file with its last name.

use super::attributes::{Attributes, OwnedAttribute, base_record, load, system_file};
use super::btree::BtreeEditor;
use super::core::Core;
use super::create::{Content, FileContent, Inherited, create};
use super::directory::{Directory, I30, entry_in, find_names, name_key, split_path};
use super::guard::{check_ordinary, check_parent};
use super::metadata::{change_standard_information, duplicate_of, names_of, reparse_tag, standard_information};
use super::names::choose_names;
use super::options::CreateOptions;
use super::pager::Pager;
use super::publish::{publish, store_and_publish, store_with_duplicate, touch_directory};
use super::view_entries::{forget_reparse_point, remove_view_entry};
use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::format::attribute::{Attribute, AttributeType};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::file_name::FileName;
use crate::ntfs::format::index_node::IndexEntry;
use crate::ntfs::format::name::{Namespace, NtfsName};
use crate::ntfs::format::record::header;
use crate::ntfs::format::units::{FileId, RecordNumber};

/// Most names that Windows allows for one file.
const LINKS_MAX: usize = 1024;
/// Deeper directories cannot be reached by a path (32767 units).
const DEPTH_MAX: usize = 20_000;

fn not_found(path: &str) -> Error {
    Error::refused(Layer::Ntfs, "there is no such file").path(path).hint("check the path")
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

/// Removes names from the attributes of a file.
fn remove_names(attrs: &mut Attributes, gone: &[FileName]) {
    attrs.items.retain(|a| {
        a.kind != AttributeType::FILE_NAME
            || a.value().and_then(|v| FileName::parse(v).ok()).is_none_or(|n| {
                !gone.iter().any(|g| g.parent == n.parent && g.name == n.name && g.namespace == n.namespace)
            })
    });
}

/// The directory of a path, and its last name.
fn parent_of<'a, D: VolumeRead>(pager: &Pager<D>, path: &'a str) -> Result<(FileId, &'a str)> {
    let (dirs, name) = split_path(path)?;
    let parent = find_names(pager, system_file(pager, RecordNumber::ROOT)?, dirs.into_iter())?;
    let parent = parent.filter(|&p| base_record(pager, p).is_ok_and(|r| r.is_directory()));
    Ok((parent.ok_or_else(|| not_found(path).hint("its directory does not exist"))?, name))
}

/// The entry for a path: directory, file, name.
fn entry_at<D: VolumeRead>(pager: &Pager<D>, path: &str) -> Result<Option<(FileId, FileId, FileName)>> {
    let (parent, name) = parent_of(pager, path)?;
    Ok(entry_in(pager, parent, &name.into())?.map(|(file, stored)| (parent, file, stored)))
}

/// Whether `dir` is `ancestor` or lies below it.
fn is_below<D: VolumeRead>(pager: &Pager<D>, dir: FileId, ancestor: FileId) -> Result<bool> {
    let mut at = dir;
    for _ in 0..DEPTH_MAX {
        if at == ancestor {
            return Ok(true);
        }
        if at.record == RecordNumber::ROOT {
            return Ok(false);
        }
        let names = names_of(&load(pager, at)?)?;
        at = names.first().ok_or_else(|| damaged(format!("{at} has no name")))?.parent;
    }
    Err(damaged("directories form a loop"))
}

/// Removes a name, and the file with its last name. Directories must be empty.
pub(crate) fn delete<D: VolumeWrite>(core: &mut Core<D>, path: &str) -> Result<()> {
    let (parent, file, name) = entry_at(&core.pager, path)?.ok_or_else(|| not_found(path))?;
    unlink(core, parent, file, &name)?;
    touch_directory(core, parent)
}

/// Removes one link of a file (with its DOS partner), and the file with its last link.
fn unlink<D: VolumeWrite>(core: &mut Core<D>, parent: FileId, file: FileId, name: &FileName) -> Result<()> {
    check_parent(&core.pager, parent)?;
    check_ordinary(&core.pager, file)?;
    let mut attrs = load(&core.pager, file)?;
    let names = names_of(&attrs)?;
    let gone = link_names(&names, &FileName { parent, ..name.clone() });
    if gone.is_empty() {
        return Err(damaged(format!("{file} does not know its name")).path(name.name.to_string()));
    }
    if base_record(&core.pager, file)?.is_directory() {
        check_empty(&core.pager, file)?;
    }
    for name in &gone {
        if !BtreeEditor::new(core, parent, I30).remove(&name_key(&name.name))? {
            return Err(damaged(format!("{file} is missing in its directory")).path(name.name.to_string()));
        }
    }
    if gone.len() == names.len() {
        return destroy(core, attrs);
    }
    remove_names(&mut attrs, &gone);
    let now = core.clock;
    change_standard_information(&mut attrs, |i| i.times.changed = now)?;
    store_and_publish(core, attrs)?;
    set_links(core, file, names.len() - gone.len());
    Ok(())
}

fn set_links<D: VolumeWrite>(core: &mut Core<D>, file: FileId, links: usize) {
    if let Ok(record) = core.pager.record(file.record) {
        let mut record = (*record).clone();
        header::LINKS.set(record.bytes_mut(), links as u16);
        core.pager.patch_record(file.record, record);
    }
}

fn check_empty<D: VolumeRead>(pager: &Pager<D>, dir: FileId) -> Result<()> {
    if !Directory::open(pager, dir)?.is_empty()? {
        return Err(Error::refused(Layer::Ntfs, "the directory is not empty").hint("delete what is in it first"));
    }
    Ok(())
}

/// Frees all clusters and records of a file whose names are removed already.
fn destroy<D: VolumeWrite>(core: &mut Core<D>, attrs: Attributes) -> Result<()> {
    let file = attrs.file;
    if let Some(tag) = reparse_tag(&core.pager, &attrs)? {
        forget_reparse_point(core, &attrs, tag)?;
    }
    if let Some(id) = attrs.value(AttributeType::OBJECT_ID).and_then(|v| v.get(..16)) {
        remove_view_entry(core, "$ObjId", "$O", id)?;
    }
    let extensions = attrs.extensions.iter().map(|extension| extension.record);
    let records: Vec<RecordNumber> = std::iter::once(file.record).chain(extensions).collect();
    for &number in &records {
        let record = core.pager.record(number)?;
        for (_, attribute) in record.attributes().filter(|(_, a)| !a.is_resident()) {
            free_runs_of(core, &attribute)?;
        }
    }
    for &number in records.iter().rev() {
        core.records.free(&mut core.pager, number)?;
    }
    Ok(())
}

fn free_runs_of<D: VolumeWrite>(core: &mut Core<D>, attribute: &Attribute<'_>) -> Result<()> {
    let runs: Vec<_> = attribute.runlist(core.pager.geometry.cluster_count)?.real().collect();
    if attribute.kind() == AttributeType::INDEX_ALLOCATION {
        // the blocks need not be written any more
        for &(lcn, length) in &runs {
            let bytes = |clusters| core.pager.geometry.bytes_in(clusters);
            core.pager.remove_blocks_in(bytes(lcn.0)..bytes(lcn.0 + length));
        }
    }
    core.clusters.free(&mut core.pager, runs)
}

/// Moves or renames a file or directory; `to` must not exist (a change of case only is allowed).
pub(crate) fn rename<D: VolumeWrite>(core: &mut Core<D>, from: &str, to: &str) -> Result<()> {
    let (old_parent, file, old) = entry_at(&core.pager, from)?.ok_or_else(|| not_found(from))?;
    let (new_parent, name) = parent_of(&core.pager, to)?;
    check_parent(&core.pager, old_parent)?;
    check_parent(&core.pager, new_parent)?;
    check_ordinary(&core.pager, file)?;
    let record = base_record(&core.pager, file)?;
    if record.is_directory() && new_parent != old_parent && is_below(&core.pager, new_parent, file)? {
        return Err(
            Error::refused(Layer::Ntfs, "a directory cannot be moved below itself").hint("choose another place")
        );
    }
    let mut attrs = load(&core.pager, file)?;
    let names = names_of(&attrs)?;
    let gone = link_names(&names, &FileName { parent: old_parent, ..old });
    if gone.is_empty() {
        return Err(damaged(format!("{file} does not know its name")));
    }
    for name in &gone {
        if !BtreeEditor::new(core, old_parent, I30).remove(&name_key(&name.name))? {
            return Err(damaged(format!("{file} is missing in its directory")));
        }
    }
    remove_names(&mut attrs, &gone);
    let left: Vec<&FileName> = names.iter().filter(|n| !gone.contains(n)).collect();
    // a file has at most one pair of long and short name
    let with_short = core.short_names && left.iter().all(|n| n.namespace == Namespace::Posix);
    let chosen = choose_names(&core.pager, &mut core.short_name_hints, new_parent, &NtfsName::from(name), with_short)?;
    let links = left.len() + chosen.len();
    let now = core.clock;
    change_standard_information(&mut attrs, |i| i.times.changed = now)?;
    add_names(core, attrs, new_parent, chosen)?;
    set_links(core, file, links);
    touch_directory(core, old_parent)?;
    touch_directory(core, new_parent)
}

/// Adds names to the attributes of a file, stores them, and enters the names into the directory.
fn add_names<D: VolumeWrite>(
    core: &mut Core<D>,
    mut attrs: Attributes,
    parent: FileId,
    names: Vec<(Namespace, NtfsName)>,
) -> Result<()> {
    let file = attrs.file;
    let record = base_record(&core.pager, file)?;
    let duplicate = duplicate_of(&core.pager, &record, &attrs)?;
    let before = names_of(&attrs)?;
    let names: Vec<FileName> =
        names.into_iter().map(|(namespace, name)| FileName { parent, duplicate, namespace, name }).collect();
    for name in &names {
        attrs.items.push(OwnedAttribute::resident(AttributeType::FILE_NAME, &NtfsName::default(), &name.encode()));
    }
    let duplicate = store_with_duplicate(core, attrs)?;
    for name in names {
        let name = FileName { duplicate, ..name };
        BtreeEditor::new(core, parent, I30).insert(IndexEntry::for_name(file, &name.encode()))?;
    }
    publish(core, file, &duplicate, &before)
}

/// Gives a file another name.
pub(crate) fn link<D: VolumeWrite>(core: &mut Core<D>, file: FileId, parent: FileId, name: &str) -> Result<()> {
    check_ordinary(&core.pager, file)?;
    check_parent(&core.pager, parent)?;
    if base_record(&core.pager, file)?.is_directory() {
        return Err(Error::refused(Layer::Ntfs, "a directory cannot have two names").hint("link files only"));
    }
    let mut attrs = load(&core.pager, file)?;
    let links = names_of(&attrs)?.len() + 1;
    if links > LINKS_MAX {
        return Err(Error::refused(Layer::Ntfs, "the file has 1024 names already").hint("delete one first"));
    }
    let chosen = choose_names(&core.pager, &mut core.short_name_hints, parent, &name.into(), false)?;
    let now = core.clock;
    change_standard_information(&mut attrs, |i| i.times.changed = now)?;
    add_names(core, attrs, parent, chosen)?;
    set_links(core, file, links);
    touch_directory(core, parent)
}

/// Puts a new file in the place of the one at `path`, or creates it.
pub(crate) fn replace<D: VolumeWrite>(
    core: &mut Core<D>,
    path: &str,
    data: FileContent<'_>,
    options: &CreateOptions,
) -> Result<FileId> {
    let (parent, name) = parent_of(&core.pager, path)?;
    let Some((file, stored)) = entry_in(&core.pager, parent, &name.into())? else {
        return create(core, parent, &name.into(), Content::File(data), options, None);
    };
    if base_record(&core.pager, file)?.is_directory() {
        return Err(Error::refused(Layer::Ntfs, "there is a directory of this name").hint("choose another name"));
    }
    let information = standard_information(&core.pager, file)?;
    let names = names_of(&load(&core.pager, file)?)?;
    let mut names = link_names(&names, &FileName { parent, ..stored.clone() });
    // the long name first, as in every new file
    names.sort_by_key(|n| n.namespace == Namespace::Dos);
    let inherited = Inherited {
        names: names.into_iter().map(|n| (n.namespace, n.name)).collect(),
        security: information.security.filter(|&id| id != 0),
        attributes: information.attributes,
        created: information.times.created,
    };
    unlink(core, parent, file, &stored)?;
    create(core, parent, &stored.name, Content::File(data), options, Some(inherited))
}
