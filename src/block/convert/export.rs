//! A conversion into an export of an NBD server: every byte of the disk is written to it, and read back.
//!
//! An export exists already, and has no other name under which a copy could be completed: an interrupted copy leaves it
//! incomplete, and says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::flush::Flusher;
use super::inputs::{Inputs, Times, disk_begins_with, first_data, read_head};
use super::interrupt::Interrupt;
use super::options::{ConvertOptions, ConvertProgress, Converted};
use super::pipeline::{self, Hooks, OutputSpec};
use crate::block::commit::other_name::refuse_half_written;
use crate::block::commit::{SERVER_NOTE, refuse_own_files};
use crate::block::journal::refuse_pending_export;
use crate::block::{DiskSource, Format, Storage, is_zero};
use crate::cancel::Reached;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape::{escape, shell_argument};
use crate::nbd::{ExportOutput, IDENTITY, NbdOptions, NbdUri};

/// Where a disk has the header of its GPT, with sectors of 512 bytes and of 4096, and how that begins.
const GPT_AT: [usize; 2] = [512, 4096];
const GPT_MAGIC: &[u8; 8] = b"EFI PART";

/// Refuses an export as the output of a conversion, as far as the options and the names tell; `inputs` are the files of the
/// source.
///
/// # Errors
/// [`Kind::Usage`].
pub(crate) fn refuse_export<'a>(
    out: &Path,
    format: Format,
    overwrite: bool,
    inputs: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    NbdUri::parse(out)?;
    let refused = |code, what: &str, hint: String| {
        let error = Error::new(Kind::Usage, Layer::Block, format!("cannot write the output: {what}")).with_code(code);
        Err(error.path(out.display().to_string()).hint(hint))
    };
    if format != Format::Raw {
        let hint = format!(
            "leave -O {format} out, and let the server keep the disk as qcow2: qemu-img create -f qcow2 NEW.qcow2 SIZE; \
             qemu-nbd -t -k SOCKET -f qcow2 NEW.qcow2"
        );
        return refused(ErrorCode::OutputName, "an export takes the disk as it is, which is raw", hint);
    }
    if !overwrite {
        let hint = "replace what it holds with --overwrite".to_owned();
        return refused(ErrorCode::OutputExists, "an export holds a disk already", hint);
    }
    let inputs: Vec<PathBuf> = inputs.into_iter().map(Path::to_owned).collect();
    refuse_own_files(&inputs, out)
}

/// A copy of a disk to an export. Nothing is written before [`run`](Self::run).
pub(crate) struct ExportCopy {
    out: PathBuf,
    output: Arc<ExportOutput>,
    /// Files that are read, and must not change when the export is written to.
    inputs: Vec<PathBuf>,
}

impl ExportCopy {
    /// Connects to the export `out`, and makes sure that it can hold the source, and is neither the source nor, as far as reading
    /// tells, another of the inputs.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an export that is not to be replaced, or is the source; [`Kind::Refused`] for one that is too small,
    /// read-only or without flush; [`Kind::Pending`] after an interrupted edit of it; [`Kind::Io`] when the server fails.
    pub(crate) fn begin(
        source: &(impl DiskSource + ?Sized),
        others: Inputs<'_>,
        out: &Path,
        options: &ConvertOptions<'_>,
    ) -> Result<Self> {
        options.check()?;
        let inputs = others.all_files(source);
        refuse_export(out, options.format, options.overwrite, inputs.iter().map(PathBuf::as_path))?;
        let nbd = NbdOptions { cancel: options.cancel.clone(), ..options.nbd.clone() };
        refuse_pending_export(out, &nbd)?;
        let output = Arc::new(ExportOutput::open(out, &nbd)?);
        let storage: Arc<dyn Storage> = Arc::<ExportOutput>::clone(&output);
        refuse_half_written(out, &nbd, &storage)?;
        let copy = Self { out: out.to_owned(), output, inputs };
        copy.refuse_small(source.len())?;
        copy.refuse_head_of_input(source, &others, &nbd)?;
        Ok(copy)
    }

    /// Verifies the source, writes it to the export, and reads it back.
    ///
    /// # Errors
    /// See [`convert`](super::convert). What was begun is incomplete then, which the error says.
    pub(crate) fn run(&self, source: &(impl DiskSource + ?Sized), options: &ConvertOptions<'_>) -> Result<Converted> {
        options.verify.map_or(Ok(()), |verify| verify())?;
        let cancel = &options.cancel;
        let _hold = cancel.hold()?;
        match self.write(source, options) {
            Ok(done) => {
                cancel.reach(Reached::CommitPoint);
                Ok(done)
            }
            Err(error) if self.output.is_begun() => {
                cancel.reach(Reached::Incomplete);
                Err(self.incomplete(&error))
            }
            Err(error) => Err(error),
        }
    }

    fn write(&self, source: &(impl DiskSource + ?Sized), options: &ConvertOptions<'_>) -> Result<Converted> {
        let interrupt = Interrupt { stop: None, cancel: Some(&options.cancel) };
        let spec = OutputSpec::new(options);
        let size = source.len();
        let state = pipeline::prepare(source, &spec, 0, interrupt)?;
        let to_read = state.total();
        // Reading back counts, too.
        let report = |done: u64| {
            let total = to_read.saturating_add(size);
            if let Some(progress) = options.progress {
                progress(ConvertProgress { done, total });
            }
        };
        let of_copy = |now: ConvertProgress| report(now.done);
        let hooks = Hooks { progress: Some(&of_copy), verify: None, interrupt };
        self.refuse_input()?;
        self.output.begin(size)?;
        let storage: Arc<dyn Storage> = Arc::<ExportOutput>::clone(&self.output);
        let flusher = Flusher::start(storage).map_err(|e| Error::io(Layer::Host, "cannot flush the output", e))?;
        let copied = pipeline::copy(source, (&*self.output, &flusher), &spec, state, hooks)?;
        flusher.finish()?;
        let sha256 = self.output.finish(size, options.checksum, &|done| report(to_read.saturating_add(done)))?;
        Ok(Converted {
            path: self.out.clone(),
            virtual_size: size,
            bytes_read: copied.bytes_read,
            bytes_written: copied.bytes_written,
            file_length: size,
            sha256,
            notes: self.notes(source)?,
        })
    }

