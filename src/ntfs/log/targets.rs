//! Whether the clusters that a replay changed belong to the attributes that the log names.

use std::collections::{BTreeMap, BTreeSet};

use super::refusal::refuse;
use super::summary::Target;
use super::view::View;
use crate::error::Result;
use crate::ntfs::attribute::AttributeType;
use crate::ntfs::file_name::FileName;
use crate::ntfs::name::NtfsName;
use crate::ntfs::record::Record;
use crate::ntfs::units::{FileId, RecordNumber};

/// Clusters of attributes that are kept.
const TOUCHES_MAX: usize = 1 << 18;

/// The clusters that a replay changed, and in whose name.
///
/// Each has to belong to that attribute at the end, when the open transactions are taken back; or it has to be free then,
/// which is what a transaction leaves that had allocated it. Otherwise the log is of another volume, or was forged, or a
/// stale address leads into the data of a user.
#[derive(Debug, Default)]
pub(super) struct Touched {
    targets: Vec<Target>,
    numbers: BTreeMap<(u64, u32, Vec<u16>), usize>,
    /// Cluster of the volume, attribute, cluster of the attribute.
    clusters: BTreeSet<(u64, usize, u64)>,
    /// Ordinary records whose data were written, and the record of the log that did.
    data: BTreeMap<u64, u64>,
}

/// Folders on the way from a system file to `$Extend`, at most.
const FOLDERS_MAX: usize = 16;

/// System files whose data are never in a log of Windows: each is written by other means, or never.
const UNLOGGED: [RecordNumber; 5] = [
    RecordNumber::MFT_MIRROR,
    RecordNumber::LOG_FILE,
    RecordNumber::BOOT,
    RecordNumber::BAD_CLUSTERS,
    RecordNumber::UPCASE,
];

impl Touched {
    /// Notes that a cluster was changed in the name of an attribute.
    ///
    /// # Errors
    /// Refused, when there are too many.
    pub fn add(&mut self, target: &Target, vcn: u64, lcn: u64) -> Result<()> {
        let key = (target.file.to_raw(), target.kind.0, target.name.units().to_vec());
        let number = match self.numbers.get(&key) {
            Some(&number) => number,
            None => {
                self.targets.push(target.clone());
                self.numbers.insert(key, self.targets.len() - 1);
                self.targets.len() - 1
            }
        };
        self.clusters.insert((lcn, number, vcn));
        if self.clusters.len() > TOUCHES_MAX {
            return Err(refuse("it changes too many clusters"));
        }
        Ok(())
    }

    /// Notes that the record `lsn` writes bytes of an attribute. Windows logs those of its own files' data, and never what
    /// a user wrote: [`check_data`](Self::check_data) tells whose file it is.
    ///
    /// # Errors
    /// Refused, when it is the data of a system file that is not logged either.
    pub fn add_bytes(&mut self, target: &Target, lsn: u64) -> Result<()> {
        let number = target.file.record;
        if target.kind != AttributeType::DATA {
            return Ok(());
        }
        if UNLOGGED.contains(&number) {
            return Err(refuse(format!("it writes data of the system file {number}, which Windows never logs")));
        }
        if number >= RecordNumber::FIRST_USER {
            self.data.entry(target.file.to_raw()).or_insert(lsn);
        }
        Ok(())
    }

    /// Checks that the data that were written are not those of a user's file, as the files are in `view`.
    ///
    /// # Errors
    /// Refused, when they are.
    pub fn check_data(&self, view: &View<'_>) -> Result<()> {
        for (&file, lsn) in &self.data {
            let file = FileId::from_raw(file);
            if existing(view, file)?.is_some() && !is_below_extend(view, file)? {
                return Err(refuse(format!(
                    "the record {lsn:#x} writes data of file {file}, which does not belong to the file system: \
                     Windows never logs that"
                )));
            }
        }
        Ok(())
    }

    /// Checks that each cluster belongs to its attribute in `view`, the volume at the end of the replay, or is free there:
    /// by `$Bitmap` as well as by the runs of all files.
    ///
    /// # Errors
    /// Refused, when one belongs to something else; damaged, when a list of runs makes no sense.
    pub fn check_clusters(&self, view: &View<'_>) -> Result<()> {
        let extents: Vec<_> = self.targets.iter().map(|target| view.extents(target)).collect::<Result<_>>()?;
        let file = FileId { record: RecordNumber::BITMAP, sequence: RecordNumber::BITMAP.0 as u16 };
        let bitmap = Target { file, kind: AttributeType::DATA, name: NtfsName::default() };
        let bitmap = view.extents(&bitmap)?.ok_or_else(|| refuse("$Bitmap cannot be read"))?;
        let mut free = BTreeSet::new();
        for &(lcn, number, vcn) in &self.clusters {
            let extents = extents.get(number).and_then(Option::as_ref);
            if extents.and_then(|extents| extents.cluster(vcn)) == Some(lcn) {
                continue;
            }
            if !view.is_free(&bitmap, lcn)? {
                return Err(refuse(self.describe(lcn)));
            }
            free.insert(lcn);
        }
        match view.owner_of_any(&free)? {
            Some((lcn, owner)) => Err(refuse(format!(
                "{}: it belongs to file {owner}, although $Bitmap has it as free",
                self.describe(lcn)
            ))),
            None => Ok(()),
        }
    }

