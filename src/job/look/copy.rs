//! Copies files of the guest to the host.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::files::{Files, NodeKind, Opened};
use super::host_name::host_name;
use super::select::{Found, select};
use super::walk::walk;
use crate::block::commit::refuse_own_files;
use crate::cancel::{Cancel, Reached};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape::shell_argument;
use crate::host::{AtomicFile, Target, create_folder, folder_of, is_reserved, refuse_missing_folder};
use crate::ntfs::format::name::NtfsName;

/// What an output is called in messages.
const OUTPUT: &str = "the copy";
/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// Bytes that become a hole when all of them are zero.
const BLOCK: usize = 64 << 10;

/// What is copied, and where to.
pub struct CopyRequest<'a> {
    /// Paths in the volume, with wildcards; see [`select`].
    pub paths: Vec<String>,
    /// A folder, or the name of the copy.
    pub destination: &'a Path,
    /// Whether folders are copied with all that lies in them.
    pub recursive: bool,
    /// Whether files of the host are replaced.
    pub overwrite: bool,
    /// Whether nothing is written: the answer lists what would be.
    pub dry_run: bool,
    /// Files that the caller read to make this request (keys): no copy takes the place of one.
    pub other_inputs: Vec<PathBuf>,
    /// Stops the copying when another thread requests it; what was copied by then stays.
    pub cancel: Cancel,
    /// Called with the bytes that are copied, and all of them. The files are counted for it first.
    pub progress: Option<&'a dyn Fn(u64, u64)>,
}

/// What was copied; for a dry run, what would be.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Copied {
    /// Whether it was a dry run, which writes nothing.
    pub dry_run: bool,
    /// Number of files.
    pub files: u64,
    /// Number of folders that were made.
    pub folders: u64,
    /// Bytes of the files' content, holes included.
    pub bytes: u64,
    /// What was not copied.
    pub skipped: Vec<Skipped>,
    /// The copies that a dry run would write; left out otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<PlannedCopy>,
}

/// A copy that a dry run would write.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct PlannedCopy {
    /// Path of the file in the volume.
    pub path: String,
    /// Path of the copy on the host.
    pub copy: String,
    /// Length of the content in bytes, holes included.
    pub bytes: u64,
    /// Whether the copy replaces a file.
    pub replaces: bool,
}

/// A file that was not copied.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Skipped {
    /// Its path in the volume.
    pub path: String,
    /// Why.
    pub reason: String,
    /// Whether that is a failure; links are left out on purpose.
    pub failed: bool,
    /// Kind of the failure; not in the JSON form.
    #[serde(skip)]
    pub kind: Kind,
}

/// Copies files out of a volume. Each copy appears under its name when it is complete. Nothing is written outside of the
/// destination, and symbolic links of the host are not followed below it. A dry run opens each file, and reads no content.
///
/// # Errors
/// [`Kind::Usage`] for paths and destinations that do not fit, [`Kind::Io`] when the host cannot take more. A single file
/// that cannot be read is named in the answer, unless it is the only one.
pub fn copy_out(files: &Files<'_>, request: &CopyRequest<'_>) -> Result<Copied> {
    let mut sources = Vec::new();
    for path in &request.paths {
        sources.extend(select(files, path)?);
    }
    let usage = |what: &str, path: String, hint: &str| Error::new(Kind::Usage, Layer::Job, what).path(path).hint(hint);
    if let Some(folder) = sources.iter().find(|found| found.node.kind == NodeKind::Folder)
        && !request.recursive
    {
        return Err(usage("a folder is not copied", folder.path.clone(), "copy it with all that lies in it: -r"));
    }
    let inputs = files.image_files.iter().chain(&request.other_inputs).cloned().collect();
    let total = if request.progress.is_some() { count_bytes(files, &sources, &request.cancel)? } else { 0 };
    let done = Copied { dry_run: request.dry_run, ..Copied::default() };
    let mut copy = Copy { files, request, inputs, done, planned: HashSet::new(), buf: vec![0; CHUNK], total };
    let destination = request.destination;
    let shown = destination.display().to_string();
    match (sources.as_slice(), destination.is_dir()) {
        ([only], false) if only.node.kind == NodeKind::Folder => {
            refuse_missing_folder(destination, OUTPUT)?;
            copy.tree(only, destination, true)?;
        }
        ([only], false) => {
            let target = Target::resolve(destination, OUTPUT)?;
            target.refuse_stream()?;
            copy.file(only, target)?;
        }
        (_, false) => {
            return Err(usage(
                "several files need a folder",
                shown,
                "make the folder first, and name it as the destination",
            ));
        }
        (several, true) => several.iter().try_for_each(|found| copy.add_to_folder(found, destination))?,
    }
    Ok(copy.done)
}

