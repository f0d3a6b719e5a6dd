//! Who owns each cluster, from the file records: whether `$Bitmap` and `$MFT:$BITMAP` can be believed by an allocator.
//!
//! One pass over `$MFT` that looks at nothing but headers and mapping pairs, about a microsecond a record. Of the ways in
//! which a map can be wrong only those count by which an edit would overwrite something: clusters that are owned but
//! marked as free, clusters with two owners, records in use that are marked as free, and records whose clusters cannot be
//! told. Clusters that are marked as used and owned by no file are lost space and do no harm.

use std::cell::Cell;

use super::bits::{Bits, PAGE};
use super::context::Context;
use super::file::Stream;
use super::options::{CheckOptions, OnProgress, Pass};
use super::report::CheckReport;
use super::scan::load_alone;
use crate::error::{Error, Result};
use crate::io::VolumeRead;
use crate::ntfs::attribute::AttributeType;
use crate::ntfs::damaged;
use crate::ntfs::fixup;
use crate::ntfs::record::{FLAG_IN_USE, attributes_in, header};
use crate::ntfs::units::{FileId, RecordNumber};

/// Bytes of `$MFT` read at once.
const CHUNK: u64 = 1 << 20;
/// Pages of the set of owned clusters that are neither empty nor full, at most: 64 MiB. Volumes that need more (2 TiB of
/// small files at 4 KiB a cluster) are read in several passes.
const PAGES_MAX: usize = 8192;
/// Pages of the set that are compared with `$Bitmap` at once: 512 KiB of it.
const PAGES_AT_ONCE: usize = 64;
const HINT: &str = "run chkdsk /f in the guest, shut it down and export the disk again";

/// How much [`cluster_owners`] looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owners {
    /// File records in use, extension records included.
    pub records: u64,
    /// Clusters that belong to a file.
    pub clusters: u64,
}

/// Establishes the owners of all clusters from the file records, and compares them with the two bitmaps.
///
/// # Errors
/// Damaged, with the file and the place, when an edit that trusts the bitmaps could overwrite content or records; and
/// when the device cannot be read.
pub fn cluster_owners<D: VolumeRead>(device: &D) -> Result<Owners> {
    establish(device, PAGES_MAX, &|_, _, _| ())
}

/// Like [`cluster_owners`], and tells how many bytes of file records it has read. Of a volume that takes several passes it is
/// not known how many there will be.
///
/// # Errors
/// Those of [`cluster_owners`].
pub fn cluster_owners_with_progress<D: VolumeRead>(device: &D, on_progress: OnProgress<'_>) -> Result<Owners> {
    establish(device, PAGES_MAX, on_progress)
}

fn establish(device: &dyn VolumeRead, pages_max: usize, on_progress: OnProgress<'_>) -> Result<Owners> {
    let context = match Context::open(device, CheckOptions::default())? {
        Ok(context) => context,
        Err(report) => return Err(unreadable(&report, device.image_offset())),
    };
    let with_bitmaps = |records: &Stream<'_, '_>| {
        load_alone(&context, RecordNumber::BITMAP.0, |file| match file.stream(AttributeType::DATA, "") {
            Some(clusters) => {
                Survey { context: &context, records, clusters: &clusters, pages_max, on_progress, read: Cell::new(0) }
                    .run()
            }
            None => Err(damaged("$Bitmap has no $DATA").hint(HINT)),
        })
    };
    let found = load_alone(&context, RecordNumber::MFT.0, |file| match file.stream(AttributeType::BITMAP, "") {
        Some(records) => with_bitmaps(&records),
        None => Err(damaged("$MFT has no $BITMAP").hint(HINT)),
    })?;
    found.flatten().ok_or_else(|| damaged("the records of $MFT and $Bitmap cannot be read").hint(HINT))
}

