//! Conversion: the whole disk, with whatever is staged over it, written as a new raw or qcow2 image in one pass.
//!
//! Threads take windows of the disk in order, read them, find the zeros and compress side by side; whatever is ready
//! is laid out strictly in guest order. The output is therefore the same from run to run, whatever the number of
//! threads: data lie contiguous behind one block of metadata, holes and zeros stay holes.
//!
//! ```
//! use winject::block::{self, convert::{ConvertOptions, convert}, OpenOptions};
//! # fn main() -> winject::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let (input, output) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
//! # std::fs::write(&input, vec![7; 1 << 20]).unwrap();
//! let image = block::open(&input, &OpenOptions::default())?;
//! let done = convert(&*image, &output, &ConvertOptions::default())?;
//! assert_eq!(done.virtual_size, 1 << 20);
//! # Ok(())
//! # }
//! ```

mod compress;
mod pipeline;
mod plan;
mod qcow2;
mod raw;
mod sink;

use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::commit::lock_target;
use super::host::{common_mode, folder_of};
use super::{Extent, Format, Image, Locking, RealHost, Stage};
use crate::error::{Error, Kind, Layer, Result};
use crate::units::ImageOffset;

pub use compress::Compression;

/// A disk that can be converted: an [`Image`], or a [`Stage`] with its changes.
pub trait Source: Sync {
    /// Length of the disk in bytes.
    fn len(&self) -> u64;

    /// Whether the disk has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`Image::read_at`].
    ///
    /// # Errors
    /// As [`Image::read_at`].
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()>;

    /// As [`Image::extent_at`].
    ///
    /// # Errors
    /// As [`Image::extent_at`].
    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent>;

    /// The host's files that must not become the output.
    fn files(&self) -> Vec<PathBuf>;
}

impl<T: Image + ?Sized> Source for T {
    fn len(&self) -> u64 {
        Image::len(self)
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        Image::read_at(self, offset, buf)
    }
    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        Image::extent_at(self, offset, limit)
    }
    fn files(&self) -> Vec<PathBuf> {
        Image::files(self)
    }
}

impl Source for Stage {
    fn len(&self) -> u64 {
        Self::len(self)
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        Self::read_at(self, offset, buf)
    }
    fn extent_at(&self, offset: ImageOffset, limit: u64) -> Result<Extent> {
        Self::extent_at(self, offset, limit)
    }
    fn files(&self) -> Vec<PathBuf> {
        self.image().files()
    }
}

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
    /// Called now and then, on the thread that called [`convert`].
    pub progress: Option<&'a dyn Fn(ConvertProgress)>,
    /// A judgement of the source that runs beside the writing. Its error ends the conversion, which leaves nothing then.
    pub judge: Option<&'a (dyn Fn() -> Result<()> + Sync)>,
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
            judge: None,
        }
    }
}

/// What a conversion made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The new file.
    pub path: PathBuf,
    /// Length of the disk in bytes.
    pub virtual_size: u64,
    /// Bytes of the disk that were read, holes left out.
    pub bytes_read: u64,
    /// Bytes of data that were written, after compression.
    pub bytes_written: u64,
    /// Length of the file.
    pub file_length: u64,
    /// SHA-256 of the file in hexadecimal digits, if asked for.
    pub sha256: Option<String>,
}

