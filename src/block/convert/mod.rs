//! Conversion: the whole disk, with whatever is staged over it, written as a new raw or qcow2 image in one pass.
//!
//! Threads take windows of the disk in order, read them, find the zeros and compress side by side; whatever is ready
//! is laid out strictly in guest order. The output is therefore the same from run to run, whatever the number of
//! threads: data lie contiguous behind one block of metadata, holes and zeros stay holes.
//!
//! ```
//! use winject::internals::block::{self, convert::{ConvertOptions, convert}, OpenOptions};
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
mod flush;
mod late;
mod pipeline;
mod plan;
mod qcow2;
mod raw;
mod sink;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sha2::{Digest, Sha256};

use super::commit::{lock_target, refuse_own_files};
use super::{Format, Locking, RealHost, Stage, Storage};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Layer, Result};
use crate::host::{NewFile, Target};
use flush::Flusher;
use pipeline::{Company, Form, Work};

pub use super::source::Source;
pub use compress::Compression;

/// How many bytes may be put where the image has none, before a conversion has to begin anew.
const LATE_BYTES: u64 = 256 << 20;

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
    /// Asks the conversion to stop; it leaves nothing then.
    pub cancel: Cancel,
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
            cancel: Cancel::default(),
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
    let mut conversion = Conversion::begin(&source.files(), out, options)?;
    let company = Company { progress: options.progress, judge: options.judge, ..Company::default() };
    conversion.copy(source, 0, company)?;
    conversion.complete(options)
}

/// A new image that is being written.
pub(crate) struct Conversion {
    out: PathBuf,
    size: u64,
    form: Form,
    cancel: Cancel,
    /// What was copied.
    work: Option<Work>,
    /// Stops before the file goes.
    flusher: Flusher,
    new: NewFile,
    /// Held until the old file is replaced.
    _replaced: Option<Arc<dyn Storage>>,
}

impl Conversion {
    /// Makes the temporary file for the new image `out`; `files` must not become the output.
    ///
    /// # Errors
    /// As [`convert`].
    pub(crate) fn begin(files: &[PathBuf], out: &Path, options: &ConvertOptions<'_>) -> Result<Self> {
        check_options(options)?;
        refuse_own_files(files, out)?;
        let target = Target::resolve(out, "the output")?;
        target.refuse_stream()?;
        target.refuse_existing(options.overwrite)?;
        let hold = options.cancel.hold()?;
        let replaced = lock_target(&RealHost, target.path(), Locking::Refuse)?;
        let io = |message: &str, e: std::io::Error| Error::io(Layer::Host, message, e).path(out.display().to_string());
        let new = NewFile::create(target, files, hold)?;
        let flusher = Flusher::start(new.file()).map_err(|e| io("the output cannot be flushed", e))?;
        let (out, form) = (out.to_owned(), Form::new(options));
        let cancel = options.cancel.clone();
        Ok(Self { out, size: 0, form, cancel, work: None, flusher, new, _replaced: replaced })
    }

    /// Copies the image below a stage that is still being written. An error when `stop` is set meanwhile.
    ///
    /// # Errors
    /// When the image cannot be read, or the output cannot be written.
    pub(crate) fn copy_image(
        &mut self,
        image: &dyn Source,
        stop: &AtomicBool,
        progress: &dyn Fn(ConvertProgress),
    ) -> Result<()> {
        self.copy(image, LATE_BYTES, Company { progress: Some(progress), stop: Some(stop), ..Company::default() })
    }

    /// Writes the changes of the stage over the copy of its image, and gives the file its name.
    ///
    /// # Errors
    /// As [`convert`].
    pub(crate) fn finish(
        mut self,
        stage: &Stage,
        options: &ConvertOptions<'_>,
        progress: &dyn Fn(ConvertProgress),
    ) -> Result<Converted> {
        let file = self.new.file();
        let work = self.work.as_mut().ok_or_else(|| Error::bug(Layer::Block, "changes of what was not copied"))?;
        let written = late::write(stage, file, &mut *work.layout, self.form.unit());
        match written.map_err(|e| e.path(self.out.display().to_string()))? {
            Some(bytes) => work.bytes_written += bytes,
            // More was changed than anybody expected: with all that is known now, from the start.
            None => {
                file.set_len(0).map_err(|e| Error::io(Layer::Host, "the output cannot be begun anew", e))?;
                self.copy(stage, 0, Company { progress: Some(progress), ..Company::default() })?;
            }
        }
        self.complete(options)
    }

    fn copy<S: Source + ?Sized>(&mut self, source: &S, late: u64, company: Company<'_>) -> Result<()> {
        let target = (self.new.file(), &self.flusher);
        let company = Company { cancel: Some(&self.cancel), ..company };
        let done = pipeline::prepare(source, &self.form, late, company)
            .and_then(|work| pipeline::copy(source, target, &self.form, work, company));
        self.work = Some(done.map_err(|e| e.path(self.out.display().to_string()))?);
        self.size = source.len();
        Ok(())
    }

    /// Writes what is left, and gives the file its name.
    fn complete(self, options: &ConvertOptions<'_>) -> Result<Converted> {
        let Self { out, size, work, flusher, new, _replaced, .. } = self;
        let place = out.display().to_string();
        let mut work = work.ok_or_else(|| Error::bug(Layer::Block, "the end of what was not begun"))?;
        let file = new.file();
        flusher.finish().and_then(|()| work.layout.finish(file)).map_err(|e| e.path(&place))?;
        let io = |message: &str, e: std::io::Error| Error::io(Layer::Host, message, e).path(&place);
        let sha256 = if options.checksum {
            let sum = sha256(file, &options.cancel).map_err(|e| io("the output cannot be read back", e));
            options.cancel.check()?;
            Some(sum?)
        } else {
            None
        };
        let file_length = file.metadata().map_err(|e| io("the output cannot be examined", e))?.len();
        new.finish()?;
        Ok(Converted {
            path: out,
            virtual_size: size,
            bytes_read: work.bytes_read,
            bytes_written: work.bytes_written,
            file_length,
            sha256,
        })
    }
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

/// SHA-256 of the file's content. One thread reads while this one computes.
fn sha256(file: &File, cancel: &Cancel) -> std::io::Result<String> {
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
                let end = !matches!(read, Ok(n) if n > 0) || cancel.is_requested();
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
