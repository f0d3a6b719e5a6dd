//! The checker: decides every invariant of NTFS that can be decided on a volume at rest.
//!
//! It reads `$MFT` once from end to end, then every index, and keeps a few bytes for each record and one bit for each
//! cluster, so that a System volume with half a million records takes seconds and tens of megabytes. It trusts nothing:
//! any bytes give a report, never a panic, and the work is bounded by the size of the volume.
//!
//! What is not decided:
//!
//! | not looked at | why |
//! |---|---|
//! | content of `$TxfLog`, `$Repair`, `$LogFile` records | private formats of Windows; only the log's restart pages are read |
//! | order of SIDs in `$Quota:$O`, quota charges | not known for certain; the entries are walked and matched with `$Q` |
//! | journal records before the last MiB of `$UsnJrnl:$J` | cost |
//! | `$TXF_DATA`, `$EFS`, `$EA` values | opaque to the file system |
//! | 8.3 names beyond ASCII | the machine's OEM code page is not on the volume |
//! | mirrored records from 24 on | Windows leaves them stale on volumes with large clusters |
//!
//! ```
//! use winject::internals::io::MemoryVolume;
//! use winject::internals::ntfs::check::{self, CheckOptions, Code};
//!
//! let report = check::check(&MemoryVolume(vec![0; 1 << 20]), &CheckOptions::default())?;
//! assert!(!report.is_clean());
//! assert!(report.has(Code::BootSector));
//! # Ok::<(), winject::Error>(())
//! ```

mod bits;
mod code;
mod context;
mod directory;
mod extend;
mod file;
mod index;
mod options;
mod owners;
mod record;
mod report;
mod scan;
mod secure;
mod table;
mod volume;

pub use code::{Code, Severity};
pub use options::{CheckOptions, OnProgress, Pass};
pub use owners::{Owners, cluster_owners, cluster_owners_with_progress};
pub use report::{CheckReport, Fault, Stats};

use std::collections::BTreeSet;

use context::Context;
use scan::Scan;

use crate::error::Result;
use crate::io::VolumeRead;
use crate::ntfs::units::RecordNumber;

/// Checks a whole volume.
///
/// # Errors
/// Only when the device cannot be read; whatever is wrong with the volume is in the report.
pub fn check<D: VolumeRead>(device: &D, options: &CheckOptions) -> Result<CheckReport> {
    run(device, *options, None, &|_, _, _| ())
}

/// Like [`check`], and tells how far it is.
///
/// # Errors
/// Those of [`check`].
pub fn check_with_progress<D: VolumeRead>(
    device: &D,
    options: &CheckOptions,
    on_progress: OnProgress<'_>,
) -> Result<CheckReport> {
    run(device, *options, None, on_progress)
}

/// Checks the given records, the files they belong to, the directories that name them, their bits in both bitmaps, and
/// the volume's frame. The cost follows what is named, not the volume. What lies elsewhere (another file that claims the
/// same clusters, say) is not seen.
///
/// # Errors
/// Only when the device cannot be read; whatever is wrong with the volume is in the report.
pub fn check_touched<D: VolumeRead>(
    device: &D,
    records: &[RecordNumber],
    options: &CheckOptions,
) -> Result<CheckReport> {
    run(device, CheckOptions { is_partial: true, ..*options }, Some(records), &|_, _, _| ())
}

fn run(
    device: &dyn VolumeRead,
    options: CheckOptions,
    records: Option<&[RecordNumber]>,
    on_progress: OnProgress<'_>,
) -> Result<CheckReport> {
    let mut context = match Context::open(device, options)? {
        Ok(context) => context,
        Err(report) => return Ok(report),
    };
    volume::check_boot_sector(&context)?;
    if let Some(table) = volume::check_upcase(&context)? {
        context.upcase = table;
    }
    check_parts(&context, records, on_progress)?;
    Ok(context.into_report())
}

fn check_parts(context: &Context<'_>, records: Option<&[RecordNumber]>, on_progress: OnProgress<'_>) -> Result<()> {
    volume::check_attribute_definitions(context)?;
    volume::check_information(context)?;
    volume::check_log(context)?;
    volume::check_bad_clusters(context)?;
    volume::check_mirror(context)?;
    let touches_security = records.is_none_or(|r| r.contains(&RecordNumber::SECURE));
    let ids = if touches_security { secure::check(context)? } else { None };
    let mut scan = Scan::new(context, ids);
    match records {
        None => scan.read_all(&|done, total| on_progress(Pass::Records, done, total))?,
        Some(records) => {
            let mut wanted: BTreeSet<u64> = records.iter().map(|r| r.0).collect();
            scan.read_records(&wanted)?;
            wanted.extend(scan.parents()?);
            scan.read_records(&wanted)?;
        }
    }
    scan.check_cluster_bitmap()?;
    scan.check_record_bitmap()?;
    scan.check_directories(&|done, total| on_progress(Pass::Folders, done, total))?;
    if records.is_none() {
        scan.check_reachability();
        if let Some(ids) = &scan.security_ids {
            secure::report_unused(context, ids, &scan.security_used);
        }
    }
    scan.check_extend()
}
