//! Judgement of a document: everything that does not need the image to be judged.

use std::collections::BTreeMap;

use super::data::Sha256Sum;
use super::document::{
    BusVerdict, DiskFacts, FindingLevel, OtherDiskFacts, PlanDocument, ReadSet, SavedFile, SavedFileContent,
};
use super::edit::SavedEdit;
use super::limits::{
    CONTENT_BYTES_MAX, INLINE_BYTES_MAX, ITEMS_MAX, NUMBER_MAX, OTHER_DISKS_MAX, RANGES_MAX, STEPS_MAX, TEXT_BYTES_MAX,
    wrong,
};
use super::steps::{judge_path, judge_steps};
use super::uploads::{FILE_BYTES_MAX, judge_uploads};
use crate::drivers::source::FILE_SIZE_MAX;
use crate::error::Result;
use crate::guid::Guid;
use crate::hex;
use crate::hive::{HIVE_BYTES_MAX, LOG_BYTES_MAX, LOG_ENDINGS};
use crate::partition::Scheme;
use crate::plan::boot::{BootPlace, STORES, fallback_loader};
use crate::plan::change::GuestHive;

/// The buses that the boot check knows.
const BUSES: [&str; 2] = ["virtio-blk", "virtio-scsi"];

impl PlanDocument {
    /// Whether this can be a plan of winject: sizes and numbers are within their limits, every place is one that winject
    /// writes to, every content is the one that its hash names, and no two parts contradict each other. Nothing of it is
    /// compared with an image.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind::Usage) naming the first part that is wrong.
    pub fn judge(&self) -> Result<()> {
        self.judge_identity()?;
        self.judge_boot()?;
        self.judge_hives()?;
        judge_reads(&self.reads, &self.disk, "reads")?;
        self.judge_others()?;
        self.judge_verdict()?;
        self.judge_texts()?;
        if self.steps.len() > STEPS_MAX {
            return Err(wrong("steps", format!("more than {STEPS_MAX} edits")));
        }
        judge_uploads(self)?;
        let sizes = self.judge_files()?;
        judge_steps(self, &sizes)
    }

    fn judge_identity(&self) -> Result<()> {
        let Self { disk, partition, windows, .. } = self;
        require(self.image.as_ref().is_none_or(is_bare_name), "image", "not the name of a file")?;
        judge_disk(disk, "disk")?;
        let id = partition.id.as_deref();
        let fits = match disk.scheme {
            Scheme::Gpt => id.is_none_or(is_guid),
            Scheme::Mbr => id.is_none(),
            Scheme::Bare => id.is_none() && partition.number == 0,
        };
        require(fits, "partition", "its id is not one of the disk's partition table")?;
        let end = partition.start.checked_add(partition.length);
        require(partition.length > 0 && end.is_some_and(|end| end <= disk.size), "partition", "not on the disk")?;
        let config = format!("{}/System32/config", windows.folder);
        require(windows.config == config, "windows", "the folder of the hives is not below the Windows folder")?;
        judge_path(&windows.config).map_err(|why| wrong("windows", why))
    }

    fn judge_boot(&self) -> Result<()> {
        let is_edited = self.steps.iter().any(|step| step.edit.is_of_boot_volume());
        require(is_edited == self.boot.is_some(), "boot", "a boot volume and no edit of it, or the reverse")?;
        let other_loader = self.steps.iter().find(|step| match &step.edit {
            SavedEdit::CopyBootFile { path, .. } => path != fallback_loader(self.windows.arch),
            _ => false,
        });
        require(other_loader.is_none(), "steps", "a fallback loader for another CPU")?;
        let Some(BootPlace { start, length, store, .. }) = &self.boot else { return Ok(()) };
        let end = start.checked_add(*length);
        require(*length > 0 && end.is_some_and(|end| end <= self.disk.size), "boot", "not on the disk")?;
        require(STORES.contains(&store.as_str()), "boot", "not the path of a boot configuration")
    }

