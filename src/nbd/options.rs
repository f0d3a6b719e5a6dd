//! How an export is read, and edited.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cancel::Cancel;

/// How an export is read.
#[derive(Debug, Clone)]
pub struct NbdOptions {
    /// Reads of 2 MiB that are in flight at once, when a disk is read from one end to the other.
    pub requests: usize,
    /// How long the server may take to finish an answer, or a good piece of one, while it owes one.
    pub patience: Duration,
    /// Waits before the attempts to connect again after a connection was lost. An answer between two losses begins the list
    /// anew; at its end the server is given up.
    pub retries: Vec<Duration>,
    /// Ends every wait for the server when the job is asked to stop.
    pub cancel: Cancel,
    /// Told when a connection is being made again.
    pub status: StatusHook,
    /// Folder for the journals of edits in place: a server has no place for them. `None`: no export is edited in place, and no
    /// interrupted edit is noticed.
    pub journals: Option<PathBuf>,
    /// Whether the export may be edited in place: what is read is remembered then, so that the edit can tell whether it is
    /// still the same.
    pub is_edited: bool,
}

impl Default for NbdOptions {
    fn default() -> Self {
        let retries = [1, 2, 5, 15, 30].map(Duration::from_secs).to_vec();
        Self {
            requests: 8,
            patience: Duration::from_secs(60),
            retries,
            cancel: Cancel::default(),
            status: StatusHook::default(),
            journals: None,
            is_edited: true,
        }
    }
}

type Tell = dyn Fn(Option<&str>) + Send + Sync;

/// A callback for what a connection is waiting for; does nothing by default.
#[derive(Clone, Default)]
pub struct StatusHook(Option<Arc<Tell>>);

impl StatusHook {
    /// Calls `tell` with a text for people when a connection has to be made again, and with `None` when it is made.
    pub fn new(tell: impl Fn(Option<&str>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(super) fn tell(&self, status: Option<&str>) {
        if let Some(tell) = &self.0 {
            tell(status);
        }
    }
}

impl fmt::Debug for StatusHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StatusHook").field(&self.0.is_some()).finish()
    }
}