/// Bytes of all files that these lead to. A file that cannot be looked at counts for nothing: its copy says why.
fn count_bytes(files: &Files<'_>, sources: &[Found], cancel: &Cancel) -> Result<u64> {
    let mut total: u64 = 0;
    for source in sources {
        walk(files, source, false, &mut |_, found| {
            cancel.check()?;
            if found.node.kind == NodeKind::File || !found.stream.is_empty() {
                let size = match found.stream.is_empty() {
                    true => files.details(&found.node).map(|details| details.size),
                    false => files.open_content(&found.node, &found.stream).map(|content| content.length()),
                };
                total = total.saturating_add(size.unwrap_or(0));
            }
            Ok(())
        })?;
    }
    Ok(total)
}

/// Shows the content of a file, piece by piece.
///
/// # Errors
/// [`Kind::Usage`] for a folder or a link; damaged, encrypted, or the image cannot be read; and what `show` returns.
pub fn read_content(files: &Files<'_>, found: &Found, show: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let content = open(files, found)?;
    let mut end = 0;
    read_data(&content, found, &mut vec![0; CHUNK], &mut |offset, piece| {
        show_zeros(offset.saturating_sub(end), show)?;
        end = offset.saturating_add(piece.len() as u64);
        show(piece)
    })?;
    show_zeros(content.length().saturating_sub(end), show)
}

fn show_zeros(mut count: u64, show: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let zeros = [0; BLOCK];
    while count > 0 {
        let part = zeros.get(..usize::try_from(count).unwrap_or(BLOCK)).unwrap_or(&zeros);
        show(part)?;
        count -= part.len() as u64;
    }
    Ok(())
}

/// Reads a file's content piece by piece, each into `buf`, with its offset. Holes are left out.
fn read_data(
    content: &Opened<'_>,
    found: &Found,
    buf: &mut [u8],
    show: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut offset = content.next_data(0);
    while offset < content.length() {
        let count = content.read_at(offset, buf).map_err(|error| error.path(&found.path))?;
        if count == 0 {
            return Err(Error::bug(Layer::Job, "a content ends before its length").path(&found.path));
        }
        show(offset, buf.get(..count).unwrap_or_default())?;
        offset = content.next_data(offset.saturating_add(count as u64));
    }
    Ok(())
}

fn open<'f>(files: &'f Files<'f>, found: &'f Found) -> Result<Opened<'f>> {
    let usage = |what: String, hint: &str| Err(Error::new(Kind::Usage, Layer::Job, what).path(&found.path).hint(hint));
    match found.node.kind {
        NodeKind::Link => {
            let target = files.details(&found.node)?.target.unwrap_or_default();
            usage(format!("a link to {target}, and links are not followed"), "name the path that it leads to")
        }
        NodeKind::Folder if found.stream.is_empty() => {
            let path = shell_argument(Path::new(&found.path), "PATH");
            usage("a folder".to_owned(), &format!("this lists it: winject ls IMAGE {path}"))
        }
        _ => files.open_content(&found.node, &found.stream).map_err(|error| error.path(&found.path)),
    }
}

struct Copy<'a, 'f> {
    files: &'a Files<'f>,
    request: &'a CopyRequest<'a>,
    /// The files that are read, those of the image and the others: no copy takes the place of one.
    inputs: Vec<PathBuf>,
    done: Copied,
    /// The files and folders that a dry run would have written by now.
    planned: HashSet<PathBuf>,
    buf: Vec<u8>,
    /// Bytes of all files, if they were counted.
    total: u64,
}

impl Copy<'_, '_> {
    fn add_to_folder(&mut self, found: &Found, folder: &Path) -> Result<()> {
        if found.name.is_empty() {
            return self.tree(found, folder, true);
        }
        let mut name = found.name.units().to_vec();
        if !found.stream.is_empty() {
            name.extend(format!(":{}", found.stream).encode_utf16());
        }
        let place = folder.join(host_name(&NtfsName::from_units(name)));
        match found.node.kind {
            NodeKind::Folder => self.tree(found, &place, false),
            _ => self.named(found, &place),
        }
    }

    /// Copies a file to exactly this name.
    fn named(&mut self, found: &Found, place: &Path) -> Result<()> {
        if is_reserved(place) {
            // A guest must not make a journal for an image of the host.
            self.skip(found, "the name is kept for undo journals and records".to_owned(), Some(Kind::Refused));
            return Ok(());
        }
        self.file(found, Target::of_name(place, OUTPUT)?)
    }

