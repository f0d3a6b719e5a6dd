//! Whether the clusters that a replay changed belong to the attributes that the log names.

use std::collections::{BTreeMap, BTreeSet};

use super::refusal::refuse;
use super::summary::Target;
use super::view::View;
use crate::error::Result;
use crate::ntfs::attribute::AttributeType;
use crate::ntfs::name::NtfsName;
use crate::ntfs::units::{FileId, RecordNumber};

/// Clusters of attributes that are kept.
const TOUCHES_MAX: usize = 1 << 18;

/// The clusters that a replay changed, and in whose name.
///
/// Each has to belong to that attribute when all is redone, or when the open transactions are taken back as well; or it
/// has to be free then. Otherwise the log is of another volume, or a stale address leads into the data of a user.
#[derive(Debug, Default)]
pub(super) struct Touched {
    targets: Vec<Target>,
    numbers: BTreeMap<(u64, u32, Vec<u16>), usize>,
    /// Cluster of the volume, attribute, cluster of the attribute.
    open: BTreeSet<(u64, usize, u64)>,
    verified: BTreeSet<u64>,
}

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
        self.open.insert((lcn, number, vcn));
        if self.open.len() > TOUCHES_MAX {
            return Err(refuse("it changes too many clusters"));
        }
        Ok(())
    }

    /// Compares with the runs of the attributes as they are in `view`.
    ///
    /// # Errors
    /// Damaged, when a list of runs makes no sense.
    pub fn verify(&mut self, view: &View<'_>) -> Result<()> {
        let extents: Vec<_> = self.targets.iter().map(|target| view.extents(target)).collect::<Result<_>>()?;
        for &(lcn, number, vcn) in &self.open {
            let extents = extents.get(number).and_then(Option::as_ref);
            if extents.and_then(|extents| extents.cluster(vcn)) == Some(lcn) {
                self.verified.insert(lcn);
            }
        }
        Ok(())
    }

    /// Checks that all clusters were [verified](Self::verify), or are free in `view`.
    ///
    /// # Errors
    /// Refused, when one belongs to something else.
    pub fn require(&self, view: &View<'_>) -> Result<()> {
        let file = FileId { record: RecordNumber::BITMAP, sequence: RecordNumber::BITMAP.0 as u16 };
        let bitmap = Target { file, kind: AttributeType::DATA, name: NtfsName::default() };
        let bitmap = view.extents(&bitmap)?.ok_or_else(|| refuse("$Bitmap cannot be read"))?;
        for &(lcn, number, vcn) in &self.open {
            if self.verified.contains(&lcn) || view.is_free(&bitmap, lcn)? {
                continue;
            }
            let target = self.targets.get(number).map(|t| format!("{} of file {}", t.kind, t.file));
            return Err(refuse(format!(
                "it writes to cluster {lcn}, as cluster {vcn} of {}, to which that does not belong",
                target.unwrap_or_default()
            )));
        }
        Ok(())
    }
}
