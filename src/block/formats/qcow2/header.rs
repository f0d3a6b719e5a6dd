//! The header of a qcow2 file and its extensions (QEMU docs/interop/qcow2.rst, "Header").

use super::bytes::{be32, be64, put};
use crate::block::{Storage, StorageExt};
use crate::error::{Error, Layer, Result};

/// "QFI" and 0xFB.
const MAGIC: u32 = 0x5146_49FB;
/// Length of a version 2 header; its extensions begin there.
const LENGTH_V2: u32 = 72;
/// Length of the smallest version 3 header.
const LENGTH_V3_MIN: u32 = 104;
/// Length of the header that QEMU writes today (with the compression type).
pub(super) const LENGTH_V3: u32 = 112;

/// Smallest and largest cluster that QEMU accepts: 512 bytes and 2 MiB.
const CLUSTER_BITS_MIN: u32 = 9;
const CLUSTER_BITS_MAX: u32 = 21;
/// A subcluster is at least a sector, hence a cluster of 32 of them at least 16 KiB.
const CLUSTER_BITS_MIN_EXTENDED: u32 = 14;
/// QEMU's limit of an L1 table in bytes: 32 MiB.
pub(super) const L1_BYTES_MAX: u64 = 32 << 20;
/// QEMU's limit of the refcount table in bytes: 8 MiB.
pub(super) const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
const BACKING_NAME_MAX: u32 = 1023;
/// QEMU's limit of the number of internal snapshots.
const SNAPSHOTS_MAX: u32 = 65536;
/// Host offsets have 56 bits.
pub(super) const HOST_OFFSET_MAX: u64 = 1 << 56;

/// Incompatible feature: refcounts may be too low.
pub const INCOMPATIBLE_DIRTY: u64 = 1;
/// Incompatible feature: metadata are known to be damaged.
pub const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
/// Incompatible feature: guest data are in another file.
pub const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
/// Incompatible feature: the header has a compression type other than zlib.
pub const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
/// Incompatible feature: L2 entries have 16 bytes.
pub const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
const INCOMPATIBLE_KNOWN: u64 = 0x1F;
/// Compatible feature: refcounts may be updated late.
pub const COMPATIBLE_LAZY_REFCOUNTS: u64 = 1;
/// Autoclear feature: the bitmaps are consistent with the data.
pub const AUTOCLEAR_BITMAPS: u64 = 1;
/// Autoclear feature: the external data file is a raw image by itself.
pub const AUTOCLEAR_RAW_DATA: u64 = 1 << 1;
/// Autoclear features that we keep right.
pub(super) const AUTOCLEAR_KNOWN: u64 = 3;

const EXTENSION_END: u32 = 0;
pub(super) const EXTENSION_BACKING_FORMAT: u32 = 0xE279_2ACA;
pub(super) const EXTENSION_FEATURE_NAMES: u32 = 0x6803_F857;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;
const EXTENSION_ENCRYPTION: u32 = 0x0537_BE77;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

/// How compressed clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Raw deflate.
    Zlib,
    /// One zstd frame.
    Zstd,
}

impl Compression {
    /// qemu-img's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// Where the directory of persistent bitmaps is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BitmapsExtension {
    pub count: u32,
    pub directory_size: u64,
    pub directory_offset: u64,
}

/// A header that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    /// The disk's size in bytes.
    pub size: u64,
    pub l1_size: u32,
    pub l1_table_offset: u64,
    pub refcount_table_offset: u64,
    pub refcount_table_clusters: u32,
    pub nb_snapshots: u32,
    pub snapshots_offset: u64,
    pub incompatible: u64,
    pub compatible: u64,
    pub autoclear: u64,
    pub refcount_order: u32,
    pub compression: Compression,
    pub backing_name: Option<String>,
    pub backing_format: Option<String>,
    pub data_file_name: Option<String>,
    pub bitmaps: Option<BitmapsExtension>,
    /// The clusters of a LUKS header (offset, length), for the check.
    pub encryption: Option<(u64, u64)>,
    /// The header's first bytes as they are on disk, for a rewrite in one sector.
    pub first_sector: Vec<u8>,
}