    /// What was written to a cluster of something else.
    fn describe(&self, lcn: u64) -> String {
        let (target, vcn) = match self.clusters.range((lcn, 0, 0)..).next() {
            Some(&(_, number, vcn)) => {
                (self.targets.get(number).map(|t| format!("{} of file {}", t.kind, t.file)), vcn)
            }
            None => (None, 0),
        };
        format!(
            "it writes to cluster {lcn}, as cluster {vcn} of {}, to which that does not belong",
            target.unwrap_or_default()
        )
    }
}

/// The record of a file that exists.
fn existing(view: &View<'_>, file: FileId) -> Result<Option<Record>> {
    let record = view.record(file.record)?;
    Ok(record.filter(|record| record.is_in_use() && record.sequence() == file.sequence))
}

/// Whether a file lies in `$Extend`, which no user can write to, or in a folder there.
fn is_below_extend(view: &View<'_>, mut file: FileId) -> Result<bool> {
    for _ in 0..FOLDERS_MAX {
        if file.record < RecordNumber::FIRST_USER {
            return Ok(file.record == RecordNumber::EXTEND);
        }
        let Some(record) = existing(view, file)? else { return Ok(false) };
        let mut parents = BTreeSet::new();
        for (_, attribute) in record.attributes() {
            if let Some(name) = attribute.value().filter(|_| attribute.kind() == AttributeType::FILE_NAME) {
                parents.insert(FileName::parse(name)?.parent.to_raw());
            }
        }
        match (parents.pop_first(), parents.is_empty()) {
            (Some(parent), true) => file = FileId::from_raw(parent),
            _ => return Ok(false),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FileTime;
    use crate::io::MemoryVolume;
    use crate::ntfs::attribute::{StreamSizes, build_non_resident, build_resident};
    use crate::ntfs::boot::Geometry;
    use crate::ntfs::file_name::{Duplicate, Times};
    use crate::ntfs::log::overlay::Changes;
    use crate::ntfs::record::FLAG_IN_USE;
    use crate::ntfs::runlist::Runlist;
    use crate::ntfs::units::Lcn;

    /// Records of `$MFT`, which lies from cluster 0 on; a cluster is as long as a record.
    const RECORDS: u64 = 40;

    fn file(number: u64) -> FileId {
        FileId { record: RecordNumber(number), sequence: 1 }
    }

    fn name(parent: u64) -> Vec<u8> {
        let duplicate = Duplicate { times: Times::all(FileTime(1)), allocated: 0, data_size: 0, attributes: 0, tag: 0 };
        let name = FileName {
            parent: file(parent),
            duplicate,
            namespace: crate::ntfs::name::Namespace::Posix,
            name: "name".into(),
        };
        build_resident(AttributeType::FILE_NAME, &NtfsName::default(), &name.encode())
    }

    /// A volume with files in these folders, by record number.
    fn volume(names: &[(u64, &[u64])]) -> (MemoryVolume, Geometry) {
        let mut bytes = vec![0; 1024 * RECORDS as usize];
        let mut runs = Runlist::default();
        runs.push(Some(Lcn(0)), RECORDS);
        let length = bytes.len() as u64;
        let sizes = StreamSizes { allocated: length, data: length, initialized: length, ..StreamSizes::default() };
        let mft = build_non_resident(AttributeType::DATA, &NtfsName::default(), &runs, &sizes, 0);
        let names = names.iter().map(|(number, parents)| (*number, parents.iter().map(|&p| name(p)).collect()));
        for (number, attributes) in [(0, vec![mft])].into_iter().chain(names) {
            let mut record = Record::blank(RecordNumber(number), 1, FLAG_IN_USE, 1024);
            record.set_attributes(attributes.iter().map(Vec::as_slice)).unwrap();
            bytes[1024 * number as usize..][..1024].copy_from_slice(&record.seal().unwrap());
        }
        let geometry = Geometry {
            sector_size: 512,
            cluster_size: 1024,
            total_sectors: 2 * RECORDS,
            cluster_count: RECORDS,
            mft: Lcn(0),
            mirror: Lcn(0),
            record_size: 1024,
            index_block_size: 4096,
            serial: 0,
        };
        (MemoryVolume(bytes), geometry)
    }

    #[test]
    fn only_data_of_the_file_systems_own_files_are_written() {
        let (device, geometry) =
            volume(&[(24, &[11]), (25, &[24]), (26, &[5]), (27, &[26]), (28, &[11, 5]), (29, &[29]), (30, &[])]);
        let changes = Changes::new(&device);
        let view = View::new(&changes, &geometry).unwrap();
        let write = |number: u64, kind: AttributeType| {
            let mut touched = Touched::default();
            touched.add_bytes(&Target { file: file(number), kind, name: "stream".into() }, 7)?;
            touched.check_data(&view)
        };
        // $AttrDef, $Bitmap, $Secure; files of $Extend; one that exists no more
        for number in [4, 6, 9, 24, 25, 33] {
            write(number, AttributeType::DATA).unwrap();
        }
        for number in [1, 2, 7, 8, 10, 26, 27, 28, 29, 30] {
            assert!(write(number, AttributeType::DATA).is_err(), "{number}");
            write(number, AttributeType::ATTRIBUTE_LIST).unwrap();
        }
    }
}
