//! Which disk of a request is which disk of a saved plan: found by content, whatever their names and order.

use std::path::{Path, PathBuf};

use super::disks::{OtherDisk, name_in_plan};
use super::report::Report;
use super::request::{InjectRequest, Observer};
use super::saved_plan::SavedPlan;
use super::step::Step;
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
    observer.step(Step::MatchDisks);
    let mut scratch = Report::default();
    let mut left: Vec<(PathBuf, OtherDisk)> = Vec::new();
    for path in request.all_disks() {
        request.cancel.check()?;
        left.push((path.clone(), OtherDisk::open(request, path, &mut scratch)?));
    }
    // The disk with Windows first: of another disk a plan knows little, so that a copy of this one may pass for it.
    let image = left.remove(find_windows(plan, &left)?).0;
    let mut others: Vec<Option<PathBuf>> = vec![None; planned.len()];
    for by_name in [true, false] {
        for (planned, found) in planned.iter().zip(&mut others).filter(|(_, found)| found.is_none()) {
            for (at, (path, disk)) in left.iter().enumerate() {
                if (!by_name || has_name(path, planned.name.as_deref())) && disk.compare(planned)?.is_empty() {
                    *found = Some(left.remove(at).0);
                    break;
                }
            }
        }
    }
    let mut left = left.into_iter().map(|(path, _)| path);
    let other_disks = others.into_iter().filter_map(|path| path.or_else(|| left.next())).collect();
    let request = InjectRequest { image, other_disks, windows_disk: None, ..request.clone() };
    report.add_disks(&request);
    observer.image(&request.image);
    Ok(request)
}

/// Index of the disk that the plan is for: the one that holds all that was read of it, of several such the one with its
/// name. If none does, the one that is most like it, so that the differences are found there.
fn find_windows(plan: &SavedPlan, disks: &[(PathBuf, OtherDisk)]) -> Result<usize> {
    let document = plan.document();
    let (mut same, mut alike) = (Vec::new(), Vec::new());
    for (index, (path, disk)) in disks.iter().enumerate() {
        if disk.facts()? != document.disk {
            continue;
        }
        alike.push((index, path));
        if document.reads.is_unchanged(&disk.stage.original())? {
            same.push((index, path));
        }
    }
    let named = |found: &[(usize, &PathBuf)]| {
        let mut named = found.iter().filter(|(_, path)| has_name(path, document.image.as_deref()));
        named.next().filter(|_| named.next().is_none()).map(|(index, _)| *index)
    };
    match same.as_slice() {
        [(only, _)] => Ok(*only),
        [] => Ok(named(&alike).or_else(|| alike.first().map(|(index, _)| *index)).unwrap_or(0)),
        several => named(several).ok_or_else(|| ambiguous(plan, several)),
    }
}

fn has_name(path: &Path, name: Option<&str>) -> bool {
    name.is_some() && name_in_plan(path) == name
}

fn ambiguous(plan: &SavedPlan, disks: &[(usize, &PathBuf)]) -> Error {
    let names: Vec<String> = disks.iter().map(|(_, path)| path.display().to_string()).collect();
    let what = format!("cannot tell which disk the plan is for: {} hold the same", names.join(" and "));
    let name = plan.document().image.as_deref().unwrap_or("the name in the plan");
    Error::refused(Layer::Job, what).path(plan.path().display().to_string()).hint(format!(
        "give the disk that Windows starts from the name that the plan has for it, {name}, and no other disk that name"
    ))
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
