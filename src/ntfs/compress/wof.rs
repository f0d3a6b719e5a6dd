//! Files of the Windows Overlay Filter, provider 2 ("file", CompactOS; MS-FSCC 2.1.2, WOF_EXTERNAL_INFO and
//! FILE_PROVIDER_EXTERNAL_INFO_V1 of the Windows SDK).
//!
//! Such a file has an unnamed `$DATA` that is one hole, a reparse point with tag 0x80000017, and its content in the
//! stream `WofCompressedData`, in [chunks](super::chunks).

use super::chunks::{Chunked, Codec};
use super::lzx;
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

    fn codec(self) -> Codec {
        match self {
            Self::Lzx => Codec::Lzx,
            Self::Xpress4k | Self::Xpress8k | Self::Xpress16k => Codec::Xpress,
        }
    }

    /// Describes a file of `size` bytes whose stream `WofCompressedData` is `stored` bytes long.
    ///
    /// # Errors
    /// Damaged: the stream is too short for its table.
    pub fn content(self, size: u64, stored: u64) -> Result<Chunked> {
        Chunked::new(self.codec(), self.chunk_size(), size, stored)
    }
}

fn unknown(what: String) -> Error {
    Error::unsupported(Layer::Ntfs, format!("WOF reparse point with {what}"))
        .hint("run `compact /u /exe FILE` in the guest to turn it into a plain file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

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
