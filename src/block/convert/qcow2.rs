//! The qcow2 layout: header, refcounts, L1, L2 tables, then the data in guest order. Only the tables that are being
//! filled are in memory.

use super::layout::{Encoded, Layout, Write, write_at};
use crate::block::formats::qcow2::{ImageLayout, L2Entry, TableWrite};
use crate::block::{Storage, StorageExt};
use crate::error::{Error, Layer, Result};
use crate::units::{HostOffset, ImageOffset};

/// Places clusters in a new qcow2 image, its tables in front of the data.
pub(super) struct Qcow2Layout {
    pub(super) image: ImageLayout,
}

impl Layout for Qcow2Layout {
    fn place(&mut self, encoded: &Encoded) -> Result<Vec<Write>> {
        let mut writes = Vec::new();
        for piece in &encoded.pieces {
            let write = if piece.is_compressed {
                let to = self.image.place_compressed(piece.guest, piece.length as u64)?;
                Write::Compressed { to, at: piece.at, length: piece.length }
            } else {
                let to = self.image.place_cluster(piece.guest)?;
                Write::Data { to, at: piece.at, length: piece.length }
            };
            Write::push(&mut writes, write);
        }
        let tables = self.image.take_finished()?.into_iter();
        writes.extend(tables.map(|TableWrite { to, bytes }| Write::Table { to, bytes }));
        Ok(writes)
    }

    fn locate(&mut self, file: &dyn Storage, guest: ImageOffset) -> Result<Option<HostOffset>> {
        write_tables(file, &self.image.take_last_table()?)?;
        let Some(at) = self.image.l2_entry_offset(guest) else { return Ok(None) };
        let mut word = [0; size_of::<L2Entry>()];
        match file.read_exact_at(at.0, &mut word) {
            // The table was reserved, but nothing was written to it nor to what follows it.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(|e| Error::io(Layer::Host, "cannot read the output back", e).at(at))?,
        }
        let entry = L2Entry(u64::from_be_bytes(word));
        if entry.is_compressed() {
            return Err(Error::bug(Layer::Block, "a change over a compressed cluster").at(guest));
        }
        Ok(Some(entry.offset()).filter(|cluster| cluster.0 != 0))
    }

    fn append(&mut self, file: &dyn Storage, guest: ImageOffset) -> Result<Option<HostOffset>> {
        let Some((at, tables)) = self.image.append_cluster(guest)? else { return Ok(None) };
        write_tables(file, &tables)?;
        Ok(Some(at))
    }

    fn finish(&mut self, file: &dyn Storage) -> Result<()> {
        write_tables(file, &self.image.finish()?)?;
        write_at(file, &self.image.header()?, HostOffset(0))?;
        file.set_len(self.image.file_length())
            .map_err(|e| Error::io(Layer::Host, "cannot give the output its length", e))
    }
}

fn write_tables(file: &dyn Storage, tables: &[TableWrite]) -> Result<()> {
    tables.iter().try_for_each(|table| write_at(file, &table.bytes, table.to))
}
