//! One error type for every layer.
//!
//! An [`Error`] always answers three questions: *what kind* of failure it is (the image is damaged, we do not support
//! it, we refuse by policy, the host's I/O failed …), *where* it happened (layer, path, [`Place`]) and *what to do*
//! (the hint). [`Kind`] is small and stable, so that callers can match on it; the text may change freely.

use std::fmt;
use std::io;
use std::sync::Arc;

pub use crate::error_code::ErrorCode;

/// The hint of an error that only a defect of winject can cause.
pub(crate) const DEFECT_HINT: &str = "this is a defect of winject; nothing was written; please report it";

/// Result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an [`Error`] is. Each kind has one exit code of the command, see the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The command line or a configuration file makes no sense.
    Usage,
    /// It could be done, but must not: hibernated, unclean or dirty volume, encrypted, dynamic disk, image in use, several
    /// Windows installations and none chosen.
    Refused,
    /// The input is legal, but winject does not support it (yet); or it is not a disk image.
    Unsupported,
    /// The disk is fine but holds no Windows installation.
    NotWindows,
    /// The image contradicts its own format.
    Damaged,
    /// Driver media: folder missing, nothing for this Windows, wrong CPU, unsigned.
    Drivers,
    /// The host failed: read-only file, no space, read error.
    Io,
    /// The staged disk is not as planned, or would not boot. Nothing was written.
    Verify,
    /// An earlier, interrupted run left a journal which has to be dealt with first.
    Pending,
    /// A saved plan no longer fits the image, which has changed since. A new plan can succeed.
    Stale,
    /// The caller asked the job to stop (see [`Cancel`](crate::Cancel)), and it left everything as it was.
    Cancelled,
    /// A defect of winject itself.
    Bug,
}

impl Kind {
    /// Its stable name for programs, such as `not_windows`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::NotWindows => "not_windows",
            Self::Damaged => "damaged",
            Self::Drivers => "drivers",
            Self::Io => "io",
            Self::Verify => "verify",
            Self::Pending => "pending",
            Self::Stale => "stale",
            Self::Cancelled => "cancelled",
            Self::Bug => "bug",
        }
    }

    /// The code of an error of this kind that has none of its own.
    #[must_use]
    pub fn general_code(self) -> ErrorCode {
        match self {
            Self::Usage => ErrorCode::Usage,
            Self::Refused => ErrorCode::Refused,
            Self::Unsupported => ErrorCode::Unsupported,
            Self::NotWindows => ErrorCode::NoWindows,
            Self::Damaged => ErrorCode::Damaged,
            Self::Drivers => ErrorCode::Drivers,
            Self::Io => ErrorCode::Io,
            Self::Verify => ErrorCode::VerifyFailed,
            Self::Pending => ErrorCode::JournalPending,
            Self::Stale => ErrorCode::PlanStale,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::Bug => ErrorCode::Defect,
        }
    }
}

/// The part of the program in which an error arose. Names are those of the source folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layer {
    /// Arguments and configuration files.
    Cli,
    /// Jobs: inject, convert, check.
    Job,
    /// Plan, apply, verify.
    Plan,
    /// Windows inspection and registration.
    Windows,
    /// Driver media, INF, PE, catalogues.
    Drivers,
    /// BitLocker volumes.
    BitLocker,
    /// NTFS volumes.
    Ntfs,
    /// Registry hives.
    Hive,
    /// ISO 9660 and UDF.
    Iso,
    /// WIM files.
    Wim,
    /// Partition tables.
    Partition,
    /// Containers, stage, commit.
    Block,
    /// NBD servers.
    Nbd,
    /// Files of the host.
    Host,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cli => "command line",
            Self::Job => "job",
            Self::Plan => "plan",
            Self::Windows => "windows",
            Self::Drivers => "drivers",
            Self::BitLocker => "bitlocker",
            Self::Ntfs => "ntfs",
            Self::Hive => "hive",
            Self::Iso => "iso",
            Self::Wim => "wim",
            Self::Partition => "partition",
            Self::Block => "block",
            Self::Nbd => "nbd",
            Self::Host => "host",
        })
    }
}

/// Where in the image, or in a file, an [`Error`] arose. A plain `u64` is a byte offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// Byte offset in the image, or in the file that the path names.
    Offset(u64),
    /// Byte offset from the start of the structure that was being parsed. Who knows where the structure lies makes an
    /// offset of it with [`Error::inside`].
    Inner(u64),
    /// Byte offset in the guest's disk, wherever the container stores it.
    DiskOffset(u64),
    /// Byte offset from the start of a partition.
    VolumeOffset(u64),
    /// Number of a record in the master file table.
    Record(u64),
    /// Cluster number inside one attribute.
    Vcn(u64),
    /// Cluster number on the volume, or in a container of clusters.
    Cluster(u64),
    /// Number of a bit in a bitmap.
    Bit(u64),
    /// Number of a sector.
    Sector(u64),
    /// Number of a line in a text, the first being 1.
    Line(u64),
}

