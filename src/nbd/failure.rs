//! What goes wrong between a client and a server.

use std::fmt;
use std::io;

use crate::escape::escape;

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The connection ended or stalled: another one may succeed.
    Lost(String),
    /// The server answered with an error: its number (those of Linux), and its text.
    Refused(u32, String),
    /// The server does not keep to the protocol. The connection is of no more use.
    Protocol(String),
}

impl Failure {
    pub(super) fn lost(error: &io::Error) -> Self {
        Self::Lost(match error.kind() {
            io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
            _ => error.to_string(),
        })
    }

    pub(super) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
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
            Failure::Protocol(_) => io::ErrorKind::InvalidData,
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
