//! The volume's frame: boot sector, tables, log, flags, mirror, and both bitmaps (A1 to A5, D7 to D9, D11).

use super::code::Code;
use super::context::Context;
use super::file::{File, Stream};
use super::report::Fault;
use super::scan::{Scan, load_alone};
use super::table::flag;
use crate::error::Result;
use crate::ntfs::attribute::AttributeType;
use crate::ntfs::field::Field;
use crate::ntfs::format::volume_information::{FLAGS, MAJOR, MINOR};
use crate::ntfs::log::{LogState, volume_flags};
use crate::ntfs::units::RecordNumber;
use crate::ntfs::upcase::{UPCASE_SIZE, UpcaseTable};

/// Records of the mirror that Windows keeps up to date: those of the system files.
const MIRRORED: u64 = 24;
/// Bytes of a bitmap read at once.
const CHUNK: u64 = 1 << 18;
/// Bytes of an entry in `$AttrDef`, and where its type is.
const ATTRDEF_ENTRY: usize = 0xA0;
const ATTRDEF_TYPE: Field<u32> = Field::at(0x80);

/// Runs `work` on a system file; its absence is the fault `code`.
fn system_file(
    context: &Context<'_>,
    number: RecordNumber,
    code: Code,
    work: impl FnOnce(&File<'_, '_>) -> Result<()>,
) -> Result<()> {
    if load_alone(context, number.0, work)?.is_none() {
        let fault = Fault::new(code, "a system file cannot be read").record(number.0);
        context.fault(fault.at(context.record_offset(number.0)));
    }
    Ok(())
}

/// The boot sector's copy in the sector after the volume's last one (A1).
pub(super) fn check_boot_sector(context: &Context<'_>) -> Result<()> {
    let geometry = &context.geometry;
    let backup = geometry.total_sectors.saturating_mul(u64::from(geometry.sector_size));
    let end = backup.saturating_add(u64::from(geometry.sector_size));
    if end > context.device_len() {
        let fault = Fault::new(Code::BootSector, "the volume is longer than its partition").at(0x28);
        context.fault(fault.values(format!("at most {} bytes", context.device_len()), end));
        return Ok(());
    }
    let (mut first, mut second) = ([0; 512], [0; 512]);
    context.read(0, &mut first)?;
    context.read(backup, &mut second)?;
    if let Some(place) = first.iter().zip(&second).position(|(a, b)| a != b) {
        let fault = Fault::new(Code::BootSector, "the backup of the boot sector differs").at(backup + place as u64);
        context.fault(fault.values(format!("{:#04x}", first[place]), format!("{:#04x}", second[place])));
    }
    Ok(())
}

/// Reads `$UpCase` (A3); everything that compares names needs it.
pub(super) fn check_upcase(context: &Context<'_>) -> Result<Option<UpcaseTable>> {
    let mut table = None;
    system_file(context, RecordNumber::UPCASE, Code::SystemTables, |file| {
        let fault = |message: &str| {
            context.fault(
                Fault::new(Code::SystemTables, message).record(file.number).at(context.record_offset(file.number)),
            );
        };
        let content = match file.stream(AttributeType::DATA, "") {
            Some(stream) => stream.content(context, UPCASE_SIZE as u64)?,
            None => None,
        };
        match content.as_deref().map(UpcaseTable::parse) {
            Some(Ok(found)) if found.is_sane() => table = Some(found),
            Some(Ok(_)) => fault("the table of upper-case letters is wrong"),
            _ => fault("the table of upper-case letters has another size or cannot be read"),
        }
        Ok(())
    })?;
    Ok(table)
}

/// Checks that `$AttrDef` lists ascending types (A3).
pub(super) fn check_attribute_definitions(context: &Context<'_>) -> Result<()> {
    const DEFINITIONS: RecordNumber = RecordNumber(4);
    system_file(context, DEFINITIONS, Code::SystemTables, |file| {
        let content = match file.stream(AttributeType::DATA, "") {
            Some(stream) => stream.content(context, 0x1_0000)?.unwrap_or_default(),
            None => Vec::new(),
        };
        let types: Vec<u32> =
            content.chunks_exact(ATTRDEF_ENTRY).map(|e| ATTRDEF_TYPE.get(e)).take_while(|&t| t != 0).collect();
        let is_sorted = types.windows(2).all(|two| two[0] < two[1]);
        if !is_sorted || !types.contains(&AttributeType::DATA.0) {
            let fault =
                Fault::new(Code::SystemTables, "the table of attribute definitions is wrong").record(file.number);
            context.fault(
                fault
                    .at(context.record_offset(file.number))
                    .values("ascending types with $DATA", format!("{types:x?}")),
            );
        }
        Ok(())
    })
}

