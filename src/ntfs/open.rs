//! Opening a volume: from the boot sector to the two bitmaps, and the refusals.

use std::ops::Range;
use std::sync::Arc;

use super::allocator::{ClusterAllocator, RecordAllocator};
use super::attributes::{attribute_list, extension_record, resident_value, stream_of, system_file};
use super::core::Core;
use super::directory::find_path;
use super::log::{
    Admission, HIBERNATION_FILE, Hibernation, LogPosition, LogReplay, LogState, Overrides, State as VolumeState,
    blame_replay,
};
use super::options::{OpenOptions, ShortNames};
use super::overlaid::Overlaid;
use super::pager::Pager;
use super::short_name_hints::ShortNameHints;
use super::stream::Stream;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::ntfs::format::attribute::{AttributeType, StreamSizes};
use crate::ntfs::format::boot::{BOOT_SECTOR_SIZE, Geometry};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::name::NtfsName;
use crate::ntfs::format::record::Record;
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::units::{FileId, Lcn, RecordNumber, Vcn};
use crate::ntfs::format::upcase::{UPCASE_SIZE, UpcaseTable};
use crate::ntfs::format::volume_information::{
    FLAG_NO_SHORT_NAMES, FLAGS, MAJOR, MINOR, SIZE as VOLUME_INFORMATION_SIZE,
};
use crate::units::VolumeOffset;

/// Extents of `$MFT` that are followed.
const MFT_EXTENTS_MAX: usize = 4096;

/// A volume that was opened, and what must be done before its first edit.
type Opened<D> = (Core<Overlaid<D>>, Admission);

/// Opens the volume on `device`. What is wrong with one whose log was replayed may be the log's doing.
pub(crate) fn open<D: VolumeRead>(device: Overlaid<D>, options: &OpenOptions) -> Result<Opened<D>> {
    let is_replayed = device.replay().is_some();
    let opened = open_overlaid(device, options);
    if is_replayed { opened.map_err(blame_replay) } else { opened }
}

fn open_overlaid<D: VolumeRead>(device: Overlaid<D>, options: &OpenOptions) -> Result<Opened<D>> {
    let mut sector = vec![0; BOOT_SECTOR_SIZE];
    if device.len() < BOOT_SECTOR_SIZE as u64 {
        return Err(Error::unsupported(Layer::Ntfs, "too small for an NTFS volume"));
    }
    device.read_at(VolumeOffset(0), &mut sector)?;
    let base = device.image_offset();
    let geometry = Geometry::parse(&sector).map_err(|e| e.inside(base))?;
    let end = geometry.total_sectors.checked_mul(u64::from(geometry.sector_size));
    if end.is_none_or(|end| end > device.len()) {
        return Err(damaged("the volume is longer than the partition that holds it: the image is truncated")
            .expected_found(geometry.total_sectors.saturating_mul(geometry.sector_size.into()), device.len())
            .at(base.saturating_add(0x28)));
    }
    let mft = first_extent_of_mft(&device, &geometry)?;
    let mut pager = Pager::new(device, geometry, mft);
    complete_mft(&mut pager)?;
    let flags = check_version(&pager, options)?;
    pager.upcase = Arc::new(read_upcase(&pager, options)?);
    let (cluster_bitmap, record_bitmap) = read_bitmaps(&pager, options)?;
    let mirror = system_stream(&pager, RecordNumber::MFT_MIRROR, AttributeType::DATA)?;
    let protected = own_clusters(&pager, &cluster_bitmap, &mirror)?;
    pager.set_mirror(Arc::new(mirror));
    let admission = admit(&pager, options, flags)?;
    let core = Core {
        pager,
        clusters: ClusterAllocator::new(Arc::new(cluster_bitmap), protected),
        records: RecordAllocator::new(Arc::new(record_bitmap)),
        clock: options.clock,
        short_names: flags & FLAG_NO_SHORT_NAMES == 0 && options.short_names == ShortNames::AsVolume,
        short_name_hints: ShortNameHints::default(),
    };
    Ok((core, admission))
}

fn system_stream<D: VolumeRead>(pager: &Pager<D>, number: RecordNumber, kind: AttributeType) -> Result<Stream> {
    let stream = stream_of(pager, system_file(pager, number)?, kind, &NtfsName::default())?;
    stream.ok_or_else(|| damaged(format!("system file {number} has no {kind}")))
}

