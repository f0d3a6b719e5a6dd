//! One conversion: create the temporary file, copy, overlay the changes, rename.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::checksum::sha256;
use super::export::ExportCopy;
use super::flush::Flusher;
use super::inputs::Inputs;
use super::interrupt::Interrupt;
use super::options::{ConvertOptions, ConvertProgress, Converted};
use super::overlay_changes;
use super::pipeline::{self, CopyState, Hooks, OutputSpec};
use crate::block::DiskSource;
use crate::block::commit::{Output, refuse_own_files, resolve_output};
use crate::block::{Locking, RealHost, Stage};
use crate::cancel::Cancel;
use crate::error::{Error, Layer, Result};
use crate::host::is_nbd_name;

/// How many bytes may be put where the image has none, before a conversion has to begin anew.
const APPENDED_BYTES_MAX: u64 = 256 << 20;

/// Writes `source` as the new image `out` and returns when it is on the disk. The file appears under its name only when
/// it is complete; on an error nothing is left. `out` may also be the URI of an NBD export, which is overwritten where it is:
/// on an error it may be incomplete, which the error says.
///
/// # Errors
/// [`Kind::Usage`](crate::Kind::Usage) when `out` exists (unless [`ConvertOptions::overwrite`]), is one of the source's
/// own files, or the options contradict each other; [`Kind::Io`](crate::Kind::Io) when the host fails; any error of
/// reading the source or of [`ConvertOptions::verify`].
pub fn convert(source: &(impl DiskSource + ?Sized), out: &Path, options: &ConvertOptions<'_>) -> Result<Converted> {
    if is_nbd_name(out) {
        return ExportCopy::begin(source, Inputs::default(), out, options)?.run(source, options);
    }
    let mut conversion = Conversion::begin(&source.files(), out, options)?;
    let hooks = Hooks { progress: options.progress, verify: options.verify, ..Hooks::default() };
    conversion.copy(source, 0, hooks)?;
    conversion.complete()
}

/// A new image that is being written.
pub(super) struct Conversion {
    out: PathBuf,
    /// Length of the disk in bytes, known once something was copied.
    size: u64,
    spec: OutputSpec,
    checksum: bool,
    cancel: Cancel,
    /// State of the copy; `None` before the first one.
    copied: Option<CopyState>,
    // Fields drop in this order: the flusher stops before its file goes.
    flusher: Flusher,
    output: Output<'static>,
}

impl Conversion {
    /// Makes the temporary file for the new image `out`; `files` must not become the output.
    ///
    /// # Errors
    /// See [`convert`].
    pub(super) fn begin(files: &[PathBuf], out: &Path, options: &ConvertOptions<'_>) -> Result<Self> {
        options.check()?;
        refuse_own_files(files, out)?;
        let target = resolve_output(out, options.overwrite)?;
        let output = Output::create(&RealHost, target, files, Locking::Refuse, &options.cancel)?;
        let flusher = Flusher::start(Arc::clone(output.storage()))
            .map_err(|e| Error::io(Layer::Host, "cannot flush the output", e).path(out.display().to_string()))?;
        Ok(Self {
            out: out.to_owned(),
            size: 0,
            spec: OutputSpec::new(options),
            checksum: options.checksum,
            cancel: options.cancel.clone(),
            copied: None,
            flusher,
            output,
        })
    }

    /// Copies the image below a stage that is still being changed. Fails when `stop` is set meanwhile.
    ///
    /// # Errors
    /// When the image cannot be read, or the output cannot be written.
    pub(super) fn copy_image(
        &mut self,
        image: &dyn DiskSource,
        stop: &AtomicBool,
        progress: &dyn Fn(ConvertProgress),
    ) -> Result<()> {
        let interrupt = Interrupt { stop: Some(stop), cancel: None };
        self.copy(image, APPENDED_BYTES_MAX, Hooks { progress: Some(progress), verify: None, interrupt })
    }

    /// Writes the changes of the stage over the copy of its image, and gives the file its name.
    ///
    /// # Errors
    /// See [`convert`].
    pub(super) fn finish(mut self, stage: &Stage, progress: &dyn Fn(ConvertProgress)) -> Result<Converted> {
        let file = &**self.output.storage();
        let copied = self.copied.as_mut().ok_or_else(|| Error::bug(Layer::Block, "changes without a copied image"))?;
        let written = overlay_changes::write(stage, file, &mut *copied.layout, self.spec.unit());
        match written.map_err(|e| e.path(self.out.display().to_string()))? {
            Some(bytes) => copied.bytes_written += bytes,
            // More was changed than the layout has room for: copy again, now that all changes are known.
            None => {
                file.set_len(0).map_err(|e| Error::io(Layer::Host, "cannot empty the output", e))?;
                self.copy(stage, 0, Hooks { progress: Some(progress), ..Hooks::default() })?;
            }
        }
        self.complete()
    }

    /// Copies all of `source`, with room for `appended_max` bytes that its changes may put where it has none.
    ///
    /// # Errors
    /// When the source cannot be read, the output cannot be written, or the copy was interrupted.
    pub(super) fn copy<S: DiskSource + ?Sized>(
        &mut self,
        source: &S,
        appended_max: u64,
        hooks: Hooks<'_>,
    ) -> Result<()> {
        let interrupt = Interrupt { cancel: Some(&self.cancel), ..hooks.interrupt };
        let hooks = Hooks { interrupt, ..hooks };
        let output = (&**self.output.storage(), &self.flusher);
        let copied = pipeline::prepare(source, &self.spec, appended_max, interrupt)
            .and_then(|state| pipeline::copy(source, output, &self.spec, state, hooks));
        self.copied = Some(copied.map_err(|e| e.path(self.out.display().to_string()))?);
        self.size = source.len();
        Ok(())
    }

    /// Writes the metadata that are left, and gives the file its name.
    fn complete(self) -> Result<Converted> {
        let Self { out, size, checksum, cancel, copied, flusher, output, .. } = self;
        let shown = out.display().to_string();
        let cannot = |what: &str, e: std::io::Error| Error::io(Layer::Host, what, e).path(&shown);
        let mut copied = copied.ok_or_else(|| Error::bug(Layer::Block, "a conversion that copied nothing"))?;
        let storage = &**output.storage();
        flusher.finish().and_then(|()| copied.layout.finish(storage)).map_err(|e| e.path(&shown))?;
        let sha256 = if checksum {
            let sum = sha256(storage, &cancel).map_err(|e| cannot("cannot read the output back", e));
            cancel.check()?;
            Some(sum?)
        } else {
            None
        };
        let file_length = storage.len().map_err(|e| cannot("cannot find the length of the output", e))?;
        output.finish()?;
        Ok(Converted {
            path: out,
            virtual_size: size,
            bytes_read: copied.bytes_read,
            bytes_written: copied.bytes_written,
            file_length,
            sha256,
            notes: Vec::new(),
        })
    }
}