    /// What a user should know of the copy.
    fn notes(&self, source: &(impl DiskSource + ?Sized)) -> Result<Vec<String>> {
        let out = self.out.display();
        let mut notes = vec![SERVER_NOTE.to_owned()];
        if NbdUri::parse(&self.out)?.is_exposed() {
            notes.push(format!("{out} is written without encryption: everybody on the way can read and change it"));
        }
        let rest = self.output.export().size.saturating_sub(source.len());
        if rest > 0 {
            notes.push(format!("the export is {rest} bytes longer than the disk: they are as they were"));
            let head = read_head(source)?;
            if GPT_AT.iter().any(|at| head.get(*at..).is_some_and(|header| header.starts_with(GPT_MAGIC))) {
                notes
                    .push("the backup GPT is at the end of the disk, not of the export: sgdisk -e moves it".to_owned());
            }
        }
        Ok(notes)
    }

    fn refuse_small(&self, size: u64) -> Result<()> {
        let found = self.output.export().size;
        if found >= size {
            return Ok(());
        }
        let what = format!("cannot write the output: the export has {found} bytes, and the disk {size}");
        Err(Error::refused(Layer::Block, what)
            .with_code(ErrorCode::NbdTooSmall)
            .path(self.out.display().to_string())
            .hint(format!("let the server export a disk of at least {size} bytes")))
    }

    /// Refuses an export that begins as one of the inputs does: it may be the input, by another name.
    fn refuse_head_of_input(
        &self,
        source: &(impl DiskSource + ?Sized),
        others: &Inputs<'_>,
        nbd: &NbdOptions,
    ) -> Result<()> {
        let head = self.output.head()?;
        let mut is_same = self.may_be(source, &head, nbd)?;
        for disk in others.disks {
            is_same = is_same || self.may_be(*disk, &head, nbd)?;
        }
        if !is_same && !others.any_file_begins_with(&head, nbd) {
            return Ok(());
        }
        Err(self.is_input("the export has the beginning of the input: it may be the input").hint(format!(
            "if it is an older copy, and surely not the input, clear its beginning first: {}",
            self.clearing_command()
        )))
    }

    /// The command that makes the export one that holds no disk.
    fn clearing_command(&self) -> String {
        let length = self.output.export().size.min(IDENTITY);
        format!("qemu-io -f raw -c 'write -z 0 {length}' {}", shell_argument(&self.out, "URI"))
    }

    /// Whether the export, which begins with `head`, may be this disk or a file of it.
    fn may_be(&self, disk: &(impl DiskSource + ?Sized), head: &[u8], nbd: &NbdOptions) -> Result<bool> {
        if is_zero(head) { self.holds_first_data(disk) } else { disk_begins_with(disk, head, nbd) }
    }

    /// Whether the export, which begins with zeros, has the first data of a disk at the same place.
    fn holds_first_data(&self, disk: &(impl DiskSource + ?Sized)) -> Result<bool> {
        let Some((at, block)) = first_data(disk)? else { return Ok(false) };
        if at.saturating_add(block.len() as u64) > self.output.export().size {
            return Ok(false);
        }
        Ok(self.output.bytes_at(at, block.len())? == block)
    }

    /// Refuses an export that lies in one of the files that are read, wherever and in whatever container: what the export holds
    /// is written to it once more, and none of the files may have another time then.
    fn refuse_input(&self) -> Result<()> {
        let before = Times::of(&self.inputs);
        before.pass();
        self.output.touch()?;
        match before.changed() {
            None => Ok(()),
            Some(file) => {
                let file = escape(&file.display().to_string()).to_string();
                let text = format!("{file}, which is read, was written to when the export was: it may hold the export");
                Err(self.is_input(&text).hint("name another export; what this one holds is as it was"))
            }
        }
    }

    fn is_input(&self, what: &str) -> Error {
        Error::new(Kind::Usage, Layer::Block, format!("cannot write the output: {what}"))
            .with_code(ErrorCode::OutputIsInput)
            .path(self.out.display().to_string())
    }

    /// The error for a copy that was begun.
    fn incomplete(&self, error: &Error) -> Error {
        let what = "the export holds an incomplete copy";
        let is_headed = self.output.is_headed();
        if error.kind() == Kind::Cancelled && !is_headed {
            return Error::new(Kind::Cancelled, Layer::Block, format!("interrupted; {what}"))
                .path(self.out.display().to_string())
                .hint("run the command again");
        }
        let hint = match error.kind() {
            _ if is_headed => format!(
                "the export may hold the whole copy, which the server did not confirm: clear its beginning, and run the command \
                 again: {}",
                self.clearing_command()
            ),
            // The export is not at fault.
            Kind::Damaged => what.to_owned(),
            _ => format!("{what}; run the command again"),
        };
        let hint = match error.hint_text() {
            Some(first) if !is_headed => format!("{hint}; {first}"),
            _ => hint,
        };
        error.clone().with_code(ErrorCode::NbdIncomplete).path(self.out.display().to_string()).replace_hint(hint)
    }
}
