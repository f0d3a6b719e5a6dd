//! The qcow2 layout: header, refcounts, L1, L2 tables, then the data in guest order.
//!
//! Source: the qcow2 specification (docs/interop/qcow2.txt of QEMU). Which L2 tables there will be is known from the
//! source's extents before any data are read; how many refcount blocks at most, too. All metadata therefore lie in one
//! piece at the front, and only the tables that are being filled are in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::compress::Compression;
use super::layout::{Encoded, Layout, Piece, Write, write_at};
use super::window::Window;
use crate::error::{Error, Layer, Result};

/// "Refcount is exactly one", in L1 and L2 entries.
const COPIED: u64 = 1 << 63;

/// "The cluster is compressed", in L2 entries.
const COMPRESSED: u64 = 1 << 62;

/// log2 of the width of refcounts: 16 bits.
const REFCOUNT_ORDER: u32 = 4;

/// Bytes of the header that we write, the compression type included.
const HEADER_LENGTH: u32 = 112;

/// Incompatible feature: the compression type is not zlib.
const FEATURE_COMPRESSION: u64 = 1 << 3;

/// The bits of an L2 entry that say where its cluster is.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

/// Largest L1 table that QEMU opens.
const L1_BYTES_MAX: u64 = 32 << 20;

/// Largest refcount table that QEMU opens.
const REFCOUNT_TABLE_MAX: u64 = 8 << 20;

/// Counts what the metadata have to cover, before anything is written.
pub(super) struct Survey {
    cluster_bits: u32,
    size: u64,
    l1: Vec<bool>,
    clusters: u64,
}

impl Survey {
    pub(super) fn new(size: u64, cluster_bits: u32) -> Result<Self> {
        let entries = size.div_ceil(l2_span(cluster_bits));
        if entries * 8 > L1_BYTES_MAX {
            return Err(Error::unsupported(Layer::Block, "a disk this large in clusters this small")
                .hint("choose larger clusters"));
        }
        // At most 4 Mi entries.
        Ok(Self { cluster_bits, size, l1: vec![false; entries as usize], clusters: 0 })
    }

    /// Counts on so many bytes of data that nobody knows of yet.
    pub(super) fn expect_more(&mut self, bytes: u64) {
        self.clusters += bytes >> self.cluster_bits;
    }

    /// Takes note of a window that will be read.
    pub(super) fn add(&mut self, window: &Window) {
        for (offset, length) in &window.ranges {
            self.clusters += length.div_ceil(1 << self.cluster_bits);
            let span = l2_span(self.cluster_bits);
            for table in offset / span..=(offset + length - 1) / span {
                if let Some(used) = self.l1.get_mut(table as usize) {
                    *used = true;
                }
            }
        }
    }
}

/// Bytes of the disk that one L2 table maps.
fn l2_span(cluster_bits: u32) -> u64 {
    (1u64 << (cluster_bits - 3)) << cluster_bits
}

/// Gives clusters their places and keeps the tables.
pub(super) struct Qcow2Layout {
    cluster_bits: u32,
    size: u64,
    compression: Option<Compression>,
    refcount_table: u64,
    refcount_table_clusters: u64,
    refcount_blocks: u64,
    refcount_blocks_count: u64,
    l1_offset: u64,
    /// Offsets of the L2 tables, 0 for none.
    l1: Vec<u64>,
    /// The L2 table being filled: its number and its entries.
    l2: Option<(usize, Vec<u8>)>,
    /// First free cluster at the end of the file.
    end: u64,
    /// Free room behind the last compressed cluster: from, to.
    room: Option<(u64, u64)>,
    /// Refcount blocks that can still change.
    counts: BTreeMap<u64, Vec<u8>>,
}

