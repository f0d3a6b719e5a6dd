//! Where an export is edited in place: the export is at the server, its journal in a folder of this machine.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::connection::Connection;
use super::export::NotWritable;
use super::failure::Failure;
use super::link::denied_error;
use super::options::NbdOptions;
use super::uri::NbdUri;
use super::writer::ExportWriter;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::hex;
use crate::host::{HostFiles, Locking, NameLock, RealHost, Storage, create_private_folder, next_to};

/// Bytes of the readable part of a journal's name.
const READABLE_MAX: usize = 100;
/// How the name of the file ends that is locked during an edit, after that of the export.
const LOCK_ENDING: &str = ".winject-lock";
/// What is done about a folder for journals that cannot be used.
const FOLDER_HINT: &str = "check that the folder may be written and what has that name in it, or name another folder, and keep it: \
                           WINJECT_JOURNALS=FOLDER";
/// Bytes of the hash in a journal's name.
const HASH_BYTES: usize = 8;

/// The export that a URI names as the one image of a host: its journal and its lock are files in the folder for journals.
pub struct ExportHost {
    uri: NbdUri,
    /// The URI as it was given.
    name: PathBuf,
    /// Stands for the export in the folder for journals: no file has this path, and the journal is named after it.
    place: PathBuf,
    options: NbdOptions,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl std::fmt::Debug for ExportHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExportHost").field("uri", &self.uri).field("place", &self.place).finish_non_exhaustive()
    }
}

impl ExportHost {
    /// The host of the export `name`. No connection is made, and no file.
    ///
    /// # Errors
    /// Those of [`NbdUri::parse`]; [`Kind::Refused`] without a folder for journals.
    pub fn new(name: &Path, options: &NbdOptions) -> Result<Self> {
        let uri = NbdUri::parse(name)?;
        let folder = options.journals.as_ref().ok_or_else(|| no_folder(name))?;
        let place = folder.join(file_name(&uri));
        Ok(Self { uri, name: name.to_owned(), place, options: options.clone(), connection: Mutex::default() })
    }

    /// Keeps other processes of this machine from editing the export, as long as the result lives. Makes the folder for
    /// journals where it does not exist.
    ///
    /// # Errors
    /// [`Kind::Refused`] when another process edits the export, or the folder cannot be used.
    pub(crate) fn lock_export(&self) -> Result<NameLock> {
        let folder = self.folder();
        create_private_folder(folder).map_err(|error| self.unusable_folder(error))?;
        NameLock::take(&self.lock_path()).map_err(|error| match error.kind() {
            Kind::Refused => self.in_use(),
            _ => error.replace_hint(FOLDER_HINT),
        })
    }

    /// Refuses an export that another process of this machine edits.
    ///
    /// # Errors
    /// [`Kind::Refused`].
    pub(crate) fn refuse_edited(&self) -> Result<()> {
        if NameLock::is_taken(&self.lock_path()) { Err(self.in_use()) } else { Ok(()) }
    }

    /// Edits through this connection.
    ///
    /// # Errors
    /// [`Kind::Refused`] for an export that cannot be edited in place: read-only, or without flush.
    pub(super) fn use_connection(&self, connection: Arc<Connection>) -> Result<()> {
        connection.export.refuse_not_writable(&self.name, &NOT_EDITABLE)?;
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        Ok(())
    }

    /// From now on the connection does not obey the cancellation of the job: what was begun is finished or taken back.
    ///
    /// # Errors
    /// When the server cannot be reached, or the connection was lost.
    pub(crate) fn hold_connection(&self) -> Result<()> {
        self.connect()?.hold().map_err(|lost| self.lost(lost))
    }

    /// The connection, made on the first call.
    fn connect(&self) -> Result<Arc<Connection>> {
        let open = self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(connection) = open {
            return Ok(connection);
        }
        let connection = Connection::open(&self.uri, &self.options);
        let connection = Arc::new(connection.map_err(|denied| denied_error(denied, &self.uri))?);
        self.use_connection(Arc::clone(&connection))?;
        Ok(connection)
    }

    /// The error for a connection that cannot be used any more.
    pub(super) fn lost(&self, failure: Failure) -> Error {
        failure.into_error("cannot edit the export", &self.uri)
    }

    /// Uses the journal of this place in the folder for journals: the same export had another URI when it was written.
    pub(crate) fn adopt(&mut self, place: PathBuf) {
        self.place = place;
    }

    /// The folder for journals.
    pub(crate) fn folder(&self) -> &Path {
        self.place.parent().unwrap_or(Path::new("."))
    }

    fn lock_path(&self) -> PathBuf {
        next_to(&self.place, LOCK_ENDING)
    }

    /// Keeps other processes of this machine from editing the disk under another URI, as long as the result lives: `mark` is
    /// what the disk is known by. Clones have the same mark and are kept apart in vain, so it is not waited for without end;
    /// `None` without the lock.
    pub(crate) fn lock_disk(&self, mark: &str) -> Option<NameLock> {
        let name = format!("nbd-disk-{}", short_hash(mark));
        let taken = NameLock::take(&next_to(&self.folder().join(name), LOCK_ENDING));
        taken.inspect_err(|error| tracing::info!(%error, "a disk that begins like this one is edited, too")).ok()
    }