    fn judge_hives(&self) -> Result<()> {
        let in_order = self.hives.is_sorted_by(|a, b| a.hive < b.hive);
        require(in_order, "hives", "each is listed once, in the order of writing")?;
        for facts in &self.hives {
            let ordered = facts.logs.is_sorted_by(|a, b| a.name < b.name);
            let known = facts.logs.iter().all(|log| LOG_ENDINGS.contains(&log.name.as_str()));
            require(ordered && known, "hives", "unknown log files")?;
            let fits = facts.size <= HIVE_BYTES_MAX && facts.logs.iter().all(|log| log.size <= LOG_BYTES_MAX);
            require(fits, "hives", "larger than Windows supports")?;
        }
        let edited = GuestHive::ALL.into_iter().filter(|hive| self.steps.iter().any(|s| s.edit.hive() == Some(*hive)));
        for hive in edited {
            require(self.hives.iter().any(|facts| facts.hive == hive), "hives", "an edited hive is not listed")?;
        }
        Ok(())
    }

    fn judge_others(&self) -> Result<()> {
        require(self.others.len() <= OTHER_DISKS_MAX, "others", "more disks than a machine has")?;
        let in_order = self.others.is_sorted_by(|a, b| a.name <= b.name);
        require(in_order, "others", "the disks are not in the order of their names")?;
        for OtherDiskFacts { name, disk, reads } in &self.others {
            require(name.as_ref().is_none_or(is_bare_name), "others", "not the name of a file")?;
            judge_disk(disk, "others")?;
            judge_reads(reads, disk, "others")?;
        }
        Ok(())
    }
}

fn is_bare_name(name: &String) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

fn is_guid(id: &str) -> bool {
    Guid::parse(id).is_some_and(|guid| guid.braced() == id)
}

fn judge_disk(disk: &DiskFacts, part: &str) -> Result<()> {
    require(disk.size <= NUMBER_MAX, part, "larger than any disk")?;
    require([512, 4096].contains(&disk.sector), part, "a sector has 512 or 4096 bytes")?;
    let is_signature = |id: &str| {
        let digits = id.strip_prefix("0x").and_then(hex::decode);
        digits.is_some_and(|bytes| bytes.len() == 4 && format!("0x{}", hex::encode(&bytes)) == id)
    };
    let id = disk.id.as_deref();
    let fits = match disk.scheme {
        Scheme::Gpt => id.is_none_or(is_guid),
        Scheme::Mbr => id.is_none_or(is_signature),
        Scheme::Bare => id.is_none(),
    };
    require(fits, part, "its id is not one of its partition table")
}

/// What was read of a disk.
fn judge_reads(reads: &ReadSet, disk: &DiskFacts, part: &str) -> Result<()> {
    require(reads.ranges.len() <= RANGES_MAX, part, &format!("more than {RANGES_MAX} ranges"))?;
    let (mut end, mut sum) = (None, 0_u64);
    for range in &reads.ranges {
        let after = end.is_none_or(|end| range.start > end);
        require(after && range.length > 0, part, "the ranges are not in ascending order")?;
        let last = range.start.checked_add(range.length).filter(|last| *last <= disk.size);
        require(last.is_some(), part, "a range is not on the disk")?;
        (end, sum) = (last, sum.saturating_add(range.length));
    }
    require(sum == reads.bytes, part, "the lengths of the ranges have another sum")
}

impl PlanDocument {
    fn judge_verdict(&self) -> Result<()> {
        for verdicts in [&self.verdict.before, &self.verdict.after] {
            require(BUSES.iter().eq(verdicts.iter().map(|verdict| &verdict.bus)), "verdict", "not one for each bus")?;
            verdicts.iter().try_for_each(judge_bus)?;
        }
        // A reviewer reads the verdict, and apply enforces what is expected: the two are one claim.
        let booting = self.verdict.after.iter().filter(|verdict| verdict.boots).map(|verdict| &verdict.bus);
        let expects = &self.expects;
        require(booting.eq(&expects.boots_from), "expects", "it expects another verdict than the one that it shows")?;
        let any = !expects.boots_from_any || !expects.boots_from.is_empty();
        require(any, "verdict", "the guest does not boot as it has to")
    }