/// Follows the attribute list of `$MFT`, extent by extent: each record is found through the extents before.
fn complete_mft<D: VolumeRead>(pager: &mut Pager<D>) -> Result<()> {
    let record = pager.record(RecordNumber::MFT)?;
    let file = FileId { record: RecordNumber::MFT, sequence: record.sequence() };
    let Some(list) = attribute_list(pager, &record)? else { return check_mft(pager) };
    let mut extents: Vec<_> =
        list.into_iter().filter(|e| e.kind == AttributeType::DATA && e.name.is_empty() && e.lowest > Vcn(0)).collect();
    extents.sort_by_key(|e| e.lowest);
    if extents.len() > MFT_EXTENTS_MAX {
        return Err(damaged("$MFT has too many extents"));
    }
    for entry in extents {
        let extension = extension_record(pager, file, &entry)?;
        let (_, attribute) = extension
            .find_instance(AttributeType::DATA, entry.instance)
            .ok_or_else(|| damaged("an extent of $MFT is missing"))?;
        let next = attribute.runlist(pager.geometry.cluster_count)?;
        let Stream::Runs { runs, sizes } = &**pager.mft() else { return check_mft(pager) };
        let (mut runs, sizes) = (runs.clone(), *sizes);
        runs.append(&next)?;
        pager.set_mft(Arc::new(Stream::Runs { runs, sizes }));
    }
    check_mft(pager)
}

fn check_mft<D: VolumeRead>(pager: &Pager<D>) -> Result<()> {
    let Stream::Runs { runs, .. } = &**pager.mft() else { return Err(damaged("$MFT is resident")) };
    if runs.runs().iter().any(|r| r.lcn.is_none()) {
        return Err(damaged("$MFT has a hole"));
    }
    pager.mft().check(&pager.geometry)
}

/// Checks the version; the volume's flags.
fn check_version<D: VolumeRead>(pager: &Pager<D>, options: &OpenOptions) -> Result<u16> {
    let information =
        resident_value(pager, system_file(pager, RecordNumber::VOLUME)?, AttributeType::VOLUME_INFORMATION)?;
    let information = information.filter(|v| v.len() >= VOLUME_INFORMATION_SIZE);
    let information = information.ok_or_else(|| damaged("$Volume has no $VOLUME_INFORMATION"))?;
    let version = (MAJOR.get(&information), MINOR.get(&information));
    if version != (3, 1) && !(options.read_only && version.0 <= 3) {
        return Err(Error::unsupported(Layer::Ntfs, format!("NTFS version {}.{}", version.0, version.1))
            .hint("only NTFS 3.1 (Windows XP and later) can be edited"));
    }
    Ok(FLAGS.get(&information))
}

/// Reads `$UpCase`; refused for editing when it is not a table of upper-case letters.
fn read_upcase<D: VolumeRead>(pager: &Pager<D>, options: &OpenOptions) -> Result<UpcaseTable> {
    let upcase = system_stream(pager, RecordNumber::UPCASE, AttributeType::DATA)?;
    let table = UpcaseTable::parse(&pager.read_small(&upcase, UPCASE_SIZE as u64, "$UpCase")?)?;
    if !options.read_only && !table.is_sane() {
        // no other driver would find what is sorted by it
        return Err(damaged("$UpCase is not a table of upper-case letters")
            .path("$UpCase")
            .hint("run chkdsk in the guest and export the disk again"));
    }
    Ok(table)
}

/// Finds `$Bitmap` and the bitmap of `$MFT`, and checks that they are complete.
fn read_bitmaps<D: VolumeRead>(pager: &Pager<D>, options: &OpenOptions) -> Result<(Stream, Stream)> {
    let clusters = system_stream(pager, RecordNumber::BITMAP, AttributeType::DATA)?;
    if clusters.len() < pager.geometry.cluster_count.div_ceil(8) {
        return Err(
            damaged("$Bitmap is too short").expected_found(pager.geometry.cluster_count.div_ceil(8), clusters.len())
        );
    }
    let records = system_stream(pager, RecordNumber::MFT, AttributeType::BITMAP)?;
    for (bitmap, name) in [(&clusters, "$Bitmap"), (&records, "$MFT's bitmap")] {
        bitmap.check_metadata(name)?;
        if !options.read_only && bitmap.initialized() != bitmap.len() {
            return Err(Error::unsupported(Layer::Ntfs, format!("{name} is not written to its end"))
                .expected_found(bitmap.len(), bitmap.initialized())
                .hint("run chkdsk in the guest and export the disk again"));
        }
    }
    Ok((clusters, records))
}