impl Place {
    /// The byte offset, if it is one.
    #[must_use]
    pub fn offset(self) -> Option<u64> {
        match self {
            Self::Offset(offset) | Self::Inner(offset) | Self::DiskOffset(offset) | Self::VolumeOffset(offset) => {
                Some(offset)
            }
            _ => None,
        }
    }
}

impl From<u64> for Place {
    fn from(offset: u64) -> Self {
        Self::Offset(offset)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offset(offset) => write!(f, "offset {offset:#x}"),
            Self::Inner(offset) => write!(f, "offset {offset:#x} of the structure"),
            Self::DiskOffset(offset) => write!(f, "disk offset {offset:#x}"),
            Self::VolumeOffset(offset) => write!(f, "volume offset {offset:#x}"),
            Self::Record(number) => write!(f, "MFT record {number}"),
            Self::Vcn(number) => write!(f, "VCN {number}"),
            Self::Cluster(number) => write!(f, "cluster {number}"),
            Self::Bit(number) => write!(f, "bit {number}"),
            Self::Sector(number) => write!(f, "sector {number}"),
            Self::Line(number) => write!(f, "line {number}"),
        }
    }
}

/// A failure with its place and its remedy.
///
/// ```
/// use winject::internals::error::{Error, Kind, Layer};
/// let error = Error::damaged(Layer::Ntfs, "MFT record has no FILE signature")
///     .at(0xC000_0000_u64)
///     .path("/Windows")
///     .expected_found("FILE", "BAAD")
///     .hint("run chkdsk in the guest and export the disk again");
/// assert_eq!(error.kind(), Kind::Damaged);
/// assert!(error.to_string().contains("expected FILE, found BAAD"));
/// ```
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: Kind,
    code: Option<ErrorCode>,
    layer: Layer,
    message: String,
    path: Option<String>,
    place: Option<Place>,
    expected_found: Option<(String, String)>,
    hint: Option<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync + 'static>>,
}

