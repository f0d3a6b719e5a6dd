//! Content of files: reading it, whatever its form, and replacing it.

use super::attributes::{Attributes, base_record, load, remove_attribute, same_name, stream_of};
use super::compress::chunks::Chunked;
use super::compress::{lznt1, wof};
use super::core::Core;
use super::guard::check_ordinary;
use super::metadata::{REPARSE_TAG, change_standard_information, reparse_tag, standard_information_of};
use super::pager::Pager;
use super::publish::store_and_publish;
use super::stream::{Stream, pieces};
use super::view_entries::forget_reparse_point;
use crate::clock::FileTime;
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::format::attribute::{
    AttributeType, FLAG_COMPRESSED, FLAG_COMPRESSION_MASK, FLAG_ENCRYPTED, FLAG_SPARSE, StreamSizes, header, resident,
};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::name::{NAME_UNITS_MAX, NtfsName};
use crate::ntfs::format::runlist::Runlist;
use crate::ntfs::format::standard_information::attribute;
use crate::ntfs::format::units::{FileId, Vcn};
use crate::units::VolumeOffset;

/// Bytes that are compared at once when a file is overwritten in place.
const COMPARE_CHUNK: usize = 256 << 10;
/// Largest reparse point (MS-FSCC 2.1.2).
const REPARSE_MAX: u64 = 16 << 10;
/// Reparse tags of content that is kept elsewhere: deduplication and cloud files.
const TAG_DEDUP: u32 = 0x8000_0013;
const TAG_CLOUD: u32 = 0x9000_001A;
const TAG_CLOUD_MASK: u32 = 0xFFFF_0FFF;

/// How the content of a stream is to be read.
pub(super) enum Source {
    Plain(Stream),
    Lznt1(Runlist, StreamSizes),
    Wof(Chunked, Stream),
}

fn encrypted() -> Error {
    Error::refused(Layer::Ntfs, "the file is encrypted (EFS)")
        .with_code(ErrorCode::FileEncrypted)
        .hint("decrypt it in the guest (cipher /d)")
}

pub(super) fn open_source<D: VolumeRead>(pager: &Pager<D>, file: FileId, name: &NtfsName) -> Result<(Source, u64)> {
    let stream = stream_of(pager, file, AttributeType::DATA, name)?;
    let stream = stream
        .ok_or_else(|| Error::refused(Layer::Ntfs, format!("{file} has no stream \"{name}\"")).hint("name a file"))?;
    let size = stream.len();
    if stream.flags() & FLAG_ENCRYPTED != 0 {
        return Err(encrypted());
    }
    if let (Stream::Runs { runs, sizes }, true) = (&stream, stream.is_encoded()) {
        if sizes.flags & FLAG_COMPRESSION_MASK != FLAG_COMPRESSED || !(1..=8).contains(&sizes.compression_unit) {
            return Err(Error::unsupported(Layer::Ntfs, "unknown compression of a stream"));
        }
        return Ok((Source::Lznt1(runs.clone(), *sizes), size));
    }
    if name.is_empty()
        && let Some(point) = reparse_point(pager, file)?
    {
        match REPARSE_TAG.get(&point) {
            wof::REPARSE_TAG => {
                let algorithm = wof::Algorithm::from_reparse_data(point.get(8..).unwrap_or_default())?;
                let packed = stream_of(pager, file, AttributeType::DATA, &wof::STREAM.into())?;
                let packed = packed.ok_or_else(|| damaged("a WOF file has no compressed stream"))?;
                return Ok((Source::Wof(algorithm.content(size, packed.len())?, packed), size));
            }
            tag if tag == TAG_DEDUP || tag & TAG_CLOUD_MASK == TAG_CLOUD => {
                return Err(Error::unsupported(Layer::Ntfs, format!("content kept elsewhere (reparse tag {tag:#x})"))
                    .hint("make the file local in the guest (deduplication: Expand-DedupFile)"));
            }
            tag if stream.flags() & FLAG_SPARSE != 0 => {
                // a hole of the file's length: reading it would give zeros for content
                return Err(Error::unsupported(Layer::Ntfs, format!("content kept elsewhere (reparse tag {tag:#x})"))
                    .hint("make the file local in the guest"));
            }
            _ => {}
        }
    }
    Ok((Source::Plain(stream), size))
}