/// Version and flags (A5, D11).
pub(super) fn check_information(context: &Context<'_>) -> Result<()> {
    system_file(context, RecordNumber::VOLUME, Code::VolumeVersion, |file| {
        let Some(part) = file.find(AttributeType::VOLUME_INFORMATION, "") else {
            context.fault(Fault::new(Code::VolumeVersion, "$Volume has no $VOLUME_INFORMATION").record(file.number));
            return Ok(());
        };
        let value = part.view.value().unwrap_or_default();
        let version = (MAJOR.get(value), MINOR.get(value));
        if version != (3, 1) {
            let fault = Fault::new(Code::VolumeVersion, "another version of NTFS").record(file.number).at(part.offset);
            context.fault(fault.values("3.1", format!("{}.{}", version.0, version.1)));
        }
        let flags = FLAGS.get(value);
        if flags & volume_flags::BLOCKING != 0 {
            let fault = Fault::new(Code::DirtyFlag, "the volume is marked dirty").record(file.number).at(part.offset);
            context.fault(fault.values("flags without 0x4027", format!("{flags:#06x}")));
        }
        Ok(())
    })
}

/// Checks that `$LogFile` is closed (A4).
pub(super) fn check_log(context: &Context<'_>) -> Result<()> {
    system_file(context, RecordNumber::LOG_FILE, Code::Log, |file| {
        let bad = |message: String| {
            context.fault(Fault::new(Code::Log, message).record(file.number).at(context.record_offset(file.number)));
        };
        let Some(stream) = file.stream(AttributeType::DATA, "") else {
            bad("the log has no $DATA".into());
            return Ok(());
        };
        let Some(runs) = &stream.runs else {
            bad("the log cannot be read".into());
            return Ok(());
        };
        match LogState::read(stream.size(), |at, buf| context.read_stream(runs, at, buf).map(drop))? {
            LogState::Empty | LogState::Clean => {}
            LogState::Unclean { .. } => bad("the log is not closed: operations are waiting in it".into()),
            LogState::InUse { version } => {
                bad(format!(
                    "the log is in format {}.{}, which is used only while the volume is mounted",
                    version.0, version.1
                ));
            }
            LogState::Damaged { reason } => bad(format!("the log is damaged: {reason}")),
        }
        Ok(())
    })
}

/// Checks that `$BadClus:$Bad` spans the volume (D9).
pub(super) fn check_bad_clusters(context: &Context<'_>) -> Result<()> {
    system_file(context, RecordNumber::BAD_CLUSTERS, Code::BadClustersAndMirror, |file| {
        let expected = context.geometry.bytes_in(context.geometry.cluster_count);
        let found = file.find(AttributeType::DATA, "$Bad").map(|part| (part.view.data_size(), part.offset));
        if found.map(|(size, _)| size) != Some(expected) {
            let at = found.and_then(|(_, at)| at);
            let fault = Fault::new(Code::BadClustersAndMirror, "the list of bad clusters does not span the volume")
                .record(file.number);
            context.fault(fault.at(at).values(expected, found.map_or("nothing".into(), |(size, _)| size.to_string())));
        }
        Ok(())
    })
}

