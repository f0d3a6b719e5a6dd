//! The header of a qcow2 file and its extensions, checked (QEMU docs/interop/qcow2.rst, "Header").

use std::mem::offset_of;

use zerocopy::FromBytes;

use super::cluster::ClusterSize;
use super::on_disk::{
    BitmapsExtension, EXTENSION_BACKING_FORMAT, EXTENSION_BITMAPS, EXTENSION_DATA_FILE, EXTENSION_ENCRYPTION,
    EXTENSION_END, EXTENSION_FEATURE_NAMES, EncryptionExtension, ExtensionHeader, FeatureName, LENGTH_V2,
    LENGTH_V3_MIN, MAGIC, SECTOR, StoredHeader,
};
use crate::block::{Storage, StorageExt};
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::units::HostOffset;

/// A subcluster is at least a sector, hence a cluster of 32 of them at least 16 KiB.
const CLUSTER_BITS_MIN_EXTENDED: u32 = 14;
/// QEMU's limit of an L1 table in bytes: 32 MiB.
pub(super) const L1_BYTES_MAX: u64 = 32 << 20;
/// QEMU's limit of the refcount table in bytes: 8 MiB.
pub(super) const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
/// The specification's limit of a backing file's name in bytes.
pub(super) const BACKING_NAME_MAX: u32 = 1023;
/// QEMU's limit of the number of internal snapshots.
const SNAPSHOTS_MAX: u32 = 65536;
/// Host offsets have 56 bits.
pub(super) const HOST_OFFSET_MAX: HostOffset = HostOffset(1 << 56);
/// Only the first cluster holds header data; of a large one, this much is read.
const HEADER_AREA_MAX: u64 = 64 << 10;

/// Incompatible feature: refcounts may be too low.
pub(super) const INCOMPATIBLE_DIRTY: u64 = 1;
/// Incompatible feature: metadata are marked as damaged.
pub(super) const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
/// Incompatible feature: guest data are in another file.
pub(super) const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
/// Incompatible feature: the header has a compression type other than zlib.
pub(super) const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
/// Incompatible feature: L2 entries have 16 bytes.
pub(super) const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
const INCOMPATIBLE_KNOWN: u64 = 0x1F;
/// Compatible feature: a writer may store refcounts long after the tables.
pub(super) const COMPATIBLE_LAZY_REFCOUNTS: u64 = 1;
/// Autoclear feature: the bitmaps are consistent with the data.
pub(super) const AUTOCLEAR_BITMAPS: u64 = 1;
/// Autoclear feature: the external data file is a raw image by itself.
pub(super) const AUTOCLEAR_RAW_DATA: u64 = 1 << 1;
/// Autoclear features that an edit of ours keeps true.
pub(super) const AUTOCLEAR_KNOWN: u64 = AUTOCLEAR_BITMAPS | AUTOCLEAR_RAW_DATA;

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Raw deflate; with a window of 4 KiB every version of QEMU reads it.
    Zlib,
    /// One Zstandard frame for each cluster: faster both ways; QEMU reads it from version 5.1 on.
    Zstd,
}

impl Compression {
    /// The name that qemu-img uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// A checked header with its extensions.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub version: u32,
    pub clusters: ClusterSize,
    /// Bytes of the disk.
    pub size: u64,
    /// Entries of the active L1 table.
    pub l1_size: u32,
    pub l1_table: HostOffset,
    pub refcount_table: HostOffset,
    pub refcount_table_clusters: u32,
    pub snapshot_count: u32,
    pub snapshot_table: HostOffset,
    pub incompatible: u64,
    pub compatible: u64,
    pub autoclear: u64,
    /// log2 of the bits of a refcount, 0 to 6.
    pub refcount_order: u32,
    pub compression: Compression,
    pub backing_name: Option<String>,
    pub backing_format: Option<String>,
    pub data_file_name: Option<String>,
    pub bitmaps: Option<BitmapsExtension>,
    /// The clusters of a LUKS header, for the check.
    pub encryption: Option<EncryptionExtension>,
    /// The file's first bytes as they are stored, for a rewrite in one sector.
    first_sector: Vec<u8>,
}

