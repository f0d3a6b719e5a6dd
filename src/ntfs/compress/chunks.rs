//! Content that is compressed in chunks of one size, each of which stands alone: what the Windows Overlay Filter and WIM
//! files share.
//!
//! A table with the offset of every chunk but the first stands before the chunks, in entries of 4 bytes, or of 8 for
//! content of more than 4 GiB. A chunk that is as long as its content is stored as it is.

use super::{bad, lzx, xpress};
use crate::error::Result;

/// How a chunk is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// XPRESS with Huffman codes; chunks of at most [`xpress::MAX_CHUNK`] bytes.
    Xpress,
    /// LZX; chunks of at most [`lzx::CHUNK`] bytes.
    Lzx,
}

impl Codec {
    /// Decodes one chunk, which must fill `output` exactly.
    ///
    /// # Errors
    /// Damaged, see [`xpress::decompress`] and [`lzx::decompress`].
    fn decompress(self, input: &[u8], output: &mut [u8]) -> Result<()> {
        if input.len() == output.len() {
            output.copy_from_slice(input);
            return Ok(());
        }
        match self {
            Self::Lzx => lzx::decompress(input, output),
            Self::Xpress => xpress::decompress(input, output),
        }
    }
}

/// Random access to content in chunks.
///
/// Only the table entries and chunks that a read touches are fetched. The compressed bytes come through a callback that
/// fills a buffer from a byte offset of them.
#[derive(Debug, Clone, Copy)]
pub struct Chunked {
    codec: Codec,
    /// Bytes of content in a chunk (the last one may have fewer).
    chunk_size: usize,
    /// Length of the uncompressed content.
    size: u64,
    /// Length of the compressed bytes, with the table.
    stored: u64,
    entry: u64,
    table: u64,
}

impl Chunked {
    /// Describes content of `size` bytes that takes `stored` bytes with its table.
    ///
    /// # Errors
    /// Damaged: too few bytes for the table, or no chunk size.
    pub fn new(codec: Codec, chunk_size: usize, size: u64, stored: u64) -> Result<Self> {
        let chunks = match chunk_size as u64 {
            0 => return Err(bad("the chunks have no size", 0)),
            chunk_size => size.div_ceil(chunk_size),
        };
        let entry = if size > u64::from(u32::MAX) { 8 } else { 4 };
        let table = chunks.saturating_sub(1).saturating_mul(entry);
        if table > stored || (size > 0 && table == stored) {
            return Err(bad("too few bytes for the chunk table", 0)
                .expected_found(format!("more than {table} bytes"), format!("{stored} bytes")));
        }
        Ok(Self { codec, chunk_size, size, stored, entry, table })
    }

    /// Fills `buf` from the content's byte `offset`; returns how many bytes there were.
    ///
    /// # Errors
    /// Damaged: chunk offsets that fall or lie outside the compressed bytes, or bad chunk data; and whatever `read`
    /// returns.
    pub fn read_at(
        &self,
        offset: u64,
        buf: &mut [u8],
        mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<usize> {
        let wanted = self.size.saturating_sub(offset).min(buf.len() as u64);
        let wanted = usize::try_from(wanted).unwrap_or(buf.len());
        let chunk_size = self.chunk_size;
        let (mut packed, mut plain) = (Vec::new(), vec![0u8; chunk_size]);
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let (index, inside) = (at / chunk_size as u64, usize::try_from(at % chunk_size as u64).unwrap_or(0));
            let length = usize::try_from(self.size - index * chunk_size as u64).unwrap_or(chunk_size).min(chunk_size);
            let (start, end) = self.bounds(index, length, &mut read)?;
            packed.resize(usize::try_from(end - start).unwrap_or(0), 0);
            read(start, &mut packed)?;
            self.codec.decompress(&packed, &mut plain[..length])?;
            let count = (length - inside).min(wanted - done);
            buf[done..done + count].copy_from_slice(&plain[inside..inside + count]);
            done += count;
        }
        Ok(done)
    }

    /// Where chunk `index` begins and ends in the compressed bytes.
    fn bounds(
        &self,
        index: u64,
        length: usize,
        read: &mut impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<(u64, u64)> {
        let mut entry_at = |number: u64| -> Result<u64> {
            let mut raw = [0u8; 8];
            let bytes = if self.entry == 8 { &mut raw[..] } else { &mut raw[..4] };
            read(number * self.entry, bytes)?;
            Ok(u64::from_le_bytes(raw))
        };
        let start = if index == 0 { 0 } else { entry_at(index - 1)? };
        let entries = self.table / self.entry;
        let end = if index < entries { entry_at(index)? } else { self.stored - self.table };
        if end > self.stored - self.table || end <= start || end - start > length as u64 {
            return Err(bad("a chunk has impossible bounds", 0).expected_found(
                format!("1 to {length} bytes inside {} bytes", self.stored - self.table),
                format!("{start}..{end}"),
            ));
        }
        Ok((self.table + start, self.table + end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(stream: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<()> + '_ {
        |offset, buf| {
            let at = usize::try_from(offset).unwrap();
            buf.copy_from_slice(&stream[at..at + buf.len()]);
            Ok(())
        }
    }

    #[test]
    fn stored_chunks_and_odd_offsets() {
        let plain: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
        let mut stream = Vec::new();
        stream.extend(4096u32.to_le_bytes());
        stream.extend(8192u32.to_le_bytes());
        stream.extend(&plain);
        let content = Chunked::new(Codec::Xpress, 4096, 10_000, stream.len() as u64).unwrap();
        for (offset, length) in [(0, 10_000), (4095, 2), (8192, 4000), (9_999, 5), (10_000, 5), (20_000, 1)] {
            let mut buf = vec![0; length];
            let got = content.read_at(offset as u64, &mut buf, from(&stream)).unwrap();
            let expected = &plain[offset.min(10_000)..(offset + length).min(10_000)];
            assert_eq!(&buf[..got], expected, "{offset}+{length}");
        }
    }

    #[test]
    fn tables_that_lie() {
        assert!(Chunked::new(Codec::Lzx, lzx::CHUNK, u64::MAX, 100).is_err());
        assert!(Chunked::new(Codec::Lzx, lzx::CHUNK, 1, 0).is_err());
        assert!(Chunked::new(Codec::Lzx, 0, 1, 1).is_err());
        let mut stream = vec![0xFFu8; 64];
        let content = Chunked::new(Codec::Xpress, 4096, 8192, 64).unwrap();
        assert!(content.read_at(0, &mut [0; 1], from(&stream)).is_err());
        stream[..4].fill(0);
        assert!(content.read_at(0, &mut [0; 1], from(&stream)).is_err());
    }
}