/// Compares `$MFTMirr` with the first records (A2, D9).
pub(super) fn check_mirror(context: &Context<'_>) -> Result<()> {
    system_file(context, RecordNumber::MFT_MIRROR, Code::MftLocation, |file| {
        let stream = file.stream(AttributeType::DATA, "");
        let Some((size, runs)) = stream.as_ref().and_then(|s| s.runs.as_ref().map(|runs| (s.size(), runs))) else {
            context.fault(
                Fault::new(Code::MftLocation, "the mirror of the master file table has no clusters")
                    .record(file.number),
            );
            return Ok(());
        };
        let first = runs.runs().first().and_then(|run| run.lcn);
        if first != Some(context.geometry.mirror) {
            let fault =
                Fault::new(Code::MftLocation, "$MFTMirr does not begin where the boot sector says").record(file.number);
            let found = first.map_or_else(|| "no cluster".into(), |lcn| lcn.to_string());
            context.fault(fault.at(0x38).values(context.geometry.mirror, found));
        }
        let record_size = context.record_size();
        let count = (size / record_size).clamp(4, MIRRORED).min(context.record_count);
        for number in 0..count {
            let mut copy = vec![0; context.geometry.record_size as usize];
            context.read_stream(runs, number * record_size, &mut copy)?;
            let record = context.raw_record(number)?;
            // formatters that know nothing of large mirrors write four records
            if let Some(place) = copy.iter().zip(&record).position(|(a, b)| a != b) {
                let at = context.locate(runs, number * record_size + place as u64).and_then(|(start, _)| start);
                let fault =
                    Fault::new(Code::BadClustersAndMirror, "the mirror of the record differs").record(number).at(at);
                context.fault(fault.values(format!("{:#04x}", record[place]), format!("{:#04x}", copy[place])));
            }
        }
        Ok(())
    })
}

/// A bitmap on the volume against what it should be.
struct BitmapComparison<'c> {
    context: &'c Context<'c>,
    code: Code,
    record: u64,
    what: &'static str,
}

impl BitmapComparison<'_> {
    fn fault(&self, message: String) -> Fault {
        Fault::new(self.code, message).record(self.record)
    }

    /// Compares the first `limit` bits with `expected` (64 at a time); reports marked and unmarked ones by their first.
    fn run(&self, stream: &Stream<'_, '_>, limit: u64, expected: &dyn Fn(u64) -> u64) -> Result<()> {
        let (mut leaked, mut lost) = (Tally::default(), Tally::default());
        let bytes = limit.div_ceil(8).min(stream.size());
        let mut chunk = Vec::new();
        let mut start = 0;
        while start < bytes {
            chunk.resize(usize::try_from(CHUNK.min(bytes - start)).unwrap_or(0), 0);
            stream.read(self.context, start, &mut chunk)?;
            for (index, part) in (start / 8..).zip(chunk.chunks(8)) {
                let mut word = [0; 8];
                word[..part.len()].copy_from_slice(part);
                let marked = u64::from_le_bytes(word);
                let valid = match limit.saturating_sub(index * 64) {
                    64.. => u64::MAX,
                    rest => (1 << rest) - 1,
                };
                let used = expected(index);
                leaked.add(index * 64, marked & !used & valid);
                lost.add(index * 64, used & !marked & valid);
            }
            start += chunk.len() as u64;
        }
        let at = |bit: u64| stream.locate(self.context, bit / 8);
        for (tally, expected, found) in [(leaked, 0, 1), (lost, 1, 0)] {
            if let Some(first) = tally.first {
                let (what, state) =
                    (self.what, if found == 1 { "marked but not in use" } else { "in use but not marked" });
                let message = format!("{} {what}s are {state}, the first is {what} {first}", tally.count);
                self.context.fault(self.fault(message).at(at(first)).values(expected, found));
            }
        }
        Ok(())
    }
}

#[derive(Default, Clone, Copy)]
struct Tally {
    first: Option<u64>,
    count: u64,
}

impl Tally {
    fn add(&mut self, base: u64, bits: u64) {
        if bits != 0 {
            self.first = self.first.or(Some(base + u64::from(bits.trailing_zeros())));
            self.count += u64::from(bits.count_ones());
        }
    }
}

