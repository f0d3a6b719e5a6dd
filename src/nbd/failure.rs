//! What goes wrong between a client and a server.

use std::fmt;
use std::io;
use std::path::Path;

use super::uri::NbdUri;
use crate::cancel::cancelled;
use crate::error::{Error, ErrorCode, Kind, Layer};
use crate::escape::{escape, shell_argument};

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The connection ended or stalled: another one may succeed.
    Lost(String),
    /// The server answered with an error: its number (those of Linux), and its text.
    Refused(u32, String),
    /// The server does not keep to the protocol. The connection is of no more use.
    Protocol(String),
    /// Since a connection was lost, the server exports another disk under the same name: how it differs.
    Changed(String),
    /// The job was asked to stop.
    Cancelled,
}

/// The error number of a server that shuts down.
const SHUTDOWN: u32 = 108;

impl Failure {
    /// The failure that an error of a connection stands for.
    pub(super) fn lost(error: &io::Error) -> Self {
        if let Some(failure) = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            return failure.clone();
        }
        Self::Lost(match error.kind() {
            io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
            _ => {
                // The standard library adds the host's number of the error, which tells a person nothing.
                let text = error.to_string();
                text.split(" (os error ").next().unwrap_or_default().to_owned()
            }
        })
    }

    pub(super) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
    }

    /// Whether another connection may succeed.
    pub(super) fn is_loss(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Refused(SHUTDOWN, _))
    }

    /// The error of reading an export, for those who read it through [`Storage`](crate::host::Storage):
    /// [`Error::io`] passes it on as it is.
    pub(super) fn into_read_error(self, uri: &NbdUri) -> io::Error {
        io::Error::other(self.into_error("cannot read the export", uri))
    }

    /// The error of the job: what could not be done, and why.
    pub(super) fn into_error(self, what: &str, uri: &NbdUri) -> Error {
        let name = shell_argument(Path::new(&uri.to_string()), "URI");
        let (code, hint) = match &self {
            Self::Cancelled => return cancelled(),
            Self::Lost(_) => {
                (Some(ErrorCode::NbdUnreachable), format!("see whether the server answers: nbdinfo {name}"))
            }
            Self::Refused(..) => (None, format!("see whether another client can read it: nbdcopy {name} null:")),
            Self::Protocol(_) => (
                Some(ErrorCode::NbdServer),
                "serve the image with another server, such as nbdkit or qemu-nbd".to_owned(),
            ),
            Self::Changed(_) => (
                Some(ErrorCode::NbdServer),
                "run the command again when the server exports the disk that you mean".to_owned(),
            ),
        };
        let error = Error::new(Kind::Io, Layer::Nbd, format!("{what}: {self}")).path(uri.to_string()).hint(hint);
        match code {
            Some(code) => error.with_code(code),
            None => error,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::lost(&error)
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        let kind = match &failure {
            Failure::Lost(_) => io::ErrorKind::ConnectionAborted,
            Failure::Refused(..) => io::ErrorKind::Other,
            Failure::Protocol(_) | Failure::Changed(_) => io::ErrorKind::InvalidData,
            // Not `Interrupted`, which means to try again.
            Failure::Cancelled => io::ErrorKind::Other,
        };
        Self::new(kind, failure)
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(why) => write!(f, "connection to the NBD server lost: {}", escape(why)),
            Self::Refused(code, text) if text.is_empty() => write!(f, "the NBD server reports: {}", name_of(*code)),
            Self::Refused(code, text) => {
                write!(f, "the NBD server reports: {} ({})", name_of(*code), escape(text))
            }
            Self::Protocol(what) => write!(f, "the NBD server breaks the protocol: {}", escape(what)),
            Self::Changed(how) => {
                write!(f, "since the connection was lost, the NBD server exports another disk under this name ({how})")
            }
            Self::Cancelled => f.write_str("interrupted"),
        }
    }
}

/// The text of an error number of the protocol; all others mean EINVAL.
fn name_of(code: u32) -> &'static str {
    match code {
        1 => "operation not permitted",
        5 => "input/output error",
        12 => "out of memory",
        28 => "no space left",
        75 => "value too large",
        95 => "operation not supported",
        108 => "the server is shutting down",
        _ => "invalid argument",
    }
}
