//! Reading qcow2 images.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cache::Cache;
use super::cluster::GuestCluster;
use super::decompress::decompress;
use super::entry::{CompressedRange, L1Entry, L2Entry, Mapping};
use super::header::Header;
use super::on_disk::table;
use crate::block::{Chain, Extent, ExtentKind, Format, Image, ImageParts, Storage, StorageExt, beyond_end, is_inside};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::units::{HostOffset, ImageOffset};

/// L2 tables are cached in parts of this many bytes (or a whole table if it is smaller).
const PART_BYTES_MAX: u64 = 16 * 1024;
/// All cached parts together: 8 MiB map 64 GiB of disk with the usual clusters.
const CACHE_BYTES: u64 = 8 << 20;
/// Decompressed clusters that are cached: enough for a file system's small reads next to each other.
const CLUSTERS_CACHED: usize = 4;
/// How many runs are joined to one extent at most, so that one call of `extent_at` stays cheap.
const RUNS_JOINED_MAX: usize = 1024;

/// A qcow2 image, its backing chain included.
#[derive(Debug)]
pub struct Qcow2Image {
    pub(super) file: Arc<dyn Storage>,
    pub(super) path: PathBuf,
    pub(super) header: Header,
    pub(super) l1: Vec<L1Entry>,
    pub(super) data_file: Option<(Arc<dyn Storage>, PathBuf)>,
    backing: Option<Box<dyn Image>>,
    file_length: u64,
    /// Parts of L2 tables, as words.
    l2_parts: Cache<u64>,
    /// Decompressed clusters, by the offset of their compressed bytes.
    decompressed: Cache<u8>,
}

impl std::fmt::Debug for dyn Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} image of {} bytes", self.format(), self.len())
    }
}

/// What a run of guest bytes is in this layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Unallocated,
    Zero,
    /// Stored from here on in the file, or in the data file.
    Data(HostOffset),
    /// A compressed cluster, and how far into it the run begins.
    Compressed(CompressedRange, u64),
}

impl Qcow2Image {
    /// Opens a qcow2 file and, under the chain's policy, the files that it names.
    ///
    /// # Errors
    /// When a file is damaged or not supported, the policy forbids one that it names, or the host cannot read.
    pub fn open(storage: Arc<dyn Storage>, path: &Path, chain: &Chain<'_>) -> Result<Self> {
        let mut image = Self::open_alone(storage, path)?;
        let in_file = |e: Error| e.path(path.display().to_string());
        if let Some(name) = &image.header.data_file_name
            && image.header.has_data_file()
        {
            image.data_file = Some(chain.open_named(path, name).map_err(in_file)?);
        }
        if let Some(name) = &image.header.backing_name {
            let stated = image.header.backing_format.as_deref().map(|name| {
                Format::from_name(name).ok_or_else(|| {
                    Error::unsupported(
                        Layer::Block,
                        format!("a backing file in the format {}", crate::escape::escape(name)),
                    )
                    .hint("convert the image with qemu-img convert -O qcow2")
                })
            });
            let format = stated.transpose().map_err(in_file)?;
            image.backing = Some(match format {
                Some(format) => chain.open_parent(path, name, Some(format)).map_err(in_file)?,
                None => open_backing_of_unstated_format(chain, path, name).map_err(in_file)?,
            });
        }
        Ok(image)
    }

    /// Opens the file without the files that it names: enough to examine its metadata.
    pub(super) fn open_alone(storage: Arc<dyn Storage>, path: &Path) -> Result<Self> {
        let in_file = |e: Error| e.path(path.display().to_string());
        let header = Header::read(&*storage).map_err(in_file)?;
        let io = |e| Error::io(Layer::Block, "cannot read the file", e).path(path.display().to_string());
        let file_length = storage.len().map_err(io)?;
        let mut l1 = vec![0; header.l1_size as usize * 8];
        storage.read_exact_at(header.l1_table.0, &mut l1).map_err(io)?;
        let part_size = header.cluster_size().min(PART_BYTES_MAX);
        let part_count = usize::try_from(CACHE_BYTES / part_size).unwrap_or(1);
        Ok(Self {
            file: storage,
            path: path.to_owned(),
            l1: table(&l1),
            header,
            data_file: None,
            backing: None,
            file_length,
            l2_parts: Cache::new(part_count),
            decompressed: Cache::new(CLUSTERS_CACHED),
        })
    }

