//! Content of files: reading it, whatever its form, and replacing it.

use super::compress::{lznt1, wof};
use super::stream::Stream;
use super::volume::Volume;
use crate::error::{Error, Layer, Result};
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::attributes::Attrs;
use crate::ntfs::directory::change_standard_information;
use crate::ntfs::format::attribute::{
    AttributeType, FLAG_COMPRESSED, FLAG_COMPRESSION_MASK, FLAG_ENCRYPTED, FLAG_SPARSE, StreamSizes,
};
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::name::NtfsName;
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
enum Source {
    Plain(Stream),
    Lznt1(Runlist, StreamSizes),
    Wof(wof::Content, Stream),
}

impl Source {
    fn len(&self, size: u64) -> u64 {
        match self {
            Self::Plain(stream) => stream.len(),
            Self::Lznt1(_, sizes) => sizes.data,
            Self::Wof(..) => size,
        }
    }
}

fn encrypted() -> Error {
    Error::refused(Layer::Ntfs, "the file is encrypted (EFS)").hint("decrypt it in the guest (cipher /d)")
}

impl<D: VolumeRead> Volume<D> {
    fn source(&self, file: FileId, name: &NtfsName) -> Result<(Source, u64)> {
        let stream = self.stream(file, AttributeType::DATA, name)?;
        let stream = stream.ok_or_else(|| {
            Error::refused(Layer::Ntfs, format!("{file} has no stream \"{name}\"")).hint("name a file")
        })?;
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
            && let Some(point) = self.reparse_point(file)?
        {
            match crate::ntfs::directory::REPARSE_TAG.get(&point) {
                wof::REPARSE_TAG => {
                    let algorithm = wof::Algorithm::from_reparse_data(point.get(8..).unwrap_or_default())?;
                    let packed = self.stream(file, AttributeType::DATA, &wof::STREAM.into())?;
                    let packed = packed.ok_or_else(|| damaged("a WOF file has no compressed stream"))?;
                    return Ok((Source::Wof(wof::Content::new(algorithm, size, packed.len())?, packed), size));
                }
                tag if tag == TAG_DEDUP || tag & TAG_CLOUD_MASK == TAG_CLOUD => {
                    return Err(Error::unsupported(
                        Layer::Ntfs,
                        format!("content kept elsewhere (reparse tag {tag:#x})"),
                    )
                    .hint("make the file local in the guest (deduplication: Expand-DedupFile)"));
                }
                tag if stream.flags() & FLAG_SPARSE != 0 => {
                    // a hole of the file's length: reading it would give zeros for content
                    return Err(Error::unsupported(
                        Layer::Ntfs,
                        format!("content kept elsewhere (reparse tag {tag:#x})"),
                    )
                    .hint("make the file local in the guest"));
                }
                _ => {}
            }
        }
        Ok((Source::Plain(stream), size))
    }

    /// The reparse point of a file.
    pub(super) fn reparse_point(&self, file: FileId) -> Result<Option<Vec<u8>>> {
        match self.stream(file, AttributeType::REPARSE_POINT, &NtfsName::default())? {
            Some(stream) => self.read_small(&stream, REPARSE_MAX, "reparse point").map(Some),
            None => Ok(None),
        }
    }

    /// The whole content, decompressed; refused when it is longer than `limit`.
    ///
    /// # Errors
    /// Damaged, encrypted, too long, or the device cannot be read.
    pub fn read(&self, file: FileId, limit: u64) -> Result<Vec<u8>> {
        let (source, size) = self.source(file, &NtfsName::default())?;
        let length = source.len(size);
        let length = usize::try_from(length).ok().filter(|_| length <= limit).ok_or_else(|| {
            Error::refused(Layer::Ntfs, "the file is longer than the limit")
                .expected_found(format!("up to {limit} bytes"), length)
                .hint("read it in pieces")
        })?;
        let mut content = vec![0; length];
        let there = self.read_source(&source, 0, &mut content)?;
        content.truncate(there);
        Ok(content)
    }

    /// Reads from a stream (`""`: the content) at `offset`; returns how many bytes there were.
    ///
    /// # Errors
    /// Damaged, encrypted, no such stream, or the device cannot be read.
    pub fn read_at(&self, file: FileId, stream: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let (source, _) = self.source(file, &stream.into())?;
        self.read_source(&source, offset, buf)
    }

    fn read_source(&self, source: &Source, offset: u64, buf: &mut [u8]) -> Result<usize> {
        match source {
            Source::Plain(stream) => self.read_stream(stream, offset, buf),
            Source::Lznt1(runs, sizes) => self.read_lznt1(runs, sizes, offset, buf),
            Source::Wof(content, packed) => content.read_at(offset, buf, |at, part| {
                if self.read_stream(packed, at, part)? != part.len() {
                    return Err(damaged("the compressed stream of a WOF file is cut short"));
                }
                Ok(())
            }),
        }
    }

