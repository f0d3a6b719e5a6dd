//! What a person sees: help, errors, exit codes, signals, snapshots of whole outputs.

mod damage;
mod devices;
mod document;
mod files;
mod locks;
mod recover;
mod signals;
mod snapshot;
mod undo;
mod usage;

tests![in damage, devices, document, files, locks, recover, signals, snapshot, undo, usage;];
