//! Files of the Windows Overlay Filter, provider 2 ("file", CompactOS; MS-FSCC 2.1.2, WOF_EXTERNAL_INFO and
//! FILE_PROVIDER_EXTERNAL_INFO_V1 of the Windows SDK).
//!
//! Such a file has an unnamed `$DATA` that is one hole, a reparse point with tag 0x80000017, and its content in the
//! stream `WofCompressedData`: a table with the offset of every chunk but the first, then the chunks. A chunk that is as
//! long as its content is stored as it is.

use super::{bad, lzx, xpress};
use crate::error::{Error, Layer, Result};

/// Reparse tag of files that the overlay filter provides.
pub const REPARSE_TAG: u32 = 0x8000_0017;
/// Name of the stream that holds the content.
pub const STREAM: &str = "WofCompressedData";

const PROVIDER_WIM: u32 = 1;
const PROVIDER_FILE: u32 = 2;

/// How the chunks of a file are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// XPRESS in chunks of 4 KiB.
    Xpress4k,
    /// LZX in chunks of 32 KiB.
    Lzx,
    /// XPRESS in chunks of 8 KiB.
    Xpress8k,
    /// XPRESS in chunks of 16 KiB.
    Xpress16k,
}

impl Algorithm {
    /// Bytes of content in a chunk (the last one may have fewer).
    #[must_use]
    pub fn chunk_size(self) -> usize {
        match self {
            Self::Xpress4k => 4096,
            Self::Xpress8k => 8192,
            Self::Xpress16k => 16384,
            Self::Lzx => lzx::CHUNK,
        }
    }

    /// Reads the algorithm from the data of a reparse point with [`REPARSE_TAG`]: version, provider, the provider's
    /// version, algorithm.
    ///
    /// # Errors
    /// Unsupported: a pointer into a WIM file, or values that no Windows writes so far. Damaged: too short.
    pub fn from_reparse_data(data: &[u8]) -> Result<Self> {
        let mut words = [0u32; 4];
        for (word, bytes) in words.iter_mut().zip(data.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        if data.len() < 8 {
            return Err(Error::damaged(Layer::Ntfs, "a WOF reparse point is too short")
                .expected_found("16 bytes", format!("{} bytes", data.len())));
        }
        match words {
            [1, PROVIDER_WIM, ..] => Err(Error::unsupported(Layer::Ntfs, "the file's content is in a WIM (WIMBoot)")
                .hint("run `compact /exe- FILE` in the guest to turn it into a plain file")),
            [1, PROVIDER_FILE, 1, algorithm] if data.len() >= 16 => match algorithm {
                0 => Ok(Self::Xpress4k),
                1 => Ok(Self::Lzx),
                2 => Ok(Self::Xpress8k),
                3 => Ok(Self::Xpress16k),
                other => Err(unknown(format!("algorithm {other}"))),
            },
            [version, provider, ..] => Err(unknown(format!("version {version}, provider {provider}"))),
        }
    }

    /// Decodes one chunk, which must fill `output` exactly.
    ///
    /// # Errors
    /// Damaged, see [`xpress::decompress`] and [`lzx::decompress`].
    pub fn decompress(self, input: &[u8], output: &mut [u8]) -> Result<()> {
        if input.len() == output.len() {
            output.copy_from_slice(input);
            return Ok(());
        }
        match self {
            Self::Lzx => lzx::decompress(input, output),
            Self::Xpress4k | Self::Xpress8k | Self::Xpress16k => xpress::decompress(input, output),
        }
    }
}

fn unknown(what: String) -> Error {
    Error::unsupported(Layer::Ntfs, format!("WOF reparse point with {what}"))
        .hint("run `compact /u /exe FILE` in the guest to turn it into a plain file")
}

/// Random access to the content of one file.
///
/// Only the table entries and chunks that a read touches are fetched. The stream comes through a callback that fills a
/// buffer from a byte offset of `WofCompressedData`.
#[derive(Debug, Clone, Copy)]
pub struct Content {
    algorithm: Algorithm,
    /// Length of the uncompressed content.
    size: u64,
    /// Length of the compressed stream.
    stored: u64,
    entry: u64,
    table: u64,
}

impl Content {
    /// Describes a file of `size` bytes whose compressed stream is `stored` bytes long.
    ///
    /// # Errors
    /// Damaged: the stream is too short for its table.
    pub fn new(algorithm: Algorithm, size: u64, stored: u64) -> Result<Self> {
        let chunks = size.div_ceil(algorithm.chunk_size() as u64);
        let entry = if size > u64::from(u32::MAX) { 8 } else { 4 };
        let table = chunks.saturating_sub(1).saturating_mul(entry);
        if table > stored || (size > 0 && table == stored) {
            return Err(bad("the WOF stream is too short for its chunk table", 0)
                .expected_found(format!("more than {table} bytes"), format!("{stored} bytes")));
        }
        Ok(Self { algorithm, size, stored, entry, table })
    }