impl Qcow2Layout {
    /// The layout for what the survey found.
    pub(super) fn new(survey: Survey, compression: Option<Compression>) -> Result<Self> {
        let bits = survey.cluster_bits;
        let cluster = 1u64 << bits;
        let l1_clusters = (survey.l1.len() as u64 * 8).div_ceil(cluster);
        let l2_clusters = survey.l1.iter().filter(|used| **used).count() as u64;
        // Every cluster of the disk takes one of the file at most, compressed or not.
        let fixed = 1 + l1_clusters + l2_clusters + survey.clusters;
        let (mut blocks, mut table) = (1, 1);
        loop {
            let total = fixed + blocks + table;
            let (need_blocks, need_table) = (total.div_ceil(cluster / 2), (blocks * 8).div_ceil(cluster));
            if need_blocks <= blocks && need_table <= table {
                break;
            }
            (blocks, table) = (need_blocks.max(blocks), need_table.max(table));
        }
        if table * cluster > REFCOUNT_TABLE_MAX {
            return Err(Error::unsupported(Layer::Block, "a disk this large in clusters this small")
                .hint("choose larger clusters"));
        }
        let refcount_blocks = (1 + table) * cluster;
        let l1_offset = refcount_blocks + blocks * cluster;
        let mut end = l1_offset + l1_clusters * cluster;
        let l1 = survey
            .l1
            .iter()
            .map(|used| {
                if *used {
                    let at = end;
                    end += cluster;
                    at
                } else {
                    0
                }
            })
            .collect();
        let mut layout = Self {
            cluster_bits: bits,
            size: survey.size,
            compression,
            refcount_table: cluster,
            refcount_table_clusters: table,
            refcount_blocks,
            refcount_blocks_count: blocks,
            l1_offset,
            l1,
            l2: None,
            end,
            room: None,
            counts: BTreeMap::new(),
        };
        layout.count(0, l1_offset + (l1_clusters + l2_clusters) * cluster)?;
        Ok(layout)
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Raises the refcounts of all clusters that `start..end` touches.
    fn count(&mut self, start: u64, end: u64) -> Result<()> {
        let per_block = self.cluster() / 2;
        for cluster in start >> self.cluster_bits..end.div_ceil(self.cluster()) {
            let bytes = 2 * per_block as usize;
            let block = self.counts.entry(cluster / per_block).or_insert_with(|| vec![0; bytes]);
            let at = (cluster % per_block) as usize * 2;
            let entry =
                block.get_mut(at..at + 2).ok_or_else(|| Error::bug(Layer::Block, "a refcount outside its block"))?;
            let count = u16::from_be_bytes([entry[0], entry[1]]).checked_add(1);
            let count = count.ok_or_else(|| Error::bug(Layer::Block, "a refcount overflows"))?;
            entry.copy_from_slice(&count.to_be_bytes());
        }
        Ok(())
    }

    /// A new cluster at the end of the file.
    fn grow(&mut self) -> u64 {
        let at = self.end;
        self.end += self.cluster();
        at
    }

    /// A place for `length` compressed bytes: behind the last ones if they fit or the file ends there.
    fn place_packed(&mut self, length: u64) -> Result<u64> {
        let (at, limit) = match self.room {
            Some((from, to)) if length <= to - from => (from, to),
            Some((from, to)) if to == self.end => {
                self.grow();
                (from, self.end)
            }
            _ => {
                let at = self.grow();
                (at, self.end)
            }
        };
        self.count(at, at + length)?;
        self.room = Some((at + length, limit)).filter(|(from, to)| from < to);
        Ok(at)
    }

    /// The L2 entry of a piece, and where its bytes go.
    fn entry(&mut self, piece: &Piece) -> Result<(u64, u64)> {
        if !piece.is_packed {
            let at = self.grow();
            self.count(at, at + 1)?;
            return Ok((at | COPIED, at));
        }
        let length = piece.length as u64;
        let at = self.place_packed(length)?;
        let sectors = (at + length - 1) / 512 - at / 512;
        let offset_bits = 62 - (self.cluster_bits - 8);
        if at >> offset_bits != 0 {
            return Err(
                Error::unsupported(Layer::Block, "a compressed image this large").hint("write it without compression")
            );
        }
        Ok((at | sectors << offset_bits | COMPRESSED, at))
    }

    /// Puts an entry into its L2 table; a table that is left behind is finished and is to be written.
    fn map(&mut self, guest: u64, entry: u64, writes: &mut Vec<Write>) -> Result<()> {
        let index = guest >> self.cluster_bits;
        let entries = self.cluster() / 8;
        let table = (index / entries) as usize;
        if self.l2.as_ref().is_none_or(|(number, _)| *number != table) {
            self.finish_l2(writes);
            self.l2 = Some((table, vec![0; self.cluster() as usize]));
        }
        let at = (index % entries) as usize * 8;
        let slot = self.l2.as_mut().and_then(|(_, bytes)| bytes.get_mut(at..at + 8));
        let known = self.l1.get(table).is_some_and(|offset| *offset != 0);
        match slot.filter(|_| known) {
            Some(slot) => slot.copy_from_slice(&entry.to_be_bytes()),
            None => {
                return Err(Error::new(crate::Kind::Refused, Layer::Block, "the source changed while it was read")
                    .at(guest)
                    .hint("shut the guest down and try again"));
            }
        }
        Ok(())
    }

    /// Where the L2 entry of a cluster lies in the file; `None` when it has no table.
    fn entry_offset(&self, guest: u64) -> Option<u64> {
        let span = l2_span(self.cluster_bits);
        let table = self.l1.get((guest / span) as usize).filter(|at| **at != 0)?;
        Some(table + ((guest % span) >> self.cluster_bits) * 8)
    }

    fn finish_l2(&mut self, writes: &mut Vec<Write>) {
        if let Some((table, bytes)) = self.l2.take()
            && let Some(to) = self.l1.get(table)
        {
            writes.push(Write::Table { to: *to, bytes });
        }
    }

    /// Refcount blocks that cannot change any more.
    fn finish_counts(&mut self, before: u64, writes: &mut Vec<Write>) {
        let span = (self.cluster() / 2) << self.cluster_bits;
        while let Some(first) = self.counts.first_entry().filter(|e| (e.key() + 1).saturating_mul(span) <= before) {
            let (block, bytes) = first.remove_entry();
            writes.push(Write::Table { to: self.refcount_blocks + (block << self.cluster_bits), bytes });
        }
    }

    fn header(&self) -> Vec<u8> {
        let is_zstd = self.compression == Some(Compression::Zstd);
        let mut raw = Vec::with_capacity(HEADER_LENGTH as usize + 8);
        raw.extend(b"QFI\xFB");
        raw.extend(3u32.to_be_bytes());
        raw.extend([0; 12]); // no backing file
        raw.extend(self.cluster_bits.to_be_bytes());
        raw.extend(self.size.to_be_bytes());
        raw.extend(0u32.to_be_bytes()); // no encryption
        raw.extend((self.l1.len() as u32).to_be_bytes());
        raw.extend(self.l1_offset.to_be_bytes());
        raw.extend(self.refcount_table.to_be_bytes());
        raw.extend((self.refcount_table_clusters as u32).to_be_bytes());
        raw.extend([0; 12]); // no snapshots
        raw.extend(if is_zstd { FEATURE_COMPRESSION } else { 0 }.to_be_bytes());
        raw.extend([0; 16]); // compatible and autoclear features
        raw.extend(REFCOUNT_ORDER.to_be_bytes());
        raw.extend(HEADER_LENGTH.to_be_bytes());
        raw.push(u8::from(is_zstd));
        raw.extend([0; 7]);
        raw.extend([0; 8]); // end of the header extensions
        raw
    }
}

impl Layout for Qcow2Layout {
    fn place(&mut self, encoded: &Encoded) -> Result<Vec<Write>> {
        let mut writes = Vec::new();
        let mut tables = Vec::new();
        for piece in &encoded.pieces {
            let (entry, to) = self.entry(piece)?;
            self.map(piece.guest, entry, &mut tables)?;
            let write = if piece.is_packed {
                Write::Packed { to, at: piece.at, length: piece.length }
            } else {
                Write::Data { to, at: piece.at, length: piece.length }
            };
            Write::push(&mut writes, write);
        }
        let stable =
            self.room.map_or(self.end, |(from, _)| from.min(self.end)) >> self.cluster_bits << self.cluster_bits;
        self.finish_counts(stable, &mut tables);
        writes.append(&mut tables);
        Ok(writes)
    }