fn damaged(message: impl Into<String>, at: usize) -> Error {
    Error::damaged(Layer::Block, message).at(at as u64)
}

impl Header {
    /// Reads and checks the header and its extensions.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let io = |e| Error::io(Layer::Block, "cannot read the file", e);
        let file_length = storage.len().map_err(io)?;
        let mut first_sector = vec![0; SECTOR];
        storage.read_or_zeros_at(0, &mut first_sector).map_err(io)?;
        let stored = stored_header(&first_sector)?;
        if stored.magic != MAGIC {
            return Err(Error::unsupported(Layer::Block, "not a qcow2 image")
                .with_code(ErrorCode::NotADiskImage)
                .expected_found("QFI\\xFB", format!("{:#010x}", u32::from_be_bytes(stored.magic)))
                .hint("check the format that was given for the image"));
        }
        let cluster_bits = stored.cluster_bits.get();
        let clusters = ClusterSize::new(cluster_bits).ok_or_else(|| {
            let (min, max) = ClusterSize::BITS.into_inner();
            damaged("invalid cluster size", offset_of!(StoredHeader, cluster_bits))
                .expected_found(format!("{min} to {max} bits"), cluster_bits)
        })?;
        let mut area = vec![0; usize::try_from(clusters.bytes().min(HEADER_AREA_MAX)).unwrap_or(0)];
        storage.read_or_zeros_at(0, &mut area).map_err(io)?;
        let stored = stored_header(&area)?;
        let mut header = Self::parse_fixed(stored, clusters, first_sector)?;
        header.parse_variable(stored, &area)?;
        header.check(file_length)?;
        Ok(header)
    }

    fn parse_fixed(stored: &StoredHeader, clusters: ClusterSize, first_sector: Vec<u8>) -> Result<Self> {
        let version = stored.version.get();
        if version != 2 && version != 3 {
            return Err(Error::unsupported(Layer::Block, format!("qcow2 version {version}"))
                .at(offset_of!(StoredHeader, version) as u64)
                .hint("convert the image with qemu-img convert -O qcow2"));
        }
        let crypt = match stored.crypt_method.get() {
            0 => None,
            1 => Some("AES-encrypted (the old qcow2 encryption)"),
            2 => Some("LUKS-encrypted"),
            _ => Some("encrypted with an unknown method"),
        };
        if let Some(crypt) = crypt {
            return Err(Error::refused(Layer::Block, format!("the image is {crypt}"))
                .with_code(ErrorCode::ImageEncrypted)
                .at(offset_of!(StoredHeader, crypt_method) as u64)
                .hint("decrypt it with qemu-img convert, or open it with qemu-nbd and its key"));
        }
        let is_v3 = version == 3;
        let v3 = |value: u64| if is_v3 { value } else { 0 };
        let compression = match stored.compression_type {
            0 => Compression::Zlib,
            _ if header_length(stored) <= LENGTH_V3_MIN => Compression::Zlib,
            1 => Compression::Zstd,
            other => {
                return Err(Error::unsupported(Layer::Block, format!("compression type {other}"))
                    .at(offset_of!(StoredHeader, compression_type) as u64)
                    .hint("convert the image with qemu-img convert -O qcow2"));
            }
        };
        Ok(Self {
            version,
            clusters,
            size: stored.size.get(),
            l1_size: stored.l1_size.get(),
            l1_table: HostOffset(stored.l1_table_offset.get()),
            refcount_table: HostOffset(stored.refcount_table_offset.get()),
            refcount_table_clusters: stored.refcount_table_clusters.get(),
            snapshot_count: stored.nb_snapshots.get(),
            snapshot_table: HostOffset(stored.snapshots_offset.get()),
            incompatible: v3(stored.incompatible_features.get()),
            compatible: v3(stored.compatible_features.get()),
            autoclear: v3(stored.autoclear_features.get()),
            refcount_order: if is_v3 { stored.refcount_order.get() } else { 4 },
            compression,
            backing_name: None,
            backing_format: None,
            data_file_name: None,
            bitmaps: None,
            encryption: None,
            first_sector,
        })
    }

    /// Reads the extensions and the backing file's name.
    fn parse_variable(&mut self, stored: &StoredHeader, area: &[u8]) -> Result<()> {
        let length = header_length(stored);
        if self.version == 3 && (length < LENGTH_V3_MIN || !length.is_multiple_of(8) || length as usize > area.len()) {
            return Err(damaged("invalid header length", offset_of!(StoredHeader, header_length))
                .expected_found("a multiple of 8, from 104 to the cluster size", length));
        }
        let name_offset = stored.backing_file_offset.get();
        let mut end = area.len();
        if name_offset != 0 {
            let name_length = stored.backing_file_size.get();
            let start = usize::try_from(name_offset).unwrap_or(usize::MAX);
            let name = start
                .checked_add(name_length as usize)
                .filter(|_| name_length <= BACKING_NAME_MAX && start >= length as usize)
                .and_then(|name_end| area.get(start..name_end))
                .ok_or_else(|| {
                    let field = offset_of!(StoredHeader, backing_file_offset);
                    damaged("the backing file's name is outside the first cluster", field)
                })?;
            if !name.is_empty() {
                self.backing_name = Some(text(name, "backing file", start)?);
            }
            end = start;
        }
        self.parse_extensions(area.get(..end).unwrap_or_default(), length as usize)
    }

    /// Reads the extensions from `start` to the end of `area`.
    fn parse_extensions(&mut self, area: &[u8], start: usize) -> Result<()> {
        let mut at = start;
        let mut feature_names: &[u8] = &[];
        // Every step advances by at least the eight bytes of an extension's header.
        while let Some(rest) = area.get(at..)
            && let Ok((extension, rest)) = ExtensionHeader::ref_from_prefix(rest)
        {
            let kind = extension.kind.get();
            if kind == EXTENSION_END {
                break;
            }
            let data = rest
                .get(..extension.length.get() as usize)
                .ok_or_else(|| damaged("a header extension runs over its area", at))?;
            match kind {
                EXTENSION_BACKING_FORMAT => self.backing_format = Some(text(data, "backing format", at)?),
                EXTENSION_DATA_FILE => self.data_file_name = Some(text(data, "data file", at)?),
                EXTENSION_FEATURE_NAMES => feature_names = data,
                EXTENSION_BITMAPS => self.bitmaps = BitmapsExtension::read_from_bytes(data).ok().or(self.bitmaps),
                EXTENSION_ENCRYPTION => {
                    self.encryption = EncryptionExtension::read_from_prefix(data).ok().map(|(found, _)| found);
                }
                _ => {}
            }
            at += size_of::<ExtensionHeader>() + data.len().next_multiple_of(8);
        }
        let unknown = self.incompatible & !INCOMPATIBLE_KNOWN;
        if unknown != 0 {
            return Err(Error::unsupported(Layer::Block, unknown_features(unknown, feature_names))
                .at(offset_of!(StoredHeader, incompatible_features) as u64)
                .hint("convert the image with the program that made it"));
        }
        Ok(())
    }

    fn check(&self, file_length: u64) -> Result<()> {
        if self.refcount_order > 6 {
            return Err(damaged("invalid refcount width", offset_of!(StoredHeader, refcount_order))
                .expected_found("an order of 0 to 6", self.refcount_order));
        }
        if self.is_extended() && self.clusters.bits() < CLUSTER_BITS_MIN_EXTENDED {
            return Err(damaged("clusters too small for subclusters", offset_of!(StoredHeader, cluster_bits)));
        }
        let has_type = self.incompatible & INCOMPATIBLE_COMPRESSION != 0;
        if has_type != (self.compression != Compression::Zlib) {
            let field = offset_of!(StoredHeader, compression_type);
            return Err(damaged("the compression type and its feature bit disagree", field));
        }
        if self.has_data_file() && self.data_file_name.is_none() {
            return Err(Error::refused(Layer::Block, "the image does not say which external data file it has")
                .hint("set it with qemu-img amend -o data_file=…"));
        }
        if i64::try_from(self.size).is_err() {
            return Err(damaged("invalid disk size", offset_of!(StoredHeader, size)));
        }
        let l1_bytes = u64::from(self.l1_size) * 8;
        let needed = self.size.div_ceil(self.l2_span());
        if l1_bytes > L1_BYTES_MAX || u64::from(self.l1_size) < needed {
            return Err(damaged("the L1 table does not fit the disk's size", offset_of!(StoredHeader, l1_size))
                .expected_found(format!("{needed} to {} entries", L1_BYTES_MAX / 8), self.l1_size));
        }
        let field = offset_of!(StoredHeader, l1_table_offset);
        self.check_table("L1 table", field, self.l1_table, l1_bytes, file_length)?;
        let refcount_bytes = self.refcount_table_bytes();
        if refcount_bytes == 0 || refcount_bytes > REFCOUNT_TABLE_BYTES_MAX.max(self.cluster_size()) {
            let field = offset_of!(StoredHeader, refcount_table_clusters);
            return Err(damaged("invalid length of the refcount table", field)
                .expected_found("1 cluster to 8 MiB", refcount_bytes));
        }
        let field = offset_of!(StoredHeader, refcount_table_offset);
        self.check_table("refcount table", field, self.refcount_table, refcount_bytes, file_length)?;
        if self.snapshot_count > SNAPSHOTS_MAX {
            return Err(damaged("too many snapshots", offset_of!(StoredHeader, nb_snapshots))
                .expected_found("at most 65536", self.snapshot_count));
        }
        if self.snapshot_count > 0 {
            let field = offset_of!(StoredHeader, snapshots_offset);
            self.check_table("snapshot table", field, self.snapshot_table, 1, file_length)?;
        }
        Ok(())
    }

    /// Checks where a table of `bytes` bytes lies, which the header's field at `field` says.
    fn check_table(&self, what: &str, field: usize, table: HostOffset, bytes: u64, file_length: u64) -> Result<()> {
        if !self.clusters.is_aligned(table) || table >= HOST_OFFSET_MAX || (bytes > 0 && table.0 == 0) {
            return Err(damaged(format!("invalid offset of the {what}: {table}"), field));
        }
        let end = table.0.saturating_add(bytes);
        if bytes > 0 && end > file_length {
            return Err(damaged(format!("the {what} lies beyond the end of the file"), field)
                .expected_found(format!("{end} bytes"), file_length)
                .hint("the file is truncated: copy it again"));
        }
        Ok(())
    }

    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u64 {
        self.clusters.bytes()
    }

    /// Clusters of the disk, the last one perhaps in part.
    pub fn guest_clusters(&self) -> u64 {
        self.clusters.count(self.size)
    }

    /// Bytes of the refcount table.
    pub fn refcount_table_bytes(&self) -> u64 {
        self.clusters.bytes_of(u64::from(self.refcount_table_clusters))
    }

    /// Whether clusters have subclusters.
    pub fn is_extended(&self) -> bool {
        self.incompatible & INCOMPATIBLE_EXTENDED_L2 != 0
    }

    /// Whether guest data are in another file, at their offset in the disk.
    pub fn has_data_file(&self) -> bool {
        self.incompatible & INCOMPATIBLE_DATA_FILE != 0
    }

    /// Whether the stored refcounts may be too low.
    pub fn is_dirty(&self) -> bool {
        self.incompatible & INCOMPATIBLE_DIRTY != 0
    }

    /// Whether the image is marked as damaged.
    pub fn is_marked_corrupt(&self) -> bool {
        self.incompatible & INCOMPATIBLE_CORRUPT != 0
    }

    /// Bytes of an L2 entry.
    pub fn entry_size(&self) -> u64 {
        if self.is_extended() { 16 } else { 8 }
    }

    /// 64-bit words of an L2 entry: two with subclusters.
    pub fn entry_words(&self) -> usize {
        if self.is_extended() { 2 } else { 1 }
    }

    /// Entries of an L2 table.
    pub fn l2_entries(&self) -> u64 {
        self.cluster_size() / self.entry_size()
    }

    /// Bytes of the disk that one L2 table maps.
    pub fn l2_span(&self) -> u64 {
        self.cluster_size() * self.l2_entries()
    }

    /// Bytes that are mapped on their own: a subcluster, or else a cluster.
    pub fn unit(&self) -> u64 {
        if self.is_extended() { self.cluster_size() / 32 } else { self.cluster_size() }
    }

    /// Entries of one refcount block.
    pub fn refcount_block_entries(&self) -> u64 {
        (self.cluster_size() * 8) >> self.refcount_order
    }

    /// The first sector as it must be written after an edit.
    pub fn first_sector_with(&self, edit: &HeaderEdit) -> Result<Vec<u8>> {
        let mut sector = self.first_sector.clone();
        let (stored, _) = StoredHeader::mut_from_prefix(&mut sector).map_err(|_| too_short())?;
        stored.l1_size.set(edit.l1_size);
        stored.l1_table_offset.set(edit.l1_table.0);
        stored.refcount_table_offset.set(edit.refcount_table.0);
        stored.refcount_table_clusters.set(edit.refcount_table_clusters);
        // In version 2 these bytes belong to extensions.
        if self.version == 3 {
            stored.incompatible_features.set(self.incompatible & !INCOMPATIBLE_DIRTY);
            stored.autoclear_features.set(self.autoclear & AUTOCLEAR_KNOWN);
        }
        Ok(sector)
    }
}