    /// Fills `buf` from the content's byte `offset`; returns how many bytes there were.
    ///
    /// # Errors
    /// Damaged: chunk offsets that fall or lie outside the stream, or bad chunk data; and whatever `read` returns.
    pub fn read_at(
        &self,
        offset: u64,
        buf: &mut [u8],
        mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<usize> {
        let wanted = self.size.saturating_sub(offset).min(buf.len() as u64);
        let wanted = usize::try_from(wanted).unwrap_or(buf.len());
        let chunk_size = self.algorithm.chunk_size();
        let (mut packed, mut plain) = (Vec::new(), vec![0u8; chunk_size]);
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let (index, inside) = (at / chunk_size as u64, usize::try_from(at % chunk_size as u64).unwrap_or(0));
            let length = usize::try_from(self.size - index * chunk_size as u64).unwrap_or(chunk_size).min(chunk_size);
            let (start, end) = self.bounds(index, length, &mut read)?;
            packed.resize(usize::try_from(end - start).unwrap_or(0), 0);
            read(start, &mut packed)?;
            self.algorithm.decompress(&packed, &mut plain[..length])?;
            let count = (length - inside).min(wanted - done);
            buf[done..done + count].copy_from_slice(&plain[inside..inside + count]);
            done += count;
        }
        Ok(done)
    }

    /// Where chunk `index` begins and ends in the stream.
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
            return Err(bad("a WOF chunk has impossible bounds", 0).expected_found(
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
    use crate::error::Kind;

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
        let content = Content::new(Algorithm::Xpress4k, 10_000, stream.len() as u64).unwrap();
        for (offset, length) in [(0, 10_000), (4095, 2), (8192, 4000), (9_999, 5), (10_000, 5), (20_000, 1)] {
            let mut buf = vec![0; length];
            let got = content.read_at(offset as u64, &mut buf, from(&stream)).unwrap();
            let expected = &plain[offset.min(10_000)..(offset + length).min(10_000)];
            assert_eq!(&buf[..got], expected, "{offset}+{length}");
        }
    }

    #[test]
    fn tables_that_lie() {
        assert!(Content::new(Algorithm::Lzx, u64::MAX, 100).is_err());
        assert!(Content::new(Algorithm::Lzx, 1, 0).is_err());
        let mut stream = vec![0xFFu8; 64];
        let content = Content::new(Algorithm::Xpress4k, 8192, 64).unwrap();
        assert!(content.read_at(0, &mut [0; 1], from(&stream)).is_err());
        stream[..4].fill(0);
        assert!(content.read_at(0, &mut [0; 1], from(&stream)).is_err());
    }

    #[test]
    fn reparse_data() {
        let words = |w: [u32; 4]| w.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(Algorithm::from_reparse_data(&words([1, 2, 1, 1])).unwrap(), Algorithm::Lzx);
        assert_eq!(Algorithm::from_reparse_data(&words([1, 2, 1, 0])).unwrap(), Algorithm::Xpress4k);
        for odd in [[1, 1, 1, 1], [1, 2, 1, 9], [2, 2, 1, 0]] {
            assert_eq!(Algorithm::from_reparse_data(&words(odd)).unwrap_err().kind(), Kind::Unsupported);
        }
        assert_eq!(Algorithm::from_reparse_data(&[1, 0]).unwrap_err().kind(), Kind::Damaged);
    }
}
