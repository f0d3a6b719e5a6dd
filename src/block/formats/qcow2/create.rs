//! Writing an overlay, a new qcow2 file over a backing file, from its start to its end: the tables follow the data.

use super::cluster::{ClusterSize, GuestCluster};
use super::header::Compression;
use super::new_layout::{Backing, ImageLayout, NewImageOptions, TableWrite};
use crate::block::{Storage, is_zero};
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// Adjacent writes are collected up to this size.
const BUFFER_BYTES: usize = 2 << 20;

/// A qcow2 file that is being written. Clusters must come in ascending guest order. The header is written last: until
/// then the file is not a qcow2 image.
#[derive(Debug)]
pub(crate) struct NewOverlay<'a> {
    storage: &'a dyn Storage,
    clusters: ClusterSize,
    layout: ImageLayout,
    /// Bytes that are to be written at `buffer_at`.
    write_buffer: Vec<u8>,
    buffer_at: HostOffset,
    last_cluster: Option<GuestCluster>,
}

impl<'a> NewOverlay<'a> {
    /// Bytes of a cluster.
    pub const CLUSTER: u64 = ClusterSize::DEFAULT.bytes();

    /// Begins an overlay of `size` bytes in an empty file.
    ///
    /// # Errors
    /// When the disk is too large, or the backing file's name too long.
    pub fn new(storage: &'a dyn Storage, size: u64, backing: Backing) -> Result<Self> {
        let clusters = ClusterSize::DEFAULT;
        let options = NewImageOptions { size, clusters, compression: Compression::Zlib, backing: Some(backing) };
        let layout = ImageLayout::with_tables_after_data(options)?;
        Ok(Self { storage, clusters, layout, write_buffer: Vec::new(), buffer_at: HostOffset(0), last_cluster: None })
    }

    /// Adds the content of one guest cluster (shorter only at the disk's end). Zeros need no space.
    ///
    /// # Errors
    /// When the host cannot write.
    pub fn add(&mut self, cluster: GuestCluster, data: &[u8]) -> Result<()> {
        if self.last_cluster.is_some_and(|last| last >= cluster) || data.len() as u64 > Self::CLUSTER {
            return Err(Error::bug(Layer::Block, "clusters of a new image must come in order"));
        }
        self.last_cluster = Some(cluster);
        let guest = self.clusters.guest_offset(cluster);
        if is_zero(data) {
            self.layout.place_zeros(guest)?;
        } else {
            let at = self.layout.place_cluster(guest)?;
            self.append(at, data)?;
        }
        let finished = self.layout.take_finished()?;
        self.append_all(&finished)
    }

    /// Writes the rest of the tables, then the header. Returns the file's length. The caller flushes.
    ///
    /// # Errors
    /// When the host cannot write.
    pub fn finish(mut self) -> Result<u64> {
        let finished = self.layout.finish()?;
        self.append_all(&finished)?;
        self.flush_buffer()?;
        let length = self.layout.file_length();
        self.storage.set_len(length).map_err(cannot_write)?;
        self.storage.write_at(0, &self.layout.header()?).map_err(cannot_write)?;
        Ok(length)
    }

    fn append_all(&mut self, writes: &[TableWrite]) -> Result<()> {
        writes.iter().try_for_each(|write| self.append(write.to, &write.bytes))
    }

    fn append(&mut self, at: HostOffset, data: &[u8]) -> Result<()> {
        let is_next = self.buffer_at.checked_add(self.write_buffer.len() as u64) == Some(at);
        if !is_next || self.write_buffer.len() + data.len() > BUFFER_BYTES {
            self.flush_buffer()?;
            self.buffer_at = at;
        }
        self.write_buffer.extend_from_slice(data);
        Ok(())
    }

    fn flush_buffer(&mut self) -> Result<()> {
        if !self.write_buffer.is_empty() {
            self.storage.write_at(self.buffer_at.0, &self.write_buffer).map_err(cannot_write)?;
            self.write_buffer.clear();
        }
        Ok(())
    }
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::io(Layer::Block, "cannot write the new image", error).hint("check that there is enough space")
}
