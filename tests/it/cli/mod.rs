//! What a person sees: help, errors, exit codes, signals, snapshots of whole outputs.

mod damage;
mod devices;
mod document;
mod exit_codes;
mod explain;
mod files;
mod grammar;
mod hints;
mod locks;
mod manual;
pub mod recover;
pub mod sandbox;
mod schema;
mod signals;
mod snapshot;
mod undo;
mod usage;

use std::path::Path;
use std::process::Output;

/// What winject answers to these arguments in this folder.
fn answer(folder: &Path, arguments: &[&str]) -> Output {
    crate::inject::winject().current_dir(folder).args(arguments).output().unwrap()
}

tests![in damage, devices, document, exit_codes, explain, files, grammar, hints, locks, manual, recover, sandbox, schema, signals, snapshot, undo, usage;];