/// Places of the header's fields, for reading and for the rewrite in place.
pub(super) mod place {
    pub const L1_SIZE: usize = 36;
    pub const L1_TABLE_OFFSET: usize = 40;
    pub const REFCOUNT_TABLE_OFFSET: usize = 48;
    pub const REFCOUNT_TABLE_CLUSTERS: usize = 56;
    pub const INCOMPATIBLE: usize = 72;
    pub const COMPATIBLE: usize = 80;
    pub const AUTOCLEAR: usize = 88;
    pub const REFCOUNT_ORDER: usize = 96;
    pub const HEADER_LENGTH: usize = 100;
    pub const COMPRESSION: usize = 104;
}

fn damaged(message: impl Into<String>, at: usize) -> Error {
    Error::damaged(Layer::Block, message).at(at as u64)
}

impl Header {
    /// Reads and checks the header and its extensions.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let io = |e| Error::io(Layer::Block, "cannot be read", e);
        let file_length = storage.len().map_err(io)?;
        let mut head = vec![0; LENGTH_V3 as usize];
        storage.read_or_zeros_at(0, &mut head).map_err(io)?;
        if be32(&head, 0) != MAGIC {
            return Err(Error::unsupported(Layer::Block, "not a qcow2 image")
                .expected_found("QFI\\xFB", format!("{:#010x}", be32(&head, 0)))
                .hint("check the format that was given for the image"));
        }
        let cluster_bits = be32(&head, 20);
        if !(CLUSTER_BITS_MIN..=CLUSTER_BITS_MAX).contains(&cluster_bits) {
            return Err(damaged("impossible cluster size", 20)
                .expected_found(format!("{CLUSTER_BITS_MIN} to {CLUSTER_BITS_MAX} bits"), cluster_bits));
        }
        // Only the first cluster holds header data; of a large one, what a reasonable header can reach.
        let mut area = vec![0; 1usize << cluster_bits.min(16)];
        storage.read_or_zeros_at(0, &mut area).map_err(io)?;
        let mut header = Self::parse_fixed(&area)?;
        header.parse_variable(&area)?;
        header.check(file_length)?;
        Ok(header)
    }

    fn parse_fixed(area: &[u8]) -> Result<Self> {
        let version = be32(area, 4);
        if version != 2 && version != 3 {
            return Err(Error::unsupported(Layer::Block, format!("qcow2 version {version}"))
                .at(4u64)
                .hint("convert the image with qemu-img convert -O qcow2"));
        }
        let crypt = match be32(area, 32) {
            0 => None,
            1 => Some("AES-encrypted (the old qcow2 encryption)"),
            2 => Some("LUKS-encrypted"),
            _ => Some("encrypted with an unknown method"),
        };
        if let Some(crypt) = crypt {
            return Err(Error::refused(Layer::Block, format!("the image is {crypt}"))
                .at(32u64)
                .hint("decrypt it with qemu-img convert, or open it with qemu-nbd and its key"));
        }
        let is_v3 = version == 3;
        let v3 = |value: u64| if is_v3 { value } else { 0 };
        let header_length = if is_v3 { be32(area, place::HEADER_LENGTH) } else { LENGTH_V2 };
        let compression = match area.get(place::COMPRESSION) {
            Some(0) | None => Compression::Zlib,
            _ if !is_v3 || header_length <= LENGTH_V3_MIN => Compression::Zlib,
            Some(1) => Compression::Zstd,
            Some(other) => {
                return Err(Error::unsupported(Layer::Block, format!("compression type {other}"))
                    .at(place::COMPRESSION as u64)
                    .hint("convert the image with qemu-img convert -O qcow2"));
            }
        };
        Ok(Self {
            version,
            cluster_bits: be32(area, 20),
            size: be64(area, 24),
            l1_size: be32(area, place::L1_SIZE),
            l1_table_offset: be64(area, place::L1_TABLE_OFFSET),
            refcount_table_offset: be64(area, place::REFCOUNT_TABLE_OFFSET),
            refcount_table_clusters: be32(area, place::REFCOUNT_TABLE_CLUSTERS),
            nb_snapshots: be32(area, 60),
            snapshots_offset: be64(area, 64),
            incompatible: v3(be64(area, place::INCOMPATIBLE)),
            compatible: v3(be64(area, place::COMPATIBLE)),
            autoclear: v3(be64(area, place::AUTOCLEAR)),
            refcount_order: if is_v3 { be32(area, place::REFCOUNT_ORDER) } else { 4 },
            compression,
            backing_name: None,
            backing_format: None,
            data_file_name: None,
            bitmaps: None,
            encryption: None,
            first_sector: area.get(..512).unwrap_or_default().to_vec(),
        })
    }

    /// Reads the extensions and the backing file's name.
    fn parse_variable(&mut self, area: &[u8]) -> Result<()> {
        let length = if self.version == 3 { be32(area, place::HEADER_LENGTH) } else { LENGTH_V2 };
        if self.version == 3 && (length < LENGTH_V3_MIN || length % 8 != 0 || length as usize > area.len()) {
            return Err(damaged("impossible header length", place::HEADER_LENGTH)
                .expected_found("a multiple of 8, from 104 to the cluster size", length));
        }
        let name_offset = be64(area, 8);
        let mut end = area.len();
        if name_offset != 0 {
            let name_length = be32(area, 16);
            let start = usize::try_from(name_offset).unwrap_or(usize::MAX);
            let name = start
                .checked_add(name_length as usize)
                .filter(|_| name_length <= BACKING_NAME_MAX && start >= length as usize)
                .and_then(|name_end| area.get(start..name_end))
                .ok_or_else(|| damaged("the backing file's name is outside the first cluster", 8))?;
            if !name.is_empty() {
                self.backing_name = Some(text(name, "backing file", start)?);
            }
            end = start;
        }
        self.parse_extensions(area, length as usize, end)
    }

    fn parse_extensions(&mut self, area: &[u8], start: usize, end: usize) -> Result<()> {
        let mut at = start;
        let mut feature_names: &[u8] = &[];
        // Every step advances by at least eight bytes.
        while at.checked_add(8).is_some_and(|next| next <= end) {
            let kind = be32(area, at);
            if kind == EXTENSION_END {
                break;
            }
            let data_start = at + 8;
            let data = (data_start.checked_add(be32(area, at + 4) as usize))
                .filter(|data_end| *data_end <= end)
                .and_then(|data_end| area.get(data_start..data_end))
                .ok_or_else(|| damaged("a header extension runs over its area", at))?;
            match kind {
                EXTENSION_BACKING_FORMAT => self.backing_format = Some(text(data, "backing format", at)?),
                EXTENSION_DATA_FILE => self.data_file_name = Some(text(data, "data file", at)?),
                EXTENSION_FEATURE_NAMES => feature_names = data,
                EXTENSION_BITMAPS if data.len() == 24 => {
                    self.bitmaps = Some(BitmapsExtension {
                        count: be32(data, 0),
                        directory_size: be64(data, 8),
                        directory_offset: be64(data, 16),
                    });
                }
                EXTENSION_ENCRYPTION => self.encryption = Some((be64(data, 0), be64(data, 8))),
                _ => {}
            }
            at = data_start + data.len().next_multiple_of(8);
        }
        let unknown = self.incompatible & !INCOMPATIBLE_KNOWN;
        if unknown != 0 {
            return Err(Error::unsupported(Layer::Block, unknown_features(unknown, feature_names))
                .at(place::INCOMPATIBLE as u64)
                .hint("convert the image with the program that made it"));
        }
        Ok(())
    }

    fn check(&self, file_length: u64) -> Result<()> {
        if self.refcount_order > 6 {
            return Err(damaged("impossible refcount width", place::REFCOUNT_ORDER)
                .expected_found("an order of 0 to 6", self.refcount_order));
        }
        if self.is_extended() && self.cluster_bits < CLUSTER_BITS_MIN_EXTENDED {
            return Err(damaged("clusters too small for subclusters", 20));
        }
        let has_type = self.incompatible & INCOMPATIBLE_COMPRESSION != 0;
        if has_type != (self.compression != Compression::Zlib) {
            return Err(damaged("the compression type and its feature bit disagree", place::COMPRESSION));
        }
        if self.has_data_file() != self.data_file_name.is_some() && self.has_data_file() {
            return Err(Error::refused(Layer::Block, "the image does not say which external data file it has")
                .hint("set it with qemu-img amend -o data_file=…"));
        }
        let cluster = self.cluster_size();
        if i64::try_from(self.size).is_err() {
            return Err(damaged("impossible disk size", 24));
        }
        let l1_bytes = u64::from(self.l1_size) * 8;
        let needed = self.size.div_ceil(self.l2_span());
        if l1_bytes > L1_BYTES_MAX || u64::from(self.l1_size) < needed {
            return Err(damaged("the L1 table does not fit the disk's size", place::L1_SIZE)
                .expected_found(format!("{needed} to {} entries", L1_BYTES_MAX / 8), self.l1_size));
        }
        self.check_table("L1 table", place::L1_TABLE_OFFSET, self.l1_table_offset, l1_bytes, file_length)?;
        let refcount_bytes = u64::from(self.refcount_table_clusters) * cluster;
        if refcount_bytes == 0 || refcount_bytes > REFCOUNT_TABLE_BYTES_MAX.max(cluster) {
            return Err(damaged("impossible length of the refcount table", place::REFCOUNT_TABLE_CLUSTERS)
                .expected_found("1 cluster to 8 MiB", refcount_bytes));
        }
        let place = place::REFCOUNT_TABLE_OFFSET;
        self.check_table("refcount table", place, self.refcount_table_offset, refcount_bytes, file_length)?;
        if self.nb_snapshots > SNAPSHOTS_MAX {
            return Err(damaged("too many snapshots", 60).expected_found("at most 65536", self.nb_snapshots));
        }
        if self.nb_snapshots > 0 {
            self.check_table("snapshot table", 64, self.snapshots_offset, 1, file_length)?;
        }
        Ok(())
    }

    fn check_table(&self, what: &str, place: usize, offset: u64, bytes: u64, file_length: u64) -> Result<()> {
        if !offset.is_multiple_of(self.cluster_size()) || offset >= HOST_OFFSET_MAX || (bytes > 0 && offset == 0) {
            return Err(damaged(format!("impossible place of the {what}: {offset:#x}"), place));
        }
        if bytes > 0 && offset.saturating_add(bytes) > file_length {
            return Err(damaged(format!("the {what} lies beyond the end of the file"), place)
                .expected_found(format!("{} bytes", offset.saturating_add(bytes)), file_length)
                .hint("the file is truncated; copy it again"));
        }
        Ok(())
    }

    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    pub fn is_extended(&self) -> bool {
        self.incompatible & INCOMPATIBLE_EXTENDED_L2 != 0
    }

    pub fn has_data_file(&self) -> bool {
        self.incompatible & INCOMPATIBLE_DATA_FILE != 0
    }

    /// Bytes of an L2 entry.
    pub fn entry_size(&self) -> u64 {
        if self.is_extended() { 16 } else { 8 }
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
    pub fn first_sector_with(&self, edit: &HeaderEdit) -> Vec<u8> {
        let mut sector = self.first_sector.clone();
        put(&mut sector, place::L1_SIZE, edit.l1_size.to_be_bytes());
        put(&mut sector, place::L1_TABLE_OFFSET, edit.l1_table_offset.to_be_bytes());
        put(&mut sector, place::REFCOUNT_TABLE_OFFSET, edit.refcount_table_offset.to_be_bytes());
        put(&mut sector, place::REFCOUNT_TABLE_CLUSTERS, edit.refcount_table_clusters.to_be_bytes());
        if self.version == 3 {
            put(&mut sector, place::INCOMPATIBLE, (self.incompatible & !INCOMPATIBLE_DIRTY).to_be_bytes());
            put(&mut sector, place::AUTOCLEAR, (self.autoclear & AUTOCLEAR_KNOWN).to_be_bytes());
        }
        sector
    }
}

/// The fields of the header that an edit changes, all inside the first sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeaderEdit {
    pub l1_size: u32,
    pub l1_table_offset: u64,
    pub refcount_table_offset: u64,
    pub refcount_table_clusters: u32,
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
    // Records of the feature name table: kind, bit, name of 46 bytes.
    let name_of = |bit: u32| {
        names
            .chunks_exact(48)
            .find(|r| r.first() == Some(&0) && r.get(1).is_some_and(|b| u32::from(*b) == bit))
            .and_then(|r| r.get(2..)?.split(|b| *b == 0).next())
            .map(|name| crate::escape::escape(&String::from_utf8_lossy(name)).into_owned())
    };
    let list: Vec<String> = (0..64)
        .filter(|bit| bits & (1 << bit) != 0)
        .map(|bit| name_of(bit).map_or_else(|| format!("bit {bit}"), |name| format!("bit {bit} ({name})")))
        .collect();
    format!("qcow2 features that winject does not know: {}", list.join(", "))
}