    fn is_export(&self, path: &Path) -> bool {
        path == self.name || path == self.place
    }

    fn in_use(&self) -> Error {
        Error::refused(Layer::Nbd, "another winject on this machine is editing the export")
            .with_code(ErrorCode::ImageInUse)
            .path(self.name.display().to_string())
            .hint("wait until it has finished, and run the command again")
    }

    fn unusable_folder(&self, error: io::Error) -> Error {
        Error::refused(Layer::Nbd, "cannot keep the journal of an edit over NBD")
            .with_code(ErrorCode::NbdJournal)
            .path(self.folder().display().to_string())
            .source_error(error)
            .hint(FOLDER_HINT)
    }
}

/// What is said of an export that cannot be edited in place.
const NOT_EDITABLE: NotWritable<'_> = NotWritable {
    prefix: "",
    read_only_hint: "serve it writable, or write what changes into a file: --overlay NEW.qcow2, or -o NEW.qcow2 for a whole image",
    no_flush_why: "an interrupted edit could not be undone",
    no_flush_hint: "write what changes into a file: --overlay NEW.qcow2, or -o NEW.qcow2 for a whole image; or let qemu-nbd serve a \
                    qcow2 overlay of the disk",
};

fn no_folder(name: &Path) -> Error {
    Error::refused(Layer::Nbd, "no folder for the journal of an edit over NBD")
        .with_code(ErrorCode::NbdJournal)
        .path(name.display().to_string())
        .hint("name one that lasts: WINJECT_JOURNALS=FOLDER")
}

/// The name that stands for an export in the folder for journals: the same however the URI is spelled.
fn file_name(uri: &NbdUri) -> String {
    let whole = uri.canonical();
    let readable = whole.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' });
    let readable: String = readable.take(READABLE_MAX).collect();
    format!("nbd-{}-{}", readable.trim_matches('-'), short_hash(&whole))
}

/// The beginning of the SHA-256 of a text, for a name.
fn short_hash(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hex::encode(hash.get(..HASH_BYTES).unwrap_or_default())
}

impl HostFiles for ExportHost {
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn Storage>> {
        RealHost.create(path, mode)
    }

    fn open(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>> {
        if !self.is_export(path) {
            return RealHost.open(path, locking);
        }
        Ok(Arc::new(ExportWriter::new(self.connect()?)))
    }

    fn lock(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>> {
        if self.is_export(path) { self.open(path, locking) } else { RealHost.lock(path, locking) }
    }

    fn real_path(&self, path: &Path) -> PathBuf {
        if self.is_export(path) { self.place.clone() } else { RealHost.real_path(path) }
    }

    fn open_journal(&self, path: &Path, image_owner: Option<u32>) -> Result<Arc<dyn Storage>> {
        RealHost.open_journal(path, image_owner)
    }

    fn open_record(&self, path: &Path, image_owner: Option<u32>) -> Result<Arc<dyn Storage>> {
        RealHost.open_record(path, image_owner)
    }

    fn exists(&self, path: &Path) -> bool {
        self.is_export(path) || RealHost.exists(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealHost.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
        RealHost.rename(from, to, replace)
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        RealHost.sync_folder_of(path)
    }

    fn journal_folder(&self) -> Option<&Path> {
        Some(self.folder())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_export_has_one_journal_however_its_uri_is_spelled() {
        let name = |uri: &str| file_name(&NbdUri::parse(Path::new(uri)).unwrap());
        assert_eq!(name("nbd://Host"), name("nbd://host:10809/"));
        assert_eq!(name("nbd+unix:///a%20b?socket=/no/s"), name("nbd+unix:///%61 b?socket=%2Fno/s"));
        assert_ne!(name("nbd://h/a-b"), name("nbd://h/a/b"));
        assert_ne!(name("nbd://h:1/"), name("nbd://h:2/"));
        let long = name(&format!("nbd://h/{}", "x".repeat(4000)));
        assert!(long.len() < 200 && long.starts_with("nbd-h-10809-x"), "{long}");
        assert!(!name("nbd://h/..%2f..%2fetc").contains('/'));
    }

    #[test]
    fn a_socket_has_one_name_whether_or_not_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        let name = |below: &str| {
            let uri = format!("nbd+unix:///?socket={}/{below}", folder.path().display());
            file_name(&NbdUri::parse(Path::new(&uri)).unwrap())
        };
        let before = name("link/s");
        assert_eq!(before, name("real/s"));
        std::fs::write(folder.path().join("real/s"), b"").unwrap();
        assert_eq!(before, name("link/s"));
    }

    #[test]
    fn without_a_folder_for_journals_nothing_is_edited() {
        let error = ExportHost::new(Path::new("nbd://h"), &NbdOptions::default()).unwrap_err();
        assert_eq!((error.kind(), error.code()), (Kind::Refused, ErrorCode::NbdJournal));
    }
}