/// The reparse point of a file.
pub(crate) fn reparse_point<D: VolumeRead>(pager: &Pager<D>, file: FileId) -> Result<Option<Vec<u8>>> {
    match stream_of(pager, file, AttributeType::REPARSE_POINT, &NtfsName::default())? {
        Some(stream) => pager.read_small(&stream, REPARSE_MAX, "reparse point").map(Some),
        None => Ok(None),
    }
}

/// The whole content, decompressed; refused when it is longer than `limit`.
pub(crate) fn read<D: VolumeRead>(pager: &Pager<D>, file: FileId, limit: u64) -> Result<Vec<u8>> {
    let (source, length) = open_source(pager, file, &NtfsName::default())?;
    let length = usize::try_from(length).ok().filter(|_| length <= limit).ok_or_else(|| {
        Error::refused(Layer::Ntfs, "the file is longer than the limit")
            .expected_found(format!("up to {limit} bytes"), length)
            .hint("read it in pieces")
    })?;
    let mut content = vec![0; length];
    let there = read_source(pager, &source, 0, &mut content)?;
    content.truncate(there);
    Ok(content)
}

/// The clusters of a file's content, as places on the volume, up to its last byte. Empty unless they hold the content itself.
pub(crate) fn extents<D: VolumeRead>(pager: &Pager<D>, file: FileId) -> Result<Vec<(VolumeOffset, u64)>> {
    let (Source::Plain(Stream::Runs { runs, .. }), mut left) = open_source(pager, file, &NtfsName::default())? else {
        return Ok(Vec::new());
    };
    let mut out = Vec::new();
    for run in runs.runs() {
        if left == 0 {
            break;
        }
        let length = pager.geometry.bytes_in(run.length).min(left);
        left -= length;
        out.extend(run.lcn.map(|lcn| (VolumeOffset(pager.geometry.bytes_in(lcn.0)), length)));
    }
    if let Some((_, length)) = out.last_mut() {
        // The rest of the last cluster is not part of the content, and is read by nothing else.
        *length = length.next_multiple_of(pager.geometry.bytes_in(1).max(1));
    }
    Ok(out)
}

/// Reads from a stream (`""`: the content) at `offset`; returns how many bytes there were.
pub(crate) fn read_at<D: VolumeRead>(
    pager: &Pager<D>,
    file: FileId,
    stream: &str,
    offset: u64,
    buf: &mut [u8],
) -> Result<usize> {
    let (source, _) = open_source(pager, file, &stream.into())?;
    read_source(pager, &source, offset, buf)
}

/// Reads from `offset`; returns how many bytes there were.
pub(super) fn read_source<D: VolumeRead>(
    pager: &Pager<D>,
    source: &Source,
    offset: u64,
    buf: &mut [u8],
) -> Result<usize> {
    match source {
        Source::Plain(stream) => pager.read_stream(stream, offset, buf),
        Source::Lznt1(runs, sizes) => read_lznt1(pager, runs, sizes, offset, buf),
        Source::Wof(content, packed) => content.read_at(offset, buf, |at, part| {
            if pager.read_stream(packed, at, part)? != part.len() {
                return Err(damaged("the compressed stream of a WOF file is cut short"));
            }
            Ok(())
        }),
    }
}

