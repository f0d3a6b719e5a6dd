//! Compares the files of two volumes: both trees are walked in step.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::content::ContentComparison;
use super::difference::{Aspect, Change, Compared, Difference, FileDifference, See};
use crate::cancel::Cancel;
use crate::error::{Error, Layer, Result};
use crate::job::look::{Details, Files, Found, NodeKind, walk};
use crate::ntfs::NtfsName;
use crate::upcase::upcase;

/// Most folders between the root and a file.
const DEPTH_MAX: usize = 1024;
/// Most pairs of hard-linked files that are remembered, so that their content is compared once.
const LINKED_MAX: usize = 1 << 20;

/// How two volumes are compared.
pub(super) struct FileComparison<'c> {
    /// Whether files with the same size and time count as the same.
    pub(super) is_quick: bool,
    pub(super) cancel: &'c Cancel,
}

/// Compares all files of two volumes, and shows what differs to `see`. What cannot be read is noted in `compared`.
///
/// # Errors
/// When a volume is damaged as a whole, or an image cannot be read; what `see` returns.
pub(super) fn compare_files(
    old: &Files<'_>,
    new: &Files<'_>,
    how: &FileComparison<'_>,
    compared: &mut Compared,
    see: &mut See<'_>,
) -> Result<()> {
    let content = ContentComparison::new(how.cancel);
    let walk = TreeWalk { old, new, how, compared, see, content, linked: HashSet::new() };
    walk.run()
}

/// A file in one volume or both.
enum Pair {
    Both(Found, Found),
    Old(Found),
    New(Found),
}

struct TreeWalk<'a, 'i, 's> {
    old: &'a Files<'i>,
    new: &'a Files<'i>,
    how: &'a FileComparison<'a>,
    compared: &'a mut Compared,
    see: &'a mut See<'s>,
    content: ContentComparison<'a>,
    /// Pairs of files with several names whose contents are equal.
    linked: HashSet<(u64, u64)>,
}

impl TreeWalk<'_, '_, '_> {
    fn run(mut self) -> Result<()> {
        let roots = (Found::root(self.old), Found::root(self.new));
        let mut met = HashSet::from([self.identities(&roots.0, &roots.1)]);
        let mut open = vec![self.list_both(&roots.0, &roots.1)?.into_iter()];
        while let Some(pairs) = open.last_mut() {
            self.how.cancel.check()?;
            let Some(pair) = pairs.next() else {
                open.pop();
                continue;
            };
            match pair {
                Pair::Old(found) => self.only_in_one(&found, Change::Removed)?,
                Pair::New(found) => self.only_in_one(&found, Change::Added)?,
                Pair::Both(old, new) => {
                    if let Err(error) = self.compare(&old, &new) {
                        self.compared.tolerate(error.path(&new.path))?;
                    }
                    let are_folders = [&old, &new].iter().all(|found| found.node.kind == NodeKind::Folder);
                    // Folders that lie in several folders are damage; it is enough not to follow them for ever.
                    if !are_folders || !met.insert(self.identities(&old, &new)) {
                        continue;
                    }
                    if open.len() == DEPTH_MAX {
                        return Err(
                            Error::unsupported(Layer::Job, "more than 1,024 folders in each other").path(new.path)
                        );
                    }
                    match self.list_both(&old, &new) {
                        Ok(pairs) => open.push(pairs.into_iter()),
                        Err(error) => self.compared.tolerate(error.path(&new.path))?,
                    }
                }
            }
        }
        Ok(())
    }

    fn identities(&self, old: &Found, new: &Found) -> (u64, u64) {
        (self.old.identity(&old.node), self.new.identity(&new.node))
    }

    /// What lies in two folders, paired by name.
    fn list_both(&self, old: &Found, new: &Found) -> Result<Vec<Pair>> {
        let list = |files: &Files<'_>, folder: &Found| -> Result<Vec<Named>> {
            let children = files.list(&folder.node).map_err(|error| error.path(&folder.path))?.into_iter();
            // Those of the file system itself differ on any two volumes.
            let children = children.filter(|(_, node)| !node.is_metadata);
            let mut children: Vec<_> = children.map(|(name, node)| Named::new(folder.child(name, node))).collect();
            children.sort_by(|a, b| a.compare(b));
            Ok(children)
        };
        Ok(pair_up(list(self.old, old)?, list(self.new, new)?))
    }

    /// Shows a file, and everything below it, that only one of the volumes has.
    fn only_in_one(&mut self, start: &Found, change: Change) -> Result<()> {
        let files = if change == Change::Removed { self.old } else { self.new };
        let cancel = self.how.cancel;
        let done = walk(files, start, false, &mut |_, found| {
            cancel.check()?;
            let details = files.details(&found.node).map_err(|error| error.path(&found.path))?;
            let (old, new) = if change == Change::Removed { (Some(details), None) } else { (None, Some(details)) };
            let path = found.path.clone();
            self.show(FileDifference {
                partition: files.partition().number,
                path,
                change,
                differs: Vec::new(),
                old,
                new,
            })
        });
        done.or_else(|error| self.compared.tolerate(error.path(&start.path)))
    }

    fn show(&mut self, difference: FileDifference) -> Result<()> {
        let difference = Difference::File(difference);
        self.compared.count(&difference);
        (self.see)(&difference)
    }

    /// Compares a file that both have.
    fn compare(&mut self, old: &Found, new: &Found) -> Result<()> {
        let (before, after) = (self.old.details(&old.node)?, self.new.details(&new.node)?);
        let mut differs = Vec::new();
        let mut note = |aspect: Aspect, is_different: bool| differs.extend(is_different.then_some(aspect));
        note(Aspect::Kind, before.kind != after.kind);
        note(Aspect::Name, old.name != new.name);
        note(Aspect::Size, before.size != after.size);
        note(Aspect::Target, before.target != after.target);
        let opaque = (self.old.opaque_attributes(&old.node)?, self.new.opaque_attributes(&new.node)?);
        let has_other_reparse = opaque.0.reparse_point != opaque.1.reparse_point;
        note(Aspect::Reparse, has_other_reparse && before.target == after.target);
        note(Aspect::ExtendedAttributes, opaque.0.extended_attributes != opaque.1.extended_attributes);
        note(Aspect::ObjectId, opaque.0.object_id != opaque.1.object_id);
        note(Aspect::Attributes, before.attributes != after.attributes);
        // Each change of what lies in a folder sets its time, and is listed anyway.
        let is_folder = after.kind == NodeKind::Folder;
        note(Aspect::Modified, before.modified != after.modified && !is_folder);
        let has_same_time = before.modified == after.modified;
        let unread =
            if before.kind == after.kind && after.kind != NodeKind::Link && !(self.how.is_quick && has_same_time) {
                self.compare_contents([old, new], [&before, &after], &mut differs).err()
            } else {
                note_streams(&before, &after, &mut differs);
                None
            };
        if !differs.is_empty() {
            self.show(FileDifference {
                partition: self.new.partition().number,
                path: new.path.clone(),
                change: Change::Changed,
                differs,
                old: Some(before),
                new: Some(after),
            })?;
        }
        unread.map_or(Ok(()), Err)
    }

    /// Compares content and streams of two files, or the streams of two folders.
    fn compare_contents(
        &mut self,
        [old, new]: [&Found; 2],
        [before, after]: [&Details; 2],
        differs: &mut Vec<Aspect>,
    ) -> Result<()> {
        let is_linked = before.is_hard_linked && after.is_hard_linked;
        let identities = self.identities(old, new);
        if is_linked && self.linked.contains(&identities) {
            return Ok(());
        }
        note_streams(before, after, differs);
        let mut is_equal = |stream: &str| {
            let (old, new) = (self.old.open_content(&old.node, stream)?, self.new.open_content(&new.node, stream)?);
            self.content.is_equal(&old, &new)
        };
        // A size that differs says it already.
        if after.kind == NodeKind::File && before.size == after.size && after.size > 0 && !is_equal("")? {
            differs.push(Aspect::Content);
        }
        if !differs.contains(&Aspect::Streams) {
            for stream in &after.streams {
                if !is_equal(stream)? {
                    differs.push(Aspect::Streams);
                    break;
                }
            }
        }
        let is_same = !differs.iter().any(|aspect| matches!(aspect, Aspect::Content | Aspect::Size | Aspect::Streams));
        if is_linked && is_same && self.linked.len() < LINKED_MAX {
            self.linked.insert(identities);
        }
        Ok(())
    }
}