    fn locate(&mut self, file: &File, guest: u64) -> Result<Option<u64>> {
        let mut writes = Vec::new();
        self.finish_l2(&mut writes);
        let none = super::layout::Buffers::default();
        writes.iter().try_for_each(|write| write.run(file, &none).map(drop))?;
        let Some(at) = self.entry_offset(guest) else { return Ok(None) };
        let mut entry = [0; 8];
        match file.read_exact_at(&mut entry, at) {
            // A table in which nothing is, behind which nothing is.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(|e| Error::io(Layer::Host, "the output cannot be read back", e).at(at))?,
        }
        let place = u64::from_be_bytes(entry) & OFFSET_MASK;
        Ok((place != 0).then_some(place))
    }

    fn append(&mut self, file: &File, guest: u64) -> Result<Option<u64>> {
        // A cluster and perhaps a table; and no refcount block may be needed that is not there.
        let counted = self.refcount_blocks_count.saturating_mul(self.cluster() / 2) << self.cluster_bits;
        if self.end + 2 * self.cluster() > counted {
            return Ok(None);
        }
        if self.entry_offset(guest).is_none() {
            let at = self.grow();
            self.count(at, at + 1)?;
            write_at(file, &vec![0; self.cluster() as usize], at)?;
            let table = self.l1.get_mut((guest / l2_span(self.cluster_bits)) as usize);
            *table.ok_or_else(|| Error::bug(Layer::Block, "a cluster outside the disk").at(guest))? = at;
        }
        let to = self.grow();
        self.count(to, to + 1)?;
        let entry = self.entry_offset(guest).ok_or_else(|| Error::bug(Layer::Block, "a table was not made"))?;
        write_at(file, &(to | COPIED).to_be_bytes(), entry)?;
        Ok(Some(to))
    }

    fn finish(&mut self, file: &File) -> Result<()> {
        let mut writes = Vec::new();
        self.finish_l2(&mut writes);
        self.finish_counts(u64::MAX, &mut writes);
        let none = super::layout::Buffers::default();
        writes.iter().try_for_each(|write| write.run(file, &none).map(drop))?;
        // All reserved blocks belong to the table, those too that turned out to cover nothing: else they would be leaks.
        let blocks = 0..self.refcount_blocks_count;
        let table: Vec<u8> =
            blocks.flat_map(|i| (self.refcount_blocks + (i << self.cluster_bits)).to_be_bytes()).collect();
        write_at(file, &table, self.refcount_table)?;
        let l1: Vec<u8> = self.l1.iter().flat_map(|at| if *at == 0 { 0 } else { at | COPIED }.to_be_bytes()).collect();
        write_at(file, &l1, self.l1_offset)?;
        write_at(file, &self.header(), 0)?;
        file.set_len(self.end).map_err(|e| Error::io(Layer::Host, "the output cannot be given its length", e))
    }
}