/// Reads LZNT1 content, one compression unit after the other.
fn read_lznt1<D: VolumeRead>(
    pager: &Pager<D>,
    runs: &Runlist,
    sizes: &StreamSizes,
    offset: u64,
    buf: &mut [u8],
) -> Result<usize> {
    let clusters = 1u64 << sizes.compression_unit;
    let unit = pager.geometry.bytes_in(clusters);
    if unit > 16 << 20 {
        return Err(Error::unsupported(Layer::Ntfs, "compression unit of more than 16 MiB"));
    }
    let available = usize::try_from(sizes.data.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
    let mut plain = vec![0; unit as usize];
    let mut done = 0;
    while done < available {
        let at = offset + done as u64;
        let start = at / unit * unit;
        read_unit(pager, runs, Vcn(start / u64::from(pager.geometry.cluster_size)), clusters, &mut plain)?;
        // what was never written is zero, whatever is in the clusters
        let written = usize::try_from(sizes.initialized.saturating_sub(start)).unwrap_or(usize::MAX);
        if let Some(rest) = plain.get_mut(written..) {
            rest.fill(0);
        }
        let inside = (at - start) as usize;
        let count = (plain.len() - inside).min(available - done);
        buf[done..done + count].copy_from_slice(&plain[inside..inside + count]);
        done += count;
    }
    Ok(available)
}

/// One unit: all clusters real: stored as it is; none: zeros; a beginning: compressed.
fn read_unit<D: VolumeRead>(
    pager: &Pager<D>,
    runs: &Runlist,
    first: Vcn,
    clusters: u64,
    plain: &mut [u8],
) -> Result<()> {
    let end = first.0 + clusters;
    let (mut at, mut real) = (first.0, 0);
    while let Some(run) = runs.find(Vcn(at)).filter(|_| at < end) {
        let stop = run.end().min(end);
        if run.lcn.is_none() {
            break;
        }
        real += stop - at;
        at = stop;
    }
    let offset = pager.geometry.bytes_in(first.0);
    if real == 0 {
        plain.fill(0);
        return Ok(());
    }
    if real == clusters {
        return pager.read_runs(runs, offset, plain);
    }
    let mut packed = vec![0; pager.geometry.bytes_in(real) as usize];
    pager.read_runs(runs, offset, &mut packed)?;
    if runs.find(Vcn(at)).is_none() {
        // the attribute ends inside the unit without a hole: not compressed
        let (data, rest) = plain.split_at_mut(packed.len().min(plain.len()));
        data.copy_from_slice(&packed[..data.len()]);
        rest.fill(0);
        return Ok(());
    }
    lznt1::decompress(&packed, plain).map(|_| ())
}

/// The name of a stream to write; refused when no stream can have it.
pub(crate) fn stream_name(stream: &str) -> Result<NtfsName> {
    let name = NtfsName::from(stream);
    let bad = |&u: &u16| u == 0 || u == u16::from(b':') || u == u16::from(b'/') || u == u16::from(b'\\');
    if name.is_empty() || name.units().len() > NAME_UNITS_MAX || name.units().iter().any(bad) {
        return Err(Error::refused(Layer::Ntfs, "the stream name cannot be used")
            .path(stream)
            .hint("use 1 to 255 characters other than : / \\"));
    }
    Ok(name)
}

/// Removes a named stream.
///
/// # Errors
/// Refused when it is not there.
pub(crate) fn delete_stream<D: VolumeWrite>(core: &mut Core<D>, file: FileId, stream: &str) -> Result<()> {
    check_ordinary(&core.pager, file)?;
    let mut attrs = load(&core.pager, file)?;
    let name = stored_stream_name(&core.pager, &attrs, &stream.into()).filter(|n| !n.is_empty()).ok_or_else(|| {
        Error::refused(Layer::Ntfs, "there is no such stream").path(stream).hint("name a stream of the file")
    })?;
    remove_attribute(core, &mut attrs, AttributeType::DATA, &name)?;
    note_change(core.clock, &mut attrs, false)?;
    store_and_publish(core, attrs)
}

/// The spelling under which a stream exists.
fn stored_stream_name<D: VolumeRead>(pager: &Pager<D>, attrs: &Attributes, name: &NtfsName) -> Option<NtfsName> {
    attrs
        .items
        .iter()
        .find(|a| a.kind == AttributeType::DATA && same_name(&pager.upcase, &a.name, name))
        .map(|a| a.name.clone())
}

fn note_change(now: FileTime, attrs: &mut Attributes, content: bool) -> Result<()> {
    change_standard_information(attrs, |i| {
        i.times.changed = now;
        if content {
            i.times.modified = now;
        }
    })
}

/// Gives a stream new content, in place where it can be: only clusters that differ are written.
pub(crate) fn set_content<D: VolumeWrite>(
    core: &mut Core<D>,
    file: FileId,
    name: &NtfsName,
    data: &[u8],
) -> Result<()> {
    check_ordinary(&core.pager, file)?;
    let record = base_record(&core.pager, file)?;
    if record.is_directory() && name.is_empty() {
        return Err(Error::refused(Layer::Ntfs, format!("{file} is a directory")).hint("name a file"));
    }
    let mut attrs = load(&core.pager, file)?;
    let name = stored_stream_name(&core.pager, &attrs, name).unwrap_or_else(|| name.clone());
    let old = attrs.stream(AttributeType::DATA, &name, core.pager.geometry.cluster_count)?;
    if let Some(old) = &old {
        old.check(&core.pager.geometry)?;
    }
    if old.as_ref().is_some_and(|s| s.flags() & FLAG_ENCRYPTED != 0) {
        return Err(encrypted());
    }
    if name.is_empty() {
        make_plain(core, &mut attrs)?;
    }
    let in_place = match old {
        Some(Stream::Runs { runs, sizes }) if sizes.flags == 0 => Some((runs, sizes)),
        Some(Stream::Runs { runs, .. }) => {
            // compressed or sparse: replaced by a plain stream in new clusters
            core.clusters.free(&mut core.pager, runs.real())?;
            None
        }
        _ => None,
    };
    note_change(core.clock, &mut attrs, true)?;
    let Some((runs, sizes)) = in_place else {
        let stream = new_content(core, &attrs, record.capacity(), &name, data)?;
        attrs.set_stream(AttributeType::DATA, &name, &stream, core.pager.geometry.cluster_size);
        return store_and_publish(core, attrs);
    };
    core.clusters.check_owned(&core.pager, &runs)?;
    let old_clusters = runs.end();
    let (mut runs, wanted) = (runs, core.pager.geometry.clusters_for(data.len() as u64));
    if wanted < old_clusters {
        let cut = runs.truncate(Vcn(wanted));
        core.clusters.free(&mut core.pager, cut)?;
    }
    core.clusters.extend_runs(&mut core.pager, &mut runs, wanted)?;
    let length = data.len() as u64;
    let allocated = core.pager.geometry.bytes_in(runs.end());
    let sizes = StreamSizes { allocated, data: length, initialized: length, ..sizes };
    let stream = Stream::Runs { runs: runs.clone(), sizes };
    attrs.set_stream(AttributeType::DATA, &name, &stream, core.pager.geometry.cluster_size);
    store_and_publish(core, attrs)?;
    // the metadata are settled; now nothing but the device can fail
    write_differences(core, &runs, old_clusters.min(wanted), data)
}

/// Undoes what makes the unnamed stream of a file special: sparse, compressed, WOF.
fn make_plain<D: VolumeWrite>(core: &mut Core<D>, attrs: &mut Attributes) -> Result<()> {
    let information = standard_information_of(attrs)?;
    if let Some(tag) = reparse_tag(&core.pager, attrs)? {
        if tag != wof::REPARSE_TAG {
            return Err(Error::refused(Layer::Ntfs, format!("the file is a reparse point (tag {tag:#x})"))
                .hint("name the file that it points to, or replace it"));
        }
        forget_reparse_point(core, attrs, tag)?;
        remove_attribute(core, attrs, AttributeType::REPARSE_POINT, &NtfsName::default())?;
        remove_attribute(core, attrs, AttributeType::DATA, &wof::STREAM.into())?;
    }
    let sparse_left = attrs
        .items
        .iter()
        .any(|a| a.kind == AttributeType::DATA && !a.name.is_empty() && header::FLAGS.get(&a.bytes) & FLAG_SPARSE != 0);
    let clear = attribute::COMPRESSED | attribute::REPARSE | if sparse_left { 0 } else { attribute::SPARSE };
    if information.attributes & clear != 0 {
        change_standard_information(attrs, |i| i.attributes &= !clear)?;
    }
    Ok(())
}

/// Writes content to its clusters, the first `old_clusters` of which hold the old content: only what differs.
fn write_differences<D: VolumeWrite>(core: &mut Core<D>, runs: &Runlist, old_clusters: u64, data: &[u8]) -> Result<()> {
    let old_bytes = usize::try_from(core.pager.geometry.bytes_in(old_clusters)).unwrap_or(usize::MAX);
    let (present, new) = data.split_at(data.len().min(old_bytes));
    core.pager.write_clusters(runs, Vcn(old_clusters), new)?;
    let mut undo: Vec<(u64, Vec<u8>)> = Vec::new();
    let result = write_changed(core, runs, present, &mut undo);
    if result.is_err() {
        // the device failed in the middle: put back what it still accepts
        for (at, old) in undo {
            let _ = core.pager.write_device(at, &old);
        }
    }
    result
}

fn write_changed<D: VolumeWrite>(
    core: &mut Core<D>,
    runs: &Runlist,
    data: &[u8],
    undo: &mut Vec<(u64, Vec<u8>)>,
) -> Result<()> {
    let block = core.pager.page_size();
    let mut old = vec![0; COMPARE_CHUNK];
    for (number, chunk) in data.chunks(COMPARE_CHUNK).enumerate() {
        let offset = (number * COMPARE_CHUNK) as u64;
        let padded = chunk.len().next_multiple_of(block);
        let old = &mut old[..padded];
        core.pager.read_runs(runs, offset, old)?;
        let mut at = 0;
        while at < chunk.len() {
            let differs = |from: usize| {
                let end = (from + block).min(chunk.len());
                from < end && (chunk[from..end] != old[from..end] || old[end..from + block].iter().any(|&b| b != 0))
            };
            if !differs(at) {
                at += block;
                continue;
            }
            let start = at;
            while differs(at) {
                at += block;
            }
            let mut new = chunk[start..at.min(chunk.len())].to_vec();
            new.resize(at - start, 0);
            let mut done = 0;
            for (place, length) in pieces(&core.pager.geometry, runs, offset + start as u64, new.len())? {
                let place = place.ok_or_else(|| damaged("write into a hole"))?;
                undo.push((place, old[start + done..start + done + length].to_vec()));
                core.pager.write_device(place, &new[done..done + length])?;
                done += length;
            }
        }
    }
    Ok(())
}

/// A stream with new content for a file with these other attributes: in the record if it fits, else in clusters.
pub(crate) fn new_content<D: VolumeWrite>(
    core: &mut Core<D>,
    attrs: &Attributes,
    capacity: usize,
    name: &NtfsName,
    data: &[u8],
) -> Result<Stream> {
    let others: usize =
        attrs.items.iter().filter(|a| a.kind != AttributeType::DATA || a.name != *name).map(|a| a.bytes.len()).sum();
    let needed = crate::field::align8(resident::HEADER_SIZE + 2 * name.units().len())
        .saturating_add(data.len().next_multiple_of(8));
    let fits = if attrs.has_list() { data.len() <= 64 } else { others.saturating_add(needed) <= capacity };
    if data.is_empty() || fits {
        return Ok(Stream::Resident(data.to_vec()));
    }
    core.clusters.new_plain_stream(&mut core.pager, data)
}
