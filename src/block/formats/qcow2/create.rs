//! Writing new qcow2 files, front to back.
//!
//! Data clusters come in guest order right behind the header; tables follow when they are complete. The header is
//! written last: until then the file is no qcow2 image.

use super::bytes::{put, table_bytes};
use super::entry::{COPIED, ZERO};
use super::header::{EXTENSION_BACKING_FORMAT, L1_BYTES_MAX, LENGTH_V3, place};
use crate::block::{Format, Storage, is_zero};
use crate::error::{Error, Layer, Result};

/// QEMU's default cluster of 64 KiB.
pub(crate) const DEFAULT_CLUSTER_BITS: u32 = 16;
/// Finished L2 tables are written out when they make up this much memory.
const TABLES_PENDING_MAX: usize = 8 << 20;
/// Data is collected up to this size before it is written.
const BUFFER_BYTES: usize = 2 << 20;
const REFCOUNT_ORDER: u32 = 4;

/// The backing file that a new image records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backing {
    pub name: String,
    pub format: Format,
}

/// A qcow2 file (version 3) that is being written. Clusters must come in ascending guest order.
#[derive(Debug)]
pub(crate) struct NewImage<'a> {
    storage: &'a dyn Storage,
    size: u64,
    backing: Option<Backing>,
    l1: Vec<u64>,
    /// L2 tables that are not written yet: L1 index and entries.
    pending: Vec<(usize, Vec<u64>)>,
    /// Data that is not written yet; it belongs at `buffer_at`.
    buffer: Vec<u8>,
    buffer_at: u64,
    /// The next free host cluster.
    next: u64,
    last_cluster: Option<u64>,
}

fn io(error: std::io::Error) -> Error {
    Error::io(Layer::Block, "cannot be written", error).hint("is there enough space?")
}

impl<'a> NewImage<'a> {
    /// Begins a new image in an empty file.
    pub fn new(storage: &'a dyn Storage, size: u64, backing: Option<Backing>) -> Result<Self> {
        let span = Self::CLUSTER * Self::L2_ENTRIES;
        let entries = size.div_ceil(span).max(1);
        if entries * 8 > L1_BYTES_MAX {
            return Err(Error::unsupported(Layer::Block, format!("a disk of {size} bytes is too large for qcow2")));
        }
        Ok(Self {
            storage,
            size,
            backing,
            l1: vec![0; usize::try_from(entries).unwrap_or(0)],
            pending: Vec::new(),
            buffer: Vec::new(),
            buffer_at: 0,
            next: 1,
            last_cluster: None,
        })
    }

    /// Bytes of a cluster.
    pub const CLUSTER: u64 = 1 << DEFAULT_CLUSTER_BITS;
    const L2_ENTRIES: u64 = Self::CLUSTER / 8;

    /// Adds the content of one guest cluster (shorter only at the disk's end). Zeros take no space.
    pub fn add(&mut self, cluster: u64, data: &[u8]) -> Result<()> {
        if self.last_cluster.is_some_and(|last| last >= cluster) || data.len() as u64 > Self::CLUSTER {
            return Err(Error::bug(Layer::Block, "clusters of a new image must come in order"));
        }
        self.last_cluster = Some(cluster);
        let entry = if is_zero(data) {
            // Over a backing file a hole would show the old data.
            if self.backing.is_none() {
                return Ok(());
            }
            ZERO
        } else {
            let host = self.take(1);
            self.append(host * Self::CLUSTER, data)?;
            (host * Self::CLUSTER) | COPIED
        };
        let l1_index = usize::try_from(cluster / Self::L2_ENTRIES).unwrap_or(usize::MAX);
        if self.pending.last().is_none_or(|(index, _)| *index != l1_index) {
            if self.pending.len() * usize::try_from(Self::CLUSTER).unwrap_or(1) >= TABLES_PENDING_MAX {
                self.write_tables()?;
            }
            self.pending.push((l1_index, vec![0; usize::try_from(Self::L2_ENTRIES).unwrap_or(0)]));
        }
        let slot = usize::try_from(cluster % Self::L2_ENTRIES).unwrap_or(usize::MAX);
        match self.pending.last_mut().and_then(|(_, table)| table.get_mut(slot)) {
            Some(target) => *target = entry,
            None => return Err(Error::bug(Layer::Block, "a cluster beyond the L2 table")),
        }
        Ok(())
    }

    /// Writes the rest of the tables, then the header. Returns the file's length. The caller flushes.
    pub fn finish(mut self) -> Result<u64> {
        self.write_tables()?;
        let l1 = table_bytes(&self.l1);
        let l1_clusters = (l1.len() as u64).div_ceil(Self::CLUSTER);
        let l1_at = self.take(l1_clusters) * Self::CLUSTER;
        self.append(l1_at, &l1)?;
        let (table_at, table_clusters) = self.write_refcounts()?;
        self.flush_buffer()?;
        let end = self.next * Self::CLUSTER;
        self.storage.set_len(end).map_err(io)?;
        let header = self.header(l1_at, table_at, table_clusters)?;
        self.storage.write_at(0, &header).map_err(io)?;
        Ok(end)
    }

