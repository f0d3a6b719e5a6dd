//! What a person sees: help, errors, exit codes, signals, snapshots of whole outputs.

mod document;
mod files;
mod signals;
mod snapshot;
mod usage;

tests![in document, files, signals, snapshot, usage;];