    fn judge_texts(&self) -> Result<()> {
        let lists = [self.notes.len(), self.warnings.len(), self.drivers.len()];
        require(lists.into_iter().all(|count| count <= ITEMS_MAX), "warnings", "too many")?;
        let of_drivers = self.drivers.iter().flat_map(|driver| {
            [Some(&driver.name), Some(&driver.inf), driver.version.as_ref(), driver.signer.as_ref()]
                .into_iter()
                .flatten()
        });
        let own = [&self.tool, &self.windows.text]
            .into_iter()
            .chain(&self.image)
            .chain(self.others.iter().filter_map(|other| other.name.as_ref()));
        let mut texts = own.chain(&self.notes).chain(&self.warnings).chain(of_drivers);
        require(texts.all(|text| text.len() <= TEXT_BYTES_MAX), "texts", "longer than any text of winject")?;
        let fits = self.drivers.iter().all(|driver| driver.signed || driver.signer.is_none());
        require(fits, "drivers", "a signer without a signature")
    }

    /// The contents; returns the size of each by its hash.
    fn judge_files(&self) -> Result<BTreeMap<Sha256Sum, u64>> {
        let in_order = self.files.is_sorted_by(|a, b| a.sha256 < b.sha256);
        require(in_order, "files", "each is listed once, in the order of the hashes")?;
        let mut sum = 0_u64;
        for file in &self.files {
            judge_content(file).map_err(|why| wrong(&format!("files: {}", file.sha256), why))?;
            sum = sum.saturating_add(file.size);
        }
        require(sum <= CONTENT_BYTES_MAX, "files", "more content than any driver media hold")?;
        Ok(self.files.iter().map(|file| (file.sha256, file.size)).collect())
    }
}

fn judge_bus(verdict: &BusVerdict) -> Result<()> {
    let is_word = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        (1..=40).contains(&text.len()) && text.bytes().all(allowed)
    };
    require(verdict.findings.len() <= ITEMS_MAX, "verdict", "too many findings")?;
    for finding in &verdict.findings {
        require(is_word(&finding.gate) && is_word(&finding.code), "verdict", "unknown gates or codes")?;
        require(finding.text.len() <= TEXT_BYTES_MAX, "verdict", "a finding longer than any of winject")?;
        let fits = !(verdict.boots && finding.level == FindingLevel::Failure);
        require(fits, "verdict", "a guest that boots in spite of a failure")?;
    }
    Ok(())
}

/// Why a content is not what its hash names, or is not spelled as winject does it.
fn judge_content(file: &SavedFile) -> std::result::Result<(), &'static str> {
    let bytes = match &file.content {
        SavedFileContent::Media(path) => {
            let is_name = |part: &str| !part.is_empty() && part != "." && part != "..";
            return match () {
                () if file.size > FILE_SIZE_MAX => Err("larger than files of driver media may be"),
                () if path.len() > TEXT_BYTES_MAX || !path.split('/').all(is_name) => {
                    Err("the path is not one of driver media")
                }
                () => Ok(()),
            };
        }
        SavedFileContent::Host(name) => {
            return match () {
                () if file.size > FILE_BYTES_MAX => Err("larger than a file of the user may be"),
                () if name.len() > TEXT_BYTES_MAX || !is_bare_name(name) => Err("not the name of a file"),
                () => Ok(()),
            };
        }
        SavedFileContent::Text(text) => text.as_bytes().to_vec(),
        SavedFileContent::Hex(digits) => {
            let bytes = hex::decode(digits).filter(|bytes| hex::encode(bytes) == *digits);
            bytes.filter(|bytes| std::str::from_utf8(bytes).is_err()).ok_or("not spelled as winject does it")?
        }
    };
    match () {
        () if bytes.len() as u64 > INLINE_BYTES_MAX => Err("larger than a document may hold"),
        () if bytes.len() as u64 != file.size => Err("its size is another"),
        () if Sha256Sum::of(&bytes) != file.sha256 => Err("its hash is another"),
        () => Ok(()),
    }
}

fn require(is_right: bool, part: &str, why: &str) -> Result<()> {
    if is_right { Ok(()) } else { Err(wrong(part, why)) }
}
