//! Finds out how a disk is divided, and looks at the first sector of every partition.

use super::content::Content;
use super::disk::Disk;
use super::table::{Partition, PartitionKind, PartitionTable};
use super::{gpt, mbr};
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::units::ImageOffset;

/// Reads the partition table, and the first sector of each partition.
///
/// ```no_run
/// # fn main() -> winject::Result<()> {
/// let image = winject::open_image("guest.vmdk".as_ref(), &winject::ImageOptions::default())?;
/// for partition in winject::read_partitions(image.as_ref())?.partitions {
///     println!("{}: {}, {} bytes", partition.number, partition.content, partition.length);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// - [`Kind::Unsupported`](crate::Kind::Unsupported): neither a table nor a known volume: not a disk image.
/// - [`Kind::Damaged`](crate::Kind::Damaged): both copies of a GPT are damaged.
/// - Any error of reading the disk.
pub fn read<D: Disk + ?Sized>(disk: &D) -> Result<PartitionTable> {
    let mut first = [0u8; 512];
    if disk.len() < first.len() as u64 {
        return Err(not_a_disk("the image is shorter than one sector"));
    }
    disk.read_at(ImageOffset(0), &mut first)?;
    // A volume's boot sector ends with the same signature as an MBR, so its own marks come first.
    let bare = Content::of_sector(&first);
    if bare.is_volume() {
        return Ok(bare_volume(disk, bare));
    }
    let mbr = mbr::Mbr::parse(&first);
    let protective = mbr.as_ref().is_some_and(mbr::Mbr::is_protective);
    let empty = mbr.as_ref().is_none_or(mbr::Mbr::is_empty);
    // As Linux: a GPT counts only with a protective MBR, because partitioning tools for MBRs leave old GPTs in place.
    // One exception: where the MBR says nothing at all, a sound GPT is better than nothing.
    if protective || empty {
        match gpt::read(disk) {
            Ok(Some(mut table)) => {
                if !protective {
                    table.warnings.push("the disk has a GPT, but no protective MBR in its first sector".to_string());
                }
                if mbr.as_ref().is_some_and(mbr::Mbr::is_hybrid) {
                    table.warnings.push("hybrid MBR: its partitions are left alone, the GPT counts".to_string());
                }
                return finish(disk, table);
            }
            Ok(None) if protective => {
                return Err(Error::damaged(Layer::Partition, "the protective MBR announces a GPT, but there is none")
                    .at(ImageOffset(512))
                    .hint("the image may be truncated: compare its size with the original's"));
            }
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
    match mbr {
        Some(mbr) if !empty => finish(disk, mbr::read(disk, &mbr)?),
        Some(_) => Err(not_a_disk("the disk has an empty partition table")),
        None => Err(not_a_disk("there is neither a partition table nor a known volume")),
    }
}

fn not_a_disk(what: &str) -> Error {
    Error::unsupported(Layer::Partition, what)
        .with_code(ErrorCode::NoPartitions)
        .at(ImageOffset(0))
        .hint("is this the image of a Windows disk? A container that was not recognised is read as raw")
}

fn bare_volume<D: Disk + ?Sized>(disk: &D, content: Content) -> PartitionTable {
    let partition = Partition {
        number: 0,
        start: ImageOffset(0),
        length: disk.len(),
        kind: PartitionKind::Data,
        content,
        name: None,
        type_id: "none".to_string(),
        bitlocker: None,
        replay: Default::default(),
        unique_guid: None,
    };
    PartitionTable { partitions: vec![partition], ..PartitionTable::empty() }
}

/// Looks at the content of every partition, and at what does not fit together.
fn finish<D: Disk + ?Sized>(disk: &D, mut table: PartitionTable) -> Result<PartitionTable> {
    for partition in &mut table.partitions {
        let mut sector = [0u8; 512];
        let inside = partition.start.0.checked_add(512).is_some_and(|end| end <= disk.len());
        if inside && partition.length >= 512 {
            disk.read_at(partition.start, &mut sector)?;
            partition.content = Content::of_sector(&sector);
        }
        let end = partition.start.0.checked_add(partition.length);
        if end.is_none_or(|end| end > disk.len()) {
            table.warnings.push(format!("{} ends beyond the disk: the image may be truncated", partition.label()));
        }
    }
    table.partitions.sort_by_key(|partition| partition.number);
    warn_about_overlaps(&mut table);
    Ok(table)
}

fn warn_about_overlaps(table: &mut PartitionTable) {
    let mut by_start: Vec<&Partition> = table.partitions.iter().collect();
    by_start.sort_by_key(|partition| partition.start);
    let overlaps = by_start.windows(2).filter_map(|pair| match pair {
        [a, b] if a.start.0.saturating_add(a.length) > b.start.0 => {
            Some(format!("{} and {} overlap", a.label(), b.label()))
        }
        _ => None,
    });
    let overlaps: Vec<String> = overlaps.take(8).collect();
    table.warnings.extend(overlaps);
}