impl Error {
    /// A new error of any kind.
    #[must_use]
    pub fn new(kind: Kind, layer: Layer, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            code: None,
            layer,
            message: message.into(),
            path: None,
            place: None,
            expected_found: None,
            hint: None,
            source: None,
        }))
    }

    /// A new [`Kind::Damaged`] error.
    #[must_use]
    pub fn damaged(layer: Layer, message: impl Into<String>) -> Self {
        Self::new(Kind::Damaged, layer, message)
    }

    /// A new [`Kind::Unsupported`] error.
    #[must_use]
    pub fn unsupported(layer: Layer, message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, layer, message)
    }

    /// A new [`Kind::Refused`] error. Every refusal should also get a [`hint`](Self::hint).
    #[must_use]
    pub fn refused(layer: Layer, message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, layer, message)
    }

    /// A new [`Kind::Io`] error around one of the operating system. The error of an NBD export or of a cancelled read, which a
    /// storage passes through [`io::Error`], is returned as it is: it says all, and the message here would speak of a file.
    #[must_use]
    pub fn io(layer: Layer, message: impl Into<String>, source: std::io::Error) -> Self {
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<Self>());
        if let Some(error) = inner.filter(|error| error.layer() == Layer::Nbd || error.kind() == Kind::Cancelled) {
            return error.clone();
        }
        Self::new(Kind::Io, layer, message).source_error(source)
    }

    /// A new [`Kind::Bug`] error: a state that winject's own code must never reach.
    #[must_use]
    pub fn bug(layer: Layer, message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, layer, message).hint(DEFECT_HINT)
    }

    /// Names the error more exactly than its kind does. The innermost code wins.
    ///
    /// ```
    /// use winject::internals::error::{Error, ErrorCode, Kind, Layer};
    /// let error = Error::refused(Layer::Ntfs, "the volume is marked dirty");
    /// assert_eq!(error.code(), ErrorCode::Refused);
    /// assert_eq!(error.with_code(ErrorCode::VolumeDirty).code().name(), "volume-dirty");
    /// ```
    #[must_use]
    pub fn with_code(mut self, code: ErrorCode) -> Self {
        self.0.code.get_or_insert(code);
        self
    }

    /// Adds the path (in the guest or on the host) that the error is about. The innermost path wins.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.0.path.get_or_insert(path.into());
        self
    }

    /// Puts the path of the container before the path: an image before the file in it.
    #[must_use]
    pub fn within(mut self, holder: impl fmt::Display) -> Self {
        self.0.path = Some(match self.0.path.take() {
            Some(path) => format!("{holder}/{path}"),
            None => holder.to_string(),
        });
        self
    }

    /// Adds where it happened. The innermost place wins.
    ///
    /// ```
    /// use winject::internals::error::{Error, Layer, Place};
    /// let error = Error::damaged(Layer::Ntfs, "a run without a length").at(Place::Record(41));
    /// assert_eq!(error.to_string(), "ntfs: a run without a length at MFT record 41");
    /// ```
    #[must_use]
    pub fn at(mut self, place: impl Into<Place>) -> Self {
        self.0.place.get_or_insert(place.into());
        self
    }

    /// Says where the structure lies in which the error arose: an offset in the structure ([`Place::Inner`]) is added
    /// to `start`, an error without a place gets `start` itself, and any other place stays.
    ///
    /// ```
    /// use winject::internals::error::{Error, Layer, Place};
    /// let error = Error::damaged(Layer::Ntfs, "an attribute is cut off").at(Place::Inner(0x80));
    /// assert_eq!(error.inside(0x5400_u64).to_string(), "ntfs: an attribute is cut off at offset 0x5480");
    /// ```
    #[must_use]
    pub fn inside(mut self, start: impl Into<Place>) -> Self {
        let start = start.into();
        let place = match (self.0.place, start) {
            (None, start) => start,
            (Some(Place::Inner(inner)), Place::Offset(start)) => Place::Offset(start.saturating_add(inner)),
            (Some(Place::Inner(inner)), Place::Inner(start)) => Place::Inner(start.saturating_add(inner)),
            (Some(Place::Inner(inner)), Place::DiskOffset(start)) => Place::DiskOffset(start.saturating_add(inner)),
            (Some(Place::Inner(inner)), Place::VolumeOffset(start)) => Place::VolumeOffset(start.saturating_add(inner)),
            (Some(Place::Inner(_)), start) => start,
            (Some(place), _) => place,
        };
        self.0.place = Some(place);
        self
    }

    /// Like [`inside`](Self::inside) for a structure that lies in several pieces: `locate` turns the offset in the
    /// structure (0 for an error without a place) into one of the image; where it cannot, the error stays as it is.
    #[must_use]
    pub fn inside_pieces(mut self, locate: impl FnOnce(u64) -> Option<u64>) -> Self {
        let inner = match self.0.place {
            None => 0,
            Some(Place::Inner(inner)) => inner,
            Some(_) => return self,
        };
        if let Some(offset) = locate(inner) {
            self.0.place = Some(Place::Offset(offset));
        }
        self
    }

    /// Replaces the path: for an innermost path that names something that was only searched for.
    #[must_use]
    pub fn replace_path(mut self, path: impl Into<String>) -> Self {
        self.0.path = Some(path.into());
        self
    }

    /// Adds what the format demands and what was found.
    #[must_use]
    pub fn expected_found(mut self, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        self.0.expected_found.get_or_insert((expected.to_string(), found.to_string()));
        self
    }

    /// Adds what the user can do about it. The innermost hint wins.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert(hint.into());
        self
    }

    /// Sets the hint, whether or not there is one.
    #[must_use]
    pub fn replace_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn source_error(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// The kind, to match on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Its stable name: the one that it was given, else what the host or an error of the same kind that caused it is called,
    /// else that of its kind.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        let of_source = || {
            let source = self.0.source.as_deref()?;
            if let Some(error) = source.downcast_ref::<io::Error>() {
                return host_code(error.kind());
            }
            let cause = source.downcast_ref::<Error>().filter(|cause| cause.kind() == self.kind())?;
            Some(cause.code())
        };
        self.0.code.or_else(of_source).unwrap_or_else(|| self.kind().general_code())
    }

    /// What the format demands and what was found, if the error is about that.
    #[must_use]
    pub fn expected_found_texts(&self) -> Option<(&str, &str)> {
        self.0.expected_found.as_ref().map(|(expected, found)| (expected.as_str(), found.as_str()))
    }

    /// The layer in which the error arose.
    #[must_use]
    pub fn layer(&self) -> Layer {
        self.0.layer
    }

    /// What the user can do about it; `None` where there is nothing to advise.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Where in the image or file it happened, if known.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.0.place
    }

    /// The byte offset at which it happened; `None` if the place is unknown or not a byte offset.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.place?.offset()
    }

    /// Path in the guest or on the host that the error is about, if known.
    #[must_use]
    pub fn path_text(&self) -> Option<&str> {
        self.0.path.as_deref()
    }
}

impl Error {
    /// The text as a part of the message of another error, of `layer` and about `path`: what that error says already is
    /// left out.
    #[must_use]
    pub(crate) fn text_within(&self, layer: Layer, path: impl fmt::Display) -> String {
        Within { error: self, layer: Some(layer), path: Some(&path.to_string()) }.to_string()
    }
}