/// The first fault of a volume whose `$MFT` cannot be found.
fn unreadable(report: &CheckReport, base: u64) -> Error {
    let Some(fault) = report.faults.first() else { return damaged("the volume cannot be read").hint(HINT) };
    let error = damaged(fault.message.clone()).hint(HINT);
    match fault.offset {
        Some(offset) => error.at(base.saturating_add(offset)),
        None => error,
    }
}

struct Survey<'p, 'c> {
    context: &'p Context<'c>,
    /// The bitmap of records, `$MFT:$BITMAP`.
    records: &'p Stream<'p, 'p>,
    /// The bitmap of clusters, `$Bitmap`.
    clusters: &'p Stream<'p, 'p>,
    pages_max: usize,
    on_progress: OnProgress<'p>,
    /// Bytes of file records that were read, in all passes.
    read: Cell<u64>,
}

/// What a visitor of the runs is told: the record, the offset of the attribute in it, first cluster and number.
struct Claim<'r> {
    number: u64,
    block: &'r [u8],
    attribute: usize,
    lcn: u64,
    length: u64,
}

impl Survey<'_, '_> {
    fn run(&self) -> Result<Owners> {
        let count = self.context.geometry.cluster_count;
        let mut owners = Owners::default();
        let mut start = 0;
        while start < count {
            let (owned, end, records) = self.owned(start, count)?;
            self.compare(&owned, start)?;
            owners.records = records;
            owners.clusters += owned.len();
            start = end;
        }
        Ok(owners)
    }

    /// The clusters from `start` on that have an owner, up to where memory allows, that end, and the records in use.
    fn owned(&self, start: u64, count: u64) -> Result<(Bits, u64, u64)> {
        let mut owned = Bits::new(count - start);
        let mut end = count;
        let mut double = None;
        let records = self.each_run(&mut |claim| {
            let (from, to) = (claim.lcn.max(start), claim.lcn.saturating_add(claim.length).min(end));
            if from >= to {
                return Ok(true);
            }
            if let Some(taken) = owned.insert(from - start, to - from) {
                double =
                    Some((start + taken, self.error_of(&claim, "clusters of the file belong to another file, too")));
                return Ok(false);
            }
            if owned.mixed() > self.pages_max {
                end = start + owned.shrink(self.pages_max / 2);
            }
            Ok(true)
        })?;
        if let Some((cluster, error)) = double {
            let other = self.owner_of(cluster)?.map_or_else(String::new, |(name, _)| format!(" and of {name}"));
            return Err(error.expected_found("one owner", format!("cluster {cluster} is also part{other}")));
        }
        Ok((owned, end, records))
    }

    /// Whether `$Bitmap` marks all of the owned clusters, which are counted from `start`.
    fn compare(&self, owned: &Bits, start: u64) -> Result<()> {
        let page_bytes = (PAGE / 8) as usize;
        let mut bytes = Vec::new();
        for first in (0..owned.page_count()).step_by(PAGES_AT_ONCE) {
            let last = owned.page_count().min(first + PAGES_AT_ONCE);
            if (first..last).all(|page| owned.is_empty_page(page)) {
                continue;
            }
            bytes.resize((last - first) * page_bytes, 0);
            let offset = start / 8 + first as u64 * PAGE / 8;
            self.clusters.read(self.context, offset, &mut bytes)?;
            for (index, marked) in bytes.as_chunks::<8>().0.iter().enumerate() {
                let lost = owned.word(first as u64 * PAGE / 64 + index as u64) & !u64::from_le_bytes(*marked);
                if lost != 0 {
                    let bit = offset * 8 + index as u64 * 64 + u64::from(lost.trailing_zeros());
                    return Err(self.marked_free(bit)?);
                }
            }
        }
        Ok(())
    }

