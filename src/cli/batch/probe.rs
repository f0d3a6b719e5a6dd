//! Which files the images of a batch consist of. Their headers are read for it, so the thread that does it has no rights but to
//! read files.

use std::path::{Path, PathBuf};

use clap::FromArgMatches as _;

use super::job::JobKind;
use super::worker_args::job_command;
use crate::block::{Format, files_named};
use crate::cli::args::ImageArgs;
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
pub(super) fn files_of(job: JobKind, items: &[Item], folder: &Path, is_sandboxed: bool) -> Result<Vec<Vec<PathBuf>>> {
    let read = || {
        if is_sandboxed {
            sandbox::enter_for_headers();
        }
        let mut command = job_command(job).no_binary_name(true);
        let mut files = |item: &Item| {
            // A command line that is wrong is refused soon.
            let matches = command.try_get_matches_from_mut(&item.arguments).ok();
            let options = matches.and_then(|matches| ImageArgs::from_arg_matches(&matches).ok());
            let format: Option<Format> = options.and_then(|options| options.format);
            let files = item.disks.iter().filter(|disk| !is_nbd_name(disk));
            files.flat_map(|disk| files_named(&folder.join(disk), format)).collect()
        };
        items.iter().map(&mut files).collect()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("headers".to_owned()).spawn_scoped(scope, read);
        let thread = thread.map_err(|error| Error::io(Layer::Host, "cannot start a thread", error))?;
        thread.join().map_err(|_| Error::bug(Layer::Cli, "a thread of the batch panicked"))
    })
}