/// What an error of the operating system is called, if there is more to say than that the host failed.
fn host_code(kind: io::ErrorKind) -> Option<ErrorCode> {
    use io::ErrorKind as Host;
    match kind {
        Host::NotFound => Some(ErrorCode::FileNotFound),
        Host::PermissionDenied | Host::ReadOnlyFilesystem => Some(ErrorCode::PermissionDenied),
        Host::StorageFull | Host::QuotaExceeded | Host::FileTooLarge => Some(ErrorCode::NoSpace),
        _ => None,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Within { error: self, layer: None, path: None }.fmt(f)
    }
}

/// An error as the cause of another one, whose layer and path it does not repeat.
struct Within<'a> {
    error: &'a Error,
    layer: Option<Layer>,
    path: Option<&'a str>,
}

impl fmt::Display for Within<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, layer, message, path, place, expected_found, source, .. } = &*self.error.0;
        // For what was typed, or asked of a job, the layer would add nothing.
        if *kind != Kind::Usage && !matches!(layer, Layer::Cli | Layer::Job) && self.layer != Some(*layer) {
            write!(f, "{layer}: ")?;
        }
        if let Some(path) = path.as_deref().filter(|path| self.path != Some(path)) {
            write!(f, "{path}: ")?;
        }
        f.write_str(message)?;
        if let Some((expected, found)) = expected_found {
            write!(f, " (expected {expected}, found {found})")?;
        }
        if let Some(place) = place {
            write!(f, " at {place}")?;
        }
        let Some(source) = source else { return Ok(()) };
        match source.downcast_ref::<Error>() {
            Some(error) => {
                let path = path.as_deref().or(self.path);
                write!(f, ": {}", Within { error, layer: Some(*layer), path })
            }
            None => {
                // The standard library adds the host's number of the error, which tells a person nothing.
                let text = source.to_string();
                let end = text.rfind(" (os error ").filter(|_| text.ends_with(')'));
                write!(f, ": {}", end.and_then(|end| text.get(..end)).unwrap_or(&text))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_code_of_the_same_kind_names_an_error() {
        let full = || Error::io(Layer::Block, "cannot write", io::ErrorKind::StorageFull.into());
        assert_eq!(full().code(), ErrorCode::NoSpace);
        assert_eq!(Error::new(Kind::Io, Layer::Job, "cannot copy").source_error(full()).code(), ErrorCode::NoSpace);
        let pending = Error::new(Kind::Pending, Layer::Block, "interrupted").source_error(full());
        assert_eq!(pending.code(), ErrorCode::JournalPending);
        let twice = Error::refused(Layer::Host, "x").with_code(ErrorCode::HardLinks).with_code(ErrorCode::ImageInUse);
        assert_eq!(twice.code(), ErrorCode::HardLinks);
    }

    #[test]
    fn what_a_storage_says_of_an_export_is_not_said_of_a_file() {
        let inner = |kind, layer| Error::new(kind, layer, "why").path("nbd://h").with_code(ErrorCode::NbdServer);
        let outer = |error| Error::io(Layer::Block, "cannot read the file", io::Error::other(error)).path("nbd://h");
        assert_eq!(outer(inner(Kind::Io, Layer::Nbd)).to_string(), "nbd: nbd://h: why");
        assert_eq!(outer(inner(Kind::Cancelled, Layer::Job)).kind(), Kind::Cancelled);
        assert!(outer(inner(Kind::Damaged, Layer::Ntfs)).to_string().contains("cannot read the file"));
    }

    #[test]
    fn a_cause_does_not_repeat_layer_and_path() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let cause = || Error::io(Layer::Block, "cannot write to the image", full()).path("i.qcow2");
        let outer = |layer| Error::new(Kind::Pending, layer, "the undo was interrupted").path("i.qcow2");
        let once = "block: i.qcow2: the undo was interrupted: cannot write to the image: no storage space";
        assert_eq!(outer(Layer::Block).source_error(cause()).to_string(), once);
        // Twice wrapped, and by an error without a path.
        let twice = Error::new(Kind::Pending, Layer::Block, "cannot recover").source_error(cause());
        let twice = outer(Layer::Block).source_error(twice).to_string();
        assert_eq!(twice, once.replace("cannot write", "cannot recover: cannot write"));
        // What is new is said.
        let other = outer(Layer::Host).source_error(cause()).to_string();
        assert_eq!(other, once.replacen("block", "host", 1).replace("cannot write", "block: cannot write"));
        let other = outer(Layer::Block).source_error(cause().replace_path("data.raw")).to_string();
        assert_eq!(other, once.replace("cannot write", "data.raw: cannot write"));
        let text = cause().text_within(Layer::Block, "i.qcow2");
        assert_eq!(text, "cannot write to the image: no storage space");
    }
}