    fn marked_free(&self, cluster: u64) -> Result<Error> {
        let message = "$Bitmap marks clusters of a file as free; an edit could overwrite it";
        let error = match self.owner_of(cluster)? {
            Some((name, _)) => damaged(message).path(name),
            None => damaged(message),
        };
        let error = match self.clusters.locate(self.context, cluster / 8) {
            Some(at) => error.at(self.context.image_offset(at)),
            None => error,
        };
        Ok(error.expected_found(format!("cluster {cluster} in use"), "free").hint(HINT))
    }

    /// The first file that owns a cluster: its path or its record, and that record's number.
    fn owner_of(&self, cluster: u64) -> Result<Option<(String, u64)>> {
        let mut found = None;
        self.each_run(&mut |claim| {
            let is_it = (claim.lcn..claim.lcn.saturating_add(claim.length)).contains(&cluster);
            if is_it {
                found = Some((self.name_of(claim.number, claim.block), claim.number));
            }
            Ok(!is_it)
        })?;
        Ok(found)
    }

    fn name_of(&self, number: u64, block: &[u8]) -> String {
        let base = match header::BASE.get(block) {
            0 => number,
            raw => FileId::from_raw(raw).record.0,
        };
        self.context.path_of(base).unwrap_or_else(|| format!("record {base}"))
    }

    fn error_of(&self, claim: &Claim<'_>, message: &str) -> Error {
        let error = damaged(message).path(self.name_of(claim.number, claim.block)).hint(HINT);
        self.place(error, claim.number, claim.attribute)
    }

    fn place(&self, error: Error, number: u64, inside: usize) -> Error {
        match self.context.record_offset(number) {
            Some(at) => error.inside(self.context.image_offset(at.saturating_add(inside as u64))),
            None => error,
        }
    }