/// Clusters of the volume's own structures, which no file may free.
fn own_clusters<D: VolumeRead>(pager: &Pager<D>, cluster_bitmap: &Stream, mirror: &Stream) -> Result<Vec<Range<u64>>> {
    let log = system_stream(pager, RecordNumber::LOG_FILE, AttributeType::DATA)?;
    let boot = system_stream(pager, RecordNumber::BOOT, AttributeType::DATA)?;
    let upcase = system_stream(pager, RecordNumber::UPCASE, AttributeType::DATA)?;
    let streams = [mirror, &log, &boot, &upcase, cluster_bitmap];
    let runs: Vec<_> = streams.iter().filter_map(|s| s.runs()).flat_map(Runlist::real).collect();
    Ok(runs.into_iter().map(|(Lcn(start), n)| start..start + n).collect())
}

/// Whether the volume may be edited, by its log, its flags and its hibernation image, and what must be done before.
fn admit<D: VolumeRead>(pager: &Pager<Overlaid<D>>, options: &OpenOptions, flags: u16) -> Result<Admission> {
    if options.read_only {
        return Ok(Admission::default());
    }
    let log = read_log(pager, |size, read_at| LogState::read(size, read_at))?;
    let hibernation = match find_path(pager, HIBERNATION_FILE)? {
        None => Hibernation::None,
        Some(file) => {
            let stream = stream_of(pager, file, AttributeType::DATA, &NtfsName::default())?;
            let stream = stream.unwrap_or(Stream::Resident(Vec::new()));
            let mut header = vec![0; Hibernation::HEADER];
            let there = pager.read_stream(&stream, 0, &mut header)?;
            Hibernation::from_header(header.get(..there).unwrap_or_default(), stream.len())
        }
    };
    let overrides = Overrides {
        allow_dirty: options.allow_dirty,
        discard_log: options.discard_log,
        discard_hibernation: options.discard_hibernation,
    };
    let device = pager.device();
    let replay = match (device.replay(), device.replay_failure()) {
        (Some(_), _) => LogReplay::Done,
        (None, Some(reason)) => LogReplay::Failed(reason.to_owned()),
        (None, None) => LogReplay::None,
    };
    VolumeState { log, replay, flags, hibernation }.admit(&overrides)
}

/// How far the volume's log has come.
pub(crate) fn log_position<D: VolumeRead>(pager: &Pager<D>) -> Result<LogPosition> {
    read_log(pager, |size, read_at| LogPosition::read(size, read_at))
}

/// Passes the size of `$LogFile` to `read`, and a function that fills a buffer from an offset in it.
fn read_log<D: VolumeRead, T>(
    pager: &Pager<D>,
    read: impl FnOnce(u64, &mut dyn FnMut(u64, &mut [u8]) -> Result<()>) -> Result<T>,
) -> Result<T> {
    let log = system_stream(pager, RecordNumber::LOG_FILE, AttributeType::DATA)?;
    read(log.len(), &mut |offset, buf| {
        if pager.read_stream(&log, offset, buf)? != buf.len() {
            return Err(damaged("$LogFile is cut short"));
        }
        Ok(())
    })
}

/// The first extent of `$MFT`, from its record 0 at the place that the boot sector names.
fn first_extent_of_mft<D: VolumeRead>(device: &D, geometry: &Geometry) -> Result<Stream> {
    let mut block = vec![0; geometry.record_size as usize];
    let offset = geometry.bytes_in(geometry.mft.0);
    device.read_at(VolumeOffset(offset), &mut block)?;
    let offset = device.image_offset().saturating_add(offset);
    let record = Record::parse(block).map_err(|e| e.inside(offset).path("$MFT"))?;
    let data = record.find(AttributeType::DATA, "").filter(|a| !a.is_resident());
    let data = data.ok_or_else(|| damaged("$MFT has no data").at(offset))?;
    let runs = data.runlist(geometry.cluster_count).map_err(|e| e.inside(offset).path("$MFT"))?;
    if !record.is_in_use() || runs.find(Vcn(0)).and_then(|r| r.lcn) != Some(geometry.mft) {
        return Err(damaged("$MFT does not begin where the boot sector says").at(offset));
    }
    Ok(Stream::Runs { runs, sizes: StreamSizes::of(&data) })
}
