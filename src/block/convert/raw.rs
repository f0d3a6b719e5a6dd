//! The raw layout: every byte at its own offset.

use super::layout::{Encoded, Layout, Write};
use crate::block::Storage;
use crate::error::{Error, Layer, Result};
use crate::units::{HostOffset, ImageOffset};

/// Smallest run of zeros that becomes a hole: the block of common file systems, and qemu-img's default too.
pub(super) const UNIT: u64 = 4096;

/// Places pieces where they are on the disk.
pub(super) struct RawLayout {
    /// Length of the disk in bytes.
    pub(super) size: u64,
}

impl Layout for RawLayout {
    fn place(&mut self, encoded: &Encoded) -> Result<Vec<Write>> {
        let mut writes = Vec::new();
        for piece in &encoded.pieces {
            Write::push(&mut writes, Write::Data { to: host(piece.guest), at: piece.at, length: piece.length });
        }
        Ok(writes)
    }

    fn locate(&mut self, _file: &dyn Storage, guest: ImageOffset) -> Result<Option<HostOffset>> {
        Ok(Some(host(guest)))
    }

    fn append(&mut self, _file: &dyn Storage, guest: ImageOffset) -> Result<Option<HostOffset>> {
        Ok(Some(host(guest)))
    }

    fn finish(&mut self, file: &dyn Storage) -> Result<()> {
        file.set_len(self.size).map_err(|e| {
            Error::io(Layer::Host, "cannot give the output its length", e)
                .hint("write it to a file system that holds files of that size")
        })
    }
}

/// In a raw file every byte of the disk is at its own offset.
fn host(guest: ImageOffset) -> HostOffset {
    HostOffset(guest.0)
}
