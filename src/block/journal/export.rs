//! Exports that an interrupted edit left half written: their journal is in a folder of this machine.

use std::path::Path;

use super::pending::{RecoveryState, pending, recovery_state};
use crate::error::Result;
use crate::host::HostFiles;
use crate::nbd::{ExportHost, NbdOptions};

/// Refuses an export that an interrupted run may have left half written, or that another process is editing, as far as this
/// machine knows. No connection is made.
///
/// # Errors
/// [`Kind::Pending`](crate::Kind::Pending) and [`Kind::Refused`](crate::Kind::Refused).
pub(crate) fn refuse_pending_export(name: &Path, options: &NbdOptions) -> Result<()> {
    if options.journals.is_none() {
        return Ok(());
    }
    let host = ExportHost::new(name, options)?;
    host.refuse_edited()?;
    match recovery_state(&host, &host.real_path(name), None)? {
        RecoveryState::Clear | RecoveryState::Unused => Ok(()),
        RecoveryState::Journal | RecoveryState::DataFileOf(_) => Err(pending(&host, name)),
    }
}
