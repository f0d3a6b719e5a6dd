//! The one sentence that a run ends with.

use super::fields::{RemovalRecord, Report};
use crate::partition::Scheme;

impl Report {
    /// The outcome of a run that succeeded, in one sentence; in two if there are several disks.
    pub(crate) fn outcome(&self, scheme: Scheme) -> String {
        let mut outcome = self.outcome_of_image(scheme);
        if self.log_replay.is_some() {
            let done = if self.run.dry_run { "is replayed first" } else { "was replayed" };
            outcome = format!("{outcome} The guest was not shut down cleanly: its NTFS log {done}.");
        }
        match self.run.other_disks.len() {
            0 => outcome,
            1 => format!("{outcome} Windows is on {}; the other disk stays as it is.", self.run.image),
            count => format!("{outcome} Windows is on {}; the other {count} disks stay as they are.", self.run.image),
        }
    }

    fn outcome_of_image(&self, scheme: Scheme) -> String {
        let windows = self.virtio.windows.as_ref().map_or_else(String::new, |windows| windows.product.clone());
        if let Some(removal) = &self.removal {
            return self.removal_outcome(removal, &format!("{windows} ({scheme})"));
        }
        // What counts is what the boot check found on the staged disk, not what was copied.
        let bound = self.boot.iter().filter(|answer| answer.boots).flat_map(|answer| &answer.routes);
        let mut drivers: Vec<&str> = bound.map(|route| route.service.as_str()).collect();
        drivers.sort_unstable_by_key(|name| name.to_lowercase());
        drivers.dedup_by(|a, b| a.eq_ignore_ascii_case(b));
        if drivers.is_empty() {
            let staged = format!("the packages are staged in {windows} ({scheme}), which will not boot from virtio");
            return match (self.run.dry_run, self.virtio.unchanged) {
                (_, true) => format!("Unchanged: {staged}; {}.", self.written_unchanged()),
                (true, false) => format!("Dry run: after this plan {staged}; nothing was written."),
                (false, false) => format!("Done: {staged}."),
            };
        }
        let what = format!("{windows} ({scheme}) boots with {}", drivers.join(" and "));
        match (self.run.dry_run, self.virtio.unchanged) {
            (_, true) => format!("Unchanged: {what} already; {}.", self.written_unchanged()),
            (true, false) => format!("Dry run: {what} after this plan; nothing was written."),
            (false, false) => format!("Done: {what}."),
        }
    }

    /// What a run wrote that had nothing to change.
    fn written_unchanged(&self) -> &'static str {
        match self.run.mode {
            "overlay" => "the new overlay is empty",
            "standalone" => "the new image is a copy",
            _ => "nothing was written",
        }
    }

    fn removal_outcome(&self, removal: &RemovalRecord, windows: &str) -> String {
        if !removal.has_manifest && !self.virtio.unchanged {
            let done =
                if self.run.dry_run { "nothing was written" } else { "only the state of the volume was changed" };
            return format!("Nothing to remove: {windows} has no manifest of winject; {done}.");
        }
        if !removal.has_manifest {
            return format!("Unchanged: {windows} has no manifest of winject, so that there is nothing to remove.");
        }
        let left = match removal.left.len() {
            0 => "nothing is left".to_owned(),
            1 => "one item is left".to_owned(),
            count => format!("{count} items are left"),
        };
        let what = format!("what winject had put into {windows}; {left}");
        if self.run.dry_run {
            format!("Dry run: would remove {what}; nothing was written.")
        } else {
            format!("Removed {what}.")
        }
    }
}