    /// Copies a folder with all that lies in it. The place is either what the user named, or chosen by the guest.
    fn tree(&mut self, start: &Found, place: &Path, is_destination: bool) -> Result<()> {
        let files = self.files;
        walk(files, start, false, &mut |names, found| {
            self.request.cancel.check()?;
            let place: PathBuf = names.iter().fold(place.to_owned(), |path, name| path.join(host_name(name)));
            match found.node.kind {
                NodeKind::Folder => self.folder(&place, is_destination && names.is_empty()),
                NodeKind::Link => {
                    let target = files.details(&found.node)?.target.unwrap_or_default();
                    self.skip(found, format!("a link to {target}"), None);
                    Ok(())
                }
                NodeKind::File => match self.named(found, &place) {
                    // The guest's file, not the host: the others can still be copied.
                    Err(error) if !matches!(error.kind(), Kind::Io | Kind::Cancelled | Kind::Usage) => {
                        self.skip(found, error.to_string(), Some(error.kind()));
                        Ok(())
                    }
                    done => done,
                },
            }
        })
    }

    fn skip(&mut self, found: &Found, reason: String, failure: Option<Kind>) {
        let (failed, kind) = (failure.is_some(), failure.unwrap_or(Kind::Refused));
        self.done.skipped.push(Skipped { path: found.path.clone(), reason, failed, kind });
    }

    fn folder(&mut self, place: &Path, is_destination: bool) -> Result<()> {
        let cannot = |error| Error::io(Layer::Host, "cannot make the folder", error).path(place.display().to_string());
        // A link in the place of a folder would lead out of the destination.
        if !is_destination && place.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
            return Err(Error::new(
                Kind::Usage,
                Layer::Host,
                "cannot make the folder: the name is that of a symbolic link",
            )
            .path(place.display().to_string())
            .hint("remove the link, or choose another destination"));
        }
        if place.metadata().is_ok_and(|meta| !meta.is_dir()) {
            return Err(Error::new(Kind::Usage, Layer::Host, "cannot make the folder: a file has its name")
                .with_code(ErrorCode::OutputExists)
                .path(place.display().to_string())
                .hint("choose another destination, or remove the file"));
        }
        let is_new = if self.request.dry_run {
            !place.is_dir() && self.planned.insert(place.to_owned())
        } else {
            create_folder(place, &self.files.image_files).map_err(cannot)?
        };
        self.done.folders += u64::from(is_new);
        Ok(())
    }

    fn file(&mut self, found: &Found, target: Target) -> Result<()> {
        target.refuse_existing(self.request.overwrite)?;
        // A folder that would be new holds no file yet.
        if !self.planned.contains(folder_of(target.path())) {
            refuse_own_files(&self.inputs, target.path())?;
        }
        let files = self.files;
        let content = open(files, found)?;
        if self.request.dry_run {
            return self.plan(found, content.length(), &target);
        }
        let output = AtomicFile::create(target, &self.files.image_files, self.request.cancel.hold()?)?;
        let length = self.fill(found, &content, &output).map_err(|error| error.path(&found.path))?;
        output.finish()?;
        // The files that are complete stay, whatever interrupts the others.
        self.request.cancel.reach(Reached::CommitPoint);
        self.done.files += 1;
        self.done.bytes += length;
        self.report(0);
        Ok(())
    }

    /// Tells how far the copying is: the files that are done, and so many bytes of the next.
    fn report(&self, bytes: u64) {
        if let Some(progress) = self.request.progress {
            progress(self.done.bytes.saturating_add(bytes).min(self.total), self.total);
        }
    }

    /// Notes what a dry run would write.
    fn plan(&mut self, found: &Found, bytes: u64, target: &Target) -> Result<()> {
        let is_second = !self.planned.insert(target.path().to_owned());
        if is_second && !self.request.overwrite {
            return Err(target.exists());
        }
        let copy = target.path().display().to_string();
        let replaces = is_second || target.is_existing();
        self.done.copies.push(PlannedCopy { path: found.path.clone(), copy, bytes, replaces });
        self.done.files += 1;
        self.done.bytes += bytes;
        Ok(())
    }

    /// Writes the content, holes for zeros; returns its length.
    fn fill(&mut self, found: &Found, content: &Opened<'_>, output: &AtomicFile<'_>) -> Result<u64> {
        let cannot = output.target().cannot();
        let cancel = &self.request.cancel;
        let mut buf = std::mem::take(&mut self.buf);
        let copied = read_data(content, found, &mut buf, &mut |offset, piece| {
            cancel.check()?;
            self.report(offset);
            for (i, block) in piece.chunks(BLOCK).enumerate().filter(|(_, block)| block.iter().any(|&byte| byte != 0)) {
                output.storage().write_at(offset + (i * BLOCK) as u64, block).map_err(&cannot)?;
            }
            Ok(())
        });
        self.buf = buf;
        copied?;
        output.storage().set_len(content.length()).map_err(&cannot)?;
        Ok(content.length())
    }
}
