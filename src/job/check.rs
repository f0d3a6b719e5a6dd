//! Whether the Windows in an image will boot from a virtio disk.

use std::path::Path;

use serde::Serialize;

use super::explain::explain;
use super::locate::{edit_refusal, locate_partition};
use crate::block::{self, Image};
use crate::error::Result;
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{self, PartitionView};
use crate::windows::{self, BootCheck, BootDisk, Bus, CheckOptions};

/// Whether a guest boots, as [`check`] answers.
#[derive(Debug, Clone, Serialize)]
pub struct BootAnswer {
    /// Path of the image file.
    pub image: String,
    /// Number of the partition with Windows.
    pub partition: u32,
    /// Whether the guest boots from at least one of the buses.
    pub boots: bool,
    /// The answer for each bus, with all findings.
    pub buses: Vec<BootCheck>,
    /// What may make the answer out of date: signs that the image is in use. Left out when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Bytes read from the image's files.
    pub bytes_read: u64,
}

/// Walks the boot chain of the Windows in an image for each of the buses. Writes nothing. `number` chooses the partition,
/// if there are several with Windows.
///
/// # Errors
/// When the image cannot be read, or holds no Windows. That the guest does not boot is an answer, not an error.
pub fn check(
    image: &Path,
    options: &block::OpenOptions,
    number: Option<u32>,
    buses: &[Bus],
    strictness: &CheckOptions,
) -> Result<BootAnswer> {
    check_image(image, options, number, buses, strictness).map_err(explain)
}

fn check_image(
    path: &Path,
    options: &block::OpenOptions,
    number: Option<u32>,
    buses: &[Bus],
    strictness: &CheckOptions,
) -> Result<BootAnswer> {
    let image = block::open(path, options)?;
    let disk: &dyn Image = &*image;
    let table = partition::read(disk).map_err(|error| error.path(path.display().to_string()))?;
    let partition = locate_partition(&disk, &table, number)?;
    let volume = Volume::open(PartitionView::new(&disk, &partition)?, &OpenOptions::read_only())?;
    let around = BootDisk { disk: &disk, table: &table, partition: &partition };
    let mut answers = windows::boot_checks(&volume, Some(&around), buses, strictness)?;
    if let Some(refusal) = edit_refusal(disk, &partition) {
        answers.iter_mut().for_each(|answer| answer.add_state(refusal.to_string()));
    }
    Ok(BootAnswer {
        image: path.display().to_string(),
        partition: partition.number,
        boots: answers.iter().any(|answer| answer.boots),
        buses: answers,
        warnings: block::use_notes(disk),
        bytes_read: image.bytes_read(),
    })
}
