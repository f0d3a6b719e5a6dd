//! What a person sees: help, errors, exit codes, snapshots of whole outputs.

mod config;
mod files;
mod snapshot;
mod usage;
