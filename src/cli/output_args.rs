//! Where a changed disk goes, for commands that can write it into the image, as an overlay or as a new image.

use std::path::PathBuf;

use super::args::NewImageArgs;
use super::request::{new_image, no_destination, refuse_needless_no_undo};
use crate::error::{Kind, Result};
use crate::job::Destination;

// Where the changed disk goes: into the image, to an overlay, or to a new image
#[derive(Debug, clap::Args)]
pub struct OutputArgs {
    /// Change the image itself; a journal in its folder makes an interrupted run undoable, and stays as IMAGE.winject-undo
    /// for winject undo
    #[arg(long, conflicts_with_all = ["overlay", "to_output", "dry_run"])]
    in_place: bool,

    /// Keep no undo record after --in-place, and remove an earlier one if anything is changed
    #[arg(long)]
    pub no_undo: bool,

    /// Write the changes to a small new qcow2 file that is backed by the untouched image
    #[arg(long, value_name = "NEW.qcow2", conflicts_with_all = ["to_output", "dry_run"])]
    overlay: Option<PathBuf>,

    /// Write a whole new image with the changes
    #[arg(short = 'o', long, value_name = "NEW", conflicts_with = "dry_run")]
    to_output: Option<PathBuf>,

    /// Verify what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    new_image: NewImageArgs,

    /// Replace an output file that exists
    #[arg(long)]
    pub overwrite: bool,
}

impl OutputArgs {
    /// Nothing is changed by surprise: a destination has to be given. `dry_run_does` is what the hint says of `--dry-run`.
    ///
    /// # Errors
    /// [`Kind::Refused`] without a destination; [`Kind::Usage`] for `--no-undo` without `--in-place`.
    pub fn destination(&self, dry_run_does: &str) -> Result<Destination> {
        let destination = match (self.dry_run, self.in_place, &self.overlay, &self.to_output) {
            (true, ..) => Destination::DryRun,
            (_, true, ..) => Destination::InPlace,
            (_, _, Some(path), _) => Destination::Overlay(path.clone()),
            (_, _, _, Some(path)) => new_image(path, &self.new_image),
            _ => {
                return Err(no_destination(Kind::Refused).hint(format!(
                    "--overlay NEW.qcow2 keeps the image as it is; --in-place changes it; --dry-run only {dry_run_does}"
                )));
            }
        };
        refuse_needless_no_undo(self.no_undo, &destination)?;
        Ok(destination)
    }
}