impl Scan<'_> {
    /// `$Bitmap` against the clusters that have an owner (D8).
    pub(super) fn check_cluster_bitmap(&self) -> Result<()> {
        let context = self.context;
        context.report().stats.clusters_owned = self.owned.len();
        let compare =
            BitmapComparison { context, code: Code::ClusterBitmap, record: RecordNumber::BITMAP.0, what: "cluster" };
        system_file(context, RecordNumber::BITMAP, Code::ClusterBitmap, |file| {
            let Some(stream) = file.stream(AttributeType::DATA, "") else {
                context.fault(compare.fault("$Bitmap has no $DATA".into()));
                return Ok(());
            };
            let limit = context.geometry.cluster_count;
            if stream.size().saturating_mul(8) < limit {
                let fault = compare.fault("$Bitmap is too short".into()).at(stream.first.offset);
                context.fault(fault.values(limit.div_ceil(8), stream.size()));
            }
            if context.options.is_partial {
                return self.check_touched_clusters(&stream);
            }
            compare.run(&stream, limit, &|index| self.owned.word(index))
        })
    }

    /// In a partial check: the clusters of the files that were read must be marked.
    fn check_touched_clusters(&self, stream: &Stream<'_, '_>) -> Result<()> {
        let mut page = Vec::new();
        for (first, words) in self.owned.touched() {
            page.resize(words.len() * 8, 0);
            stream.read(self.context, first / 8, &mut page)?;
            for ((index, used), marked) in (first / 64..).zip(words).zip(page.as_chunks::<8>().0) {
                let lost = used & !u64::from_le_bytes(*marked);
                if lost != 0 {
                    let cluster = index * 64 + u64::from(lost.trailing_zeros());
                    let at = stream.locate(self.context, cluster / 8);
                    let message = format!("cluster {cluster} is in use but not marked");
                    let fault = Fault::new(Code::ClusterBitmap, message).record(RecordNumber::BITMAP.0).at(at);
                    self.context.fault(fault.values(1, 0));
                }
            }
        }
        Ok(())
    }

    /// `$MFT:$BITMAP` against the records in use (D7), and blocks that lost their signature (B1).
    pub(super) fn check_record_bitmap(&self) -> Result<()> {
        let context = self.context;
        let compare = BitmapComparison { context, code: Code::MftBitmap, record: RecordNumber::MFT.0, what: "record" };
        system_file(context, RecordNumber::MFT, Code::MftBitmap, |file| {
            let Some(stream) = file.stream(AttributeType::BITMAP, "") else {
                context.fault(compare.fault("$MFT has no $BITMAP".into()));
                return Ok(());
            };
            let count = context.record_count;
            if stream.size().saturating_mul(8) < count {
                let fault = compare.fault("$MFT's bitmap is too short".into()).at(stream.first.offset);
                context.fault(fault.values(count.div_ceil(8), stream.size()));
            }
            if context.options.is_partial {
                return self.check_touched_records(&compare, &stream);
            }
            let word = |index: u64| {
                if index * 64 >= count {
                    return 0;
                }
                (0..64).fold(0, |word, bit| {
                    let used = self.table.get(index * 64 + bit).has(flag::IN_USE);
                    word | u64::from(used) << bit
                })
            };
            // all bits, those after the last record included: they are 0
            let bits = stream.size().min(context.device_len()).saturating_mul(8);
            compare.run(&stream, bits, &word)?;
            self.report_lost_signatures(&stream)
        })
    }

    /// Blocks that are marked as records but have no signature.
    fn report_lost_signatures(&self, bitmap: &Stream<'_, '_>) -> Result<()> {
        for &number in &self.unsigned {
            let mut byte = [0];
            bitmap.read(self.context, number / 8, &mut byte)?;
            if byte[0] >> (number % 8) & 1 == 1 {
                let fault = Fault::new(Code::RecordFixup, "a record in use has lost its signature").record(number);
                self.context.fault(fault.at(self.context.record_offset(number)).values("FILE", "other bytes"));
            }
        }
        Ok(())
    }

    fn check_touched_records(&self, compare: &BitmapComparison<'_>, stream: &Stream<'_, '_>) -> Result<()> {
        for (number, row) in self.table.rows().filter(|(_, row)| row.has(flag::SCANNED)) {
            let mut byte = [0];
            stream.read(self.context, number / 8, &mut byte)?;
            let (marked, used) = (byte[0] >> (number % 8) & 1 == 1, row.has(flag::IN_USE));
            if marked != used {
                let fault = compare.fault(format!("the bit of record {number} is wrong"));
                self.context.fault(fault.values(u8::from(used), u8::from(marked)));
            }
        }
        Ok(())
    }
}
