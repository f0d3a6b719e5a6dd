//! Recovery from an interrupted run.

use std::path::Path;

use super::explain::explain;
use super::request::{Destination, Observer, observe_passes};
use super::step::Step;
use crate::block::commit::{InterruptedRun, JournalPass, Recovered, Recovery};
use crate::block::{ImageName, PathPolicy, commit};
use crate::cancel::{Cancel, Reached};
use crate::error::Result;
use crate::host::{FileStorage, Storage, several_names};
use crate::nbd::NbdOptions;

/// Completes an interrupted edit in place of `image`, or rolls it back. What is needed lies in the journal next to the
/// image: neither the drivers nor the options of the interrupted job are. Without a journal nothing is touched.
///
/// `policy` must [allow](PathPolicy::allow) the image's data file by its own name, if it has one: a journal alone makes
/// nothing be written to another file. A recovery that has begun is finished even if `cancel` is requested.
///
/// ```no_run
/// use winject::{Cancel, PathPolicy, Recovery, Silent, recover};
///
/// # fn main() -> winject::Result<()> {
/// if recover("guest.qcow2".as_ref(), &PathPolicy::default(), &Cancel::default(), &Silent)? == Recovery::Restored {
///     println!("the image holds its old content again");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Kind::Pending`](crate::Kind::Pending) when there is a journal that does not count or cannot be applied, or when
/// `image` is the data file of the image to recover; [`Kind::Refused`](crate::Kind::Refused) when the image is in use or
/// the policy does not allow its data file to be written; [`Kind::Io`](crate::Kind::Io) when there is no such file;
/// [`Kind::Usage`](crate::Kind::Usage) for a journal in place of its image.
pub fn recover(image: &Path, policy: &PathPolicy, cancel: &Cancel, observer: &dyn Observer) -> Result<Recovery> {
    let recovered = recover_image(image, policy, &NbdOptions::default(), cancel, observer);
    recovered.map(|recovered| recovered.recovery)
}

/// Like [`recover`], also for an NBD export, whose journal is in the folder that `nbd` names.
///
/// # Errors
/// Those of [`recover`]; [`Kind::Refused`](crate::Kind::Refused) for an export without a folder for journals.
pub fn recover_image(
    image: &Path,
    policy: &PathPolicy,
    nbd: &NbdOptions,
    cancel: &Cancel,
    observer: &dyn Observer,
) -> Result<Recovered> {
    observer.step(Step::Open);
    let on_progress = observe_journal(observer);
    let recover = || {
        let _hold = cancel.hold()?;
        let (file, result) = match ImageName::of(image) {
            ImageName::File(image) => {
                // A file that is not there has no journal either: that would pass for an image without one.
                let file = FileStorage::open(image, false)?;
                let recovered = commit::recover_with_progress(image, policy, &on_progress);
                (Some(file), recovered.map(Recovered::from))
            }
            ImageName::Nbd(name) => (None, commit::recover_export(name, nbd, &on_progress)),
        };
        cancel.reach_by(&result, |recovered| match recovered.recovery {
            Recovery::Nothing | Recovery::NotWritten => Reached::Start,
            Recovery::Restored => Reached::RolledBack,
            Recovery::Completed => Reached::CommitPoint,
            Recovery::Undone => Reached::Undone,
            Recovery::GivenUp => Reached::Recovery,
        });
        if result.as_ref().is_ok_and(|done| done.recovery == Recovery::Nothing)
            && file.is_some_and(|file| file.has_other_names())
        {
            return Err(several_names(image, "the journal of an interrupted run may lie next to another one"));
        }
        result
    };
    recover().map_err(explain)
}

/// Finds out, without writing, whether [`recover_image`] has something to do for `image`.
///
/// # Errors
/// Those of [`recover`], except what only writing can fail with.
pub fn find_interrupted(image: &Path, nbd: &NbdOptions) -> Result<Option<InterruptedRun>> {
    let find = || match ImageName::of(image) {
        ImageName::File(image) => commit::find_interrupted(image, &FileStorage::open(image, false)?),
        ImageName::Nbd(name) => commit::find_interrupted_export(name, nbd),
    };
    find().map_err(explain)
}

/// Makes each part of an undo or a recovery a step of `observer`, with its bytes.
pub(super) fn observe_journal(observer: &dyn Observer) -> impl Fn(JournalPass, u64, u64) {
    observe_passes(observer, |pass| match pass {
        JournalPass::Read => Step::ReadJournal,
        JournalPass::Compare => Step::CompareJournal,
        JournalPass::Copy => Step::CopyJournal,
        JournalPass::Restore => Step::Restore,
        JournalPass::Complete => Step::CompleteRun,
    })
}

/// What it means that an interrupted undo was given up, as a clause.
pub(crate) const UNDO_GIVEN_UP: &str = "an interrupted undo was given up, because another program has written to the image since: the image holds the edit, and \
     what that program wrote";

/// Recovers `image` before a job, if the job may write to it. Other jobs leave it as it is, and opening the image refuses
/// it.
///
/// # Errors
/// [`Kind::Pending`](crate::Kind::Pending) when that is impossible.
pub(super) fn recover_first(
    image: &Path,
    policy: &PathPolicy,
    destination: &Destination,
    cancel: &Cancel,
    observer: &dyn Observer,
) -> Result<Recovery> {
    if *destination != Destination::InPlace {
        return Ok(Recovery::Nothing);
    }
    // Opening an export refuses it: nothing keeps another machine from editing it.
    let ImageName::File(image) = ImageName::of(image) else { return Ok(Recovery::Nothing) };
    let _hold = cancel.hold()?;
    let recovery = commit::recover_with_progress(image, policy, &observe_journal(observer))?;
    if recovery != Recovery::Nothing {
        cancel.reach(Reached::Recovery);
    }
    Ok(recovery)
}
