//! Options, progress and result of a conversion.

use std::path::PathBuf;

use crate::block::Format;
use crate::block::formats::qcow2::{ClusterSize, Compression};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Layer, Result};
use crate::nbd::NbdOptions;

/// How far a conversion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvertProgress {
    /// Bytes of the disk that are done, holes left out.
    pub done: u64,
    /// Bytes of the disk that have to be read, holes left out.
    pub total: u64,
}

/// How to convert. The default is an uncompressed qcow2 with clusters of 64 KiB.
#[derive(Clone)]
pub struct ConvertOptions<'a> {
    /// Format of the output: raw or qcow2.
    pub format: Format,
    /// Compress the output's clusters (qcow2 only).
    pub compression: Option<Compression>,
    /// How hard to compress, in the algorithm's own scale (zlib 2 to 9, zstd 1 to 4); its default when not given.
    pub level: Option<u32>,
    /// log2 of the output's cluster size (qcow2 only), 9 to 21.
    pub cluster_bits: u32,
    /// Worker threads; as many as the machine has processors when not given, two at least.
    pub threads: Option<usize>,
    /// Compute the SHA-256 of the output file.
    pub checksum: bool,
    /// Replace an output file that already exists.
    pub overwrite: bool,
    /// Called every fifth of a second or oftener, on the thread that called [`convert`](super::convert).
    pub progress: Option<&'a dyn Fn(ConvertProgress)>,
    /// Verifies the source while it is being written. Its error ends the conversion, which then leaves nothing.
    pub verify: Option<&'a (dyn Fn() -> Result<()> + Sync)>,
    /// Asks the conversion to stop, which then leaves nothing; an export that was begun stays incomplete.
    pub cancel: Cancel,
    /// How an export is written, apart from [`cancel`](Self::cancel).
    pub nbd: NbdOptions,
}

impl Default for ConvertOptions<'_> {
    fn default() -> Self {
        Self {
            format: Format::Qcow2,
            compression: None,
            level: None,
            cluster_bits: 16,
            threads: None,
            checksum: false,
            overwrite: false,
            progress: None,
            verify: None,
            cancel: Cancel::default(),
            nbd: NbdOptions::default(),
        }
    }
}

impl ConvertOptions<'_> {
    /// Refuses options that contradict each other or are out of range.
    pub(super) fn check(&self) -> Result<()> {
        let usage = |message: String, hint: &str| Err(Error::new(Kind::Usage, Layer::Block, message).hint(hint));
        match self.format {
            Format::Raw if self.compression.is_some() => {
                usage("cannot compress a raw image".into(), "choose qcow2 as output format")
            }
            Format::Raw | Format::Qcow2 if ClusterSize::new(self.cluster_bits).is_some() => Ok(()),
            Format::Raw | Format::Qcow2 => {
                usage(format!("cannot write clusters of 2^{} bytes", self.cluster_bits), "choose 9 to 21")
            }
            other => Err(Error::unsupported(Layer::Block, format!("cannot write {other} images"))
                .hint("choose qcow2 or raw as output format")),
        }
    }
}

/// Result of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// Path of the new file, or URI of the export, as the caller gave it.
    pub path: PathBuf,
    /// Length of the disk in bytes.
    pub virtual_size: u64,
    /// Bytes of the disk that were read, holes left out.
    pub bytes_read: u64,
    /// Bytes of data that were written, after compression.
    pub bytes_written: u64,
    /// Length of the file in bytes; of an export, that of the disk in it.
    pub file_length: u64,
    /// SHA-256 of the file in hexadecimal digits, if asked for; of an export, that of the disk in it.
    pub sha256: Option<String>,
    /// What a user should know of the new image.
    pub notes: Vec<String>,
}
