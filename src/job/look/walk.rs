//! Everything below a folder.

use std::collections::HashSet;

use super::files::{Files, NodeKind};
use super::select::Found;
use crate::error::{Error, Layer, Result};
use crate::ntfs::format::name::NtfsName;

/// Most folders between the start and a file.
const DEPTH_MAX: usize = 1024;

/// What is done with a visited file: its names from the start on (empty for the start itself), and the file.
pub type Visit<'v> = dyn FnMut(&[NtfsName], &Found) -> Result<()> + 'v;

/// Visits a file and, if it is a folder, everything below it; a folder comes before what lies in it, and links are not
/// followed. Files of the file system itself are left out unless `with_metadata`.
///
/// # Errors
/// What `visit` returns; damaged (a folder that is met twice, too), or the image cannot be read.
pub fn walk(files: &Files<'_>, start: &Found, with_metadata: bool, visit: &mut Visit<'_>) -> Result<()> {
    visit(&[], start)?;
    if start.node.kind != NodeKind::Folder {
        return Ok(());
    }
    let list = |folder: &Found| -> Result<_> {
        let mut children = files.list(&folder.node).map_err(|error| error.path(&folder.path))?;
        children.retain(|(_, node)| with_metadata || !node.is_metadata);
        Ok(children.into_iter())
    };
    let mut met = HashSet::from([files.identity(&start.node)]);
    let mut names: Vec<NtfsName> = Vec::new();
    let mut open = vec![(start.clone(), list(start)?)];
    while let Some((folder, children)) = open.last_mut() {
        let Some((name, node)) = children.next() else {
            open.pop();
            names.pop();
            continue;
        };
        let found = folder.child(name.clone(), node);
        names.push(name);
        visit(&names, &found)?;
        if found.node.kind != NodeKind::Folder {
            names.pop();
            continue;
        }
        if !met.insert(files.identity(&found.node)) {
            return Err(Error::damaged(Layer::Job, "a folder lies in two folders").path(found.path));
        }
        if open.len() == DEPTH_MAX {
            return Err(Error::unsupported(Layer::Job, "more than 1,024 folders in each other").path(found.path));
        }
        let children = list(&found)?;
        open.push((found, children));
    }
    Ok(())
}