    /// The mapping of a guest cluster.
    fn mapping(&self, cluster: GuestCluster) -> Result<Mapping> {
        let entries = self.header.l2_entries();
        let l1_index = usize::try_from(cluster.0 / entries).unwrap_or(usize::MAX);
        let Some(table) = self.l2_table(l1_index)? else { return Ok(Mapping::UNALLOCATED) };
        let (entry, bitmap) = self.l2_entry(table, cluster.0 % entries)?;
        Mapping::decode(&self.header, entry, bitmap, cluster).map_err(|e| self.in_file(e))
    }

    /// Where the L2 table is that the L1 entry refers to.
    fn l2_table(&self, l1_index: usize) -> Result<Option<HostOffset>> {
        let entry = self.l1.get(l1_index).copied().unwrap_or_default();
        let table = entry.l2_table(self.header.clusters).map_err(|e| self.in_file(e))?;
        if let Some(offset) = table
            && offset.0.saturating_add(self.header.cluster_size()) > self.file_length
        {
            let needed = offset.0.saturating_add(self.header.cluster_size());
            return Err(self.in_file(
                Error::damaged(Layer::Block, "an L2 table lies beyond the end of the file")
                    .at(offset)
                    .expected_found(format!("a file of at least {needed} bytes"), self.file_length)
                    .hint("the file is truncated: copy it again"),
            ));
        }
        Ok(table)
    }

    /// Both words of an entry; the second is 0 without subclusters.
    fn l2_entry(&self, l2_table: HostOffset, index: u64) -> Result<(L2Entry, u64)> {
        let at = index * self.header.entry_size();
        let part_size = self.header.cluster_size().min(PART_BYTES_MAX);
        let part_at = HostOffset(l2_table.0 + at / part_size * part_size);
        let part = match self.l2_parts.get(part_at) {
            Some(part) => part,
            None => {
                let mut bytes = vec![0; usize::try_from(part_size).unwrap_or(0)];
                self.file.read_exact_at(part_at.0, &mut bytes).map_err(|e| self.io(e, part_at))?;
                let part: Arc<[u64]> = table(&bytes).into();
                self.l2_parts.insert(part_at, Arc::clone(&part));
                part
            }
        };
        let word = usize::try_from(at % part_size / 8).unwrap_or(usize::MAX);
        let entry = part.get(word).copied().unwrap_or(0);
        let bitmap = if self.header.is_extended() { part.get(word + 1).copied().unwrap_or(0) } else { 0 };
        Ok((L2Entry(entry), bitmap))
    }

    /// What begins at `offset`, and how long it is (at most `limit`).
    fn run_at(&self, offset: ImageOffset, limit: u64) -> Result<(Run, u64)> {
        let (first, mut length) = self.unit_at(offset)?;
        while length < limit {
            let next = offset.saturating_add(length);
            if next.0 >= self.header.size {
                break;
            }
            let (run, more) = self.unit_at(next)?;
            let continues = match (first, run) {
                (Run::Data(first), Run::Data(next)) => first.checked_add(length) == Some(next),
                (Run::Zero, Run::Zero) | (Run::Unallocated, Run::Unallocated) => true,
                _ => false,
            };
            if !continues {
                break;
            }
            length = length.saturating_add(more);
        }
        Ok((first, length.min(limit)))
    }

    /// What begins at `offset` up to the end of its unit (subcluster, cluster, or the span of an absent L2 table).
    fn unit_at(&self, offset: ImageOffset) -> Result<(Run, u64)> {
        let span = self.header.l2_span();
        let l1_index = usize::try_from(offset.0 / span).unwrap_or(usize::MAX);
        if self.l1.get(l1_index).is_none_or(|entry| entry.is_absent()) {
            return Ok((Run::Unallocated, span - offset.0 % span));
        }
        let cluster_size = self.header.cluster_size();
        let within = offset.0 % cluster_size;
        Ok(match self.mapping(self.header.clusters.guest_cluster(offset))? {
            Mapping::Compressed(range) => (Run::Compressed(range, within), cluster_size - within),
            Mapping::Standard { host, allocated, zero } => {
                let unit = self.header.unit();
                let bit = if self.header.is_extended() { 1 << (within / unit) } else { 1 };
                let run = match host {
                    _ if zero & bit != 0 => Run::Zero,
                    Some(host) if allocated & bit != 0 => Run::Data(HostOffset(host.0 + within)),
                    _ => Run::Unallocated,
                };
                (run, unit - offset.0 % unit)
            }
        })
    }

