//! Undo journals of in-place commits, the undo records that they become, and the markers of external data files.

mod export;
mod marker;
mod owner;
mod path;
mod pending;
mod reader;
mod record;
mod writer;

pub(super) use export::refuse_pending_export;
pub(super) use marker::{create as create_marker, remove as remove_marker};
pub(super) use path::{creation_hint, file_of_journal, journal_hint, journal_of_real_path, record_of_real_path};
pub use path::{journal_path, undo_path};
pub(super) use pending::{
    RecoveryState, clear, command_on, pending, pending_data_file, recover_hint, recovery_state, refuse_foreign_record,
    refuse_pending, retry_hint, unusable_export_hint, unusable_hint,
};
pub(super) use reader::Journal;
pub(super) use record::{Entry, JournalFile, PIECE_MAX, Purpose, Record, SECTOR, sector_sums};
pub(super) use writer::{JournalWriter, remove, turn_back};