fn note_streams(before: &Details, after: &Details, differs: &mut Vec<Aspect>) {
    let names = |details: &Details| details.streams.iter().cloned().collect::<HashSet<String>>();
    if names(before) != names(after) {
        differs.push(Aspect::Streams);
    }
}

/// A file with its name as names are compared.
struct Named {
    upper: Vec<u16>,
    found: Found,
}

impl Named {
    fn new(found: Found) -> Self {
        Self { upper: found.name.units().iter().map(|unit| upcase(*unit)).collect(), found }
    }

    fn compare(&self, other: &Self) -> Ordering {
        let exact = |named: &Self| NtfsName::units(&named.found.name).to_vec();
        self.upper.cmp(&other.upper).then_with(|| exact(self).cmp(&exact(other)))
    }
}

/// Pairs two sorted lists. Of names that differ by case only, equal ones belong together, then the others in their order.
fn pair_up(old: Vec<Named>, new: Vec<Named>) -> Vec<Pair> {
    let mut out = Vec::with_capacity(old.len().max(new.len()));
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let first = match (old.peek(), new.peek()) {
            (Some(a), Some(b)) => a.upper.as_slice().min(b.upper.as_slice()),
            (Some(named), None) | (None, Some(named)) => named.upper.as_slice(),
            (None, None) => return out,
        }
        .to_vec();
        let take = |list: &mut std::iter::Peekable<std::vec::IntoIter<Named>>| {
            std::iter::from_fn(|| list.next_if(|named| named.upper == first))
                .map(|named| named.found)
                .collect::<Vec<_>>()
        };
        let (mut before, mut after) = (take(&mut old), take(&mut new));
        // As a rule one of each.
        let mut index = 0;
        while let Some(found) = before.get(index) {
            let Some(equal) = after.iter().position(|other| other.name == found.name) else {
                index += 1;
                continue;
            };
            out.push(Pair::Both(before.remove(index), after.remove(equal)));
        }
        let (mut before, mut after) = (before.into_iter(), after.into_iter());
        loop {
            match (before.next(), after.next()) {
                (Some(old), Some(new)) => out.push(Pair::Both(old, new)),
                (Some(old), None) => out.push(Pair::Old(old)),
                (None, Some(new)) => out.push(Pair::New(new)),
                (None, None) => break,
            }
        }
    }
}
