//! Outputs that are new files: the overlay and the standalone image.

use std::path::{Path, PathBuf};

use super::options::{CommitOptions, Committed};
use super::output::{Output, refuse_own_files, resolve_output};
use crate::block::formats::qcow2::{Backing, GuestCluster, NewImage};
use crate::block::{Format, Image, Stage, Storage, is_zero};
use crate::cancel::Cancel;
use crate::error::{Error, Layer, Result};
use crate::host::{HostFiles, folder_of};
use crate::units::ImageOffset;

const CLUSTER: u64 = NewImage::CLUSTER;
/// How much is read at once; a multiple of the cluster.
const CHUNK: u64 = 2 << 20;
/// The grain of holes in a raw output.
const HOLE_GRAIN: usize = 4096;

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
    let mut image = NewImage::new(&**output.storage(), stage.len(), Some(backing)).map_err(in_out)?;
    let mut bytes_written = 0;
    let mut next = 0;
    for (offset, length) in stage.dirty_ranges() {
        let first = (offset.0 / CLUSTER).max(next);
        let end = (offset.0 + length).div_ceil(CLUSTER);
        options.cancel.check()?;
        for cluster in first..end {
            bytes_written += copy_cluster(stage, cluster, &mut image).map_err(in_out)?;
        }
        next = end.max(next);
    }
    image.finish().map_err(in_out)?;
    output.finish()?;
    Ok(Committed { path: out.to_owned(), bytes_written, warnings: Vec::new() })
}

/// [`super::check_overlay`], with the format that the overlay records.
pub(super) fn backing_format(image: &dyn Image) -> Result<Format> {
    image.format_in_qemu().ok_or_else(|| {
        let path = image.files().first().map_or_else(String::new, |path| path.display().to_string());
        Error::unsupported(Layer::Block, "cannot lay an overlay over this image: QEMU would find another disk in it")
            .path(path)
            .hint("write a whole new image: winject convert --inject")
    })
}

fn copy_cluster(stage: &Stage, cluster: u64, image: &mut NewImage<'_>) -> Result<u64> {
    let start = cluster * CLUSTER;
    let length = CLUSTER.min(stage.len().saturating_sub(start));
    let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
    stage.read_at(ImageOffset(start), &mut data)?;
    image.add(GuestCluster(cluster), &data)?;
    Ok(length)
}

/// [`super::write_standalone`] on any host.
///
/// # Errors
/// Those of [`super::write_standalone`].
pub fn standalone(
    host: &dyn HostFiles,
    stage: &Stage,
    out: &Path,
    format: Format,
    options: &CommitOptions,
) -> Result<Committed> {
    let files = stage.image().files();
    refuse_own_files(&files, out)?;
    let target = resolve_output(out, options.overwrite)?;
    let in_out = |e: Error| e.path(out.display().to_string());
    let output = Output::create(host, target, &files, options.locking, &options.cancel)?;
    let storage = &**output.storage();
    let bytes_written = match format {
        Format::Raw => write_raw(stage, storage, &options.cancel).map_err(in_out)?,
        Format::Qcow2 => {
            let mut image = NewImage::new(storage, stage.len(), None).map_err(in_out)?;
            let written = for_each_chunk(stage, &options.cancel, |offset, data| {
                let clusters = data.chunks(usize::try_from(CLUSTER).unwrap_or(1));
                for (cluster, content) in (offset / CLUSTER..).zip(clusters) {
                    image.add(GuestCluster(cluster), content)?;
                }
                Ok(())
            })
            .map_err(in_out)?;
            image.finish().map_err(in_out)?;
            written
        }
        other => {
            return Err(Error::unsupported(Layer::Block, format!("cannot write {other} images"))
                .path(out.display().to_string())
                .hint("write raw or qcow2"));
        }
    };
    output.finish()?;
    Ok(Committed { path: out.to_owned(), bytes_written, warnings: Vec::new() })
}

fn write_raw(stage: &Stage, storage: &dyn Storage, cancel: &Cancel) -> Result<u64> {
    let io = |e| Error::io(Layer::Block, "cannot write the output", e).hint("check free space and permissions");
    storage.set_len(stage.len()).map_err(io)?;
    for_each_chunk(stage, cancel, |offset, data| {
        // Runs of blocks that are not zero, each written at once.
        let mut run: Option<usize> = None;
        for (start, block) in (0..).step_by(HOLE_GRAIN).zip(data.chunks(HOLE_GRAIN)) {
            match (is_zero(block), run) {
                (false, None) => run = Some(start),
                (true, Some(from)) => {
                    storage.write_at(offset + from as u64, data.get(from..start).unwrap_or_default()).map_err(io)?;
                    run = None;
                }
                _ => {}
            }
        }
        match run {
            Some(from) => storage.write_at(offset + from as u64, data.get(from..).unwrap_or_default()).map_err(io),
            None => Ok(()),
        }
    })
}

/// Calls `take` with the disk's content in ascending order, piece by piece from cluster boundaries, leaving out what
/// certainly reads as zeros. Returns how many bytes were passed.
fn for_each_chunk(stage: &Stage, cancel: &Cancel, mut take: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<u64> {
    let size = stage.len();
    let mut buffer = vec![0; usize::try_from(CHUNK).unwrap_or(0)];
    let (mut position, mut passed) = (0, 0);
    while position < size {
        cancel.check()?;
        let extent = stage.extent_at(ImageOffset(position), size - position)?;
        let end = position + extent.length;
        if extent.kind.is_zero() {
            // Skip whole clusters only, so that every piece begins at one.
            let skip_to = if end == size { size } else { end / CLUSTER * CLUSTER };
            if skip_to > position {
                position = skip_to;
                continue;
            }
        }
        let length = end.next_multiple_of(CLUSTER).min(size).min(position + CHUNK) - position;
        let piece = buffer.get_mut(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
        stage.read_at(ImageOffset(position), piece)?;
        take(position, piece)?;
        passed += length;
        position += length;
    }
    Ok(passed)
}

/// How the overlay names the original: relative when the original is below the overlay's folder (so that both can be
/// moved together), absolute otherwise.
fn backing_name(original: &Path, out: &Path) -> Result<String> {
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
