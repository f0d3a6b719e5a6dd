//! Whether a saved plan still fits its image: every difference in a sentence.

use super::document::{DiskFacts, HiveFacts, PartitionFacts, PlanDocument, VolumeFacts};
use super::facts::ImageFacts;

/// A difference for people, when the two are not equal.
fn differs<T: PartialEq + std::fmt::Display>(what: &str, planned: T, found: T) -> Option<String> {
    (planned != found).then(|| format!("{what} is {found}, not {planned}"))
}

fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

impl DiskFacts {
    /// How a disk, `what` it is called, differs from this one; empty if it does not.
    #[must_use]
    pub fn compare(&self, found: &Self, what: &str) -> Vec<String> {
        let size = |facts: &Self| format!("{} bytes", facts.size);
        let mut out = Vec::new();
        out.extend(differs(&format!("the size of {what}"), size(self), size(found)));
        out.extend(differs(&format!("the partition table of {what}"), self.scheme, found.scheme));
        out.extend(differs(&format!("the size of a sector of {what}"), self.sector, found.sector));
        out.extend(differs(&format!("the id of {what}"), or_none(self.id.as_ref()), or_none(found.id.as_ref())));
        out
    }
}

impl PlanDocument {
    /// How the disk and its partition differ from those of the plan; empty if they do not. To be asked first: the other
    /// facts are those of what lies in the partition.
    #[must_use]
    pub fn compare_disk(&self, disk: &DiskFacts, found: &PartitionFacts) -> Vec<String> {
        let mut out = self.disk.compare(disk, "the disk");
        let planned = &self.partition;
        let place = |facts: &PartitionFacts| format!("{:#x}+{:#x}", facts.start, facts.length);
        let what = format!("partition {}", planned.number);
        out.extend(differs(&format!("the place of {what}"), place(planned), place(found)));
        out.extend(differs(&format!("the id of {what}"), or_none(planned.id.as_ref()), or_none(found.id.as_ref())));
        out
    }

    /// How the volume and its hives differ from those of the plan; empty if they do not.
    #[must_use]
    pub fn compare_volume(&self, found: &ImageFacts) -> Vec<String> {
        let mut out = compare_volume(&self.volume, &found.volume);
        for planned in &self.hives {
            match found.hives.iter().find(|hive| hive.hive == planned.hive) {
                Some(found) => out.extend(compare_hive(planned, found)),
                None => out.push(format!("the {} hive is gone", planned.hive)),
            }
        }
        let is_new = |hive: &&HiveFacts| !self.hives.iter().any(|planned| planned.hive == hive.hive);
        out.extend(found.hives.iter().filter(is_new).map(|new| format!("the {} hive is new", new.hive)));
        out
    }
}

fn compare_volume(planned: &VolumeFacts, found: &VolumeFacts) -> Vec<String> {
    let mut out = Vec::new();
    out.extend(differs("the serial number of the volume", planned.serial, found.serial));
    let moved = differs("the position of $LogFile", or_none(planned.log_position), or_none(found.log_position));
    let is_changed = moved.is_none() && planned.log_sha256 != found.log_sha256;
    out.extend(moved.or_else(|| is_changed.then(|| "the head of $LogFile has changed".to_owned())));
    out
}

fn compare_hive(planned: &HiveFacts, found: &HiveFacts) -> Vec<String> {
    let mut out = Vec::new();
    if (planned.size, planned.sha256) != (found.size, found.sha256) {
        out.push(format!("the {} hive has changed", planned.hive));
    }
    for log in &planned.logs {
        let what = format!("{}{}", planned.hive, log.name);
        match found.logs.iter().find(|found| found.name == log.name) {
            Some(found) if found == log => {}
            Some(_) => out.push(format!("the log {what} has changed")),
            None => out.push(format!("the log {what} is gone")),
        }
    }
    let is_new = |log: &&super::document::LogFile| !planned.logs.iter().any(|planned| planned.name == log.name);
    out.extend(found.logs.iter().filter(is_new).map(|new| format!("the log {}{} is new", planned.hive, new.name)));
    out
}