    /// Reads LZNT1 content, one compression unit after the other.
    fn read_lznt1(&self, runs: &Runlist, sizes: &StreamSizes, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let clusters = 1u64 << sizes.compression_unit;
        let unit = self.geometry.bytes_in(clusters);
        if unit > 16 << 20 {
            return Err(Error::unsupported(Layer::Ntfs, "compression unit of more than 16 MiB"));
        }
        let available = usize::try_from(sizes.data.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let mut plain = vec![0; unit as usize];
        let mut done = 0;
        while done < available {
            let at = offset + done as u64;
            let start = at / unit * unit;
            self.read_unit(runs, Vcn(start / u64::from(self.geometry.cluster_size)), clusters, &mut plain)?;
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
    fn read_unit(&self, runs: &Runlist, first: Vcn, clusters: u64, plain: &mut [u8]) -> Result<()> {
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
        let offset = self.geometry.bytes_in(first.0);
        if real == 0 {
            plain.fill(0);
            return Ok(());
        }
        if real == clusters {
            return self.read_runs(runs, offset, plain);
        }
        let mut packed = vec![0; self.geometry.bytes_in(real) as usize];
        self.read_runs(runs, offset, &mut packed)?;
        if runs.find(Vcn(at)).is_none() {
            // the attribute ends inside the unit without a hole: not compressed
            let (data, rest) = plain.split_at_mut(packed.len().min(plain.len()));
            data.copy_from_slice(&packed[..data.len()]);
            rest.fill(0);
            return Ok(());
        }
        lznt1::decompress(&packed, plain).map(|_| ())
    }
}

impl<D: VolumeWrite> Volume<D> {
    /// Changes the content of a file in place, for all its hard links. Only clusters that differ are written.
    ///
    /// Compressed, sparse and WOF files become plain ones.
    ///
    /// # Errors
    /// Refused when there is no space or the file is encrypted or system metadata; then nothing has changed.
    pub fn overwrite(&mut self, file: FileId, data: &[u8]) -> Result<()> {
        self.transaction(|v| v.set_content(file, &NtfsName::default(), data))
    }

    /// Writes a named stream (creating or replacing it).
    ///
    /// # Errors
    /// As [`overwrite`](Self::overwrite).
    pub fn write_stream(&mut self, file: FileId, stream: &str, data: &[u8]) -> Result<()> {
        let name = NtfsName::from(stream);
        let bad = |&u: &u16| u == 0 || u == u16::from(b':') || u == u16::from(b'/') || u == u16::from(b'\\');
        if name.is_empty()
            || name.units().len() > crate::ntfs::format::name::NAME_UNITS_MAX
            || name.units().iter().any(bad)
        {
            return Err(Error::refused(Layer::Ntfs, "the stream name cannot be used")
                .path(stream)
                .hint("use 1 to 255 characters other than : / \\"));
        }
        self.transaction(|v| v.set_content(file, &name, data))
    }

    /// Removes a named stream.
    ///
    /// # Errors
    /// Refused when it is not there.
    pub fn delete_stream(&mut self, file: FileId, stream: &str) -> Result<()> {
        self.transaction(|v| {
            v.check_ordinary(file)?;
            let mut attrs = v.load(file)?;
            let name = v.stored_stream_name(&attrs, &stream.into()).filter(|n| !n.is_empty()).ok_or_else(|| {
                Error::refused(Layer::Ntfs, "there is no such stream").path(stream).hint("name a stream of the file")
            })?;
            v.drop_attribute(&mut attrs, AttributeType::DATA, &name)?;
            v.note_change(&mut attrs, false)?;
            v.store_and_publish(attrs)
        })
    }

    /// The spelling under which a stream exists.
    fn stored_stream_name(&self, attrs: &Attrs, name: &NtfsName) -> Option<NtfsName> {
        attrs
            .list
            .iter()
            .find(|a| a.kind == AttributeType::DATA && self.same_name(&a.name, name))
            .map(|a| a.name.clone())
    }

    /// Removes an attribute and frees its clusters.
    pub(super) fn drop_attribute(&mut self, attrs: &mut Attrs, kind: AttributeType, name: &NtfsName) -> Result<()> {
        if let Some(Stream::Runs { runs, .. }) = attrs.stream(kind, name, self.geometry.cluster_count)? {
            self.free_clusters(runs.real().collect::<Vec<_>>())?;
        }
        attrs.remove(kind, name);
        Ok(())
    }

    fn note_change(&mut self, attrs: &mut Attrs, content: bool) -> Result<()> {
        let now = self.options.clock;
        change_standard_information(attrs, |i| {
            i.times.changed = now;
            if content {
                i.times.modified = now;
            }
        })
    }

    /// Gives a stream new content.
    fn set_content(&mut self, file: FileId, name: &NtfsName, data: &[u8]) -> Result<()> {
        self.check_ordinary(file)?;
        let record = self.base_record(file)?;
        if record.is_directory() && name.is_empty() {
            return Err(Error::refused(Layer::Ntfs, format!("{file} is a directory")).hint("name a file"));
        }
        let mut attrs = self.load(file)?;
        let name = self.stored_stream_name(&attrs, name).unwrap_or_else(|| name.clone());
        let old = attrs.stream(AttributeType::DATA, &name, self.geometry.cluster_count)?;
        if let Some(old) = &old {
            old.check(&self.geometry)?;
        }
        if old.as_ref().is_some_and(|s| s.flags() & FLAG_ENCRYPTED != 0) {
            return Err(encrypted());
        }
        if name.is_empty() {
            self.make_plain(&mut attrs)?;
        }
        let in_place = match old {
            Some(Stream::Runs { runs, sizes }) if sizes.flags == 0 => Some((runs, sizes)),
            Some(Stream::Runs { runs, .. }) => {
                // compressed or sparse: replaced by a plain stream in new clusters
                self.free_clusters(runs.real().collect::<Vec<_>>())?;
                None
            }
            _ => None,
        };
        self.note_change(&mut attrs, true)?;
        let Some((runs, sizes)) = in_place else {
            let stream = self.content_for(&attrs, record.capacity(), &name, data)?;
            attrs.set_stream(AttributeType::DATA, &name, &stream, self.geometry.cluster_size);
            return self.store_and_publish(attrs);
        };
        self.check_owned(&runs)?;
        let kept = runs.end();
        let (mut runs, wanted) = (runs, self.geometry.clusters_for(data.len() as u64));
        if wanted < kept {
            let cut = runs.truncate(Vcn(wanted));
            self.free_clusters(cut)?;
        }
        self.extend_runs(&mut runs, wanted)?;
        let length = data.len() as u64;
        let allocated = self.geometry.bytes_in(runs.end());
        let sizes = StreamSizes { allocated, data: length, initialized: length, ..sizes };
        let stream = Stream::Runs { runs: runs.clone(), sizes };
        attrs.set_stream(AttributeType::DATA, &name, &stream, self.geometry.cluster_size);
        self.store_and_publish(attrs)?;
        // the metadata are settled; now nothing but the device can fail
        self.write_differences(&runs, kept.min(wanted), data)
    }

    /// Undoes what makes the unnamed stream of a file special: sparse, compressed, WOF.
    fn make_plain(&mut self, attrs: &mut Attrs) -> Result<()> {
        let information = crate::ntfs::directory::standard_information_of(attrs)?;
        if let Some(tag) = self.reparse_tag(attrs)? {
            if tag != wof::REPARSE_TAG {
                return Err(Error::refused(Layer::Ntfs, format!("the file is a reparse point (tag {tag:#x})"))
                    .hint("name the file that it points to, or replace it"));
            }
            self.forget_reparse_point(attrs, tag)?;
            self.drop_attribute(attrs, AttributeType::REPARSE_POINT, &NtfsName::default())?;
            self.drop_attribute(attrs, AttributeType::DATA, &wof::STREAM.into())?;
        }
        let sparse_left = attrs.list.iter().any(|a| {
            a.kind == AttributeType::DATA
                && !a.name.is_empty()
                && crate::ntfs::format::attribute::header::FLAGS.get(&a.bytes) & FLAG_SPARSE != 0
        });
        let clear = attribute::COMPRESSED | attribute::REPARSE | if sparse_left { 0 } else { attribute::SPARSE };
        if information.attributes & clear != 0 {
            change_standard_information(attrs, |i| i.attributes &= !clear)?;
        }
        Ok(())
    }

    /// Writes content to its clusters, the first `kept` of which hold the old content: only what differs.
    fn write_differences(&mut self, runs: &Runlist, kept: u64, data: &[u8]) -> Result<()> {
        let old_bytes = usize::try_from(self.geometry.bytes_in(kept)).unwrap_or(usize::MAX);
        let (present, new) = data.split_at(data.len().min(old_bytes));
        self.write_clusters(runs, Vcn(kept), new)?;
        let mut undo: Vec<(u64, Vec<u8>)> = Vec::new();
        let result = self.write_changed(runs, present, &mut undo);
        if result.is_err() {
            // the device failed in the middle: put back what it still takes
            for (at, old) in undo {
                let _ = self.device.write_at(VolumeOffset(at), &old);
            }
        }
        result
    }

    fn write_changed(&mut self, runs: &Runlist, data: &[u8], undo: &mut Vec<(u64, Vec<u8>)>) -> Result<()> {
        let block = self.page_size();
        let mut old = vec![0; COMPARE_CHUNK];
        for (number, chunk) in data.chunks(COMPARE_CHUNK).enumerate() {
            let offset = (number * COMPARE_CHUNK) as u64;
            let padded = chunk.len().next_multiple_of(block);
            let old = &mut old[..padded];
            self.read_runs(runs, offset, old)?;
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
                for (place, length) in super::stream::pieces(&self.geometry, runs, offset + start as u64, new.len())? {
                    let place = place.ok_or_else(|| damaged("write into a hole"))?;
                    undo.push((place, old[start + done..start + done + length].to_vec()));
                    self.device.write_at(VolumeOffset(place), &new[done..done + length])?;
                    done += length;
                }
            }
        }
        Ok(())
    }
}
