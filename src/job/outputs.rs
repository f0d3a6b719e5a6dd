//! Checks of output files before any work is done.

use std::path::{Path, PathBuf};

use super::choose_disk::check_disks;
use super::disks::{block_options, image_files, options_among};
use super::folder::require_folder;
use super::report;
use super::request::{Destination, InjectRequest};
use crate::block::convert::refuse_export;
use crate::block::{Format, PathPolicy, Stage, commit};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape::shell_argument;
use crate::host::{REPORT, RunFiles, Target, is_nbd_name};

/// What the output image is called in messages.
const OUTPUT: &str = "the output";

/// Makes sure that a run may write its output and these reports: each can be what its name says, none of them is a file
/// that the run reads, and no two are the same file. The same is checked again when they are written.
///
/// # Errors
/// [`Kind::Usage`]; nothing was touched then.
pub fn check_outputs(request: &InjectRequest, reports: &[PathBuf]) -> Result<()> {
    check_files(request, reports, &[])
}

/// Like [`check_outputs`] for a run that writes other texts, too, each with the name that messages call it by: a plan and
/// its reviews, the description of a machine.
///
/// # Errors
/// [`Kind::Usage`]; nothing was touched then.
pub fn check_text_outputs(request: &InjectRequest, reports: &[PathBuf], texts: &[(&'static str, &Path)]) -> Result<()> {
    check_files(request, reports, texts)
}

/// Checks the files of a run, which exclude each other.
fn check_files(request: &InjectRequest, reports: &[PathBuf], texts: &[(&'static str, &Path)]) -> Result<()> {
    let mut files = RunFiles::default();
    check_disks(request)?;
    files.add_input("the input image", &request.image);
    request.other_disks.iter().for_each(|path| files.add_input("a disk of the machine", path));
    for path in &request.drivers {
        files.add_input("the driver media", path);
    }
    if let Some(path) = &request.definitions {
        files.add_input("the driver definitions", path);
    }
    for path in &request.other_inputs {
        files.add_input("an input of this run", path);
    }
    let new_image = request.judged_destination().new_file();
    // Each image is opened for it: not where nothing but the image is written.
    if new_image.is_some() || !reports.is_empty() || !texts.is_empty() {
        let disks: Vec<&Path> = request.all_disks().map(PathBuf::as_path).collect();
        for disk in &disks {
            // The job itself says why an image cannot be opened: nothing is written then.
            let needed = image_files(disk, &options_among(&block_options(request), disk, &disks)).unwrap_or_default();
            needed.iter().for_each(|path| files.add_input("a file that an input image needs", path));
        }
    }
    if new_image.is_some() {
        let inputs = request.all_disks().map(PathBuf::as_path);
        add_output(&mut files, request.judged_destination(), inputs, request.overwrite_output)?;
    }
    refuse_misnamed_overlay(request.judged_destination())?;
    for path in reports {
        for (path, target) in report::targets(path)? {
            files.add_output(REPORT, &path)?;
            report::refuse_other_files(&target)?;
        }
    }
    for (what, path) in texts {
        require_folder(path, what)?;
        files.add_output(what, path)?;
        Target::resolve(path, what)?.refuse_existing(request.overwrite_output)?;
    }
    Ok(())
}

/// Adds the output to the files of a run, if there is one: in a folder that is there, neither one of the others, nor a stream, nor there already unless it is replaced.
/// `inputs` are the images that are read.
pub(super) fn add_output<'a>(
    files: &mut RunFiles,
    destination: &Destination,
    inputs: impl IntoIterator<Item = &'a Path>,
    overwrite: bool,
) -> Result<()> {
    let Some(out) = destination.new_file() else { return Ok(()) };
    if let Destination::Standalone { path, format, .. } = destination
        && is_nbd_name(path)
    {
        return refuse_export(path, *format, overwrite, inputs);
    }
    require_folder(out, OUTPUT)?;
    files.add_output(OUTPUT, out)?;
    let target = Target::resolve(out, OUTPUT)?;
    target.refuse_stream()?;
    target.refuse_existing(overwrite)
}

/// Refuses a destination that the opened image does not allow; `advise` adds what to do where the image cannot be edited in
/// place.
pub(super) fn check_destination(
    stage: &Stage,
    image: &Path,
    policy: &PathPolicy,
    destination: &Destination,
    advise: impl FnOnce(Error) -> Error,
) -> Result<()> {
    if let Destination::Overlay(out) | Destination::Standalone { path: out, .. } = destination {
        commit::refuse_own_files(&stage.image().files(), out)?;
    }
    match destination {
        Destination::InPlace => commit::check_in_place(stage, image, policy).map_err(advise),
        Destination::Overlay(_) => commit::check_overlay(stage),
        Destination::DryRun | Destination::Standalone { .. } => Ok(()),
    }
}

/// Refuses an overlay whose name says that it is an image of another format.
///
/// # Errors
/// [`Kind::Usage`].
pub(super) fn refuse_misnamed_overlay(destination: &Destination) -> Result<()> {
    let Destination::Overlay(out) = destination else { return Ok(()) };
    let (format, more) = match Format::from_extension(out) {
        None | Some(Format::Qcow2) => return Ok(()),
        Some(Format::Raw) => {
            let whole = shell_argument(out, "NEW.raw");
            (Format::Raw, format!("; or write a whole raw image with -o {whole} in place of --overlay"))
        }
        Some(other) => (other, String::new()),
    };
    let message = format!("cannot write the output: an overlay is a qcow2 file, but its name says {format}");
    let qcow2 = shell_argument(&out.with_extension("qcow2"), "NEW.qcow2");
    Err(Error::new(Kind::Usage, Layer::Job, message)
        .with_code(ErrorCode::OutputName)
        .path(out.display().to_string())
        .hint(format!("name it {qcow2}{more}")))
}
