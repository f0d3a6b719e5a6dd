//! The bound on the work that the records of a log may ask for.

use super::record::Update;
use super::refusal::refuse;
use crate::error::Result;

/// Clusters that the records of a log may name altogether: 8 for each record of a log of 256 MiB. They are looked up in
/// some seconds.
const CLUSTERS_MAX: u64 = 1 << 24;

/// Counts the clusters that the records name in one pass over a log.
#[derive(Debug, Default)]
pub(super) struct ClusterCount(u64);

impl ClusterCount {
    /// Counts those of one record.
    ///
    /// # Errors
    /// Refused, when it is one too many.
    pub fn add(&mut self, update: &Update<'_>) -> Result<()> {
        self.0 = self.0.saturating_add(update.lcns.len() as u64);
        if self.0 > CLUSTERS_MAX {
            return Err(refuse(format!("its records name more than {CLUSTERS_MAX} clusters"))
                .expected_found(format!("0..{CLUSTERS_MAX}"), self.0));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::log::record::LogRecord;
    use crate::ntfs::log::testing::operation;

    #[test]
    fn clusters_are_counted_over_all_records() {
        let mut record = LogRecord::parse_header(&[0; 0x30]).unwrap();
        record.data = operation(8, 0, &[5; 128]);
        let update = record.update().unwrap();
        let mut count = ClusterCount::default();
        for _ in 0..CLUSTERS_MAX / 128 {
            count.add(&update).unwrap();
        }
        assert!(count.add(&update).unwrap_err().to_string().contains("clusters"));
    }
}
