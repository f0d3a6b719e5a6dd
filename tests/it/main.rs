//! All integration tests, in one binary: one module for each layer.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod support;

mod block;
mod cli;
mod convert;
mod drivers;
mod formats;
mod hive;
mod inject;
mod iso;
mod ntfs;
mod ntfs_check;
mod partition;
mod windows;
