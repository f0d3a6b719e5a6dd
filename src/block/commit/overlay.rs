//! The overlay: a small qcow2 image over the original.

use std::path::{Path, PathBuf};

use super::meter::Meter;
use super::options::{CommitOptions, Committed};
use super::output::{Output, refuse_own_files, resolve_output};
use crate::block::formats::qcow2::{Backing, GuestCluster, NewOverlay};
use crate::block::{Format, Image, Stage};
use crate::error::{Error, Layer, Result};
use crate::escape::{shell_argument, shell_options};
use crate::host::{HostFiles, folder_of, is_nbd_name};
use crate::nbd::NbdUri;
use crate::units::ImageOffset;

const CLUSTER: u64 = NewOverlay::CLUSTER;

/// [`super::commit_overlay`] on any host.
///
/// # Errors
/// Those of [`super::commit_overlay`].
pub fn overlay(
    host: &dyn HostFiles,
    stage: &mut Stage,
    original: &Path,
    out: &Path,
    options: &CommitOptions,
) -> Result<Committed> {
    let files = stage.image().files();
    refuse_own_files(&files, out)?;
    let target = resolve_output(out, options.overwrite)?;
    let format = backing_format(stage.image())?;
    stage.drop_unchanged()?;
    let backing = Backing { name: backing_name(original, target.path())?, format };
    let output = Output::create(host, target, &files, options.locking, &options.cancel)?;
    let in_out = |e: Error| e.path(out.display().to_string());
    let mut image = NewOverlay::new(&**output.storage(), stage.len(), backing).map_err(in_out)?;
    let (mut bytes_written, mut next) = (0, 0);
    // Whole clusters are written: some more than is changed.
    let meter = Meter::new(options.progress, stage.bytes_dirty());
    for (offset, length) in stage.dirty_ranges() {
        let first = (offset.0 / CLUSTER).max(next);
        let end = (offset.0 + length).div_ceil(CLUSTER);
        options.cancel.check()?;
        for cluster in first..end {
            bytes_written += copy_cluster(stage, cluster, &mut image).map_err(in_out)?;
        }
        meter.add(length);
        next = end.max(next);
    }
    image.finish().map_err(in_out)?;
    output.finish()?;
    let notes = server_note(&files, out).into_iter().collect();
    Ok(Committed { path: out.to_owned(), bytes_written, notes, ..Committed::default() })
}

/// What it takes to read an overlay with an export below it; `files` are those of the original. `None` without an export.
fn server_note(files: &[PathBuf], out: &Path) -> Option<String> {
    let real = |path: &Path| path.canonicalize().ok();
    let own_folder = real(folder_of(out));
    let is_outside = |file: &&PathBuf| {
        is_nbd_name(file) || real(file).map(|file| real(folder_of(&file))) != Some(own_folder.clone())
    };
    let portable = |file: &PathBuf| match NbdUri::parse(file).and_then(|uri| uri.to_portable()) {
        Ok(uri) if is_nbd_name(file) => PathBuf::from(uri),
        _ => file.clone(),
    };
    let allowed: Vec<PathBuf> = files.iter().filter(is_outside).map(portable).collect();
    allowed.iter().any(|file| is_nbd_name(file)).then(|| {
        let (out, options) = (shell_argument(out, "OVERLAY"), shell_options("--allow-path", allowed.iter()));
        format!(
            "an overlay needs its server, which winject connects to if that is allowed: winject check {out}{options}"
        )
    })
}

/// [`super::check_overlay`], with the format that the overlay records.
pub(super) fn backing_format(image: &dyn Image) -> Result<Format> {
    image.format_in_qemu().ok_or_else(|| {
        let path = image.files().first().map_or_else(String::new, |path| path.display().to_string());
        Error::unsupported(Layer::Block, "cannot lay an overlay over this image: QEMU would find another disk in it")
            .path(path)
            .hint("write a whole new image with -o NEW.qcow2 in place of --overlay")
    })
}

fn copy_cluster(stage: &Stage, cluster: u64, image: &mut NewOverlay<'_>) -> Result<u64> {
    let start = cluster * CLUSTER;
    let length = CLUSTER.min(stage.len().saturating_sub(start));
    let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
    stage.read_at(ImageOffset(start), &mut data)?;
    image.add(GuestCluster(cluster), &data)?;
    Ok(length)
}

/// How the overlay names the original: relative when the original is below the overlay's folder (so that both can be
/// moved together), absolute otherwise; an export by its URI.
fn backing_name(original: &Path, out: &Path) -> Result<String> {
    if is_nbd_name(original) {
        return NbdUri::parse(original)?.to_portable();
    }
    let real = |path: &Path| {
        path.canonicalize()
            .map_err(|e| Error::io(Layer::Host, "cannot resolve the path", e).path(path.display().to_string()))
    };
    let original = real(original)?;
    let folder = real(folder_of(out))?;
    let path = original.strip_prefix(&folder).map_or_else(|_| original.clone(), PathBuf::from);
    let name = path.to_str().ok_or_else(|| {
        Error::unsupported(Layer::Host, "the path of the original is not UTF-8").path(original.display().to_string())
    })?;
    // QEMU takes what stands before a colon for a protocol, unless a slash comes first.
    Ok(if name.contains(':') && !name.starts_with('/') { format!("./{name}") } else { name.to_owned() })
}
