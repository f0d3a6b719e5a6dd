//! Counts over the results of a fleet. Memory does not grow with the number of items: texts are kept of a bounded number of
//! groups, and of the slowest items.

use std::collections::BTreeMap;

use super::outcome::{Outcome, Verdict};
use super::record::Finished;
use crate::escape::shorten;

/// Groups of reasons, and of warnings, that are told apart; further ones are counted together.
const GROUPS_MAX: usize = 200;
/// Characters of a text that is kept.
const TEXT_MAX: usize = 300;
/// Items among the slowest.
const SLOWEST: usize = 10;

/// Items that have something in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// How many there are.
    pub count: u64,
    /// The id of the first.
    pub first: String,
    /// What the first says can be done next.
    pub hint: Option<String>,
}

/// An item that took long.
#[derive(Debug, Clone, PartialEq)]
pub struct Slow {
    /// Its id.
    pub id: String,
    /// Seconds from the start of its worker to its end.
    pub seconds: f64,
}

/// Counts over results.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Number of items by what became of them.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Items that are not done, by outcome and by the stable code of their error (`-` without one).
    pub reasons: BTreeMap<(Outcome, String), Group>,
    /// Items by the text of a warning, in which the item's image is called IMAGE.
    pub warnings: BTreeMap<String, Group>,
    /// Reasons and warnings that are in no group, because there were too many.
    pub ungrouped: u64,
    /// The slowest items, the slowest first.
    pub slowest: Vec<Slow>,
    /// Items for which a further attempt can succeed.
    pub retryable: u64,
    /// Seconds that all workers took.
    pub seconds: f64,
    /// Seconds of processor time of all workers.
    pub cpu_seconds: f64,
    /// Largest memory of a worker, in bytes.
    pub memory: u64,
    /// Bytes read from images.
    pub bytes_read: u64,
    /// Bytes of disks that changed or were written anew.
    pub bytes_written: u64,
    /// What all items say together.
    pub verdict: Verdict,
}

impl Tally {
    /// Counts a result.
    pub fn add(&mut self, finished: &Finished) {
        let count = self.outcomes.entry(finished.outcome).or_default();
        *count = count.saturating_add(1);
        self.verdict.add(finished.outcome, finished.retryable);
        self.retryable = self.retryable.saturating_add(u64::from(finished.retryable));
        self.seconds += positive(finished.seconds);
        self.cpu_seconds += positive(finished.cpu_seconds.unwrap_or(0.0));
        self.memory = self.memory.max(finished.memory.unwrap_or(0));
        self.bytes_read = self.bytes_read.saturating_add(finished.bytes_read);
        self.bytes_written = self.bytes_written.saturating_add(finished.bytes_written);
        let mut is_grouped = true;
        if !finished.outcome.is_done() {
            let reason = finished.reason.as_deref().unwrap_or("-");
            let key = (finished.outcome, shorten(reason, TEXT_MAX).into_owned());
            is_grouped &= add_to(&mut self.reasons, key, finished);
        }
        for warning in &finished.warnings {
            let text =
                if finished.image.is_empty() { warning.clone() } else { warning.replace(&finished.image, "IMAGE") };
            is_grouped &= add_to(&mut self.warnings, shorten(&text, TEXT_MAX).into_owned(), finished);
        }
        self.ungrouped = self.ungrouped.saturating_add(u64::from(!is_grouped));
        let seconds = positive(finished.seconds);
        let place = self.slowest.partition_point(|slow| slow.seconds >= seconds);
        if place < SLOWEST && seconds > 0.0 {
            self.slowest.insert(place, Slow { id: kept_id(finished), seconds });
            self.slowest.truncate(SLOWEST);
        }
    }

    /// How many results were counted.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.outcomes.values().fold(0, |all, count| all.saturating_add(*count))
    }

    /// How many items became this.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(&outcome).copied().unwrap_or(0)
    }

    /// The reasons, those of most items first.
    #[must_use]
    pub fn by_reason(&self) -> Vec<(&(Outcome, String), &Group)> {
        sorted(&self.reasons)
    }

    /// The warnings, those of most items first.
    #[must_use]
    pub fn by_warning(&self) -> Vec<(&String, &Group)> {
        sorted(&self.warnings)
    }
}

fn sorted<K>(groups: &BTreeMap<K, Group>) -> Vec<(&K, &Group)> {
    let mut sorted: Vec<(&K, &Group)> = groups.iter().collect();
    sorted.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    sorted
}

/// Adds an item to a group; returns whether there was one for it.
fn add_to<K: Ord>(groups: &mut BTreeMap<K, Group>, key: K, finished: &Finished) -> bool {
    if let Some(group) = groups.get_mut(&key) {
        group.count = group.count.saturating_add(1);
        return true;
    }
    let is_room = groups.len() < GROUPS_MAX;
    if is_room {
        let hint = finished.hint.as_ref().map(|hint| shorten(hint, TEXT_MAX).into_owned());
        groups.insert(key, Group { count: 1, first: kept_id(finished), hint });
    }
    is_room
}

fn kept_id(finished: &Finished) -> String {
    shorten(&finished.id, TEXT_MAX).into_owned()
}

/// The number of a foreign record, if it is one that can be added.
fn positive(number: f64) -> f64 {
    if number.is_finite() && number > 0.0 { number.min(1e12) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::testing::finished;

    #[test]
    fn many_texts_do_not_take_much_memory() {
        let mut tally = Tally::default();
        for number in 0..5000_u32 {
            let id = format!("vm-{number}");
            tally.add(&Finished {
                reason: Some(format!("code-{number}")),
                warnings: vec![format!("{}{number}", "w".repeat(10_000)), format!("warning {number}")],
                seconds: f64::from(number),
                ..finished(&id, Outcome::Refused)
            });
        }
        assert_eq!((tally.items(), tally.count(Outcome::Refused)), (5000, 5000));
        assert_eq!((tally.reasons.len(), tally.warnings.len()), (GROUPS_MAX, GROUPS_MAX));
        // The long warnings are one group.
        assert_eq!(tally.ungrouped, 5000 - (GROUPS_MAX as u64 - 1));
        assert_eq!(tally.slowest.len(), SLOWEST);
        assert!(tally.slowest.is_sorted_by(|a, b| a.seconds >= b.seconds));
        assert_eq!(tally.slowest[0].id, "vm-4999");
        assert!(tally.warnings.keys().all(|text| text.chars().count() <= TEXT_MAX));
    }

    #[test]
    fn warnings_of_two_images_are_one_group() {
        let mut tally = Tally::default();
        for id in ["a", "b"] {
            let image = format!("/vms/{id}.raw");
            let warnings = vec![format!("{image} was not shut down")];
            tally.add(&Finished { image, warnings, seconds: f64::NAN, ..finished(id, Outcome::Done) });
        }
        let groups = tally.by_warning();
        assert_eq!(groups.len(), 1);
        assert_eq!((groups[0].0.as_str(), groups[0].1.count), ("IMAGE was not shut down", 2));
        assert!(tally.seconds == 0.0 && tally.slowest.is_empty() && tally.reasons.is_empty());
    }
}
