//! One error type for every layer.
//!
//! An [`Error`] always answers three questions: *what kind* of failure it is (the image is damaged, we do not support
//! it, we refuse by policy, the host's I/O failed …), *where* it happened (layer, path, byte offset) and *what to do*
//! (the hint). [`Kind`] is small and stable, so that callers can match on it; the text may change freely.

use std::fmt;

/// Result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an [`Error`] is. Each kind has one exit code, see [`crate::exit::ExitCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The command line or a configuration file makes no sense.
    Usage,
    /// We could, but must not: hibernated, unclean or dirty volume, encrypted, dynamic disk, image in use, several
    /// Windows installations and none chosen, in-place edit without being asked.
    Refused,
    /// A legal thing that winject does not handle (yet), or no disk image at all.
    Unsupported,
    /// The disk is fine but holds no Windows installation.
    NotWindows,
    /// The image contradicts its own format.
    Damaged,
    /// Driver media: folder missing, nothing for this Windows, wrong CPU, unsigned.
    Drivers,
    /// The host failed: read-only file, no space, read error.
    Io,
    /// What was staged is not what was planned. Nothing was written.
    Verify,
    /// An earlier, interrupted run left a journal which has to be dealt with first.
    Pending,
    /// The caller asked the job to stop (see [`crate::cancel`]), and it left everything as it was.
    Cancelled,
    /// A defect of winject itself.
    Bug,
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
    /// NTFS.
    Ntfs,
    /// Registry hives.
    Hive,
    /// ISO 9660 and UDF.
    Iso,
    /// Partition tables.
    Partition,
    /// Containers, stage, commit.
    Block,
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
            Self::Ntfs => "ntfs",
            Self::Hive => "hive",
            Self::Iso => "iso",
            Self::Partition => "partition",
            Self::Block => "block",
            Self::Host => "host",
        })
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
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    layer: Layer,
    message: String,
    path: Option<String>,
    offset: Option<u64>,
    expected_found: Option<(String, String)>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
}

impl Error {
    /// A new error of any kind.
    #[must_use]
    pub fn new(kind: Kind, layer: Layer, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            layer,
            message: message.into(),
            path: None,
            offset: None,
            expected_found: None,
            hint: None,
            source: None,
        }))
    }

    /// [`Kind::Damaged`].
    #[must_use]
    pub fn damaged(layer: Layer, message: impl Into<String>) -> Self {
        Self::new(Kind::Damaged, layer, message)
    }

    /// [`Kind::Unsupported`].
    #[must_use]
    pub fn unsupported(layer: Layer, message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, layer, message)
    }

    /// [`Kind::Refused`]. Every refusal should also get a [`hint`](Self::hint).
    #[must_use]
    pub fn refused(layer: Layer, message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, layer, message)
    }

    /// [`Kind::Io`] around an operating-system error.
    #[must_use]
    pub fn io(layer: Layer, message: impl Into<String>, source: std::io::Error) -> Self {
        Self::new(Kind::Io, layer, message).source_error(source)
    }

    /// [`Kind::Bug`]: a state that our own code must never reach.
    #[must_use]
    pub fn bug(layer: Layer, message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, layer, message).hint("this is a defect of winject; nothing was written; please report it")
    }

    /// Adds the path (in the guest or on the host) that the error is about. The innermost path wins.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.0.path.get_or_insert(path.into());
        self
    }

    /// Puts what holds the path before it: an image before the file in it.
    #[must_use]
    pub fn within(mut self, holder: impl fmt::Display) -> Self {
        self.0.path = Some(match self.0.path.take() {
            Some(path) => format!("{holder}/{path}"),
            None => holder.to_string(),
        });
        self
    }

    /// Adds the byte offset in the layer's own address space. The innermost offset wins.
    #[must_use]
    pub fn at(mut self, offset: impl Into<u64>) -> Self {
        self.0.offset.get_or_insert(offset.into());
        self
    }

    /// Replaces the byte offset: one inside a structure by the same place in what holds the structure.
    #[must_use]
    pub fn relocate(mut self, offset: u64) -> Self {
        self.0.offset = Some(offset);
        self
    }

    /// Replaces the path, where the innermost one names something that was only looked for.
    #[must_use]
    pub fn replace_path(mut self, path: impl Into<String>) -> Self {
        self.0.path = Some(path.into());
        self
    }

    /// Adds what the format demands and what was there.
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

    /// Adds the error that caused this one.
    #[must_use]
    pub fn source_error(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The layer in which the error arose.
    #[must_use]
    pub fn layer(&self) -> Layer {
        self.0.layer
    }

    /// The remedy, if there is one.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The byte offset, if known.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The path, if known.
    #[must_use]
    pub fn path_text(&self) -> Option<&str> {
        self.0.path.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { layer, message, path, offset, expected_found, source, .. } = &*self.0;
        write!(f, "{layer}: ")?;
        if let Some(path) = path {
            write!(f, "{path}: ")?;
        }
        f.write_str(message)?;
        if let Some((expected, found)) = expected_found {
            write!(f, " (expected {expected}, found {found})")?;
        }
        if let Some(offset) = offset {
            write!(f, " at offset {offset:#x}")?;
        }
        if let Some(source) = source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}
