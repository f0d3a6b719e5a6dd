//! Writes the files of the boot volume to the stage.

use super::content::{BootFiles, gone, not_writable};
use crate::error::{Error, Result};
use crate::fat::FatEditor;
use crate::io::VolumeWrite;
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{Content as FileSystem, Partition};
use crate::plan::verify::check_files_before;

/// Writes the files to the boot volume of a partition, which lies on a stage. `options` say how an NTFS volume is opened, their
/// `allow_dirty` counts for both kinds.
///
/// # Errors
/// When the volume cannot be edited in its state, is damaged, or is full.
pub fn apply_boot<D: VolumeWrite>(
    files: &BootFiles,
    view: D,
    partition: &Partition,
    options: &OpenOptions,
) -> Result<()> {
    let full = |error: Error| {
        error.hint("nothing was written; delete something on the system partition, or leave the option out")
    };
    match partition.content {
        FileSystem::Fat => {
            let mut fat = FatEditor::open(view, options.allow_dirty)?;
            for file in &files.files {
                let written = match file.replaces {
                    true => fat.replace_content(&file.path, &file.bytes, options.clock),
                    false => fat.create_file(&file.path, &file.bytes, options.clock),
                };
                written.map_err(|error| full(error.path(&file.path)))?;
            }
            fat.finish()
        }
        FileSystem::Ntfs => {
            let paths: Vec<String> = files.files.iter().map(|file| file.path.clone()).collect();
            // The Windows volume has a log, too.
            let volume = Volume::open_shared(view, &partition.replay, options);
            let mut volume = volume.map_err(|error| error.within(partition.label()))?;
            if !options.allow_dirty {
                check_files_before(volume.device(), &paths, false)?;
            }
            for file in &files.files {
                let id = volume.find(&file.path)?.ok_or_else(|| gone(&file.path))?;
                volume.overwrite(id, &file.bytes).map_err(|error| error.path(&file.path))?;
            }
            volume.flush()
        }
        other => Err(not_writable(other)),
    }
}