    fn read_run(&self, offset: ImageOffset, run: Run, buf: &mut [u8]) -> Result<()> {
        match run {
            Run::Zero => buf.fill(0),
            Run::Unallocated => self.read_backing(offset, buf)?,
            Run::Data(host) => {
                let (storage, path) = match &self.data_file {
                    Some((storage, path)) => (storage, path),
                    None if self.header.has_data_file() => {
                        return Err(self.in_file(Error::bug(Layer::Block, "the data file was not opened")));
                    }
                    None => {
                        self.refuse_truncated(offset, host, buf.len())?;
                        (&self.file, &self.path)
                    }
                };
                // The last cluster may be cut short: zeros.
                storage.read_or_zeros_at(host.0, buf).map_err(|e| {
                    Error::io(Layer::Block, "cannot read the file", e).path(path.display().to_string()).at(host)
                })?;
            }
            Run::Compressed(range, within) => self.read_compressed(offset, range, within, buf)?,
        }
        Ok(())
    }

    /// Refuses data clusters that the file ends before. QEMU reads zeros there (and its check calls it corruption), but
    /// then half of a download, which has all the tables, would be taken for a disk.
    fn refuse_truncated(&self, offset: ImageOffset, HostOffset(host): HostOffset, length: usize) -> Result<()> {
        let size = self.header.cluster_size();
        let end = host.saturating_add(length as u64);
        let missing = self.file_length.next_multiple_of(size).max(host / size * size);
        if end <= missing {
            return Ok(());
        }
        Err(self.in_file(
            Error::damaged(
                Layer::Block,
                format!(
                    "the data of disk offset {} lie beyond the end of the file",
                    offset.saturating_add(missing.saturating_sub(host))
                ),
            )
            .at(HostOffset(missing))
            .expected_found(format!("a file of at least {end} bytes"), self.file_length)
            .hint("the file is truncated: copy it again"),
        ))
    }

    fn read_backing(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        let available = self.backing.as_ref().map_or(0, |b| b.len().saturating_sub(offset.0));
        let count = usize::try_from(available).unwrap_or(usize::MAX).min(buf.len());
        let (from_backing, zeros) = buf.split_at_mut(count);
        zeros.fill(0);
        match &self.backing {
            Some(backing) if !from_backing.is_empty() => backing.read_at(offset, from_backing),
            _ => Ok(()),
        }
    }

    fn read_compressed(&self, offset: ImageOffset, range: CompressedRange, within: u64, buf: &mut [u8]) -> Result<()> {
        let size = usize::try_from(self.header.cluster_size()).unwrap_or(0);
        if within == 0 && buf.len() == size {
            return self.decompress(offset, range, buf);
        }
        let cluster = match self.decompressed.get(range.offset) {
            Some(cluster) => cluster,
            None => {
                let mut cluster = vec![0; size];
                self.decompress(offset, range, &mut cluster)?;
                let cluster: Arc<[u8]> = cluster.into();
                self.decompressed.insert(range.offset, Arc::clone(&cluster));
                cluster
            }
        };
        let start = usize::try_from(within).unwrap_or(usize::MAX);
        let source = start.checked_add(buf.len()).and_then(|end| cluster.get(start..end));
        buf.copy_from_slice(source.ok_or_else(|| Error::bug(Layer::Block, "a read across a compressed cluster"))?);
        Ok(())
    }

    fn decompress(&self, offset: ImageOffset, range: CompressedRange, out: &mut [u8]) -> Result<()> {
        // The length is bounded by the entry's field: at most two clusters.
        let mut input = vec![0; usize::try_from(range.length).unwrap_or(0)];
        self.file.read_or_zeros_at(range.offset.0, &mut input).map_err(|e| self.io(e, range.offset))?;
        decompress(self.header.compression, &input, out).map_err(|why| {
            self.in_file(
                Error::damaged(
                    Layer::Block,
                    format!("the compressed cluster of disk offset {offset} is damaged: {why}"),
                )
                .at(range.offset),
            )
        })
    }

    /// Adds the file's path to an error.
    fn in_file(&self, error: Error) -> Error {
        error.path(self.path.display().to_string())
    }