/// The fields of the header that an edit changes, all inside the first sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeaderEdit {
    pub l1_size: u32,
    pub l1_table: HostOffset,
    pub refcount_table: HostOffset,
    pub refcount_table_clusters: u32,
}

/// Where the L1 table of these bytes of a header lies; `None` if they are too few.
pub(crate) fn l1_table_offset(header: &[u8]) -> Option<HostOffset> {
    Some(HostOffset(stored_header(header).ok()?.l1_table_offset.get()))
}

fn stored_header(area: &[u8]) -> Result<&StoredHeader> {
    StoredHeader::ref_from_prefix(area).map(|(stored, _)| stored).map_err(|_| too_short())
}

/// Every buffer for a header has at least a sector.
fn too_short() -> Error {
    Error::bug(Layer::Block, "a header in too short a buffer")
}

fn header_length(stored: &StoredHeader) -> u32 {
    if stored.version.get() == 3 { stored.header_length.get() } else { LENGTH_V2 }
}

fn text(bytes: &[u8], what: &str, at: usize) -> Result<String> {
    // QEMU pads some names with a NUL.
    let bytes = bytes.split(|b| *b == 0).next().unwrap_or_default();
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        Error::unsupported(Layer::Block, format!("the name of the {what} is not UTF-8"))
            .at(at as u64)
            .hint("rename the file and correct the name with qemu-img rebase -u")
    })
}

fn unknown_features(bits: u64, names: &[u8]) -> String {
    let names = <[FeatureName]>::ref_from_prefix_with_elems(names, names.len() / size_of::<FeatureName>());
    let names = names.map_or(&[][..], |(names, _)| names);
    let name_of = |bit: u32| {
        let found = names.iter().find(|entry| entry.kind == 0 && u32::from(entry.bit) == bit)?;
        let name = found.name.split(|byte| *byte == 0).next()?;
        Some(crate::escape::escape(&String::from_utf8_lossy(name)).into_owned())
    };
    let list: Vec<String> = (0..64)
        .filter(|bit| bits & (1 << bit) != 0)
        .map(|bit| name_of(bit).map_or_else(|| format!("bit {bit}"), |name| format!("bit {bit} ({name})")))
        .collect();
    format!("unsupported qcow2 features: {}", list.join(", "))
}