    fn take(&mut self, clusters: u64) -> u64 {
        let first = self.next;
        self.next += clusters;
        first
    }

    fn append(&mut self, at: u64, data: &[u8]) -> Result<()> {
        if self.buffer_at + self.buffer.len() as u64 != at || self.buffer.len() + data.len() > BUFFER_BYTES {
            self.flush_buffer()?;
            self.buffer_at = at;
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    fn flush_buffer(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.storage.write_at(self.buffer_at, &self.buffer).map_err(io)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn write_tables(&mut self) -> Result<()> {
        for (l1_index, table) in std::mem::take(&mut self.pending) {
            let at = self.take(1) * Self::CLUSTER;
            self.append(at, &table_bytes(&table))?;
            if let Some(entry) = self.l1.get_mut(l1_index) {
                *entry = at | COPIED;
            }
        }
        Ok(())
    }

    /// Every cluster up to the end is used exactly once, the refcount structures included.
    fn write_refcounts(&mut self) -> Result<(u64, u64)> {
        let per_block = (Self::CLUSTER * 8) >> REFCOUNT_ORDER;
        let per_table_cluster = Self::CLUSTER / 8;
        let (mut blocks, mut table_clusters) = (0, 0);
        // Each round adds what the last one needs for itself; it settles after two or three.
        loop {
            let total = self.next + blocks + table_clusters;
            let needed = (total.div_ceil(per_block), blocks.max(1).div_ceil(per_table_cluster));
            if needed.0 <= blocks && needed.1 <= table_clusters {
                break;
            }
            (blocks, table_clusters) = (needed.0.max(blocks), needed.1.max(table_clusters));
        }
        let blocks_at = self.take(blocks);
        let table_at = self.take(table_clusters);
        for block in 0..blocks {
            let used = (self.next - block * per_block).min(per_block);
            let mut content = vec![0; usize::try_from(Self::CLUSTER).unwrap_or(0)];
            for count in content.chunks_exact_mut(2).take(usize::try_from(used).unwrap_or(0)) {
                count.copy_from_slice(&1u16.to_be_bytes());
            }
            self.append((blocks_at + block) * Self::CLUSTER, &content)?;
        }
        let table: Vec<u64> = (0..blocks).map(|block| (blocks_at + block) * Self::CLUSTER).collect();
        self.append(table_at * Self::CLUSTER, &table_bytes(&table))?;
        Ok((table_at * Self::CLUSTER, table_clusters))
    }

    fn header(&self, l1_at: u64, table_at: u64, table_clusters: u64) -> Result<Vec<u8>> {
        let mut header = vec![0; LENGTH_V3 as usize];
        put(&mut header, 0, *b"QFI\xFB");
        put(&mut header, 4, 3u32.to_be_bytes());
        put(&mut header, 20, DEFAULT_CLUSTER_BITS.to_be_bytes());
        put(&mut header, 24, self.size.to_be_bytes());
        put(&mut header, place::L1_SIZE, u32::try_from(self.l1.len()).unwrap_or(0).to_be_bytes());
        put(&mut header, place::L1_TABLE_OFFSET, l1_at.to_be_bytes());
        put(&mut header, place::REFCOUNT_TABLE_OFFSET, table_at.to_be_bytes());
        let clusters = u32::try_from(table_clusters).unwrap_or(0);
        put(&mut header, place::REFCOUNT_TABLE_CLUSTERS, clusters.to_be_bytes());
        put(&mut header, place::REFCOUNT_ORDER, REFCOUNT_ORDER.to_be_bytes());
        put(&mut header, place::HEADER_LENGTH, LENGTH_V3.to_be_bytes());
        if let Some(Backing { name, format }) = &self.backing {
            let format = format.name().as_bytes();
            header.extend_from_slice(&EXTENSION_BACKING_FORMAT.to_be_bytes());
            header.extend_from_slice(&u32::try_from(format.len()).unwrap_or(0).to_be_bytes());
            header.extend_from_slice(format);
            header.resize(header.len().next_multiple_of(8) + 8, 0);
            if name.len() > 1023 {
                return Err(Error::unsupported(Layer::Block, "the path of the original is longer than 1023 bytes")
                    .hint("put the output into the same folder as the original"));
            }
            let at = header.len() as u64;
            put(&mut header, 8, at.to_be_bytes());
            put(&mut header, 16, u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
            header.extend_from_slice(name.as_bytes());
        } else {
            header.extend_from_slice(&[0; 8]);
        }
        Ok(header)
    }
}