    fn io(&self, error: std::io::Error, offset: HostOffset) -> Error {
        self.in_file(Error::io(Layer::Block, "cannot read the file", error).at(offset))
    }

    /// The kind of a run, looking through the backing chain.
    fn extent_of(&self, offset: ImageOffset, run: Run, length: u64) -> Result<Extent> {
        let extent = |kind| Ok(Extent { length, kind });
        match (run, &self.backing) {
            (Run::Zero, _) => extent(ExtentKind::Zero),
            (Run::Data(_) | Run::Compressed(..), _) => extent(ExtentKind::Data),
            (Run::Unallocated, Some(backing)) if offset.0 < backing.len() => {
                backing.extent_at(offset, length.min(backing.len() - offset.0))
            }
            (Run::Unallocated, _) => extent(ExtentKind::Unallocated),
        }
    }
}

/// Opens a backing file whose format the image does not state. Only raw may be recognised by content: a guest can write
/// any container's header to the start of its raw disk, and would then choose which files we read.
fn open_backing_of_unstated_format(chain: &Chain<'_>, path: &Path, name: &str) -> Result<Box<dyn Image>> {
    let (storage, backing_path) = chain.open_backing(path, name)?;
    match crate::block::formats::probe::probe(&*storage, &backing_path) {
        Ok(Format::Raw) => chain.open_storage(storage, &backing_path, Some(Format::Raw)),
        Err(e) if e.kind() == Kind::Io => Err(e),
        _ => Err(Error::refused(Layer::Block, "the image does not say which format its backing file has")
            .with_code(ErrorCode::BackingFormatMissing)
            .hint("if you trust both files: qemu-img rebase -u -b BACKING -F FORMAT IMAGE")),
    }
}

impl Image for Qcow2Image {
    fn len(&self) -> u64 {
        self.header.size
    }

    fn format(&self) -> Format {
        Format::Qcow2
    }

    fn format_in_qemu(&self) -> Option<Format> {
        let is_backing_same = self.backing.as_ref().is_none_or(|backing| backing.format_in_qemu().is_some());
        (is_backing_same && !self.file.is_part()).then_some(Format::Qcow2)
    }

    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        if !is_inside(offset, buf.len(), self.header.size) {
            return Err(beyond_end(offset, buf.len(), self.header.size));
        }
        let mut position = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let (run, length) = self.run_at(position, rest.len() as u64)?;
            let count = usize::try_from(length).unwrap_or(usize::MAX).clamp(1, rest.len());
            let (part, after) = rest.split_at_mut(count);
            self.read_run(position, run, part)?;
            position = position.saturating_add(count as u64);
            rest = after;
        }
        Ok(())
    }

    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        let limit = self.header.size.saturating_sub(offset.0).min(limit);
        if limit == 0 {
            return Err(beyond_end(offset, 1, self.header.size));
        }
        let mut joined: Option<Extent> = None;
        for _ in 0..RUNS_JOINED_MAX {
            let done = joined.map_or(0, |e| e.length);
            if done >= limit {
                break;
            }
            let at = offset.saturating_add(done);
            let (run, length) = self.run_at(at, limit - done)?;
            let extent = self.extent_of(at, run, length)?;
            match &mut joined {
                None => joined = Some(extent),
                Some(so_far) if so_far.kind == extent.kind => so_far.length += extent.length,
                Some(_) => break,
            }
        }
        joined.ok_or_else(|| beyond_end(offset, 1, self.header.size))
    }

    fn bytes_read(&self) -> u64 {
        self.file.bytes_read()
            + self.data_file.as_ref().map_or(0, |(f, _)| f.bytes_read())
            + self.backing.as_ref().map_or(0, |b| b.bytes_read())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.path.clone()];
        files.extend(self.data_file.iter().map(|(_, path)| path.clone()));
        files.extend(self.backing.iter().flat_map(|b| b.files()));
        files
    }

    fn in_use_marks(&self) -> Vec<String> {
        self.backing.as_ref().map_or_else(Vec::new, |backing| backing.in_use_marks())
    }

    fn parts(&self) -> Option<ImageParts<'_>> {
        let data_file = self.data_file.as_ref().map(|(storage, path)| (storage, path.as_path()));
        (!self.file.is_part()).then_some(ImageParts { file: &self.file, data_file })
    }
}
