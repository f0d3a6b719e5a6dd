//! Which files the images of a batch consist of. Their headers are read for it, so the thread that does it has no rights but to
//! read files.

use std::path::{Path, PathBuf};

use crate::block::{Format, files_named};
use crate::cli::args::parse_format;
use crate::cli::sandbox;
use crate::error::{Error, Layer, Result};
use crate::fleet::Item;
use crate::host::is_nbd_name;

/// The files of each item's disks, and all that these name, wherever they lie and whether or not the item may open them: none of
/// them may be edited as an item of its own. No locks are taken, which would make the workers of another run take the image for
/// one in use. An NBD export names no file, and its server is not asked: it may be slow.
///
/// # Errors
/// When no thread can be started.
pub(super) fn files_of(items: &[Item], folder: &Path, is_sandboxed: bool) -> Result<Vec<Vec<PathBuf>>> {
    let read = || {
        if is_sandboxed {
            sandbox::enter_for_headers();
        }
        let files = |item: &Item| {
            let files = item.disks.iter().filter(|disk| !is_nbd_name(disk));
            files.flat_map(|disk| files_named(&folder.join(disk), format_of(item))).collect()
        };
        items.iter().map(files).collect()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("headers".to_owned()).spawn_scoped(scope, read);
        let thread = thread.map_err(|error| Error::io(Layer::Host, "cannot start a thread", error))?;
        thread.join().map_err(|_| Error::bug(Layer::Cli, "a thread of the batch panicked"))
    })
}

/// The format that the item's options name. The whole command line is not parsed for it: there may be many items.
fn format_of(item: &Item) -> Option<Format> {
    let mut options = item.arguments.iter().take_while(|argument| *argument != "--");
    let name = options.find_map(|option| option.to_str()?.strip_prefix("--format="))?;
    parse_format(name).ok()
}
