//! The file and its header.

use zerocopy::{FromZeros, IntoBytes};

use super::error::{damaged, solid, split, unsupported};
use super::format::{
    HEADER_COMPRESSED, HEADER_LZMS, HEADER_LZX, HEADER_SPANNED, HEADER_XPRESS, SIGNATURE, StoredHeader, VERSION,
    VERSION_SOLID,
};
use crate::error::Result;
use crate::io::VolumeRead;
use crate::ntfs::compress::chunks::Codec;
use crate::ntfs::compress::{lzx, xpress};
use crate::units::VolumeOffset;

/// Smallest chunk of content that is accepted, in bytes.
const CHUNK_MIN: usize = 4096;

/// An open WIM file.
#[derive(Debug)]
pub struct Wim<R> {
    pub(super) source: R,
    pub(super) header: StoredHeader,
    /// How resources are compressed, and the bytes of content in a chunk; `None` if resources are not compressed.
    pub(super) codec: Option<(Codec, usize)>,
}

impl<R: VolumeRead> Wim<R> {
    /// Opens a file.
    ///
    /// # Errors
    /// Unsupported: solid or split, or a compression that is not read. Damaged: not a WIM file. And what reading gives.
    pub fn open(source: R) -> Result<Self> {
        let mut header = StoredHeader::new_zeroed();
        let size = size_of::<StoredHeader>() as u64;
        if source.len() < size {
            return Err(damaged(format_args!("it has {} bytes, and its header {size}", source.len())));
        }
        source.read_at(VolumeOffset(0), header.as_mut_bytes())?;
        if header.signature != *SIGNATURE {
            return Err(damaged("it does not begin with MSWIM"));
        }
        match header.version.get() {
            VERSION => {}
            VERSION_SOLID => {
                return Err(solid());
            }
            other => return Err(unsupported(format_args!("version {other:#x}"))),
        }
        if header.header_size.get() as usize != size_of::<StoredHeader>() {
            return Err(damaged(format_args!("its header says that it has {} bytes", header.header_size)));
        }
        if header.parts.get() > 1 || header.flags.get() & HEADER_SPANNED != 0 {
            return Err(split());
        }
        let codec = codec(&header)?;
        Ok(Self { source, header, codec })
    }

    /// Number of its images.
    #[must_use]
    pub fn images(&self) -> u32 {
        self.header.images.get()
    }

    /// Number of the image that a boot loader starts, from 1: the marked one, else the first.
    #[must_use]
    pub fn boot_image(&self) -> u32 {
        self.header.boot_index.get().max(1)
    }
}

fn codec(header: &StoredHeader) -> Result<Option<(Codec, usize)>> {
    let flags = header.flags.get();
    if flags & HEADER_COMPRESSED == 0 {
        return Ok(None);
    }
    let chunk = usize::try_from(header.chunk_size.get()).unwrap_or(usize::MAX);
    let (codec, name, max) = match flags & (HEADER_XPRESS | HEADER_LZX | HEADER_LZMS) {
        HEADER_XPRESS => (Codec::Xpress, "XPRESS", xpress::MAX_CHUNK),
        HEADER_LZX => (Codec::Lzx, "LZX", lzx::CHUNK),
        HEADER_LZMS => return Err(unsupported("LZMS compression")),
        other => return Err(unsupported(format_args!("compression {other:#x}"))),
    };
    if !chunk.is_power_of_two() || !(CHUNK_MIN..=max).contains(&chunk) {
        return Err(unsupported(format_args!("{name} in chunks of {chunk} bytes")));
    }
    Ok(Some((codec, chunk)))
}