/// Writes `source` as the new image `out` and returns when it is on the disk. The file appears under its name only when
/// it is complete; on an error nothing is left.
///
/// # Errors
/// [`Kind::Usage`] when `out` exists (unless [`ConvertOptions::overwrite`]), is one of the source's own files, or the
/// options contradict each other; [`Kind::Io`] when the host fails; whatever reading the source or
/// [`ConvertOptions::judge`] says.
pub fn convert(source: &(impl Source + ?Sized), out: &Path, options: &ConvertOptions<'_>) -> Result<Converted> {
    check_options(options)?;
    check_output(&source.files(), out, options.overwrite)?;
    // Held until the old file is replaced.
    let _replaced = lock_target(&RealHost, out, Locking::Refuse)?;
    let io = |message: &str, e: std::io::Error| Error::io(Layer::Host, message, e).path(out.display().to_string());
    let folder = folder_of(out);
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    // Not open to more users than what it is made from.
    let builder = builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(common_mode(&source.files())));
    let temporary = builder
        .prefix(".winject-")
        .suffix(".partial")
        .tempfile_in(folder)
        .map_err(|e| io("the output cannot be created", e).hint("is the output's folder there, and writable?"))?;
    let done = pipeline::run(source, temporary.as_file(), options).map_err(|e| e.path(out.display().to_string()))?;
    temporary.as_file().sync_all().map_err(|e| io("the output cannot be flushed", e))?;
    let sha256 = if options.checksum {
        Some(sha256(temporary.as_file()).map_err(|e| io("the output cannot be read back", e))?)
    } else {
        None
    };
    let file_length = temporary.as_file().metadata().map_err(|e| io("the output cannot be examined", e))?.len();
    let persisted = if options.overwrite { temporary.persist(out) } else { temporary.persist_noclobber(out) };
    persisted.map_err(|e| io("the output cannot be renamed into place", e.error))?;
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| io("the output's folder cannot be flushed", e))?;
    Ok(Converted {
        path: out.to_owned(),
        virtual_size: source.len(),
        bytes_read: done.bytes_read,
        bytes_written: done.bytes_written,
        file_length,
        sha256,
    })
}

fn check_options(options: &ConvertOptions<'_>) -> Result<()> {
    let usage = |message: String, hint: &str| Err(Error::new(Kind::Usage, Layer::Block, message).hint(hint));
    match options.format {
        Format::Raw if options.compression.is_some() => {
            usage("a raw image cannot be compressed".into(), "choose qcow2 as output format")
        }
        Format::Raw | Format::Qcow2 if (9..=21).contains(&options.cluster_bits) => Ok(()),
        Format::Raw | Format::Qcow2 => usage(format!("clusters of 2^{} bytes", options.cluster_bits), "choose 9 to 21"),
        other => Err(Error::unsupported(Layer::Block, format!("writing {other} images"))
            .hint("choose qcow2 or raw as output format")),
    }
}

fn check_output(inputs: &[PathBuf], out: &Path, overwrite: bool) -> Result<()> {
    let usage = |message: &str, hint: &str| {
        Err(Error::new(Kind::Usage, Layer::Block, message).path(out.display().to_string()).hint(hint))
    };
    let Ok(real) = out.canonicalize() else { return Ok(()) };
    if inputs.iter().any(|i| i.canonicalize().is_ok_and(|i| i == real)) {
        return usage("the output is one of the input's own files", "choose another name for the output");
    }
    if !real.is_file() {
        return usage("the output is there already, and no plain file", "choose another name for the output");
    }
    if !overwrite {
        return usage("the output is there already", "remove it, choose another name, or allow it to be replaced");
    }
    Ok(())
}

/// SHA-256 of the file's content. One thread reads while this one computes.
fn sha256(file: &File) -> std::io::Result<String> {
    use std::os::unix::fs::FileExt;
    const PIECE: usize = 1 << 20;
    let mut digest = Sha256::new();
    std::thread::scope(|scope| {
        let (full, filled) = std::sync::mpsc::sync_channel::<std::io::Result<Vec<u8>>>(4);
        scope.spawn(move || {
            let mut at = 0;
            loop {
                let mut piece = vec![0; PIECE];
                let read = loop {
                    match file.read_at(&mut piece, at) {
                        Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                        other => break other,
                    }
                };
                let end = !matches!(read, Ok(n) if n > 0);
                let message = read.map(|n| {
                    piece.truncate(n);
                    at += n as u64;
                    piece
                });
                if full.send(message).is_err() || end {
                    break;
                }
            }
        });
        for piece in filled {
            digest.update(&piece?);
        }
        Ok(())
    })
    .map(|()| digest.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
