//! Which files the images of a batch consist of. Their headers are read for it, so the thread that does it has no rights but to
//! read the folders of the images.

use std::path::{Path, PathBuf};

use crate::block::{Locking, OpenOptions};
use crate::cli::sandbox;
use crate::error::{Error, Layer, Result};
use crate::fleet::Item;
use crate::job;

/// The files of each item's disks, as far as they can be found out: what cannot be opened is its worker's to report. No locks
/// are taken, which would make the workers of another run take the image for one in use.
///
/// # Errors
/// When no thread can be started.
pub(super) fn files_of(items: &[Item], folder: &Path, is_sandboxed: bool) -> Result<Vec<Vec<PathBuf>>> {
    let options = OpenOptions { locking: Locking::Ignore, ..OpenOptions::default() };
    let read = || {
        let disks = items.iter().flat_map(|item| &item.disks).map(|disk| folder.join(disk));
        if is_sandboxed {
            sandbox::enter_for_images(disks);
        }
        let files = |disk: &PathBuf| job::image_files(&folder.join(disk), &options).unwrap_or_default();
        items.iter().map(|item| item.disks.iter().flat_map(files).collect()).collect()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("headers".to_owned()).spawn_scoped(scope, read);
        let thread = thread.map_err(|error| Error::io(Layer::Host, "cannot start a thread", error))?;
        thread.join().map_err(|_| Error::bug(Layer::Cli, "a thread of the batch panicked"))
    })
}
