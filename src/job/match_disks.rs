//! Which disk of a request is which disk of a saved plan: found by content, whatever their names and order.

use std::path::PathBuf;

use super::disks::OtherDisk;
use super::report::Report;
use super::request::{InjectRequest, Observer};
use super::saved_plan::SavedPlan;
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::shell_argument;

/// The same request with its disks in the order of the plan: first the one with Windows. A disk that is not as in the plan
/// is put where one is missing, so that the differences are found there.
///
/// # Errors
/// [`Kind::Usage`] when the plan has fewer disks, or more; those of opening a disk.
pub(super) fn match_disks(
    plan: &SavedPlan,
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
) -> Result<InjectRequest> {
    let planned = &plan.document().others;
    if planned.len() != request.other_disks.len() {
        return Err(wrong_count(plan, request));
    }
    if planned.is_empty() {
        return Ok(request.clone());
    }
    observer.step("Looking for the disks of the plan");
    let mut scratch = Report::default();
    let mut left: Vec<(PathBuf, OtherDisk)> = Vec::new();
    for path in std::iter::once(&request.image).chain(&request.other_disks) {
        request.cancel.check()?;
        left.push((path.clone(), OtherDisk::open(request, path, &mut scratch)?));
    }
    let mut others: Vec<Option<PathBuf>> = Vec::new();
    for planned in planned {
        let mut index = None;
        for (at, (_, disk)) in left.iter().enumerate() {
            if disk.compare(planned)?.is_empty() {
                index = Some(at);
                break;
            }
        }
        others.push(index.map(|index| left.remove(index).0));
    }
    let facts = &plan.document().disk;
    let mut is_image = Vec::new();
    for (_, disk) in &left {
        is_image.push(disk.facts()? == *facts);
    }
    let index = is_image.iter().position(|is_image| *is_image).unwrap_or(0);
    let image = if index < left.len() { left.remove(index).0 } else { request.image.clone() };
    let mut left = left.into_iter().map(|(path, _)| path);
    let other_disks = others.into_iter().filter_map(|path| path.or_else(|| left.next())).collect();
    let request = InjectRequest { image, other_disks, windows_disk: None, ..request.clone() };
    report.add_disks(&request);
    observer.image(&request.image);
    Ok(request)
}

fn wrong_count(plan: &SavedPlan, request: &InjectRequest) -> Error {
    let (planned, given) = (1 + plan.document().others.len(), 1 + request.other_disks.len());
    let images = match plan.disks_in_its_folder() {
        Ok(paths) => paths.iter().map(|path| format!(" --image {}", shell_argument(path, "IMAGE"))).collect(),
        Err(_) => " --image IMAGE".repeat(planned),
    };
    let path = shell_argument(plan.path(), "PLAN.json");
    Error::new(Kind::Usage, Layer::Job, "cannot apply the plan: it was made for another number of disks")
        .path(plan.path().display().to_string())
        .expected_found(planned, given)
        .hint(format!("name all of them: winject apply {path}{}", images))
}