    /// Calls `visit` with every real run of every record in use until it says that it has seen enough; returns the
    /// number of records in use that were read.
    fn each_run(&self, visit: &mut dyn FnMut(Claim<'_>) -> Result<bool>) -> Result<u64> {
        let size = self.context.record_size();
        let per_chunk = (CHUNK / size).max(8);
        let (mut chunk, mut marks) = (Vec::new(), Vec::new());
        let (mut first, mut in_use) = (0, 0);
        while first < self.context.record_count {
            let count = per_chunk.min(self.context.record_count - first);
            chunk.resize(usize::try_from(count * size).unwrap_or(0), 0);
            self.context.read_stream(&self.context.mft, first * size, &mut chunk)?;
            marks.resize(usize::try_from(count.div_ceil(8)).unwrap_or(0), 0);
            self.records.read(self.context, first / 8, &mut marks)?;
            for (at, block) in chunk.chunks_exact_mut(self.context.geometry.record_size as usize).enumerate() {
                let number = first + at as u64;
                let is_marked = marks.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
                match self.record(number, block, is_marked, visit)? {
                    Seen::Free => {}
                    Seen::InUse => in_use += 1,
                    Seen::Enough => return Ok(in_use),
                }
            }
            first += count;
            let (read, all) =
                (self.read.get().saturating_add(count * size), self.context.record_count.saturating_mul(size));
            self.read.set(read);
            (self.on_progress)(Pass::Records, read, if read > all { 0 } else { all });
        }
        Ok(in_use)
    }

    fn record(
        &self,
        number: u64,
        block: &mut [u8],
        is_marked: bool,
        visit: &mut dyn FnMut(Claim<'_>) -> Result<bool>,
    ) -> Result<Seen> {
        let wrong = |error: Error, inside: usize| {
            let error = error.path(self.context.path_of(number).unwrap_or_else(|| format!("record {number}")));
            self.place(error.hint(HINT), number, inside)
        };
        if !block.starts_with(&fixup::FILE) {
            if is_marked && block.iter().any(|&byte| byte != 0) {
                let found = block.get(..4).unwrap_or_default().escape_ascii().to_string();
                let error = damaged("a file record has lost its signature, so that its clusters are not known");
                return Err(wrong(error.expected_found("FILE", found), 0));
            }
            return Ok(Seen::Free);
        }
        if header::FLAGS.get(block) & FLAG_IN_USE == 0 {
            return Ok(Seen::Free);
        }
        if !is_marked {
            let error = damaged("$MFT's bitmap marks a file record in use as free; an edit could overwrite it");
            return Err(wrong(error.expected_found(1, 0), 0));
        }
        fixup::unseal(block, fixup::FILE).map_err(|error| wrong(error, 0))?;
        let block: &[u8] = block;
        let used = (header::USED.get(block) as usize).min(block.len());
        let from = usize::from(header::FIRST_ATTRIBUTE.get(block));
        for item in attributes_in(block.get(..used).unwrap_or_default(), from) {
            let (offset, attribute) = item.map_err(|error| {
                let inside = error.offset().and_then(|at| usize::try_from(at).ok()).unwrap_or(0);
                wrong(damaged("the attributes of a file record cannot be read").source_error(error), inside)
            })?;
            if attribute.is_resident() {
                continue;
            }
            let runs = attribute.runlist(self.context.geometry.cluster_count).map_err(|error| wrong(error, offset))?;
            for (lcn, length) in runs.real() {
                if !visit(Claim { number, block, attribute: offset, lcn: lcn.0, length })? {
                    return Ok(Seen::Enough);
                }
            }
        }
        Ok(Seen::InUse)
    }
}

/// What became of a record.
enum Seen {
    Free,
    InUse,
    /// The visitor wants no more.
    Enough,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::MemoryVolume;
    use crate::ntfs::{OpenOptions, Overlaid};
    use std::io::Read as _;

    fn image() -> Vec<u8> {
        let packed = std::fs::File::open("test-images/ntfs/small.img.gz").unwrap();
        let mut image = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut image).unwrap();
        image
    }

    /// Offset on the volume of the first byte of `$Bitmap`, and of the record of `$MFT`.
    fn places(image: &[u8]) -> (usize, usize) {
        let device = Overlaid::unchanged(MemoryVolume(image.to_vec()));
        let (core, _) = crate::ntfs::open::open(device, &OpenOptions::read_only()).unwrap();
        let geometry = &core.pager.geometry;
        let stream = core.clusters.bitmap().stream();
        let (lcn, _) = stream.runs().unwrap().real().next().unwrap();
        (geometry.bytes_in(lcn.0) as usize, geometry.bytes_in(geometry.mft.0) as usize)
    }

    #[test]
    fn a_sound_volume_passes_in_one_pass_and_in_several() {
        let volume = MemoryVolume(image());
        let owners = cluster_owners(&volume).unwrap();
        assert!(owners.records > 20 && owners.clusters > 100, "{owners:?}");
        assert_eq!(establish(&volume, 1, &|_, _, _| ()).unwrap(), owners);
        assert_eq!(establish(&volume, 0, &|_, _, _| ()).unwrap(), owners);
    }

    #[test]
    fn owned_clusters_must_be_marked_and_lost_ones_may_be() {
        let good = image();
        let (bitmap, mft) = places(&good);
        let mut bad = good.clone();
        bad[bitmap] &= !1; // cluster 0: $Boot
        let error = cluster_owners(&MemoryVolume(bad)).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (crate::Kind::Damaged, Some(bitmap as u64)), "{error}");
        assert!(error.path_text().is_some_and(|path| path.contains("$Boot")), "{error}");
        let mut leaked = good.clone();
        let free = leaked[bitmap..].iter().position(|&byte| byte == 0).unwrap();
        leaked[bitmap + free] = 0xFF;
        assert!(cluster_owners(&MemoryVolume(leaked)).is_ok());
        // a record in use without its signature
        let mut lost = good;
        lost[mft + 8 * 1024] = b'X';
        let error = cluster_owners(&MemoryVolume(lost)).unwrap_err();
        assert_eq!(error.offset(), Some((mft + 8 * 1024) as u64), "{error}");
    }
}
